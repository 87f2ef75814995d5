"""Composition: the figures that claims are about are there, and networks that are a rule are found to be that rule."""

import math
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch

from kshot.study.synth import composition as module
from kshot.study.synth.composition import COMPOSITION
from kshot.study.synth.experiment import Given, judged
from kshot.synth.networks.language import Language
from kshot.synth.networks.mixing import Shape
from kshot.synth.primitives import Repertoire, Shown, Space, drawn, repertoire, vocabulary
from kshot.synth.selection import chosen, look_up, right, selection
from kshot.synth.train import Training

SPACE = Space(symbols=5, length=3)
MUCH = module._Much(
    space=SPACE,
    pairs=4,
    shape=Shape(layers=1, heads=2, width=8),
    training=Training(steps=4, batch=4, learning_rate=1e-3),
    asked=40,
    few=10,
)
GROUPS = {
    "primitives seen", "compositions seen", "compositions held out", "compositions of three", "primitives unseen",
    "any map of symbols", "no rule",
}  # fmt: skip


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MUCH", {"smoke": MUCH})


def given(seed: int = 0) -> Given:
    return Given(size="smoke", seed=seed, say=lambda line: None)


def answered(part: str, seed: int = 0) -> dict[str, Any]:
    return COMPOSITION.parts[part].answer(given(seed))


def by_name(found: dict[str, Any]) -> dict[tuple[str, str], float]:
    return {(row["measure"], row["variant"]): row["value"] for row in found["rows"]}


@cache
def known() -> Repertoire:
    return repertoire(SPACE, 0, count=5, share=0.5)


def test_every_claim_is_about_a_figure_that_is_there() -> None:
    rows = [{"task": "x", "seed": 0, **row} for part in COMPOSITION.parts for row in answered(part)["rows"]]
    verdicts = judged("x", COMPOSITION, rows, "smoke")
    assert [row["statistic"] for row in verdicts if row["observed"] is None] == []
    assert {row["source"] for row in verdicts} == {"our prediction, after Li et al. 2024"}
    names = [(row["measure"], row["variant"]) for row in rows]
    assert len(names) == len(set(names))


def test_the_same_twice_and_something_else_with_another_seed() -> None:
    assert answered("primitives-4") == answered("primitives-4")
    assert by_name(answered("primitives-4")) != by_name(answered("primitives-4", 1))


def test_pictures_of_parts_are_joined_by_their_names() -> None:
    none, half, four = (
        {one["name"]: one["lines"] for one in answered(part)["pictures"]}
        for part in ("share-0", "share-2-of-4", "primitives-4")
    )
    assert set(none["accuracy, 8 primitives"]) | {"compositions seen"} == set(half["accuracy, 8 primitives"])
    assert set(half) >= {"accuracy, 8 primitives", "accuracy, half of compositions seen"}
    for lines, name, at in (
        (none, "accuracy, 8 primitives", 0.0), (half, "mastery, 8 primitives", 0.5),
        (half, "accuracy, half of compositions seen", 8.0), (four, "mastery, half of compositions seen", 4.0),
    ):  # fmt: skip
        assert {x for points in lines[name].values() for x, _ in points} == {at}
    assert set(half["8 primitives, share 0.5: by demonstrations"]) == GROUPS
    assert set(none["8 primitives, share 0: by demonstrations"]) == GROUPS - {"compositions seen"}


def test_no_training_has_a_prompt_that_is_asked() -> None:
    asked = module._groups(given(), known(), 40)
    assert set(asked) == GROUPS
    rows = {tuple(row) for shown in asked.values() for row in shown.xs.flatten(1).tolist()}
    much, maps = MUCH, known().trained
    read = [
        tuple(row)
        for step in range(much.training.steps)
        for row in drawn(SPACE, maps, 0, step, size=much.training.batch, pairs=much.pairs).xs.flatten(1).tolist()
    ]
    assert len(read) == much.training.steps * much.training.batch
    assert rows.isdisjoint(read)
    assert len({tuple(shown.xs.flatten().tolist()) for shown in asked.values()}) > 1
    assert {name for name, shown in asked.items() if (shown.which < 0).all()} == {"any map of symbols", "no rule"}
    other = module._groups(given(1), known(), 40)
    assert not torch.equal(asked["primitives seen"].xs, other["primitives seen"].xs)


