"""What momentum attention adds to attention: a decayed sum of the values before, in work that grows with the length alone.

    MoAttn(V, K, q_t) = Attn(V, K, q_t) + sum_(i < t) eta^(t - i) v_i

The sum is eta times the *velocity* of token t, u_t = sum_(i < t) eta^(t - 1 - i) v_i, which is the buffer of gradient descent
with momentum: u_(t + 1) = eta u_t + v_t. So what stands before a text is known to it by one vector a head. As variants the
sum is a mean, or is one of keys, added to the key of token t before it is attended to.

Source: Dai et al. 2023, section 5; no code of theirs was published.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from kshot.errors import ModelError

Kind = Literal["momentum", "momentum-normalised", "momentum-keys"]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""A sum of values as published, one whose weights add up to one, and a sum of keys."""

MOMENTUM = "kshot_momentum.safetensors"
"""The file beside a model's weights that holds its momentum."""

# Within so many tokens every pair is weighed; measured on heads of width 64, forward and backward (docs/LOG.md).
_BLOCK = 16


@dataclass(frozen=True, slots=True, eq=False)
class Momentum:
    """What every layer of a model has: ``decay`` (l, g), eta in (0, 1) of the values of each key-value head.

    The sum is as published, and grows as 1 / (1 - eta); normalised its weights add up to one, once there is a token before.
    It is added ``gate`` (l, g) times, as it is where there is none: with a gate of 0 a model says what it said.
    """

    decay: Float[Tensor, "l g"]
    gate: Float[Tensor, "l g"] | None = None
    kind: Kind = "momentum"

    @property
    def hash(self) -> str:
        """What it is, in hexadecimal."""
        parts = [own for own in (self.decay, self.gate) if own is not None]
        found = hashlib.sha256(f"{self.kind} {len(parts)}".encode())
        for own in parts:
            found.update(own.detach().cpu().double().numpy().tobytes())
        return found.hexdigest()[:16]

    def added(
        self, velocity: Float[Tensor, "b g t d"], layer: int, before: Int[Tensor, "t"], heads: int
    ) -> Float[Tensor, "b t h d"]:
        """What is added to what so many query heads say; ``before`` is how many tokens stand before each."""
        decay = self.decay[layer]
        each = self._times(layer)[:, None].expand(-1, len(before))
        if self.kind == "momentum-normalised":
            each = each / summed_weights(decay, before.clamp(min=1))
        own = each.to(velocity.dtype)[..., None] * velocity
        return own.repeat_interleave(heads // len(decay), dim=1).transpose(1, 2)

    def moved(self, keys: Float[Tensor, "b g t d"], velocity: Float[Tensor, "b g t d"], layer: int) -> Tensor:
        """Keys with what is added to them, (b, g, t, d)."""
        return torch.addcmul(keys, self._times(layer).to(keys.dtype)[:, None, None], velocity)

    def carried(
        self, keys: Tensor, values: Tensor, layer: int, before: Float[Tensor, "b g d"] | None
    ) -> Float[Tensor, "b g d"]:
        """The velocity past a text of which these keys, ``moved`` where they are, and values are known.

        Of keys: u_(t + 1) = eta u_t + k_t, and k_t is what was moved less what was added to it, gate eta u_t.
        """
        decay = self.decay[layer]
        if self.kind != "momentum-keys":
            return carried(values, decay, before)
        return carried(keys, decay - self._times(layer), before)

    def _times(self, layer: int) -> Float[Tensor, "g"]:
        """How often velocities are added."""
        return self.decay[layer] if self.gate is None else self.decay[layer] * self.gate[layer]


def kind_of(attention: str) -> Kind | None:
    """The kind of momentum of this name; None of attention without."""
    return next((own for own in KINDS if own == attention), None)


def keep_momentum(momentum: Momentum, folder: Path) -> None:
    """Beside a model's weights, as ``kept_momentum`` finds it."""
    tensors = {"decay": momentum.decay} | ({} if momentum.gate is None else {"gate": momentum.gate})
    save_file(
        {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()},
        folder / MOMENTUM,
        metadata={"kind": momentum.kind},
    )


def kept_momentum(folder: Path, device: torch.device) -> Momentum | None:
    """What lies beside a model's weights, if anything; ModelError where it cannot be read."""
    path = folder / MOMENTUM
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name).to(device) for name in file.keys()}  # noqa: SIM118 (no mapping)
            named = file.metadata()["kind"]
            if (kind := kind_of(named)) is None:
                raise KeyError(f"it is of kind {named}")
            return Momentum(decay=tensors["decay"], gate=tensors.get("gate"), kind=kind)
    except (OSError, SafetensorError, KeyError, TypeError) as error:
        raise ModelError(f"{path} holds no momentum ({error}); remove it to read the model without") from error


