"""How loss falls with parameters and tokens, on text whose entropy is known: does the fitted floor find it?

Language models of five sizes and more, each grown on five numbers of tokens of a hidden-Markov mixture (GINC), every run
with a schedule of its own. The law of Hoffmann et al. 2022 is fitted to all but the largest, which it has to foresee; what
it says cannot be learned is held against exact inference. Parameters are those of layers, as Kaplan et al. 2020 count them.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor

from kshot.errors import MethodError
from kshot.measure.scaling import Law, bootstrapped, power_law, scaling_law
from kshot.seeds import digest
from kshot.study.figures import figure
from kshot.study.synth.experiment import Claim, Experiment, Given, Part, Row, Size
from kshot.study.synth.growing import grown, mean_rows, on_batches, picture, unseen
from kshot.synth.grammar import Ginc, documents, examples, ginc, inferred
from kshot.synth.networks.language import LANGUAGES, Language, cross_entropy
from kshot.synth.networks.mixing import Shape
from kshot.synth.networks.network import Weights, parameters
from kshot.synth.train import Training

_HOFFMANN = "Hoffmann et al. 2022"
# Prompts whose answers are set against loss: examples of so many tokens.
_LENGTH, _SHOTS = 5, 8
# Budgets of which a picture is drawn.
_BUDGETS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class _Much:
    """Shapes as (layers, heads, width) and numbers of tokens, all with all; the largest shape, at the most tokens, is foreseen.

    ``length`` tokens a document, ``batch`` documents a step, ``held`` documents to be surprised by, ``prompts`` to be
    answered, and draws of the bootstrap.
    """

    shapes: tuple[tuple[int, int, int], ...]
    foreseen: tuple[int, int, int]
    tokens: tuple[int, ...]
    length: int
    batch: int
    rate: float
    held: int
    prompts: int
    draws: int


_MUCH: Mapping[Size, _Much] = {
    "smoke": _Much(
        shapes=((1, 2, 16), (2, 2, 24), (2, 2, 40)), foreseen=(2, 2, 56), tokens=(50_000, 100_000, 200_000), length=64,
        batch=32, rate=4e-3, held=256, prompts=256, draws=10,
    ),
    "full": _Much(
        shapes=((1, 2, 16), (2, 2, 16), (2, 2, 32), (3, 4, 48), (4, 4, 64)), foreseen=(4, 4, 96),
        tokens=(250_000, 500_000, 1_000_000, 2_000_000, 4_000_000), length=64, batch=32, rate=4e-3, held=1_024, prompts=1_024,
        draws=100,
    ),
    "paper": _Much(
        shapes=((2, 4, 64), (4, 4, 128), (6, 8, 256), (8, 8, 384), (12, 12, 768)), foreseen=(16, 16, 1_024),
        tokens=(20_000_000, 60_000_000, 200_000_000, 600_000_000, 2_000_000_000), length=256, batch=128, rate=1e-3, held=2_048,
        prompts=2_048, draws=100,
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """A network's parameters, the tokens it read, its surprise by held-out text, and its accuracy on prompts."""

    parameters: int
    tokens: int
    loss: float
    accuracy: float

    @property
    def word(self) -> str:
        return f"{self.parameters:,} parameters, {self.tokens:,} tokens"


def _ladder(given: Given) -> dict[str, Any]:
    """Every size on every number of tokens; the law of them, and what it foresees."""
    much, mixture = _MUCH[given.size], ginc(given.seed)
    held, _ = documents(mixture, unseen(given, "held"), much.held, much.length)
    exact = float(-inferred(mixture, held).likelihood[:, 1:].mean())
    runs = [_run(given, mixture, shape, tokens, held) for shape in much.shapes for tokens in much.tokens]
    largest = _run(given, mixture, much.foreseen, much.tokens[-1], held)
    n, d, losses = (np.array([getattr(run, name) for run in runs], float) for name in ("parameters", "tokens", "loss"))
    law = scaling_law(n, d, losses)
    laws = bootstrapped(n, d, losses, given.seed, much.draws)
    rows = [figure("loss", (run.word,), value=run.loss, unit="nats", null=exact) for run in (*runs, largest)]
    rows += [figure("accuracy", (run.word, "prompts"), value=run.accuracy) for run in (*runs, largest)]
    rows += [_law_row(name, law, laws) for name in ("floor", "alpha", "beta")]
    rows += _alone_rows([*runs, largest], exact)
    missed = np.abs(law.loss(n, d) / losses - 1)
    rows.append(mean_rows("law_error", ("mean over runs",), missed, given.seed, null=0.0))
    at = np.array([float(largest.parameters)]), np.array([float(largest.tokens)])
    told = [abs(float(own.loss(*at)[0]) / largest.loss - 1) for own in (law, *laws)]
    floors = [abs(own.floor / exact - 1) for own in (law, *laws)]
    rows.append(_error_row("foreseen_error", "the largest", told))
    rows.append(_error_row("floor_error", "exact inference", floors))
    rows += [_share_row(law, laws), _ratio_row(law, laws, 6.0 * largest.parameters * largest.tokens)]
    both = [(run.loss, run.accuracy) for run in (*runs, largest)]
    rank = float(spearmanr(*np.array(both).T).statistic)
    rows.append(figure("rank_agreement", ("loss and accuracy on prompts",), value=-rank, n=len(both), null=0.0))
    return {"rows": rows, "pictures": _pictures(runs, largest, law, exact, much)}


