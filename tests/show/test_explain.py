"""The page and the text of ``kshot explain``: which row stands where, what is never let through, how it looks on a phone."""

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from fake_explain import RECORD, TASKS, explained, row, value_of, verdicts
from reader import PHONE, Reader, check_sound, needs_chromium, undefined, width_on_a_phone
from rich.cells import cell_len

from kshot.show import explain_plots, explain_rows, explain_tasks
from kshot.show.explain import answer, page, text

EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&{{ 7 * 7 }}"


@pytest.fixture(scope="module")
def html() -> str:
    return page(RECORD)


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


def test_nothing_undefined_is_written(html: str) -> None:
    assert undefined(html) == []
    assert undefined(html.replace("</h1>", " nan</h1>", 1)) == ["nan"]


def test_the_first_screen_answers(html: str) -> None:
    first = html[: html.index('<nav aria-label="Contents"')]
    assert "In part: of 4 claims, 2 shown, 1 not shown, 1 contradicted." in first
    assert "Made-up 135M" in first
    assert "float32 on cpu" in first


@pytest.mark.parametrize(
    ("kinds", "begins"),
    [
        (("shown", "shown"), "Yes, as far as it was tested: of 2 claims, 2 shown."),
        (("shown", "contradicted"), "In part: of 2 claims, 1 shown, 1 contradicted."),
        (("not shown", "contradicted"), "No: of 2 claims, 1 not shown, 1 contradicted."),
        (("not shown",), "Not shown: of 1 claim, 1 not shown."),
        ((), "The record holds no verdict: nothing was judged."),
        (("who knows",), "The record holds no verdict: nothing was judged."),
    ],
)
def test_the_answer_follows_the_verdicts(kinds: tuple[str, ...], begins: str) -> None:
    rows = [{"claim": f"c{i}", "observed": 0.5, "verdict": kind} for i, kind in enumerate(kinds)]
    assert answer(rows).startswith(begins)


def test_the_answer_names_claims_with_what_was_seen() -> None:
    said = answer(verdicts())
    assert "Not shown: both move attention outputs the same way (−0.010, −0.030 to 0.020)." in said
    many = answer([{"claim": f"c{i}.", "observed": None, "verdict": "shown"} for i in range(5)])
    assert many.endswith("Shown: c0; c1; c2; and 2 more.")


def test_what_one_set_of_demonstrations_says_is_said_to_be_of_one() -> None:
    row = {"claim": "c", "observed": 0.5, "verdict": "shown", "task": None}
    said = "one set of demonstrations"
    assert said in answer([{**row, "seeds": 1}])
    for several in ({**row, "seeds": 3}, {**row, "seeds": 1, "verdict": "not shown"}):
        assert said not in answer([several])
    brief = {"verdicts": [{**row, "seeds": 1}]}
    assert page(brief).count(said) == 2, "in the answer, and below the table"
    assert said not in page({"verdicts": [{**row, "seeds": 3}]})


def test_the_table_beside_the_published_one_holds_the_published_variants() -> None:
    lines = {line["name"]: line["cells"][0] for line in explain_rows.beside_published(RECORD["measures"], list(TASKS))}
    how = "appended label, normalised, published"
    expected = {
        "accuracy, zero-shot": value_of("accuracy", "zero-shot"),
        "accuracy, fine-tuned": value_of("accuracy", "fine-tuned, published"),
        "accuracy, in-context": value_of("accuracy", "in-context"),
        "Rec2FTP": value_of("rec2ftp", "published"),
        "SimAOU": value_of("sim_aou", f"{how}, trained, own"),
        "SimAM before fine-tuning": value_of("sim_am", f"{how}, before fine-tuning"),
        "SimAM after fine-tuning": value_of("sim_am", f"{how}, after fine-tuning"),
        "Kendall's τ": value_of("kendall", f"{how}, trained, own"),
    }
    assert {name: cell["text"] for name, cell in lines.items()} == expected
    assert lines["SimAOU"]["published"] == [("1.3B", "0.110"), ("2.7B", "0.195")]


