"""The texts of ``kshot pretrain``: folders, the hub, and text of known entropy."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cats import TINY, rows_of

from kshot.errors import DataError
from kshot.study.pretrain import corpus as corpora
from kshot.study.pretrain.corpus import corpus_of
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
