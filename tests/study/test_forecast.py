"""A forecast counts what the parts ask, and tells minutes from hours."""

from dataclasses import replace

import pytest
from small import films

from kshot.errors import MethodError
from kshot.model.lm import LM
from kshot.study import forecast
from kshot.study.explain import PARTS, Study
from kshot.study.forecast import seconds_to_go
from kshot.study.parts import duration
from kshot.study.sizes import SIZES


def study(lm: LM, size: str = "smoke", **more) -> Study:
    return Study(lm=lm, tasks=(films(40),), size=replace(SIZES[size], **more), seeds=(0,))


def test_every_part_is_counted() -> None:
    assert set(forecast._WORK) == set(PARTS)


def test_more_is_asked_for_longer(tiny_lm: LM, monkeypatch: pytest.MonkeyPatch) -> None:
    own = study(tiny_lm)
    paced = forecast._pace(own, own.tasks[0])
    assert paced is not None
    monkeypatch.setattr(forecast, "_pace", lambda study, task: (paced[0], 0.5, 2.0))
    small = sum(seconds_to_go(own, own.cells()))
    large = study(tiny_lm, "medium")
    assert seconds_to_go(own, own.cells()[:1]) == [0], "a rate that is given takes no time"
    assert large.cells()
    assert sum(seconds_to_go(large, large.cells())) > 3 * small
    (orders,) = [cell for cell in own.cells() if cell.part == "orders"]
    assert seconds_to_go(own, [orders]) == pytest.approx([0.5 * 1.5 * 12 * own.size.effort.queries])
    assert seconds_to_go(own, []) is None


def test_what_cannot_be_timed_is_left_to_its_parts(tiny_lm: LM, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*given, **more):
        raise MethodError("no projections of keys and values")

    monkeypatch.setattr(forecast, "one_pass", fails)
    own = study(tiny_lm)
    assert seconds_to_go(own, own.cells()) is None


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(3.0, "less than a minute"), (61.0, "about 1 minute"), (3600.0, "about 60 minutes"), (1e5, "about 27.8 hours")],
)
def test_durations_in_words(seconds: float, said: str) -> None:
    assert duration(seconds) == said
