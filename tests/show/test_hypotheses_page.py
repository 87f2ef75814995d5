"""The page and the text of ``kshot hypotheses``: what stands where, what is never let through, how it looks on a phone."""

import json
import math
from pathlib import Path

import pytest
from fake_hypotheses import CHAINS, TASKS, hypothesised, row
from reader import PHONE, Reader, check_sound, needs_chromium, undefined, width_on_a_phone
from rich.cells import cell_len

from kshot.show.hypotheses import answer, page, text
from kshot.show.hypotheses_tasks import _SAID, chains, series, task_view
from kshot.study.hypotheses.core import CORE
from kshot.transform.responses import FACTOR

EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&{{ 7 * 7 }}"
RECORD = hypothesised()


@pytest.fixture(scope="module")
def html() -> str:
    return page(RECORD)


def seen(html: str) -> str:
    """All that a reader sees, on one line."""
    return " ".join("".join(Reader(html).said).split())


def test_the_page_is_sound_and_says_nothing_undefined(html: str) -> None:
    check_sound(html)
    assert undefined(html) == []
    assert undefined(html.replace("</h1>", " None</h1>", 1)) == ["None"]


def test_the_first_screen_answers(html: str) -> None:
    first = html[: html.index('<nav aria-label="Contents"')]
    assert "films: task selection is supported, meta-learning is rejected, composition is undecided." in seen(html)
    for what in ("Made-up 135M", "bfloat16 on cpu", "films", "色", "8"):
        assert what in first
    assert "<dt>queries a seed</dt><dd>32</dd>" in first
    assert answer(RECORD) in seen(first + html[html.index('<nav aria-label="Contents"') :])


def test_the_reason_stands_after_what_could_not_be_decided_at_all() -> None:
    record = hypothesised(tasks=("films",))
    for line in record["verdicts"]:
        if line["claim"] is None:
            line |= {"verdict": "undecided", "reason": "too small to tell"}
    assert answer(record).endswith("undecided (too small to tell).")
    record["verdicts"][0]["reason"] = "another reason"
    assert "(" not in answer(record)
    assert answer({}) == "The record holds no verdict: nothing was judged."


def test_a_second_protocol_says_what_it_finds_otherwise() -> None:
    record = hypothesised(tasks=("films",))
    own = [line for line in record["verdicts"] if (line["task"], line["protocol"]) == ("films", "redrawn")]
    other = [{**line, "protocol": "fixed"} for line in own]
    both, one = {**record, "verdicts": [*own, *other]}, answer({**record, "verdicts": own})
    assert answer(both) == one, "the same is said once"
    for line in other:
        if line["claim"] is None and line["hypothesis"] == "H3":
            line["verdict"] = "rejected"
    assert answer(both) == f"{one} With the same demonstrations for all queries, composition is rejected."


def test_every_claim_is_there_with_its_mark_and_what_came(html: str) -> None:
    said = seen(html)
    assert "films. Predicted: what H2 predicts. Observed: −0.291 (−0.381 to −0.201)" in said
    assert "undefined in all 2 seeds" in said
    assert "(as published, with its known faults: it counts for nothing)" in said
    for mark in "✓○✗":
        assert f'<span aria-hidden="true">{mark}</span>' in html


def test_a_table_puts_every_row_where_it_belongs() -> None:
    view = task_view(RECORD, "films", "task-1")
    (redrawn,) = [
        table
        for table in view["tables"]
        if "drawn anew for every query" in table["heading"][:70] and table["columns"][0] == "in context"
    ]
    assert redrawn["columns"] == ["in context", "always one label", "regression on tokens"]
    known = {one["variant"]: one for one in RECORD["measures"] if one["task"] == "films" and one["seed"] is None}
    for line in redrawn["lines"]:
        variants = (f"{line['name']}, redrawn{what}" for what in ("", ", always one label", ", regression"))
        assert [cell["text"] for cell in line["cells"]] == [f"{known[variant]['value']:.3f}" for variant in variants]
    assert [line["name"] for line in redrawn["lines"]] == [
        "original",
        "response-altered",
        "prompt-altered",
        "memory-random",
    ]
    (maps,) = [table for table in view["tables"] if table["heading"].startswith("Label words by linear maps")]
    assert [line["cells"][0]["text"] for line in maps["lines"]] == ["0.980", "0.980"]
    (apart,) = [table for table in view["tables"] if table["heading"].endswith("less that with the same for all")]
    assert [(line["name"], line["cells"][0]["text"]) for line in apart["lines"]] == [("original", "0.077")]
    assert view["unasked"] == ["memory-synonym: undefined in all 2 seeds: no synonym of 'bad' is known"]


