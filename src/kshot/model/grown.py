"""A small model that was grown here, as the LM that everything else reads with: GPT-2 by its weights, a word a token."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from kshot.errors import ModelError
from kshot.model.lm import LM
from kshot.model.load import frozen
from kshot.model.sources import Source

# Names of a layer's parts: ours, and transformers' of GPT-2.
_PARTS = {
    "norm": "ln_1",
    "qkv": "attn.c_attn",
    "out": "attn.c_proj",
    "mlp_norm": "ln_2",
    "up": "mlp.c_fc",
    "down": "mlp.c_proj",
}
_ENDS = {
    "embedding": "wte.weight",
    "positions": "wpe.weight",
    "norm.weight": "ln_f.weight",
    "norm.bias": "ln_f.bias",
}


def grown_lm(weights: Mapping[str, Tensor], heads: int, words: Sequence[str]) -> LM:
    """The frozen LM, in the weights' own number format, whose token i is ``words[i]``; a text is words and blanks between.

    ``weights`` are those of a language model of GPT-2's design: ``embedding`` (v, e), ``positions`` (t, e), ``norm``, and
    for layer i ``i.norm``, ``i.qkv``, ``i.out``, ``i.mlp_norm``, ``i.up`` and ``i.down``, each with ``weight`` (outputs,
    inputs) and ``bias``. Nothing is drawn. Raises ModelError for weights of another design, or other words than tokens.
    """
    layers = len([name for name in weights if name.endswith(".qkv.weight")])
    known = {*_ENDS, *(f"{i}.{part}.{kind}" for i in range(layers) for part in _PARTS for kind in ("weight", "bias"))}
    if known != set(weights):
        other = ", ".join(sorted(known ^ set(weights))[:3])
        raise ModelError(f"these are not the weights of a GPT-2 with {layers} layers ({other}); grow a 'transformer'")
    (size, width), places = weights["embedding"].shape, len(weights["positions"])
    if len(words) != size or len(set(words)) != size or any(word.split() != [word] for word in words):
        raise ModelError(
            f"{len(words)} words for {size} tokens; what works is one for each, all different and no blanks"
        )
    config = GPT2Config(
        vocab_size=size, n_positions=places, n_embd=width, n_layer=layers, n_head=heads, bos_token_id=None,
        eos_token_id=None, use_cache=False,
    )  # fmt: skip
    model = GPT2LMHeadModel(config)
    nn.Module.to(model, weights["embedding"].dtype)
    model.load_state_dict(_named(weights, layers))
    pin = _pin(weights)
    source = Source(
        name=f"grown-{pin[:6]}",
        caption=f"a GPT-2 of {layers} layers that was grown here",
        folder=Path(),
        kind="directory",
        hash=pin,
    )
    return frozen(model, _by_word(words), source)


def _named(weights: Mapping[str, Tensor], layers: int) -> dict[str, Tensor]:
    """The weights by transformers' names; its layers hold matrices as inputs by outputs."""
    found = {f"transformer.{theirs}": weights[ours] for ours, theirs in _ENDS.items()}
    found["lm_head.weight"] = weights["embedding"]
    for i in range(layers):
        for ours, theirs in _PARTS.items():
            for kind in ("weight", "bias"):
                tensor = weights[f"{i}.{ours}.{kind}"]
                found[f"transformer.h.{i}.{theirs}.{kind}"] = tensor.T if tensor.ndim == 2 else tensor
    return found


def _by_word(words: Sequence[str]) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=words[0]))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def _pin(weights: Mapping[str, Tensor]) -> str:
    found = hashlib.sha256()
    for name in sorted(weights):
        found.update(name.encode() + weights[name].detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()[:16]
