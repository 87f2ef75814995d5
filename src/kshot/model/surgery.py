"""Demonstrations read otherwise than one after another: apart, with pieces of another text, or moved to other places.

Interventions on what a query sees. Each gives a Prefix that no text has, and says so: its ``tokens`` are None.
"""

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from kshot.errors import ModelError
from kshot.model.attention import Before, Pass
from kshot.model.delta import alone
from kshot.model.lm import LM
from kshot.model.prefix import EMPTY, Prefix
from kshot.model.trace import attention_modules

Tokens = Sequence[int]
Owner = Int[np.ndarray, "t"]
"""For each token the place of its demonstration, -1 for none (``demonstrations.demonstration_of_tokens``)."""

# How far a key that was turned may lie from one that was read there, as a share of its length.
_TURNED = 1e-4


def read_through(lm: LM, tokens: Tokens) -> Prefix:
    """The prefix of a text as the model reads it, each token seeing all before it. ModelError where none can be kept."""
    _own_attention(lm)
    with torch.no_grad():
        return replace(lm.prefill(tuple(tokens)), tokens=None)


def read_apart(lm: LM, tokens: Tokens, owner: Owner) -> Prefix:
    """The same tokens at the same positions, but no demonstration sees another.

    Each sees itself and what stands before the first. ModelError where the model reads sequences whole.
    """
    _own_attention(lm)
    assert (np.diff(owner) >= 0).all(), "demonstrations stand one after another, and what is of none before them"
    end = np.full(len(tokens), len(tokens))
    for one in range(int(owner.max(initial=-1)) + 1):
        end[owner == one] = np.flatnonzero(owner == one).max(initial=-1) + 1
    current = Pass((Before(EMPTY, 0, len(tokens)),), np.arange(len(tokens)), end, captured={})
    with torch.no_grad():
        lm.forward(np.array(tokens), current, np.arange(0))
    return _captured(current)


def grafted(prefix: Prefix, donor: Prefix, at: Sequence[int]) -> Prefix:
    """``prefix`` with the keys and values of ``donor`` at these positions."""
    assert prefix.length == donor.length, f"{prefix.length} positions and {donor.length} do not lie over each other"
    where = torch.tensor(list(at), dtype=torch.long)

    def with_pieces(own: Tensor, other: Tensor) -> Tensor:
        return own.index_copy(2, where.to(own.device), other[:, :, where.to(own.device)])

    return Prefix(
        keys=tuple(with_pieces(*pair) for pair in zip(prefix.keys, donor.keys, strict=True)),
        values=tuple(with_pieces(*pair) for pair in zip(prefix.values, donor.values, strict=True)),
    )


def moved(lm: LM, prefix: Prefix, owner: Owner, order: Sequence[int]) -> Prefix:
    """``prefix`` as though its demonstrations stood in another order, each with what it read where it really stood.

    Demonstration ``order[j]`` comes to stand j-th: its keys are turned to the positions there. Only rotary positions
    can be turned; ModelError where a model's are none.
    """
    count = int(owner.max(initial=-1)) + 1
    assert sorted(order) == list(range(count)), f"{list(order)} is no order of {count} demonstrations"
    slots = np.flatnonzero(owner >= 0)
    taken = np.concatenate([np.flatnonzero(owner == one) for one in order]) if count else slots
    source = np.arange(prefix.length)
    source[slots] = taken
    by = np.arange(prefix.length) - source
    where = torch.from_numpy(source)
    keys = turned(lm, tuple(key[:, :, where.to(key.device)] for key in prefix.keys), by)
    return Prefix(keys, tuple(value[:, :, where.to(value.device)] for value in prefix.values))


def turned(lm: LM, keys: tuple[Float[Tensor, "1 g t d"], ...], by: Int[np.ndarray, "t"]) -> tuple[Tensor, ...]:
    """Keys after rotary positions as they would be so many positions further on (or back), in every layer.

    What a layer turns by is taken from the layer itself. ModelError where a lone token's keys, which depend on its
    position by that turn only, do not come out so: then positions are no turn, or not all of it.
    """
    _own_attention(lm)
    _turns_alike(lm)
    return _turned(lm, keys, by)


def _turned(lm: LM, keys: tuple[Tensor, ...], by: np.ndarray) -> tuple[Tensor, ...]:
    # Most tokens are turned by one and the same angle: each is asked for once.
    distinct, which = np.unique(by, return_inverse=True)
    turns, found = _turns(lm, distinct), []
    for layer, (module, key) in enumerate(zip(attention_modules(lm).values(), keys, strict=True)):
        turn = getattr(sys.modules[type(module).__module__], "apply_rotary_pos_emb", None)
        if turn is None or layer not in turns:
            raise ModelError(f"keys of {lm.name} cannot be moved: layer {layer} takes no rotary positions")
        cosine, sine = (part[:, which].to(key.dtype) for part in turns[layer])
        # Of some models only the first numbers of a head are turned.
        width = cosine.shape[-1]
        own = key[..., :width]
        found.append(torch.cat([turn(own, own, cosine, sine)[1], key[..., width:]], dim=-1))
    return tuple(found)


def _turns(lm: LM, by: np.ndarray) -> dict[int, tuple[Tensor, Tensor]]:
    """Cosine and sine that each layer is handed for these positions; every token is a text of its own."""
    found: dict[int, tuple[Tensor, Tensor]] = {}

    def watch(layer: int) -> Any:
        def kept(module: nn.Module, args: Any, given: dict[str, Any]) -> None:
            if isinstance(pair := given.get("position_embeddings"), tuple):
                found[layer] = pair

        return kept

    apart = Pass((Before(EMPTY, 0, len(by)),), by, np.arange(len(by)) + 1)
    modules = attention_modules(lm)
    with alone(lm.model), ExitStack() as stack, torch.no_grad():
        for layer, module in modules.items():
            stack.callback(module.register_forward_pre_hook(watch(layer), with_kwargs=True).remove)
        lm.forward(np.zeros(len(by), dtype=np.int64), apart, np.arange(0))
    return found


def _turns_alike(lm: LM) -> None:
    """ModelError where turning keys does not move them: tried on the first token of the vocabulary."""
    near, far = (_alone(lm, position) for position in (3, 40))
    for layer, (own, there) in enumerate(zip(_turned(lm, near, np.array([37])), far, strict=True)):
        off = float((own - there).norm() / there.norm().clamp_min(1e-12))
        if off > max(_TURNED, 16 * torch.finfo(lm.dtype).eps):
            raise ModelError(
                f"keys of {lm.name} cannot be moved to other positions: turned in layer {layer} they are off by {off:.1g}"
            )


def _alone(lm: LM, position: int) -> tuple[Tensor, ...]:
    """The keys of a token that sees itself only, in every layer."""
    current = Pass((Before(EMPTY, 0, 1),), np.array([position]), np.ones(1, dtype=np.int64), captured={})
    with torch.no_grad():
        lm.forward(np.zeros(1, dtype=np.int64), current, np.arange(0))
    return _captured(current).keys


def _captured(current: Pass) -> Prefix:
    kept = current.captured or {}
    return Prefix(tuple(kept[layer][0] for layer in sorted(kept)), tuple(kept[layer][1] for layer in sorted(kept)))


def _own_attention(lm: LM) -> None:
    if lm.route.kind == "rows":
        raise ModelError(f"{lm.name} reads every sequence whole ({lm.route.reason}): nothing in it can be moved")
    if lm.momentum is not None and lm.momentum.kind == "momentum-keys":
        raise ModelError(f"keys of {lm.name} hold those of the tokens before them: nothing in it can be moved")
