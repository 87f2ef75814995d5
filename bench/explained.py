"""Markdown of a finished explanation, as it is kept in docs/results: measures beside the published ones, and the verdicts.

    python bench/explained.py RUN

RUN is the folder of a ``kshot explain``.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kshot.show.explain import answer
from kshot.show.explain_rows import Line, beside_published, by_variant, controls, corrections
from why import portable

_MARKS = {"shown": "✓", "not shown": "○", "contradicted": "✗"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a finished explanation")
    results = json.loads((parser.parse_args().run / "results.json").read_text(encoding="utf-8"))
    print("\n".join(summary(results["kshot"], float(results["total_evaluation_time_seconds"]))))


def summary(run: Mapping[str, Any], seconds: float) -> list[str]:
    """All of one run, line by line."""
    machine, measures, tasks = run["environment"], run["measures"], list(run["tasks"])
    overall = [row for row in run["verdicts"] if row["task"] is None]
    lines = [f"    {portable(run['argv'] or [])}", ""]
    lines += [
        f"{run['model']['caption']}, {run['model']['dtype']}; {machine['cpu']}, threads: {machine['threads']}; {seconds / 60:.0f} minutes.",
        "",
    ]
    lines += [f"{name}: {own['shots']} demonstrations, {own['queries']} queries." for name, own in run["tasks"].items()]
    lines += ["", answer(overall), "", "## Beside the published figures", ""]
    lines += _table(beside_published(measures, tasks), tasks, paper=True)
    lines += ["", "## As published and corrected", "", *_table(corrections(measures, tasks), tasks)]
    lines += ["", "## Controls", "", *_table(controls(measures, tasks), tasks)]
    lines += [
        "",
        "## Cheap and expensive attributions",
        "",
        *_table(by_variant(measures, tasks, ("rank_agreement",)), tasks),
    ]
    lines += ["", "## Verdicts", "", f"| claim | {' | '.join(tasks)} |", "|---|" + "---|" * len(tasks)]
    for row in overall:
        own = {one["task"]: one for one in run["verdicts"] if one["claim"] == row["claim"]}
        lines.append(f"| {row['claim']} | {' | '.join(_judged(own.get(task, row)) for task in tasks)} |")
    return [*lines, "", *(f"- {note}" for note in run["notes"])]


def _table(lines: Sequence[Line], tasks: Sequence[str], *, paper: bool = False) -> list[str]:
    found = [f"| | {' | '.join(tasks)} |", "|---|" + "---|" * len(tasks)]
    for line in lines:
        name = ", ".join(filter(None, (line["name"], line["sub"])))
        found.append(f"| {name} | {' | '.join(_cell(cell, paper) for cell in line['cells'])} |")
    return found


def _cell(cell: Mapping[str, Any], paper: bool) -> str:
    parts = [f"{cell['text']} ({cell['narrow']})" if cell["narrow"] else cell["text"]]
    parts += [f"null {cell['null']}"] if cell["null"] else []
    parts += (
        [f"*{', '.join(f'{model} {said}' for model, said in cell['published'])}*"]
        if paper and cell["published"]
        else []
    )
    return "<br>".join(filter(None, parts))


def _judged(row: Mapping[str, Any]) -> str:
    value = row["observed"]
    said = f"{value:.3f}" if isinstance(value, float) else ""
    return f"{_MARKS.get(row['verdict'], '')} {said}".strip()


if __name__ == "__main__":
    main()
