"""State spaces: what a token hears of those before it has gone through a state that forgets at learned rates.

Both have n states for each of m channels, h_t = a_t h_(t-1) + b_t, and differ in whether a and b depend on the token:
S4D's do not, so that all tokens are a convolution (by FFT); S6's do (Mamba), and a scan in parallel takes its place.
"""

from math import log, sqrt
from typing import Any

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from kshot.synth.networks.mixing import (
    Hearing,
    Hidden,
    Mixing,
    Own,
    Shape,
    inner_spread,
    linear,
    linear_start,
)

# As published: Gu and Dao 2023 (Mamba), Gu et al. 2022 (S4D, complex states counted once of each pair).
_STATES, _WIDER, _BEHIND = 16, 2, 4
_S4D_STATES = 32
# Tokens of a stretch of the scan: twice as many are a round more over all tokens, half as many a longer way between.
_STRETCH = 16
_STEPS = (1e-3, 1e-1)


def scan(decay: Float[Tensor, "b t *s"], added: Float[Tensor, "b t *s"]) -> Float[Tensor, "b t *s"]:
    """h_t = decay_t h_(t-1) + added_t from h = 0, for all t: in stretches side by side, then from stretch to stretch.

    Decays are multiplied and never divided by, so it is as exact as the recurrence.
    """
    b, t = decay.shape[:2]
    if t <= _STRETCH:
        return _doubled(decay, added)[1]
    short = -t % _STRETCH
    if short:
        # What is padded behind the end is cut off again.
        decay, added = (torch.cat([one, one.new_zeros(b, short, *one.shape[2:])], dim=1) for one in (decay, added))
    cut = (b * (t + short) // _STRETCH, _STRETCH, *decay.shape[2:])
    through, within = (one.view(b, -1, *cut[1:]) for one in _doubled(decay.reshape(cut), added.reshape(cut)))
    ends = scan(through[:, :, -1], within[:, :, -1])
    before = torch.cat([torch.zeros_like(ends[:, :1]), ends[:, :-1]], dim=1)
    return (within + through * before[:, :, None]).flatten(1, 2)[:, :t]


def _doubled(decay: Float[Tensor, "b t *s"], added: Float[Tensor, "b t *s"]) -> tuple[Tensor, Tensor]:
    """What the tokens up to each do to a state, in log2(t) rounds over all of them at once: its factor, and what it adds.

    Round r joins 2^r tokens with the 2^r before them (Hillis and Steele 1986).
    """
    reach = 1
    while reach < decay.shape[1]:
        added = torch.cat([added[:, :reach], added[:, reach:] + decay[:, reach:] * added[:, :-reach]], dim=1)
        decay = torch.cat([decay[:, :reach], decay[:, reach:] * decay[:, :-reach]], dim=1)
        reach *= 2
    return decay, added


def recurred(decay: Float[Tensor, "b t *s"], added: Float[Tensor, "b t *s"]) -> Float[Tensor, "b t *s"]:
    """What ``scan`` gives, as fast as the device has it: on the CPU token after token, in place, elsewhere by the scan.

    The gradient is the same from the last token to the first, so that nothing is kept but decays and states.
    """
    return _recurred(decay, added, False)


@torch.library.custom_op("kshot::recurred", mutates_args=())
def _recurred(decay: Tensor, added: Tensor, back: bool) -> Tensor:
    """h_t = decay_t h + added_t, where h is the state of the token before, or behind (``back``)."""
    if added.device.type != "cpu":
        return scan(decay.flip(1), added.flip(1)).flip(1) if back else scan(decay, added).clone()
    states = added.clone()
    for t in range(added.shape[1] - 2, -1, -1) if back else range(1, added.shape[1]):
        states[:, t].addcmul_(decay[:, t], states[:, t + 1 if back else t - 1])
    return states


_recurred.register_fake(lambda decay, added, back: torch.empty_like(added))


def _neighbours(tokens: Tensor, back: bool) -> Tensor:
    """What stands before every token, or behind it; 0 where nothing does."""
    none = torch.zeros_like(tokens[:, :1])
    return torch.cat([tokens[:, 1:], none] if back else [none, tokens[:, :-1]], dim=1)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    decay, _, ctx.back = inputs
    ctx.save_for_backward(decay, output)


def _slope(ctx: Any, slope: Tensor) -> tuple[Tensor, Tensor, None]:
    decay, states = ctx.saved_tensors
    # A state goes into the next one by the decay of that one.
    whole = _recurred(_neighbours(decay, not ctx.back), slope, not ctx.back)
    return whole * _neighbours(states, ctx.back), whole, None


_recurred.register_autograd(_slope, setup_context=_keep)


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


def _s6(own: Own, hidden: Hidden, shape: Shape, hearing: Hearing) -> Hidden:
    assert hearing.causal, "a state runs from the first token on"
    inner, gate = linear(own, "in", hidden).chunk(2, dim=-1)
    m, t = inner.shape[-1], inner.shape[1]
    shifted = nn.functional.conv1d(
        inner.transpose(1, 2), own["conv.weight"], own["conv.bias"], padding=_BEHIND - 1, groups=m
    )
    inner = nn.functional.silu(shifted[..., :t].transpose(1, 2))
    rank = own["step.weight"].shape[1]
    low, writes, reads = linear(own, "of_token", inner).split([rank, _STATES, _STATES], dim=-1)
    step = nn.functional.softplus(linear(own, "step", low))
    decay, added = selected(step, -own["rate"].exp(), inner, writes)
    said = (recurred(decay, added) * reads[:, :, None]).sum(-1) + own["skip"] * inner
    return linear(own, "out", said * nn.functional.silu(gate))


def selected(
    step: Float[Tensor, "b t m"],
    rate: Float[Tensor, "m s"],
    inner: Float[Tensor, "b t m"],
    writes: Float[Tensor, "b t s"],
) -> tuple[Float[Tensor, "b t m s"], Float[Tensor, "b t m s"]]:
    """What each token does to the states: exp(step rate), and step inner writes (Gu and Dao 2023, algorithm 2)."""
    return torch.exp(step[..., None] * rate), (step * inner)[..., None] * writes[:, :, None]


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
    """What a token says to those behind it, by their distance: 2 Re sum_n c_n b_n exp(rate_n step k), held for a step."""
    step = own["step"].exp()[:, None]
    rate = torch.complex(-own["rate"].exp(), own["turn"])
    # The integral of a held input over a step (zero-order hold), with inputs written as 1.
    weight = torch.view_as_complex(own["reads"].contiguous()) * (torch.exp(rate * step) - 1) / rate
    powers = torch.exp((rate * step)[..., None] * torch.arange(t, device=step.device))
    return 2 * (weight[..., None] * powers).sum(1).real


def _s4d(own: Own, hidden: Hidden, shape: Shape, hearing: Hearing) -> Hidden:
    assert hearing.causal, "a state runs from the first token on"
    t = hidden.shape[1]
    # Twice as long: what comes around the end falls on zeros.
    heard = torch.fft.irfft(
        torch.fft.rfft(kernel(own, t), n=2 * t) * torch.fft.rfft(hidden.transpose(1, 2), n=2 * t), n=2 * t
    )[..., :t].transpose(1, 2)
    said = nn.functional.gelu(heard + own["skip"] * hidden)
    return nn.functional.glu(linear(own, "out", said), dim=-1)


STATE_SPACES = {
    "s4d": Mixing(about="a diagonal state space, by FFT (Gu et al. 2022)", start=_s4d_start, mix=_s4d, ordered=True),
    "mamba": Mixing(
        about="a state space whose rates depend on the token, S6 (Gu and Dao 2023)",
        start=_s6_start,
        mix=_s6,
        ordered=True,
    ),
}
