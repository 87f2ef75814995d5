"""What the parts of linear-attention-is-gradient-descent share: how much is trained, how predictors are compared.

Losses are half the mean square of the last answer, as in the published code.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kshot.measure.predictors import prediction_distance, sensitivities, sensitivity_cosine, sensitivity_distance
from kshot.study.synth.experiment import Given, Row, Size
from kshot.study.synth.growing import asked_prompts, grown, mean_rows, on_prompts, picture, ratio_row, unseen
from kshot.synth.networks.network import Network, Weights
from kshot.synth.oracles import Predictor
from kshot.synth.prompts import Prompts, Source
from kshot.synth.train import Look, Trained, Training

VON_OSWALD = "von Oswald et al. 2023"
LINEAR = Source(width=10, pairs=11, reach=0.5)
"""Ten coordinates, ten pairs and a query; inputs as far as in the published code."""

# What is looked at along training, and how it is called.
_ALONG = {
    "loss": "loss over that of the best step",
    "sensitivity_cosine": "cosine of sensitivities",
    "prediction_distance": "distance of predictions",
}
# Prompts that are asked at every look.
_AT_A_LOOK = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Much:
    """How much is trained and asked: training by what is trained, prompts that no training has seen, looks, and prompts
    on which rates of descent are tuned; ``rounds`` of ``fresh`` prompts where each step has a rate of its own."""

    training: Mapping[str, Training]
    asked: int
    looks: int
    searched: int = 2_000
    rounds: int = 4_000
    fresh: int = 1_024


def _adam(steps: int, batch: int, learning_rate: float, clip: float | None, schedule: str = "constant") -> Training:
    return Training(
        steps=steps, batch=batch, learning_rate=learning_rate, clip=clip, schedule=schedule, betas=(0.9, 0.98)
    )


TRAINED: Mapping[Size, Much] = {
    "smoke": Much(
        training={
            "one layer": _adam(800, 512, 1e-2, 1.0, "cosine"),
            "2 layers": _adam(2_000, 512, 3e-3, 1.0, "cosine"),
            "5 layers": _adam(700, 512, 3e-3, 1.0, "cosine"),
            "block": _adam(1_000, 128, 3e-3, 1.0, "cosine"),
            "features": _adam(1_000, 128, 3e-3, 1.0, "cosine"),
            "separate tokens": _adam(900, 256, 5e-3, 1.0, "cosine"),
            "one pass": _adam(600, 512, 1e-2, 1.0, "cosine"),
            "two passes": _adam(800, 256, 5e-3, 1.0, "cosine"),
        },
        asked=2_000,
        looks=8,
        searched=500,
        rounds=400,
        fresh=256,
    ),
    # As published, but for fewer steps of more layers, and a block whose rate falls: at a constant one its loss was still
    # falling after the published steps. Layers with momentum are ours: at the published rate and with its clipping those
    # begun at a decay of a half stay far from where a greater rate brings them in a tenth of the steps.
    "full": Much(
        training={
            "one layer": _adam(5_000, 2_048, 1e-3, 1e-3),
            "2 layers": _adam(20_000, 2_048, 1e-3, 1e-3),
            "5 layers": _adam(20_000, 2_048, 5e-4, 10.0),
            "block": _adam(20_000, 2_048, 3e-3, 1.0, "cosine"),
            "features": _adam(20_000, 2_048, 3e-4, 100.0),
            "separate tokens": _adam(10_000, 2_048, 1e-3, 1e-3),
            "one pass": _adam(3_000, 2_048, 1e-2, 1.0, "cosine"),
            "two passes": _adam(4_000, 2_048, 5e-3, 1.0, "cosine"),
        },
        asked=10_000,
        looks=20,
    ),
    "paper": Much(
        training={
            "one layer": _adam(5_000, 2_048, 1e-3, 1e-3),
            "2 layers": _adam(50_000, 2_048, 1e-3, 1e-3),
            "5 layers": _adam(50_000, 2_048, 5e-4, 10.0),
            "block": _adam(20_000, 2_048, 1e-3, 100.0),
            "features": _adam(20_000, 2_048, 3e-4, 100.0),
            "separate tokens": _adam(10_000, 2_048, 1e-3, 1e-3),
            "one pass": _adam(5_000, 2_048, 1e-2, 1.0, "cosine"),
            "two passes": _adam(20_000, 2_048, 5e-3, 1.0, "cosine"),
        },
        asked=10_000,
        looks=20,
    ),
}


def much(given: Given) -> Much:
    """What the size allows."""
    return TRAINED[given.size]


def asked_of(given: Given, source: Source = LINEAR) -> Prompts:
    """The prompts that everything is asked."""
    return asked_prompts(given, source, much(given).asked)


def searched_of(given: Given) -> Prompts:
    """Prompts on which rates are tuned: neither trained on nor asked."""
    return LINEAR.batch(unseen(given, "searched"), 0, much(given).searched)


def fresh_of(given: Given) -> Callable[[int], Prompts]:
    """The same, new ones in every round."""
    return lambda number: LINEAR.batch(unseen(given, "fresh"), number, much(given).fresh)


def trained_on(
    given: Given,
    network: Network,
    word: str,
    *,
    by: str | None = None,
    source: Source = LINEAR,
    look: Look | None = None,
) -> Trained:
    """The network, its weights on the CPU, after training on prompts of the seed; ``by`` says how much, else ``word``."""
    training = much(given).training[by or word]
    squares = on_prompts(given, network, source, training)

    def half(weights: Weights, step: int) -> Tensor:
        return squares(weights, step) / 2

    def here(step: int, weights: Weights) -> Mapping[str, float]:
        assert look is not None, "it is asked where there is one"
        return look(step, _on_the_cpu(weights))

    seen = None if look is None else here
    done = grown(given, word, network, half, training, looks=much(given).looks, look=seen)
    return replace(done, weights=_on_the_cpu(done.weights))


def _on_the_cpu(weights: Weights) -> dict[str, Tensor]:
    return {name: tensor.cpu() for name, tensor in weights.items()}


def losses_of(says: Predictor, asked: Prompts) -> np.ndarray:
    """Half the square of what is said of the last answer less that answer, prompt by prompt; (b,) in float64."""
    with torch.no_grad():
        return ((says(asked.xs, asked.ys)[:, -1] - asked.ys[:, -1]).double().square() / 2).numpy()


def loss_of(says: Predictor, asked: Prompts) -> float:
    """Their mean."""
    return float(losses_of(says, asked).mean())


def loss_ratio(own: np.ndarray, rival: np.ndarray, variant: tuple[str, ...], seed: int) -> Row:
    """A row of the loss over a rival's on the same prompts, from ``losses_of`` both."""
    return ratio_row("loss_ratio", variant, own, rival, seed, null=1.0)


