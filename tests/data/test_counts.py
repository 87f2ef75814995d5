"""How common tokens are: counted once, read from the cache after that."""

import json
from pathlib import Path

import pytest

from kshot.data.counts import Corpus, counted
from kshot.errors import DataError, KshotError

VOCABULARY = {letter: ord(letter) for letter in "abc"}


def letters(texts):
    return [tuple(map(ord, text)) for text in texts]


class Texts:
    """A corpus that knows how often it was read."""

    def __init__(self, *texts):
        self.texts, self.read = texts, 0

    def __call__(self):
        self.read += 1
        return self.texts


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("KSHOT_CACHE", str(tmp_path))
    return tmp_path / "counts"


def test_the_commonest_come_first_and_ties_go_by_id(cache):
    corpus = Corpus(name="toy", pin="", texts=Texts("cab", "cc", "b"))
    assert list(counted(corpus, VOCABULARY, letters).items()) == [(99, 3), (98, 2), (97, 1)]
    assert not cache.exists()


def test_counts_are_kept_for_each_corpus_and_tokenizer(cache):
    texts = Texts("cab")
    corpus = Corpus(name="toy", pin="toy-1", texts=texts)
    first = counted(corpus, VOCABULARY, letters)
    assert list(counted(corpus, VOCABULARY, letters).items()) == list(first.items())
    assert texts.read == 1
    assert len(list(cache.iterdir())) == 1
    counted(corpus, VOCABULARY | {"d": 100}, letters)
    # The same tokens, another cut.
    counted(corpus, VOCABULARY, lambda all_: [own[::-1] for own in letters(all_)])
    counted(Corpus(name="toy", pin="toy-2", texts=texts), VOCABULARY, letters)
    assert texts.read == len(list(cache.iterdir())) == 4


@pytest.mark.parametrize("left", ["", "{", '{"counts": [[1]]}', '{"count": []}', "[]"])
def test_a_damaged_file_is_counted_again(left, cache):
    texts = Texts("cab")
    corpus = Corpus(name="toy", pin="toy-1", texts=texts)
    first = counted(corpus, VOCABULARY, letters)
    (file,) = cache.glob("*/counts.json")
    file.write_text(left)
    assert counted(corpus, VOCABULARY, letters) == first
    assert texts.read == 2
    assert json.loads(file.read_text()) == {"corpus": "toy", "tokens": 3, "counts": [[97, 1], [98, 1], [99, 1]]}


def test_a_corpus_that_cannot_be_had_is_one_line(cache):
    def gone():
        raise KshotError("no network")

    with pytest.raises(DataError, match=r"^toy cannot be counted: no network$"):
        counted(Corpus(name="toy", pin="toy-1", texts=gone), VOCABULARY, letters)
    assert not cache.exists()
