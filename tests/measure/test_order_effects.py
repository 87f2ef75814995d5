"""Orders and biases: the judge is the plain forward of whole sequences, tables are made by hand."""

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
import torch
import zoo
from scipy.special import log_softmax

from kshot.adapt import InContext, ZeroShot
from kshot.data.predictions import Predictions
from kshot.data.task import Example, Task
from kshot.data.template import Template
from kshot.errors import MethodError, NumericError
from kshot.measure import order_effects
from kshot.measure.calibrate import SCORES
from kshot.measure.order_effects import (
    all_orders,
    common_token_bias,
    contextually_calibrated,
    majority_bias,
    order_scores,
    recency_bias,
)

TEMPLATE = Template(input="{{text}}:", words={"no": "b", "yes": "cd"}, delimiter="", separator=";")


def example(i, text, label, **more):
    return Example(id=f"e{i}", fields={"text": text}, label=label, **more)


TASK = Task(
    name="films",
    kind="classification",
    labels=("no", "yes"),
    train=tuple(example(i, t, label) for i, (t, label) in enumerate([("joy", "yes"), ("a bore", "no"), ("ok", "yes")])),
    test=tuple(example(100 + i, t, ("yes", "no")[i % 2]) for i, t in enumerate(["brisk", "a mess", "fun"])),
    template=TEMPLATE,
)


@pytest.fixture(scope="module")
def adapted():
    with zoo.Pure64():
        return InContext(shots=3, pick="first_n").fit(zoo.lm("llama"), TASK, TASK.train, 0)


def judged(net, order, text):
    """The log-probabilities of both labels after an order, from plain forwards in float64."""
    head = "".join(TEMPLATE.demonstration(TASK.train[i].fields, TASK.train[i].label) + ";" for i in order) + text + ":"
    letters = lambda t: zoo.Letters()(t)["input_ids"]  # noqa: E731
    found = []
    for label in TASK.labels:
        ids = letters(head + TEMPLATE.answer(label))
        with torch.no_grad():
            logprobs = net(input_ids=torch.tensor([ids]), use_cache=False).logits[0].double().log_softmax(-1)
        found.append(float(sum(logprobs[i - 1, ids[i]] for i in range(len(letters(head)), len(ids)))))
    return found


def table(*rows):
    """Log-probabilities from probabilities."""
    return np.log(np.array(rows, dtype=np.float64))


# Orders.


def test_all_orders_up_to_five():
    for shots in range(6):
        assert all_orders(shots) == tuple(permutations(range(shots)))
    assert len(all_orders(5)) == 120


def test_more_than_five_are_sampled_without_repeats():
    found = all_orders(7, sample=300, seed=3)
    assert len(set(found)) == len(found) == 300
    assert found[0] == tuple(range(7))
    assert all(sorted(order) == list(range(7)) for order in found)
    assert found == all_orders(7, sample=300, seed=3) != all_orders(7, sample=300, seed=4)
    assert len(all_orders(6, sample=1000)) == 720
    # Every demonstration stands in every place about equally often.
    places = np.array(found[1:]).mean(axis=0)
    assert np.abs(places - 3).max() < 5 * 2 / np.sqrt(299)


def test_scores_of_orders_are_those_of_whole_sequences(adapted, monkeypatch):
    calls, score = [], type(adapted.lm).score
    monkeypatch.setattr(type(adapted.lm), "score", lambda self, *given: calls.append(1) or score(self, *given))
    orders = all_orders(3)
    with zoo.Pure64():
        found = order_scores(adapted, TASK, TASK.test, orders)
        expected = [[judged(adapted.lm.model, o, e.fields["text"]) for e in TASK.test] for o in orders]
        free = [[judged(adapted.lm.model, o, text) for text in ("N/A", "[MASK]", "")] for o in orders]
    assert len(calls) == 1
    assert found.logprobs == pytest.approx(np.array(expected), abs=1e-10)
    assert found.content_free == pytest.approx(np.array(free), abs=1e-10)
    assert found.shown[:3].tolist() == [[1, 0, 1], [1, 1, 0], [0, 1, 1]]
    right = np.array(expected).argmax(axis=2) == np.array([1, 0, 1])
    assert found.accuracy == pytest.approx(right.mean(axis=1))
    among = log_softmax(np.array(expected), axis=2)
    assert found.gold_logprob == pytest.approx(among[:, np.arange(3), [1, 0, 1]], abs=1e-10)


