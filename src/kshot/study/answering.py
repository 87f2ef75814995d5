"""One cell of a run: taught, asked, and put on record."""

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from kshot.adapt.examples import PER_QUERY, given
from kshot.data.task import Example, Task
from kshot.errors import DataError, MethodError, NumericError, PromptError, UnknownName
from kshot.measure.ensemble import combine
from kshot.measure.interpret import interpret
from kshot.measure.outcome import Outcome
from kshot.measure.scoring import score
from kshot.model.adapted import Adapted
from kshot.model.delta import NO_CHANGE
from kshot.model.lm import LM
from kshot.model.prefix import EMPTY
from kshot.seeds import stream
from kshot.study.cells import Cell, members, recipe
from kshot.study.environment import reset_peak
from kshot.study.record import came_to_nothing, record
from kshot.study.settings import Settings
from kshot.study.tasks import origin
from kshot.study.ways import option_names

# Queries that are asked alone, one after another, to see how long one takes; the first is not counted.
_ALONE = 4

Watch = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What all cells of a task have in common; ``state`` is a folder for what a fit leaves on its way."""

    asked: Settings
    task: Task
    examples: tuple[Example, ...]
    state: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a cell that is no ensemble came to, and what it cost."""

    adapted: Adapted
    outcome: Outcome
    fit_seconds: float
    seconds: float
    query_ms: float | None
    artefact_bytes: int


# By task, method and shots, and whatever else tells a cell from others.
Key = tuple[str, str, int, int, int, str]


@dataclass(slots=True)
class Known:
    """What a later cell may want: ``answers`` for ensembles, and what was ``taught`` last, to be asked of other tasks."""

    answers: dict[Key, Answer] = field(default_factory=dict)
    taught: dict[Key, tuple[Adapted, float]] = field(default_factory=dict)

    def forget(self, task: Task, cell: Cell) -> None:
        """Drop the answers that no ensemble with this cell can want."""
        of = (origin(task), cell.method, cell.shots)
        self.answers = {key: answer for key, answer in self.answers.items() if key[:3] == of}


