"""Verdicts from planted rows: each claim where it holds, where the opposite does, and where nothing can be said."""

import math

import numpy as np
import pytest
from scipy import stats
from small import films

from kshot.data.pick import pick
from kshot.model.lm import LM
from kshot.show.explain import answer
from kshot.study import claims as module
from kshot.study.claims import BAR, CLAIMS, verdicts
from kshot.study.compared import Setting, compared
from kshot.study.implied import implied
from kshot.study.over_seeds import LEAST, over_seeds, widening

KEYS = ["claim", "prediction", "observed", "low", "high", "verdict", "seeds", "task"]
LENGTHS, ALONG = "null: lengths kept", "null: lengths and part along zero-shot kept"
HERE, PAPER = "corrected, last prompt token", "published, appended label"
RAW, MAPS = f"last prompt token, raw, {LENGTHS}", "last prompt token"
SHAPE = "of an untrained model of the same shape"

# Every claim: its row, and what it is held against: "zero", "null", "bar", or the variant of another row.
ABOUT: dict[str, tuple[str, str, str]] = {
    "Rec2FTP exceeds the agreement that the marginals give by chance": ("rec2ftp", "corrected", "null"),
    "Rec2FTP at the published rate exceeds the agreement that the marginals give by chance": ("rec2ftp", "published", "null"),
    "SimAOU as published (normalised, appended label) is above zero": ("sim_aou", f"{PAPER}, normalised, {LENGTHS}", "zero"),
    "normalised SimAOU exceeds that of unrelated updates of the same lengths": ("sim_aou", f"{HERE}, normalised, {LENGTHS}", "null"),
    "raw SimAOU exceeds what updates share along the zero-shot output alone": ("sim_aou", f"{HERE}, raw, {ALONG}", "null"),
    f"raw SimAOU exceeds that {SHAPE}": ("sim_aou", f"corrected, {RAW}", f"corrected, untrained, {RAW}"),
    "raw SimAOU exceeds that of a model with trained embeddings only": ("sim_aou", f"corrected, {RAW}", f"corrected, trained embeddings, {RAW}"),
    "raw SimAOU exceeds that with shuffled labels": ("sim_aou", f"corrected, {RAW}", f"corrected, shuffled labels, {RAW}"),
    "raw SimAOU exceeds that with demonstrations of another task": ("sim_aou", f"corrected, {RAW}", f"corrected, another task, {RAW}"),
    "SimAM after fine-tuning exceeds SimAM before it": ("sim_am", f"{HERE}, after fine-tuning", "null"),
    "SimAM as published (appended label) exceeds SimAM before fine-tuning": ("sim_am", f"{PAPER}, after fine-tuning", "null"),
    "SimAM after fine-tuning exceeds that of permuted tokens": ("sim_am", f"{HERE}, after fine-tuning, null: tokens permuted", "null"),
    "SimAM-Δ is above zero": ("sim_am_delta", HERE, "zero"),
    f"SimAM-Δ exceeds that {SHAPE}": ("sim_am_delta", HERE, f"corrected, untrained, {MAPS}"),
    "Kendall's τ exceeds that of a random map": ("kendall", f"{HERE}, scores", "null"),
    "Kendall's τ as published (appended label) exceeds that of a random map": ("kendall", f"{PAPER}, softmax in float32 as published", "null"),
    "raw SimAOU with layer-causal gradient descent is no less than with gradient descent": ("sim_aou", f"corrected, layer-causal, {RAW}", f"corrected, {RAW}"),
    "SimAM-Δ with layer-causal gradient descent is no less than with gradient descent": ("sim_am_delta", f"corrected, layer-causal, {MAPS}", HERE),
    "the relaxed linear form explains what heads say: its R² exceeds its null and 0.5": ("relaxed_r2", "in-context W_ZSL", "bar"),
}  # fmt: skip


def row(measure: str, variant: str, value, low=None, high=None, **more) -> dict:
    none = dict.fromkeys(("layer", "null", "null_low", "null_high", "published", "reason"))
    own = {"task": "films", "model": "tiny", "seed": 0, "measure": measure, "variant": variant, "n": 30, "unit": ""}
    return {**own, **none, "value": value, "low": low, "high": high, **more}


