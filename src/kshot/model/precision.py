"""How exactly matrices are multiplied where a float32 model is read."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedModel


@contextmanager
def short_products(model: PreTrainedModel) -> Iterator[None]:
    """Products of a float32 model's linear layers in bfloat16, where a processor has units for them; no others.

    For what is sampled, whose own error is larger: one and a half to two times as fast on such a processor, the same as
    before on another and for other number formats. Sums run in float32, results are rounded to 8 bits before they join
    the float32 stream; attention, norms and the head stay float32, since a rounded logit would be off by as much as a
    demonstration moves it. Holds for this thread until the block ends; meanwhile these weights take half their memory
    again. Gradients go through.
    """
    mode = _Short()
    mode.weights = _shortened(model) if _has_units() else {}
    with mode:
        yield


def _has_units() -> bool:
    """Whether this processor multiplies bfloat16 by itself; emulated it would be slower than float32."""
    known = torch.cpu.get_capabilities()
    return bool(known.get("avx512_bf16") or known.get("amx_bf16"))


def _shortened(model: PreTrainedModel) -> dict[int, tuple[Tensor, Tensor]]:
    """Every weight that is shortened, and itself in 16 bits, by its identity."""
    head = model.get_output_embeddings()
    weights = [m.weight for m in model.modules() if isinstance(m, nn.Linear) and m is not head]
    kept = [weight for weight in weights if weight.dtype == torch.float32 and weight.device.type == "cpu"]
    return {id(weight): (weight, weight.detach().bfloat16()) for weight in kept}


class _Short(TorchFunctionMode):
    """Linear layers of these weights, by identity, are asked in 16 bits; changed weights are others, and read in full."""

    weights: Mapping[int, tuple[Tensor, Tensor]]

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = self.weights.get(id(args[1])) if func is nn.functional.linear and len(args) == 3 else None
        if found is None:
            return func(*args, **(kwargs or {}))
        given, _, bias = args
        product = func(given.bfloat16(), found[1]).to(given.dtype)
        return product if bias is None else product + bias
