"""Does a soft prompt match fine-tuning as models grow, and does it need a model that was taught to go on with a text?

Encoder-decoders grown on text in which label tasks stand (synth/labelled.py), by hidden spans as T5 was, then trained to go
on with a text for so many steps (LM adaptation); frozen, they are taught each task by a soft prompt on the encoder's side.
Small: a few hundred thousand parameters, a made-up text, three tasks. Trends are what is compared, not scores.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from kshot.pretrain.objectives import OBJECTIVES, Marks
from kshot.seeds import stream
from kshot.study.figures import figure
from kshot.study.pretrain.growing import as_tensors, loss_of
from kshot.study.synth.experiment import Claim, Experiment, Given, Part, Row, Size
from kshot.study.synth.growing import grown, mean_rows, on_batches, picture, unseen
from kshot.study.synth.soft_prompts import Emitted, Frozen, Way, emitted, taught
from kshot.synth.labelled import TASKS, Labelled, Passages, labelled, passages_of, texts
from kshot.synth.networks.encoder_decoder import encoder_decoder
from kshot.synth.networks.language import Language
from kshot.synth.networks.mixing import Shape
from kshot.synth.networks.network import parameters
from kshot.synth.train import Training

_OF = "Lester et al. 2021"
_SPANS, _SENTINEL = "hidden spans alone", "a sentinel before the target"
_MEASURES: Mapping[str, str] = {
    "exact_match": "right", "legal": "legal", "sentinel_emitted": "sentinel", "accuracy_of_labels": "among",
}  # fmt: skip
_LENGTH, _SHORTEST = 20, 1
_PROMPT, _ALL = Way(length=_LENGTH), Way()
_WAYS = (
    _PROMPT,
    Way(length=_LENGTH, init="vocabulary"),
    Way(length=_LENGTH, init="random"),
    Way(length=5),
    Way(length=_SHORTEST),
    _ALL,
)
Values = Float[np.ndarray, "b"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Much:
    """The text's passages; shapes as (layers, heads, width) of either side, the ``ablated`` one among them; steps of LM
    adaptation, ever more; passages learned from, asked to choose a rate, and asked; and trainings."""

    length: int
    passages: int
    shapes: tuple[tuple[int, int, int], ...]
    ablated: int
    adapted: tuple[int, ...]
    grows: Training
    tunes: Training
    rates: Mapping[bool, tuple[float, ...]]
    learned: int
    asked: int


def _grows(steps: int, batch: int, rate: float) -> Training:
    return Training(
        steps=steps, batch=batch, learning_rate=rate, schedule="linear", warmup=max(1, steps // 20), clip=1.0
    )


# Adafactor with a constant rate, as published, and what it is multiplied by decays.
_TUNES = Training(steps=0, batch=32, optimiser="adafactor", weight_decay=1e-5)
# Of a prompt, and of all weights: published are 0.3 and 0.001.
_RATES: Mapping[bool, tuple[float, ...]] = {True: (0.03, 0.1, 0.3), False: (0.0003, 0.001, 0.003)}

_MUCH: Mapping[Size, _Much] = {
    "smoke": _Much(
        length=8, passages=3, shapes=((1, 2, 32), (1, 4, 48)), ablated=1, adapted=(10, 60), grows=_grows(1_500, 16, 5e-3),
        tunes=replace(_TUNES, steps=40, batch=16), rates={True: (0.3,), False: (0.001,)}, learned=64, asked=128,
    ),
    "full": _Much(
        length=10, passages=4, shapes=((1, 2, 24), (2, 4, 48), (2, 4, 96), (3, 4, 144)), ablated=2,
        adapted=(30, 100, 300, 1_000), grows=_grows(15_000, 32, 3e-3), tunes=replace(_TUNES, steps=400), rates=_RATES,
        learned=512, asked=1_024,
    ),
    "paper": _Much(
        length=24, passages=20, shapes=((8, 8, 512), (12, 12, 768), (24, 16, 1_024)), ablated=1,
        adapted=(10_000, 50_000, 100_000), grows=_grows(1_000_000, 128, 1e-3), tunes=replace(_TUNES, steps=30_000),
        rates=_RATES, learned=8_192, asked=4_096,
    ),
}  # fmt: skip


def _text(given: Given) -> Labelled:
    much = _MUCH[given.size]
    # As many sentinels as spans are hidden, and one after the last.
    return labelled(
        given.seed, length=much.length, passages=much.passages, sentinels=3 + much.passages * much.length // 16
    )


def _spanned(given: Given, text: Labelled, shape: tuple[int, int, int]) -> Frozen:
    """A model that was grown by hidden spans."""
    much = _MUCH[given.size]
    own = Shape(layers=shape[0], heads=shape[1], width=shape[2])
    language = encoder_decoder(text.vocabulary, text.tokens, own)
    training = replace(much.grows, learning_rate=_rate(much, own))
    weights = _read(given, f"{_word(shape)}, hidden spans", text, language, "span", training)
    return Frozen(text=text, shape=own, weights=weights)


def _adapted(given: Given, frozen: Frozen, steps: int) -> Frozen:
    """The same model, trained to go on with texts for so many steps."""
    much, shape = _MUCH[given.size], frozen.shape
    made = encoder_decoder(frozen.text.vocabulary, frozen.text.tokens, shape)
    training = _grows(steps, much.grows.batch, _rate(much, shape) / 3)
    language = replace(made, start=lambda rng: dict(frozen.weights))
    word = f"{_word((shape.layers, shape.heads, shape.width))}, adapted for {steps}"
    return replace(frozen, weights=_read(given, word, frozen.text, language, "continued", training))


def _rate(much: _Much, shape: Shape) -> float:
    """Wider networks want smaller steps: as one over the root of the width, from that of the narrowest."""
    return much.grows.learning_rate * (much.shapes[0][2] / shape.width) ** 0.5


def _read(
    given: Given, word: str, text: Labelled, language: Language, objective: str, training: Training
) -> dict[str, Tensor]:
    marks = Marks(vocabulary=text.vocabulary, end=text.end, sentinels=text.spans)

    def make(step: int) -> tuple[Tensor, ...]:
        rows = texts(text, given.seed, step, training.batch)
        return as_tensors(OBJECTIVES[objective](rows, marks, stream(given.seed, "lesson", objective, step)))

    loss = on_batches(given, make, training, lambda weights, *batch: loss_of(language, weights, *batch))
    return grown(given, word, language, loss, training).weights


def _word(shape: Sequence[int]) -> str:
    return f"{shape[0]} by {shape[2]}"


def _passages(given: Given, text: Labelled, task: str, purpose: str, count: int) -> Passages:
    return passages_of(text, task, unseen(given, purpose), count)


def _scores(given: Given, frozen: Frozen, way: Way, word: str) -> dict[str, Values]:
    """Every measure of every passage of all tasks, each taught by itself at the rate that suits other passages best."""
    found: dict[str, list[np.ndarray]] = {name: [] for name in _MEASURES}
    for task in TASKS:
        own = _best(given, frozen, way, f"{word}, {task}, {way.name}", task)
        for name, field in _MEASURES.items():
            found[name].append(getattr(own, field).astype(float))
    return {name: np.concatenate(parts) for name, parts in found.items()}


def _best(given: Given, frozen: Frozen, way: Way, word: str, task: str) -> Emitted:
    much, text = _MUCH[given.size], frozen.text
    learned = _passages(given, text, task, "taught", much.learned)
    known, asked = (_passages(given, text, task, purpose, much.asked) for purpose in ("chosen", "asked"))
    tried = []
    for rate in much.rates[bool(way.length)]:
        training = replace(much.tunes, learning_rate=rate)
        weights = taught(given, f"{word} at {rate:g}", frozen, task, way, learned, training)
        tried.append((emitted(frozen, weights, task, known).right.mean(), weights))
    best = max(tried, key=lambda one: one[0])[1]
    return emitted(frozen, best, task, asked)


def _rows(found: Mapping[str, Values], word: tuple[str, ...], seed: int) -> list[Row]:
    nulls = {"accuracy_of_labels": 1 / 3}
    return [mean_rows(name, word, values, seed, null=nulls.get(name)) for name, values in found.items()]


def _objectives(given: Given) -> dict[str, Any]:
    """One model frozen as hidden spans left it, with a sentinel before targets, and adapted for ever longer."""
    much, text = _MUCH[given.size], _text(given)
    spanned = _spanned(given, text, much.shapes[much.ablated])
    models = {_SPANS: spanned, _SENTINEL: replace(spanned, sentinel=True)}
    models |= {f"adapted for {steps}": _adapted(given, spanned, steps) for steps in much.adapted}
    found = {name: _scores(given, model, _PROMPT, name) for name, model in models.items()}
    rows = [row for name, own in found.items() for row in _rows(own, (name, _PROMPT.name), given.seed)]
    right = {name: own["exact_match"] for name, own in found.items()}
    shortest, longest = (right[f"adapted for {steps}"] for steps in (much.adapted[0], much.adapted[-1]))
    for other, values in ((_SPANS, right[_SPANS]), (_SENTINEL, right[_SENTINEL]), ("the shortest", shortest)):
        row = mean_rows(
            "exact_match_gain", ("the longest adaptation", f"over {other}"), longest - values, given.seed, null=0.0
        )
        rows.append(row)
    rows += [_exact(given, text)]
    steps = [0, *much.adapted]
    models_in_turn = [found[_SPANS], *(found[f"adapted for {own}"] for own in much.adapted)]
    lines = {
        name.replace("_", " "): [
            (float(at), float(own[name].mean())) for at, own in zip(steps, models_in_turn, strict=True)
        ]
        for name in _MEASURES
    }
    return {"rows": rows, "pictures": [picture("by steps of adaptation", x="steps", y="share", lines=lines)]}


def _exact(given: Given, text: Labelled) -> Row:
    """What exact inference gets right of the same passages."""
    asked = [_passages(given, text, task, "asked", _MUCH[given.size].asked) for task in TASKS]
    right = np.concatenate([(own.exact.argmax(axis=1) == own.answers).astype(float) for own in asked])
    return mean_rows("accuracy_of_labels", ("exact inference",), right, given.seed, null=1 / 3)


def _scale(given: Given) -> dict[str, Any]:
    """Models of all sizes, adapted for the longest, taught by prompts of several lengths and starts and by all weights."""
    much, text = _MUCH[given.size], _text(given)
    rows, right, sizes = [], dict[tuple[int, str], Values](), []
    for i, shape in enumerate(much.shapes):
        model = _adapted(given, _spanned(given, text, shape), much.adapted[-1])
        count = parameters(model.weights)
        sizes.append(count)
        for way in _WAYS:
            found = _scores(given, model, way, _word(shape))
            rows += _rows(found, (f"{count:,} parameters", way.name), given.seed)
            right[i, way.name] = found["exact_match"]
        rows.append(figure("parameters", (_word(shape),), value=float(count)))
    last = len(much.shapes) - 1
    pairs = {
        "all weights over a prompt": (_ALL, _PROMPT),
        "labels over a random start": (_PROMPT, replace(_PROMPT, init="random")),
        f"a prompt of {_LENGTH} over one of {_SHORTEST}": (_PROMPT, Way(length=_SHORTEST)),
    }
    for name, (one, other) in pairs.items():
        gaps = [right[i, one.name] - right[i, other.name] for i in (0, last)]
        for which, gap in zip(("the smallest", "the largest"), gaps, strict=True):
            rows.append(mean_rows("gap", (name, which), gap, given.seed, null=0.0))
        rows.append(
            mean_rows("gap_closed", (name, "the smallest to the largest"), gaps[0] - gaps[1], given.seed, null=0.0)
        )
    rows.append(_exact(given, text))
    lines = {
        way.name: [(float(count), float(right[i, way.name].mean())) for i, count in enumerate(sizes)] for way in _WAYS
    }
    return {
        "rows": rows,
        "pictures": [picture("by parameters", x="parameters", y="exact match", lines=lines, log_x=True)],
    }


def _gained(text: str, over: str) -> Claim:
    return Claim(
        text=text, source=f"{_OF}, section 3.2", measure="exact_match_gain",
        variant=f"the longest adaptation, over {over}", least=0.0,
    )  # fmt: skip


def _closed(text: str, name: str, source: str) -> Claim:
    return Claim(
        text=text, source=f"{_OF}, {source}", measure="gap_closed", variant=f"{name}, the smallest to the largest",
        least=0.0,
    )  # fmt: skip


PROMPT_TUNING = Experiment(
    about="soft prompts of frozen encoder-decoders: LM adaptation, and whether they match fine-tuning with size",
    source=_OF,
    much=_MUCH,
    parts={
        "objectives": Part(
            asks="what a model was trained on before it is frozen", answer=_objectives,
            minutes={"smoke": 0.5, "full": 40.0},
        ),
        "scale": Part(
            asks="prompts against all weights, by size", answer=_scale, minutes={"smoke": 0.7, "full": 120.0}
        ),
    },
    claims=(
        _gained("LM adaptation helps a soft prompt more than hidden spans alone", _SPANS),
        _gained("it helps more than a sentinel before the target", _SENTINEL),
        _gained("longer adaptation helps more", "the shortest"),
        _closed("the gap to all weights closes with size", "all weights over a prompt", "figure 1"),
        _closed("how a prompt begins matters less with size", "labels over a random start", "section 3.2"),
        _closed(
            "how long a prompt is matters less with size", f"a prompt of {_LENGTH} over one of {_SHORTEST}", "section 3.2"
        ),
    ),
)  # fmt: skip