def test_shares_published_in_per_cent_are_written_as_shares() -> None:
    lines = {line["name"]: line["cells"][0] for line in explain_rows.beside_published(RECORD["measures"], list(TASKS))}
    assert lines["Rec2FTP"]["published"] == [("1.3B", "0.918"), ("2.7B", "1.000")]
    in_per_cent = row("t", "accuracy", "in-context", 81.25, unit="%", published={"1.3B": 92.7})
    assert explain_rows.cell(in_per_cent)["text"] == "81.2 %"
    assert explain_rows.cell(in_per_cent)["published"] == [("1.3B", "92.7 %")]


def test_a_row_of_something_else_never_stands_in() -> None:
    rows = [
        row("t", "sim_aou", "appended label, normalised, published, untrained", 0.9),
        row("t", "sim_aou", "layer-causal, normalised", 0.8),
        row("t", "sim_am", "before fine-tuning", 0.7),
    ]
    assert [line["name"] for line in explain_rows.beside_published(rows, ["t"])] == ["SimAM before fine-tuning"]
    rows.append(row("t", "sim_aou", "last prompt token, raw", 0.1))
    lines = {line["name"]: line for line in explain_rows.beside_published(rows, ["t"])}
    assert lines["SimAOU"]["cells"][0]["text"] == "0.100"
    assert lines["SimAOU"]["sub"] == "last prompt token, raw"


def test_a_row_over_seeds_goes_before_single_seeds() -> None:
    rows = [
        {**row("t", "kendall", "", value), "seed": seed} for seed, value in ((2, 0.2), (1, 0.1), (None, 0.15), (0, 0.0))
    ]
    assert [r["value"] for r in explain_rows.overall(rows)] == [0.15]
    assert [r["value"] for r in explain_rows.overall(rows[:2])] == [0.1]


def test_each_correction_changes_what_it_says() -> None:
    lines = explain_rows.corrections(RECORD["measures"], list(TASKS))
    begin = next(i for i, line in enumerate(lines) if line["name"] == "SimAOU")
    found = {line["sub"]: line["cells"][0]["text"] for line in lines[begin : begin + 5]}
    assert found == {
        "as published": value_of("sim_aou", "appended label, normalised, published, trained, own"),
        "learning rate chosen on examples cut from train": value_of(
            "sim_aou", "appended label, normalised, corrected, trained, own"
        ),
        "raw outputs, not normalised": value_of("sim_aou", "appended label, raw, published, trained, own"),
        "at the last prompt token": value_of("sim_aou", "last prompt token, normalised, published, trained, own"),
        "all three": value_of("sim_aou", "last prompt token, raw, corrected, trained, own"),
    }
    assert any(line["name"].startswith("optimism") for line in lines)
    rates = next(line for line in lines if line["name"] == "learning rate")
    assert rates["cells"][0]["text"] == "0.0005"


def test_of_several_seeds_the_best_stands_beside_the_published_figures() -> None:
    best = [
        {**row("t", measure, ", ".join(filter(None, (variant, "best seed"))), 0.9), "seed": None}
        for measure, variant in (("sim_aou", "appended label, normalised, published"), ("optimism", ""))
    ]
    rows = [*best, row("t", "sim_aou", "appended label, normalised, published", 0.5), row("t", "optimism", "", 0.1)]
    rows.append(row("t", "accuracy", "fine-tuned, corrected", 0.4))
    rows.append(row("t", "accuracy", "fine-tuned, published", 0.6))
    (line,) = explain_rows.beside_published(rows, ["t"])[1:]
    assert (line["name"], line["cells"][0]["text"]) == ("SimAOU", "0.900")
    assert line["sub"].endswith("best seed")
    said = {line["name"]: line["cells"][0]["text"] for line in explain_rows.corrections(rows, ["t"]) if line["name"]}
    assert (said["optimism of the published rate"], said["optimism of the best seed"]) == ("0.100", "0.900")


