"""What is asked: examples with their gold answers, the names of the labels, and splits that do not meet."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from kshot.data.template import Template

Kind = Literal["classification", "choice", "open"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One row: what a template may refer to, and the gold answer.

    ``label`` is the name of a label (classification), the text of the right choice (choice) or the answer (open);
    None where the row is unlabelled. ``choices`` is empty unless this example has answers of its own.
    """

    id: str
    fields: Mapping[str, Any]
    label: str | None
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A named task. ``kind`` says where the candidate answers of a query come from.

    - ``classification``: ``labels``, the same for every query;
    - ``choice``: the example's own ``choices``; ``labels`` is empty;
    - ``open``: any text; ``labels`` holds the distinct answers of the test split, the task's candidate outputs.

    ``template`` is the layout its author suggests; which one is used is part of an ``Adapted``, not of the task.
    ``layouts`` are further ones that a run compares with it. ``train`` is the pool that demonstrations are drawn from;
    no test example is ever in a prompt of its own. ``pick`` and ``num_fewshot`` are how its author shows demonstrations,
    where the task says so (lm-eval's YAML): a run that is told nothing else picks that way and tries that number too.
    ``taught`` names the task that the training examples are of, where that is another.
    """

    name: str
    kind: Kind
    labels: tuple[str, ...]
    train: tuple[Example, ...]
    test: tuple[Example, ...]
    template: Template
    validation: tuple[Example, ...] = ()
    source: str = ""
    version: str = "1"
    layouts: tuple[Template, ...] = ()
    pick: str | None = None
    num_fewshot: int | None = None
    taught: str = ""
    notes: tuple[str, ...] = field(default=())

    def candidates(self, example: Example) -> tuple[str, ...]:
        """The label names that compete for this query."""
        return example.choices or self.labels
