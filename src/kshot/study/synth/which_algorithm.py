"""Which algorithm does a network run in context? (Akyürek et al. 2023, Bai et al. 2023)

Networks of 1 to 8 layers, of two widths, and of prompts with five levels of noise, each held against textbook rules:
how far apart predictions are (SPD), and the weights they imply (ILWD). One more network sees prompts of two levels of noise
and is not told which. Below the paper's size inputs, pairs and networks are smaller and trained for less; descent
here is on half the sum of squares, and ``best step`` has the rate that suits each number of pairs best.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from kshot.study.synth.against_rules import Much, against_rules
from kshot.study.synth.experiment import Claim, Experiment, Given, Part, Row, Size
from kshot.study.synth.growing import (
    answers,
    asked_prompts,
    errors,
    grown,
    mean_rows,
    on_batches,
    on_prompts,
    picture,
    ratio_row,
    way_row,
)
from kshot.study.synth.nearest_ridge import PENALTIES, distances, nearest_ridge, penalties_apart
from kshot.synth.networks.mixing import Shape
from kshot.synth.networks.transformer import transformer
from kshot.synth.oracles import (
    Predictor,
    ridge,
    ridge_of_unknown_noise,
)
from kshot.synth.prompts import Prompts, Source
from kshot.synth.train import Training, squared_error

_OF, _ALSO = "Akyürek et al. 2023", "Bai et al. 2023"
_DEPTHS = (1, 2, 8)
_NOISES: Mapping[str, float] = {"1/16": 1 / 16, "1/9": 1 / 9, "1/4": 1 / 4, "4/9": 4 / 9}
# Two of the levels of Bai et al., as variances, for a network that is not told which.
_LITTLE, _MUCH_NOISE = 0.01, 1.0
_ALL: tuple[Size, ...] = ("smoke", "full", "paper")
# Of one core for most parts.
_MINUTES: Mapping[Size, float] = {"smoke": 0.2, "full": 9.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Much(Much):
    """And the networks' shape but for what a part changes, the narrow width, and training."""

    shape: Shape
    narrow: int
    training: Training


_MUCH: Mapping[Size, _Much] = {
    "smoke": _Much(
        source=Source(width=2, pairs=5),
        shape=Shape(layers=2, heads=2, width=32, spread=None),
        narrow=8,
        training=Training(steps=1_600, batch=64, learning_rate=4e-3, schedule="linear", warmup=800),
        asked=512,
        fitted=64,
        queries=8,
    ),
    "full": _Much(
        source=Source(width=4, pairs=12),
        shape=Shape(layers=4, heads=2, width=64, spread=None),
        narrow=16,
        training=Training(steps=12_000, batch=64, learning_rate=2e-3, schedule="linear", warmup=6_000, clip=1.0),
        asked=2_048,
        fitted=256,
        queries=16,
    ),
    "paper": _Much(
        source=Source(width=8, pairs=40),
        shape=Shape(layers=16, heads=4, width=512),
        narrow=64,
        training=Training(steps=500_000, batch=64, learning_rate=1e-4),
        asked=4_096,
        fitted=256,
        queries=32,
    ),
}


def _trained(given: Given, source: Source, shape: Shape, word: str) -> Predictor:
    network = transformer(source.width, source.pairs, shape)
    training = _MUCH[given.size].training
    weights = grown(given, word, network, on_prompts(given, network, source, training), training).weights
    return partial(answers, network, weights)


def _depth(layers: int, given: Given) -> dict[str, Any]:
    """A network of so many layers, trained without noise: which rule it is nearest to."""
    much, word = _MUCH[given.size], f"depth {layers}"
    says = _trained(given, much.source, replace(much.shape, layers=layers), word)
    rows, apart = against_rules(given, says, word, much)
    return {"rows": rows, "pictures": [_drawn(apart, "layers", layers)]}


def _narrow(given: Given) -> dict[str, Any]:
    """The same of a narrow network."""
    much = _MUCH[given.size]
    says = _trained(given, much.source, replace(much.shape, width=much.narrow), "narrow")
    rows, apart = against_rules(given, says, "narrow", much)
    return {"rows": rows, "pictures": [_drawn(apart, "width", much.narrow)]}


