"""A model that has read some sequences already: what it said of them is not asked again."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, fields

import numpy as np

from kshot.model.lm import LM, Group, OnProgress
from kshot.model.said import Scores
from kshot.model.trace import Said, Tokens
from kshot.model.tree import Scored

Memory = dict[bytes, Said]
"""What was said of sequences, by ``remembered_as``."""


def remembered_as(tokens: Tokens, start: int) -> bytes:
    """The name of a sequence: a digest of all its tokens from the first on and of where what is scored of it starts.

    Of many queries the demonstrations' tokens in every name would be more than all that was said of them.
    """
    return hashlib.blake2b(np.array((start, *tokens), dtype=np.int64).tobytes(), digest_size=16).digest()


@dataclass(frozen=True, slots=True, eq=False)
class Remembering(LM):
    """The same model with a memory; what is not in it is read. ``tokens`` counts only what is."""

    memory: Memory = field(default_factory=dict)

    @staticmethod
    def of(lm: LM, memory: Memory) -> "Remembering":
        return Remembering(memory=memory, **{one.name: getattr(lm, one.name) for one in fields(LM)})

    def score_together(self, groups: Sequence[Group], on_progress: OnProgress | None = None) -> Scores:
        # After a prefix that knows no tokens a sequence does not say what stands before it.
        known = [[prefix.tokens is not None and _key(s) in self.memory for s in own] for own, prefix in groups]
        rest = [
            ([s for s, there in zip(own, held, strict=True) if not there], prefix)
            for (own, prefix), held in zip(groups, known, strict=True)
        ]
        read = LM.score_together(self, [group for group in rest if group[0]], on_progress)
        new = iter(zip(read.logprobs, read.best, strict=True))
        said = [
            self.memory[_key(s)] if there else next(new)
            for (own, _), held in zip(groups, known, strict=True)
            for s, there in zip(own, held, strict=True)
        ]
        return Scores(tuple(values for values, _ in said), tuple(best for _, best in said), read.tokens)


def _key(sequence: Scored) -> bytes:
    return remembered_as(sequence.tokens, sequence.start)
