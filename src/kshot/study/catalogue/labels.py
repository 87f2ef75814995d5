"""Why do wrong labels in demonstrations matter so little, and when do they matter?"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from kshot.data.task import Example, Task
from kshot.data.template import Template
from kshot.errors import MethodError
from kshot.measure.arrangements import gold_columns
from kshot.model.prefix import Prefix
from kshot.model.surgery import grafted, read_through
from kshot.seeds import stream
from kshot.study.catalogue.question import (
    LEVELLED,
    Question,
    Rival,
    Say,
    Table,
    condition_rows,
    contrast_rows,
    gold_logprobs,
    undefined,
    with_levelled,
)
from kshot.study.catalogue.told import Told, alone, told
from kshot.study.compared import Row, Setting

# Words that say nothing of sentiments, topics or inferences; drawn anew with each seed.
_WORDS = ("lamp", "river", "stone", "chair", "bread", "glass", "horse", "paper", "garden", "window", "bottle", "mountain",
          "basket", "candle", "button", "ladder", "pillow", "bridge", "carpet", "hammer", "feather", "island", "kettle",
          "mirror")  # fmt: skip
_SHARES = (0.25, 0.5, 0.75)
_NAME = "why_labels"
_HERE, _SPREAD = "most is in the label tokens themselves", "most is in what later tokens read of them"
_WORDS_TELL, _HELPS = "arbitrary label words make it costlier", "demonstrations with wrong labels still help"
_COST, _FIRST, _MORE = (
    "wrong labels cost",
    "the first quarter costs less than its share",
    "more demonstrations make it costlier",
)


def _answer(setting: Setting, say: Say) -> list[Row]:
    shown, seed = setting.demonstrations, setting.seed
    gold = gold_columns(setting.task, setting.queries)
    say("without demonstrations")
    tables = {"no demonstrations": alone(setting)}
    say("right and wrong labels")
    wrong = with_wrong_labels(setting.task, shown, 1.0, seed)
    right_read, wrong_read = (_read(setting, own) for own in (shown, wrong))
    tables |= {"right labels": _answers(right_read), "wrong labels": _answers(wrong_read)}
    for share in _SHARES:
        some = with_wrong_labels(setting.task, shown, share, seed)
        tables[f"{share:.0%} of the labels wrong"] = _answers(_read(setting, some))
    few = shown[: max(2, len(shown) // 4)]
    tables |= _told_right_and_wrong(setting, few, f", {len(few)} demonstrations")
    say("label words that say nothing")
    tables |= _told_right_and_wrong(setting, shown, ", arbitrary words", with_arbitrary_words(setting))
    say("labels of one text in the other")
    grafts, why_not = _grafts(right_read, wrong_read)
    tables |= grafts
    tables = with_levelled(tables)
    own = gold_logprobs(tables, gold)
    contrasts = {
        name: values
        for how in ("", f", {LEVELLED}")
        for name, values in _contrasts(own, len(few), _changed(shown, _SHARES[0]) / len(shown), how).items()
    }
    rows = condition_rows(_NAME, tables, gold, seed) + contrast_rows(_NAME, contrasts, seed, "nats")
    return rows + (undefined(_NAME, (_HERE, _SPREAD), why_not) if why_not else [])


def _contrasts(own: Mapping[str, np.ndarray], few: int, share: float, how: str) -> dict[str, np.ndarray]:
    """Every contrast, query by query, of conditions whose names end in ``how``; ``share`` of the labels are the first
    that are wrong, which of few demonstrations is not just a quarter."""
    right, wrong = own[f"right labels{how}"], own[f"wrong labels{how}"]
    cost = right - wrong
    cost_by_words = own[f"right labels, arbitrary words{how}"] - own[f"wrong labels, arbitrary words{how}"]
    cost_of_few = own[f"right labels, {few} demonstrations{how}"] - own[f"wrong labels, {few} demonstrations{how}"]
    found = {
        _COST: cost,
        _HELPS: wrong - own[f"no demonstrations{how}"],
        _WORDS_TELL: cost_by_words - cost,
        _FIRST: cost * share - (right - own[f"25% of the labels wrong{how}"]),
        _MORE: cost - cost_of_few,
    }
    if f"wrong labels where they stand{how}" in own:
        found[_HERE] = right - own[f"wrong labels where they stand{how}"] - cost / 2
        found[_SPREAD] = right - own[f"wrong labels in what follows them{how}"] - cost / 2
    return {name + how: values for name, values in found.items()}


def with_wrong_labels(task: Task, shown: Sequence[Example], share: float, seed: int) -> tuple[Example, ...]:
    """The same demonstrations with this share of their labels wrong; a greater share has the wrong ones of a lesser too."""
    if len(task.labels) < 2:
        raise MethodError(f"task {task.name!r} has {len(task.labels)} label, and a wrong one needs another")
    rng = stream(seed, "wrong-labels")
    turn = rng.permutation(len(shown)).tolist()
    others = [[label for label in task.labels if label != example.label] for example in shown]
    drawn = [own[int(rng.integers(len(own)))] for own in others]
    changed = set(turn[: _changed(shown, share)])
    return tuple(replace(example, label=drawn[i]) if i in changed else example for i, example in enumerate(shown))


def _changed(shown: Sequence[Example], share: float) -> int:
    """How many labels are wrong where so great a share is to be: one at least, if any."""
    return max(1, round(share * len(shown))) if share else 0


def with_arbitrary_words(setting: Setting) -> Template:
    """The layout with words for labels that say nothing of them, drawn from the seed."""
    labels = setting.task.labels
    if len(labels) > len(_WORDS):
        raise MethodError(
            f"task {setting.task.name!r} has {len(labels)} labels, and there are {len(_WORDS)} arbitrary words"
        )
    drawn = stream(setting.seed, "arbitrary-words").permutation(len(_WORDS))[: len(labels)]
    return replace(setting.template, words={label: _WORDS[i] for label, i in zip(labels, drawn.tolist(), strict=True)})


def _told_right_and_wrong(
    setting: Setting, shown: tuple[Example, ...], named: str, template: Template | None = None
) -> dict[str, Table]:
    wrong = with_wrong_labels(setting.task, shown, 1.0, setting.seed)
    return {
        f"right labels{named}": _answers(_read(setting, shown, template)),
        f"wrong labels{named}": _answers(_read(setting, wrong, template)),
    }


def _read(setting: Setting, shown: Sequence[Example], template: Template | None = None) -> tuple[Told, Prefix]:
    one = told(setting, shown, template)
    return one, read_through(one.lm, one.tokens)


def _answers(read: tuple[Told, Prefix]) -> Table:
    return read[0].answers(read[1])


def _grafts(right: tuple[Told, Prefix], wrong: tuple[Told, Prefix]) -> tuple[dict[str, Table], str]:
    """Answers after either text with the other's label tokens; none, and why, where the two do not lie over each other."""
    (one, prefix), (other, donor) = right, wrong
    # Demonstration by demonstration: texts of one length may still lie askew.
    if not np.array_equal(one.owner, other.owner):
        return {}, f"the labels of {one.task.name!r} are of different numbers of tokens"
    labels = [i for i, pair in enumerate(zip(one.tokens, other.tokens, strict=True)) if pair[0] != pair[1]]
    return {
        "wrong labels where they stand": one.answers(grafted(prefix, donor, labels)),
        "wrong labels in what follows them": one.answers(grafted(donor, prefix, labels)),
    }, ""


