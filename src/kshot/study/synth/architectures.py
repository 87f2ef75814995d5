"""Which network learns what in context? Transformers, state spaces and LSTMs at equal parameters (Park et al. 2024).

Fewer coordinates, pairs, layers and steps than published except at ``paper``; keys of recall come again in place of a
last query, and S4D stands for the S4 of Grazzi et al. 2024. One learning rate for all networks of a part. What lies
beyond the trained length is asked with noise, where ridge says what more pairs are worth; nothing published is bound.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float

from kshot.errors import KshotError
from kshot.study.figures import figure
from kshot.study.synth.architecture_sizes import MUCH
from kshot.study.synth.contenders import (
    DEEP,
    JUDGED,
    NOTHING,
    Task,
    Values,
    compared_in,
    counted,
    equal_network,
    weights_of,
)
from kshot.study.synth.experiment import Claim, Experiment, Given, Part, Row
from kshot.study.synth.growing import answers, asked_prompts, errors, line, mean_rows, picture, ratio_row
from kshot.synth.networks.layers import Design, Positions
from kshot.synth.networks.network import Network
from kshot.synth.networks.transformer import transformer
from kshot.synth.oracles import ridge

_OF, _ALSO, _US = "Park et al. 2024", "Grazzi et al. 2024", "this project"

_POSITIONS: tuple[Positions, ...] = ("learned", "sinusoidal", "rotary", "none")


def _compared(part: str, given: Given) -> dict[str, Any]:
    """Every network on one class of functions: how it does at the end of prompts, and against one another."""
    much, judged = MUCH[given.size], JUDGED[part]
    task = much.tasks[part]
    asked = asked_prompts(given, task.source, much.asked)
    networks = {name: equal_network(name, task.source, task.shape) for name in compared_in(part)}
    said = {
        name: answers(network, weights_of(given, part, name, network, task), asked.xs, asked.ys)
        for name, network in networks.items()
    }
    said |= {name: rival(asked) for name, rival in judged.rivals.items()}
    scores = {name: judged.score(own, asked, task.source) for name, own in said.items()}
    first = task.source.pairs - max(1, task.source.pairs // 4) if judged.late else 0
    rows = counted(part, networks, task)
    for kind in scores["transformer"]:
        word = (part, kind) if kind else (part,)
        means = {name: _known_mean(own[kind][:, first:]) for name, own in scores.items()}
        # Which places count hangs on the prompts, so it is the same prompts for all.
        means = {name: own[np.isfinite(own)] for name, own in means.items()}
        null = float(means[NOTHING].mean()) if NOTHING in means else judged.chance
        rows += [mean_rows(judged.measure, (*word, name), own, given.seed, null=null) for name, own in means.items()]
        rows += _against(word, {name: means[name] for name in networks}, means.get(NOTHING), given.seed)
    first_kind = next(iter(scores["transformer"]))
    lines = {name: line(_known_mean(own[first_kind].T)[None]) for name, own in scores.items()}
    title = ", ".join([part, *[first_kind] * bool(first_kind), "by the pairs shown"])
    return {"rows": rows, "pictures": [picture(title, x="pairs shown", y=judged.word, lines=lines)]}


def _known_mean(values: Float[np.ndarray, "b n"]) -> Float[np.ndarray, "b"]:
    """Of every row what is no NaN; NaN where all is."""
    known = np.isfinite(values)
    total = np.where(known, values, 0.0).sum(axis=1)
    return np.divide(total, known.sum(axis=1), out=np.full(len(values), np.nan), where=known.any(axis=1))


def _against(
    word: tuple[str, ...], means: Mapping[str, Float[np.ndarray, "b"]], silent: Float[np.ndarray, "b"] | None, seed: int
) -> list[Row]:
    """Networks against the Transformer, state spaces against one another or the deeper Transformer, and the hybrid against
    the best of the others; where signs are counted networks against the Transformer, and against who is shown nothing."""
    first, *rest = means
    if silent is not None:
        pairs = [(name, first, means[first]) for name in rest] + [(name, NOTHING, silent) for name in means]
        return [
            mean_rows("accuracy_gain", (*word, f"{one} over {other}"), means[one] - under, seed, null=0.0)
            for one, other, under in pairs
        ]
    named = [(name, first, first) for name in rest]
    named += [("mamba", other, other) for other in ("s4d", DEEP) if other in means]
    if "mambaformer" in means:
        best = min((name for name in means if name != "mambaformer"), key=lambda name: float(means[name].mean()))
        named.append(("mambaformer", best, "the best other"))
    return [
        ratio_row("error_ratio", (*word, f"{one} over {said}"), means[one], means[other], seed, null=1.0)
        for one, other, said in named
    ]


def positioned(task: Task) -> dict[str, Network]:
    """The Transformer by what tells it where a token stands, and Mamba, whose state does."""
    source = task.source
    made: dict[str, Network] = {
        kind: transformer(source.width, source.pairs, task.shape, Design(positions=kind)) for kind in _POSITIONS
    }
    return {**made, "mamba": equal_network("mamba", task.source, task.shape)}


def _beyond(given: Given) -> dict[str, Any]:
    """Networks trained on up to n pairs with noise and asked on up to 3 n, by what tells them where a token stands."""
    much = MUCH[given.size]
    task = much.tasks["beyond"]
    n = task.source.pairs - 1
    asked = asked_prompts(given, replace(task.source, pairs=3 * n + 1), much.asked)
    unit = task.source.functions.unit(task.source.width)
    ideal = errors(ridge(task.source.noise)(asked.xs.double(), asked.ys.double()), asked.means, unit)
    networks = positioned(task)
    rows, lines = counted("beyond", networks, task), {"ridge": line(ideal)}
    for name, network in networks.items():
        weights = weights_of(given, "beyond", name, network, task)
        reason = None
        try:
            said = answers(network, weights, asked.xs, asked.ys)
        except KshotError as error:
            reason = str(error)
            said = answers(network, weights, asked.xs[:, : n + 1], asked.ys[:, : n + 1])
        own = errors(said, asked.means[:, : said.shape[1]], unit)
        rows += _beyond_rows(name, own, ideal, n, given.seed, reason)
        lines[name] = line(own)
    drawn = picture(f"trained on up to {n} pairs", x="pairs shown", y="squared error / d", lines=lines)
    return {"rows": rows, "pictures": [drawn]}


def _beyond_rows(
    name: str, own: Values, ideal: Float[np.ndarray, "b m"], n: int, seed: int, reason: str | None
) -> list[Row]:
    """Errors after n pairs and after 2 n to 3 n, and the second over the first; ridge's own beside, as the null."""
    near, far = ideal[:, n].mean(), ideal[:, 2 * n :].mean()
    at_n = mean_rows("error", ("beyond", name, "n pairs"), own[:, n], seed, null=float(near))
    words = ("beyond", name, "2 n to 3 n pairs"), ("beyond", name, "2 n to 3 n pairs over n")
    nulls = float(far), float(far / near)
    if reason is not None:
        none = [
            figure(measure, word, value=None, null=null, reason=reason)
            for measure, word, null in zip(("error", "error_ratio"), words, nulls, strict=True)
        ]
        return [at_n, *none]
    late = own[:, 2 * n :].mean(axis=1)
    return [
        at_n,
        mean_rows("error", words[0], late, seed, null=nulls[0]),
        ratio_row("error_ratio", words[1], late, own[:, n], seed, null=nulls[1]),
    ]


