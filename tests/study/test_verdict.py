"""What beats what, size by size, and what is recommended."""

from typing import Any

import numpy as np
import pytest

from kshot.measure.intervals import paired_permutation
from kshot.study.answer import answer
from kshot.study.summary import comparisons, summary
from kshot.study.verdict import learned, paired, recommend, said, said_of_noise

N = 100


def _line(method: str, shots: int, right: int, seed: int = 0, **more: Any) -> dict[str, Any]:
    """A cell in which the first ``right`` of a hundred queries are right."""
    params = {"noise": more["noise"]} if "noise" in more else {}
    trained = method not in ("zero-shot", "in-context", "majority")
    return {
        "task": "t", "method": method, "params": params, "shots": shots, "seed": seed, "order": 0,
        "right": "1" * right + "0" * (N - right), "n": N, "accuracy": right / N, "macro_f1": None, "log_loss": 1.0,
        "ece": 0.1, "seconds": 5.0, "fit_seconds": 3.0, "query_ms": 2.0, "tokens": more.get("tokens", 1000),
        "trainable_parameters": 10 if trained else 0, "artefact_bytes": more.get("bytes", 100), "score": "sum",
        "scores": {"sum": {"accuracy": right / N}}, "failed": None,
        "training": {"flops": 1e9, "start": 2.0, "flattened": True} if trained else None,
    }  # fmt: skip


def _failed(method: str, shots: int, seed: int = 0) -> dict[str, Any]:
    null = dict.fromkeys(("accuracy", "seconds", "tokens", "macro_f1", "log_loss", "ece", "fit_seconds", "training"))
    return {**_line(method, shots, 0, seed), **null, "n": 0, "right": "", "failed": "diverged at step 3: loss 40"}


def _three(method: str, shots: int, *right: int, **more: Any) -> list[dict[str, Any]]:
    return [_line(method, shots, number, seed, **more) for seed, number in enumerate(right)]


SIZES = [
    _line("zero-shot", 0, 50),
    *_three("in-context", 4, 60, 62, 61),
    *_three("in-context", 16, 62, 63, 60),
    *_three("lora", 4, 59, 63, 61),
    *_three("lora", 16, 80, 82, 85),
    *_three("head", 4, 59, 60, 58),
    *_three("head", 16, 80, 78, 79),
    *_three("majority", 4, 40, 41, 42),
    *_three("majority", 16, 40, 41, 42),
]


def test_each_size_is_tested_against_in_context_and_zero_shot_on_whole_queries() -> None:
    found = {(pair["against"], pair["a"]): pair for pair in paired(SIZES)}
    lora = found["in-context", "lora@16"]
    assert (lora["b"], lora["seeds"], lora["n"], lora["verdict"]) == ("in-context@16", 3, N, "better")
    assert lora["difference"] == pytest.approx((18 + 19 + 25) / 300)
    rights = [
        [np.array([int(x) for x in line["right"]]) for line in SIZES if (line["method"], line["shots"]) == (method, 16)]
        for method in ("lora", "in-context")
    ]
    test = paired_permutation(np.array(rights[0]) - np.array(rights[1]))
    assert test is not None
    assert (lora["p"], lora["better"]) == (test["p"], test["better"])
    # three methods of one size, so the least of their p-values counts three times
    assert lora["p_holm"] == pytest.approx(3 * lora["p"])
    assert found["zero-shot", "in-context@4"]["verdict"] == "better"
    assert found["in-context", "majority@4"]["verdict"] == "worse"
    assert found["in-context", "head@4"]["verdict"] == "undecided"
    best = [pair for pair in paired(SIZES) if pair["against"] == "best"]
    assert {pair["a"] for pair in best} == {"lora@16"}
    assert {pair["b"] for pair in best} == {
        "zero-shot@0", "in-context@4", "in-context@16", "lora@4", "head@4", "head@16",
    }  # fmt: skip


def test_the_sentences_are_short_and_group_methods_with_one_fate() -> None:
    assert said(paired(SIZES)) == [
        "In-context learning is beaten by lora and head with 16 examples (p < 0.001); with 4 examples nothing beats it.",
        "Worse than it: majority at every size.",
        "Not clearly above zero-shot at any size: majority.",
    ]
    alone = [line for line in SIZES if line["shots"] in (0, 4)]
    assert (
        said(paired(alone))[0]
        == "Nothing beats in-context learning with 4 examples; it beats majority with 4 examples."
    )
    bare = [line for line in SIZES if line["method"] in ("zero-shot", "lora")]
    assert said(paired(bare)) == ["Zero-shot is beaten by lora at every size (p < 0.001)."]
    assert said(paired([line for line in SIZES if line["method"] == "lora"])) == []


