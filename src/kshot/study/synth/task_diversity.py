"""How many tasks must training show before a network answers for tasks it never saw? (Raventos et al. 2023)

Networks are trained on pools of 2 to 65,536 fixed linear functions. On new functions each stands somewhere between the
best rule for its pool (dMMSE) and the best rule for all functions (ridge). Below the paper's own size inputs are fewer,
noise is scaled with them, and networks are smaller and trained for less, so that the crossing comes at smaller pools.
Where the two rules are less apart than the network is from either, its place between them says little: both distances
stand beside it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from kshot.seeds import torch_stream
from kshot.study.synth.experiment import Claim, Experiment, Given, Part, Row, Size
from kshot.study.synth.growing import (
    answers,
    asked_prompts,
    errors,
    grown,
    mean_rows,
    on_prompts,
    picture,
    ratio_row,
    unseen,
    way_row,
)
from kshot.synth.networks.mixing import Shape
from kshot.synth.networks.network import Network, Weights
from kshot.synth.networks.transformer import transformer
from kshot.synth.oracles import Predictor, bayes_over_pool, ridge
from kshot.synth.prompts import Prompts, Source, between, taken
from kshot.synth.train import Training

_OF = "Raventos et al. 2023"
_POOLS = (2, 16, 128, 1_024, 8_192, 65_536)
_SHARES = tuple(share / 10 for share in range(11))
# Prompts are held against a great pool so many at a time, so that memory does not grow with their number.
_AT_ONCE = 128
_ALL: tuple[Size, ...] = ("smoke", "full", "paper")

_Distances = Mapping[str, Float[np.ndarray, "b"]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Much:
    """Prompts, the network, its training, how many prompts are asked, and how few along training and each path."""

    source: Source
    shape: Shape
    training: Training
    asked: int
    few: int


def _triangle(steps: int, batch: int, learning_rate: float) -> Training:
    """As published: the rate rises over half of the steps, and falls over the other."""
    return Training(steps=steps, batch=batch, learning_rate=learning_rate, schedule="linear", warmup=steps // 2)


_MUCH: Mapping[Size, _Much] = {
    "smoke": _Much(
        source=Source(width=2, pairs=4, noise=0.0625),
        shape=Shape(layers=2, heads=2, width=32, spread=None),
        training=_triangle(2_500, 64, 4e-3),
        asked=512,
        few=64,
    ),
    "full": _Much(
        source=Source(width=5, pairs=10, noise=0.15625),
        shape=Shape(layers=4, heads=2, width=64, spread=None),
        training=_triangle(12_000, 64, 2e-3),
        asked=2_048,
        few=256,
    ),
    "paper": _Much(
        source=Source(width=8, pairs=16, noise=0.25),
        shape=Shape(layers=8, heads=2, width=128),
        training=_triangle(500_000, 256, 1e-3),
        asked=4_096,
        few=512,
    ),
}


def _pool(size: int, given: Given) -> dict[str, Any]:
    """A network that is trained on one pool, held against both rules on tasks of the pool, on new ones, and between."""
    much = _MUCH[given.size]
    source = replace(much.source, pool=size, pool_seed=given.seed)
    network = transformer(source.width, source.pairs, much.shape)
    rules = {"dMMSE": bayes_over_pool(source.tasks()["w"], source.noise), "ridge": ridge(source.noise)}
    new = asked_prompts(given, replace(source, pool=None), much.asked)
    own, word = asked_prompts(given, source, much.asked), f"pool {size}"
    few = Prompts(new.xs[: much.few], new.ys[: much.few], new.means[: much.few], {})

    def look(step: int, weights: Weights) -> dict[str, float]:
        return {"way": _way(_apart(network, weights, rules, few))}

    training = much.training
    done = grown(given, word, network, on_prompts(given, network, source, training), training, look=look)
    weights = done.weights
    rows, points = [], {}
    for name, asked in (("new tasks", new), ("tasks of the pool", own)):
        found = _apart(network, weights, rules, asked)
        rows += _rows(found, (word, name), given.seed)
        points[name] = {f"from {rule}": [(size, float(found[rule].mean()))] for rule in rules}
    path = {share: _apart(network, weights, rules, _on_the_way(given, source, share, much.few)) for share in _SHARES}
    rows.append(_way_row(path[0.5], (word, "halfway between two tasks"), given.seed))
    distance = "squared distance of predictions / d"
    drawn = [
        picture(f"distance on {name}", x="tasks in the pool", y=distance, lines=lines, log_x=True, log_y=True)
        for name, lines in points.items()
    ]
    way = "way from dMMSE (0) to ridge (1)"
    lines = {word: [(share, _way(found)) for share, found in path.items()]}
    drawn += [
        picture(f"{way}, new tasks, along training", x="steps", y=way, lines={word: done.along("way")}, log_x=True),
        picture(f"{way}, between two tasks of the pool", x="share of one task", y=way, lines=lines),
    ]
    return {"rows": rows, "pictures": drawn}


def _on_the_way(given: Given, source: Source, share: float, count: int) -> Prompts:
    """Prompts of functions between two of the pool; at every share the same two, inputs and noise."""
    rng = torch_stream(unseen(given, "between"), "between")
    tasks, size = source.tasks(), source.pool
    assert size is not None, "there is nothing between two tasks of no pool"
    first = torch.randint(size, (count,), generator=rng)
    second = (first + 1 + torch.randint(size - 1, (count,), generator=rng)) % size
    w = between(taken(tasks, first)["w"], taken(tasks, second)["w"], share)
    return source.answered(rng, {"w": w}, source.inputs(rng, {"w": w}, count, source.pairs))


def _apart(network: Network, weights: Weights, rules: Mapping[str, Predictor], asked: Prompts) -> _Distances:
    """Squared distances over every prompt, in units of d: of the network from either rule, and of the rules (``both``).

    Also what the network, dMMSE and ridge miss of the means, under ``error of`` each.
    """
    d = float(asked.xs.shape[-1])
    said = {rule: _says(one, asked) for rule, one in rules.items()}
    said["the network"] = answers(network, weights, asked.xs, asked.ys)
    pairs = {"both": ("dMMSE", "ridge"), **{rule: ("the network", rule) for rule in rules}}
    found = {name: errors(said[one], said[other], d).mean(axis=1) for name, (one, other) in pairs.items()}
    return found | {f"error of {name}": errors(own, asked.means, d).mean(axis=1) for name, own in said.items()}


def _says(rule: Predictor, asked: Prompts) -> Float[Tensor, "b n"]:
    parts = zip(asked.xs.split(_AT_ONCE), asked.ys.split(_AT_ONCE), strict=True)
    return torch.cat([rule(xs, ys) for xs, ys in parts])


def _way(found: _Distances) -> float:
    """Where the network stands between dMMSE (0) and ridge (1), as ``way_row`` has it."""
    return float(0.5 + (found["dMMSE"] - found["ridge"]).mean() / (2 * found["both"].mean()))


def _way_row(found: _Distances, variant: tuple[str, ...], seed: int) -> Row:
    return way_row("way_to_ridge", variant, found["dMMSE"], found["ridge"], found["both"], seed)


def _rows(found: _Distances, variant: tuple[str, ...], seed: int) -> list[Row]:
    network = found["error of the network"]
    return [
        *(mean_rows("rule_distance", (*variant, rule), found[rule], seed) for rule in ("dMMSE", "ridge")),
        mean_rows("rule_distance", (*variant, "between the rules"), found["both"], seed),
        _way_row(found, variant, seed),
        *(
            mean_rows("task_error", (*variant, name), found[f"error of {name}"], seed)
            for name in ("the network", "dMMSE", "ridge")
        ),
        ratio_row("error_ratio", (*variant, "over dMMSE"), network, found["error of dMMSE"], seed, null=1.0),
        ratio_row("error_ratio", (*variant, "over ridge"), network, found["error of ridge"], seed, null=1.0),
    ]


def _is_dmmse(size: int, where: str, at: tuple[Size, ...]) -> Claim:
    return Claim(
        text=f"of {size} tasks, {where}, a network is nearer to the best rule for its pool",
        source=_OF,
        measure="way_to_ridge",
        variant=f"pool {size}, {where}",
        most=0.5,
        at=at,
    )


def _is_ridge(size: int, where: str, at: tuple[Size, ...]) -> Claim:
    return Claim(
        text=f"of {size:,} tasks, {where}, a network is nearer to the best rule for all (published: from 2¹⁴ or 2¹⁵ on)",
        source=_OF,
        measure="way_to_ridge",
        variant=f"pool {size}, {where}",
        least=0.5,
        at=at,
    )


TASK_DIVERSITY = Experiment(
    about="the rule that a network learns from few tasks and from many",
    source=_OF,
    much=_MUCH,
    parts={
        f"pool-{size}": Part(
            asks=f"the rule learned from {size:,} tasks",
            answer=partial(_pool, size),
            minutes={"smoke": 0.2, "full": 9.0},
        )
        for size in _POOLS
    },
    claims=(
        _is_dmmse(2, "tasks of the pool", _ALL),
        _is_dmmse(2, "new tasks", _ALL),
        _is_dmmse(2, "halfway between two tasks", _ALL),
        # Short training crosses early (docs/results/synth.md), and with five inputs the rules for the greatest pool are
        # hardly apart.
        _is_dmmse(16, "new tasks", ("paper",)),
        _is_ridge(1_024, "new tasks", ("full",)),
        _is_ridge(1_024, "halfway between two tasks", ("full",)),
        _is_ridge(65_536, "new tasks", ("paper",)),
        _is_ridge(65_536, "halfway between two tasks", ("paper",)),
        Claim(
            text="of 65,536 tasks it errs less on new ones than the best rule for its pool",
            source=_OF,
            measure="error_ratio",
            variant="pool 65536, new tasks, over dMMSE",
            most=1.0,
            at=("paper",),
        ),
    ),
)
