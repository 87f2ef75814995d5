"""The fine-tuning that in-context learning is compared with: one pass over the demonstrations, keys and values alone.

``one_pass`` is that of Dai et al. 2023, ``layer_causal_pass`` the variant of Deutch et al. 2024 whose gradient, like a
forward pass, never comes from a later layer.
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from kshot.adapt.judge import check_room, gold_rows
from kshot.adapt.learners import finished, whole_weights
from kshot.adapt.train import Learner, Leaves, Recipe, Until, advance, begin, diverged
from kshot.data.task import Example, Task
from kshot.data.template import Template
from kshot.errors import MethodError
from kshot.model.delta import Delta, alone, linear_layers
from kshot.model.lm import LM
from kshot.model.trace import traced
from kshot.model.tree import Scored
from kshot.optim.optimisers import OPTIMISERS
from kshot.seeds import stream

MOVED = ("k_proj", "v_proj")
"""The projections that are moved, all layers, weights and biases."""

# The same product of the same numbers, alone or among other rows, rounds apart by less.
_SAME = 1e-5


@dataclass(frozen=True, slots=True, eq=False)
class Descended:
    """Where a pass ended: the moved weights in the place of the model's own, and the loss before each step (nats).

    ``queries``, where they were asked for, are for each demonstration those of all its t tokens, after rotary positions
    and not scaled, under the weights before its own update.
    """

    delta: Delta
    losses: tuple[float, ...]
    queries: tuple[Float[np.ndarray, "l h _ d"], ...] | None


def one_pass(
    lm: LM,
    task: Task,
    template: Template,
    demonstrations: Sequence[Example],
    learning_rate: float,
    *,
    record: bool = False,
    rounded: int | None = None,
) -> Descended:
    """The weights after one step of plain gradient descent per demonstration, in their order (Dai et al. 2023, 4.1).

    The loss of a step is the mean over all tokens of the demonstration that have one before them, its answer included;
    ``losses`` has one a demonstration. MethodError where the model has no projections of keys and values by themselves,
    where a demonstration does not fit it, or where the pass diverges (Diverged). ``record`` needs a model that can be
    traced (ModelError). ``rounded`` is a seed: every weight that is moved begins up to one unit in its last place away.
    """
    recipe = _recipe(learning_rate)
    rows, learner = _asked(lm, task, template, demonstrations)
    if rounded is not None:
        learner = replace(learner, leaves=_rounded(learner.leaves, rounded))
    state, queries = begin(learner), []
    for step, row in enumerate(rows):
        if record:
            queries.append(_queries(lm, learner, state.leaves, row))
        state = advance(lm, learner, recipe, rows, state, until=Until(steps=step + 1), seed=0)
    _still_numbers(state.leaves, len(rows), recipe)
    delta = finished(lm, learner, state.leaves).delta
    return Descended(delta, state.losses, tuple(queries) if record else None)


def layer_causal_pass(
    lm: LM,
    task: Task,
    template: Template,
    demonstrations: Sequence[Example],
    learning_rate: float,
    *,
    record: bool = False,
) -> Descended:
    """The weights after layer-causal gradient descent over the demonstrations (Deutch et al. 2024, section 4.4).

    One step per token i that has one after it: with X the input of a layer's attention under the weights of this step,
    its output at i (after the output projection, before the residual) is computed again with X and the query of i held
    constant, goes through the model's final norm and unembedding, and the loss is the sum over layers of the
    cross-entropy of token i + 1. So each layer's keys and values are moved by that layer alone. ``losses`` has one sum a
    token. A step reads the demonstration up to i, so the pass costs its length squared.

    MethodError as in ``one_pass``, and for a model whose answer is not its last hidden state through ``norm`` and
    unembedding: the architecture must be laid out as Llama is.
    """
    recipe = _recipe(learning_rate)
    rows, learner = _asked(lm, task, template, demonstrations)
    step = _layer_causal(lm, learner, rows[0].tokens)
    leaves = {name: leaf.detach().clone().requires_grad_(True) for name, leaf in learner.leaves.items()}
    optimiser = OPTIMISERS[recipe.optimiser](leaves, recipe.weight_decay, {})
    losses: list[float] = []
    queries: list[np.ndarray] = []
    begun = 0.0
    for row in rows:
        if record:
            queries.append(_queries(lm, learner, leaves, row))
        at = range(row.start - 1, len(row.tokens) - 1)
        for i in at:
            for leaf in leaves.values():
                leaf.grad = None
            losses.append(step.gradients(leaves, row.tokens[: i + 1], row.tokens[i + 1]))
            optimiser.step(learning_rate)
            _still_numbers(leaves, len(losses), recipe, loss=losses[-1])
        mean = sum(losses[-len(at) :]) / len(at)
        begun = begun or mean
        if mean > 2 * max(begun, step.guessing):
            raise diverged(len(losses), f"mean loss {mean:.3g} of a demonstration", recipe)
    delta = finished(lm, learner, {name: leaf.detach() for name, leaf in leaves.items()}).delta
    return Descended(delta, tuple(losses), tuple(queries) if record else None)


def _recipe(learning_rate: float) -> Recipe:
    return Recipe(optimiser="sgd", learning_rate=learning_rate, batch=1, batches="in-order", clip=0.0)


def _asked(lm: LM, task: Task, template: Template, demonstrations: Sequence[Example]) -> tuple[list[Scored], Learner]:
    """The rows to learn from, one a demonstration, and the projections to be moved as they are."""
    if not demonstrations:
        raise MethodError(f"task {task.name!r}: fine-tuning on no demonstrations; what works is one or more")
    known = {name.rsplit(".", 1)[-1] for name in linear_layers(lm.model)}
    if lacking := [name for name in MOVED if name not in known]:
        raise MethodError(
            f"fine-tuning as published moves {' and '.join(MOVED)}, and {lm.name} has no {' or '.join(lacking)} (its "
            f"linear layers are {', '.join(sorted(known)) or 'none'}); what works is a model that projects keys and "
            "values by themselves, as Llama does"
        )
    rows = gold_rows(lm, task, template, demonstrations, whole=True)
    check_room(lm, rows, 0)
    return rows, whole_weights(lm, MOVED)


def _rounded(leaves: Leaves, seed: int) -> Leaves:
    """Each number, or its neighbour above or below."""
    rng = stream(seed, "rounded")
    found = {}
    for name, leaf in leaves.items():
        way = torch.from_numpy(rng.integers(-1, 2, leaf.shape)).to(leaf)
        found[name] = torch.nextafter(leaf, torch.where(way == 0, leaf, way * math.inf))
    return found


def _queries(lm: LM, learner: Learner, leaves: Leaves, row: Scored) -> Float[np.ndarray, "l h t d"]:
    """The queries of every token of a row, under the weights as they stand."""
    reader = lm.changed(finished(lm, learner, leaves).delta)
    (trace,) = traced(reader, [row.tokens], [range(len(row.tokens))])
    return trace.queries.astype(np.float32)


def _still_numbers(leaves: Leaves, step: int, recipe: Recipe, loss: float = 0.0) -> None:
    """The last step of a pass is followed by no loss that would show what it did."""
    if not math.isfinite(loss):
        raise diverged(step, f"loss {loss:.3g}", recipe)
    if not all(bool(torch.isfinite(leaf).all()) for leaf in leaves.values()):
        raise diverged(step, "weights that are no numbers", recipe)


@dataclass(frozen=True, slots=True, eq=False)
class _LayerCausal:
    """What a layer-causal step needs: the attention modules by name, in their order, the final norm and the head."""

    lm: LM
    learner: Learner
    attentions: Mapping[str, nn.Module]
    norm: nn.Module
    head: nn.Module

    @property
    def guessing(self) -> float:
        """The loss of a token where every layer guesses among all tokens."""
        return len(self.attentions) * math.log(self.lm.model.config.get_text_config().vocab_size)

    def gradients(self, leaves: Leaves, before: Sequence[int], target: int) -> float:
        """Adds the gradient of one token's loss to the leaves, and returns that loss."""
        given = self._given(leaves, before)
        with torch.enable_grad():
            said = []
            for name, module in self.attentions.items():
                own = {
                    leaf.removeprefix(f"{name}."): tensor.to(self.lm.dtype)
                    for leaf, tensor in leaves.items()
                    if leaf.startswith(f"{name}.")
                }
                # The input carries no graph and the query's projection is not learned: both are constants here.
                args, asked = given[name]
                said.append(_first(functional_call(module, own, args, asked))[0, -1])
            logits = self.head(self.norm(torch.stack(said))).double()
            targets = torch.full((len(said),), target, device=logits.device)
            loss = nn.functional.cross_entropy(logits, targets, reduction="sum")
            loss.backward()
        return float(loss.detach())

    def _given(self, leaves: Leaves, tokens: Sequence[int]) -> dict[str, tuple[tuple[Any, ...], dict[str, Any]]]:
        """What every attention module is called with, under the weights as they stand."""
        found: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {}
        with torch.no_grad(), alone(self.lm.model), ExitStack() as stack:
            for name, module in self.attentions.items():

                def keep(module: nn.Module, args: Any, asked: Any, name: str = name) -> None:
                    found[name] = (args, asked)

                stack.callback(module.register_forward_pre_hook(keep, with_kwargs=True).remove)
            reader = self.lm.changed(self.learner.placed(leaves).delta)
            reader.forward(np.array(tokens), None, np.arange(0))
        return found


