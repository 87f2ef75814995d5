"""What a model says of itself: the greedy answer of an open task, mostly read off the pass that scored its candidates."""

from collections.abc import Sequence

import numpy as np

from kshot.data.task import Task
from kshot.data.template import Template
from kshot.model.adapted import Adapted
from kshot.model.said import Answers
from kshot.model.tokens import Codec
from kshot.model.tree import Scored


def right_answers(
    adapted: Adapted, task: Task, gold: Sequence[int], sequences: Sequence[tuple[Scored, ...]]
) -> list[Scored]:
    """For every query its right answer and the token that ends it, to be scored along with its candidates.

    Nothing is given away: what the model says after each of these tokens is its own, and where it would have said
    something else before, it is not looked at. They only save a pass where the greedy answer is right.
    """
    end = ending(adapted.lm.codec, adapted.template, task)
    found = [own[at] for own, at in zip(sequences, gold, strict=True) if at >= 0]
    return [Scored(s.tokens + end, s.start) for s in found]


def ending(codec: Codec, template: Template, task: Task) -> tuple[int, ...]:
    """The token that ends an open answer, as it stands after one; none where it has none of its own.

    Alone a separator may be other tokens: some tokenizers begin every text with a blank.
    """
    answer = template.answer(task.labels[0])
    alone, ended = codec.encode([answer, answer + template.separator])
    return ended[len(alone) :][:1] if ended[: len(alone)] == alone else ()


def greedy(
    adapted: Adapted, task: Task, sequences: Sequence[tuple[Scored, ...]], best: Sequence[Sequence[np.ndarray]]
) -> Answers:
    """The greedy answers, up to a line break or the template's separator, and two tokens longer than any right one.

    ``sequences[q]`` are continuations of prompt q that were scored, the most probable first, and ``best[q]`` what the
    model would have said in the place of each scored token.
    """
    stops, delimiter = adapted.template.stops, adapted.template.delimiter
    said = [
        {s.tokens[s.start :]: tuple(b.tolist()) for s, b in zip(*both, strict=True)}
        for both in zip(sequences, best, strict=True)
    ]
    codec, template = adapted.lm.codec, adapted.template
    end = ending(codec, template, task)

    def guess(i: int, answer: tuple[int, ...]) -> tuple[int, ...]:
        for path in said[i]:
            if path[: len(answer)] == answer:
                return (*path[len(answer) :], *end)
        return end

    def over(text: str) -> bool:
        # A delimiter may hold a line break of its own.
        return not delimiter.startswith(text) and any(
            stop in text.removeprefix(delimiter).lstrip(" ") for stop in stops
        )

    answers = adapted.reader.greedy(
        [own[0].tokens[: own[0].start] for own in sequences],
        over,
        max(len(tokens) for tokens in codec.encode([template.answer(label) for label in task.labels])) + 2,
        prefix=adapted.prefix,
        known=[_walked(paths) for paths in said],
        guess=guess,
    )
    texts = tuple(text.removeprefix(delimiter) for text in answers.texts)
    for stop in stops:
        texts = tuple(text.split(stop)[0] for text in texts)
    return Answers(tuple(text.strip() for text in texts), answers.tokens)


def _walked(said: dict[tuple[int, ...], tuple[int, ...]]) -> tuple[int, ...]:
    """The answer as far as it can be read off: each next token is known after a path that was scored."""
    answer: tuple[int, ...] = ()
    while True:
        known = next(
            (best for path, best in said.items() if len(path) > len(answer) and path[: len(answer)] == answer), None
        )
        if known is None:
            return answer
        answer = (*answer, known[len(answer)])
