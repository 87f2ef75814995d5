"""What the page says of single demonstrations: how attributions rank them, the strip, orders and biases."""

import pytest
from fake_explain import RECORD, SHOTS, TASKS, explained, row, value_of
from reader import undefined

from kshot.show import explain_attributions, explain_plots, explain_rows, explain_tasks
from kshot.show.explain import page


@pytest.fixture(scope="module")
def html() -> str:
    return page(RECORD)


def test_a_dot_for_each_order_and_the_shown_one_apart() -> None:
    rows = [{"order": [1, 0], "accuracy": 0.5}, {"order": [0, 1], "accuracy": 0.75}, {"order": [], "accuracy": 0.5}]
    (axes,) = explain_plots.orders(rows, "accuracy", "accuracy", [0, 1]).axes
    others, shown = axes.get_lines()
    assert [float(x) for x in shown.get_xdata()] == [0.75]
    assert [float(y) for y in others.get_ydata()] == [0, 1]


def test_the_strip_reads_without_colour(html: str) -> None:
    shown = RECORD["pictures"]["sst2"]["strip"]["demonstrations"]
    task = explain_tasks.explain_task(RECORD, "sst2", "task-1")
    boxes = task["strip"]["boxes"]
    assert [box["mark"] for box in boxes] == ["▲" if one["shapley"] > 0 else "▼" for one in shown]
    strongest = max(range(SHOTS), key=lambda i: abs(shown[i]["shapley"]))
    assert [box["tint"] == 50 for box in boxes] == [i == strongest for i in range(SHOTS)]
    for one in shown:
        assert f"{abs(one['shapley']):.3f}" in html
    assert task["strip"]["main"] == "Shapley value"


def test_the_strip_falls_back_on_what_was_measured() -> None:
    record = explained(tasks=("sst2",), brief=True)
    shown = record["pictures"]["sst2"]["strip"]["demonstrations"]
    for one in shown:
        one["shapley"] = one["shapley_error"] = None
    shown[0]["leave_one_out"] = None
    shown[1]["leave_one_out"] = 0.0
    strip = explain_tasks.explain_task(record, "sst2", "task-1")["strip"]
    assert strip["main"] == "leave-one-out"
    assert [(box["kind"], box["tint"]) for box in strip["boxes"][:2]] == [("none", 0), ("nothing", 0)]
    assert undefined(page(record)) == []


def test_attributions_are_compared_pair_by_pair() -> None:
    lines = explain_attributions.agreement(RECORD["measures"], list(TASKS))
    assert [line["sub"].rpartition(", ")[2] for line in lines] == ["Spearman"] * 10 + ["Kendall"] * 10
    assert (lines[0]["name"], lines[0]["sub"]) == ("attention mass", "against leave-one-out, Spearman")
    assert lines[0]["cells"][0]["text"] == value_of("rank_agreement", "attention_mass vs leave_one_out/spearman")
    odd = explain_attributions.agreement([row("t", "rank_agreement", "attention_mass", 0.1, null=0.2)], ["t"])
    assert (odd[0]["name"], odd[0]["sub"], odd[0]["cells"][0]["null"]) == ("attention mass", "", "0.200")


def test_ranks_over_all_tasks_stand_after_the_tasks() -> None:
    rows = [
        row(task, "rank_agreement", "attention_mass vs shapley/spearman", value, n=n)
        for task, value, n in (("a", 0.1, 6), ("b", 0.3, 6), (None, 0.2, 12))
    ]
    (line,) = explain_attributions.agreement(rows, ["a", "b"])
    assert [cell["text"] for cell in line["cells"]] == ["0.100", "0.300", "0.200"]
    assert "the 12 queries of all tasks together" in page({"measures": rows})
    assert "of all tasks together" not in page({"measures": rows[:2]})


def test_it_is_said_over_how_many_queries_ranks_are_compared() -> None:
    rows = [row(task, "rank_agreement", "a vs b/spearman", 0.1, n=n) for task, n in (("a", 16), ("b", 20), (None, 36))]
    assert explain_attributions.ranked(rows, ["a", "b"]) == "Queries: 16 of a, 20 of b."
    assert "Queries: 16 of a. Fewer than 30 say little" in page({"measures": rows[:1]})
    assert explain_attributions.ranked([], ["a"]) == ""


def test_biases_stand_before_and_after_calibration() -> None:
    lines = explain_attributions.biases(RECORD["measures"], list(TASKS))
    assert [line["name"] for line in lines[::2]] == ["recency bias", "majority-label bias", "common-token bias"]
    assert [line["sub"] for line in lines[:2]] == ["before calibration", "after calibration"]
    assert lines[1]["cells"][0]["text"].lstrip("−") == value_of("recency", "after calibration").lstrip("-")


def test_what_is_no_change_of_the_answer_neither_helps_nor_hurts() -> None:
    record = explained(tasks=("sst2",), brief=True)
    for one in record["pictures"]["sst2"]["strip"]["demonstrations"]:
        one |= dict.fromkeys(explain_rows.EFFECTS) | {"meta_gradient": -0.5, "attention_mass": 0.25}
    strip = explain_tasks.explain_task(record, "sst2", "task-1")["strip"]
    assert {(box["kind"], box["tint"]) for box in strip["boxes"]} == {("none", 0)}
    assert strip["boxes"][0]["others"] == [("meta-gradient", "−0.500"), ("attention mass", "0.250")]
    assert undefined(page(record)) == []