def test_controls_stand_beside_what_was_measured_in_the_same_way() -> None:
    lines = explain_rows.controls(RECORD["measures"], list(TASKS))
    texts = {(line["name"], line["sub"]): line["cells"][0]["text"] for line in lines[:5]}
    how = "appended label, raw, published"
    assert texts["SimAOU", f"{how} rate"] == value_of("sim_aou", f"{how}, trained, own")
    assert texts["", "untrained model of the same shape"] == value_of("sim_aou", f"{how}, untrained, own")
    assert texts["", "demonstrations with shuffled labels"] == value_of("sim_aou", f"{how}, trained, shuffled labels")


def test_curves_are_small_multiples_with_their_rivals() -> None:
    task = explain_tasks.explain_task(RECORD, "sst2", "task-1")
    # of each of the four measures the one as published and the one nearest to the corrected
    assert [one["how"] for one in task["curves"]] == [
        "appended label, normalised, published rate",
        "last prompt token, raw, corrected rate",
    ] * 4
    assert len(task["more_curves"]) == 12
    assert [name for name, *_ in task["rivals"]] == [
        "before fine-tuning", "untrained model", "trained embeddings only", "demonstrations of another task",
        "demonstrations with shuffled labels",
    ]  # fmt: skip
    assert str(task["curves"][0]["figure"]).count("layer 11: ") == 1


def drawn_line(axes: Any, colour: str) -> list[float]:
    lines = [line for line in axes.get_lines() if line.get_color() == explain_plots.COLOURS[colour]]
    return [float(y) for y in lines[0].get_ydata()]


def test_a_curve_draws_each_layer_where_it_belongs_and_leaves_gaps() -> None:
    rows = [row("t", "sim_aou", "", value, layer=i, null=0.1) for i, value in enumerate((0.1, None, 0.3))]
    (axes,) = explain_plots.over_layers(rows[::-1], "SimAOU").axes
    y = drawn_line(axes, "c1")
    assert (y[0], y[2]) == (0.1, 0.3)
    assert math.isnan(y[1])
    assert drawn_line(axes, "muted") == [0.1, 0.1, 0.1]


def test_the_null_band_is_ruled_so_that_it_reads_without_colour() -> None:
    rows = [row("t", "x", "", 0.5, layer=i, null=0.2, null_low=0.1, null_high=0.3) for i in range(4)]
    plain = [{**one, "null_low": None, "null_high": None} for one in rows]
    count = [len(explain_plots.over_layers(own, "x").axes[0].get_lines()) for own in (rows, plain)]
    assert count[0] == count[1] + 1


def test_the_head_map_is_darkest_where_the_share_is_greatest() -> None:
    (axes,) = explain_plots.head_map([[0.0, 1.0], [None, 0.5]]).axes
    alphas = {tuple(patch.get_path().vertices[0].round(2)): patch.get_alpha() for patch in axes.patches}
    assert alphas == {
        (-0.44, -0.44): pytest.approx(0.04),
        (0.56, -0.44): pytest.approx(1),
        (0.56, 0.56): pytest.approx(0.52),
    }
    assert len(axes.get_lines()) == 1


