"""A model of the same shape that has learned nothing, or nothing but its embeddings: what the measures say without training."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from kshot.model.lm import LM
from kshot.model.load import frozen
from kshot.model.sources import Source
from kshot.seeds import digest


def untrained(lm: LM, seed: int, *, keep_embeddings: bool = False) -> LM:
    """A frozen LM of the same architecture, number format, device and route, its weights drawn by the model's own rule.

    With ``keep_embeddings`` input, output and learned positional embeddings and all norms are those of ``lm``, and the
    rest is drawn (Deutch et al. 2024, the baselines "no training" and "trained embeddings"). The draw depends on the
    seed and the architecture alone: it is made in float32 on the CPU and rounded. A change of weights that ``lm`` reads
    with (its ``delta``) is training too and is left out; its ``momentum`` says what kind of attention it has, and stays.
    Nothing of ``lm`` is written to; the tokenizer is shared.
    """
    base: Any = lm.model
    model = _drawn(base, seed)
    trained = {**dict(base.named_parameters()), **dict(base.named_buffers())}
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        tensor.data = tensor.data.to(trained[name].device, trained[name].dtype)
    model.config.dtype = lm.dtype
    if keep_embeddings:
        with torch.no_grad():
            for name in _kept(model):
                model.get_parameter(name).copy_(base.get_parameter(name))
    # the self-check has judged this architecture already, on weights that could show more
    found = frozen(model, lm.codec.tokenizer, _source(lm, seed, keep_embeddings), check=False)
    return replace(
        found,
        codec=lm.codec,
        route=lm.route,
        context=lm.context,
        tokens_per_pack=lm.tokens_per_pack,
        rows_per_pack=lm.rows_per_pack,
        momentum=lm.momentum,
    )


def _drawn(base: PreTrainedModel, seed: int) -> PreTrainedModel:
    # the copy names the attention seam already, where the base model has it
    config = copy.deepcopy(base.config)
    # The generator of the CPU alone is moved, and put back: torch.manual_seed would move those of the GPUs too.
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(digest(seed, "untrained") >> 1)
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


def _kept(model: PreTrainedModel) -> list[str]:
    """The parameters of embeddings and norms, by name.

    A norm is told by its shape, because every architecture has a class of its own for it: a module without parts whose
    parameters are vectors only.
    """
    ends = [model.get_input_embeddings(), model.get_output_embeddings()]
    found = []
    for name, module in model.named_modules():
        parameters = list(module.named_parameters(recurse=False))
        norm = not list(module.children()) and all(parameter.dim() == 1 for _, parameter in parameters)
        if norm or isinstance(module, nn.Embedding) or any(module is end for end in ends):
            found += [f"{name}.{own}" for own, _ in parameters]
    return found


def _source(lm: LM, seed: int, keep_embeddings: bool) -> Source:
    what = "trained-embeddings" if keep_embeddings else "untrained"
    return Source(
        name=f"{lm.name}-{what}-{seed}",
        caption=f"the shape of {lm.caption}, {'only its embeddings and norms trained' if keep_embeddings else 'untrained'}",
        folder=Path(),
        # An LM keeps the kind of its source as plain text.
        kind=lm.source,  # type: ignore[arg-type]
        hash=f"{digest(seed, what, lm.hash):016x}",
    )