def test_words_are_those_of_the_least_seed_and_named_by_label() -> None:
    view = task_view(RECORD, "films", "task-1")
    assert view["synonyms"] == [
        {"order": "1", "words": "bad: awful, good: great"},
        {"order": "2", "words": "bad: dreadful (by way of awful), good: grand (by way of great)"},
    ]
    # Records of before have no senses.
    record = json.loads(json.dumps(RECORD))
    for own in record["pictures"]["films"]:
        own.pop("senses", None)
    assert task_view(record, "films", "task-1")["synonyms"][1]["words"] == "bad: dreadful, good: grand"


def test_what_the_accounts_are_is_said_before_any_verdict(html: str) -> None:
    said = seen(html)
    verdict = said.index("task selection is supported")
    for what in ("H1, the finite set of tasks seen", "H2, any task, also one never seen", "H3, compositions of tasks"):
        assert said.index(what) < verdict


def test_what_was_altered_is_told_with_what_stays(html: str) -> None:
    assert {*_SAID, "original"} == set(CORE)
    said = seen(html)
    assert f"none is {FACTOR:g} times as probable as another after an empty input. It keeps format, input dist" in said
    assert "prompt-altered: the vocabulary is permuted" in said
    assert "memory-keyword:" not in said, "nobody asked"


def test_functions_have_their_p_value_and_what_noise_there_is() -> None:
    view = task_view(RECORD, "films", "task-1")
    (learned,) = [table for table in view["tables"] if table["heading"].startswith("Functions learned")]
    assert [(line["name"].split()[0], line["cells"][0]["text"]) for line in learned["lines"]] == [
        ("accuracies", "0.250"), ("share", "0.021"), ("reliability", "0.625"), ("reliability", "\u2014")
    ]  # fmt: skip
    assert learned["lines"][3]["cells"][0]["why"] == "all functions do alike"


def test_differences_that_no_claim_is_about_have_a_table() -> None:
    view = task_view(RECORD, "films", "task-1")
    (beside,) = [table for table in view["tables"] if table["heading"].startswith("Differences of macro-F1 that no")]
    assert [(line["name"], line["cells"][0]["text"]) for line in beside["lines"]] == [
        ("the task falls more without copying heads", "0.125")
    ]


def test_a_series_without_a_figure_is_no_empty_drawing() -> None:
    record = json.loads(json.dumps(RECORD))
    record["measures"] += [row("films", "macro_f1", f"{m}-fold synonyms, task", None, reason="none") for m in (1, 2)]
    headings = [one["heading"] for one in task_view(record, "films", "task-1")["figures"]]
    assert not any(heading.startswith("Synonyms") for heading in headings)
    record["measures"].append(row("films", "macro_f1", "3-fold synonyms, task", 0.5))
    headings = [one["heading"] for one in task_view(record, "films", "task-1")["figures"]]
    assert any(heading.startswith("Synonyms") for heading in headings)


def test_a_series_is_read_from_the_numbers_of_its_rows() -> None:
    rows = [row("t", "macro_f1", f"original, {share}% right", share / 100) for share in (0, 50)]
    rows.append(row("t", "macro_f1", "original, 50% right, always one label", 0.3))
    found = series(rows, "% right")
    assert {what: [(at, value) for at, value, *_ in points] for what, points in found.items()} == {
        "original": [(0.0, 0.0), (50.0, 0.5)]
    }


def test_every_figure_says_its_numbers_in_words(html: str) -> None:
    view = task_view(RECORD, "films", "task-1")
    headings = [one["heading"] for one in view["figures"]]
    assert headings == [
        "More and more demonstrations",
        "More and more right labels",
        "How sure demonstrations make of a known task",
        "Functions learned of label words, and of inputs",
    ]
    for told in ("original: 0 0.300, 50 0.400, 100 0.500", "0.250 and 0.375; 0.625 and 0.500"):
        assert told in seen(html)


def test_chains_stand_beside_their_parts() -> None:
    found = chains(RECORD)
    assert found is not None
    assert [line["name"] for line in found["lines"]] == list(CHAINS)
    assert [cell["text"] for cell in found["lines"][1]["cells"]] == ["0.260", "0.510", "0.760", "0.125"]
    assert found["said"].startswith("0.590 (0.20")
    lacking = [one for one in RECORD["measures"] if not one["variant"].endswith("alone")]
    assert chains(RECORD | {"measures": lacking}) is None