def about(claim: str, difference: float, half: float = 0.05, n: int = 30, **more) -> list[dict]:
    """The rows of a claim, with its figure so far above what it is held against.

    What is not held against another row is sure to ``half``, and so are the differences of queries. The queries
    themselves lie far apart.
    """
    measure, variant, against = ABOUT[claim]
    base = {"zero": 0.0, "bar": BAR}.get(against, 0.4)
    own = row(measure, variant, base + difference, base + difference - half, base + difference + half, n=n, **more)
    if against in ("zero", "bar"):
        return [{**own, "null": 0.1}]
    if measure == "rec2ftp":
        return [{**own, "null": base}]
    apart = stats.norm.ppf((np.arange(n) + 0.5) / n)
    less = apart * half * math.sqrt(n) / 1.96 / apart.std()
    theirs = base + 5 * np.cos(3 * np.arange(n))
    mine = theirs + difference + less
    own |= {"each": mine.tolist(), "low": base - 2, "high": base + 2}
    if against == "null":
        return [{**own, "null": base, "null_low": base - 2, "null_high": base + 2, "null_each": theirs.tolist()}]
    return [own, row(measure, against, base, base - 2, base + 2, n=n, each=theirs.tolist(), **more)]


def one(rows: list[dict], claim: str) -> dict:
    (line,) = [line for line in verdicts(rows) if line["claim"] == claim and line["task"] is None]
    return line


def test_claims_are_short_and_all_of_them_are_here() -> None:
    assert [claim.text for claim in CLAIMS] == list(ABOUT)
    assert all(len(claim.text) < 90 and "\n" not in claim.text for claim in CLAIMS)


@pytest.mark.parametrize("claim", ABOUT)
def test_where_it_holds_where_the_opposite_does_and_where_neither(claim: str) -> None:
    for difference, verdict in ((0.3, "shown"), (-0.3, "contradicted"), (0.03, "not shown"), (-0.03, "not shown")):
        rows = about(claim, difference)
        line = one(rows, claim)
        assert list(line) == KEYS
        assert (line["claim"], line["verdict"], line["task"]) == (claim, verdict, None)
        base = BAR if ABOUT[claim][2] == "bar" else 0.0
        assert line["observed"] == pytest.approx(base + difference)
        # The row of SimAM-Δ is one that another claim is about, too.
        half = 0.05 * widening(len(verdicts(rows)))
        expected = (base + difference - half, base + difference + half)
        # What is resampled is as sure as it was planted, but for the bootstrap's own noise and its n for n - 1.
        assert (line["low"], line["high"]) == pytest.approx(expected, abs=0.05 * half)


def test_a_sign_turned_round_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    right = module._part

    def turned(row):
        return module._Part(-right(row).value, right(row).above, right(row).below)

    monkeypatch.setattr(module, "_part", turned)
    with pytest.raises(AssertionError):
        test_where_it_holds_where_the_opposite_does_and_where_neither("Kendall's τ exceeds that of a random map")


def test_a_difference_is_taken_query_by_query() -> None:
    claim = "raw SimAOU exceeds that with shuffled labels"
    own, other = about(claim, 0.3)
    assert one([own, other], claim)["verdict"] == "shown", "although both intervals hold either figure"
    turned = {**other, "each": other["each"][::-1]}
    line = one([own, turned], claim)
    assert line["verdict"] == "not shown", "queries that are not the same"
    assert line["observed"] == pytest.approx(0.3)


def test_queries_of_one_run_alone_are_left_out_of_a_difference() -> None:
    claim = "SimAM after fine-tuning exceeds SimAM before it"
    (own,) = about(claim, 0.3)
    unlike = {**own, "each": [None, *own["each"][1:]], "null_each": [*own["null_each"][:-1], None]}
    left = np.array(own["each"])[1:-1] - np.array(own["null_each"])[1:-1]
    assert one([unlike], claim)["observed"] == pytest.approx(left.mean())
    none = one([{**own, "each": [None] * 30}], claim)
    assert (none["observed"], none["verdict"]) == ("no query has a value in any layer", "not shown")


