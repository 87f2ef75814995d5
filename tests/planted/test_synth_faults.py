"""Faults planted in prompts, networks, rivals and exact inference of small models."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest
import torch
from planting import Plant, caught, suite

from kshot.model import momentum
from kshot.synth import grammar, oracles, prompts
from kshot.synth.networks import selective
from kshot.synth.networks.mixing import MixingOptions

# The package has functions of these names.
recurrent = import_module("kshot.synth.networks.recurrent")
layers = import_module("kshot.synth.networks.layers")
transformer = import_module("kshot.synth.networks.transformer")


def _answer_in_its_query(patch: pytest.MonkeyPatch) -> None:
    written = transformer._two_a_pair
    patch.setattr(transformer, "_two_a_pair", lambda xs, ys: written(xs + ys[..., None], ys))


def _answers_read_off_answers(patch: pytest.MonkeyPatch) -> None:
    def after(xs: torch.Tensor, ys: torch.Tensor) -> torch.Tensor:
        wide = torch.cat([ys[..., None], torch.zeros_like(xs[..., 1:])], dim=-1)
        return torch.stack([wide, xs], dim=2).flatten(1, 2)[:, :-1]

    patch.setattr(transformer, "_two_a_pair", after)


def _without_a_mask(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(layers, "MixingOptions", lambda causal, **own: MixingOptions(causal=False, **own))


def _last_answer_in_the_set(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(transformer, "_one_a_pair", lambda xs, ys: torch.cat([xs, ys[..., None]], dim=-1))


def _past_as_it_is(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        recurrent, "linear", lambda own, name, hidden: hidden if name == "past" else _linear(own, name, hidden)
    )


def _linear(own: Any, name: str, hidden: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.linear(hidden, own[f"{name}.weight"], own.get(f"{name}.bias"))


def _nothing_forgotten_between_stretches(patch: pytest.MonkeyPatch) -> None:
    doubled = selective._doubled

    def kept(decay: torch.Tensor, added: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        through, within = doubled(decay, added)
        return torch.ones_like(through), within

    patch.setattr(selective, "_doubled", kept)


def _states_read_before_they_are_written(patch: pytest.MonkeyPatch) -> None:
    read = selective._read

    def late(*given: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        said, states = read(*given)
        return torch.cat([torch.zeros_like(said[:, :1]), said[:, :-1]], dim=1), states

    patch.setattr(selective, "_read", late)


def _momentum_of_the_token_itself(patch: pytest.MonkeyPatch) -> None:
    weights = momentum._weights
    patch.setattr(momentum, "_weights", lambda decay, t: weights(decay, t + 1)[:, 1:, :-1])


def _momentum_that_never_fades(patch: pytest.MonkeyPatch) -> None:
    falling = momentum._falling
    patch.setattr(momentum, "_falling", lambda decay, t: torch.ones_like(falling(decay, t)))


def _own_pair_among_those_before(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(oracles, "_before", lambda sums: sums)


def _steps_alike(patch: pytest.MonkeyPatch) -> None:
    stream = prompts.torch_stream
    patch.setattr(prompts, "torch_stream", lambda seed, *purpose: stream(seed, "prompts"))


def _columns_for_rows(patch: pytest.MonkeyPatch) -> None:
    whole = grammar.Ginc.transitions
    patch.setattr(grammar.Ginc, "transitions", lambda self: whole(self).transpose(0, 2, 1))


NETWORKS, ORACLES = "contracts/test_networks.py", "synth/test_oracles.py"
FAULTS: dict[str, tuple[str, Callable[[Any], None], Plant]] = {
    "the answer in its query": (
        NETWORKS, lambda tests: tests.test_it_is_causal_or_a_set_as_it_declares("transformer"), _answer_in_its_query,
    ),
    "answers read off answers": (
        NETWORKS, lambda tests: tests.test_it_is_causal_or_a_set_as_it_declares("transformer"), _answers_read_off_answers,
    ),
    "without a mask": (
        NETWORKS, lambda tests: tests.test_it_is_causal_or_a_set_as_it_declares("transformer"), _without_a_mask,
    ),
    "the last answer in the set": (
        NETWORKS, lambda tests: tests.test_it_is_causal_or_a_set_as_it_declares("encoder"), _last_answer_in_the_set,
    ),
    "attention to the past as it is": (
        "synth/test_recurrent.py", lambda tests: tests.test_attention_to_the_past_by_hand(), _past_as_it_is,
    ),
    "nothing forgotten between stretches": (
        "synth/test_state_space.py", lambda tests: tests.test_the_scan_is_the_recurrence(100),
        _nothing_forgotten_between_stretches,
    ),
    "states read before they are written": (
        "synth/test_state_space.py", lambda tests: tests.test_selection_by_hand(), _states_read_before_they_are_written,
    ),
    "momentum of the token itself": (
        "model/test_momentum.py", lambda tests: tests.test_any_length_is_the_double_sum(15), _momentum_of_the_token_itself,
    ),
    "momentum that never fades between blocks": (
        "model/test_momentum.py", lambda tests: tests.test_any_length_is_the_double_sum(70),
        _momentum_that_never_fades,
    ),
    "a pair among those before it": (ORACLES, lambda tests: tests.test_ridge(), _own_pair_among_those_before),
    "all steps alike": (
        "synth/test_functions.py",
        lambda tests: tests.test_the_same_seed_and_step_is_the_same_batch_in_any_order("linear"), _steps_alike,
    ),
    "columns for rows": (
        "synth/test_grammar.py", lambda tests: tests.test_posteriors_add_up_and_sharpen(), _columns_for_rows,
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_caught(fault: str) -> None:
    file, check, plant = FAULTS[fault]
    tests = suite(file)
    caught(lambda: check(tests), plant)
