"""Relations that a text states again and again: does a network answer them when examples say which of them is meant?

Of eight answers one is right, some are right of the same input in another relation, and the others are of other inputs, so
that neither knowing the input nor knowing the relation is enough.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kshot.model.tree import Scored
from kshot.pretrain.relations import KINDS, Facts, line
from kshot.seeds import stream
from kshot.study.pretrain.corpus import Tokens
from kshot.study.pretrain.growing import said_of
from kshot.study.pretrain.items import item_rows
from kshot.study.pretrain.plan import Plan
from kshot.study.synth.growing import picture
from kshot.synth.networks.language import Language
from kshot.synth.networks.network import Weights

Row = dict[str, Any]

_SHOTS, _OPTIONS = (0, 1, 2, 4, 8), 8


def relations(
    language: Language, weights: Weights, tokens: Tokens, plan: Plan, named: tuple[str, int]
) -> tuple[list[Row], list[Row]]:
    """Rows ``relation_accuracy`` of pairs that were trained and of new ones, by the number of examples, and their picture.

    An answer is the option of the greatest log-probability up to the end of its line. Nothing of a text without facts.
    """
    known, (name, seed) = tokens.corpus.facts, named
    if known is None:
        return [], []
    rows, lines = [], {}
    for word, pairs in (("trained pairs", known.trained), ("new pairs", known.new)):
        points = []
        for shots in _SHOTS:
            right = _right(language, weights, tokens, plan, _asked(known, pairs, plan.pairs, shots))
            if right is None:
                break
            variant = (name, word, f"{shots} example{'s' * (shots != 1)}")
            rows.append(item_rows("relation_accuracy", variant, right, seed, null=1 / _OPTIONS))
            points.append((float(shots), float(right.mean())))
        if points:
            lines[f"{name}, {word}"] = points
    if not lines:
        return [], []
    return rows, [picture("facts of the text answered", x="examples", y="accuracy", lines=lines)]


def _asked(
    known: Facts, pairs: Mapping[str, Mapping[str, str]], count: int, shots: int
) -> list[tuple[str, tuple[str, ...]]]:
    """Prompts, and the options of each, the right one first; the same for every network and seed."""
    rng = stream(0, "relations asked", shots)
    found = []
    for number in range(count):
        kind = KINDS[number % len(KINDS)]
        words = list(pairs[kind])
        word = words[rng.integers(len(words))]
        shown = [own for own in known.trained[kind] if own != word]
        examples = [shown[i] for i in rng.choice(len(shown), size=shots, replace=False)]
        prompt = "".join(line(own, known.trained[kind][own]) for own in examples)
        found.append((f"{prompt}{word}:", _options(known, kind, word, rng)))
    return found


def _options(known: Facts, kind: str, word: str, rng: np.random.Generator) -> tuple[str, ...]:
    """The answer, then those of the same input in other relations, then others of the relation, eight in all."""
    right = known.answer(kind, word)
    elsewhere = [known.answer(other, word) for other in KINDS if other != kind]
    among = sorted({*known.trained[kind].values(), *known.new[kind].values()})
    others = [among[i] for i in rng.permutation(len(among))]
    found = [own for own in dict.fromkeys([right, *elsewhere, *others]) if own is not None]
    return tuple(found[:_OPTIONS])


def _right(
    language: Language, weights: Weights, tokens: Tokens, plan: Plan, asked: Sequence[tuple[str, tuple[str, ...]]]
) -> np.ndarray | None:
    """Whether each prompt's first option is more probable than any other; None where one is longer than training's rows."""

    def encoded(text: str) -> list[int]:
        found: list[int] = tokens.tokenizer.encode(text, add_special_tokens=False).ids
        return found

    scored = []
    for prompt, options in asked:
        begin = [tokens.marks.end, *encoded(prompt)]
        scored += [Scored((*begin, *encoded(f" {option}\n")), len(begin)) for option in options]
    if max(len(own.tokens) for own in scored) > plan.context:
        return None
    sums = np.array([own.sum() for own in said_of(language, weights, scored)])
    bounds = np.cumsum([len(options) for _, options in asked])[:-1]
    return np.array([own[0] > own[1:].max() for own in np.split(sums, bounds)], dtype=np.float64)
