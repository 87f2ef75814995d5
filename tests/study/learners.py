"""Learners of a known kind behind the interface of a language model: they see token ids, and one of them each account.

The world they were "trained" in has 400 tokens: some tell a class, some stand for a label, some lay out an input. What a
learner knows of it, it knows by the ids; demonstrations are found in a prompt by the options that compete after it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from kshot.data.task import Example, Task
from kshot.data.template import Template
from kshot.model.said import Scores
from kshot.model.tree import Scored
from kshot.seeds import digest, stream
from kshot.study.hypotheses.asking import Asked
from kshot.transform.lexicon import Lexicon
from kshot.transform.words import WORDS
from kshot.transform.written import Piece, Tokens, Written

VOCABULARY = 400
BEGIN, END, LINE = 1, 2, 3
LABELS = {"negative": 10, "positive": 11}
TELLING = (range(50, 80), range(80, 110))
PLAIN = range(110, 300)
# Words that stand for a label: those that say something of it, then others.
NAMED = sorted({word for kind in WORDS.values() for label in LABELS for word in kind[label]})
SPELT = [*NAMED, *(f"word{i}" for i in range(40))]
FIRST_WORD = 310

Votes = np.ndarray
"""How strongly each option of a query is held, before noise."""


def told(query: Tokens) -> int | None:
    """The class of an input by what the world's tokens mean; None where they mean nothing."""
    for token in query:
        if token in LABELS.values():
            return int(token - LABELS["negative"])
    counts = [sum(token in own for token in query) for own in TELLING]
    return None if counts[0] == counts[1] else int(np.argmax(counts))


def hard(token: int) -> float:
    """How hard a word is to learn as an answer, in [0, 1]; words that say something of a label are easy."""
    if token < FIRST_WORD + len(NAMED):
        return 0.0
    return digest(0, "hard", token) / 2**64


def selects(shown: Sequence[tuple[Tokens, int]], query: Tokens, options: Sequence[int]) -> Votes:
    """Knows one task with its own label words, and finds it or nothing."""
    votes = np.zeros(len(options))
    label = told(query)
    if set(options) == set(LABELS.values()) and label is not None and BEGIN in query:
        votes[list(options).index(LABELS["negative"] + label)] = 1.0
    return votes


def learns(shown: Sequence[tuple[Tokens, int]], query: Tokens, options: Sequence[int]) -> Votes:
    """Ridge regression from the counts of tokens to the answers shown; knows nothing of any token."""
    if not shown:
        return np.zeros(len(options))
    x = np.array([np.bincount(tokens, minlength=VOCABULARY) for tokens, _ in shown], dtype=np.float64)
    y = np.array([[float(option == answer) for option in options] for _, answer in shown])
    asked = np.bincount(query, minlength=VOCABULARY).astype(np.float64)
    centre, mean = x.mean(axis=0), y.mean(axis=0)
    x, y = x - centre, y - mean
    solved = np.linalg.solve(x @ x.T + np.eye(len(x)), y)
    return mean + (asked - centre) @ x.T @ solved


def composes(shown: Sequence[tuple[Tokens, int]], query: Tokens, options: Sequence[int]) -> Votes:
    """Knows what tokens mean, and learns which word each meaning is answered with, easy words more readily."""
    votes = np.zeros(len(options))
    label = told(query)
    if label is None:
        return votes
    for tokens, answer in shown:
        if told(tokens) == label and answer in options:
            votes[list(options).index(answer)] += 1.0
    total = votes.sum()
    ease = np.array([1.0 - hard(option) for option in options])
    return votes / total * ease if total else votes


ACCOUNTS: dict[str, Callable[..., Votes]] = {"H1": selects, "H2": learns, "H3": composes}


@dataclass(frozen=True)
class Learner:
    """Answers by its account, with noise of its own for every prompt: the less of it the stronger."""

    account: str
    noise: float

    def score(self, sequences: Sequence[Scored]) -> Scores:
        together: dict[Tokens, list[int]] = {}
        for i, sequence in enumerate(sequences):
            together.setdefault(sequence.tokens[: sequence.start], []).append(i)
        found: list[np.ndarray] = [np.zeros(0)] * len(sequences)
        for before, members in together.items():
            options = [sequences[i].tokens[sequences[i].start] for i in members]
            shown, query = parsed(before, set(options))
            votes = ACCOUNTS[self.account](shown, query, options)
            rng = stream(0, "noise", self.account, *before[-40:], *options)
            votes = votes + self.noise * rng.normal(size=len(options))
            for i, value in zip(members, votes - np.logaddexp.reduce(votes), strict=True):
                found[i] = np.array([value])
        return Scores(tuple(found), tuple(np.zeros(1, dtype=np.int64) for _ in sequences), 0)


def parsed(before: Tokens, options: set[int]) -> tuple[list[tuple[Tokens, int]], Tokens]:
    """The demonstrations, each up to an answer, and what stands after the last of them."""
    shown, begin = [], 0
    for i, token in enumerate(before):
        if token in options:
            shown.append((before[begin:i], token))
            begin = i + 1
    return shown, before[begin:]


def written(seed: int, pool: int, queries: int) -> tuple[Written, tuple[Example, ...]]:
    """Inputs of eight tokens, two or three of which tell the class."""
    rng = stream(seed, "learners")
    pieces, examples = [], []
    for i in range(pool + queries):
        label = int(rng.integers(2))
        telling = rng.choice(TELLING[label], size=int(rng.integers(2, 4)))
        plain = rng.choice(PLAIN, size=8 - len(telling))
        tokens = tuple(rng.permutation([*telling, *plain]).tolist())
        pieces.append(Piece(f"{i}", (BEGIN, *tokens, END), label, label))
        examples.append(Example(id=f"{i}", fields={"text": " ".join(map(str, tokens))}, label=list(LABELS)[label]))
    spelt = {**LABELS, **{word: FIRST_WORD + i for i, word in enumerate(SPELT)}}
    tokens = np.array(sorted(spelt.values()))
    names = {token: word for word, token in spelt.items()}
    found = Written(
        name="world",
        labels=tuple(LABELS),
        words=tuple(LABELS),
        pool=tuple(pieces[:pool]),
        queries=tuple(pieces[pool:]),
        answers=tuple((token,) for token in LABELS.values()),
        options=tuple((token,) for token in LABELS.values()),
        first=(),
        separator=(LINE,),
        write=lambda text: (BEGIN, *(spelt[word] for word in text.split()), END),
        say=lambda word: (spelt[word],),
        vocabulary=VOCABULARY,
        lexicon=Lexicon(tokens, tuple(names[token] for token in tokens.tolist()), np.zeros(len(tokens))),
    )
    return found, tuple(examples)


def embedded(texts: Sequence[Tokens]) -> np.ndarray:
    table = stream(0, "embedding").normal(size=(VOCABULARY, 64))
    return np.stack([table[list(tokens)].mean(axis=0) for tokens in texts])


def asked(learner: Learner, seed: int, *, shots: int = 16, pool: int = 256, queries: int = 64) -> Asked:
    """What the battery asks of a learner with one seed."""
    own, examples = written(seed, pool, queries)
    task = Task(
        name="world",
        kind="classification",
        labels=tuple(LABELS),
        train=examples[:pool],
        test=examples[pool:],
        template=Template(input="{{text}}"),
    )
    return Asked(
        reader=learner,
        name=f"{learner.account}, noise {learner.noise:g}",
        task=task,
        template=task.template,
        pool=task.train,
        queries=task.test,
        written=own,
        channel=replace(own, channel=True),
        seed=seed,
        shots=shots,
        layers=30,
        embedded=embedded,
    )
