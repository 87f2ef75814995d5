"""From k examples to something learned, and which of all that was tried is kept.

A quarter of the examples is held out, every learning rate of a small grid is tried on the rest, the better half goes on
(successive halving) as long as it becomes better, and the loss on what was held out says which rate and how many steps,
none among them. What is kept is that very run, stopped at that step: the same rate and steps on all k examples end
elsewhere (docs/LOG.md). Nothing else is looked at, and everything that ran counts in the cost.
"""

import hashlib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from kshot.adapt.checkpoint import Keeper, read_json, write_json
from kshot.adapt.examples import held_out, unseen
from kshot.adapt.judge import Judge, check_room, gold_rows, mean_loss
from kshot.adapt.learners import finished
from kshot.adapt.train import Diverged, Learner, Look, Placed, Recipe, State, Until, advance, begin, copied
from kshot.data.task import Example, Task
from kshot.data.template import Template
from kshot.errors import KshotError, MethodError, NumericError
from kshot.model.adapted import Training
from kshot.model.lm import LM
from kshot.seeds import stream

# Validation is looked at so many times in a run, and a run ends when so many looks in a row were no better than one before.
_LOOKS, _PATIENCE = 10, 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """How a fit is run, the same for everything that is trained.

    ``budget`` of one run of training: so many ``steps``, ``passes`` over the examples, or ``seconds``. ``learning_rate``
    0 stands for the best of ``grid`` on the validation part: a quarter of the examples (``split``), the task's own
    validation examples (``task``), or ``none``, and then the middle of the grid. ``loss`` is that of the answer's tokens
    (``label``) or of every token (``all``). ``draw`` counts further initialisations and orders of the same examples.
    ``state`` is a folder in which a fit that is stopped goes on, and ``watch`` is told how far it is.
    """

    budget: str = "60steps"
    learning_rate: float = 0.0
    grid: tuple[float, ...] = ()
    optimiser: str = "adamw"
    weight_decay: float = 0.0
    batch: int = 16
    clip: float = 1.0
    warmup: int = 0
    schedule: str = "constant"
    loss: Literal["label", "all"] = "label"
    kl: float = 0.0
    validation: Literal["split", "task", "none"] = "split"
    draw: int = 0
    state: str | None = None
    watch: Callable[[str], None] | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        """What cannot be is said before anything runs."""
        for value in (self.learning_rate or 1.0, *self.grid):
            self.recipe(value)
        self.until(1)

    def recipe(self, learning_rate: float) -> Recipe:
        """What the training loop needs of it."""
        own = {f.name: getattr(self, f.name) for f in fields(Recipe) if f.name != "learning_rate"}
        return Recipe(**own, learning_rate=learning_rate)

    def until(self, examples: int) -> Until:
        """The budget of one run over so many examples. KshotError where it cannot be read."""
        found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(step|pass|passe|second)s?\s*", self.budget)
        amount = float(found.group(1)) if found else 0.0
        if found is None or amount <= 0 or (found.group(2) != "second" and amount != int(amount)):
            raise KshotError(f"budget {self.budget!r}: what works is a number of steps, passes or seconds, as 100steps")
        if found.group(2) == "second":
            # Nobody knows how many steps that will be, so a schedule could not end with them.
            return Until(steps=1_000_000, seconds=amount, schedule=1_000_000)
        per_pass = math.ceil(examples / self.batch) if found.group(2).startswith("pass") else 1
        return Until(steps=int(amount) * per_pass)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Start:
    """What is learned from these examples, the layout it is learned in, and what has to be said of it.

    ``begun``: it holds the tokens that the model was trained to see first, so that what follows it goes without them.
    """

    learner: Learner
    template: Template
    notes: tuple[str, ...] = ()
    begun: bool = False

    def reader(self, lm: LM) -> LM:
        """The model as it reads behind what is learned."""
        return replace(lm, codec=replace(lm.codec, first=())) if self.begun else lm


Make = Callable[[tuple[Example, ...]], Start]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Learned:
    """The model, what it reads with after the fit, the layout, and how it came about."""

    lm: LM
    placed: Placed
    template: Template
    training: Training
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pupil:
    """Everything that stays the same through the runs of one fit."""

    lm: LM
    task: Task
    course: Course
    make: Make
    seed: int
    key: str

    def keeper(self, name: str) -> Keeper:
        folder = None if self.course.state is None else Path(self.course.state)
        return Keeper(folder, name, self.key)


