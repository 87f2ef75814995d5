"""A change of weights by name: low-rank beside a linear layer, or a weight that takes the place of the model's own.

The model itself is never written to. A low-rank change is added to what its layer says, so it costs two thin products
and its gradient no product with the whole weight; a dense one is put in the weight's place for one call. Weights that a
model ties (an embedding and the head) are one weight with one name, and change together.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from threading import Lock, RLock
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from kshot.errors import ModelError, UnknownName


@dataclass(frozen=True, slots=True, eq=False)
class LowRank:
    """W + scale * up @ down (Hu et al. 2022, section 4.1): ``down`` reads i numbers, ``up`` says o."""

    down: Float[Tensor, "r i"]
    up: Float[Tensor, "o r"]
    scale: float


@dataclass(frozen=True, slots=True, eq=False)
class Delta:
    """Changes by name: ``low_rank`` by the name of a linear layer, ``dense`` by the name of a parameter."""

    low_rank: Mapping[str, LowRank] = field(default_factory=dict)
    dense: Mapping[str, Tensor] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.low_rank or self.dense)

    def tensors(self) -> tuple[Tensor, ...]:
        """Every tensor of it, in the order of their names."""
        thin = [tensor for _, one in sorted(self.low_rank.items()) for tensor in (one.down, one.up)]
        return (*thin, *(tensor for _, tensor in sorted(self.dense.items())))

    @property
    def nbytes(self) -> int:
        return sum(tensor.numel() * tensor.element_size() for tensor in self.tensors())

    @property
    def hash(self) -> str:
        """What it changes and to what, in hexadecimal."""
        thin = [(f"{name} {part} {one.scale!r}", tensor) for name, one in sorted(self.low_rank.items())
                for part, tensor in (("down", one.down), ("up", one.up))]  # fmt: skip
        return hash_of([*thin, *sorted(self.dense.items())])

    def under(self, other: "Delta") -> "Delta":
        """Both in force at once; ModelError where both put a weight in the place of the same one."""
        if both := sorted(set(self.dense) & set(other.dense)):
            raise ModelError(
                f"one change of weights stands on another, and both replace {both[0]!r}; what works is one of them, or a "
                "low-rank change (LoRA) on top"
            )
        thin = dict(self.low_rank)
        for name, one in other.low_rank.items():
            thin[name] = _sum(thin[name], one) if name in thin else one
        return Delta(thin, {**self.dense, **other.dense})


NO_CHANGE = Delta()


def _sum(one: LowRank, other: LowRank) -> LowRank:
    """Two changes of a layer as one, of the sum of their ranks."""
    return LowRank(torch.cat([one.down, other.down]), torch.cat([one.up * one.scale, other.up * other.scale], 1), 1.0)


def hash_of(named: Iterable[tuple[str, Tensor]]) -> str:
    """The SHA-256 of tensors of any number format with their names, in this order, in hexadecimal: its first 16 digits."""
    found = hashlib.sha256()
    for name, tensor in named:
        found.update(f"{name}\x1f{tensor.dtype}\x1f{tuple(tensor.shape)}\x1f".encode())
        # as bytes: numpy knows no bfloat16
        found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()[:16]


# A model does not know its lock, so that it is let go of when nobody else holds it.
_LOCKS: WeakKeyDictionary[nn.Module, Any] = WeakKeyDictionary()
_LOOKING = Lock()


def alone(model: nn.Module) -> Any:
    """Within this block no other thread calls the model: hooks and weights in force are those of this thread only.

    Blocks of one thread may stand within each other.
    """
    with _LOOKING:
        return _LOCKS.setdefault(model, RLock())


def call(model: nn.Module, delta: Delta, **asked: Any) -> Any:
    """``model(**asked)`` with the changes in force, differentiable in them. Without any, the model itself, bit for bit.

    Threads that call one model take turns: a change is in force for the call that asked for it, and for no other.
    """
    with alone(model), _beside(model, delta.low_rank):
        return _with(model, delta.dense, asked)


def call_body(model: PreTrainedModel, delta: Delta, **asked: Any) -> Any:
    """The same of the model without its head (its ``base_model``)."""
    body = model.base_model
    within = "" if body is model else f"{model.base_model_prefix}."
    own = {name.removeprefix(within): tensor for name, tensor in delta.dense.items() if name.startswith(within)}
    with alone(model), _beside(model, delta.low_rank):
        return _with(body, own, asked)


def _with(model: nn.Module, dense: Mapping[str, Tensor], asked: dict[str, Any]) -> Any:
    return functional_call(model, dict(dense), (), asked, tie_weights=True) if dense else model(**asked)


@contextmanager
def _beside(model: nn.Module, low_rank: Mapping[str, LowRank]) -> Iterator[None]:
    with ExitStack() as stack:
        for name, one in low_rank.items():
            stack.enter_context(_removed(model.get_submodule(name).register_forward_hook(_added(one))))
        yield


@contextmanager
def _removed(handle: Any) -> Iterator[None]:
    try:
        yield
    finally:
        handle.remove()


def _added(one: LowRank) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
    def hook(module: nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> Tensor:
        read = inputs[0]
        down, up = one.down.to(read.dtype), one.up.to(read.dtype)
        return out + (read @ down.T @ up.T * one.scale).to(out.dtype)

    return hook


def linear_layers(model: PreTrainedModel) -> dict[str, tuple[int, int]]:
    """Every linear layer but the head by name, with how many numbers it reads and says."""
    head = model.get_output_embeddings()
    found: dict[str, tuple[int, int]] = {}
    for name, module in model.named_modules():
        if module is head:
            continue
        if isinstance(module, nn.Linear):
            found[name] = (module.in_features, module.out_features)
        elif isinstance(module, Conv1D):
            # a linear layer whose weight lies the other way round (GPT-2)
            found[name] = (module.weight.shape[0], module.weight.shape[1])
    return found


def targets(model: PreTrainedModel, asked: tuple[str, ...]) -> dict[str, tuple[int, int]]:
    """The linear layers whose name, or whose name's last words, are among those asked for; ``all-linear`` is all.

    UnknownName with the nearest where there is none of a name.
    """
    known = linear_layers(model)
    found: dict[str, tuple[int, int]] = {}
    for name in asked:
        own = known if name == "all-linear" else {n: s for n, s in known.items() if n == name or n.endswith("." + name)}
        if not own:
            raise UnknownName("target module", name, ["all-linear", *{n.rsplit(".", 1)[-1] for n in known}])
        found |= own
    return {name: known[name] for name in known if name in found}


def weights(model: PreTrainedModel, asked: tuple[str, ...]) -> dict[str, nn.Parameter]:
    """The parameters within the modules asked for; ``all`` is all, and ``last-2`` the last two layers and the last norm.

    A name stands for every parameter that has it among its dotted words (``k_proj``), or begins with it. UnknownName
    with the nearest where there is none of a name.
    """
    known = dict(model.named_parameters())
    found: dict[str, nn.Parameter] = {}
    for name in asked:
        own = known if name == "all" else _last(known, name) or {n: p for n, p in known.items() if _within(n, name)}
        if not own:
            words = {word for n in known for word in n.split(".") if not word.isdigit()}
            raise UnknownName("weights", name, ["all", "last-1", *words])
        found |= own
    return {name: known[name] for name in known if name in found}


def _within(parameter: str, name: str) -> bool:
    return f".{name}." in f".{parameter}."


def _last(known: Mapping[str, nn.Parameter], name: str) -> dict[str, nn.Parameter]:
    """The parameters of the last so many layers, and of the norm after the layers; none where there are not so many."""
    word, _, number = name.partition("-")
    layer_of = {n: int(digits[0]) for n in known if (digits := [w for w in n.split(".") if w.isdigit()])}
    layers = max(layer_of.values(), default=-1) + 1
    if word != "last" or not number.isdigit() or not 0 < int(number) <= layers:
        return {}
    first = layers - int(number)
    after = {n for n in known if n not in layer_of and ("norm" in n or "ln_f" in n) and "emb" not in n}
    return {n: p for n, p in known.items() if layer_of.get(n, -1) >= first or n in after}
