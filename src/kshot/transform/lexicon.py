"""Single tokens that can stand for a label: which there are, and how probable each is before anything was asked."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

from kshot.errors import PromptError
from kshot.model.said import Scores
from kshot.model.tokens import Codec
from kshot.model.tree import Scored

# Words of fewer letters are pieces of others as often as not.
_LETTERS = 3


@runtime_checkable
class Reader(Protocol):
    """What is asked: a language model, or a rival that sees the tokens that it sees."""

    def score(self, sequences: Sequence[Scored]) -> Scores:
        """The log-probability of every scored token, in nats."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Lexicon:
    """Tokens that are one whole word after the delimiter, their spellings, and log P of each after an empty input, in nats."""

    tokens: Int[np.ndarray, "n"]
    words: tuple[str, ...]
    prior: Float[np.ndarray, "n"]

    def spelt(self, token: int) -> str:
        return self.words[int(np.flatnonzero(self.tokens == token)[0])]

    def alike(self, count: int, factor: float, rng: np.random.Generator, but: frozenset[int]) -> tuple[int, ...]:
        """So many different tokens, in random order, of which none is ``factor`` times as probable as another.

        One is drawn from all, the rest from those at most so much more probable; ``but`` are never drawn. PromptError
        where there are too few.
        """
        allowed = np.array([token not in but for token in self.tokens.tolist()], dtype=bool)
        order = np.flatnonzero(allowed)[np.argsort(self.prior[allowed], kind="stable")]
        prior = self.prior[order]
        # How many stand in the window that begins at each.
        reach = np.searchsorted(prior, prior + np.log(factor), side="left") - np.arange(len(prior))
        least = np.flatnonzero(reach >= count)
        if not len(least):
            raise PromptError(
                f"{count} single tokens of equal probability were asked for, and of the {len(order)} words that are one "
                f"token no {count} lie within a factor of {factor:g}; ask fewer labels"
            )
        begin = int(rng.choice(least))
        rest = rng.choice(np.arange(begin + 1, begin + int(reach[begin])), size=count - 1, replace=False)
        return tuple(int(self.tokens[order[i]]) for i in rng.permutation([begin, *rest.tolist()]))

    def any(self, count: int, rng: np.random.Generator, but: frozenset[int]) -> tuple[int, ...]:
        """So many different tokens, whatever their probability."""
        allowed = [token for token in self.tokens.tolist() if token not in but]
        if len(allowed) < count:
            raise PromptError(
                f"{count} words of one token were asked for, and there are {len(allowed)}; ask fewer labels"
            )
        return tuple(rng.choice(allowed, size=count, replace=False).tolist())


NO_WORDS = Lexicon(np.zeros(0, dtype=np.int64), (), np.zeros(0))


def lexicon(reader: Reader, codec: Codec, delimiter: str, before: Sequence[int]) -> Lexicon:
    """The words of a tokenizer that are one token after ``delimiter``, each with its probability after ``before``.

    A word is letters only, all small, at least three where the script parts words by blanks; it is read off the
    vocabulary and must come out as one token when it is written again.
    """
    tokenizer = codec.tokenizer
    special = set(tokenizer.all_special_ids)
    texts = {codec.decode((i,)).strip() for i in range(len(tokenizer)) if i not in special}
    words = sorted(filter(_is_word, texts))
    encoded = codec.encode([delimiter + word for word in words])
    one = sorted((ids[0], word) for word, ids in zip(words, encoded, strict=True) if len(ids) == 1)
    sequences = [Scored((*before, token), len(before)) for token, _ in one]
    prior = reader.score(sequences).sums() if one else np.zeros(0)
    return Lexicon(np.array([token for token, _ in one], dtype=np.int64), tuple(word for _, word in one), prior)


def _is_word(text: str) -> bool:
    return text.isalpha() and text == text.lower() and (len(text) >= _LETTERS or not text.isascii())
