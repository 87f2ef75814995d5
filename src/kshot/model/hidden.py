"""What a frozen model makes of an input: its hidden states, as features for somebody else's classifier."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float

from kshot.data.task import Example
from kshot.data.template import Template
from kshot.errors import PromptError
from kshot.model.attention import Before, Pass, in_force
from kshot.model.delta import call_body
from kshot.model.lm import LM
from kshot.model.prefix import EMPTY
from kshot.model.said import no_number
from kshot.model.tree import Scored, paths, plan

Tokens = tuple[int, ...]
Features = Float[np.ndarray, "n e"]

Summary = Callable[[np.ndarray, list[int]], np.ndarray]
"""From the states of all nodes of a pass and the path of a sequence among them to its features."""


def inputs(lm: LM, template: Template, examples: Sequence[Example], *, described: bool = True) -> list[Tokens]:
    """The tokens of every rendered input as the model reads it: after the description, without demonstrations.

    An empty one is the model's start token alone; PromptError where it has none. Without ``described`` the input alone.
    """
    texts = [template.render(example.fields) for example in examples]
    found = lm.codec.after(template.description if described else "", texts)
    start = () if lm.codec.first or lm.codec.start is None else (lm.codec.start,)
    whole = [(*lm.codec.first, *tokens) or start for tokens in found]
    if not all(whole):
        raise PromptError("an input is empty and this model has no start token; add a description to the template")
    return whole


def fitting(lm: LM, sequences: list[Tokens]) -> list[Tokens]:
    """The same sequences; PromptError where one is longer than the model reads."""
    longest = max(map(len, sequences), default=0)
    if lm.context is not None and longest > lm.context:
        raise PromptError(
            f"the longest input needs {longest} tokens and {lm.name} reads {lm.context}; try --overlength skip"
        )
    return sequences


def last_hidden(lm: LM, sequences: Sequence[Tokens]) -> tuple[Features, int]:
    """The last layer's output (after the final norm) at the last token of every sequence, float64, and the tokens run.

    The model reads as it scores: with its ``delta`` and its ``momentum``. Sequences are packed (model/tree.py), so what
    they share is run once a pack; a model on the rows route reads each distinct sequence whole. NumericError for NaN.
    """
    return _read(lm, sequences, lambda states, path: states[path[-1]])


def mean_hidden(lm: LM, sequences: Sequence[Tokens]) -> tuple[Features, int]:
    """The same as the mean over all tokens, at unit length."""
    found, tokens = _read(lm, sequences, lambda states, path: states[path].mean(axis=0))
    return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12), tokens


def _read(lm: LM, sequences: Sequence[Tokens], summary: Summary) -> tuple[Features, int]:
    assert sequences, "there is nothing to read"
    with torch.no_grad():
        if lm.route.kind == "rows":
            own = {t: summary(_states(lm, np.array(t), None), list(range(len(t)))) for t in dict.fromkeys(sequences)}
            return _numbers(lm, np.stack([own[t] for t in sequences])), sum(map(len, own))
        # The token after each sequence is only there to be scored: the row before it is its last.
        asked = [Scored((*tokens, 0), len(tokens)) for tokens in sequences]
        rows: list[np.ndarray] = [np.zeros(0)] * len(asked)
        # As many rows as tokens: the head runs at none of them.
        packs = plan(asked, tokens_per_pack=lm.tokens_per_pack, rows_per_pack=lm.tokens_per_pack, trunk=False).packs
        for pack in packs:
            states = _states(lm, pack.tokens, Pass((Before(EMPTY, 0, len(pack.tokens)),), pack.depth, pack.end))
            for member, path in zip(pack.members.tolist(), paths(pack), strict=True):
                rows[member] = summary(states, path)
    return _numbers(lm, np.stack(rows)), sum(len(pack.tokens) for pack in packs)


def _numbers(lm: LM, features: Features) -> Features:
    if np.isnan(features).any():
        raise no_number(lm.name, lm.dtype)
    return features


def _states(lm: LM, tokens: np.ndarray, current: Pass | None) -> Float[np.ndarray, "t e"]:
    ids = torch.from_numpy(tokens)[None].to(lm.device)
    # All ones, as in LM.forward: without it repeated positions are taken for packed documents.
    asked = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "use_cache": False}
    if current is not None:
        asked["position_ids"] = torch.from_numpy(current.positions)[None].to(lm.device)
    with in_force(current), lm.momentum_in_force():
        found = call_body(lm.model, lm.delta, **asked)
    return found.last_hidden_state[0].double().cpu().numpy()
