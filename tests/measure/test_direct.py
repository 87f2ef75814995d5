"""What demonstrations write at the last prompt token: against central differences of the plain forward, in float64."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
import zoo

from kshot.measure import direct
from kshot.measure.direct import attended_parts, direct_effect, head_slopes, linear_parts
from kshot.model.lm import LM
from kshot.model.trace import traced
from kshot.model.tree import Scored

# A start token, two demonstrations, and a text with two candidates, of one token and of two.
OWNERS = np.array([-1, 0, 0, 0, 1, 1, 1, 1])
SHOWN = (3, 9, 8, 7, 6, 5, 4, 11)
TEXT = (10, 12, 13)
CANDIDATES = (Scored((*TEXT, 14), len(TEXT)), Scored((*TEXT, 15, 16), len(TEXT)))
AT = len(TEXT) - 1


@pytest.fixture(autouse=True)
def pure() -> Iterator[None]:
    with zoo.Pure64():
        yield


def value(lm: LM, gold: int, of: str, layer: int, added: torch.Tensor) -> float:
    """The gold label's log-probability from whole sequences, with something added to what the heads of a layer say."""

    def change(module: Any, given: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        moved = given[0].clone()
        moved[0, len(SHOWN) + AT] += added.flatten()
        return (moved, *given[1:])

    projection = lm.model.model.layers[layer].self_attn.o_proj
    handle, sums = projection.register_forward_pre_hook(change), []
    with torch.no_grad():
        for candidate in CANDIDATES:
            ids = SHOWN + candidate.tokens
            logprobs = lm.model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].log_softmax(-1)
            sums.append(sum(logprobs[i - 1, ids[i]] for i in range(len(SHOWN) + candidate.start, len(ids))))
    handle.remove()
    table = torch.stack(sums)
    return float((table.log_softmax(0) if of == "candidates" else table)[gold])


def slopes_agree(name: str, of: Any = "candidates") -> None:
    lm = zoo.lm(name)
    found = head_slopes(lm, CANDIDATES, lm.prefill(SHOWN), 1, AT, of=of)
    assert len(found) == len(lm.model.model.layers)
    for layer, own in enumerate(found):
        way = torch.randn(own.shape, generator=torch.Generator().manual_seed(layer), dtype=torch.float64)
        step = 1e-5
        rise = value(lm, 1, of, layer, step * way) - value(lm, 1, of, layer, -step * way)
        assert (way.numpy() * own).sum() == pytest.approx(rise / (2 * step), abs=1e-7)
        assert np.abs(own).max() > 1e-3


@pytest.mark.parametrize(("name", "of"), [("llama", "candidates"), ("llama", "sum"), ("qwen3", "candidates")])
def test_slopes_are_those_of_the_plain_forward(name: str, of: str) -> None:
    slopes_agree(name, of)


def test_the_token_beside_it_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    right = direct.paths
    monkeypatch.setattr(direct, "paths", lambda pack: [[0, *path] for path in right(pack)])
    with pytest.raises(AssertionError):
        slopes_agree("llama")


def parts(lm: LM) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Layer by layer: what heads say, what the text and the start token have in it, and both kinds of parts."""
    prefix = lm.prefill(SHOWN)
    (trace,) = traced(lm, [TEXT], [(AT,)], prefix)
    for layer, (keys, values) in enumerate(zip(prefix.keys, prefix.values, strict=True)):
        weights, said = torch.from_numpy(trace.weights[layer, :, 0]), torch.from_numpy(trace.heads[layer, :, 0])
        attended = attended_parts(weights[:, : len(SHOWN)], values[0], OWNERS, 2)
        own = torch.from_numpy(trace.values[layer]).repeat_interleave(len(said) // len(values[0]), 0)
        rest = torch.einsum("ht,htw->hw", weights[:, len(SHOWN) :], own)
        rest += weights[:, :1] * values[0][:, 0].repeat_interleave(len(said) // len(values[0]), 0)
        text = torch.from_numpy(trace.values[layer]), torch.from_numpy(trace.keys[layer])
        query = torch.from_numpy(trace.queries[layer, :, 0])
        yield said, rest, attended, linear_parts(query, said, (values[0], keys[0]), text, OWNERS.tolist())


@pytest.mark.parametrize("name", ["llama", "qwen3"])
def test_parts_of_attention_are_all_that_heads_say(name: str) -> None:
    for said, rest, attended, _ in parts(zoo.lm(name)):
        assert torch.allclose(attended.sum(1) + rest, said, atol=1e-10)


def test_parts_of_the_linear_form_by_loops() -> None:
    lm = zoo.lm("llama")
    prefix = lm.prefill(SHOWN)
    (trace,) = traced(lm, [TEXT], [(AT,)], prefix)
    for layer, (said, _, _, linear) in enumerate(parts(lm)):
        keys, values = prefix.keys[layer][0], prefix.values[layer][0]
        group = len(said) // len(keys)
        for h in range(len(said)):
            q = torch.from_numpy(trace.queries[layer, h, 0])
            terms = [values[h // group, i] * (keys[h // group, i] @ q) for i in range(len(SHOWN))]
            own = zip(trace.values[layer, h // group], trace.keys[layer, h // group], strict=True)
            whole = sum(terms) + sum(torch.from_numpy(v) * (torch.from_numpy(k) @ q) for v, k in own)
            scale = (whole @ said[h]) / (whole @ whole)
            for a in range(2):
                expected = scale * sum(terms[i] for i in np.flatnonzero(a == OWNERS))
                assert torch.allclose(linear[h, a], expected, atol=1e-12)


def test_a_form_that_is_zero_has_no_parts() -> None:
    none = torch.zeros(1, 2, 3, dtype=torch.float64)
    found = linear_parts(none[0], none[0], (none, none), (none, none), [0, 1])
    assert found.shape == (2, 2, 3)
    assert not found.any()


def test_the_effect_by_hand() -> None:
    slopes = np.array([[[[1.0, 2.0]], [[0.0, -1.0]]]])
    # Two layers of one head, two demonstrations.
    own = np.array([[[[[1.0, 0.0], [0.0, 3.0]]], [[[5.0, 1.0], [0.0, 0.0]]]]])
    assert direct_effect(slopes, own).tolist() == [[0.0, 6.0]]