@pytest.mark.parametrize("place", ["task", "label", "word", "claim", "note", "model", "setting", "reason", "chain"])
def test_text_from_data_is_escaped_everywhere(place: str) -> None:
    record = hypothesised(tasks=("films",))
    inner = json.dumps(EVIL)[1:-1]
    old = {"task": '"films"', "label": '"bad"', "word": '"awful"', "chain": CHAINS[0]}
    if place == "chain":
        record = json.loads(json.dumps(record).replace(CHAINS[0], inner.replace(" the ", " ")))
    elif place in old:
        record = json.loads(json.dumps(record).replace(old[place], f'"{inner}"'))
    elif place == "claim":
        record["verdicts"][1] |= {"claim": EVIL, "prediction": EVIL}
        record["verdicts"][0]["observed"] = EVIL
    elif place == "note":
        record["notes"].append(EVIL)
    elif place == "model":
        record["model"]["name"] = record["model"]["caption"] = EVIL
    elif place == "setting":
        record["settings"][EVIL] = {EVIL: EVIL}
    else:
        record["measures"].append(row("films", "macro_f1", "memory-antonym, fixed", None, reason=EVIL))
    read = Reader(page(record))
    assert not {tag for tag, _ in read.tags} & {"script", "img"}
    everything = "".join([*read.said, *(str(v) for _, attributes in read.tags for v in attributes.values())])
    assert "alert(2)" in everything
    assert "{{ 7" in everything
    assert not text(record).count("\x1b")


def test_the_same_record_gives_the_same_bytes_and_is_not_changed(html: str) -> None:
    before = json.dumps(RECORD)
    assert page(hypothesised()) == html
    text(RECORD)
    assert json.dumps(RECORD) == before
    assert len(html) < 1_000_000


@pytest.mark.parametrize(
    "key",
    ["model", "settings", "environment", "argv", "notes", "tasks", "measures", "pictures", "verdicts", "hypotheses"],
)
@pytest.mark.parametrize("empty", ["null", "gone"])
def test_a_missing_piece_is_left_out(key: str, empty: str) -> None:
    record = hypothesised(tasks=("films",))
    if empty == "gone":
        del record[key]
    else:
        record[key] = None
    assert undefined(page(record)) == []
    assert text(record)


def test_an_empty_record_is_a_page_that_says_so() -> None:
    html = page({})
    check_sound(html)
    assert "The record holds no verdict: nothing was judged." in html
    assert text({}) == "The record holds no verdict: nothing was judged.\n"


def test_numbers_that_are_none_are_no_numbers_on_the_page() -> None:
    record = hypothesised(tasks=("films",))
    for place, one in enumerate(record["measures"]):
        one |= {"value": None if place % 2 else math.nan, "low": math.nan, "high": math.inf, "reason": "no such figure"}
    for one in record["verdicts"]:
        one |= {"observed": math.nan, "low": -math.inf}
    assert undefined(page(record)) == []
    assert "nan" not in text(record)


def test_the_terminal_has_each_claim_beside_what_came_of_it_in_a_hundred_columns() -> None:
    told = text(RECORD)
    lines = told.splitlines()
    assert max(map(cell_len, lines)) <= 100
    assert "films, demonstrations drawn anew for every query" in lines
    assert "色, the same demonstrations for all queries" in lines
    (line,) = {line for line in lines if "a permuted vocabulary" in line}
    assert line.split()[:2] == ["✗", "H2"]
    assert line.endswith("−0.291 (−0.381 to −0.201)")
    assert "any tokens as answers" not in told, "what is published with its faults counts for nothing"
    assert told.endswith("\n\nNote: films: a note of its own\n")


@needs_chromium
def test_on_a_phone_the_page_does_not_scroll_sideways(tmp_path: Path) -> None:
    told = json.dumps(RECORD).replace("films", "a-task-with-a-rather-long-name-of-its-own-and-more")
    assert width_on_a_phone(page(json.loads(told.replace('"awful"', f'"{"awful" * 40}"'))), tmp_path) <= PHONE


def test_tasks_have_their_own_sections(html: str) -> None:
    for place, name in enumerate(TASKS, 1):
        assert f'<section class="task" id="task-{place}">' in html
        assert f'<a href="#task-{place}">{name}</a>' in html
