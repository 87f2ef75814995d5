"""A language model that was grown here, read by kshot's own engine: the same logits, and the texts that it was grown on."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import zoo
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from kshot.adapt.prompting import InContext
from kshot.data.task import Example, Task
from kshot.data.template import Template
from kshot.errors import ModelError, OutputError
from kshot.measure.scoring import score
from kshot.model.grown import as_codec, as_transformers, grown_lm, kept_tokenizer, save_grown
from kshot.model.load import load_model
from kshot.model.momentum import KINDS, MOMENTUM, Momentum, keep_momentum
from kshot.model.sources import content_hash
from kshot.model.tree import Scored
from kshot.pretrain.text import END
from kshot.pretrain.vocabulary import learned_vocabulary
from kshot.seeds import torch_stream
from kshot.study.experiment import standing
from kshot.synth.networks.language import DESIGNS, LANGUAGES, layered
from kshot.synth.networks.mixing import Shape

WORDS = ("/", "a", "b", "c", "d", "ee", "f")
SHAPE = Shape(layers=2, heads=2, width=16)
LANGUAGE = LANGUAGES["transformer"](len(WORDS), 40, SHAPE)


def drawn(seed: int = 0) -> dict[str, torch.Tensor]:
    """Weights at which everything is seen."""
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
    # And by kshot's own way through the model: every token but the first is scored after those before it.
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


def mamba(dtype: torch.dtype = torch.float64) -> dict[str, torch.Tensor]:
    start = LANGUAGES["mamba"](len(WORDS), 40, SHAPE).start(torch_stream(0, "mamba"))
    rng = torch_stream(1, "mamba")
    moved = {name: tensor + 0.1 * torch.randn(tensor.shape, generator=rng) for name, tensor in start.items()}
    return {name: tensor.to(dtype) for name, tensor in moved.items()}


def test_transformers_opens_a_mamba_and_says_the_same(tmp_path: Path) -> None:
    weights, language = mamba(), LANGUAGES["mamba"](len(WORDS), 40, SHAPE)
    tokens = torch.randint(len(WORDS), (2, 30), generator=torch_stream(1, "tokens"))
    as_transformers(weights, 2).save_pretrained(tmp_path)
    opened = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float64)
    with torch.no_grad():
        # Theirs goes through float32 where states decay, and where tokens are normed.
        assert (opened(tokens, use_cache=False).logits - language.says(weights, tokens)).abs().max() < 1e-5
    lm = grown_lm(mamba(torch.float32), 2, WORDS)
    assert lm.route.kind == "rows"
    said = language.says(mamba(torch.float32), tokens).double().log_softmax(-1)
    found = lm.score([Scored(tuple(row.tolist()), 1) for row in tokens])
    for own, expected in zip(found.logprobs, said[:, :-1].gather(2, tokens[:, 1:, None])[..., 0], strict=True):
        assert own == pytest.approx(expected.numpy(), abs=1e-4)
    with pytest.raises(ModelError, match="not the weights of a Mamba with 2 layers"):
        as_transformers({name: own for name, own in weights.items() if name != "1.skip"}, 2)


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


SAVED = ("softmax", *KINDS)


@pytest.mark.parametrize("kind", SAVED)
@pytest.mark.parametrize("eta", [None, 0.7])
def test_a_saved_model_says_what_it_said_with_its_momentum(kind: str, eta: float | None, tmp_path: Path) -> None:
    vocabulary = learned_vocabulary(["a b c d " * 30], 260)
    size = vocabulary.get_vocab_size()
    language = layered(size, 40, SHAPE, replace(DESIGNS["llama"], mixing=kind, eta=eta))
    rng = torch_stream(0, "saved")
    weights = {name: own + 0.3 * torch.randn(own.shape, generator=rng) for name, own in language.start(rng).items()}
    folder = tmp_path / "model"
    save_grown(weights, folder, heads=2, context=40, tokenizer=(vocabulary, END), momentum=(kind, eta))
    lm = load_model(str(folder), dtype="float32", device="cpu")
    assert lm.context == 40
    assert lm.codec.first == (vocabulary.token_to_id(END),)
    tokens = torch.randint(size, (3, 40), generator=rng)
    said = language.says(weights, tokens).double().log_softmax(-1)
    found = lm.score([Scored(tuple(row.tolist()), 1) for row in tokens])
    for own, expected in zip(found.logprobs, said[:, :-1].gather(2, tokens[:, 1:, None])[..., 0], strict=True):
        assert own == pytest.approx(expected.numpy(), abs=1e-4)
    if kind == "softmax":
        assert lm.momentum is None
        return
    # Another momentum is another model, and none is what transformers opens.
    other = replace(lm, momentum=replace(lm.momentum, decay=lm.momentum.decay * 0.5))
    assert standing(other) != standing(lm)
    pin = content_hash(folder)
    (folder / MOMENTUM).unlink()
    assert content_hash(folder) != pin
    assert load_model(str(folder), dtype="float32", device="cpu").momentum is None


def test_a_momentum_of_another_shape_and_a_file_that_is_none_are_refused(tmp_path: Path) -> None:
    vocabulary = learned_vocabulary(["a b c d " * 30], 260)
    weights = LANGUAGES["llama"](260, 40, SHAPE).start(torch_stream(0, "start"))
    save_grown(weights, tmp_path / "model", heads=2, context=40, tokenizer=(vocabulary, END))
    keep_momentum(Momentum(decay=torch.full((3, 2), 0.5)), tmp_path / "model")
    with pytest.raises(ModelError, match=r"kshot_momentum\.safetensors is of 3 by 2"):
        load_model(str(tmp_path / "model"), device="cpu")
    (tmp_path / "model" / MOMENTUM).write_bytes(b"no tensors")
    with pytest.raises(ModelError, match="holds no momentum"):
        load_model(str(tmp_path / "model"), device="cpu")


def test_a_full_disk_is_said_and_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def in_the_way(self: PreTrainedTokenizerFast, folder: Path) -> None:
        # What tokenizers raises where it cannot write is an Exception and nothing more.
        self.backend_tokenizer.save(str(folder))

    monkeypatch.setattr(PreTrainedTokenizerFast, "save_pretrained", in_the_way)
    vocabulary = learned_vocabulary(["a b c d " * 30], 260)
    weights = LANGUAGES["llama"](260, 40, SHAPE).start(torch_stream(0, "start"))
    with pytest.raises(OutputError, match=r"^cannot write .*model: Is a directory .*; nothing was changed$"):
        save_grown(weights, tmp_path / "model", heads=2, context=40, tokenizer=(vocabulary, END))
    assert not any(tmp_path.iterdir())


def test_the_vocabulary_of_a_model_is_taken_with_its_end(tiny_model_dir: Path, tmp_path: Path) -> None:
    tokenizer, end = kept_tokenizer(str(tiny_model_dir))
    codec = as_codec(tokenizer, end)
    assert codec.first == (tokenizer.token_to_id(end),)
    assert codec.decode(codec.encode(["a word"])[0]) == "a word"
    with pytest.raises(ModelError, match="cannot be read"):
        kept_tokenizer(str(_without_tokenizer(tiny_model_dir, tmp_path)))


def test_texts_end_by_the_token_for_that_where_a_model_of_conversations_has_both(tmp_path: Path) -> None:
    tokenizer = learned_vocabulary(["a word and another"] * 9, 270, at_most=True)
    tokenizer.add_special_tokens(["<|im_end|>"])
    chat = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", additional_special_tokens=[END])
    chat.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}', encoding="utf-8")
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert kept_tokenizer(str(tmp_path))[1] == END


def test_a_text_that_spells_the_end_of_one_is_read_as_letters() -> None:
    tokenizer = learned_vocabulary(["a word and another"] * 9, 270, at_most=True)
    codec = as_codec(tokenizer, END)
    (ids,) = codec.encode([f"a {END} b"])
    assert tokenizer.token_to_id(END) not in ids
    assert codec.decode(ids) == f"a {END} b"
    assert codec.first == (tokenizer.token_to_id(END),)


def _without_tokenizer(folder: Path, into: Path) -> Path:
    for path in folder.iterdir():
        if not path.name.startswith(("tokenizer", "special")):
            (into / path.name).write_bytes(path.read_bytes())
    return into


def small(positions: int) -> tuple[dict[str, torch.Tensor], tuple[str, ...]]:
    """A GPT-2 of one layer that reads so many tokens, and its words."""
    words = tuple(f"w{i}" for i in range(10))
    language = LANGUAGES["transformer"](len(words), positions, Shape(layers=1, heads=2, width=8))
    rng = torch_stream(0, "few-positions")
    start = language.start(rng)
    return {name: tensor + 0.3 * torch.randn(tensor.shape, generator=rng) for name, tensor in start.items()}, words


@pytest.mark.parametrize("positions", [2, 4, 7, 8, 12])
def test_a_model_of_few_positions_is_checked_as_far_as_it_reads(positions: int) -> None:
    weights, words = small(positions)
    assert grown_lm(weights, 2, words).route.kind == "tree"


def test_it_is_known_by_heads_and_words_too_in_any_number_format() -> None:
    weights, words = small(16)
    found = [grown_lm(weights, 2, words), grown_lm(weights, 4, words), grown_lm(weights, 2, words[::-1])]
    found.append(grown_lm({name: tensor.bfloat16() for name, tensor in weights.items()}, 2, words))
    assert len({lm.hash for lm in found}) == len(found)
    assert found[-1].dtype == torch.bfloat16
    assert grown_lm({name: tensor.clone() for name, tensor in weights.items()}, 2, words).hash == found[0].hash
