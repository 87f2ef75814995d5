"""Cells become records: the same question gives the same record, whether it was answered in one go or in ten."""

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from kshot.adapt.examples import PER_QUERY
from kshot.data.pick import pick
from kshot.data.task import Example, Task
from kshot.model.lm import LM
from kshot.model.load import load_model
from kshot.study.answering import Known, Question, answered, fitted
from kshot.study.cells import Cell, cells_of, recipe
from kshot.study.experiment import check_pool, experiment, queries
from kshot.study.place import STATE, Finished, OnProgress, begun, folder, limit_notes, opened, packing, silent, stopped
from kshot.study.results import results
from kshot.study.settings import Settings
from kshot.study.store import RESULTS, Memory, Store
from kshot.study.tasks import apart, tasks_of, with_transfers

log = logging.getLogger("kshot")

# In the folder of a run: what is recommended.
ARTEFACTS = "artefacts"


def run(
    asked: Settings,
    *,
    model: LM | None = None,
    tasks: Sequence[Task] = (),
    beneath: Path | None = None,
    on_progress: OnProgress | None = None,
) -> Finished:
    """Measure what is asked, or what is still missing of it, and write the records.

    They go to ``asked.output_path``, else to a folder of their own ``beneath`` the one given, else nowhere. ``model``
    and ``tasks`` stand in for their names in the settings. Raises KshotError before anything is written where the
    question cannot be answered; cells that were finished are kept whatever happens.
    """
    say = on_progress or silent
    repeatable = model is None and not tasks
    say(0, None, "reading the tasks")
    tasks, kept_apart = apart(with_transfers(asked, tuple(tasks) or tasks_of(asked)))
    cells, notes = cells_of(asked, tasks)
    chosen = {task.name: queries(task, asked.limit) for task in tasks}
    _check(asked, tasks, cells, chosen)
    say(0, None, f"loading {model.name if model else asked.model}")
    lm = model or load_model(asked.model, dtype=asked.dtype, device=asked.device)
    question = experiment(asked, lm, tasks, cells)
    directory = folder(asked.output_path, beneath, [task.name for task in tasks], lm.name, question.identity)
    # Without samples some of the folder's files would be there for some cells only.
    facts = {
        "identity": question.identity,
        "facts": {**question.facts, "log_samples": asked.log_samples},
        "packing": packing(lm),
    }
    told = [*notes, *kept_apart, *limit_notes(asked.limit, tasks)]
    with opened(directory, begun("run", asked, facts, told, typed=asked if repeatable else None)) as store:
        # The packing of the run's first start: memory that is free now and was not then would round otherwise.
        tokens, rows = store.run["packing"]
        lm = replace(lm, tokens_per_pack=tokens, rows_per_pack=rows)
        _measure(asked, lm, question.cells, tasks, chosen, store, say)
        value = _concluded(asked, lm, question.cells, tasks, chosen, store, say)
        return Finished(results=value, directory=directory, samples=[] if isinstance(store, Store) else store.samples)


def _concluded(
    asked: Settings,
    lm: LM,
    cells: Sequence[Cell],
    tasks: Sequence[Task],
    chosen: dict[str, tuple[Example, ...]],
    store: Store | Memory,
    say: OnProgress,
) -> dict[str, Any]:
    """results.json, written and returned; what is recommended is saved between its first and its last writing."""
    known = {line["id"]: line for line in store.lines}
    lines = [known[cell.id] for cell in cells]
    before = _recommended_before(store.directory)
    value = results(store.run, lm, tasks, chosen, lines)
    # First of all: whatever happens to an artefact, the figures are safe.
    store.write(RESULTS, value)
    if asked.save and isinstance(store, Store):
        saved = _keep_recommended(asked, lm, cells, tasks, (value, before), store, say)
        value = results(store.run, lm, tasks, chosen, lines, saved=saved)
        store.write(RESULTS, value)
    return value


