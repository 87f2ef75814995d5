"""Which ridge regression is a predictor nearest to? How far apart predictions are, by the penalty."""

from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from kshot.seeds import stream
from kshot.study.figures import figure
from kshot.study.synth.experiment import Given, Row
from kshot.study.synth.growing import errors, mean_rows, picture, unseen
from kshot.synth.oracles import Predictor, least_squares, ridge
from kshot.synth.prompts import Prompts

PENALTIES = tuple(2.0 ** (power / 2) for power in range(-20, 9))
_RESAMPLES = 1000


def distances(one: Predictor, other: Predictor, asked: Prompts) -> Float[np.ndarray, "b"]:
    """SPD: the mean squared difference of predictions after a pair or more, prompt by prompt (Akyürek et al. 2023)."""
    said, against = (own(asked.xs, asked.ys).double()[:, 1:] for own in (one, other))
    return errors(said, against).mean(axis=1)


def nearest_ridge(
    given: Given, says: Predictor, asked: Prompts, noise: float, word: str
) -> tuple[list[Row], list[dict[str, Any]]]:
    """Rows and pictures of the penalty with which ridge regression is nearest on prompts of a variance of noise.

    ``best_penalty`` and, where there is noise, ``penalty_ratio`` over its variance, with percentile intervals over
    resampled prompts; ``spd`` from the nearest ridge regression of the grid, and from that of the noise.
    """
    said, exact = says(asked.xs, asked.ys)[:, 1:], (asked.xs.double(), asked.ys.double())
    by_penalty = _by_penalty(said, *exact)
    best, count = best_penalty(by_penalty), by_penalty.shape[1]
    low, high = _interval(_resampled(by_penalty, stream(unseen(given, "resamples"), "resamples")))
    rows = [
        figure("best_penalty", (word,), value=best, low=low, high=high, null=noise, n=count),
        mean_rows("spd", (word, "nearest ridge"), by_penalty[by_penalty.mean(axis=1).argmin()], given.seed),
    ]
    fitting: Predictor = least_squares
    if noise:
        fitting = ridge(noise)
        own, least, most = (one / noise for one in (best, low, high))
        rows.append(
            figure("penalty_ratio", (word, "over the noise"), value=own, low=least, high=most, null=1.0, n=count)
        )
    own_penalty = errors(said, fitting(*exact)[:, 1:]).mean(axis=1)
    rows.append(mean_rows("spd", (word, "ridge of the noise"), own_penalty, given.seed))
    lines = {word: [(one, float(own.mean())) for one, own in zip(PENALTIES, by_penalty, strict=True)]}
    drawn = [
        picture("distance from ridge, by its penalty", x="penalty", y="SPD", lines=lines, log_x=True, log_y=True),
        picture(
            "the nearest penalty, by noise",
            x="variance of noise",
            y="penalty",
            lines={"nearest": [(noise, best)], "noise": [(noise, noise)]},
        ),
    ]
    return rows, drawn


def penalties_apart(given: Given, says: Predictor, little: Prompts, much: Prompts, variant: tuple[str, ...]) -> Row:
    """``penalty_ratio``: the penalty of the ridge nearest on one kind of prompts over that on another.

    1 of whatever has one penalty for both; the percentile interval is over resampled prompts of both kinds.
    """
    rng = stream(unseen(given, "resamples"), "resamples")
    first, second = (
        _by_penalty(says(own.xs, own.ys)[:, 1:], own.xs.double(), own.ys.double()) for own in (little, much)
    )
    low, high = _interval(_resampled(second, rng) / _resampled(first, rng))
    value = best_penalty(second) / best_penalty(first)
    return figure("penalty_ratio", variant, value=value, low=low, high=high, null=1.0, n=first.shape[1])


def _by_penalty(
    said: Float[Tensor, "b n1"], xs: Float[Tensor, "b n d"], ys: Float[Tensor, "b n"]
) -> Float[np.ndarray, "p b"]:
    """SPD of what was said from ridge regression with each of PENALTIES, in float64, prompt by prompt."""
    return np.stack([errors(said, ridge(one)(xs, ys)[:, 1:]).mean(axis=1) for one in PENALTIES])


def _resampled(by_penalty: Float[np.ndarray, "p b"], rng: np.random.Generator) -> Float[np.ndarray, "r"]:
    """The best penalty over prompts that are drawn again, with replacement."""
    count = by_penalty.shape[1]
    return np.array([best_penalty(by_penalty[:, rng.integers(0, count, count)]) for _ in range(_RESAMPLES)])


def _interval(found: Float[np.ndarray, "r"]) -> tuple[float, float]:
    low, high = np.quantile(found, (0.025, 0.975))
    return float(low), float(high)


def best_penalty(by_penalty: Float[np.ndarray, "p b"]) -> float:
    """The penalty of least mean distance over prompts, between those asked by a parabola in their logarithms."""
    means = by_penalty.mean(axis=1)
    least = int(means.argmin())
    if least in (0, len(means) - 1):
        return PENALTIES[least]
    before, at, after = means[least - 1 : least + 2]
    bent = before - 2 * at + after
    move = 0.0 if bent <= 0 else (before - after) / (2 * bent)
    return float(PENALTIES[least] * (PENALTIES[1] / PENALTIES[0]) ** move)