@pytest.mark.parametrize(
    "place", ["task", "label", "text", "claim", "note", "model", "variant", "setting", "reason", "query"]
)
def test_text_from_data_is_escaped_everywhere(place: str) -> None:
    record = explained(tasks=("sst2",), brief=True)
    inner = json.dumps(EVIL)[1:-1]
    old = {"task": '"sst2"', "label": '"Positive"', "text": '"it never comes alive"', "variant": '"before calibration"'}
    if place in old:
        record = json.loads(json.dumps(record).replace(old[place], f'"{inner}"'))
    elif place == "claim":
        record["verdicts"][0] |= {"claim": EVIL, "prediction": EVIL, "observed": EVIL}
    elif place == "note":
        record["notes"].append(EVIL)
    elif place == "model":
        record["model"]["name"] = record["model"]["caption"] = EVIL
    elif place == "setting":
        record["settings"][EVIL] = {EVIL: EVIL}
    elif place == "reason":
        record["measures"].append(row("sst2", "recency", "", None, reason=EVIL))
    else:
        record["pictures"]["sst2"]["strip"] |= {"query": EVIL, "gold": EVIL}
    read = Reader(page(record))
    assert not {tag for tag, _ in read.tags} & {"script", "img"}
    everything = "".join([*read.said, *(str(v) for _, attributes in read.tags for v in attributes.values())])
    assert "alert(2)" in everything
    assert "{{ 7" in everything
    assert not text(record).count("\x1b")


def test_japanese_is_marked_so_that_the_browser_takes_its_characters(html: str) -> None:
    assert '<ol class="strip" lang="ja">' in html
    assert "バナナは黄色い" in html


def test_the_same_record_gives_the_same_bytes(html: str) -> None:
    record = explained(tasks=("colours-ja",), brief=True)
    assert page(record) == page(explained(tasks=("colours-ja",), brief=True))
    assert len(html) < 1_500_000


def test_the_record_is_not_changed() -> None:
    record = explained(tasks=("sst2",), brief=True)
    before = json.dumps(record)
    page(record)
    text(record)
    assert json.dumps(record) == before


@pytest.mark.parametrize(
    "key", ["model", "settings", "environment", "argv", "notes", "tasks", "measures", "pictures", "verdicts"]
)
@pytest.mark.parametrize("empty", ["null", "gone"])
def test_a_missing_piece_is_left_out(key: str, empty: str) -> None:
    record = explained(tasks=("sst2",), brief=True)
    if empty == "gone":
        del record[key]
    else:
        record[key] = None
    assert undefined(page(record)) == []
    assert text(record)


@pytest.mark.parametrize("picture", ["lambda_heads", "update_norm", "effective_rank", "strip", "orders"])
def test_a_missing_picture_is_left_out(picture: str) -> None:
    headings = {
        "lambda_heads": "Share λ of each head",
        "update_norm": "Norm of ΔW as demonstrations are added, a line",
        "effective_rank": "Effective rank of ΔW as demonstrations are added, mean",
        "strip": "What each demonstration did for one query",
        "orders": "The same demonstrations in other orders",
    }
    record = explained(tasks=("sst2",), brief=True)
    assert headings[picture] in page(record)
    record["pictures"]["sst2"][picture] = [] if picture in ("lambda_heads", "orders") else {}
    found = page(record)
    assert headings[picture] not in found
    assert undefined(found) == []


def test_an_empty_record_is_a_page_that_says_so() -> None:
    html = page({})
    assert "The record holds no verdict: nothing was judged." in html
    assert "The record holds none of the paper&#39;s measures." in html or "none of the paper's measures" in html
    assert undefined(html) == []
    assert text({}) == "The record holds no verdict: nothing was judged.\n"


def test_null_and_not_a_number_are_dashes_with_the_reason() -> None:
    record = explained(tasks=("sst2",), brief=True)
    for number, one in enumerate(record["measures"]):
        one |= {
            "value": None if number % 2 else math.nan,
            "low": math.nan,
            "high": None,
            "reason": "a reason of its own",
        }
        one |= {"null": math.inf, "published": {"1.3B": None, "2.7B": math.nan}}
    record["pictures"]["sst2"]["lambda_heads"][0][0] = None
    for picture in ("update_norm", "effective_rank"):
        record["pictures"]["sst2"][picture]["layers"][0][-1] = None
    record["pictures"]["sst2"]["orders"][0] |= {"accuracy": None, "gold_logprob": math.nan}
    html = page(record)
    assert undefined(html) == []
    assert 'title="a reason of its own">—' in html
    assert not re.search(r"\bnan\b|\binf\b|None", text(record))


