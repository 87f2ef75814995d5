"""One page that says what was asked and what came out. It reads records and computes nothing."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from kshot.errors import DataError, OutputError
from kshot.show import evaluate, explain, hypotheses, pretrain, synth, words
from kshot.show.sections import task_view
from kshot.show.templates import PAGES, templates
from kshot.show.words import Row

SamplesOf = Callable[[Row], list[dict[str, Any]]]
# What has to be in a value of a record: the keys of a mapping, or in a list those of each of its rows.
Shape = tuple[str, ...] | list[tuple[str, ...]]

_MEASURES: Shape = [("task", "measure", "variant", "value")]
# A command's record by a key that no other has: its page, and what that reads by name.
_PAGES: dict[str, tuple[Callable[[Row], str], dict[str, Shape]]] = {
    "hypotheses": (
        hypotheses.page,
        {
            "tasks": (),
            "measures": _MEASURES,
            "verdicts": [("task", "protocol", "hypothesis", "claim", "verdict")],
        },
    ),
    "experiments": (synth.page, {"measures": _MEASURES, "verdicts": [("task", "claim", "verdict", "observed")]}),
    "corpus": (
        pretrain.page,
        {"corpus": ("name", "tokens"), "plan": ("objective", "tokens"), "measures": _MEASURES, "cells": [("part",)]},
    ),
    "texts": (evaluate.page, {"model": ("name",), "measures": _MEASURES, "cells": [("task", "part")]}),
    "measures": (explain.page, {"measures": _MEASURES}),
}
# Ways of teaching have cells with samples.
_TAUGHT: dict[str, Shape] = {
    "tasks": (),
    "summary": [("task", "method", "shots", "seeds", "n", "accuracy")],
    "cells": [("id", "task", "method", "shots", "seed", "order", "accuracy")],
}
# Of any command, where they are there.
_SHARED: dict[str, Shape] = {"settings": (), "environment": (), "model": ()}


def write_report(directory: Path) -> Path:
    """Rebuild ``directory/report.html`` from the records beside it, whole or not at all; returns its path.

    DataError where the records cannot be read, OutputError where the page cannot be written.
    """
    results = read_results(directory)
    path, kind = directory / "report.html", _kind(results["kshot"])
    if kind is None:
        html = page(results, lambda cell: read_samples(directory, cell))
    else:
        html = _PAGES[kind][0](results["kshot"])
    write_page(path, html)
    return path


def _kind(kshot: Row) -> str | None:
    """The key that tells whose record this is; none where ways of teaching were compared."""
    return next((name for name in _PAGES if name in kshot), None)


def read_results(directory: Path) -> dict[str, Any]:
    """``directory/results.json``, which must be a record of ours."""
    path = directory / "results.json"
    wanted = f"cannot read the records of {str(directory)!r}"
    help_text = "give the folder that `kshot run --output-path` wrote"
    if directory.is_file():
        raise DataError(f"{wanted}: that is a file; {help_text}")
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{wanted}: there is no results.json; {help_text}") from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{wanted}: results.json is not readable as JSON ({error}); {help_text}") from error
    if not isinstance(results, dict) or "kshot" not in results:
        raise DataError(f"{wanted}: results.json has no key 'kshot'; {help_text}")
    if found := _not_as_needed(results["kshot"]):
        raise DataError(f"{wanted}: {found} in results.json; {help_text}")
    return results


def _not_as_needed(kshot: Any) -> str | None:
    """What a record lacks that its page reads by name, or has as something else, in a few words."""
    if not isinstance(kshot, dict):
        return "kshot is no mapping"
    kind = _kind(kshot)
    needed = _TAUGHT if kind is None else _PAGES[kind][1]
    shared = {name: shape for name, shape in _SHARED.items() if kshot.get(name) is not None}
    for name, shape in {**shared, **needed}.items():
        value = kshot.get(name)
        if value is None:
            return f"there is no kshot.{name}"
        if not isinstance(value, Mapping if isinstance(shape, tuple) else list):
            return f"kshot.{name} is no {'mapping' if isinstance(shape, tuple) else 'list'}"
        keys, rows = (shape, [value]) if isinstance(shape, tuple) else (shape[0], value)
        for row in rows:
            if not isinstance(row, Mapping):
                return f"a row of kshot.{name} is no mapping"
            if lacking := [key for key in keys if key not in row]:
                return f"kshot.{name} lacks {lacking[0]!r}"
    return None


def read_samples(directory: Path, cell: Row) -> list[dict[str, Any]]:
    """The samples of one cell, by the bytes that the cell names; none where none were kept."""
    path = directory / "samples.jsonl"
    if not cell.get("samples") or not path.is_file():
        return []
    begin, end = cell["samples"]
    with path.open("rb") as file:
        file.seek(begin)
        lines = file.read(end - begin).splitlines()
    try:
        return [_sample(line) for line in lines if line.strip()]
    except ValueError as error:
        found = f"bytes {begin} to {end} of {str(path)!r} are not the samples of cell {cell['id']}"
        raise DataError(f"{found} ({error}); run the same command again to mend the folder") from error


def _sample(line: bytes) -> dict[str, Any]:
    """ValueError where a line is no sample."""
    found = json.loads(line)
    if not isinstance(found, dict) or not {"gold", "pred", "right"} <= found.keys():
        raise ValueError("a line without gold, pred and right")
    return found


def write_page(path: Path, html: str) -> None:
    """The text as a file, by way of a neighbour that takes its place when it is complete; OutputError where that fails."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("w", encoding="utf-8", newline="\n") as file:
            file.write(html)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise OutputError(
            f"cannot write {str(path)!r}: {error.strerror}; give a folder that can be written and has room"
        ) from error


