"""Rows, paired comparisons and the sentence that sums a task up."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from small import films, words

from kshot.study.answer import answer, percent
from kshot.study.results import commonest
from kshot.study.summary import arm, comparisons, differing, summary


def _line(right: str, method: str = "in-context", shots: int = 4, seed: int = 0, order: int = 0) -> dict[str, Any]:
    n = len(right) - right.count("-")
    return {
        "task": "t",
        "method": method,
        "params": {},
        "shots": shots,
        "seed": seed,
        "order": order,
        "right": right,
        "n": n,
        "accuracy": right.count("1") / n if n else None,
        "macro_f1": None,
        "log_loss": 1.0,
        "ece": 0.1,
        "seconds": 2.0,
        "tokens": 10,
        "score": "sum",
        "scores": {"sum": {"accuracy": right.count("1") / n if n else None}},
    }


def test_a_row_keeps_seeds_orders_and_test_examples_apart() -> None:
    lines = [
        _line("1111111100"),
        _line("1111110000", seed=1),
        _line("1111111111", order=1),
        _line("1000000000", order=2),
        _line("0000000001", "zero-shot", 0),
    ]
    row, bare = summary(lines)
    assert row["accuracy"] == pytest.approx(0.7)
    assert row["seeds"] == [0, 1]
    assert (row["order_low"], row["order_high"], row["orders"]) == (0.1, 1.0, 3)
    assert row["test_low"] < 0.6 < 0.8 < row["test_high"]
    assert (row["seed_low"], row["seed_high"]) == (0.0, 1.0), "two seeds say nothing"
    assert (row["queries_per_second"], row["macro_f1"]) == (5.0, None)
    assert [bare[key] for key in ("seed_low", "seed_high", "order_low", "order_high", "orders")] == [None] * 4 + [1]


def test_the_best_row_is_compared_with_every_other_seed_by_seed() -> None:
    lines = [
        _line("1111111100"),
        _line("1111111111", seed=1),
        # an order is no seed: it takes no part
        _line("0000000000", order=1),
        _line("0000000011", "zero-shot", 0),
        _line("1111111100", shots=2),
        _line("1111111110", shots=2, seed=1),
    ]
    found = {row["b"]: row for row in comparisons(lines)}
    assert set(found) == {"zero-shot@0", "in-context@2"}
    against = found["zero-shot@0"]
    assert against["a"] == "in-context@4"
    assert (against["n"], against["only_a"], against["only_b"]) == (20, 16, 2)
    assert against["difference"] == pytest.approx(14 / 20)
    assert against["p_values"] == {
        "0": pytest.approx(stats.binomtest(8, 10).pvalue),
        "1": pytest.approx(stats.binomtest(8, 8).pvalue),
    }
    # Of both seeds together eight queries differ by 2 and two by -1, 14 in all: as many signs out of 2^10 come to no less
    # as all eights alike (4) and seven of them with both others (8), on either side. Three rows are three pairs.
    assert against["p"] == pytest.approx(3 * 2 * (4 + 8) / 1024)
    assert found["in-context@2"]["p"] == 1.0
    assert found["in-context@2"]["p_values"] == {"0": 1.0, "1": 1.0}


def test_queries_that_one_side_left_out_are_not_compared() -> None:
    (row,) = comparisons([_line("1-10"), _line("01-0", "zero-shot", 0)])
    assert (row["n"], row["only_a"], row["only_b"]) == (2, 1, 0)
    (row,) = comparisons([_line("1-"), _line("-0", "zero-shot", 0)])
    assert (row["n"], row["difference"], row["p"], row["p_values"]) == (0, None, None, {"0": None})


def test_a_task_without_labels_has_no_accuracy_and_says_so() -> None:
    lines = [_line("---"), _line("---", "zero-shot", 0)]
    rows = summary(lines)
    assert [row["accuracy"] for row in rows] == [None, None]
    assert [row["test_low"] for row in rows] == [None, None]
    assert comparisons(lines) == []
    assert answer(rows, []) == "No query of this task is labelled, so nothing can be said of accuracy."


def _said(lines: list[dict[str, Any]], commonest: tuple[str, float] | None = None) -> str:
    return answer(summary(lines), comparisons(lines), commonest)


def test_the_answer_says_what_is_clear() -> None:
    lines = [_line("1" * 50 + "0" * 13), _line("1" + "0" * 62, "zero-shot", 0), _line("1" * 47 + "0" * 16, shots=16)]
    assert _said(lines) == (
        "With 4 demonstrations in the prompt the model answers 79 % of 63 queries right (68 to 88 %); "
        "without demonstrations, 2 %. It is better than zero-shot (p < 0.001). "
        "It is not distinguishable from in-context with 16 shots (p = 0.75)."
    )


def test_the_answer_says_what_is_not_clear() -> None:
    lines = [_line("1" * 6 + "0" * 6), _line("1" * 5 + "0" * 7, "zero-shot", 0)]
    assert _said(lines, ("good", 0.5)) == (
        "With 4 demonstrations in the prompt the model answers 50 % of 12 queries right (25 to 75 %); "
        "without demonstrations, 42 %. It is not distinguishable from zero-shot (p = 1). "
        "Always answering 'good' is as good as far as one can tell (50 %)."
    )
    assert _said(lines, ("good", 0.8)).endswith("Always answering 'good' is better (80 %).")


def test_the_answer_counts_seeds_and_knows_one_row() -> None:
    lines = [_line("1" * 12), _line("1" * 7 + "0" * 5, seed=1), _line("0" * 12, "zero-shot", 0)]
    lines[1]["right"], lines[1]["accuracy"] = "1" * 3 + "0" * 9, 0.25
    text = _said(lines)
    assert "right on average over 2 seeds" in text
    assert "It is better than zero-shot (p < 0.001)." in text, "over both seeds together"
    assert (
        _said([_line("1100", "zero-shot", 0)])
        == "Without demonstrations the model answers 50 % of 4 queries right (15 to 85 %)."
    )


def test_the_best_of_many_rows_alike_is_seldom_called_better() -> None:
    rng, called = np.random.default_rng(0), []
    for _ in range(200):
        right = rng.random((8, 40)) < 0.7
        lines = [_line("".join("01"[int(x)] for x in own), shots=n + 1) for n, own in enumerate(right)]
        called.append("It is better than" in _said(lines))
    # Without the correction it is so in about a third of the runs; 0.05 and three standard errors.
    assert np.mean(called) < 0.05 + 3 * (0.05 * 0.95 / 200) ** 0.5


def _with_params(line: dict[str, Any], **params: Any) -> dict[str, Any]:
    return {**line, "params": params}


def test_rows_are_called_by_as_many_parameters_as_tell_them_apart() -> None:
    lines = [
        _with_params(_line("1100"), pick="random"),
        _with_params(_line("1110"), pick="random", ensemble="orders", members=4, rule="majority-vote"),
        _with_params(_line("1000"), pick="random", ensemble="orders", members=4, rule="mean-log-probability"),
        _with_params(_line("1000", shots=2), pick="random"),
        _line("0000", "zero-shot", 0),
    ]
    rows = summary(lines)
    assert [arm(row, differing(rows)) for row in rows] == [
        "in-context@4",
        "in-context@4[ensemble=orders,rule=majority-vote]",
        "in-context@4[ensemble=orders,rule=mean-log-probability]",
        "in-context@2",
        "zero-shot@0",
    ]
    found = comparisons(lines)
    assert {row["a"] for row in found} == {"in-context@4[ensemble=orders,rule=majority-vote]"}
    assert len({row["b"] for row in found}) == 4
    assert _said(lines).startswith(
        "With 4 demonstrations in the prompt (4 orders combined by majority vote) the model answers 75 % of 4 queries"
    )
    assert "in-context with 4 shots (4 orders combined by mean log probability) (p = 1)" in _said(lines)
    # another task with the same method takes no part
    other = {**lines[0], "task": "u", "params": {"pick": "bm25"}}
    assert differing([*lines, other]) == differing(lines)


def test_templates_are_told_apart_by_number_in_words_too() -> None:
    lines = [_with_params(_line(r, "zero-shot", 0), template=n) for n, r in enumerate(("1100", "1111"), 1)]
    assert _said(lines).startswith("Without demonstrations (template 2) the model answers 100 % of 4 queries")
    assert "; without demonstrations (template 1), 50 %." in _said(lines)


def _scored(line: dict[str, Any], **accuracies: float | None) -> dict[str, Any]:
    more = {name: None if value is None else {"accuracy": value} for name, value in accuracies.items()}
    return {**line, "scores": line["scores"] | more}


def test_a_row_has_the_mean_of_every_scoring_rule() -> None:
    lines = [
        _scored(_line("1100"), batch_calibration=0.5, pmi=None),
        _scored(_line("1111", seed=1), batch_calibration=0.75, pmi=0.5),
        _scored(_line("1111", order=1), batch_calibration=0.0, pmi=0.5),
    ]
    (row,) = summary(lines)
    assert row["scores"] == {"sum": 0.75, "batch_calibration": 0.625, "pmi": None}
    assert row["score"] == "sum"


def test_the_answer_names_another_rule_that_is_clearly_better() -> None:
    bare = _scored(
        _line("1" * 50 + "0" * 50, "zero-shot", 0), batch_calibration=0.55, unconditional_likelihood_normalized=0.7
    )
    lines = [_scored(_line("1" * 66 + "0" * 34), batch_calibration=0.69, unconditional_likelihood_normalized=0.1), bare]
    assert _said(lines).endswith(
        " Of the other scoring rules, PMI without demonstrations comes to 70 % "
        "(chosen among 2 rules in 2 rows on these same queries, so a little flattering)."
    )
    lines[1] = _scored(bare, unconditional_likelihood_normalized=None)
    # 66 + 3 in a hundred: three points are enough
    assert _said(lines).endswith(
        " Of the other scoring rules, batch calibration with 4 demonstrations comes to 69 % "
        "(chosen among 2 rules in 2 rows on these same queries, so a little flattering)."
    )
    lines[0] = _scored(lines[0], batch_calibration=0.68)
    assert "scoring rules" not in _said(lines)
    # open answers are counted by another measure, which no rule changes
    opened = [{**_scored(line, batch_calibration=1.0), "score": "greedy_exact_match"} for line in lines]
    assert "scoring rules" not in _said(opened)


@given(st.integers(0, 10_000), st.integers(1, 10_000))
def test_a_share_is_never_rounded_to_all_or_nothing_unless_it_is(right: int, n: int) -> None:
    share = min(right, n) / n
    assert (percent(share) == "0 %") == (share == 0)
    assert (percent(share) == "100 %") == (share == 1)


def test_the_commonest_label() -> None:
    task = films()
    assert commonest(task, task.test[:3]) == ("bad", pytest.approx(2 / 3))
    assert commonest(words(), words().test) is None
