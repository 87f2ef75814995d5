"""The page and the terminal's text of ``kshot pretrain``. It reads records and computes nothing."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from kshot.show import words
from kshot.show.explain_rows import finite, overall
from kshot.show.plain import plain_lines
from kshot.show.synth import line_figures
from kshot.show.templates import templates
from kshot.show.words import Row

_BY_CONTEXT = ("perplexity", "bits_per_byte")
_OF_TRAINING = ("parameters", "tokens_per_second", "mfu", "validation_loss")
_IN_CONTEXT = {
    "copy_accuracy": "random tokens copied: accuracy",
    "copy_nats": "random tokens copied: nats per token",
    "nats_by_distance": "a pair seen once before: nats",
    "prompt_accuracy": "prompts of the mixture: accuracy",
    "relation_accuracy": "facts of the text: accuracy",
    "influence": "share of what is known at the end of a text",
    "repeated": "runs of four tokens that came before",
    "rank_one": "tokens that were the most probable",
    "order_flips": "prompts of the mixture: answers that another order changes",
}


def page(kshot: Mapping[str, Any]) -> str:
    """The page as HTML text, one self-contained file, the same for the same record (the value of ``kshot`` in results.json)."""
    return templates().get_template("pretrain.html.j2").render(_view(finite(words.clean(kshot))))


def text(kshot: Mapping[str, Any], folder: Path) -> str:
    """What every network came to, and what to do with the best of those in the run's folder, in lines of at most 100 columns."""
    ours = finite(words.clean(kshot))
    console, printed = plain_lines()
    console.print(Text(answer(ours)))
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    columns = _columns(ours)
    for name in columns:
        table.add_column(name, justify="right")
    for row in lines(ours):
        table.add_row(row["name"], *(row["values"][name] for name in columns))
    console.print(table)
    for row in gains(ours):
        console.print(Text(f"{row['name']}: {row['said']}"))
    for note in ours.get("notes") or ():
        console.print(Text(f"Note: {note}"))
    if ours["plan"]["objective"] == "causal" and (saved := _best_saved(ours)):
        console.print(Text(f"Try it: kshot generate {folder / saved}"), soft_wrap=True)
    return printed()


def answer(kshot: Row) -> str:
    """The best network by the loss that it was trained for, and what is below it."""
    corpus, plan = kshot["corpus"], kshot["plan"]
    read = f"After {words.count(plan['tokens'])} tokens of {corpus['name']}"
    known = [row for row in lines(kshot) if row["best"] is not None]
    scored = _scored(kshot)
    if not scored:
        losses = [row for row in _rows(kshot) if row["measure"] == "validation_loss" and row["value"] is not None]
        said = [f"{row['variant']} {row['value']:.3f}" for row in losses]
        return f"{read} the held-out loss is {words.listed(said)} nats." if said else "Nothing was trained."
    least, name = min(scored)
    beside = "; ".join(f"{row['name']} {words.four(row['best'])}" for row in known if row["floor"])
    whose = f"of the best of {len(scored)} networks, {name}," if len(scored) > 1 else f"of {name}"
    return f"{read} the held-out perplexity {whose} is {words.four(least)}" + (f" ({beside})." if beside else ".")


def _scored(kshot: Row) -> list[tuple[float, str]]:
    """Networks by name, with their perplexities at the context where each is best."""
    return [(row["best"], row["name"]) for row in lines(kshot) if row["best"] is not None and not row["floor"]]


def lines(kshot: Row) -> list[dict[str, Any]]:
    """A row of the table for every network, and for what stands below and above them."""
    by_name: dict[str, dict[str, Row]] = {}
    for row in _rows(kshot):
        if row["measure"] in (*_BY_CONTEXT, *_OF_TRAINING):
            name, _, rest = str(row["variant"]).partition(", ")
            key = f"{row['measure']}, {rest}" if row["measure"] in _BY_CONTEXT else row["measure"]
            by_name.setdefault(name, {})[key] = row
    longest = _contexts(kshot)[-1:]
    found = []
    for name, own in by_name.items():
        floor = "parameters" not in own
        values = {}
        for column, key in _columns(kshot).items():
            chosen = own.get(key)
            if chosen is None and floor and key.partition(", ")[2] in longest:
                # What counts, or knows, reads all there is before a token.
                chosen = next((row for at, row in own.items() if at.startswith(key.partition(", ")[0])), None)
            values[column] = "" if chosen is None or chosen["value"] is None else _value(column, chosen["value"])
        best = [row["value"] for key, row in own.items() if key.startswith("perplexity") and row["value"] is not None]
        found.append({"name": name, "values": values, "best": min(best) if best else None, "floor": floor})
    return found


def gains(kshot: Row) -> list[dict[str, str]]:
    """By how much networks are less surprised than the first, at the longest context."""
    longest, found = (_contexts(kshot) or [""])[-1], []
    seen = {row["variant"]: row for row in _rows(kshot) if row["measure"] == "least_gain_seen"}
    for row in _rows(kshot):
        if row["measure"] != "nats_gained" or row["value"] is None or longest not in str(row["variant"]):
            continue
        name, _, base = str(row["variant"]).split(", ")
        way, sign = ("better", 1) if row["value"] >= 0 else ("worse", -1)
        bounds = sorted(sign * row[name] for name in ("low", "high")) if row["low"] is not None else []
        interval = f" (95 %: {bounds[0]:.4f} to {bounds[1]:.4f})".replace("-", "−") if bounds else ""
        said = f"{abs(row['value']):.4f} nats per token {way} than {base.removeprefix('over ')}{interval}"
        if bounds and bounds[0] <= 0:
            said += ", which may be nothing"
        if row.get("seed") is not None:
            said += "; one seed: with another it may differ by more than that"
        if (least := seen.get(row["variant"])) is not None:
            said += (
                f"; {least['n']} seeds tell a true gain of {words.four(least['value'])} from none four times in five"
            )
        found.append({"name": name, "said": said})
    return found


