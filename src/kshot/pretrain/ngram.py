"""The n-gram model: what any language model grown from the same text has to beat.

Interpolated Kneser-Ney smoothing (Kneser and Ney 1995; Chen and Goodman 1999, section 2.8): the longest context counts how
often a token followed it, shorter ones in how many different contexts it did, each gives away a discount to the next
shorter one, and the shortest to all tokens alike.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Integer

from kshot.errors import DataError


@dataclass(frozen=True, slots=True, eq=False)
class _Grams:
    """All different runs of m tokens: ``keys`` (ascending) are their first m - 1 tokens' number times v, plus the last.

    ``counts`` is what each counts for; ``totals`` and ``types`` are sums of counts and numbers of runs by their first
    m - 1 tokens; a share ``discount`` of a count is given away for each.
    """

    keys: Int[np.ndarray, "k"]
    counts: Int[np.ndarray, "k"]
    totals: Int[np.ndarray, "c"]
    types: Int[np.ndarray, "c"]
    discount: float


@dataclass(frozen=True, slots=True, eq=False)
class NGram:
    """Runs of 1 to n tokens of a text over so many tokens."""

    grams: tuple[_Grams, ...]
    vocabulary: int

    def logprobs(self, tokens: Integer[np.ndarray, "t"]) -> Float[np.ndarray, "t"]:
        """log P of every token of a text after those before it, in nats; the first stands after nothing."""
        wide = tokens.astype(np.int64)
        found = np.full(len(wide), 1 / self.vocabulary)
        # The number of the run of m - 1 tokens before each token: 0 of none, -1 of one that was never seen.
        contexts = np.zeros(len(wide), dtype=np.int64)
        for grams in self.grams:
            keys = contexts * self.vocabulary + wide
            places = np.searchsorted(grams.keys, keys).clip(max=len(grams.keys) - 1)
            seen = (grams.keys[places] == keys) & (contexts >= 0)
            known = contexts >= 0
            totals = np.where(known, grams.totals[contexts], 1)
            types = np.where(known, grams.types[contexts], 0)
            counts = np.where(seen, grams.counts[places], 0)
            own = (np.maximum(counts - grams.discount, 0) + grams.discount * types * found) / np.maximum(totals, 1)
            # A context that was never followed by anything says nothing.
            found = np.where(known & (totals > 0), own, found)
            contexts = np.concatenate([[-1], np.where(seen, places, -1)[:-1]])
        return np.log(found)

    def shares(self, context: Integer[np.ndarray, "t"]) -> Float[np.ndarray, "v"]:
        """The probability of every token after a context."""
        rows = [self.logprobs(np.append(context, token))[-1] for token in range(self.vocabulary)]
        return np.exp(np.array(rows))


def ngram(tokens: Integer[np.ndarray, "t"], order: int, vocabulary: int) -> NGram:
    """The model of a text; contexts are of at most ``order`` - 1 tokens. DataError for a text that is no longer than that."""
    if order < 1 or len(tokens) <= order:
        raise DataError(
            f"an n-gram model of order {order} of {len(tokens)} tokens: what works is 1 or more, and more text"
        )
    wide = tokens.astype(np.int64)
    runs: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    numbers = np.zeros(len(wide), dtype=np.int64)
    for m in range(1, order + 1):
        # Runs of m tokens end at m - 1 and after it; their first m - 1 tokens end one before.
        keys = (numbers[: len(wide) - m + 1] if m > 1 else numbers) * vocabulary + wide[m - 1 :]
        unique, first, numbers = np.unique(keys, return_index=True, return_inverse=True)
        runs.append((unique, first, numbers))
    return NGram(tuple(_counted(runs, m, vocabulary) for m in range(order)), vocabulary)


def _counted(runs: list[tuple[np.ndarray, np.ndarray, np.ndarray]], m: int, vocabulary: int) -> _Grams:
    unique, _, numbers = runs[m]
    if m + 1 == len(runs):
        counts = np.bincount(numbers, minlength=len(unique))
    else:
        # In how many different longer runs each stands last: one of them begins a token before.
        _, first, _ = runs[m + 1]
        counts = np.bincount(numbers[first + 1], minlength=len(unique))
    contexts = unique // vocabulary
    size = len(runs[m - 1][0]) if m else 1
    once, twice = (int((counts == n).sum()) for n in (1, 2))
    return _Grams(
        keys=unique,
        counts=counts,
        totals=np.bincount(contexts, weights=counts, minlength=size).astype(np.int64),
        types=np.bincount(contexts[counts > 0], minlength=size),
        # Ney et al. 1994; where no run comes once, or none twice, a half.
        discount=once / (once + 2 * twice) if once and twice else 0.5,
    )
