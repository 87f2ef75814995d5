"""A whole run on a small model: what it writes, and that it says the same however often it is stopped."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small import calm, films, words

import kshot.study.run as module
from kshot.api import compare
from kshot.data.task import Example, Task
from kshot.data.template import Template
from kshot.errors import DataError, KshotError, NumericError, OutputError, PromptError, UnknownName
from kshot.measure.scoring import score
from kshot.model.lm import LM
from kshot.model.tiny import tiny_lm as fresh_lm
from kshot.show.report import page
from kshot.study import answering
from kshot.study.cells import Cell
from kshot.study.place import Finished
from kshot.study.results import VOLATILE
from kshot.study.run import run
from kshot.study.settings import make_settings

OPTIONS: dict[str, Any] = {"num_fewshot": (0, 2, 3), "seed": (0, 1), "orders": 3, "limit": 8}


def _run(lm: LM, folder: Path | None, tasks: tuple[Task, ...] = (films(), words()), **more: Any) -> Finished:
    path = str(folder) if folder else None
    return run(
        make_settings(tasks=[t.name for t in tasks], output_path=path, **(OPTIONS | more)), model=lm, tasks=tasks
    )


@pytest.fixture(scope="module")
def done(tiny_lm: LM, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return _run(tiny_lm, tmp_path_factory.mktemp("run") / "out")


def _samples(directory: Path | None, cell: dict[str, Any]) -> list[dict[str, Any]]:
    assert directory is not None
    begin, end = cell["samples"]
    return [json.loads(line) for line in (directory / "samples.jsonl").read_bytes()[begin:end].splitlines()]


def test_results_have_the_keys_of_the_contract(done: Finished) -> None:
    assert done.directory is not None
    assert json.loads((done.directory / "results.json").read_text(encoding="utf-8")) == done.results
    assert list(done.results) == [
        "results",
        "configs",
        "versions",
        "n-shot",
        "n-samples",
        "higher_is_better",
        "config",
        "date",
        "transformers_version",
        "task_hashes",
        "total_evaluation_time_seconds",
        "kshot",
    ]
    ours = done.results["kshot"]
    assert {
        "version",
        "argv",
        "settings",
        "model",
        "environment",
        "tasks",
        "answer",
        "cells",
        "summary",
        "comparisons",
        "notes",
    } < set(ours)
    cell = ours["cells"][0]
    for key in [
        "id",
        "task",
        "model",
        "method",
        "params",
        "shots",
        "seed",
        "order",
        "n",
        "accuracy",
        "accuracy_low",
        "accuracy_high",
        "macro_f1",
        "log_loss",
        "ece",
        "seconds",
        "tokens",
        "trainable_parameters",
        "artefact_bytes",
        "peak_rss_bytes",
        "dtype",
        "device",
        "score",
        "scores",
        "confusion",
        "calibration",
        "demonstrations",
        "dropped_demonstrations",
        "skipped",
        "repaired_seams",
        "samples",
    ]:
        assert key in cell
    assert "right" not in cell
    assert done.results["n-samples"]["films"] == {"original": 12, "effective": 8}
    assert set(done.results["results"]["films"]) == {"alias"} | {
        f"{key},{arm}" for key in ("acc", "acc_stderr") for arm in ("zero-shot@0", "in-context@2", "in-context@3")
    }


def test_every_figure_can_be_had_from_the_samples(done: Finished) -> None:
    for cell in done.results["kshot"]["cells"]:
        samples = _samples(done.directory, cell)
        assert len(samples) == cell["n"]
        assert np.mean([sample["right"] for sample in samples]) == pytest.approx(cell["accuracy"])
        for sample in samples:
            assert sample["cell"] == cell["id"]
            assert sample["right"] == (sample["pred"] == sample["gold"])
            assert sample["gold"] in sample["logprobs"]
        if cell["task"] == "films":
            best = [max(s["logprobs"], key=s["logprobs"].get) for s in samples]
            assert [s["pred"] for s in samples] == best
            assert cell["score"] == "sum"
            assert sum(map(sum, cell["confusion"]["counts"])) == cell["n"]
        else:
            assert cell["score"] == "greedy_exact_match"
            assert [s["pred"] for s in samples] == [s["greedy"] for s in samples]
            assert cell["macro_f1"] is None
            assert cell["confusion"] is None


def test_all_cells_of_a_task_ask_the_same_queries_and_never_show_one(done: Finished) -> None:
    for task in ("films", "words"):
        cells = [cell for cell in done.results["kshot"]["cells"] if cell["task"] == task]
        asked = {tuple(sample["doc_id"] for sample in _samples(done.directory, cell)) for cell in cells}
        assert len(asked) == 1
        shown = {name for cell in cells for name in cell["demonstrations"]}
        assert shown
        assert not shown & set(asked.pop())


def test_orders_show_the_same_demonstrations_otherwise(done: Finished) -> None:
    cells = [c for c in done.results["kshot"]["cells"] if (c["task"], c["shots"], c["seed"]) == ("films", 3, 0)]
    assert [cell["order"] for cell in cells] == [0, 1, 2]
    assert len({tuple(cell["demonstrations"]) for cell in cells}) == 3
    assert len({frozenset(cell["demonstrations"]) for cell in cells}) == 1


def test_an_undefined_score_has_its_reason(done: Finished) -> None:
    for cell in done.results["kshot"]["cells"]:
        assert {name for name, value in cell["scores"].items() if value is None} == set(cell["undefined"])
        assert all(cell["undefined"].values())


def test_a_second_start_runs_nothing_and_says_the_same(
    done: Finished, tiny_lm: LM, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(answering, "score", None)
    monkeypatch.setattr(module, "fitted", None)
    with caplog.at_level("INFO", logger="kshot"):
        again = _run(tiny_lm, done.directory)
    assert again.results == done.results
    cells = len(done.results["kshot"]["cells"])
    assert f"{cells} of {cells} cells are here already, 0 to go" in caplog.text


@pytest.mark.parametrize("stop", [1, 4, 9])
def test_a_run_that_was_stopped_goes_on(
    stop: int, done: Finished, tiny_lm: LM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered, asked = module.answered, []

    def until(settings: Any, lm: LM, cell: Cell, *rest: Any) -> Any:
        asked.append(cell.id)
        if len(asked) > stop:
            raise KeyboardInterrupt
        return answered(settings, lm, cell, *rest)

    folder = tmp_path / "out"
    monkeypatch.setattr(module, "answered", until)
    with pytest.raises(KeyboardInterrupt) as caught:
        _run(tiny_lm, folder)
    total = len(done.results["kshot"]["cells"])
    assert caught.value.__notes__ == [f"{stop} of {total} cells are finished in '{folder}'"]
    assert not (folder / "results.json").exists()
    monkeypatch.setattr(module, "answered", lambda *given: asked.append(given[2].id) or answered(*given))
    again = _run(tiny_lm, folder)
    # the cell in progress is asked once more, and no other
    assert len(asked) == total + 1
    assert len(set(asked)) == total
    assert calm(again.results["kshot"]["cells"]) == calm(done.results["kshot"]["cells"])
    assert done.directory is not None
    assert (folder / "samples.jsonl").read_bytes() == (done.directory / "samples.jsonl").read_bytes()


def test_memory_that_is_free_now_and_was_not_then_changes_nothing(done: Finished, tiny_lm: LM, tmp_path: Path) -> None:
    tight = replace(tiny_lm, tokens_per_pack=64, rows_per_pack=16)
    folder = tmp_path / "out"
    _run(tight, folder)
    again = _run(tiny_lm, folder)
    assert [c["id"] for c in again.results["kshot"]["cells"]] == [c["id"] for c in done.results["kshot"]["cells"]]
    assert json.loads((folder / "run.json").read_text(encoding="utf-8"))["packing"] == [64, 16]


def test_another_question_is_not_written_over_the_first(done: Finished, tiny_lm: LM) -> None:
    with pytest.raises(OutputError, match=r"belongs to a different run \(limit: 8 there, 7 here\)"):
        _run(tiny_lm, done.directory, limit=7)
    with pytest.raises(OutputError, match=r"belongs to a different run \(log_samples: True there, False here\)"):
        _run(tiny_lm, done.directory, log_samples=False)
    with pytest.raises(OutputError, match=r"belongs to a different run \(other methods, shots, seeds or orders\)"):
        _run(tiny_lm, done.directory, orders=2)


def test_weights_are_what_they_were(tiny_lm: LM) -> None:
    fresh = {name: parameter.clone() for name, parameter in tiny_lm.model.named_parameters()}
    _run(tiny_lm, None)
    assert all(torch.equal(fresh[name], parameter) for name, parameter in tiny_lm.model.named_parameters())


def test_in_memory_and_in_a_folder_are_the_same(done: Finished, tiny_lm: LM) -> None:
    free = _run(tiny_lm, None)
    assert free.directory is None
    own = [{**calm(cell), "samples": None} for cell in done.results["kshot"]["cells"]]  # type: ignore[dict-item]
    assert calm(free.results["kshot"]["cells"]) == own
    kept = [sample for cell in done.results["kshot"]["cells"] for sample in _samples(done.directory, cell)]
    assert list(free.samples) == kept


def test_without_samples_the_figures_are_the_same(done: Finished, tiny_lm: LM, tmp_path: Path) -> None:
    bare = _run(tiny_lm, tmp_path / "out", log_samples=False)
    assert not (tmp_path / "out" / "samples.jsonl").exists()
    assert calm(bare.results["kshot"]["comparisons"]) == calm(done.results["kshot"]["comparisons"])
    assert calm(bare.results["kshot"]["summary"]) == calm(done.results["kshot"]["summary"])


@pytest.mark.parametrize(
    "more", [{"scoring": "channel"}, {"pick": "bm25"}, {"pick": "hidden"}, {"pick": "balanced"}, {"pick": "first_n"}]
)
def test_other_ways_run_too(more: dict[str, str], tiny_lm: LM) -> None:
    found = _run(tiny_lm, None, num_fewshot=(0, 2), seed=(0,), orders=2, limit=3, **more).results["kshot"]
    assert all(cell["n"] == 3 for cell in found["cells"])
    assert all(cell["params"].items() >= more.items() for cell in found["cells"] if cell["shots"])
    if "scoring" in more:
        assert {cell["score"] for cell in found["cells"]} == {"sum"}


def test_an_ensemble_combines_its_members_and_runs_none_twice(
    tiny_lm: LM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, ...]] = []

    def counted(adapted: Any, task: Task, *rest: Any, **more: Any) -> Any:
        asked.append((task.name, *(example.id for example in adapted.demonstrations)))
        return score(adapted, task, *rest, **more)

    monkeypatch.setattr(answering, "score", counted)
    done = _run(tiny_lm, tmp_path / "out", num_fewshot=3, ensemble="orders", methods="in-context")
    # two tasks, two seeds, three orders of each
    assert len(asked) == len(set(asked)) == 12
    cells = [cell for cell in done.results["kshot"]["cells"] if cell["task"] == "films" and cell["seed"] == 0]
    combined = {cell["params"]["rule"]: cell for cell in cells if "ensemble" in cell["params"]}
    single = [cell for cell in cells if "ensemble" not in cell["params"]]
    assert [cell["order"] for cell in single] == [0, 1, 2]
    own = [_samples(done.directory, cell) for cell in single]
    for number, sample in enumerate(_samples(done.directory, combined["mean-log-probability"])):
        means = {label: np.mean([s[number]["logprobs"][label] for s in own]) for label in ("bad", "good")}
        assert sample["logprobs"] == pytest.approx(means)
    for number, sample in enumerate(_samples(done.directory, combined["majority-vote"])):
        assert [s[number]["pred"] for s in own].count(sample["pred"]) >= 2
    for cell in combined.values():
        for key in ("tokens", "seconds", "artefact_bytes"):
            assert cell[key] == pytest.approx(sum(one[key] for one in single))
        assert cell["demonstrations"] == single[0]["demonstrations"]
    arms = ["in-context@3", "in-context@3[ensemble=orders,rule=majority-vote]"]
    assert [f"acc,{arm}" in done.results["results"]["films"] for arm in arms] == [True, True]
    assert set(done.results["results"]["words"]) == {
        "alias",
        *(f"{key},in-context@3{more}" for key in ("acc", "acc_stderr") for more in ("", "[ensemble=orders]")),
    }


def test_an_ensemble_that_was_stopped_goes_on_to_the_same(
    tiny_lm: LM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"num_fewshot": 2, "seed": 0, "orders": 2, "ensemble": "orders", "methods": "in-context"}
    whole = _run(tiny_lm, None, (films(),), **options).results["kshot"]
    combine = answering.combine
    monkeypatch.setattr(answering, "combine", None)
    with pytest.raises(TypeError):
        _run(tiny_lm, tmp_path / "out", (films(),), **options)
    assert len((tmp_path / "out" / "records.jsonl").read_text(encoding="utf-8").splitlines()) == 2
    monkeypatch.setattr(answering, "combine", combine)
    again = _run(tiny_lm, tmp_path / "out", (films(),), **options).results["kshot"]
    assert calm(again["summary"]) == calm(whole["summary"])


def test_layouts_are_compared_and_combined(tiny_lm: LM, tmp_path: Path) -> None:
    task = replace(films(), layouts=(Template(input="Q: {{text}} A:"),))
    done = _run(tiny_lm, tmp_path / "out", (task,), num_fewshot=(0, 2), seed=0, orders=1, ensemble="templates")
    ours = done.results["kshot"]
    assert ours["tasks"]["films"]["layouts"][0]["input"] == "Q: {{text}} A:"
    arms = [name.removeprefix("acc,") for name in done.results["results"]["films"] if name.startswith("acc,")]
    assert arms[:4] == [
        "zero-shot@0[template=1]",
        "zero-shot@0[template=2]",
        "zero-shot@0[ensemble=templates,rule=majority-vote]",
        "zero-shot@0[ensemble=templates,rule=mean-log-probability]",
    ]
    assert len(arms) == len(ours["summary"]) == 8
    inputs = [_samples(done.directory, cell)[0]["input"] for cell in ours["cells"][:2]]
    assert inputs[1] == "Q: " + inputs[0].removesuffix("\n:") + " A:"
    alone = _run(tiny_lm, None, (replace(task, template=task.layouts[0], layouts=()),), num_fewshot=0, seed=0)
    assert alone.results["kshot"]["summary"][0]["log_loss"] == pytest.approx(ours["summary"][1]["log_loss"])
    text = page(done.results, lambda cell: _samples(done.directory, cell))
    assert "template 2, input" in text
    assert "in-context@2[ensemble=templates,rule=majority-vote]" in text
    reaching = replace(task, layouts=(Template(input="{{title}}"),))
    with pytest.raises(PromptError, match="'title' is undefined"):
        _run(tiny_lm, None, (reaching,))


def test_a_yaml_task_is_shown_as_it_says(tiny_lm: LM, tmp_path: Path) -> None:
    rows = [{"text": f"film {i}", "label": i % 2} for i in range(12)]
    for split in ("train", "test"):
        lines = "".join(json.dumps({**row, "text": f"{split} {row['text']}"}) + "\n" for row in rows)
        (tmp_path / f"{split}.jsonl").write_text(lines, encoding="utf-8")
    (tmp_path / "films.yaml").write_text(
        "task: films\noutput_type: multiple_choice\ndataset_path: json\n"
        "dataset_kwargs: {data_files: {train: train.jsonl, test: test.jsonl}}\n"
        "training_split: train\ntest_split: test\ndoc_to_text: '{{text}} is'\ndoc_to_target: label\n"
        "doc_to_choice: [bad, good]\nnum_fewshot: 3\nfewshot_config: {sampler: first_n}\n",
        encoding="utf-8",
    )
    asked = make_settings(tasks=str(tmp_path / "films.yaml"), limit=4, orders=1, num_fewshot=2)
    cells = run(asked, model=tiny_lm).results["kshot"]["cells"]
    assert [(cell["params"].get("pick"), cell["seed"]) for cell in cells] == [(None, 0), ("first_n", 0)]
    assert cells[1]["demonstrations"] == ["train:0", "train:1"]
    asked = make_settings(tasks=str(tmp_path / "films.yaml"), limit=4, orders=1, pick="balanced", num_fewshot=2)
    picks = [cell["params"].get("pick") for cell in run(asked, model=tiny_lm).results["kshot"]["cells"]]
    assert picks == [None, *["balanced"] * 3]


def test_a_model_that_answers_with_nan_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    lm = fresh_lm()
    next(iter(lm.model.parameters())).data[:] = float("nan")
    with pytest.raises(NumericError) as caught:
        _run(lm, tmp_path / "out")
    line = (
        "films: zero-shot@0, seed 0: tiny-0 answered with NaN in torch.float32; look for NaN or infinity in its weights, "
        "or in what was learned for it"
    )
    assert str(caught.value) == line
    assert not (tmp_path / "out").exists()


def test_a_prompt_that_does_not_fit_is_refused_and_nothing_is_written(tiny_lm: LM, tmp_path: Path) -> None:
    task = films()
    long = replace(task, test=(replace(task.test[0], fields={"text": "a" * 3000}), *task.test[1:]))
    with pytest.raises(PromptError) as caught:
        _run(tiny_lm, tmp_path / "out", (long,), limit="all", overlength="error")
    # 3000 letters, a line break and a colon, a blank and four letters of the answer, and one token for each seam
    assert str(caught.value).startswith("films: zero-shot@0, seed 0: the longest prompt needs 30")
    assert str(caught.value).endswith(" tokens and tiny-0 reads 2048")
    assert not (tmp_path / "out").exists()
    found = _run(tiny_lm, None, (long,), limit="all", overlength="skip").results["kshot"]
    assert {(cell["n"], cell["skipped"]) for cell in found["cells"]} == {(11, 1)}
    assert any(note.startswith("films: up to 1 queries left out") for note in found["notes"])


def test_labels_that_are_nothing_or_the_same_are_refused(tiny_lm: LM, tmp_path: Path) -> None:
    task = films()
    nothing = replace(task, template=replace(task.template, words={"good": ""}, delimiter=""))
    with pytest.raises(PromptError, match="adds no token after its prompt; give it a visible label word"):
        _run(tiny_lm, tmp_path / "out", (nothing,))
    same = replace(task, template=replace(task.template, words={"good": "bad"}))
    with pytest.raises(PromptError, match="labels 'bad' and 'good' become the same tokens; give them different words"):
        _run(tiny_lm, tmp_path / "out", (same,))
    assert not (tmp_path / "out").exists()


def test_a_layout_that_reaches_out_is_refused_before_the_model_is_loaded(tmp_path: Path) -> None:
    task = films()
    reaching = replace(task, template=replace(task.template, input="{{text.__class__.__mro__}}"))
    with pytest.raises(PromptError, match="reaches for what is not data"):
        run(make_settings(model="no-such-model", output_path=str(tmp_path / "out"), num_fewshot=2), tasks=[reaching])
    assert not (tmp_path / "out").exists()


def test_compare_takes_things_and_names(tiny_lm: LM, tiny_model_dir: Path, tmp_path: Path) -> None:
    result = compare(films(), tiny_lm, shots=(0, 2), seeds=0, limit=4, orders=1)
    assert list(result.table()["method"]) == ["zero-shot", "in-context"]
    assert "films" in str(result)
    named = compare("plurals", str(tiny_model_dir), shots=0, seeds=0, limit=2, dtype="float32")
    assert list(named.table()["task"]) == ["plurals"]
    mixed = compare([films(), "plurals"], tiny_lm, shots=0, seeds=0, limit=2)
    assert list(mixed.table()["task"]) == ["films", "plurals"]
    # no command line has these things in memory
    assert mixed.results["kshot"]["argv"] is None
    assert named.results["kshot"]["argv"][:3] == ["kshot", "run", "plurals"]
    assert "plurals" in mixed.report(tmp_path).read_text(encoding="utf-8")
    with pytest.raises(KshotError, match="template goes with tasks by name; give it to load_task"):
        compare(films(), tiny_lm, template="{{text}}")
    with pytest.raises(UnknownName, match="unknown option 'limits'"):
        compare(films(), tiny_lm, limits=4)
    with pytest.raises(UnknownName, match="unknown task 'plurls'; did you mean 'plurals'"):
        compare("plurls", tiny_lm)


def test_the_volatile_names_are_those_of_time_and_memory() -> None:
    assert set(VOLATILE) == {
        "date",
        "total_evaluation_time_seconds",
        "seconds",
        "fit_seconds",
        "query_ms",
        "queries_per_second",
        "peak_rss_bytes",
        "directory",
    }


def test_a_query_never_stands_in_its_own_prompt(tiny_lm):
    rows = tuple(Example(id=f"{i}", fields={"text": f"film {i}"}, label=("bad", "good")[i % 2]) for i in range(8))
    task = Task(
        name="films", kind="classification", labels=("bad", "good"), train=rows[:4],
        test=(replace(rows[0], id="other"), *rows[4:]), template=Template(input="{{text}} was"),
    )  # fmt: skip
    found = compare(task, tiny_lm, shots=3, seeds=(0, 1, 2)).results["kshot"]
    assert {name for cell in found["cells"] for name in cell["demonstrations"]} == {"1", "2", "3"}
    assert "films: 1 of 4 training examples are test examples too and are never shown" in found["notes"]
    with pytest.raises(DataError, match="4"):
        compare(task, tiny_lm, shots=4, seeds=0)
