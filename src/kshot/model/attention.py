"""The one place where the laboratory touches a model: an attention function and a mask function, chosen per call.

``install`` names ours in the model's configuration, once, at load. Without a ``Pass`` in force both hand over to the
functions the model came with, bit for bit. With one, a row of tokens is a pack of branches after a prefix: the mask
function takes each layer type's own rule (causal, sliding, chunked) and applies it to logical positions, the attention
function adds the prefix and honours scaling, grouped heads, caps and sinks by handing what it cannot merge to the
model's own function with a dense mask.
"""

import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, causal_mask_function
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from kshot.model.merge import Far, Own, merged_attention, own_part
from kshot.model.momentum import Momentum, along_branches, carried, doubled, velocities
from kshot.model.prefix import Prefix
from kshot.model.tree import ancestors_or_self


@dataclass(frozen=True, slots=True, eq=False)
class Before:
    """A prefix, and the nodes of the pack that stand after it: those from ``begin`` up to ``stop``.

    One that stands after another prefix itself begins ``at`` the position where that one ends, and comes later.
    """

    prefix: Prefix
    begin: int
    stop: int
    at: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Attended:
    """One layer's attention in one pass: the module that asked, what it asked with, and what it was given.

    ``query`` (1, h, t, d), ``key`` and ``value`` (1, g, t, d) are those of the pack's own nodes, after rotary positions;
    ``far`` stands before them; ``mask`` is None, or bool (1, 1, t, p + t): what a node may see where that is not simply
    all before it. ``said`` (1, t, h, d) is the attention's output, heads apart, before the output projection.
    """

    module: nn.Module
    layer: int
    query: Tensor
    key: Tensor
    value: Tensor
    far: tuple[Far, ...]
    mask: Tensor | None
    scale: float
    said: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Pass:
    """One forward call on a pack: where its nodes stand, what stands before them, what is to be kept.

    ``before`` parts the nodes, in order and whole branches at a time, by the prefix that they stand after; one that all
    of them stand after may come first, and others after it. ``depth``
    and ``end`` are the pack's (tree.py); ``captured``, when given, receives each layer's own keys and values, and ``carried``
    what momentum carries past them, of nodes that are one text.
    ``watch`` is shown what goes in and out of every layer's attention. ``merge`` False sends every layer down the dense
    path: the slow, obvious computation.
    """

    before: tuple[Before, ...]
    depth: Int[np.ndarray, "t"]
    end: Int[np.ndarray, "t"]
    captured: dict[int, tuple[Tensor, Tensor]] | None = None
    carried: dict[int, Tensor] = field(default_factory=dict)
    watch: Callable[["Attended"], None] | None = None
    merge: bool = True
    _memo: dict[Any, Any] = field(default_factory=dict)
    calls: list[int] = field(default_factory=list)

    @property
    def positions(self) -> Int[np.ndarray, "t"]:
        """Where every node stands in its own sequence."""
        found = self.depth.copy()
        for one in self.before:
            found[one.begin : one.stop] += one.prefix.length
        return found

    @property
    def places(self) -> Int[np.ndarray, "u"]:
        """Where every key stands in its own sequence: those of the prefixes, one after another, then the nodes'."""
        return np.concatenate([*(one.at + np.arange(one.prefix.length) for one in self.before), self.positions])

    def visible(self, device: torch.device) -> Tensor:
        """(t, p + t) bool: all of one's own prefix, none of the others, and of the pack oneself and one's ancestors."""
        if "visible" not in self._memo:
            own = torch.from_numpy(ancestors_or_self(self.end)).to(device)
            parts = []
            for one in self.before:
                seen = own.new_zeros(len(self.depth), one.prefix.length)
                seen[one.begin : one.stop] = True
                parts.append(seen)
            self._memo["visible"] = torch.cat([*parts, own], dim=1)
        return self._memo["visible"]

    def far(self, layer: int) -> tuple[Far, ...]:
        """The prefixes' keys and values in one layer, with the nodes that see them."""
        return tuple(
            Far(one.prefix.keys[layer], one.prefix.values[layer], one.begin, one.stop)
            for one in self.before
            if one.prefix.length
        )

    def velocity(self, own: Tensor, momentum: Momentum, layer: int) -> Tensor:
        """What momentum carries to every node from its own ancestors and from its own prefix, (1, g, t, d).

        ``own`` are the nodes' values, or their keys where it is of keys.
        """
        first, *rest = self.before
        decay, start = momentum.decay[layer], _start(first.prefix, momentum, layer, own)
        if not rest and np.array_equal(self.depth, np.arange(len(self.depth))):
            if self.captured is not None:
                self.carried[layer] = carried(own, decay, start)
            return velocities(own, decay, start)
        if "ancestors" not in self._memo:
            self._memo["ancestors"] = [nodes.to(own.device) for nodes in doubled(self.depth)]
        if rest and first.stop == len(self.depth):
            parts = rest
            starts = [momentum.carried(one.prefix.keys[layer], one.prefix.values[layer], layer, start) for one in rest]
        else:
            parts, starts = [first, *rest], [start, *(_start(one.prefix, momentum, layer, own) for one in rest)]
        counts = torch.tensor([one.stop - one.begin for one in parts], device=own.device)
        begun = torch.stack(starts, dim=2).repeat_interleave(counts, dim=2)
        falling = decay[:, None] ** torch.from_numpy(self.depth).to(own.device)
        summed = along_branches(own, self._memo["ancestors"], decay)
        return torch.addcmul(summed, falling.to(own.dtype)[..., None], begun)

    def own(self, dtype: torch.dtype) -> Own:
        if dtype not in self._memo:
            self._memo[dtype] = own_part(self.depth, self.end, dtype)
        return self._memo[dtype]


