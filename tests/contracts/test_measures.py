"""What every measure and every rule of scoring must do, read from the dicts."""

import dataclasses
import re

import numpy as np
import pytest
import torch

from kshot.data.predictions import Predictions
from kshot.measure import MEASURES, OF_DEMONSTRATIONS, OF_PREDICTORS
from kshot.measure.calibrate import SCORES, why_undefined
from kshot.measure.soft_prompt import Neighbour
from kshot.model import tiny

# Measures of the rows of a soft prompt; the first two read the rows in their order.
IN_ORDER = ("nearest_tokens", "prompt_perplexity")
OF_ROWS = (*IN_ORDER, "cluster_share", "domain_share", "label_share", "repeated_share")

HEADINGS = ["Claim", "Formula", "Null", "Departures", "Known problems"]
Q, C = 24, 4


def example(seed=0):
    rng = np.random.default_rng(seed)
    return Predictions(
        ids=tuple(f"q{i}" for i in range(Q)),
        labels=(("north", "south", "east", "west"),) * Q,
        logprobs=-rng.gamma(2.0, 3.0, (Q, C)),
        tokens=np.tile(rng.integers(1, 4, C), (Q, 1)),
        characters=np.tile(rng.integers(3, 9, C), (Q, 1)),
        gold=rng.integers(-1, C, Q),
        unconditional=np.tile(-rng.gamma(2.0, 3.0, C), (Q, 1)),
        content_free=-rng.gamma(2.0, 3.0, (3, C)),
        domain=-rng.gamma(2.0, 3.0, (20, C)),
    )


def permuted(p, rows, columns):
    """The same predictions with queries and candidates in another order."""
    place = np.argsort(columns)
    return dataclasses.replace(
        p,
        ids=tuple(p.ids[i] for i in rows),
        labels=tuple(tuple(p.labels[i][j] for j in columns) for i in rows),
        gold=np.where(p.gold >= 0, place[p.gold], -1)[rows],
        content_free=p.content_free[:, columns],
        domain=p.domain[:, columns],
        **{
            name: getattr(p, name)[np.ix_(rows, columns)]
            for name in ("logprobs", "tokens", "characters", "unconditional")
        },
    )


