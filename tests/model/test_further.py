"""A pretrained model as a function of its weights: it says what it said until a gate opens, and then what the engine says."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from kshot.errors import ModelError, OutputError
from kshot.model.further import Further
from kshot.model.lm import LM, Route
from kshot.model.load import load_model
from kshot.model.tree import Scored
from kshot.seeds import torch_stream

KINDS = [(False, None), (True, None), (False, 0.4), (True, 0.4)]


def texts(lm: LM) -> torch.Tensor:
    return torch.randint(lm.model.config.vocab_size, (3, 20), generator=torch_stream(0, "texts"))


def logprobs(own: Further, weights: dict[str, torch.Tensor], tokens: torch.Tensor) -> np.ndarray:
    with torch.no_grad():
        said = own.head(weights, own.reads(weights, tokens)).double().log_softmax(-1)
    return said[:, :-1].gather(2, tokens[:, 1:, None])[..., 0].numpy()


def scored(lm: LM, tokens: torch.Tensor) -> np.ndarray:
    return np.array(lm.score([Scored(tuple(row.tolist()), 1) for row in tokens]).logprobs)


def opened(own: Further) -> dict[str, torch.Tensor]:
    """Weights whose gates are open, each by its own amount."""
    rng, found = torch_stream(1, "gates"), own.start()
    return found | {name: 0.1 * torch.randn(found[name].shape, generator=rng) for name in found if "momentum" in name}


@pytest.mark.parametrize(("normalised", "eta"), KINDS)
def test_a_closed_gate_changes_nothing_and_an_open_one_is_the_engines(
    tiny_lm: LM, normalised: bool, eta: float | None
) -> None:
    tokens = texts(tiny_lm)
    plain = scored(tiny_lm, tokens)
    own = Further(lm=tiny_lm, momentum=True, normalised=normalised, eta=eta)
    assert logprobs(own, own.start(), tokens) == pytest.approx(plain, abs=1e-5)
    weights = opened(own)
    said = logprobs(own, weights, tokens)
    assert said == pytest.approx(scored(replace(tiny_lm, momentum=own.momentum_of(weights)), tokens), abs=1e-4)
    assert np.abs(said - plain).max() > 1e-2


def test_a_gate_learns_and_the_model_is_left_as_it_was(tiny_lm: LM) -> None:
    before = {name: own.clone() for name, own in tiny_lm.model.named_parameters()}
    own = Further(lm=tiny_lm, momentum=True)
    weights = {name: tensor.requires_grad_(True) for name, tensor in own.start().items()}
    own.head(weights, own.reads(weights, texts(tiny_lm))).logsumexp(-1).sum().backward()
    assert weights["momentum.gate"].grad is not None
    assert (weights["momentum.gate"].grad != 0).all()
    # Of a closed gate the decay makes no difference yet.
    assert weights["momentum.decay"].grad is None or not weights["momentum.decay"].grad.any()
    assert all(weights[name].grad is not None for name in before)
    assert all(torch.equal(own, before[name]) for name, own in tiny_lm.model.named_parameters())


@pytest.mark.parametrize("momentum", [False, True])
def test_what_is_saved_is_opened_and_says_the_same(tiny_lm: LM, momentum: bool, tmp_path: Path) -> None:
    own = Further(lm=tiny_lm, momentum=momentum)
    weights = {name: tensor * 1.1 for name, tensor in opened(own).items()}
    # What a run that was stopped has left is written over; what is not ours is not.
    for _ in range(2):
        own.save(weights, tmp_path / "model")
    lm = load_model(str(tmp_path / "model"), dtype="float32", device="cpu")
    tokens = texts(lm)
    assert (lm.momentum is not None) == momentum
    assert scored(lm, tokens) == pytest.approx(logprobs(own, weights, tokens), abs=1e-4)


def test_a_model_whose_attention_is_out_of_reach_is_refused(tiny_lm: LM) -> None:
    lm = replace(tiny_lm, route=Route("rows", "recurrent layers"))
    with pytest.raises(ModelError, match="no attention that momentum could be added to"):
        Further(lm=lm, momentum=True)
    assert Further(lm=lm).momentum_of({}) is None


def test_a_folder_that_holds_something_else_is_left_alone(tiny_lm: LM, tmp_path: Path) -> None:
    own = Further(lm=tiny_lm)
    own.save(own.start(), tmp_path / "model")
    (tmp_path / "model" / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="something else"):
        own.save(own.start(), tmp_path / "model")
    assert (tmp_path / "model" / "notes.txt").read_text() == "mine"
