"""A language model grown on text: its loss, what it is seen to do along training, and how it is judged at the end."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from kshot.devices import machine_rate
from kshot.errors import NumericError
from kshot.measure.perplexity import Reading, Surprise, bits_per_byte, perplexity, undefined
from kshot.model.tree import Scored
from kshot.pretrain.objectives import IGNORED, OBJECTIVES, Lesson
from kshot.pretrain.packed import Packed
from kshot.seeds import stream, torch_stream
from kshot.study.environment import peak_bytes, reset_peak
from kshot.study.figures import figure
from kshot.study.pretrain.corpus import Tokens
from kshot.study.pretrain.plan import Plan
from kshot.study.pretrain.speed import operations, roofline, uncounted
from kshot.study.synth.experiment import Given
from kshot.study.synth.growing import grown, on_batches, picture
from kshot.synth.networks.language import Language
from kshot.synth.networks.network import Weights, parameters
from kshot.synth.train import Trained

# Texts are judged so many tokens at a time: what they are read with is not larger than training's.
_AT_ONCE = 8_192
# The seed of what is looked at along training.
_LOOKED = 1
# The loss at the end of training is that of this share of the steps.
_LAST = 0.05
# A loss is set against so many before it.
_BEFORE, _FAR, _NATS = 50, 10.0, 0.5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Grown:
    """A network after training, and figures and pictures of how it went."""

    language: Language
    done: Trained
    rows: list[dict[str, Any]]
    pictures: list[dict[str, Any]]
    notes: list[str]


def grow(given: Given, tokens: Tokens, plan: Plan, arm: tuple[str, Language], objective: str) -> Grown:
    """A network, by its name, trained as planned; NumericError as ``trained``, DataError for too little text."""
    name, language = arm
    watched = _watched(tokens, plan, objective)

    training = plan.training
    size_of_part = (plan.batch // training.parts, plan.context)

    def make(number: int) -> tuple[Tensor, ...]:
        return as_tensors(lesson(tokens, tokens.train, objective, (given.seed, number), size_of_part))

    def look(step: int, weights: Weights) -> dict[str, float]:
        with torch.no_grad():
            found = [
                float(loss_of(language, weights, *(own.to(given.device) for own in as_tensors(one)))) for one in watched
            ]
        return {"validation": float(np.mean(found))}

    def loss(weights: Weights, *batch: Tensor) -> Tensor:
        return loss_of(language, weights, *batch)

    # Of one seed all networks begin alike but for what only some of them have: what they come to is compared in pairs.
    alike = replace(language, start=lambda rng: language.start(torch_stream(given.seed, "start", "network")))
    step = _compiled(loss, alike, make(0), given, plan) if plan.compiled else loss
    rate = machine_rate(given.device, getattr(torch, plan.precision))
    _reset_peak(given.device)
    done = grown(given, name, alike, on_batches(given, make, training, step), training, looks=plan.looks, look=look)
    last = done.losses[-max(1, round(_LAST * len(done.losses))) :]
    seen = done.along("validation")
    cost, drawn = _cost((name, language), done, plan, objective, rate)
    rows = [
        figure("parameters", (name,), value=float(parameters(done.weights))),
        figure("training_loss", (name,), value=float(np.mean(last)), unit="nats", n=len(last)),
        figure("validation_loss", (name,), value=seen[-1][1] if seen else None, unit="nats", n=len(watched)),
        *cost,
    ]
    return Grown(
        language=language,
        done=done,
        rows=rows,
        pictures=[*_pictures(done, plan, name), *drawn],
        notes=_jumped(name, given, done.losses),
    )


def _compiled(
    loss: Callable[..., Tensor], language: Language, batch: tuple[Tensor, ...], given: Given, plan: Plan
) -> Callable[..., Tensor]:
    """The same as one program, which a first step has made: it is no part of training's time."""
    made: Callable[..., Tensor] = torch.compile(loss)
    given.say("compiling the step of training")
    begun = language.start(torch_stream(given.seed, "start"))
    weights = {name: own.to(given.device).requires_grad_(True) for name, own in begun.items()}
    with (
        torch.enable_grad(),
        torch.autocast(given.device.type, torch.bfloat16, enabled=plan.training.precision == "bfloat16"),
    ):
        made(weights, *(own.to(given.device) for own in batch)).backward()
    return made


