"""The page and the text of ``kshot synth``: what stands where, and what is never let through."""

from pathlib import Path
from typing import Any

import pytest
from reader import PHONE, Reader, check_sound, needs_chromium, undefined, width_on_a_phone
from rich.cells import cell_len

from kshot.show.synth import _ends, _means, answer, page, text
from kshot.study.figures import figure

EVIL = "<script>alert(1)</script>{{ 7 * 7 }}"
NAME = "linear-attention"


def record(**more: Any) -> dict[str, Any]:
    rows = [
        {**figure("sensitivity_cosine", ("one layer",), value=0.9951, low=0.994, high=0.996, null=0.0, n=900), "task": NAME,
         "model": "", "seed": 0},
        {**figure("loss", ("two layers",), value=None, reason="it diverged"), "task": NAME, "model": "", "seed": 0},
    ]  # fmt: skip
    verdicts = [
        {"task": NAME, "claim": "it is the same step", "source": "somebody 2023", "statistic": "sensitivity_cosine, one layer",
         "prediction": "at least 0.99", "observed": 0.9951, "low": 0.994, "high": 0.996, "must": True, "verdict": "holds",
         "reason": None},
        {"task": NAME, "claim": "two are better", "source": "somebody 2023", "statistic": "loss, two layers",
         "prediction": "at most 1", "observed": None, "low": None, "high": None, "must": True, "verdict": "undecided",
         "reason": "it diverged"},
        {"task": NAME, "claim": "five are better", "source": "somebody 2023", "statistic": "loss, five layers",
         "prediction": "at most 1", "observed": 1.5e-12, "low": None, "high": None, "must": False, "verdict": "fails",
         "reason": None},
    ]  # fmt: skip
    return {
        "version": "0.1.0",
        "argv": ["kshot", "synth", NAME],
        "settings": {"size": "smoke", "seed": [0, 1]},
        "environment": {"torch": "2.13.0"},
        "experiments": {NAME: {"about": "a layer against a step", "source": "somebody 2023"}},
        "measures": rows,
        "verdicts": verdicts,
        "pictures": [
            {
                "task": NAME,
                "seed": seed,
                "part": "one",
                "name": "loss over that of the best step, along training",
                "x": "steps of training",
                "y": "loss over that of the best step",
                "log_x": True,
                "log_y": False,
                "lines": {"one layer": [[1, 2.0], [10, 1.5], [100, 1.01 + seed]], EVIL: [[1, None], [10, 0.5]]},
            }
            for seed in (0, 1)
        ],
        "notes": [f"{NAME}, seed 0, two: it diverged"],
        **more,
    }


def seen(html: str) -> str:
    return " ".join("".join(Reader(html).said).split())


def test_the_page_is_sound_and_answers_on_its_first_screen() -> None:
    html = page(record())
    check_sound(html)
    assert undefined(html) == []
    first = html[: html.index('<nav aria-label="Contents"')]
    assert f"{NAME}: 1 of 3 claims hold. Not shown, though it has to hold at this size: two are better." in seen(html)
    assert answer(record())[:40] in first
    assert page(record()) == html, "the same for the same record"


def test_every_claim_has_its_bound_and_what_came() -> None:
    said = seen(page(record()))
    assert "sensitivity cosine, one layer: at least 0.99. Observed: 0.9951, 0.994 to 0.996" in said
    assert "Observed: it diverged" in said
    assert "five are better (has to hold at larger sizes)" in said
    assert "Observed: 1.5e−12" in said
    for mark in "✓○–":
        assert mark in said
    assert "✗" not in said, "what need not hold yet does not fail"
    failed = record(verdicts=[{**row, "must": True} for row in record()["verdicts"]])
    assert "✗ fails" in seen(page(failed))
    assert "✗ five are better" in " ".join(text(failed).split())


def test_lines_are_means_over_seeds_and_parts_add_their_points() -> None:
    def drawn(part: str, seed: int, *points: tuple[float, float]) -> dict[str, Any]:
        return {"part": part, "seed": seed, "lines": {"one": [list(point) for point in points]}}

    parts = [drawn("few", 0, (1.0, 0.2)), drawn("few", 1, (1.0, 0.4)), drawn("many", 0, (2.0, 0.8))]
    assert _means(parts) == {"one": [(1.0, pytest.approx(0.3)), (2.0, 0.8)]}
    seconds = [drawn("few", 0, (1.0, 4.0), (2.0, 3.0)), drawn("few", 1, (3.0, 6.0), (4.0, 5.0))]
    assert _means(seconds) == {"one": [(2.0, 5.0), (3.0, 4.0)]}, "each seed has seconds of its own"
    shorter = [drawn("few", 0, (1.0, 4.0), (2.0, 3.0)), drawn("few", 1, (1.0, 6.0))]
    assert _means(shorter) == {"one": [(1.0, 5.0), (2.0, 3.0)]}


def test_a_question_is_answered_and_breaks_nothing() -> None:
    *others, last = record()["verdicts"]
    asked = record(verdicts=[*others, {**last, "open": True}])
    said = seen(page(asked))
    assert "five are better (a question: nothing has to hold)" in said
    assert "✗ fails" in said, "an answer is an answer"
    assert "1 is a question: nothing has to hold." in answer(asked)
    assert "at most 1, a question" in " ".join(text(asked).split())
    assert "larger sizes" not in said


def test_a_peak_goes_out_of_a_picture_and_the_rest_stays() -> None:
    rest = [(float(k), 1.0 + k / 10) for k in range(10)]
    least = min(value for _, value in rest)
    low, top = _ends({"one": [*rest, (10.0, 90.0)]})
    assert top == pytest.approx(1.2 * 1.9)
    # A little is left below, of what is shown and not of the peak.
    assert low == pytest.approx(least - 0.05 * (top - least))
    assert _ends({"one": rest}) is None
    assert _ends({"one": [(0.0, 0.0), (1.0, 0.0)]}) is None


def test_every_figure_is_there_with_interval_and_null() -> None:
    html = page(record())
    cells = '<th scope="row">{}</th><td class="left">{}</td><td>{}</td>'
    assert cells.format("sensitivity cosine", "one layer", "0.9951") + "<td>0.994 to 0.996</td><td>0</td>" in html
    assert cells.format("loss", "two layers", "it diverged") in html
    said = seen(html)
    assert "Loss over that of the best step, along training" in said
    assert "one layer: 1 2, 10 1.5, 100 1.51" in html, "the picture in words, a mean over seeds"


def test_nothing_of_a_record_is_let_through() -> None:
    html = page(record(notes=[EVIL], experiments={NAME: {"about": EVIL, "source": EVIL}}))
    check_sound(html)
    assert "<script" not in html
    assert "49" not in "".join(Reader(html).said)


def test_the_text_fits_a_terminal() -> None:
    lines = text(record()).splitlines()
    assert max(cell_len(line) for line in lines) <= 100
    assert any("✓ it is the same step" in line and "0.9951, 0.994 to 0.996 (at least" in line for line in lines)
    assert answer({"experiments": {}}) == "The record holds no claim."


@needs_chromium
@pytest.mark.timeout(120)
def test_it_fits_a_phone(tmp_path: Path) -> None:
    assert width_on_a_phone(page(record()), tmp_path) <= PHONE
