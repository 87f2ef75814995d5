"""The page and the terminal's text of ``kshot explain``. It reads records and computes nothing."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from kshot.show import words
from kshot.show.explain_attributions import agreement, biases, pooled, ranked
from kshot.show.explain_questions import MARKS, questions, replied, told
from kshot.show.explain_rows import Line, beside_published, bounds, controls, corrections, finite
from kshot.show.explain_tasks import explain_task
from kshot.show.plain import WIDTH, plain_lines, print_notes
from kshot.show.templates import templates
from kshot.show.words import Row

# Six tasks stand side by side: a space follows every column.
_NAMES, _COLUMN, _WIDEST = 24, 11, 24
_ASKED = "What do demonstrations do, and why?"
# So many claims of a kind stand in the paragraph; the table below it has them all.
_TOLD = 3


def page(kshot: Mapping[str, Any]) -> str:
    """The page as HTML text, one self-contained file, the same for the same record (the value of ``kshot`` in results.json)."""
    return templates().get_template("explain.html.j2").render(_view(finite(words.clean(kshot))))


def text(kshot: Mapping[str, Any]) -> str:
    """The answer in a paragraph and the table beside the published one, in lines of at most 100 columns."""
    ours = finite(words.clean(kshot))
    console, printed = plain_lines()
    verdicts, replies = _overall(ours), ours.get("replies") or ()
    if verdicts or not replies:
        console.print(Text(answer(verdicts)))
    # A blank line parts a question from what stands above it.
    for line in told(replies)[0 if verdicts else 1 :]:
        console.print(Text(line))
    names = _tasks(ours)
    room = max(1, (WIDTH - _NAMES - 1) // (_COLUMN + 1))
    for begin in range(0, len(names), room):
        own = names[begin : begin + room]
        lines = beside_published(ours.get("measures") or [], own)
        if lines:
            console.print()
            console.print(_table(lines, own))
    print_notes(ours, console)
    return printed()


def _first(kshot: Row) -> str:
    """The paragraph that everything else stands under: the verdicts, else the questions."""
    verdicts, replies = _overall(kshot), kshot.get("replies") or ()
    return answer(verdicts) if verdicts or not replies else replied(replies)


def answer(verdicts: Sequence[Row]) -> str:
    """Whether in-context learning did gradient descent, in one paragraph made of the verdicts.

    Each claim is taken as one of the account that in-context learning is gradient descent.
    """
    groups = {kind: [row for row in verdicts if row.get("verdict") == kind] for kind in MARKS}
    shown, not_shown, against = (len(own) for own in groups.values())
    total = shown + not_shown + against
    if not total:
        return "The record holds no verdict: nothing was judged."
    reply = (
        "Yes, as far as it was tested" if shown == total else "In part" if shown else "No" if against else "Not shown"
    )
    counts = [f"{len(own)} {kind}" for kind, own in groups.items() if own]
    said = [f"{reply}: of {total} {'claim' if total == 1 else 'claims'}, {words.listed(counts)}."]
    if _of_one_set(verdicts):
        said.append("This is said of one set of demonstrations for each task; --seed 0,1,2 tells whether others agree.")
    for kind, own in groups.items():
        if own:
            claims = [_claim(row) for row in own[:_TOLD]]
            more = f"; and {len(own) - _TOLD} more" if len(own) > _TOLD else ""
            said.append(f"{kind.capitalize()}: {'; '.join(claims)}{more}.")
    return " ".join(said)


def _of_one_set(verdicts: Sequence[Row]) -> bool:
    return any(row.get("seeds") == 1 and row.get("verdict") != "not shown" for row in verdicts)


def _claim(row: Row) -> str:
    claim = words.shorten(str(row.get("claim") or "a claim without words").strip().rstrip("."), 160)
    observed = _observed(row)
    return claim if observed == words.DASH else f"{claim} ({observed})"


def _observed(row: Row) -> str:
    observed = row.get("observed")
    said = observed if isinstance(observed, str) else words.decimals(observed)
    interval = bounds({}, row.get("low"), row.get("high"))
    return f"{said or words.DASH}, {interval}" if interval and observed is not None else said or words.DASH


def _table(lines: Sequence[Line], tasks: Sequence[str]) -> Table:
    """Each measure with its interval, its null and the published figures below it."""
    width = max(_COLUMN, min(_WIDEST, (WIDTH - _NAMES - 1) // len(tasks) - 1))
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, pad_edge=False)
    table.add_column("", width=_NAMES)
    for task in tasks:
        table.add_column(Text(_cut(task, width)), justify="right", no_wrap=True, width=width)
    for line in lines:
        cells = line["cells"]
        table.add_row(Text(line["name"]), *(cell["text"] or words.DASH for cell in cells))
        for name, field in (("95 %", "narrow"), ("null", "null")):
            if any(cell[field] for cell in cells):
                table.add_row(Text(f"  {name}"), *(cell[field] for cell in cells))
        models = list(dict.fromkeys(model for cell in cells for model, _ in cell["published"]))
        for model in models:
            found = [dict(cell["published"]).get(model, "") for cell in cells]
            table.add_row(Text(f"  GPT {model}"), *found)
    return table


def _cut(name: str, columns: int) -> str:
    """A name of at most so many columns, of which a character of East Asia takes two."""
    if cell_len(name) <= columns:
        return name
    while cell_len(name) >= columns:
        name = name[:-1]
    return name + "…"


def _tasks(kshot: Row) -> list[str]:
    named = [str(row["task"]) for row in kshot.get("measures") or () if row.get("task")]
    return list(dict.fromkeys([*(kshot.get("tasks") or {}), *named, *(kshot.get("pictures") or {})]))


def _view(kshot: Row) -> dict[str, Any]:
    """What the template needs: plain values, every text still to be escaped, figures as SVG."""
    names, measures = _tasks(kshot), kshot.get("measures") or []
    model: Row = kshot.get("model") or {}
    verdicts = _overall(kshot)
    seeds = sorted({row["seed"] for row in measures if row.get("seed") is not None}, key=str)
    computed = " on ".join(str(part) for part in (model.get("dtype"), model.get("device")) if part)
    version = str(kshot.get("version") or "")
    return {
        "version": version,
        "kicker": ", ".join(filter(None, [f"kshot explain {version}".strip(), computed])),
        "title": "Did in-context learning do gradient descent here?"
        if verdicts or not kshot.get("replies")
        else _ASKED,
        "asked": _asked(kshot, names, model, seeds),
        "answer": _first(kshot),
        "questions": questions(kshot),
        "verdicts": [_verdict(row) for row in verdicts],
        "of_one_set": _of_one_set(verdicts),
        "verdicts_by_task": [(name, own) for name in names if (own := _of_task(kshot, name))],
        "task_names": names,
        "main": beside_published(measures, names),
        "corrections": corrections(measures, names),
        "controls": controls(measures, names),
        "tasks": [explain_task(kshot, name, f"task-{place}") for place, name in enumerate(names, 1)],
        "agreement": agreement(measures, names),
        "agreement_names": [*names, *(["all"] if pooled(measures) else [])],
        "pooled": pooled(measures),
        "ranked": ranked(measures, names),
        "biases": biases(measures, names),
        "notes": [str(note) for note in kshot.get("notes") or ()],
        "command": words.command(kshot.get("argv")),
        "model": words.facts(model),
        "environment": words.facts(kshot.get("environment") or {}),
        "settings": words.facts(kshot.get("settings") or {}),
    }


def _overall(kshot: Row) -> list[Row]:
    """The verdicts over all tasks."""
    return [row for row in kshot.get("verdicts") or () if row.get("task") is None]


def _of_task(kshot: Row, name: str) -> list[dict[str, str]]:
    return [_verdict(row) for row in kshot.get("verdicts") or () if row.get("task") == name]


def _asked(kshot: Row, names: Sequence[str], model: Row, seeds: Sequence[Any]) -> list[tuple[str, str]]:
    tasks = [row for row in (kshot.get("tasks") or {}).values() if row]
    asked = [
        ("model", str(model.get("caption") or model.get("name") or "")),
        ("tasks", words.listed(names, 8)),
        ("demonstrations", words.listed(sorted({t["shots"] for t in tasks if t.get("shots") is not None}))),
        ("queries", words.listed(sorted({t["queries"] for t in tasks if isinstance(t.get("queries"), int)}))),
        ("seeds", words.listed(seeds, 8)),
    ]
    return [(name, said) for name, said in asked if said]


def _verdict(row: Row) -> dict[str, str]:
    kind = str(row.get("verdict") or "")
    return {
        "kind": kind or "not judged",
        "mark": MARKS.get(kind, ""),
        "claim": str(row.get("claim") or ""),
        "prediction": str(row.get("prediction") or ""),
        "observed": _observed(row),
    }
