"""Markdown of finished runs, as it is kept in docs/results.

    python bench/summaries.py RUN [RUN ...]

RUN is the folder of a ``kshot run``. Printed for each task: the answer, accuracy of every way and number of examples (the
mean over seeds, with the least and the greatest), what it cost, and the paired tests.
"""

import argparse
import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kshot.study.options import broken

# Set for every cell by the run; what is left tells two ways of the same method apart.
_COMMON = ("pick", "budget", "validation", "noise", "ensemble", "rule", "members")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of finished runs")
    for folder in parser.parse_args().runs:
        print("\n".join(summary(json.loads((folder / "results.json").read_text(encoding="utf-8"))["kshot"])))


def summary(run: Mapping[str, Any]) -> list[str]:
    """All of one run, line by line."""
    machine = run["environment"]
    argv = [broken(word) for word in _without_folder(run["argv"] or [])]
    lines = [f"    {shlex.join(argv)}", ""]
    lines += [f"{run['model']['name']}, {machine['cpu']}, threads: {machine['threads']}, torch {machine['torch']}.", ""]
    lines += [f"- {note}" for note in run["notes"]]
    for task in dict.fromkeys(cell["task"] for cell in run["cells"]):
        cells = [cell for cell in run["cells"] if cell["task"] == task]
        lines += ["", f"### {task}", "", run["answer"].get(task, ""), "", *_accuracy(cells), ""]
        noisy = [cell for cell in cells if cell["params"].get("noise")]
        if noisy:
            lines += [
                f"With {noisy[0]['params']['noise']:.0%} of the labels wrong:",
                "",
                *_accuracy(cells, noisy=True),
                "",
            ]
        lines += _costs(cells)
        lines += ["", *_paired([one for one in run["paired"] if one["task"] == task])]
    return lines


def name(cell: Mapping[str, Any]) -> str:
    """The method with the options that were given to it, and what was combined."""
    own = [f"{key}={value}" for key, value in cell["params"].items() if key not in _COMMON]
    rule = [f"{cell['params']['members']} by {cell['params']['rule']}"] if "ensemble" in cell["params"] else []
    return " ".join([cell["method"], *own, *rule])


def _accuracy(cells: Sequence[Mapping[str, Any]], *, noisy: bool = False) -> list[str]:
    kept = [cell for cell in cells if bool(cell["params"].get("noise")) == noisy]
    sizes = sorted({cell["shots"] for cell in kept if cell["shots"]})
    rows = [["way", *(f"{k} examples" for k in sizes)]]
    for way in dict.fromkeys(name(cell) for cell in kept):
        own = [cell for cell in kept if name(cell) == way]
        if all(not cell["shots"] for cell in own):
            rows.append([way, _spread(own), *[""] * (len(sizes) - 1)])
        else:
            rows.append([way, *(_spread([cell for cell in own if cell["shots"] == k]) for k in sizes)])
    return _table(rows)


def _spread(cells: Sequence[Mapping[str, Any]]) -> str:
    found = [100 * cell["accuracy"] for cell in cells if cell["accuracy"] is not None]
    if not found:
        return "failed" if cells else ""
    mean = sum(found) / len(found)
    return f"{mean:.1f}" if len(found) == 1 else f"{mean:.1f} ({min(found):.1f} to {max(found):.1f})"


def _costs(cells: Sequence[Mapping[str, Any]]) -> list[str]:
    rows = [["way", "examples", "seconds to learn", "ms a query", "trainable parameters", "bytes"]]
    most = max((cell["shots"] for cell in cells if not cell["params"].get("noise")), default=0)
    for way in dict.fromkeys(name(cell) for cell in cells):
        own = [c for c in cells if name(c) == way and not c["params"].get("noise") and c["failed"] is None]
        own = [c for c in own if c["shots"] in (0, most)]
        if not own:
            continue
        ms = next((f"{c['query_ms']:.0f}" for c in own if c["query_ms"] is not None), "")
        seconds = sum(c["fit_seconds"] for c in own) / len(own)
        rows.append(
            [
                way,
                str(own[0]["shots"]),
                f"{seconds:.0f}",
                ms,
                f"{own[0]['trainable_parameters']:,}",
                f"{own[0]['artefact_bytes']:,}",
            ]
        )
    return _table(rows)


def _paired(tests: Sequence[Mapping[str, Any]]) -> list[str]:
    rows = [["examples", "way", "against", "difference", "p (Holm)", "verdict"]]
    for one in (one for one in tests if one["against"] == "in-context"):
        rows.append(
            [
                str(one["shots"]),
                one["name"],
                one["against"],
                f"{100 * one['difference']:+.1f}",
                f"{one['p_holm']:.2g}",
                one["verdict"],
            ]
        )
    return _table(rows) if len(rows) > 1 else []


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    head, *body = (f"| {' | '.join(row)} |" for row in rows)
    return [head, f"|{'---|' * len(rows[0])}", *body]


def _without_folder(argv: Sequence[str]) -> list[str]:
    kept = list(argv)
    if "--output-path" in kept:
        at = kept.index("--output-path")
        del kept[at : at + 2]
    return kept


if __name__ == "__main__":
    main()
