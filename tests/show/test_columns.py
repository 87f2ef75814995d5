"""Every figure stands under its own heading, on the page and in the terminal: no two columns can change places unseen."""

import io
from collections.abc import Callable
from itertools import count
from typing import Any

import fake_learning
import fake_record
import pytest
from reader import tables
from rich.console import Console

from kshot.show import words
from kshot.show.report import page
from kshot.show.sections import shown_cell
from kshot.show.terminal import print_summary
from kshot.study.summary import arm, differing

Row = dict[str, Any]
Tables = dict[str, list[dict[str, str]]]
INTERVALS = ("test", "seed", "order")
PARTS = ("accuracy", "macro_f1", "log_loss", "ece", *(f"{name}_{end}" for name in INTERVALS for end in ("low", "high")))


def told_apart(results: Row) -> Row:
    """The record, in which no two figures of a row or of a comparison are written alike."""
    ours, number = results["kshot"], count(1)
    for row in ours["summary"]:
        if row["accuracy"] is not None:
            row |= {name: (10 * place + next(number) % 10 + 5) / 105 for place, name in enumerate(PARTS)}
    for place, row in enumerate(ours["comparisons"]):
        row |= {
            "only_a": 11 + place,
            "only_b": 41 + place,
            "n": 81 + place,
            "difference": -0.3 + place / 100,
            "p": 0.021 + place / 500,
        }
    for place, row in enumerate(ours.get("paired") or ()):
        row |= {"better": 11 + place, "worse": 111 + place, "n": 211 + place, "seeds": 2, "p": 0.01, "p_holm": 0.04}
    return results


PROMPTED = told_apart(fake_record.record(n=12)[0])
LEARNED = told_apart(fake_learning.record(n=20)[0])


@pytest.fixture(scope="module")
def prompted() -> Tables:
    return tables(page(PROMPTED, lambda cell: []))


@pytest.fixture(scope="module")
def learned() -> Tables:
    return tables(page(LEARNED, lambda cell: []))


def rows_of(results: Row, task: str) -> list[Row]:
    return [row for row in results["kshot"]["summary"] if row["task"] == task]


def test_accuracy_and_its_intervals(prompted: Tables) -> None:
    for task in fake_record.TASKS:
        assert prompted[f"Accuracy of {task}"] == [
            {
                "method": row["method"],
                "shots": str(row["shots"]),
                "accuracy": words.decimals(row["accuracy"]),
                "over test examples": words.interval(row["test_low"], row["test_high"]),
                "over seeds": words.interval(row["seed_low"], row["seed_high"]),
                "least and greatest over orders": words.interval(row["order_low"], row["order_high"]),
                "macro-F1": words.decimals(row["macro_f1"]),
                "log-loss": words.decimals(row["log_loss"]),
                "calibration error": words.decimals(row["ece"]),
                "queries": words.count(row["n"]),
                "seeds": str(len(row["seeds"])),
            }
            for row in rows_of(PROMPTED, task)
        ]


def test_pairs_of_methods(prompted: Tables) -> None:
    for task in fake_record.TASKS:
        found = prompted[f"Paired comparisons of {task}"]
        own = [row for row in PROMPTED["kshot"]["comparisons"] if row["task"] == task]
        assert len(found) == len(own)
        for line, row in zip(found, own, strict=True):
            assert {
                "method": row["a"],
                "against": row["b"],
                "only the first right": str(row["only_a"]),
                "only the second right": str(row["only_b"]),
                "queries": str(row["n"]),
                "difference in accuracy": words.decimals(row["difference"]),
                "p-value, corrected": words.p_value(row["p"]),
            }.items() <= line.items()


def test_orders_of_one_set(prompted: Tables) -> None:
    for task in fake_record.TASKS:
        cells = [cell for cell in PROMPTED["kshot"]["cells"] if cell["task"] == task]
        for line in prompted[f"Orders of {task}"]:
            own = [c for c in cells if arm(c) == line["method"] and str(c["seed"]) == line["seed"]]
            known = [cell["accuracy"] for cell in own]
            (picked,) = [cell["accuracy"] for cell in own if cell["order"] == 0]
            assert line["orders"] == str(len(own))
            assert [line[name] for name in ("as picked", "least", "greatest")] == [
                words.decimals(value) for value in (picked, min(known), max(known))
            ]


