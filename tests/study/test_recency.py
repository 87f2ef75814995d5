"""What hangs on a token: against differences by hand, and a network that sees five tokens sees no sixth."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from kshot.model.lm import LM
from kshot.seeds import torch_stream
from kshot.study.pretrain.plan import PLANS, Arm, further
from kshot.study.pretrain.recency import influence
from kshot.synth.networks.language import WINDOW
from kshot.synth.networks.mixing import Shape

PLAN = replace(PLANS["smoke"], context=12, shape=Shape(layers=2, heads=2, width=16, spread=None))
TEXTS = torch.randint(20, (3, 12), generator=torch_stream(0, "texts"))


def grown(network: str, **more: str | float) -> tuple:
    language = Arm(network=network, **more).language(20, PLAN)
    return language, {name: own.double() for name, own in language.start(torch_stream(0, "start")).items()}


@pytest.mark.parametrize("network", ["llama", "transformer", "lstm"])
def test_shares_are_those_of_small_changes(network: str) -> None:
    language, weights = grown(network)
    found = influence(language, weights, TEXTS, 5)
    assert found.sum(axis=1) == pytest.approx(np.ones(3))
    along = torch.randn(16, generator=torch_stream(5, "influence")).double()
    table, places = weights["embedding"], torch.arange(12)[None]

    def said(own: torch.Tensor) -> float:
        return float(language.reads({**weights, "embedding": own}, places, None)[0, -1] @ along)

    begin, slow = table[TEXTS[0]], torch.zeros(12, 16, dtype=torch.float64)
    for i in range(12):
        for j in range(16):
            step = torch.zeros(12, 16, dtype=torch.float64)
            step[i, j] = 1e-5
            slow[i, j] = (said(begin + step) - said(begin - step)) / 2e-5
    norms = slow.norm(dim=1).flip(0)
    assert found[0] == pytest.approx((norms / norms.sum()).numpy(), rel=1e-4)


def test_of_a_model_that_is_trained_further_it_is_the_same_as_of_its_like(tiny_lm: LM) -> None:
    own = further(Arm(network="llama"), tiny_lm)
    weights = own.start(torch_stream(0, "start"))
    texts = torch.randint(3, 50, (2, 9), generator=torch_stream(0, "texts"))
    found = influence(own, weights, texts, 0)
    assert found.sum(axis=1) == pytest.approx(np.ones(2), abs=1e-6)
    rows = weights[own.table][texts[0]][None].clone().requires_grad_(True)
    known = tiny_lm.model.base_model(inputs_embeds=rows, use_cache=False).last_hidden_state[0, -1]
    along = torch.randn(rows.shape[2], generator=torch_stream(0, "influence")).to(rows)
    norms = torch.autograd.grad(known @ along, rows)[0][0].double().norm(dim=1).flip(0)
    assert found[0] == pytest.approx((norms / norms.sum()).numpy(), rel=1e-3)


def test_what_is_out_of_the_window_is_not_seen() -> None:
    found = influence(*grown("neural-ngram"), TEXTS, 0)
    assert (found[:, WINDOW:] == 0).all()
    assert (found[:, :WINDOW] > 0).all()


def test_momentum_of_a_small_decay_sees_what_is_near() -> None:
    near, far = (
        influence(*grown("attention-only", attention="momentum", eta=eta), TEXTS, 0)[:, 1:4].sum()
        for eta in (0.3, 0.95)
    )
    assert near > far