def test_a_figure_without_interval_or_null_has_none() -> None:
    cell = explain_rows.cell(row("t", "kendall", "", 0.5, low=0.4))
    assert (cell["text"], cell["interval"], cell["narrow"], cell["null"], cell["published"]) == (
        "0.500",
        "",
        "",
        "",
        [],
    )


def test_the_terminal_has_the_answer_and_the_table_in_a_hundred_columns() -> None:
    said = text(RECORD)
    assert said.startswith("In part: of 4 claims")
    assert max(map(cell_len, said.splitlines())) <= 100
    line = next(line for line in said.splitlines() if line.startswith("SimAOU"))
    assert line.split()[1] == value_of("sim_aou", "appended label, normalised, published, trained, own")
    assert "  GPT 2.7B" in said
    assert said.endswith("\n\n" + "".join(f"Note: {note}\n" for note in RECORD["notes"]))
    assert "…" not in said.replace("…0", "").replace("…−", "")


def test_many_tasks_with_wide_names_still_fit_the_terminal() -> None:
    record = explained(tasks=("sst2",), brief=True)
    names = ["日本語の色の名前", *(f"a-task-with-a-long-name-{i}" for i in range(8))]
    record["measures"] = [
        {**one, "task": name, "low": -0.123, "high": -0.045} for name in names for one in record["measures"]
    ]
    lines = text(record).splitlines()
    assert max(map(cell_len, lines)) <= 100
    assert sum(line.startswith("SimAOU") for line in lines) == 2
    assert any("−0.12…−0.04" in line or "−0.12…−0.05" in line for line in lines)


@needs_chromium
def test_on_a_phone_the_page_does_not_scroll_sideways(tmp_path: Path) -> None:
    told = json.dumps(RECORD).replace("ag-news", "a-task-with-a-rather-long-name-of-its-own-and-more")
    html = page(json.loads(told.replace("it never comes alive", "never" * 40)))
    assert width_on_a_phone(html, tmp_path) <= PHONE


def test_both_passes_of_the_relaxed_form_stand_in_one_panel() -> None:
    own, other = explain_tasks.layered([r for r in RECORD["measures"] if r["task"] == "sst2"], "relaxed_r2").values()
    panels = [str(figure) for figure in explain_tasks.explain_task(RECORD, "sst2", "task-1")["inner"]]
    (panel,) = [panel for panel in panels if "relaxed form, R² by layer" in panel]
    for one in (own[0], other[0]):
        assert f"layer 0: {explain_rows.number(one, one['value'])}" in panel
    assert "zero-shot W_ZSL: layer 0" in panel
    # A record of one pass alone names it.
    assert explain_tasks._by_pass({"zero-shot W_ZSL": other}) == [("zero-shot W_ZSL", other, {})]
    assert explain_tasks._by_pass({"": own}) == [("", own, {})]


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [(-0.004, 0.11, "0.00–0.11"), (-0.04, 0.1, "−0.04…0.10"), (None, 0.1, ""), (0.2, 0.3, "0.20–0.30")],
)
def test_bounds_have_no_dash_beside_a_minus(low: float | None, high: float, said: str) -> None:
    assert explain_rows.cell(row("t", "x", "", 0.1, low=low, high=high))["narrow"] == said


def test_the_name_of_a_null_does_not_keep_a_row_from_its_corrections() -> None:
    rows = [
        row("t", "sim_aou", f"appended label, {form}, published, lengths kept", 0.1) for form in ("normalised", "raw")
    ]
    subs = [line["sub"] for line in explain_rows.corrections(rows, ["t"])]
    assert subs == ["as published", "raw outputs, not normalised"]
