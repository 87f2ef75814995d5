"""What a pass leaves behind at chosen positions: queries, keys, values, scores before the softmax, attention outputs.

Texts are traced a pack at a time, in their order, and handed over one by one: who reduces them as they come needs no
more memory for a thousand texts than for ten, and several runs of the same texts can be walked side by side.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from kshot.errors import ModelError
from kshot.model.attention import Attended, Before, Pass
from kshot.model.delta import alone
from kshot.model.lm import LM
from kshot.model.prefix import EMPTY, Prefix
from kshot.model.said import Part
from kshot.model.tree import Pack, Scored, paths, plan

Tokens = tuple[int, ...]

# Tokens of texts that are traced in one pass: keys, values and scores of all layers are held for so many.
_TOKENS_PER_PASS = 2048


Said = tuple[Float[np.ndarray, "_"], Int[np.ndarray, "_"]]
"""Of every scored token of a sequence its log-probability (nats), and the most probable token in its place."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trace:
    """What one text of t tokens after p positions of a prefix leaves behind at s positions, in every layer; float64.

    ``queries`` are as attention uses them (after rotary positions), ``scores`` are scaled and before the softmax:
    ``to_prefix`` against the prefix, ``to_own`` against the text itself, -inf where a position does not see a token.
    ``heads`` is what attention says for every head, ``outputs`` what its module says: after the output projection,
    before the residual. ``keys`` and ``values`` are those of the text. ``said`` is what the same pass says of what was
    scored beside it (``traced``).
    """

    queries: Float[np.ndarray, "l h s d"]
    to_prefix: Float[np.ndarray, "l h s p"]
    to_own: Float[np.ndarray, "l h s t"]
    heads: Float[np.ndarray, "l h s w"]
    outputs: Float[np.ndarray, "l s e"]
    keys: Float[np.ndarray, "l g t d"]
    values: Float[np.ndarray, "l g t w"]
    said: tuple[Said, ...] = ()

    @property
    def weights(self) -> Float[np.ndarray, "l h s pt"]:
        """The softmax of the scores over prefix and text. Models with sinks or caps give other weights; these are without."""
        scores = np.concatenate([self.to_prefix, self.to_own], axis=-1)
        shifted = np.exp(scores - scores.max(axis=-1, keepdims=True))
        return shifted / shifted.sum(axis=-1, keepdims=True)


# A model's layers do not know the model, so that it is let go of when nobody else holds it.
_FOUND: WeakKeyDictionary[nn.Module, dict[int, nn.Module]] = WeakKeyDictionary()


def traced(
    lm: LM,
    texts: Sequence[Tokens],
    positions: Sequence[Sequence[int]],
    prefix: Prefix = EMPTY,
    beside: Sequence[Sequence[Scored]] | None = None,
) -> Iterator[Trace]:
    """The trace of every text after ``prefix``, in order; ``positions[i]`` counts from the start of text i (-1 its last).

    ``beside[i]`` are sequences after the prefix that are scored in the same pass: what they share with the text is read
    once. Memory is that of one pass. ModelError for a model that reads sequences whole: its attention is not ours to see.
    """
    if lm.route.kind == "rows":
        raise ModelError(f"{lm.name} reads every sequence whole ({lm.route.reason}): its attention cannot be traced")
    modules = attention_modules(lm)
    scored = beside or [()] * len(texts)
    begin = 0
    while begin < len(texts):
        stop, tokens = begin, 0
        while stop < len(texts) and (stop == begin or tokens + _read(texts[stop], scored[stop]) <= _TOKENS_PER_PASS):
            tokens += _read(texts[stop], scored[stop])
            stop += 1
        yield from _pass(lm, modules, texts[begin:stop], positions[begin:stop], prefix, scored[begin:stop])
        begin = stop


def _read(text: Tokens, scored: Sequence[Scored]) -> int:
    """How many tokens are read for a text, where what is scored beside it begins as it does."""
    return len(text) + sum(len(own.tokens) - own.start for own in scored)


def attention_modules(lm: LM) -> dict[int, nn.Module]:
    """The attention module of every layer: the one that asks the seam for attention. Found once for a model."""
    if lm.model in _FOUND:
        return _FOUND[lm.model]
    found: dict[int, nn.Module] = {}

    def watch(one: Attended) -> None:
        found[one.layer] = one.module

    with torch.no_grad():
        one = Pass((Before(EMPTY, 0, 1),), np.arange(1), np.ones(1, int), watch=watch)
        lm.forward(np.zeros(1, dtype=np.int64), one, np.arange(0))
    _FOUND[lm.model] = found
    return found


