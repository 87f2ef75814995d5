"""Classifiers behind the same door as models: score, metrics, calibrations and ensembles."""

from dataclasses import replace

import numpy as np
import pytest

from kshot.adapt.classical import Head, Majority, Nearest, Tfidf
from kshot.data.task import Example, Task
from kshot.data.template import Template
from kshot.errors import PromptError
from kshot.measure.calibrate import SCORES, why_undefined
from kshot.measure.ensemble import ENSEMBLES, combine
from kshot.measure.scoring import score

METHODS = {"head": Head(shots=6), "tfidf": Tfidf(shots=6), "nearest": Nearest(shots=6), "majority": Majority(shots=6)}


def films():
    rows = [(f"film {i} was {'a joy' if i % 2 else 'a bore'}", ("bad", "good")[i % 2]) for i in range(20)]
    examples = [Example(id=f"f{i}", fields={"text": text}, label=label) for i, (text, label) in enumerate(rows)]
    return Task(
        name="films",
        kind="classification",
        labels=("bad", "good"),
        train=tuple(examples[:12]),
        test=tuple(examples[12:]),
        template=Template(input="{{text}}\n:", words={"good": "great"}),
    )


def taught(name, lm, task):
    return METHODS[name].fit(lm, task, task.train, 0)


@pytest.mark.parametrize("name", METHODS)
def test_predictions_have_what_metrics_need(name, tiny_lm):
    task = films()
    asked = (*task.test, replace(task.test[0], id="unlabelled", label=None))
    adapted = taught(name, tiny_lm, task)
    outcome = score(adapted, task, asked)
    found = outcome.predictions
    assert found.ids == tuple(e.id for e in asked)
    assert found.gold.tolist() == [0, 1] * 4 + [-1]
    assert found.gold_text == ("bad", "great") * 4 + (None,)
    assert found.labels == (task.labels,) * 9
    assert found.greedy is None
    assert found.present.all()
    assert not found.tokens.any()
    assert (outcome.repaired, outcome.dropped, outcome.skipped) == (0, 0, ())
    assert np.exp(found.logprobs).sum(axis=1) == pytest.approx(1)
    table, tokens = adapted.classifier.logprobs(tiny_lm, task.template, asked)
    assert np.array_equal(found.logprobs, table)
    assert outcome.tokens == tokens
    assert (tokens > 0) == (name in ("head", "nearest"))


@pytest.mark.parametrize("name", METHODS)
def test_rules_that_need_text_say_why_they_are_undefined(name, tiny_lm):
    task = films()
    found = score(taught(name, tiny_lm, task), task, task.test).predictions
    unwritten = "the answers are labels of a classifier, not text"
    why = {
        "token_length_normalized": unwritten,
        "character_length_normalized": unwritten,
        "unconditional_likelihood_normalized": "the answers were not scored without their input",
        "contextual_calibration": "no content-free inputs were scored",
        "domain_context_calibration": "no texts of random words were scored",
        "sum": "",
        "batch_calibration": "",
    }
    assert set(why) == set(SCORES)
    for rule, reason in why.items():
        assert why_undefined(rule, found) == reason
        assert (SCORES[rule](found) is None) == bool(reason)
    assert np.array_equal(SCORES["sum"](found), found.logprobs)
    odds = np.exp(found.logprobs)
    weighed = odds / odds.mean(axis=0)
    assert np.exp(SCORES["batch_calibration"](found)) == pytest.approx(weighed / weighed.sum(axis=1, keepdims=True))


def test_open_answers_are_counted_as_text(tiny_lm):
    rows = tuple(Example(id=f"w{i}", fields={"text": f"w{i} w{i}"}, label=f"w{i}s") for i in range(6))
    asked = tuple(replace(e, id=f"q{e.id}") for e in rows[:2])
    task = replace(films(), kind="open", labels=("w0s", "unheard"), train=rows, test=asked)
    task = replace(task, template=Template(input="{{text}} ->", words={"w1s": "W1!"}))
    found = score(Tfidf(shots=6).fit(tiny_lm, task, rows, 0), task, asked).predictions
    # w1s is no candidate of the task, and is the answer all the same.
    assert found.greedy == found.gold_text == ("w0s", "W1!")
    assert found.gold.tolist() == [0, -1]
    assert found.logprobs.argmax(axis=1)[0] == 0


@pytest.mark.parametrize("rule", ENSEMBLES)
def test_several_layouts_can_be_combined(rule, tiny_lm):
    task = films()
    members = [
        score(Head(shots=6, template=t).fit(tiny_lm, task, task.train, 0), task, task.test).predictions
        for t in (task.template, Template(input="{{text}}?"), Template(input="Film: {{text}} =>"))
    ]
    found = combine(members, rule)
    assert np.isfinite(found.logprobs).all()
    assert SCORES["token_length_normalized"](found) is None
    said = np.stack([m.logprobs.argmax(axis=1) for m in members])
    if rule == "majority-vote":
        assert (found.logprobs.argmax(axis=1) == (said.sum(axis=0) > 1)).all()


@pytest.mark.parametrize("name", ["head", "nearest"])
def test_inputs_that_are_too_long(name, tiny_lm):
    task = films()
    adapted = taught(name, tiny_lm, task)
    long = replace(task.test[0], id="long", fields={"text": "x" * 50})
    small = replace(adapted, lm=replace(tiny_lm, context=40))
    asked = (task.test[1], long, task.test[2])
    for overlength in ("error", "drop-demo"):
        with pytest.raises(PromptError, match=r"^the longest input needs 5\d tokens and tiny-0 reads 40; try --overl"):
            score(small, task, asked, overlength=overlength)
    outcome = score(small, task, asked, overlength="skip")
    assert outcome.skipped == ("long",)
    assert outcome.predictions.ids == (task.test[1].id, task.test[2].id)
    among = score(adapted, task, (task.test[1], task.test[2])).predictions
    assert np.array_equal(outcome.predictions.logprobs, among.logprobs)
    with pytest.raises(
        PromptError, match=r"^the shortest input needs 5\d tokens and tiny-0 reads 40; no query is left"
    ):
        score(small, task, (long,), overlength="skip")


@pytest.mark.parametrize("name", ["tfidf", "majority"])
def test_what_the_model_does_not_read_is_never_too_long(name, tiny_lm):
    task = films()
    adapted = taught(name, replace(tiny_lm, context=5), task)
    for overlength in ("error", "skip", "drop-demo"):
        assert score(adapted, task, task.test, overlength=overlength).skipped == ()


@pytest.mark.parametrize("name", METHODS)
def test_no_queries(name, tiny_lm):
    task = films()
    outcome = score(taught(name, tiny_lm, task), task, ())
    assert outcome.predictions.logprobs.shape == (0, 2)
    assert outcome.tokens == 0
    assert why_undefined("sum", outcome.predictions) == "there are no queries"
