"""What is trained on classes of functions: prompts, shapes and steps of every size, and the numbers of examples told."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from kshot.study.synth.contenders import Task, equal_network
from kshot.study.synth.experiment import Given, Size
from kshot.study.synth.growing import grown, on_prompts, predictor
from kshot.synth.functions import FEATURES
from kshot.synth.networks.layers import SIZES
from kshot.synth.networks.mixing import Shape
from kshot.synth.networks.network import Network
from kshot.synth.oracles import Predictor
from kshot.synth.prompts import Source
from kshot.synth.train import Curriculum, Training

# Variance of the noise of linear functions, where there is any.
NOISE = 0.25
# That of functions of features, whose own is about 8.
NOISE_OF_FEATURES = 1.0
# Numbers of examples at which errors are told, in coordinates.
AROUND = {"k = d/2": 0.5, "k = d": 1.0, "k = 2d": 2.0}
SPARSE = {"k = d/4": 0.25, "k = d/2": 0.5, "k = d": 1.0, "k = 2d": 2.0}
MANY = {"k = d": 1.0, "k = 2d": 2.0, "k = 4d": 4.0}
BEYOND = {"k = d": 1.0, "k = 5d/2": 2.5, "k = 5d": 5.0}


def counts_at(source: Source, factors: Mapping[str, float]) -> dict[str, int]:
    """Numbers of examples by name, from numbers of times as many as coordinates."""
    return {name: int(factor * source.width) for name, factor in factors.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Much:
    """Tasks by part, networks compared, prompts asked, how many of rivals that are fitted, steps of the small network."""

    learners: Mapping[str, Task]
    networks: tuple[str, ...]
    asked: int = 1280
    fitted: int = 1280
    descent: int = 5000


def _source(width: int, function: str = "linear", *, times: int = 2, noise: float = 0.0) -> Source:
    """Prompts of up to ``times`` as many examples as coordinates, and a query."""
    return Source(function=function, width=width, pairs=times * width + 1, noise=noise)


def _features(width: int) -> Source:
    """Of up to twice as many examples as features."""
    return Source(function="random-features", width=width, pairs=2 * FEATURES + 1, noise=NOISE_OF_FEATURES)


_SMALL, _TINY = Shape(layers=2, heads=2, width=32, spread=None), replace(SIZES["tiny"], spread=None)


def _learner(source: Source, shape: Shape, steps: int, rate: float, batch: int = 64, rise: int = 5) -> Task:
    """The rate rises over so many per cent of the steps and falls by a cosine; matrices begin at 1 / sqrt(width)."""
    warmup = steps * rise // 100
    training = Training(steps=steps, batch=batch, learning_rate=rate, schedule="cosine", warmup=warmup, clip=1.0)
    return Task(source=source, shape=shape, training=training)


def _published(source: Source, pairs: int = 11, pairs_by: int = 2) -> Task:
    return Task(
        source=source,
        shape=SIZES["standard"],
        training=Training(steps=500_000, batch=64, learning_rate=1e-4),
        curriculum=Curriculum(coordinates=5, pairs=pairs, pairs_by=pairs_by, every=2000),
    )


MUCH: Mapping[Size, Much] = {
    "smoke": Much(
        learners={
            "linear": _learner(_source(3), _SMALL, 4000, 2e-3, 32),
            "noisy": _learner(_source(3, noise=NOISE), _SMALL, 3000, 2e-3, 32),
            "logistic": _learner(_source(3, "logistic", times=4), _SMALL, 700, 2e-3, 32),
            "features": _learner(_features(3), _SMALL, 300, 2e-3, 32),
            "sparse": _learner(_source(5, "sparse-linear"), _SMALL, 1400, 2e-3, 32),
            "network": _learner(_source(3, "relu-network", times=5), _SMALL, 1000, 2e-3, 32),
            "tree": _learner(_source(3, "decision-tree", times=5), _SMALL, 1000, 2e-3, 32),
            "networks": _learner(_source(3), _SMALL, 1200, 2e-3, 32),
        },
        networks=("transformer", "linear-transformer", "lstm", "mlp"),
        asked=256,
        fitted=48,
        descent=300,
    ),
    "full": Much(
        learners={
            "linear": _learner(_source(5), replace(_TINY, layers=8), 20_000, 2e-3, rise=30),
            "noisy": _learner(_source(5, noise=NOISE), replace(_TINY, layers=4), 12_000, 2e-3, rise=30),
            "logistic": _learner(_source(5, "logistic", times=4), replace(_TINY, layers=4), 12_000, 2e-3, rise=30),
            "features": _learner(_features(5), replace(_TINY, layers=4), 12_000, 2e-3, rise=30),
            "sparse": _learner(_source(10, "sparse-linear"), replace(_TINY, layers=4), 20_000, 2e-3, rise=30),
            "network": _learner(_source(5, "relu-network", times=5), replace(_TINY, layers=4), 12_000, 2e-3, rise=30),
            "tree": _learner(_source(5, "decision-tree", times=5), replace(_TINY, layers=4), 12_000, 2e-3, rise=30),
            "networks": _learner(_source(5), replace(_TINY, layers=3), 10_000, 2e-3, rise=30),
        },
        networks=("transformer", "linear-transformer", "lstm", "mamba", "mlp"),
    ),
    "paper": Much(
        learners={
            "linear": _published(_source(20)),
            "noisy": _published(_source(20, noise=NOISE)),
            "logistic": _published(_source(20, "logistic", times=4), 21, 4),
            "features": _published(_features(20), 11, 2),
            "sparse": _published(_source(20, "sparse-linear")),
            "network": _published(_source(20, "relu-network", times=5), 26, 5),
            "tree": _published(_source(20, "decision-tree", times=5), 26, 5),
            "networks": _published(_source(20)),
        },
        networks=("transformer", "linear-transformer", "lstm", "mamba", "s4d", "mambaformer", "mlp"),
    ),
}


def learned(given: Given, part: str) -> Predictor:
    """The transformer of a part, after its training."""
    own = MUCH[given.size].learners[part]
    return trained_to_say(given, part, own, equal_network("transformer", own.source, own.shape))


def trained_to_say(given: Given, word: str, own: Task, network: Network, *, others: Sequence[Source] = ()) -> Predictor:
    """A network as a rival is, after its training on what a part trains on, and on others as much; ``word`` names it."""
    loss = on_prompts(given, network, own.source, own.training, curriculum=own.curriculum, others=others)
    return predictor(network, grown(given, word, network, loss, own.training).weights)
