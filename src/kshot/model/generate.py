"""A model goes on with a text, token by token, each read once."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from kshot.errors import PromptError
from kshot.model.lm import LM
from kshot.model.prefix import EMPTY
from kshot.model.sampling import Sampling
from kshot.model.tree import Scored

# What a decoder shows in the place of bytes that are no letter yet.
_UNFINISHED = "\N{REPLACEMENT CHARACTER}"
# Tokens of a prompt that what is said is read with.
_BEFORE = 8


def going_on(lm: LM, tokens: Sequence[int], how: Sampling, rng: np.random.Generator, limit: int) -> Iterator[int]:
    """At most ``limit`` tokens after these, until one that ends an answer (``LM.ends``), which is not among them.

    PromptError where there is nothing to go on from, or more than the model reads.
    """
    if not tokens:
        raise PromptError("there is nothing to go on from: the model has no start token; give a prompt")
    if lm.context is not None and len(tokens) + limit > lm.context:
        raise PromptError(
            f"{len(tokens)} tokens of prompt and {limit} to come: {lm.name} reads {lm.context}; ask for fewer"
        )
    said, prefix, new, ends = list(tokens), EMPTY, list(tokens), lm.ends
    for _ in range(limit):
        with torch.no_grad():
            if lm.route.kind == "tree":
                logits, prefix = lm.read_on(new, prefix)
            else:
                (part,) = lm.stream([Scored((*said, 0), len(said))])
                logits = part.logits[-1]
        token = int(how.next(logits[None], rng)[0])
        if token in ends:
            return
        yield token
        new = [token]
        said.append(token)


def text_of(lm: LM, prompt: str, how: Sampling, rng: np.random.Generator, limit: int) -> Iterator[str]:
    """The same as pieces of text, as soon as they are whole letters; an empty prompt begins as the model's texts do.

    Raises as ``going_on``.
    """
    (tokens,) = lm.codec.encode([prompt])
    first = lm.codec.first or (() if tokens or lm.codec.start is None else (lm.codec.start,))
    # Read with the end of the prompt before it: alone, what is said would lose the blank that it begins with.
    begun, said = list(tokens[-_BEFORE:]), list[int]()
    shown = len(lm.codec.decode(begun))
    for token in going_on(lm, (*first, *tokens), how, rng, limit):
        said.append(token)
        text = lm.codec.decode(begun + said)
        if not text.endswith(_UNFINISHED):
            yield text[shown:]
            shown = len(text)
    if len(text := lm.codec.decode(begun + said)) > shown:
        yield text[shown:]
