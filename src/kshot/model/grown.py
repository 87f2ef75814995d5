"""A small model that was grown here: as one of transformers', as the LM that everything else reads with, and in a folder."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor, nn
from transformers import (
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from kshot.errors import ModelError
from kshot.model.delta import hash_of
from kshot.model.lm import LM
from kshot.model.load import frozen, silence
from kshot.model.momentum import KINDS, MOMENTUM, Momentum, keep_momentum, kind_of
from kshot.model.sealed import replaced
from kshot.model.sources import Source, resolve
from kshot.model.tokens import Codec

# Names of a layer's parts: ours, and transformers'.
_GPT2 = {
    "norm": "ln_1",
    "qkv": "attn.c_attn",
    "out": "attn.c_proj",
    "mlp_norm": "ln_2",
    "up": "mlp.c_fc",
    "down": "mlp.c_proj",
}
_LLAMA = {
    "norm": "input_layernorm",
    "q": "self_attn.q_proj",
    "k": "self_attn.k_proj",
    "v": "self_attn.v_proj",
    "out": "self_attn.o_proj",
    "mlp_norm": "post_attention_layernorm",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
}
_MAMBA = {
    "norm.weight": "norm.weight",
    "in.weight": "mixer.in_proj.weight",
    "conv.weight": "mixer.conv1d.weight",
    "conv.bias": "mixer.conv1d.bias",
    "of_token.weight": "mixer.x_proj.weight",
    "step.weight": "mixer.dt_proj.weight",
    "step.bias": "mixer.dt_proj.bias",
    "rate": "mixer.A_log",
    "skip": "mixer.D",
    "out.weight": "mixer.out_proj.weight",
}
# Ours of a Llama: its queries, keys and values are one matrix here.
_LLAMA_PARTS = (*_GPT2, "gate")
_NORM_FLOOR = 1e-5


def grown_lm(weights: Mapping[str, Tensor], heads: int, words: Sequence[str], context: int | None = None) -> LM:
    """The frozen LM, in the weights' own number format, whose token i is ``words[i]``; a text is words and blanks between.

    ``weights``, ``heads`` and ``context`` are those of ``as_transformers``. Raises ModelError as it does, and for other
    words than tokens.
    """
    size = len(weights["embedding"])
    if len(words) != size or len(set(words)) != size or any(word.split() != [word] for word in words):
        raise ModelError(
            f"{len(words)} words for {size} tokens; what works is one for each, all different and no blanks"
        )
    model = as_transformers(weights, heads, context)
    # As the model is written down: weights of one name say other things with other heads, and other words by them.
    named = sorted(weights.items())
    pin = hash_of([(f"{heads} {context} {list(words)}", torch.empty(0)), *named])
    source = Source(
        name=f"grown-{pin[:6]}",
        caption=f"a {type(model).__name__} of {model.config.num_hidden_layers} layers that was grown here",
        folder=Path(),
        kind="directory",
        hash=pin,
    )
    return frozen(model, _by_word(words), source)


def as_transformers(weights: Mapping[str, Tensor], heads: int, context: int | None = None) -> PreTrainedModel:
    """The model of transformers that says what a language model of ours says with these weights, in their number format.

    ``embedding`` (v, e), ``norm``, and for layer i ``i.norm``, ``i.qkv``, ``i.out``, ``i.mlp_norm``, ``i.up`` and
    ``i.down``, each with ``weight`` (outputs, inputs): of GPT-2's design with ``bias`` and ``positions`` (t, e), of
    Llama's with ``i.gate`` and without; the second reads ``context`` tokens. A T5 and a Mamba are known by names of their
    own. Nothing is drawn. Raises ModelError for weights of another design.
    """
    if "encoder.norm.weight" in weights:
        return _t5(weights, heads)
    if "0.of_token.weight" in weights and "0.qkv.weight" not in weights:
        return _mamba(weights)
    layers = len([name for name in weights if name.endswith(".qkv.weight")])
    kind = "GPT-2" if "positions" in weights else "Llama"
    known = (
        _names(layers, tuple(_GPT2), ("weight", "bias")) | {"positions"}
        if kind == "GPT-2"
        else _names(layers, _LLAMA_PARTS, ("weight",))
    )
    if known != set(weights):
        other = ", ".join(sorted(known ^ set(weights))[:3])
        raise ModelError(
            f"these are not the weights of a {kind} with {layers} layers ({other}); grow a 'transformer' or a 'llama'"
        )
    return _gpt2(weights, layers, heads) if kind == "GPT-2" else _llama(weights, layers, heads, context)


def _names(layers: int, parts: Sequence[str], kinds: Sequence[str]) -> set[str]:
    own = {f"{i}.{part}.{kind}" for i in range(layers) for part in parts for kind in kinds}
    return {"embedding", *(f"norm.{kind}" for kind in kinds), *own}


def _gpt2(weights: Mapping[str, Tensor], layers: int, heads: int) -> PreTrainedModel:
    (size, width), places = weights["embedding"].shape, len(weights["positions"])
    config = GPT2Config(
        vocab_size=size, n_positions=places, n_embd=width, n_layer=layers, n_head=heads, bos_token_id=None,
        eos_token_id=None, use_cache=False, layer_norm_epsilon=_NORM_FLOOR,
    )  # fmt: skip
    found = {
        "transformer.wte.weight": weights["embedding"],
        "transformer.wpe.weight": weights["positions"],
        "lm_head.weight": weights["embedding"],
        **{f"transformer.ln_f.{kind}": weights[f"norm.{kind}"] for kind in ("weight", "bias")},
    }
    for i in range(layers):
        for ours, theirs in _GPT2.items():
            for kind in ("weight", "bias"):
                tensor = weights[f"{i}.{ours}.{kind}"]
                # Its layers hold matrices as inputs by outputs.
                found[f"transformer.h.{i}.{theirs}.{kind}"] = tensor.T if tensor.ndim == 2 else tensor
    return _loaded(GPT2LMHeadModel(config), found)


def _llama(weights: Mapping[str, Tensor], layers: int, heads: int, context: int | None) -> PreTrainedModel:
    if context is None:
        raise ModelError(
            "a Llama has no table of positions that says how much it reads; give the context it was grown with"
        )
    size, width = weights["embedding"].shape
    config = LlamaConfig(
        vocab_size=size, hidden_size=width, intermediate_size=len(weights["0.up.weight"]), num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=heads, max_position_embeddings=context, hidden_act="silu",
        rms_norm_eps=_NORM_FLOOR, tie_word_embeddings=True, bos_token_id=None, eos_token_id=None, use_cache=False,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
    )  # fmt: skip
    found = {
        "model.embed_tokens.weight": weights["embedding"],
        "lm_head.weight": weights["embedding"],
        "model.norm.weight": weights["norm.weight"],
    }
    for i in range(layers):
        own = {part: weights[f"{i}.{part}.weight"] for part in _LLAMA_PARTS}
        own |= dict(zip("qkv", own.pop("qkv").chunk(3), strict=True))
        found |= {f"model.layers.{i}.{_LLAMA[part]}.weight": tensor for part, tensor in own.items()}
    return _loaded(LlamaForCausalLM(config), found)


def _mamba(weights: Mapping[str, Tensor]) -> PreTrainedModel:
    (size, width), layers = weights["embedding"].shape, len([n for n in weights if n.endswith(".of_token.weight")])
    known = {"embedding", "norm.weight", *(f"{i}.{part}" for i in range(layers) for part in _MAMBA)}
    if known != set(weights):
        other = ", ".join(sorted(known ^ set(weights))[:3])
        raise ModelError(f"these are not the weights of a Mamba with {layers} layers ({other}); grow a 'mamba'")
    wider, states = weights["0.rate"].shape
    config = MambaConfig(
        vocab_size=size, hidden_size=width, state_size=states, num_hidden_layers=layers, expand=wider // width,
        conv_kernel=weights["0.conv.weight"].shape[2], time_step_rank=weights["0.step.weight"].shape[1],
        layer_norm_epsilon=_NORM_FLOOR, residual_in_fp32=False, tie_word_embeddings=True, bos_token_id=None,
        eos_token_id=None, pad_token_id=None, use_cache=False,
    )  # fmt: skip
    found = {
        "backbone.embeddings.weight": weights["embedding"],
        "lm_head.weight": weights["embedding"],
        "backbone.norm_f.weight": weights["norm.weight"],
        **{
            f"backbone.layers.{i}.{theirs}": weights[f"{i}.{ours}"]
            for i in range(layers)
            for ours, theirs in _MAMBA.items()
        },
    }
    return _loaded(MambaForCausalLM(config), found)


def _t5(weights: Mapping[str, Tensor], heads: int) -> PreTrainedModel:
    (size, width), (buckets, _) = weights["embedding"].shape, weights["encoder.positions"].shape
    layers = len([name for name in weights if name.startswith("encoder.") and name.endswith(".q.weight")])
    config = T5Config(
        vocab_size=size, d_model=width, d_kv=width // heads, d_ff=4 * width, num_layers=layers, num_heads=heads,
        relative_attention_num_buckets=buckets, dropout_rate=0.0, layer_norm_epsilon=_NORM_FLOOR, feed_forward_proj="relu",
        use_cache=False, pad_token_id=None, eos_token_id=None,
    )  # fmt: skip
    found = {
        f"{place}.weight": weights["embedding"]
        for place in ("shared", "encoder.embed_tokens", "decoder.embed_tokens", "lm_head")
    }
    for side in ("encoder", "decoder"):
        blocks = f"{side}.block"
        found[f"{side}.final_layer_norm.weight"] = weights[f"{side}.norm.weight"]
        found[f"{blocks}.0.layer.0.SelfAttention.relative_attention_bias.weight"] = weights[f"{side}.positions"]
        parts = {"": ("0", "SelfAttention"), **({"cross_": ("1", "EncDecAttention")} if side == "decoder" else {})}
        last = str(len(parts))
        for i in range(layers):
            for kind, (place, name) in parts.items():
                found[f"{blocks}.{i}.layer.{place}.layer_norm.weight"] = weights[f"{side}.{i}.{kind}norm.weight"]
                for ours, theirs in (("q", "q"), ("k", "k"), ("v", "v"), ("out", "o")):
                    found[f"{blocks}.{i}.layer.{place}.{name}.{theirs}.weight"] = weights[
                        f"{side}.{i}.{kind}{ours}.weight"
                    ]
            found[f"{blocks}.{i}.layer.{last}.layer_norm.weight"] = weights[f"{side}.{i}.mlp_norm.weight"]
            for ours, theirs in (("up", "wi"), ("down", "wo")):
                found[f"{blocks}.{i}.layer.{last}.DenseReluDense.{theirs}.weight"] = weights[
                    f"{side}.{i}.{ours}.weight"
                ]
    return _loaded(T5ForConditionalGeneration(config), found)


def _loaded(model: PreTrainedModel, found: Mapping[str, Tensor]) -> PreTrainedModel:
    nn.Module.to(model, found["lm_head.weight"].dtype)
    model.load_state_dict({name: tensor.contiguous() for name, tensor in found.items()})
    return model


MODEL_FILES = (
    "config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
    "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt", "tokenizer.model", "chat_template.jinja",
    MOMENTUM,
)  # fmt: skip
"""What the folder of a saved model may hold: with anything else in it, it is not written over."""

# What texts end with in training, by the name most vocabularies have for it.
_END_OF_TEXT = "<|endoftext|>"


def saves(network: str, attention: str) -> bool:
    """Whether a network that was grown here can be saved as a model that other programs open."""
    if network in ("t5", "mamba"):
        return True
    return network in ("llama", "transformer") and attention in ("softmax", *KINDS)


def save_grown(
    weights: Mapping[str, Tensor],
    folder: Path,
    *,
    heads: int,
    context: int,
    tokenizer: tuple[Tokenizer, str],
    momentum: tuple[str, float | None] = ("softmax", None),
) -> None:
    """A folder that ``transformers`` and ``load_model`` open, whole or not at all; OutputError where it cannot be written.

    ``tokenizer`` comes with the token that its texts begin after, ``momentum`` are the kind of attention and the decay
    of all heads (None: that of the weights). transformers knows no momentum: it lies beside, and ``load_model`` reads it.
    """
    plain = {name: tensor for name, tensor in weights.items() if not name.endswith(".decay")}
    model = as_transformers(plain, heads, context)
    attention, eta = momentum
    begins = _begun_after(*tokenizer)
    end = begins.bos_token_id
    model.config.bos_token_id = model.config.eos_token_id = end
    if model.config.is_encoder_decoder:
        # What it says begins after the token that ends a text; nothing is padded.
        model.config.decoder_start_token_id = model.config.pad_token_id = end
    silence()
    with replaced(folder, MODEL_FILES, "config.json") as fresh:
        model.save_pretrained(fresh)
        begins.save_pretrained(fresh)
        if (kind := kind_of(attention)) is not None:
            layers = model.config.num_hidden_layers
            if eta is None:
                decay = torch.stack([weights[f"{i}.decay"].sigmoid() for i in range(layers)])
            else:
                decay = torch.full((layers, heads), eta)
            keep_momentum(Momentum(decay=decay.float(), kind=kind), fresh)


def as_codec(tokenizer: Tokenizer, end: str) -> Codec:
    """A vocabulary whose texts begin after the token that ends another."""
    begins = _begun_after(tokenizer, end)
    # A text that spells the token that ends one is read as letters, as in training.
    begins.backend_tokenizer.encode_special_tokens = True
    return Codec(begins, (begins.bos_token_id,), begins.bos_token_id)


def kept_tokenizer(model: str) -> tuple[Tokenizer, str]:
    """A model's own vocabulary, and its token that ends a text. ModelError where it cannot be read or has no such token."""
    source = resolve(model)
    try:
        found = AutoTokenizer.from_pretrained(source.folder, trust_remote_code=False)
        backend = found.backend_tokenizer
    # transformers raises whatever its parts raise
    except Exception as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"the tokenizer of {model!r} cannot be read: {first}") from error
    # A model of conversations ends a turn by a token of its own, and has the other from when it read texts.
    if _END_OF_TEXT in found.all_special_tokens:
        return backend, _END_OF_TEXT
    if found.eos_token is None:
        raise ModelError(f"the tokenizer of {model!r} has no token that ends a text; learn a vocabulary instead")
    return backend, str(found.eos_token)


def _begun_after(tokenizer: Tokenizer, end: str) -> PreTrainedTokenizerFast:
    own = Tokenizer.from_str(tokenizer.to_str())
    own.post_processor = processors.TemplateProcessing(single=f"{end} $A", special_tokens=[(end, own.token_to_id(end))])
    return PreTrainedTokenizerFast(tokenizer_object=own, bos_token=end, eos_token=end)


def _by_word(words: Sequence[str]) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=words[0]))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)
