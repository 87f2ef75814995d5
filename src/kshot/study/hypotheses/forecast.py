"""How long the battery will take: the tokens of its prompts are counted, and a few prompts are timed."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace

import numpy as np

from kshot.data.task import Task
from kshot.errors import MethodError, ModelError, NumericError, PromptError
from kshot.model.lm import LM, Group, OnProgress
from kshot.model.said import Scores
from kshot.model.tree import shared_beginning
from kshot.study.hypotheses.battery import PARTS, Battery
from kshot.study.hypotheses.functions import AT_ONCE
from kshot.study.parts import Cell
from kshot.transform.draw import draw

# What asks fewer queries is over about as soon as it is forecast.
_LEAST = 32
# So many queries are timed.
_TIMED = 4


@dataclass(frozen=True, slots=True, eq=False)
class Unread(LM):
    """A model that counts the tokens it would read, and says that all answers are alike."""

    counted: list[int] = field(default_factory=list)

    @staticmethod
    def instead_of(lm: LM) -> "Unread":
        return Unread(**{one.name: getattr(lm, one.name) for one in fields(LM)})

    def score_together(self, groups: Sequence[Group], on_progress: OnProgress | None = None) -> Scores:
        said = []
        for sequences, _ in groups:
            before: tuple[int, ...] = ()
            # Every shared beginning is read once, and the last token of a sequence is only ever a target.
            for path in sorted(sequence.tokens[:-1] for sequence in sequences):
                self.counted.append(len(path) - shared_beginning([path, before]))
                before = path
            said += [np.zeros(len(sequence.tokens) - sequence.start) for sequence in sequences]
        return Scores(tuple(said), tuple(own.astype(np.int64) for own in said), 0)

    @property
    def total(self) -> int:
        return sum(self.counted)


def seconds_to_go(battery: Battery, cells: Sequence[Cell]) -> list[float] | None:
    """About how many seconds the model reads for each cell; None for a few queries, and where no task can be timed."""
    if battery.scale.limit != "all" and battery.scale.limit < _LEAST:
        return None
    found: dict[tuple[str, str], float] = {}
    for task in battery.tasks:
        own = dict.fromkeys(cell.part for cell in cells if cell.task == task.name)
        pace = _pace(battery, task) if own else None
        if pace is not None:
            found |= {(task.name, part): pace * tokens(battery, task, part) for part in own}
    return [found.get((cell.task, cell.part), 0.0) for cell in cells] if found else None


def _pace(battery: Battery, task: Task) -> float | None:
    """Seconds of a token in prompts with as many demonstrations as are asked for."""
    try:
        few = replace(battery, scale=replace(battery.scale, limit=_TIMED))
        asked = few.setting(task, battery.scale.seeds[0])
        prompts = asked.written.prompts(draw(asked.written, asked.shots, asked.seed, "redrawn"))
        sequences = [sequence for own in prompts for sequence in own]
        counting = Unread.instead_of(battery.lm)
        counting.score(sequences)
        battery.lm.score(sequences[:1])
        began = time.perf_counter()
        battery.lm.score(sequences)
        return (time.perf_counter() - began) / counting.total
    except (MethodError, ModelError, NumericError, PromptError):
        # The parts will say why.
        return None


def tokens(battery: Battery, task: Task, part: str) -> int:
    """How many tokens are read for a part of the battery with one seed: it is gone through once, unread."""
    counting = Unread.instead_of(battery.lm)
    own = replace(battery, lm=counting)
    times = 1.0
    if part == "functions":
        # They are alike, and asked so many at once.
        few = min(AT_ONCE, battery.scale.functions)
        own, times = replace(own, scale=replace(own.scale, functions=few)), battery.scale.functions / few
    try:
        PARTS[part].answer(own, own.setting(task, own.scale.seeds[0]), {}, lambda what: None)
    except (MethodError, ModelError, NumericError, PromptError):
        return 0
    return round(times * counting.total)
