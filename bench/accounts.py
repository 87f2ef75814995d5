"""Markdown of finished batteries, as it is kept in docs/results: verdicts, altered tasks, ablations, series, chains.

    python bench/accounts.py RUN...

A RUN is the folder of a ``kshot hypotheses``. Each of its tasks is a column; those of several runs stand side by side.
"""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kshot.show.explain_rows import bounds, number, overall
from kshot.show.hypotheses import MARKS, PROTOCOLS, observed
from kshot.show.hypotheses_tasks import GUESS, chains, series, task_view
from kshot.study.hypotheses.core import CORE
from why import portable

# How the headings of a page's tables begin that stand by themselves here.
_OF_ONE_TASK = ("What of a demonstration", "Without the heads", "As a conversation")
# By the unit of the number in a variant.
_SERIES = {
    " shots": ("Macro-F1 by the number of demonstrations", "demonstrations"),
    "% permuted": ("Macro-F1 by the share of the vocabulary that is permuted", "permuted, %"),
    "-fold synonyms": ("Macro-F1 by the order of the synonym that answers", "order"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One task as one model answers it: the verdicts on it, and its rows over seeds."""

    name: str
    verdicts: Sequence[Mapping[str, Any]]
    rows: Sequence[Mapping[str, Any]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of finished batteries")
    found = [json.loads((run / "results.json").read_text(encoding="utf-8")) for run in parser.parse_args().runs]
    print("\n".join(summary([one["kshot"] for one in found])))


def summary(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """All of the runs, line by line."""
    columns = [column for run in runs for column in _columns(run)]
    lines = [f"    {portable(run['argv'] or [])}" for run in runs]
    lines += ["", *(f"- {_told(run)}" for run in runs)]
    for protocol, told in PROTOCOLS.items():
        own = [column for column in columns if any(row["protocol"] == protocol for row in column.verdicts)]
        if own:
            lines += ["", f"## Verdicts, {told}", "", *_verdicts(own, protocol)]
            lines += ["", f"## Macro-F1, {told}", "", *_scores(own, protocol)]
    if any(_apart(column) for column in columns):
        lines += ["", "## Macro-F1 with demonstrations drawn anew less that with the same for all", ""]
        lines += _differences([column for column in columns if _apart(column)])
    asked = [column for column in columns if _by_share(column)]
    if asked:
        lines += ["", "## Macro-F1 by the share of right labels", "", *_shares(asked)]
    for run in runs:
        lines += _ablations(run)
    for unit, (heading, counted) in _SERIES.items():
        lines += _against(columns, unit, heading, counted)
    for run in runs:
        if (found := chains(run)) is not None:
            lines += ["", "## One relation after another", "", *_chains(found)]
    return lines


def _told(run: Mapping[str, Any]) -> str:
    """What was asked of which model, on what."""
    machine = run["environment"]
    tasks = ", ".join(f"{name}, {own['shots']} demonstrations" for name, own in run["tasks"].items())
    seeds = len({cell["seed"] for cell in run["cells"]})
    return f"{run['model']['caption']}, {run['model']['dtype']}: {tasks}, {seeds} seeds; {machine['cpu']}"


def _columns(run: Mapping[str, Any]) -> Iterator[Column]:
    rows = overall(run["measures"])
    for task in run["tasks"]:
        yield Column(
            name=f"{task}, {run['model']['name']}",
            verdicts=[row for row in run["verdicts"] if row["task"] == task],
            rows=[row for row in rows if row["task"] == task],
        )


def _head(columns: Sequence[Column], *first: str) -> list[str]:
    names = [*first, *(column.name for column in columns)]
    return [f"| {' | '.join(names)} |", "|" + "---|" * len(names)]


def _verdicts(columns: Sequence[Column], protocol: str) -> list[str]:
    """A line for every claim, and one for what came of its hypothesis."""
    found = [
        {(row["hypothesis"], row["claim"]): row for row in column.verdicts if row["protocol"] == protocol}
        for column in columns
    ]
    keys = sorted(dict.fromkeys(key for own in found for key in own), key=lambda key: (key[0], key[1] is not None))
    lines = _head(columns, "", "claim")
    for name, claim in keys:
        cells = [_judged(own.get((name, claim))) for own in found]
        said = f"**{name}**" if claim is None else ""
        lines.append(f"| {said} | {claim or ''} | {' | '.join(cells)} |")
    return lines


def _judged(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return ""
    if row["claim"] is None:
        return f"**{row['verdict']}**"
    return f"{MARKS[row['verdict']]} {observed(row)}" if row["observed"] is not None else "undefined"


def _scores(columns: Sequence[Column], protocol: str) -> list[str]:
    """A line for every altered task, of the model, of guessing and of each rival."""
    found = [
        {str(row["variant"]): row["value"] for row in column.rows if row["measure"] == "macro_f1"} for column in columns
    ]
    said: dict[str, dict[str, str]] = {}
    for name in (name for own in found for name in own):
        task, *rest = (word for word in name.split(", ") if word != protocol)
        rival = ", ".join(rest)
        # Of guessing one line is enough: it is the same whoever else answers.
        if (protocol in name.split(", ") and not rival.endswith(f", {GUESS}")) or rival == "regression as published":
            said.setdefault(task, {})[rival or "the model"] = name
    lines = _head(columns, "task", "answered by")
    # A column may lack what another has, so the order of rows is not that of the tasks.
    for task in sorted(said, key=lambda own: CORE.index(own) if own in CORE else len(CORE)):
        for rival, name in sorted(said[task].items(), key=lambda own: own[0] != "the model"):
            cells = ["" if (value := own.get(name)) is None else f"{value:.2f}" for own in found]
            if any(cells):
                lines.append(f"| {task} | {rival} | {' | '.join(cells)} |")
    return lines


def _apart(column: Column) -> dict[str, str]:
    """What came of the two protocols, by the altered task, with its interval over seeds."""
    rows = [row for row in column.rows if row["measure"] == "protocol" and row["low"] is not None]
    return {str(row["variant"]): f"{number({}, row['value'])} ({bounds({}, row['low'], row['high'])})" for row in rows}


def _differences(columns: Sequence[Column]) -> list[str]:
    found = [_apart(column) for column in columns]
    lines = _head(columns, "task")
    for name in dict.fromkeys(name for own in found for name in own):
        lines.append(f"| {name} | {' | '.join(own.get(name, '') for own in found)} |")
    return lines


def _by_share(column: Column) -> dict[tuple[str, float], float]:
    """Macro-F1 by what stood for the labels, and the percentage of them that was right."""
    rows = [row for row in column.rows if row["measure"] == "macro_f1" and row["value"] is not None]
    return {(what, at): value for what, own in series(rows, "% right").items() for at, value, *_ in own}


def _shares(columns: Sequence[Column]) -> list[str]:
    found = [_by_share(column) for column in columns]
    lines = _head(columns, "labels", "right, %")
    for what, share in sorted({key for own in found for key in own}):
        cells = ["" if (value := own.get((what, share))) is None else f"{value:.2f}" for own in found]
        lines.append(f"| {what} | {share:g} | {' | '.join(cells)} |")
    return lines


def _ablations(run: Mapping[str, Any]) -> list[str]:
    """The tables of the page that are of one task alone: what of a demonstration matters, copying heads, a conversation."""
    lines = []
    for name in run["tasks"]:
        for table in task_view(run, name, "task")["tables"]:
            if str(table["heading"]).startswith(_OF_ONE_TASK):
                lines += ["", f"## {table['heading']} ({name})", ""]
                lines += [f"| macro-F1 | {' | '.join(table['columns'])} |", "|" + "---|" * (len(table["columns"]) + 1)]
                for line in table["lines"]:
                    cells = (
                        f"{c['text']} ({c['interval']}), null {c['null']}" if c["null"] else _said(c)
                        for c in line["cells"]
                    )
                    lines.append(f"| {line['name']} | {' | '.join(cells)} |")
    return lines


def _said(cell: Mapping[str, Any]) -> str:
    return f"{cell['text']} ({cell['interval']})" if cell["interval"] else str(cell["text"])


def _against(columns: Sequence[Column], unit: str, heading: str, counted: str) -> list[str]:
    """Macro-F1 against a number that variants say, of the columns that asked it."""
    found = {}
    for column in columns:
        rows = [row for row in column.rows if row["measure"] == "macro_f1" and row["value"] is not None]
        for what, points in series(rows, unit).items():
            found[f"{what}, {column.name}"] = {at: value for at, value, *_ in points}
    if not found:
        return []
    places = sorted({at for own in found.values() for at in own})
    lines = ["", f"## {heading}", "", f"| {counted} | {' | '.join(f'{at:g}' for at in places)} |"]
    lines.append("|" + "---|" * (len(places) + 1))
    for what, own in found.items():
        cells = ("" if (value := own.get(at)) is None else f"{value:.2f}" for at in places)
        lines.append(f"| {what} | {' | '.join(cells)} |")
    return lines


def _chains(found: Mapping[str, Any]) -> list[str]:
    lines = ["| chain | both | the first alone | the second alone | stopped half way |", "|---|---|---|---|---|"]
    for one in found["lines"]:
        lines.append(f"| {one['name']} | {' | '.join(cell['text'] for cell in one['cells'])} |")
    return [*lines, "", f"The product of the parts against the whole, correlation: {found['said']}."]


if __name__ == "__main__":
    main()