def _start(prefix: Prefix, momentum: Momentum, layer: int, own: Tensor) -> Tensor:
    """What momentum carries past a prefix: one vector a head, (1, g, d)."""
    if not prefix.length:
        return torch.zeros_like(own[:, :, 0])
    if prefix.carried is not None:
        return prefix.carried[layer]
    return momentum.carried(prefix.keys[layer], prefix.values[layer], layer, None)


_PASS: ContextVar[Pass | None] = ContextVar("kshot_pass", default=None)
_MOMENTUM: ContextVar[Momentum | None] = ContextVar("kshot_momentum", default=None)


@contextmanager
def in_force(current: Pass | None) -> Iterator[None]:
    """Within this block, every forward call of an installed model in this thread runs ``current``; None: a plain one."""
    token = _PASS.set(current)
    try:
        yield
    finally:
        _PASS.reset(token)


@contextmanager
def with_momentum(momentum: Momentum | None) -> Iterator[None]:
    """Within this block, attention of an installed model in this thread is momentum attention; None: as it is.

    Without a Pass, rows of a batch are texts from their first token on: what pads them must stand after them.
    """
    token = _MOMENTUM.set(momentum)
    try:
        yield
    finally:
        _MOMENTUM.reset(token)


def install(model: PreTrainedModel) -> None:
    """Route the model's attention through the seam. Its numbers do not change until a Pass is in force."""
    original = str(model.config._attn_implementation or "eager")
    if original.startswith("kshot-"):
        return
    name = f"kshot-{original}"
    if name not in ALL_ATTENTION_FUNCTIONS:
        AttentionInterface.register(name, _attention(original))
        AttentionMaskInterface.register(name, _mask(original))
    model.set_attn_implementation(name)


def keeps_rows(model: PreTrainedModel) -> bool:
    """Whether the model can be told at which positions its head is wanted; one that cannot gives all, on the rows route."""
    return "logits_to_keep" in inspect.signature(model.forward).parameters


def _mask(original: str) -> Any:
    def mask(**asked: Any) -> Any:
        current = _PASS.get()
        if current is None:
            return ALL_MASK_ATTENTION_FUNCTIONS[original](**asked)
        rule = asked["mask_function"]
        if rule is causal_mask_function:
            return None
        device = torch.device(asked["device"])
        own = torch.from_numpy(current.positions).to(device)
        places = torch.from_numpy(current.places).to(device)
        zero = torch.zeros((), dtype=torch.long, device=device)
        visible = current.visible(device)
        allowed = rule(zero, zero, own[:, None], places[None, :]).reshape(visible.shape) & visible
        # A window that nothing here outgrows is no window: the layer may take the fast path.
        return None if torch.equal(allowed, visible) else allowed[None, None]

    return mask


