"""What a model has read before the query: keys and values, whatever they came from."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Prefix:
    """Keys and values of every layer, for positions 0 to ``length`` - 1. Immutable: reading after it leaves it as it is.

    ``keys[l]`` and ``values[l]`` are (1, g, p, d) tensors after rotary positions, as attention layer l sees them.
    ``tokens`` are the tokens they came from; None where they came from no text (a soft prompt, free keys and values).
    ``embeddings`` (p, e) are the rows of a soft prompt that they came from, where they came from one. ``carried[l]`` (1, g, d)
    is what momentum carries past the last position, where they were read with momentum: all that it needs to go on.
    """

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    tokens: tuple[int, ...] | None = None
    embeddings: Tensor | None = None
    carried: tuple[Tensor, ...] | None = None

    @property
    def length(self) -> int:
        return self.keys[0].shape[2] if self.keys else 0

    @property
    def nbytes(self) -> int:
        return sum(t.numel() * t.element_size() for t in (*self.keys, *self.values))

    def cut(self, length: int) -> "Prefix":
        """Its first ``length`` positions: a causal model has computed them without the rest. Shares memory."""
        if length >= self.length:
            return self
        return Prefix(
            keys=tuple(k[:, :, :length] for k in self.keys),
            values=tuple(v[:, :, :length] for v in self.values),
            tokens=None if self.tokens is None else self.tokens[:length],
        )

    def join(
        self,
        keys: list[Tensor],
        values: list[Tensor],
        tokens: tuple[int, ...] | None,
        carried: tuple[Tensor, ...] | None = None,
    ) -> "Prefix":
        """A longer prefix: these keys and values after ours, and what momentum carries past all of them."""
        if not self.length:
            return Prefix(tuple(keys), tuple(values), tokens, carried=carried)
        known = None if self.tokens is None or tokens is None else self.tokens + tokens
        return Prefix(
            keys=tuple(torch.cat(pair, dim=2) for pair in zip(self.keys, keys, strict=True)),
            values=tuple(torch.cat(pair, dim=2) for pair in zip(self.values, values, strict=True)),
            tokens=known,
            carried=carried,
        )


EMPTY = Prefix((), (), ())
