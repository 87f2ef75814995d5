"""Attention to a shared prefix and to one's own branch, apart, merged by log-sum-exp. No dense mask, no copy of the prefix.

A query's softmax over [prefix ; own] is a convex mix of the softmaxes over each part, with weights proportional to
the sums of exponentials. So the prefix part needs no mask at all, and neither does a long path within the pack that many
nodes stand after; the rest is a batch of small blocks of whole branches: the work on a pack grows linearly in its
length. CPU only: it rests on the one flash kernel that returns the log-sum-exp and takes grouped heads as they are.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from kshot.model.tree import runs

_FLASH = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_FLASH_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward

# Measured on heads of width 64: shorter blocks starve the kernel, longer ones spend their time on masked pairs.
BLOCK = 64
# So many nodes read what they all stand after in a call of its own, if that is so long.
STRETCH, PATH = 256, 64


@dataclass(frozen=True, slots=True, eq=False)
class Own:
    """The own part of a pack: its nodes as blocks of queries, each with the keys they can see.

    A block is a run of nodes in depth-first order; its keys are the run itself and the ancestors of its first node
    (whoever stands before the run and is seen from within it is an ancestor of its first node), but for those of a
    path, which is read apart. Blocks are padded to
    common lengths, group after group; an empty slot repeats node 0. ``queries`` and ``keys`` name the node in every
    slot, ``real_queries`` and ``real_keys`` are 1 where it is not an empty one, ``slot_of`` is the query slot of every
    node. A pack that is a single path has no groups: the plain causal kernel serves it.
    """

    queries: Int[Tensor, "s"]
    keys: Int[Tensor, "u"]
    real_queries: Float[Tensor, "s"]
    real_keys: Float[Tensor, "u"]
    slot_of: Int[Tensor, "t"]
    groups: tuple["Group", ...]
    paths: tuple["Path", ...] = ()

    def to(self, number: torch.dtype) -> "Own":
        """The same with its masks and marks in another number format."""
        if self.real_keys.dtype == number:
            return self
        groups = tuple(replace(group, mask=group.mask.to(number)) for group in self.groups)
        return replace(
            self, real_queries=self.real_queries.to(number), real_keys=self.real_keys.to(number), groups=groups
        )


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Blocks of one size, from these query and key slots on, with their additive mask (blocks, 1, queries, keys)."""

    first_query: int
    first_key: int
    mask: Float[Tensor, "b 1 s u"]

    def query_block(self, slots: Tensor) -> Tensor:
        """(s, h, d) -> (b, h, t, d): the query slots of every block."""
        count, _, length, _ = self.mask.shape
        return _block(slots, self.first_query, count, length)

    def key_block(self, slots: Tensor) -> Tensor:
        """The same for key slots."""
        count, _, _, length = self.mask.shape
        return _block(slots, self.first_key, count, length)


@dataclass(frozen=True, slots=True, eq=False)
class Path:
    """Nodes that stand before all nodes from ``begin`` up to ``stop``: their common ancestors, from the first one on."""

    nodes: Int[Tensor, "a"]
    begin: int
    stop: int


