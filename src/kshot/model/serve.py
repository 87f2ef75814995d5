"""Answers for texts: queries of one or of several artefacts of a model, side by side in one packed pass."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.special import log_softmax

from kshot.data.task import Example
from kshot.data.template import named
from kshot.errors import DataError, KshotError, ModelError, NumericError, PromptError, UnknownName
from kshot.model.classifier import over
from kshot.model.demonstrations import shown_texts
from kshot.model.lm import LM
from kshot.model.prefix import Prefix
from kshot.model.prompts import Prompt, continuations
from kshot.model.taught import Taught
from kshot.model.tree import Scored

Query = str | Mapping[str, Any] | Example
"""A text (for a template with one field), the fields of an input by name, or an Example."""

RULES = ("majority-vote", "mean-log-probability")

# An open answer is a line; one that has not ended by then is cut.
ANSWER_TOKENS = 48
# Known answers at which the seam between prompt and answer is looked at, where any text may be the answer.
_SEAMS = 8


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer to one query.

    ``probability`` is its share among the candidates, and ``logprobs`` holds log P(candidate | query) in nats for each;
    where any text may be the answer, there are no candidates: None, and an empty mapping.
    """

    label: str
    probability: float | None
    logprobs: Mapping[str, float] = field(default_factory=dict)


def predict_together(groups: Sequence[tuple[Taught, Sequence[Query]]]) -> list[list[Prediction]]:
    """The answers to the queries of each artefact, in their order: as one at a time, up to rounding.

    Artefacts of one model share a packed pass, whatever stands before their queries; those with a change of weights or
    a momentum of their own have a pass each, for these are in force for all of a pass. Open answers are read artefact by artefact, and
    classifiers answer by themselves. ModelError for artefacts of several models, PromptError that names the query that
    cannot be put to the model, or for one query where a list of them is meant.
    """
    answered = answer_together(groups)
    for number, own in enumerate(answered):
        for at, one in enumerate(own):
            if isinstance(one, KshotError):
                where = f"text {at + 1}" + (f" of artefact {number + 1}" if len(answered) > 1 else "")
                raise PromptError(f"{where}: {one}") from one
    return [[one for one in own if isinstance(one, Prediction)] for own in answered]


def answer_together(groups: Sequence[tuple[Taught, Sequence[Query]]]) -> list[list[Prediction | KshotError]]:
    """The same, with an error in the place of each answer that there is none to: the others are not held up by it."""
    if len({id(taught.lm.model) for taught, _ in groups}) > 1:
        names = ", ".join(sorted({taught.lm.name for taught, _ in groups}))
        raise ModelError(f"artefacts that answer together share one model, and these have several ({names})")
    for _, queries in groups:
        if isinstance(queries, str | Mapping | Example):
            raise PromptError("a list of queries was expected, and this is a single one; put it in a list: [query]")
    prepared = [_prepared(taught, queries) for taught, queries in groups]
    passes: dict[tuple[int, ...], list[_Prepared]] = {}
    for one in prepared:
        if _closed(one.taught) and one.taught.classifier is None:
            passes.setdefault(_in_force(one.taught), []).append(one)
    tables: dict[int, list[np.ndarray]] = {}
    for together in passes.values():
        asked: list[tuple[Sequence[Scored], Prefix]] = [
            ([s for own in one.sequences for s in own], one.taught.prefix) for one in together
        ]
        sums = iter(together[0].taught.reader.score_together(asked).sums())
        for one in together:
            tables[id(one)] = [np.array([next(sums) for _ in own]) for own in one.sequences]
    return [_answers(one, tables.get(id(one), [])) for one in prepared]


def _in_force(taught: Taught) -> tuple[int, ...]:
    """What holds for a whole pass: artefacts that differ in it cannot share one."""
    lm = taught.lm
    changes = [id(delta) if delta else 0 for delta in (lm.delta, taught.delta)]
    return (*changes, id(lm.momentum), lm.route.kind == "tree")


def ensemble(members: Sequence[Taught], queries: Sequence[Query], rule: str = "majority-vote") -> list[Prediction]:
    """What several artefacts of one model say together, from one packed pass; the numbers of measure/ensemble.py.

    ``mean-log-probability``: the mean over members of log P(candidate). ``majority-vote``: log((v + m / 2) / (K + 1 / 2))
    for v votes of K members and m the softmax of that mean (Lester et al. 2021, table 3, vote; of equals the greater
    mean wins). Open answers are the most frequent one under either rule, of equals that of the earliest member.
    UnknownName for another rule, PromptError where members have different candidates.
    """
    if rule not in RULES:
        raise UnknownName("rule to combine prompts", rule, RULES)
    if not members:
        raise PromptError("an ensemble of no members was asked; give it one or more artefacts")
    by_member = predict_together([(member, queries) for member in members])
    return [_combined(said, rule) for said in zip(*by_member, strict=True)]


