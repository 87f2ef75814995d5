"""Documents of every kind of file, what is held out, vocabularies, and rows of tokens on disk; and what is wrong with each."""

import gzip
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from tokenizers import Tokenizer

from kshot.errors import DataError
from kshot.pretrain.packed import Packed, opened, pack
from kshot.pretrain.text import END, documents, parted, split
from kshot.pretrain.vocabulary import MASK, learned_vocabulary, sentinel

TEXTS = [f"The cat number {i} sat on the mat, and the dog number {i + 1} ran after it.\n" * 3 for i in range(60)]
TEXTS += ["猫が机の上で寝ている。", "猫坐在垫子上。"]


def written(folder: Path, texts: list[str]) -> dict[str, Path]:
    """The same documents in every kind of file."""
    plain, lines = f"\n{END}\n".join(texts), "".join(json.dumps({"text": text}) + "\n" for text in texts)
    (folder / "a.txt").write_text(plain, encoding="utf-8")
    (folder / "a.jsonl").write_text(lines, encoding="utf-8")
    (folder / "a.txt.gz").write_bytes(gzip.compress(plain.encode()))
    (folder / "a.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    pyarrow.parquet.write_table(pa.table({"text": texts, "other": [1] * len(texts)}), folder / "a.parquet")
    return {path.name: path for path in folder.iterdir()}


def test_every_kind_of_file_has_the_same_documents(tmp_path: Path) -> None:
    texts = ["one\ntwo\n", "三つ", "four"]
    for path in written(tmp_path, texts).values():
        assert [text.strip() for text in documents(path)] == ["one\ntwo", "三つ", "four"], path.name
    assert len(list(documents(tmp_path))) == 15, "a folder is all of its files"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.txt", b"caf\xe9", "is not UTF-8 (byte 0xe9)"),
        ("a.txt.gz", b"no archive", "cannot be read"),
        ("a.txt.gz", gzip.compress(b"x" * 9000, mtime=0)[:-20], "cannot be read"),
        ("a.jsonl", b'{"text": "x"}\n{"text": 3}\n', "line 2: needed is an object with 'text' as a string"),
        ("a.txt.gz", gzip.compress(b"abc" * 99, mtime=0)[:10] + b"\xff" * 40, "cannot be read"),
        ("a.jsonl", b"{text}\n", "line 1: no JSON"),
        ("a.jsonl", b'{"text": "x"}\n{"text": "a \\ud83d b"}\n', "line 2: \\ud83d is half of a character"),
        ("a.parquet", b"no table", "cannot be read"),
        ("a.pdf", b"%PDF", "is of no kind that is read as text; what works is .txt"),
    ],
)
def test_what_cannot_be_read_is_said_in_a_line(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        list(documents(tmp_path / name))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_file_and_no_text(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no text"):
        list(documents(tmp_path / "none.txt"))
    with pytest.raises(DataError, match=r"has no text; what works is \.txt"):
        list(documents(tmp_path))
    pyarrow.parquet.write_table(pa.table({"words": ["x"]}), tmp_path / "b.parquet")
    with pytest.raises(DataError, match="has no column 'text'; found words"):
        list(documents(tmp_path / "b.parquet"))
    (tmp_path / "empty.txt").write_text(" \n\n")
    assert list(documents(tmp_path / "empty.txt")) == []
    with pytest.raises(DataError, match="the text is empty"):
        split([])


@pytest.mark.parametrize(
    ("files", "train", "valid", "unread"),
    [
        ("train.txt valid.txt test.txt", "train.txt", "valid.txt", "test.txt"),
        ("train.jsonl test.jsonl.gz", "train.jsonl", "test.jsonl.gz", ""),
        ("train.2.txt train.1.txt valid.txt", "train.1.txt train.2.txt", "valid.txt", ""),
        (
            "train-00001-of-00002.parquet train-00000-of-00002.parquet validation-00000-of-00001.parquet notes.txt",
            "train-00000-of-00002.parquet train-00001-of-00002.parquet",
            "validation-00000-of-00001.parquet",
            "notes.txt",
        ),
    ],
)
def test_a_folder_that_is_parted_keeps_its_parts_apart(
    tmp_path: Path, files: str, train: str, valid: str, unread: str
) -> None:
    for name in files.split():
        (tmp_path / name).touch()
    found = parted(tmp_path)
    assert found is not None
    names = [[file.name for file in own] for own in (found.train, found.valid, found.unread)]
    assert names == [train.split(), valid.split(), unread.split()]


@pytest.mark.parametrize("files", ["train.txt", "valid.txt test.txt", "training.txt valid.txt", "a.txt b.txt"])
def test_a_folder_without_both_parts_is_not_parted(tmp_path: Path, files: str) -> None:
    for name in files.split():
        (tmp_path / name).touch()
    assert parted(tmp_path) is None
    assert parted(tmp_path / "a.txt") is None


def test_documents_are_held_out_whatever_their_order() -> None:
    texts = [f"document {i}" for i in range(400)]
    learned, held = split(texts)
    assert sorted([*learned, *held]) == sorted(texts)
    assert 8 <= len(held) <= 35
    back = split(texts[::-1])
    assert sorted(back[1]) == sorted(held)
    assert split(texts, seed=1)[1] != held
    assert [len(part) for part in split(["one", "two"])] == [1, 1]


def test_a_single_document_is_cut_where_a_paragraph_ends() -> None:
    text = "".join(f"Paragraph {i} has a line\nand another one.\n\n" for i in range(100))
    (learned,), (held,) = split([text])
    assert learned + held == text
    assert held.startswith("Paragraph ")
    assert 0.03 < len(held) / len(text) < 0.08
    with pytest.raises(DataError, match="1 document of 1 characters: too little"):
        split(["x"])


def test_a_vocabulary_has_a_token_for_everything() -> None:
    tokenizer = learned_vocabulary(TEXTS, 300)
    assert tokenizer.get_vocab_size() == 300
    for text in (*TEXTS[:2], "ÄÖ never seen \U0001f600 日本語", "  two  blanks\n"):
        assert tokenizer.decode(tokenizer.encode(text).ids) == text
    assert tokenizer.encode(f"x{END}").tokens == ["x", END]
    hides = learned_vocabulary(TEXTS, 400, hides=True)
    assert hides.encode(MASK + sentinel(3)).tokens == [MASK, sentinel(3)]


def test_a_vocabulary_that_does_not_fit_is_refused() -> None:
    with pytest.raises(DataError, match="a vocabulary of 100 has no room for all 256 bytes and 1 marks"):
        learned_vocabulary(TEXTS, 100)
    with pytest.raises(DataError, match=r"a vocabulary of 5000: the text has pairs for \d+ tokens"):
        learned_vocabulary(TEXTS, 5000)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return learned_vocabulary(TEXTS, 300)


def test_packed_text_is_the_documents_one_after_another(tmp_path: Path, tokenizer: Tokenizer) -> None:
    texts = [*TEXTS, f"a text that says {END} itself"]
    found = pack(iter(texts), tokenizer, END, tmp_path / "packed")
    assert found.documents == len(texts)
    ids = found.tokens.tolist()
    assert ids.count(tokenizer.token_to_id(END)) == len(texts), "what a document says is no end of it"
    assert tokenizer.decode(ids).startswith(TEXTS[0] + TEXTS[1]), "the marks themselves are no text"
    assert tokenizer.decode(ids).endswith(f"a text that says {END} itself")
    assert isinstance(found.tokens, np.memmap)
    assert found.tokens.dtype == np.uint16
    with pytest.raises(DataError, match="has no token '</s>' to end documents with"):
        pack(texts, tokenizer, "</s>", tmp_path / "other")
    # It is packed once: nobody asks for texts again.
    again = pack(iter(()), tokenizer, END, tmp_path / "packed")
    assert np.array_equal(again.tokens, found.tokens)


def test_a_folder_that_is_not_whole_is_refused(tmp_path: Path, tokenizer: Tokenizer) -> None:
    pack(TEXTS, tokenizer, END, tmp_path / "packed")
    bytes_of = (tmp_path / "packed" / "tokens.bin").read_bytes()
    (tmp_path / "packed" / "tokens.bin").write_bytes(bytes_of[:-20])
    with pytest.raises(DataError, match=r"holds \d+ tokens of \d+; remove it to pack anew"):
        opened(tmp_path / "packed")
    (tmp_path / "packed" / "facts.json").unlink()
    with pytest.raises(DataError, match="holds no packed text"):
        opened(tmp_path / "packed")


def test_an_epoch_reads_every_row_once_and_batches_are_pure() -> None:
    text = Packed(np.arange(1003, dtype=np.uint16), 1, 1003)
    assert text.rows(10) == 99
    first = np.concatenate([text.batch(0, step, 9, 10) for step in range(11)])
    assert (np.diff(first, axis=1) == 1).all(), "every row is a stretch of the text"
    begins = np.sort(first[:, 0])
    assert (np.diff(begins) == 10).all()
    second = np.concatenate([text.batch(0, step, 9, 10) for step in range(11, 22)])
    assert not np.array_equal(first, second), "another epoch has another order"
    assert np.array_equal(text.batch(0, 5, 9, 10), first[45:54])
    assert not np.array_equal(text.batch(1, 5, 9, 10), first[45:54])


def test_a_context_longer_than_the_text_is_refused() -> None:
    with pytest.raises(DataError, match="rows of 64 tokens of a text of 100; what works is a context of at most 50"):
        Packed(np.arange(100, dtype=np.uint16), 1, 100).batch(0, 0, 1, 64)
