"""Markdown of language models that were grown on a text, as it is kept in docs/results: networks, gains, abilities.

    python bench/pretrained.py RUN...

A RUN is the folder of a ``kshot pretrain``.
"""

import argparse
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from kshot.show.pretrain import answer, gains, in_context
from kshot.show.pretrain import lines as networks
from why import portable


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of finished runs")
    for run in parser.parse_args().runs:
        print("\n".join(summary(json.loads((run / "results.json").read_text(encoding="utf-8"))["kshot"])))


def summary(run: Mapping[str, Any]) -> list[str]:
    """The command, the machine and its minutes, then a table of networks, what they gained, and a table of abilities."""
    minutes = sum(cell["seconds"] or 0.0 for cell in run["cells"]) / 60
    told = (
        f"{answer(run)} {len(run['cells'])} networks and floors, {minutes:.0f} minutes on {run['environment']['cpu']}."
    )
    found = networks(run)
    columns = list(found[0]["values"]) if found else []
    lines = [f"    {portable(run['argv'] or [])}", "", told, "", *_head(["", *columns])]
    lines += [_row([own["name"], *(own["values"][name] for name in columns)]) for own in found]
    lines += ["", *(f"- {own['name']}: {own['said']}." for own in gains(run)), ""]
    names, abilities = in_context(run)
    lines += _head(["", *names, "by chance, or known"])
    lines += [
        _row([own["what"], *(own["values"].get(name, "") for name in names), own["values"]["null"]])
        for own in abilities
    ]
    lines += ["", *(f"- {note}" for note in run.get("notes") or ()), ""]
    # As on the other pages of docs/results.
    return [line.replace("\u202f", ",") for line in lines]


def _head(names: Iterable[str]) -> list[str]:
    own = list(names)
    return [_row(own), "|" + "---|" * len(own)]


def _row(values: Iterable[str]) -> str:
    return f"| {' | '.join(values)} |"


if __name__ == "__main__":
    main()