def learn(
    lm: LM, task: Task, examples: tuple[Example, ...], make: Make, course: Course, *, seed: int, key: str
) -> Learned:
    """Fit what ``make`` starts from these examples; ``key`` names the method and its options, for ``course.state``.

    MethodError where nothing can be learned from them: too long for the context, or diverged at every rate.
    """
    if not (course.learning_rate or course.grid):
        raise MethodError("no learning rate to learn with; give one, or a grid of several to choose from")
    said_of = replace(task, train=(), test=(), source="", notes=())
    told = repr((lm.hash, str(lm.dtype), said_of, examples, replace(course, state=None, watch=None), seed, key))
    pupil = Pupil(
        lm=lm, task=task, course=course, make=make, seed=seed, key=hashlib.sha256(told.encode()).hexdigest()[:16]
    )
    train, held, said = held_out(task, examples, course.validation, seed)
    rates = (course.learning_rate,) if course.learning_rate else tuple(course.grid)
    until = course.until(len(train))
    if held:
        choice = _searched(pupil, train, held, rates)
        # Run once more, to the bit: copies of whole weights at every look would not fit.
        until = Until(steps=choice.steps, schedule=until.schedule or until.steps)
    else:
        choice = Choice(learning_rate=sorted(rates)[len(rates) // 2], steps=until.steps)
        said += f"; learning rate {choice.learning_rate:g} and the whole budget as given"
    # Where no step is better than some, the start of all examples is what was asked for.
    taught = train if choice.steps else examples
    start = make(taught)
    reader = start.reader(lm)
    rows = gold_rows(reader, task, start.template, taught, whole=course.loss == "all")
    first = mean_loss(lm, start.learner, rows)
    keeper, begun = pupil.keeper(f"fit-{choice.learning_rate:g}-{until.steps}"), begin(start.learner)
    state = _run(
        pupil, start.learner, rows, until, course.recipe(choice.learning_rate), keeper, keeper.found() or begun
    )
    keeper.done()
    training = Training(
        parameters=start.learner.parameters,
        steps=state.step,
        seconds=state.seconds + choice.seconds,
        tokens=state.tokens + choice.tokens,
        flops=state.flops + choice.flops,
        start=first,
        losses=state.losses,
        flattened=flattened(state.losses),
        chosen={"learning_rate": choice.learning_rate, "steps": choice.steps},
        search=choice.trials,
        validation=said,
    )
    notes = (*start.notes, *unseen(task, taught), *_edge(choice, rates))
    placed = finished(lm, start.learner, state.leaves)
    return Learned(lm=reader, placed=placed, template=start.template, training=training, notes=notes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The learning rate and number of steps that were chosen, what was tried for it, and what that cost."""

    learning_rate: float
    steps: int
    trials: tuple[Mapping[str, Any], ...] = ()
    seconds: float = 0.0
    tokens: int = 0
    flops: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Trial:
    """A learning rate under way: where its training stands, and where that is kept."""

    learning_rate: float
    keeper: Keeper
    state: State
    diverged: str = ""

    def best(self, until: int | None = None) -> Look:
        """The look with the least loss among those up to a step: what was kept on disk may be further."""
        looks = [look for look in self.state.looks if until is None or look[0] <= until]
        return min(looks, key=lambda look: (look[1], look[0]))

    @property
    def over(self) -> bool:
        """Whether it diverged, or has not become better for too long."""
        losses = [look[1] for look in self.state.looks]
        return bool(self.diverged) or len(losses) - 1 - losses.index(min(losses)) >= _PATIENCE


def _searched(pupil: Pupil, train: tuple[Example, ...], held: tuple[Example, ...], rates: Sequence[float]) -> Choice:
    """The rate and step of the least validation loss; what was found once is read back from ``course.state``."""
    folder = pupil.course.state
    path = None if folder is None else Path(folder) / "search.json"
    if path is not None and (known := read_json(path, pupil.key)) is not None:
        return Choice(**{**known, "trials": tuple(known["trials"])})
    lm, task, course = pupil.lm, pupil.task, pupil.course
    start = pupil.make(train)
    reader = start.reader(lm)
    rows = gold_rows(reader, task, start.template, train, whole=course.loss == "all")
    judge = Judge(reader, task, start.template, held)
    check_room(lm, rows, finished(lm, start.learner, start.learner.leaves).prefix.length)
    until, first = course.until(len(train)), begin(start.learner)
    first = replace(first, looks=(judge.look(finished(lm, start.learner, first.leaves), 0),))
    keepers = [pupil.keeper(f"rate-{value:g}") for value in rates]
    alive = [
        _Trial(learning_rate=value, keeper=keeper, state=keeper.found() or copied(first))
        for value, keeper in zip(rates, keepers, strict=True)
    ]
    ended: list[_Trial] = []
    for share in _rungs(len(rates)):
        for at, trial in enumerate(alive):
            alive[at] = _further(pupil, start.learner, rows, judge, trial, share, until)
        rung = math.ceil(share * until.steps)
        alive.sort(key=lambda trial: (bool(trial.diverged), trial.best(rung)[1]))
        keep = math.ceil(len(alive) / 2)
        ended += alive[keep:]
        alive = alive[:keep]
    trials = sorted([*alive, *ended], key=lambda trial: trial.learning_rate)
    if all(trial.diverged for trial in trials):
        raise MethodError("; ".join(trial.diverged for trial in trials))
    best = min((t for t in trials if not t.diverged), key=lambda trial: trial.best()[1])
    # The first look was one for all; those of a search that was stopped count, too.
    looks = (1 + sum(len(t.state.looks) - 1 for t in trials)) / judge.looks
    choice = Choice(
        learning_rate=best.learning_rate,
        steps=best.best()[0],
        trials=tuple(_shown(trial) for trial in trials),
        seconds=sum(t.state.seconds for t in trials) + judge.seconds * looks,
        tokens=sum(t.state.tokens for t in trials) + round(judge.tokens * looks),
        flops=sum(t.state.flops for t in trials) + judge.flops * looks,
    )
    if path is not None:
        write_json(path, pupil.key, {f.name: getattr(choice, f.name) for f in fields(Choice)})
        for keeper in keepers:
            keeper.done()
    return choice


def _rungs(rates: int) -> tuple[float, ...]:
    """Shares of the budget after each of which the better half goes on.

    >>> _rungs(1), _rungs(2), _rungs(4)
    ((1.0,), (0.5, 1.0), (0.25, 0.5, 1.0))
    """
    halvings = math.ceil(math.log2(max(1, rates)))
    return tuple(0.5**left for left in range(halvings, -1, -1))


def _further(
    pupil: Pupil, learner: Learner, rows: Sequence[Any], judge: Judge, trial: _Trial, share: float, until: Until
) -> _Trial:
    """A trial up to a share of the budget, its validation loss looked at on the way, unless it is over before."""
    steps, seconds = math.ceil(share * until.steps), share * until.seconds
    state = trial.state
    stride = max(1, until.steps // _LOOKS) if math.isinf(until.seconds) else 10
    recipe = pupil.course.recipe(trial.learning_rate)
    try:
        while state.step < steps and state.seconds < seconds and not replace(trial, state=state).over:
            next_look = min(steps, (state.step // stride + 1) * stride)
            to = Until(steps=next_look, seconds=seconds, schedule=until.schedule or until.steps)
            state = _run(pupil, learner, rows, to, recipe, trial.keeper, state)
            look = judge.look(finished(pupil.lm, learner, state.leaves), state.step)
            state = replace(state, looks=(*state.looks, look))
            trial.keeper.offer(state)
    except Diverged as error:
        return replace(trial, state=state, diverged=str(error))
    except NumericError:
        at = f"diverged at step {state.step}: the answers are not numbers with {recipe.optimiser} at learning rate"
        return replace(trial, state=state, diverged=f"{at} {recipe.learning_rate:g}; try a smaller one")
    return replace(trial, state=state)


def _run(
    pupil: Pupil, learner: Learner, rows: Sequence[Any], until: Until, recipe: Recipe, keeper: Keeper, state: State
) -> State:
    """A run of training up to a point, kept on its way."""
    order = int(stream(pupil.seed, "batches", pupil.course.draw).integers(2**31))
    while state.step < until.steps and state.seconds < until.seconds:
        to = replace(until, steps=min(until.steps, state.step + 10), schedule=until.schedule or until.steps)
        state = advance(pupil.lm, learner, recipe, rows, state, until=to, seed=order)
        keeper.offer(state)
        if pupil.course.watch is not None:
            where = f"step {state.step} of {until.steps}" if math.isinf(until.seconds) else f"step {state.step}"
            pupil.course.watch(f"learning rate {recipe.learning_rate:g}, {where}")
    return state


def flattened(losses: Sequence[float]) -> bool | None:
    """Whether the last fifth of the losses is within 5 % (or 0.02 nats) of the fifth before; None below 10 steps."""
    fifth = len(losses) // 5
    if fifth < 2:
        return None
    last, before = (float(np.mean(part)) for part in (losses[-fifth:], losses[-2 * fifth : -fifth]))
    return bool(before - last <= max(0.02, 0.05 * before))


def _shown(trial: _Trial) -> dict[str, Any]:
    step, loss, accuracy = trial.best()
    return {
        "learning_rate": trial.learning_rate,
        "steps": trial.state.step,
        "best_step": step,
        "loss": loss,
        "accuracy": accuracy,
        "curve": [list(look) for look in trial.state.looks],
        "diverged": trial.diverged or None,
    }


def _edge(choice: Choice, rates: Sequence[float]) -> tuple[str, ...]:
    if len(rates) < 2 or not choice.trials or not choice.steps or choice.learning_rate not in (min(rates), max(rates)):
        return ()
    return (f"the chosen learning rate {choice.learning_rate:g} lies at the edge of the grid that was tried",)
