"""The one training loop: whatever is learned are float32 leaves, whatever reads them is the packed pass.

A step runs every distinct token of its batch once: a soft prompt goes through the layers once for all rows, rows are
packed without padding, and the head is asked only where a token is scored. The graph of each pack ends in the keys,
values and weights that it read; one more backward carries their gradient to the leaves, so memory is bounded by the
pack and nothing runs twice.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from kshot.errors import KshotError, MethodError, UnknownName
from kshot.model.delta import NO_CHANGE, Delta, LowRank
from kshot.model.lm import LM
from kshot.model.prefix import EMPTY, Prefix
from kshot.model.said import Part
from kshot.model.tree import Scored
from kshot.optim.optimisers import OPTIMISERS, SCHEDULES, rate
from kshot.seeds import stream

# Nodes of a pack that keeps its graph: a node costs a hundred times what it costs without one.
TOKENS_PER_PACK = 1024

Leaves = Mapping[str, Tensor]
Look = tuple[int, float, float | None]


@dataclass(frozen=True, slots=True, eq=False)
class Placed:
    """What a model reads with, as a function of the leaves; ``read`` counts the tokens that were run to get there."""

    prefix: Prefix = EMPTY
    delta: Delta = NO_CHANGE
    read: int = 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Learner:
    """What is learned: leaves as they start, and how a model reads with them; ``whole`` counts weights learned densely."""

    leaves: Leaves
    placed: Callable[[Leaves], Placed]
    whole: int = 0

    @property
    def parameters(self) -> int:
        return sum(leaf.numel() for leaf in self.leaves.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How the leaves are moved. ``batches`` are drawn from a permutation in every pass, or taken in the examples' order.

    ``clip`` bounds the norm of the gradient, ``warmup`` counts steps, ``kl`` weighs the mean divergence from the frozen
    model's predictions over the scored positions (nats).
    """

    optimiser: str = "adamw"
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    batch: int = 16
    batches: Literal["shuffled", "in-order"] = "shuffled"
    clip: float = 1.0
    warmup: int = 0
    schedule: str = "constant"
    kl: float = 0.0

    def __post_init__(self) -> None:
        if self.optimiser not in OPTIMISERS:
            raise UnknownName("optimiser", self.optimiser, OPTIMISERS)
        if self.schedule not in SCHEDULES:
            raise UnknownName("schedule", self.schedule, SCHEDULES)
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise KshotError(f"learning rate {self.learning_rate!r}: what works is a number above 0")
        if self.batch < 1:
            raise KshotError(f"batch {self.batch!r}: what works is a whole number from 1 on")
        for name in ("weight_decay", "clip", "warmup", "kl"):
            if not (math.isfinite(value := getattr(self, name)) and value >= 0):
                raise KshotError(f"{name.replace('_', ' ')} {value!r}: what works is a number from 0 on")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class State:
    """Where a fit stands after ``step`` steps: everything that the next step depends on, and what it has cost.

    ``looks`` holds (step, loss, accuracy) wherever its search has looked at the validation examples, and ``best`` the
    leaves of the look with the least loss: none where that was the first, or where a copy of them is too large.
    """

    leaves: Leaves
    moments: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)
    step: int = 0
    losses: tuple[float, ...] = ()
    seconds: float = 0.0
    tokens: int = 0
    flops: float = 0.0
    looks: tuple[Look, ...] = ()
    best: Leaves = field(default_factory=dict)


class Diverged(MethodError):
    """A loss or a gradient that is not a number, or a loss far above that of guessing among all tokens."""


def diverged(step: int, found: str, recipe: Recipe) -> Diverged:
    """What to raise where so many steps have led to what was found."""
    return Diverged(
        f"diverged at step {step}: {found} with {recipe.optimiser} at learning rate {recipe.learning_rate:g}; try a "
        "smaller one"
    )


def check_loss(lm: LM, recipe: Recipe, step: int, loss: float, *, begun: float) -> None:
    """Diverged where the loss after so many steps is none that training comes back from: no number, or above twice that
    of guessing among all tokens, or twice that of the first step (``begun``) where it began above that."""
    bound = 2 * max(begun, math.log(lm.model.config.get_text_config().vocab_size))
    if not math.isfinite(loss) or loss > bound:
        raise diverged(step, f"loss {loss:.3g}", recipe)


def begin(learner: Learner) -> State:
    """The state before the first step."""
    return State(leaves={name: leaf.detach().clone() for name, leaf in learner.leaves.items()})


