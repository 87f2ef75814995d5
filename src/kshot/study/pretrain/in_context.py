"""What a language model that was grown here does in context: it copies, it finds what stood far before, it infers.

Copying and finding are asked of random tokens of the text, which say nothing to whoever only knows that. Of text that a mixture of
hidden Markov models made, prompts of Xie et al. 2022 are asked, in several orders.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from kshot.model.tree import Scored
from kshot.seeds import stream
from kshot.study.pretrain.corpus import Tokens, words_of
from kshot.study.pretrain.growing import said_of
from kshot.study.pretrain.items import item_rows
from kshot.study.pretrain.plan import Plan
from kshot.study.synth.growing import picture
from kshot.synth.grammar import Ginc, examples, inferred
from kshot.synth.networks.language import Language
from kshot.synth.networks.network import Weights

# What is copied and found is the same for every network and seed.
_DISTANCES = (2, 4, 8, 16, 32, 64, 128, 256, 512)
# Tokens that came so often in so much of the text, unless those are too few.
_COUNTED, _SEEN, _FEW = 2_000_000, 20, 16
# A pair, and at least one token to stand between.
_KINDS = 3
# Prompts, tokens of an example, numbers of examples, and orders of the most.
_PROMPTS, _LENGTH, _SHOTS, _ORDERS = 256, 5, (0, 1, 2, 4, 8, 16, 32), 4

Row = dict[str, Any]


def in_context(
    language: Language, weights: Weights, tokens: Tokens, plan: Plan, named: tuple[str, int]
) -> tuple[list[Row], list[Row]]:
    """Rows and pictures of all that can be asked of a causal network; ``named`` are its name and its seed."""
    name, seed = named
    ids = _plain(tokens)
    rows = _copied(language, weights, tokens, ids, plan, named)
    found, points = [], []
    for distance in _DISTANCES:
        if distance + 5 > plan.context or len(ids) < _KINDS:
            break
        nats = -_found_again(language, weights, tokens, ids, plan, distance)
        found.append(item_rows("nats_by_distance", (name, f"{distance} tokens before"), nats, seed, unit="nats",
                           null=float(np.log(len(ids)))))  # fmt: skip
        points.append((float(distance), float(nats.mean())))
    pictures = []
    if points:
        pictures.append(
            picture("a pair of tokens seen once before, by its distance", x="tokens between", y="nats", lines={name: points},
                    log_x=True)
        )  # fmt: skip
    if tokens.corpus.mixture is not None:
        more, drawn = _prompted(language, weights, tokens, plan, tokens.corpus.mixture, named)
        found, pictures = found + more, pictures + drawn
    return rows + found, pictures


def _plain(tokens: Tokens) -> Int[np.ndarray, "w"]:
    """The tokens that the text is made of; one that never came says nothing of what is done with those that did."""
    marks = tokens.marks
    often = np.bincount(np.asarray(tokens.train.tokens[:_COUNTED]), minlength=marks.vocabulary)
    often[[own for own in (marks.end, marks.mask, *marks.sentinels) if own is not None]] = 0
    found = np.flatnonzero(often >= _SEEN)
    return found if len(found) > _FEW else np.flatnonzero(often)


def _copied(
    language: Language, weights: Weights, tokens: Tokens, ids: Int[np.ndarray, "w"], plan: Plan, named: tuple[str, int]
) -> list[Row]:
    """Random tokens twice: how surprising is the second time, and how often is its next token the most probable one?

    The first token of the second time has nothing to be known by, and is not asked.
    """
    half = (plan.context - 1) // 2
    if half < 2:
        return []
    texts = ids[stream(0, "copied", half).integers(len(ids), size=(plan.texts, half))]
    asked = [Scored((tokens.marks.end, *row.tolist(), *row.tolist()), half + 2) for row in texts]
    nats = np.array([-own.mean() for own in said_of(language, weights, asked)])
    right = _most_probable(language, weights, asked).mean(axis=1)
    null = float(np.log(len(ids)))
    return [
        item_rows("copy_nats", (named[0],), nats, named[1], unit="nats", null=null),
        item_rows("copy_accuracy", (named[0],), right, named[1], null=1 / len(ids)),
    ]


def _most_probable(language: Language, weights: Weights, asked: Sequence[Scored]) -> Bool[np.ndarray, "b t"]:
    """Whether each scored token is the most probable one; all sequences are alike long."""
    place = next(iter(weights.values())).device
    found = []
    for one in asked:
        row = torch.tensor([one.tokens], device=place)
        with torch.no_grad():
            known = language.reads(weights, row, None)[0, one.start - 1 : -1]
            found.append((language.head(weights, known).argmax(-1) == row[0, one.start :]).cpu().numpy())
    return np.array(found)


def _found_again(
    language: Language, weights: Weights, tokens: Tokens, ids: Int[np.ndarray, "w"], plan: Plan, distance: int
) -> Float[np.ndarray, "b"]:
    """log P of b after a, where a and b stood so many tokens before, and neither since."""
    rng = stream(0, "found again", distance)
    asked = []
    for _ in range(plan.pairs):
        a, b, *rest = rng.permutation(len(ids))[: min(len(ids), distance + 2)].tolist()
        # Of a small vocabulary what stands between comes again and again.
        between = [rest[i % len(rest)] for i in range(distance)]
        asked.append(Scored((tokens.marks.end, *ids[[a, b, *between, a, b]].tolist()), distance + 4))
    return np.concatenate(said_of(language, weights, asked))


def _prompted(
    language: Language, weights: Weights, tokens: Tokens, plan: Plan, mixture: Ginc, named: tuple[str, int]
) -> tuple[list[Row], list[Row]]:
    """Prompts of examples of one concept: how often is the most probable answer found, beside exact inference.

    Of the most examples also: how often does another order of them change the answer? Nothing where a word of the mixture
    is more than a token of the vocabulary.
    """
    words = [tokens.tokenizer.encode(word, add_special_tokens=False).ids for word in words_of(mixture)]
    # Of some words of the vocabulary the mixture makes no use.
    if any(len(words[i]) != 1 for i in np.unique(mixture.memory)):
        return [], []
    ids = np.array([word[0] if len(word) == 1 else -1 for word in words])
    name, seed = named
    rows, points, exact = [], [], []
    fitting = [shots for shots in _SHOTS if shots * (_LENGTH + 1) + _LENGTH <= plan.context]
    for shots in fitting:
        own = examples(mixture, 0, _PROMPTS, shots=shots, length=_LENGTH)
        right = (_answers(language, weights, tokens, ids, own.tokens) == own.answers).astype(float)
        best = inferred(mixture, own.tokens).following[:, -1].argmax(axis=1) == own.answers
        rows.append(item_rows("prompt_accuracy", (name, _examples(shots)), right, seed, null=1 / mixture.vocabulary))
        points.append((float(shots), float(right.mean())))
        exact.append((float(shots), float(best.mean())))
        if shots == fitting[-1] and shots > 1:
            flips = _flips(language, weights, tokens, ids, own.tokens, shots)
            rows.append(item_rows("order_flips", (name, _examples(shots)), flips, seed, null=0.0))
    drawn = picture(
        "prompts of the mixture answered", x="examples", y="accuracy", lines={name: points, "exact inference": exact}
    )
    return rows, [drawn]


def _examples(shots: int) -> str:
    return f"{shots} example{'s' * (shots != 1)}"


def _answers(
    language: Language, weights: Weights, tokens: Tokens, ids: Int[np.ndarray, "w"], prompts: Int[np.ndarray, "b t"]
) -> Int[np.ndarray, "b"]:
    """The most probable word after each prompt, by its number in the mixture; ``ids`` are their tokens, -1 of one that is none."""
    place, known = next(iter(weights.values())).device, np.flatnonzero(ids >= 0)
    begin = np.full((len(prompts), 1), tokens.marks.end)
    rows = torch.from_numpy(np.concatenate([begin, ids[prompts]], axis=1)).to(place)
    with torch.no_grad():
        found = [
            language.head(weights, language.reads(weights, some, None)[:, -1])[
                :, torch.from_numpy(ids[known]).to(place)
            ]
            for some in rows.split(max(1, 8_192 // rows.shape[1]))
        ]
    return known[torch.cat(found).argmax(-1).cpu().numpy()]


def _flips(
    language: Language,
    weights: Weights,
    tokens: Tokens,
    ids: Int[np.ndarray, "w"],
    prompts: Int[np.ndarray, "b t"],
    shots: int,
) -> Float[np.ndarray, "b"]:
    """The share of orders of the examples of each prompt that have another answer than the first."""
    size = shots * (_LENGTH + 1)
    shown = prompts[:, :size].reshape(len(prompts), shots, _LENGTH + 1)
    said = [
        _answers(
            language, weights, tokens, ids,
            np.concatenate([shown[:, stream(0, "order", i).permutation(shots)].reshape(len(prompts), size),
                            prompts[:, size:]], axis=1),
        )
        for i in range(_ORDERS)
    ]  # fmt: skip
    return np.mean([own != said[0] for own in said[1:]], axis=0)