def _attention(original: str) -> Any:
    def attention(module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **asked: Any) -> Any:
        current = _PASS.get()
        key = _moved(key, module, current)
        if current is None:
            given = _own_function(original, module)(module, query, key, value, attention_mask, **asked)
            return _and_momentum(given, module, query, value, None)
        layer = int(module.layer_idx)
        current.calls.append(layer)
        if current.captured is not None:
            current.captured[layer] = (key, value)
        far = current.far(layer)
        scale = asked.get("scaling")
        scale = query.shape[-1] ** -0.5 if scale is None else float(scale)
        if attention_mask is None and current.merge and _mergeable(query, key, value, asked):
            given = merged_attention(query, key, value, far, current.own(query.dtype), scale), None
        else:
            given = _dense(original, module, current, (query, key, value, attention_mask, far), asked)
        given = _and_momentum(given, module, query, value, current)
        if current.watch is not None:
            current.watch(Attended(module, layer, query, key, value, far, attention_mask, scale, given[0]))
        return given

    return attention


def _moved(key: Tensor, module: Any, current: Pass | None) -> Tensor:
    """Keys with the decayed sum of those before added, where momentum is of keys."""
    momentum = _MOMENTUM.get()
    if momentum is None or momentum.kind != "momentum-keys":
        return key
    layer = int(module.layer_idx)
    return momentum.moved(key, _velocity(key, momentum, layer, current), layer)


def _and_momentum(given: Any, module: Any, query: Tensor, value: Tensor, current: Pass | None) -> Any:
    """What attention gave, with the decayed sum of the values before added to what heads say, where momentum is of values.

    Without a Pass a model may go on from a cache: then the values are those of all tokens, and the queries of the last.
    """
    momentum = _MOMENTUM.get()
    if momentum is None or momentum.kind == "momentum-keys":
        return given
    layer, last = int(module.layer_idx), slice(-query.shape[2], None)
    before = np.arange(value.shape[2]) if current is None else current.positions
    velocity = _velocity(value, momentum, layer, current)[:, :, last]
    places = torch.from_numpy(before[last]).to(value.device)
    return given[0] + momentum.added(velocity, layer, places, query.shape[1]), *given[1:]


def _velocity(own: Tensor, momentum: Momentum, layer: int, current: Pass | None) -> Tensor:
    if current is None:
        return velocities(own, momentum.decay[layer])
    return current.velocity(own, momentum, layer)


def _dense(original: str, module: nn.Module, current: Pass, given: Any, asked: dict[str, Any]) -> Any:
    """The model's own function on all keys at once, with a mask that says what every node sees."""
    query, key, value, mask, far = given
    key = torch.cat([*(f.keys for f in far), key], dim=2)
    value = torch.cat([*(f.values for f in far), value], dim=2)
    mask = current.visible(query.device)[None, None] if mask is None else mask
    if original != "sdpa":
        # Eager attention adds its mask to the scores.
        mask = torch.zeros(mask.shape, dtype=query.dtype, device=query.device).masked_fill_(
            ~mask, torch.finfo(query.dtype).min
        )
    return _own_function(original, module)(module, query, key, value, mask, **asked)


# What the merged path knows of, or may ignore because it says nothing that the mask does not say.
_HARMLESS = {"scaling", "dropout", "sliding_window", "position_ids", "cache_position", "use_cache", "is_causal",
             "past_key_values", "layer_idx", "cache", "position_embeddings", "output_attentions", "return_dict",
             "output_hidden_states", "logits_to_keep", "input_ids", "labels", "cu_seq_lens_q", "cu_seq_lens_k"}  # fmt: skip


def _mergeable(query: Tensor, key: Tensor, value: Tensor, asked: dict[str, Any]) -> bool:
    return (
        query.device.type == "cpu"
        and query.shape[0] == 1
        and query.shape[-1] == key.shape[-1] == value.shape[-1]
        and query.shape[1] % key.shape[1] == 0
        and not asked.get("dropout")
        and all(value is None or name in _HARMLESS for name, value in asked.items())
    )


def _own_function(original: str, module: nn.Module) -> Any:
    if original in ALL_ATTENTION_FUNCTIONS:
        return ALL_ATTENTION_FUNCTIONS[original]
    return sys.modules[type(module).__module__].eager_attention_forward  # type: ignore[attr-defined]
