"""Corpora from wheels and the hub, here from folders and files of the same shape; loading by name; the hash of a task."""

import json
import logging
import sys
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import pytest

import kshot.data
from kshot.data import TASKS, TaskEntry, corpora, load_task, task_hash
from kshot.data.corpora import BBC_LABELS, bbc_task, boolq_task, hub_task, options, options_task
from kshot.data.template import Template
from kshot.errors import DataError, KshotError, UnknownName


def jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def bbc(tmp_path):
    for name in BBC_LABELS:
        (tmp_path / name).mkdir()
        for number in range(10):
            (tmp_path / name / f"{number:03}.txt").write_text(f"{name} headline {number}\n\nText.")
    (tmp_path / "sports" / "010.txt").write_bytes(b"A \xa3 5 deal\n\nText.")
    (tmp_path / "tech" / "010.txt").write_text("tech headline 3\n\nAgain.")
    return tmp_path


def test_headlines_are_the_first_lines_once_each(bbc):
    task = bbc_task(bbc)
    everything = [*task.train, *task.test]
    assert task.labels == ("business", "entertainment", "politics", "sport", "tech")
    assert len(everything) == 51
    assert len({one.fields["text"] for one in everything}) == 51
    assert "A £ 5 deal" in {one.fields["text"] for one in everything if one.label == "sport"}
    assert Counter(one.label for one in task.test) == dict.fromkeys(task.labels, 3)
    assert len({one.label for one in task.train[:12]}) == 5
    assert task.template.demonstration(task.train[0].fields, "tech").endswith("\nCategory: Technology")
    assert task.notes == ("1 repeated headlines dropped",)
    assert bbc_task(bbc) == task
    for path in (bbc / "tech").iterdir():
        path.unlink()
    with pytest.raises(DataError, match="has no articles in tech"):
        bbc_task(bbc)


def test_boolq_keeps_the_published_split(tmp_path):
    rows = [{"question": f"q{n}", "passage": f"Title -- p{n}", "label": n % 2 == 0} for n in range(6)]
    combined = jsonl(tmp_path / "c.jsonl", [*rows, {"question": "q9", "passage": "p9"}])
    dev = jsonl(tmp_path / "d.jsonl", [{"question": "q4", "passage": "p4", "answer": "True"}])
    task = boolq_task(combined, dev)
    assert [one.fields["question"] for one in task.train] == ["q0", "q1", "q2", "q3", "q5"]
    assert [(one.fields["question"], one.label) for one in task.test] == [("q4", "yes")]
    assert task.template.render(task.test[0].fields) == "Title -- p4\nQuestion: q4?\nAnswer:"


def test_options_become_choices_and_a_question_stays_on_one_side(tmp_path):
    rows = [{"question": f"q{n // 2}", "options": f"A. a{n}\nB. b{n} ", "answer": f"B. b{n} "} for n in range(20)]
    rows.append({"question": "broken", "options": "A. a\nC. b", "answer": "A. a"})
    task = options_task("piqa", jsonl(tmp_path / "p.jsonl", rows), 2)
    assert (task.kind, len(task.train), len(task.test)) == ("choice", 14, 6)
    assert all(one.label == one.choices[1] for one in (*task.train, *task.test))
    assert not {one.fields["question"] for one in task.train} & {one.fields["question"] for one in task.test}
    assert task.notes == ("1 rows with broken or repeated options dropped",)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("\nA. a\nB. b\nC. c\nD. d\nE. e?", ["a", "b", "c", "d", "e"]),
        (".\nA. a\nB. b\nC. c\nD. d\nE. e", ["a", "b", "c", "d", "e"]),
        ("\nC. c\nD. d\nE. e", None),
        ("\nA. a\nB. a\nC. c\nD. d\nE. e", None),
    ],
)
def test_lettered_lines(text, found):
    assert options(text, 5) == found


class Split(list):
    """Rows with what a split of `datasets` knows of them."""

    @property
    def column_names(self):
        return list(self[0])

    @property
    def features(self):
        return {
            name: SimpleNamespace(names=["neg", "pos"]) if name == "label" else SimpleNamespace() for name in self[0]
        }


@pytest.fixture
def library(monkeypatch):
    asked = []
    found = {}

    def load_dataset(*arguments, **options):
        asked.append((arguments, options))
        logging.getLogger("huggingface_hub.utils").warning("trying again")
        if not found:
            raise ConnectionError("no route\nto the hub")
        return found

    quiet = {"disable_progress_bars": lambda: None}
    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset, **quiet))
    return found, asked


def rows(begin, end, **more):
    return Split([{"text": f"t{n}", "label": n % 2} | more for n in range(begin, end)])


def test_a_hub_data_set_speaks_the_names_of_its_labels(library):
    found, asked = library
    found |= {"train": rows(0, 10), "test": rows(8, 12, label=-1), "validation": rows(8, 14)}
    task = load_task("hf:org/name:sub")
    assert asked == [(("org/name", "sub"), {})]
    assert (task.name, task.labels, len(task.train)) == ("name", ("neg", "pos"), 8)
    assert [one.id for one in task.test] == [f"validation:{n}" for n in range(6)]
    assert task.notes == ("2 train rows dropped because their input is also in test",)
    del found["test"], found["validation"]
    found["train"] = rows(0, 20)
    assert Counter(one.label for one in load_task("hf:org/name").test) == {"neg": 3, "pos": 3}


