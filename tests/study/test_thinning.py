"""Decays are thinned by halves, on tokens that double, and the best of the last round is what is grown."""

from typing import Any

import pytest

from kshot.errors import KshotError, NumericError
from kshot.study.pretrain.plan import Arm
from kshot.study.pretrain.thinning import thinned
from kshot.study.pretrain_settings import PretrainSettings, make_pretrain_settings


def asked(**more: Any) -> PretrainSettings:
    own = {"attention": ("softmax", "momentum"), "eta": ("0.3", "0.6", "0.9", "learned"), "halving": True}
    return make_pretrain_settings(tasks=("a.txt",), tokens=1_000, seed=(0, 3), **{**own, **more})


def results(losses: dict[str, float | None]) -> dict[str, Any]:
    rows = [{"measure": "validation_loss", "variant": name, "value": value} for name, value in losses.items()]
    return {"kshot": {"measures": [{"measure": "mfu", "variant": "momentum 0.3", "value": -1.0}, *rows]}}


def name(word: str) -> str:
    return Arm(network="llama", attention="momentum", eta=None if word == "learned" else float(word)).name


def test_the_better_half_goes_on_to_twice_as_many_tokens() -> None:
    rounds: list[PretrainSettings] = []
    losses = [
        {"0.3": 3.0, "0.6": 2.5, "0.9": 4.0, "learned": 2.4},
        {"0.6": 2.1, "learned": 2.2},
    ]

    def grow(settings: PretrainSettings, number: int) -> dict[str, Any]:
        rounds.append(settings)
        return results({name(word): loss for word, loss in losses[number - 1].items()})

    found, notes = thinned(asked(), grow)
    assert (found.attention, found.eta, found.seed, found.halving) == (("softmax", "momentum"), ("0.6",), (0, 3), False)
    assert [(own.attention, set(own.eta), own.tokens) for own in rounds] == [
        (("momentum",), {"0.3", "0.6", "0.9", "learned"}, 250),
        (("momentum",), {"0.6", "learned"}, 500),
    ]
    assert all(own.seed == (4,) for own in rounds), "no seed of the question chooses"
    assert notes[0] == (
        "decays thinned on 250 tokens with seed 4, nats per token of documents cut off the training text: "
        "momentum learned 2.4000, momentum 0.6 2.5000, momentum 0.3 3.0000, momentum 0.9 4.0000"
    )


def test_what_diverges_is_thinned_out() -> None:
    def grow(settings: PretrainSettings, number: int) -> dict[str, Any]:
        return results({name(word): None if word == "0.9" else 5.0 for word in settings.eta})

    found, _ = thinned(asked(eta=("0.9", "0.3", "0.6")), grow)
    assert found.eta == ("0.3",)


def test_decays_that_all_diverge_are_said() -> None:
    said = r"none of the decays 0.3, 0.6 came to a loss on 500 tokens; try a smaller --learning-rate than 0\.1"
    with pytest.raises(NumericError, match=said):
        thinned(asked(eta=("0.3", "0.6"), learning_rate=0.1), lambda settings, number: results({}))


@pytest.mark.parametrize(
    "more", [{"eta": ("0.3",)}, {"attention": ("softmax",)}, {"attention": ("momentum", "momentum-keys")}]
)
def test_nothing_to_thin_is_said(more: dict[str, Any]) -> None:
    with pytest.raises(KshotError, match="--halving thins several decays of one kind of momentum"):
        asked(**more)
