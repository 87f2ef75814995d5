"""The tasks that tell the hypotheses apart: as they are, response-altered, prompt-altered, and from label words alone."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from kshot.data.template import content
from kshot.errors import PromptError
from kshot.rivals.linear import by_descent
from kshot.rivals.logistic import corrected, published
from kshot.seeds import stream
from kshot.study.figures import figure
from kshot.study.hypotheses.asking import Answers, Asked, Row, answer_rows, contrast_row, together
from kshot.study.parts import Say
from kshot.transform import TRANSFORMS
from kshot.transform.draw import Protocol
from kshot.transform.written import Written

ORIGINAL, ALTERED, ANY = "original", "response-altered", "response-altered-unscreened"
PERMUTED, PERMUTED_AS_PUBLISHED = "prompt-altered", "prompt-altered-layout-kept"
RANDOM, NATURAL = "memory-random", ("memory-synonym", "memory-antonym", "memory-keyword")
CORE = (ORIGINAL, ALTERED, ANY, PERMUTED, PERMUTED_AS_PUBLISHED, RANDOM, *NATURAL)

ABLE = "original is above guessing"
SELECTED, SELECTED_AS_PUBLISHED = (
    "response-altered is above guessing",
    "response-altered with any tokens is above guessing",
)
LEARNED, LEARNED_AS_PUBLISHED = (
    "prompt-altered is above a regression on its tokens",
    "prompt-altered with its layout kept is above the regression as published",
)
REGRESSION = "regression"
LINEAR = "label words are answered better than by a linear map"
NATURALLY = "natural words are learned better than arbitrary ones"
# Draws in which one with all labels is looked for: some tenths of a second.
_DRAWS = 5000


def core(asked: Asked, protocol: Protocol, say: Say) -> list[Row]:
    """Rows of every task and of its rivals under a protocol, and the contrasts between them."""
    written: dict[str, Written] = {}
    rows: list[Row] = []
    for name in CORE:
        try:
            written[name] = asked.altered(TRANSFORMS[name])
        except PromptError as error:
            if name not in NATURAL:
                raise
            rows.append(figure("macro_f1", (name, protocol), value=None, reason=str(error)))
    say(f"altered tasks, {protocol}")
    all_answers = asked.all_answers([(own, protocol) for own in written.values()])
    found = dict(zip(written, all_answers, strict=True))
    for name, answers in found.items():
        rows += answer_rows((name, protocol), answers, asked.seed)
    say(f"rivals, {protocol}")
    rivals = _rivals(asked, written, found)
    for (name, rival), answers in rivals.items():
        rows += answer_rows((name, protocol, rival), answers, asked.seed)
    as_published = regression_as_published(asked)
    variant = (PERMUTED_AS_PUBLISHED, "regression as published")
    reason = f"no {asked.shots} examples with all labels among them were found" if as_published is None else None
    rows.append(figure("macro_f1", variant, value=as_published, n=len(asked.queries), reason=reason))
    return rows + _contrasts(asked, found, rivals, as_published, protocol)


def _contrasts(
    asked: Asked,
    found: Mapping[str, Answers],
    rivals: Mapping[tuple[str, str], Answers],
    as_published: float | None,
    protocol: Protocol,
) -> list[Row]:
    def above(name: str, one: Answers, other: Answers | float) -> Row:
        return contrast_row(name, one, other, asked.seed, (protocol,))

    guessing = {name: own.guessed(asked.seed).macro_f1 for name, own in found.items()}
    rows = [
        above(name, found[task], guessing[task])
        for name, task in ((ABLE, ORIGINAL), (SELECTED, ALTERED), (SELECTED_AS_PUBLISHED, ANY))
    ]
    rows.append(above(LEARNED, found[PERMUTED], rivals[PERMUTED, REGRESSION]))
    if as_published is not None:
        rows.append(above(LEARNED_AS_PUBLISHED, found[PERMUTED_AS_PUBLISHED], as_published))
    if (linear := rivals.get((RANDOM, _linear_name(asked.layers)))) is not None:
        rows.append(above(LINEAR, found[RANDOM], linear))
    if natural := [found[name] for name in NATURAL if name in found]:
        rows.append(above(NATURALLY, together(natural), together([found[RANDOM]] * len(natural))))
    return rows


def _rivals(
    asked: Asked, written: Mapping[str, Written], found: Mapping[str, Answers]
) -> dict[tuple[str, str], Answers]:
    """What learns the same demonstrations without a language model, by (task, rival)."""
    rivals = {}
    for name in (ORIGINAL, PERMUTED):
        table = corrected(written[name], found[name].drawn, asked.seed)
        rivals[name, REGRESSION] = replace(found[name], table=table)
    if asked.embedded is not None:
        for steps in (asked.layers, 10 * asked.layers, None):
            rivals[RANDOM, _linear_name(steps)] = linear_map(asked, written[RANDOM], found[RANDOM], steps)
    return rivals


def _linear_name(steps: int | None) -> str:
    return "linear map, least squares" if steps is None else f"linear map, {steps} steps"


def linear_map(asked: Asked, memory: Written, own: Answers, steps: int | None) -> Answers:
    """Label words mapped to the answers of tau_g by a linear map between embeddings (rivals.linear), on the same draws."""
    assert asked.embedded is not None, "a rival in the model's embeddings needs a model that has them"
    inputs = asked.embedded([asked.written.say(word) for word in asked.written.words])
    outputs = asked.embedded(memory.options)
    shown = np.array([piece.gold for piece in memory.pool], dtype=np.int64)
    counts = [tuple(np.bincount(shown[row], minlength=len(memory.labels)).tolist()) for row in own.drawn]
    known = {one: by_descent(inputs, outputs, np.array(one), steps) for one in set(counts)}
    table = np.stack([known[one][gold] for one, gold in zip(counts, own.gold, strict=True)])
    return replace(own, table=table)


def regression_as_published(asked: Asked) -> float | None:
    """Macro-F1 of the published regression: one fit on so many examples with all labels among them; None without such.

    The draw is repeated until every label is there, as in the released code; but where several labels are rare that
    would take hours, and it is given up after so many draws.
    """
    rng = stream(asked.seed, "regression-as-published", asked.task.name)
    gold = np.array([piece.gold for piece in asked.written.pool], dtype=np.int64)
    labels = len(asked.written.labels)
    if asked.shots < labels or len(np.unique(gold)) < labels:
        return None
    draws = (rng.permutation(len(gold))[: asked.shots] for _ in range(_DRAWS))
    drawn = next((one for one in draws if len(np.unique(gold[one])) == labels), None)
    if drawn is None:
        return None
    texts, others = (
        [content(asked.template, e.fields) for e in examples]
        for examples in ([asked.pool[i] for i in drawn], asked.queries)
    )
    return published(texts, gold[drawn], others, asked.written.gold).macro_f1