def in_context(kshot: Row) -> tuple[list[str], list[dict[str, Any]]]:
    """Networks by name, what each came to in what is asked of all of them in context, and what they differ by in pairs."""
    names: dict[str, None] = {}
    found: dict[str, dict[str, str]] = {}
    for row in _rows(kshot):
        if row["measure"] in _IN_CONTEXT and row["value"] is not None:
            name, _, rest = str(row["variant"]).partition(", ")
            names[name] = None
            what = f"{_IN_CONTEXT[row['measure']]}{f', {rest}' if rest else ''}"
            null = "" if row.get("null") is None else words.four(row["null"])
            own = found.setdefault(what, {"null": null})
            interval = "" if row["low"] is None else f" ({row['low']:.3g} to {row['high']:.3g})"
            own[name] = f"{row['value']:.3f}{interval}"
    for row in _rows(kshot):
        if row["measure"] == "difference" and row["value"] is not None:
            name, measure, *part, base = str(row["variant"]).split(", ")
            if measure in _IN_CONTEXT:
                pair = f"{name} − {base.removeprefix('over ')}"
                names[pair] = None
                interval = "" if row["low"] is None else f" ({row['low']:.3g} to {row['high']:.3g})"
                said = f"{row['value']:+.3f}{interval}".replace("-", "−")
                found[", ".join([_IN_CONTEXT[measure], *part])][pair] = said
    return list(names), [{"what": what, "values": own} for what, own in found.items()]


def _rows(kshot: Row) -> list[Row]:
    """Rows over seeds where there are several, else those of the seed."""
    return overall(kshot.get("measures") or [])


def _contexts(kshot: Row) -> list[str]:
    """Lengths of context, the shortest first, as variants have them."""
    found = {
        str(row["variant"]).partition(", ")[2] for row in kshot.get("measures") or () if row["measure"] == "perplexity"
    }
    return sorted((own for own in found if own.startswith("context")), key=lambda own: int(own.rpartition(" ")[2]))


def _columns(kshot: Row) -> dict[str, str]:
    """Columns of the table, and what stands in them."""
    contexts = _contexts(kshot)
    by_context = {f"perplexity, {own}": f"perplexity, {own}" for own in contexts}
    bits = {"bits per byte": f"bits_per_byte, {contexts[-1]}"} if contexts else {"held-out loss": "validation_loss"}
    return {"parameters": "parameters", **by_context, **bits, "tokens/s": "tokens_per_second", "MFU": "mfu"}


def _value(column: str, value: words.Number) -> str:
    if column in ("parameters", "tokens/s"):
        return words.count(value)
    if column == "MFU":
        return f"{100 * value:.0f} %"
    return f"{value:.3f}" if column == "bits per byte" else words.four(value)


def _saved(kshot: Row) -> list[Row]:
    return [cell for cell in kshot.get("cells") or () if cell.get("saved")]


def _best_saved(kshot: Row) -> str | None:
    """Where the best network, of the first seed, lies in the folder of the run."""
    best = {name: value for value, name in _scored(kshot)}
    saved = [cell for cell in _saved(kshot) if cell["part"] in best]
    return str(min(saved, key=lambda cell: best[cell["part"]])["saved"]) if saved else None


def _view(kshot: Row) -> dict[str, Any]:
    """What the template needs: plain values, every text still to be escaped, figures as SVG."""
    version, settings, corpus = str(kshot.get("version") or ""), kshot.get("settings") or {}, kshot["corpus"]
    start = str(settings.get("start") or "")
    asked = [
        ("started from", start),
        ("text", f"{corpus['name']}, {words.count(corpus['tokens'])} tokens"),
        ("objective", str(kshot["plan"]["objective"])),
        ("size", str(settings.get("size") or "")),
        ("seeds", words.listed(settings.get("seed") or [])),
    ]
    return {
        "version": version,
        "kicker": f"kshot pretrain {version}".strip(),
        "title": "Language models trained further" if start else "Language models trained from scratch",
        "asked": [(name, said) for name, said in asked if said],
        "answer": answer(kshot),
        "columns": list(_columns(kshot)),
        "lines": lines(kshot),
        "gains": gains(kshot),
        "asked_in_context": in_context(kshot),
        "figures": line_figures(kshot.get("pictures") or (), "curves"),
        "saved": [str(cell["saved"]) for cell in _saved(kshot)],
        "causal": kshot["plan"]["objective"] == "causal",
        "plan": words.facts({**kshot["plan"], **{f"text_{name}": value for name, value in corpus.items()}}),
        "notes": [str(note) for note in kshot.get("notes") or ()],
        "command": words.command(kshot.get("argv")),
        "model": [],
        "environment": words.facts(kshot.get("environment") or {}),
        "settings": words.facts(settings),
    }
