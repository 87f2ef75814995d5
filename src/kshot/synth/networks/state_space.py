"""State spaces: what a token sees of those before it has gone through a state that forgets at learned rates.

Both have n states for each of m channels, h_t = a_t h_(t-1) + b_t, and differ in whether a and b depend on the token:
S4D's do not, so that all tokens are a convolution (by FFT); S6's do (Mamba: ``selective.py``).
"""

from collections.abc import Callable
from functools import partial
from math import log, sqrt

import torch
from jaxtyping import Float
from scipy.fft import next_fast_len
from torch import Generator, Tensor, nn

from kshot.synth.networks.mixing import (
    Hidden,
    Kept,
    Mixing,
    MixingOptions,
    Own,
    Shape,
    inner_spread,
    linear,
    linear_start,
)
from kshot.synth.networks.selective import selective

# As published: Gu and Dao 2023 (Mamba), Gu et al. 2022 (S4D, complex states counted once of each pair).
_STATES, _WIDER, _BEHIND = 16, 2, 4
_S4D_STATES = 32
_STEPS = (1e-3, 1e-1)


def _steps(rng: Generator, channels: int) -> Float[Tensor, "m"]:
    """Time steps of channels at the start, even in their logarithms."""
    low, high = log(_STEPS[0]), log(_STEPS[1])
    return torch.exp(low + (high - low) * torch.rand(channels, generator=rng))


def _s6_start(rng: Generator, shape: Shape) -> dict[str, Tensor]:
    e, m = shape.width, _WIDER * shape.width
    rank = max(1, e // 16)
    steps = _steps(rng, m)
    return (
        linear_start(rng, "in", e, 2 * m, shape.begin, bias=False)
        | {"conv.weight": torch.randn(m, 1, _BEHIND, generator=rng) / sqrt(_BEHIND), "conv.bias": torch.zeros(m)}
        | linear_start(rng, "of_token", m, rank + 2 * _STATES, 1 / sqrt(m), bias=False)
        | {
            "step.weight": torch.randn(m, rank, generator=rng) / sqrt(rank),
            # softplus of it is the step
            "step.bias": steps + torch.log(-torch.expm1(-steps)),
            "rate": torch.log(torch.arange(1, _STATES + 1).float()).expand(m, -1).clone(),
            "skip": torch.ones(m),
        }
        | linear_start(rng, "out", m, e, inner_spread(shape), bias=False)
    )


def _s6(own: Own, hidden: Hidden, shape: Shape, options: MixingOptions) -> Hidden:
    assert options.causal, "a state runs from the first token on"
    inner, gate = linear(own, "in", hidden).chunk(2, dim=-1)
    m, t = inner.shape[-1], inner.shape[1]
    shifted = nn.functional.conv1d(
        inner.transpose(1, 2), own["conv.weight"], own["conv.bias"], padding=_BEHIND - 1, groups=m
    )
    inner = nn.functional.silu(shifted[..., :t].transpose(1, 2))
    rank = own["step.weight"].shape[1]
    low, writes, reads = linear(own, "of_token", inner).split([rank, _STATES, _STATES], dim=-1)
    step = nn.functional.softplus(linear(own, "step", low))
    said = selective(step, -own["rate"].exp(), inner, writes, reads) + own["skip"] * inner
    return linear(own, "out", said * nn.functional.silu(gate))


def _s4d_start(rng: Generator, shape: Shape) -> dict[str, Tensor]:
    e = shape.width
    return {
        "step": torch.log(_steps(rng, e)),
        # Rates -1/2 + i pi n (S4D-Lin).
        "rate": torch.full((e, _S4D_STATES), log(0.5)),
        "turn": torch.pi * torch.arange(_S4D_STATES).float().expand(e, -1).clone(),
        "reads": torch.randn(e, _S4D_STATES, 2, generator=rng) / sqrt(2),
        "skip": torch.randn(e, generator=rng),
    } | linear_start(rng, "out", e, 2 * e, inner_spread(shape))


def kernel(own: Own, t: int) -> Float[Tensor, "e t"]:
    """What a token says to those after it, by their distance: 2 Re sum_n c_n b_n exp(rate_n step k), held for a step."""
    step = own["step"].exp()[:, None]
    rate = torch.complex(-own["rate"].exp(), own["turn"])
    # The integral of a held input over a step (zero-order hold), with inputs written as 1.
    weight = torch.view_as_real(torch.view_as_complex(own["reads"].contiguous()) * (torch.exp(rate * step) - 1) / rate)[
        ..., None
    ]
    # In parts of complex numbers: their exponential on a CPU is many times slower than these three.
    distance = step[..., None] * torch.arange(t, device=step.device)
    decay, angle = torch.exp(rate.real[..., None] * distance), rate.imag[..., None] * distance
    return 2 * ((weight[..., 0, :] * torch.cos(angle) - weight[..., 1, :] * torch.sin(angle)) * decay).sum(1)


def _s4d(own: Own, hidden: Hidden, shape: Shape, options: MixingOptions) -> Hidden:
    assert options.causal, "a state runs from the first token on"
    t = hidden.shape[1]
    # About twice as long, so that what comes around the end falls on zeros, and without large prime factors.
    n = next_fast_len(2 * t, real=True)
    turned = torch.fft.rfft(kernel(own, t), n=n) * torch.fft.rfft(hidden.transpose(1, 2), n=n)
    convolved = torch.fft.irfft(turned, n=n)[..., :t].transpose(1, 2)
    said = nn.functional.gelu(convolved + own["skip"] * hidden)
    return nn.functional.glu(linear(own, "out", said), dim=-1)


def _again(
    own: Own,
    hidden: Hidden,
    shape: Shape,
    options: MixingOptions,
    past: Kept | None,
    *,
    mix: Callable[[Own, Hidden, Shape, MixingOptions], Hidden],
) -> tuple[Hidden, Kept]:
    """A state is not kept: what tokens leave is what they were, and it is run from the first one again."""
    every = hidden if past is None else torch.cat([*past, hidden], dim=1)
    return mix(own, every, shape, options)[:, -hidden.shape[1] :], (every,)


STATE_SPACES = {
    "s4d": Mixing(
        about="a diagonal state space, by FFT (Gu et al. 2022)",
        start=_s4d_start,
        mix=partial(_again, mix=_s4d),
        ordered=True,
    ),
    "mamba": Mixing(
        about="a state space whose rates depend on the token, S6 (Gu and Dao 2023)",
        start=_s6_start,
        mix=partial(_again, mix=_s6),
        ordered=True,
    ),
}
