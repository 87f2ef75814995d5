"""What is kept of a fit: the same to the bit when it is read, and nothing but its own."""

import os
import subprocess
import sys
from pathlib import Path

import plain
import pytest
import torch
import zoo
from safetensors.torch import save_file

from kshot.adapt import checkpoint
from kshot.adapt.checkpoint import Keeper, read_json, write_json
from kshot.adapt.learners import low_rank, soft_rows
from kshot.adapt.train import Recipe, State, Until, advance, begin
from kshot.errors import OutputError
from kshot.optim.optimisers import OPTIMISERS


def state() -> State:
    return State(
        leaves={"a.b": torch.arange(6.0).reshape(2, 3).T, "scalar": torch.tensor(1.5)},
        moments={"a.b": {"step": torch.tensor(3.0, dtype=torch.float64), "square": torch.ones(3, 2)}},
        step=3,
        losses=(3.0, 0.1 + 0.2, 1e-300),
        seconds=1.25,
        tokens=7,
        flops=1e18,
        looks=((0, 2.0, None), (2, 1.5, 0.25)),
        best={"a.b": torch.arange(6.0).reshape(3, 2), "scalar": torch.tensor(0.5)},
    )


def same(a: State, b: State) -> None:
    assert a.leaves.keys() == b.leaves.keys()
    assert all(torch.equal(a.leaves[n], b.leaves[n]) and a.leaves[n].dtype == b.leaves[n].dtype for n in a.leaves)
    assert a.best.keys() == b.best.keys()
    assert all(torch.equal(a.best[n], b.best[n]) for n in a.best)
    assert {n: set(own) for n, own in a.moments.items()} == {n: set(own) for n, own in b.moments.items()}
    assert all(torch.equal(own[k], b.moments[n][k]) for n, own in a.moments.items() for k in own)
    names = ("step", "losses", "seconds", "tokens", "flops", "looks")
    assert [getattr(a, n) for n in names] == [getattr(b, n) for n in names]


def test_a_state_is_read_as_it_was_kept(tmp_path: Path) -> None:
    keeper = Keeper(tmp_path / "deep" / "er", "fit", "key")
    assert keeper.found() is None
    keeper.keep(state())
    found = keeper.found()
    assert found is not None
    same(found, state())
    assert [path.name for path in keeper.folder.iterdir()] == ["fit.safetensors"], "nothing half-written is left"
    keeper.done()
    assert keeper.found() is None
    keeper.done()


def test_a_state_is_read_to_its_device(tmp_path: Path) -> None:
    """Without a GPU: the device that keeps no numbers."""
    Keeper(tmp_path, "fit", "key").keep(state())
    found = Keeper(tmp_path, "fit", "key", device=torch.device("meta")).found()
    tensors = [
        *found.leaves.values(),
        *found.best.values(),
        *(t for own in found.moments.values() for t in own.values()),
    ]
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert {t.device.type for t in Keeper(tmp_path, "fit", "key").found().leaves.values()} == {"cpu"}


def test_what_killed_processes_left_is_removed(tmp_path: Path) -> None:
    gone = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True, check=True
    )
    dead, alive = int(gone.stdout), os.getppid()
    names = [f"{name}.{process}.part" for name in ("fit", "search", "fit-2") for process in (dead, os.getpid(), alive)]
    left = {"fit-2." + name.split(".", 1)[1] for name in names} | {f"{name}.{alive}.part" for name in ("fit", "search")}
    for write in (lambda: Keeper(tmp_path, "fit", "key").keep(state()), lambda: Keeper(tmp_path, "fit", "key").done()):
        for name in names:
            (tmp_path / name).touch()
        write()
        write_json(tmp_path / "search.json", "key", 1)
        assert {path.name for path in tmp_path.glob("*.part")} == left


def test_another_run_is_not_gone_on_with(tmp_path: Path) -> None:
    Keeper(tmp_path, "fit", "key").keep(state())
    assert Keeper(tmp_path, "fit", "another").found() is None
    assert Keeper(tmp_path, "other", "key").found() is None


