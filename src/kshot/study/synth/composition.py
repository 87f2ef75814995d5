"""Does a network that is trained on primitives and some of their compositions learn in context to compose?

The structured task hypothesis (Li et al. 2024) says that a prompt picks a composition of tasks of pre-training: more than one
of these tasks (selection), less than any task (meta-learning). Pretrained models cannot say which compositions they have
met; here all of training is known. The experiment is ours, and so are its predictions.

A training of the smallest size is too short to learn even what it shows.

Answers are judged with the right symbols before each of theirs, and are right where all symbols are.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from kshot.study.synth.experiment import Claim, Experiment, Given, Part, Row, Size
from kshot.study.synth.growing import grown, line, mean_rows, on_batches, picture, unseen
from kshot.synth.networks.language import Language, layered
from kshot.synth.networks.layers import Design
from kshot.synth.networks.mixing import Shape
from kshot.synth.networks.network import Weights
from kshot.synth.primitives import (
    Repertoire,
    Shown,
    Space,
    arbitrary,
    asked_at,
    drawn,
    in_turn,
    permuted,
    repertoire,
    text,
    vocabulary,
)
from kshot.synth.selection import Rule, chosen, look_up, right, selection, together
from kshot.synth.train import Loss, Training

_OF = "our prediction, after Li et al. 2024"
_PRIMITIVES, _SEEN, _HELD_OUT = "primitives seen", "compositions seen", "compositions held out"
_DEEPER, _ANY = "compositions of three", "any map of symbols"
# Where the network's accuracy less that of a rule says most.
_AGAINST: Mapping[str, str] = {_HELD_OUT: "selection", _DEEPER: "composition", _ANY: "look-up"}
# A map counts as mastered when so many of its prompts are answered right after all demonstrations.
_MASTERED = 0.9
# Of every map. One that is right four times in five counts as mastered once in eleven times.
_PROMPTS = 32
_AT_ONCE = 512
_PARTS: Mapping[str, tuple[int, float]] = {
    "share-0": (8, 0.0),
    "share-1-of-4": (8, 0.25),
    "share-2-of-4": (8, 0.5),
    "share-3-of-4": (8, 0.75),
    "primitives-4": (4, 0.5),
    "primitives-12": (12, 0.5),
    "primitives-24": (24, 0.5),
    # As many kinds of maps as there, and as few maps as where none composes.
    "primitives-24-alone": (24, 0.0),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Much:
    """Symbols and places, demonstrations and the query (``pairs``), the network, its training, and prompts a group."""

    space: Space
    pairs: int
    shape: Shape
    training: Training
    asked: int
    few: int


def _training(steps: int, batch: int, learning_rate: float) -> Training:
    return Training(
        steps=steps, batch=batch, learning_rate=learning_rate, schedule="cosine", warmup=steps // 20, clip=1.0
    )


_MUCH: Mapping[Size, _Much] = {
    "smoke": _Much(
        space=Space(symbols=5, length=3),
        pairs=5,
        shape=Shape(layers=4, heads=4, width=64, spread=None),
        training=_training(380, 16, 2e-3),
        asked=128,
        few=32,
    ),
    "full": _Much(
        space=Space(symbols=5, length=3),
        pairs=7,
        shape=Shape(layers=4, heads=4, width=64, spread=None),
        training=_training(20_000, 32, 1e-3),
        asked=1_024,
        few=128,
    ),
    "paper": _Much(
        space=Space(symbols=8, length=4),
        pairs=11,
        shape=Shape(layers=6, heads=8, width=256),
        training=_training(100_000, 256, 5e-4),
        asked=4_096,
        few=512,
    ),
}


def _word(count: int, share: float) -> str:
    return f"{count} primitives, share {share:g}"


def _part(count: int, share: float, given: Given) -> dict[str, Any]:
    """A network that is trained on so many primitives and this share of their compositions, and its rivals, on all groups."""
    much, word = _MUCH[given.size], _word(count, share)
    own = repertoire(much.space, given.seed, count=count, share=share)
    made = _network(much)
    asked = _groups(given, own, much.asked)
    few = _groups(given, own, much.few)
    watched = [name for name in (_SEEN, _HELD_OUT) if name in few]

    def look(step: int, weights: Weights) -> dict[str, float]:
        said = {name: _answered(made, weights, much, few[name]) for name in watched}
        return {
            name: float(_alike(own, right(few[name], much.space.symbols), much)[:, -1].mean())
            for name, own in said.items()
        }

    done = grown(given, word, made, _loss(given, own, made), much.training, look=look)
    weights = done.weights
    rules = {
        "selection": selection(much.space, own.trained),
        "composition": selection(much.space, own.pairs),
        "look-up": look_up(much.space),
    }
    found = {name: _judged(_answered(made, weights, much, shown), rules, much, shown) for name, shown in asked.items()}
    rows = [row for name, judged in found.items() for row in _rows(judged, word, name, given)]
    rows += _mastery(given, own, made, weights, word)
    shown = [
        picture(f"{name}, along training", x="steps", y="accuracy", lines={word: done.along(name)}, log_x=True)
        for name in watched
    ]
    return {"rows": rows, "pictures": [*_pictures(found, rows, count, share), *shown]}


def _network(much: _Much) -> Language:
    """A Transformer with rotary positions: what stands as many tokens apart is as far in every demonstration."""
    length = much.pairs * (2 * much.space.length + 2)
    return layered(vocabulary(much.space), length, much.shape, Design(positions="rotary"))


def _loss(given: Given, own: Repertoire, made: Language) -> Loss:
    """The mean surprise at every symbol of every answer of a prompt, in nats."""
    much = _MUCH[given.size]
    maps, places = own.trained, asked_at(much.space, much.pairs)

    def make(step: int) -> tuple[Tensor, ...]:
        shown = drawn(much.space, maps, given.seed, step, size=much.training.batch, pairs=much.pairs)
        return text(much.space, shown), shown.ys

    def surprise(weights: Weights, tokens: Tensor, ys: Tensor) -> Tensor:
        logits = made.says(weights, tokens)[:, places]
        return nn.functional.cross_entropy(logits.flatten(0, 1), ys.flatten())

    return on_batches(given, make, much.training, surprise)


def _groups(given: Given, own: Repertoire, count: int) -> dict[str, Shown]:
    """Prompts of every group that has a map, none seen in training."""
    space, pairs, seed = own.space, _MUCH[given.size].pairs, unseen(given)
    known = {
        _PRIMITIVES: own.primitives,
        _SEEN: own.seen,
        _HELD_OUT: own.held_out,
        _DEEPER: own.deeper,
        "primitives unseen": own.unseen,
    }
    found = {name: in_turn(space, maps, seed, size=count, pairs=pairs) for name, maps in known.items() if len(maps)}
    return found | {
        _ANY: permuted(space, own.pairs, seed, size=count, pairs=pairs),
        "no rule": arbitrary(space, seed, size=count, pairs=pairs),
    }


def _answered(made: Language, weights: Weights, much: _Much, shown: Shown) -> Float[Tensor, "b m v"]:
    """The symbols that a network chooses."""
    place = next(iter(weights.values())).device
    places = asked_at(much.space, much.pairs)
    with torch.no_grad():
        parts = [
            made.says(weights, some.to(place))[:, places, : much.space.symbols].double().cpu()
            for some in text(much.space, shown).split(_AT_ONCE)
        ]
    return chosen(torch.cat(parts))


def _alike(one: Tensor, other: Tensor, much: _Much) -> Float[np.ndarray, "b n"]:
    return together(one.double(), other.double(), much.space.length).numpy()


def _judged(
    said: Float[Tensor, "b m v"], rules: Mapping[str, Rule], much: _Much, shown: Shown
) -> dict[str, Float[np.ndarray, "b n"]]:
    """How often answers are right, by who gives them, and how often the network says what a rule says (``as`` it)."""
    truth = right(shown, much.space.symbols)
    others = {name: chosen(rule(shown)) for name, rule in rules.items()}
    found = {name: _alike(own, truth, much) for name, own in {"the network": said, **others}.items()}
    return found | {f"as {name}": _alike(said, own, much) for name, own in others.items()}


def _rows(judged: Mapping[str, Float[np.ndarray, "b n"]], word: str, name: str, given: Given) -> list[Row]:
    """How right answers are after all demonstrations, and how often the network's are a rule's."""
    space, rows = _MUCH[given.size].space, []
    for who, values in judged.items():
        measure = "agreement" if who.startswith("as ") else "accuracy"
        variant = (word, name, who.removeprefix("as "))
        rows.append(mean_rows(measure, variant, values[:, -1], given.seed, null=1 / space.size))
    if name in _AGAINST:
        over = judged["the network"][:, -1] - judged[_AGAINST[name]][:, -1]
        rows.append(mean_rows("accuracy_over", (word, name, _AGAINST[name]), over, given.seed, null=0.0))
    return rows


def _mastery(given: Given, own: Repertoire, made: Language, weights: Weights, word: str) -> list[Row]:
    """The share of a group's maps that are mastered, and all of one or two primitives that are over those of training.

    Every map is asked as many prompts: of few, one that is half known is now and then right in all. Intervals are over maps.
    """
    much, rows, every = _MUCH[given.size], list[Row](), []
    for name, maps in ((_PRIMITIVES, own.primitives), (_SEEN, own.seen), (_HELD_OUT, own.held_out)):
        if len(maps):
            size = _PROMPTS * len(maps)
            asked = in_turn(much.space, maps, unseen(given, "mastered"), size=size, pairs=much.pairs)
            answered = _alike(_answered(made, weights, much, asked), right(asked, much.space.symbols), much)[:, -1]
            shares = np.bincount(asked.which.numpy(), answered) / _PROMPTS
            every.append((shares >= _MASTERED).astype(float))
            rows.append(mean_rows("mastered", (word, name), every[-1], given.seed))
    mastered = np.concatenate(every)
    over, factor = mean_rows("mastered_over_trained", (word,), mastered, given.seed), len(mastered) / len(own.trained)
    scaled = {key: over[key] * factor for key in ("value", "low", "high")}
    return [*rows, {**over, **scaled, "null": 1.0}]


def _pictures(
    found: Mapping[str, Mapping[str, Float[np.ndarray, "b n"]]], rows: list[Row], count: int, share: float
) -> list[dict[str, Any]]:
    """By demonstrations, and a point of each line over the parts: by share, and by the number of primitives."""
    word, y = _word(count, share), "accuracy"
    curves = {name: line(judged["the network"]) for name, judged in found.items()}
    pictures = [picture(f"{word}: by demonstrations", x="demonstrations before", y=y, lines=curves)]
    last = {name: float(judged["the network"][:, -1].mean()) for name, judged in found.items()}
    for rule in ("selection", "composition"):
        last[f"{_HELD_OUT}, {rule}"] = float(found[_HELD_OUT][rule][:, -1].mean())
    ratio = {"maps mastered over maps trained on": rows[-1]["value"]}
    for name, lines in (("accuracy", last), ("mastery", ratio)):
        if count == 8:
            points = {own: [(share, value)] for own, value in lines.items()}
            pictures.append(picture(f"{name}, 8 primitives", x="share of compositions seen", y=name, lines=points))
        if share == 0.5:
            points = {own: [(count, value)] for own, value in lines.items()}
            pictures.append(picture(f"{name}, half of compositions seen", x="primitives", y=name, lines=points))
    return pictures


def _claim(text: str, measure: str, variant: str, *, at: tuple[Size, ...] = (), **bound: float) -> Claim:
    # Nothing was published that would have to come out, so predictions may fail at every size.
    return Claim(text=text, source=_OF, measure=measure, variant=variant, at=at, **bound)


COMPOSITION = Experiment(
    about="held-out compositions of primitives in context, where all of training is known",
    source="ours, on the hypotheses of Li et al. 2024",
    much=_MUCH,
    parts={
        name: Part(
            asks=f"what {count} primitives and {share:.0%} of their compositions teach",
            answer=partial(_part, count, share),
            minutes={"smoke": 0.35, "full": 29.0},
        )
        for name, (count, share) in _PARTS.items()
    },
    claims=(
        *(
            _claim(f"{name} are answered right", "accuracy", f"{_word(8, 0.5)}, {name}, the network", least=0.9)
            for name in (_PRIMITIVES, _SEEN)
        ),
        *(
            _claim(
                f"{word}: held-out compositions are answered better than by exact selection among the tasks of training",
                "accuracy_over",
                f"{word}, {_HELD_OUT}, selection",
                least=0.0,
            )
            for word in (_word(8, 0.5), _word(12, 0.5), _word(24, 0.5))
        ),
        _claim(
            "from primitives alone no composition is learned",
            "mastered",
            f"{_word(8, 0.0)}, {_HELD_OUT}",
            most=0.1,
        ),
        *(
            _claim(
                f"{word}: ability grows beyond what was shown: a quarter more maps are mastered than trained on",
                "mastered_over_trained",
                word,
                least=1.25,
            )
            for word in (_word(12, 0.5), _word(24, 0.5))
        ),
        _claim(
            "maps of symbols that no training had are learned less well than by a look-up of symbols",
            "accuracy_over",
            f"{_word(8, 0.5)}, {_ANY}, look-up",
            most=0.0,
        ),
        *(
            _claim(
                f"{_word(count, share)}: where demonstrations are inconsistent with one another, accuracy is at chance",
                "accuracy",
                f"{_word(count, share)}, no rule, the network",
                most=0.1,
                at=("smoke", "full", "paper"),
            )
            for count, share in _PARTS.values()
        ),
    ),
)
