"""A task written down in tokens: what a transform changes. Nothing of it goes through text again."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Int

from kshot.data.task import Example, Task
from kshot.data.template import Template, fillable, filled
from kshot.errors import PromptError
from kshot.model.prompts import channel_head
from kshot.model.tokens import Codec
from kshot.model.tree import Scored
from kshot.transform.lexicon import NO_WORDS, Lexicon

Tokens = tuple[int, ...]

# So many characters of the next input stand after an example when it is cut: its first token depends on no more.
_AHEAD = 40


@dataclass(frozen=True, slots=True)
class Piece:
    """An example in tokens: its input with the layout around it, the label that is right, and the label that is shown.

    ``gold`` and ``shown`` are columns of ``Written.labels``; ``shown`` is None where a demonstration says no answer.
    """

    id: str
    input: Tokens
    gold: int
    shown: int | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Written:
    """A classification task in the tokens of one model.

    A demonstration is ``input + answers[shown]``, and ``separator`` stands after each. A query is an input after which
    ``options`` compete, one a label. For the channel the answer comes first, and it is the input that is scored.
    ``words`` are the spellings of the answers. ``write`` lays a text out as an input and ``say`` a word as an answer; a
    transform of how inputs are written changes ``write`` too. ``right`` is the share of demonstrations that are to show
    their right label, None where that is left to the draw.

    ``special`` are tokens that stand in no text, ``lexicon`` single tokens that can stand for a label, ``outside`` texts
    that are no inputs of this task. ``seams`` counts the examples that have other tokens here than in one whole text.
    """

    name: str
    labels: tuple[str, ...]
    words: tuple[str, ...]
    pool: tuple[Piece, ...]
    queries: tuple[Piece, ...]
    answers: tuple[Tokens, ...]
    options: tuple[Tokens, ...]
    first: Tokens
    separator: Tokens
    write: Callable[[str], Tokens] = field(repr=False)
    say: Callable[[str], Tokens] = field(repr=False)
    description: Tokens = ()
    channel: bool = False
    right: float | None = None
    vocabulary: int = 0
    special: frozenset[int] = frozenset()
    lexicon: Lexicon = field(default=NO_WORDS, repr=False)
    outside: tuple[str, ...] = field(default=(), repr=False)
    seams: int = 0

    def before(self, shown: Sequence[Piece]) -> Tokens:
        """What stands before a query: the first tokens, the description, the demonstrations."""
        found = [*self.first, *self.description]
        for piece in shown:
            answer = () if piece.shown is None else self.answers[piece.shown]
            found += [*answer, *piece.input] if self.channel else [*piece.input, *answer]
            found += self.separator
        return tuple(found)

    def asked(self, before: Tokens, query: Piece) -> tuple[Scored, ...]:
        """Every option after this and the query's input, or that input after every option."""
        if self.channel:
            return tuple(_scored((*before, *option), query.input) for option in self.options)
        return tuple(_scored((*before, *query.input), option) for option in self.options)

    def prompts(self, drawn: Int[np.ndarray, "q k"]) -> list[tuple[Scored, ...]]:
        """The prompt of every query after the examples of the pool that were drawn for it, in that order."""
        rows = drawn.tolist()
        known = {tuple(row): self.before([self.pool[i] for i in row]) for row in rows}
        return [self.asked(known[tuple(row)], query) for row, query in zip(rows, self.queries, strict=True)]

    @property
    def gold(self) -> Int[np.ndarray, "q"]:
        """The column of the right option of every query."""
        return np.array([query.gold for query in self.queries], dtype=np.int64)


def _scored(before: Tokens, said: Tokens) -> Scored:
    if not before:
        raise PromptError("the prompt is empty and this model has no first token; give at least one demonstration")
    return Scored((*before, *said), len(before))


