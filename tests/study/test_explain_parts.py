"""Every part of what the demonstrations did, on the tiny model: rows with names, no part silently empty."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from small import films

from kshot.adapt.descent import one_pass
from kshot.errors import MethodError
from kshot.measure.similarity import rec2ftp
from kshot.model.lm import LM
from kshot.study import finetuned
from kshot.study.attributed import Effort
from kshot.study.compared import answered_right
from kshot.study.explain import PARTS, Study, layout_of, task_facts
from kshot.study.explain_settings import MEASURED
from kshot.study.finetuned import GRID, rates, right_answers
from kshot.study.parts import Cell, answered
from kshot.study.sizes import Size

SMALL = Size(shots=4, limit=6, validation=5, grid=(0.001, 0.1), effort=Effort(queries=3, pairs=2, orders=5))


def study(lm: LM, **more) -> Study:
    task = films(40)
    task = replace(task, template=replace(task.template, words={"bad": "no", "good": "yes"}))
    return Study(lm=lm, tasks=(task,), size=replace(SMALL, **more), seeds=(0,))


@pytest.fixture(scope="module")
def lines(tiny_lm: LM) -> dict[str, dict]:
    asked, found = study(tiny_lm), {}
    for cell in asked.cells():
        found[cell.part] = answered(asked, PARTS, cell, found, lambda what: None)
    return found


def test_every_part_answers(lines: dict[str, dict]) -> None:
    assert tuple(lines) == MEASURED
    for part, line in lines.items():
        assert line["failed"] is None, part
        assert line["rows"], part
        for row in line["rows"]:
            assert (row["task"], row["seed"], row["model"]) == ("films", 0, "tiny-0")
            assert row["value"] is not None or row["reason"] or row["layer"] is not None, row
            assert row["value"] is None or math.isfinite(row["value"])
    assert json.loads(json.dumps(lines, allow_nan=False)) == lines
    keys = [(row["measure"], row["variant"], row["layer"]) for line in lines.values() for row in line["rows"]]
    assert len(set(keys)) == len(keys), "no row is there twice"
    measures = {key[0] for key in keys}
    assert measures >= {"accuracy", "rec2ftp", "sim_aou", "sim_am", "sim_am_delta", "kendall", "lambda", "relaxed_r2",
                        "update_norm", "effective_rank", "angle_same", "rank_agreement", "recency", "majority",
                        "common_token", "learning_rate", "optimism", "order_accuracy"}  # fmt: skip


def test_figures_of_the_three_runs_are_those_of_their_answers(tiny_lm: LM, lines: dict[str, dict]) -> None:
    asked = study(tiny_lm)
    setting = asked.setting(asked.tasks[0], 0)
    right = answered_right(setting)
    rate = lines["rates"]["rates"]["corrected"]
    delta = one_pass(tiny_lm, setting.task, setting.template, setting.demonstrations, rate).delta
    tuned = right_answers(tiny_lm, setting.task, setting.template, setting.queries, delta)
    by_name = {(row["measure"], row["variant"]): row for row in lines["runs"]["rows"] if row["layer"] is None}
    assert by_name["accuracy", "zero-shot"]["value"] == right["zero-shot"].mean()
    assert by_name["accuracy", "in-context"]["value"] == right["in-context"].mean()
    assert by_name["accuracy", "corrected, fine-tuned"]["value"] == tuned.mean()
    expected = rec2ftp(right["zero-shot"], tuned, right["in-context"])
    assert by_name["rec2ftp", "corrected"]["value"] == expected.value
    assert by_name["rec2ftp", "corrected"]["null"] == expected.expected


def test_the_published_rate_is_the_best_on_what_is_scored(tiny_lm: LM, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = study(tiny_lm)
    setting = asked.setting(asked.tasks[0], 0)
    validation = asked.validation(setting)
    assert not {e.id for e in validation} & {e.id for e in (*setting.demonstrations, *setting.queries)}
    assert len(validation) == 5
    told = {0.1: (0, 0), 0.2: (6, 2), 0.3: None, 0.4: (6, 5), 0.5: (2, 5), 0.6: (0, 0)}
    now: list[float] = []

    def passed(lm, task, template, shown, rate):
        now[:] = [rate]
        if told[rate] is None:
            raise MethodError("diverged")
        return one_pass(lm, task, template, shown[:1], 1e-6)

    def right(lm, task, template, examples, delta):
        counted[now[0]] = counted.get(now[0], 0) + len(examples)
        places = [setting.queries.index(e) if e in setting.queries else None for e in examples]
        held = [validation.index(e) if e in validation else None for e in examples]
        return np.array(
            [i < told[now[0]][0] if i is not None else j < told[now[0]][1] for i, j in zip(places, held, strict=True)]
        )

    counted: dict[float, int] = {}
    monkeypatch.setattr(finetuned, "one_pass", passed)
    monkeypatch.setattr(finetuned, "right_answers", right)
    # weights are made anew for every question, so that the rate that is asked is known
    monkeypatch.setattr(finetuned, "_KEPT_BYTES", 0)
    every = (setting.queries, validation)
    found = rates(tiny_lm, setting.task, setting.template, setting.demonstrations, every, grid=tuple(told))
    assert (found.published, found.corrected) == (0.2, 0.4)
    assert found.on_queries[1] == found.on_queries[3] == 1.0
    assert found.on_queries[2] is None
    assert found.on_validation[3] == 1.0
    assert found.optimism == 0
    assert counted[0.2] == counted[0.4] == 11, "what is chosen has answered everything, once"
    assert min(counted.values()) < 11, "somebody was given up"
    told |= {0.4: (3, 5)}
    found = rates(tiny_lm, setting.task, setting.template, setting.demonstrations, every, grid=tuple(told))
    assert found.optimism == pytest.approx(0.5)
    told = dict.fromkeys(told)
    with pytest.raises(MethodError, match=r"diverged at every rate from 0\.1 to 0\.5"):
        rates(
            tiny_lm,
            setting.task,
            setting.template,
            setting.demonstrations,
            (setting.queries, validation),
            grid=(0.1, 0.5),
        )
    with pytest.raises(MethodError, match="leaves no training examples for the choice of a learning rate"):
        rates(tiny_lm, setting.task, setting.template, setting.demonstrations, (setting.queries, ()))


def test_the_grid_is_the_papers() -> None:
    assert len(GRID) == 36
    assert (min(GRID), max(GRID)) == (0.0001, 0.9)
    assert {0.007, 0.0005, 0.04, 0.2} <= set(GRID)


def test_what_does_not_apply_says_so(tiny_lm: LM) -> None:
    asked = study(tiny_lm, validation=0)
    found: dict[str, dict] = {}
    for part in ("rates", "runs"):
        found[part] = answered(asked, PARTS, Cell(task="films", seed=0, part=part), found, lambda what: None)
    assert found["rates"]["failed"] == "task 'films' leaves no training examples for the choice of a learning rate"
    assert found["runs"]["failed"] is None
    (note,) = found["runs"]["notes"]
    assert note.startswith(
        "in-context learning is not set against fine-tuning: no learning rate to fine-tune with: task"
    )
    runs = [(row["measure"], row["variant"]) for row in found["runs"]["rows"]]
    assert runs == [("accuracy", "zero-shot"), ("accuracy", "in-context")]


def test_a_cell_is_named_by_what_its_figures_depend_on(tiny_lm: LM) -> None:
    asked = study(tiny_lm)
    ids = [cell.id for cell in asked.cells()]
    assert len(set(ids)) == len(MEASURED)
    assert [cell.id for cell in study(tiny_lm).cells()] == ids
    assert not set(ids) & {cell.id for cell in study(tiny_lm, shots=3).cells()}
    other = replace(asked, tasks=(replace(asked.tasks[0], test=asked.tasks[0].test[1:]),))
    assert not set(ids) & {cell.id for cell in other.cells()}


def test_the_published_layout_is_that_of_its_name_and_labels() -> None:
    task = films()
    assert layout_of(task) == (task.template, len(task.train))
    named = replace(task, name="sst2")
    assert layout_of(named)[0] == task.template, "other labels"
    known = replace(task, name="sst2", labels=("negative", "positive"))
    assert layout_of(known)[0].input == "Sentence: {{text}}\nLabel:"
    assert layout_of(known)[1] == 32
    facts = [task_facts(own, layout_of(own)[0]) for own in (known, replace(known, name="mr"))]
    assert facts[0] != facts[1]


def test_a_layout_that_is_asked_for_stands_in_the_place_of_the_published_one(tiny_lm: LM) -> None:
    known = replace(films(40), name="sst2", labels=("negative", "positive"))
    both = [replace(study(tiny_lm, as_published=on), tasks=(known,)) for on in (True, False)]
    assert [own.layout(known).input for own in both] == ["Sentence: {{text}}\nLabel:", known.template.input]
    assert both[0].identity != both[1].identity