def advance(
    lm: LM,
    learner: Learner,
    recipe: Recipe,
    rows: Sequence[Scored],
    state: State,
    *,
    until: "Until",
    seed: int,
) -> State:
    """The state after the steps that are missing to ``until``; going on from a state in the middle gives the same bits.

    The tensors of ``state`` are moved on and not kept, because whole weights with their moments are too large for two
    copies. Raises Diverged with the step and the value.
    """
    leaves = {name: leaf.detach().requires_grad_(True) for name, leaf in state.leaves.items()}
    optimiser = OPTIMISERS[recipe.optimiser](leaves, recipe.weight_decay, state.moments)
    losses, tokens, flops, before = list(state.losses), state.tokens, state.flops, state.seconds
    began, seconds = time.perf_counter(), state.seconds
    while len(losses) < until.steps and seconds < until.seconds:
        step = len(losses)
        batch = [
            rows[i] for i in batch_at(len(rows), recipe.batch, step, seed if recipe.batches == "shuffled" else None)
        ]
        for leaf in leaves.values():
            leaf.grad = None
        loss, cost = gradients(lm, learner, leaves, batch, kl=recipe.kl)
        norm = _clipped(leaves, recipe.clip)
        check_loss(lm, recipe, step + 1, loss, begun=losses[0] if losses else loss)
        if not math.isfinite(norm):
            raise diverged(step + 1, f"norm of the gradient {norm:.3g}", recipe)
        optimiser.step(rate(recipe.learning_rate, recipe.schedule, recipe.warmup, step, until.schedule or until.steps))
        losses.append(loss)
        tokens, flops, seconds = tokens + cost.tokens, flops + cost.flops, before + time.perf_counter() - began
    return replace(
        state,
        leaves={name: leaf.detach() for name, leaf in leaves.items()},
        moments=optimiser.moments(),
        step=len(losses),
        losses=tuple(losses),
        seconds=seconds,
        tokens=tokens,
        flops=flops,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Until:
    """Where to stop: after so many steps in all, or after so many seconds of steps, whichever comes first.

    ``schedule`` is the number of steps that the learning rate's schedule is laid out for, where that is another.
    """

    steps: int
    seconds: float = math.inf
    schedule: int | None = None


def batch_at(n: int, batch: int, step: int, seed: int | None) -> list[int]:
    """The rows of a step: every pass is a permutation of all rows, a function of the seed and the pass alone.

    Without a seed it is the rows in their order.

    >>> sorted(batch_at(5, 2, 0, 0) + batch_at(5, 2, 1, 0) + batch_at(5, 2, 2, 0))
    [0, 1, 2, 3, 4]
    """
    per_pass = -(-n // batch)
    order = np.arange(n) if seed is None else stream(seed, "batches", step // per_pass).permutation(n)
    at = step % per_pass * batch
    return order[at : at + batch].tolist()


@dataclass(frozen=True, slots=True)
class Cost:
    """Tokens that a step ran, and its floating-point operations (see ``flops_of``)."""

    tokens: int
    flops: float


def gradients(
    lm: LM, learner: Learner, leaves: Leaves, batch: Sequence[Scored], *, kl: float = 0.0
) -> tuple[float, Cost]:
    """Adds the gradient of the mean loss per scored token (nats) to the leaves; returns the loss and the cost."""
    lm = replace(lm, tokens_per_pack=min(lm.tokens_per_pack, TOKENS_PER_PACK))
    with torch.enable_grad():
        placed = learner.placed(leaves)
        ends = [*placed.prefix.keys, *placed.prefix.values, *placed.delta.tensors()]
        # A leaf that is read as it is takes its gradient itself.
        held = [end if end.is_leaf else end.detach().requires_grad_(end.requires_grad) for end in ends]
        prefix, delta = _again(placed, held)
        scored = sum(len(row.tokens) - row.start for row in batch)
        total, tokens, heads = 0.0, placed.read, 0
        reference = lm.stream(batch, trunk=False) if kl else None
        for part in lm.changed(delta).stream(batch, prefix, trunk=False):
            loss = -part.logprobs().sum() / scored
            if reference is not None:
                with torch.no_grad():
                    frozen = next(reference).logits.double().log_softmax(-1)
                loss = loss + kl * _divergence(frozen, part) / scored
            loss.backward()
            total += float(loss.detach())
            tokens, heads = tokens + part.tokens, heads + len(part.logits)
        reached = [(e, h.grad) for e, h in zip(ends, held, strict=True) if e is not h and h.grad is not None]
        if reached:
            torch.autograd.backward([end for end, _ in reached], [grad for _, grad in reached])
    return total, Cost(tokens, flops_of(lm, tokens, heads, learner.whole, passes=3 if kl else 2))


def _again(placed: Placed, held: Sequence[Tensor]) -> tuple[Prefix, Delta]:
    """The same prefix and change of weights around other tensors."""
    n, low_rank = len(placed.prefix.keys), placed.delta.low_rank
    prefix = Prefix(tuple(held[:n]), tuple(held[n : 2 * n]), placed.prefix.tokens) if n else placed.prefix
    rest = iter(held[2 * n :])
    thin = {name: LowRank(next(rest), next(rest), one.scale) for name, one in sorted(low_rank.items())}
    return prefix, Delta(thin, {name: next(rest) for name in sorted(placed.delta.dense)})


def _divergence(frozen: Tensor, now: Part) -> Tensor:
    """KL(frozen || now) summed over scored tokens, nats; a row that two sequences share counts for both."""
    rows = (frozen.exp() * (frozen - now.logits.double().log_softmax(-1))).sum(-1)
    return rows[torch.from_numpy(now.row_of).to(rows.device)].sum()


def _clipped(leaves: Leaves, bound: float) -> float:
    grads = [leaf.grad for leaf in leaves.values() if leaf.grad is not None]
    norm = float(
        torch.sqrt(sum((grad.double().square().sum() for grad in grads), torch.zeros((), dtype=torch.float64)))
    )
    if bound and norm > bound:
        for grad in grads:
            grad.mul_(bound / norm)
    return norm


def flops_of(lm: LM, tokens: int, heads: int, whole: int, *, passes: int = 2) -> float:
    """Operations of the matrix products with weights: 2 a weight and token in each of ``passes`` passes (forward, and
    backward to the inputs), and once more where the weight itself is learned (``whole`` weights). Attention's own
    products are left out: at prompt lengths they are a few per cent."""
    model: Any = lm.model
    table = model.get_input_embeddings().weight
    head = model.get_output_embeddings()
    head_size = head.weight.numel() if head is not None else table.numel()
    tied = head is not None and head.weight is table
    layers = lm.parameters - table.numel() - (0 if tied else head_size)
    return 2.0 * passes * (layers * tokens + head_size * heads) + 2.0 * min(whole, layers) * tokens
