"""A task as it stands for one seed, and what is answered to its transformed prompts: tables, rows, contrasts."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from kshot.data.task import Example, Task
from kshot.data.template import Template
from kshot.errors import PromptError
from kshot.model.tree import Scored
from kshot.rivals.chance import Guessed, guessed, macro_f1s
from kshot.seeds import stream
from kshot.study.figures import figure
from kshot.transform.draw import Protocol, draw
from kshot.transform.lexicon import Reader
from kshot.transform.transform import Transform
from kshot.transform.written import Tokens, Written

Row = dict[str, Any]
Table = Float[np.ndarray, "q c"]
Embedded = Callable[[Sequence[Tokens]], Float[np.ndarray, "n e"]]

RESAMPLES = 2000
# Prompts of so many tokens in all are asked at once; more would only take memory.
_TOGETHER = 1 << 18
_BOUNDS = (0.025, 0.975)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Asked:
    """What is asked of ``reader`` about one task with one seed.

    ``written`` is the task in tokens, ``channel`` the same for the channel. ``embedded`` gives the mean row that the model
    looks up for each sequence of tokens, None for a reader that has no such rows; ``layers`` is how many layers it has.
    ``context`` is how many tokens it reads at most.
    """

    reader: Reader
    name: str
    task: Task
    template: Template
    pool: tuple[Example, ...] = field(repr=False)
    queries: tuple[Example, ...] = field(repr=False)
    written: Written = field(repr=False)
    channel: Written = field(repr=False)
    seed: int
    shots: int
    context: int | None = None
    layers: int = 1
    embedded: Embedded | None = field(default=None, repr=False)

    @property
    def notes(self) -> list[str]:
        """What a reader of the figures has to know of how the task is written."""
        own, found = self.written, []
        if own.seams:
            total = len(own.pool) + len(own.queries)
            found.append(f"{own.seams} of {total} examples have other tokens at a seam than in one whole text")
        if long := [word for word, tokens in zip(own.words, own.answers, strict=True) if len(tokens) > 1]:
            found.append(
                f"{', '.join(long)}: several tokens, scored by their sum, while arbitrary answers are one token; "
                "give label words of one token with --template"
            )
        return found

    def altered(self, transform: Transform) -> Written:
        """The task after a transform, its randomness that of this seed."""
        return transform(self.written, self.seed)

    def table(self, written: Written, drawn: Int[np.ndarray, "q k"]) -> Table:
        """log P of every option of every query after the demonstrations drawn for it, in nats.

        PromptError where a prompt is longer than the model reads: nothing is cut.
        """
        return self.tables([(written, drawn)])[0]

    def tables(self, asked: Iterable[tuple[Written, Int[np.ndarray, "_ k"]]]) -> list[Table]:
        """The same for several: what asks little by itself fills a pass with others."""
        found: list[Table] = []
        waiting: list[Sequence[tuple[Scored, ...]]] = []
        for written, drawn in asked:
            prompts = written.prompts(drawn)
            self._check_room(prompts, drawn.shape[1])
            waiting.append(prompts)
            if sum(len(sequence.tokens) for one in waiting for own in one for sequence in own) > _TOGETHER:
                found += self._scored(waiting)
                waiting = []
        return found + self._scored(waiting)

    def scored(self, prompts: Sequence[tuple[Scored, ...]], shots: int) -> Table:
        """The same for prompts that are there, all with as many options."""
        self._check_room(prompts, shots)
        return self._scored([prompts])[0]

    def _scored(self, waiting: Sequence[Sequence[tuple[Scored, ...]]]) -> list[Table]:
        sequences = [sequence for prompts in waiting for own in prompts for sequence in own]
        sums = self.reader.score(sequences).sums() if sequences else np.zeros(0)
        ends = np.cumsum([sum(map(len, prompts)) for prompts in waiting])
        parts = np.split(sums, ends[:-1]) if waiting else []
        return [own.reshape(len(prompts), -1) for prompts, own in zip(waiting, parts, strict=True)]

    def _check_room(self, prompts: Sequence[tuple[Scored, ...]], shots: int) -> None:
        longest = max(len(sequence.tokens) for own in prompts for sequence in own)
        if self.context is not None and longest > self.context:
            raise PromptError(
                f"task {self.task.name!r}: the longest prompt of {shots} demonstrations needs {longest} tokens "
                f"and {self.name} reads {self.context}; give --num-fewshot less"
            )

    def answers(self, written: Written, protocol: Protocol, shots: int | None = None) -> "Answers":
        """What is answered with this many demonstrations, by default as many as are asked for."""
        return self.all_answers([(written, protocol)], shots)[0]

    def all_answers(self, asked: Sequence[tuple[Written, Protocol]], shots: int | None = None) -> list["Answers"]:
        """The same for several tasks, each under its protocol, side by side."""
        k = self.shots if shots is None else shots
        drawn = [draw(written, k, self.seed, protocol) for written, protocol in asked]
        tables = self.tables((written, own) for (written, _), own in zip(asked, drawn, strict=True))
        return [
            Answers(table, written.gold, own, _numbered(written, own))
            for table, (written, _), own in zip(tables, asked, drawn, strict=True)
        ]


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """A table of scores, the right columns, and which examples of the pool stood before each query.

    ``query`` numbers the query that each row asks, None where every row asks one of its own. Rows of one query are no
    further evidence of what is answered to others, so intervals draw them together.
    """

    table: Table
    gold: Int[np.ndarray, "q"]
    drawn: Int[np.ndarray, "q k"]
    query: Int[np.ndarray, "q"] | None = None

    @property
    def said(self) -> Int[np.ndarray, "q"]:
        return self.table.argmax(axis=1)

    @property
    def right(self) -> Float[np.ndarray, "q"]:
        return (self.said == self.gold).astype(np.float64)

    @property
    def macro_f1(self) -> float:
        return float(macro_f1s(self.said[None], self.gold[None], self.table.shape[1])[0])

    @property
    def numbered(self) -> Int[np.ndarray, "q"]:
        """The query of each row, counted from 0 in the order in which they are first asked."""
        return np.arange(len(self.gold)) if self.query is None else self.query

    @property
    def n(self) -> int:
        """How many queries are asked, each counted once."""
        return len(np.unique(self.numbered))

    def guessed(self, seed: int) -> Guessed:
        return guessed(self.said, self.gold, seed)

    def resampled(self, seed: int) -> Int[np.ndarray, "b c c"]:
        """How often each label was answered with each, for queries drawn anew, all rows of a query together."""
        c, n = self.table.shape[1], self.n
        own = np.zeros((n, c * c), dtype=np.int64)
        np.add.at(own, (self.numbered, self.gold * c + self.said), 1)
        drawn = stream(seed, "resampled-queries", n).integers(n, size=(RESAMPLES, n))
        times = np.zeros((RESAMPLES, n), dtype=np.int64)
        np.add.at(times, (np.arange(RESAMPLES)[:, None], drawn), 1)
        return (times @ own).reshape(RESAMPLES, c, c)


def _numbered(written: Written, drawn: Int[np.ndarray, "q k"]) -> Int[np.ndarray, "q"] | None:
    """Which queries are one and the same prompt, as label words are after demonstrations that all share.

    None where every query has demonstrations of its own. What is right is part of a query.
    """
    if (drawn != drawn[:1]).any():
        return None
    known: dict[tuple[Tokens, int], int] = {}
    return np.array([known.setdefault((q.input, q.gold), len(known)) for q in written.queries], dtype=np.int64)


def answer_rows(variant: Sequence[str], found: Answers, seed: int) -> list[Row]:
    """Accuracy and macro-F1, each with its interval over queries (bootstrap), and what guessing gives of the second."""
    cells, n = found.resampled(seed), found.n
    right = np.einsum("bcc->b", cells) / cells.sum(axis=(1, 2))
    (low, high), (f1_low, f1_high) = _interval(right, n), _interval(_macro_f1s(cells), n)
    chance = found.guessed(seed)
    return [
        figure("accuracy", variant, value=float(found.right.mean()), n=n, low=low, high=high),
        figure(
            "macro_f1", variant, value=found.macro_f1, n=n, low=f1_low, high=f1_high,
            null=chance.macro_f1, null_low=chance.low, null_high=chance.high,
        ),
        figure("macro_f1", (*variant, "always one label"), value=chance.majority, n=n),
    ]  # fmt: skip


def contrast_row(name: str, one: Answers, other: Answers | float, seed: int, variant: Sequence[str] = ()) -> Row:
    """How much greater the macro-F1 of one is than that of the other, or than a figure that is known.

    The interval is over queries: both are computed anew for the same resampled queries.
    """
    own, n = _macro_f1s(one.resampled(seed)), one.n
    if isinstance(other, Answers):
        assert np.array_equal(one.numbered, other.numbered), "a contrast is between answers to the same queries"
        base, rest = other.macro_f1, _macro_f1s(other.resampled(seed))
    else:
        base, rest = other, np.full(len(own), other)
    low, high = _interval(own - rest, n)
    return figure("contrast", (name, *variant), value=one.macro_f1 - base, low=low, high=high, null=0.0, n=n)


def together(answers: Sequence[Answers]) -> Answers:
    """What several tables answer to the same queries, one after another: each query is asked as often as there are tables."""
    parts = [(own.table, own.gold, own.drawn, own.numbered) for own in answers]
    return Answers(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def _interval(values: Float[np.ndarray, "b"], n: int) -> tuple[float | None, float | None]:
    """The bounds of resamples of n queries; of one query there are none."""
    if n < 2:
        return None, None
    low, high = np.quantile(values, _BOUNDS).tolist()
    return low, high


def _macro_f1s(cells: Int[np.ndarray, "b c c"]) -> Float[np.ndarray, "b"]:
    """Macro-F1 of counts by right and answered label, of the classes in either, as ``metrics.macro_f1`` has it."""
    named = cells.sum(axis=1) + cells.sum(axis=2)
    scores = np.where(named > 0, 2 * np.einsum("bcc->bc", cells) / np.maximum(named, 1), 0.0)
    return scores.sum(axis=1) / np.maximum((named > 0).sum(axis=1), 1)
