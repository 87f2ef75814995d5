"""Training of small networks: a pure function of its configuration, the same to the bit whether it was stopped or not."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from kshot.errors import KshotError, NumericError, OutputError, UnknownName
from kshot.optim.optimisers import OPTIMISERS
from kshot.seeds import torch_stream
from kshot.synth import train
from kshot.synth.networks.linear_attention import linear_attention
from kshot.synth.optima import one_step
from kshot.synth.prompts import Source
from kshot.synth.train import Curriculum, Kept, Training, squared_error, trained

SOURCE = Source(width=3, pairs=6, reach=1.0)
NETWORK = linear_attention(3)
TRAINING = Training(steps=12, batch=32, learning_rate=1e-2, betas=(0.9, 0.98), clip=1.0)


def loss(weights: train.Weights, step: int) -> torch.Tensor:
    found = SOURCE.batch(0, step, TRAINING.batch)
    return squared_error(NETWORK.says(weights, found.xs, found.ys), found.ys)


def start() -> dict[str, torch.Tensor]:
    return NETWORK.start(torch_stream(0, "start"))


def same(one: train.Weights, other: train.Weights) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def test_the_same_configuration_gives_the_same_bits_and_leaves_its_start() -> None:
    before = start()
    one, other = trained(before, loss, TRAINING), trained(before, loss, TRAINING)
    assert same(one.weights, other.weights)
    assert one.losses == other.losses
    assert same(before, start())
    assert not same(one.weights, before)


def test_products_in_short_numbers_learn_alike_and_weights_stay_long() -> None:
    formats = []

    def told(weights: train.Weights, step: int) -> torch.Tensor:
        formats.append(torch.nn.functional.linear(torch.ones(2, 2), torch.ones(2, 2)).dtype)
        return loss(weights, step)

    short = trained(start(), told, replace(TRAINING, precision="bfloat16"))
    long = trained(start(), told, TRAINING)
    assert formats == [torch.bfloat16] * 12 + [torch.float32] * 12
    assert {tensor.dtype for tensor in short.weights.values()} == {torch.float32}
    assert short.losses != long.losses
    assert short.losses == pytest.approx(long.losses, rel=0.02)


class _Stop(Exception):
    pass


def look(step: int, weights: Callable[[], train.Weights]) -> dict[str, float] | None:
    return {"norm": float(sum(own.norm() for own in weights().values()))} if step % 3 == 1 else None


@pytest.mark.parametrize("at", [1, 7, 12])
def test_stopped_anywhere_it_goes_on_to_the_same_bits(at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "_SECONDS", 0.0)
    monkeypatch.setattr(train, "_SHARE", 0.0)

    def stops(step: int, weights: train.Weights, now: float) -> None:
        if step == at:
            raise _Stop

    place = Kept(tmp_path / "state.safetensors", "mine")
    with pytest.raises(_Stop):
        trained(start(), loss, TRAINING, place=place, watch=stops, look=look)
    seen: list[int] = []
    rest = trained(start(), loss, TRAINING, place=place, watch=lambda step, weights, now: seen.append(step), look=look)
    whole = trained(start(), loss, TRAINING, look=look)
    # What was done in the step that was stopped after is done again.
    assert seen == list(range(at, 13))
    assert same(rest.weights, whole.weights)
    assert rest.losses == whole.losses
    assert rest.looks == whole.looks
    assert [step for step, _ in rest.along("norm")] == [1, 4, 7, 10]
    # Whoever comes again before what came of it is kept finds it done.
    again = trained(start(), loss, TRAINING, place=place, watch=lambda step, weights, now: seen.append(step), look=look)
    assert seen == list(range(at, 13))
    assert same(again.weights, whole.weights)
    assert (again.losses, again.looks) == (whole.losses, whole.looks)


def test_seconds_are_those_of_the_steps_alone(tmp_path: Path) -> None:
    def slow(step: int, weights: Callable[[], train.Weights]) -> dict[str, float]:
        time.sleep(0.05)
        return {"norm": 0.0}

    began = time.perf_counter()
    done = trained(start(), loss, TRAINING, look=slow)
    assert done.seconds < time.perf_counter() - began - 0.05 * TRAINING.steps


def test_the_state_of_another_training_is_not_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "_SECONDS", -1.0)
    monkeypatch.setattr(train, "_SHARE", 0.0)
    path = tmp_path / "state.safetensors"
    trained(start(), loss, TRAINING, place=Kept(path, "another"))
    assert Kept(path, "another").found() is not None
    assert Kept(path, "mine").found() is None
    path.write_bytes(b"no tensors")
    assert same(
        trained(start(), loss, TRAINING, place=Kept(path, "mine")).weights, trained(start(), loss, TRAINING).weights
    )


def test_a_state_that_cannot_be_kept_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "_SECONDS", -1.0)
    monkeypatch.setattr(train, "_SHARE", 0.0)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot keep the state of training"):
        trained(start(), loss, TRAINING, place=Kept(tmp_path / "file" / "state.safetensors", "mine"))


@pytest.mark.parametrize(("parts", "batches"), [(1, "batch 3"), (4, "batches 12 to 15")])
def test_a_loss_that_is_no_number_is_said_with_its_step_and_batches(parts: int, batches: str) -> None:
    def runs_away(weights: train.Weights, number: int) -> torch.Tensor:
        return loss(weights, number) * (float("nan") if number == 4 * parts - 1 else 1.0)

    with pytest.raises(
        NumericError, match=rf"^the loss of step 4 of 12 is nan \({batches}\); try a smaller .* than 0.01$"
    ):
        trained(start(), runs_away, replace(TRAINING, parts=parts))


def test_a_gradient_whose_norm_is_no_number_moves_nothing() -> None:
    def steep(weights: train.Weights, step: int) -> torch.Tensor:
        # Each number of the gradient is one, and the sum of their squares is not.
        return loss(weights, step) + (1e30 if step == 11 else 0.0) * sum(
            ((own - own.detach()).sum() for own in weights.values()), start=torch.zeros(())
        )

    moved: list[int] = []
    with pytest.raises(NumericError, match=r"^the gradient's norm of step 12 of 12 is inf \(batch 11\); try"):
        trained(start(), steep, TRAINING, watch=lambda step, weights, now: moved.append(step))
    assert moved[-1] == 11


def test_weights_that_the_last_step_lost_are_not_kept(tmp_path: Path) -> None:
    def vertical(weights: train.Weights, step: int) -> torch.Tensor:
        return loss(weights, step) + sum(
            ((own - own.detach()).sum().abs().sqrt() for own in weights.values()), start=torch.zeros(())
        )

    place = Kept(tmp_path / "state.safetensors", "mine")
    with pytest.raises(NumericError, match=r"^the greatest weight of '.*' after step 1 of 1 is nan \(batch 0\); try"):
        trained(start(), vertical, replace(TRAINING, steps=1, clip=None), place=place)
    assert place.found() is None


def test_what_is_seen_and_is_no_number_is_not_kept(tmp_path: Path) -> None:
    def blind(step: int, weights: Callable[[], train.Weights]) -> dict[str, float] | None:
        return {"norm": 1.0, "error": float("inf")} if step == 2 else None

    place = Kept(tmp_path / "state.safetensors", "mine")
    with pytest.raises(NumericError, match=r"^'error' as seen after step 2 of 2 is inf \(batch 1\); try"):
        trained(start(), loss, replace(TRAINING, steps=2), place=place, look=blind)
    assert place.found() is None


def test_what_is_asked_of_an_optimiser_reaches_it() -> None:
    def first(**options: object) -> train.Weights:
        return trained(start(), loss, replace(TRAINING, steps=1, **options)).weights

    # A step of AdamW is as long as the rate, whatever the gradient; divided by a great eps it is none.
    assert not same(first(), start())
    assert all(torch.allclose(own, start()[name], atol=1e-9) for name, own in first(eps=1e9).items())


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_only_matrices_decay_where_that_is_asked(optimiser: str) -> None:
    begun = {"matrix": torch.ones(2, 3), "rate": torch.ones(3)}

    def flat(weights: train.Weights, step: int) -> torch.Tensor:
        return sum(((own * 0.0).sum() for own in weights.values()), start=torch.zeros(()))

    training = Training(steps=1, learning_rate=0.1, weight_decay=5.0, optimiser=optimiser)
    for of, left in (("matrices", 1.0), ("all", 0.5)):
        found = trained(begun, flat, replace(training, decay_of=of)).weights
        assert found["matrix"].unique().tolist() == pytest.approx([0.5])
        assert found["rate"].unique().tolist() == pytest.approx([left])


def test_a_layer_learns_to_be_a_step_of_gradient_descent() -> None:
    training = Training(steps=1000, batch=256, learning_rate=3e-2, clip=1.0, schedule="cosine")
    done = trained(start(), lambda weights, step: _half(weights, 0, step, 256), training)
    best = one_step(3, 5, 1.0)
    with torch.no_grad():
        end = float(_half(done.weights, 1, 0, 50_000))
    assert end == pytest.approx(best.loss, rel=0.03)
    assert end < 0.8 * best.of_nothing


def _half(weights: train.Weights, seed: int, step: int, size: int) -> torch.Tensor:
    found = SOURCE.batch(seed, step, size)
    return squared_error(NETWORK.says(weights, found.xs, found.ys), found.ys) / 2


def test_a_curriculum_grows_to_all_of_it() -> None:
    own = Curriculum(coordinates=5, pairs=11, pairs_by=2, every=2000)
    assert own.at(0, 20, 41) == (5, 11)
    assert own.at(1999, 20, 41) == (5, 11)
    assert own.at(30_000, 20, 41) == (20, 41)
    assert own.at(0, 3, 41) == (3, 11), "no more than there are"


def test_the_error_is_that_of_the_answers_that_were_said() -> None:
    ys = torch.tensor([[1.0, 2.0, 4.0]])
    assert squared_error(torch.tensor([[5.0]]), ys).item() == 1.0
    assert squared_error(torch.zeros(1, 3), ys).item() == pytest.approx(7.0)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"schedule": "linaer"}, UnknownName),
        ({"learning_rate": 0.0}, KshotError),
        ({"eps": 0.0}, KshotError),
        ({"steps": -1}, KshotError),
    ],
)
def test_wrong_configurations_are_refused(options: dict[str, object], error: type) -> None:
    with pytest.raises(error):
        Training(**{"steps": 3, **options})
