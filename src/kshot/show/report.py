"""One page that says what was asked and what came out. It reads records and computes nothing."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from markupsafe import Markup

from kshot.errors import DataError, OutputError
from kshot.show import evaluate, explain, hypotheses, pretrain, synth, words
from kshot.show.sections import task_view
from kshot.show.templates import PAGES, templates
from kshot.show.words import Row

SamplesOf = Callable[[Row], list[dict[str, Any]]]


def write_report(directory: Path) -> Path:
    """Rebuild ``directory/report.html`` from the records beside it, whole or not at all; returns its path.

    DataError where the records cannot be read, OutputError where the page cannot be written.
    """
    results = read_results(directory)
    path = directory / "report.html"
    # Each command's record has a key that no other has; ways of teaching have cells with samples.
    if "hypotheses" in results["kshot"]:
        html = hypotheses.page(results["kshot"])
    elif "experiments" in results["kshot"]:
        html = synth.page(results["kshot"])
    elif "corpus" in results["kshot"]:
        html = pretrain.page(results["kshot"])
    elif "texts" in results["kshot"]:
        html = evaluate.page(results["kshot"])
    elif "measures" in results["kshot"]:
        html = explain.page(results["kshot"])
    else:
        html = page(results, lambda cell: read_samples(directory, cell))
    write_page(path, html)
    return path


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
    return results


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
        return [json.loads(line) for line in lines if line.strip()]
    except ValueError as error:
        found = f"bytes {begin} to {end} of {str(path)!r} are not the samples of cell {cell['id']}"
        raise DataError(f"{found} ({error}); run the same command again to mend the folder") from error


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