def test_queries_with_candidates_of_their_own_have_no_labels_to_be_biased_to(adapted):
    own = [replace(TASK.test[0], choices=("yes", "no", "z")), replace(TASK.test[1], choices=("no", "z"))]
    with zoo.Pure64():
        found = order_scores(adapted, replace(TASK, kind="choice", labels=()), own, ((0, 1, 2), (2, 1, 0)), of="sum")
    assert found.content_free is None
    assert (found.shown == -1).all()
    assert np.isneginf(found.logprobs[:, 1, 2]).all()
    assert found.gold_logprob == pytest.approx(found.logprobs[:, :, 0])


def test_scores_of_nothing_and_of_no_demonstrations(adapted):
    assert order_scores(adapted, TASK, (), all_orders(3)) is None
    assert order_scores(adapted, TASK, TASK.test, ()) is None
    with pytest.raises(MethodError, match=r"^asked what each demonstration did, and zero-shot does not show the same"):
        order_scores(ZeroShot().fit(adapted.lm, TASK, (), 0), TASK, TASK.test, ((),))


def test_the_calibration_is_the_rule_of_that_name():
    rng = np.random.default_rng(0)
    logprobs, free = -rng.gamma(2, 2, (4, 5, 3)), -rng.gamma(2, 2, (4, 2, 3))
    found = contextually_calibrated(logprobs, free)
    for m in range(4):
        p = Predictions(
            ids=tuple("abcde"), labels=(("x", "y", "z"),) * 5, logprobs=logprobs[m], content_free=free[m],
            tokens=np.ones((5, 3), int), characters=np.ones((5, 3), int), gold=np.zeros(5, int),
        )  # fmt: skip
        assert found[m] == pytest.approx(SCORES["contextual_calibration"](p), abs=1e-12)


# Recency.


def test_recency_by_hand():
    # Two orders of two demonstrations of different labels; one query. Label 0 last: 0.7 for it; label 1 last: 0.6.
    shown = np.array([[1, 0], [0, 1]])
    found = recency_bias(table([[0.7, 0.3]], [[0.4, 0.6]]), shown)
    assert found["after"] is None
    before = found["before"]
    # Either label gains 0.3 by being last.
    assert before["slope"] == {"value": pytest.approx(0.3), "low": None, "high": None, "n": 1}
    assert before["contrast"]["value"] == pytest.approx(0.3)
    assert before["undefined"] == {}
    first, last = before["curve"]
    assert (first["place"], last["place"], first["n"], last["n"]) == (1, 2, 2, 2)
    assert (first["probability"], last["probability"]) == (pytest.approx(0.35), pytest.approx(0.65))
    assert (first["above"], last["above"]) == (pytest.approx(-0.15), pytest.approx(0.15))


def level_alone():
    """Labels that differ in level and in where they can stand, and an order that does nothing: no recency."""
    orders = np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]])
    found = recency_bias(np.tile(table([0.2, 0.8]), (3, 4, 1)), orders)["before"]
    assert abs(found["slope"]["value"]) < 1e-12
    assert abs(found["contrast"]["value"]) < 1e-12
    assert [row["probability"] for row in found["curve"]] == pytest.approx([0.2, (0.2 + 0.8) / 2, (0.2 + 0.8 * 2) / 3])
    assert [row["above"] for row in found["curve"]] == pytest.approx([0, 0, 0], abs=1e-12)


def test_a_label_that_is_likelier_anyway_is_no_recency():
    level_alone()


def test_recency_is_found_in_noise_and_its_absence_too():
    rng = np.random.default_rng(0)
    orders = np.array(all_orders(4)) % 2
    place = np.zeros((24, 2))
    for j in range(4):
        place[np.arange(24), orders[:, j]] = j + 1
    noise = rng.normal(size=(24, 200, 2))
    biased = recency_bias(noise + 0.8 * place[:, None, :], orders, after=noise)
    assert biased["before"]["slope"]["low"] > 0.1
    # Labels compete, so a step of one place is two of the difference of logits.
    assert biased["before"]["contrast"]["value"] > biased["before"]["slope"]["value"]
    assert biased["after"]["slope"]["low"] < 0 < biased["after"]["slope"]["high"]
    shuffled = rng.permutation(200)
    again = recency_bias((noise + 0.8 * place[:, None, :])[:, shuffled], orders)["before"]
    assert again["slope"] == pytest.approx(biased["before"]["slope"])