def _run(given: Given, mixture: Ginc, shape: tuple[int, int, int], tokens: int, held: np.ndarray) -> _Run:
    much = _MUCH[given.size]
    layers, heads, width = shape
    made = Shape(layers=layers, heads=heads, width=width, spread=None)
    language = LANGUAGES["llama"](mixture.vocabulary, much.length, made)
    steps = max(1, tokens // (much.batch * much.length))
    # Wider networks want smaller steps: as one over the root of the width, from that of the narrowest.
    rate = much.rate * (much.shapes[0][2] / width) ** 0.5
    training = Training(
        steps=steps, batch=much.batch, learning_rate=rate, schedule="cosine", warmup=max(1, steps // 20), clip=1.0,
        weight_decay=0.1, decay_of="matrices", betas=(0.9, 0.95),
    )  # fmt: skip

    def make(step: int) -> tuple[Tensor, ...]:
        found, _ = documents(mixture, digest(given.seed, "documents", step) >> 2, much.batch, much.length)
        return (torch.from_numpy(found),)

    loss = on_batches(given, make, training, lambda weights, own: cross_entropy(language.says(weights, own), own))
    weights = grown(given, f"{layers} by {width}, {tokens:,} tokens", language, loss, training).weights
    layered = {name: tensor for name, tensor in weights.items() if name[0].isdigit()}
    return _Run(
        parameters=parameters(layered),
        tokens=steps * much.batch * much.length,
        loss=_surprise(language, weights, held),
        accuracy=_answered(given, mixture, language, weights),
    )


def _surprise(language: Language, weights: Weights, held: np.ndarray) -> float:
    place = weights["embedding"].device
    with torch.no_grad():
        parts = torch.from_numpy(held).to(place).split(256)
        return float(np.mean([float(cross_entropy(language.says(weights, own), own)) for own in parts]))


def _answered(given: Given, mixture: Ginc, language: Language, weights: Weights) -> float:
    """The share of prompts whose most probable answer is the network's, too."""
    much = _MUCH[given.size]
    found = examples(mixture, unseen(given), much.prompts, shots=_SHOTS, length=_LENGTH)
    place = weights["embedding"].device
    with torch.no_grad():
        parts = torch.from_numpy(found.tokens).to(place).split(256)
        said = torch.cat([language.says(weights, own)[:, -1].argmax(-1) for own in parts])
    return float((said.cpu().numpy() == found.answers).mean())


def _alone_rows(runs: Sequence[_Run], exact: float) -> list[Row]:
    """The powers of parameters at the most tokens and of tokens with the most parameters that have several, as published
    and above the entropy of the text."""
    most = max(run.tokens for run in runs)
    widest = max(run.parameters for run in runs if run.tokens < most)
    alone = {
        "parameters, most tokens": [(run.parameters, run.loss) for run in runs if run.tokens == most],
        "tokens, most parameters": [(run.tokens, run.loss) for run in runs if run.parameters == widest],
    }
    rows = []
    for word, own in alone.items():
        counts, losses = np.array(own, float).T
        for floor, of in ((0.0, "loss"), (exact, "loss above the entropy")):
            variant = (f"{of} by {word}",)
            try:
                value, low, high = power_law(counts, losses, floor)
            except MethodError as error:
                rows.append(figure("power", variant, value=None, n=len(own), null=0.0, reason=str(error)))
            else:
                rows.append(figure("power", variant, value=value, low=low, high=high, n=len(own), null=0.0))
    return rows


def _law_row(name: str, law: Law, laws: Sequence[Law]) -> Row:
    low, high = _bounds([getattr(own, name) for own in laws])
    return figure("law", (name,), value=getattr(law, name), n=len(laws), low=low, high=high)


def _error_row(measure: str, variant: str, errors: Sequence[float]) -> Row:
    """The error of the law, which is the first, between those of the laws of drawn runs."""
    low, high = _bounds(errors[1:])
    return figure(measure, (variant,), value=errors[0], n=len(errors) - 1, low=low, high=high, null=0.0)


def _ratio_row(law: Law, laws: Sequence[Law], operations: float) -> Row:
    """Tokens a parameter where the budget of the largest run is spent best."""
    found = []
    for own in (law, *laws):
        # A law by which loss does not fall with either says nothing of a budget.
        with suppress(MethodError):
            parameters, tokens = own.best(operations)
            found.append(tokens / parameters)
    known = len(found) == 1 + len(laws)
    low, high = _bounds(found[1:]) if known else (None, None)
    reason = None if known else f"by {1 + len(laws) - len(found)} of {1 + len(laws)} laws loss does not fall with both"
    return figure(
        "tokens_a_parameter", (f"best use of {operations:.1e} operations",), value=found[0] if known else None,
        n=len(found), low=low, high=high, reason=reason,
    )  # fmt: skip


def _share_row(law: Law, laws: Sequence[Law]) -> Row:
    """The power of compute by which parameters grow where a budget is spent best."""
    drawn = [own.beta / (own.alpha + own.beta) for own in laws if own.alpha + own.beta > 0]
    low, high = _bounds(drawn)
    value = law.beta / (law.alpha + law.beta) if law.alpha + law.beta > 0 else None
    reason = None if value is not None else "loss does not fall with either"
    return figure(
        "law", ("parameters by compute",), value=value, n=len(drawn), null=0.5, low=low, high=high, reason=reason
    )


def _bounds(drawn: Sequence[float]) -> tuple[float, float] | tuple[None, None]:
    """95 of 100 draws lie between."""
    if not drawn:
        return None, None
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)


def _pictures(runs: list[_Run], largest: _Run, law: Law, exact: float, much: _Much) -> list[dict[str, Any]]:
    sizes = sorted({run.parameters for run in runs})
    by_size = {f"{n:,} parameters": [(float(r.tokens), r.loss) for r in runs if r.parameters == n] for n in sizes}
    numbers = (float(much.tokens[0]), float(much.tokens[-1]))
    drawn = picture(
        "loss by tokens", x="tokens", y="nats per token",
        lines={**by_size, "exact inference": [(at, exact) for at in numbers], "foreseen": [(float(largest.tokens), largest.loss)]},
        log_x=True,
    )  # fmt: skip
    spent = np.logspace(
        np.log10(6.0 * sizes[0] * much.tokens[0]), np.log10(6.0 * sizes[-1] * much.tokens[-1]), _BUDGETS + 2
    )
    lines = {}
    for budget in spent[1:-1]:
        # No further than the ladder goes in tokens, either.
        least, most = max(sizes[0], budget / 6 / numbers[1]), min(sizes[-1], budget / 6 / numbers[0])
        at = np.geomspace(least, most, 9)
        losses = law.loss(at, budget / 6 / at)
        lines[f"{budget:.1e} operations"] = [(float(n), float(own)) for n, own in zip(at, losses, strict=True)]
    budgets = picture("the law at equal compute", x="parameters", y="nats per token", lines=lines, log_x=True)
    both = picture(
        "in-context accuracy by loss", x="nats per token", y="accuracy on prompts",
        lines={f"{n:,} parameters": sorted((r.loss, r.accuracy) for r in runs if r.parameters == n) for n in sizes},
    )  # fmt: skip
    return [drawn, budgets, both]


SCALING = Experiment(
    about="loss by parameters and tokens on text of known entropy: a law fitted, a larger run foreseen",
    source=f"{_HOFFMANN}, Kaplan et al. 2020",
    much=_MUCH,
    parts={
        "ladder": Part(
            asks="every size on every number of tokens", answer=_ladder, minutes={"smoke": 1.0, "full": 45.0}
        )
    },
    claims=(
        Claim(
            text="loss is a floor and a power of parameters and of tokens, to 2 per cent",
            source=f"{_HOFFMANN}, equation 2", measure="law_error", variant="mean over runs", most=0.02,
        ),
        Claim(
            text="the law of smaller runs foresees a larger one, to 3 per cent",
            source=f"{_HOFFMANN}, section 4 (a model of 70 billion parameters)", measure="foreseen_error",
            variant="the largest", most=0.03,
        ),
        Claim(
            text="what cannot be learned is the entropy of the text, to 5 per cent",
            source=f"{_HOFFMANN}, equation 2 (1.69 nats; the entropy of their text is not known, that of ours is)",
            measure="floor_error", variant="exact inference", most=0.05,
        ),
        Claim(
            text="parameters and tokens grow about alike with compute",
            source=f"{_HOFFMANN}, table 2 (powers of 0.46 to 0.50)", measure="law", variant="parameters by compute",
            least=0.4, most=0.6,
        ),
        Claim(
            text="what a model answers in context follows its loss",
            source="Xie et al. 2022, section 4 (where it does not: scaling at equal loss)", measure="rank_agreement",
            variant="loss and accuracy on prompts", least=0.8,
        ),
    ),
)  # fmt: skip
