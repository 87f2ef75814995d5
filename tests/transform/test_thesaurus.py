"""Chains of synonyms: the facts that ship, and WordNet's files read as they are written."""

from pathlib import Path

import pytest

from kshot.transform import thesaurus
from kshot.transform.thesaurus import FOLDER, ORDERS, Link, chains, drawn, of_label, way_to

# Two adjectives in one sense, one of them in another sense with a third word; a noun of the same spelling; a compound.
DATA_ADJ = """  1 A licence of several lines
00000010 00 a 02 bad 0 evil 0 000 | not good
00000020 00 a 02 evil 0 wicked(p) 0 000 | worse
"""
DATA_NOUN = """  1 A licence
00000030 03 n 03 wicked 0 candle_wick 0 Wick 0 000 | of a candle
00000040 03 n 02 wicked 0 rogue 0 001 @ 00000030 n 0000 | a man
"""
INDEX_ADJ = """  1 A licence
bad a 1 0 1 1 00000010
evil a 2 2 ! & 2 0 00000010 00000020
wicked a 1 0 1 1 00000020
"""
INDEX_NOUN = """  1 A licence
wicked n 2 1 @ 2 0 00000030 00000040
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in (
        ("data.adj", DATA_ADJ),
        ("data.noun", DATA_NOUN),
        ("index.adj", INDEX_ADJ),
        ("index.noun", INDEX_NOUN),
    ):
        (tmp_path / name).write_text(text, encoding="latin-1")
    for part in ("verb", "adv"):
        for kind in ("data", "index"):
            (tmp_path / f"{kind}.{part}").write_text("  1 A licence\n", encoding="latin-1")
    return tmp_path


def test_chains_by_hand(folder: Path) -> None:
    """bad, evil, wicked, rogue: each step in a sense that has another word; no compound, no name, no way back."""
    assert drawn(folder, "bad") == (
        (Link("evil", "a00000010"), Link("wicked", "a00000020"), Link("rogue", "n00000040")),
    )
    assert drawn(folder, "rogue") == ()


def test_a_word_that_does_not_ship_is_looked_up(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KSHOT_WORDNET", str(folder))
    chains.cache_clear()
    assert chains("evil")[0][-1].word in {"bad", "rogue"}
    monkeypatch.setenv("KSHOT_WORDNET", str(folder / "nowhere"))
    chains.cache_clear()
    assert chains("evil") == ()
    chains.cache_clear()


def test_the_way_to_a_word_is_a_chain_that_ends_in_it() -> None:
    for order in range(1, ORDERS + 1):
        for end in {chain[order - 1].word for chain in chains("positive") if len(chain) >= order}:
            way = way_to("Positive", end, order)
            assert (len(way), way[-1].word) == (order, end)
            assert any(chain[:order] == way for chain in chains("positive"))
    with pytest.raises(StopIteration):
        way_to("positive", "positive", 1)


def test_a_label_is_known_by_its_singular() -> None:
    assert of_label("Sports") == of_label("sport") == chains("sport") != ()


@pytest.mark.parametrize("word", ["negative", "positive", "world", "business", "science", "sport", "politics"])
def test_what_ships_is_well_formed(word: str) -> None:
    found = chains(word)
    assert len(set(found)) == len(found) >= 40
    assert any(len(chain) == ORDERS for chain in found)
    for chain in found:
        words = [link.word for link in chain]
        assert len({word, *words}) == len(words) + 1 <= ORDERS + 1
        assert all(own.isalpha() and own.islower() for own in words)
        assert all(link.sense[0] in "anvr" and len(link.sense) == 9 for link in chain)


@pytest.mark.skipif(not (FOLDER / "index.noun").is_file(), reason="WordNet's files are not on this machine")
def test_what_ships_is_what_is_drawn() -> None:
    for word, found in thesaurus._shipped().items():
        assert found == drawn(FOLDER, word)
