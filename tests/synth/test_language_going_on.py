"""Language models that go on with texts: token by token they know what they know of texts that are read whole."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from kshot.errors import KshotError
from kshot.seeds import torch_stream
from kshot.synth.networks.language import DESIGNS, LANGUAGES, Language, layered
from kshot.synth.networks.layers import MIXINGS
from kshot.synth.networks.mixing import Shape

SHAPE = Shape(layers=2, heads=2, width=16, spread=0.5)
VOCABULARY, LENGTH = 11, 24
DESIGNED = {
    **{f"{kind} mixing": replace(DESIGNS["llama"], mixing=kind) for kind in MIXINGS},
    **{
        f"{positions} positions": replace(DESIGNS["transformer"], positions=positions)
        for positions in ("sinusoidal", "sinusoidal-concatenated", "rotary", "relative", "none")
    },
    "relative positions and momentum": replace(
        DESIGNS["transformer"], positions="relative", mixing="momentum", eta=0.7
    ),
    "no mixing": replace(DESIGNS["transformer"], mixing=None),
    "batch norms": replace(DESIGNS["transformer"], norm="batch"),
}
NETWORKS: dict[str, Language] = {
    **{name: make(VOCABULARY, LENGTH, SHAPE) for name, make in LANGUAGES.items()},
    **{name: layered(VOCABULARY, LENGTH, SHAPE, design) for name, design in DESIGNED.items()},
}


def drawn(language: Language) -> tuple[dict[str, Tensor], Tensor]:
    rng = torch_stream(0, "going on")
    weights = {name: own.double() for name, own in language.start(rng).items()}
    return weights, torch.randint(VOCABULARY, (3, LENGTH), generator=rng)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_text_in_parts_is_known_as_a_whole(name: str) -> None:
    language = NETWORKS[name]
    weights, tokens = drawn(language)
    whole = language.reads(weights, tokens, None)
    past, found = None, []
    for part in tokens.split([7, 1, 1, 5, 1, 9], dim=1):
        known, past = language.reads_on(weights, part, past)
        found.append(known)
    torch.testing.assert_close(torch.cat(found, dim=1), whole, atol=1e-10, rtol=0)


def test_a_past_serves_many_times() -> None:
    language = NETWORKS["momentum mixing"]
    weights, tokens = drawn(language)
    _, past = language.reads_on(weights, tokens[:, :10], None)
    first, _ = language.reads_on(weights, tokens[:, 10:11], past)
    language.reads_on(weights, tokens[:, 12:20], past)
    again, _ = language.reads_on(weights, tokens[:, 10:11], past)
    assert np.array_equal(first.numpy(), again.numpy())


def test_no_more_tokens_than_places() -> None:
    language = NETWORKS["transformer"]
    weights, tokens = drawn(language)
    _, past = language.reads_on(weights, tokens, None)
    with pytest.raises(KshotError, match="25 tokens: the network has places for 24"):
        language.reads_on(weights, tokens[:, :1], past)
