"""Adapted x examples -> Predictions: sequences are built, seams and lengths are looked at, the model runs once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float

from kshot.data.predictions import Predictions
from kshot.data.task import Example, Task
from kshot.data.template import content, fillable, filled
from kshot.errors import PromptError
from kshot.measure.classified import classified
from kshot.measure.greedy import greedy, right_answers
from kshot.measure.outcome import Outcome, Overlength
from kshot.model.adapted import Adapted, shown_texts
from kshot.model.lm import OnProgress
from kshot.model.prompts import Prompt, continuations
from kshot.model.said import Scores
from kshot.model.tokens import Continuations
from kshot.model.tree import Scored
from kshot.seeds import stream

# Zhao et al. 2021, section 5: the three content-free inputs whose mean is the reference.
CONTENT_FREE = ("N/A", "[MASK]", "")
# Fei et al. 2023, section 3: random in-domain texts, as many as they average over.
DOMAIN_TEXTS = 20


def score(
    adapted: Adapted,
    task: Task,
    examples: Sequence[Example],
    *,
    overlength: Overlength = "drop-demo",
    seed: int = 0,
    calibration: bool = True,
    on_progress: OnProgress | None = None,
) -> Outcome:
    """The log-probability of every candidate of every example, and the rows ``calibration`` needs, from one pass.

    Open tasks are answered greedily too. ``seed`` draws the random in-domain texts. Raises PromptError where a prompt
    cannot be put to this model, NumericError where the model answers with NaN.
    """
    if adapted.classifier is not None:
        return classified(adapted, task, examples, overlength=overlength)
    prompts, dropped, skipped = _fitting(adapted, task, list(examples), overlength)
    kept = [query for _, query in prompts]
    extra = _calibration_inputs(adapted, task, kept, seed) if calibration else []
    shared = prompts[0][0] if prompts else ""
    found = _continuations(
        adapted, task, prompts, [Prompt(shared, fields, task.candidates(kept[0])) for fields in extra]
    )
    flat = [sequence for own in found.sequences for sequence in own]
    spoken = task.kind == "open" and not adapted.channel
    gold = [_gold(task, e) for e in kept]
    probes = right_answers(adapted, task, gold, found.sequences) if spoken else []
    scores = adapted.reader.score([*flat, *probes], adapted.prefix, on_progress)
    tables, n = _tables(found, scores.sums()), len(prompts)
    tokens = scores.tokens + _prefix_tokens(adapted, flat)
    unconditional, spent = _unconditional(adapted, task, kept) if calibration else (None, 0)
    predictions = Predictions(
        ids=tuple(e.id for e in kept),
        labels=tuple(task.candidates(e) for e in kept),
        logprobs=tables.sums[:n],
        tokens=tables.lengths[:n],
        characters=_characters(adapted, task, kept),
        gold=np.array(gold, dtype=np.int64),
        unconditional=unconditional,
        content_free=tables.sums[n : n + len(CONTENT_FREE)] if extra else None,
        domain=tables.sums[n + len(CONTENT_FREE) :] if len(extra) > len(CONTENT_FREE) else None,
        gold_text=tuple(None if e.label is None else adapted.template.answer(e.label).strip() for e in kept),
    )
    if spoken and kept:
        predictions, more = _with_greedy(adapted, task, predictions, list(found.sequences), scores)
        spent += more
    return Outcome(
        predictions=predictions, tokens=tokens + spent, repaired=found.repaired, dropped=dropped, skipped=skipped
    )


Asked = tuple[str, Example]
"""A query after its preamble (description and demonstrations)."""


def _continuations(adapted: Adapted, task: Task, asked: Sequence[Asked], extra: Sequence[Prompt] = ()) -> Continuations:
    prompts = [Prompt(preamble, query.fields, task.candidates(query)) for preamble, query in asked]
    return continuations(adapted.lm.codec, adapted.template, [*prompts, *extra], channel=adapted.channel)


def _fitting(
    adapted: Adapted, task: Task, examples: list[Example], overlength: Overlength
) -> tuple[list[Asked], int, tuple[str, ...]]:
    """The prompts with as many demonstrations as the context holds: all queries with the same ones, unless retrieved."""
    if adapted.retrieve is not None:
        found = [_fit_together(adapted, task, [e], adapted.retrieve(e), overlength) for e in examples]
        prompts = [p for part, _, _ in found for p in part]
        return prompts, max((d for _, d, _ in found), default=0), tuple(i for _, _, s in found for i in s)
    return _fit_together(adapted, task, examples, adapted.demonstrations, overlength)


def _fit_together(
    adapted: Adapted, task: Task, examples: list[Example], shown: tuple[Example, ...], overlength: Overlength
) -> tuple[list[Asked], int, tuple[str, ...]]:
    template = adapted.template
    texts = shown_texts(template, shown, channel=adapted.channel)
    preamble = template.preamble(texts)
    limit = adapted.lm.context
    if limit is None:
        return [(preamble, e) for e in examples], 0, ()
    codec = adapted.lm.codec
    room = limit - len(codec.first) - adapted.prefix.length * (adapted.prefix.tokens is None)
    # One token more at each seam than the parts have: a bound that never lets a prompt through that is too long.
    tails = [len(t) + 1 for t in codec.encode([template.render(e.fields) for e in examples])]
    answers = _answer_lengths(adapted, task, examples)
    needs = [tail + answer for tail, answer in zip(tails, answers, strict=True)]
    sizes = [len(t) + 1 for t in codec.encode([text + template.separator for text in texts])]
    base = len(codec.encode([template.description])[0]) + 1 if template.description else 0
    total = base + sum(sizes)
    longest = max(needs, default=0)
    if total + longest <= room:
        return [(preamble, e) for e in examples], 0, ()
    if overlength == "error":
        raise PromptError(_too_long(adapted, total + longest, limit))
    if overlength == "skip":
        kept = [e for e, need in zip(examples, needs, strict=True) if total + need <= room]
        if not kept:
            raise PromptError(_too_long(adapted, total + min(needs), limit) + "; no query is left")
        left_out = tuple(e.id for e, need in zip(examples, needs, strict=True) if total + need > room)
        return [(preamble, e) for e in kept], 0, left_out
    dropped = 0
    while dropped < len(sizes) and total + longest > room:
        total -= sizes[dropped]
        dropped += 1
    if total + longest > room:
        raise PromptError(
            _too_long(adapted, total + longest, limit) + " even without demonstrations; try --overlength skip"
        )
    return [(template.preamble(texts[dropped:]), e) for e in examples], dropped, ()


def _too_long(adapted: Adapted, found: int, limit: int) -> str:
    return f"the longest prompt needs {found} tokens and {adapted.lm.name} reads {limit}"


def _answer_lengths(adapted: Adapted, task: Task, examples: Sequence[Example]) -> list[int]:
    codec, template = adapted.lm.codec, adapted.template
    known: dict[str, int] = {}
    for labels in dict.fromkeys(task.candidates(e) for e in examples):
        known.update(zip(labels, map(len, codec.encode([template.answer(label) for label in labels])), strict=True))
    return [max(known[label] for label in task.candidates(e)) + 1 for e in examples]


def _calibration_inputs(
    adapted: Adapted, task: Task, examples: Sequence[Example], seed: int
) -> list[Mapping[str, Any]]:
    """Fields of content-free and of random in-domain inputs; none where queries do not share candidates and prompt, or
    where the layout has no place for such a text: each would be the first query once more."""
    if task.kind != "classification" or adapted.retrieve is not None or adapted.channel or not examples:
        return []
    fields = examples[0].fields
    if not fillable(adapted.template, fields):
        return []
    replaced: list[Mapping[str, Any]] = [filled(fields, text) for text in CONTENT_FREE]
    # What the layout does not show is no text of the task, and may be its answer.
    texts = [content(adapted.template, e.fields) for e in examples]
    words = [word for text in texts for word in text.split()]
    if not words:
        return replaced
    length = max(1, round(len(words) / len(texts)))
    rng = stream(seed, "domain-texts", task.name)
    for _ in range(DOMAIN_TEXTS):
        replaced.append(filled(fields, " ".join(rng.choice(words, size=length))))
    return replaced


def _unconditional(
    adapted: Adapted, task: Task, examples: Sequence[Example]
) -> tuple[Float[np.ndarray, "q c"] | None, int]:
    """log P(answer | the layout with an empty input): no demonstrations, nothing that tells queries apart.

    None where the layout of a query cannot be emptied: log P(answer | the query itself) would take its place.
    """
    if adapted.channel or task.kind == "open" or not examples:
        return None, 0
    if not all(fillable(adapted.template, example.fields) for example in examples):
        return None, 0
    distinct: dict[tuple[str, tuple[str, ...]], Prompt] = {}
    keys = []
    for example in examples:
        empty = filled(example.fields, "")
        key = (adapted.template.render(empty), task.candidates(example))
        distinct.setdefault(key, Prompt(adapted.template.description, empty, task.candidates(example)))
        keys.append(key)
    found = continuations(adapted.lm.codec.afresh(), adapted.template, list(distinct.values()))
    scores = adapted.lm.score([s for own in found.sequences for s in own])
    rows = dict(zip(distinct, _tables(found, scores.sums()).sums, strict=True))
    return np.stack([rows[key] for key in keys]), scores.tokens


def _with_greedy(
    adapted: Adapted, task: Task, predictions: Predictions, sequences: list[tuple[Scored, ...]], scores: Scores
) -> tuple[Predictions, int]:
    """Predictions with greedy answers; after the candidates of all queries ``scores`` hold their right answers."""
    best = iter(scores.best)
    said = [[next(best) for _ in own] for own in sequences]
    right = iter(right_answers(adapted, task, predictions.gold.tolist(), sequences))
    order = np.argsort(-predictions.logprobs, axis=1, kind="stable")
    paths, answers = [], []
    for i, own in enumerate(sequences):
        ranked = [j for j in order[i] if j < len(own)]
        more = predictions.gold[i] >= 0
        paths.append((*([next(right)] if more else []), *(own[j] for j in ranked)))
        answers.append([*([next(best)] if more else []), *(said[i][j] for j in ranked)])
    found = greedy(adapted, task, paths, answers)
    return replace(predictions, greedy=found.texts), found.tokens


@dataclass(frozen=True, slots=True)
class _Tables:
    sums: Float[np.ndarray, "q c"]
    lengths: np.ndarray


def _tables(found: Continuations, sums: np.ndarray) -> _Tables:
    width = max((len(own) for own in found.sequences), default=0)
    table = np.full((len(found.sequences), width), -np.inf)
    lengths = np.zeros(table.shape, dtype=np.int64)
    at = 0
    for i, own in enumerate(found.sequences):
        table[i, : len(own)] = sums[at : at + len(own)]
        lengths[i, : len(own)] = [len(s.tokens) - s.start for s in own]
        at += len(own)
    return _Tables(table, lengths)


def _characters(adapted: Adapted, task: Task, examples: Sequence[Example]) -> np.ndarray:
    width = max((len(task.candidates(e)) for e in examples), default=0)
    table = np.zeros((len(examples), width), dtype=np.int64)
    for i, example in enumerate(examples):
        words = [adapted.template.words.get(label, label) for label in task.candidates(example)]
        table[i, : len(words)] = [len(word) for word in words]
    return table


def _gold(task: Task, example: Example) -> int:
    candidates = task.candidates(example)
    return candidates.index(example.label) if example.label in candidates else -1


def _prefix_tokens(adapted: Adapted, sequences: Sequence[Scored]) -> int:
    return adapted.prefix.length if sequences and adapted.prefix.tokens else 0
