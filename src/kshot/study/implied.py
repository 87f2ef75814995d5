"""The demonstrations as a change of weights, in the real model: how much they say, and how far the linear form holds."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kshot.measure.implicit import angles, effective_rank, meta_gradients, relaxed, update_norm
from kshot.measure.per_layer import PerLayer
from kshot.model.prefix import Prefix
from kshot.model.trace import Trace, traced
from kshot.study.compared import Row, Setting
from kshot.study.figures import figure, layered_figures
from kshot.study.three_runs import POSITIONS, Texts

# Queries whose keys and values are held at a time, for one scale per head over them.
QUERIES = 32
# Draws of the null of every head; their mean over heads and layers is what is reported.
_DRAWS = 5


def implied(setting: Setting, *, named: Sequence[str] = ()) -> tuple[list[Row], dict[str, Any]]:
    """Rows of lambda, the relaxed form, and the norm, rank and angles of dW_ICL; and what the pictures are drawn from."""
    lm, asked = setting.lm, setting.texts()
    prefix = lm.prefill(asked.tokens)
    position = POSITIONS[0]
    shares: list[np.ndarray] = []
    held: list[Trace] = []
    for trace in traced(lm, asked.behind, [own[:1] for own in asked.positions], prefix):
        shares.append(trace.weights[:, :, 0, : prefix.length][..., asked.owner >= 0].sum(axis=-1))
        if len(held) < QUERIES:
            held.append(trace)
    share = np.stack(shares)
    defined = np.ones(share.shape[:2], dtype=bool)
    found = PerLayer(share.mean(axis=2), defined, 0)
    # Even attention gives the demonstrations their share of all tokens that are seen.
    seen = [prefix.length + len(own) + at[0] + 1 for own, at in zip(asked.behind, asked.positions, strict=True)]
    even = (asked.owner >= 0).sum() / np.array(seen, dtype=np.float64)
    null = PerLayer(np.repeat(even[:, None], share.shape[1], axis=1), defined, 0)
    rows = layered_figures("lambda", (*named, position), found, null=null, seed=setting.seed, unit="share")
    norms, more = _updates(setting, asked, prefix, named)
    rows += _relaxed(setting, asked, prefix, held, named) + more
    pictures = {
        "lambda_heads": share.mean(axis=0).tolist(),
        "update_norm": {"x": list(range(1, len(setting.demonstrations) + 1)), "layers": norms},
    }
    return rows, pictures


def _relaxed(setting: Setting, asked: Texts, prefix: Prefix, held: Sequence[Trace], named: Sequence[str]) -> list[Row]:
    """The linear form against what heads really say, mean over heads; X and X' are those of the in-context pass."""
    rows: list[Row] = []
    means: dict[str, list[float]] = {"cosine": [], "r2": [], "r2_centred": []}
    nulls: dict[str, list[float]] = {name: [] for name in means}
    for layer in range(len(prefix.keys)):
        query = _tensor(np.stack([one.queries[layer, :, 0] for one in held], axis=1))
        said = _tensor(np.stack([one.heads[layer, :, 0] for one in held], axis=1))
        shown = (prefix.values[layer][0].double(), prefix.keys[layer][0].double())
        texts = []
        for i, one in enumerate(held):
            # Tokens behind the position are not seen from it.
            seen = one.keys.shape[2] + asked.positions[i][0] + 1
            texts.append((_tensor(one.values[layer, :, :seen]), _tensor(one.keys[layer, :, :seen])))
        heads = relaxed(query, said, shown, texts, seed=setting.seed, draws=_DRAWS) or ()
        for name, own in means.items():
            values = [head[name] for head in heads if head[name] is not None]
            by_chance = [head[f"null_{name}"] for head in heads if head[f"null_{name}"] is not None]
            value = float(np.mean(values)) if values else None
            null = float(np.mean(by_chance)) if by_chance else None
            spread = [float(q) for q in np.quantile(values, [0.025, 0.975])] if values else [None, None]
            rows.append(
                figure(
                    f"relaxed_{name}", (*named, "in-context W_ZSL"), value=value, layer=layer, low=spread[0],
                    high=spread[1], null=null, n=len(held), unit="over heads",
                )
            )  # fmt: skip
            own += [] if value is None else [value]
            nulls[name] += [] if null is None else [null]
    for name, own in means.items():
        value = float(np.mean(own)) if own else None
        null = float(np.mean(nulls[name])) if nulls[name] else None
        rows.append(
            figure(
                f"relaxed_{name}", (*named, "in-context W_ZSL"), value=value, null=null, n=len(held), unit="over heads"
            )
        )
    return rows


def _updates(
    setting: Setting, asked: Texts, prefix: Prefix, named: Sequence[str]
) -> tuple[list[list[float]], list[Row]]:
    """Norms of dW_ICL as demonstrations are added, (l, k), and rows of its norm, rank and angles in every layer."""
    owner, labels = asked.owner.tolist(), [str(e.label) for e in setting.demonstrations]
    norms: list[list[float]] = []
    rows: list[Row] = []
    for layer, (keys, values) in enumerate(zip(prefix.keys, prefix.values, strict=True)):
        products = meta_gradients(values[0], keys[0], owner)
        whole = update_norm(products.sum(0, keepdim=True))[0]
        norms.append(whole.tolist())
        ranks = [own[-1] for own in effective_rank(values[0], keys[0], owner) if own and own[-1] is not None]
        rows.append(figure("update_norm", named, value=float(whole[-1]), layer=layer, n=len(labels)))
        rows.append(
            figure(
                "effective_rank",
                named,
                value=float(np.mean(ranks)) if ranks else None,
                layer=layer,
                n=len(labels),
                unit="directions",
            )
        )
        (angle,) = angles(products.sum(0, keepdim=True), labels, seed=setting.seed)
        rows += [
            figure("angle_same", named, value=angle["same"], layer=layer, n=angle["n_same"], unit="cosine", reason=angle["reason"]),
            figure("angle_different", named, value=angle["different"], layer=layer, n=angle["n_different"], unit="cosine"),
            figure(
                "angle_difference", named, value=angle["difference"], layer=layer, null=0.0, null_low=angle["null_low"],
                null_high=angle["null_high"], n=len(labels), unit="cosine", reason=angle["reason"],
            ),
        ]  # fmt: skip
    return norms, rows


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))
