"""How a fit is run: its budget and recipe, what it starts from, and a run of training that is kept on its way."""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from kshot.adapt.checkpoint import Keeper
from kshot.adapt.train import Learner, Recipe, State, Until, advance
from kshot.data.task import Example, Task
from kshot.data.template import Template
from kshot.errors import KshotError
from kshot.model.lm import LM
from kshot.seeds import stream


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """How a fit is run, the same for everything that is trained.

    ``budget`` of one run of training: so many ``steps``, ``passes`` over the examples, or ``seconds``. ``learning_rate``
    0 stands for the best of ``grid`` on the validation part: a quarter of the examples (``split``), the task's own
    validation examples (``task``), or ``none``, and then the middle of the grid. Where no ``grid`` is given, or no
    ``optimiser``, it is the method's own. ``loss`` is that of the answer's tokens (``label``) or of every token
    (``all``). ``draw`` counts further initialisations and orders of the same examples. ``state`` is a folder in which a
    fit that is stopped goes on, and ``watch`` is told how far it is.
    """

    budget: str = "60steps"
    learning_rate: float = 0.0
    grid: tuple[float, ...] = ()
    optimiser: str | None = None
    weight_decay: float = 0.0
    batch: int = 16
    batches: Literal["shuffled", "in-order"] = "shuffled"
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

    def over(self, own: "Course") -> "Course":
        """The same with the optimiser and the grid of a method's ``own`` course where it names none."""
        return replace(self, optimiser=self.optimiser or own.optimiser, grid=self.grid or own.grid)

    def recipe(self, learning_rate: float) -> Recipe:
        """What the training loop needs of it; the optimiser is that of Recipe where none is named."""
        own = {f.name: getattr(self, f.name) for f in fields(Recipe) if f.name != "learning_rate"}
        return Recipe(**{n: value for n, value in own.items() if value is not None}, learning_rate=learning_rate)

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
        """The model as it reads after what is learned."""
        return replace(lm, codec=lm.codec.begun()) if self.begun else lm


Make = Callable[[tuple[Example, ...]], Start]


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
        return Keeper(folder, name, self.key, device=self.lm.device)

    def fit_keeper(self, learning_rate: float, steps: int) -> Keeper:
        """Keeps the run that is kept in the end."""
        return self.keeper(f"fit-{learning_rate:g}-{steps}")


def go_on(
    pupil: Pupil, learner: Learner, rows: Sequence[Any], until: Until, recipe: Recipe, keeper: Keeper, state: State
) -> State:
    """A run of training up to a point, kept on its way.

    Where it ends it is not kept: what is looked at there belongs to the state, and one without would never be looked at.
    """
    order = int(stream(pupil.seed, "batches", pupil.course.draw).integers(2**31))
    while state.step < until.steps and state.seconds < until.seconds:
        keeper.offer(state)
        to = replace(until, steps=min(until.steps, state.step + 10), schedule=until.schedule or until.steps)
        state = advance(pupil.lm, learner, recipe, rows, state, until=to, seed=order)
        if pupil.course.watch is not None:
            where = f"step {state.step} of {until.steps}" if math.isinf(until.seconds) else f"step {state.step}"
            pupil.course.watch(f"learning rate {recipe.learning_rate:g}, {where}")
    return state
