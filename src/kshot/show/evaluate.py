"""The page and the terminal's text of ``kshot evaluate-lm``. It reads records and computes nothing."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from kshot.show import words
from kshot.show.explain_rows import finite
from kshot.show.plain import plain_lines
from kshot.show.templates import templates
from kshot.show.words import Row


def page(kshot: Mapping[str, Any]) -> str:
    """The page as HTML text, one self-contained file, the same for the same record (the value of ``kshot`` in results.json)."""
    return templates().get_template("evaluate.html.j2").render(_view(finite(words.clean(kshot))))


def text(kshot: Mapping[str, Any]) -> str:
    """Perplexity and bits per byte of every text and context, in lines of at most 100 columns."""
    ours = finite(words.clean(kshot))
    console, printed = plain_lines()
    console.print(answer(ours))
    table = Table(box=None, pad_edge=False)
    for name in ("text", "context", "stride"):
        table.add_column(name)
    for name in ("perplexity", "bits per byte", "tokens", "tokens/s"):
        table.add_column(name, justify="right")
    for row in lines(ours):
        table.add_row(*row.values())
    console.print(table)
    return printed()


def answer(kshot: Row) -> str:
    """The perplexity of every text at the longest context that was read, or why there is none."""
    found, why = dict[str, Row](), dict[str, str]()
    for row in kshot.get("measures") or ():
        if row["measure"] == "perplexity" and row["value"] is not None:
            found[row["task"]] = row
        elif row["measure"] == "perplexity" and row["reason"]:
            why[row["task"]] = row["reason"]
    model = kshot["model"]["name"]
    said = [f"{words.four(row['value'])} on {name} ({row['variant']})" for name, row in found.items()]
    if said:
        return f"Perplexity of {model}: {words.listed(said)}."
    none = [f"{name}: {reason}" for name, reason in why.items()]
    return f"{model} has no perplexity; {'; '.join(none)}." if none else "Nothing was measured."


def lines(kshot: Row) -> list[dict[str, str]]:
    """A row of the table for every text and context."""
    rows = {(row["task"], row["variant"], row["measure"]): row for row in kshot.get("measures") or ()}
    found = []
    for cell in kshot.get("cells") or ():
        own = [key for key in rows if key[0] == cell["task"] and key[1].startswith(f"context {cell['part']},")]
        if not own:
            said = str(cell.get("failed") or "not measured")
            found.append(_row(cell, "", said, "", ""))
            continue
        variant = own[0][1]
        one, bits = (rows[cell["task"], variant, name] for name in ("perplexity", "bits_per_byte"))
        interval = "" if one["low"] is None else f" ({words.four(one['low'])} to {words.four(one['high'])})"
        value = str(one["reason"] or "") if one["value"] is None else words.four(one["value"]) + interval
        spent = float(cell.get("seconds") or 0)
        pace = words.count(cell["tokens"] / spent) if spent and cell.get("tokens") else ""
        told = "" if bits["value"] is None else f"{bits['value']:.3f}"
        found.append(_row(cell, variant.rpartition("stride ")[2], value, told, pace))
    return found


def _row(cell: Row, stride: str, value: str, bits: str, pace: str) -> dict[str, str]:
    tokens = cell.get("tokens")
    return {
        "text": str(cell["task"]),
        "context": str(cell["part"]),
        "stride": stride,
        "perplexity": value,
        "bits": bits,
        "tokens": "" if tokens is None else words.count(tokens),
        "pace": pace,
    }


def _view(kshot: Row) -> dict[str, Any]:
    """What the template needs: plain values, every text still to be escaped."""
    version, settings = str(kshot.get("version") or ""), kshot.get("settings") or {}
    names = list(kshot.get("texts") or {})
    return {
        "version": version,
        "kicker": f"kshot evaluate-lm {version}".strip(),
        "title": "How surprised a language model is",
        "asked": [("model", str(kshot["model"]["name"])), ("texts", words.listed(names))],
        "answer": answer(kshot),
        "lines": lines(kshot),
        "notes": [str(note) for note in kshot.get("notes") or ()],
        "command": words.command(kshot.get("argv")),
        "model": words.facts(kshot["model"]),
        "environment": words.facts(kshot.get("environment") or {}),
        "settings": words.facts(settings),
    }
