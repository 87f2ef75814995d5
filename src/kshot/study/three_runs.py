"""The same queries in three runs, traced side by side: zero-shot, fine-tuned, and after demonstrations.

Queries are walked a few at a time, so memory does not grow with their number.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int

from kshot.adapt.tuning import read_first
from kshot.data.task import Example, Task
from kshot.data.template import Template
from kshot.errors import MethodError
from kshot.model.delta import Delta
from kshot.model.demonstrations import demonstration_of_tokens, shown_texts
from kshot.model.lm import LM
from kshot.model.prompts import Prompt, continuations
from kshot.model.trace import Tokens, Trace, traced
from kshot.model.tree import Scored, shared_beginning
from kshot.study.remembered import Memory, remembered_as

# Where a text is looked at. The published code records the second, and the paper says "the last token".
POSITIONS = ("last prompt token", "appended label")

RUNS = ("zero-shot", "fine-tuned", "in-context")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Texts:
    """The queries as they are read alone and after demonstrations, each with its first candidate's answer appended.

    ``alone`` and ``after`` are those of each query, ``answers_alone`` and ``answers_after`` all candidates' answers in
    the same places, ``positions`` where both texts are looked at, from their ends, ``shared`` the number of tokens with
    which both end: the query text. ``tokens`` are the demonstrations, ``owner`` the place of
    the demonstration that each of them belongs to. ``left_out`` queries are tokenised differently in the two.
    """

    queries: tuple[Example, ...]
    alone: tuple[Tokens, ...]
    after: tuple[Tokens, ...]
    answers_alone: tuple[tuple[Scored, ...], ...]
    answers_after: tuple[tuple[Scored, ...], ...]
    positions: tuple[tuple[int, int], ...]
    shared: tuple[int, ...]
    tokens: Tokens
    owner: Int[np.ndarray, "p"]
    left_out: tuple[str, ...]


def described(template: Template, shown: Sequence[Example], shown_in: Template) -> Template:
    """The layout of queries after demonstrations of another layout: their text begins its description."""
    text = shown_in.preamble(shown_texts(shown_in, tuple(shown)))
    return replace(template, description=text + template.description)


def texts(
    lm: LM,
    task: Task,
    template: Template,
    demonstrations: Sequence[Example],
    queries: Sequence[Example],
    *,
    shown_in: Template | None = None,
) -> Texts:
    """Both prompts of every query; ``shown_in`` is the layout of the demonstrations, where that is another.

    MethodError where no query reads the same in both.
    """
    shown = tuple(demonstrations)
    if shown_in is None:
        tokens, layout = read_first(lm, template, shown, queries)
        followed_by = template.render(queries[0].fields)
    else:
        tokens, layout = read_first(lm, described(template, shown, shown_in), (), queries)
        followed_by = template.description + template.render(queries[0].fields)
    alone = _candidates(lm, template, task, queries)
    after = _candidates(replace(lm, codec=lm.codec.begun()), layout, task, queries)
    kept, positions, shared = [], [], []
    for i, ((own, *_), (other, *_)) in enumerate(zip(alone, after, strict=True)):
        same = shared_beginning([own.tokens[::-1], other.tokens[::-1]])
        answer = len(own.tokens) - own.start
        # The query's last token and its answer must be the same tokens in both.
        if answer == len(other.tokens) - other.start and same > answer:
            kept.append(i)
            positions.append((-answer - 1, -1))
            shared.append(min(same, len(own.tokens) - len(lm.codec.first)))
    if not kept:
        raise MethodError("no query is tokenised alike alone and after the demonstrations; try another template")
    owner = demonstration_of_tokens(lm.codec, shown_in or template, shown, followed_by=followed_by)
    return Texts(
        queries=tuple(queries[i] for i in kept),
        alone=tuple(alone[i][0].tokens for i in kept),
        after=tuple(after[i][0].tokens for i in kept),
        answers_alone=tuple(alone[i] for i in kept),
        answers_after=tuple(after[i] for i in kept),
        positions=tuple(positions),
        shared=tuple(shared),
        tokens=tokens,
        owner=owner[: len(tokens)],
        left_out=tuple(query.id for i, query in enumerate(queries) if i not in set(kept)),
    )


def _candidates(lm: LM, template: Template, task: Task, queries: Sequence[Example]) -> list[tuple[Scored, ...]]:
    prompts = [Prompt(template.description, query.fields, task.candidates(query)) for query in queries]
    return list(continuations(lm.codec, template, prompts).sequences)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Seen:
    """What a few queries leave behind at one position; every list and first axis counts queries.

    ``outputs`` of each run; ``maps`` of each run are scores to the query text up to the position; ``to_demonstrations``
    are the in-context run's scores to the prefix, ``last_queries`` the fine-tuned run's query vectors. ``said`` is what
    each run says of the queries' candidates, whatever the position.
    """

    outputs: dict[str, Float[np.ndarray, "q l e"]]
    maps: dict[str, list[Float[np.ndarray, "l h _"]]]
    to_demonstrations: list[Float[np.ndarray, "l h p"]]
    last_queries: list[Float[np.ndarray, "l h d"]]
    said: dict[str, Memory]


Waiting = tuple[int, tuple[Trace, Trace, Trace]]
"""The number of a query and its three traces."""


def walked(lm: LM, asked: Texts, delta: Delta, *, few: int = 16) -> Iterator[tuple[Seen, ...]]:
    """``few`` queries at a time, what they leave behind at each of POSITIONS; ``delta`` is what fine-tuning changed."""
    prefix = lm.prefill(asked.tokens)
    runs = zip(
        traced(lm, asked.alone, asked.positions, beside=asked.answers_alone),
        traced(lm.changed(delta), asked.alone, asked.positions, beside=asked.answers_alone),
        traced(lm, asked.after, asked.positions, prefix, beside=asked.answers_after),
        strict=True,
    )
    waiting: list[Waiting] = []
    for i, three in enumerate(runs):
        waiting.append((i, three))
        if len(waiting) == few or i == len(asked.queries) - 1:
            said = {run: _said(asked, r, waiting) for r, run in enumerate(RUNS)}
            yield tuple(_seen(asked, waiting, s, said) for s in range(len(POSITIONS)))
            waiting = []


def _said(asked: Texts, run: int, waiting: Sequence[Waiting]) -> Memory:
    """What a run says of every candidate of a few queries, by all the tokens that it has read."""
    after = RUNS[run] == "in-context"
    before = asked.tokens if after else ()
    answers = asked.answers_after if after else asked.answers_alone
    return {
        remembered_as(before + answer.tokens, len(before) + answer.start): said
        for i, three in waiting
        for answer, said in zip(answers[i], three[run].said, strict=True)
    }


def _seen(asked: Texts, waiting: Sequence[Waiting], s: int, said: dict[str, Memory]) -> Seen:
    outputs = {run: np.stack([three[r].outputs[:, s] for _, three in waiting]) for r, run in enumerate(RUNS)}
    maps: dict[str, list[np.ndarray]] = {run: [] for run in RUNS}
    for i, three in waiting:
        # Tokens after the position are not seen from it.
        last = asked.positions[i][s] + 1
        for run, one in zip(RUNS, three, strict=True):
            end = one.to_own.shape[-1] + last
            maps[run].append(one.to_own[:, :, s, end - (asked.shared[i] + last) : end])
    return Seen(
        outputs=outputs,
        maps=maps,
        to_demonstrations=[three[2].to_prefix[:, :, s] for _, three in waiting],
        last_queries=[three[1].queries[:, :, s] for _, three in waiting],
        said=said,
    )
