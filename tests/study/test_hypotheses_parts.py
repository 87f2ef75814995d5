"""Parts of the battery against planted answers: rows, contrasts, correlations over functions, Bayes over a pool."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import learners
import numpy as np
import pytest

from kshot.data.builtin.composed import chains, relations, steps
from kshot.measure.metrics import macro_f1
from kshot.rivals.pool import entropy, mixture, posterior
from kshot.study.hypotheses import core as parts
from kshot.study.hypotheses.asking import Answers, Asked, answer_rows, contrast_row, together
from kshot.study.hypotheses.core import core, linear_map, regression_as_published
from kshot.study.hypotheses.functions import (
    CORRELATED,
    binned,
    correlation_row,
    disattenuated,
    over_functions,
    permutation_p,
    split_half,
)
from kshot.study.hypotheses.labels import ablated, by_share_permuted, by_share_right, by_shots
from kshot.transform import TRANSFORMS


def answers(said: list[int], gold: list[int], c: int = 2) -> Answers:
    return Answers(np.eye(c)[said], np.array(gold), np.zeros((len(gold), 0), dtype=np.int64))


def quiet(what: str) -> None:
    """Nobody is told."""


# Rows


def test_rows_are_the_metrics_with_intervals_that_hold_them() -> None:
    rng = np.random.default_rng(0)
    gold, said = rng.integers(3, size=80), rng.integers(3, size=80)
    found = answers(said.tolist(), gold.tolist(), 3)
    accuracy, f1, majority = answer_rows(("a", "b"), found, 0)
    assert accuracy["value"] == np.mean(said == gold)
    assert f1["value"] == pytest.approx(macro_f1(np.eye(3)[said], gold))
    assert all(row["low"] < row["value"] < row["high"] for row in (accuracy, f1))
    assert (accuracy["variant"], majority["variant"]) == ("a, b", "a, b, always one label")
    assert abs(f1["null"] - f1["value"]) < 0.15
    assert (rows := answer_rows(("a",), found, 0)) == answer_rows(("a",), found, 0)
    assert rows[1]["null"] == found.guessed(0).macro_f1


def test_a_contrast_is_taken_on_the_same_queries() -> None:
    """Two that answer alike differ by nothing, however few queries there are."""
    gold = [0, 1] * 20
    one = answers([0, 1] * 10 + [1, 0] * 10, gold)
    same = contrast_row("x", one, one, 0)
    assert (same["value"], same["low"], same["high"]) == (0.0, 0.0, 0.0)
    better = contrast_row("x", answers(gold, gold), one, 0, ("fixed",))
    assert better["low"] > 0.2
    assert better["variant"] == "x, fixed"
    known = contrast_row("x", one, 0.25, 0)
    assert known["value"] == pytest.approx(one.macro_f1 - 0.25)


def test_together_is_one_after_another() -> None:
    both = together([answers([0, 1], [0, 0]), answers([1], [1])])
    assert both.right.tolist() == [1.0, 0.0, 1.0]


def test_the_same_query_again_is_no_further_evidence() -> None:
    """Three tables with the same answers are as sure as one."""
    rng = np.random.default_rng(0)
    gold, said = rng.integers(2, size=64).tolist(), rng.integers(2, size=64).tolist()
    one, other = answers(said, gold), answers(gold[::-1], gold)
    for single, thrice in zip(answer_rows(("a",), one, 0), answer_rows(("a",), together([one] * 3), 0), strict=True):
        assert (single["low"], single["high"], single["n"]) == (thrice["low"], thrice["high"], thrice["n"])
    assert contrast_row("x", one, other, 0) == contrast_row("x", together([one] * 3), together([other] * 3), 0)
    assert together([one] * 3).n == 64


def test_label_words_after_the_same_demonstrations_are_as_many_queries_as_there_are_labels() -> None:
    own = learners.asked(learners.Learner("H3", 0.3), 0, queries=40)
    memory = own.altered(TRANSFORMS["memory-random"])
    fixed, redrawn = (own.answers(memory, protocol) for protocol in ("fixed", "redrawn"))
    assert (fixed.n, redrawn.n, own.answers(own.written, "fixed").n) == (2, 40, 40)
    assert {row["n"] for row in answer_rows(("a",), fixed, 0)} == {2}
    assert len({(label, number) for label, number in zip(memory.gold, fixed.numbered, strict=True)}) == 2
    # What is answered to a label word is one draw, not twenty.
    half_right = replace(fixed, table=np.eye(2)[np.zeros(40, dtype=np.int64)])
    accuracy = answer_rows(("a",), half_right, 0)[0]
    assert (accuracy["low"], accuracy["high"]) == (0.0, 1.0)
    single = answers([0], [0])
    assert answer_rows(("a",), single, 0)[0]["low"] is None


def test_labels_that_occur_once_are_not_looked_for_until_they_are_found() -> None:
    own = learners.asked(learners.Learner("H2", 1e-6), 0, queries=8)
    pool = tuple(replace(piece, gold=i if i < 12 else 12) for i, piece in enumerate(own.written.pool))
    rare = replace(own.written, labels=tuple(map(str, range(13))), pool=pool)
    assert regression_as_published(replace(own, written=rare, shots=13)) is None


# Learners of a known kind, without noise


@pytest.mark.parametrize("protocol", ["redrawn", "fixed"])
def test_each_learner_shows_what_it_must(protocol: str) -> None:
    found = {}
    for account in learners.ACCOUNTS:
        own = learners.asked(learners.Learner(account, 1e-6), 1, queries=120)
        rows = core(own, protocol, quiet)
        found[account] = {
            row["variant"].removesuffix(f", {protocol}"): row["value"] for row in rows if row["measure"] == "contrast"
        }
    assert all(own[parts.ABLE] > 0.05 for own in found.values())
    assert abs(found["H1"][parts.SELECTED]) < 0.15
    assert found["H3"][parts.SELECTED] > 0.25
    # Of one set of demonstrations a regression may learn nothing.
    assert protocol == "fixed" or found["H1"][parts.LEARNED] < -0.05
    assert protocol == "fixed" or found["H3"][parts.LEARNED] < -0.05
    assert abs(found["H2"][parts.LEARNED]) < 0.2
    assert abs(found["H2"][parts.LINEAR]) < 0.05
    assert found["H1"][parts.LINEAR] < -0.3


def test_the_rivals_see_what_the_model_sees() -> None:
    own = learners.asked(learners.Learner("H2", 1e-6), 0, queries=40)
    memory = own.altered(TRANSFORMS["memory-random"])
    found = own.answers(memory, "redrawn")
    linear = linear_map(own, memory, found, None)
    assert np.array_equal(linear.drawn, found.drawn)
    both = np.array([len({memory.pool[i].gold for i in row}) == 2 for row in found.drawn])
    assert linear.right[both].all(), "with both labels shown the least-squares map knows them"
    assert 0.0 <= regression_as_published(own) <= 1.0
    assert regression_as_published(replace(own, shots=1)) is None


def test_shares_and_shots_are_series() -> None:
    own = learners.asked(learners.Learner("H3", 0.01), 0, queries=60)
    f1 = {row["variant"]: row["value"] for row in by_share_right(own, quiet) if row["measure"] == "macro_f1"}
    assert f1["100% right, arbitrary words"] > f1["0% right, arbitrary words"] + 0.5
    f1 = {row["variant"]: row["value"] for row in by_share_permuted(own, quiet) if row["measure"] == "macro_f1"}
    assert f1["0% permuted"] > f1["100% permuted"] + 0.3
    f1 = {row["variant"]: row["value"] for row in by_shots(own, quiet) if row["measure"] == "macro_f1"}
    assert f1["response-altered, 16 shots"] > f1["response-altered, 0 shots"] + 0.2


def test_ablations_that_do_not_apply_are_rows_that_say_why() -> None:
    own = learners.asked(learners.Learner("H3", 0.01), 0, queries=20)
    rows = ablated(own, quiet)
    (row,) = [row for row in rows if row["variant"] == "out-of-domain, direct"]
    assert row["value"] is None
    assert "no texts of elsewhere" in row["reason"]


def test_what_a_reader_has_to_know_is_noted() -> None:
    own = learners.asked(learners.Learner("H1", 0.01), 0, queries=4)
    assert own.notes == []
    odd = replace(own, written=replace(own.written, seams=3, answers=((10, 4), (11,))))
    assert odd.notes[0] == "3 of 260 examples have other tokens at a seam than in one whole text"
    assert odd.notes[1].startswith("negative: several tokens, scored by their sum")


# Functions


def test_functions_that_are_hard_are_hard_in_both() -> None:
    own = learners.asked(learners.Learner("H3", 0.3), 0, queries=60)
    rows, pictures = over_functions(own, 24, 6, quiet)
    found = {row["variant"]: row for row in rows if row["measure"] == "correlation"}
    assert found[CORRELATED]["low"] > 0
    (p,) = [row["value"] for row in rows if row["measure"] == "p_value"]
    assert p < 0.05
    assert len(pictures["functions"]["memory"]) == 24
    assert sum(part["n"] for part in pictures["functions"]["binned"]) == 24


@pytest.mark.parametrize("value", [0.1, 0.3, 0.6, 1 / 3])
def test_equal_accuracies_go_together_with_nothing(value: float) -> None:
    """The standard deviation of many times 0.1 is 1e-17 and not 0."""
    other = np.linspace(0.1, 0.9, 15)
    for x in (np.full(15, value), np.full(15, value) + np.linspace(0, 1e-16, 15)):
        for row in (correlation_row("x", x, other), correlation_row("x", other, x), correlation_row("x", x, x)):
            assert (row["value"], row["low"], row["high"]) == (None, None, None)
            assert row["reason"]
    assert correlation_row("x", other, other)["value"] == pytest.approx(1.0)
    assert split_half(np.full((15, 10), value)) is None


def test_functions_that_were_asked_before_a_kill_are_not_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, place = learners.asked(learners.Learner("H3", 0.3), 0, queries=20), tmp_path / "functions.safetensors"
    whole, right = over_functions(own, 24, 3, quiet), Asked.tables
    calls: list[int] = []

    def killed(self: Asked, asked: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return right(self, asked)

    monkeypatch.setattr(Asked, "tables", killed)
    with pytest.raises(KeyboardInterrupt):
        over_functions(own, 24, 3, quiet, place)
    said: list[str] = []
    assert over_functions(own, 24, 3, said.append, place) == whole
    assert said == ["function 11 of 24", "function 21 of 24"]
    assert not place.exists()
    # What was kept of another number of draws is no part of this.
    calls.clear()
    with pytest.raises(KeyboardInterrupt):
        over_functions(own, 24, 2, quiet, place)
    assert over_functions(own, 24, 3, quiet, place) == whole


def test_the_p_value_is_the_share_of_pairings() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=30)
    assert permutation_p(x, x + 0.1 * rng.normal(size=30), 0) < 0.001
    assert permutation_p(x, -x, 0) > 0.999
    assert 0.01 < np.mean([permutation_p(rng.normal(size=8), rng.normal(size=8), 0) < 0.1 for _ in range(60)]) < 0.25


def test_reliability_and_what_noise_takes() -> None:
    rng = np.random.default_rng(1)
    truth = rng.uniform(0.2, 0.9, size=400)
    right = (rng.uniform(size=(400, 40)) < truth[:, None]).astype(float)
    noise = truth.var() / (truth.var() + (truth * (1 - truth)).mean() / 40)
    found = split_half(right)
    assert found == pytest.approx(noise, abs=0.06)
    other = (rng.uniform(size=(400, 40)) < truth[:, None]).astype(float)
    r = np.corrcoef(right.mean(axis=1), other.mean(axis=1))[0, 1]
    assert disattenuated(r, found, split_half(other)) == pytest.approx(1.0, abs=0.08)
    assert split_half(np.ones((5, 4))) is None
    assert disattenuated(0.5, None, 0.5) is None


def test_scores_that_do_not_vary_have_no_correlation() -> None:
    row = correlation_row("x", np.ones(5), np.arange(5.0))
    assert row["value"] is None
    assert "alike" in row["reason"]
    row = correlation_row("x", np.arange(20.0), np.arange(20.0) ** 2)
    assert row["low"] < row["value"] < row["high"]


def test_bins_hold_all_functions_in_order() -> None:
    x = np.random.default_rng(0).uniform(size=37)
    found = binned(x, 2 * x)
    means = [part["memory"] for part in found]
    assert means == sorted(means)
    assert [part["altered"] for part in found] == pytest.approx([2 * m for m in means])
    assert sum(part["n"] for part in found) == 37


# Bayes over a pool


def test_a_posterior_by_hand() -> None:
    loglik = np.log(np.array([[0.5, 0.25], [0.8, 0.1]]))
    found = np.exp(posterior(loglik))
    assert found[0].tolist() == pytest.approx([0.5, 0.5])
    assert found[1].tolist() == pytest.approx([2 / 3, 1 / 3])
    assert found[2].tolist() == pytest.approx([0.4 / 0.425, 0.025 / 0.425])
    assert entropy(posterior(loglik)).tolist()[0] == pytest.approx(np.log(2))
    sure = entropy(np.log(np.array([[1.0, 1e-300]])))
    assert sure[0] == pytest.approx(0.0, abs=1e-9)


def test_a_mixture_by_hand() -> None:
    tables = np.log(np.array([[[0.9, 0.1]], [[0.2, 0.8]]]))
    found = np.exp(mixture(np.log(np.array([0.75, 0.25])), tables))
    assert found[0].tolist() == pytest.approx([0.75 * 0.9 + 0.25 * 0.2, 0.75 * 0.1 + 0.25 * 0.8])


# Relations


def test_chains_follow_from_the_facts() -> None:
    known = relations()
    assert len(known) == 10
    assert ("country of", "continent of") in chains()
    for first, then in chains():
        rows = steps(first, then)
        assert len(rows) >= 20
        assert all(known[first][given] == middle and known[then][middle] == end for given, middle, end in rows)
        assert len({given for given, _, _ in rows}) == len(rows)
    assert not {("English for", "French for"), ("French for", "English for")} & set(chains())
    assert ("Paris", "France", "Europe") in steps("country of", "continent of")
