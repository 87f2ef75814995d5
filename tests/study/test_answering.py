"""Cells answered: noise as it is told, failures that stop nobody, fits that go on, records that are JSON."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from small import calm, films, words

from kshot.adapt import course as course_module
from kshot.adapt import learn as learn_module
from kshot.adapt.examples import given
from kshot.adapt.judge import Judge
from kshot.data.task import Example
from kshot.errors import DataError, KshotError, PromptError
from kshot.model.lm import LM
from kshot.study.answering import taught_from
from kshot.study.cells import Cell, recipe
from kshot.study.run import run
from kshot.study.settings import make_settings


def cell(
    method: str = "lora", shots: int = 8, pick: str = "random", task: str = "films", seed: int = 0, **more
) -> Cell:
    return Cell(task=task, method=method, shots=shots, seed=seed, order=0, params={"pick": pick, **more})


def learned_from(task, one: Cell) -> tuple[Example, ...]:
    """What a method of this cell gets to learn from."""
    examples, more = taught_from(task, one)
    made = recipe(one, task, **more)
    return given(task, examples, shots=made.shots, how=made.pick, seed=one.seed, ids=made.ids)


@pytest.mark.parametrize("pick", ["random", "balanced", "first_n", "bm25"])
@pytest.mark.parametrize(("share", "wrong"), [(0.25, 2), (0.5, 4), (1.0, 8), (0.0, 0)])
@pytest.mark.parametrize("seed", [0, 3])
def test_so_many_labels_are_wrong(pick: str, share: float, wrong: int, seed: int) -> None:
    task = films(40)
    right = {example.id: example.label for example in task.train}
    one = cell(pick=pick, noise=share, seed=seed)
    found = learned_from(task, one)
    assert len(found) == 8
    assert sum(example.label != right[example.id] for example in found) == wrong
    assert {example.label for example in found} <= set(task.labels)
    assert found == learned_from(task, one)
    clean = learned_from(task, cell(pick=pick, seed=seed))
    assert [example.id for example in found] == [example.id for example in clean], "the same examples, in their order"
    assert [example.label for example in clean] == [right[example.id] for example in clean]
    if wrong in (2, 4):
        other = learned_from(task, replace(one, seed=seed + 1))
        assert [e.id for e in other if e.label != right[e.id]] != [e.id for e in found if e.label != right[e.id]]


def test_what_is_wrong_is_another_answer() -> None:
    spoken = words(24)
    answers = {example.label for example in spoken.train}
    right = {example.id: example.label for example in spoken.train}
    found = learned_from(spoken, cell(task="words", noise=0.5))
    assert sum(example.label != right[example.id] for example in found) == 4
    assert {example.label for example in found} <= answers
    chosen = replace(films(40), kind="choice", labels=())
    chosen = replace(chosen, train=tuple(replace(e, choices=(e.label, f"{e.id} not")) for e in chosen.train))
    for example in learned_from(chosen, cell(noise=1.0)):
        assert example.label == f"{example.id} not"


def test_where_every_query_picks_its_own_a_share_of_all_is_wrong() -> None:
    task = films(40)
    examples, more = taught_from(task, cell("in-context", pick="bm25", noise=0.25))
    assert more == {}
    assert sum(a.label != b.label for a, b in zip(examples, task.train, strict=True)) == 5


def ask(tiny_lm: LM, *methods: str, folder: Path | None = None, task=None, **more):
    options = {"tasks": ("films",), "methods": methods, "num_fewshot": (2,), "seed": (0,), "limit": 4, "orders": 1,
               "noise": 0, "budget": "3steps", "save": False, **more}  # fmt: skip
    settings = make_settings(**options, **({"output_path": str(folder)} if folder else {}))
    return run(settings, model=tiny_lm, tasks=(task or films(),))


def test_a_cell_that_fails_says_why_and_the_others_go_on(tiny_lm: LM, tmp_path: Path) -> None:
    methods = ("lora:targets=k_prj", "fine-tune:weights=k_prj", "soft-prompt:init=uniform:length=4000", "zero-shot",
               "prefix:init=random:length=2040", "lora:learning_rate=1e38:optimiser=sgd:clip=0")  # fmt: skip
    ours = ask(tiny_lm, *methods, folder=tmp_path / "run").results["kshot"]
    found = ours["cells"]
    assert "films: 5 of 6 cells came to no result; the means are over the others" in ours["notes"]
    assert sum(f": {c['failed']}" in note for c in found if c["failed"] for note in ours["notes"]) == 5
    by_name = {repr((c["method"], c["params"].get("targets"))): c for c in found}
    said = {name: c["failed"] for name, c in by_name.items()}
    assert said["('zero-shot', None)"] is None
    assert said["('lora', ('k_prj',))"].startswith("unknown target module 'k_prj'; did you mean 'k_proj'")
    assert said["('fine-tune', None)"].startswith("unknown weights 'k_prj'; did you mean 'k_proj'")
    assert "leaves no room for a query" in said["('soft-prompt', None)"]
    assert "do not fit tiny-0, which reads 2048" in said["('prefix', None)"]
    assert "diverged" in said["('lora', None)"] or "NaN" in said["('lora', None)"]
    for c in found:
        if c["failed"] is not None:
            assert c["accuracy"] is None
            assert c["fit_seconds"] is None
            assert c["n"] == 0
            assert "\n" not in c["failed"]
        else:
            assert c["accuracy"] is not None
    for line in (tmp_path / "run" / "records.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_what_no_method_can_have_is_said_before_anything_runs(tiny_lm: LM, tmp_path: Path) -> None:
    for way, said in (
        ("lora:learning_rate=-1", "learning rate -1.0"),
        ("lora:optimiser=adm", "unknown optimiser"),
        ("lora:rank=0", "lora of rank 0"),
        ("tfidf:c=-1", "asked for c = -1"),
    ):
        with pytest.raises(KshotError, match=said):
            ask(tiny_lm, "zero-shot", way, folder=tmp_path / "run")
    with pytest.raises(KshotError, match="budget 'soon': what works is a number of steps, passes or seconds"):
        ask(tiny_lm, "zero-shot", "lora", budget="soon", folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_data_that_a_start_needs_and_cannot_have(tiny_lm: LM, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_):
        raise DataError("no corpus here")

    monkeypatch.setattr("kshot.adapt.initial.counts", none)
    found = ask(tiny_lm, "soft-prompt:init=vocabulary", "zero-shot").results["kshot"]["cells"]
    assert ["no corpus here" in (c["failed"] or "") for c in found] == [c["method"] == "soft-prompt" for c in found]


def test_a_prompt_that_cannot_be_asked_still_stops_what_was_not_trained(tiny_lm: LM) -> None:
    with pytest.raises(PromptError, match="films: zero-shot@0, seed 0: the longest prompt needs"):
        ask(replace(tiny_lm, context=5), "zero-shot")


def test_how_it_was_learned_is_on_record(tiny_lm: LM) -> None:
    found = ask(tiny_lm, "lora:rank=2", "in-context", num_fewshot=(8,)).results["kshot"]["cells"]
    lora, shown = ({c["method"]: c for c in found}[name] for name in ("lora", "in-context"))
    assert shown["training"] is None
    assert shown["trainable_parameters"] == 0
    training = lora["training"]
    assert training["parameters"] == lora["trainable_parameters"] > 0
    assert len(training["losses"]) == training["steps"] == training["chosen"]["steps"]
    assert sorted(training["search"][0]) == ["accuracy", "best_step", "curve", "diverged",
                                                             "learning_rate", "loss", "steps"]  # fmt: skip
    assert "2 of the 8 examples held out" in training["validation"]
    assert lora["query_ms"] > 0
    assert lora["fit_seconds"] >= training["seconds"] > 0
    assert lora["seconds"] > lora["fit_seconds"]
    assert lora["params"]["rank"] == 2


def test_what_is_recommended_is_saved_without_another_search(
    tiny_lm: LM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched, searches = learn_module.searched, []

    def counted(pupil, *given):
        found = searched(pupil, *given)
        searches.append(found)
        return found

    looks = []
    look = Judge.look
    monkeypatch.setattr(learn_module, "searched", counted)
    monkeypatch.setattr(Judge, "look", lambda *a: looks.append(len(searches)) or look(*a))
    ask(tiny_lm, "lora", num_fewshot=(8,), save=True, folder=tmp_path / "run")
    assert (tmp_path / "run" / "artefacts" / "films" / "kshot.json").is_file()
    assert len(searches) == 2
    assert set(looks) == {0}, "the second reads what the first found"


def test_a_run_that_is_stopped_and_goes_on_is_one_that_was_not(
    tiny_lm: LM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    methods = ("lora", "soft-prompt:init=uniform:length=3")
    more = {"num_fewshot": (2, 8), "noise": 0.25}
    whole = ask(tiny_lm, *methods, folder=tmp_path / "whole", **more).results
    advance, left = course_module.advance, [7]

    def mortal(*given, **told):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return advance(*given, **told)

    monkeypatch.setattr(course_module, "advance", mortal)
    for _ in range(30):
        left[0] += 9
        try:
            found = ask(tiny_lm, *methods, folder=tmp_path / "parts", **more).results
            break
        except KeyboardInterrupt:
            continue

    def plain(results):
        cells = calm(results["kshot"]["cells"])
        return [{**c, "training": calm({k: v for k, v in c["training"].items() if k != "seconds"})} for c in cells]

    assert plain(found) == plain(whole)


def test_a_first_start_says_nothing_of_cells_that_are_here(tiny_lm: LM, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="kshot"):
        ask(tiny_lm, "zero-shot")
    assert "already" not in caplog.text