def _combined(said: tuple[Prediction, ...], rule: str) -> Prediction:
    first = said[0]
    if not first.logprobs:
        return Prediction(Counter(one.label for one in said).most_common(1)[0][0], None)
    names = list(first.logprobs)
    if any(set(one.logprobs) != set(names) for one in said):
        raise PromptError("the members of an ensemble have the same candidates, and these have different ones")
    table = np.array([[one.logprobs[name] for name in names] for one in said])
    mean = table.mean(axis=0)
    if rule == "mean-log-probability":
        return _best(names, mean)
    votes = np.bincount(table.argmax(axis=1), minlength=len(names)).astype(float)
    with np.errstate(divide="ignore"):
        shares = np.logaddexp(np.log(votes), log_softmax(mean) - np.log(2)) - np.log(len(said) + 0.5)
    winner = int(np.where(votes == votes.max(), mean, -np.inf).argmax())
    # Means of equals may lie too close to be seen beside whole votes: then a last bit decides.
    if shares.argmax() != winner:
        shares[winner] = np.nextafter(shares.max(), np.inf)
    return _best(names, shares)


def _best(names: Sequence[str], row: Float[np.ndarray, "c"]) -> Prediction:
    if np.isnan(row).any():
        raise NumericError(
            "the answer is NaN; look for NaN or infinity in what was learned, or read the model in float32"
        )
    best = int(row.argmax())
    shares = np.exp(log_softmax(row))
    return Prediction(names[best], float(shares[best]), dict(zip(names, map(float, row), strict=True)))


@dataclass(frozen=True, slots=True, eq=False)
class _Prepared:
    """The queries of one artefact: those that can be put to the model, their places, and what is wrong with the others."""

    taught: Taught
    examples: list[Example]
    places: list[int]
    sequences: list[tuple[Scored, ...]]
    faults: dict[int, KshotError]


def _prepared(taught: Taught, queries: Sequence[Query]) -> _Prepared:
    faults: dict[int, KshotError] = {}
    found: list[tuple[int, Example]] = []
    preambles: list[str] = []
    names = fields_of(taught)
    for at, query in enumerate(queries):
        try:
            example = _example(taught, query, names, at)
            taught.template.render(example.fields)
            preambles.append(_preamble(taught, example))
            found.append((at, example))
        except (PromptError, DataError) as fault:
            faults[at] = fault
    limit, kept = taught.lm.context, []
    made = _written(taught, [example for _, example in found], preambles)
    for (at, example), one in zip(found, made, strict=True):
        if isinstance(one, PromptError):
            faults[at] = one
        elif limit is not None and one[1] > limit:
            faults[at] = PromptError(f"it needs {one[1]} tokens with its prompt, and {taught.lm.name} reads {limit}")
        else:
            kept.append((at, example, one[0]))
    return _Prepared(taught, [e for _, e, _ in kept], [at for at, _, _ in kept], [own for _, _, own in kept], faults)


_Written = tuple[tuple[Scored, ...], int]
"""The sequences of a query, none for a classifier, and how many tokens are read for it at most."""


def _written(taught: Taught, examples: Sequence[Example], preambles: Sequence[str]) -> list[_Written | PromptError]:
    """Every query as it is put to the model: all together, and one by one where there is one that cannot be."""
    try:
        if taught.classifier is not None:
            return [((), need) for need in taught.classifier.needs(taught.lm, taught.template, examples)]
        return [(own, _length(taught, own)) for own in _sequences(taught, examples, preambles)]
    except PromptError as fault:
        if len(examples) == 1:
            return [fault]
        return [_written(taught, [e], [before])[0] for e, before in zip(examples, preambles, strict=True)]


def _length(taught: Taught, own: tuple[Scored, ...]) -> int:
    """How many tokens the model reads at most for one query, those of a soft prompt and of the answer among them."""
    before = taught.prefix.length if taught.prefix.tokens is None else 0
    return before + (max(len(s.tokens) for s in own) if _closed(taught) else own[0].start + ANSWER_TOKENS)


def _closed(taught: Taught) -> bool:
    """Whether candidates compete, or any text may be the answer."""
    return taught.kind != "open" or taught.channel


def _preamble(taught: Taught, example: Example) -> str:
    shown = taught.demonstrations if taught.retrieve is None else taught.retrieve(example)
    return taught.template.preamble(shown_texts(taught.template, shown, channel=taught.channel))


