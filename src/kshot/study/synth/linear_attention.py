"""Is a trained layer of linear self-attention a step of gradient descent? (von Oswald et al. 2023)

Ten coordinates, ten pairs, functions w ~ N(0, I) without noise, inputs uniform within 0.5, as in the published code (its
paper's text says 1). Losses are half the mean square of the last answer, as there.
"""

from dataclasses import replace
from functools import partial
from typing import Any

import torch

from kshot.measure import dual
from kshot.seeds import torch_stream
from kshot.study.figures import figure
from kshot.study.synth.against_descent import (
    LINEAR,
    TRAINED,
    VON_OSWALD,
    alike_rows,
    along_pictures,
    asked_of,
    fresh_of,
    loss_ratio,
    losses_of,
    much,
    searched_of,
    trained_on,
    watching,
)
from kshot.study.synth.experiment import SIZES, Claim, Experiment, Given, Part, Row
from kshot.study.synth.growing import mean_rows
from kshot.study.synth.momentum_layer import MOMENTUM_CLAIMS, MOMENTUM_PARTS
from kshot.study.synth.separate_tokens import SEPARATE_CLAIMS, SEPARATE_PARTS
from kshot.study.synth.sine_attention import SINE_CLAIMS, SINE_PARTS
from kshot.synth.networks.linear_attention import as_descent, halfway, linear_attention
from kshot.synth.optima import Tuned, each_tuned, one_step, tuned
from kshot.synth.oracles import descended


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
        searched = tuned(asked_of(given, replace(LINEAR, reach=reach)), 1, best.rate)
        rows += [
            figure("best_rate", (word, "algebra"), value=best.rate),
            figure("best_rate", (word, "searched"), value=searched.rates[0]),
            figure("loss", (word, "one step, algebra"), value=best.loss),
            figure("loss", (word, "one step, searched"), value=searched.loss),
            figure("loss", (word, "of saying 0"), value=best.of_nothing),
        ]
    return {"rows": rows}


def _one_layer(given: Given) -> dict[str, Any]:
    """A layer against the best step, along training and at its end, and halfway between the two."""
    network, asked = linear_attention(10), asked_of(given)
    best = one_step(10, 10, 0.5)
    rival = descended(best.rate, 1, last=True)
    least = losses_of(rival, asked)
    done = trained_on(given, network, "one layer", look=watching(network, rival, asked))
    weights = done.weights
    says = partial(network.says, weights)
    own = losses_of(says, asked)
    between = losses_of(partial(network.says, halfway(weights, as_descent(10, 10, best.rate))), asked)
    worse = max(own, least, key=lambda losses: float(losses.mean()))
    rows = [
        mean_rows("loss", ("one layer",), own, given.seed, null=float(least.mean())),
        loss_ratio(own, least, ("one layer", "over the best step"), given.seed),
        loss_ratio(between, worse, ("halfway to descent", "over the worse of both"), given.seed),
        *alike_rows(says, rival, asked, ("one layer",), given.seed),
    ]
    return {"rows": rows, "pictures": along_pictures(done, "one layer")}


def _layers(layers: int, shared: bool, given: Given) -> dict[str, Any]:
    """More layers against as many tuned steps of descent and of GD++; layers that differ against steps that do."""
    asked, searched = asked_of(given), searched_of(given)
    word = f"{layers} layers"
    network = linear_attention(10, layers=layers, shared=shared, bound=10.0 if layers > 2 else None)
    says = partial(network.says, trained_on(given, network, word).weights)
    rate = one_step(10, 10, 0.5).rate
    rivals: dict[str, Tuned] = {
        "gradient descent": tuned(searched, layers, rate / layers),
        "GD++": tuned(searched, layers, rate / layers, shrink=True),
        "momentum": tuned(searched, layers, rate / layers, momentum=True),
    }
    if not shared:
        # Of layers that differ the rivals are steps that do.
        rounds, fresh = much(given).rounds, fresh_of(given)
        rivals |= {name: each_tuned(rivals[name], fresh, rounds) for name in ("gradient descent", "GD++")}
    own = losses_of(says, asked)
    rows = [mean_rows("loss", (word,), own, given.seed)]
    for name, rival in rivals.items():
        least = losses_of(rival.predictor, asked)
        rows += [
            mean_rows("loss", (word, name), least, given.seed),
            loss_ratio(own, least, (word, f"over {name}"), given.seed),
            *_rate_rows(rival, (word, name)),
            *alike_rows(says, rival.predictor, asked, (word, name), given.seed),
        ]
    return {"rows": rows}


