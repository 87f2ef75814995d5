"""The recurrence of S6 (Mamba): states that every token lets decay, writes to and reads, at rates that depend on it.

    h_t = exp(step_t rate) h_(t - 1) + step_t inner_t writes_t,    y_t = reads_t h_t

with n states for each of m channels (Gu and Dao 2023, algorithm 2). In parallel it is a scan over all tokens; on a CPU
that is memory all the way, and token after token, with states that stay in the cache, is several times as fast.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

# Tokens of a stretch of the scan: twice as many are a round more over all tokens, half as many a longer way between.
_STRETCH = 16


def selective(
    step: Float[Tensor, "b t m"],
    rate: Float[Tensor, "m s"],
    inner: Float[Tensor, "b t m"],
    writes: Float[Tensor, "b t s"],
    reads: Float[Tensor, "b t s"],
) -> Float[Tensor, "b t m"]:
    """What every token reads, differentiable in all; as fast as the device has it."""
    if step.device.type == "cpu":
        said: Tensor = _read(step, rate, inner, writes, reads)[0]
        return said
    return by_scan(step, rate, inner, writes, reads)


def by_scan(step: Tensor, rate: Tensor, inner: Tensor, writes: Tensor, reads: Tensor) -> Float[Tensor, "b t m"]:
    """The same by ``scan``, with all states of all tokens in memory."""
    decay = torch.exp(step[..., None] * rate)
    added = (step * inner)[..., None] * writes[:, :, None]
    return (scan(decay, added) * reads[:, :, None]).sum(-1)


def scan(decay: Float[Tensor, "b t *s"], added: Float[Tensor, "b t *s"]) -> Float[Tensor, "b t *s"]:
    """h_t = decay_t h_(t-1) + added_t from h = 0, for all t: in stretches side by side, then from stretch to stretch.

    Decays are multiplied and never divided by, so it is as exact as the recurrence.
    """
    b, t = decay.shape[:2]
    if t <= _STRETCH:
        return _doubled(decay, added)[1]
    short = -t % _STRETCH
    if short:
        # What is padded after the end is cut off again.
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


# --- token after token: a custom operator, since torch.compile would unroll its loop


@torch.library.custom_op("kshot::selective", mutates_args=())
def _read(step: Tensor, rate: Tensor, inner: Tensor, writes: Tensor, reads: Tensor) -> tuple[Tensor, Tensor]:
    """What is read, (b, t, m), and the states after every token, (t, b, s, m)."""
    (b, t, m), s = step.shape, rate.shape[1]
    rates, fed = rate.T.contiguous(), step * inner
    states, said = step.new_empty(t, b, s, m), step.new_empty(t, b, 1, m)
    for i in range(t):
        state = states[i]
        if i:
            torch.mul(step[:, i, None], rates, out=state).exp_().mul_(states[i - 1])
        else:
            state.zero_()
        state.addcmul_(writes[:, i, :, None], fed[:, i, None])
        torch.bmm(reads[:, i, None], state, out=said[i])
    return said[:, :, 0].transpose(0, 1).contiguous(), states


@_read.register_fake
def _(step: Tensor, rate: Tensor, inner: Tensor, writes: Tensor, reads: Tensor) -> tuple[Tensor, Tensor]:
    b, t, m = step.shape
    return step.new_empty(b, t, m), step.new_empty(t, b, rate.shape[1], m)


@torch.library.custom_op("kshot::selective_slopes", mutates_args=())
def _slopes(
    slope: Tensor, step: Tensor, rate: Tensor, inner: Tensor, writes: Tensor, reads: Tensor, states: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The slopes of all that went in, from that of what was read: the recurrence from the last token to the first."""
    (b, t, m), s = step.shape, rate.shape[1]
    rates, fed = rate.T.contiguous(), step * inner
    of_state, of_rate, own = step.new_zeros(b, s, m), step.new_zeros(b, s, m), step.new_empty(b, s, m)
    of_step, of_fed = step.new_zeros(t, b, m), step.new_empty(t, b, 1, m)
    of_writes, of_reads = step.new_empty(t, b, s, 1), step.new_empty(t, b, s, 1)
    for i in reversed(range(t)):
        of_state.addcmul_(reads[:, i, :, None], slope[:, i, None])
        # Rows turned, not columns: columns come to the same and take four times as long.
        torch.bmm(states[i], slope[:, i, None].mT, out=of_reads[i])
        torch.bmm(writes[:, i, None], of_state, out=of_fed[i])
        torch.bmm(of_state, fed[:, i, None].mT, out=of_writes[i])
        if i:
            of_state.mul_(torch.mul(step[:, i, None], rates, out=own).exp_())
            # The decay's own slope times the decay, which is that of its exponent.
            torch.mul(of_state, states[i - 1], out=own)
            of_rate.addcmul_(own, step[:, i, None])
            torch.sum(own.mul_(rates), 1, out=of_step[i])
    fed_slope, stepped = of_fed[:, :, 0].transpose(0, 1), of_step.transpose(0, 1)
    return (
        stepped + fed_slope * inner,
        of_rate.sum(0).T.contiguous(),
        fed_slope * step,
        of_writes[..., 0].transpose(0, 1).contiguous(),
        of_reads[..., 0].transpose(0, 1).contiguous(),
    )


@_slopes.register_fake
def _(
    slope: Tensor, step: Tensor, rate: Tensor, inner: Tensor, writes: Tensor, reads: Tensor, states: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    return (
        torch.empty_like(step),
        torch.empty_like(rate),
        torch.empty_like(inner),
        torch.empty_like(writes),
        torch.empty_like(reads),
    )


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs, output[1])
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(output[1])


def _slope(ctx: Any, slope: Tensor | None, of_states: None) -> tuple[Tensor | None, ...]:
    # None where nothing asks for what was read.
    if slope is None:
        return (None,) * 5
    found: tuple[Tensor, ...] = _slopes(slope.contiguous(), *ctx.saved_tensors)
    return found


_read.register_autograd(_slope, setup_context=_keep)
