"""How tokens see one another: kinds of mixing with one signature, each with the weights that are its own.

A kind maps the tokens of a layer, (b, t, e), to what is added to them. Attention has queries, keys and values of every
head, (b, h, t, d); state spaces are in ``state_space.py``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from math import log, sqrt

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor, nn

from kshot.model.momentum import summed_weights, velocities

Hidden = Float[Tensor, "b t e"]
Heads = Float[Tensor, "b h t d"]
Asking = Float[Tensor, "b h u d"]
Own = Mapping[str, Tensor]
Kept = tuple[Tensor, ...]
"""What tokens leave for those after them: keys and values of attention."""

# Of a weight at the start, as in GPT-2.
SPREAD = 0.02
# Rotary and sinusoidal positions turn at rates from 1 down to this (Vaswani et al. 2017).
_SLOWEST = 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Layers, heads and width of a network, and the standard deviation of its matrices at the start.

    That is GPT-2's, or 1 / sqrt(width) where ``spread`` is None: GPT-2 is wide, and in narrow layers begun as its are
    products vanish, and training stays for thousands of steps where nothing is attended to (docs/LOG.md).
    """

    layers: int
    heads: int
    width: int
    spread: float | None = SPREAD

    @property
    def begin(self) -> float:
        """The standard deviation in force."""
        return 1 / sqrt(self.width) if self.spread is None else self.spread


@dataclass(frozen=True, slots=True, kw_only=True)
class MixingOptions:
    """How tokens are mixed, weights apart: each sees those up to it (``causal``), else all; ``rotary`` turns queries and keys.

    ``mask`` says it text by text where that is not enough. ``bias`` is added to the scores of all texts: positions
    relative to one another. ``eta`` is a decay of momentum that is not learned.
    """

    causal: bool
    rotary: bool = False
    mask: Bool[Tensor, "b 1 t t"] | None = None
    bias: Float[Tensor, "h t t"] | None = None
    eta: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixing:
    """A kind of mixing: how its weights begin in a network of this shape, and what it adds to tokens with them.

    ``mix`` adds to tokens that come after others what those have ``Kept`` (None: nothing stands before), and hands on what
    all of them keep. ``ordered`` kinds know where a token stands without positions, and see what came before alone;
    ``masks`` those whose attention can be told text by text what it sees, and how far from it.
    """

    about: str
    start: Callable[[Generator, Shape], dict[str, Tensor]]
    mix: Callable[[Own, Hidden, Shape, MixingOptions, Kept | None], tuple[Hidden, Kept]]
    ordered: bool = False
    masks: bool = False


def linear(own: Own, name: str, hidden: Float[Tensor, "*b i"]) -> Float[Tensor, "*b o"]:
    """A linear layer by its name; its bias where it has one."""
    return nn.functional.linear(hidden, own[f"{name}.weight"], own.get(f"{name}.bias"))


def linear_start(
    rng: Generator, name: str, inputs: int, outputs: int, spread: float, *, bias: bool = True
) -> dict[str, Tensor]:
    """Its weights at the start: normal, biases 0."""
    weight = {f"{name}.weight": spread * torch.randn(outputs, inputs, generator=rng)}
    return weight | ({f"{name}.bias": torch.zeros(outputs)} if bias else {})


def inner_spread(shape: Shape) -> float:
    """Of what is added to tokens: less in deeper networks, as in GPT-2."""
    return shape.begin / sqrt(2 * shape.layers)


# --- attention

Attend = Callable[[Asking, Heads, Heads, Own, MixingOptions], Asking]
"""Queries of the last tokens of a text, keys and values of all."""


def _attention(
    about: str, attend: Attend, *, projects: bool = True, decays: bool = False, masks: bool = False
) -> Mixing:
    return Mixing(
        about=about,
        start=partial(_attention_start, projects=projects, decays=decays),
        mix=partial(_attended, attend=attend, projects=projects),
        ordered=decays,
        masks=masks,
    )


def _attention_start(rng: Generator, shape: Shape, *, projects: bool, decays: bool) -> dict[str, Tensor]:
    e = shape.width
    found = {}
    if projects:
        found = linear_start(rng, "qkv", e, 3 * e, shape.begin) | linear_start(rng, "out", e, e, inner_spread(shape))
    # A decay of a half in the beginning.
    return found | ({"decay": torch.zeros(shape.heads)} if decays else {})