def page(results: Row, samples_of: SamplesOf) -> str:
    """The report as HTML text, the same for the same record; ``samples_of(cell)`` gives the samples of a cell."""
    view = page_view(words.clean(results), lambda cell: words.clean(samples_of(cell)))
    return templates().get_template("page.html.j2").render(view, style=_style())


def snippet(results: Row) -> str:
    """Answers, table and figure as a piece of HTML for a notebook."""
    view = page_view(words.clean(results), lambda cell: [])
    return templates().get_template("notebook.html.j2").render(view)


def _style() -> Markup:
    return Markup((PAGES / "style.css").read_text(encoding="utf-8"))


def page_view(results: Row, samples_of: SamplesOf) -> dict[str, Any]:
    """What the templates need: plain values, every text still to be escaped, figures as SVG."""
    ours = results["kshot"]
    names = list(dict.fromkeys([*ours["tasks"], *(row["task"] for row in ours["summary"])]))
    tasks = [task_view(ours, name, f"task-{number}", samples_of) for number, name in enumerate(names, 1)]
    model = ours.get("model") or {}
    computed = " on ".join(part for part in (model.get("dtype"), model.get("device")) if part)
    return {
        "version": ours.get("version", ""),
        "kicker": ", ".join(
            [f"kshot {ours.get('version', '')}", words.day(results.get("date")), *([computed] if computed else [])]
        ),
        "title": f"{model.get('name', 'A model')} on {_and(names)}",
        "asked": _asked(ours, model),
        "tasks": tasks,
        "levels": any(task["level"] for task in tasks),
        "notes": ours.get("notes") or [],
        "command": words.command(ours.get("argv")),
        "model": [
            *words.facts(model),
            ("total time", words.duration(_number(results.get("total_evaluation_time_seconds")))),
        ],
        "environment": words.facts(ours.get("environment") or {}),
        "settings": words.facts(ours.get("settings") or {}),
    }


def _asked(ours: Row, model: Row) -> list[tuple[str, str]]:
    rows, cells = ours["summary"], ours["cells"]
    seeds = sorted({seed for row in rows for seed in row["seeds"]})
    orders = len({cell["order"] for cell in cells})
    asked = [
        ("model", model.get("caption") or model.get("name", "")),
        ("methods", words.listed(list(dict.fromkeys(row["method"] for row in rows)), 12)),
        ("shots", words.listed(sorted({row["shots"] for row in rows}), 12)),
        ("seeds", words.listed(seeds, 8)),
        ("orders of each set", str(orders) if orders > 1 else "as picked"),
        (
            "test queries",
            words.listed(
                list(dict.fromkeys(words.count(row["n"]) for row in rows if not row.get("failed") or row["n"]))
            ),
        ),
    ]
    return [(name, text) for name, text in asked if text]


def _and(names: list[str]) -> str:
    names = [words.shorten(name, 60) for name in names]
    if len(names) > 4:
        return f"{', '.join(names[:3])} and {len(names) - 3} more tasks"
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)


def _number(value: Any) -> float | None:
    """lm-eval writes the total time as a string."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return None
