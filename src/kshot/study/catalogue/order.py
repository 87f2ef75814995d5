"""Why does the order of demonstrations matter?"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from kshot.data.task import Example
from kshot.errors import MethodError, ModelError
from kshot.measure.arrangements import gold_columns, gold_logprob
from kshot.measure.order_effects import all_orders, contextually_calibrated, without_content
from kshot.model.surgery import moved, read_apart, read_through
from kshot.seeds import stream
from kshot.study.catalogue.question import (
    LEVELLED,
    Question,
    Rival,
    Say,
    condition_rows,
    contrast_rows,
    mean_row,
    undefined,
    with_levelled,
)
from kshot.study.catalogue.told import told
from kshot.study.compared import Row, Setting

Tables = Float[np.ndarray, "m q c"]

# Of so many demonstrations at most, in so many orders: seeds vary more than orders of one, and are worth the time.
_SHOWN, _ORDERS = 8, 6
_NAME = "why_order"
_PLACE, _READ = "most is where they stand", "most is what they read of one another"
_TILT, _LABELS = "most is a bias towards labels", "most is the order of the labels"


def _answer(setting: Setting, say: Say) -> list[Row]:
    shown, seed = setting.demonstrations[:_SHOWN], setting.seed
    if len(shown) < 3:
        raise MethodError(f"the order of {len(shown)} demonstrations says little; give --num-fewshot 3 or more")
    gold = gold_columns(setting.task, setting.queries)
    orders = all_orders(len(shown), sample=_ORDERS, seed=seed)[:_ORDERS]
    texts = [told(setting, [shown[i] for i in order]) for order in orders]
    say("read one after another")
    free = without_content(setting.template, setting.queries[0])
    read = [read_through(one.lm, one.tokens) for one in texts]
    both = np.stack([one.answers(prefix, free) for one, prefix in zip(texts, read, strict=True)])
    whole = both[:, : len(gold)]
    tables, missing = {"in their orders": whole}, dict[str, str]()
    if free:
        tables["calibrated"] = contextually_calibrated(whole, both[:, len(gold) :])
    else:
        missing[_TILT] = "no text of a query could be another: there are no content-free rows"
    say("read apart")
    tables["read apart"] = _all([one.answers(read_apart(one.lm, one.tokens, one.owner)) for one in texts])
    say("read in their orders, standing in one")
    try:
        back = [np.argsort(order).tolist() for order in orders]
        prefixes = [moved(one.lm, own, one.owner, to) for one, own, to in zip(texts, read, back, strict=True)]
        tables["standing in one order"] = _all([one.answers(own) for one, own in zip(texts, prefixes, strict=True)])
    except ModelError as error:
        missing[_READ] = str(error)
    say("in orders with the same labels")
    alike = same_labels(shown, _ORDERS, seed)
    if len(alike) > 1:
        again = [told(setting, [shown[i] for i in order]) for order in alike]
        tables["orders with the same labels"] = _all([one.answers(read_through(one.lm, one.tokens)) for one in again])
    else:
        missing[_LABELS] = "no other order has the same labels at every place"
    return _rows(tables, gold, missing, seed)


def _all(tables: Sequence[np.ndarray]) -> Tables:
    return np.stack(tables)


def _rows(tables: dict[str, Tables], gold: np.ndarray, missing: dict[str, str], seed: int) -> list[Row]:
    tables = with_levelled(tables)
    # Of each query, over orders; unbiased, so that few orders are as good as many on average.
    spread = {name: gold_logprob(table, gold).var(axis=0, ddof=1) for name, table in tables.items()}
    contrasts = _contrasts(spread, "") | _contrasts(spread, f", {LEVELLED}")
    half = spread["in their orders"] / 2
    if "calibrated" in spread:
        contrasts[_TILT] = half - spread["calibrated"]
    contrasts[f"{_TILT}, by the mean over queries"] = half - spread[f"in their orders, {LEVELLED}"]
    rows = [mean_row(f"{_NAME}_variance", name, own, seed, unit="nats²") for name, own in spread.items()]
    rows += condition_rows(_NAME, tables, gold, seed)
    rows += contrast_rows(_NAME, contrasts, seed, "nats²")
    return rows + [row for name, why in missing.items() for row in undefined(_NAME, (name,), why)]


def _contrasts(spread: dict[str, np.ndarray], how: str) -> dict[str, np.ndarray]:
    """Contrasts of the variances whose names end in ``how``, those that there are."""
    half = spread[f"in their orders{how}"] / 2
    found = {_PLACE: spread[f"read apart{how}"] - half}
    if f"standing in one order{how}" in spread:
        found[_READ] = spread[f"standing in one order{how}"] - half
    if f"orders with the same labels{how}" in spread:
        found[_LABELS] = half - spread[f"orders with the same labels{how}"]
    return {name + how: values for name, values in found.items()}


def same_labels(shown: Sequence[Example], most: int, seed: int) -> tuple[tuple[int, ...], ...]:
    """Up to so many distinct orders that leave the label at every place as it is, the order as shown first.

    >>> def one(label):
    ...     return Example(id="", fields={}, label=label)
    >>> same_labels([one("a"), one("b"), one("a")], 12, seed=0)
    ((0, 1, 2), (2, 1, 0))
    """
    places: dict[str | None, list[int]] = {}
    for i, example in enumerate(shown):
        places.setdefault(example.label, []).append(i)
    rng = stream(seed, "same-labels")
    found = {tuple(range(len(shown))): None}
    # Of few orders a draw gives one again and again: after so many in vain they are all taken to be there.
    idle = 0
    while len(found) < most and idle < 200:
        order = np.arange(len(shown))
        for own in places.values():
            order[own] = rng.permutation(own)
        known = len(found)
        found.setdefault(tuple(order.tolist()))
        idle = idle + 1 if len(found) == known else 0
    return tuple(found)


ORDER = Question(
    asks="Why does the order of demonstrations matter?",
    prediction="A sum of updates has no order: in the account only positions are left to make one, so most of what "
    "order does should be there when demonstrations do not see one another. The rivals: what later demonstrations read "
    "of earlier ones; a bias towards labels that calibration takes out; and the order of the labels alone.",
    rivals=(
        Rival(
            mechanism="Distance: what stands nearer to the query weighs more",
            intervention="no demonstration sees another, each stands where it stood; more than half of the variance over orders is left",
            contrast=_PLACE,
        ),
        Rival(
            mechanism="Reading: a demonstration becomes something else after others",
            intervention="demonstrations are read in each order, then all stand in the same; more than half of the variance is left",
            contrast=_READ,
        ),
        Rival(
            mechanism="Tilt: an order makes labels likelier for all queries alike",
            intervention="each order is calibrated by what it says of inputs without content; more than half of the variance is gone",
            contrast=_TILT,
        ),
        Rival(
            mechanism="The sequence of labels, whatever their texts",
            intervention="only orders with the same label at every place; more than half of the variance is gone",
            contrast=_LABELS,
        ),
    ),
    parts={"why-order": _answer},
)
