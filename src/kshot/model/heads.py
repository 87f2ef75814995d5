"""Attention heads: which of them copy what came after the same token before, and a model without some of them."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from kshot.errors import ModelError
from kshot.model.delta import Delta
from kshot.model.lm import LM
from kshot.model.trace import attention_modules, traced
from kshot.model.vocabulary import size, special
from kshot.seeds import stream

Head = tuple[int, int]
"""A layer and a head in it."""

# Random tokens that are read twice over, and how many such texts.
_LENGTH, _TEXTS = 40, 4


def induction_scores(lm: LM, seed: int = 0) -> Float[np.ndarray, "l h"]:
    """How much each head attends from a token to the one that followed the same token before, in [0, 1].

    Random tokens are read twice over; of every token of the second time the weight on what came after it the first
    time is meant over positions and texts (prefix matching, Olsson et al. 2022). ModelError where heads cannot be traced.
    """
    rng = stream(seed, "induction", lm.hash)
    ordinary = np.array(sorted(set(range(size(lm))) - special(lm)))
    found = []
    for _ in range(_TEXTS):
        tokens = rng.choice(ordinary, size=min(_LENGTH, len(ordinary)), replace=False).tolist()
        first, n = len(lm.codec.first), len(tokens)
        text = (*lm.codec.first, *tokens, *tokens)
        # From the second occurrence of token i to the first one of token i + 1.
        at = [first + n + i for i in range(n - 1)]
        (trace,) = traced(lm, [text], [at])
        weights = trace.weights
        found.append(np.mean([weights[:, :, i, first + i + 1] for i in range(n - 1)], axis=0))
    return np.mean(found, axis=0)


def without_heads(lm: LM, heads: Iterable[Head]) -> LM:
    """The model with these heads saying nothing: their columns of the output projection are nought, and of a low-rank
    change of it too.

    The weights of the model are not touched. ModelError for a head that there is not, and where no projection can be
    told that reads all heads.
    """
    by_layer: dict[int, list[int]] = {}
    for layer, head in heads:
        by_layer.setdefault(layer, []).append(head)
    if not by_layer:
        return lm
    if lm.route.kind == "rows":
        raise ModelError(f"{lm.name} reads every sequence whole ({lm.route.reason}): its heads cannot be told apart")
    names = {id(module): name for name, module in lm.model.named_modules()}
    modules = attention_modules(lm)
    (trace,) = traced(lm, [(0, 1)], [[-1]])
    _, count, _, width = trace.heads.shape
    dense: dict[str, Tensor] = dict(lm.delta.dense)
    thin = dict(lm.delta.low_rank)
    for layer, own in by_layer.items():
        for head in own:
            if layer not in modules or not 0 <= head < count:
                raise ModelError(
                    f"head {head} of layer {layer} was asked for, and {lm.name} has {len(modules)} layers of {count} "
                    "heads; both count from 0"
                )
        columns = [at for head in own for at in range(head * width, (head + 1) * width)]
        name, projection = _projection(lm, modules[layer], count * width)
        path = f"{names[id(modules[layer])]}.{name}"
        weight = dense.get(f"{path}.weight", projection.weight).detach().clone()
        weight[(columns,) if isinstance(projection, Conv1D) else (slice(None), columns)] = 0
        dense[f"{path}.weight"] = weight
        if path in thin:
            down = thin[path].down.detach().clone()
            down[:, columns] = 0
            thin[path] = replace(thin[path], down=down)
    return replace(lm, delta=Delta(low_rank=thin, dense=dense))


def _projection(lm: LM, module: nn.Module, inputs: int) -> tuple[str, Any]:
    """The layer through which a module's heads speak, by name: the one that reads as many numbers as all of them say."""
    reads = {
        name: child
        for name, child in module.named_children()
        if isinstance(child, nn.Linear | Conv1D) and _inputs(child) == inputs
    }
    # A projection of queries may read as many; the one that speaks is said last.
    speaking = [name for name in reads if name in ("o_proj", "out_proj", "c_proj", "dense", "attention.dense")]
    if len(speaking) != 1:
        raise ModelError(
            f"{lm.name}: no one layer through which all heads speak was found among {', '.join(reads) or 'none'}; "
            "heads can be left out of models laid out as Llama or GPT-2 is"
        )
    return speaking[0], reads[speaking[0]]


def _inputs(layer: nn.Linear | Conv1D) -> int:
    return int(layer.weight.shape[0] if isinstance(layer, Conv1D) else layer.in_features)
