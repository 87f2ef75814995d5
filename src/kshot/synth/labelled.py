"""Text with label tasks in it: passages of a mixture, each with a question and its answer, one kind of question a document.

The question is one and the same token whatever it is about, so that a passage does not say what is asked of it: in a
document earlier passages and their answers do, and after training a soft prompt has to.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from kshot.errors import KshotError, UnknownName
from kshot.seeds import stream
from kshot.synth.grammar import Ginc, documents, ginc, inferred

# What the first and the last token of a passage are sorted into.
_GROUPS = 3


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Labelled:
    """The text: a ``mixture`` whose known concepts one of the tasks asks for, and sizes of it.

    ``passages`` of ``length`` tokens a document. Tokens are those of the mixture, the question, the labels of every task in
    turn, ``sentinels``, and the end of a text.
    """

    mixture: Ginc
    length: int
    passages: int
    sentinels: int

    @property
    def question(self) -> int:
        """The token after every passage."""
        return self.mixture.vocabulary

    @property
    def labels(self) -> dict[str, tuple[int, ...]]:
        """The tokens that answer each task."""
        found, at = {}, self.question + 1
        for name, many in _MANY.items():
            count = many(self)
            found[name] = tuple(range(at, at + count))
            at += count
        return found

    @property
    def spans(self) -> tuple[int, ...]:
        """The sentinels."""
        first = self.labels[TASKS[-1]][-1] + 1
        return tuple(range(first, first + self.sentinels))

    @property
    def end(self) -> int:
        """The token after a document, the last of all."""
        return self.spans[-1] + 1

    @property
    def vocabulary(self) -> int:
        """How many tokens there are."""
        return self.end + 1

    @property
    def tokens(self) -> int:
        """Of a document, with its end."""
        return self.passages * (self.length + 2) + 1


_MANY: Mapping[str, Callable[[Labelled], int]] = {
    "concept": lambda text: text.mixture.known,
    "first": lambda text: _GROUPS,
    "last": lambda text: _GROUPS,
}

TASKS = tuple(_MANY)
"""Which concept a passage is from, and which group its first and its last token are of."""


def labelled(seed: int, *, length: int, passages: int, sentinels: int, known: int = 3) -> Labelled:
    """A text drawn by the seed. KshotError for passages of less than two tokens, or none."""
    if length < 2 or passages < 1 or sentinels < 2:
        raise KshotError(
            f"{passages} passages of {length} tokens, {sentinels} sentinels: what works is a passage of 2 tokens and 2 sentinels, or more"
        )
    mixture = ginc(seed, known=known, unknown=0, permutations=10)
    return Labelled(mixture=mixture, length=length, passages=passages, sentinels=sentinels)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Passages:
    """Passages (b, t), the number of the right label of each, and what exact inference gives every label, (b, c)."""

    tokens: Int[np.ndarray, "b t"]
    answers: Int[np.ndarray, "b"]
    exact: Float[np.ndarray, "b c"]


def passages_of(text: Labelled, task: str, seed: int, count: int) -> Passages:
    """So many passages with what ``task`` asks of them; a pure function of all arguments. UnknownName."""
    if task not in TASKS:
        raise UnknownName("label task", task, TASKS)
    tokens, concepts = documents(text.mixture, seed, count, text.length)
    answers = _right(tokens, concepts)[task]
    exact = inferred(text.mixture, tokens).concepts[:, -1] if task == "concept" else np.eye(_GROUPS)[answers]
    return Passages(tokens=tokens, answers=answers, exact=exact)


def _right(tokens: Int[np.ndarray, "b t"], concepts: Int[np.ndarray, "b"]) -> dict[str, Int[np.ndarray, "b"]]:
    """The number of the right label of passages, for every task."""
    return {"concept": concepts, "first": tokens[:, 0] % _GROUPS, "last": tokens[:, -1] % _GROUPS}


def texts(text: Labelled, seed: int, step: int, count: int) -> Int[np.ndarray, "b t"]:
    """Documents for a step, each of one task drawn evenly, with the token that ends them; a pure function of all arguments."""
    rng = stream(seed, "labelled", step)
    tokens, concepts = documents(text.mixture, int(rng.integers(2**62)), count * text.passages, text.length)
    kinds = np.repeat(rng.integers(0, len(TASKS), count), text.passages)
    labels = [np.array(own) for own in text.labels.values()]
    right = _right(tokens, concepts)
    answers = np.choose(kinds, [own[right[name]] for name, own in zip(TASKS, labels, strict=True)])
    asked = np.concatenate([tokens, np.full((len(tokens), 1), text.question), answers[:, None]], axis=1)
    end = np.full((count, 1), text.end)
    return np.concatenate([asked.reshape(count, -1), end], axis=1)