def test_differences_are_taken_in_each_seed_and_then_over_seeds() -> None:
    claim = "raw SimAOU exceeds that with shuffled labels"
    rows = [found for seed, much in enumerate((0.2, 0.3, 0.4)) for found in about(claim, much, seed=seed)]
    line = one([*over_seeds(rows), *rows], claim)
    # t of 2 degrees of freedom, sd 0.1; and 0.05 over queries, which seeds do not shrink.
    half = math.hypot(4.3027 * 0.1 / math.sqrt(3), 0.05)
    assert line["observed"] == pytest.approx(0.3)
    assert (line["low"], line["high"]) == pytest.approx((0.3 - half, 0.3 + half), abs=0.003)
    assert line["verdict"] == "shown"
    apart = [found for found in rows if found["seed"] == 0 or found["variant"] != rows[0]["variant"]]
    assert one(apart, claim)["observed"] == pytest.approx(0.2), "of the seed that has both"
    assert one([rows[0], rows[3]], claim)["observed"] == "no seed has both"


def test_the_number_of_claims_widens() -> None:
    claim, others = (
        "SimAM-Δ is above zero",
        [name for name in ABOUT if ABOUT[name][0] in ("kendall", "rec2ftp", "sim_am")],
    )
    alone = about(claim, 0.2, half=0.18)
    together = [*alone, *(found for i, name in enumerate(others) for found in about(name, 0.1 + i / 100))]
    assert one(alone, claim)["verdict"] == "shown"
    line = one(together, claim)
    assert len(verdicts(together)) == len(others) + 1 == 8
    # 0.05 / 8 on both sides: z = 2.7344 in the place of 1.95996
    assert line["verdict"] == "not shown"
    assert line["low"] == pytest.approx(0.2 - 0.18 * 2.7344 / 1.95996, abs=1e-4)


def test_a_claim_forgotten_in_the_count_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "widening", lambda claims, seeds: widening(claims - 1, seeds))
    with pytest.raises(AssertionError):
        test_the_number_of_claims_widens()


def test_over_seeds_the_number_of_claims_widens_by_students_t() -> None:
    names = [name for name in ABOUT if ABOUT[name][2] == "null" and ABOUT[name][0] != "rec2ftp"]
    rows = [
        found for name in names for seed, much in enumerate((0.2, 0.3, 0.4)) for found in about(name, much, seed=seed)
    ]
    line = one([*over_seeds(rows), *rows], names[0])
    alone = math.hypot(4.3027 * 0.1 / math.sqrt(3), 0.05)
    half = alone * stats.t.isf(0.025 / len(names), 2) / stats.t.isf(0.025, 2)
    assert (line["low"], line["high"]) == pytest.approx((0.3 - half, 0.3 + half), abs=0.01)
    assert (line["verdict"], line["seeds"]) == ("not shown", 3)
    assert one(about(names[0], 0.3), names[0])["seeds"] == 1


def test_what_is_undefined_or_has_no_interval_is_not_shown_and_does_not_count() -> None:
    name = "Rec2FTP exceeds the agreement that the marginals give by chance"
    none = row("rec2ftp", "corrected", None, null=0.0, reason="fine-tuning corrected no query")
    unsure = row("kendall", f"{HERE}, scores", 0.3, null=0.0)
    unsure |= {"each": [0.3], "null_each": [0.1]}
    found = verdicts([none, unsure, *about("SimAM-Δ is above zero", 0.2, half=0.1)])
    assert [line["verdict"] for line in found] == ["not shown", "shown", "not shown"]
    first, shown, last = found
    assert (first["claim"], first["observed"], first["low"]) == (name, "fine-tuning corrected no query", None)
    assert (last["observed"], last["low"], last["high"]) == (pytest.approx(0.2), None, None)
    assert shown["low"] == pytest.approx(0.1), "one claim was judged"
    rival = [about("raw SimAOU exceeds that with shuffled labels", 0.3)[0]]
    rival += [row("sim_aou", f"corrected, shuffled labels, {RAW}", None, reason="no layer moved")]
    assert [(line["observed"], line["verdict"]) for line in verdicts(rival)] == [("no layer moved", "not shown")]
    (line,) = verdicts([row("kendall", f"{HERE}, scores", 0.3, 0.2, 0.4)])
    assert (line["observed"], line["verdict"]) == ("its null is undefined", "not shown")


