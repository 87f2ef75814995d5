"""Exact rivals of a network: each answers every input of a prompt from the pairs before it, as a network does.

A predictor maps inputs and shown answers to what it says of each answer before it is shown: (b, n, d), (b, n) -> (b, n).
What it says of the first pair rests on nothing and is 0, or the mean of what may come. All keep the number format of xs.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from kshot.seeds import torch_stream

Predictor = Callable[[Float[Tensor, "b n d"], Float[Tensor, "b n"]], Float[Tensor, "b n"]]
Steps = float | Sequence[float] | Float[Tensor, "s"]
"""One number for all steps, or one for each of them."""

# Newton's steps square what is missing: 12 are several too many. Draws are so much wider than the posterior at its top,
# so that its tails are among them.
_NEWTON, _WIDER = 12, 1.25


def averaging(xs: Float[Tensor, "b n d"], ys: Float[Tensor, "b n"]) -> Float[Tensor, "b n"]:
    """w = the mean of x y over the pairs so far: one step of gradient descent from 0, at the rate that suits standard
    normal inputs (Garg et al. 2022)."""
    sums = _before((xs * ys[..., None]).cumsum(dim=1))
    return _dot(sums, xs) / torch.arange(xs.shape[1]).clamp(min=1).to(xs)


def least_squares(xs: Float[Tensor, "b n d"], ys: Float[Tensor, "b n"]) -> Float[Tensor, "b n"]:
    """The w of least norm among those of least squares."""
    said = [torch.zeros_like(ys[:, 0])]
    for k in range(1, xs.shape[1]):
        weights = (torch.linalg.pinv(xs[:, :k]) @ ys[:, :k, None])[..., 0]
        said.append(_dot(weights, xs[:, k]))
    return torch.stack(said, dim=1)


def ridge(penalty: float) -> Predictor:
    """w = (X'X + penalty I)^-1 X'y: the mean of the posterior for w ~ N(0, I) and noise of variance ``penalty`` > 0."""
    return partial(_ridge, penalty=penalty)


def _ridge(xs: Float[Tensor, "b n d"], ys: Float[Tensor, "b n"], penalty: float) -> Float[Tensor, "b n"]:
    gram = _before(torch.einsum("bni,bnj->bnij", xs, xs).cumsum(dim=1))
    sums = _before((xs * ys[..., None]).cumsum(dim=1))
    weights = torch.linalg.solve(gram + penalty * torch.eye(xs.shape[-1]).to(xs), sums)
    return _dot(weights, xs)


def nearest(count: int = 3) -> Predictor:
    """The mean answer of the so many nearest inputs, or of all where there are fewer."""
    return partial(_nearest, count=count)


def _nearest(xs: Float[Tensor, "b n d"], ys: Float[Tensor, "b n"], count: int) -> Float[Tensor, "b n"]:
    apart = torch.cdist(xs, xs).masked_fill(~_seen(xs), torch.inf)
    found, which = apart.topk(min(count, xs.shape[1]), dim=2, largest=False)
    near = found.isfinite()
    answers = ys[:, None].expand_as(apart).gather(2, which)
    return (answers * near).sum(dim=2) / near.sum(dim=2).clamp(min=1)


def nothing(xs: Float[Tensor, "b n d"], ys: Float[Tensor, "b n"]) -> Float[Tensor, "b n"]:
    """0 of every answer: what whoever has learned nothing comes to on average."""
    return torch.zeros_like(ys)


def descended(
    rate: Steps, steps: int, *, momentum: float = 0.0, shrink: Steps = 0.0, mean: bool = True, last: bool = False
) -> Predictor:
    """Linear regression by full-batch gradient descent from w = 0, on the pairs before each query.

    The loss is half the mean square over k pairs (``mean``), or half the sum. ``momentum`` m is heavy-ball: v <- m v + g.
    ``shrink`` is gamma of GD++ (von Oswald et al. 2023): before each step but the first every input, the query among
    them, becomes (I - gamma X'X / k) x, and each step descends from what is left of the answers. Rates and gammas are one
    for all steps or one each. ``last`` answers the last input alone, (b, 1), in a part of the time.
    """
    schedule = list(zip(_each(rate, steps), _each(shrink, steps), strict=True))
    return partial(_descended, schedule=schedule, momentum=momentum, mean=mean, last=last)


def _descended(
    xs: Float[Tensor, "b n d"],
    ys: Float[Tensor, "b n"],
    *,
    schedule: Sequence[tuple[Any, Any]],
    momentum: float,
    mean: bool,
    last: bool,
) -> Float[Tensor, "b q"]:
    asked = slice(-1, None) if last else slice(None)
    seen, query = _seen(xs).to(xs)[asked], xs[:, asked]
    count = seen.sum(dim=1).clamp(min=1) if mean else torch.ones(len(seen)).to(xs)
    # What every query (axis k) sees as inputs (axis n), itself among them, and what is left of their answers.
    inputs, left = (each[:, None].expand(-1, len(seen), *each.shape[1:]) for each in (xs, ys))
    said, speed = torch.zeros_like(ys[:, asked]), torch.zeros_like(query)
    for step, (rate, shrink) in enumerate(schedule):
        if shrink and step:
            shown = inputs * seen[..., None]
            gram = torch.einsum("bkni,bknj->bkij", shown, shown) * (shrink / count)[:, None, None]
            inputs = inputs - torch.einsum("bkij,bknj->bkni", gram, inputs)
            query = query - torch.einsum("bkij,bkj->bki", gram, query)
        speed = momentum * speed + torch.einsum("bkn,bkni->bki", left * seen, inputs)
        change = rate * speed / count[:, None]
        left = left - torch.einsum("bkni,bki->bkn", inputs, change)
        said = said + _dot(change, query)
    return said


def _each(value: Steps, steps: int) -> Sequence[Any]:
    """A number, or a tensor of none, for every step."""
    if isinstance(value, Tensor):
        return value.unbind()
    return value if isinstance(value, Sequence) else [value] * steps


def one_pass(rate: float) -> Predictor:
    """Linear regression by a step of descent for every pair in turn, on half its square, from w = 0.

    Source: a rival in Akyürek et al. 2023.
    """
    return partial(_one_pass, rate=rate)


def _one_pass(xs: Float[Tensor, "b n d"], ys: Float[Tensor, "b n"], *, rate: float) -> Float[Tensor, "b n"]:
    weights, said = torch.zeros_like(xs[:, 0]), []
    for x, y in zip(xs.unbind(1), ys.unbind(1), strict=True):
        said.append(_dot(weights, x))
        weights = weights + rate * (y - said[-1])[:, None] * x
    return torch.stack(said, dim=1)


def ridge_of_unknown_noise(variances: Sequence[float]) -> Predictor:
    """The mean of ridge regressions with these penalties under the posterior of the noise, uniform over them before.

    The best there is for w ~ N(0, I) and noise of one of these variances > 0: the pairs so far say which. They are
    weighted by the densities N(y_j; w_j x_j, variance (1 + x_j' (X'X + variance I)^-1 x_j)) of all shown answers.

    Source: the task is of Bai et al. 2023 (noisy linear models); the formula is Bayes'.
    """
    return partial(_of_unknown_noise, variances=tuple(variances))


def _of_unknown_noise(
    xs: Float[Tensor, "b n d"], ys: Float[Tensor, "b n"], *, variances: tuple[float, ...]
) -> Float[Tensor, "b n"]:
    gram = _before(torch.einsum("bni,bnj->bnij", xs, xs).cumsum(dim=1))
    said, scores = [], []
    for variance in variances:
        said.append(_ridge(xs, ys, variance))
        own = gram + variance * torch.eye(xs.shape[-1]).to(xs)
        spread = variance * (1 + _dot(torch.linalg.solve(own, xs), xs))
        scores.append(_before((-(ys - said[-1]).square() / (2 * spread) - spread.log() / 2).cumsum(dim=1)))
    return (torch.stack(scores).softmax(dim=0) * torch.stack(said)).sum(dim=0)


def logistic_regression(penalty: float = 1.0, *, draws: int = 512) -> Predictor:
    """The mean of answers 1 and -1 under the posterior for w ~ N(0, I / penalty) and P(y = 1) = 1 / (1 + exp(-w x)).

    By importance: so many w are drawn around the most likely one, as wide as the posterior is there and a quarter wider,
    and weighed by their own posterior; 0 draws take the answer of the most likely w, which is logistic regression with
    an L2 penalty.
    """
    return partial(_logistic, penalty=penalty, draws=draws)


def _logistic(
    xs: Float[Tensor, "b n d"], ys: Float[Tensor, "b n"], *, penalty: float, draws: int
) -> Float[Tensor, "b n"]:
    half = torch.randn(draws // 2, xs.shape[-1], generator=torch_stream(0, "draws", draws, xs.shape[-1])).to(xs)
    noise = _WIDER * torch.cat([half, -half])
    said = [torch.zeros_like(ys[:, 0])]
    for k in range(1, xs.shape[1]):
        signed = xs[:, :k] * ys[:, :k, None]
        likely, curvature = _most_likely(signed, penalty)
        if not draws:
            said.append(torch.tanh(_dot(likely, xs[:, k]) / 2))
            continue
        root = torch.linalg.cholesky(curvature).mT
        weights = likely[:, None] + torch.linalg.solve_triangular(root, noise.T.expand(len(xs), -1, -1), upper=True).mT
        chance = logsigmoid(weights @ signed.mT).sum(dim=2) - penalty * weights.square().sum(dim=2) / 2
        share = (chance + noise.square().sum(dim=1) / (2 * _WIDER**2)).softmax(dim=1)
        said.append((share * torch.tanh((weights @ xs[:, k, :, None])[..., 0] / 2)).sum(dim=1))
    return torch.stack(said, dim=1)


def _most_likely(signed: Float[Tensor, "b k d"], penalty: float) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b d d"]]:
    """w that is least in sum_j log(1 + exp(-w s_j)) + penalty |w|^2 / 2, and the second derivative there: Newton's steps."""
    weights = torch.zeros_like(signed[:, 0])
    eye = penalty * torch.eye(signed.shape[-1]).to(signed)
    for _ in range(_NEWTON):
        missed = torch.sigmoid(-torch.einsum("bkd,bd->bk", signed, weights))
        curvature = torch.einsum("bk,bkd,bke->bde", missed * (1 - missed), signed, signed) + eye
        slope = torch.einsum("bk,bkd->bd", missed, signed) - penalty * weights
        weights = weights + torch.linalg.solve(curvature, slope)
    return weights, curvature


def bayes_over_pool(tasks: Float[Tensor, "m d"], noise: float, *, at_once: int = 4096) -> Predictor:
    """dMMSE: the mean of linear functions of a pool under the posterior of a uniform prior and noise of this variance > 0.

    Source: Raventos et al. 2023. ``at_once`` functions are gone through at a time, so memory does not grow
    with the pool.
    """
    return partial(_bayes, tasks=tasks, noise=noise, at_once=at_once)


def _bayes(
    xs: Float[Tensor, "b n d"],
    ys: Float[Tensor, "b n"],
    *,
    tasks: Float[Tensor, "m d"],
    noise: float,
    at_once: int,
) -> Float[Tensor, "b n"]:
    greatest = torch.full_like(ys, -torch.inf)
    total, weighted = torch.zeros_like(ys), torch.zeros_like(ys)
    for some in tasks.to(xs).split(at_once):
        said = xs @ some.T
        score = -_before((ys[..., None] - said).square().cumsum(dim=1)) / (2 * noise)
        top = torch.maximum(greatest, score.amax(dim=2))
        # What was summed so far, at the new scale.
        fade, weight = (greatest - top).exp(), (score - top[..., None]).exp()
        total = total * fade + weight.sum(dim=2)
        weighted = weighted * fade + (weight * said).sum(dim=2)
        greatest = top
    return weighted / total


def on_features(predictor: Predictor, features: Callable[[Tensor], Tensor]) -> Predictor:
    """The same on another map of the inputs."""
    return lambda xs, ys: predictor(features(xs), ys)


def _before(sums: Float[Tensor, "b n *more"]) -> Float[Tensor, "b n *more"]:
    """Sums up to each pair as sums of those before it."""
    return torch.cat([torch.zeros_like(sums[:, :1]), sums[:, :-1]], dim=1)


def _seen(xs: Float[Tensor, "b n d"]) -> Bool[Tensor, "n n"]:
    """Which pairs (second axis) are shown before each query (first)."""
    return torch.ones(xs.shape[1], xs.shape[1]).tril(-1).bool()


def _dot(weights: Float[Tensor, "*b d"], xs: Float[Tensor, "*b d"]) -> Float[Tensor, "*b"]:
    return (weights * xs).sum(dim=-1)
