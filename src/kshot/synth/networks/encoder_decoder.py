"""An encoder and a decoder, as T5: what is read as a whole, and what is said of it token by token.

No biases, norms by the root mean square, relative positions in buckets that all layers of a side share, scores that are not
divided, one matrix for tokens that are read and said.

Source: Raffel et al. 2020, section 2.1, and the transformers library for what the paper leaves open.
"""

from math import sqrt

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from kshot.errors import KshotError
from kshot.synth.networks.language import Beside, Language, Texts
from kshot.synth.networks.layers import NORM_FLOOR, by_layer
from kshot.synth.networks.mixing import Hidden, Shape, linear, linear_start
from kshot.synth.networks.network import Weights
from kshot.synth.networks.relative import BUCKETS, relative_bias

_PARTS = ("q", "k", "v", "out")


def encoder_decoder(vocabulary: int, length: int, shape: Shape) -> Language:
    """As many layers on either side; its texts are read beside sources, (b, u), which are read as a whole.

    KshotError for a width that its heads do not divide.
    """
    e = shape.width
    if e % shape.heads:
        raise KshotError(f"width {e} of {shape.heads} heads: what works is a multiple of {shape.heads}")

    def start(rng: Generator) -> dict[str, Tensor]:
        found = {"embedding": torch.randn(vocabulary, e, generator=rng)}
        for side in ("encoder", "decoder"):
            found[f"{side}.positions"] = torch.randn(BUCKETS, shape.heads, generator=rng) / sqrt(e)
            found[f"{side}.norm.weight"] = torch.ones(e)
            for i in range(shape.layers):
                own = _layer_start(rng, shape, crosses=side == "decoder")
                found |= {f"{side}.{i}.{name}": tensor for name, tensor in own.items()}
        return found

    def reads(weights: Weights, tokens: Texts, source: Beside) -> Float[Tensor, "b t e"]:
        if source is None or source.ndim != 2:
            raise KshotError(
                "an encoder-decoder says something of a source; what works is hidden spans, or the rest of a text"
            )
        return read_beside(weights, shape, tokens, nn.functional.embedding(source, weights["embedding"]))

    def head(weights: Weights, known: Float[Tensor, "*b e"]) -> Float[Tensor, "*b v"]:
        return nn.functional.linear(known / sqrt(e), weights["embedding"])

    return Language(start=start, reads=reads, head=head)


def read_beside(
    weights: Weights, shape: Shape, tokens: Texts, source: Float[Tensor, "b u e"]
) -> Float[Tensor, "b t e"]:
    """What is known at each token beside a source that is embedded; rows of a soft prompt may stand before it."""
    encoded = _side(weights, "encoder", shape, source, None)
    return _side(weights, "decoder", shape, nn.functional.embedding(tokens, weights["embedding"]), encoded)


def _layer_start(rng: Generator, shape: Shape, *, crosses: bool) -> dict[str, Tensor]:
    e, d = shape.width, shape.width // shape.heads
    # Scores are not divided by the root of a head's width, so queries begin smaller by it.
    spreads = {"q": 1 / sqrt(e * d), "k": 1 / sqrt(e), "v": 1 / sqrt(e), "out": 1 / sqrt(e)}
    found: dict[str, Tensor] = {}
    for kind in ("", *(("cross_",) if crosses else ())):
        found[f"{kind}norm.weight"] = torch.ones(e)
        for part, spread in spreads.items():
            found |= linear_start(rng, f"{kind}{part}", e, e, spread, bias=False)
    found["mlp_norm.weight"] = torch.ones(e)
    return (
        found
        | linear_start(rng, "up", e, 4 * e, 1 / sqrt(e), bias=False)
        | linear_start(rng, "down", 4 * e, e, 1 / sqrt(4 * e), bias=False)
    )


def _side(weights: Weights, side: str, shape: Shape, hidden: Hidden, source: Float[Tensor, "b u e"] | None) -> Hidden:
    """All layers of a side; the decoder's see the ``source``, too, and of their own tokens those up to each."""
    causal = source is not None
    t = hidden.shape[1]
    bias = relative_bias(weights[f"{side}.positions"], t, causal=causal)
    if causal:
        later = torch.ones(t, t, dtype=torch.bool, device=hidden.device).triu(1)
        bias = bias.masked_fill(later, -torch.inf)
    of_side = {name.removeprefix(f"{side}."): tensor for name, tensor in weights.items() if name.startswith(side)}
    for own in by_layer(of_side, shape.layers):
        normed = _normed(hidden, own["norm.weight"])
        hidden = hidden + _attended(own, "", shape, normed, normed, bias)
        if source is not None:
            asks = _normed(hidden, own["cross_norm.weight"])
            hidden = hidden + _attended(own, "cross_", shape, asks, source, None)
        up = torch.relu(linear(own, "up", _normed(hidden, own["mlp_norm.weight"])))
        hidden = hidden + linear(own, "down", up)
    return _normed(hidden, weights[f"{side}.norm.weight"])


def _attended(
    own: Weights,
    kind: str,
    shape: Shape,
    asks: Hidden,
    seen: Float[Tensor, "b u e"],
    bias: Float[Tensor, "h t u"] | None,
) -> Hidden:
    q, k, v = (
        linear(own, f"{kind}{part}", what).unflatten(2, (shape.heads, -1)).transpose(1, 2)
        for part, what in zip(_PARTS, (asks, seen, seen), strict=False)
    )
    mask = None if bias is None else bias[None].to(q.dtype)
    said = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=1.0)
    return linear(own, f"{kind}out", said.transpose(1, 2).flatten(2))


def _normed(hidden: Hidden, weight: Float[Tensor, "e"]) -> Hidden:
    return nn.functional.rms_norm(hidden, hidden.shape[-1:], weight, eps=NORM_FLOOR)