def test_a_hub_data_set_is_held_to_what_a_file_is(library):
    """The same input with other white space is in test already; an open answer fits on its line."""
    found, _ = library
    found |= {"train": rows(0, 10), "test": Split([{"text": f" t{n}  ", "label": n % 2} for n in (3, 4)])}
    task = hub_task("hf:org/name")
    assert ({one.id for one in task.train} & {"train:3", "train:4"}, len(task.train)) == (set(), 8)
    found |= {"train": Split([{"input": "a", "output": "b"}, {"input": "c", "output": "d\ne"}])}
    del found["test"]
    with pytest.raises(DataError, match=r"task 'hf:org/name': train:1: output 'd\\ne' holds a line break"):
        hub_task("hf:org/name")


def test_a_hub_data_set_that_does_not_serve_is_one_line(library, caplog, tmp_path, monkeypatch):
    found, asked = library
    with pytest.raises(DataError, match=r"task 'hf:org/name' cannot be loaded \(no route\); check its name"):
        hub_task("hf:org/name")
    assert "again" not in caplog.text
    monkeypatch.chdir(tmp_path)
    (tmp_path / "films").mkdir()
    with pytest.raises(DataError, match=r"^task 'hf:films': 'films' is a file or a folder here"):
        hub_task("hf:films")
    assert len(asked) == 1
    found["test"] = rows(0, 4)
    with pytest.raises(DataError, match="has no split train; found test"):
        hub_task("hf:org/name")
    found["train"] = Split([{"sentence": "a", "class": 1}])
    with pytest.raises(DataError, match="found the fields sentence, class; needed are text,label or input,output"):
        hub_task("hf:org/name")
    found["train"] = Split([{"text": "a", "label": [1]}])
    with pytest.raises(DataError, match=r"label of row 1 of train is \[1\]"):
        hub_task("hf:org/name")
    with pytest.raises(DataError, match="names no data set"):
        hub_task("hf:")


def test_without_the_library_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match="needs the package datasets; install it with: pip install datasets"):
        hub_task("hf:org/name")


def test_every_task_says_what_it_is_without_being_loaded(monkeypatch):
    def no_network(*_, **__):
        raise KshotError("network")

    monkeypatch.setattr(corpora, "wheel_file", no_network)
    for name, entry in TASKS.items():
        assert entry.about
        assert "\n" not in entry.about
        if entry.needs_network:
            with pytest.raises(KshotError, match="network"):
                load_task(name)
        else:
            task = load_task(name)
            assert (task.name, task.kind) == (name, entry.kind)


def test_a_task_is_found_by_its_suffix(tmp_path):
    path = jsonl(tmp_path / "mine.jsonl", [{"text": f"t{n}", "label": "ab"[n % 2]} for n in range(8)])
    test = jsonl(tmp_path / "other.jsonl", [{"text": "new", "label": "a"}])
    assert load_task(path).name == "mine"
    task = load_task(str(path), test_file=test, template="{{text}}!")
    assert [task.template.render(one.fields) for one in task.test] == ["new!"]


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("bbc-headline", UnknownName, "unknown task 'bbc-headline'; did you mean 'bbc-headlines'"),
        (
            "mine.jsnl",
            DataError,
            r"task 'mine\.jsnl' is no file that can be read; did you mean 'mine\.jsonl'\?; what works is",
        ),
        ("mine.jsonll", DataError, r"did you mean 'mine\.jsonl'"),
        ("none/mine", DataError, r"is no file that can be read \(nor a folder none\)"),
    ],
)
def test_names_that_are_nothing(tmp_path, monkeypatch, name, error, words):
    monkeypatch.chdir(tmp_path)
    jsonl(tmp_path / "mine.jsonl", [{"text": "t", "label": "a"}])
    with pytest.raises(error, match=words):
        load_task(name)


def test_a_test_file_goes_with_a_file(monkeypatch, bbc):
    task = bbc_task(bbc)
    entry = TaskEntry(load=lambda: task, about="x", kind="classification", needs_network=False)
    monkeypatch.setitem(kshot.data.TASKS, "toy", entry)
    with pytest.raises(DataError, match="task 'toy' has a test split of its own"):
        load_task("toy", test_file="x.jsonl")
    layout = Template(input="{{text}}")
    assert load_task("toy", template=layout) == replace(task, template=layout)


def test_the_hash_sees_what_changes_numbers_and_nothing_else(bbc):
    task = bbc_task(bbc)
    before = task_hash(task)
    assert task_hash(replace(task, name="x", source="y", notes=(), version="2")) == before
    first, *others = task.test
    changed = [
        replace(task, template=replace(task.template, delimiter="  ")),
        replace(task, template=replace(task.template, words={"tech": "technology"})),
        replace(task, test=(*others, first)),
        replace(task, train=task.train[1:]),
        replace(task, labels=task.labels[::-1]),
        replace(task, test=(replace(first, label="tech" if first.label != "tech" else "sport"), *others)),
        replace(task, test=(replace(first, fields={"text": "x"}), *others)),
        replace(task, train=task.train[1:], test=(*task.test, task.train[0])),
    ]
    assert len({before, *map(task_hash, changed)}) == len(changed) + 1
