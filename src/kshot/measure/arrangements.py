"""What a model says after some of its demonstrations, in any order: every such prompt from one pass.

An *arrangement* is a tuple of places in ``adapted.demonstrations``: which of them are shown, and in which order. A
*value function* maps arrangements to the gold label's log-probability of every query, in nats: with ``of="candidates"``
that of the label among the query's candidates (log-softmax over their sums), with ``of="sum"`` the sum itself. All
arrangements are asked for at once, so the token tree runs every shared beginning once.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float, Int
from scipy.special import log_softmax

from kshot.data.task import Example, Task
from kshot.errors import DataError, MethodError, PromptError
from kshot.model.adapted import Adapted
from kshot.model.demonstrations import shown_texts
from kshot.model.prompts import Prompt, continuations
from kshot.model.tree import Scored

Of = Literal["candidates", "sum"]
Arrangement = tuple[int, ...]
ValueFunction = Callable[[Sequence[Arrangement]], np.ndarray]
"""Arrangements -> (m, q), in nats."""


def candidate_logprobs(
    adapted: Adapted, task: Task, examples: Sequence[Example], arrangements: Sequence[Arrangement]
) -> Float[np.ndarray, "m q c"]:
    """log P of every candidate of every example after each arrangement, in nats, -inf where there is no candidate.

    Raises MethodError where ``adapted`` shows no demonstrations of its own, PromptError for a prompt beyond the context.
    All sequences are held at once, 8 bytes a token; of many, hand over the examples in parts.
    """
    at = {one: m for m, one in enumerate(dict.fromkeys(arrangements))}
    counts = [len(task.candidates(example)) for example in examples]
    table = np.full((len(at), len(counts), max(counts, default=0)), -np.inf)
    sums = adapted.reader.score([s for own in sequences_after(adapted, task, examples, list(at)) for s in own]).sums()
    present = np.arange(table.shape[2]) < np.array(counts, dtype=np.int64)[:, None]
    table[:, present] = sums.reshape(len(at), sum(counts))
    return table[[at[one] for one in arrangements]]


def gold_columns(task: Task, examples: Sequence[Example]) -> Int[np.ndarray, "q"]:
    """The column of every example's right candidate; DataError where an example has none."""
    for example in examples:
        if example.label not in task.candidates(example):
            raise DataError(
                f"query {example.id!r} of task {task.name!r} has no right answer among its candidates, and what a "
                "demonstration did is measured there; label the query or leave it out"
            )
    return np.array([task.candidates(e).index(e.label or "") for e in examples], dtype=np.int64)


def gold_logprob(
    logprobs: Float[np.ndarray, "m q c"], gold: Int[np.ndarray, "q"], of: Of = "candidates"
) -> Float[np.ndarray, "m q"]:
    """The gold label's log-probability, in nats, from a table of sums: among the candidates, or the sum itself."""
    table = log_softmax(logprobs, axis=-1) if of == "candidates" and logprobs.size else logprobs
    return table[:, np.arange(len(gold)), gold]


def value_function(
    adapted: Adapted, task: Task, examples: Sequence[Example], *, of: Of = "candidates"
) -> ValueFunction:
    """Arrangements -> the gold label's log-probability of every example after each of them, (m, q), in nats.

    What follows here raises as this does: MethodError where ``adapted`` does not show the same demonstrations to all
    queries, DataError for an example without an answer, PromptError for a prompt beyond the context.
    """
    shown_to_all(adapted)
    gold = gold_columns(task, examples)
    return lambda arrangements: gold_logprob(candidate_logprobs(adapted, task, examples, arrangements), gold, of)


def shown_to_all(adapted: Adapted) -> tuple[Example, ...]:
    """The demonstrations of all queries; MethodError where there are none, or something else answers or is read."""
    other = adapted.retrieve or adapted.classifier or adapted.prefix.tokens is None
    if other or not adapted.demonstrations:
        raise MethodError(
            f"asked what each demonstration did, and {adapted.method or 'this way'} does not show the same "
            "demonstrations to all queries; use in-context with 1 shot or more and a pick that does not look at the query"
        )
    return adapted.demonstrations


def sequences_after(
    adapted: Adapted, task: Task, examples: Sequence[Example], arrangements: Sequence[Arrangement]
) -> list[tuple[Scored, ...]]:
    """The candidates of every example after every arrangement, arrangement after arrangement."""
    texts, template = shown_texts(adapted.template, shown_to_all(adapted), channel=adapted.channel), adapted.template
    prompts = [
        Prompt(template.preamble([texts[i] for i in arrangement]), example.fields, task.candidates(example))
        for arrangement in arrangements
        for example in examples
    ]
    found = continuations(adapted.lm.codec, template, prompts, channel=adapted.channel).sequences
    longest, limit = max((len(s.tokens) for own in found for s in own), default=0), adapted.lm.context
    if limit is not None and longest > limit:
        raise PromptError(
            f"the longest prompt needs {longest} tokens and {adapted.lm.name} reads {limit}; show fewer demonstrations"
        )
    return list(found)
