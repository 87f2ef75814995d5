"""Tasks from files: what is read, how it is split, and one clear line for everything that is wrong."""

import csv
import json
from collections import Counter

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kshot.data.files import file_task, split
from kshot.data.rows import read_rows
from kshot.data.task import Example
from kshot.data.template import Template
from kshot.errors import DataError, PromptError

ROWS = [{"text": f"text {number}", "label": ["good", "bad", "so-so"][number % 3]} for number in range(30)]


def jsonl(path, rows, encoding="utf-8"):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding=encoding)
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_the_three_formats_give_the_same_task(tmp_path, encoding):
    frame = pd.DataFrame(ROWS)
    frame.to_csv(tmp_path / "a.csv", index=False, encoding=encoding)
    frame.to_parquet(tmp_path / "a.parquet")
    tasks = [
        file_task(tmp_path / "a.csv"),
        file_task(tmp_path / "a.parquet"),
        file_task(jsonl(tmp_path / "a.jsonl", ROWS, encoding)),
    ]
    for task in tasks:
        assert (task.name, task.kind, task.labels) == ("a", "classification", ("bad", "good", "so-so"))
        assert Counter(one.label for one in task.train) == dict.fromkeys(task.labels, 7)
        assert Counter(one.label for one in task.test) == dict.fromkeys(task.labels, 3)
        assert not {one.fields["text"] for one in task.train} & {one.fields["text"] for one in task.test}
        assert {one.fields["text"] for one in task.test} == {one.fields["text"] for one in tasks[0].test}


@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.permutations(range(12)))
def test_the_split_is_by_content_not_by_order(tmp_path, places):
    rows = [ROWS[at] for at in places]
    task = file_task(jsonl(tmp_path / "a.jsonl", rows))
    again = file_task(jsonl(tmp_path / "b.jsonl", ROWS[:12]))
    assert {one.fields["text"] for one in task.test} == {one.fields["text"] for one in again.test}
    assert [one.fields["text"] for one in task.train] == [
        row["text"] for row in rows if row["text"] not in {t.fields["text"] for t in task.test}
    ]


def test_another_seed_is_another_split(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", ROWS)
    assert file_task(path, seed=0).test != file_task(path, seed=1).test


def test_open_answers_may_be_numbers_and_any_language(tmp_path):
    rows = [
        {"input": "りんご", "output": "赤"},
        {"input": "二\u2028三", "output": "青"},
        {"input": 7, "output": 49},
        {"input": "π", "output": 3.14},
    ]
    task = file_task(jsonl(tmp_path / "色.jsonl", rows))
    assert (task.kind, task.name, set(task.labels)) == ("open", "色", {e.label for e in task.test})
    assert {e.label for e in (*task.train, *task.test)} == {"赤", "青", "49", "3.14"}
    assert len(task.train) == 3
    assert "りんご ->" in {task.template.render(one.fields) for one in (*task.train, *task.test)}


def test_labels_that_are_numbers_or_truths_become_names(tmp_path):
    rows = [{"text": f"t{number}", "label": number % 12} for number in range(24)]
    assert file_task(jsonl(tmp_path / "a.jsonl", rows)).labels == tuple(map(str, range(12)))
    rows = [{"text": f"t{number}", "label": number % 2 == 0} for number in range(8)]
    assert file_task(jsonl(tmp_path / "a.jsonl", rows)).labels == ("false", "true")
    pd.DataFrame({"text": ["a", "b"], "label": [0.0, 1.0]}).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"every label occurs once \(2 examples\)"):
        file_task(tmp_path / "a.parquet")
    assert [row["label"] for row in read_rows(tmp_path / "a.parquet")] == [0.0, 1.0]


def test_a_template_of_your_own_names_any_fields(tmp_path):
    rows = [{"premise": f"p{n}", "claim": f"c{n}", "label": "yn"[n % 2]} for n in range(8)]
    path = jsonl(tmp_path / "nli.jsonl", rows)
    task = file_task(path, template=Template(input="{{premise}} {{claim}}?"))
    assert task.template.render(task.train[0].fields).endswith("?")
    assert "label" not in task.train[0].fields
    with pytest.raises(
        PromptError,
        match=r"nli\.jsonl, line 1: template .* 'text' is undefined; the example has the fields premise, claim",
    ):
        file_task(path, template=Template(input="{{text}}"))
    with pytest.raises(
        DataError, match="found the fields premise, claim, label; needed are text,label or input,output"
    ):
        file_task(path)


