"""Markdown of finished experiments with small models, as it is kept in docs/results: a table of claims for each.

    python bench/claims.py RUN... [--together]

A RUN is the folder of a ``kshot synth``. Runs of parts of one experiment are told ``--together`` as one, a part as the last
of them has it, and judged anew by the claims that the experiment has today.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kshot.show.synth import MARKS, bound, observed
from kshot.study.synth.catalogue import EXPERIMENTS
from kshot.study.synth.experiment import judged
from why import portable


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of finished experiments")
    parser.add_argument("--together", action="store_true", help="as one run, judged by the claims of today")
    asked = parser.parse_args()
    runs = [json.loads((run / "results.json").read_text(encoding="utf-8"))["kshot"] for run in asked.runs]
    for run in [together(runs)] if asked.together else runs:
        print("\n".join(summary(run)))


def together(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The record of one run of all parts; of a part that several have, what the last of them says."""
    (name,) = {name for run in runs for name in run["experiments"]}
    last = {cell["part"]: i for i, run in enumerate(runs) for cell in run["cells"]}
    cells = [cell for i, run in enumerate(runs) for cell in run["cells"] if last[cell["part"]] == i]
    # Rows do not say which part they are of: where an earlier run has them, too, they are the later one's.
    rows = {(row["measure"], row["variant"], row["seed"]): row for run in runs for row in run["measures"]}
    verdicts = judged(name, EXPERIMENTS[name], list(rows.values()), runs[-1]["settings"]["size"])
    return {**runs[-1], "argv": runs[0]["argv"], "experiments": [name], "cells": cells, "verdicts": verdicts}


def summary(run: Mapping[str, Any]) -> list[str]:
    """The command, the machine and the minutes of one core, then the claims of every experiment."""
    lines = [f"    {portable(run['argv'] or [])}", ""]
    for name in run["experiments"]:
        own = [row for row in run["verdicts"] if row["task"] == name]
        cells = [cell for cell in run["cells"] if cell["task"] == name]
        minutes = sum(cell["seconds"] or 0.0 for cell in cells) / 60
        holding, seeds = sum(row["verdict"] == "holds" for row in own), len({cell["seed"] for cell in cells})
        told = f"{holding} of {len(own)} claims hold; {len(cells)} parts, {seeds} {'seed' if seeds == 1 else 'seeds'}"
        lines += [f"## {name}", "", f"{told}, {minutes:.0f} minutes on {run['environment']['cpu']}.", ""]
        lines += ["| | claim | source | threshold | observed |", "|---|---|---|---|---|", *map(_line, own), ""]
    return lines


def _line(row: Mapping[str, Any]) -> str:
    mark = MARKS.get(row["verdict"], "")
    return f"| {mark} | {row['claim']} | {row['source']} | {bound(row)} | {observed(row)} |"


if __name__ == "__main__":
    main()