def test_calibration_takes_an_added_bias_away():
    rng = np.random.default_rng(0)
    orders = np.array(all_orders(3)) % 2
    last = np.eye(2)[orders[:, -1]][:, None, :] * 2.0
    logits = log_softmax(rng.normal(size=(1, 50, 2)) + last, axis=2)
    free = log_softmax(np.zeros((1, 3, 2)) + last, axis=2)
    found = recency_bias(logits, orders, after=contextually_calibrated(logits, free))
    assert found["before"]["contrast"]["low"] > 0.2
    assert abs(found["after"]["contrast"]["value"]) < 1e-12


def test_recency_that_cannot_be_told_is_none_with_its_reason():
    always = recency_bias(table([[0.7, 0.3]], [[0.4, 0.6]]), np.array([[0, 1], [0, 1]]))["before"]
    assert always["slope"] is None
    assert always["contrast"] is None
    assert always["undefined"] == {
        "slope": "no label's last demonstration stands in two places among these orders",
        "contrast": "no label is last in one order and has its last demonstration earlier in another",
    }
    one_label = recency_bias(table([[0.7, 0.3]]), np.array([[0, 0]]))["before"]
    assert one_label["curve"][0] == {"place": 1, "probability": None, "above": None, "n": 0}
    assert one_label["curve"][1]["probability"] == pytest.approx(0.7)
    assert recency_bias(np.zeros((2, 0, 2)), np.zeros((2, 3), int)) is None
    assert recency_bias(np.zeros((2, 1, 2)), np.zeros((2, 0), int)) is None


# Majority.


def test_majority_by_hand():
    # Three of four are label 1; it is said to 3 of 4 labelled queries, and right for 2.
    shown = np.array([[1, 0, 1, 1]])
    before = table([[0.4, 0.6], [0.1, 0.9], [0.8, 0.2], [0.3, 0.7], [0.9, 0.1]])
    found = majority_bias(before, shown, np.array([0, 1, 0, 1, -1]))["before"]
    assert found["labels"][0] == {
        "label": 0,
        "shown": 0.25,
        "predicted": 0.25,
        "probability": pytest.approx(0.4),
        "gold": 0.5,
    }
    assert found["labels"][1]["predicted"] == 0.75
    assert found["excess"]["value"] == pytest.approx(0.25)
    assert found["excess"]["n"] == 4
    assert found["slope"] is None
    assert found["undefined"] == {"slope": "every label has the same share of the demonstrations in all sets"}


def test_predictions_that_copy_the_balance_have_slope_one():
    # Sets with no, one, ..., four of label 1; of four queries as many are given that label. Gold is even.
    shown = np.tri(5, 4, -1, dtype=int)
    said = np.eye(2)[np.tri(5, 4, -1, dtype=int)]
    gold = np.array([0, 1, 0, 1])
    level = np.broadcast_to(np.eye(2)[gold], (5, 4, 2)).astype(float)
    found = majority_bias(said, shown, gold, after=level)
    assert found["before"]["slope"]["value"] == pytest.approx(1)
    # Of the four sets with a majority: it is said to 4, 3, 3 and 4 of 4, and right for 2.
    assert found["before"]["excess"]["value"] == pytest.approx(np.mean([2, 1, 1, 2]) / 4)
    assert found["after"]["slope"]["value"] == pytest.approx(0, abs=1e-12)
    assert found["after"]["excess"]["value"] == pytest.approx(0, abs=1e-12)


def test_no_majority_is_none_with_its_reason():
    found = majority_bias(np.zeros((1, 2, 2)), np.array([[0, 1]]), np.array([0, 1]))["before"]
    assert found["excess"] is None
    assert found["undefined"]["excess"] == "no set has one label more often than every other"
    assert majority_bias(np.zeros((1, 2, 2)), np.array([[0, 1]]), np.array([-1, -1])) is None
    foreign = majority_bias(np.zeros((1, 2, 2)), np.array([[-1, -1]]), np.array([0, 1]))["before"]
    assert foreign["excess"] is None


# Common tokens.


