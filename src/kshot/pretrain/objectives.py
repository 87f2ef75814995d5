"""What a language model is taught to say: the next word, the rest of a text, hidden words, hidden spans, all of a text.

Rows of tokens become what is read and what is to be said, a pure function of rows and a generator; ``IGNORED`` marks places
where nothing is to be said.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from kshot.errors import KshotError

IGNORED = -100
"""As torch's cross entropy has it."""

# Devlin et al. 2019: so many tokens are chosen; of these so many are hidden, and so many replaced at random.
_CHOSEN, _MASKED, _REPLACED = 0.15, 0.8, 0.1
# Raffel et al. 2020: so many tokens are in spans of so many on average.
_CORRUPTED, _SPAN = 0.15, 3.0
# Lewis et al. 2020.
_DENOISED = 0.3

Rows = Int[np.ndarray, "b t1"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks:
    """How many tokens there are, and those that are no words: what ends a text, what hides a token, and each span in turn."""

    vocabulary: int
    end: int
    mask: int | None = None
    sentinels: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Lesson:
    """What is read, and the token to be said at each place of it.

    ``prefix`` tokens at the beginning of each row are seen by all of its tokens (prefix-LM), else none; ``source`` is what
    an encoder reads, where there is one.
    """

    read: Int[np.ndarray, "b t"]
    said: Int[np.ndarray, "b t"]
    prefix: Int[np.ndarray, "b"] | None = None
    source: Int[np.ndarray, "b u"] | None = None


Objective = Callable[[Rows, Marks, np.random.Generator], Lesson]


def causal(rows: Rows, marks: Marks, rng: np.random.Generator) -> Lesson:
    """Every token from those before it."""
    return Lesson(read=rows[:, :-1], said=rows[:, 1:])


def prefix(rows: Rows, marks: Marks, rng: np.random.Generator) -> Lesson:
    """The rest of a text from its beginning, whose tokens all see one another.

    Source: Raffel et al. 2020, section 3.2.3, and Lester et al. 2021 ("LM adaptation"): the beginning ends at a place
    drawn evenly, so that each part has a token at least.
    """
    b, t = rows[:, :-1].shape
    lengths = np.asarray(rng.integers(1, max(t, 2), size=b))
    # The last of the tokens that all see says the first of the rest.
    said = np.where(np.arange(t) >= lengths[:, None] - 1, rows[:, 1:], IGNORED)
    return Lesson(read=rows[:, :-1], said=said, prefix=lengths)


def continued(rows: Rows, marks: Marks, rng: np.random.Generator) -> Lesson:
    """The rest of a text from its beginning, which an encoder reads; all rows end their beginnings at one place.

    Source: Lester et al. 2021, section 2 ("LM adaptation" of T5). What is read begins with the token that ends a text.
    """
    b, t = rows[:, :-1].shape
    cut = int(rng.integers(1, max(t, 2)))
    said = rows[:, cut:]
    read = np.concatenate([np.full((b, 1), marks.end), said[:, :-1]], axis=1)
    return Lesson(read=read, said=said, source=rows[:, :cut])


def masked(rows: Rows, marks: Marks, rng: np.random.Generator) -> Lesson:
    """Hidden tokens from all others: 15 % are chosen, of which 80 % are hidden, 10 % replaced and 10 % left.

    Source: Devlin et al. 2019, section 3.1. At least one of every row is chosen.
    """
    if marks.mask is None:
        raise KshotError("masked words need a tokenizer with a mask token; learn a vocabulary that hides")
    read = rows[:, :-1].copy()
    draws = rng.random(read.shape)
    chosen = draws < _CHOSEN
    chosen[np.arange(len(read)), draws.argmin(axis=1)] = True
    how = rng.random(read.shape)
    said = np.where(chosen, read, IGNORED)
    hidden, replaced = chosen & (how < _MASKED), chosen & (how >= _MASKED) & (how < _MASKED + _REPLACED)
    read[hidden] = marks.mask
    read[replaced] = rng.integers(marks.vocabulary, size=int(replaced.sum()))
    return Lesson(read=read, said=said)


def spans(rows: Rows, marks: Marks, rng: np.random.Generator) -> Lesson:
    """Hidden spans from the text around them: a sentinel for each, and after its like what it hides.

    Source: Raffel et al. 2020, section 3.1.4: 15 % of the tokens, spans of 3 on average. All rows have as many hidden
    tokens and spans. What is read begins with the token that ends a text, as T5's does with the one that pads it.
    """
    own = rows[:, :-1]
    b, t = own.shape
    hidden = min(max(round(t * _CORRUPTED), 1), t - 1)
    count = max(round(hidden / _SPAN), 1)
    if count + 1 > len(marks.sentinels):
        raise KshotError(
            f"rows of {t} tokens have {count} hidden spans, and the tokenizer has {len(marks.sentinels)} sentinels; what "
            "works is a shorter context, or a vocabulary that hides"
        )
    begins = np.array(marks.sentinels[:count])
    end = marks.sentinels[count]
    source = np.empty((b, t - hidden + count), dtype=np.int64)
    said = np.empty((b, hidden + count + 1), dtype=np.int64)
    for row, text in enumerate(own):
        noise = span_mask(t, hidden, count, rng)
        first = noise & ~np.concatenate([[False], noise[:-1]])
        source[row] = np.where(first, begins[np.cumsum(first) - 1], text)[~noise | first]
        said[row] = _after_sentinels(text, noise, first, begins, end)
    read = np.concatenate([np.full((b, 1), marks.end), said[:, :-1]], axis=1)
    return Lesson(read=read, said=said, source=source)


def denoised(rows: Rows, marks: Marks, rng: np.random.Generator) -> Lesson:
    """The whole text from one in which a mask stands for every hidden span, however long it is.

    Source: Lewis et al. 2020, section 2.2 ("text infilling"): 30 % of the tokens, spans of 3 on average. Here lengths are
    even among all that add up and no span is empty, so that all rows are as long; sentences stay in their order.
    """
    if marks.mask is None:
        raise KshotError("denoising needs a tokenizer with a mask token; learn a vocabulary that hides")
    own = rows[:, :-1]
    b, t = own.shape
    hidden = min(max(round(t * _DENOISED), 1), t - 1)
    count = min(max(round(hidden / _SPAN), 1), t - hidden)
    source = np.empty((b, t - hidden + count), dtype=np.int64)
    for row, text in enumerate(own):
        noise = span_mask(t, hidden, count, rng)
        first = noise & ~np.concatenate([[False], noise[:-1]])
        source[row] = np.where(first, marks.mask, text)[~noise | first]
    read = np.concatenate([np.full((b, 1), marks.end), own[:, :-1]], axis=1)
    return Lesson(read=read, said=own, source=source)


def _after_sentinels(
    text: Int[np.ndarray, "t"],
    noise: Bool[np.ndarray, "t"],
    first: Bool[np.ndarray, "t"],
    begins: Int[np.ndarray, "s"],
    end: int,
) -> Int[np.ndarray, "u"]:
    """Every hidden span after its sentinel, and the sentinel after the last."""
    found: list[int] = []
    for token, is_hidden, is_first, which in zip(text, noise, first, np.cumsum(first) - 1, strict=True):
        if is_first:
            found.append(int(begins[which]))
        if is_hidden:
            found.append(int(token))
    return np.array([*found, end])


def span_mask(length: int, hidden: int, count: int, rng: np.random.Generator) -> Bool[np.ndarray, "t"]:
    """Which tokens are hidden: so many, in so many spans with something between them; the text begins with what is not.

    The lengths of spans, and of what stands between them, are even among all that add up. KshotError where they do not
    fit.
    """
    if not 1 <= count <= min(hidden, length - hidden):
        raise KshotError(f"{count} spans of {hidden} hidden tokens do not fit into {length}")
    between, own = (_parted(total, count, rng) for total in (length - hidden, hidden))
    return np.repeat(np.tile([False, True], count), np.stack([between, own], axis=1).ravel())


def _parted(total: int, parts: int, rng: np.random.Generator) -> Int[np.ndarray, "s"]:
    """A number as a sum of so many, each at least 1, all ways alike."""
    cuts = np.sort(rng.permutation(total - 1)[: parts - 1]) + 1
    return np.diff(np.concatenate([[0], cuts, [total]]))


def unhidden(source: Int[np.ndarray, "u"], said: Int[np.ndarray, "v"], sentinels: tuple[int, ...]) -> list[int]:
    """The text that was hidden in spans: what is said after every sentinel put in its place."""
    marks, spans_of, at = set(sentinels), dict[int, list[int]](), -1
    for token in said.tolist():
        if token in marks:
            at = token
            spans_of[at] = []
        else:
            spans_of[at].append(token)
    return [token for own in source.tolist() for token in (spans_of.get(own, []) if own in marks else [own])]


OBJECTIVES: Mapping[str, Objective] = {
    "causal": causal,
    "prefix": prefix,
    "continued": continued,
    "mlm": masked,
    "span": spans,
    "denoise": denoised,
}
