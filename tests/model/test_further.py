"""A pretrained model as a function of its weights: it says what it said until a gate opens, and then what the engine says."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import zoo

from kshot.errors import ModelError, OutputError
from kshot.model.further import Further
from kshot.model.lm import LM, Route
from kshot.model.load import load_model
from kshot.model.momentum import KINDS, Kind, Momentum, kind_of
from kshot.model.tree import Scored
from kshot.seeds import torch_stream

ASKED = [(kind, eta) for kind in KINDS for eta in (None, 0.4)]


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


@pytest.mark.parametrize(("kind", "eta"), ASKED)
def test_a_closed_gate_changes_nothing_and_an_open_one_is_the_engines(
    tiny_lm: LM, kind: Kind, eta: float | None
) -> None:
    tokens = texts(tiny_lm)
    plain = scored(tiny_lm, tokens)
    own = Further(lm=tiny_lm, kind=kind, eta=eta)
    assert logprobs(own, own.start(), tokens) == pytest.approx(plain, abs=1e-5)
    weights = opened(own)
    said = logprobs(own, weights, tokens)
    assert said == pytest.approx(scored(replace(tiny_lm, momentum=own.momentum_of(weights)), tokens), abs=1e-4)
    assert np.abs(said - plain).max() > 1e-2


# Families whose logits are more than a head's product.
FAMILIES = {
    "granite": ("granite", {**zoo._GROUPED, "logits_scaling": 4.0, "embedding_multiplier": 3.0}),
    "gemma2-capped": (
        "gemma2",
        {**zoo._GROUPED, "sliding_window": zoo.WINDOW, "query_pre_attn_scalar": 8, "final_logit_softcapping": 2.0},
    ),
}


@pytest.mark.parametrize("name", [*FAMILIES, "opt", "gpt-oss", "mamba"])
def test_logits_are_the_models_own(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoo, "TREE", {**zoo.TREE, **FAMILIES})
    lm = zoo.lm(name, torch.float32)
    own, tokens = Further(lm=lm), texts(lm)
    weights = {key: tensor.requires_grad_(True) for key, tensor in own.start().items()}
    said = own.head(weights, known := own.reads(weights, tokens))
    with torch.no_grad():
        theirs = lm.model(input_ids=tokens, use_cache=False).logits
        assert torch.allclose(said, theirs, atol=1e-4)
        for where in ((0, slice(2, 5)), (slice(None), -1), (0, slice(0))):
            assert torch.allclose(own.head(weights, known[where]), theirs[where], atol=1e-4)
    said.logsumexp(-1).sum().backward()
    moves = [name for name, tensor in weights.items() if tensor.grad is not None and tensor.grad.any()]
    assert {name for name, own in lm.model.named_parameters() if own is lm.model.get_output_embeddings().weight} <= {
        *moves
    }
    assert len(moves) > 10


def test_a_model_that_would_say_something_else_is_refused(tiny_lm: LM, monkeypatch: pytest.MonkeyPatch) -> None:
    head = Further.head
    monkeypatch.setattr(Further, "head", lambda self, weights, known: head(self, weights, known) / 4)
    with pytest.raises(ModelError, match=r"^tiny-0 cannot be trained further: what begins is [\d.]+ nats from what it"):
        Further(lm=tiny_lm)


def test_momentum_of_its_own_is_gone_on_with(tiny_lm: LM, tmp_path: Path) -> None:
    first = Further(lm=tiny_lm, kind="momentum-normalised")
    first.save(opened(first), tmp_path / "model")
    lm, tokens = load_model(str(tmp_path / "model"), dtype="float32", device="cpu"), texts(tiny_lm)
    assert np.abs(scored(lm, tokens) - scored(replace(lm, momentum=None), tokens)).max() > 1e-2
    own = Further(lm=lm, kind="momentum-normalised")
    begun = own.momentum_of(own.start())
    assert lm.momentum is not None
    assert begun is not None
    assert torch.allclose(begun.decay, lm.momentum.decay, atol=1e-6)
    assert logprobs(own, own.start(), tokens) == pytest.approx(scored(lm, tokens), abs=1e-4)
    for asked in ("softmax", "momentum"):
        with pytest.raises(
            ModelError,
            match=f"^attention {asked} was asked for, and .* has momentum-normalised of its own; what works is",
        ):
            Further(lm=lm, kind=kind_of(asked))
    with pytest.raises(ModelError, match=r"^eta 0\.9 was asked for, and .* has decays of its own; what works is --eta"):
        Further(lm=lm, kind="momentum-normalised", eta=0.9)


@pytest.mark.parametrize("eta", [0.4, None])
def test_a_decay_of_all_heads_without_a_gate_is_gone_on_with(tiny_lm: LM, eta: float | None) -> None:
    lm, tokens = replace(tiny_lm, momentum=Momentum(decay=torch.full(tiny_lm.value_heads, 0.4))), texts(tiny_lm)
    own = Further(lm=lm, kind="momentum", eta=eta)
    assert logprobs(own, own.start(), tokens) == pytest.approx(scored(lm, tokens), abs=1e-4)


def test_gates_and_decays_are_no_matrices(tiny_lm: LM) -> None:
    """Weight decay, where it is that of matrices, would draw them to 0."""
    found = Further(lm=tiny_lm, kind="momentum").start()
    assert [found[name].ndim for name in ("momentum.gate", "momentum.decay")] == [1, 1]


def test_a_gate_learns_and_the_model_is_left_as_it_was(tiny_lm: LM) -> None:
    before = {name: own.clone() for name, own in tiny_lm.model.named_parameters()}
    own = Further(lm=tiny_lm, kind="momentum")
    weights = {name: tensor.requires_grad_(True) for name, tensor in own.start().items()}
    own.head(weights, own.reads(weights, texts(tiny_lm))).logsumexp(-1).sum().backward()
    assert weights["momentum.gate"].grad is not None
    assert (weights["momentum.gate"].grad != 0).all()
    # Of a closed gate the decay makes no difference yet.
    assert weights["momentum.decay"].grad is None or not weights["momentum.decay"].grad.any()
    assert all(weights[name].grad is not None for name in before)
    assert all(torch.equal(own, before[name]) for name, own in tiny_lm.model.named_parameters())


@pytest.mark.parametrize("kind", [None, *KINDS])
@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_texts_in_parts_are_known_as_a_whole(name: str, kind: Kind | None) -> None:
    lm = zoo.lm(name)
    own, tokens = Further(lm=lm, kind=kind), texts(lm)
    weights, past, found = {name: tensor.double() for name, tensor in opened(own).items()}, None, []
    with zoo.Pure64():
        whole = own.reads(weights, tokens)
        for part in tokens.split([9, 1, 1, 4, 5], dim=1):
            before, (known, past) = past, own.goes_on(weights, part, past)
            found.append(known)
        again, _ = own.goes_on(weights, part, before)
    assert (torch.cat(found, dim=1) - whole).abs().max() < 1e-9
    assert torch.equal(again, known)


@pytest.mark.parametrize("kind", [None, *KINDS])
def test_what_is_saved_is_opened_and_says_the_same(tiny_lm: LM, kind: Kind | None, tmp_path: Path) -> None:
    own = Further(lm=tiny_lm, kind=kind)
    weights = {name: tensor * 1.1 for name, tensor in opened(own).items()}
    # What a run that was stopped has left is written over; what is not ours is not.
    for _ in range(2):
        own.save(weights, tmp_path / "model")
    lm = load_model(str(tmp_path / "model"), dtype="float32", device="cpu")
    tokens = texts(lm)
    assert (None if lm.momentum is None else lm.momentum.kind) == kind
    assert scored(lm, tokens) == pytest.approx(logprobs(own, weights, tokens), abs=1e-4)


def test_a_model_whose_attention_is_out_of_reach_is_refused(tiny_lm: LM) -> None:
    lm = replace(tiny_lm, route=Route("rows", "recurrent layers"))
    with pytest.raises(ModelError, match="no attention that momentum could be added to"):
        Further(lm=lm, kind="momentum")
    assert Further(lm=lm).momentum_of({}) is None


def test_a_folder_that_holds_something_else_is_left_alone(tiny_lm: LM, tmp_path: Path) -> None:
    own = Further(lm=tiny_lm)
    own.save(own.start(), tmp_path / "model")
    (tmp_path / "model" / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="something else"):
        own.save(own.start(), tmp_path / "model")
    assert (tmp_path / "model" / "notes.txt").read_text() == "mine"
