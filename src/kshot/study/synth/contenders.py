"""Networks that are compared: as wide as makes their parameters equal, trained alike, and judged alike."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from math import comb

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from kshot.study.figures import figure
from kshot.study.synth.experiment import Given, Row
from kshot.study.synth.growing import errors, grown, on_prompts
from kshot.synth.networks import NETWORKS, matched
from kshot.synth.networks.mixing import Shape
from kshot.synth.networks.network import Network, Weights, parameters
from kshot.synth.oracles import bayes_over_pool, least_squares, nearest, on_features
from kshot.synth.prompts import Prompts, Source
from kshot.synth.regressors import LASSO_PENALTY, lasso
from kshot.synth.train import Curriculum, Training

# Layers for one of the Transformer's, which has attention and an MLP in each: as published 24 of Mamba for its 12.
DEEP = "deep transformer"
_DEPTH: Mapping[str, int] = {"mamba": 2, "mambaformer": 2, "s4d": 2, DEEP: 2}
_WITH_HEADS = ("linear-transformer", "mambaformer", DEEP)
# Deeper ones train badly, whatever the Transformer's depth.
_LSTM_LAYERS = 2
# Answers of a subset that was never wrong and of one that was once differ by a factor of e^20.
_HARDLY_NOISY = 0.1
NOTHING = "nothing shown"
Values = Float[np.ndarray, "b n"]
COMPARED = ("transformer", "mamba", "mambaformer", "lstm", "s4d")
# What a part compares where it is not these.
_OTHERS = {"depth": ("transformer", DEEP, "mamba")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What a part trains on, how long, and the shape of the Transformer whose parameters all have."""

    source: Source
    shape: Shape
    training: Training
    curriculum: Curriculum | None = None


def compared_in(part: str) -> tuple[str, ...]:
    """The networks of a part, the Transformer first."""
    return _OTHERS.get(part, COMPARED)


def _target(source: Source, shape: Shape) -> int:
    made = NETWORKS["transformer"].make(source.width, source.pairs, shape)
    return parameters(made.start(Generator()))


def equal_network(name: str, source: Source, shape: Shape) -> Network:
    """A network as wide as makes its parameters those of a Transformer of this shape, to 2 per cent. Raises KshotError.

    Its depth is its own: twice the Transformer's of state spaces and of a ``deep transformer``, two layers of an LSTM.
    """
    kind, width, pairs = NETWORKS["transformer" if name == DEEP else name], source.width, source.pairs
    if name == "transformer":
        return kind.make(width, pairs, shape)
    layers = _LSTM_LAYERS if name == "lstm" else _DEPTH.get(name, 1) * shape.layers
    # Without attention heads are nothing but a coarser step of the width.
    own = replace(shape, layers=layers, heads=shape.heads if name in _WITH_HEADS else 1)
    return kind.make(width, pairs, matched(kind, width, pairs, own, _target(source, shape)))


def weights_of(given: Given, part: str, name: str, network: Network, task: Task) -> Weights:
    """What a network of a part has after its training."""
    loss = on_prompts(given, network, task.source, task.training, curriculum=task.curriculum)
    return grown(given, f"{part} {name}", network, loss, task.training).weights


def counted(part: str, networks: Mapping[str, Network], task: Task) -> list[Row]:
    """Parameters of every network, and the most that one of them has more or fewer than the Transformer, as a share."""
    counts = {name: parameters(network.start(Generator())) for name, network in networks.items()}
    target = _target(task.source, task.shape)
    apart = max(abs(count / target - 1) for count in counts.values())
    return [
        *(
            figure("parameters", (part, name), value=float(count), null=float(target))
            for name, count in counts.items()
        ),
        figure("parameters_apart", (part,), value=apart, null=0.0),
    ]  # fmt: skip


def _errors(said: Tensor, asked: Prompts, source: Source) -> dict[str, Values]:
    """In units of the class, against what is not noisy."""
    return {"": errors(said, asked.means, source.functions.unit(source.width))}


def _signs(said: Tensor, asked: Prompts, source: Source) -> dict[str, Values]:
    return {"": ((said > 0) == (asked.means > 0)).double().numpy()}


def _recalled(said: Tensor, asked: Prompts, source: Source) -> dict[str, Values]:
    own, shown = errors(said, asked.means), seen_before(asked.xs).numpy()
    return {"shown before": np.where(shown, own, np.nan), "never shown": np.where(shown, np.nan, own)}


def seen_before(xs: Float[Tensor, "b n d"]) -> Bool[Tensor, "b n"]:
    """Whether an input equals one before it in its prompt."""
    same = (xs[:, :, None] == xs[:, None]).all(dim=-1)
    return same.tril(-1).any(dim=-1)


def every_parity(xs: Float[Tensor, "b n d"], size: int) -> Float[Tensor, "b n m"]:
    """The products of all m subsets of so many coordinates."""
    return xs[..., torch.combinations(torch.arange(xs.shape[-1]), size)].prod(dim=-1)


def every_subset(xs: Float[Tensor, "b n d"], ys: Float[Tensor, "b n"], size: int) -> Float[Tensor, "b n"]:
    """The mean parity over subsets of so many coordinates that fit all pairs before: no rule has more signs right."""
    # Parities are linear in products of coordinates, and a subset chooses one of these.
    subsets = torch.eye(comb(xs.shape[-1], size))
    return on_features(bayes_over_pool(subsets, _HARDLY_NOISY), partial(every_parity, size=size))(xs, ys)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """How answers of a part are judged place by place, NaN where that is not asked.

    ``late`` counts the last quarter of the places; ``rivals`` are held against the truth beside the networks, and among
    them ``NOTHING`` is who knows the class and nothing of the prompt; else saying 0 is, whose error is ``chance``.
    """

    score: Callable[[Tensor, Prompts, Source], dict[str, Values]]
    measure: str = "error"
    word: str = "squared error"
    chance: float = 1.0
    late: bool = True
    rivals: Mapping[str, Callable[[Prompts], Tensor]] = field(default_factory=dict)


def _subset(asked: Prompts) -> int:
    return asked.drawn["subset"].shape[1]


def _least_squares(asked: Prompts) -> Tensor:
    return least_squares(asked.xs.double(), asked.ys.double())


def _nearest(asked: Prompts) -> Tensor:
    return nearest(3)(asked.xs.double(), asked.ys.double())


def _lasso(asked: Prompts) -> Tensor:
    return lasso(LASSO_PENALTY, range(asked.xs.shape[1]))(asked.xs.double(), asked.ys.double())


_REGRESSION = Judged(score=_errors, word="squared error / d", rivals={"least squares": _least_squares})

JUDGED: Mapping[str, Judged] = {
    "regression": _REGRESSION,
    "depth": _REGRESSION,
    "sparse": Judged(
        score=_errors,
        word="squared error / 3",
        rivals={"least squares": _least_squares, "lasso": _lasso},
    ),
    "hidden-layer": Judged(
        score=_errors,
        word="squared error / d",
        rivals={"least squares": _least_squares, "3 nearest": _nearest},
    ),
    "trees": Judged(score=_errors, rivals={"3 nearest": _nearest}),
    "parity": Judged(
        score=_signs,
        measure="accuracy",
        word="share of right signs",
        rivals={
            "every subset": lambda asked: every_subset(asked.xs.double(), asked.ys.double(), _subset(asked)),
            NOTHING: lambda asked: every_parity(asked.xs.double(), _subset(asked)).mean(dim=-1),
        },
    ),
    "recall": Judged(score=_recalled, late=False),
}