def test_without_rows_there_is_no_claim() -> None:
    assert verdicts([]) == []
    assert verdicts([row("recency", "slope", 0.3, 0.2, 0.4)]) == []
    without_rival = about("raw SimAOU exceeds that with shuffled labels", 0.3)[:1]
    assert verdicts(without_rival) == []
    assert verdicts([{**found, "layer": 2} for found in about("SimAM-Δ is above zero", 0.3)]) == []


def test_the_published_rate_is_left_out_where_it_says_the_same() -> None:
    names = list(ABOUT)[:2]
    same = [about(name, 0.1)[0] for name in names]
    assert [line["claim"] for line in verdicts(same)] == names[:1]
    assert [line["claim"] for line in verdicts([same[0], {**same[1], "value": 0.6}])] == names


def test_of_several_seeds_the_row_over_them_is_judged() -> None:
    claim = "SimAM-Δ is above zero"
    rows = [found for seed, much in ((1, -0.5), (0, 0.5), (2, 0.5)) for found in about(claim, much, seed=seed)]
    assert one(rows, claim)["observed"] == 0.5, "of the least seed"
    line = one([*rows, *over_seeds(rows)], claim)
    assert line["observed"] == pytest.approx(0.5 / 3)
    assert line["verdict"] == "not shown"


def test_words_in_another_order_and_words_that_go_without_saying_change_nothing() -> None:
    rows = about("SimAM-Δ is above zero", 0.3)
    turned = [{**found, "variant": "own, last prompt token, trained, corrected, gradient descent"} for found in rows]
    assert verdicts(turned) == verdicts(rows)
    assert verdicts([{**rows[0], "variant": f"{HERE}, of one head"}]) == []


def test_layer_causal_descent_is_held_against_the_same_demonstrations() -> None:
    claim = "SimAM-Δ with layer-causal gradient descent is no less than with gradient descent"
    rows = about(claim, 0.3)
    same = row("sim_am_delta", f"corrected, 8 demonstrations, {MAPS}", 0.9, 0.85, 0.95)
    same["each"] = [0.5 + value for value in rows[1]["each"]]
    assert one([*rows, same], claim)["observed"] == pytest.approx(0.7 - 0.9)
    assert one([*rows, same], "SimAM-Δ is above zero")["observed"] == pytest.approx(0.4), "of all demonstrations"
    said = {**rows[0], "variant": f"corrected, layer-causal, 8 demonstrations, {MAPS}"}
    assert one([said, rows[1], same], claim)["observed"] == pytest.approx(0.7 - 0.9)


def test_the_relaxed_form_has_to_pass_both_its_null_and_our_bar() -> None:
    claim = list(ABOUT)[-1]
    high_null = [{**about(claim, 0.2)[0], "null": 0.9}]
    assert one(high_null, claim)["verdict"] == "contradicted"
    # Without an interval of its own that of the mean over layers: mean 0.7, sd 0.1, t 4.3027 of 2 degrees of freedom.
    values = (0.6, 0.7, 0.8)
    whole = row("relaxed_r2", "in-context W_ZSL", 0.7, null=0.3)
    layers = [row("relaxed_r2", "in-context W_ZSL", v, v - 0.4, v + 0.4, layer=i) for i, v in enumerate(values)]
    line = one([whole, *layers, {**layers[0], "seed": 1, "value": 9.0}], claim)
    assert line["low"] == pytest.approx(0.7 - 4.3027 * 0.1 / math.sqrt(3), abs=1e-4)
    assert (line["observed"], line["verdict"]) == (pytest.approx(0.7), "not shown")
    assert line["high"] < 1
    assert one([whole, layers[0]], claim)["low"] is None


def test_bounds_stay_within_what_the_measure_can_be() -> None:
    rows = [row("sim_aou", f"{PAPER}, normalised, {LENGTHS}", 0.9, 0.7, 0.99)]
    rows += [found for name in [*ABOUT][9:12] + [*ABOUT][13:16] for found in about(name, 0.1)]
    line = one(rows, "SimAOU as published (normalised, appended label) is above zero")
    assert line["high"] == 1.0
    # Rec2FTP of 1 with an expected agreement of 0.9: no more than 0.1 above it.
    line = one([row("rec2ftp", "corrected", 1.0, 0.8, 1.0, null=0.9)], next(iter(ABOUT)))
    assert (line["observed"], line["low"], line["high"]) == pytest.approx((0.1, -0.1, 0.1))


