"""Demonstrations: never the query, as many as asked, the same every time."""

import json
import math
import warnings
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kshot.data.files import file_task
from kshot.data.pick import PICKS, bm25_index, order, pick, words
from kshot.data.task import Example
from kshot.data.template import Template, content
from kshot.errors import DataError, UnknownName


def example(number: int, label: str | None, text: str = "") -> Example:
    return Example(id=f"e{number}", fields={"text": text or f"text {number}"}, label=label)


# plain labels: the type checker draws random numbers where an Example is made, which a strategy must not do
LABELS = st.lists(st.sampled_from(["a", "b", "c"]), min_size=2, max_size=14)


def pool_of(labels):
    return [example(number, label) for number, label in enumerate(labels)]


def by_length(query, candidates):
    return np.array([float(len(one.fields["text"])) for one in candidates])


def choose(pool, k, how, seed=0, query=None, **more):
    more = {
        "similarity": by_length if how in ("hidden", "bm25") else None,
        "ids": [one.id for one in pool if one is not query],
    } | more
    return pick(pool, k, how, seed, query=query or example(99, "a"), **more)


@settings(deadline=None, max_examples=60)
@given(LABELS, st.integers(0, 5), st.sampled_from(sorted(set(PICKS) - {"balanced"})), st.data())
def test_as_many_as_asked_distinct_and_never_the_query(labels, seed, how, data):
    pool = pool_of(labels)
    query = data.draw(st.integers(0, len(pool) - 1).map(pool.__getitem__))
    k = data.draw(st.integers(0, len(pool) - 1))
    chosen = choose(pool, k, how, seed, query)
    assert len({one.id for one in chosen}) == k
    assert query not in chosen
    assert chosen == choose(pool, k, how, seed, query)


@settings(deadline=None, max_examples=60)
@given(LABELS, st.integers(0, 5), st.data())
def test_balanced_counts_differ_by_one_at_most(labels, seed, data):
    pool = pool_of(labels)
    k = data.draw(st.integers(1, len(pool)))
    counts = Counter(one.label for one in pool)
    try:
        chosen = choose(pool, k, "balanced", seed)
    except DataError:
        assert min(counts.values()) < math.ceil(k / len(counts))
        return
    got = [Counter(one.label for one in chosen)[label] for label in counts]
    assert sum(got) == k
    assert max(got) - min(got) <= 1


def test_the_query_is_known_by_its_id_and_by_its_fields():
    pool = [example(0, "a"), example(1, "b"), example(2, "a", "text 1")]
    again = Example(id="test:1", fields={"text": "text 1"}, label=None)
    assert pick(pool, 1, "random", 0, query=again) == (pool[0],)
    with pytest.raises(
        DataError, match="asked for 2 demonstrations, and the pool has 1 besides the query; ask for at most 1"
    ):
        pick(pool, 2, "random", 0, query=again)


def test_a_draw_is_shared_by_all_queries_and_grows_with_the_shots():
    pool = [example(number, "ab"[number % 2]) for number in range(20)]
    drawn = pick(pool, 8, "random", 3)
    assert pick(pool, 4, "random", 3) == drawn[:4]
    outside = next(one for one in pool if one not in drawn)
    assert pick(pool, 8, "random", 3, query=outside) == drawn
    assert pick(pool, 8, "random", 4) != drawn


def test_unlabelled_examples_are_no_demonstrations():
    pool = [example(0, None), example(1, "a"), example(2, None), example(3, "b")]
    assert pick(pool, 2, "first_n", 0) == (pool[1], pool[3])


def test_fixed_keeps_the_order_given():
    pool = [example(number, "a") for number in range(5)]
    assert [one.id for one in pick(pool, 2, "fixed", 0, ids=["e3", "e1", "e0"])] == ["e3", "e1"]


def by_words(pool, k, text):
    return pick(
        pool, k, "bm25", 0, query=example(9, None, text), similarity=bm25_index(pool, Template(input="{{text}}"))
    )


@pytest.mark.parametrize(
    "texts", [("red apple pie", "blue sky", "green apple"), ("赤いりんご", "青い空", "甘いりんご")]
)
def test_the_nearest_by_words_stands_last(texts):
    pool = [example(number, "a", text) for number, text in enumerate(texts)]
    assert {one.id for one in by_words(pool, 2, "an apple りんご")} == {"e0", "e2"}
    assert [one.id for one in by_words(pool, 3, "green apple 甘いりんご")] == ["e1", "e0", "e2"]


