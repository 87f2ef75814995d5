"""What page and terminal say of many ways of teaching: all of it, once, and nothing of what came to no result."""

import io
import json
import math
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from fake_learning import METHODS, SIZES, record
from rich.cells import cell_len
from rich.console import Console

from kshot.show import curves, tradeoff, words
from kshot.show.learning import largest, learning_view, matrix, series_of
from kshot.show.report import page, snippet
from kshot.show.result import Result
from kshot.show.svg import svg
from kshot.show.terminal import print_summary
from kshot.study.summary import differing, noisy

RESULTS, _ = record(n=60)
OURS: dict[str, Any] = RESULTS["kshot"]
ROWS = [row for row in OURS["summary"] if not noisy(row)]
APART = differing(OURS["summary"])
SERIES = series_of([row for row in ROWS if row["accuracy"] is not None], APART)


@pytest.fixture(scope="module")
def html() -> str:
    return page(RESULTS, lambda cell: [])


def test_the_first_screen_says_what_to_take_how_sure_that_is_what_it_costs_and_where_it_lies(html: str) -> None:
    first = html[: html.index('<nav aria-label="Contents"')]
    taken = OURS["recommended"]["sst2"]
    assert f"<b>Recommended: {taken['method']} with 64 examples</b>, {taken['why']}." in first
    row = next(r for r in ROWS if (r["method"], r["shots"]) == (taken["method"], 64))
    for text in (
        OURS["answer"]["sst2"],
        f"{words.decimals(row['accuracy'])} ({words.interval(row['test_low'], row['test_high'])})",
        words.duration(row["fit_seconds"]),
        words.size(row["artefact_bytes"]),
        "<pre>kshot predict kshot-results/sst2/artefacts/sst2 FILE</pre>",
    ):
        assert text in first
    assert first.count("<svg viewBox") == 1


def test_the_page_is_well_formed_and_reaches_for_nothing(html: str) -> None:
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    assert not re.search(r"<(script|img|iframe|b)>alert", html)
    assert "&lt;b&gt;" in html
    assert "nan" not in re.sub(r"<[^>]+>", " ", html.split("</style>")[1]).lower()
    assert html.count("<section") == html.count("</section>")
    assert html.count("<ul") == html.count("</ul>")


def test_every_part_of_the_comparison_is_there(html: str) -> None:
    for text in (
        "Accuracy, size by size",
        "Learning curves",
        "Accuracy against cost",
        "A few clean examples, or four times as many with wrong labels",
        "Taking 4 times as many examples with 25 % of the labels wrong",
        "How training went",
        "In force: budget 300steps, validation split.",
        "(chosen)",
        "What the learned rows read as",
        "<bdi>␣good</bdi>",
        "and 4 more rows",
        "What came to no result",
        "<b>prefix@256 (seeds 0, 1, 2)</b>: prefix of 8192 positions",
        "<b>fine-tune@4 (seed 0)</b>: diverged at step 40",
    ):
        assert text in html
    # nine curves, six costs, two of noise, four of losses, one overview
    assert html.count("<svg viewBox") >= 9 + 6 + 2 + 4 + 1


def test_a_page_of_prompting_alone_has_none_of_it() -> None:
    rows = [row for row in ROWS if row["method"] in ("zero-shot", "in-context")]
    taken = {"sst2": OURS["recommended"]["sst2"] | {"directory": None}}
    view = learning_view(OURS | {"summary": rows, "cells": [], "recommended": taken}, "sst2", "t")
    assert view == {"learned": False, "taken": None, "failed": []}


def test_a_record_from_before_still_has_a_page() -> None:
    old = json.loads(json.dumps(RESULTS))
    for key in ("paired", "recommended"):
        del old["kshot"][key]
    old["kshot"]["cells"] = [cell for cell in old["kshot"]["cells"] if not cell["failed"]]
    old["kshot"]["summary"] = [row for row in old["kshot"]["summary"] if row["accuracy"] is not None]
    new = ("fit_seconds", "query_ms", "training", "failed", "interpretation", "flops", "start_loss", "flattened")
    for row in (*old["kshot"]["cells"], *old["kshot"]["summary"]):
        for key in new:
            row.pop(key, None)
    text = page(old, lambda cell: [])
    assert "Recommended" not in text
    assert "What came to no result" not in text
    assert "Learning curves" in text


def test_the_matrix_marks_the_best_of_each_size_and_what_the_tests_say() -> None:
    found = matrix(ROWS, OURS["paired"], APART)
    assert found["shots"] == [0, *SIZES, 256]
    for column, shots in enumerate(SIZES, 1):
        values = {
            row["method"]: row["accuracy"] for row in ROWS if row["shots"] == shots and row["accuracy"] is not None
        }
        top = [line["name"] for line in found["lines"] if line["cells"][column]["best"]]
        assert {values[name] for name in top} == {max(values.values())}
    marks = {(p["name"], p["shots"]): p["verdict"] for p in OURS["paired"] if p["against"] == "in-context"}
    by_name = {line["name"]: line["cells"] for line in found["lines"]}
    for (name, shots), verdict in marks.items():
        assert by_name[name][found["shots"].index(shots)]["mark"] == {"better": "▲", "worse": "▼"}.get(verdict, "")
    assert (by_name["prefix"][-1]["text"], by_name["prefix"][-1]["failed"]) == (words.DASH, 3)


def drawn(figure: Any) -> str:
    return str(svg(figure, key="f", title="A title", description="What it shows"))


