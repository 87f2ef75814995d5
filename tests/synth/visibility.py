"""Whether a network keeps to what it may see, asked by changing what it may not."""

from collections.abc import Mapping

import torch
from torch import Tensor

from kshot.synth.networks.network import Network

# What is not seen changes nothing but the order of sums; what is seen changes what is said by far more.
_ROUNDING, _SEEN = 1e-12, 1e-3


def faults(network: Network, weights: Mapping[str, Tensor], xs: Tensor, ys: Tensor) -> set[str]:
    """What is wrong with a network by its own declaration, on prompts in float64 and weights at which all is seen."""
    return _causal(network, weights, xs, ys) if network.causal else _set_valued(network, weights, xs, ys)


def _causal(network: Network, weights: Mapping[str, Tensor], xs: Tensor, ys: Tensor) -> set[str]:
    said, n, found = network.says(weights, xs, ys), xs.shape[1], set[str]()
    if said.shape != ys.shape:
        return {f"{tuple(said.shape)} is said of {tuple(ys.shape)} answers"}
    for k in range(n):
        inputs, answers, own = xs.clone(), ys.clone(), ys.clone()
        inputs[:, k + 1 :] += 1.0
        answers[:, k + 1 :] -= 2.0
        own[:, k] -= 2.0
        if _differs(network.says(weights, inputs, answers)[:, : k + 1], said[:, : k + 1]):
            found.add("later pairs are seen")
        again = network.says(weights, xs, own)
        if _differs(again[:, : k + 1], said[:, : k + 1]):
            found.add("an answer is seen before it is asked for")
        if not torch.all(((again - said)[:, k + 1 :]).abs().amax(dim=0) > _SEEN):
            found.add("an answer is not seen after it")
    return found


def _set_valued(network: Network, weights: Mapping[str, Tensor], xs: Tensor, ys: Tensor) -> set[str]:
    said, found = network.says(weights, xs, ys), set[str]()
    if said.shape != (len(ys), 1):
        return {f"{tuple(said.shape)} is said of {len(ys)} queries"}
    order = [*reversed(range(xs.shape[1] - 1)), xs.shape[1] - 1]
    if _differs(network.says(weights, xs[:, order], ys[:, order]), said):
        found.add("the order of pairs is seen")
    own, first = ys.clone(), ys.clone()
    own[:, -1] += 3.0
    first[:, 0] += 3.0
    if _differs(network.says(weights, xs, own), said):
        found.add("an answer is seen before it is asked for")
    if not torch.all((network.says(weights, xs, first) - said).abs() > _SEEN):
        found.add("an answer is not seen after it")
    return found


def _differs(one: Tensor, other: Tensor) -> bool:
    return not torch.allclose(one, other, rtol=0, atol=_ROUNDING * (1 + float(other.detach().abs().max())))
