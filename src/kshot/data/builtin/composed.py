"""One relation after another: what follows from the facts of two tables, or of one and the letters of a word."""

from collections.abc import Mapping
from functools import cache

from kshot.data.builtin.relation import columns, place

# A pair of relations that goes through fewer inputs is none to teach and test with.
LEAST = 20


@cache
def relations() -> Mapping[str, Mapping[str, str]]:
    """Ten relations as maps; those of letters are defined on every word that another relation gives."""
    facts = {
        "country of": _map("countries.tsv", "capital", "country"),
        "continent of": _map("countries.tsv", "country", "continent"),
        "singular of": _map("nouns.tsv", "plural", "singular"),
        "English for": _map("words.tsv", "french", "english"),
        "present of": _map("verbs.tsv", "past", "verb"),
        "opposite of": _map("antonyms.tsv", "word", "antonym"),
        "colour of": _map("colours.tsv", "thing", "colour"),
        "French for": _map("words.tsv", "english", "french"),
    }
    words = {word for own in facts.values() for pair in own.items() for word in pair}
    return facts | {
        "first letter of": {word: word[0] for word in words},
        "capital letters of": {word: word.upper() for word in words},
    }


def _map(file: str, given: str, asked: str) -> dict[str, str]:
    """Two columns; where an input has two answers it is left out."""
    pairs = columns(file, given, asked)
    answers: dict[str, set[str]] = {}
    for one, other in pairs:
        answers.setdefault(one, set()).add(other)
    return {one: other for one, other in pairs if len(answers[one]) == 1}


def chains() -> list[tuple[str, str]]:
    """The ordered pairs (first, then) that lead somewhere: from LEAST inputs or more, not back to where they began."""
    found = []
    for first, one in relations().items():
        for then, other in relations().items():
            through = [given for given, middle in one.items() if middle in other]
            back = sum(other[one[given]] == given for given in through)
            spelling = first in _SPELLING
            if first != then and not spelling and len(through) >= LEAST and back < len(through) / 2:
                found.append((first, then))
    return found


# What they give is no word that another relation starts from.
_SPELLING = ("first letter of", "capital letters of")


def steps(first: str, then: str) -> list[tuple[str, str, str]]:
    """``(input, what the first gives, what the second gives of that)``, in an order drawn by the inputs."""
    one, other = relations()[first], relations()[then]
    found = [(given, middle, other[middle]) for given, middle in one.items() if middle in other]
    return sorted(found, key=lambda row: place(row[0]))