def _equal(part: str) -> Claim:
    return Claim(
        text=f"the networks of {part} have as many parameters as the Transformer",
        source=_OF,
        measure="parameters_apart",
        variant=part,
        most=0.02,
        at=("smoke", "full", "paper"),
    )


def _claim(
    text: str, measure: str, variant: str, source: str = _OF, *, least: float | None = None, most: float | None = None
) -> Claim:
    return Claim(text=text, source=source, measure=measure, variant=variant, least=least, most=most)


def _part(asks: str, answer: Callable[[Given], dict[str, Any]], smoke: float, full: float) -> Part:
    return Part(asks=asks, answer=answer, minutes={"smoke": smoke, "full": full})


ARCHITECTURES = Experiment(
    about="Transformers, state-space models, hybrids of both and LSTMs at equal parameters",
    source=f"{_OF}, {_ALSO}",
    much=MUCH,
    parts={
        "regression": _part("linear functions by five networks", partial(_compared, "regression"), 0.4, 50.0),
        "sparse": _part(
            "linear functions of three coordinates by five networks", partial(_compared, "sparse"), 0.4, 30.0
        ),
        "hidden-layer": _part(
            "networks of a hidden layer by five networks", partial(_compared, "hidden-layer"), 0.4, 30.0
        ),
        "trees": _part("decision trees by five networks", partial(_compared, "trees"), 0.4, 50.0),
        "parity": _part("parities of two coordinates by five networks", partial(_compared, "parity"), 0.4, 50.0),
        "recall": _part("values of keys by five networks", partial(_compared, "recall"), 0.4, 50.0),
        "depth": _part(
            "linear functions by Transformers of two depths and Mamba", partial(_compared, "depth"), 0.2, 20.0
        ),
        "beyond": _part("more pairs than were trained on, by kind of position", _beyond, 0.4, 25.0),
    },
    claims=(
        *(_equal(part) for part in MUCH["full"].tasks),
        *(
            # Who learned nothing is as good as who learned nothing.
            _claim(
                f"the Transformer has learned {part}: it misses half of what saying 0 does, or less",
                "error",
                f"{part}, transformer",
                _US,
                most=0.5,
            )
            for part in ("regression", "sparse", "hidden-layer", "trees")
        ),
        _claim(
            "Mamba is about as good as the Transformer on regression",
            "error_ratio",
            "regression, mamba over transformer",
            f"{_OF}, {_ALSO}",
            most=1.5,
        ),
        _claim(
            "Mamba is about as good as the Transformer on linear functions of three coordinates",
            "error_ratio",
            "sparse, mamba over transformer",
            most=1.5,
        ),
        _claim(
            "Mamba is about as good as the Transformer on networks of a hidden layer",
            "error_ratio",
            "hidden-layer, mamba over transformer",
            most=1.5,
        ),
        Claim(
            text="Mamba is better on regression than a Transformer of as many layers and parameters (our question)",
            source=_OF,
            measure="error_ratio",
            variant=f"depth, mamba over {DEEP}",
            most=1.0,
            at=(),
        ),
        _claim("Mamba is better than S4 on regression", "error_ratio", "regression, mamba over s4d", _ALSO, most=1.0),
        _claim(
            "Mamba is weaker than the Transformer on trees", "error_ratio", "trees, mamba over transformer", least=1.0
        ),
        # Who learned nothing is weaker, too, here and at retrieval.
        _claim("and it has learned trees: it misses less than saying 0 does", "error", "trees, mamba", _US, most=1.0),
        _claim("the Transformer fails at parity", "accuracy_gain", "parity, transformer over nothing shown", most=0.1),
        _claim("Mamba learns parity", "accuracy", "parity, mamba", least=0.9),
        _claim(
            "Mamba fails at retrieval where the Transformer does not",
            "error_ratio",
            "recall, shown before, mamba over transformer",
            least=2.0,
        ),
        _claim("the Transformer recalls", "error", "recall, shown before, transformer", most=0.1),
        _claim(
            "Mamba misses a tenth of what is asked of it, or more", "error", "recall, shown before, mamba", least=0.1
        ),
        _claim(
            "the hybrid is as good as the best of the others on regression",
            "error_ratio",
            "regression, mambaformer over the best other",
            most=1.5,
        ),
        _claim(
            "the hybrid is as good as the best of the others on trees",
            "error_ratio",
            "trees, mambaformer over the best other",
            most=1.5,
        ),
        _claim("the hybrid learns parity", "accuracy", "parity, mambaformer", least=0.9),
        _claim("the hybrid recalls", "error", "recall, shown before, mambaformer", most=0.1),
    ),
)