def arguments(name, p):
    """What a measure is given; a measure that is missing here has to be added."""
    if name == "wilson":
        return (int((p.gold == 1).sum()), len(p.ids))
    if name == "mean_interval":
        return (p.logprobs[:5, 0],)
    if name == "mcnemar":
        return (p.logprobs.argmax(axis=1) == p.gold, (p.logprobs / p.tokens).argmax(axis=1) == p.gold)
    if name == "nearest_tokens":
        return (tiny.tiny_lm(), torch.from_numpy(np.tile(p.logprobs, (1, 32 // C))))
    if name == "prompt_perplexity":
        return (tiny.tiny_lm(), tuple(np.abs(p.gold).tolist()))
    if name in ("label_share", "domain_share"):
        return (neighbours(p), {"south", "west"})
    if name in ("cluster_share", "repeated_share"):
        return (neighbours(p),)
    if name in ("macro_f1", "confusion"):
        return (p.logprobs, p.gold, p.labels)
    return (p.logprobs, p.gold)


def neighbours(p):
    """The best two candidates of every query as the tokens around a row."""
    best = np.argsort(-p.logprobs, axis=1)[:, :2].tolist()
    return tuple(
        tuple(Neighbour(j, names[j], float(row[j]), False) for j in own)
        for own, names, row in zip(best, p.labels, p.logprobs, strict=True)
    )


def empty(p):
    return dataclasses.replace(
        p,
        ids=(),
        labels=(),
        gold=p.gold[:0],
        **{name: getattr(p, name)[:0] for name in ("logprobs", "tokens", "characters", "unconditional")},
    )


def arrays_of(p):
    return {f.name: getattr(p, f.name) for f in dataclasses.fields(p) if isinstance(getattr(p, f.name), np.ndarray)}


def frozen(p):
    """The same with arrays that raise when written to."""
    copies = {name: array.copy() for name, array in arrays_of(p).items()}
    for array in copies.values():
        array.flags.writeable = False
    return dataclasses.replace(p, **copies)


@pytest.mark.parametrize("table", [MEASURES, OF_DEMONSTRATIONS, OF_PREDICTORS, SCORES])
def test_names_are_sorted(table):
    assert list(table) == sorted(table)


@pytest.mark.parametrize(
    "function",
    [*MEASURES.values(), *OF_DEMONSTRATIONS.values(), *OF_PREDICTORS.values(), *SCORES.values()],
    ids=[*MEASURES, *OF_DEMONSTRATIONS, *OF_PREDICTORS, *SCORES],
)
def test_the_docstring_has_five_headings(function):
    doc = function.__doc__
    assert re.findall(r"^ {4}(Claim|Formula|Null|Departures|Known problems): \S", doc, re.MULTILINE) == HEADINGS
    first = doc.splitlines()[0]
    assert first.endswith(".")
    assert len(first) <= 110


@pytest.mark.parametrize("name", MEASURES)
def test_a_measure_repeats_itself_and_leaves_its_input_alone(name):
    p = frozen(example())
    assert MEASURES[name](*arguments(name, p)) == MEASURES[name](*arguments(name, example()))


@pytest.mark.parametrize("name", MEASURES)
def test_a_measure_of_nothing_is_none(name):
    assert MEASURES[name](*arguments(name, empty(example()))) is None


@pytest.mark.parametrize("name", sorted(set(MEASURES) - set(IN_ORDER)))
def test_the_order_of_queries_changes_no_measure(name):
    p, rows = example(), np.random.default_rng(1).permutation(Q)
    if name == "mean_interval":
        rows = np.array([4, 2, 0, 3, 1, *range(5, Q)])
    found = MEASURES[name](*arguments(name, permuted(p, rows, np.arange(C))))
    assert_same(found, MEASURES[name](*arguments(name, p)))


@pytest.mark.parametrize("name", sorted(set(MEASURES) - {"mean_interval", "confusion", "mcnemar", "wilson", *OF_ROWS}))
def test_the_order_of_candidates_changes_no_metric(name):
    p, columns = example(), np.array([2, 0, 3, 1])
    found = MEASURES[name](*arguments(name, permuted(p, np.arange(Q), columns)))
    assert_same(found, MEASURES[name](*arguments(name, p)))


def test_the_order_of_candidates_permutes_the_confusion():
    p, columns = example(), np.array([2, 0, 3, 1])
    before = MEASURES["confusion"](*arguments("confusion", p))
    after = MEASURES["confusion"](*arguments("confusion", permuted(p, np.arange(Q), columns)))
    assert after["labels"] == [before["labels"][j] for j in columns]
    assert after["counts"] == np.array(before["counts"])[np.ix_(columns, columns)].tolist()


@pytest.mark.parametrize("name", SCORES)
def test_a_rule_repeats_itself_and_leaves_its_input_alone(name):
    p = frozen(example())
    found = SCORES[name](p)
    assert np.array_equal(found, SCORES[name](example()))
    assert found.shape == (Q, C)
    assert found.dtype == np.float64
    assert not np.shares_memory(found, p.logprobs)
    assert why_undefined(name, p) == ""


@pytest.mark.parametrize("name", SCORES)
def test_a_rule_of_nothing_is_none_and_says_so(name):
    nothing = empty(example())
    assert SCORES[name](nothing) is None
    assert why_undefined(name, nothing) == "there are no queries"


@pytest.mark.parametrize("name", SCORES)
def test_a_rule_is_none_just_where_it_has_a_reason(name):
    bare = dataclasses.replace(example(), unconditional=None, content_free=None, domain=None)
    own = dataclasses.replace(bare, labels=tuple((f"{i}", "b", "c", "d") for i in range(Q)))
    for p in (example(), bare, own):
        assert (SCORES[name](p) is None) == bool(why_undefined(name, p))


@pytest.mark.parametrize("name", SCORES)
def test_a_rule_permutes_with_queries_and_candidates(name):
    p, rows, columns = example(), np.random.default_rng(1).permutation(Q), np.array([2, 0, 3, 1])
    found = SCORES[name](permuted(p, rows, columns))
    assert found == pytest.approx(SCORES[name](p)[np.ix_(rows, columns)], abs=1e-12)


def assert_same(found, expected):
    """Equal up to the rounding of a sum taken in another order."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key in expected:
            assert_same(found[key], expected[key])
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
    elif isinstance(expected, str):
        assert found == expected
    else:
        assert found == pytest.approx(expected, abs=1e-12)
