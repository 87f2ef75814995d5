"""What a model says: logits of scored rows, log-probabilities, greedy answers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from kshot.errors import NumericError
from kshot.model.tree import shared_beginning

# Rows of logits that are turned into log-probabilities at a time: bounds the float copy of (rows, vocabulary).
_ROWS_AT_ONCE = 64


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Some of the sequences, answered: logits of the scored rows and where each scored token finds its own (tree.Pack)."""

    logits: Float[Tensor, "s v"]
    row_of: Int[np.ndarray, "n"]
    targets: Int[np.ndarray, "n"]
    members: Int[np.ndarray, "m"]
    bounds: Int[np.ndarray, "m1"]
    tokens: int

    def logprobs(self) -> Float[Tensor, "n"]:
        """log P(target | before), float64. Sums of exponentials are added up in float64: float32 alone costs 1e-5."""
        logits = self.logits
        normaliser = torch.cat(
            [_logsumexp(logits[i : i + _ROWS_AT_ONCE]) for i in range(0, len(logits), _ROWS_AT_ONCE)]
        )
        row_of = torch.from_numpy(self.row_of).to(logits.device)
        targets = torch.from_numpy(self.targets).to(logits.device)
        return logits[row_of, targets].double() - normaliser[row_of]

    def best(self) -> Int[np.ndarray, "n"]:
        """The most probable token in the place of every scored one."""
        return self.logits.argmax(-1).cpu().numpy()[self.row_of]

    def by_member(self) -> Iterator[tuple[int, list[int]]]:
        """Every member with the most probable tokens in the place of its scored ones."""
        best = self.best()
        for j, begin, stop in zip(self.members.tolist(), self.bounds, self.bounds[1:], strict=False):
            yield j, best[begin:stop].tolist()


def _logsumexp(logits: Float[Tensor, "s v"]) -> Float[Tensor, "s"]:
    logits = logits if logits.dtype == torch.float64 else logits.float()
    top = logits.detach().amax(-1, keepdim=True)
    return (logits - top).exp().sum(-1, dtype=torch.float64).log() + top[:, 0].double()


@dataclass(frozen=True, slots=True)
class Scores:
    """Per sequence the log-probabilities of its scored tokens (nats) and the most probable token in the place of each,
    and how many tokens the model ran for them."""

    logprobs: tuple[np.ndarray, ...]
    best: tuple[np.ndarray, ...]
    tokens: int

    def sums(self) -> Float[np.ndarray, "n"]:
        return np.array([values.sum() for values in self.logprobs])


def no_number(name: str, dtype: torch.dtype) -> NumericError:
    """What to raise where a model answers with NaN: in 16 bits it may be a number that is too large for them.

    >>> str(no_number("m", torch.float16))
    'm answered with NaN in torch.float16; try --dtype float32'
    """
    narrow = dtype in (torch.float16, torch.bfloat16)
    hint = "try --dtype float32" if narrow else "look for NaN or infinity in its weights, or in what was learned for it"
    return NumericError(f"{name} answered with NaN in {dtype}; {hint}")


@dataclass(frozen=True, slots=True)
class Answers:
    """Greedy answers as text, and how many tokens the model ran for them."""

    texts: tuple[str, ...]
    tokens: int


def agreed(said: Sequence[int], guessed: Sequence[int]) -> tuple[int, ...]:
    """The model's own tokens: ``said[i]`` follows ``guessed[:i]``, so it counts as long as all before it were said too.

    >>> agreed([5, 6, 9, 1], [5, 6, 7])
    (5, 6, 9)
    """
    right = shared_beginning([tuple(said), tuple(guessed)])
    return tuple(said[: right + 1])
