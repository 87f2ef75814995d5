"""Is mapping arbitrary words itself a skill of copying: heads that copy left out, against as many others."""

from dataclasses import replace

import numpy as np

from kshot.errors import ModelError
from kshot.model.heads import Head, induction_scores, without_heads
from kshot.model.lm import LM
from kshot.seeds import stream
from kshot.study.figures import figure
from kshot.study.hypotheses.asking import Answers, Asked, Row, answer_rows, contrast_row, together
from kshot.study.parts import Say
from kshot.transform import TRANSFORMS
from kshot.transform.draw import Protocol
from kshot.transform.written import Written

COPYING = "arbitrary answers to label words fall more without copying heads than without others"
COPYING_ORIGINAL = "the task itself falls more without copying heads than without others"
# So much of all heads is left out, and so many times as many others.
_SHARE, _OTHERS = 0.05, 3
_PROTOCOL: Protocol = "fixed"


def copying(asked: Asked, say: Say) -> list[Row]:
    """The task and tau_g with the model whole, without the heads that copy most, and without others drawn at random."""
    if not isinstance(asked.reader, LM):
        raise ModelError(f"{asked.name} has no heads that could be left out")
    lm = asked.reader
    scores = induction_scores(lm, asked.seed)
    ranked = [
        (int(i), int(j)) for i, j in zip(*np.unravel_index(np.argsort(-scores, axis=None), scores.shape), strict=True)
    ]
    count = max(1, round(_SHARE * len(ranked)))
    top = ranked[:count]
    others = [_drawn(ranked[count:], count, asked.seed, turn) for turn in range(_OTHERS)]
    rows = [figure("induction_score", (f"{count} heads",), value=float(scores.max()), n=scores.size)]
    for name, contrast in (("memory-random", COPYING), ("original", COPYING_ORIGINAL)):
        altered = asked.altered(TRANSFORMS[name])

        def answers(heads: list[Head], altered: Written = altered) -> Answers:
            return replace(asked, reader=without_heads(lm, heads)).answers(altered, _PROTOCOL)

        say(f"{name}, {count} of {len(ranked)} heads left out")
        without, rest = answers(top), together([answers(heads) for heads in others])
        rows += answer_rows((name, "all heads"), asked.answers(altered, _PROTOCOL), asked.seed)
        rows += answer_rows((name, f"without {count} copying heads"), without, asked.seed)
        rows += answer_rows((name, f"without {count} other heads"), rest, asked.seed)
        rows.append(contrast_row(contrast, rest, together([without] * _OTHERS), asked.seed))
    return rows


def _drawn(heads: list[Head], count: int, seed: int, turn: int) -> list[Head]:
    order = stream(seed, "other-heads", turn).permutation(len(heads))[:count]
    return [heads[i] for i in order.tolist()]