def tasks(*differences: float | None) -> list[dict]:
    """Two claims on several tasks; of the second one None is a task without its rows."""
    rows = []
    for i, much in enumerate(differences):
        own = about("Kendall's τ exceeds that of a random map", 0.3)
        own += [] if much is None else about("SimAM-Δ is above zero", much)
        rows += [{**found, "task": f"t{i}"} for found in own]
    return rows


@pytest.mark.parametrize(
    ("differences", "verdict", "observed"),
    [
        ((0.3, 0.3, 0.3), "shown", "shown on 3 of 3 tasks"),
        ((0.3, 0.3, 0.0), "not shown", "shown on 2 of 3 tasks"),
        ((0.0, 0.0, 0.0), "not shown", "shown on 0 of 3 tasks"),
        ((0.3, -0.3, 0.0), "not shown", "shown on 1 of 3 tasks, contradicted on 1"),
        ((0.0, -0.3, 0.0), "contradicted", "shown on 0 of 3 tasks, contradicted on 1"),
        ((0.3, None, 0.3), "not shown", "shown on 2 of 3 tasks, not measured on 1"),
    ],
)
def test_over_tasks(differences: tuple, verdict: str, observed: str) -> None:
    found = verdicts(tasks(*differences))
    overall = [line for line in found if line["task"] is None]
    assert found[: len(overall)] == overall
    line, other = overall
    assert (line["claim"], line["verdict"], line["observed"]) == ("SimAM-Δ is above zero", verdict, observed)
    assert (line["low"], line["high"], line["seeds"]) == (None, None, 1)
    assert (other["verdict"], other["observed"]) == ("shown", "shown on 3 of 3 tasks")
    own = [line for line in found if line["claim"] == "SimAM-Δ is above zero" and line["task"] is not None]
    assert [line["observed"] for line in own] == [much for much in differences if much is not None]


def test_each_task_counts_its_own_claims() -> None:
    first, second = verdicts(tasks(0.3, None))[2:4]
    (third,) = verdicts(tasks(0.3, None))[4:]
    assert [line["task"] for line in (first, second, third)] == ["t0", "t0", "t1"]
    assert second["low"] < third["low"] == pytest.approx(0.25, abs=0.002)


def test_what_a_study_measures_is_what_claims_are_about(tiny_lm: LM) -> None:
    task = films(20)
    shown = pick(task.train, 4, "balanced", 0, labels=task.labels)
    setting = Setting(
        lm=tiny_lm, task=task, template=task.template, demonstrations=shown, queries=task.test[:4], seed=0
    )
    measured, _ = compared(setting, 0.1, named=("corrected",))
    rows = [{**found, "task": "films", "seed": 0} for found in [*measured, *implied(setting)[0]]]
    for prefix in (
        "published",
        *(f"corrected, {word}" for word in ("untrained", "trained embeddings", "shuffled labels")),
    ):
        rows += [{**found, "variant": found["variant"].replace("corrected", prefix)} for found in rows[: len(measured)]]
    rows = [{**found, "value": 0.123} if found["variant"] == "published" else found for found in rows]
    left = ("another task", "layer-causal")
    expected = [claim.text for claim in CLAIMS if not any(word in claim.text for word in left)]
    found = verdicts(rows)
    assert [line["claim"] for line in found] == expected
    assert answer(found).count("; ") >= 2


@pytest.mark.parametrize("claim", ABOUT)
def test_means_over_few_queries_are_not_judged(claim: str) -> None:
    few, enough = (one(about(claim, 0.3, n=n), claim) for n in (LEAST - 1, LEAST))
    counted = ABOUT[claim][0] == "rec2ftp"
    assert (few["verdict"], enough["verdict"]) == ("shown" if counted else "not shown", "shown")
    assert few["observed"] == pytest.approx(enough["observed"])
