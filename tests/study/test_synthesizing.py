"""Experiments as runs: on record part by part, the same whether they were stopped or not, claims judged as they are bound."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small import calm

from kshot.errors import NumericError, OutputError, UnknownName
from kshot.optim.state import keep, kept
from kshot.show import synth as shown
from kshot.study import synthesizing
from kshot.study.figures import figure
from kshot.study.place import STATE, Finished
from kshot.study.synth import against_descent
from kshot.study.synth.catalogue import EXPERIMENTS
from kshot.study.synth.experiment import Claim, Experiment, Given, Part, judged
from kshot.study.synth.growing import grown, on_prompts
from kshot.study.synth_settings import NAMES, make_synth_settings
from kshot.study.synthesizing import synthesize
from kshot.synth.networks.linear_attention import linear_attention
from kshot.synth.prompts import Source
from kshot.synth.train import Training

NAME = "linear-attention-is-gradient-descent"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundredth of the smallest size."""
    few = Training(steps=8, batch=16, learning_rate=1e-2)
    training = dict.fromkeys(against_descent.TRAINED["smoke"].training, few)
    monkeypatch.setattr(
        against_descent,
        "TRAINED",
        {"smoke": against_descent.Much(training=training, asked=60, looks=3, searched=60, rounds=5, fresh=20)},
    )


def asked(**options: Any) -> Finished:
    return synthesize(make_synth_settings(tasks=(NAME,), **options))


def test_names_of_settings_are_those_of_the_catalogue() -> None:
    assert tuple(EXPERIMENTS) == NAMES


@pytest.mark.usefixtures("quick")
def test_the_record_says_everything_and_is_the_same_again(tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    ours = asked(output_path=out, seed=(0, 1)).results["kshot"]
    assert set(ours) >= {"experiments", "measures", "verdicts", "pictures", "cells", "environment", "settings", "notes"}
    parts = list(EXPERIMENTS[NAME].parts)
    assert [(cell["seed"], cell["part"]) for cell in ours["cells"]] == [
        (seed, part) for seed in (0, 1) for part in parts
    ]
    assert len(ours["verdicts"]) == len(EXPERIMENTS[NAME].claims)
    assert {row["seed"] for row in ours["measures"]} == {None, 0, 1}
    kept = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))["kshot"]
    assert kept == json.loads(json.dumps(ours))
    records = (tmp_path / "out" / "records.jsonl").read_bytes()
    again = asked(output_path=out, seed=(0, 1)).results["kshot"]
    assert (tmp_path / "out" / "records.jsonl").read_bytes() == records, "nothing was left to do"
    assert calm(again["measures"]) == calm(ours["measures"])
    assert calm(asked(seed=(0, 1)).results["kshot"]["measures"]) == calm(ours["measures"])
    with pytest.raises(OutputError, match="belongs to a different run"):
        asked(output_path=out, seed=(0,))


@pytest.mark.usefixtures("quick")
def test_every_claim_is_about_a_figure_that_is_there() -> None:
    verdicts = asked().results["kshot"]["verdicts"]
    assert all(row["observed"] is not None for row in verdicts)
    identities = [row for row in verdicts if row["statistic"].startswith("greatest_difference")]
    assert len(identities) == 7
    assert all(row["verdict"] == "holds" and row["must"] and row["observed"] <= 1e-10 for row in identities)


@pytest.mark.usefixtures("quick")
def test_one_part_alone_and_parts_that_come_to_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = asked(parts=("optima",)).results["kshot"]
    assert [cell["part"] for cell in ours["cells"]] == ["optima"]
    by_name = {(row["measure"], row["variant"]): row["value"] for row in ours["measures"]}
    assert by_name["best_rate", "the text's inputs, algebra"] == pytest.approx(1.515, abs=5e-3)
    assert by_name["loss", "the code's inputs, one step, algebra"] == pytest.approx(0.2062, abs=5e-5)
    assert ours["verdicts"] == [], "none is about this part"
    assert shown.answer(ours) == f"{NAME}: no claim is about the parts that were asked for."
    few = asked(parts=("optima", "construction")).results["kshot"]["verdicts"]
    assert {row["verdict"] for row in few} == {"holds"}

    def diverges(given: Given) -> dict[str, Any]:
        raise NumericError("the loss of step 3 of 8 is nan; try a smaller learning rate than 0.01")

    experiment = EXPERIMENTS[NAME]
    broken = replace(experiment, parts={**experiment.parts, "one-layer": Part(asks="x", answer=diverges)})
    monkeypatch.setattr(synthesizing, "EXPERIMENTS", {NAME: broken})
    ours = asked(parts=("one-layer",)).results["kshot"]
    assert len(ours["verdicts"]) == len(experiment.claims), "which of them a part that failed would have is not known"
    assert {row["reason"] for row in ours["verdicts"]} == {"not measured"}
    assert ours["notes"] == [
        f"{NAME}, seed 0, one-layer: the loss of step 3 of 8 is nan; try a smaller learning rate than 0.01"
    ]


