"""Taught one task, asked another: what is learned stays, what is asked changes."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from small import calm, films, words

from kshot.adapt.course import Course
from kshot.data.task import Example
from kshot.errors import DataError
from kshot.model.lm import LM
from kshot.study import answering
from kshot.study.run import run
from kshot.study.settings import Settings, make_settings
from kshot.study.tasks import apart, with_transfers


def shows_file(folder: Path, labels: tuple[str, str] = ("good", "bad")) -> Path:
    """A task of the same labels whose texts are none of the films'."""
    path = folder / "shows.jsonl"
    lines = [json.dumps({"text": f"show {i} went on", "label": labels[i % 2]}) + "\n" for i in range(40)]
    path.write_text("".join(lines), encoding="utf-8")
    return path


def test_a_transfer_keeps_what_is_learned_and_asks_the_other(tmp_path: Path) -> None:
    other = shows_file(tmp_path)
    here, there = with_transfers(make_settings(transfer_to=str(other)), (films(),))
    assert here == films()
    assert there.name == "films to shows"
    assert (there.train, there.template, there.labels) == (here.train, here.template, here.labels)
    assert {e.id for e in there.test}.isdisjoint(e.id for e in here.test)
    assert there.source == "taught films, asked shows"


def test_labels_that_differ_are_refused(tmp_path: Path) -> None:
    other = shows_file(tmp_path, ("sad", "glad"))
    with pytest.raises(DataError) as caught:
        with_transfers(make_settings(transfer_to=str(other)), (films(),))
    assert str(caught.value) == (
        f"--transfer-to {other}: it has the labels glad, sad, and films has bad, good; both need the same"
    )
    with pytest.raises(DataError, match="both need the same"):
        with_transfers(make_settings(transfer_to=str(other)), (words(),))


def test_a_run_with_a_transfer_has_rows_of_both(tiny_lm: LM, tmp_path: Path) -> None:
    other = shows_file(tmp_path)
    options: dict[str, Any] = {"num_fewshot": 4, "seed": 0, "orders": 1, "limit": 6, "budget": "2steps"}
    asked = make_settings(tasks="films", methods=("zero-shot", "lora:rank=2"), transfer_to=str(other), **options)
    cells = run(asked, model=tiny_lm, tasks=(films(),)).results["kshot"]["cells"]
    found = {(cell["task"], cell["method"]): cell for cell in cells}
    assert set(found) == {(t, m) for t in ("films", "films to shows") for m in ("zero-shot", "lora")}
    # one and the same training, asked twice
    assert found["films", "lora"]["training"]["losses"] == found["films to shows", "lora"]["training"]["losses"]


def test_what_is_taught_is_taught_once_for_all_that_is_asked(
    tiny_lm: LM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = shows_file(tmp_path)
    options: dict[str, Any] = {"num_fewshot": (2, 4), "seed": (0, 1), "orders": 1, "limit": 4, "budget": "2steps"}
    options |= {"noise": 0.5, "ensemble": "draws", "draws": 2}
    asked = make_settings(tasks="films", methods=("lora:rank=2",), transfer_to=str(other), **options)
    fit, fitted_cells = answering.fitted, []

    def counted(question: Any, lm: LM, cell: Any, watch: Any) -> Any:
        fitted_cells.append(cell)
        return fit(question, lm, cell, watch)

    monkeypatch.setattr(answering, "fitted", counted)
    both = run(asked, model=tiny_lm, tasks=(films(),)).results["kshot"]["cells"]
    # two sizes, two seeds, two draws; noise would take 16 examples and is left out
    assert len(fitted_cells) == 8
    monkeypatch.setattr(answering, "fitted", fit)
    alone = run(replace(asked, transfer_to=()), model=tiny_lm, tasks=(films(),)).results["kshot"]["cells"]
    first = [calm({**cell, "id": ""}) for cell in both if cell["task"] == "films"]
    assert first == [calm({**cell, "id": ""}) for cell in alone]
    assert [c["trainable_parameters"] for c in both[::2]] == [c["trainable_parameters"] for c in both[1::2]]
    assert [c["artefact_bytes"] for c in both[::2]] == [c["artefact_bytes"] for c in both[1::2]]


def test_a_task_and_its_transfers_draw_from_one_pool(tmp_path: Path) -> None:
    other = shows_file(tmp_path)
    here = films()
    shared = here.train[3]
    with other.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"text": shared.fields["text"], "label": shared.label}) + "\n")
    both = with_transfers(make_settings(transfer_to=str(other)), (here,))
    asked = replace(both[1], test=(*both[1].test, replace(shared, id="shows/again")))
    (first, second), notes = apart((both[0], asked))
    assert first.train == second.train == (*here.train[:3], *here.train[4:])
    assert len(notes) == 2


def test_an_input_is_known_by_what_the_layouts_show_of_it() -> None:
    """Rows with a number of their own are the same row again; white space tells nothing apart."""
    here = films()
    again = Example(id="t", fields={"text": here.train[3].fields["text"].replace(" ", "  "), "idx": 9}, label="good")
    (found,), notes = apart((replace(here, test=(*here.test, again)),))
    assert found.train == (*here.train[:3], *here.train[4:])
    assert notes == ["films: 1 of 12 training examples are test examples too and are never shown"]
    first_word = replace(here.template, input="{{text.split()[0]}}")
    (found,), notes = apart((replace(here, layouts=(first_word,)),))
    assert found.train == ()


def test_one_split_for_demonstrations_and_queries_is_parted(tiny_lm: LM) -> None:
    rows = films().test
    whole = replace(films(), train=rows, test=rows)
    (found,), notes = apart((whole,))
    assert {e.id for e in found.train}.isdisjoint(e.id for e in found.test)
    assert {e.id for e in (*found.train, *found.test)} == {e.id for e in rows}
    assert {e.label for e in found.train} == {"bad", "good"}
    assert len(found.train) == 4
    assert notes == [
        "films: demonstrations and queries are the same 12 examples; 4 are kept to be shown, drawn by a hash of their "
        "input, and the other 8 are asked (lm-eval asks all)"
    ]
    asked = make_settings(tasks="films", methods=("zero-shot", "in-context"), num_fewshot=2, seed=0, orders=1)
    cells = run(asked, model=tiny_lm, tasks=(whole,)).results["kshot"]["cells"]
    assert [(cell["shots"], cell["n"]) for cell in cells] == [(0, 8), (2, 8)]


def test_the_budget_is_the_same_from_python_and_from_the_command_line() -> None:
    assert Settings().budget == Course().budget
    assert Settings().validation == Course().validation
