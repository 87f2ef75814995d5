"""What interventions say of the open questions, from finished runs: tables as markdown, and a picture of each question.

    python bench/why.py FOLDER RUN [RUN ...]

RUN is the folder of a ``kshot explain --parts why-...``; the contrasts of all runs are judged together. FOLDER gets a
picture (why-NAME.svg) of each question; printed are the contrasts and the conditions, to stand in docs/results/why.md.
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
from kshot.study.replies import replies

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
    measures = [row for run in runs for row in run["measures"] if row["measure"].startswith("why_")]
    lines = replies(measures)
    print(f"\n{sum(line['low'] is not None for line in lines)} contrasts, judged together.")
    for name, question in QUESTIONS.items():
        own = [line for line in lines if line["question"] == name]
        if own:
            _picture(own, asked.folder / f"why-{name}.svg")
            print(
                "\n".join(["", f"## {question.asks}", "", f"![{question.asks}](why-{name}.svg)", "", *_contrasts(own)])
            )
            print("\n".join(["", *_conditions(name, measures)]))


def portable(argv: Sequence[str]) -> str:
    """The command without where its records and its tasks lay."""
    words = list(argv)
    if "--output-path" in words:
        at = words.index("--output-path")
        del words[at : at + 2]
    return shlex.join([Path(word).name if "/" in word else word for word in words])


def _where(row: Mapping[str, Any]) -> str:
    return ", ".join(filter(None, (row["task"], row["model"], row.get("when") or "")))


def _picture(lines: Sequence[Mapping[str, Any]], path: Path) -> None:
    groups: dict[str, list[Any]] = {}
    for line in lines:
        groups.setdefault(line["contrast"], []).append((_where(line), line["observed"], line["low"], line["high"]))
    figure = forest(groups, lines[0]["unit"] or "difference of accuracies")
    figure.set_facecolor("white")
    with rc_context(_STILL):
        figure.savefig(path, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))


def _contrasts(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    found = ["| contrast | where | observed | interval | |", "|---|---|---|---|---|"]
    for line in lines:
        sure = line["low"] is not None
        interval = f"{line['low']:.3f} to {line['high']:.3f}" if sure else line["reason"] or ""
        value = "—" if line["observed"] is None else f"{line['observed']:.3f} {line['unit']}".strip()
        found.append(f"| {line['contrast']} | {_where(line)} | {value} | {interval} | {line['verdict']} |")
    return found


def _conditions(name: str, measures: Sequence[Mapping[str, Any]]) -> list[str]:
    """Means over seeds of every condition, a column for each task and model."""
    rows = [row for row in measures if row["measure"].startswith(f"why_{name}_") and row["seed"] is None]
    rows = [row for row in rows if not row["measure"].endswith("_contrast")]
    columns = list(dict.fromkeys(_where(row) for row in rows))
    found = [f"| condition | measure | {' | '.join(columns)} |", "|---|---|" + "---|" * len(columns)]
    for measure, variant in dict.fromkeys((row["measure"], row["variant"]) for row in rows):
        values = {_where(row): row["value"] for row in rows if (row["measure"], row["variant"]) == (measure, variant)}
        cells = [f"{values[column]:.3f}" if values.get(column) is not None else "" for column in columns]
        found.append(f"| {variant} | {measure.rpartition('_')[2]} | {' | '.join(cells)} |")
    return found


if __name__ == "__main__":
    main()
