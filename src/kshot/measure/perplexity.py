"""How surprised a language model is by text: windows over documents, and what comes of their tokens."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Float

from kshot.errors import PromptError
from kshot.measure.intervals import mean_interval
from kshot.model.lm import LM, OnProgress
from kshot.model.tokens import Codec
from kshot.model.tree import Scored

# Tokens of a block: of one or two long documents there would be no interval, or one that says nothing.
_BLOCK = 2_000
# Nats whose exponential is a number of 64 bits.
_GREATEST = 709.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Surprise:
    """What was said of some text: nats of every scored token, document after document, and the bytes of all that is scored."""

    by_document: tuple[Float[np.ndarray, "_"], ...]
    bytes: int
    context: int
    stride: int

    @property
    def tokens(self) -> int:
        return sum(map(len, self.by_document))

    @property
    def blocks(self) -> tuple[Float[np.ndarray, "_"], ...]:
        """The same, of which intervals are made: documents, the long ones in equal blocks of about 2,000 tokens."""
        return tuple(
            block for own in self.by_document for block in np.array_split(own, max(1, round(len(own) / _BLOCK)))
        )


def windows(tokens: Sequence[int], context: int, stride: int, first: Sequence[int] = ()) -> list[Scored]:
    """A document as sequences of at most ``context`` tokens whose scored tokens are all of its own, each once.

    Each begins with ``first``, the tokens that the model was trained to see first, and moves on by ``stride``: it scores
    what the one before it had not reached, after at least context - stride tokens. Without ``first`` the first token
    of the document has nothing before it and is not scored. PromptError where nothing fits.
    """
    room = context - len(first)
    # A window has a token before those that it scores.
    most = room if first else room - 1
    if room < 2 or not 1 <= stride <= most:
        raise PromptError(
            f"a context of {context} tokens and a stride of {stride}: what works is a stride of 1 to {max(most, 1)}, and a "
            f"context of at least {len(first) + 2}"
        )
    found: list[Scored] = []
    reached = 0 if first else 1
    for begin in range(0, max(len(tokens), 1), stride):
        stop = min(begin + room, len(tokens))
        if stop > reached:
            found.append(Scored((*first, *tokens[begin:stop]), len(first) + reached - begin))
            reached = stop
        if stop == len(tokens):
            break
    return found


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reading:
    """Documents in tokens, and the sequences in which each of these is scored once: those of document i are
    ``bounds[i]`` to ``bounds[i + 1]``."""

    documents: tuple[tuple[int, ...], ...]
    sequences: tuple[Scored, ...]
    bounds: tuple[int, ...]
    bytes: int
    context: int
    stride: int

    def surprise(self, logprobs: Sequence[Float[np.ndarray, "_"]]) -> Surprise:
        """What came of it, from the log-probabilities of every sequence."""
        parts = [np.concatenate([np.zeros(0), *logprobs[a:b]]) for a, b in pairwise(self.bounds)]
        return Surprise(
            by_document=tuple(-part for part in parts), bytes=self.bytes, context=self.context, stride=self.stride
        )


def reading(
    codec: Codec, texts: Sequence[Sequence[str]], context: int, stride: int | None = None, *, limit: int | None = None
) -> Reading:
    """How the documents of texts are read; ``stride`` is half of the context by default. PromptError as ``windows``.

    No window crosses from a document into another. Each begins as the model's texts do in training. At most ``limit``
    tokens are read: of each text as many, from its beginning.
    """
    stride = context // 2 if stride is None else stride
    asked: list[Scored] = []
    bounds, size = [0], 0
    share = None if limit is None else max(1, limit // max(1, len(texts)))
    cut = tuple(tokens for documents in texts for tokens in _cut(codec, documents, share))
    for tokens in cut:
        asked += windows(tokens, context, stride, codec.first)
        bounds.append(len(asked))
        size += len(codec.decode(tokens).encode()) - (0 if codec.first else _bytes_of_one(codec, tokens[:1]))
    return Reading(
        documents=cut, sequences=tuple(asked), bounds=tuple(bounds), bytes=size, context=context, stride=stride
    )


def surprise(
    lm: LM,
    documents: Sequence[str],
    context: int,
    stride: int | None = None,
    *,
    limit: int | None = None,
    on_progress: OnProgress | None = None,
) -> Surprise:
    """The nats of all tokens of these documents, read as ``reading`` says of one text. PromptError as there, and where the model
    reads no context of that length."""
    if lm.context is not None and context > lm.context:
        raise PromptError(f"a context of {context} tokens: {lm.name} reads {lm.context}; give a shorter one")
    asked = reading(lm.codec, [documents], context, stride, limit=limit)
    return asked.surprise(lm.score(asked.sequences, on_progress=on_progress).logprobs if asked.sequences else ())


def _bytes_of_one(codec: Codec, tokens: tuple[int, ...]) -> int:
    """Of a token that nothing stands before, and that is not scored; one that is no whole letter is taken for a byte."""
    text = codec.decode(tokens)
    return 1 if "\N{REPLACEMENT CHARACTER}" in text else len(text.encode())


def _cut(codec: Codec, documents: Sequence[str], limit: int | None) -> Iterator[tuple[int, ...]]:
    """The first so many tokens of all documents; those that they do not reach are not encoded."""
    left = limit
    for document in documents:
        if left is not None and left <= 0:
            return
        (tokens,) = codec.encode([document])
        yield tokens[:left]
        left = None if left is None else left - len(tokens)


def perplexity(found: Surprise, seed: int = 0) -> tuple[float | None, float | None, float | None]:
    """exp of the mean surprise of a token, with its interval; None where ``undefined`` says why, or of one block alone.

    Claim: how many tokens as probable as one another the next one might as well be.
    Formula: exp(-(1/n) sum_i log P(token i | what stands before it in its window)) over all n scored tokens; the interval
        is a bootstrap over documents, the long ones in blocks of about 2,000 tokens, of the ratio of their sums.
    Null: the size of the vocabulary, for a model to which all tokens are alike.
    Departures: tokens are scored once each, after at least context - stride tokens of their document; a window begins with
        the model's own first token.
    Known problems: of different tokenizers it cannot be compared (``bits_per_byte`` can); it falls as the context grows, so
        context and stride belong to the figure; the interval knows nothing of other sources of text, and blocks of a
        document are more alike than documents are, so that of few long ones it is too narrow.
    """
    if undefined(found) is not None:
        return None, None, None
    sums, counts = (np.array([f(part) for part in found.blocks]) for f in (np.sum, len))
    mean = float(sums.sum() / counts.sum())
    # The mean over blocks of this is the ratio, and it varies as the ratio does (the delta method).
    each = mean + (sums - mean * counts) / counts.mean()
    low, high = mean_interval(each, seed) or (None, None)
    value, least, most = (None if one is None or one > _GREATEST else float(np.exp(one)) for one in (mean, low, high))
    return value, least, most


def undefined(found: Surprise) -> str | None:
    """Why there is no perplexity, in words; None where there is one."""
    if not found.tokens:
        return "no token of the text has one before it"
    mean = sum(float(part.sum()) for part in found.by_document) / found.tokens
    if not mean <= _GREATEST:
        return f"a mean surprise of {mean:.4g} nats per token, whose exponential is no number"
    return None


def bits_per_byte(found: Surprise) -> float | None:
    """The surprise of a byte of the text in bits; None where nothing was scored, or a token was given no probability.

    Claim: how short the text could be written by whoever has the model.
    Formula: sum_i -log2 P(token i | what stands before it) over the bytes of the scored text in UTF-8.
    Null: 8, for a model of single bytes to which all are alike.
    Departures: none.
    Known problems: a text has many tokenizations and one is scored, so that it is an upper bound.
    """
    total = sum(float(part.sum()) for part in found.by_document)
    return total / np.log(2) / found.bytes if found.tokens and found.bytes and np.isfinite(total) else None
