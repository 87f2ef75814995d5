"""``kshot synth`` as a command: its files, its words, its exit statuses."""

import json
from pathlib import Path

import pytest

from kshot import cli
from kshot.study.synth import against_descent
from kshot.study.synth.catalogue import EXPERIMENTS
from kshot.synth.train import Training

NAME = "linear-attention-is-gradient-descent"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    few = Training(steps=6, batch=16, learning_rate=1e-2)
    much = against_descent.Much(training={"one layer": few}, asked=40, looks=2)
    monkeypatch.setattr(against_descent, "TRAINED", {"smoke": much})


def test_an_experiment_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    words = ["synth", NAME, "--seed", "0,1", "--parts", "construction,one-layer", "--output-path", str(out)]
    assert cli.status(words) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{NAME}: ")
    assert f"Report: {out / 'report.html'}" in said
    ours = json.loads((out / "results.json").read_text(encoding="utf-8"))["kshot"]
    # What is as by default is left out.
    assert ours["argv"] == ["kshot", "synth", *words[2:]]
    page = (out / "report.html").read_bytes()
    assert cli.status(["report", str(out)]) == 0
    assert (out / "report.html").read_bytes() == page, "the same from the records alone"
    capsys.readouterr()
    assert cli.status([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["kshot"]["verdicts"] == ours["verdicts"]


@pytest.mark.parametrize("words", [["synth", "list"], ["list", "experiments"]])
def test_experiments_are_listed(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.status(words) == 0
    assert capsys.readouterr().out.startswith(f"{NAME}  a trained layer of linear self-attention")


def test_an_experiment_says_what_it_asks_and_what_has_to_come_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.status(["synth", "list", "ginc", NAME]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 100
    said = " ".join(" ".join(lines).split())
    for name in ("ginc", NAME):
        experiment = EXPERIMENTS[name]
        assert f"{name}: {experiment.about} ({experiment.source})" in said
        assert all(any(line.startswith(part) for line in lines) for part in experiment.parts)
        assert all(claim.text.split()[0] in said and claim.bound.split()[-1] in said for claim in experiment.claims)
    assert sum("full and" in line for line in lines) == sum(
        claim.at[:1] == ("full",) for name in ("ginc", NAME) for claim in EXPERIMENTS[name].claims
    )
    assert cli.status(["synth", "list", "gin"]) == 2
    assert capsys.readouterr().err.startswith("kshot: unknown experiment 'gin'; did you mean 'ginc'?")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["synth", "linear"], "kshot: unknown experiment 'linear'"),
        (["synth", "--parts", "two-layer"], "kshot: unknown part 'two-layer'; did you mean 'two-layers'"),
        (["synth", "--size", "large"], 'kshot: Invalid value "large" for --size'),
        (["synth", "--seed", "x"], "kshot: --seed x: what works is whole numbers"),
    ],
)
def test_a_wrong_word_is_one_line_and_status_2(words: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.status(words) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert said.err.startswith(line)
