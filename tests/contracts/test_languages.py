"""Every language model passes the same tests: causal, texts apart, and it learns what is there to be learned."""

import pytest
import torch

from kshot.errors import KshotError
from kshot.seeds import torch_stream
from kshot.synth.networks.language import LANGUAGES, WINDOW, Language, cross_entropy, layered
from kshot.synth.networks.mixing import Shape
from kshot.synth.train import Training, trained

SHAPE = Shape(layers=2, heads=2, width=16)


def made(name: str) -> tuple[Language, dict[str, torch.Tensor]]:
    language = LANGUAGES[name](7, 12, SHAPE)
    return language, {key: tensor.double() for key, tensor in language.start(torch_stream(0, "start")).items()}


def texts(*size: int) -> torch.Tensor:
    return torch.randint(7, size, generator=torch_stream(1, "texts"))


@pytest.mark.parametrize("name", LANGUAGES)
def test_what_comes_later_changes_nothing_and_what_was_is_seen(name: str) -> None:
    language, weights = made(name)
    weights = {
        key: tensor + 0.3 * torch.randn(tensor.shape, generator=torch_stream(2, key)) for key, tensor in weights.items()
    }
    tokens = texts(3, 9)
    said = language.says(weights, tokens)
    assert said.shape == (3, 9, 7)
    later = tokens.clone()
    later[:, 5:] = (later[:, 5:] + 1) % 7
    assert torch.allclose(language.says(weights, later)[:, :5], said[:, :5], atol=1e-12)
    assert torch.allclose(language.says(weights, tokens[1:2]), said[1:2], atol=1e-12), "texts do not see one another"
    earlier, reach = tokens.clone(), WINDOW - 1 if name == "neural-ngram" else 8
    earlier[:, 0] = (earlier[:, 0] + 1) % 7
    apart = (language.says(weights, earlier) - said).abs().amax(dim=2)
    assert apart[:, reach].min() > 1e-9
    assert reach == 8 or apart[:, reach + 1 :].max() < 1e-12, "what stands before its window is not seen"


@pytest.mark.parametrize("name", LANGUAGES)
def test_it_learns_a_walk_around_a_circle(name: str) -> None:
    language = LANGUAGES[name](5, 12, SHAPE)

    def loss(weights: dict[str, torch.Tensor], step: int) -> torch.Tensor:
        begin = torch.randint(5, (32, 1), generator=torch_stream(3, "circle", step))
        tokens = (begin + torch.arange(10)) % 5
        return cross_entropy(language.says(weights, tokens), tokens)

    done = trained(language.start(torch_stream(0, "start")), loss, Training(steps=150, learning_rate=1e-2))
    assert done.losses[0] > 1.3
    assert done.losses[-1] < 0.1


def test_surprise_by_hand() -> None:
    logits = torch.zeros(1, 3, 2, dtype=torch.float64)
    logits[0, 0, 1] = 1.0
    tokens = torch.tensor([[0, 1, 0]])
    by_hand = (torch.log1p(torch.exp(torch.tensor(-1.0, dtype=torch.float64))) + torch.log(torch.tensor(2.0))) / 2
    assert cross_entropy(logits, tokens) == pytest.approx(float(by_hand), abs=1e-9)


def test_more_tokens_than_places() -> None:
    language = layered(5, 4, SHAPE)
    with pytest.raises(KshotError, match="5 tokens: the network has places for 4"):
        language.says(language.start(torch_stream(0, "start")), torch.zeros(1, 5, dtype=torch.long))