@pytest.mark.parametrize("damage", ["empty", "cut", "text", "bare", "facts"])
def test_a_damaged_state_is_ignored(tmp_path: Path, damage: str) -> None:
    keeper, path = Keeper(tmp_path, "fit", "key"), tmp_path / "fit.safetensors"
    keeper.keep(state())
    whole = path.read_bytes()
    if damage == "bare":
        save_file({"a": torch.ones(1)}, path)
    else:
        path.write_bytes({"empty": b"", "cut": whole[: len(whole) // 2], "text": b"not tensors" * 9,
                          "facts": whole.replace(b'\\"step\\"', b'\\"stop\\"')}[damage])  # fmt: skip
    assert path.read_bytes() != whole
    assert keeper.found() is None


def test_without_a_folder_nothing_is_kept() -> None:
    keeper = Keeper(None, "fit", "key")
    keeper.keep(state())
    keeper.offer(state())
    keeper.done()
    assert keeper.found() is None


def test_a_full_disk_is_one_line_and_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keeper = Keeper(tmp_path, "fit", "key")
    keeper.keep(state())

    def full(tensors, path, metadata=None):
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("kshot.optim.state.save_file", full)
    with pytest.raises(
        OutputError, match=r"^cannot keep the state of training in .*No space left on device.*; give a"
    ) as said:
        keeper.keep(state())
    assert "\n" not in str(said.value)
    monkeypatch.undo()
    same(keeper.found(), state())
    assert [path.name for path in tmp_path.iterdir()] == ["fit.safetensors"]


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    with pytest.raises(OutputError, match="cannot keep the state of training"):
        Keeper(tmp_path / "f", "fit", "key").keep(state())
    with pytest.raises(OutputError, match="cannot write"):
        write_json(tmp_path / "f" / "search.json", "key", 1)


def test_a_value_under_its_key(tmp_path: Path) -> None:
    path = tmp_path / "a" / "search.json"
    assert read_json(path, "key") is None
    write_json(path, "key", {"x": [0.1 + 0.2, None]})
    assert read_json(path, "key") == {"x": [0.1 + 0.2, None]}
    assert read_json(path, "other") is None
    for broken in ("", "{", "[1, 2]", '"text"', '{"key": "key"'):
        path.write_text(broken)
        assert read_json(path, "key") is None


def test_it_is_offered_often_and_kept_seldom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0.0, 14.0, 16.0, 16.0, 16.0, 20.0, 32.0, 32.0, 32.0, 40.0])
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: next(now))
    kept = []
    keeper = Keeper(tmp_path, "fit", "key", next(now))
    monkeypatch.setattr("kshot.optim.state.save_file", lambda *a, **b: kept.append(1) or Path(a[1]).touch())
    for _ in range(2):
        keeper.offer(state())
    assert len(kept) == 1
    keeper.offer(state())
    assert len(kept) == 1


def test_an_offer_that_cannot_be_written_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(checkpoint, "_SECONDS", -1.0)
    monkeypatch.setattr(checkpoint, "_SHARE", 0.0)
    (tmp_path / "f").touch()
    keeper = Keeper(tmp_path / "f", "fit", "key")
    for _ in range(3):
        keeper.offer(state())
    (said,) = caplog.messages
    assert said.startswith("cannot keep the state of training in ")
    assert said.endswith("; training goes on, and would begin again if it were stopped")


@pytest.mark.parametrize("optimiser", OPTIMISERS)
@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_a_stopped_fit_goes_on_to_the_same_bits(tmp_path: Path, optimiser: str, schedule: str) -> None:
    """Batches, moments and the schedule go on where they stood."""
    lm, rows = zoo.lm("llama", torch.float32), plain.rows(1)
    for learner in (low_rank(lm, ("q_proj",), 2, 4.0, seed=0), soft_rows(lm, lm.embedded(range(3, 133)[:90]))):
        recipe = Recipe(
            optimiser=optimiser, learning_rate=0.01, batch=4, warmup=2, schedule=schedule, weight_decay=0.01
        )
        whole = advance(lm, learner, recipe, rows, begin(learner), until=Until(steps=7), seed=3)
        keeper, at = Keeper(tmp_path, "fit", "key"), begin(learner)
        for stop in (2, 5, 7):
            at = advance(lm, learner, recipe, rows, at, until=Until(steps=stop, schedule=7), seed=3)
            keeper.keep(at)
            at = keeper.found()
        assert at is not None
        assert at.losses == whole.losses
        assert all(torch.equal(at.leaves[n], whole.leaves[n]) for n in whole.leaves)
        assert (at.tokens, at.flops) == (whole.tokens, pytest.approx(whole.flops))
