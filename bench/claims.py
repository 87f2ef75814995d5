"""Markdown of finished experiments with small models, as it is kept in docs/results: a table of claims for each.

    python bench/claims.py RUN...

A RUN is the folder of a ``kshot synth``.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kshot.show.synth import MARKS, bound, observed
from why import portable


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of finished experiments")
    for run in parser.parse_args().runs:
        print("\n".join(summary(json.loads((run / "results.json").read_text(encoding="utf-8"))["kshot"])))


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
