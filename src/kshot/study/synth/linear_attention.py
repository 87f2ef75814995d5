"""Is a trained layer of linear self-attention a step of gradient descent? (von Oswald et al. 2023)

Ten coordinates, ten pairs, functions w ~ N(0, I) without noise, inputs uniform within 0.5, as in the published code (its
paper's text says 1). Losses are half the mean square of the last answer, as there.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from kshot.measure import dual
from kshot.measure.predictors import prediction_distance, sensitivities, sensitivity_cosine, sensitivity_distance
from kshot.seeds import torch_stream
from kshot.study.figures import figure
from kshot.study.synth.experiment import Claim, Experiment, Given, Part, Row, Size
from kshot.study.synth.growing import Look, asked_prompts, grown, mean_rows, on_prompts, picture, unseen
from kshot.synth.networks.linear_attention import as_descent, halfway, linear_attention
from kshot.synth.networks.network import Network, Weights
from kshot.synth.optima import Tuned, one_step, tuned
from kshot.synth.oracles import Predictor, descended
from kshot.synth.prompts import Prompts, Source
from kshot.synth.train import Training

_SOURCE = Source(width=10, pairs=11, reach=0.5)
_OF = "von Oswald et al. 2023"


# What is looked at along training, and how it is called.
_ALONG = {
    "loss": "loss over that of the best step",
    "sensitivity_cosine": "cosine of sensitivities",
    "prediction_distance": "distance of predictions",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Much:
    """How much is trained and asked: training by the number of layers, prompts that no training has seen, and looks."""

    training: Mapping[int, Training]
    asked: int
    looks: int


def _adam(steps: int, batch: int, learning_rate: float, clip: float, schedule: str = "constant") -> Training:
    return Training(
        steps=steps, batch=batch, learning_rate=learning_rate, clip=clip, schedule=schedule, betas=(0.9, 0.98)
    )


_MUCH: Mapping[Size, _Much] = {
    "smoke": _Much(
        training={
            1: _adam(800, 512, 1e-2, 1.0, "cosine"),
            2: _adam(2_000, 512, 3e-3, 1.0, "cosine"),
            5: _adam(1_000, 512, 3e-3, 1.0, "cosine"),
        },
        asked=2_000,
        looks=8,
    ),
    # As published, but for fewer steps of more layers.
    "full": _Much(
        training={
            1: _adam(5_000, 2_048, 1e-3, 1e-3),
            2: _adam(20_000, 2_048, 1e-3, 1e-3),
            5: _adam(20_000, 2_048, 5e-4, 10.0),
        },
        asked=10_000,
        looks=20,
    ),
    "paper": _Much(
        training={
            1: _adam(5_000, 2_048, 1e-3, 1e-3),
            2: _adam(50_000, 2_048, 1e-3, 1e-3),
            5: _adam(50_000, 2_048, 5e-4, 10.0),
        },
        asked=10_000,
        looks=20,
    ),
}


def _construction(given: Given) -> dict[str, Any]:
    """Both identities, on data that no linear function gives, in float64."""
    rng = torch_stream(given.seed, "any data")
    xs = torch.randn(64, 11, 10, generator=rng, dtype=torch.float64)
    ys = torch.randn(64, 11, generator=rng, dtype=torch.float64)
    rows = []
    for steps, shrink, word in ((1, 0.0, "1 step"), (5, 0.0, "5 steps"), (3, 0.1, "3 steps of GD++")):
        weights = as_descent(10, 10, 0.3, steps=steps, shrink=shrink)
        said = linear_attention(10, layers=steps).says(weights, xs, ys)[:, 0]
        apart = (said - descended(0.3, steps, shrink=shrink)(xs, ys)[:, -1]).abs().max()
        rows.append(figure("greatest_difference", ("attention against descent", word), value=float(apart), n=64))
    inputs, targets, query = (
        torch.randn(*shape, generator=rng, dtype=torch.float64) for shape in ((20, 10), (20, 3), (7, 10))
    )
    start = torch.zeros(3, 10, dtype=torch.float64)
    course = dual.descent(start, inputs, targets, learning_rate=0.01, steps=9, momentum=0.9)
    said = dual.as_attention(start, course.signals, inputs, query, 0.9)
    apart = (said - query @ course.weights[-1].T).abs().max()
    rows.append(
        figure("greatest_difference", ("attention with a decayed sum against momentum",), value=float(apart), n=7)
    )
    return {"rows": rows}


def _optima(given: Given) -> dict[str, Any]:
    """The best rate of one step and its loss, by algebra and by search, for the text's inputs and for the code's."""
    rows = []
    for reach, word in ((1.0, "the text's inputs"), (0.5, "the code's inputs")):
        best = one_step(10, 10, reach)
        searched = tuned(_prompts(replace(_SOURCE, reach=reach), given), 1, best.rate)
        rows += [
            figure("best_rate", (word, "algebra"), value=best.rate),
            figure("best_rate", (word, "searched"), value=searched.rate),
            figure("loss", (word, "one step, algebra"), value=best.loss),
            figure("loss", (word, "one step, searched"), value=searched.loss),
            figure("loss", (word, "of saying 0"), value=best.of_nothing),
        ]
    return {"rows": rows}


def _prompts(source: Source, given: Given) -> Prompts:
    return asked_prompts(given, source, _MUCH[given.size].asked)


def _trained(given: Given, network: Network, training: Training, word: str, look: Look | None = None) -> Weights:
    """The network's weights after training on prompts of the seed, on half the mean square as published."""
    squares = on_prompts(given, network, _SOURCE, training)
    looks = _MUCH[given.size].looks
    return grown(
        given, word, network, lambda weights, step: squares(weights, step) / 2, training, looks=looks, look=look
    )