def _measure(
    asked: Settings,
    lm: LM,
    cells: Sequence[Cell],
    tasks: Sequence[Task],
    chosen: dict[str, tuple[Example, ...]],
    store: Store | Memory,
    say: OnProgress,
) -> None:
    """Every cell that the store does not hold yet."""
    by_name = {task.name: task for task in tasks}
    held = {line["id"] for line in store.lines}
    missing = [cell for cell in cells if cell.id not in held]
    if held:
        log.info("%d of %d cells are here already, %d to go", len(cells) - len(missing), len(cells), len(missing))
    known = Known()
    for number, cell in enumerate(missing, len(cells) - len(missing)):
        say(number, len(cells), cell.title)
        known.forget(by_name[cell.task], cell)
        question = _question(asked, by_name[cell.task], chosen[cell.task], store)
        try:
            line, samples = answered(question, lm, cell, known, _within(say, number, len(cells), cell))
        except KeyboardInterrupt as stop:
            stopped(stop, store, number, len(cells))
            raise
        store.append(line, samples if asked.log_samples else [])
    say(len(cells), len(cells), "done")


def _question(asked: Settings, task: Task, examples: tuple[Example, ...], store: Store | Memory) -> Question:
    state = store.directory / STATE if store.directory is not None else None
    return Question(asked=asked, task=task, examples=examples, state=state)


def _keep_recommended(
    asked: Settings,
    lm: LM,
    cells: Sequence[Cell],
    tasks: Sequence[Task],
    found: tuple[dict[str, Any], dict[str, Any]],
    store: Store,
    say: OnProgress,
) -> dict[str, str]:
    """Fit what is recommended for each task once more and save it; the folders by task.

    To the bit what was measured, since a fit is a function of its seed, and its search is not run again. ``found`` are
    the results of this start and what an earlier one recommended: what that has saved stays.
    """
    saved: dict[str, str] = {}
    keys = ("method", "params", "shots", "seed")
    for task in tasks:
        taken, before = found[0]["kshot"]["recommended"].get(task.name), found[1].get(task.name)
        if taken is None:
            continue
        there = before["directory"] if before else None
        same = before is not None and all(json.dumps(before[k]) == json.dumps(taken[k]) for k in keys)
        if same and there and Path(there).is_dir():
            saved[task.name] = there
            continue
        cell = next(
            c for c in cells if c.task == task.name and c.order == 0 and all(_same(c, k, taken[k]) for k in keys)
        )
        where = store.directory / ARTEFACTS / "".join(c if c.isalnum() or c in "-_." else "_" for c in task.name)
        say(len(cells), len(cells), f"{task.name}: saving {cell.title}")
        adapted = fitted(_question(asked, task, (), store), lm, cell, lambda what: None)
        saved[task.name] = str(adapted.save(where))
    return saved


def _recommended_before(directory: Path | None) -> dict[str, Any]:
    """What an earlier start in this folder recommended, by task."""
    if directory is None or not (directory / RESULTS).is_file():
        return {}
    try:
        return dict(json.loads((directory / RESULTS).read_text(encoding="utf-8"))["kshot"]["recommended"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _same(cell: Cell, key: str, value: Any) -> bool:
    own = getattr(cell, key)
    return json.dumps(dict(own)) == json.dumps(value) if key == "params" else own == value


def _within(say: OnProgress, number: int, cells: int, cell: Cell) -> Callable[[str], None]:
    return lambda what: say(number, cells, f"{cell.title} ({what})")


def _check(
    asked: Settings, tasks: Sequence[Task], cells: Sequence[Cell], chosen: dict[str, tuple[Example, ...]]
) -> None:
    """Everything that can be found wrong without a model: options, pools, picks, layouts."""
    for task in tasks:
        check_pool(task, cells)
        shown: dict[str, Example] = {}
        for cell in cells:
            recipe(cell, task)
            how = str(cell.params.get("pick"))
            if cell.task == task.name and cell.shots and cell.order == 0 and how not in PER_QUERY:
                drawn = pick(task.train, cell.shots, how, cell.seed, labels=task.labels, ids=asked.ids)
                shown |= {example.id: example for example in drawn}
        for template in (task.template, *task.layouts):
            for example in (*chosen[task.name], *shown.values()):
                template.render(example.fields)