@dataclass(slots=True, eq=False)
class _Wanted:
    """The nodes of a pack at which each text is looked at, and what has been seen there, layer by layer."""

    paths: list[list[int]]
    at: list[list[int]]
    seen: list[dict[str, list[np.ndarray]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        names = ("queries", "to_prefix", "to_own", "heads", "outputs", "keys", "values")
        self.seen = [{name: [] for name in names} for _ in self.paths]

    def attended(self, one: Attended) -> None:
        number = torch.promote_types(one.query.dtype, torch.float32)
        group = one.query.shape[1] // one.key.shape[1]
        far = [(f.keys[0].to(number).repeat_interleave(group, 0), f.begin, f.stop) for f in one.far]
        for path, at, seen in zip(self.paths, self.at, self.seen, strict=True):
            query = one.query[0, :, at].to(number)
            key = one.key[0][:, path].to(number)
            own = one.scale * query @ key.repeat_interleave(group, 0).transpose(1, 2)
            before = (
                one.scale * query @ torch.cat([keys for keys, _, _ in far], 1).transpose(1, 2) if far else own[..., :0]
            )
            later = torch.tensor(path)[None, :] > torch.tensor(at)[:, None]
            own = own.masked_fill(later.to(own.device), -torch.inf)
            if one.mask is not None:
                length = before.shape[-1]
                sees = one.mask[0, 0, at]
                before = before.masked_fill(~sees[:, :length], -torch.inf)
                own = own.masked_fill(~sees[:, [length + node for node in path]], -torch.inf)
            found = {"queries": query, "to_prefix": before, "to_own": own, "heads": one.said[0, at].transpose(0, 1)}
            found |= {"keys": key, "values": one.value[0][:, path]}
            for name, tensor in found.items():
                seen[name].append(_plain(tensor))

    def said(self, out: Tensor) -> None:
        for at, seen in zip(self.at, self.seen, strict=True):
            seen["outputs"].append(_plain(out[0, at]))

    def traces(self, said: Sequence[tuple[Said, ...]]) -> Iterator[Trace]:
        for seen, own in zip(self.seen, said, strict=True):
            yield Trace(said=own, **{name: np.stack(layers) for name, layers in seen.items()})


def _pass(
    lm: LM,
    modules: dict[int, nn.Module],
    texts: Sequence[Tokens],
    positions: Sequence[Sequence[int]],
    prefix: Prefix,
    beside: Sequence[Sequence[Scored]],
) -> Iterator[Trace]:
    asked = [Scored((*tokens, 0), len(tokens)) for tokens in texts] + [one for own in beside for one in own]
    (pack,) = plan(asked, tokens_per_pack=1 << 30, rows_per_pack=1 << 30, trunk=False).packs
    by_text = dict(zip(pack.members.tolist(), paths(pack), strict=True))
    nodes = [by_text[i] for i in range(len(texts))]
    wanted = _Wanted(nodes, [[path[i] for i in own] for path, own in zip(nodes, positions, strict=True)])
    current = Pass((Before(prefix, 0, len(pack.tokens)),), pack.depth, pack.end, watch=wanted.attended)
    with alone(lm.model), ExitStack() as stack, torch.no_grad():
        for module in modules.values():
            handle = module.register_forward_hook(lambda module, inputs, out: wanted.said(_first(out)))
            stack.callback(handle.remove)
        # Without anything to score the head is not asked.
        rows = pack.rows if len(asked) > len(texts) else np.arange(0)
        logits = lm.forward(pack.tokens, current, rows)
    yield from wanted.traces(_answers(pack, logits, beside) if len(rows) else [()] * len(texts))


def _answers(pack: Pack, logits: Tensor, beside: Sequence[Sequence[Scored]]) -> list[tuple[Said, ...]]:
    """What a pass says of the sequences beside each text, which stand after all texts among its members."""
    part = Part(logits, pack.row_of, pack.targets, pack.members, pack.bounds, len(pack.tokens))
    values, best = part.logprobs().cpu().numpy(), part.best()
    found = {
        j: (values[begin:end], best[begin:end])
        for j, begin, end in zip(pack.members.tolist(), pack.bounds, pack.bounds[1:], strict=False)
    }
    numbers = iter(range(len(beside), len(found)))
    return [tuple(found[next(numbers)] for _ in own) for own in beside]


def _first(out: Any) -> Tensor:
    return out[0] if isinstance(out, tuple) else out


def _plain(tensor: Tensor) -> np.ndarray:
    return tensor.double().cpu().numpy()
