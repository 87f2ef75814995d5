"""A learning rate and a number of steps, chosen on examples that are held out.

Every learning rate of a small grid is tried on the rest, the better half goes on (successive halving) as long as it
becomes better, and the loss on what was held out says which rate and how many steps, none among them.
"""

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from kshot.adapt.checkpoint import Keeper, read_json, write_json
from kshot.adapt.course import Pupil, go_on
from kshot.adapt.judge import Judge, check_room, gold_rows
from kshot.adapt.learners import finished
from kshot.adapt.train import Diverged, Learner, Look, State, Until, begin, diverged
from kshot.data.task import Example
from kshot.errors import MethodError, NumericError, OutputError

log = logging.getLogger("kshot")

# Validation is looked at so many times in a run, and a run ends when so many looks in a row were no better than one before.
_LOOKS, _PATIENCE = 10, 4

# Bytes from which a run that waits for its turn is kept on disk: whole weights with their moments, for every rate. Nor
# are leaves of this size copied at a look.
_LARGE = 256 << 20


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

    def parked(self) -> "_Trial":
        """The same without what nobody will ask for; what is large waits on disk, where a folder has room for it."""
        if self.over:
            return self.emptied()
        held = (*self.state.leaves.values(), *(t for own in self.state.moments.values() for t in own.values()))
        if self.keeper.folder is None or _bytes(held) < _LARGE:
            return self
        try:
            self.keeper.keep(self.state)
        except OutputError:
            return self
        return self.emptied()

    def emptied(self) -> "_Trial":
        """What it came to, without the tensors."""
        return replace(self, state=replace(self.state, leaves={}, moments={}))

    def resumed(self, learner: Learner) -> "_Trial":
        """The same with its state in memory."""
        if self.state.leaves or self.over:
            return self
        if not self.state.step:
            return replace(self, state=replace(begin(learner), looks=self.state.looks))
        found = self.keeper.found()
        if found is None or found.step != self.state.step:
            raise MethodError(f"the state of training in {str(self.keeper.folder)!r} was removed while it was needed")
        return replace(self, state=found)

    def looked(self, look: Look) -> "_Trial":
        """The same with one more look at it, and a copy of its leaves where none was better and they are small."""
        state = self.state
        if look[1] < self.best()[1]:
            small = _bytes(state.leaves.values()) < _LARGE
            state = replace(state, best={name: leaf.clone() for name, leaf in state.leaves.items()} if small else {})
        return replace(self, state=replace(state, looks=(*state.looks, look)))

    def at_best(self) -> State | None:
        """Where it stood at its best look, without what it cost; None where no leaves were copied there."""
        step = self.best()[0]
        return State(leaves=self.state.best, step=step, losses=self.state.losses[:step]) if self.state.best else None

    @property
    def over(self) -> bool:
        """Whether it diverged, or has not become better for too long."""
        losses = [look[1] for look in self.state.looks]
        return bool(self.diverged) or len(losses) - 1 - losses.index(min(losses)) >= _PATIENCE


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def searched(
    pupil: Pupil, train: tuple[Example, ...], held: tuple[Example, ...], rates: Sequence[float]
) -> tuple[Choice, State | None]:
    """The rate and step of the least validation loss, and where training stood there.

    What was found once is read back from ``course.state``. None: its leaves are too large for a copy, none were learned,
    or it was read back, and then the state is where the fit's own keeper finds it.
    """
    folder = pupil.course.state
    path = None if folder is None else Path(folder) / "search.json"
    if path is not None and (known := read_json(path, pupil.key)) is not None:
        return Choice(**{**known, "trials": tuple(known["trials"])}), None
    lm, task, course = pupil.lm, pupil.task, pupil.course
    start = pupil.make(train)
    reader = start.reader(lm)
    rows = gold_rows(reader, task, start.template, train, whole=course.loss == "all")
    judge = Judge(reader, task, start.template, held)
    began = finished(lm, start.learner, start.learner.leaves)
    check_room(lm, [*rows, *(row for own in judge.asked() for row in own)], began.prefix.length)
    until, first = course.until(len(train)), State(leaves={}, looks=(judge.look(began, 0),))
    keepers = [pupil.keeper(f"rate-{value:g}") for value in rates]
    alive = [
        _Trial(learning_rate=value, keeper=keeper, state=keeper.found() or first).parked()
        for value, keeper in zip(rates, keepers, strict=True)
    ]
    ended: list[_Trial] = []
    for share in _rungs(len(rates)):
        for at, trial in enumerate(alive):
            alive[at] = _further(pupil, start.learner, rows, judge, trial.resumed(start.learner), share, until).parked()
        rung = math.ceil(share * until.steps)
        alive.sort(key=lambda trial: (bool(trial.diverged), trial.best(rung)[1]))
        keep = math.ceil(len(alive) / 2)
        ended += [trial.emptied() for trial in alive[keep:]]
        alive = alive[:keep]
    trials = sorted([*alive, *ended], key=lambda trial: trial.learning_rate)
    if all(trial.diverged for trial in trials):
        raise MethodError("; ".join(trial.diverged for trial in trials))
    best = min((t for t in trials if not t.diverged), key=lambda trial: trial.best()[1])
    _keep(pupil, path, keepers, choice := _choice(best, trials, judge), best.at_best())
    return choice, best.at_best()


def _choice(best: _Trial, trials: Sequence[_Trial], judge: Judge) -> Choice:
    # The first look was one for all; those of a search that was stopped count, too.
    looks = (1 + sum(len(t.state.looks) - 1 for t in trials)) / judge.looks
    return Choice(
        learning_rate=best.learning_rate,
        steps=best.best()[0],
        trials=tuple(_shown(trial) for trial in trials),
        seconds=sum(t.state.seconds for t in trials) + judge.seconds * looks,
        tokens=sum(t.state.tokens for t in trials) + round(judge.tokens * looks),
        flops=sum(t.state.flops for t in trials) + judge.flops * looks,
    )


def _keep(pupil: Pupil, path: Path | None, keepers: Sequence[Keeper], choice: Choice, at: State | None) -> None:
    """What the search led to in the place of where its runs stand; where that cannot be written it is said."""
    if path is None:
        return
    try:
        if at is not None:
            pupil.fit_keeper(choice.learning_rate, choice.steps).keep(at)
        write_json(path, pupil.key, {f.name: getattr(choice, f.name) for f in fields(Choice)})
    except OutputError as error:
        log.warning("%s; the fit goes on, and would search again if it were stopped", error)
    for keeper in keepers:
        keeper.done()


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
    stride = max(1, until.steps // _LOOKS) if math.isinf(until.seconds) else 10
    recipe = pupil.course.recipe(trial.learning_rate)
    try:
        while trial.state.step < steps and trial.state.seconds < seconds and not trial.over:
            next_look = min(steps, (trial.state.step // stride + 1) * stride)
            to = Until(steps=next_look, seconds=seconds, schedule=until.schedule or until.steps)
            trial = replace(trial, state=go_on(pupil, learner, rows, to, recipe, trial.keeper, trial.state))
            trial = trial.looked(judge.look(finished(pupil.lm, learner, trial.state.leaves), trial.state.step))
            trial.keeper.offer(trial.state)
    except Diverged as error:
        return replace(trial, diverged=str(error))
    except NumericError:
        return replace(trial, diverged=str(diverged(trial.state.step, "the answers are not numbers", recipe)))
    return trial


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
