"""GINC: every claim is about a figure that is there, and evidence adds up to the posterior."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from kshot.seeds import torch_stream
from kshot.study.synth import ginc as module
from kshot.study.synth import ginc_mismatch, ginc_networks
from kshot.study.synth.experiment import Given, judged
from kshot.study.synth.ginc import GINC, asked_both_ways, words
from kshot.study.synth.ginc_mismatch import _Case, _foreseen, evidence
from kshot.study.synth.ginc_networks import Speaker, order_spread, possible, sets_of, shown
from kshot.synth.grammar import DELIMITER, examples, ginc, inferred
from kshot.synth.networks.language import LANGUAGES
from kshot.synth.networks.mixing import Shape


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundredth of the smallest size."""
    much = ginc_networks._MUCH["smoke"]
    few = {name: ginc_networks._grows(name, (1, 1, 16), 3, 4, 1e-2) for name in ("transformer", "lstm")}
    monkeypatch.setattr(
        ginc_networks,
        "_MUCH",
        {"smoke": replace(much, networks=few, ablation=few["transformer"], asked=30, documents=5, sets=2, queries=3)},
    )
    swept = ginc_mismatch.INFERRED["smoke"]
    monkeypatch.setattr(ginc_mismatch, "INFERRED", {"smoke": replace(swept, shots=(0, 3), asked=90)})


def found(*parts: str) -> list[dict[str, Any]]:
    given = Given(size="smoke", seed=0, say=lambda _: None)
    return [
        {"task": "ginc", "seed": 0, **row}
        for part in parts or GINC.parts
        for row in GINC.parts[part].answer(given)["rows"]
    ]


@pytest.mark.usefixtures("quick")
def test_every_claim_is_about_a_figure_that_is_there_and_comes_again() -> None:
    rows = found()
    verdicts = judged("ginc", GINC, rows, "smoke")
    assert len(verdicts) == len(GINC.claims) >= 15
    assert all(row["observed"] is not None for row in verdicts), [row["statistic"] for row in verdicts]
    keys = [(row["measure"], row["variant"]) for row in rows]
    assert len(keys) == len(set(keys)), "a figure has one place"
    again = found("mismatch", "engine")
    assert again == [row for row in rows if row in again]
    exact = [row for row in verdicts if "engine" in row["statistic"]]
    assert len(exact) == 2
    assert all(row["verdict"] == "holds" for row in exact)


def test_evidence_adds_up_to_the_posterior() -> None:
    mixture = ginc(0)
    own = examples(mixture, 1, 20, shots=3, length=5, joined=0.5)
    posteriors = inferred(mixture, own.tokens).concepts
    rows = np.arange(20)
    for concept in range(5):
        odds = np.log(posteriors[rows, :, own.concepts] / posteriors[..., concept])
        said = evidence(posteriors, own.concepts, 5)
        # The first token and those of the query but its first are neither signal nor joints.
        rest = odds[:, 0] + odds[:, -1] - odds[:, 18]
        whole = 3 * (said.signal - said.error)[:, concept] + rest
        assert whole == pytest.approx(odds[:, -1], abs=1e-9)
    assert said.posterior == pytest.approx(posteriors[rows, -1, own.concepts])


def test_what_is_foreseen_can_fail() -> None:
    mixture = ginc(0)
    own = examples(mixture, 1, 400, shots=8, length=10)
    posteriors = inferred(mixture, own.tokens).concepts
    _, cases = ginc_mismatch._weighed(mixture, own, evidence(posteriors, own.concepts, 10))
    assert np.mean([one.foreseen == one.won for one in cases]) > 0.8
    wrong = evidence(posteriors, own.concepts, 10)
    turned = ginc_mismatch.Evidence(signal=wrong.error, error=wrong.signal, posterior=wrong.posterior)
    cases = ginc_mismatch._weighed(mixture, own, turned)[1]
    assert np.mean([one.foreseen == one.won for one in cases]) < 0.5


