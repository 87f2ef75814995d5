"""What a fitted soft prompt says, read off the vocabulary around its rows (Lester et al. 2021, section 7).

The shares look at the neighbours of every row (``nearest_tokens``) and at those of random prompts, ``nulls``: what a
share is for rows that nobody trained. Each returns a mapping of ``value``, of ``null``, ``null_low`` and ``null_high``
(mean, least and greatest over the random prompts; None without any) and of ``n``, the number of rows.
"""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import exp, log, sqrt
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from kshot.model import vocabulary
from kshot.model.lm import LM
from kshot.model.tree import Scored

# Cosines are compared to this many parts: below it, rounding would decide between equal rows.
_PARTS = 1_000_000

# A stem: so many letters in common, and so much of the shorter word.
_STEM_LETTERS, _STEM_SHARE = 4, 0.6

# A word of the domain: at least twice the odds, by at least so many standard errors, so often, and with so many letters.
_DOMAIN_ODDS, _DOMAIN_ERRORS, _DOMAIN_TIMES, _DOMAIN_LETTERS = 2.0, 3.0, 5, 3


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A token of the vocabulary near a row: its id, its text, its cosine with the row, whether it is a special token."""

    token: int
    text: str
    cosine: float
    special: bool

    @property
    def word(self) -> str:
        """Its text without blanks around it and without case."""
        return folded(self.text)


Near = Sequence[Sequence[Neighbour]]


def folded(text: str) -> str:
    return text.strip().casefold()


def nearest_tokens(lm: LM, rows: Float[Tensor, "p e"], count: int = 5) -> tuple[tuple[Neighbour, ...], ...] | None:
    """For every row the ``count`` tokens whose embeddings have the highest cosine with it, the nearest first.

    Returns None where there are no rows.

    Claim: a trained row stands for the meaning that the tokens around it share (Lester et al. 2021, section 7).
    Formula: the ids v with the greatest cos(P_i, E_v), in float32, compared to 1e-6; ties go to the smaller id.
    Null: the neighbours of a random direction; they are not uniform, because some tokens lie near everything.
    Departures: rows of the table without a token are left out. Special tokens are kept and marked.
    Known problems: cosines of trained rows are often small (0.1 to 0.3), and then the nearest token is near in name
        only: read the cosine too. Untrained tokens may crowd around the mean embedding and so around every row.
    """
    if not len(rows):
        return None
    whole = vocabulary.size(lm)
    count = min(count, whole)
    unit = _unit(rows.detach().float().to(lm.device))
    best: Tensor | None = None
    for ids in vocabulary.chunks(lm):
        cosines = unit @ _unit(lm.embedded(ids)).T
        # One number for both: the rounded cosine first, then the smaller id.
        keys = (cosines * _PARTS).round_().long() * whole + torch.arange(
            whole - 1 - ids.start, whole - 1 - ids.stop, -1
        )
        keys = keys if best is None else torch.cat([best, keys], dim=1)
        best = keys.topk(min(count, keys.shape[1]), dim=1).values
    assert best is not None
    tokens = (whole - 1 - best.remainder(whole)).tolist()
    parts = best.div(whole, rounding_mode="floor").tolist()
    known = sorted({token for own in tokens for token in own})
    texts = dict(zip(known, vocabulary.spelt(lm, known), strict=True))
    special = vocabulary.special(lm)
    return tuple(
        tuple(Neighbour(t, texts[t], c / _PARTS, t in special) for t, c in zip(own, cosines, strict=True))
        for own, cosines in zip(tokens, parts, strict=True)
    )


def label_share(near: Near, words: Collection[str], nulls: Sequence[Near] = ()) -> dict[str, Any] | None:
    """The share of rows with a label word among their neighbours, in [0, 1], against random prompts.

    ``words`` are folded (``folded``): label words and the tokens they are made of. Returns None for no rows or words.

    Claim: class-label initialisation persists through training, and other prompts find label words by themselves
        (Lester et al. 2021, section 7).
    Formula: mean over rows of [some neighbour's text, without blanks and case, is in ``words``].
    Null: ``null``, the same for prompts of random directions with the same norms.
    Departures: none; the paper looks at five neighbours too and gives no number.
    Known problems: a label of several tokens matches by any of them, also by a piece such as "un". A prompt that began
        as its label words and did not move has a high share: compare with the share before the first step.
    """
    if not words:
        return None
    return _against(lambda own: _mean([any(n.word in words for n in row) for row in own]), near, nulls)


def cluster_share(near: Near, nulls: Sequence[Near] = ()) -> dict[str, Any] | None:
    """The share of pairs of a row's neighbours that share one stem, in [0, 1], against random prompts.

    Returns None where no row has two neighbours.

    Claim: the neighbours of a row form tight lexical clusters, such as technology, technologies, technological
        (Lester et al. 2021, section 7).
    Formula: mean over all pairs of neighbours of one row of ``same_stem``: equal without blanks and case, or at least
        4 letters of common beginning that are at least 60 % of the shorter word.
    Null: ``null``, the same for prompts of random directions with the same norms.
    Departures: the paper judges by eye, and calls synonyms a cluster too; they are none here.
    Known problems: spellings of one word with and without blank or capital are neighbours of each other in most models,
        so a prompt that sits on a token has a cluster by that alone. The rule is made for alphabets, and takes "form"
        and "formal" for relatives.
    """
    return _against(
        lambda own: _mean([same_stem(a.text, b.text) for row in own for a, b in combinations(row, 2)]), near, nulls
    )


def domain_share(near: Near, words: Collection[str], nulls: Sequence[Near] = ()) -> dict[str, Any] | None:
    """The share of all neighbours that are words of the task's own domain, in [0, 1], against random prompts.

    ``words`` are folded, and come from ``domain_words``. Returns None for no rows.

    Claim: a prompt primes the model for a domain: many neighbours of the BoolQ prompt are words of science and
        technology (Lester et al. 2021, section 7).
    Formula: mean over rows and neighbours of [text without blanks and case is in ``words``].
    Null: ``null``, the same for prompts of random directions with the same norms.
    Departures: the paper names a few neighbours; which words are the domain's is decided here by their odds in the
        task's training inputs against a named corpus.
    Known problems: a row that began as the embedding of a word from the task's texts counts without any training. Means
        nothing for a task whose texts are the corpus. Words of several tokens are not found. Random directions fall on
        rare words more than on common ones, so rows of common words begin below the null.
    """
    return _against(lambda own: _mean([n.word in words for row in own for n in row]), near, nulls)


def repeated_share(near: Near, nulls: Sequence[Near] = ()) -> dict[str, Any] | None:
    """The share of rows whose nearest token is also that of another row, in [0, 1], against random prompts.

    Returns None where there are no rows.

    Claim: long prompts hold many rows with the same neighbours: capacity that is not used, or order that the prompt
        does not know (Lester et al. 2021, section 7).
    Formula: mean over rows i of [there is j != i with the same nearest token].
    Null: ``null``, the same for prompts of random directions with the same norms; it grows with the number of rows.
    Departures: the paper sees it by eye and gives no number.
    Known problems: vocabulary initialisation starts at 0 because it samples without replacement, text and demonstrations
        start above it because texts repeat words.
    """

    def repeated(own: Near) -> float | None:
        times = Counter(row[0].token for row in own if row)
        return _mean([times[row[0].token] > 1 for row in own if row])

    return _against(repeated, near, nulls)


def prompt_perplexity(
    lm: LM,
    tokens: Sequence[int],
    real: Sequence[Sequence[int]] = (),
    chance: Sequence[Sequence[int]] = (),
) -> dict[str, Any] | None:
    """The perplexity of the string of nearest tokens under the model, next to real prompts and random tokens.

    Returns ``value``, ``real``, ``chance`` (None where none are given) and ``n``, the tokens of the string that were
    scored; None where there is nothing to score.

    Claim: read as a text, the nearest tokens of a prompt are no sentence (Lester et al. 2021, section 7).
    Formula: exp(-mean over tokens of log p(token | those before)), in nats, after the model's start token; for several
        texts the mean is over all their tokens.
    Null: ``chance``, tokens drawn at random; a sentence would be near ``real``, the task's own prompts of that length.
    Departures: the paper judges by eye. Of each row the nearest token that is not special is taken, and tokens are
        scored as they are, not decoded and encoded again.
    Known problems: a model without a start token scores from the second token on. Repeated tokens lower the perplexity
        without making a sentence: read it beside ``repeated_share``.
    """
    after = lm.codec.first or (() if lm.codec.start is None else (lm.codec.start,))
    texts = [(*after, *text) for text in (tokens, *real, *chance)]
    scored = [Scored(text, max(1, len(after))) for text in texts if len(text) > max(1, len(after))]
    if not tokens or len(scored) < len(texts):
        return None
    found = lm.score(scored).logprobs

    def perplexity(part: Sequence[np.ndarray]) -> float | None:
        return exp(-float(np.concatenate(part).mean())) if part else None

    return {
        "value": perplexity(found[:1]),
        "real": perplexity(found[1 : 1 + len(real)]),
        "chance": perplexity(found[1 + len(real) :]),
        "n": len(found[0]),
    }


def same_stem(a: str, b: str) -> bool:
    """Whether two words are one word or begin alike: at least 4 letters, and 60 % of the shorter one.

    >>> same_stem(" Technology", "technological"), same_stem("cat", "cats"), same_stem("science", "scientific")
    (True, False, True)
    """
    a, b = folded(a), folded(b)
    if a == b:
        return any(letter.isalpha() for letter in a)
    short = min(len(a), len(b))
    shared = next((i for i in range(short) if a[i] != b[i] or not a[i].isalpha()), short)
    return shared >= _STEM_LETTERS and shared >= _STEM_SHARE * short


def domain_words(task: Mapping[str, int], background: Mapping[str, int]) -> frozenset[str]:
    """The words that the task's texts hold more often than the background does, from the counts of each.

    A word is in where its odds are at least twice as high and the difference of log-odds is at least 3 of its standard
    errors, with half a count added everywhere (Monroe et al. 2008, section 3, with a flat prior). It occurs at least 5
    times, since a large background makes every new word rare, and it has at least 3 letters and nothing but letters.
    """
    n, m = sum(task.values()), sum(background.values())
    found = []
    for word, k in task.items():
        if k < _DOMAIN_TIMES or len(word) < _DOMAIN_LETTERS or not word.isalpha():
            continue
        other = background.get(word, 0)
        odds = log((k + 0.5) / (n - k + 0.5)) - log((other + 0.5) / (m - other + 0.5))
        error = sqrt(1 / (k + 0.5) + 1 / (other + 0.5))
        if odds >= log(_DOMAIN_ODDS) and odds >= _DOMAIN_ERRORS * error:
            found.append(word)
    return frozenset(found)


def _against(share: Callable[[Near], float | None], near: Near, nulls: Sequence[Near]) -> dict[str, Any] | None:
    value = share(near)
    if value is None:
        return None
    drawn = [found for own in nulls if (found := share(own)) is not None]
    return {
        "value": value,
        "null": sum(drawn) / len(drawn) if drawn else None,
        "null_low": min(drawn, default=None),
        "null_high": max(drawn, default=None),
        "n": len(near),
    }


def _mean(values: Sequence[bool]) -> float | None:
    return sum(values) / len(values) if values else None


def _unit(rows: Float[Tensor, "n e"]) -> Float[Tensor, "n e"]:
    return rows / rows.norm(dim=1, keepdim=True).clamp_min(1e-12)
