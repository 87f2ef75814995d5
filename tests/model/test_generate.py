"""Going on with a text: token by token what the plain forward of the whole text says."""

import numpy as np
import pytest
import torch
import zoo
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from kshot.errors import PromptError
from kshot.model.generate import going_on, text_of
from kshot.model.lm import LM
from kshot.model.sampling import Sampling
from kshot.model.tiny import tiny_lm as tiny
from kshot.seeds import stream

GREEDY = Sampling(temperature=0.0)
PROMPT = (5, 6, 7)


def plainly(lm: LM, tokens: tuple[int, ...], how: Sampling, rng: np.random.Generator, limit: int) -> list[int]:
    said = list(tokens)
    for _ in range(limit):
        with torch.no_grad():
            logits = lm.model(input_ids=torch.tensor([said]), use_cache=False).logits[0, -1:]
        token = int(how.next(logits, rng)[0])
        if token == lm.codec.tokenizer.eos_token_id:
            break
        said.append(token)
    return said[len(tokens) :]


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma3", "deepseek-mla", "bloom", "mamba"])
@pytest.mark.parametrize("how", [GREEDY, Sampling(temperature=0.7, top_k=20, top_p=0.9)])
def test_every_token_is_that_of_the_whole_text(name: str, how: Sampling) -> None:
    lm = zoo.lm(name)
    with zoo.Pure64():
        found = list(going_on(lm, PROMPT, how, stream(0, "draws"), 20))
        assert found == plainly(lm, PROMPT, how, stream(0, "draws"), 20)
    assert 0 < len(found) <= 20


def test_it_ends_where_the_model_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = zoo.lm("llama")
    (first, second, *_) = going_on(lm, PROMPT, GREEDY, stream(0, "x"), 5)
    monkeypatch.setattr(lm.codec.tokenizer, "eos_token_id", second, raising=False)
    assert list(going_on(lm, PROMPT, GREEDY, stream(0, "x"), 5)) == [first] * (first != second)


def test_pieces_are_the_text(tiny_lm: LM) -> None:
    how = Sampling(temperature=3.0)
    pieces = list(text_of(tiny_lm, "猫が", how, stream(5, "text"), 60))
    (tokens,) = tiny_lm.codec.encode(["猫が"])
    said = list(going_on(tiny_lm, (*tiny_lm.codec.first, *tokens), how, stream(5, "text"), 60))
    assert "".join(pieces) == tiny_lm.codec.decode(said)
    assert len(pieces) > 5


def test_the_first_blank_after_a_prompt_is_said() -> None:
    """As SentencePiece has it: a word begins with its blank, which decoding leaves out of what a text begins with."""
    words = [f"▁{letter}" for letter in "abcdefgh"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=words[0]))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    lm = tiny(tokenizer=PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>"))
    ways: list[tuple[str, tuple[int, ...]]] = [("a b", (0, 1)), ("", (lm.codec.tokenizer.bos_token_id,))]
    for prompt, tokens in ways:
        said = list(going_on(lm, tokens, GREEDY, stream(0, "x"), 5))
        expected = " ".join(words[token][1:] for token in said)
        assert expected
        assert "".join(text_of(lm, prompt, GREEDY, stream(0, "x"), 5)) == (" " if prompt else "") + expected


def test_what_cannot_be_gone_on_with() -> None:
    lm = zoo.lm("llama")
    with pytest.raises(PromptError, match="there is nothing to go on from"):
        next(going_on(lm, (), GREEDY, stream(0, "x"), 5))
    with pytest.raises(PromptError, match=r"3 tokens of prompt and 99999 to come: llama reads \d+; ask for fewer"):
        next(going_on(lm, PROMPT, GREEDY, stream(0, "x"), 99_999))


def test_the_end_of_a_turn_ends_an_answer_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """A chat model is generated with several ends; the tokenizer knows one of them."""
    lm = zoo.lm("llama")
    (first, second, *_) = going_on(lm, PROMPT, GREEDY, stream(0, "x"), 5)
    assert second not in (first, lm.codec.tokenizer.eos_token_id)
    for ends in ([90, second], second):
        monkeypatch.setattr(lm.model.generation_config, "eos_token_id", ends)
        assert lm.ends == {2, second, *([90] if isinstance(ends, list) else [])}
        assert list(going_on(lm, PROMPT, GREEDY, stream(0, "x"), 5)) == [first]
        assert lm.greedy([PROMPT], lambda _: False, 5).texts == (lm.codec.decode([first]),)
