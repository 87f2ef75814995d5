"""The one signature of a network: how its weights begin, and what it says with them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from jaxtyping import Float
from torch import Generator, Tensor

Weights = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """Answers prompts of pairs; a value without weights of its own, so one network may be asked with many.

    ``says(weights, xs, ys)`` maps (b, n, d) and (b, n) to what is said of answers before they are shown: of all n where
    the network is ``causal``, of the last alone, (b, 1), where it is not: then it is set-valued, and the order of the
    pairs before the last input changes nothing, but where it is ``ordered``.
    """

    start: Callable[[Generator], dict[str, Tensor]]
    says: Callable[[Weights, Float[Tensor, "b n d"], Float[Tensor, "b n"]], Float[Tensor, "b s"]]
    causal: bool
    ordered: bool = False


def parameters(weights: Weights) -> int:
    """How many numbers are trained."""
    return sum(tensor.numel() for tensor in weights.values())
