"""Verdicts from planted rows: what each hypothesis predicts, held against figures that are known."""

import pytest

from kshot.study.hypotheses import core, functions
from kshot.study.hypotheses.claims import CLAIMS, HYPOTHESES, MARGIN, verdict, verdicts
from kshot.study.over_seeds import over_seeds

# What each learner would show: of every contrast the value that its account predicts.
SELECTS = {
    core.ABLE: 0.5, core.SELECTED: 0.0, core.SELECTED_AS_PUBLISHED: 0.0, core.LEARNED: -0.3,
    core.LEARNED_AS_PUBLISHED: -0.4, core.LINEAR: -0.5, core.NATURALLY: 0.0,
}  # fmt: skip
LEARNS = {
    core.ABLE: 0.3, core.SELECTED: 0.3, core.SELECTED_AS_PUBLISHED: 0.3, core.LEARNED: 0.0,
    core.LEARNED_AS_PUBLISHED: -0.2, core.LINEAR: 0.0, core.NATURALLY: 0.0,
}  # fmt: skip
COMPOSES = {
    core.ABLE: 0.5, core.SELECTED: 0.4, core.SELECTED_AS_PUBLISHED: 0.4, core.LEARNED: -0.3,
    core.LEARNED_AS_PUBLISHED: -0.4, core.LINEAR: -0.3, core.NATURALLY: 0.3,
}  # fmt: skip
CORRELATIONS = {
    "selects": {functions.CORRELATED: 0.0, functions.CORRELATED_LINEAR: 0.0},
    "learns": {functions.CORRELATED: 0.0, functions.CORRELATED_LINEAR: 0.8},
    "composes": {functions.CORRELATED: 0.8, functions.CORRELATED_LINEAR: 0.0},
}


def rows(contrasts: dict, correlations: dict, *, seeds: int = 5, half: float = 0.01, protocol: str = "redrawn") -> list:
    none = dict.fromkeys(("layer", "null_low", "null_high", "published", "reason"))
    found = []
    for measure, named in (("contrast", contrasts), ("correlation", correlations)):
        for name, value in named.items():
            for seed in range(seeds):
                own = value + 0.002 * (seed - (seeds - 1) / 2)
                variant = f"{name}, {protocol}" if measure == "contrast" else name
                found.append(
                    {
                        **none, "task": "films", "model": "m", "measure": measure, "variant": variant, "seed": seed,
                        "value": own, "low": own - half, "high": own + half, "null": 0.0, "n": 40, "unit": "",
                    }
                )  # fmt: skip
    return found


def judged(measures: list) -> dict:
    found = verdicts([*over_seeds(measures), *measures])
    return {line["hypothesis"]: line["verdict"] for line in found if line["claim"] is None}


@pytest.mark.parametrize(
    ("name", "contrasts", "expected"),
    [
        ("selects", SELECTS, {"H1": "supported", "H2": "rejected", "H3": "rejected"}),
        ("learns", LEARNS, {"H1": "rejected", "H2": "supported", "H3": "rejected"}),
        ("composes", COMPOSES, {"H1": "rejected", "H2": "rejected", "H3": "supported"}),
    ],
)
def test_every_account_is_told_by_what_it_predicts(name: str, contrasts: dict, expected: dict) -> None:
    assert judged(rows(contrasts, CORRELATIONS[name])) == expected


def test_one_seed_decides_nothing() -> None:
    measures = rows(COMPOSES, CORRELATIONS["composes"], seeds=1)
    assert set(judged(measures).values()) == {"undecided"}
    (line, *_) = verdicts(measures)
    assert line["reason"] == "one seed: give --seed 0,1,2"


@pytest.mark.parametrize(
    ("able", "half", "reason"),
    [
        (-0.02, 0.01, "this model is too small to tell"),
        (0.3, 2.0, "was not shown to be answered better than by guessing; ask more seeds"),
    ],
)
def test_a_model_that_does_not_do_the_task_tells_nothing(able: float, half: float, reason: str) -> None:
    others = {name: value for name, value in COMPOSES.items() if name != core.ABLE}
    measures = [*rows(others, CORRELATIONS["composes"]), *rows({core.ABLE: able}, {}, half=half)]
    found = verdicts([*over_seeds(measures), *measures])
    assert {line["verdict"] for line in found} == {"undecided"}
    assert reason in str(found[0]["reason"])