def answered(
    question: Question, lm: LM, cell: Cell, known: Known, watch: Watch
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The line of a cell in records.jsonl, and its samples.

    An ensemble costs what its members cost, also where their answers are still known and nothing runs again. A way of
    teaching that does not apply, or comes to no result, is a line that says so.
    """
    reset_peak()
    began = time.perf_counter()
    try:
        own = [_answer(question, lm, member, known, watch) for member in members(cell)]
    except MethodError as error:
        return came_to_nothing(cell, lm, question.examples, str(error), time.perf_counter() - began), []
    except (NumericError, PromptError) as error:
        # Models and prompts do not know where they are asked from.
        raise type(error)(f"{cell.title}: {error}") from error
    first = own[0]
    outcome = first.outcome if len(own) == 1 else _together([one.outcome for one in own], cell.params["rule"])
    found, samples = record(
        cell, first.adapted, question.task, question.examples, outcome, sum(one.seconds for one in own)
    )
    more: dict[str, Any] = {
        "artefact_bytes": sum(one.artefact_bytes for one in own),
        "trainable_parameters": sum(one.adapted.trainable_parameters for one in own),
        "fit_seconds": sum(one.fit_seconds for one in own),
        "query_ms": sum(one.query_ms or 0.0 for one in own) if own[0].query_ms is not None else None,
    }
    if len(own) == 1:
        more["interpretation"] = _interpretation(question, first.adapted, cell)
    return {**found.figures, **more, "right": found.right}, samples


def fitted(question: Question, lm: LM, cell: Cell, watch: Watch) -> Adapted:
    """What a cell that is no ensemble teaches; a fit that was stopped goes on.

    MethodError where its options do not fit the model, or what it needs cannot be had.
    """
    task = replace(question.task, name=origin(question.task))
    state = None
    if question.state is not None:
        state = str(question.state / hashlib.sha256(repr(_key(task, cell)).encode()).hexdigest()[:12])
    examples, more = taught_from(task, cell)
    method = recipe(cell, task, state=state, watch=watch, **more)
    try:
        return method.fit(lm, task, examples, cell.seed)
    except (UnknownName, DataError) as error:
        raise MethodError(str(error)) from error


def taught_from(task: Task, cell: Cell) -> tuple[tuple[Example, ...], dict[str, Any]]:
    """The training examples of a cell, and options that say which of them are picked where labels were made wrong.

    Where a cell asks for noise that share of what it picks (of all examples, where every query picks its own) has a
    wrong answer: another label, another choice, or the answer of another example. Which are wrong and what is said of
    them is drawn from the seed.
    """
    share = cell.params.get("noise")
    if not share:
        return task.train, {}
    rng = stream(cell.seed, "wrong-labels", cell.shots)
    how, more = str(cell.params.get("pick", "random")), dict[str, Any]()
    picked = task.train
    if how not in PER_QUERY or "order" not in option_names(cell.method):
        # Picked with the right labels: a balanced draw would turn to others where they are wrong.
        picked = given(task, task.train, shots=cell.shots, how=how, seed=cell.seed, ids=cell.params.get("ids", ()))
        more = {"pick": "fixed", "ids": tuple(example.id for example in picked)}
    chosen = rng.choice(len(picked), size=round(share * len(picked)), replace=False)
    wrong = {picked[i].id for i in chosen.tolist()}
    others = tuple(dict.fromkeys(str(e.label) for e in task.train if e.label is not None))
    found = []
    for example in task.train:
        if example.id in wrong:
            known = others if task.kind == "open" else task.candidates(example)
            rest = [label for label in known if label != example.label]
            example = replace(example, label=rest[int(rng.integers(len(rest)))]) if rest else example
        found.append(example)
    return tuple(found), more


def _key(task: Task, cell: Cell) -> Key:
    """What is taught: the same for a task and its transfers."""
    return (origin(task), cell.method, cell.shots, cell.seed, cell.order, repr(cell.params))


def _taught(question: Question, lm: LM, cell: Cell, known: Known, watch: Watch) -> tuple[Adapted, float]:
    """What a cell teaches and the seconds that took: what was taught last, where that is the same."""
    key = _key(question.task, cell)
    if key not in known.taught:
        # Whole weights are large: never two of them at a time.
        known.taught.clear()
        began = time.perf_counter()
        adapted = fitted(question, lm, cell, watch)
        spent = time.perf_counter() - began
        # What was learned before a stop counts, too.
        found = adapted, spent if adapted.training is None else max(spent, adapted.training.seconds)
        if not question.asked.transfer_to:
            return found
        known.taught[key] = found
    return known.taught[key]


def _answer(question: Question, lm: LM, cell: Cell, known: Known, watch: Watch) -> Answer:
    asked, task = question.asked, question.task
    key = (*_key(task, cell)[:-1], repr((cell.task, cell.params)))
    if key in known.answers:
        return known.answers[key]
    adapted, fit_seconds = _taught(question, lm, cell, known, watch)
    began = time.perf_counter()
    try:
        outcome = score(
            adapted,
            task,
            question.examples,
            overlength=asked.overlength,
            seed=cell.seed,
            on_progress=lambda done, total: watch(f"{100 * done // max(total, 1)} %"),
        )
    except (NumericError, PromptError) as error:
        if adapted.training is None:
            raise
        raise MethodError(f"what was learned cannot be asked: {error}") from error
    seconds = time.perf_counter() - began + fit_seconds
    answer = Answer(
        adapted=adapted,
        outcome=outcome,
        fit_seconds=fit_seconds,
        seconds=seconds,
        query_ms=_alone(adapted, question.examples, outcome) if _first(asked, cell) else None,
        artefact_bytes=adapted.artefact_bytes,
    )
    if asked.ensemble != "none":
        # Keys, values and weights are large, and nobody will ask for them again.
        known.answers[key] = replace(answer, adapted=replace(adapted, prefix=EMPTY, delta=NO_CHANGE))
    return answer


def _first(asked: Settings, cell: Cell) -> bool:
    """One draw of each row is enough to see how long a query takes."""
    return cell.order == 0 and cell.seed == asked.seed[0] and not cell.params.get("noise")


def _alone(adapted: Adapted, examples: Sequence[Example], outcome: Outcome) -> float | None:
    """The median time of one query alone, in milliseconds, as an artefact would be asked; None where it cannot be."""
    if adapted.channel or outcome.dropped:
        return None
    answered = [e for e in examples if e.id not in outcome.skipped][:_ALONE]
    times = []
    for example in answered:
        began = time.perf_counter()
        choices = {"choices": list(example.choices)} if example.choices else {}
        adapted.predict([{**example.fields, **choices}])
        times.append(1000 * (time.perf_counter() - began))
    return float(np.median(times[1:])) if times[1:] else None


def _interpretation(question: Question, adapted: Adapted, cell: Cell) -> dict[str, Any] | None:
    rows = adapted.prefix.embeddings
    if rows is None:
        return None
    return interpret(adapted.lm, rows, question.task, cell.seed, template=adapted.template)


def _together(outcomes: Sequence[Outcome], rule: str) -> Outcome:
    """The members' predictions combined, for the tokens of all of them; of repairs and drops the most."""
    return Outcome(
        predictions=combine([one.predictions for one in outcomes], rule),
        tokens=sum(one.tokens for one in outcomes),
        repaired=max(one.repaired for one in outcomes),
        dropped=max(one.dropped for one in outcomes),
        skipped=tuple(dict.fromkeys(name for one in outcomes for name in one.skipped)),
    )