def fields_of(taught: Taught) -> list[str]:
    """The names that an artefact's template looks up in a query, sorted."""
    return sorted(named(taught.template))


def _example(taught: Taught, query: Query, names: Sequence[str], at: int) -> Example:
    if isinstance(query, Example):
        return query
    if isinstance(query, str):
        if len(names) != 1:
            raise PromptError(f"the template reads the fields {', '.join(names) or 'none'}, and this is a plain text")
        query = {names[0]: query}
    else:
        _filled(query, names)
    missing = [name for name in names if name not in query]
    if missing and not set(names) & set(query):
        raise PromptError(
            f"the template reads the field {missing[0]!r}, and this has {', '.join(map(str, query)) or 'none'}"
        )
    choices = query.get("choices", ()) if taught.kind == "choice" else ()
    if isinstance(choices, str) or not all(isinstance(c, str) for c in choices):
        raise PromptError("its choices must be a list of texts")
    if len(set(choices)) < len(choices):
        raise PromptError("two of its choices are the same")
    if taught.kind == "choice" and not choices:
        raise PromptError("it has no choices; give them as a list of texts under 'choices'")
    _sayable(query)
    # An id that no demonstration has: a query that is one of the pool is known by its fields.
    return Example(id=f"\x00query-{at}", fields=dict(query), label=None, choices=tuple(choices))


def _filled(query: Mapping[str, Any], names: Sequence[str]) -> None:
    """PromptError where what a query asks is nothing: null and NaN would be read as words. Beside it fields may be null."""
    for name in names:
        value = query.get(name, "missing")
        if (len(names) == 1 or name in ("text", "input")) and (
            value is None or value != value or not str(value).strip()
        ):
            raise PromptError(f"field {name!r} is empty; give it text")


def _sayable(query: Mapping[str, Any]) -> None:
    for name, value in query.items():
        try:
            str(value).encode()
        except UnicodeEncodeError as error:
            raise PromptError(f"field {name!r} holds half a character (a lone surrogate)") from error


def _candidates(taught: Taught, example: Example) -> tuple[str, ...]:
    names = example.choices or taught.labels
    if not names:
        raise PromptError("the artefact has no labels to choose from; give load_adapted labels=(...)")
    return names


def _sequences(taught: Taught, examples: Sequence[Example], preambles: Sequence[str]) -> list[tuple[Scored, ...]]:
    """Every candidate after every query; of an open task a few answers that are known, for the sake of the seam."""
    known = (*taught.labels, *(e.label for e in taught.demonstrations if e.label))
    seams = tuple(dict.fromkeys(known))[:_SEAMS] or ("answer",)
    closed = _closed(taught)
    prompts = [
        Prompt(preamble, example.fields, _candidates(taught, example) if closed else seams)
        for preamble, example in zip(preambles, examples, strict=True)
    ]
    return list(continuations(taught.lm.codec, taught.template, prompts, channel=taught.channel).sequences)


def _answers(one: _Prepared, table: Sequence[np.ndarray]) -> list[Prediction | KshotError]:
    taught = one.taught
    if not one.examples:
        said: list[Prediction] = []
    elif taught.classifier is not None:
        said = _classified(taught, one.examples)
    elif _closed(taught):
        said = [_best(_candidates(taught, e), row) for e, row in zip(one.examples, table, strict=True)]
    else:
        said = [Prediction(text, None) for text in _greedy(taught.reader, taught, one.sequences)]
    found: dict[int, Prediction | KshotError] = {**one.faults, **dict(zip(one.places, said, strict=True))}
    return [found[at] for at in sorted(found)]


def _classified(taught: Taught, examples: Sequence[Example]) -> list[Prediction]:
    assert taught.classifier is not None
    rows, _ = taught.classifier.logprobs(taught.lm, taught.template, examples)
    # Open answers are those it was taught; the task's own are the test's.
    names = taught.labels if taught.kind != "open" and taught.labels else taught.classifier.labels
    return [_best(names, row) for row in over(taught.classifier, rows, names)]


def _greedy(reader: LM, taught: Taught, sequences: Sequence[tuple[Scored, ...]]) -> list[str]:
    """The most probable text, up to a line break or the template's separator."""
    stops = [stop for stop in ("\n", taught.template.separator) if stop]
    prompts = [own[0].tokens[: own[0].start] for own in sequences]
    answers = reader.greedy(
        prompts,
        lambda text: any(stop in text.lstrip(" ") for stop in stops),
        ANSWER_TOKENS,
        prefix=taught.prefix,
    )
    texts = list(answers.texts)
    for stop in stops:
        texts = [text.lstrip(" ").split(stop)[0] for text in texts]
    return [text.strip() for text in texts]