def _rate_rows(rival: Tuned, variant: tuple[str, ...]) -> list[Row]:
    """The rate of all steps, or of each where they have their own: of later steps of GD++ on inputs that were shrunk."""
    if len(set(rival.rates)) == 1:
        return [figure("best_rate", variant, value=rival.rates[0])]
    return [figure("best_rate", (*variant, f"step {i}"), value=rate) for i, rate in enumerate(rival.rates, 1)]


LINEAR_ATTENTION = Experiment(
    about="a trained layer of linear self-attention against a step of gradient descent",
    source=VON_OSWALD,
    much=TRAINED,
    parts={
        "construction": Part(
            asks="weights with which attention is gradient descent",
            answer=_construction,
            minutes=dict.fromkeys(SIZES, 0.1),
        ),
        "optima": Part(
            asks="what one step can reach, by algebra and by search", answer=_optima, minutes=dict.fromkeys(SIZES, 0.1)
        ),
        "one-layer": Part(
            asks="one layer against one step, along training", answer=_one_layer, minutes={"smoke": 0.2, "full": 5.0}
        ),
        "two-layers": Part(
            asks="two layers against two steps", answer=partial(_layers, 2, True), minutes={"smoke": 0.5, "full": 15.0}
        ),
        "five-layers": Part(
            asks="five layers against five steps",
            answer=partial(_layers, 5, False),
            minutes={"smoke": 0.5, "full": 25.0},
        ),
        **SINE_PARTS,
        **SEPARATE_PARTS,
        **MOMENTUM_PARTS,
    },
    claims=(
        *(
            Claim(
                text=f"attention with the weights of the construction is gradient descent, {word}",
                source=source,
                measure="greatest_difference",
                variant=f"attention against descent, {word}",
                most=1e-10,
                at=("smoke", "full", "paper"),
            )
            for word, source in (
                ("1 step", f"{VON_OSWALD}, proposition 1"),
                ("5 steps", VON_OSWALD),
                ("3 steps of GD++", VON_OSWALD),
            )
        ),
        Claim(
            text="descent with momentum is attention and a decayed sum, over its steps, of values weighed by their keys",
            source="this project, after Dai et al. 2023, section 5",
            measure="greatest_difference",
            variant="attention with a decayed sum against momentum",
            most=1e-10,
            at=("smoke", "full", "paper"),
        ),
        Claim(
            text="a trained layer reaches the loss of the best step",
            source=VON_OSWALD,
            measure="loss_ratio",
            variant="one layer, over the best step",
            least=0.99,
            most=1.01,
        ),
        Claim(
            text="it depends on the query as the best step does",
            source=VON_OSWALD,
            measure="sensitivity_cosine",
            variant="one layer",
            least=0.99,
        ),
        Claim(
            text="weights halfway between both are no worse than the worse of them",
            source=VON_OSWALD,
            measure="loss_ratio",
            variant="halfway to descent, over the worse of both",
            most=1.0,
        ),
        Claim(
            text="two layers do better than two steps of gradient descent",
            source=VON_OSWALD,
            measure="loss_ratio",
            variant="2 layers, over gradient descent",
            most=1.0,
        ),
        Claim(
            text="two layers are like GD++",
            source=VON_OSWALD,
            measure="sensitivity_cosine",
            variant="2 layers, GD++",
            least=0.99,
        ),
        Claim(
            text="five layers do better than five steps of gradient descent",
            source=VON_OSWALD,
            measure="loss_ratio",
            variant="5 layers, over gradient descent",
            most=1.0,
        ),
        Claim(
            text="five layers do better than five steps of GD++, each with a rate and a gamma of its own (our question)",
            source=VON_OSWALD,
            measure="loss_ratio",
            variant="5 layers, over GD++",
            most=1.0,
            at=(),
        ),
        *SINE_CLAIMS,
        *SEPARATE_CLAIMS,
        *MOMENTUM_CLAIMS,
    ),
)
