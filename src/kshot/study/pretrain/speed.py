"""How fast a network is against its machine: training, reading and saying, under what arithmetic and memory allow.

Bytes are those that must be moved at least: weights once a pass, and in training gradients, moments and weights again.
What layers hand one another comes on top, so a network stands to the right of where it really is.
"""

import time
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from kshot.devices import memory_rate
from kshot.study.figures import figure
from kshot.study.pretrain.plan import Plan
from kshot.study.synth.growing import picture
from kshot.synth.networks.language import Language
from kshot.synth.networks.layers import Past
from kshot.synth.networks.network import Weights, parameters

# Read once forward and once backward; a gradient written and read; two moments and the weight read and written.
_MOVED = 2 + 2 + 6
_ROUNDS = 3


def operations(weights: Weights, plan: Plan) -> float:
    """Of a token in training of a causal network, forward and backward: six for each number of a matrix, and those of
    attention to half of the context.

    A table of tokens is looked up and costs nothing, but as the head of a network that has no other.
    """
    tables = ("embedding", "positions", "relative")
    matrices = sum(own.numel() for name, own in weights.items() if own.ndim == 2 and name not in tables)
    tied = 0 if "read_out.weight" in weights or "embedding" not in weights else weights["embedding"].numel()
    attending = [own for name, own in weights.items() if name.endswith("qkv.weight")]
    return 6.0 * (matrices + tied + plan.context * sum(own.shape[1] for own in attending))


def uncounted(weights: Weights, objective: str) -> str | None:
    """Why ``operations`` does not hold of a network, in words; None where it does: of causal ones that were grown here."""
    if objective != "causal":
        return "the arithmetic of causal networks alone is counted"
    if "embedding" not in weights:
        return "the arithmetic of networks that are grown here alone is counted"
    return None


def roofline(
    name: str, language: Language, weights: Weights, plan: Plan, pace: float, rate: float
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Tokens a second of reading rows whole and of one token more of each, and a picture of both and of training (``pace``
    tokens a second) under the machine's ``rate`` of products and that of its memory.

    What fits into a cache is read faster than memory gives it: a share of the roof may be more than all.
    """
    place = next(iter(weights.values())).device
    size = sum(own.numel() * own.element_size() for own in weights.values())
    rows = max(1, plan.batch // plan.training.parts)
    texts = torch.zeros(rows, plan.context, dtype=torch.long, device=place)
    with torch.no_grad():
        past = language.reads_on(weights, texts[:, :-1], None)[1] if language.goes_on and plan.context > 1 else None
    read, said = _seconds(language, weights, texts, None), _seconds(language, weights, texts[:, -1:], past)
    paces = {"training": pace, "prefill": rows * plan.context / read, "decode": rows / said}
    # A pass forward is a third of both; its last token sees all the others, where half of them are counted for each.
    alone = replace(plan, context=1 if past is None else 2 * plan.context)
    forward = operations(weights, plan) / 3, operations(weights, alone) / 3
    spent = {"training": 3 * forward[0], "prefill": forward[0], "decode": forward[1]}
    moved = {"training": 4 * _MOVED * parameters(weights), "prefill": size, "decode": size + _bytes(past)}
    tokens = {"training": plan.batch * plan.context, "prefill": rows * plan.context, "decode": rows}
    points = {own: (tokens[own] * spent[own] / moved[own], paces[own] * spent[own]) for own in paces}
    found = [
        figure("pace", (name, own), value=paces[own], unit="tokens a second") for own in ("prefill", "decode")
    ]  # fmt: skip
    memory = memory_rate(place)
    found += [figure("share_of_roof", (name, own), value=y / min(rate, memory * x)) for own, (x, y) in points.items()]
    return found, _picture(name, points, rate, memory)


def _bytes(past: object) -> int:
    """Of what the tokens before have kept."""
    if not isinstance(past, Past):
        return 0
    return sum(own.numel() * own.element_size() for kept in past.kept for own in kept or ())


def _picture(name: str, points: dict[str, tuple[float, float]], rate: float, memory: float) -> dict[str, Any]:
    knee = rate / memory
    low, high = min(knee, *(x for x, _ in points.values())) / 2, max(knee, *(x for x, _ in points.values())) * 2
    roof = {"this machine": [(low, low * memory), (knee, rate), (high, rate)]}
    return picture(
        f"the machine's roof, {name}", x="operations a byte", y="operations a second",
        lines={**roof, **{own: [point] for own, point in points.items()}}, log_x=True, log_y=True,
    )  # fmt: skip


def _seconds(language: Language, weights: Weights, tokens: Tensor, past: Any) -> float:
    """Of a pass forward after a past, the head at every token: the best of a few, the first of which warms up."""
    found = []
    for _ in range(_ROUNDS + 1):
        began = time.perf_counter()
        with torch.no_grad():
            # Reading a number waits for the device.
            float(language.head(weights, language.reads_on(weights, tokens, past)[0])[0, 0, 0])
        found.append(time.perf_counter() - began)
    return min(found[1:])
