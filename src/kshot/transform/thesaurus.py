"""Synonyms of synonyms: chains of words, each in one sense a synonym of the one before, from WordNet.

Chains of the label words of built-in and of published tasks are facts that ship with the package
(synonym-chains.tsv); those of other words are drawn from WordNet's own files where these are on the machine.
"""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

from kshot.seeds import stream

ORDERS = 5
SOURCE = "WordNet 3.0 (Princeton University)"
# Where Debian's wordnet-base puts them.
FOLDER = Path("/usr/share/wordnet")
_PARTS = (("a", "adj"), ("n", "noun"), ("v", "verb"), ("r", "adv"))
_CHAINS = 60


@dataclass(frozen=True, slots=True)
class Link:
    """A word and the sense in which it is a synonym of the one before: part of speech and place in WordNet's file."""

    word: str
    sense: str


Chain = tuple[Link, ...]
"""The words of order 1, 2, ... in their order."""


@cache
def chains(word: str) -> tuple[Chain, ...]:
    """Chains that begin at a word, those that ship, else drawn from WordNet's files; none where neither knows it."""
    shipped = _shipped().get(word)
    if shipped is not None:
        return shipped
    folder = files_folder()
    return drawn(folder, word) if (folder / "index.noun").is_file() else ()


def files_folder() -> Path:
    """Where WordNet's files are looked for: where KSHOT_WORDNET says, else in FOLDER."""
    return Path(os.environ.get("KSHOT_WORDNET", FOLDER))


def of_label(word: str) -> tuple[Chain, ...]:
    """The chains of a label's word, whatever its capitals; of a plural that is not known those of its singular."""
    return chains(word.lower()) or chains(word.lower().removesuffix("s"))


def way_to(word: str, end: str, order: int) -> Chain:
    """The senses and words through which ``end`` is a synonym of this order of a label's word: the first known chain."""
    return next(chain[:order] for chain in of_label(word) if len(chain) >= order and chain[order - 1].word == end)


@cache
def _shipped() -> Mapping[str, tuple[Chain, ...]]:
    found: dict[str, list[Chain]] = {}
    text = files(__package__).joinpath("synonym-chains.tsv").read_text(encoding="utf-8")
    for line in text.splitlines()[1:]:
        word, *links = line.split("\t")
        found.setdefault(word, []).append(tuple(Link(*link.split("/")) for link in links))
    return {word: tuple(own) for word, own in found.items()}


def drawn(folder: Path, word: str) -> tuple[Chain, ...]:
    """Different chains of a word, as long as they can be made, up to ORDERS; drawn, the same whenever.

    At every step a sense of the word that has other words is drawn, then one of these: one word, of letters alone, that
    is not in the chain already.
    """
    rng = stream(0, "synonyms", word)
    found: dict[Chain, None] = {}
    for _ in range(4 * _CHAINS):
        chain: list[Link] = []
        seen = {word}
        while len(chain) < ORDERS:
            senses = list(_senses(folder, chain[-1].word if chain else word, frozenset(seen)))
            if not senses:
                break
            sense, words = senses[int(rng.integers(len(senses)))]
            chain.append(Link(words[int(rng.integers(len(words)))], sense))
            seen.add(chain[-1].word)
        if chain and len(found) < _CHAINS:
            found[tuple(chain)] = None
    return tuple(found)


def _senses(folder: Path, word: str, seen: frozenset[str]) -> Iterator[tuple[str, list[str]]]:
    senses, lemmas = _wordnet(folder)
    for sense in senses.get(word, ()):
        others = [other for other in lemmas[sense] if other not in seen]
        if others:
            yield sense, others


@cache
def _wordnet(folder: Path) -> tuple[Mapping[str, list[str]], Mapping[str, list[str]]]:
    """The senses of every word in WordNet's order, and the words of every sense that are one word of small letters."""
    senses: dict[str, list[str]] = {}
    lemmas: dict[str, list[str]] = {}
    for part, name in _PARTS:
        for fields in _rows(folder / f"data.{name}"):
            words = (re.sub(r"\(\w+\)$", "", word) for word in fields[4 : 4 + 2 * int(fields[3], 16) : 2])
            lemmas[part + fields[0]] = [word for word in dict.fromkeys(words) if word.isalpha() and word.islower()]
        for fields in _rows(folder / f"index.{name}"):
            # After the pointers: how many senses, how many of them are tagged, and where each stands.
            places = fields[6 + int(fields[3]) :]
            senses.setdefault(fields[0], []).extend(part + place for place in places)
    return senses, lemmas


def _rows(path: Path) -> Iterator[list[str]]:
    with path.open(encoding="latin-1") as file:
        for line in file:
            if not line.startswith("  "):
                yield line.split(" | ")[0].split()