def velocities(
    values: Float[Tensor, "*b h t d"],
    decay: Float[Tensor, "h"],
    before: Float[Tensor, "*b h d"] | None = None,
    times: Float[Tensor, "h"] | None = None,
) -> Float[Tensor, "*b h t d"]:
    """u_t of every token of a text after a velocity, so many ``times``, differentiable in all four.

    Blocks of tokens are summed within, and what they leave behind is a text of its own with a token a block, whose
    decay is that of a whole block.
    """
    t = values.shape[-2]
    if t <= _BLOCK:
        return _within(values, decay, before, times)
    blocks = _longer(values, -t % _BLOCK).unflatten(-2, (-1, _BLOCK))
    left = torch.einsum("hs,...hnsd->...hnd", _falling(decay, _BLOCK).flip(1).to(values.dtype), blocks)
    begins = velocities(left, decay**_BLOCK, before)
    own = torch.einsum("hts,...hnsd->...hntd", _often(_weights(decay, _BLOCK), times).to(values.dtype), blocks)
    rates = _often(_falling(decay, _BLOCK), times).to(values.dtype)[:, None, :, None]
    return torch.addcmul(own, rates, begins[..., None, :]).flatten(-3, -2)[..., :t, :]


def carried(
    values: Float[Tensor, "*b h t d"], decay: Float[Tensor, "h"], before: Float[Tensor, "*b h d"] | None = None
) -> Float[Tensor, "*b h d"]:
    """The velocity of the token after a text."""
    t = values.shape[-2]
    found = torch.einsum("ht,...htd->...hd", _falling(decay, t).flip(1).to(values.dtype), values)
    return found if before is None else found + (decay**t).to(values.dtype)[:, None] * before


def along_branches(
    values: Float[Tensor, "*b h t d"], ancestors: Sequence[Int[Tensor, "t"]], decay: Float[Tensor, "h"]
) -> Float[Tensor, "*b h t d"]:
    """The same of every node of a forest, which has only its own ancestors before it; ``ancestors`` are those of ``doubled``.

    What is summed over the last 2^k ancestors of a node and of its 2^k-th one is the sum over the last 2^(k + 1).
    """
    if not len(ancestors):
        return torch.zeros_like(values)
    found = _of(values, ancestors[0])
    for k, own in enumerate(ancestors):
        found = found + (decay ** (1 << k)).to(values.dtype)[:, None, None] * _of(found, own)
    return found


def doubled(depth: Int[np.ndarray, "t"]) -> tuple[Int[Tensor, "t"], ...]:
    """The 1st, 2nd, 4th, 8th ... ancestor of every node in depth-first order, t where there is none; as many as any has.

    >>> [own.tolist() for own in doubled(np.array([0, 1, 2, 1]))]
    [[4, 0, 1, 0], [4, 4, 0, 4]]
    """
    t, path = len(depth), list[int]()
    parents = np.full(t + 1, t)
    for node, at in enumerate(depth.tolist()):
        path[at:] = [node]
        if at:
            parents[node] = path[at - 1]
    found = []
    while (parents[:t] < t).any():
        found.append(torch.from_numpy(parents[:t].copy()))
        parents = parents[parents]
    return tuple(found)


def summed_weights(decay: Float[Tensor, "h"], before: Int[Tensor, "t"]) -> Float[Tensor, "h t"]:
    """sum_(i < t) decay^(t - i) of tokens with so many before them: what a normalised sum is divided by; 0 of the first."""
    rate = decay[:, None]
    return -torch.expm1(before * rate.log()) * rate / (1 - rate)


def _longer(values: Float[Tensor, "*b t d"], more: int) -> Float[Tensor, "*b u d"]:
    """Values with so many tokens of zeros after them."""
    return torch.nn.functional.pad(values, (0, 0, 0, more)) if more else values


def _within(values: Tensor, decay: Tensor, before: Tensor | None, times: Tensor | None) -> Tensor:
    t = values.shape[-2]
    own = torch.einsum("hts,...hsd->...htd", _often(_weights(decay, t), times).to(values.dtype), values)
    if before is None:
        return own
    return own + _often(_falling(decay, t), times).to(values.dtype)[:, :, None] * before[..., None, :]


def _often(weights: Float[Tensor, "h *t"], times: Float[Tensor, "h"] | None) -> Float[Tensor, "h *t"]:
    """What every head weighs by, so many times: a few weights, where the values would be many."""
    return weights if times is None else weights * times.view(-1, *[1] * (weights.ndim - 1))


def _weights(decay: Float[Tensor, "h"], t: int) -> Float[Tensor, "h t t"]:
    """decay^(t - 1 - i) of token t and every i before it, else 0."""
    steps = torch.arange(t, device=decay.device)
    apart = steps[:, None] - 1 - steps
    return torch.where(apart >= 0, decay[:, None, None] ** apart.clamp(min=0), 0.0)


def _falling(decay: Float[Tensor, "h"], t: int) -> Float[Tensor, "h t"]:
    """1, decay, decay^2 ... of every head."""
    return decay[:, None] ** torch.arange(t, device=decay.device)


def _of(values: Tensor, nodes: Tensor) -> Tensor:
    """The values of these nodes; 0 of the one after the last."""
    return _longer(values, 1).index_select(-2, nodes)
