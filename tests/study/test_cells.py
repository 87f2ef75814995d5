"""The cells that a question asks for where something is trained."""

from dataclasses import replace

import pytest
from small import films, words

from kshot.errors import KshotError
from kshot.measure.ensemble import ENSEMBLES
from kshot.study.cells import NOISY_TIMES, cells_of, members, recipe
from kshot.study.settings import make_settings


def asked(*methods: str, **more):
    return make_settings(**{"tasks": ("films",), "methods": methods, "num_fewshot": (2, 8), "seed": (0, 1), **more})


def test_what_is_trained_has_seeds_and_no_orders() -> None:
    cells, _ = cells_of(asked("in-context", "lora", orders=3, noise=0), (films(),))
    lora = [c for c in cells if c.method == "lora"]
    assert sorted((c.shots, c.seed, c.order) for c in lora) == [(2, 0, 0), (2, 1, 0), (8, 0, 0), (8, 1, 0)]
    assert any(c.order for c in cells if c.method == "in-context")
    assert all({"budget", "validation", "pick"} <= set(c.params) for c in lora)
    assert not any("budget" in c.params for c in cells if c.method == "in-context")


def test_seeds_still_matter_where_a_pick_draws_nothing() -> None:
    cells, _ = cells_of(asked("in-context", "lora", pick="first_n", noise=0), (films(),))
    assert {c.seed for c in cells if c.method == "in-context"} == {0}
    assert {c.seed for c in cells if c.method == "lora"} == {0, 1}


def test_noise_only_beside_what_is_trained_and_within_the_largest_size() -> None:
    cells, _ = cells_of(asked("zero-shot", "in-context", "tfidf", "lora"), (films(),))
    noisy = [c for c in cells if "noise" in c.params]
    assert {(c.method, c.shots, c.seed) for c in noisy} == {
        (m, NOISY_TIMES * 2, s) for m in ("in-context", "tfidf", "lora") for s in (0, 1)
    }
    assert {c.params["noise"] for c in noisy} == {0.25}
    for settings in (asked("in-context", "tfidf"), asked("lora", noise=0), asked("lora", num_fewshot=(2, 4)),
                     asked("lora", pick="fixed", ids=("films/0", "films/1"))):  # fmt: skip
        assert not any("noise" in c.params for c in cells_of(settings, (films(),))[0])


def test_options_are_params_and_reach_the_method() -> None:
    cells, _ = cells_of(asked("lora:rank=2:targets=q_proj", "lora", budget="7steps", noise=0), (films(),))
    assert len({repr(c.params) for c in cells}) == 2
    made = recipe(cells[0], films())
    assert (made.rank, made.targets, made.course.budget, made.template) == (2, ("q_proj",), "7steps", films().template)
    assert recipe(cells[-1], films()).rank == 8


@pytest.mark.parametrize("task", [films(), words()])
def test_draws_are_combined_for_what_is_trained_alone(task) -> None:
    settings = asked("in-context", "lora", ensemble="draws", draws=3, noise=0, num_fewshot=(2,))
    cells, _ = cells_of(settings, (replace(task, name="films"),))
    combined = [c for c in cells if "ensemble" in c.params]
    rules = {"majority-vote"} if task.kind == "open" else set(ENSEMBLES)
    assert {(c.method, c.seed, c.params["rule"]) for c in combined} == {("lora", s, r) for s in (0, 1) for r in rules}
    for cell in combined:
        own = members(cell)
        assert [recipe(m, task).course.draw for m in own] == [0, 1, 2]
        assert own[0].params in [c.params for c in cells], "the first is a cell of its own already"
    (alone,) = members(cells[0])
    assert replace(alone, id="") == replace(cells[0], id="")


def test_every_layout_and_ensembles_of_them() -> None:
    task = replace(films(), layouts=(replace(films().template, input="Q {{text}}"),))
    cells, _ = cells_of(asked("lora", ensemble="templates", noise=0, num_fewshot=(2,), seed=(0,)), (task,))
    assert [c.params.get("template") for c in cells[:2]] == [1, 2]
    assert recipe(cells[1], task).template.input == "Q {{text}}"
    assert all(len(members(c)) == 2 for c in cells[2:])


def test_the_channel_is_refused_where_it_is_none() -> None:
    with pytest.raises(
        KshotError, match=r"^--scoring channel goes with zero-shot and in-context, and lora is asked for$"
    ):
        cells_of(asked("zero-shot", "lora", scoring="channel"), (films(),))


def test_what_does_not_apply_has_a_note_and_what_cannot_be_read_is_refused() -> None:
    _, notes = cells_of(asked("in-context", ensemble="draws"), (films(),))
    assert notes == ("--ensemble draws: nothing that --methods names is trained, so nothing is combined",)
    _, notes = cells_of(asked("in-context", transfer_to=("films",)), (films(),))
    assert notes == ("--transfer-to films: that is the task itself, which is asked in any case",)
    with pytest.raises(KshotError, match=r"^budget .foo.: what works is a number of steps"):
        cells_of(asked("in-context", budget="foo"), (films(),))