def test_texts_without_words_are_all_equally_far():
    pool = [example(0, "a", "!!"), example(1, "a", "??")]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert by_words(pool, 1, "--") == (pool[0],)
        assert by_words([*pool, example(2, "b", "word")], 1, "--") == (pool[0],)
        assert by_words([*pool, example(2, "b", "word")], 1, "Word")[0].id == "e2"


def test_a_field_that_the_layout_does_not_show_finds_no_demonstration(tmp_path):
    """Files as SetFit's say the answer in a second field; the query's own would find what is answered like it."""
    draw = np.random.default_rng(0)
    rows = [
        {"text": " ".join(f"w{n}" for n in draw.integers(40, size=6)), "label": at % 2, "label_text": "ab"[at % 2]}
        for at in range(240)
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = file_task(tmp_path / "a.jsonl")
    index = bm25_index(task.train, task.template)
    shown = [(pick(task.train, 4, "bm25", 0, query=one, similarity=index), one) for one in task.test]
    right = [demonstration.label == one.label for demonstrations, one in shown for demonstration in demonstrations]
    assert abs(np.mean(right) - 0.5) < 0.1


def test_the_content_of_an_example_is_what_the_layout_names_and_no_more():
    fields = {"doc": {"text": "a joy", "label_text": "good"}, "choices": ["x", "y"], "label": "good"}
    layout = Template(
        input="{{doc['text'].strip()}} {% for c in choices %}{{c}}{% endfor %} {{doc.text}} {{choices[1]}}"
    )
    assert content(layout, fields) == "a joy\nx y\ny"
    said_again = Template(input="{% set q = doc.text|regex_replace('j', 'b') %}{{q}} {{label|upper}}")
    assert content(said_again, fields) == "a joy\ngood"


def test_words_of_one_character_and_mixed_scripts():
    assert words("赤 A-b 3つ") == ["赤", "a", "b", "3", "つ"]


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 4), st.integers(0, 3))
def test_orders_are_distinct_permutations_while_there_are_any(size, seed):
    examples = [example(number, "a") for number in range(size)]
    orders = [order(examples, number, seed) for number in range(math.factorial(size))]
    assert orders[0] == tuple(examples)
    assert len(set(map(tuple, ([one.id for one in each] for each in orders)))) == math.factorial(size)
    assert all(sorted(one.id for one in each) == sorted(one.id for one in examples) for each in orders)
    assert order(examples, math.factorial(size), seed) == orders[0]


def test_orders_depend_on_the_seed_and_not_on_how_many_are_asked():
    examples = [example(number, "a") for number in range(16)]
    assert order(examples, 5, 0) == order(examples, 5, 0) != order(examples, 5, 1)


@pytest.mark.parametrize(
    ("arguments", "more", "words"),
    [
        ((-1, "random", 0), {}, "asked for -1 demonstrations; what works is 0 or more"),
        ((4, "random", 0), {}, "asked for 4 demonstrations, and the pool has 3; ask for at most 3"),
        ((1, "bm25", 0), {}, "picking by bm25 compares with a query, and none was given"),
        ((1, "hidden", 0), {"query": example(9, None)}, "picking by hidden needs a similarity"),
        ((1, "fixed", 0), {"ids": ["x"]}, "demonstration 'x' is not in the pool .*; its ids look like e0, e1, e2"),
        ((2, "fixed", 0), {"ids": ["e1", "e1"]}, "named twice"),
        ((2, "fixed", 0), {"ids": ["e1"]}, "asked for 2 fixed demonstrations, and 1 are named"),
        (
            (3, "balanced", 0),
            {"labels": ["a", "z"]},
            "3 balanced demonstrations over 2 labels, and the pool has 0 of 'z'",
        ),
    ],
)
def test_errors_say_what_would_work(arguments, more, words):
    pool = [example(number, "a") for number in range(3)]
    with pytest.raises(DataError, match=words):
        pick(pool, *arguments, **more)


def test_an_unknown_way_gets_the_nearest():
    with pytest.raises(UnknownName, match="unknown way to pick demonstrations 'first'; did you mean 'first_n'"):
        pick([], 0, "first", 0)
    with pytest.raises(DataError, match="asked for order -1"):
        order([], -1, 0)