def _without_noise(given: Given) -> dict[str, Any]:
    """The network that all others are changed from: which rule it is nearest to, and which penalty."""
    much, word = _MUCH[given.size], "noise 0"
    says = _trained(given, much.source, much.shape, word)
    rows, apart = against_rules(given, says, word, much)
    penalties, drawn = nearest_ridge(
        given, says, asked_prompts(given, much.source, much.asked), much.source.noise, word
    )
    sizes = [_drawn(apart, "layers", much.shape.layers), _drawn(apart, "width", much.shape.width)]
    return {"rows": rows + penalties, "pictures": sizes + drawn}


def _drawn(apart: Mapping[str, float], along: str, at: int) -> dict[str, Any]:
    """A point of every rule's line, which parts have together."""
    name = f"squared difference of predictions, by {along}"
    lines = {f"from {rule}": [(at, value)] for rule, value in apart.items()}
    return picture(name, x=along, y="SPD", lines=lines, log_x=True, log_y=True)


def _noisy(noise: str, given: Given) -> dict[str, Any]:
    """A network trained on prompts of one level of noise: which penalty of ridge regression it is nearest to."""
    much, word = _MUCH[given.size], f"noise {noise}"
    source = replace(much.source, noise=_NOISES[noise])
    says = _trained(given, source, much.shape, word)
    rows, drawn = nearest_ridge(given, says, asked_prompts(given, source, much.asked), source.noise, word)
    return {"rows": rows, "pictures": drawn}