FIGURES = {
    "overview": lambda: curves.overview(SERIES, best="lora", taken="head"),
    "multiple": lambda: curves.multiple(SERIES, "lora"),
    "losses": lambda: curves.losses([c for c in OURS["cells"] if c["method"] == "lora" and c["training"]]),
    "cost": lambda: tradeoff.scatter(largest(ROWS, APART), "artefact_bytes", "bytes"),
}


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_the_same_every_time_and_follows_the_page(name: str) -> None:
    text = drawn(FIGURES[name]())
    assert text == drawn(FIGURES[name]())
    ElementTree.fromstring(text)
    assert len(text) < 40_000
    assert re.findall(r"#[0-9a-f]{6}\b", re.sub(r"var\(--\w+, #[0-9a-f]{6}\)", "", text)) == []


def test_the_overview_names_every_line_and_no_name_stands_on_another() -> None:
    (axes,) = FIGURES["overview"]().axes
    places = {text.get_text(): text.xy[1] for text in axes.texts}
    assert set(places) == set(SERIES) == {"zero-shot", *METHODS}
    low, high = axes.get_ylim()
    assert np.diff(sorted(places.values())).min() > 0.045 * (high - low)
    assert low <= min(places.values()) <= max(places.values()) <= high


def test_the_curves_are_those_of_the_record() -> None:
    (axes,) = curves.multiple(SERIES, "lora").axes
    heights = [[float(y) for y in line.get_ydata()] for line in axes.lines]
    assert [row["accuracy"] for row in SERIES["lora"]] in heights
    for row in SERIES["lora"]:
        assert [row["test_low"], row["test_high"]] in heights
        assert [row["seed_low"], row["seed_high"]] in heights


def test_names_are_moved_apart_and_stay_inside() -> None:
    moved = curves.apart({"a": 0.99, "b": 0.98, "c": 0.2}, 0.1, 0, 1)
    assert moved["a"] - moved["b"] == pytest.approx(0.1)
    assert moved["a"] <= 1
    assert moved["c"] == pytest.approx(0.2)


def test_the_front_is_what_nothing_beats_in_both() -> None:
    rng = np.random.default_rng(0)
    points = {str(i): (float(c), float(a)) for i, (c, a) in enumerate(rng.integers(0, 9, (40, 2)))}
    kept = tradeoff.front(points)
    for name, (cost, accuracy) in points.items():
        beaten = any(c <= cost and a >= accuracy and (c, a) != (cost, accuracy) for c, a in points.values())
        assert (points[name] in [points[k] for k in kept]) == (not beaten)


def test_a_cost_of_nothing_has_a_place_on_the_logarithmic_axis() -> None:
    rows = largest(ROWS, APART)
    (axes,) = tradeoff.scatter(rows, "trainable_parameters", "trained").axes
    assert "0" in [tick.get_text() for tick in axes.get_xticklabels()]
    marks = [line for line in axes.lines if line.get_marker() == "o" and len(line.get_xdata()) == 1]
    assert len(marks) == len(rows)
    assert all(math.isfinite(float(line.get_xdata()[0])) and float(line.get_xdata()[0]) > 0 for line in marks)
    # where nothing is learned, learning took no operation; of classifiers nobody knows
    assert set(tradeoff.costs_of(rows, "flops")) == {
        "zero-shot",
        "in-context",
        "soft-prompt",
        "prefix",
        "lora",
        "fine-tune",
    }


def test_text_of_failures_tokens_and_folders_is_escaped() -> None:
    evil = "<script>alert(1)</script>"
    results = json.loads(json.dumps(RESULTS).replace("diverged at step", evil).replace("soft-prompt", evil))
    results["kshot"]["recommended"]["sst2"]["directory"] = f"a b/{evil}"
    html = page(results, lambda cell: [])
    assert "<script" not in html
    assert "kshot predict &#39;a b/&lt;script" in html
    assert "<script" not in snippet(results)


@pytest.mark.parametrize("width", [160, 100, 80, 60])
def test_the_terminal_shows_methods_by_sizes(width: int) -> None:
    file = io.StringIO()
    print_summary(RESULTS, Console(file=file, width=width))
    lines = file.getvalue().splitlines()
    command = "kshot predict kshot-results/sst2/artefacts/sst2 FILE"
    assert sum(command in line for line in lines) == 1
    assert max(cell_len(line) for line in lines if command not in line) <= width
    for name, rows in SERIES.items():
        line = next(line for line in lines if re.match(rf"{name} +\*?[v^]?0\.", line))
        found = [value.lstrip("*v^") for value in line.split()[1:]]
        assert found[: len(rows)] == [words.decimals(row["accuracy"]) for row in rows]
    assert any("learning" in line and "stored" in line for line in lines) == (width >= 80)
    assert "failed" in next(line for line in lines if line.startswith("prefix"))


@pytest.mark.parametrize("name", ["films[/v2]", "other[draft]", "a:cat:b"])
def test_a_task_is_called_in_the_terminal_as_it_is(name: str) -> None:
    said = str(Result(results=json.loads(json.dumps(RESULTS).replace('"sst2"', json.dumps(name)))))
    assert any(line.startswith(f"{name} ") for line in said.splitlines())
    assert f"{name}: " in said


def test_a_plot_of_one_task_names_every_way(tmp_path: Path) -> None:
    result = Result(results=RESULTS)
    assert len(result.plot("sst2").axes[0].texts) == len(SERIES)
    assert "Recommended: " in str(result)
    assert (result.report(tmp_path)).stat().st_size > 100_000
