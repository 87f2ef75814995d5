"""Text of facts: one relation between words a document, a pair a line, so that its beginning tells which relation it is."""

from collections.abc import Mapping
from dataclasses import dataclass

from kshot.data.builtin import RELATIONS
from kshot.seeds import stream

# All of countries: what is asked of one is told by the lines before alone.
KINDS = ("capitals", "country-continent", "country-currency", "country-language", "country-adjective")
# Lines of a document.
_LINES = 12


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Facts:
    """What holds, by relation and input: ``trained`` pairs stand in the text again and again, ``new`` ones nowhere."""

    trained: Mapping[str, Mapping[str, str]]
    new: Mapping[str, Mapping[str, str]]

    def answer(self, kind: str, word: str) -> str | None:
        """What a relation has for an input, trained or new; None where it has nothing."""
        return self.trained[kind].get(word) or self.new[kind].get(word)


def facts() -> Facts:
    """The pairs of built-in relations of countries: those to draw demonstrations from are trained, those to test are new."""
    tasks = {kind: RELATIONS[kind]() for kind in KINDS}
    trained, new = (
        {kind: {own.fields["input"]: own.label for own in getattr(task, part)} for kind, task in tasks.items()}
        for part in ("train", "test")
    )
    return Facts(trained=trained, new=new)


def line(word: str, answer: str) -> str:
    """A pair as the text writes it."""
    return f"{word}: {answer}\n"


def fact_documents(known: Facts, seed: int, count: int) -> list[str]:
    """So many documents, each twelve lines of trained pairs of one relation, in any order."""
    rng = stream(seed, "facts")
    found = []
    for _ in range(count):
        pairs = list(known.trained[KINDS[rng.integers(len(KINDS))]].items())
        found.append("".join(line(*pairs[i]) for i in rng.choice(len(pairs), size=_LINES, replace=False)))
    return found