def _unknown_noise(given: Given) -> dict[str, Any]:
    """One network, prompts of two levels of noise: does it choose the penalty that suits each?"""
    much = _MUCH[given.size]
    network = transformer(much.source.width, much.source.pairs, much.shape)
    half = max(1, much.training.batch // 2)
    levels = {"little noise": _LITTLE, "much noise": _MUCH_NOISE}
    sources = {name: replace(much.source, noise=level) for name, level in levels.items()}

    def make(step: int) -> tuple[Tensor, ...]:
        both = [own.batch(given.seed, 2 * step + place, half) for place, own in enumerate(sources.values())]
        return torch.cat([one.xs for one in both]), torch.cat([one.ys for one in both])

    def loss(weights: Mapping[str, Tensor], xs: Tensor, ys: Tensor) -> Tensor:
        return squared_error(network.says(weights, xs, ys), ys)

    weights = grown(given, "two levels", network, on_batches(given, make, much.training, loss), much.training).weights
    says = partial(answers, network, weights)
    asked = {name: asked_prompts(given, own, much.asked) for name, own in sources.items()}
    rules = {name: ridge(level) for name, level in levels.items()}
    bayes = ridge_of_unknown_noise(tuple(levels.values()))
    rows, points = [], {}
    for name, own in asked.items():
        rows += [_between(bayes, rules, own, (name, "Bayes"), given.seed)]
        rows += [_between(says, rules, own, (name, "the network"), given.seed)]
        rows.append(mean_rows("spd", (name, "Bayes"), distances(says, bayes, own), given.seed))
        points[name] = _by_pairs(says, rules, own)
    little, much_noise = asked.values()
    for one, word in ((says, "the network"), (bayes, "Bayes")):
        rows.append(penalties_apart(given, one, little, much_noise, ("much over little noise", word)))
    missed = [_missed(says, own) for own in asked.values()]
    # It is chosen on the very prompts that are asked, which is in its favour.
    fixed = min(
        ([_missed(ridge(penalty), own) for own in asked.values()] for penalty in PENALTIES),
        key=lambda found: float(np.mean(found)),
    )
    both = (np.mean(missed, axis=0), np.mean(fixed, axis=0))
    rows.append(ratio_row("error_ratio", ("two levels", "over the best single ridge"), *both, given.seed, null=1.0))
    way = "way from the penalty of little noise (0) to that of much (1)"
    return {"rows": rows, "pictures": [picture(way, x="pairs before", y="way", lines=points)]}


def _between(
    says: Predictor, rules: Mapping[str, Predictor], asked: Prompts, variant: tuple[str, ...], seed: int
) -> Row:
    """Where a predictor stands between the rule of little noise (0) and that of much (1)."""
    little, much = rules.values()
    first, second = (distances(says, rule, asked) for rule in (little, much))
    return way_row("way_to_much_noise", variant, first, second, distances(little, much, asked), seed)


def _by_pairs(says: Predictor, rules: Mapping[str, Predictor], asked: Prompts) -> list[tuple[int, float]]:
    """The same after every number of pairs from one on."""
    own, little, much = (one(asked.xs, asked.ys).double()[:, 1:] for one in (says, *rules.values()))
    squares = ((own - little).square() - (own - much).square()).mean(dim=0) / (little - much).square().mean(dim=0)
    return [(k, float(one)) for k, one in enumerate((1 + squares) / 2, start=1)]


def _missed(says: Predictor, asked: Prompts) -> Float[np.ndarray, "b"]:
    return errors(says(asked.xs, asked.ys)[:, 1:], asked.means[:, 1:]).mean(axis=1)


def _nearer(depth: str, text: str, ratio: str, *, at: tuple[Size, ...], least: float | None = None) -> Claim:
    most = 1.0 if least is None else None
    return Claim(text=text, source=_OF, measure="spd_ratio", variant=f"{depth}, {ratio}", least=least, most=most, at=at)


WHICH_ALGORITHM = Experiment(
    about="the algorithm that a network runs in context, by its depth and width and by noise",
    source=f"{_OF}; {_ALSO}",
    much=_MUCH,
    parts={
        **{
            f"depth-{layers}": Part(
                asks=f"the rule that {layers} layers learn",
                answer=partial(_depth, layers),
                minutes={"smoke": 0.08 * (1 + layers), "full": 2.2 * layers},
            )
            for layers in _DEPTHS
        },
        "narrow": Part(asks="the rule that a narrow network learns", answer=_narrow, minutes={"smoke": 0.2, "full": 3.0}),
        "noise-0": Part(asks="the rule and the penalty learned without noise", answer=_without_noise, minutes=_MINUTES),
        **{
            f"noise-{noise.replace('/', '-')}": Part(
                asks=f"the penalty learned from noise of variance {noise}",
                answer=partial(_noisy, noise),
                minutes=_MINUTES,
            )
            for noise in _NOISES
        },
        "unknown-noise": Part(asks="the penalty where noise is not known", answer=_unknown_noise, minutes=_MINUTES),
    },
    claims=(
        # Who says nothing is nearer to a step, too: asked together with the next.
        _nearer("depth 1", "one layer is nearer to a step of descent than to least squares",
                "best step over least squares", at=("full", "paper")),
        _nearer("depth 1", "one layer is nearer to a step of descent than to saying 0", "best step over nothing", at=("full", "paper")),
        _nearer("depth 2", "two layers are nearer to ridge regression than to a step of descent",
                "ridge 0.1 over best step", at=("full", "paper")),
        _nearer("depth 2", "two layers are nearer to ridge regression than to least squares",
                "ridge 0.1 over least squares", at=_ALL),
        _nearer("depth 2", "two layers are nearer to ridge regression than to saying 0", "ridge 0.1 over nothing", at=_ALL),
        _nearer("depth 8", "eight layers are nearer to least squares than to ridge regression",
                "ridge 0.1 over least squares", least=1.0, at=("full", "paper")),
        Claim(
            text="many layers are least squares where there is no noise (published: below 0.01 with 16 layers)",
            source=_OF, measure="spd", variant="noise 0, least squares", most=0.01, at=("paper",),
        ),
        *(
            Claim(
                text=f"of noise {noise} the penalty of the nearest ridge is its variance, within a factor of two",
                source=_OF, measure="penalty_ratio", variant=f"noise {noise}, over the noise", least=0.5, most=2.0,
            )
            for noise in _NOISES
        ),
        Claim(
            text="without noise its penalty is below half of the least level of noise",
            source=_OF, measure="best_penalty", variant="noise 0", most=1 / 32,
        ),
        # One penalty for all prompts is on the right side of both halves; its ratio is 1.
        Claim(
            text="of noise that is not told, prompts of much are answered with four times the penalty of others, or more",
            source=_ALSO, measure="penalty_ratio", variant="much over little noise, the network", least=4.0,
        ),
        Claim(
            text="prompts of little noise are answered as its own penalty would, more than as that of much",
            source=_ALSO, measure="way_to_much_noise", variant="little noise, the network", most=0.5,
        ),
        Claim(
            text="prompts of much noise are answered as its own penalty would, more than as that of little",
            source=_ALSO, measure="way_to_much_noise", variant="much noise, the network", least=0.5,
        ),
        Claim(
            text="choosing, it errs less than the best single penalty",
            source=_ALSO, measure="error_ratio", variant="two levels, over the best single ridge", most=1.0,
        ),
    ),
)  # fmt: skip