def test_one_query_is_one() -> None:
    lines = [_line(method, 4, 1) | {"right": "1", "n": 1, "accuracy": 1.0} for method in ("in-context", "lora")]
    assert "100 % of 1 query right" in answer(summary(lines), [], None, [])
    assert "100 % of 1 query right" in answer(summary(lines[:1]), [], None, [])


def test_many_methods_are_counted_not_listed() -> None:
    lines = [*_three("in-context", 4, 50, 50, 50)]
    for number in range(9):
        lines += _three(f"m{number}", 4, 90, 91, 92)
    (sentence,) = said(paired(lines))
    assert sentence == "In-context learning is beaten by m0, m1, m2, m3 and 5 more with 4 examples (p < 0.001)."


def test_the_answer_of_many_ways_is_at_most_four_sentences() -> None:
    text = answer(summary(SIZES), comparisons(SIZES), ("good", 0.5), paired(SIZES))
    assert text.startswith(
        "Most accurate is lora on 16 examples: 82 % of 100 queries right (74 to 89 %, mean of 3 seeds); "
        "in-context: 62 %, zero-shot: 50 %. In-context learning is beaten by"
    )
    assert text.count(". ") <= 3
    assert not learned([line for line in SIZES if line["method"] == "in-context"])


def test_a_cheaper_way_is_taken_only_where_it_is_near_and_not_distinguishable() -> None:
    def taken(lines: list[dict[str, Any]]) -> dict[str, Any]:
        return recommend(summary(lines), paired(lines))["t"]

    assert taken(SIZES)["method"] == "lora"
    near = [*SIZES, *_three("tfidf", 16, 80, 82, 84, tokens=0)]
    found = taken(near)
    assert (found["method"], found["shots"], found["seed"], found["directory"]) == ("tfidf", 16, 0, None)
    assert (
        found["why"]
        == "0.3 points below lora@16, not distinguishable from it (p = 1), and cheaper: it reads or stores less"
    )
    # nothing that is trained is as cheap as what is not
    shown = [*SIZES, *_three("nearest", 16, 80, 82, 84)]
    assert taken(
        [
            line | {"trainable_parameters": 0, "training": None} if line["method"] == "nearest" else line
            for line in shown
        ]
    )["why"].endswith("nothing is trained")
    # two points below, and six queries that only the other has right in some seed
    worse = [*SIZES, *_three("tfidf", 16, 79, 80, 82, tokens=0)]
    assert taken(worse)["method"] == "lora"


def test_fewer_examples_are_recommended_where_they_do_better_or_as_well() -> None:
    def taken(*lines: dict[str, Any]) -> dict[str, Any]:
        return recommend(summary(lines), paired(lines))["t"]

    two, many = _line("in-context", 2, 78, tokens=100), _line("in-context", 32, 50, tokens=900)
    found = taken(_line("zero-shot", 0, 60, tokens=50), two, many)
    assert (found["shots"], found["accuracy"], found["why"]) == (2, 0.78, "the most accurate")
    # of equals the cheapest, whichever comes first
    for lines in ([two, many | {"right": two["right"], "accuracy": 0.78}], [many | two | {"shots": 32}, two]):
        assert taken(*lines)["shots"] == 2
    dear = taken(_line("in-context", 32, 78, tokens=900), two)
    assert (dear["shots"], dear["why"]) == (2, "as accurate as in-context@32, and cheaper: it reads or stores less")
    # the examples one has cost nothing: what they teach is taken where it costs the same to use
    assert taken(_line("lora", 4, 78), _line("lora", 16, 79))["shots"] == 16


def test_what_no_artefact_holds_is_not_said_to_be_beaten() -> None:
    combined = _line("in-context", 4, 90) | {"params": {"ensemble": "orders", "members": 4, "rule": "majority-vote"}}
    lines = [_line("in-context", 4, 80), combined]
    assert recommend(summary(lines), paired(lines))["t"]["why"] == "the most accurate that can be kept as an artefact"


def test_neither_baselines_nor_ensembles_nor_wrong_labels_are_recommended() -> None:
    ensemble = [
        line | {"params": {"ensemble": "orders", "members": 4, "rule": "majority-vote"}}
        for line in _three("in-context", 16, 99, 99, 99)
    ]
    lines = [
        *SIZES,
        *ensemble,
        *_three("majority", 16, 99, 99, 99),
        *_three("lora", 64, 99, 99, 99, noise=0.25),
    ]
    assert recommend(summary(lines), paired(lines))["t"] | {"why": ""} == {
        "method": "lora", "params": {}, "shots": 16, "seed": 0, "accuracy": pytest.approx(0.823, abs=1e-3), "directory": None, "why": "",
    }  # fmt: skip
    assert recommend(summary([_failed("lora", 4)]), []) == {}


