"""Is a block of an MLP and linear self-attention a step of descent on features? On sines, von Oswald et al. 2023.

Amplitudes are those of the paper's text (its code draws smaller ones), inputs uniform within 5. The rival's features, its
start and its rate are trained on the prompts that the block is. Inputs have one coordinate, so that the cosine of two
sensitivities is 1 or -1: whether slopes have one sign. Beside it is that of slopes at many queries of a prompt, a vector
along the curve. How alike two rivals are that were trained from different starts is the null.
"""

from functools import partial
from typing import Any

import torch

from kshot.measure.predictors import sensitivities, sensitivity_cosine
from kshot.seeds import torch_stream
from kshot.study.figures import figure
from kshot.study.synth.against_descent import (
    VON_OSWALD,
    alike_rows,
    along_pictures,
    asked_of,
    loss_ratio,
    losses_of,
    trained_on,
    watching,
)
from kshot.study.synth.experiment import Claim, Given, Part, Row
from kshot.study.synth.growing import mean_rows, picture
from kshot.synth.networks.featured import as_step, mlp_and_attention, step_on_features
from kshot.synth.networks.network import Weights
from kshot.synth.oracles import Predictor
from kshot.synth.prompts import Prompts, Source

_SINES = Source(function="sine", width=1, pairs=11, reach=5.0)
# Queries of a prompt between the ends of the inputs, and prompts that are asked all of them.
_QUERIES, _CURVES = 21, 400


def _sine(given: Given) -> dict[str, Any]:
    """A block against a step on features, both trained; along the block's training and at its end."""
    asked = asked_of(given, _SINES)
    step, block = step_on_features(1), mlp_and_attention(1)
    features, others = (
        trained_on(given, step, word, by="features", source=_SINES).weights for word in ("features", "other features")
    )
    rival, other = partial(step.says, features), partial(step.says, others)
    done = trained_on(given, block, "block", source=_SINES, look=watching(block, rival, asked))
    says = partial(block.says, done.weights)
    own, least = losses_of(says, asked), losses_of(rival, asked)
    rows = [
        _identity(given, features),
        mean_rows("loss", ("sines", "block"), own, given.seed),
        mean_rows("loss", ("sines", "step on features"), least, given.seed),
        figure("loss", ("sines", "of saying 0"), value=float(asked.ys[:, -1].square().mean() / 2)),
        loss_ratio(own, least, ("sines", "over a step on features"), given.seed),
        *_alike_on_sines(says, rival, asked, "block", given.seed),
        *_alike_on_sines(other, rival, asked, "another step on features", given.seed),
    ]
    drawn = along_pictures(done, "block", "sines, along training")
    return {"rows": rows, "pictures": [*drawn, _curves(asked, {"block": says, "step on features": rival})]}


def _identity(given: Given, features: Weights) -> Row:
    """Trained features as a block with the weights of the construction, on data that is no sine, in float64."""
    rng = torch_stream(given.seed, "any data of one coordinate")
    xs = torch.randn(64, 11, 1, generator=rng, dtype=torch.float64)
    ys = torch.randn(64, 11, generator=rng, dtype=torch.float64)
    weights = {name: tensor.double() for name, tensor in features.items()}
    said = mlp_and_attention(1, embedding=41).says(as_step(weights), xs, ys)
    apart = (said - step_on_features(1).says(weights, xs, ys)).abs().max()
    return figure("greatest_difference", ("block against step on features",), value=float(apart), n=len(xs))


def _alike_on_sines(says: Predictor, rival: Predictor, asked: Prompts, word: str, seed: int) -> list[Row]:
    variant = ("sines", word, "step on features")
    shown = _at_queries(asked, min(_CURVES, len(asked.xs)))
    one, other = (sensitivities(own, shown.xs, shown.ys)[1].reshape(-1, _QUERIES) for own in (says, rival))
    along = mean_rows("sensitivity_cosine", (*variant, "along the curve"), sensitivity_cosine(one, other), seed)
    return [*alike_rows(says, rival, asked, variant, seed), along]


def _at_queries(asked: Prompts, count: int) -> Prompts:
    """The first prompts, each with every one of the queries in the place of its own."""
    queries = torch.linspace(-5.0, 5.0, _QUERIES).repeat(count)
    xs = asked.xs[:count].repeat_interleave(_QUERIES, dim=0)
    ys = asked.ys[:count].repeat_interleave(_QUERIES, dim=0)
    drawn = {name: tensor[:count].repeat_interleave(_QUERIES) for name, tensor in asked.drawn.items()}
    xs[:, -1, 0] = queries
    return Prompts(xs, ys, _SINES.functions.answer(drawn, xs), drawn)


def _curves(asked: Prompts, says: dict[str, Predictor]) -> dict[str, Any]:
    """What is said of the first prompt at every query, and the sine itself."""
    shown = _at_queries(asked, 1)
    at = shown.xs[:, -1, 0].tolist()
    with torch.no_grad():
        found = {word: own(shown.xs, shown.ys)[:, -1].tolist() for word, own in says.items()}
    lines = {"sine": shown.means[:, -1].tolist(), **found}
    return picture(
        "a sine from ten pairs",
        x="x",
        y="y",
        lines={word: list(zip(at, values, strict=True)) for word, values in lines.items()},
    )


SINE_PARTS = {
    "sine": Part(
        asks="a block of an MLP and a layer on sines, against descent on trained features",
        answer=_sine,
        minutes={"smoke": 0.4, "full": 71.0},
    )
}

SINE_CLAIMS = (
    Claim(
        text="a block with the weights of the construction is a step of descent on the MLP's features",
        source=VON_OSWALD,
        measure="greatest_difference",
        variant="block against step on features",
        most=1e-10,
        at=("smoke", "full", "paper"),
    ),
    Claim(
        text="on sines a trained block does as well as descent on trained features",
        source=VON_OSWALD,
        measure="loss_ratio",
        variant="sines, over a step on features",
        most=1.05,
    ),
    Claim(
        text="on sines it depends on the query as descent on trained features does",
        source=VON_OSWALD,
        measure="sensitivity_cosine",
        variant="sines, block, step on features, along the curve",
        least=0.9,
    ),
)
