"""Which relations compose: one after another, each alone on the same words, and whether the parts predict the whole."""

from collections.abc import Sequence

import numpy as np

from kshot.data.builtin.composed import chains, steps
from kshot.data.builtin.relation import ARROW
from kshot.errors import ModelError
from kshot.measure.intervals import wilson
from kshot.model.lm import LM
from kshot.model.prompts import Prompt, continuations
from kshot.seeds import stream
from kshot.study.figures import figure
from kshot.study.hypotheses.asking import Asked, Row
from kshot.study.hypotheses.functions import correlation_row
from kshot.study.parts import Say

PREDICTED = "accuracy of a chain goes with the product of those of its parts"
TASK = "relations"
_SHOTS, _QUERIES = 8, 24

Step = tuple[str, str, str]
"""What is given, what is right, and the word that stands half way."""


def composed(asked: Asked, say: Say) -> list[Row]:
    """Accuracy of every chain of two relations, of each part on the same words, and how often a chain stops half way.

    The same words stand in the demonstrations of all three. The answers that compete are those of all queries, and what
    the first relation gives; so half way is an answer too.
    """
    if not isinstance(asked.reader, LM):
        raise ModelError(f"{asked.name} reads no text, and relations are between words")
    rows: list[Row] = []
    wholes, products = [], []
    for first, then in chains():
        say(f"{first}, then {then}")
        found = _chain(asked.reader, first, then, asked.seed)
        rows += found
        whole, one, other = (row["value"] for row in found[:3])
        wholes.append(whole)
        products.append(one * other)
    rows.append(correlation_row(PREDICTED, np.array(products), np.array(wholes)))
    return [{**row, "task": TASK} for row in rows]


def _chain(lm: LM, first: str, then: str, seed: int) -> list[Row]:
    order = steps(first, then)
    drawn = stream(seed, "chains", first, then).permutation(len(order)).tolist()
    # At least as many to be asked as are shown.
    shots = min(_SHOTS, len(order) // 2)
    shown, asked = [order[i] for i in drawn[:shots]], [order[i] for i in drawn[shots : shots + _QUERIES]]
    name = f"{then} the {first}"
    right, half = _asked(lm, [(g, a, m) for g, m, a in shown], [(g, a, m) for g, m, a in asked])
    one, _ = _asked(lm, [(g, m, m) for g, m, _ in shown], [(g, m, m) for g, m, _ in asked])
    other, _ = _asked(lm, [(m, a, m) for _, m, a in shown], [(m, a, m) for _, m, a in asked])
    return [
        _share("accuracy", (name,), right),
        _share("accuracy", (name, f"{first} alone"), one),
        _share("accuracy", (name, f"{then} alone"), other),
        _share("half_way", (name,), half),
    ]


def _asked(lm: LM, shown: Sequence[Step], asked: Sequence[Step]) -> tuple[np.ndarray, np.ndarray]:
    """Whether each is answered right, and whether with the word half way."""
    answers = tuple(dict.fromkeys(answer for _, answer, _ in asked))
    preamble = ARROW.preamble([ARROW.demonstration({"input": given}, answer) for given, answer, _ in shown])
    prompts = [
        Prompt(preamble, {"input": given}, tuple(dict.fromkeys((*answers, half_way)))) for given, _, half_way in asked
    ]
    found = continuations(lm.codec, ARROW, prompts).sequences
    sums = iter(lm.score([sequence for own in found for sequence in own]).sums().tolist())
    said = [max(prompt.labels, key=dict(zip(prompt.labels, sums, strict=False)).__getitem__) for prompt in prompts]
    right = np.array([one == answer for one, (_, answer, _) in zip(said, asked, strict=True)])
    half = np.array([one == middle != answer for one, (_, answer, middle) in zip(said, asked, strict=True)])
    return right, half


def _share(measure: str, variant: tuple[str, ...], right: np.ndarray) -> Row:
    low, high = wilson(int(right.sum()), len(right)) or (None, None)
    return figure(measure, variant, value=float(right.mean()), low=low, high=high, n=len(right))
