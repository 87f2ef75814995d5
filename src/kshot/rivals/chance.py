"""What guessing gives: the same answers dealt out anew, and one label always."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from kshot.seeds import stream

DRAWS = 1000
_BOUNDS = (0.025, 0.975)


@dataclass(frozen=True, slots=True, kw_only=True)
class Guessed:
    """Macro-F1 of guessing: the mean over draws and the bounds of 95 % of them; and that of the best constant answer."""

    macro_f1: float
    low: float
    high: float
    majority: float


def guessed(said: Int[np.ndarray, "q"], gold: Int[np.ndarray, "q"], seed: int, draws: int = DRAWS) -> Guessed:
    """Macro-F1 where the same answers are given to queries at random; not 1/c, which holds for no answers in particular."""
    rng = stream(seed, "guessed", len(gold))
    classes = int(max(said.max(initial=0), gold.max(initial=0))) + 1
    found = macro_f1s(np.stack([rng.permutation(said) for _ in range(draws)]), gold[None], classes)
    constant = macro_f1s(np.repeat(np.arange(classes)[:, None], len(gold), axis=1), gold[None], classes)
    low, high = np.quantile(found, _BOUNDS)
    return Guessed(macro_f1=float(found.mean()), low=float(low), high=float(high), majority=float(constant.max()))


def macro_f1s(said: Int[np.ndarray, "n q"], gold: Int[np.ndarray, "#n q"], classes: int) -> Float[np.ndarray, "n"]:
    """Macro-F1 of many rows of answers at once, of the classes in gold or said, as ``metrics.macro_f1`` has it."""
    cells = said * classes + gold
    flat = (np.arange(len(said))[:, None] * classes**2 + cells).ravel()
    table = np.bincount(flat, minlength=len(said) * classes**2).reshape(-1, classes, classes)
    hits = np.einsum("ncc->nc", table)
    named = table.sum(axis=1) + table.sum(axis=2)
    scores = np.where(named > 0, 2 * hits / np.maximum(named, 1), 0.0)
    return scores.sum(axis=1) / np.maximum((named > 0).sum(axis=1), 1)