@pytest.mark.usefixtures("quick")
def test_networks_stay_and_states_of_their_training_do_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kshot.synth.train._SECONDS", -1.0)
    monkeypatch.setattr("kshot.synth.train._SHARE", 0.0)
    own = tmp_path / "out" / "state" / "of-somebody-else.txt"
    own.parent.mkdir(parents=True)
    own.write_text("stays", encoding="utf-8")
    asked(output_path=str(tmp_path / "out"), parts=("one-layer",))
    assert own.exists()
    assert not (tmp_path / "out" / STATE).exists()
    network = kept(tmp_path / "out" / "networks" / NAME / "one-layer" / "one-layer-0.safetensors")
    assert network is not None
    weights, moments, facts = network
    assert set(weights) == set(linear_attention(10).start(torch.Generator()))
    assert moments == {}
    assert len(facts["losses"]) == 8


@pytest.mark.usefixtures("quick")
def test_what_is_of_another_configuration_is_not_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = str(tmp_path / "out")
    first = asked(output_path=out, parts=("optima",)).results["kshot"]["cells"]
    more = replace(against_descent.TRAINED["smoke"], asked=61)
    monkeypatch.setitem(EXPERIMENTS, NAME, replace(EXPERIMENTS[NAME], much={"smoke": more}))
    assert asked(parts=("optima",)).results["kshot"]["cells"][0]["id"] != first[0]["id"]
    with pytest.raises(OutputError, match="belongs to a different run"):
        asked(output_path=out, parts=("optima",))


def test_a_state_of_another_shape_or_question_is_not_gone_on_with(tmp_path: Path) -> None:
    training = Training(steps=2, batch=4)

    def losses(width: int, asks: str) -> tuple[float, ...]:
        given = Given(size="smoke", seed=0, say=lambda _: None, place=tmp_path, question=asks)
        network, source = linear_attention(width), Source(width=width, pairs=4)
        return grown(given, "one", network, on_prompts(given, network, source, training), training).losses

    began = losses(3, "a")
    assert losses(3, "a") == began
    assert losses(4, "a") != began
    (path,) = tmp_path.iterdir()
    before = path.stat().st_mtime_ns
    losses(4, "b")
    assert path.stat().st_mtime_ns > before, "the same network of another question is trained anew"


@pytest.mark.usefixtures("quick")
def test_what_a_stopped_run_took_counts(tmp_path: Path) -> None:
    began = tmp_path / STATE / NAME / "construction"
    for seed, seconds in ((0, 1_000.0), (1, 50.0), (10, 7.0)):
        keep(began / f"one-{seed}.safetensors", {"w": torch.ones(1)}, {}, {"seconds": seconds})
    cells = asked(output_path=str(tmp_path), parts=("construction", "optima"), seed=(0, 1)).results["kshot"]["cells"]
    took = {(cell["part"], cell["seed"]): cell["seconds"] for cell in cells}
    # Of up to three processes each counts for its share; what was asked itself takes a second.
    assert took["construction", 0] > 300 > took["construction", 1] > 15 > took["optima", 0]


def test_unknown_names_are_refused_with_the_nearest() -> None:
    with pytest.raises(UnknownName, match="did you mean 'linear-attention-is-gradient-descent'"):
        make_synth_settings(tasks=("linear-attention",))
    with pytest.raises(UnknownName, match="did you mean 'one-layer'"):
        synthesize(make_synth_settings(parts=("one-layers",)))


@pytest.mark.parametrize(
    ("value", "low", "high", "least", "most", "verdict"),
    [
        (0.995, None, None, 0.99, None, "holds"), (0.98, None, None, 0.99, None, "fails"),
        (0.995, 0.991, 0.999, 0.99, None, "holds"), (0.995, 0.985, 0.999, 0.99, None, "undecided"),
        (0.98, 0.97, 0.985, 0.99, None, "fails"), (0.5, 0.4, 0.6, None, 0.7, "holds"),
        (0.5, 0.4, 0.6, 0.45, 0.7, "undecided"), (None, None, None, 0.1, None, "undecided"),
    ],
)  # fmt: skip
def test_claims_are_judged_by_their_bounds(
    value: float | None, low: float | None, high: float | None, least: float | None, most: float | None, verdict: str
) -> None:
    claim = Claim(text="it is so", source="us", measure="loss", variant="end", least=least, most=most)
    experiment = Experiment(about="", source="", parts={}, claims=(claim,))
    row = {**figure("loss", ("end",), value=value, low=low, high=high, reason=None if value else "nobody knows"),
           "task": "x", "seed": 0}  # fmt: skip
    other = {**row, "variant": "begin", "value": 0.0}
    (found,) = judged("x", experiment, [other, row], "full")
    assert (found["verdict"], found["observed"], found["must"]) == (verdict, value, True)
    (whole,) = judged("x", experiment, [row, {**row, "seed": None, "value": 7.0, "low": None, "high": None}], "smoke")
    assert whole["observed"] == 7.0, "over seeds where there are several"
    assert (whole["must"], whole["open"]) == (False, False)
    question = replace(experiment, claims=(replace(claim, at=()),))
    assert judged("x", question, [row], "paper")[0]["open"]
    assert judged("x", experiment, [], "full")[0]["reason"] == "not measured"
