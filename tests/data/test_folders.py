"""A folder with train and test files is a task of its name."""

import json
from pathlib import Path

import pytest

from kshot.data import load_task
from kshot.data.files import task_name
from kshot.data.published import DAI_2023, suggested
from kshot.errors import DataError


def _write(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _rows(begin: int, end: int) -> list[dict]:
    return [{"text": f"text {i}", "label": "ab"[i % 2]} for i in range(begin, end)]


def test_a_folder_is_its_train_and_test_files(tmp_path: Path) -> None:
    folder = tmp_path / "films"
    _write(folder / "train.jsonl", _rows(0, 8))
    _write(folder / "test.jsonl", _rows(8, 12))
    task = load_task(folder)
    assert (task.name, len(task.train), len(task.test)) == ("films", 8, 4)
    assert [example.fields["text"] for example in task.test] == [f"text {i}" for i in range(8, 12)]


def test_without_test_examples_some_are_held_out(tmp_path: Path) -> None:
    _write(tmp_path / "films" / "train.jsonl", _rows(0, 20))
    task = load_task(tmp_path / "films")
    assert (len(task.train), len(task.test)) == (14, 6)


def test_a_folder_without_or_with_too_many_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "films"
    folder.mkdir()
    wanted = "needed are one of train.jsonl, train.csv, train.parquet and at most one test file"
    with pytest.raises(DataError, match=f"{wanted}; found neither"):
        load_task(folder)
    _write(folder / "train.jsonl", _rows(0, 4))
    (folder / "train.csv").write_text("text,label\na,b\n", encoding="utf-8")
    with pytest.raises(DataError, match=f"{wanted}; found train.csv, train.jsonl"):
        load_task(folder)


def test_published_layouts_go_by_file_and_folder(tmp_path: Path) -> None:
    assert task_name("x/sst2.csv") == "sst2"
    assert suggested("data/sst2") == suggested("sst2/train.jsonl") == DAI_2023["sst2"].template
    assert suggested("films.jsonl") is None
