"""What can be learned, as leaves of the one training loop: soft rows, free keys and values, thin changes, whole weights."""

import math
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from kshot.adapt.train import Learner, Leaves, Placed
from kshot.model.delta import Delta, LowRank, targets, weights
from kshot.model.lm import LM
from kshot.model.prefix import Prefix
from kshot.seeds import torch_stream


def leaf_type(lm: LM) -> torch.dtype:
    """What is learned is kept in float32 at least, whatever the model computes in."""
    return torch.promote_types(lm.dtype, torch.float32)


def soft_rows(lm: LM, rows: Float[Tensor, "p e"]) -> Learner:
    """Rows in the place of embedded tokens (Lester et al. 2021, section 2)."""

    def placed(leaves: Leaves) -> Placed:
        return Placed(prefix=lm.prefill(leaves["prompt"]), read=len(leaves["prompt"]))

    return Learner(leaves={"prompt": rows.to(lm.device, leaf_type(lm))}, placed=placed)


def free_prefix(lm: LM, start: Prefix) -> Learner:
    """Keys and values of every layer (Li and Liang 2021), from those of ``start`` on."""
    number, layers = leaf_type(lm), range(len(start.keys))
    leaves = {f"keys.{i}": start.keys[i].to(number) for i in layers}
    leaves |= {f"values.{i}": start.values[i].to(number) for i in layers}

    def placed(leaves: Leaves) -> Placed:
        return Placed(prefix=_prefix(lm, leaves, len(start.keys)))

    return Learner(leaves=leaves, placed=placed)


def _prefix(lm: LM, leaves: Leaves, layers: int) -> Prefix:
    return Prefix(
        keys=tuple(leaves[f"keys.{i}"].to(lm.dtype) for i in range(layers)),
        values=tuple(leaves[f"values.{i}"].to(lm.dtype) for i in range(layers)),
    )


def mapped_prefix(lm: LM, start: Prefix, width: int, *, seed: int, from_nothing: bool) -> Learner:
    """The same through a small network that all positions share: start + W2 tanh(W1 E + b1) + b2.

    Li and Liang 2021, section 4.3, learn E and the network and keep what it says. Where the start is that of a text W2
    and b2 begin at zero, so that step 0 is the start itself; ``from_nothing`` there is no start to keep.
    """
    number, p = leaf_type(lm), start.length
    shapes = [tuple(t.shape) for t in (*start.keys, *start.values)]
    sizes = [math.prod(shape) // p for shape in shapes]
    e = lm.embedded((0,)).shape[1]

    def drawn(name: str, *shape: int, bound: float) -> Tensor:
        values = torch.empty(*shape, dtype=torch.float64)
        return values.uniform_(-bound, bound, generator=torch_stream(seed, "prefix-network", name)).to(number)

    leaves = {
        "rows": drawn("rows", p, e, bound=math.sqrt(3.0)),
        "inner.weight": drawn("inner.weight", width, e, bound=e**-0.5),
        "inner.bias": torch.zeros(width, dtype=number),
        "outer.weight": torch.zeros(sum(sizes), width, dtype=number),
        "outer.bias": torch.zeros(sum(sizes), dtype=number),
    }
    if from_nothing:
        leaves["outer.weight"] = drawn("outer.weight", sum(sizes), width, bound=width**-0.5)
    base = [torch.zeros_like(t, dtype=number) if from_nothing else t.to(number) for t in (*start.keys, *start.values)]

    def placed(leaves: Leaves) -> Placed:
        inner = torch.tanh(leaves["rows"] @ leaves["inner.weight"].T + leaves["inner.bias"])
        said = (inner @ leaves["outer.weight"].T + leaves["outer.bias"]).split(sizes, dim=1)
        moved = [
            (was + one.unflatten(1, (shape[1], shape[3])).transpose(0, 1)[None]).to(lm.dtype)
            for was, one, shape in zip(base, said, shapes, strict=True)
        ]
        n = len(start.keys)
        return Placed(prefix=Prefix(tuple(moved[:n]), tuple(moved[n:])))

    return Learner(leaves={name: leaf.to(lm.device) for name, leaf in leaves.items()}, placed=placed)


def low_rank(lm: LM, asked: Sequence[str], rank: int, alpha: float, *, seed: int) -> Learner:
    """Thin matrices beside linear layers (Hu et al. 2022): ``down`` uniform within 1 / sqrt(inputs), ``up`` zero."""
    number = leaf_type(lm)
    shapes = targets(lm.model, tuple(asked))
    leaves: dict[str, Tensor] = {}
    for name, (read, say) in shapes.items():
        down = torch.empty(rank, read, dtype=torch.float64)
        down.uniform_(-(read**-0.5), read**-0.5, generator=torch_stream(seed, "low-rank", name))
        leaves[f"{name}.down"] = down.to(lm.device, number)
        leaves[f"{name}.up"] = torch.zeros(say, rank, dtype=number, device=lm.device)

    def placed(leaves: Leaves) -> Placed:
        thin = {n: LowRank(leaves[f"{n}.down"], leaves[f"{n}.up"], alpha / rank) for n in shapes}
        return Placed(delta=Delta(low_rank=thin))

    return Learner(leaves=leaves, placed=placed)


def whole_weights(lm: LM, asked: Sequence[str]) -> Learner:
    """The weights themselves: all of them, those of the last layers, or those of named modules."""
    found = weights(lm.model, tuple(asked))
    leaves = {name: weight.detach().to(leaf_type(lm)) for name, weight in found.items()}

    def placed(leaves: Leaves) -> Placed:
        return Placed(delta=Delta(dense={name: leaf.to(lm.dtype) for name, leaf in leaves.items()}))

    return Learner(leaves=leaves, placed=placed, whole=sum(leaf.numel() for leaf in leaves.values()))


def random_prefix(lm: LM, like: Prefix, length: int, *, seed: int) -> Prefix:
    """Normal keys and values with the mean and deviation that each layer's have in a text: ``like`` gives the measure."""

    def drawn(name: str, layer: int, of: Tensor) -> Tensor:
        shape = (1, of.shape[1], length, of.shape[3])
        noise = torch.randn(shape, dtype=torch.float64, generator=torch_stream(seed, "prefix", name, layer))
        spread = of.double().std() if of.numel() > 1 else torch.ones((), dtype=torch.float64)
        return (noise.to(of.device) * spread + of.double().mean()).to(leaf_type(lm))

    return Prefix(
        keys=tuple(drawn("keys", i, key) for i, key in enumerate(like.keys)),
        values=tuple(drawn("values", i, value) for i, value in enumerate(like.values)),
    )


def cut_or_repeated(tokens: Sequence[int], length: int) -> tuple[int, ...]:
    """The first ``length`` tokens, of the text again and again where it is shorter.

    >>> cut_or_repeated((1, 2, 3), 5)
    (1, 2, 3, 1, 2)
    """
    return tuple(tokens[i % len(tokens)] for i in range(length))


def finished(lm: LM, learner: Learner, leaves: Mapping[str, Tensor]) -> Placed:
    """What the model reads with at the end, without a graph; the rows of a soft prompt stay with their keys and values."""
    with torch.no_grad():
        placed = learner.placed(leaves)
    prefix = placed.prefix
    if "prompt" in leaves:
        prefix = Prefix(prefix.keys, prefix.values, None, leaves["prompt"].detach())
    elif prefix.length:
        prefix = Prefix(tuple(k.detach() for k in prefix.keys), tuple(v.detach() for v in prefix.values))
    return Placed(prefix, placed.delta, placed.read)