LABELS = Question(
    asks="Why do wrong labels in demonstrations matter so little, and when do they matter?",
    prediction="A label enters the implied change of weights as the key and the value of its own token. So wrong labels "
    "should act where they stand; they should cost more where label words say nothing by themselves and where there are "
    "more demonstrations; and even demonstrations with wrong labels should help, since they still show what is asked.",
    rivals=(
        Rival(
            mechanism="Wrong labels do matter: what the model answers depends on which label stands with which input",
            intervention="every label is replaced by another one",
            contrast=_COST,
        ),
        Rival(
            mechanism="Labels are read where they stand",
            intervention="keys and values of the label tokens alone are taken from the text with wrong labels; more than half of the cost comes with them",
            contrast=_HERE,
        ),
        Rival(
            mechanism="Labels are read by the tokens after them, and there by the query",
            intervention="keys and values of all but the label tokens are taken from the text with wrong labels; more than half of the cost comes with them",
            contrast=_SPREAD,
        ),
        Rival(
            mechanism="The words themselves say what goes with what, so that demonstrations need not",
            intervention="label words are replaced by words that say nothing; wrong labels cost more then",
            contrast=_WORDS_TELL,
        ),
        Rival(
            mechanism="Demonstrations show layout, inputs and label words, and that is what helps",
            intervention="demonstrations with wrong labels are set against none",
            contrast=_HELPS,
        ),
        Rival(
            mechanism="A few wrong labels are outvoted by the right ones",
            intervention="a quarter of the labels is replaced; it costs less than a quarter of what all of them cost",
            contrast=_FIRST,
        ),
        Rival(
            mechanism="The more there are to learn from, the more their labels count",
            intervention="a quarter of the demonstrations; wrong labels cost more among all of them",
            contrast=_MORE,
        ),
    ),
    parts={"why-labels": _answer},
)
