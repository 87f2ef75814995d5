"""Tiny random models of many architectures, and the judge: the plain float64 forward of each whole sequence."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch.overrides import TorchFunctionMode
from transformers import AutoConfig, AutoModelForCausalLM

from kshot.model.load import frozen
from kshot.model.sources import Source
from kshot.model.tree import Scored

VOCABULARY, WINDOW = 97, 8

_COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_GROUPED = {**_COMMON, "num_key_value_heads": 2, "head_dim": 8}
_GPT2 = {
    "vocab_size": VOCABULARY,
    "n_embd": 32,
    "n_layer": 3,
    "n_head": 4,
    "n_positions": 256,
    "bos_token_id": 1,
    "eos_token_id": 2,
}

# name -> (model type, configuration). Windows are shorter than the prompts.
TREE = {
    "llama": ("llama", _GROUPED),
    "llama-rope3": ("llama", {**_GROUPED, "rope_parameters": {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 4.0,
        "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 32}}),
    "gpt2": ("gpt2", _GPT2),
    "gpt-neox": ("gpt_neox", _COMMON),
    "qwen2": ("qwen2", {**_GROUPED, "use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1}),
    "qwen3": ("qwen3", _GROUPED),
    "mistral": ("mistral", {**_GROUPED, "sliding_window": WINDOW}),
    "gemma2": ("gemma2", {**_GROUPED, "sliding_window": WINDOW, "query_pre_attn_scalar": 8, "attn_logit_softcapping": 5.0}),
    "gemma3": ("gemma3_text", {**_GROUPED, "sliding_window": WINDOW, "query_pre_attn_scalar": 8,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}),
    "phi3": ("phi3", {**_GROUPED, "sliding_window": WINDOW}),
    "opt": ("opt", {**_COMMON, "ffn_dim": 48, "word_embed_proj_dim": 32}),
    "gpt-oss": ("gpt_oss", {**_GROUPED, "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}, "sliding_window": WINDOW, "num_local_experts": 2, "num_experts_per_tok": 1,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}),
}  # fmt: skip
MLA = {
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 12,
    "first_k_dense_replace": 3,
}
TREE["deepseek-mla"] = ("deepseek_v3", {**_COMMON, "num_key_value_heads": 4, **MLA})
ROWS = {
    "bloom": ("bloom", {"vocab_size": VOCABULARY, "hidden_size": 32, "n_layer": 2, "n_head": 4}),
    "gptj": ("gptj", {**_GPT2, "rotary_dim": 8}),
    "mamba": ("mamba", {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 4}),
    "llama-dynamic": (
        "llama",
        {**_GROUPED, "rope_parameters": {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}},
    ),
}


class Pure64(TorchFunctionMode):
    """Lifts the models' own casts to float32 (norms, softmax, rotary tables), so that float64 means float64."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if kwargs.get("dtype") in (torch.float32, torch.float):
            kwargs["dtype"] = torch.float64
        args = tuple(torch.float64 if a is torch.float32 else a for a in args)
        if func is torch.Tensor.float:
            func, args = torch.Tensor.to, (args[0], torch.float64)
        return func(*args, **kwargs)


def model(name: str, dtype: torch.dtype) -> torch.nn.Module:
    kind, settings = {**TREE, **ROWS}[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = AutoConfig.for_model(kind, **settings)
        built = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        # Fresh weights are so small that a wrong mask hardly shows in the answers.
        for parameter in built.parameters():
            parameter.data.normal_(0, 0.3) if parameter.dim() > 1 else parameter.data.add_(
                torch.randn_like(parameter) * 0.1
            )
    if name == "gpt-oss":
        built.set_experts_implementation("eager")  # the grouped kernel knows no float64
    return built.to(dtype).eval()


class Letters:
    """A tokenizer of one token a character, as far as the engine looks at one."""

    is_fast, bos_token_id, eos_token_id = False, 1, 2

    def __call__(self, text, add_special_tokens=True, **_):
        texts = [text] if isinstance(text, str) else text
        ids = [[3 + ord(c) % (VOCABULARY - 3) for c in t] for t in texts]
        return {"input_ids": ids[0] if isinstance(text, str) else ids}

    def decode(self, ids, **_):
        return "".join(chr(64 + i) for i in ids)


def lm(name: str, dtype: torch.dtype = torch.float64, **kwargs):
    source = Source(name=name, caption=name, folder=Path(), kind="directory", hash="0")
    return frozen(model(name, dtype), Letters(), source, **kwargs)


def judge(net: torch.nn.Module, sequences: Sequence[Scored]) -> np.ndarray:
    """Sums of log-probabilities by the plain forward of each whole sequence."""
    found = []
    for s in sequences:
        logits = net(input_ids=torch.tensor([s.tokens]), use_cache=False).logits[0].double()
        logprobs = logits.log_softmax(-1)
        found.append(sum(logprobs[i - 1, s.tokens[i]] for i in range(s.start, len(s.tokens))))
    return torch.stack(found)


def forest(rng: np.random.Generator, prefix: int, queries: int, vocabulary: int = VOCABULARY) -> list[Scored]:
    """Ragged queries after a shared beginning; labels of one and many tokens, some of which begin alike."""
    draw = lambda n: tuple(rng.integers(3, vocabulary, n).tolist())  # noqa: E731
    trunk = draw(prefix)
    labels = [(5,), (6,), (7, 8), (7, 9, 10), (7, 9, 11, 12)]
    found = []
    for _ in range(queries):
        query = trunk + draw(int(rng.integers(1, 30)))
        found += [Scored(query + label, len(query)) for label in labels]
    return found
