"""The page: what it holds, what it never lets through, and how it looks on a phone."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from fake_record import record, write
from reader import PHONE, Reader, check_sound, needs_chromium, width_on_a_phone

from kshot.errors import DataError, OutputError
from kshot.show import words
from kshot.show.report import page, snippet, write_report


def evil(place: str) -> str:
    return f"<script>alert(1)</script><img src=x onerror=alert('{place}')>\"'&"


def rendered(results: dict[str, Any], samples: list[dict[str, Any]]) -> str:
    return page(results, lambda cell: [line for line in samples if line["cell"] == cell["id"]])


@pytest.fixture(scope="module")
def html() -> str:
    return rendered(*record(n=40))


def test_the_page_is_sound_and_reaches_for_nothing_outside(html: str) -> None:
    check_sound(html)
    for fault in (
        "<script></script>",
        '<a href="http://elsewhere">x</a>',
        "<p>",
        '<p id="settings"></p><p id="settings"></p>',
    ):
        with pytest.raises(AssertionError):
            check_sound(html.replace("</body>", f"{fault}</body>"))


def test_every_row_of_the_summary_is_there(html: str) -> None:
    results, _ = record(n=40)
    for row in results["kshot"]["summary"]:
        line = f'<th scope="row">{row["method"]}</th><td>{row["shots"]}</td><td>{words.decimals(row["accuracy"])}</td>'
        assert line in html
        assert f"<td>{words.interval(row['test_low'], row['test_high'])}</td>" in html
    for sentence in results["kshot"]["answer"].values():
        assert sentence in html


def test_the_first_screen_says_what_was_asked(html: str) -> None:
    first = html[: html.index('<nav aria-label="Contents"')]
    for text in (
        "SmolLM2-135M-Instruct, dequantised from Q4_1",
        "zero-shot, in-context",
        "0, 4, 16",
        "0, 1, 2",
        "float32 on cpu",
    ):
        assert text in first
    assert first.count("<svg viewBox") == 3


def test_what_is_undefined_is_a_dash_with_its_reason() -> None:
    results, samples = record(n=20)
    for row in results["kshot"]["summary"]:
        row["undefined"] = {"log_loss": "a reason of the record's own"}
        for key in ("accuracy", "test_low", "test_high", "log_loss", "ece", "queries_per_second", "seconds"):
            row[key] = None
    html = rendered(results, samples)
    assert html.count('title="one seed only">—') == 3
    assert html.count('title="a reason of the record&#39;s own">—') == 9
    assert "— macro-F1: open answers have no fixed set of labels" in html
    assert "— domain-context calibration: does not apply, see the notes" in html
    assert "nan" not in " ".join(Reader(html).said).lower()


def test_text_from_data_is_escaped_everywhere() -> None:
    results, samples = record(n=12)
    old = {
        "task": "bbc-headlines",
        "label": "business",
        "method": "in-context",
        "input": "Bank of England holds rates as inflation slows",
    }
    text = json.dumps([results, samples])
    for place, known in old.items():
        text = text.replace(json.dumps(known)[1:-1], json.dumps(evil(place))[1:-1])
    results, samples = json.loads(text)
    ours = results["kshot"]
    ours["answer"]["plurals"] = evil("answer")
    ours["notes"].append(evil("note"))
    ours["model"]["name"] = ours["model"]["caption"] = evil("model")
    ours["settings"][evil("option")] = {evil("name"): evil("value")}
    samples = [line | {"greedy": evil("greedy")} for line in samples]
    html = rendered(results, samples)
    assert not {tag for tag, _ in Reader(html).tags} & {"script", "img"}
    said = "".join(Reader(html).said)
    for place in (*old, "answer", "note", "model", "option", "greedy"):
        assert f"alert('{place}')" in said, place
    assert not {tag for tag, _ in Reader(snippet(results)).tags} & {"script", "img"}


def test_characters_that_no_page_can_hold_are_replaced() -> None:
    results, samples = record(n=12)
    text = json.dumps([results, samples]).replace("bbc-headlines", "a\\u0000b\\ud800c").replace("business", "\\u0007x")
    html = rendered(*json.loads(text))
    assert "a\ufffdb?c" in html
    html.encode("utf-8")


def test_mathematics_in_labels_stays_text() -> None:
    results, samples = record(n=12)
    results, samples = json.loads(json.dumps([results, samples]).replace("business", "$\\\\frac{1}$"))
    assert ">$\\frac{1}$</text>" in rendered(results, samples)


def test_the_same_record_gives_the_same_bytes(tmp_path: Path) -> None:
    path = write_report(write(tmp_path, n=30))
    first = path.read_bytes()
    assert write_report(tmp_path).read_bytes() == first
    assert path == tmp_path / "report.html"
    assert sorted(found.name for found in tmp_path.iterdir()) == ["report.html", "results.json", "samples.jsonl"]
    assert len(first) < 1_000_000


def test_samples_come_from_the_bytes_that_the_cell_names(tmp_path: Path) -> None:
    html = write_report(write(tmp_path, n=60)).read_text(encoding="utf-8")
    assert html == rendered(*record_with_bytes(tmp_path))
    assert html.count("<li lang=") > 0


def record_with_bytes(directory: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    results = json.loads((directory / "results.json").read_text(encoding="utf-8"))
    lines = (directory / "samples.jsonl").read_text(encoding="utf-8").splitlines()
    return results, [json.loads(line) for line in lines]


def test_examples_are_few_and_say_what_was_expected() -> None:
    results, samples = record(n=200)
    html = rendered(results, samples)
    for kind, most in (("wrong", 12), ("right", 8)):
        lists = re.findall(rf'<ul class="examples {kind}">(.*?)</ul>', html, re.S)
        assert [block.count("<li") <= most for block in lists] == [True] * 3
        assert any(block.count("<li") == most for block in lists)
    assert '<span class="gold">' in html


def test_candidates_stand_from_likely_to_impossible() -> None:
    results, samples = record(n=12)
    bids = {"sport": -2.0, "tech": None, "business": -0.25, "politics": -1.0}
    html = rendered(results, [line | {"logprobs": bids, "gold": "tech", "right": False} for line in samples])
    block = re.search(r'<p class="bids">(.*?)</p>', html)
    assert block
    said = re.sub(r"<[^>]+>", "", block[1]).split()
    assert said == ["business", "−0.25", "politics", "−1.00", "sport", "−2.00", "tech", "—"]


def test_samples_that_were_not_kept_are_said_to_be_missing(tmp_path: Path) -> None:
    write(tmp_path, n=12)
    (tmp_path / "samples.jsonl").unlink()
    assert "Samples were not kept for this run." in write_report(tmp_path).read_text(encoding="utf-8")


def test_a_run_with_nothing_finished_still_has_a_page() -> None:
    results, _ = record(n=12)
    results["kshot"] |= {"cells": [], "summary": [], "comparisons": [], "answer": {}}
    html = rendered(results, [])
    assert "The record gives no answer for plurals." in html
    Reader(html)


def test_many_labels_become_a_list_of_mistakes() -> None:
    results, samples = record(n=12)
    size = 30
    for cell in results["kshot"]["cells"]:
        counts = [[5 if i == j else int(i == 3 and j == 4) * 7 for j in range(size)] for i in range(size)]
        cell["confusion"] = {"labels": [f"L{i}" for i in range(size)], "counts": counts}
    html = rendered(results, samples)
    assert '<th scope="row">L3</th><td class="left">L4</td><td>7</td>' in html
    assert "30 labels are too many" in html


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "there is no results.json; give the folder that `kshot run --output-path` wrote"),
        ("{", "results.json is not readable as JSON"),
        ("[]", "results.json has no key 'kshot'; give the folder"),
        ('{"kshot": "x"}', "kshot is no mapping in results.json; give the folder"),
        ('{"kshot": {"cells": []}}', "there is no kshot.tasks in results.json"),
        ('{"kshot": {"tasks": [], "cells": [], "summary": []}}', "kshot.tasks is no mapping"),
        ('{"kshot": {"tasks": {}, "cells": [], "summary": [1]}}', "a row of kshot.summary is no mapping"),
        ('{"kshot": {"tasks": {}, "cells": [{"id": "a"}], "summary": []}}', "kshot.cells lacks 'task'"),
        ('{"kshot": {"texts": {}, "measures": [], "cells": []}}', "there is no kshot.model"),
        ('{"kshot": {"measures": {}}}', "kshot.measures is no list"),
        ('{"kshot": {"measures": [], "settings": "x"}}', "kshot.settings is no mapping"),
        ('{"kshot": {"corpus": {"name": "a", "tokens": 1}, "plan": {}}}', "kshot.plan lacks 'objective'"),
        ('{"kshot": {"experiments": {}, "measures": []}}', "there is no kshot.verdicts"),
        ('{"kshot": {"hypotheses": {}}}', "there is no kshot.tasks"),
    ],
)
def test_a_folder_without_records_is_refused_in_one_line(tmp_path: Path, content: str | None, said: str) -> None:
    if content is not None:
        (tmp_path / "results.json").write_text(content)
    with pytest.raises(DataError) as caught:
        write_report(tmp_path)
    assert said in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_samples_that_are_not_where_the_cell_says_are_refused(tmp_path: Path) -> None:
    results = json.loads((write(tmp_path, n=12) / "results.json").read_text(encoding="utf-8"))
    for cell in results["kshot"]["cells"]:
        cell["samples"] = [cell["samples"][0] + 1, cell["samples"][1]]
    (tmp_path / "results.json").write_text(json.dumps(results), encoding="utf-8")
    with pytest.raises(
        DataError, match=r"bytes \d+ to \d+ of .* are not the samples of cell plurals-in-context-16-0-0"
    ):
        write_report(tmp_path)


def test_samples_that_are_none_are_refused(tmp_path: Path) -> None:
    write(tmp_path, n=12)
    whole = (tmp_path / "samples.jsonl").read_text(encoding="utf-8")
    (tmp_path / "samples.jsonl").write_text(whole.replace('"gold"', '"good"'), encoding="utf-8")
    with pytest.raises(DataError, match=r"are not the samples of cell .*a line without gold, pred and right"):
        write_report(tmp_path)


def test_a_page_that_cannot_be_written_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    (write(tmp_path, n=12) / "report.html").mkdir()
    with pytest.raises(OutputError, match=r"cannot write '.*report\.html': .*; give a folder that can be written"):
        write_report(tmp_path)
    assert not list(tmp_path.glob("*.part")) + list(tmp_path.glob(".*.part"))


@needs_chromium
def test_on_a_phone_the_page_does_not_scroll_sideways(tmp_path: Path) -> None:
    results, samples = record(n=30)
    text = json.dumps([results, samples]).replace("in-context", "in-context-with-a-rather-long-name-of-its-own")
    html = rendered(*json.loads(text.replace("Phone makers", "Phone" * 40)))
    assert width_on_a_phone(html, tmp_path) <= PHONE
