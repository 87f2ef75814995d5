"""The demonstrations as a change of weights, in the real model: how much they say, and how far the linear form holds."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kshot.errors import ModelError
from kshot.measure.implicit import ValuesAndKeys, angles, effective_rank, meta_gradients, relaxed, update_norm
from kshot.measure.per_layer import PerLayer
from kshot.model.lm import LM
from kshot.model.prefix import Prefix
from kshot.model.surgery import turned
from kshot.model.trace import Trace, traced
from kshot.study.compared import Row, Setting
from kshot.study.figures import figure, layered_figures
from kshot.study.three_runs import POSITIONS, Texts

# Queries whose keys and values are held at a time, for one scale per head over them.
QUERIES = 32
# Draws of the null of every head; their mean over heads and layers is what is reported.
_DRAWS = 5

# Of which pass the keys and values of the query text are, whose products are W_ZSL.
IN_CONTEXT, ZERO_SHOT = "in-context W_ZSL", "zero-shot W_ZSL"

_ByLayer = list[list[ValuesAndKeys]]
"""Values and keys of every text, layer by layer."""


def implied(setting: Setting, *, named: Sequence[str] = ()) -> tuple[list[Row], dict[str, Any]]:
    """Rows of lambda, the relaxed form, and the norm, rank and angles of dW_ICL; and what the pictures are drawn from."""
    lm, asked = setting.lm, setting.texts()
    prefix = lm.prefill(asked.tokens)
    position = POSITIONS[0]
    shares: list[np.ndarray] = []
    held: list[Trace] = []
    for trace in traced(lm, asked.after, [own[:1] for own in asked.positions], prefix):
        shares.append(trace.weights[:, :, 0, : prefix.length][..., asked.owner >= 0].sum(axis=-1))
        if len(held) < QUERIES:
            held.append(trace)
    share = np.stack(shares)
    defined = np.ones(share.shape[:2], dtype=bool)
    found = PerLayer(share.mean(axis=2), defined, 0)
    # Even attention gives the demonstrations their share of all tokens that are seen.
    seen = [prefix.length + len(own) + at[0] + 1 for own, at in zip(asked.after, asked.positions, strict=True)]
    even = (asked.owner >= 0).sum() / np.array(seen, dtype=np.float64)
    null = PerLayer(np.repeat(even[:, None], share.shape[1], axis=1), defined, 0)
    rows = layered_figures("lambda", (*named, position), found, null=null, seed=setting.seed, unit="share")
    pictures, more = _updates(setting, asked, prefix, named)
    rows += _relaxed_forms(setting, asked, prefix, held, named) + more
    return rows, {"lambda_heads": share.mean(axis=0).tolist(), **pictures}


def _relaxed_forms(
    setting: Setting, asked: Texts, prefix: Prefix, held: Sequence[Trace], named: Sequence[str]
) -> list[Row]:
    """The linear form with the query text as the in-context pass has it, and as the zero-shot pass has it.

    The demonstrations' keys and values are those of the in-context pass in both. Above the first layer the two W_ZSL
    differ, since the text after demonstrations has read them.
    """
    layers = range(len(prefix.keys))
    here = [[_up_to(one, asked, i, layer) for i, one in enumerate(held)] for layer in layers]
    rows = _relaxed(setting, prefix, held, here, (*named, IN_CONTEXT))
    try:
        there = read_alone(setting.lm, asked, prefix, held)
    except ModelError as error:
        return rows + [
            figure(
                f"relaxed_{name}", (*named, ZERO_SHOT), value=None, n=len(held), unit="over heads", reason=str(error)
            )
            for name in _AGREEMENTS
        ]
    return rows + _relaxed(setting, prefix, held, there, (*named, ZERO_SHOT))


_AGREEMENTS = ("cosine", "r2", "r2_centred")


def _relaxed(
    setting: Setting, prefix: Prefix, held: Sequence[Trace], texts: _ByLayer, named: Sequence[str]
) -> list[Row]:
    """The linear form against what heads really say after the demonstrations, mean over heads."""
    rows: list[Row] = []
    means: dict[str, list[float]] = {name: [] for name in _AGREEMENTS}
    nulls: dict[str, list[float]] = {name: [] for name in means}
    for layer, own_texts in enumerate(texts):
        query = _tensor(np.stack([one.queries[layer, :, 0] for one in held], axis=1))
        said = _tensor(np.stack([one.heads[layer, :, 0] for one in held], axis=1))
        shown = (prefix.values[layer][0].double().cpu(), prefix.keys[layer][0].double().cpu())
        heads = relaxed(query, said, shown, own_texts, seed=setting.seed, draws=_DRAWS) or ()
        for name, own in means.items():
            values = [head[name] for head in heads if head[name] is not None]
            by_chance = [head[f"null_{name}"] for head in heads if head[f"null_{name}"] is not None]
            value = float(np.mean(values)) if values else None
            null = float(np.mean(by_chance)) if by_chance else None
            spread = [float(q) for q in np.quantile(values, [0.025, 0.975])] if values else [None, None]
            rows.append(
                figure(
                    f"relaxed_{name}", named, value=value, layer=layer, low=spread[0], high=spread[1], null=null,
                    n=len(held), unit="over heads",
                )
            )  # fmt: skip
            own += [] if value is None else [value]
            nulls[name] += [] if null is None else [null]
    for name, own in means.items():
        value = float(np.mean(own)) if own else None
        null = float(np.mean(nulls[name])) if nulls[name] else None
        rows.append(figure(f"relaxed_{name}", named, value=value, null=null, n=len(held), unit="over heads"))
    return rows


def _up_to(one: Trace, asked: Texts, i: int, layer: int) -> ValuesAndKeys:
    """Values and keys of the text after the demonstrations that are seen from the position: no token after it."""
    seen = one.keys.shape[2] + asked.positions[i][0] + 1
    return _tensor(one.values[layer, :, :seen]), _tensor(one.keys[layer, :, :seen])


def read_alone(lm: LM, asked: Texts, prefix: Prefix, held: Sequence[Trace]) -> _ByLayer:
    """The same with the query text read without demonstrations, its keys moved to where it stands after them.

    What stands between the demonstrations and the text, a token or two, is as the in-context pass has it. ModelError
    where the model's keys cannot be moved.
    """
    places, pieces = [], []
    alone = traced(lm, asked.alone[: len(held)], [own[:1] for own in asked.positions[: len(held)]])
    for i, (one, after) in enumerate(zip(alone, held, strict=True)):
        last = asked.positions[i][0] + 1
        stop, there = one.keys.shape[2] + last, after.keys.shape[2] + last
        begin = stop - (asked.shared[i] + last)
        pieces.append((one.keys[:, :, begin:stop], one.values[:, :, begin:stop]))
        places.append(np.full(stop - begin, prefix.length + there - stop))
    layers = range(len(prefix.keys))
    flat = [_tensor(np.concatenate([keys[layer] for keys, _ in pieces], axis=1))[None] for layer in layers]
    moved = turned(lm, tuple(keys.to(lm.device) for keys in flat), np.concatenate(places))
    bounds = np.cumsum([len(own) for own in places])[:-1].tolist()
    found: _ByLayer = []
    for layer in layers:
        texts = []
        for i, own in enumerate(torch.tensor_split(moved[layer][0].cpu(), bounds, dim=1)):
            values, keys = _up_to(held[i], asked, i, layer)
            between = keys.shape[1] - own.shape[1]
            value = _tensor(pieces[i][1][layer])
            texts.append((torch.cat([values[:, :between], value], 1), torch.cat([keys[:, :between], own], 1)))
        found.append(texts)
    return found


def _updates(setting: Setting, asked: Texts, prefix: Prefix, named: Sequence[str]) -> tuple[dict[str, Any], list[Row]]:
    """Norm and rank of dW_ICL in every layer as demonstrations are added, and rows of them and of the angles."""
    owner, labels = asked.owner.tolist(), [str(e.label) for e in setting.demonstrations]
    norms: list[list[float]] = []
    ranks: list[list[float | None]] = []
    rows: list[Row] = []
    for layer, (keys, values) in enumerate(zip(prefix.keys, prefix.values, strict=True)):
        products = meta_gradients(values[0], keys[0], owner)
        whole = update_norm(products.sum(0, keepdim=True))[0]
        norms.append(whole.tolist())
        ranks.append([_mean(heads) for heads in zip(*effective_rank(values[0], keys[0], owner), strict=True)])
        rows.append(figure("update_norm", named, value=float(whole[-1]), layer=layer, n=len(labels)))
        rank = ranks[-1][-1] if labels else None
        rows.append(figure("effective_rank", named, value=rank, layer=layer, n=len(labels), unit="directions"))
        (angle,) = angles(products.sum(0, keepdim=True), labels, seed=setting.seed)
        rows += [
            figure("angle_same", named, value=angle["same"], layer=layer, n=angle["n_same"], unit="cosine", reason=angle["reason"]),
            figure("angle_different", named, value=angle["different"], layer=layer, n=angle["n_different"], unit="cosine"),
            figure(
                "angle_difference", named, value=angle["difference"], layer=layer, null=0.0, null_low=angle["null_low"],
                null_high=angle["null_high"], n=len(labels), unit="cosine", reason=angle["reason"],
            ),
        ]  # fmt: skip
    added = list(range(1, len(labels) + 1))
    return {"update_norm": {"x": added, "layers": norms}, "effective_rank": {"x": added, "layers": ranks}}, rows


def _mean(heads: Sequence[float | None]) -> float | None:
    """Over the heads in which it is defined."""
    known = [value for value in heads if value is not None]
    return float(np.mean(known)) if known else None


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))