def test_costs_of_answering(prompted: Tables) -> None:
    for task in fake_record.TASKS:
        cells = [cell for cell in PROMPTED["kshot"]["cells"] if cell["task"] == task]
        pairs = [(row, shown_cell(row, cells) or {}) for row in rows_of(PROMPTED, task)]
        assert prompted[f"Cost of {task}"] == [
            {
                "method": arm(row),
                "all queries": words.duration(row["seconds"]),
                "per query": words.duration(1 / row["queries_per_second"]),
                "queries/s": words.decimals(row["queries_per_second"], int(row["queries_per_second"] < 20)),
                "tokens": words.count(row["tokens"]),
                "peak memory": words.size(cell["peak_rss_bytes"]),
                "trained": words.count(cell["trainable_parameters"]),
                "to store": words.size(cell["artefact_bytes"]),
            }
            for row, cell in pairs
        ]


def test_costs_of_learning(learned: Tables) -> None:
    apart = differing(rows_of(LEARNED, "sst2"))
    found = {line["method"]: line for line in learned["Cost of sst2"]}
    for row in rows_of(LEARNED, "sst2"):
        if row["accuracy"] is not None and row["method"] == "lora":
            line = found[arm(row, apart)]
            assert line["learning"] == words.duration(row["fit_seconds"])
            assert line["one query alone"] == words.duration(row["query_ms"] / 1000)
            assert line["tokens"] == words.count(row["tokens"])
            assert line["peak memory"] == words.size(row["peak_rss_bytes"])
            assert line["trained"] == words.count(row["trainable_parameters"])
            assert line["training FLOPs"] == words.powers(row["flops"])
            assert line["to store"] == words.size(row["artefact_bytes"])
            assert len(set(line.values())) == len(line)


def test_paired_tests(learned: Tables) -> None:
    own = [row for row in LEARNED["kshot"]["paired"] if row["against"] != "clean"]
    found = learned["Paired tests of sst2"]
    assert len(found) == len(own)
    for line, row in zip(found, own, strict=True):
        assert {
            "method": row["a"],
            "against": row["b"],
            "queries better": str(row["better"]),
            "queries worse": str(row["worse"]),
            "queries": str(row["n"]),
            "seeds": "2",
            "p": "0.010",
            "p, corrected": "0.040",
            "verdict": row["verdict"],
        }.items() <= line.items()


def printed(results: Row) -> list[str]:
    file = io.StringIO()
    print_summary(results, Console(file=file, width=160))
    return file.getvalue().splitlines()


def test_the_table_of_the_terminal() -> None:
    lines = printed(PROMPTED)
    start = next(place for place, line in enumerate(lines) if line.startswith("task "))
    heads = lines[start].split()
    found = [line.split() for line in lines[start + 1 :] if "@" in line][: len(PROMPTED["kshot"]["summary"])]
    values: dict[str, Callable[[Row], str]] = {
        "task": arm,
        "acc.": lambda row: words.decimals(row["accuracy"]),
        "test": lambda row: words.interval(row["test_low"], row["test_high"]),
        "seeds": lambda row: words.interval(row["seed_low"], row["seed_high"]),
        "orders": lambda row: words.interval(row["order_low"], row["order_high"]),
        "log-loss": lambda row: words.decimals(row["log_loss"]),
        "ECE": lambda row: words.decimals(row["ece"]),
        "s/query": lambda row: words.decimals(1 / row["queries_per_second"]),
    }
    assert sorted(heads) == sorted(values)
    rows = [dict(zip(heads, line, strict=True)) for line in found]
    assert rows == [{name: value(row) for name, value in values.items()} for row in PROMPTED["kshot"]["summary"]]


def test_the_costs_of_the_terminal() -> None:
    lines = [" ".join(line.split()) for line in printed(LEARNED)]
    head = next(line for line in lines if line.startswith("sst2 none "))
    (row,) = [
        r for r in rows_of(LEARNED, "sst2") if (r["method"], r["shots"]) == ("lora", 64) and "noise" not in r["params"]
    ]
    values = {
        "learning": words.duration(row["fit_seconds"]),
        "ms/query": words.decimals(row["query_ms"], 1),
        "stored": words.size(row["artefact_bytes"]),
    }
    last = head.split()[-3:]
    assert sorted(last) == sorted(values)
    line = next(line for line in lines if line.startswith("lora ") and "@" not in line)
    assert line.endswith(" ".join(values[name] for name in last))