def _layer_causal(lm: LM, learner: Learner, tokens: Sequence[int]) -> _LayerCausal:
    """The parts of the model; MethodError where its answer is not its last hidden state through norm and head.

    Each layer is run by itself, where a change of weights that the model is read with would not reach it.
    """
    if lm.delta:
        raise MethodError(
            f"layer-causal descent moves the weights of {lm.name} themselves, and it is read with a change of them; what works "
            "is the model without that change"
        )
    names = list(dict.fromkeys(name.rsplit(".", 2)[0] for name in learner.leaves))
    norm, head = getattr(lm.model.base_model, "norm", None), lm.model.get_output_embeddings()
    what = "there is no final norm by that name"
    if isinstance(norm, nn.Module) and isinstance(head, nn.Module):
        seen: list[Tensor] = []
        with torch.no_grad(), alone(lm.model), ExitStack() as stack:
            stack.callback(norm.register_forward_pre_hook(lambda module, args: seen.append(args[0])).remove)
            logits = lm.forward(np.array(tokens), None, np.array([len(tokens) - 1]))
            apart = float((head(norm(seen[-1][:, -1])) - logits).abs().max() / logits.abs().max())
        if apart < _SAME:
            return _LayerCausal(lm, learner, {name: lm.model.get_submodule(name) for name in names}, norm, head)
        what = f"its logits differ from that by {apart:.2g} of the largest: they are capped or scaled"
    raise MethodError(
        f"layer-causal descent asks every layer through the final norm and the unembedding, and in {lm.name} {what}; what "
        "works is a model laid out as Llama is"
    )


def _first(out: Any) -> Tensor:
    return out[0] if isinstance(out, tuple) else out