def written(
    task: Task,
    template: Template,
    codec: Codec,
    pool: Sequence[Example],
    queries: Sequence[Example],
    *,
    channel: bool = False,
) -> Written:
    """The task in this layout, cut into tokens as they stand among other demonstrations.

    PromptError where queries have answers of their own, where a label's word is no token, and where two are the same.
    """
    if task.kind != "classification":
        raise PromptError(
            f"task {task.name!r} is of kind {task.kind}; what works is one with the same labels for every query"
        )
    examples = (*pool, *queries)
    page = _Page(codec, template, channel, template.render(examples[0].fields), task.labels[0])
    columns = [task.labels.index(str(example.label)) for example in examples]
    texts = [template.render(example.fields) for example in examples]
    cut = [page.cut(text, page.answer(task.labels[c])) for text, c in zip(texts, columns, strict=True)]
    words = tuple(template.words.get(label, label) for label in task.labels)
    answers = tuple(page.say(word) for word in words)
    _check(task, answers)
    separator = Counter(own.separator for own in cut).most_common(1)[0][0]
    joined = [(own.answer, own.separator) == (answers[c], separator) for own, c in zip(cut, columns, strict=True)]
    pieces = [Piece(e.id, own.input, c, c) for e, own, c in zip(examples, cut, columns, strict=True)]
    return Written(
        name=task.name,
        labels=task.labels,
        words=words,
        pool=tuple(pieces[: len(pool)]),
        queries=tuple(pieces[len(pool) :]),
        answers=answers,
        options=answers,
        first=codec.first,
        separator=separator,
        description=codec.encode([template.description])[0],
        channel=channel,
        vocabulary=len(codec.tokenizer),
        special=frozenset(codec.tokenizer.all_special_ids),
        write=lambda text: page.input_of(_laid_out(task, template, examples[0], text)),
        say=page.say,
        seams=len(joined) - sum(joined),
    )


def _laid_out(task: Task, template: Template, example: Example, text: str) -> str:
    """A text in the place of an input; PromptError where the layout has no place for it."""
    if not fillable(template, example.fields):
        raise PromptError(
            f"task {task.name!r}: its layout {template.input!r} shows no text that another could stand for; what works is "
            "one that shows a field of text"
        )
    return template.render(filled(example.fields, text))


def _check(task: Task, answers: Sequence[Tokens]) -> None:
    if empty := [label for label, tokens in zip(task.labels, answers, strict=True) if not tokens]:
        raise PromptError(f"task {task.name!r}: the label {empty[0]!r} becomes no token; give it a visible word")
    if len(set(answers)) < len(answers):
        raise PromptError(f"task {task.name!r}: two of its labels become the same tokens; give them different words")


@dataclass(frozen=True, slots=True)
class _Cut:
    """A demonstration in the tokens that it has between others."""

    input: Tokens
    answer: Tokens
    separator: Tokens


@dataclass(frozen=True, slots=True)
class _Page:
    """How demonstrations are written, with an input and a label to stand around one that is cut."""

    codec: Codec
    template: Template
    channel: bool
    input: str
    label: str

    def answer(self, label: str) -> str:
        return channel_head(self.template, label) if self.channel else self.template.answer(label)

    def say(self, word: str) -> Tokens:
        return self.cut(self.input, f"{word}\n" if self.channel else self.template.delimiter + word).answer

    def input_of(self, text: str) -> Tokens:
        return self.cut(text, self.answer(self.label)).input

    def cut(self, text: str, answer: str) -> _Cut:
        """The tokens of an input and its answer after a demonstration and before another."""
        separator, other = self.template.separator, (self.input, self.answer(self.label))
        own, other = ((answer, text), other[::-1]) if self.channel else ((text, answer), other)
        found = _apart(self.codec, (other[1], separator, *own, separator, other[0][:_AHEAD]))
        begun, ended = found[3:1:-1] if self.channel else found[2:4]
        return _Cut(begun, ended, found[4])


def _apart(codec: Codec, parts: Sequence[str]) -> tuple[Tokens, ...]:
    """The tokens of every part in the text that they make together; a token that lies in two belongs to the first."""
    tokenizer = codec.tokenizer
    if not tokenizer.is_fast:
        return tuple(codec.encode(parts))
    encoded = tokenizer("".join(parts), add_special_tokens=False, return_offsets_mapping=True)
    ends = np.cumsum([len(part) for part in parts])
    owner = np.searchsorted(ends, [begin for begin, _ in encoded["offset_mapping"]], side="right")
    ids = np.array(encoded["input_ids"])
    return tuple(tuple(ids[owner == i].tolist()) for i in range(len(parts)))
