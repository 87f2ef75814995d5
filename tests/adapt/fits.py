"""A small task, and fits of a soft prompt and of thin changes of weights to it."""

from dataclasses import asdict, replace

import torch

from kshot.adapt.course import Course, Start
from kshot.adapt.learn import learn
from kshot.adapt.learners import low_rank, soft_rows
from kshot.data.task import Example, Task
from kshot.data.template import Template
from kshot.model.lm import LM

SMALL = Course(budget="12steps", grid=(0.001, 0.01, 0.1), batch=4)


def films(n: int = 12, labels=("bad", "good")) -> Task:
    words = {"bad": "a bore", "good": "a joy"}
    rows = [Example(id=f"f{i}", fields={"text": f"film {i} was {words[labels[i % len(labels)]]}"},
                    label=labels[i % len(labels)]) for i in range(n)]  # fmt: skip
    return Task(name="films", kind="classification", labels=("bad", "good"), train=tuple(rows), test=(),
                validation=tuple(replace(row, id=f"v{i}") for i, row in enumerate(rows[:6])),
                template=Template(input="{{text}}\n:"))  # fmt: skip


def soft(lm: LM, task: Task, course: Course = SMALL, seed: int = 0, length: int = 3):
    def make(taught: tuple[Example, ...]) -> Start:
        return Start(learner=soft_rows(lm, lm.embedded(range(length))), template=task.template)

    return learn(lm, task, task.train, make, course, seed=seed, key="soft")


def thin(lm: LM, task: Task, course: Course):
    """A soft prompt's size is normalised away; a change of weights is not."""

    def make(taught: tuple[Example, ...]) -> Start:
        return Start(learner=low_rank(lm, ("all-linear",), 2, 4.0, seed=0), template=task.template)

    return learn(lm, task, task.train, make, course, seed=0, key="thin")


def bits(learned) -> list[torch.Tensor]:
    return [*learned.placed.prefix.keys, *learned.placed.prefix.values, learned.placed.prefix.embeddings]


def told(learned) -> dict:
    """How it was learned, without the clock."""
    return {name: value for name, value in asdict(learned.training).items() if name != "seconds"}
