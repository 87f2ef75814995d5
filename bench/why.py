"""What interventions say of the open questions, from finished runs: tables as markdown, and a picture of each question.

    python bench/why.py FOLDER RUN [RUN ...]

RUN is the folder of a ``kshot explain --parts why-...``; of each question the contrasts of all runs are judged together.
FOLDER gets a picture (why-NAME.svg) of each question; printed are the contrasts and the conditions, to stand in
docs/results/why.md.
"""

import argparse
import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib import rc_context

from kshot.show.explain_plots import forest
from kshot.study.catalogue import QUESTIONS
from kshot.study.catalogue.question import LEVELLED
from kshot.study.replies import replies

# What a contrast says where it is measured without what is said of all queries alike; the questions that are drawn so.
LEVEL = (LEVELLED, "by the mean over queries")
WITHOUT_TILT = ("labels",)
# The same drawing for the same figures.
_STILL = {"svg.hashsalt": "why", "svg.fonttype": "none"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the pictures go")
    parser.add_argument("runs", nargs="+", type=Path, help="folders of finished explanations")
    asked = parser.parse_args()
    runs = [json.loads((run / "results.json").read_text(encoding="utf-8"))["kshot"] for run in asked.runs]
    for run in runs:
        print(f"    {portable(run['argv'] or [])}")
    for name, question in QUESTIONS.items():
        measures = [row for run in runs for row in run["measures"] if row["measure"].startswith(f"why_{name}_")]
        lines = replies(measures)
        if lines:
            _picture(lines, asked.folder / f"why-{name}.svg")
            unit = f", {lines[0]['unit']}" if lines[0]["unit"] else ""
            number = f"{sum(line['low'] is not None for line in lines)} contrasts{unit}, judged together."
            number += " The picture shows batch-calibrated contrasts." if name in WITHOUT_TILT else ""
            print(f"\n## {question.asks}\n\n![{question.asks}](why-{name}.svg)\n\n{number}\n")
            print("\n".join([*_contrasts(lines), "", *_conditions(measures)]))


def portable(argv: Sequence[str]) -> str:
    """The command without where its records and its tasks lay."""
    words = list(argv)
    if "--output-path" in words:
        at = words.index("--output-path")
        del words[at : at + 2]
    return shlex.join([Path(word).name if "/" in word else word for word in words])


def _place(row: Mapping[str, Any]) -> str:
    return f"{row['task']}, {row['model']}"


def _where(row: Mapping[str, Any]) -> str:
    return ", ".join(filter(None, (_place(row), row.get("when") or "")))


def _picture(lines: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Every contrast in one of the ways in which it was measured; all are in the table."""
    groups: dict[str, list[Any]] = {}
    level = lines[0]["question"] in WITHOUT_TILT
    for line in lines:
        if (line["when"] in LEVEL) == level:
            place = _place(line) if level else _where(line)
            groups.setdefault(line["contrast"], []).append((place, line["observed"], line["low"], line["high"]))
    figure = forest(groups, lines[0]["unit"] or "difference of accuracies")
    figure.set_facecolor("white")
    with rc_context(_STILL):
        figure.savefig(path, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))


def _contrasts(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """Every contrast with its interval and its verdict, a column for each task and model."""
    cells = {((line["contrast"], line.get("when") or ""), _place(line)): _judged(line) for line in lines}
    return _table(["contrast", ""], cells)


def _judged(line: Mapping[str, Any]) -> str:
    if line["low"] is None:
        return str(line["reason"] or "")
    value = f"{line['observed']:.3f} ({line['low']:.3f} to {line['high']:.3f})"
    return value if line["verdict"] == "not shown" else f"**{value} {line['verdict']}**"


def _conditions(measures: Sequence[Mapping[str, Any]]) -> list[str]:
    """Means over seeds of every condition, a column for each task and model."""
    found: dict[tuple[tuple[str, ...], str], str] = {}
    for row in measures:
        what = row["measure"].rpartition("_")[2]
        if row["seed"] is None and what != "contrast" and row["value"] is not None:
            value = f"{100 * row['value']:.1f} %" if what == "accuracy" else f"{row['value']:.3f} {row['unit']}"
            key = ((row["variant"],), _place(row))
            found[key] = ", ".join(filter(None, (found.get(key), value)))
    return _table(["condition"], found)


def _table(heads: Sequence[str], cells: Mapping[tuple[tuple[str, ...], str], str]) -> list[str]:
    """``cells`` by the words before a row and the head of a column."""
    rows, columns = (list(dict.fromkeys(key[i] for key in cells)) for i in (0, 1))
    found = [f"| {' | '.join([*heads, *columns])} |", "|" + "---|" * (len(heads) + len(columns))]
    for row in rows:
        found.append(f"| {' | '.join([*row, *(cells.get((row, column), '') for column in columns)])} |")
    return found


if __name__ == "__main__":
    main()
