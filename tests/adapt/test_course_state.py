"""A fit that is stopped goes on to the same bits; what is kept of it, where, and what is not trained twice."""

import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from fits import SMALL, bits, films, soft, thin, told

from kshot.adapt import course as course_module
from kshot.adapt import search as search_module
from kshot.adapt.checkpoint import Keeper
from kshot.adapt.course import Course, Pupil
from kshot.adapt.judge import Judge
from kshot.data.task import Task
from kshot.data.template import Template
from kshot.errors import OutputError
from kshot.model.delta import Delta, LowRank
from kshot.model.lm import LM
from kshot.model.momentum import Momentum


def test_a_state_is_read_to_where_the_model_is(tiny_lm: LM, tmp_path: Path) -> None:
    """Without a GPU: the device that keeps no numbers."""
    far = replace(tiny_lm, device=torch.device("meta"))
    pupil = Pupil(lm=far, task=films(), course=replace(SMALL, state=str(tmp_path)), make=lambda taught: 1 / 0,
                  seed=0, key="k")  # fmt: skip
    assert pupil.keeper("rate").device == pupil.fit_keeper(0.1, 3).device == torch.device("meta")


class Killed(Exception):
    pass


def same_in_the_end(lm: LM, task: Task, course: Course, whole, left: list[int]) -> None:
    """A fit that is killed after every two turns (``left`` is set to so many) comes to what one that was not came to."""
    kills = 0
    while True:
        left[0] = 2
        try:
            found = soft(lm, task, course)
            break
        except Killed:
            kills += 1
            assert kills < 60, "it goes on from nothing again and again"
    assert kills > 5
    assert told(found) == told(whole)
    assert all(torch.equal(a, b) for a, b in zip(bits(found), bits(whole), strict=True))


@pytest.mark.parametrize("optimiser", ["adafactor", "adamw"])
def test_a_fit_that_is_killed_goes_on_to_the_same_bits(
    tiny_lm: LM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimiser: str
) -> None:
    """Killed after every few steps, search and all, with a state kept at every turn."""
    course = replace(SMALL, optimiser=optimiser, schedule="cosine")
    task, kept = films(), replace(course, state=str(tmp_path))
    whole = soft(tiny_lm, task, course)
    monkeypatch.setattr(Keeper, "offer", Keeper.keep)
    advance, left, ran = course_module.advance, [0], [0]

    def mortal(*given, **more):
        if left[0] == 0:
            raise Killed
        left[0] -= 1
        found = advance(*given, **more)
        ran[0] += found.step - given[4].step
        return found

    monkeypatch.setattr(course_module, "advance", mortal)
    same_in_the_end(tiny_lm, task, kept, whole, left)
    assert ran[0] == sum(one["steps"] for one in whole.training.search), "no step ran twice"
    assert [path.name for path in tmp_path.iterdir()] == ["search.json"], "what is done with is removed"