def _loss(says: Predictor, asked: Prompts) -> float:
    with torch.no_grad():
        return float((says(asked.xs, asked.ys)[:, -1] - asked.ys[:, -1]).square().mean() / 2)


def _alike(says: Predictor, rival: Predictor, asked: Prompts) -> dict[str, np.ndarray]:
    """Every measure of likeness, prompt by prompt."""
    (one, slope), (other, against) = (sensitivities(own, asked.xs, asked.ys) for own in (says, rival))
    return {
        "prediction_distance": prediction_distance(one, other),
        "sensitivity_cosine": sensitivity_cosine(slope, against),
        "sensitivity_distance": sensitivity_distance(slope, against),
    }


def _rows(found: Mapping[str, np.ndarray], variant: tuple[str, ...], seed: int) -> list[Row]:
    return [mean_rows(measure, variant, values, seed) for measure, values in found.items()]


def _one_layer(given: Given) -> dict[str, Any]:
    """A layer against the best step, along training and at its end, and halfway between the two."""
    network, asked = linear_attention(10), _prompts(_SOURCE, given)
    best = one_step(10, 10, 0.5)
    rival = descended(best.rate, 1)
    least = _loss(rival, asked)
    few = Prompts(asked.xs[:1000], asked.ys[:1000], asked.means[:1000], {})
    along: dict[str, list[tuple[float, float]]] = {name: [] for name in _ALONG}

    def look(step: int, weights: Weights) -> None:
        says = partial(network.says, weights)
        along["loss"].append((step, _loss(says, asked) / least))
        alike = _alike(says, rival, few)
        for name in ("sensitivity_cosine", "prediction_distance"):
            along[name].append((step, float(np.nanmean(alike[name]))))

    weights = _trained(given, network, _MUCH[given.size].training[1], "one layer", look)
    says = partial(network.says, weights)
    own = _loss(says, asked)
    between = _loss(partial(network.says, halfway(weights, as_descent(10, 10, best.rate))), asked)
    rows = [
        figure("loss", ("one layer",), value=own, null=least),
        figure("loss_apart", ("one layer",), value=abs(own / least - 1), null=0.0),
        figure("loss_over", ("halfway to descent",), value=between / max(own, least) - 1, null=0.0),
        *_rows(_alike(says, rival, asked), ("one layer",), given.seed),
    ]
    drawn = [
        picture(f"{said}, along training", x="steps of training", y=said, lines={"one layer": along[name]}, log_x=True)
        for name, said in _ALONG.items()
    ]
    return {"rows": rows, "pictures": drawn}