def test_failed_cells_take_no_part_and_are_counted() -> None:
    lines = [
        *_three("in-context", 4, 50, 55, 60),
        _line("lora", 4, 70),
        _failed("lora", 4, 1),
        _failed("lora", 4, 2),
        _failed("head", 4),
    ]
    rows = {row["method"]: row for row in summary(lines)}
    assert (rows["lora"]["accuracy"], rows["lora"]["seeds"], rows["lora"]["failed"], rows["lora"]["n"]) == (
        0.7,
        [0],
        2,
        N,
    )
    assert (rows["head"]["accuracy"], rows["head"]["failed"], rows["in-context"]["failed"]) == (None, 1, 0)
    assert rows["head"]["undefined"]["accuracy"] == "failed: diverged at step 3: loss 40"
    # its only seed stands against that seed of the other, not against all as a method that draws nothing would
    (pair,) = [pair for pair in paired(lines) if pair["against"] == "in-context"]
    assert (pair["a"], pair["seeds"], pair["difference"]) == ("lora@4", 1, 0.2)
    assert list(comparisons(lines)[0]["p_values"]) == ["0"]
    text = answer(summary([_failed("lora", 4)]), [], None, [])
    assert text == "Nothing came to a result; what went wrong is said below."


def test_queries_that_one_side_left_out_are_not_counted() -> None:
    lines = [_line("in-context", 4, 50), _line("lora", 4, 70) | {"right": "-" * 60 + "1" * 40}]
    (pair,) = [pair for pair in paired(lines) if pair["against"] == "in-context"]
    assert (pair["n"], pair["better"], pair["worse"], pair["difference"]) == (40, 40, 0, 1.0)
    lines = [_line("in-context", 4, 50), _line("lora", 4, 70) | {"right": "-" * N, "accuracy": 0.7}]
    assert paired(lines) == []


def test_more_examples_with_wrong_labels_stand_against_a_quarter_of_clean_ones() -> None:
    lines = [
        *_three("lora", 4, 55, 56, 57),
        *_three("lora", 16, 80, 80, 80),
        *_three("lora", 16, 75, 76, 77, noise=0.3),
        *_three("lora", 64, 60, 61, 62, noise=0.3),
        *_three("head", 4, 60, 60, 60),
        *_three("head", 16, 60, 61, 60, noise=0.3),
        # nothing clean to stand against
        *_three("head", 400, 60, 61, 60, noise=0.3),
    ]
    found = [pair for pair in paired(lines) if pair["against"] == "clean"]
    assert [(p["name"], p["shots"], p["b"], p["noise"], p["verdict"]) for p in found] == [
        ("lora", 4, "lora@4", 0.3, "better"),
        ("head", 4, "head@4", 0.3, "undecided"),
        ("lora", 16, "lora@16", 0.3, "worse"),
    ]
    assert found[0]["a"] == "lora@16[noise=0.3]"
    assert said_of_noise(found) == (
        "Taking 4 times as many examples with 30 % of the labels wrong in place of clean ones helps lora with 4 examples; "
        "it harms lora with 16 examples; it makes no clear difference to head with 4 examples."
    )
    assert said_of_noise([]) == ""
    # they never count as the best
    best = [*_three("lora", 4, 55, 56, 57), *_three("lora", 16, 90, 90, 90, noise=0.3)]
    assert comparisons(best) == []
    assert answer(summary(best), [], None, paired(best)).startswith("Most accurate is lora on 4 examples: 56 %")


def test_a_row_says_what_learning_costs() -> None:
    lines = _three("lora", 4, 50, 60, 70)
    lines[1] |= {"fit_seconds": 6.0, "query_ms": None, "training": {"flops": 3e9, "start": 4.0, "flattened": False}}
    lines[2] |= {"training": None}
    (row,) = summary(lines)
    assert (row["fit_seconds"], row["query_ms"], row["flops"], row["start_loss"], row["flattened"]) == (
        4.0,
        2.0,
        2e9,
        3.0,
        0.5,
    )
    assert (row["trainable_parameters"], row["artefact_bytes"], row["peak_rss_bytes"]) == (10, 100, None)
    # what learning took is not what a query takes
    assert row["queries_per_second"] == pytest.approx(N / 1.0)
