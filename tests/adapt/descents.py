"""What the tests of one pass and of the layer-causal one share: demonstrations, slow queries by hand, faults to plant."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from kshot.adapt import descent
from kshot.adapt.descent import Descended
from kshot.data.task import Example, Task
from kshot.data.template import Template
from kshot.errors import KshotError, MethodError
from kshot.model.lm import LM
from kshot.model.load import frozen
from kshot.model.sources import Source
from kshot.model.tiny import tiny_model

TEMPLATE = Template(input="a: {{text}}\nb:", words={"x": "up", "y": "down"})
SHOWN = tuple(
    Example(id=str(i), fields={"text": text}, label=label)
    for i, (text, label) in enumerate([("one", "x"), ("three", "y"), ("on", "y")])
)
TASK = Task(name="made", kind="classification", labels=("x", "y"), train=SHOWN, test=SHOWN[:1], template=TEMPLATE)
# Written out by hand: the demonstrations as texts.
TEXTS = ("a: one\nb: up", "a: three\nb: down", "a: on\nb: down")
RATE = 0.02


def tiny64() -> LM:
    """The tiny Llama of bytes in float64."""
    model, tokenizer = tiny_model()
    source = Source(name="tiny", caption="tiny", folder=Path(), kind="directory", hash="0")
    return frozen(model.double(), tokenizer, source)


def tokens_of(lm: LM) -> list[list[int]]:
    return [lm.codec.tokenizer(text, add_special_tokens=False)["input_ids"] for text in TEXTS]


def moved(net: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    return {n: p for n, p in net.named_parameters() if "k_proj" in n or "v_proj" in n}


def assert_same(lm: LM, found: Descended, expected: tuple[dict[str, Tensor], list[float]], bound: float = 1e-9) -> None:
    """The weights, and their changes to the same share of the largest change; the losses."""
    wanted, losses = expected
    before = moved(lm.model)
    assert not found.delta.low_rank
    assert found.delta.dense.keys() == wanted.keys()
    for name, tensor in wanted.items():
        size = float((tensor - before[name]).abs().max())
        # without rotary positions a bias of all keys shifts all scores alike, which a softmax does not see
        assert size > 1e-6 or name.endswith("k_proj.bias"), f"{name} is not moved"
        assert float((found.delta.dense[name] - tensor).abs().max()) <= bound * max(size, 1.0), name
    assert found.losses == pytest.approx(losses, rel=bound)


def heads(rows: Tensor, net: Any) -> Tensor:
    """(t, h * d) -> (h, t, d)."""
    return rows.unflatten(1, (-1, net.config.head_dim)).transpose(0, 1)


def turned(x: Tensor) -> Tensor:
    """Rotary positions by hand: coordinates i and i + d/2 turn by position / 10000^(2i / d)."""
    d, half = x.shape[-1], x.shape[-1] // 2
    rates = 10000.0 ** (-2.0 * torch.arange(half, dtype=torch.float64) / d)
    angle = torch.arange(x.shape[-2], dtype=torch.float64)[:, None] * rates
    one, other = x[..., :half], x[..., half:]
    return torch.cat([one * angle.cos() - other * angle.sin(), other * angle.cos() + one * angle.sin()], dim=-1)


def plain_queries(lm: LM, change: dict[str, Tensor], ids: list[int]) -> np.ndarray:
    """(l, h, t, d) of the bare model with some weights changed: q_proj's words, turned by hand."""
    net = copy.deepcopy(lm.model)
    with torch.no_grad():
        for name, tensor in change.items():
            net.get_parameter(name).copy_(tensor)
        said: list[Tensor] = []
        for layer in net.model.layers:
            layer.self_attn.q_proj.register_forward_hook(lambda m, i, out: said.append(out[0]))
        net(input_ids=torch.tensor([ids]), use_cache=False)
    return np.stack([turned(heads(q, net)).numpy() for q in said])


# --- faults

Fault = Callable[[pytest.MonkeyPatch], None]


def wrong_sign(patch: pytest.MonkeyPatch) -> None:
    sgd = descent.OPTIMISERS["sgd"]

    def uphill(*given: Any) -> Any:
        inner = sgd(*given)
        inner.inner.param_groups[0]["maximize"] = True
        return inner

    patch.setitem(descent.OPTIMISERS, "sgd", uphill)


def other_order(patch: pytest.MonkeyPatch) -> None:
    real = descent.gold_rows
    patch.setattr(descent, "gold_rows", lambda *given, **asked: real(*given, **asked)[::-1])


def keys_only(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(descent, "MOVED", ("k_proj",))


def line(call: Callable[[], object], error: type[KshotError] = MethodError) -> str:
    with pytest.raises(error) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)