def test_a_fit_that_is_killed_while_it_looks_goes_on_to_the_same_bits(
    tiny_lm: LM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each life sees the look at which the last one ended, and ends at the next."""
    course = replace(SMALL, budget="40steps", grid=(0.01, 0.1))
    task, kept = films(), replace(course, state=str(tmp_path))
    whole = soft(tiny_lm, task, course)
    monkeypatch.setattr(Keeper, "offer", Keeper.keep)
    look, left = Judge.look, [0]

    def mortal(self, placed, step):
        if left[0] == 0:
            raise Killed
        left[0] -= 1
        return look(self, placed, step)

    monkeypatch.setattr(Judge, "look", mortal)
    same_in_the_end(tiny_lm, task, kept, whole, left)


def test_a_full_disk_does_not_end_a_fit(
    tiny_lm: LM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    plain = soft(tiny_lm, films(), SMALL)

    def full(*given):
        raise OutputError("no room")

    monkeypatch.setattr("kshot.adapt.checkpoint._SECONDS", -1.0)
    monkeypatch.setattr("kshot.adapt.checkpoint._SHARE", 0.0)
    monkeypatch.setattr("kshot.adapt.checkpoint.keep", full)
    monkeypatch.setattr(search_module, "write_json", full)
    found = soft(tiny_lm, films(), replace(SMALL, state=str(tmp_path)))
    assert told(found) == told(plain)
    assert sum("training goes on" in line for line in caplog.messages) <= 1 + len(SMALL.grid), "once a run"
    assert "no room; the fit goes on, and would search again if it were stopped" in caplog.messages


def test_a_search_is_read_back_where_it_is_the_same(
    tiny_lm: LM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, kept = films(), replace(SMALL, state=str(tmp_path))
    first = soft(tiny_lm, task, kept)
    looks = []
    look = Judge.look
    monkeypatch.setattr(Judge, "look", lambda *a: looks.append(1) or look(*a))
    assert asdict(soft(tiny_lm, task, kept).training)["search"] == asdict(first.training)["search"]
    assert not looks
    for other in (replace(task, template=Template(input="{{text}}")), replace(task, labels=("good", "bad"))):
        soft(tiny_lm, other, kept)
        assert looks, "another question is another search"
        looks.clear()
    soft(tiny_lm, task, replace(kept, weight_decay=0.1))
    assert looks
    looks.clear()
    thin_q = LowRank(torch.ones(1, 32), torch.ones(32, 1), 0.1)
    for reader in (
        replace(tiny_lm, momentum=Momentum(decay=torch.full(tiny_lm.value_heads, 0.5))),
        replace(tiny_lm, delta=Delta(low_rank={"model.layers.0.self_attn.q_proj": thin_q})),
    ):
        soft(reader, task, kept)
        assert looks, "another model is another search"
        looks.clear()
    (tmp_path / "search.json").write_text("{broken")
    assert told(soft(tiny_lm, task, kept)) == told(first)
    assert looks


def test_large_runs_wait_on_disk_and_change_nothing(
    tiny_lm: LM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    course = replace(SMALL, budget="16steps")
    monkeypatch.setattr(search_module, "_LARGE", 1)
    plain = thin(tiny_lm, films(16), course)
    held: list[int] = []
    further = search_module._further

    def watched(pupil, learner, rows, judge, trial, share, until):
        held.append(sum(bool(own.state.leaves) for own in alive()))
        return further(pupil, learner, rows, judge, trial, share, until)

    def alive():
        frame = sys._getframe(2)
        return frame.f_locals["alive"]

    monkeypatch.setattr(search_module, "_further", watched)
    found = thin(tiny_lm, films(16), replace(course, state=str(tmp_path)))
    assert told(found) == told(plain)
    assert all(
        torch.equal(a, b) for a, b in zip(found.placed.delta.tensors(), plain.placed.delta.tensors(), strict=True)
    )
    assert held
    assert max(held) == 0, "none but the one under way is in memory"
    assert not list(tmp_path.glob("*.safetensors")), "nothing is left behind"


def test_the_best_run_is_run_again_only_where_it_is_large(tiny_lm: LM, monkeypatch: pytest.MonkeyPatch) -> None:
    ran, advance = [0], course_module.advance

    def counted(*given, **more):
        before, found = given[4].step, advance(*given, **more)
        ran[0] += found.step - before
        return found

    monkeypatch.setattr(course_module, "advance", counted)
    small = soft(tiny_lm, films(16))
    searched = sum(one["steps"] for one in small.training.search)
    assert ran[0] == searched > small.training.steps > 0
    ran[0] = 0
    monkeypatch.setattr(search_module, "_LARGE", 1)
    large = soft(tiny_lm, films(16))
    assert ran[0] == searched + large.training.steps
    assert large.training.tokens > small.training.tokens, "what is run again counts again"
    cost = {"tokens", "flops"}
    kept = [{name: value for name, value in told(one).items() if name not in cost} for one in (small, large)]
    assert kept[0] == kept[1]
    assert all(torch.equal(a, b) for a, b in zip(bits(small), bits(large), strict=True))
