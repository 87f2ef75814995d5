"""A language model that was grown here, read by kshot's own engine: the same logits, and the texts that it was grown on."""

from pathlib import Path

import numpy as np
import pytest
import torch
import zoo
from transformers import AutoModelForCausalLM

from kshot.adapt.prompting import InContext
from kshot.data.task import Example, Task
from kshot.data.template import Template
from kshot.errors import ModelError
from kshot.measure.scoring import score
from kshot.model.grown import as_transformers, grown_lm
from kshot.model.tree import Scored
from kshot.seeds import torch_stream
from kshot.synth.networks.language import LANGUAGES
from kshot.synth.networks.mixing import Shape

WORDS = ("/", "a", "b", "c", "d", "ee", "f")
SHAPE = Shape(layers=2, heads=2, width=16)
LANGUAGE = LANGUAGES["transformer"](len(WORDS), 40, SHAPE)


def drawn(seed: int = 0) -> dict[str, torch.Tensor]:
    """Weights at which everything is heard."""
    rng = torch_stream(seed, "weights")
    start = LANGUAGE.start(rng)
    return {name: tensor + 0.3 * torch.randn(tensor.shape, generator=rng) for name, tensor in start.items()}


def test_it_says_what_the_language_says() -> None:
    weights = drawn()
    lm = grown_lm(weights, 2, WORDS)
    assert lm.route.kind == "tree"
    assert (lm.context, lm.dtype) == (40, torch.float32)
    tokens = torch.randint(len(WORDS), (3, 40), generator=torch_stream(0, "tokens"))
    said = LANGUAGE.says(weights, tokens)
    assert said.std() > 0.3
    with torch.no_grad():
        assert torch.allclose(lm.model(tokens).logits, said, atol=1e-5)
    # And by kshot's own way through the model: every token but the first is scored behind those before it.
    found = lm.score([Scored(tuple(row.tolist()), 1) for row in tokens])
    surprise = said.double().log_softmax(-1)[:, :-1].gather(2, tokens[:, 1:, None])[..., 0]
    for own, expected in zip(found.logprobs, surprise, strict=True):
        assert own == pytest.approx(expected.numpy(), abs=1e-5)


def test_a_text_is_words_and_blanks() -> None:
    codec = grown_lm(drawn(), 2, WORDS).codec
    assert codec.encode(["a ee / b", "f"]) == [(1, 5, 0, 2), (6,)]
    assert codec.first == ()
    assert codec.decode((1, 5, 0)) == "a ee /"


def test_a_task_of_words_is_asked_as_the_language_would_be() -> None:
    weights = drawn()
    lm = grown_lm(weights, 2, WORDS)
    rng = np.random.default_rng(0)
    texts = rng.integers(1, len(WORDS), (9, 4))
    examples = tuple(
        Example(id=str(i), fields={"text": " ".join(WORDS[w] for w in row[:-1])}, label=WORDS[row[-1]])
        for i, row in enumerate(texts)
    )
    task = Task(
        name="words", kind="classification", labels=WORDS[1:], train=examples[:3], test=examples[3:],
        template=Template(input="{{text}}", separator=" / "),
    )  # fmt: skip
    adapted = InContext(shots=3, pick="first_n").fit(lm, task, task.train, 0)
    outcome = score(adapted, task, task.test, calibration=False)
    shown = [token for row in texts[:3] for token in (*row, 0)]
    tokens = torch.tensor([[*shown, *row[:-1]] for row in texts[3:]])
    said = LANGUAGE.says(weights, tokens)[:, -1].double().log_softmax(-1)[:, 1:]
    assert outcome.predictions.logprobs == pytest.approx(said.numpy(), abs=1e-5)
    assert outcome.repaired == 0


def test_the_same_weights_are_the_same_model_and_others_another() -> None:
    one, same, other = (grown_lm(drawn(seed), 2, WORDS) for seed in (0, 0, 1))
    assert (one.name, one.hash) == (same.name, same.hash)
    assert one.hash != other.hash


def test_what_is_no_gpt2_is_refused() -> None:
    for kind in ("lstm", "attention-only"):
        weights = LANGUAGES[kind](len(WORDS), 40, SHAPE).start(torch_stream(0, "start"))
        with pytest.raises(ModelError, match="grow a 'transformer'"):
            grown_lm(weights, 2, WORDS)
    for words in (WORDS[1:], (*WORDS[1:], "a"), (*WORDS[1:], "a b"), (*WORDS[1:], "")):
        with pytest.raises(ModelError, match="words for 7 tokens"):
            grown_lm(drawn(), 2, words)


def llama(dtype: torch.dtype = torch.float64) -> dict[str, torch.Tensor]:
    rng = torch_stream(0, "llama")
    start = LANGUAGES["llama"](len(WORDS), 40, SHAPE).start(rng)
    return {name: (tensor + 0.3 * torch.randn(tensor.shape, generator=rng)).to(dtype) for name, tensor in start.items()}


@pytest.mark.parametrize("kind", ["transformer", "llama"])
def test_transformers_opens_what_was_grown_and_says_the_same(kind: str, tmp_path: Path) -> None:
    weights = llama() if kind == "llama" else {name: tensor.double() for name, tensor in drawn().items()}
    language = LANGUAGES[kind](len(WORDS), 40, SHAPE)
    tokens = torch.randint(len(WORDS), (2, 30), generator=torch_stream(1, "tokens"))
    as_transformers(weights, 2, 40).save_pretrained(tmp_path)
    opened = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float64)
    if kind == "llama":
        # Theirs are rounded to float32 when a model is made.
        opened.model.rotary_emb.inv_freq = 1e4 ** -(torch.arange(0, 8, 2, dtype=torch.float64) / 8)
    with torch.no_grad(), zoo.Pure64():
        assert (opened(tokens, use_cache=False).logits - language.says(weights, tokens)).abs().max() < 1e-10


def test_a_llama_is_read_by_the_engine() -> None:
    weights = llama(torch.float32)
    lm = grown_lm(weights, 2, WORDS, context=40)
    assert (lm.route.kind, lm.context) == ("tree", 40)
    tokens = torch.randint(len(WORDS), (3, 40), generator=torch_stream(0, "tokens"))
    said = LANGUAGES["llama"](len(WORDS), 40, SHAPE).says(weights, tokens).double().log_softmax(-1)
    found = lm.score([Scored(tuple(row.tolist()), 1) for row in tokens])
    for own, expected in zip(found.logprobs, said[:, :-1].gather(2, tokens[:, 1:, None])[..., 0], strict=True):
        assert own == pytest.approx(expected.numpy(), abs=1e-5)


def test_a_llama_without_a_context_is_refused() -> None:
    with pytest.raises(ModelError, match="give the context it was grown with"):
        as_transformers(llama(), 2)
