"""What an example says in its own words, and the terms that a bag of words counts."""

import re
import unicodedata
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Literal

from jinja2 import Environment, nodes

from kshot.data.template import Template

Unit = Literal["words", "characters"]

# The first word of the Unicode names of letters in scripts that do not part words by blanks.
_UNSPACED = {"CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR"}
_WORD = re.compile(r"\w+")
_WORDS, _CHARACTERS = 2, 3


def content(template: Template, fields: Mapping[str, Any]) -> str:
    """What an example puts into the template: the fields that the layout names, in its order, a line each.

    The layout's own words say nothing, and a field that it does not name may hold the answer. PromptError where the
    layout and the fields do not fit.
    """
    template.render(fields)
    values = (fields.get(name) for name in _named(template.input))
    return "\n".join(_text(value) for value in values if value is not None)


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


def _text(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


@lru_cache(maxsize=1024)
def _named(source: str) -> tuple[str, ...]:
    # Not jinja2.meta, which refuses a layout with a filter of ours.
    found = list(Environment().parse(source).find_all(nodes.Name))
    names = {one.name for one in found} - {one.name for one in found if one.ctx == "store"}
    # A name need not stand where it is first found as a string: the order only has to be the same every time.
    return tuple(sorted(names, key=lambda name: (source.find(name), name)))
