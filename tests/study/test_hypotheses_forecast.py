"""The forecast of the battery: what it counts is what is read."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace

import letters
import pytest

from kshot.data.builtin.composed import chains
from kshot.model import tiny
from kshot.model.lm import LM, Group, OnProgress
from kshot.model.said import Scores
from kshot.study.hypotheses import relations
from kshot.study.hypotheses.battery import PARTS, Battery
from kshot.study.hypotheses.forecast import seconds_to_go, tokens
from kshot.study.hypotheses.scale import SCALES

FILMS = letters.films(120)
SCALE = replace(SCALES["smoke"], shots=4, limit=6, functions=3, seeds=(0, 1))


@dataclass(frozen=True, slots=True, eq=False)
class Read(LM):
    """A model that reads, and says how much that was."""

    counted: list[int] = field(default_factory=list)

    def score_together(self, groups: Sequence[Group], on_progress: OnProgress | None = None) -> Scores:
        found = LM.score_together(self, groups, on_progress)
        self.counted.append(found.tokens)
        return found


@pytest.fixture(scope="module")
def lm() -> LM:
    """A random little Llama whose tokens are words, and whose packs hold whatever is asked."""
    return replace(tiny.tiny_lm(tokenizer=letters.codec().tokenizer), tokens_per_pack=1 << 20, rows_per_pack=1 << 20)


@pytest.mark.parametrize("part", PARTS)
def test_what_is_counted_is_what_is_read(lm: LM, part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relations, "chains", lambda: chains()[::6])
    reading = Read(**{one.name: getattr(lm, one.name) for one in fields(LM)})
    own = Battery(lm=reading, tasks=(FILMS,), scale=SCALE).with_words()
    reading.counted.clear()
    PARTS[part].answer(own, own.setting(FILMS, 0), {}, lambda what: None)
    # A function with rarer words for answers may share fewer beginnings.
    near = 0.02 if part == "functions" else 0.0
    assert tokens(replace(own, lm=lm), FILMS, part) == pytest.approx(sum(reading.counted), rel=near)


def test_of_a_few_queries_nothing_is_forecast(lm: LM) -> None:
    own = Battery(lm=lm, tasks=(FILMS,), scale=SCALE).with_words()
    assert seconds_to_go(own, own.cells()) is None


def test_twice_as_many_seeds_take_twice_as_long(lm: LM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kshot.study.hypotheses.forecast._pace", lambda battery, task: 0.5)
    own = Battery(lm=lm, tasks=(FILMS,), scale=replace(SCALE, limit=40, parts=("fast",))).with_words()
    one, both = seconds_to_go(own, own.cells()[:1]), seconds_to_go(own, own.cells())
    assert one == [0.5 * tokens(own, FILMS, "fast")]
    assert both == 2 * one, "each seed as long as the other"


def test_a_task_that_cannot_be_asked_is_left_to_its_parts(lm: LM) -> None:
    own = Battery(lm=replace(lm, context=8), tasks=(FILMS,), scale=replace(SCALE, limit=40)).with_words()
    assert tokens(own, FILMS, "fast") == 0
