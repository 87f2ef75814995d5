"""Open questions on models whose mechanism is known: with one layer nothing is read twice."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small import films

from kshot.data.pick import pick
from kshot.data.task import Example, Task
from kshot.errors import MethodError
from kshot.measure.arrangements import gold_columns, gold_logprob
from kshot.measure.calibrate import levelled
from kshot.measure.scoring import score
from kshot.model.lm import LM
from kshot.model.load import frozen
from kshot.model.sources import Source
from kshot.model.surgery import read_through
from kshot.model.tiny import tiny_model
from kshot.study.attributed import in_context
from kshot.study.catalogue import QUESTIONS, labels, learning, order
from kshot.study.catalogue.labels import with_arbitrary_words, with_wrong_labels
from kshot.study.catalogue.order import same_labels
from kshot.study.catalogue.question import answered_part
from kshot.study.catalogue.told import alone, told
from kshot.study.compared import Setting


def quiet(what: str) -> None:
    """Nobody listens."""


def setting(
    lm: LM, shots: int = 6, queries: int = 5, seed: int = 0, words: tuple[str, str] = ("bad", "fun")
) -> Setting:
    task = films(60)
    template = replace(task.template, words=dict(zip(task.labels, words, strict=True)))
    shown = pick(task.train, shots, "balanced", seed, labels=task.labels)
    return Setting(lm=lm, task=task, template=template, demonstrations=shown, queries=task.test[:queries], seed=seed)


@pytest.fixture(scope="module")
def one_layer() -> LM:
    return flat_lm()


def flat_lm() -> LM:
    """The little Llama with its first layer only, in float64."""
    model, tokenizer = tiny_model()
    model.model.layers = model.model.layers[:1]
    model.config.num_hidden_layers = 1
    source = Source(name="flat", caption="one layer", folder=Path(), kind="directory", hash="1")
    return frozen(model.to(torch.float64), tokenizer, source)


def by_variant(rows: list[dict], measure: str) -> dict[str, float]:
    return {row["variant"]: row["value"] for row in rows if row["measure"] == measure}


def test_answers_after_demonstrations_are_those_of_in_context_learning(tiny_lm: LM) -> None:
    asked = setting(tiny_lm)
    one = told(asked, asked.demonstrations)
    found = one.answers(read_through(one.lm, one.tokens))
    expected = score(in_context(asked), asked.task, asked.queries).predictions.logprobs
    assert found == pytest.approx(expected, abs=1e-4)
    bare = score(replace(in_context(asked), demonstrations=()), asked.task, asked.queries).predictions.logprobs
    assert alone(asked) == pytest.approx(bare, abs=1e-4)


def test_each_part_belongs_to_one_question_and_each_rival_to_a_contrast(
    tiny_lm: LM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learning, "_BUDGET", "2steps")
    parts = [name for question in QUESTIONS.values() for name in question.parts]
    assert len(set(parts)) == len(parts)
    for name, question in QUESTIONS.items():
        assert len(question.rivals) >= 2
        assert question.prediction
        part = next(iter(question.parts.values()))
        rows = part(setting(tiny_lm), quiet)
        contrasts = {row["variant"].partition(", ")[0] for row in rows if row["measure"] == f"why_{name}_contrast"}
        assert contrasts == {rival.contrast for rival in question.rivals}
        assert all(row["measure"].startswith(f"why_{name}_") for row in rows)
        keys = [(row["measure"], row["variant"]) for row in rows]
        assert len(set(keys)) == len(keys)


def test_queries_without_labels_in_common_are_refused_in_one_line(tiny_lm: LM) -> None:
    asked = setting(tiny_lm)
    own = tuple(replace(query, choices=(query.label or "", f"not {i}")) for i, query in enumerate(asked.queries))
    apart = replace(asked, task=replace(asked.task, kind="choice"), queries=own)
    for question in QUESTIONS.values():
        for part in question.parts.values():
            with pytest.raises(MethodError, match="2 queries or more with the same labels"):
                answered_part(part, apart, quiet)
            with pytest.raises(MethodError, match="2 queries or more with the same labels"):
                answered_part(part, replace(asked, queries=asked.queries[:1]), quiet)


# -- labels


def test_what_is_said_of_all_queries_alike_is_taken_out() -> None:
    rng = np.random.default_rng(0)
    table = np.log(rng.dirichlet((2.0, 3.0, 1.0), size=(4, 50)))
    table[1] += [3.0, -1.0, 0.0]
    found = levelled(table)
    assert np.exp(found).sum(axis=-1) == pytest.approx(np.ones((4, 50)))
    for order_of, own in zip(table, found, strict=True):
        share = np.exp(order_of) / np.exp(order_of).sum(axis=-1, keepdims=True)
        expected = share / share.mean(axis=0)
        assert np.exp(own) == pytest.approx(expected / expected.sum(axis=-1, keepdims=True))
    flat = levelled(np.tile(np.log([0.7, 0.2, 0.1]), (5, 1)))
    assert np.exp(flat) == pytest.approx(np.full((5, 3), 1 / 3))


def test_wrong_labels_are_wrong_as_many_as_asked_and_nested() -> None:
    task = replace(films(60), labels=("bad", "good", "fair"))
    shown = task.train[:12]
    before: set[int] = set()
    for share in (0.0, 0.25, 0.5, 1.0):
        own = with_wrong_labels(task, shown, share, seed=3)
        changed = {i for i, (one, other) in enumerate(zip(own, shown, strict=True)) if one.label != other.label}
        assert len(changed) == round(share * 12)
        assert len(changed) == labels._changed(shown, share)
        assert before <= changed
        assert all(
            one.fields == other.fields and one.label in task.labels for one, other in zip(own, shown, strict=True)
        )
        before = changed
    with pytest.raises(MethodError, match="1 label"):
        with_wrong_labels(replace(task, labels=("bad",)), shown, 1.0, seed=0)


@pytest.mark.parametrize("k", [2, 3, 6, 8, 10, 19])
def test_the_first_wrong_labels_cost_their_share_where_every_one_costs_the_same(k: int) -> None:
    shown = films(60).train[:k]
    cost = np.array([3.0, 6.0])
    own = {name: np.zeros(2) for name in ("right labels", "no demonstrations", "right labels, arbitrary words",
                                          "wrong labels, arbitrary words", "right labels, 2 demonstrations",
                                          "wrong labels, 2 demonstrations")}  # fmt: skip
    share = labels._changed(shown, 0.25) / k
    own |= {"wrong labels": -cost, "25% of the labels wrong": -cost * share}
    found = labels._contrasts(own, 2, share, "")
    assert found["the first quarter costs less than its share"] == pytest.approx(0, abs=1e-12)


def test_the_best_rate_is_found_on_queries_that_do_not_judge_it() -> None:
    rng, names = np.random.default_rng(0), [learning._tuned(rate) for rate in learning._RATES]
    ahead = []
    for _ in range(200):
        # Three rates that do as well as one another.
        right = {name: (rng.random(30) < 0.5).astype(float) for name in names}
        ahead.append(learning._at_best_rate(right, right).mean() - 0.5)
    assert abs(np.mean(ahead)) < 3 * np.std(ahead) / 200**0.5, "the best on the same queries is ahead by 0.08"


def test_arbitrary_words_are_others_for_each_label_and_seed(tiny_lm: LM) -> None:
    first, again, other = (with_arbitrary_words(setting(tiny_lm, seed=seed)) for seed in (0, 0, 1))
    assert first == again
    assert len(set(first.words.values())) == 2
    assert set(first.words.values()) != set(other.words.values())
    many = replace(setting(tiny_lm), task=replace(films(), labels=tuple(map(str, range(30)))))
    with pytest.raises(MethodError, match="30 labels"):
        with_arbitrary_words(many)


def test_with_one_layer_labels_act_where_they_stand_alone(one_layer: LM) -> None:
    rows = labels._answer(setting(one_layer), quiet)
    said, contrast = by_variant(rows, "why_labels_logprob"), by_variant(rows, "why_labels_contrast")
    assert said["wrong labels where they stand"] == pytest.approx(said["wrong labels"], abs=1e-8)
    assert said["wrong labels in what follows them"] == pytest.approx(said["right labels"], abs=1e-8)
    cost = said["right labels"] - said["wrong labels"]
    assert abs(cost) > 1e-3
    assert contrast["wrong labels cost"] == pytest.approx(cost, abs=1e-8)
    assert contrast["most is in the label tokens themselves"] == pytest.approx(cost / 2, abs=1e-8)
    assert contrast["most is in what later tokens read of them"] == pytest.approx(-cost / 2, abs=1e-8)


def test_with_two_layers_a_part_is_read_by_later_tokens(tiny_lm: LM) -> None:
    said = by_variant(labels._answer(setting(tiny_lm), quiet), "why_labels_logprob")
    assert abs(said["wrong labels in what follows them"] - said["right labels"]) > 1e-3


def test_labels_of_unequal_length_cannot_be_grafted_and_it_is_said(tiny_lm: LM) -> None:
    rows = labels._answer(setting(tiny_lm, words=("no", "yes")), quiet)
    missing = {row["variant"]: row["reason"] for row in rows if row["value"] is None}
    assert set(missing) == {"most is in the label tokens themselves", "most is in what later tokens read of them"}
    assert all("different numbers of tokens" in why for why in missing.values())


# -- order


def test_with_one_layer_order_is_place_alone(one_layer: LM) -> None:
    spread = by_variant(order._answer(setting(one_layer), quiet), "why_order_variance")
    assert spread["in their orders"] > 1e-4
    assert spread["read apart"] == pytest.approx(spread["in their orders"], abs=1e-8)
    # Keys that are turned back are off by the rounding of the angles.
    assert spread["standing in one order"] < 1e-6 * spread["in their orders"]


def test_variances_are_those_of_prompts_in_these_orders(tiny_lm: LM) -> None:
    asked = setting(tiny_lm)
    rows = order._answer(asked, quiet)
    gold = gold_columns(asked.task, asked.queries)
    said = []
    for one in order.all_orders(6, sample=order._ORDERS, seed=0)[: order._ORDERS]:
        own = in_context(replace(asked, demonstrations=tuple(asked.demonstrations[i] for i in one)))
        said.append(gold_logprob(score(own, asked.task, asked.queries).predictions.logprobs[None], gold)[0])
    expected = np.var(said, axis=0, ddof=1).mean()
    assert by_variant(rows, "why_order_variance")["in their orders"] == pytest.approx(expected, rel=1e-3)
    contrast = by_variant(rows, "why_order_contrast")
    spread = by_variant(rows, "why_order_variance")
    assert contrast["most is where they stand"] == pytest.approx(
        spread["read apart"] - expected / 2, rel=1e-3, abs=1e-4
    )
    assert contrast["most is a bias towards labels"] == pytest.approx(
        expected / 2 - spread["calibrated"], rel=1e-3, abs=1e-4
    )


def test_orders_of_the_same_labels_leave_every_label_in_its_place() -> None:
    shown = [Example(id=str(i), fields={}, label=label) for i, label in enumerate("abaab")]
    found = same_labels(shown, 8, seed=1)
    assert found[0] == (0, 1, 2, 3, 4)
    assert len(set(found)) == len(found) == 8
    assert all("".join(str(shown[i].label) for i in one) == "abaab" for one in found)
    assert len(same_labels(shown, 100, seed=1)) == 12
    assert same_labels(shown[:2], 12, seed=0) == ((0, 1),)


def test_too_few_demonstrations_have_no_order_to_speak_of(tiny_lm: LM) -> None:
    with pytest.raises(MethodError, match="give --num-fewshot 3 or more"):
        order._answer(setting(tiny_lm, shots=2), quiet)


# -- learning


def test_learning_sets_every_way_beside_the_same_examples(tiny_lm: LM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learning, "_BUDGET", "3steps")
    asked = setting(tiny_lm, queries=8)
    rows = learning._answer(asked, quiet, shots=8)
    right, contrast = by_variant(rows, "why_learning_accuracy"), by_variant(rows, "why_learning_contrast")
    names = ["in-context", "fine-tuned", "prefix", "prefix begun at random"]
    assert {f"{name}{more}, 8 examples" for name in names for more in ("", ", calibrated")} <= set(right)
    ahead = right["in-context, 8 examples"] - right["fine-tuned, 8 examples"]
    assert contrast["in-context is ahead of fine-tuned, 8 examples"] == pytest.approx(ahead)
    oracle = max(
        (
            row
            for row in rows
            if row["measure"] == "why_learning_logprob"
            and "whole budget" in row["variant"]
            and "calibrated" not in row["variant"]
        ),
        key=lambda row: row["value"],
    )["variant"]
    assert contrast["fine-tuned at its best rate is ahead of in-context, 8 examples"] == pytest.approx(
        right[oracle] - right["in-context, 8 examples"]
    )


def test_a_pool_that_is_too_small_is_said(tiny_lm: LM) -> None:
    asked = setting(tiny_lm)
    small: Task = replace(asked.task, train=asked.task.train[:10])
    with pytest.raises(MethodError, match="10 labelled training examples, and 64"):
        learning._answer(replace(asked, task=small), quiet, shots=64)
