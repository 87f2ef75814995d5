"""An explanation as a run: on record part by part, the same whether it was stopped or not, wrong input refused."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from small import calm, films, words

from kshot.data.task import Task
from kshot.errors import DataError, KshotError, MethodError, OutputError, UnknownName
from kshot.measure.similarity import sim_aou
from kshot.model.lm import LM
from kshot.study import arrays, explaining
from kshot.study import explain as parts
from kshot.study.explain_settings import ExplainSettings, make_explain_settings
from kshot.study.explaining import explain, sized
from kshot.study.options import command
from kshot.study.place import Finished
from kshot.study.sizes import SIZES
from kshot.study.three_runs import RUNS

# Some parts are enough to see what a run does with them.
PARTS = ("rates", "runs", "implied", "orders")
OPTIONS: dict[str, Any] = {"num_fewshot": 4, "limit": 5, "learning_rate": 0.01, "parts": PARTS}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KSHOT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def asked(tiny_lm: LM, tasks: tuple[Task, ...] = (), **options: Any) -> Finished:
    return explain(make_explain_settings(**{**OPTIONS, **options}), model=tiny_lm, tasks=tasks or (films(40),))


def test_the_record_says_everything_and_is_the_same_again(tiny_lm: LM, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    ours = asked(tiny_lm, output_path=out).results["kshot"]
    assert set(ours) >= {"measures", "verdicts", "pictures", "tasks", "model", "settings", "notes", "cells"}
    assert ours["tasks"]["films"]["shots"] == 4
    assert ours["tasks"]["films"]["queries"] == 5
    assert ours["pictures"]["films"]["orders"]
    assert {cell["part"] for cell in ours["cells"]} == set(PARTS)
    kept = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))["kshot"]
    assert kept == json.loads(json.dumps(ours))
    records = (tmp_path / "out" / "records.jsonl").read_bytes()
    again = asked(tiny_lm, output_path=out).results["kshot"]
    assert (tmp_path / "out" / "records.jsonl").read_bytes() == records, "nothing was left to do"
    assert calm(again["measures"]) == calm(ours["measures"])
    with pytest.raises(OutputError, match="belongs to a different run"):
        asked(tiny_lm, output_path=out, limit=4)


def test_stopped_in_a_part_it_goes_on_from_the_parts_before(
    tiny_lm: LM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = asked(tiny_lm).results["kshot"]
    out = str(tmp_path / "out")

    def stops(*given: Any) -> dict[str, Any]:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setitem(parts.PARTS, "implied", replace(parts.PARTS["implied"], answer=stops))
        with pytest.raises(KeyboardInterrupt) as stop:
            asked(tiny_lm, output_path=out)
    names = list(PARTS)
    before = names.index("implied")
    assert stop.value.__notes__ == [f"{before} of {len(names)} cells are finished in {out!r}"]
    held = [json.loads(line)["part"] for line in (tmp_path / "out" / "records.jsonl").read_text("utf-8").splitlines()]
    assert held == names[:before]
    rest = asked(tiny_lm, output_path=out).results["kshot"]
    for key in ("measures", "verdicts", "pictures", "notes"):
        assert calm(rest[key]) == calm(whole[key]), key


def test_a_part_that_cannot_be_had_is_a_note_and_the_others_go_on(tiny_lm: LM, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*given: Any) -> dict[str, Any]:
        raise MethodError("no such thing here")

    monkeypatch.setitem(parts.PARTS, "implied", replace(parts.PARTS["implied"], answer=fails))
    ours = asked(tiny_lm).results["kshot"]
    assert "films, seed 0, implied: no such thing here" in ours["notes"]
    assert any(row["measure"] == "sim_aou" for row in ours["measures"])
    assert not any(row["measure"] == "update_norm" for row in ours["measures"])


def test_two_seeds_give_rows_over_both(tiny_lm: LM) -> None:
    ours = asked(tiny_lm, seed=(0, 1)).results["kshot"]
    found = {
        row["seed"]: row for row in ours["measures"] if (row["measure"], row["variant"]) == ("accuracy", "in-context")
    }
    assert set(found) == {None, 0, 1}
    assert found[None]["value"] == pytest.approx((found[0]["value"] + found[1]["value"]) / 2)


def test_a_chosen_rate_is_not_chosen_again(tiny_lm: LM, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grid = {"smoke": replace(explaining.SIZES["smoke"], grid=(0.001, 0.01), validation=4)}
    monkeypatch.setattr(explaining, "SIZES", grid)
    first = asked(tiny_lm, learning_rate=None).results["kshot"]
    assert len(list((cache / "rates").iterdir())) == 1

    def never(*given: Any) -> dict[str, Any]:
        raise AssertionError("chosen again")

    monkeypatch.setitem(parts.PARTS, "rates", replace(parts.PARTS["rates"], answer=never))
    again = asked(tiny_lm, learning_rate=None).results["kshot"]
    assert calm(again["measures"]) == calm(first["measures"])
    told = [row["variant"] for row in again["measures"] if row["measure"] in ("learning_rate", "optimism")]
    assert {"published", "corrected", ""} <= set(told), "what was chosen elsewhere is told here, and its optimism"
    with pytest.raises(AssertionError, match="chosen again"):
        asked(tiny_lm, learning_rate=None, seed=(1,))
    # what the choice does not depend on may be otherwise
    more = {"smoke": replace(grid["smoke"], layer_causal=3, effort=replace(grid["smoke"].effort, orders=3))}
    with monkeypatch.context() as patched:
        patched.setattr(explaining, "SIZES", more)
        asked(tiny_lm, learning_rate=None)
    # a damaged file of the cache is as none
    next((cache / "rates").iterdir()).joinpath("line.json").write_text("{", encoding="utf-8")
    with pytest.raises(AssertionError, match="chosen again"):
        asked(tiny_lm, learning_rate=None)


def test_a_rate_that_is_given_is_not_kept_and_one_that_cannot_be_kept_is_no_fault(
    tiny_lm: LM, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = asked(tiny_lm).results["kshot"]["notes"]
    assert any("that was given: none was chosen" in note for note in notes)
    assert not (cache / "rates").exists()
    monkeypatch.setattr(
        explaining, "SIZES", {"smoke": replace(explaining.SIZES["smoke"], grid=(0.001, 0.01), validation=4)}
    )
    cache.mkdir(exist_ok=True)
    (cache / "rates").write_text("in the way", encoding="utf-8")
    found = asked(tiny_lm, learning_rate=None).results["kshot"]["measures"]
    assert any(row["measure"] == "learning_rate" for row in found)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"num_fewshot": 1}, "--num-fewshot 1: what works is a whole number from 2 to 100000"),
        ({"limit": 0}, "--limit 0: what works is a whole number from 1 to 100000000, or all"),
        ({"learning_rate": 0.0}, "--learning-rate 0.0: what works is a number above 0"),
        ({"learning_rate": float("nan")}, "--learning-rate nan: what works is a number above 0"),
        ({"template": ("{{a}}", "{{b}}")}, "--template: what works is one layout, and 2 are given"),
        ({"seed": (-1,)}, "--seed -1: what works is a whole number from 0 to 9223372036854775807"),
        ({"tasks": ()}, "--tasks is empty; give at least one"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], line: str) -> None:
    with pytest.raises(KshotError) as caught:
        make_explain_settings(**options)
    assert str(caught.value) == line


def test_unknown_choices_name_the_nearest() -> None:
    with pytest.raises(UnknownName, match="unknown value of --size 'smok'; did you mean 'smoke'"):
        make_explain_settings(size="smok")


def test_a_task_that_cannot_be_explained_is_refused_before_the_model(tiny_lm: LM) -> None:
    with pytest.raises(DataError, match="asked for 30 demonstrations, and its training pool has 20 labelled examples"):
        asked(tiny_lm, num_fewshot=30)
    bare = replace(films(), test=tuple(replace(example, label=None) for example in films().test))
    with pytest.raises(DataError, match="task 'films' has no labelled test examples to ask"):
        asked(tiny_lm, (bare,))
    with pytest.raises(
        DataError, match="task 'words' has 60 answers to choose from; an explanation works with at most 50"
    ):
        asked(tiny_lm, (words(60),))


def test_numbers_that_are_given_replace_those_of_the_size() -> None:
    size = sized(ExplainSettings(size="medium", num_fewshot=64, limit="all"), 1)
    assert (size.shots, size.limit, size.capped) == (64, "all", False)
    assert len(size.grid) == 36
    given = sized(ExplainSettings(size="medium", learning_rate=0.02), 1)
    assert (given.shots, given.grid, given.validation) == (32, (0.02,), 0)


def test_ranks_are_compared_over_thirty_queries_and_more_of_few_tasks_as_of_many() -> None:
    own = {tasks: sized(ExplainSettings(size="medium"), tasks).effort.queries for tasks in (1, 2, 6, 9)}
    assert own == {1: 36, 2: 18, 6: 6, 9: 6}
    assert sized(ExplainSettings(), 1).effort == SIZES["smoke"].effort


def test_the_command_repeats_the_question() -> None:
    asked = make_explain_settings(tasks=("a.jsonl", "b"), seed=(0, 1), size="medium", learning_rate=0.02)
    assert command("explain", asked) == [
        "kshot", "explain", "a.jsonl", "b", "--size", "medium", "--seed", "0,1", "--learning-rate", "0.02",
    ]  # fmt: skip


def test_what_was_traced_is_kept_as_files_where_that_is_asked(tiny_lm: LM, tmp_path: Path) -> None:
    out = tmp_path / "out"
    found = asked(tiny_lm, output_path=str(out), parts=("runs",), arrays=True).results["kshot"]
    (path,) = (out / "arrays" / "films-0-published-corrected").iterdir()
    with safe_open(path, "numpy") as file:
        names, ids = set(file.keys()), file.metadata()["queries"].splitlines()
        outputs = {run: file.get_tensor(f"last_prompt_token.outputs.{run}") for run in RUNS}
        assert file.get_tensor("appended_label.maps.in-context.4").ndim == 3
        assert {name.split(".")[0] for name in names} == {"last_prompt_token", "appended_label"}
    assert len(ids) == len(outputs["zero-shot"]) == 5
    # What is measured is what is kept.
    own = sim_aou(outputs["in-context"], outputs["zero-shot"], outputs["fine-tuned"], normalised=False)
    row = next(
        r
        for r in found["measures"]
        if r["measure"] == "sim_aou"
        and r["layer"] == 1
        and r["variant"].startswith("published, last prompt token, raw")
    )
    assert own.values[:, 1].mean() == pytest.approx(row["value"])
    with pytest.raises(OutputError, match="belongs to a different run"):
        asked(tiny_lm, output_path=str(out), parts=("runs",))


def test_arrays_need_a_folder(tiny_lm: LM) -> None:
    with pytest.raises(KshotError, match="give output_path"):
        asked(tiny_lm, parts=("runs",), arrays=True)


def test_arrays_that_cannot_be_written_end_the_run_in_one_line(
    tiny_lm: LM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*given: Any, **more: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(arrays, "save_file", full)
    with pytest.raises(OutputError, match=r"cannot write .*000000\.safetensors \(No space left.*leave out --arrays"):
        asked(tiny_lm, output_path=str(tmp_path / "out"), parts=("runs",), arrays=True)


def test_ranks_are_compared_over_all_tasks_too(tiny_lm: LM) -> None:
    tasks = (films(40), words(40))
    ours = asked(tiny_lm, tasks, parts=("attribution",)).results["kshot"]["measures"]
    own = [row for row in ours if row["measure"] == "rank_agreement"]
    name = "gradient_times_input vs leave_one_out/spearman"
    by_task = {row["task"]: row for row in own if row["variant"] == name}
    assert set(by_task) == {"films", "words", None}
    parts = [by_task[task.name] for task in tasks]
    assert by_task[None]["n"] == sum(row["n"] for row in parts) > 0
    mean = sum(row["n"] * row["value"] for row in parts) / by_task[None]["n"]
    assert by_task[None]["value"] == pytest.approx(mean, abs=1e-7)
    assert "each" not in by_task[None]
