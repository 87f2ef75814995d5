"""Momentum attention among the kinds of mixing, by its double sum; and beginnings that all tokens of a text see."""

import math

import pytest
import torch
from torch import Tensor

from kshot.errors import KshotError
from kshot.seeds import torch_stream
from kshot.synth.networks.language import DESIGNS, LANGUAGES, layered
from kshot.synth.networks.layers import MIXINGS, Design, layers
from kshot.synth.networks.mixing import MixingOptions, Shape

SHAPE = Shape(layers=2, heads=2, width=12)


def drawn(kind: str, eta: float | None) -> tuple[dict[str, Tensor], Tensor]:
    rng = torch_stream(0, "momentum mixing", kind)
    own = {name: torch.randn(tensor.shape, generator=rng, dtype=torch.float64)
           for name, tensor in MIXINGS[kind].start(rng, SHAPE).items()}  # fmt: skip
    if eta is not None:
        del own["decay"]
    return own, torch.randn(2, 37, 12, generator=rng, dtype=torch.float64)


def by_hand(kind: str, own: dict[str, Tensor], hidden: Tensor, eta: float | None) -> Tensor:
    """Token by token and head by head."""
    found = torch.zeros_like(hidden)
    for b, text in enumerate(hidden):
        said = []
        wide = text @ own["qkv.weight"].T + own["qkv.bias"]
        for h in range(2):
            q, k, v = (wide[:, 12 * part + 6 * h : 12 * part + 6 * h + 6] for part in range(3))
            decay = eta if eta is not None else 1 / (1 + math.exp(-float(own["decay"][h])))

            def summed(values: Tensor, t: int, decay: float = decay) -> Tensor:
                return sum((decay ** (t - i) * values[i] for i in range(t)), torch.zeros(6, dtype=torch.float64))

            if kind == "momentum-keys":
                k = torch.stack([k[t] + summed(k, t) for t in range(len(k))])
            rows = []
            for t in range(len(text)):
                row = (k[: t + 1] @ q[t] / math.sqrt(6)).softmax(0) @ v[: t + 1]
                if kind == "momentum":
                    row = row + summed(v, t)
                if kind == "momentum-normalised" and t:
                    row = row + summed(v, t) / sum(decay ** (t - i) for i in range(t))
                rows.append(row)
            said.append(torch.stack(rows))
        found[b] = torch.cat(said, dim=1) @ own["out.weight"].T + own["out.bias"]
    return found


@pytest.mark.parametrize("kind", ["momentum", "momentum-normalised", "momentum-keys"])
@pytest.mark.parametrize("eta", [None, 0.3, 0.9])
def test_it_is_the_double_sum(kind: str, eta: float | None) -> None:
    own, hidden = drawn(kind, eta)
    said = MIXINGS[kind].mix(own, hidden, SHAPE, MixingOptions(causal=True, eta=eta), None)[0]
    assert (said - by_hand(kind, own, hidden, eta)).abs().max() < 1e-10


def test_a_decay_that_is_given_is_none_of_the_weights() -> None:
    shape = Shape(layers=1, heads=2, width=12)
    learned, given = (
        layered(7, 9, shape, Design(mixing="momentum", eta=eta)).start(torch_stream(0, "start")) for eta in (None, 0.5)
    )
    assert set(learned) - set(given) == {"0.decay"}
    assert all(torch.equal(given[name], learned[name]) for name in given)
    for eta in (0.0, 1.0, -0.5, math.nan):
        with pytest.raises(KshotError, match="between 0 and 1"):
            layers(shape, Design(mixing="momentum", eta=eta))


@pytest.mark.parametrize("kind", ["softmax", "momentum"])
@pytest.mark.parametrize("name", ["transformer", "llama"])
def test_a_beginning_is_seen_by_all_and_the_rest_by_what_comes_after(kind: str, name: str) -> None:
    design = DESIGNS[name]
    language = layered(7, 12, SHAPE, Design(mixing=kind, mlp=design.mlp, positions=design.positions, norm=design.norm))
    rng = torch_stream(0, "seen", kind, name)
    weights = {
        key: torch.randn(own.shape, generator=rng, dtype=torch.float64) / 3 for key, own in language.start(rng).items()
    }
    tokens = torch.randint(7, (3, 10), generator=rng)
    seen = torch.tensor([4, 1, 10])

    def reads(own: Tensor) -> Tensor:
        return language.reads(weights, own, seen)

    said = reads(tokens)
    for place in range(10):
        other = tokens.clone()
        other[:, place] = (other[:, place] + 1) % 7
        changed = ((reads(other) - said).abs().amax(dim=2) > 1e-9).tolist()
        for row, own in enumerate(seen.tolist()):
            # A beginning sees all of itself, the rest what stands before it.
            assert changed[row] == [place <= t or place < own for t in range(10)]
    alone = language.reads(weights, tokens[1:2], None)
    assert torch.allclose(said[1:2], alone, atol=1e-12), "with one token seen it is causal"


def test_what_cannot_be_told_what_it_hears_is_refused() -> None:
    tokens, seen = torch.zeros(1, 5, dtype=torch.long), torch.tensor([2])
    for name in ("linear-transformer", "mamba", "mambaformer", "lstm"):
        language = LANGUAGES[name](7, 12, SHAPE)
        weights = language.start(torch_stream(0, "start"))
        with pytest.raises(KshotError, match="a beginning that all tokens see"):
            language.reads(weights, tokens, seen)


def test_an_encoder_hears_all() -> None:
    language = layered(7, 12, SHAPE, DESIGNS["encoder"])
    rng = torch_stream(0, "encoder")
    weights = {
        key: torch.randn(own.shape, generator=rng, dtype=torch.float64) for key, own in language.start(rng).items()
    }
    tokens = torch.randint(7, (1, 8), generator=rng)
    other = tokens.clone()
    other[0, -1] = (other[0, -1] + 1) % 7
    apart = (language.says(weights, other) - language.says(weights, tokens)).abs().amax(dim=2)
    assert (apart > 1e-9).all()
    assert "encoder" not in LANGUAGES, "those are causal"
