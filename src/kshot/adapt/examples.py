"""The k examples that every way of learning from examples is given, the same for all of them, and which are held out."""

from collections.abc import Sequence
from typing import Literal

from kshot.data.pick import pick
from kshot.data.task import Example, Task
from kshot.errors import MethodError
from kshot.seeds import stream

# Ways of picking that look at the query: every query gets a prompt of its own.
PER_QUERY = ("bm25", "hidden")

# With fewer examples a held-out quarter would be a single one.
LEAST = 8

Validation = Literal["split", "task", "none"]


def given(
    task: Task, examples: Sequence[Example], *, shots: int, how: str, seed: int, ids: Sequence[str] = ()
) -> tuple[Example, ...]:
    """``shots`` of the examples with their answers, the same that stand in the prompt of the same seed.

    Where every query picks its own there is no such set: those are drawn at random. MethodError where there are none.
    """
    way = "random" if how in PER_QUERY else how
    found = pick(tuple(examples), shots, way, seed, labels=task.labels, ids=tuple(ids))
    if not found:
        raise MethodError(
            f"task {task.name!r}: there is nothing to learn from {shots} examples; give --num-fewshot 1 or more"
        )
    if unlabelled := [example.id for example in found if example.label is None]:
        raise MethodError(f"task {task.name!r}: example {unlabelled[0]!r} has no answer to be learned")
    return found


def held_out(
    task: Task, examples: tuple[Example, ...], validation: Validation, seed: int
) -> tuple[tuple[Example, ...], tuple[Example, ...], str]:
    """The examples to search with, those held out, and a sentence that says which; none are held out of fewer than 8."""
    if validation == "none":
        return examples, (), "no validation: as asked"
    if validation == "task":
        own = tuple(example for example in task.validation if example.label is not None)
        if not own:
            raise MethodError(f"task {task.name!r} has no validation examples of its own; give --validation split")
        return examples, own, f"the task's own {len(own)} validation examples"
    if len(examples) < LEAST:
        return examples, (), f"no validation: {len(examples)} examples are too few to hold any out"
    order = stream(seed, "held-out").permutation(len(examples))
    wanted = len(examples) // 4
    # One of each label in turn, so that a small part still holds several; the only one of its label stays to learn from.
    by_label: dict[str | None, list[int]] = {}
    for i in order.tolist():
        by_label.setdefault(examples[i].label, []).append(i)
    several = [own for own in by_label.values() if len(own) > 1]
    turns = [i for turn in range(len(examples)) for own in several for i in own[turn : turn + 1]]
    turns += [own[0] for own in by_label.values() if len(own) == 1]
    chosen = set(turns[:wanted])
    train = tuple(e for i, e in enumerate(examples) if i not in chosen)
    held = tuple(e for i, e in enumerate(examples) if i in chosen)
    return train, held, f"{wanted} of the {len(examples)} examples held out for the choice, learned from the others"


def unseen(task: Task, examples: Sequence[Example]) -> tuple[str, ...]:
    """A note where a label has no example."""
    missing = [label for label in task.labels if all(example.label != label for example in examples)]
    if task.kind != "classification" or not missing:
        return ()
    return (f"no example of {', '.join(map(repr, missing))}: only what the model already knows supports it",)