def _reset_peak(device: torch.device) -> None:
    """Memory is that of training, not of what the process did before."""
    reset_peak()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def _cost(
    arm: tuple[str, Language], done: Trained, plan: Plan, objective: str, rate: float
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows and pictures of what training took; memory first, before anything else is run."""
    name, language = arm
    memory = figure("memory", (name,), value=float(peak_bytes(next(iter(done.weights.values())).device)), unit="bytes")
    steps = len(done.losses)
    pace = steps * plan.batch * plan.context / done.seconds if done.seconds else 0.0
    reason = uncounted(done.weights, objective)
    share = None if reason else pace * operations(done.weights, plan) / rate
    rows = [
        figure("tokens_per_second", (name,), value=pace, n=steps),
        figure("mfu", (name,), value=share, n=steps, reason=reason),
        memory,
    ]
    if reason:
        return rows, []
    own, drawn = roofline(name, language, done.weights, plan, pace, rate)
    return [*rows, *own], [drawn]


def _watched(tokens: Tokens, plan: Plan, objective: str) -> list[Lesson]:
    """Held-out rows that are looked at along training, the same for every seed; all that there are where they are few."""
    rows = min(plan.looked, tokens.valid.rows(plan.context))
    at_once = min(max(1, rows), max(1, _AT_ONCE // plan.context))
    count = max(1, rows // at_once)
    return [lesson(tokens, tokens.valid, objective, (_LOOKED, i), (at_once, plan.context)) for i in range(count)]


def jumps(losses: Sequence[float]) -> list[tuple[int, float, float]]:
    """Steps whose loss is far above those just before: their number from 1, the median before, and the loss.

    Far is ten times as far as the middle half of the steps before reach, and half a nat at least; of a jump that lasts
    its first step alone.
    """
    found: list[tuple[int, float, float]] = []
    for step in range(_BEFORE, len(losses)):
        low, middle, high = np.quantile(losses[step - _BEFORE : step], [0.25, 0.5, 0.75])
        if losses[step] - middle > max(_FAR * (high - low), _NATS) and (not found or step - found[-1][0] > _BEFORE):
            found.append((step + 1, float(middle), float(losses[step])))
    return found


def _jumped(name: str, given: Given, losses: Sequence[float]) -> list[str]:
    return [
        f"{name}: the loss jumped from {before:.2f} to {now:.2f} nats at step {step} of {len(losses)}, whose batch is "
        f"number {step - 1} of seed {given.seed}"
        for step, before, now in jumps(losses)
    ]


def _pictures(done: Trained, plan: Plan, name: str) -> list[dict[str, Any]]:
    points = done.along("validation")
    read = [(step * plan.batch * plan.context, value) for step, value in points]
    spent = [(step * done.seconds / max(1, len(done.losses)), value) for step, value in points]
    y = "nats per token"
    return [
        picture("validation loss by tokens", x="tokens read", y=y, lines={name: read}, log_x=True),
        picture("validation loss by seconds", x="seconds of training", y=y, lines={name: spent}, log_x=True),
    ]


def lesson(tokens: Tokens, packed: Packed, objective: str, drawn: tuple[int, int], size: tuple[int, int]) -> Lesson:
    """What is read and said of ``size`` (rows, tokens) of a text, ``drawn`` by a seed and a step."""
    rows = packed.batch(*drawn, *size)
    return OBJECTIVES[objective](rows, tokens.marks, stream(drawn[0], "lesson", objective, drawn[1]))


def as_tensors(own: Lesson) -> tuple[Tensor, ...]:
    """What is read, what is to be said, and what all see or an encoder reads, where there is such."""
    parts = (own.read, own.said, own.prefix if own.prefix is not None else own.source)
    return tuple(torch.from_numpy(part) for part in parts if part is not None)


def loss_of(
    language: Language,
    weights: Weights,
    read: Int[Tensor, "b t"],
    said: Int[Tensor, "b t"],
    beside: Int[Tensor, "b"] | Int[Tensor, "b u"] | None = None,
) -> Float[Tensor, ""]:
    """The mean surprise at all tokens that are to be said, in nats; the head reads no other places."""
    known, places = language.reads(weights, read, beside).flatten(0, 1), said.flatten()
    if (said == IGNORED).any():
        chosen = torch.nonzero(places != IGNORED)[:, 0]
        known, places = known[chosen], places[chosen]
    return torch.nn.functional.cross_entropy(language.head(weights, known), places)


def judged(
    language: Language, weights: Weights, asked: Sequence[Reading], variant: str, *, say: Callable[[str], None]
) -> tuple[list[dict[str, Any]], list[Surprise]]:
    """Perplexity and bits per byte of held-out text at every length of context, and what they are made of.

    NumericError where a token's probability is no number, or none at all.
    """
    rows, found = [], []
    for one in asked:
        say(f"{variant}, reading held-out text {one.context} tokens at a time")
        found.append(one.surprise(said_of(language, weights, one.sequences)))
        if not all(np.isfinite(part).all() for part in found[-1].by_document):
            raise NumericError(
                f"held-out text read {one.context} tokens at a time: {variant} says what is no number; try a smaller "
                "learning rate"
            )
        rows += figures(found[-1], (variant, f"context {one.context}"))
    return rows, found


def figures(found: Surprise, variant: Sequence[str]) -> list[dict[str, Any]]:
    """The rows of what a text was read with."""
    value, low, high = perplexity(found)
    reason, bits = undefined(found), bits_per_byte(found)
    return [
        figure("perplexity", variant, value=value, low=low, high=high, n=found.tokens, reason=reason, unit="tokens"),
        figure(
            "bits_per_byte",
            variant,
            value=bits,
            n=found.bytes,
            reason=None if bits is not None else reason,
            unit="bits",
        ),
    ]


def said_of(language: Language, weights: Weights, asked: Sequence[Scored]) -> list[Float[np.ndarray, "_"]]:
    """The log-probability of every scored token of sequences, in nats; the network is causal."""
    place = next(iter(weights.values())).device
    found: list[np.ndarray] = [np.zeros(0)] * len(asked)
    order = sorted(range(len(asked)), key=lambda i: len(asked[i].tokens))
    while order:
        longest = len(asked[order[-1]].tokens)
        some, order = order[-max(1, _AT_ONCE // longest) :], order[: -max(1, _AT_ONCE // longest)]
        rows = np.zeros((len(some), longest), dtype=np.int64)
        for row, i in enumerate(some):
            # What is put after a text changes nothing of it.
            rows[row, : len(asked[i].tokens)] = asked[i].tokens
        with torch.no_grad():
            known = language.reads(weights, torch.from_numpy(rows).to(place), None)
            for row, i in enumerate(some):
                begin, end = asked[i].start, len(asked[i].tokens)
                logits = language.head(weights, known[row, begin - 1 : end - 1]).double()
                said = torch.from_numpy(rows[row, begin:end, None]).to(place)
                found[i] = logits.log_softmax(-1).gather(1, said)[:, 0].cpu().numpy()
    return found
