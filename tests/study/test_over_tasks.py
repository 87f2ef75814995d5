"""Rows over tasks against means taken by hand."""

import pytest

from kshot.study.over_tasks import over_tasks


def row(task: str, each: list[float], measure: str = "rank_agreement", **more) -> dict:
    value = sum(each) / len(each) if each else None
    own = {"task": task, "model": "tiny", "seed": 0, "measure": measure, "variant": "a vs b/spearman", "layer": None}
    return {**own, "value": value, "low": None, "high": None, "n": len(each), "null": 0.0, "each": each, **more}


def test_every_query_of_every_task_weighs_the_same() -> None:
    (found,) = over_tasks([row("films", [0.5, 1.0, 0.0]), row("news", [-1.0])])
    assert (found["task"], found["n"], found["value"], found["null"]) == (None, 4, pytest.approx(0.125), 0.0)
    assert -1.0 <= found["low"] < found["value"] < found["high"] <= 1.0
    assert found["each"] == [0.5, 1.0, 0.0, -1.0]


def test_the_order_of_tasks_changes_no_figure() -> None:
    rows = [row("films", [0.5, 1.0, 0.0]), row("news", [-1.0, 0.25])]
    (one,), (other,) = over_tasks(rows), over_tasks(rows[::-1])
    assert [one[name] for name in ("value", "low", "high", "n")] == [other[n] for n in ("value", "low", "high", "n")]


def test_seeds_and_variants_are_not_mixed() -> None:
    rows = [row(task, [0.5], seed=seed, variant=v) for task in ("a", "b") for seed in (0, 1) for v in ("x", "y")]
    assert sorted((found["seed"], found["variant"]) for found in over_tasks(rows)) == [
        (0, "x"), (0, "y"), (1, "x"), (1, "y"),
    ]  # fmt: skip


def test_one_task_other_measures_and_rows_without_queries_have_none() -> None:
    assert over_tasks([row("films", [0.5, 0.1])]) == []
    assert over_tasks([row("films", [0.5]), row("news", [])]) == []
    assert over_tasks([row("films", [0.5], "sim_aou"), row("news", [0.5], "sim_aou")]) == []


def test_a_task_without_a_ranking_is_left_out_of_the_reason() -> None:
    undefined = row("bbc", [], reason="no query ranks its demonstrations in both")
    (found,) = over_tasks([row("films", [0.5, 0.2]), undefined, row("news", [0.1])])
    assert (found["n"], found["reason"]) == (3, None)