def test_common_token_by_hand():
    # Without content label 0 is e^2 times as likely as label 1. It is said to 3 of 4, and right for 2.
    free = np.array([[2.0, 0.0]])
    before = table([0.6, 0.4], [0.9, 0.1], [0.7, 0.3], [0.2, 0.8])
    after = table([0.6, 0.4], [0.1, 0.9], [0.7, 0.3], [0.2, 0.8])
    found = common_token_bias(before, free, np.array([0, 1, 0, 1]), after=after)
    row = found["before"]["labels"][0]
    assert row["content_free"] == pytest.approx(-np.log1p(np.exp(-2)))
    assert (row["predicted"], row["gold"]) == (0.75, 0.5)
    assert row["probability"] == pytest.approx(0.6)
    # An excess of 1/4 at one nat above the mean, of -1/4 at one below.
    assert found["before"]["slope"]["value"] == pytest.approx(0.25)
    assert found["after"]["slope"]["value"] == pytest.approx(0)
    assert found["before"]["rank_correlation"] is None
    assert found["before"]["undefined"] == {"rank_correlation": "needs three labels that differ in both"}


def test_three_labels_have_a_rank_correlation():
    free = table([0.6, 0.3, 0.1], [0.2, 0.1, 0.7])
    # Means 0.4, 0.2, 0.4: the averaging is of probabilities, not of logarithms.
    before = table([0.8, 0.1, 0.1], [0.8, 0.1, 0.1], [0.1, 0.1, 0.8])
    found = common_token_bias(before, free, np.array([0, 1, 2]))["before"]
    assert [row["content_free"] for row in found["labels"]] == pytest.approx(np.log([0.4, 0.2, 0.4]))
    # Ranks 2.5, 1, 2.5 against the excess 1, -1, 0.
    assert found["rank_correlation"] == pytest.approx(np.corrcoef([2.5, 1, 2.5], [3, 1, 2])[0, 1])
    assert found["undefined"] == {}


def test_common_tokens_that_cannot_be_told_are_none():
    before, gold = table([0.6, 0.4]), np.array([0])
    even = common_token_bias(before, np.zeros((3, 2)), gold)["before"]
    assert even["undefined"]["slope"] == "the content-free inputs give all labels the same probability"
    never = common_token_bias(before, np.array([[0.0, -np.inf]]), gold)["before"]
    assert never["slope"] is None
    assert never["undefined"]["slope"] == "a label has probability zero"
    assert common_token_bias(before, np.zeros((0, 2)), gold) is None
    assert common_token_bias(before, np.zeros((1, 2)), np.array([-1])) is None


def test_tables_without_numbers_are_refused():
    for bad in ([np.nan, 0.0], [-np.inf, -np.inf], [np.inf, 0.0]):
        with pytest.raises(
            NumericError, match=r"^a table of log-probabilities holds nan or inf, or a row without a finite one"
        ):
            recency_bias(np.array([[bad]]), np.array([[0, 1]]))


# Faults planted on purpose.


def _uncentred(x, counts, y):
    centred = np.where(counts, x - x[counts].mean(), 0.0)
    total = float((centred**2).sum())
    return np.einsum("mc,mqc->q", centred, y) / total if total else None


SLOPES = order_effects._slopes
FAULTS = {
    "levels-left-in": ("_slopes", _uncentred, level_alone),
    "wrong-sign": ("_slopes", lambda *given: None if (s := SLOPES(*given)) is None else -s, test_recency_by_hand),
    "another-label": ("_probabilities", lambda t: np.roll(t, 1, axis=-1), test_recency_by_hand),
    "no-softmax": ("_probabilities", lambda t: t, test_recency_by_hand),
    "predicted-least": ("_predicted", lambda t: np.eye(t.shape[-1])[t.argmin(axis=-1)], test_majority_by_hand),
    "before-and-after-swapped": ("_both", lambda b, a: (("before", a), ("after", b)), test_common_token_by_hand),
    "mean-of-logarithms": ("logsumexp", lambda t, axis: t.mean(axis=axis), test_three_labels_have_a_rank_correlation),
}


@pytest.mark.parametrize("name", FAULTS)
def test_planted_faults_are_noticed(name, monkeypatch):
    attribute, fault, check = FAULTS[name]
    check()
    monkeypatch.setattr(order_effects, attribute, fault)
    with pytest.raises(AssertionError):
        check()