def test_train_called_by_its_folder(tmp_path):
    (tmp_path / "sst2").mkdir()
    assert file_task(jsonl(tmp_path / "sst2" / "train.jsonl", ROWS)).name == "sst2"


def test_a_test_file_is_kept_whole_and_repeats_leave_train(tmp_path):
    train = jsonl(tmp_path / "train.jsonl", [*ROWS[:12], ROWS[0], {"text": "text  1", "label": "good"}])
    test = jsonl(tmp_path / "test.jsonl", ROWS[9:15])
    task = file_task(train, test_path=test)
    assert [one.id for one in task.test] == [f"test:{n}" for n in range(1, 7)]
    assert [one.id for one in task.train] == [f"train:{n}" for n in range(1, 10)]
    assert task.notes == (
        "train.jsonl: 1 repeated row dropped",
        "train.jsonl: 1 row with an input seen before and another answer dropped",
        "3 train rows dropped because their input is also in test",
    )


def test_what_makes_no_task_is_said(tmp_path):
    train = jsonl(tmp_path / "train.jsonl", [row for row in ROWS if row["label"] != "so-so"])
    with pytest.raises(DataError, match=r"test has the label 'so-so', which train lacks \(bad, good\)"):
        file_task(train, test_path=jsonl(tmp_path / "test.jsonl", ROWS[:3]))
    with pytest.raises(DataError, match="every label is 'good'; a classification needs at least two"):
        file_task(jsonl(tmp_path / "one.jsonl", [row for row in ROWS if row["label"] == "good"]))
    with pytest.raises(DataError, match=r"test\.jsonl: has no field 'label' .* found text, answer"):
        file_task(train, test_path=jsonl(tmp_path / "test.jsonl", [{"text": "a", "answer": "b"}]))


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("a.jsonl", b"", r"a\.jsonl: holds no rows"),
        ("a.parquet", b"", "holds no rows"),
        ("a.csv", b"text,label\n", "holds no rows"),
        ("a.jsonl", b'{"text": "caf\xe9"}', "is not UTF-8: byte 0xe9 at offset 13; save it as UTF-8"),
        ("a.csv", b"text,label\n\xff,b\n", "is not UTF-8: byte 0xff at offset 11"),
        ("a.jsonl", b'{"text": "a", "label": "b"}\n\n{"text": \n', r"line 3: is not JSON \(Expecting value\)"),
        ("a.jsonl", b'{"a": ' * 100_000, r"line 1: is not JSON \(RecursionError\)"),
        ("a.jsonl", b'{"a": ' + b"9" * 5000 + b"}", r"line 1: is not JSON \(ValueError\)"),
        ("a.jsonl", b'{"text": "a", "label": "b"}\n["a"]\n', "line 2: holds a JSON list; an object is needed"),
        ("a.csv", b"text,label\na,b\na,b,c\n", r"line 3: has 3 cells where the first line names 2 \(text, label\)"),
        ("a.csv", b'text,label\n"a,b\n', r"line 2: is not CSV \(unexpected end of data\)"),
        ("a.csv", b"text,text\na,b\n", "names a field twice"),
        ("a.csv", b"sentence,class\na,b\n", "found the fields sentence, class; needed are text,label or input,output"),
        ("a.csv", b"text,label\na,b\n ,c\n", "line 3: text is empty"),
        ("a.csv", b"text,label\na,b\nc,\n", "line 3: label is empty"),
        ("a.jsonl", b'{"text": "a", "label": null}', "line 1: label is empty"),
        ("a.jsonl", b'{"text": "a", "label": "b"}\n{"text": "c"}', "line 2: label is empty"),
        ("a.jsonl", b'{"text": "a", "label": "b"}\n{"label": "c"}', "line 2: lacks text; found label"),
        ("a.jsonl", b'{"text": null, "label": "b"}', "line 1: text is empty"),
        ("a.jsonl", b'{"text": "a", "label": 0.5}', "line 1: label is 0.5; what works is text or a whole number"),
        ("a.jsonl", b'{"text": "a", "label": ["x"]}', r"line 1: label is \['x'\]"),
        ("a.jsonl", b'{"text": "a", "label": NaN}', "line 1: label is empty"),
        ("a.parquet", b"PAR1", "is not a readable parquet file"),
        ("a.txt", b"x", r"ends in '\.txt'; what works is \.jsonl, \.csv, \.parquet"),
    ],
)
def test_bad_files_are_one_line(tmp_path, name, data, words):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=words) as error:
        file_task(tmp_path / name)
    assert "\n" not in str(error.value)