def test_to_foresee_is_more_than_to_know_what_most_are() -> None:
    """Nine cases in ten are won: who says so of all is right in nine, and gains nothing over himself."""
    won = [slot != 3 for _ in range(4) for slot in range(10)]
    places = [(i // 10, i % 10) for i in range(40)]
    always = [_Case(*at, True, own) for at, own in zip(places, won, strict=True)]
    knows = [_Case(*at, own, own) for at, own in zip(places, won, strict=True)]
    for cases, right, gain in ((always, 0.9, 0.0), (knows, 1.0, 0.1)):
        foreseen, gained = _foreseen(cases, 0)
        assert (foreseen["value"], foreseen["null"], gained["value"]) == pytest.approx((right, 0.9, gain))


def test_orders_that_do_nothing_have_no_spread_and_those_that_do_have_theirs() -> None:
    rng = np.random.default_rng(0)
    hits = (rng.random((24, 200, 50)) < 0.6).astype(float)
    assert (hits.mean(axis=2).max(axis=0) - hits.mean(axis=2).min(axis=0)).mean() > 0.2, "by luck alone"
    assert order_spread(hits).mean() == pytest.approx(0.0, abs=0.02)
    hits[5] = 1.0
    hits[9] = 0.0
    assert order_spread(hits) == pytest.approx(np.ones(200))


def test_fewer_examples_are_the_end_of_the_same_prompt() -> None:
    own = examples(ginc(0), 3, 10, shots=4, length=3)
    assert shown(own, 4, 3).shape == own.tokens.shape
    assert np.array_equal(shown(own, 4, 3), own.tokens)
    assert np.array_equal(shown(own, 0, 3), own.tokens[:, -2:])
    assert (shown(own, 1, 3)[:, 3] == DELIMITER).all()
    assert possible(ginc_networks._MUCH["smoke"], 10) == (0, 1, 2, 4, 7)


def test_sets_are_asked_in_every_order_with_the_same_queries() -> None:
    mixture = ginc(0)
    sets = sets_of(mixture, 5, 3, 2)
    one, other = sets.prompts((0, 1, 2, 3)), sets.prompts((3, 1, 2, 0))
    assert one.shape == (6, 28)
    assert np.array_equal(one[:, 24:], other[:, 24:])
    assert np.array_equal(one[:, :6], other[:, 18:24])
    assert np.array_equal(one[0, :24], one[1, :24])
    whole = examples(mixture, 5, 3, shots=6, length=5)
    assert np.array_equal(one[1, 24:], whole.tokens[0, 30:34])


def test_the_engine_answers_as_the_network_does_and_a_fault_is_seen() -> None:
    mixture, shape = ginc(0), Shape(layers=2, heads=2, width=16)
    language = LANGUAGES["transformer"](50, 40, shape)
    rng = torch_stream(0, "weights")
    weights = {name: own + 0.3 * torch.randn(own.shape, generator=rng) for name, own in language.start(rng).items()}
    sets = sets_of(mixture, 5, 3, 10)
    same, apart, _ = asked_both_ways(Speaker(name="x", language=language, weights=weights), 2, sets, 50)
    assert same["value"] == 1.0
    assert apart["value"] < 1e-4
    # The engine with another number of heads than the network has.
    same, apart, _ = asked_both_ways(Speaker(name="x", language=language, weights=weights), 4, sets, 50)
    assert same["value"] < 1.0
    assert apart["value"] > 1e-2


def test_documents_of_ablations_lack_what_they_are_called_by() -> None:
    cases = module._cases(0)
    read, asked = cases["one concept"]
    assert (read.known, asked.known) == (1, 5)
    read, asked = cases["random transitions"]
    assert np.ptp(read.transitions()[:5]) == pytest.approx(0.0)
    assert np.array_equal(read.memory, asked.memory)
    assert np.diag(cases["entities do not stay"][1].entities).max() < 0.5


def test_words_are_told_apart() -> None:
    assert len(set(words(150))) == 150
    assert words(3) == ("/", "a", "b")
