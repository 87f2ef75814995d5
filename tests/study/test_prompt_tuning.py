"""Prompt tuning: claims have figures, rows stand before what is read, only they move, and what is emitted is judged as it is."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from kshot.pretrain.objectives import OBJECTIVES, Marks
from kshot.seeds import stream, torch_stream
from kshot.study.synth import prompt_tuning as module
from kshot.study.synth.experiment import Given, Size, judged
from kshot.study.synth.prompt_tuning import PROMPT_TUNING, _Much
from kshot.study.synth.soft_prompts import PROMPT, Frozen, Way, emitted, prompt_rows, taught
from kshot.synth.labelled import labelled, passages_of, texts
from kshot.synth.networks.encoder_decoder import encoder_decoder
from kshot.synth.networks.mixing import Shape
from kshot.synth.train import Training

TEXT = labelled(0, length=6, passages=2, sentinels=4)
SHAPE = Shape(layers=1, heads=2, width=16)
LANGUAGE = encoder_decoder(TEXT.vocabulary, TEXT.tokens, SHAPE)
TUNES = Training(steps=60, batch=16, learning_rate=0.3, optimiser="adafactor", weight_decay=1e-5)
ASKED = passages_of(TEXT, "last", 5, 40)


def given() -> Given:
    return Given(size="smoke", seed=0, say=lambda line: None)


def frozen(**more: Any) -> Frozen:
    weights = LANGUAGE.start(torch_stream(0, "start"))
    return Frozen(text=TEXT, shape=SHAPE, weights=weights, **more)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    grows = Training(steps=3, batch=4, learning_rate=1e-3)
    much = _Much(
        length=6, passages=2, shapes=((1, 1, 4), (1, 2, 8)), ablated=1, adapted=(1, 2), grows=grows,
        tunes=replace(TUNES, steps=2, batch=4), rates={True: (0.3,), False: (0.001,)}, learned=8, asked=12,
    )  # fmt: skip
    monkeypatch.setattr(module, "_MUCH", {"smoke": much})


@pytest.mark.usefixtures("quick")
def test_every_claim_is_about_a_figure_that_is_there() -> None:
    found = [row for part in PROMPT_TUNING.parts.values() for row in part.answer(given())["rows"]]
    rows = [{"task": "x", "seed": 0, **row} for row in found]
    assert [row["statistic"] for row in judged("x", PROMPT_TUNING, rows, "smoke") if row["observed"] is None] == []
    [row] = [row for row in PROMPT_TUNING.parts["scale"].answer(given())["rows"] if row["measure"] == "gap_closed"][:1]
    gaps = {own["variant"]: own["value"] for own in found if own["measure"] == "gap"}
    name = "all weights over a prompt"
    assert row["value"] == pytest.approx(gaps[f"{name}, the smallest"] - gaps[f"{name}, the largest"])


@pytest.mark.parametrize("size", ["smoke", "full", "paper"])
def test_every_size_can_be_grown(size: Size) -> None:
    much, text = module._MUCH[size], module._text(replace(given(), size=size))
    for layers, heads, width in much.shapes:
        encoder_decoder(text.vocabulary, text.tokens, Shape(layers=layers, heads=heads, width=width))
    rows = texts(text, 0, 0, 2)
    marks = Marks(vocabulary=text.vocabulary, end=text.end, sentinels=text.spans)
    for name in ("span", "continued"):
        assert OBJECTIVES[name](rows, marks, stream(0, "x")).source is not None


def test_rows_stand_before_the_passage() -> None:
    own = frozen()
    passages, said = torch.from_numpy(ASKED.tokens), torch.full((40, 1), TEXT.end)
    tokens = [3, 9, 4]
    rows = own.weights["embedding"][tokens]
    found = own.known({**own.weights, PROMPT: rows}, passages, said)
    source = torch.cat([torch.tensor(tokens).expand(40, -1), passages, torch.full((40, 1), TEXT.question)], dim=1)
    slow = LANGUAGE.head(own.weights, LANGUAGE.reads(own.weights, said, source))
    assert torch.allclose(found, slow, atol=1e-5)


@pytest.mark.parametrize("sentinel", [False, True])
def test_only_what_is_taught_moves_and_the_loss_falls(sentinel: bool) -> None:
    own, learned = frozen(sentinel=sentinel), passages_of(TEXT, "last", 1, 64)
    losses: list[float] = []

    def say(line: str) -> None:
        losses.append(float(line.split("loss ")[1].split()[0]))

    for way in (Way(length=4), Way()):
        losses.clear()
        rate = 0.3 if way.length else 0.003
        weights = taught(replace(given(), say=say), "x", own, "last", way, learned, replace(TUNES, learning_rate=rate))
        moved = {name for name, tensor in own.weights.items() if not torch.equal(tensor, weights[name])}
        assert bool(moved) != bool(way.length)
        assert (PROMPT in weights) == bool(way.length)
        assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.5


def test_starts_are_rows_of_the_vocabulary() -> None:
    own = frozen()
    table = own.weights["embedding"]
    labels = prompt_rows(own, "concept", Way(length=5), 0)
    assert torch.equal(labels[:3], table[list(TEXT.labels["concept"])])
    assert all(any(torch.equal(row, one) for one in table[: TEXT.mixture.vocabulary]) for row in labels[3:])
    assert torch.equal(prompt_rows(own, "concept", Way(length=1), 0)[0], table[TEXT.labels["concept"][0]])
    drawn = prompt_rows(own, "concept", Way(length=60, init="vocabulary"), 0)
    assert len(drawn) == 60
    assert len(drawn[:50].unique(dim=0)) == 50, "none twice while there are others"
    random = prompt_rows(own, "concept", Way(length=500, init="random"), 0)
    assert -0.5 <= float(random.min()) < -0.49
    assert 0.49 < float(random.max()) <= 0.5


class Saying(Frozen):
    """A model that says these tokens in turn, whatever is asked."""

    def known(self, weights: Any, passages: torch.Tensor, said: torch.Tensor) -> torch.Tensor:
        answers = [*self.before(), weights["says"]]
        logits = torch.zeros(*said.shape, TEXT.vocabulary)
        logits[:, -1, answers[said.shape[1] - 1]] = 1.0
        return logits


@pytest.mark.parametrize("sentinel", [False, True])
def test_what_is_emitted_is_judged_as_it_is(sentinel: bool) -> None:
    labels = TEXT.labels["last"]
    model = Saying(text=TEXT, shape=SHAPE, weights=frozen().weights, sentinel=sentinel)
    cases = {labels[2]: (True, False), TEXT.labels["first"][2]: (False, False), TEXT.spans[1]: (False, True)}
    for token, (legal, is_sentinel) in cases.items():
        found = emitted(model, {**model.weights, "says": token}, "last", ASKED)
        assert (found.legal == legal).all()
        assert (found.sentinel == is_sentinel).all()
        assert np.array_equal(found.right, (ASKED.answers == 2) if legal else np.zeros(40, bool))
        assert np.array_equal(found.among, ASKED.answers == (2 if legal else 0))