def _attended(
    own: Own, hidden: Hidden, shape: Shape, options: MixingOptions, past: Kept | None, *, attend: Attend, projects: bool
) -> tuple[Hidden, Kept]:
    b, t, e = hidden.shape
    if projects:
        qkv = linear(own, "qkv", hidden).view(b, t, 3, shape.heads, e // shape.heads).permute(2, 0, 3, 1, 4)
    else:
        qkv = hidden.view(b, t, shape.heads, e // shape.heads).transpose(1, 2).expand(3, -1, -1, -1, -1)
    q, k, v = qkv
    if options.rotary:
        q, k = turned(qkv[:2], 0 if past is None else past[0].shape[2])
    if past is not None:
        k, v = (torch.cat([kept, new], dim=2) for kept, new in zip(past, (k, v), strict=True))
    said = attend(q, k, v, own, options).transpose(1, 2).reshape(b, t, e)
    return (linear(own, "out", said) if projects else said), (k, v)


def _seen(q: Asking, k: Heads) -> Bool[Tensor, "u t"]:
    """Of each of the last tokens those up to it."""
    u, t = q.shape[2], k.shape[2]
    return torch.ones(u, t, dtype=torch.bool, device=q.device).tril(t - u)


def _softmax(q: Asking, k: Heads, v: Heads, own: Own, options: MixingOptions) -> Asking:
    mask, u = options.mask, q.shape[2]
    if mask is None and options.causal and (options.bias is not None or u < k.shape[2]):
        mask = _seen(q, k)
    if options.bias is not None:
        scores = options.bias[:, -u:].to(q.dtype)
        mask = (scores if mask is None else scores.masked_fill(~mask, -torch.inf)).expand(len(q), -1, -1, -1)
    if mask is not None:
        return nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return nn.functional.scaled_dot_product_attention(q, k, v, is_causal=options.causal)


def _linear(q: Asking, k: Heads, v: Heads, own: Own, options: MixingOptions) -> Asking:
    u, t = q.shape[2], k.shape[2]
    scores = q @ k.transpose(2, 3)
    # As many tokens as are seen: sums over long texts stay as large as over short ones.
    count = torch.arange(t - u + 1, t + 1).to(q)[:, None] if options.causal else float(t)
    return (scores.tril(t - u) if options.causal else scores) @ v / count


def _kernel(q: Asking, k: Heads, v: Heads, own: Own, options: MixingOptions) -> Asking:
    # exp(-|q - k|^2 / (2 sqrt d)), and the part of |q|^2 is the same for all keys.
    scores = (q @ k.transpose(2, 3) - k.square().sum(-1)[:, :, None] / 2) / sqrt(q.shape[-1])
    if options.causal:
        scores = scores.masked_fill(~_seen(q, k), -torch.inf)
    return scores.softmax(dim=-1) @ v


def _momentum(q: Asking, k: Heads, v: Heads, own: Own, options: MixingOptions) -> Asking:
    return _softmax(q, k, v, own, options) + decayed(v, _decay(v, own, options))[:, :, -q.shape[2] :]


def _normalised(q: Asking, k: Heads, v: Heads, own: Own, options: MixingOptions) -> Asking:
    decay = _decay(v, own, options)
    before = torch.arange(v.shape[2], device=v.device).clamp(min=1)
    mean = decayed(v, decay) / summed_weights(decay, before).to(v.dtype)[..., None]
    return _softmax(q, k, v, own, options) + mean[:, :, -q.shape[2] :]


def _of_keys(q: Asking, k: Heads, v: Heads, own: Own, options: MixingOptions) -> Asking:
    return _softmax(q, k + decayed(k, _decay(k, own, options)), v, own, options)


def _decay(like: Heads, own: Own, options: MixingOptions) -> Float[Tensor, "h"]:
    """The decay of every head: learned, in (0, 1) as the logistic function of a weight, or given."""
    if options.eta is None:
        return own["decay"].sigmoid()
    return torch.full(like.shape[1:2], options.eta, dtype=torch.float64, device=like.device)


def decayed(values: Heads, decay: Float[Tensor, "h"]) -> Heads:
    """sum_(i < t) decay^(t - i) v_i of every head and token t: the second term of momentum attention (Dai et al. 2023)."""
    return velocities(values, decay, times=decay)


def angles(t: int, width: int, first: int = 0) -> Float[Tensor, "t f"]:
    """How far each pair of coordinates is turned at every position from the ``first`` on, in radians."""
    rates = torch.exp(torch.arange(width // 2, dtype=torch.float64) * (log(_SLOWEST) / (width // 2)))
    return torch.arange(first, first + t, dtype=torch.float64)[:, None] * rates


def turned(vectors: Float[Tensor, "*b t d"], first: int = 0) -> Float[Tensor, "*b t d"]:
    """Queries or keys turned by their positions (Su et al. 2021), coordinate i with i + d / 2."""
    by = angles(vectors.shape[-2], vectors.shape[-1], first)
    cosine, sine = torch.cat([by, by], dim=1).cos().to(vectors), torch.cat([-by, by], dim=1).sin().to(vectors)
    left, right = vectors.chunk(2, dim=-1)
    # Three passes over memory, where products of halves are seven.
    return torch.addcmul(vectors * cosine, torch.cat([right, left], dim=-1), sine)


ATTENTIONS: Mapping[str, Mixing] = {
    "softmax": _attention("softmax(Q K') V (Vaswani et al. 2017)", _softmax, masks=True),
    "linear": _attention("Q K' V, a mean over what is seen", _linear),
    "momentum": _attention(
        "softmax attention and a decayed sum of values, the decay learned for each head (Dai et al. 2023)",
        _momentum,
        decays=True,
        masks=True,
    ),
    "momentum-normalised": _attention(
        "softmax attention and a decayed mean of values", _normalised, decays=True, masks=True
    ),
    "momentum-keys": _attention(
        "softmax attention to keys to each of which a decayed sum of those before is added",
        _of_keys,
        decays=True,
        masks=True,
    ),
    "itself": _attention("softmax(X X') X: no queries, keys or values of its own", _softmax, projects=False),
    "kernel": _attention("a Gaussian kernel of queries and keys (Nadaraya 1964, Watson 1964)", _kernel),
}