def test_wide_intervals_are_undecided_for_their_own_sake() -> None:
    others = {name: value for name, value in COMPOSES.items() if name != core.ABLE}
    measures = [*rows(others, CORRELATIONS["composes"], half=2.0), *rows({core.ABLE: 0.5}, {})]
    found = verdicts([*over_seeds(measures), *measures])
    assert {line["verdict"] for line in found} == {"undecided"}
    assert not any(line["reason"] for line in found if line["claim"])


def test_protocols_are_judged_apart() -> None:
    both = [
        *rows(SELECTS, CORRELATIONS["selects"]),
        *rows(COMPOSES, {}, protocol="fixed"),
    ]
    found = verdicts([*over_seeds(both), *both])
    said = {(line["protocol"], line["hypothesis"]): line["verdict"] for line in found if line["claim"] is None}
    assert said["redrawn", "H1"] == "supported"
    assert said["fixed", "H1"] == "rejected"


def test_what_is_published_with_its_faults_counts_for_nothing() -> None:
    measures = rows({**SELECTS, core.SELECTED_AS_PUBLISHED: 0.6}, CORRELATIONS["selects"])
    found = verdicts([*over_seeds(measures), *measures])
    assert judged(measures)["H1"] == "supported"
    assert [line["verdict"] for line in found if line["published"] and line["hypothesis"] == "H1"] == ["rejected"]


def test_intervals_are_widened_for_the_number_of_claims() -> None:
    few, many = (rows(own, {}) for own in ({core.ABLE: 0.5, core.SELECTED: 0.03}, COMPOSES | {core.SELECTED: 0.03}))
    widths = []
    for measures in (few, many):
        found = verdicts([*over_seeds(measures), *measures])
        line = next(line for line in found if line["hypothesis"] == "H1" and line["claim"])
        widths.append(line["high"] - line["low"])
    assert widths[1] > 1.5 * widths[0]


def test_a_figure_that_is_not_defined_is_undecided() -> None:
    measures = rows(COMPOSES, {})
    for seed in range(5):
        (row,) = rows({}, {functions.CORRELATED: 0.0}, seeds=1)
        measures.append(row | {"seed": seed, "value": None, "low": None, "high": None, "reason": "all alike"})
    found = verdicts([*over_seeds(measures), *measures])
    (line,) = [line for line in found if line["prediction"].endswith("of tau_g correlate over functions")]
    assert (line["verdict"], line["low"]) == ("undecided", None)
    assert "all alike" in line["reason"]


@pytest.mark.parametrize(
    ("predicts", "low", "high", "expected"),
    [
        ("none", -MARGIN / 2, MARGIN / 2, "supported"),
        ("none", 0.01, MARGIN / 2, "supported"),
        ("none", 0.01, 0.5, "rejected"),
        ("none", -0.5, -0.01, "rejected"),
        ("none", -0.5, 0.5, "undecided"),
        ("at least", -MARGIN / 2, 0.5, "supported"),
        ("at least", -0.5, -MARGIN, "rejected"),
        ("at least", -0.5, 0.1, "undecided"),
        ("more", 0.01, 0.5, "supported"),
        ("more", -0.5, MARGIN / 2, "rejected"),
        ("more", -0.5, 0.5, "undecided"),
    ],
)
def test_what_an_interval_says(predicts: str, low: float, high: float, expected: str) -> None:
    assert verdict(predicts, low, high) == expected


def test_every_claim_belongs_to_a_hypothesis() -> None:
    assert {claim.hypothesis for claim in CLAIMS} == set(HYPOTHESES)
    for name in HYPOTHESES:
        assert any(not claim.published for claim in CLAIMS if claim.hypothesis == name)