def _layers(layers: int, shared: bool, given: Given) -> dict[str, Any]:
    """More layers against as many tuned steps of descent and of GD++."""
    asked, much = _prompts(_SOURCE, given), _MUCH[given.size]
    word = f"{layers} layers"
    network = linear_attention(10, layers=layers, shared=shared, bound=10.0 if layers > 2 else None)
    says = partial(network.says, _trained(given, network, much.training[layers], word))
    searched = _SOURCE.batch(unseen(given, "searched"), 0, min(2_000, much.asked))
    rate = one_step(10, 10, 0.5).rate
    rivals: dict[str, Tuned] = {
        "gradient descent": tuned(searched, layers, rate / layers),
        "GD++": tuned(searched, layers, rate / layers, shrink=True),
        "momentum": tuned(searched, layers, rate / layers, momentum=True),
    }
    rows = [figure("loss", (word,), value=_loss(says, asked))]
    for name, rival in rivals.items():
        least = _loss(rival.predictor, asked)
        rows += [
            figure("loss", (word, name), value=least),
            figure("loss_ratio", (word, f"over {name}"), value=rows[0]["value"] / least, null=1.0),
            figure("best_rate", (word, name), value=rival.rate),
            *_rows(_alike(says, rival.predictor, asked), (word, name), given.seed),
        ]
    return {"rows": rows}


LINEAR_ATTENTION = Experiment(
    about="a trained layer of linear self-attention against a step of gradient descent",
    source=_OF,
    parts={
        "construction": Part(asks="weights with which attention is gradient descent", answer=_construction),
        "optima": Part(asks="what one step can reach, by algebra and by search", answer=_optima),
        "one-layer": Part(asks="one layer against one step, along training", answer=_one_layer),
        "two-layers": Part(asks="two layers against two steps", answer=partial(_layers, 2, True)),
        "five-layers": Part(asks="five layers against five steps", answer=partial(_layers, 5, False)),
    },
    claims=(
        *(
            Claim(
                text=f"attention with the weights of the construction is gradient descent, {word}",
                source=f"{_OF}, proposition 1",
                measure="greatest_difference",
                variant=f"attention against descent, {word}",
                most=1e-10,
                at=("smoke", "full", "paper"),
            )
            for word in ("1 step", "5 steps", "3 steps of GD++")
        ),
        Claim(
            text="descent with momentum is attention and a decayed sum of values",
            source="Dai et al. 2023, section 5",
            measure="greatest_difference",
            variant="attention with a decayed sum against momentum",
            most=1e-10,
            at=("smoke", "full", "paper"),
        ),
        Claim(
            text="a trained layer reaches the loss of the best step",
            source=_OF,
            measure="loss_apart",
            variant="one layer",
            most=0.01,
        ),
        Claim(
            text="it depends on the query as the best step does",
            source=_OF,
            measure="sensitivity_cosine",
            variant="one layer",
            least=0.99,
        ),
        Claim(
            text="weights halfway between both are no worse than the worse of them",
            source=_OF,
            measure="loss_over",
            variant="halfway to descent",
            most=0.0,
        ),
        Claim(
            text="two layers do better than two steps of gradient descent",
            source=_OF,
            measure="loss_ratio",
            variant="2 layers, over gradient descent",
            most=1.0,
        ),
        Claim(
            text="two layers are like GD++",
            source=_OF,
            measure="sensitivity_cosine",
            variant="2 layers, GD++",
            least=0.99,
        ),
        Claim(
            text="five layers do better than five steps of gradient descent",
            source=_OF,
            measure="loss_ratio",
            variant="5 layers, over gradient descent",
            most=1.0,
        ),
    ),
)
