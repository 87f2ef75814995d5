"""From k examples to something learned, and which of all that was tried is kept.

A quarter of the examples is held out for the choice of learning rate and number of steps (adapt/search.py). What is kept
is the very run that was best there, stopped at its step: the same rate and steps on all k examples end elsewhere
(docs/LOG.md). Nothing else is looked at, and everything that ran counts in the cost.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from kshot.adapt.course import Course, Make, Pupil, go_on
from kshot.adapt.examples import held_out, unseen
from kshot.adapt.judge import Asked, gold_rows, mean_loss
from kshot.adapt.learners import finished
from kshot.adapt.search import Choice, searched
from kshot.adapt.train import Learner, Placed, Recipe, State, Until, begin, check_loss, diverged
from kshot.data.task import Example, Task
from kshot.data.template import Template
from kshot.errors import MethodError, NumericError
from kshot.model.adapted import Training
from kshot.model.lm import LM
from kshot.model.tree import Scored


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Learned:
    """The model, what it reads with after the fit, the layout, and how it came about."""

    lm: LM
    placed: Placed
    template: Template
    training: Training
    notes: tuple[str, ...]


def learn(
    lm: LM, task: Task, examples: tuple[Example, ...], make: Make, course: Course, *, seed: int, key: str
) -> Learned:
    """Fit what ``make`` starts from these examples; ``key`` names the method and its options, for ``course.state``.

    MethodError where nothing can be learned from them: too long for the context, or diverged at every rate.
    """
    if not (course.learning_rate or course.grid):
        raise MethodError("no learning rate to learn with; give one, or a grid of several to choose from")
    told = _told(lm, task, examples, course, (seed, key))
    pupil = Pupil(lm=lm, task=task, course=course, make=make, seed=seed, key=told)
    train, held, said = held_out(task, examples, course.validation, seed)
    rates = (course.learning_rate,) if course.learning_rate else tuple(course.grid)
    until = course.until(len(train))
    at = None
    if held:
        choice, at = searched(pupil, train, held, rates)
        # Where it does not stand there it is run once more, to the bit: copies of whole weights would not fit.
        until = Until(steps=choice.steps, schedule=until.schedule or until.steps)
    else:
        choice = Choice(learning_rate=sorted(rates)[len(rates) // 2], steps=until.steps)
        said += f"; learning rate {choice.learning_rate:g} and the whole budget as given"
    # Where no step is better than some, the start of all examples is what was asked for.
    taught = train if choice.steps else examples
    start = make(taught)
    reader = start.reader(lm)
    rows = gold_rows(reader, task, start.template, taught, whole=course.loss == "all")
    recipe, keeper = course.recipe(choice.learning_rate), pupil.fit_keeper(choice.learning_rate, until.steps)
    asked = [mean_loss(lm, finished(lm, start.learner, start.learner.leaves), rows)]
    state = go_on(pupil, start.learner, rows, until, recipe, keeper, at or keeper.found() or begin(start.learner))
    placed = finished(lm, start.learner, state.leaves)
    if not held:
        asked.append(_still_learned(lm, placed, rows, recipe, state.step, begun=asked[0].loss))
    keeper.done()
    return Learned(
        lm=reader,
        placed=placed,
        template=start.template,
        training=_account(start.learner, asked, state, choice, said),
        notes=(*start.notes, *unseen(task, taught), *_edge(choice, rates)),
    )


def _told(lm: LM, task: Task, examples: Sequence[Example], course: Course, more: tuple[object, ...]) -> str:
    """What a fit depends on, as a hash."""
    said_of = replace(task, train=(), test=(), source="", notes=())
    on_top = (lm.delta.hash if lm.delta else None, None if lm.momentum is None else lm.momentum.hash)
    told = (lm.hash, str(lm.dtype), on_top, said_of, examples, replace(course, state=None, watch=None), *more)
    return hashlib.sha256(repr(told).encode()).hexdigest()[:16]


def _still_learned(lm: LM, placed: Placed, rows: Sequence[Scored], recipe: Recipe, step: int, *, begun: float) -> Asked:
    """The loss after the last step, which no batch has seen and no validation; Diverged where that spoilt it."""
    try:
        found = mean_loss(lm, placed, rows)
    except NumericError as error:
        raise diverged(step, "the answers are not numbers", recipe) from error
    check_loss(lm, recipe, step, found.loss, begun=begun)
    return found


def _account(learner: Learner, asked: Sequence[Asked], state: State, choice: Choice, said: str) -> Training:
    """What the run that is kept and the search for it came to and cost; the first of those ``asked`` is the start."""
    return Training(
        parameters=learner.parameters,
        start=asked[0].loss,
        validation=said,
        steps=state.step,
        seconds=state.seconds + choice.seconds + sum(one.seconds for one in asked),
        tokens=state.tokens + choice.tokens + sum(one.tokens for one in asked),
        flops=state.flops + choice.flops + sum(one.flops for one in asked),
        losses=state.losses,
        flattened=flattened(state.losses),
        chosen={"learning_rate": choice.learning_rate, "steps": state.step},
        search=choice.trials,
    )


def flattened(losses: Sequence[float]) -> bool | None:
    """Whether the last fifth of the losses is within 5 % (or 0.02 nats) of the fifth before; None below 10 steps."""
    fifth = len(losses) // 5
    if fifth < 2:
        return None
    last, before = (float(np.mean(part)) for part in (losses[-fifth:], losses[-2 * fifth : -fifth]))
    return bool(before - last <= max(0.02, 0.05 * before))


def _edge(choice: Choice, rates: Sequence[float]) -> tuple[str, ...]:
    if len(rates) < 2 or not choice.trials or not choice.steps or choice.learning_rate not in (min(rates), max(rates)):
        return ()
    return (f"the chosen learning rate {choice.learning_rate:g} lies at the edge of the grid that was tried",)