def reader(sharp: float) -> Language:
    """Says of every token but the last what the next one is: it reads it there. Of the last it says the first symbol."""

    def reads(weights: Any, tokens: torch.Tensor, seen: Any) -> torch.Tensor:
        following = torch.cat([tokens[:, 1:], torch.zeros_like(tokens[:, :1])], dim=1)
        return sharp * torch.nn.functional.one_hot(following, vocabulary(SPACE)).float()

    return Language(start=lambda rng: {}, reads=reads, head=lambda weights, known: known)


def test_answers_are_read_where_they_are_asked() -> None:
    shown = module._groups(given(), known(), 40)["no rule"]
    said = module._answered(reader(1.0), {"w": torch.zeros(1)}, MUCH, shown)
    truth = right(shown, SPACE.symbols)
    assert torch.equal(said[:, :-1], truth[:, :-1].double())
    assert (said[:, -1, 0] == 1).all()


def test_the_loss_is_the_surprise_at_symbols_of_answers() -> None:
    nothing = module._loss(given(), known(), reader(0.0))
    assert float(nothing({}, 0)) == pytest.approx(math.log(vocabulary(SPACE)), abs=1e-6)
    # All 12 but the last are read, and the last is 0 where it is the first symbol.
    sharp = module._loss(given(), known(), reader(50.0))
    last = float(sharp({}, 0)) * 12 / 50
    assert last in [pytest.approx(share / 4, abs=1e-6) for share in range(5)]


@pytest.mark.parametrize("name", ["selection", "composition", "look-up"])
def test_a_network_that_is_a_rule_is_found_to_be_it(name: str) -> None:
    rules = {
        "selection": selection(SPACE, known().trained),
        "composition": selection(SPACE, known().pairs),
        "look-up": look_up(SPACE),
    }
    shown = module._groups(given(), known(), 400)["compositions held out"]
    # Ties are broken, as a network does.
    said = rules[name](shown)
    said = chosen(said + 1e-3 * torch.rand(said.shape, generator=torch.Generator().manual_seed(0)))
    found = module._judged(said, rules, replace(MUCH, asked=400), shown)
    last = {who: float(values[:, -1].mean()) for who, values in found.items()}
    assert last["the network"] == pytest.approx(last[name], abs=0.05)
    assert max(("selection", "composition", "look-up"), key=lambda rule: last[f"as {rule}"]) == name
    assert last["composition"] > last["selection"] + 0.3
    sure = (chosen(rules[name](shown)) == 1).any(dim=2).unflatten(1, (4, 3)).all(dim=2)[:, -1].numpy()
    assert (found[f"as {name}"][:, -1][sure] == 1).all()


@pytest.mark.parametrize("knows", ["everything", "training", "nothing"])
def test_what_is_mastered_is_counted(knows: str, monkeypatch: pytest.MonkeyPatch) -> None:
    groups = iter((knows != "nothing", knows != "nothing", knows == "everything"))

    def answered(made: Any, weights: Any, much: Any, shown: Shown) -> torch.Tensor:
        assert (torch.bincount(shown.which) == module._PROMPTS).all(), "of every map as many"
        truth = right(shown, SPACE.symbols)
        return truth if next(groups) else truth.roll(1, dims=2)

    monkeypatch.setattr(module, "_answered", answered)
    own = module._mastery(given(), known(), reader(1.0), {}, "it")
    rows = {(row["measure"], row["variant"]): row["value"] for row in own}
    assert all(row["low"] < row["high"] for row in own), "a share of few maps is not sure"
    trained, pairs = len(known().trained), len(known().pairs)
    ratio = {"everything": pairs / trained, "training": 1.0, "nothing": 0.0}
    assert rows["mastered_over_trained", "it"] == pytest.approx(ratio[knows], abs=1e-12)
    assert rows["mastered", "it, compositions seen"] == float(knows != "nothing")
    assert rows["mastered", "it, compositions held out"] == float(knows == "everything")
