"""Do two predictors do the same? What they say of the same prompts, and how that depends on the query.

A predictor maps prompts of pairs, inputs (b, n, d) and answers (b, n), to what it says of the last answer.
"""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

Says = Callable[[Float[Tensor, "b n d"], Float[Tensor, "b n"]], Float[Tensor, "b s"]]


def sensitivities(
    says: Says, xs: Float[Tensor, "b n d"], ys: Float[Tensor, "b n"]
) -> tuple[Float[np.ndarray, "b"], Float[np.ndarray, "b d"]]:
    """What is said of the last answer of every prompt, and its derivative with respect to the last input; float64.

    Prompts must not depend on one another.
    """
    with torch.enable_grad():
        query = xs[:, -1:].detach().clone().requires_grad_(True)
        said = says(torch.cat([xs[:, :-1], query], dim=1), ys)[:, -1]
        (slope,) = torch.autograd.grad(said.sum(), query)
    return said.detach().double().numpy(), slope[:, 0].double().numpy()


def prediction_distance(one: Float[np.ndarray, "b"], other: Float[np.ndarray, "b"]) -> Float[np.ndarray, "b"]:
    """How far apart two predictors are on every prompt: |difference|, in units of y.

    Claim: two predictors that always say the same are the same function of the prompt.
    Formula: |y_one - y_other|, von Oswald et al. 2023, section 3 (their L2 norm of the difference, of one output).
    Null: the distance of either from a predictor that says 0 is |y|.
    Departures: none.
    Known problems: it knows nothing of prompts unlike those that were asked.
    """
    return np.abs(one - other)


def sensitivity_cosine(one: Float[np.ndarray, "b d"], other: Float[np.ndarray, "b d"]) -> Float[np.ndarray, "b"]:
    """Whether two predictors depend on the query alike, on every prompt: cosine in [-1, 1].

    NaN where one of them does not depend on it.

    Claim: for a linear function of the query the derivative is the w that was learned from the pairs: the same w, the
        same algorithm.
    Formula: cos(d y_one / d x, d y_other / d x), x the last input, von Oswald et al. 2023, section 3.
    Null: 0 for derivatives in random directions; its standard deviation is 1 / sqrt(d).
    Departures: none.
    Known problems: any learner that finds the direction of w has 1, whatever steps it took: least squares and one step
        of descent are alike where inputs are many and spherical.
    """
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(lengths > 0, (one * other).sum(axis=1) / lengths, np.nan)


def sensitivity_distance(one: Float[np.ndarray, "b d"], other: Float[np.ndarray, "b d"]) -> Float[np.ndarray, "b"]:
    """How far apart the derivatives of two predictors are on every prompt: the length of the difference.

    Claim: as ``sensitivity_cosine``, and the same size of w, too.
    Formula: |d y_one / d x - d y_other / d x|, von Oswald et al. 2023, section 3 ("model diff").
    Null: the length of either derivative is its distance from a predictor that says 0.
    Departures: none.
    Known problems: grows with the size of w and of inputs; compare it with the lengths themselves.
    """
    return np.linalg.norm(one - other, axis=1)
