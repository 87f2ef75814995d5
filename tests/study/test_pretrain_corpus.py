"""The texts of ``kshot pretrain``: folders, the hub, and text of known entropy."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cats import TINY, rows_of

from kshot.errors import DataError, OutputError
from kshot.study.pretrain import corpus as corpora
from kshot.study.pretrain.corpus import Corpus, corpus_of, in_tokens
from kshot.study.pretrain_settings import make_pretrain_settings
from kshot.study.pretraining import pretrain


def test_a_folder_with_both_parts_is_taken_as_it_is_parted(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "train.txt").write_text("a b c", encoding="utf-8")
    (tmp_path / "own" / "valid.jsonl").write_text(json.dumps({"text": "d e"}), encoding="utf-8")
    found = corpus_of([str(tmp_path / "own")])
    assert (found.name, found.train, found.valid) == ("own", ("a b c",), ("d e",))
    both = corpus_of([str(tmp_path / "own"), str(tmp_path / "own")])
    assert (both.name, both.train) == ("own-own", ("a b c", "a b c"))


def test_a_test_beside_both_parts_is_left_alone_and_said(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    parts = {"train.1": "a b", "train.2": "c d", "valid": "e f", "test": "g h"}
    for name, text in parts.items():
        (tmp_path / "own" / f"{name}.txt").write_text(text, encoding="utf-8")
    found = corpus_of([str(tmp_path / "own")])
    assert (found.train, found.valid) == (("a b", "c d"), ("e f",))
    assert found.notes == ("own: not read are test.txt",)


def test_texts_are_held_out_apart_and_parted_anew_apart(tmp_path: Path) -> None:
    names = []
    for word in ("cat", "dog"):
        names.append(str(tmp_path / f"{word}.txt"))
        text = "".join(f"{word} {i} sat.\n\n" for i in range(200))
        (tmp_path / f"{word}.txt").write_text(text, encoding="utf-8")
    whole, anew = corpus_of(names), corpus_of(names, anew=True)
    assert whole.held_out == tuple((text,) for text in whole.valid)
    assert len(whole.valid) == len(anew.valid) == 2
    for i in range(2):
        assert anew.train[i] + anew.valid[i] == whole.train[i], "nothing of what is held out is seen"


def test_a_disk_that_is_full_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KSHOT_CACHE", str(tmp_path / "cache"))
    written = Path.write_text

    def full(path: Path, text: str, **more: Any) -> int:
        if path.name == "tokenizer.json":
            raise OSError(28, "No space left on device")
        return written(path, text, **more)

    monkeypatch.setattr(Path, "write_text", full)
    corpus = Corpus(name="a", train=("cats and dogs",), valid=("dogs",))
    with pytest.raises(OutputError, match="No space left on device"):
        in_tokens(corpus, 260, None, hides=False, at_most=True)


def test_texts_of_the_hub_are_its_splits(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"text": "one"}, {"text": " "}, {"text": "two"}]
    found = {"train": rows, "validation": [{"text": "three"}]}
    monkeypatch.setattr(corpora, "load_hub", lambda name, config, kwargs, asked: found)
    own = corpus_of(["hf:org/name"])
    assert (own.name, own.train, own.valid) == ("name", ("one", "two"), ("three",))
    found["train"] = [{"words": "one"}]
    with pytest.raises(DataError, match="needs a column 'text' of strings; found words"):
        corpus_of(["hf:org/name"])
    del found["train"]
    with pytest.raises(DataError, match="has no split train; found validation"):
        corpus_of(["hf:org/name"])


def test_text_of_known_entropy_is_read_against_the_truth(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KSHOT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(corpora, "_DRAWN", 300)
    monkeypatch.setattr(corpora, "_HELD_OUT", 10)
    found = corpus_of(["ginc"])
    assert found.surprise is not None
    assert len(found.surprise) == len(found.valid) == 10
    results = pretrain(
        make_pretrain_settings(tasks=("ginc",), device="cpu", **{**TINY, "tokens": 64, "vocabulary": None})
    ).results
    rows = rows_of(results)
    exact, floor = (rows["bits_per_byte", name, 0]["value"] for name in ("exact, who made the text", "n-gram, order 5"))
    size = sum(len(text.encode()) for text in found.valid)
    assert exact == pytest.approx(sum(found.surprise) / np.log(2) / size, rel=1e-6)
    assert exact < floor
    # Several texts, of which not all are known, have no truth.
    assert replace(found, surprise=None).hash == found.hash


def test_a_data_set_without_a_name_is_refused() -> None:
    with pytest.raises(DataError, match="names no data set; write hf:org/name"):
        corpus_of(["hf:"])
