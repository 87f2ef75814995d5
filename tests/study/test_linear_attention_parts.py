"""Sines, separate tokens and momentum: every claim has its row, and what is measured is what it is called."""

import math
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch

from kshot.study.synth import against_descent, momentum_layer, separate_tokens, sine_attention
from kshot.study.synth.experiment import Claim, Given, Part
from kshot.study.synth.linear_attention import LINEAR_ATTENTION
from kshot.synth.networks.linear_attention import as_descent, linear_attention
from kshot.synth.networks.separate import as_copy_and_descent
from kshot.synth.oracles import descended
from kshot.synth.train import Trained, Training

GIVEN = Given(size="smoke", seed=0, say=lambda text: None)
PARTS = {**sine_attention.SINE_PARTS, **separate_tokens.SEPARATE_PARTS, **momentum_layer.MOMENTUM_PARTS}
CLAIMS = (*sine_attention.SINE_CLAIMS, *separate_tokens.SEPARATE_CLAIMS, *momentum_layer.MOMENTUM_CLAIMS)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    few = Training(steps=6, batch=16, learning_rate=1e-2)
    training = dict.fromkeys(against_descent.TRAINED["smoke"].training, few)
    monkeypatch.setattr(
        against_descent,
        "TRAINED",
        {"smoke": against_descent.Much(training=training, asked=40, looks=3, searched=60, rounds=5, fresh=20)},
    )


def found(part: Part) -> dict[tuple[str, str], dict[str, Any]]:
    rows = part.answer(GIVEN)["rows"]
    by_name = {(row["measure"], row["variant"]): row for row in rows}
    assert len(by_name) == len(rows), "no two rows of one name"
    return by_name


def of(name: str) -> list[Claim]:
    return list(
        {
            "sine": sine_attention.SINE_CLAIMS,
            "separate-tokens": separate_tokens.SEPARATE_CLAIMS,
            "momentum-layer": momentum_layer.MOMENTUM_CLAIMS,
        }[name]
    )


@pytest.mark.parametrize("name", PARTS)
def test_every_claim_is_about_a_row_and_identities_hold_whatever_is_trained(name: str) -> None:
    rows = found(PARTS[name])
    for claim in of(name):
        row = rows[claim.measure, claim.variant]
        assert row["value"] is not None
        assert math.isfinite(row["value"])
        if claim.measure == "greatest_difference":
            assert row["value"] <= 1e-10
            assert claim.at == ("smoke", "full", "paper")


@pytest.mark.parametrize("name", PARTS)
def test_the_same_twice_and_pictures_of_finite_lines(name: str) -> None:
    one, again = (PARTS[name].answer(GIVEN) for _ in range(2))
    assert one == again
    assert one["pictures"]
    points = [point for drawn in one["pictures"] for line in drawn["lines"].values() for point in line]
    assert points
    assert all(math.isfinite(value) for point in points for value in point)
    other = PARTS[name].answer(replace(GIVEN, seed=1))
    assert other["rows"] != one["rows"]


def test_the_experiment_has_all_of_them() -> None:
    assert set(PARTS) < set(LINEAR_ATTENTION.parts)
    assert set(CLAIMS) < set(LINEAR_ATTENTION.claims)


def test_all_sizes_say_how_much_of_everything_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    names = {size: set(own.training) for size, own in against_descent.TRAINED.items()}
    assert set(names) == {"smoke", "full", "paper"}
    assert names["smoke"] == names["full"] == names["paper"]


def test_losses_are_half_the_squares_of_the_last_answer() -> None:
    asked = against_descent.asked_of(GIVEN)
    own = against_descent.losses_of(lambda xs, ys: torch.zeros_like(ys), asked)
    assert own == pytest.approx(asked.ys[:, -1].double().numpy() ** 2 / 2)
    assert against_descent.loss_of(lambda xs, ys: ys, asked) == 0.0


def test_what_is_watched_is_what_stands_at_the_end() -> None:
    network, asked = linear_attention(10), against_descent.asked_of(GIVEN)
    rival = descended(6.06, 1)
    weights = {name: tensor.float() for name, tensor in as_descent(10, 10, 3.03).items()}
    seen = against_descent.watching(network, rival, asked)(7, weights)
    says = partial(network.says, weights)
    assert seen is not None
    assert seen["loss"] == pytest.approx(against_descent.loss_of(says, asked) / against_descent.loss_of(rival, asked))
    assert seen["sensitivity_cosine"] == pytest.approx(1.0), "half the rate, and the same direction"
    done = Trained(weights=weights, losses=(), seconds=0.0, looks=((7, dict(seen)),))
    drawn = against_descent.along_pictures(done, "a layer")
    assert [one["lines"]["a layer"][0][0] for one in drawn] == [7.0, 7.0, 7.0]


def test_partners_are_seen_by_weights_that_copy_and_not_by_none() -> None:
    asked = against_descent.asked_of(GIVEN)
    copying = {name: tensor.float() for name, tensor in as_copy_and_descent(10, 10, 6.06).items()}
    seen, share = separate_tokens._of_partners(copying, asked)["answers to their inputs"]
    assert seen.shape == share.shape == (40, 10)
    assert seen.min() > 0.999
    assert share.min() > 0.999
    nothing = {name: torch.zeros_like(tensor) for name, tensor in copying.items()}
    for seen, share in separate_tokens._of_partners(nothing, asked).values():
        assert torch.allclose(seen, torch.tensor(1 / 20))
        assert torch.allclose(share, torch.tensor(1 / 10))


def test_other_queries_of_a_prompt_have_its_pairs_and_its_sine() -> None:
    asked = against_descent.asked_of(GIVEN, sine_attention._SINES)
    shown = sine_attention._at_queries(asked, 3)
    assert shown.xs.shape == (63, 11, 1)
    assert torch.equal(shown.xs[21:42, :-1], asked.xs[1:2, :-1].expand(21, -1, -1))
    assert torch.equal(shown.xs[21:42, -1, 0], torch.linspace(-5.0, 5.0, 21))
    amplitude, phase = asked.drawn["amplitude"][1], asked.drawn["phase"][1]
    assert torch.allclose(shown.means[21:42, -1], amplitude * torch.sin(torch.linspace(-5.0, 5.0, 21) + phase))
    assert torch.equal(asked.xs, against_descent.asked_of(GIVEN, sine_attention._SINES).xs), "asked prompts stay"


def test_rivals_of_momentum_are_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    much = against_descent.TRAINED["smoke"]
    # Enough to tell them apart.
    monkeypatch.setattr(against_descent, "TRAINED", {"smoke": replace(much, asked=300, searched=200)})
    rows = found(PARTS["momentum-layer"])
    plain, heavy, plus = (
        rows["loss", f"two steps, {name}"]["value"] for name in ("gradient descent", "momentum", "GD++")
    )
    assert heavy < plain, "momentum helps descent"
    assert plus < plain, "and so does GD++"
    ratio = rows["loss_ratio", "two passes, over tokens, over momentum"]["value"]
    assert ratio == pytest.approx(rows["loss", "two passes, over tokens"]["value"] / heavy)
    assert rows["distance_ratio", "two passes, over tokens, from momentum"]["value"] == pytest.approx(
        rows["prediction_distance", "two passes, over tokens, momentum"]["value"]
        / rows["prediction_distance", "two passes, no momentum, momentum"]["value"]
    )
    gained = rows["loss_gained", "two passes, over tokens"]["value"]
    without = rows["loss", "two passes, no momentum"]["value"]
    assert gained == pytest.approx(1 - rows["loss", "two passes, over tokens"]["value"] / without)