def alike(says: Predictor, rival: Predictor, asked: Prompts) -> dict[str, np.ndarray]:
    """Every measure of likeness by its name, prompt by prompt."""
    (one, slope), (other, against) = (sensitivities(own, asked.xs, asked.ys) for own in (says, rival))
    return {
        "prediction_distance": prediction_distance(one, other),
        "sensitivity_cosine": sensitivity_cosine(slope, against),
        "sensitivity_distance": sensitivity_distance(slope, against),
    }


def alike_rows(says: Predictor, rival: Predictor, asked: Prompts, variant: tuple[str, ...], seed: int) -> list[Row]:
    """A row of each measure of likeness: its mean over prompts."""
    found = alike(says, rival, asked)
    return [mean_rows(measure, variant, values, seed) for measure, values in found.items()]


def watching(network: Network, rival: Predictor, asked: Prompts) -> Look:
    """A look at how a network does against a rival."""
    least = loss_of(rival, asked)
    few = Prompts(asked.xs[:_AT_A_LOOK], asked.ys[:_AT_A_LOOK], asked.means[:_AT_A_LOOK], {})

    def look(step: int, weights: Weights) -> dict[str, float]:
        says = partial(network.says, weights)
        found = alike(says, rival, few)
        likeness = {name: float(np.nanmean(found[name])) for name in ("sensitivity_cosine", "prediction_distance")}
        return {"loss": loss_of(says, asked) / least, **likeness}

    return look


def along_pictures(done: Trained, word: str, when: str = "along training") -> list[dict[str, Any]]:
    """What ``watching`` has seen, as pictures with a line called ``word``."""
    return [
        picture(f"{said}, {when}", x="steps of training", y=said, lines={word: done.along(name)}, log_x=True)
        for name, said in _ALONG.items()
    ]
