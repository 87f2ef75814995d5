"""The table at the end and the bars on the way."""

import io
from pathlib import Path
from typing import Any

import pytest
from fake_record import record
from rich.cells import cell_len
from rich.console import Console

from kshot.show.terminal import print_summary, progress

RESULTS, _ = record(n=40)


def printed(width: int, results: dict[str, Any] = RESULTS, **options: Any) -> str:
    file = io.StringIO()
    print_summary(results, Console(file=file, width=width), **options)
    return file.getvalue()


@pytest.mark.parametrize("width", [160, 100, 80, 60, 40])
def test_the_table_fits_and_nothing_is_cut(width: int) -> None:
    text = printed(width)
    assert max(map(cell_len, text.splitlines())) <= width
    assert "…" not in text
    assert "\x1b" not in text
    lines = [line.split() for line in text.splitlines()]
    for row in RESULTS["kshot"]["summary"]:
        assert any(line[:2] == [f"{row['method']}@{row['shots']}", f"{row['accuracy']:.3f}"] for line in lines)


def test_at_eighty_columns_every_column_is_there() -> None:
    header = next(line for line in printed(80).splitlines() if line.startswith("task"))
    assert header.split() == ["task", "acc.", "test", "seeds", "orders", "log-loss", "ECE", "s/query"]


def test_the_legend_explains_the_columns_that_are_there() -> None:
    for width in (160, 60, 40, 30):
        header, legend = printed(width).split("task ", 1)[1].split("\n", 1)
        assert ("seeds: 95 %" in " ".join(legend.split())) == ("seeds" in header.split())
        assert ("orders: least" in " ".join(legend.split())) == ("orders" in header.split())


def test_rows_of_a_task_stand_together_in_whatever_order_they_were_answered() -> None:
    rows = RESULTS["kshot"]["summary"]
    turns = [row | {"task": task} for row in rows[:3] for task in ("plurals", "plurals to pairs")]
    lines = printed(100, {"kshot": RESULTS["kshot"] | {"summary": turns, "answer": {}}}).splitlines()
    assert [line.strip() for line in lines if line.strip() in ("plurals", "plurals to pairs")] == [
        "plurals",
        "plurals to pairs",
    ]


def test_the_answers_come_first_and_the_report_last() -> None:
    text = printed(400, report=Path("/a/long/path/report.html"))
    assert text.startswith(f"plurals: {RESULTS['kshot']['answer']['plurals']}")
    assert text.endswith("Report: /a/long/path/report.html\n")
    assert "Note: domain_context_calibration does not apply" in text


def test_what_is_undefined_is_a_dash_never_a_nought() -> None:
    line = next(line for line in printed(100).splitlines() if "zero-shot@0" in line)
    assert line.split()[3:5] == ["—", "—"]


def test_text_from_data_is_not_taken_for_markup() -> None:
    ours = RESULTS["kshot"] | {"answer": {"[bold]x[/]": "[red]no[/red] :smile:"}, "notes": ["[/]"]}
    text = printed(200, {"kshot": ours})
    assert "[bold]x[/]: [red]no[/red] :smile:" in text
    assert "Note: [/]" in text


def test_a_record_without_rows_is_an_empty_table() -> None:
    assert "task" in printed(80, {"kshot": RESULTS["kshot"] | {"summary": [], "answer": {}}})


def test_a_bar_shows_what_is_done_and_how_far_it_is_on_a_terminal() -> None:
    file = io.StringIO()
    with progress(console=Console(file=file, force_terminal=True, width=100)) as on_progress:
        on_progress(0, 7, "scoring [bold]plurals[/]")
        on_progress(3, 7, "scoring [bold]plurals[/]")
        on_progress(1, None, "loading")
        on_progress(0, 9, "scoring colours")
        on_progress(9, 9, "scoring colours")
    text = file.getvalue()
    assert "scoring colours" in text
    assert "9/9" in text


@pytest.mark.parametrize(("show", "terminal"), [(False, True), (True, False), (False, False)])
def test_nothing_is_shown_where_nobody_looks(show: bool, terminal: bool) -> None:
    file = io.StringIO()
    with progress(show=show, console=Console(file=file, force_terminal=terminal)) as on_progress:
        on_progress(1, 2, "scoring")
    assert file.getvalue() == ""


def test_bars_stand_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    with progress() as on_progress:
        on_progress(1, 2, "scoring")
    assert capsys.readouterr().out == ""