def own_part(depth: np.ndarray, end: np.ndarray, dtype: torch.dtype) -> Own:
    """Every node in exactly one block, each block with all that its nodes can see."""
    nothing, none = torch.empty(0, dtype=torch.long), torch.empty(0, dtype=dtype)
    if (end == len(end)).all():
        return Own(nothing, nothing, none, none, nothing, ())
    paths, blocks = _stretches(depth, end)
    by_size: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {}
    for run, keys in blocks:
        # Few sizes, so that one call serves many blocks; close ones while they are small, to waste little.
        size = -(-len(keys) // 32) * 32 if len(keys) <= 4 * BLOCK else 1 << (len(keys) - 1).bit_length()
        by_size.setdefault(size, []).append((run, keys))
    queries: list[np.ndarray] = []
    key_slots: list[np.ndarray] = []
    slot_of = np.zeros(len(end), dtype=np.int64)
    groups: list[Group] = []
    asked = known = 0
    for _, members in sorted(by_size.items()):
        tall, wide = max(len(run) for run, _ in members), max(len(keys) for _, keys in members)
        seen = np.zeros((len(members), tall, wide), dtype=bool)
        index = np.full((len(members), tall), -1)
        places = np.full((len(members), wide), -1)
        for row, (run, keys) in enumerate(members):
            index[row, : len(run)], places[row, : len(keys)] = run, keys
            slot_of[run] = asked + row * tall + np.arange(len(run))
            seen[row, : len(run), : len(keys)] = (keys <= run[:, None]) & (run[:, None] < end[keys])
            # A row without any visible key has no softmax.
            seen[row, len(run) :, 0] = True
        mask = torch.zeros(seen.shape, dtype=dtype).masked_fill_(torch.from_numpy(~seen), float("-inf"))
        groups.append(Group(asked, known, mask[:, None]))
        queries.append(index.ravel())
        key_slots.append(places.ravel())
        asked, known = asked + index.size, known + places.size
    q, k = (torch.from_numpy(np.concatenate(parts)) for parts in (queries, key_slots))
    real_queries, real_keys = (q >= 0).to(dtype), (k >= 0).to(dtype)
    slots = torch.from_numpy(slot_of)
    return Own(q.clamp(min=0), k.clamp(min=0), real_queries, real_keys, slots, tuple(groups), tuple(paths))


def _stretches(depth: np.ndarray, end: np.ndarray) -> tuple[list[Path], list[tuple[np.ndarray, np.ndarray]]]:
    """The long paths that stretches of the pack stand after, and for every block its nodes and its other keys."""
    paths: list[Path] = []
    blocks: list[tuple[np.ndarray, np.ndarray]] = []
    for first, last in runs(depth, length=STRETCH):
        shared = np.flatnonzero(end[:first] >= last)
        if len(shared) < PATH:
            shared = shared[:0]
        else:
            paths.append(Path(torch.from_numpy(shared), first, last))
        for begin, stop in runs(depth[first:last], length=BLOCK):
            run = np.arange(first + begin, first + stop)
            before = np.flatnonzero(end[: run[0]] > run[0])
            # Ancestors of a block in depth-first order: those that the whole stretch shares come first.
            blocks.append((run, np.concatenate([before[len(shared) :], run])))
    return paths, blocks


@dataclass(frozen=True, slots=True, eq=False)
class Far:
    """Keys and values (1, g, p, d) that stand before the nodes from ``begin`` up to ``stop``, and are seen by them alone."""

    keys: Tensor
    values: Tensor
    begin: int
    stop: int


def merged_attention(
    query: Float[Tensor, "1 h t d"],
    key: Float[Tensor, "1 g t d"],
    value: Float[Tensor, "1 g t d"],
    far: Sequence[Far],
    own: Own,
    scale: float,
) -> Float[Tensor, "1 t h d"]:
    """softmax(scale q [prefix keys ; own keys]^T) [prefix values ; own values], each node seeing its own ancestors only.

    Differentiable in all tensors. Equals the dense computation up to rounding (float64: 1e-15).
    """
    of_paths = [
        Far(key.index_select(2, path.nodes), value.index_select(2, path.nodes), path.begin, path.stop)
        for path in own.paths
    ]
    far = (*far, *of_paths)
    tensors = [tensor for one in far for tensor in (one.keys, one.values)]
    return _Merged.apply(query, key, value, own, scale, [(one.begin, one.stop) for one in far], *tensors)


class _Merged(torch.autograd.Function):
    """The kernel's own backward ignores the gradient of the log-sum-exp, so differentiating through the merge would be
    silently wrong. Given the merged output and the merged log-sum-exp, the same backward is exact for each part."""

    @staticmethod
    def forward(ctx, query, key, value, own, scale, spans, *far):  # type: ignore[no-untyped-def]
        out, lse = _own_forward(query, key, value, own, scale)
        for (begin, stop), keys, values in zip(spans, far[::2], far[1::2], strict=True):
            here = slice(begin, stop)
            seen, seen_lse = _FLASH(query[:, :, here], keys, values, 0.0, False, scale=scale)
            weight = torch.sigmoid(seen_lse - lse[:, :, here])[..., None]
            mixed = torch.lerp(out[:, :, here].to(weight.dtype), seen.to(weight.dtype), weight).to(query.dtype)
            both = torch.logaddexp(lse[:, :, here], seen_lse)
            if stop - begin == query.shape[2]:
                out, lse = mixed, both
            else:
                out[:, :, here], lse[:, :, here] = mixed, both
        if any(ctx.needs_input_grad):
            ctx.save_for_backward(query, key, value, out, lse, *far)
            ctx.own, ctx.scale, ctx.spans = own, scale, spans
        return out.transpose(1, 2)

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        query, key, value, out, lse, *far = ctx.saved_tensors
        # The kernel's backward in 16 bits takes four times as long as in float32, and rounds more.
        number = torch.promote_types(query.dtype, torch.float32)
        wide = [tensor.to(number) for tensor in (grad.transpose(1, 2), query, key, value, out)]
        grad, query, key, value, out = wide
        of_query, of_key, of_value = _own_backward(grad, (query, key, value), (out, lse), ctx.own.to(number), ctx.scale)
        of_far = []
        for (begin, stop), keys, values in zip(ctx.spans, far[::2], far[1::2], strict=True):
            g, q, o, s = (tensor[:, :, begin:stop] for tensor in (grad, query, out, lse))
            part = _FLASH_BACKWARD(g, q, keys.to(number), values.to(number), o, s, 0.0, False, scale=ctx.scale)
            of_query[:, :, begin:stop] += part[0]
            of_far += [part[1].to(keys.dtype), part[2].to(values.dtype)]
        own = (of_query, of_key, of_value)
        return *(tensor.to(ctx.saved_tensors[0].dtype) for tensor in own), None, None, None, *of_far


def _rows(tensor: Tensor, nodes: Tensor) -> Tensor:
    """(1, h, t, d) -> (s, h, d): one row a slot."""
    by_node = tensor[0].transpose(0, 1)
    return by_node.reshape(len(by_node), -1).index_select(0, nodes).unflatten(1, (tensor.shape[1], -1))


def _block(slots: Tensor, first: int, count: int, length: int) -> Tensor:
    return slots[first : first + count * length].unflatten(0, (count, length)).transpose(1, 2)


def _flat(parts: list[Tensor]) -> Tensor:
    """Blocks (b, h, t, d) of every group -> (s, h d): one row a slot."""
    rows = [part.transpose(1, 2).reshape(part.shape[0] * part.shape[2], -1) for part in parts]
    return rows[0] if len(rows) == 1 else torch.cat(rows)


def _to_nodes(parts: list[Tensor], own: Own) -> Tensor:
    """Blocks of query slots -> (1, h, t, d) in the order of the nodes."""
    return _flat(parts).index_select(0, own.slot_of).unflatten(1, (parts[0].shape[1], -1)).transpose(0, 1)[None]


def _sum_to_nodes(parts: list[Tensor], own: Own) -> Tensor:
    """Blocks of key slots -> (1, h, t, d): what a node receives from all blocks in which it is a key."""
    flat = _flat(parts) * own.real_keys[:, None]
    total = flat.new_zeros(len(own.slot_of), flat.shape[1]).index_add_(0, own.keys, flat)
    return total.unflatten(1, (parts[0].shape[1], -1)).transpose(0, 1)[None]


def _own_forward(query: Tensor, key: Tensor, value: Tensor, own: Own, scale: float) -> tuple[Tensor, Tensor]:
    if not own.groups:
        return _FLASH(query, key, value, 0.0, True, scale=scale)
    q, k, v = _rows(query, own.queries), _rows(key, own.keys), _rows(value, own.keys)
    parts = []
    for group in own.groups:
        blocks = group.query_block(q), group.key_block(k), group.key_block(v)
        parts.append(_FLASH(*blocks, 0.0, False, attn_mask=group.mask, scale=scale))
    return _to_nodes([out for out, _ in parts], own), _to_nodes([lse[..., None] for _, lse in parts], own)[..., 0]


def _own_backward(
    grad: Tensor, inputs: tuple[Tensor, ...], merged: tuple[Tensor, Tensor], own: Own, scale: float
) -> tuple[Tensor, ...]:
    (query, key, value), (out, lse) = inputs, merged
    if not own.groups:
        return _FLASH_BACKWARD(grad, *inputs, out, lse, 0.0, True, scale=scale)
    # Empty slots repeat a real node: their share of the gradient must be nothing.
    incoming = _rows(grad, own.queries) * own.real_queries[:, None, None]
    q, o, s = _rows(query, own.queries), _rows(out, own.queries), _rows(lse[..., None], own.queries)
    k, v = _rows(key, own.keys), _rows(value, own.keys)
    parts = []
    for group in own.groups:
        g, qb, ob, sb = (group.query_block(t) for t in (incoming, q, o, s))
        kb, vb = group.key_block(k), group.key_block(v)
        parts.append(_FLASH_BACKWARD(g, qb, kb, vb, ob, sb[..., 0], 0.0, False, attn_mask=group.mask, scale=scale))
    dq, dk, dv = (list(of_one) for of_one in zip(*parts, strict=True))
    return _to_nodes(dq, own), _sum_to_nodes(dk, own), _sum_to_nodes(dv, own)
