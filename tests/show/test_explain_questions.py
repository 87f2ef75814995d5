"""Open questions on the page and in the terminal: a verdict for each mechanism, its picture, and what was predicted."""

from typing import Any

import pytest
from reader import Reader, undefined

from kshot.show.explain import page, text
from kshot.show.explain_questions import observed, questions, sentence
from kshot.study.catalogue import QUESTIONS

EVIL = "<script>alert(1)</script>"


def line(contrast: str, verdict: str, task: str = "sst2", question: str = "order", **more: Any) -> dict[str, Any]:
    rival = next(rival for rival in QUESTIONS[question].rivals if rival.contrast == contrast)
    own = QUESTIONS[question]
    about = {"question": question, "asks": own.asks, "prediction": own.prediction, "mechanism": rival.mechanism,
             "intervention": rival.intervention, "contrast": contrast, "task": task, "model": "tiny", "when": "",
             "observed": 0.25, "unit": "nats²", "low": -0.5, "high": 1.0, "seeds": 5, "n": 1000, "reason": None}  # fmt: skip
    return {**about, "verdict": verdict, **more}


PLACE, READ = "most is where they stand", "most is what they read of one another"
REPLIES = [
    line(PLACE, "contradicted"),
    line(PLACE, "contradicted", "subj", observed=-0.5, low=-1.0, high=-0.1),
    line(READ, "shown"),
    line(READ, "not shown", "subj", observed=None, low=None, high=None, reason=f"no turn {EVIL}"),
]
KSHOT = {"replies": REPLIES, "measures": [], "verdicts": [], "tasks": {}, "model": {"name": "tiny"}}


def test_a_page_of_questions_alone_says_what_was_asked_predicted_and_found() -> None:
    html = page(KSHOT)
    said = " ".join("".join(Reader(html).said).split())
    own = QUESTIONS["order"]
    for words in (
        own.asks,
        own.prediction,
        *(rival.mechanism for rival in own.rivals[:2]),
        "contradicted",
        "mixed",
        "0.250 nats²",
    ):
        assert words in said, words
    assert "What do demonstrations do, and why?" in said
    assert "<svg" in html
    assert EVIL not in html
    assert undefined(html) == []
    assert "Beside the published" not in said


def test_a_sentence_names_tasks_where_they_disagree() -> None:
    assert sentence(REPLIES) == f"Shown: {READ} (sst2). Not shown: {READ} (subj). Contradicted: {PLACE}."


def test_a_sentence_of_one_task_does_not_name_it() -> None:
    lines = [line(READ, "not shown"), line(READ, "shown", when="batch-calibrated")]
    assert sentence(lines) == f"Shown: {READ} (batch-calibrated). Not shown: {READ} (as answered)."


def test_the_sentence_stands_once_on_a_page() -> None:
    said = "Contradicted: " + PLACE
    judged = [{"claim": "one", "prediction": "above 0", "observed": 0.1, "verdict": "shown", "task": None}]
    for verdicts in ([], judged):
        html = page({**KSHOT, "verdicts": verdicts})
        assert " ".join("".join(Reader(html).said).split()).count(said) == 1


def test_every_contrast_is_a_line_in_the_terminal() -> None:
    said = text(KSHOT)
    assert said.splitlines()[0] == QUESTIONS["order"].asks
    flat = " ".join(said.split())
    assert f"✗ {PLACE} (sst2): 0.250 nats² (−0.500 to 1.000)" in flat
    assert f"○ {READ} (subj): no turn" in flat
    assert all(len(one) <= 100 for one in said.splitlines())


def test_where_nothing_came_the_terminal_says_why() -> None:
    said = text({**KSHOT, "replies": [], "notes": ["films, seed 0, why-labels: no labels in common"]})
    assert said.splitlines()[-1] == "Note: films, seed 0, why-labels: no labels in common"


def test_a_record_without_questions_has_no_such_section() -> None:
    assert questions({"replies": []}) == []
    assert "Written before the first run" not in page({**KSHOT, "replies": []})


@pytest.mark.parametrize(("unit", "said"), [("", "0.250 (−0.500 to 1.000)"), ("nats", "0.250 nats (−0.500 to 1.000)")])
def test_a_contrast_is_told_with_its_unit(unit: str, said: str) -> None:
    assert observed(line(READ, "shown", unit=unit)) == said


def test_conditions_stand_by_task_below_the_mechanisms() -> None:
    none = dict.fromkeys(("layer", "low", "high", "null", "null_low", "null_high", "n", "published", "reason"))
    row = {
        **none,
        "task": "sst2",
        "model": "tiny",
        "seed": None,
        "measure": "why_order_variance",
        "variant": "read apart",
        "value": 0.125,
        "unit": "nats²",
    }
    (found,) = questions({"replies": REPLIES, "measures": [row]})
    (condition,) = found["conditions"]
    assert (condition["name"], condition["sub"]) == ("variance over orders", "read apart")
    assert [cell["text"] for cell in condition["cells"]] == ["0.125", ""]
