"""What a transform is: a change of a written task that says what of it stays."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from kshot.transform.written import Written

Kept = Literal["input distribution", "label space", "mapping", "format"]
ALL: frozenset[Kept] = frozenset({"input distribution", "label space", "mapping", "format"})


@dataclass(frozen=True, slots=True)
class Transform:
    """A pure function of a written task and a seed.

    ``keeps`` says what of the original stays, in the terms of Min et al. 2022: the distribution of inputs, the space of
    labels, that an input and the answer shown with it belong together (whatever the answer is called), and that a
    demonstration is an input followed by its answer.
    """

    name: str
    keeps: frozenset[Kept]
    apply: Callable[[Written, int], Written] = field(repr=False)

    def __call__(self, written: Written, seed: int) -> Written:
        return self.apply(written, seed)

    def then(self, other: "Transform") -> "Transform":
        """This one, and the other after it: what both keep is kept."""
        return Transform(
            f"{self.name}, {other.name}",
            self.keeps & other.keeps,
            lambda written, seed: other(self(written, seed), seed),
        )


def but(*lost: Kept) -> frozenset[Kept]:
    """All but these."""
    return ALL - set(lost)


IDENTITY = Transform("original", ALL, lambda written, seed: written)
