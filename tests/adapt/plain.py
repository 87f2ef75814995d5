"""The judge of training: the loss of one row after another by the bare model, with nothing of ours between."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import zoo
from torch import Tensor
from torch.func import functional_call
from transformers import DynamicCache
from transformers.pytorch_utils import Conv1D

from kshot.model.tree import Scored


def rows(seed: int, number: int = 7) -> list[Scored]:
    """Ragged rows, some of which begin alike, one of them twice."""
    rng = np.random.default_rng(seed)
    found = [own[int(rng.integers(5))] for own in np.array_split(np.array(zoo.forest(rng, 4, number), object), number)]
    return [*found, found[0], Scored((*found[1].tokens[:3], 9, 8, 7), 4)]


def logits(
    net: torch.nn.Module,
    row: Sequence[int],
    *,
    prompt: Tensor | None = None,
    keys: Sequence[Tensor] = (),
    values: Sequence[Tensor] = (),
    weights: Mapping[str, Tensor] | None = None,
) -> Tensor:
    """(t, v) logits of one row, after a soft prompt (p, e) or keys and values (1, g, p, d), with some other weights."""
    ids, past = torch.tensor([row]), 0
    asked = {"input_ids": ids, "use_cache": False}
    if prompt is not None:
        read = torch.cat([prompt[None], net.get_input_embeddings()(ids)], dim=1)
        asked = {"inputs_embeds": read, "use_cache": False}
    length = len(row) + (0 if prompt is None else len(prompt))
    if keys:
        cache = DynamicCache()
        for layer, (key, value) in enumerate(zip(keys, values, strict=True)):
            cache.update(key, value, layer)
        past = keys[0].shape[2]
        asked |= {"past_key_values": cache, "use_cache": True}
    asked["attention_mask"] = torch.ones(1, past + length, dtype=torch.long)
    asked["position_ids"] = torch.arange(past, past + length)[None]
    out = functional_call(net, dict(weights), (), asked, tie_weights=True) if weights else net(**asked)
    return out.logits[0][-len(row) :]


def loss(net: torch.nn.Module, batch: Sequence[Scored], kl: float = 0.0, **read) -> Tensor:
    """The mean over scored tokens of -log p, and ``kl`` times that of KL(the model as it is || as it reads now)."""
    total, count = torch.zeros((), dtype=torch.float64), 0
    for row in batch:
        now = logits(net, row.tokens, **read).double().log_softmax(-1)
        at = range(row.start, len(row.tokens))
        count += len(at)
        total = total - sum(now[i - 1, row.tokens[i]] for i in at)
        if kl:
            was = logits(net, row.tokens).detach().double().log_softmax(-1)
            total = total + kl * sum((was[i - 1].exp() * (was[i - 1] - now[i - 1])).sum() for i in at)
    return total / count


def with_thin(net: torch.nn.Module, thin: Mapping[str, tuple[Tensor, Tensor]], scale: float) -> dict[str, Tensor]:
    """Whole weights W + scale * up @ down in the place of the linear layers'."""
    found = {}
    for name, (down, up) in thin.items():
        module = net.get_submodule(name)
        change = scale * up @ down
        found[f"{name}.weight"] = module.weight + (change.T if isinstance(module, Conv1D) else change)
    return found


def close(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], bound: float) -> None:
    """Every gradient within ``bound`` of the greatest entry of its own."""
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        size = tensor.abs().max()
        assert size > 0, name
        assert found[name] is not None, f"{name} has no gradient"
        assert (found[name] - tensor).abs().max() <= bound * size, name
