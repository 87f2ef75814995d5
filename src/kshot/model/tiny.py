"""A random little Llama that reads bytes: whatever the real models do, it does in milliseconds and without a network."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from kshot.model.lm import LM
from kshot.model.load import frozen
from kshot.model.sources import Source
from kshot.seeds import digest, torch_stream

CONTEXT = 2048

# Wide enough for logits that differ by whole nats: nearly equal ones would hide mistakes.
_SPREAD = 0.25


def tiny_model(
    seed: int = 0, tokenizer: PreTrainedTokenizerFast | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """A Llama of 2 layers of width 32 in float32, and its tokenizer: one with a token for each byte, unless another is given.

    The weights are normal with standard deviation 0.25, drawn from ``seed`` for each by its name; norms stay 1.
    """
    tokenizer = tokenizer or byte_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        tie_word_embeddings=False,
    )
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    model = model.to_empty(device="cpu").float()
    model.model.rotary_emb = type(model.model.rotary_emb)(config)
    for name, parameter in model.named_parameters():
        if "norm" in name:
            nn.init.ones_(parameter)
        else:
            nn.init.normal_(parameter, std=_SPREAD, generator=torch_stream(seed, "tiny", name))
    return model.eval(), tokenizer


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """Every byte of UTF-8 is a token; one more begins a text and one ends it, and neither is added to a text."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(letters)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")


def tiny_lm(seed: int = 0, tokenizer: PreTrainedTokenizerFast | None = None) -> LM:
    """The two as a frozen model in memory."""
    model, tokenizer = tiny_model(seed, tokenizer)
    caption = "a random Llama of 2 layers that reads bytes"
    name = f"tiny-{seed}"
    pin = f"{digest(seed, 'tiny'):016x}"
    return frozen(model, tokenizer, Source(name=name, caption=caption, folder=Path(), kind="directory", hash=pin))


def save_tiny(folder: Path, seed: int = 0, tokenizer: PreTrainedTokenizerFast | None = None) -> Path:
    """The two as a folder that ``load_model`` takes; returns it."""
    model, tokenizer = tiny_model(seed, tokenizer)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
