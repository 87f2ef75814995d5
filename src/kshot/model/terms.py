"""The terms that a bag of words counts: words, or characters where a script does not part words by blanks."""

import re
import unicodedata
from collections.abc import Iterable
from typing import Literal

Unit = Literal["words", "characters"]

# The first word of the Unicode names of letters in scripts that do not part words by blanks.
_UNSPACED = {"CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR"}
_WORD = re.compile(r"\w+")
_WORDS, _CHARACTERS = 2, 3


def unit_of(texts: Iterable[str]) -> Unit:
    """Characters where most letters belong to scripts that do not part words by blanks, else words.

    >>> unit_of(["赤いりんご", "ok"]), unit_of(["a red apple", "りんご"])
    ('characters', 'words')
    """
    letters = [letter for text in texts for letter in text if letter.isalpha()]
    unspaced = sum(unicodedata.name(letter, "").split(" ")[0] in _UNSPACED for letter in letters)
    return "characters" if 2 * unspaced > len(letters) else "words"


def units(text: str, unit: Unit) -> list[str]:
    """One word and two neighbouring words, or one to three neighbouring characters without a blank; in lower case.

    >>> units("The red Apple", "words"), units("りんご", "characters")
    (['the', 'red', 'apple', 'the red', 'red apple'], ['り', 'ん', 'ご', 'りん', 'んご', 'りんご'])
    """
    text = text.casefold()
    if unit == "words":
        found = _WORD.findall(text)
        return [" ".join(found[i : i + n]) for n in range(1, _WORDS + 1) for i in range(len(found) - n + 1)]
    runs = text.split()
    return [run[i : i + n] for run in runs for n in range(1, _CHARACTERS + 1) for i in range(len(run) - n + 1)]
