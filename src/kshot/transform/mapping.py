"""Which label a demonstration shows: the right one, a random one, a wrong one, always the same."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from jaxtyping import Int

from kshot.seeds import stream
from kshot.transform.transform import ALL, Transform, but
from kshot.transform.written import Written

Labels = Int[np.ndarray, "n"]


def random_labels() -> Transform:
    """Every demonstration shows a label drawn from all alike. Source: Min et al. 2022."""
    return _shown("random labels", lambda gold, c, rng: rng.integers(c, size=len(gold)))


def labels_as_often() -> Transform:
    """Every demonstration shows a label drawn as often as it is right in the pool. Source: Min et al. 2022."""
    return _shown("random labels as often as right", lambda gold, c, rng: rng.choice(gold, size=len(gold)))


def permuted_labels() -> Transform:
    """The right labels of the pool, dealt out anew. Source: Min et al. 2022 (released code)."""
    return _shown("right labels dealt out anew", lambda gold, c, rng: rng.permutation(gold))


def constant_label() -> Transform:
    """Every demonstration shows the same label, drawn by the seed. Source: Min et al. 2022."""
    return _shown("one label for all", lambda gold, c, rng: np.full(len(gold), rng.integers(c)))


def right_share(share: float) -> Transform:
    """So much of the demonstrations of a prompt shows the right label, the rest a wrong one, drawn from the others alike.

    Source: Min et al. 2022. The number of right ones is the same in every prompt, rounded.
    """

    def shown(gold: Labels, c: int, rng: np.random.Generator) -> Labels:
        wrong = (gold + rng.integers(1, max(2, c), size=len(gold))) % c
        right = rng.permutation(len(gold)) < round(share * len(gold))
        return np.where(right, gold, wrong)

    plain = _shown(f"{share:.0%} right labels", shown)
    apply = plain.apply
    # With all labels right nothing is lost.
    keeps = ALL if share == 1 else plain.keeps
    return Transform(plain.name, keeps, lambda written, seed: replace(apply(written, seed), right=share))


def _shown(name: str, draw: Callable[[Labels, int, np.random.Generator], Labels]) -> Transform:
    def apply(written: Written, seed: int) -> Written:
        gold = np.array([piece.gold for piece in written.pool], dtype=np.int64)
        drawn = draw(gold, len(written.labels), stream(seed, name, written.name)).tolist()
        pool = tuple(replace(piece, shown=label) for piece, label in zip(written.pool, drawn, strict=True))
        return replace(written, pool=pool)

    return Transform(name, but("mapping"), apply)