def test_a_missing_file_gets_the_nearest_name(tmp_path):
    jsonl(tmp_path / "reviews.jsonl", ROWS)
    with pytest.raises(DataError, match=r"there is no such file; did you mean 'reviews\.jsonl'\?"):
        read_rows(tmp_path / "review.jsonl")
    with pytest.raises(DataError, match=r"there is no such file \(nor a folder .*none\)"):
        read_rows(tmp_path / "none" / "review.jsonl")


def test_csv_cells_with_commas_and_line_breaks(tmp_path):
    (tmp_path / "a.csv").write_text('text,label\r\n"a, b\nc",x\r\n', newline="")
    assert read_rows(tmp_path / "a.csv") == [{"text": "a, b\nc", "label": "x"}]


@pytest.mark.parametrize(
    ("second", "said"),
    [
        ('{"text": NaN, "label": "x"}', "line 2: text is empty; give it text or take the row out"),
        (r'{"text": "a \ud800", "label": "x"}', "line 2: holds half a character"),
        (r'{"text": "a", "label": "\udfff"}', "line 2: holds half a character"),
    ],
)
def test_what_is_no_text_is_refused(tmp_path, second, said):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "one", "label": "x"}\n' + second + "\n")
    with pytest.raises(DataError, match=said):
        file_task(path)


def test_a_split_that_leaves_nothing_says_why(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("text,label\n" + "".join(f"text {i},label {i}\n" for i in range(5)))
    with pytest.raises(DataError, match=r"every label occurs once \(5 examples\), so none can be held out"):
        file_task(path)
    path.write_text("text,label\na,x\nb,y\n")
    with pytest.raises(DataError, match=r"every input is in .*a\.csv too, so none is left to learn from"):
        file_task(path, test_path=path)


def test_an_open_answer_that_could_never_be_said_is_refused(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('input,output\na,b\nc,"d\ne"\nf,g\n')
    with pytest.raises(DataError, match=r"a\.csv, line 4: output 'd\\ne' holds a line break, at which an answer ends"):
        file_task(path)
    rows = [{"input": f"i{n}", "output": f"o{n}; p"} for n in range(6)]
    layout = Template(input="{{input}} ->", separator="; ")
    with pytest.raises(DataError, match=r"line 1: output 'o0; p' holds the separator '; '"):
        file_task(jsonl(tmp_path / "a.jsonl", rows), template=layout)
    assert len(file_task(tmp_path / "a.jsonl").train) == 4


def test_a_cell_may_be_longer_than_pythons_own_limit(tmp_path):
    limit = csv.field_size_limit()
    long = "word " * 40_000
    (tmp_path / "a.csv").write_text(f"text,label\n{long},x\n")
    assert read_rows(tmp_path / "a.csv") == [{"text": long, "label": "x"}]
    assert csv.field_size_limit() == limit


def test_text_that_parquet_stores_as_bytes_is_text(tmp_path):
    path = tmp_path / "a.parquet"
    texts = [f"いい {n}".encode() for n in range(8)]
    docs = [{"title": text, "tags": [b"a"]} for text in texts]
    pq.write_table(pa.table({"text": texts, "label": [b"x", b"y"] * 4, "doc": docs}), path)
    assert read_rows(path)[1] == {"text": "いい 1", "label": "y", "doc": {"title": "いい 1", "tags": ["a"]}}
    assert file_task(path).labels == ("x", "y")
    pq.write_table(pa.table({"text": [b"a", b"\xff"], "label": ["x", "y"]}), path)
    with pytest.raises(DataError, match=r"a\.parquet, row 2: text holds bytes that are not UTF-8 text"):
        read_rows(path)


def test_equal_inputs_stay_on_one_side_of_a_split():
    examples = [Example(id=f"e{n}", fields={"text": f"t{n // 2}" + " " * (n % 2)}, label="a") for n in range(40)]
    sides = split(examples, Template(input="<{{text}} >"), stratify=False)
    train, test = ({one.fields["text"].strip() for one in side} for side in sides)
    assert (len(train), len(test), train & test) == (14, 6, set())
