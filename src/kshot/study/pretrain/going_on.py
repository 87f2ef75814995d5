"""How a grown language model goes on with held-out text: does it repeat itself, and how probable are the words of people?

Source: Holtzman et al. 2020: the most probable continuation repeats itself, and what people write is often improbable.
"""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

from kshot.model.sampling import Sampling
from kshot.seeds import stream
from kshot.study.pretrain.corpus import Tokens
from kshot.study.pretrain.items import item_rows
from kshot.study.pretrain.plan import Plan
from kshot.study.synth.growing import picture
from kshot.synth.networks.language import Language
from kshot.synth.networks.network import Weights

# The run of tokens whose repetition is counted.
_RUN = 4
_WAYS = {
    "greedy": Sampling(temperature=0.0),
    "nucleus 0.9": Sampling(top_p=0.9),
    "as it is": Sampling(),
}
_HELD_OUT = "held-out text"

Row = dict[str, Any]


def going_on(
    language: Language, weights: Weights, tokens: Tokens, plan: Plan, named: tuple[str, int]
) -> tuple[list[Row], list[Row]]:
    """Rows of the repetition of text gone on with in several ways, beside that of the text itself; and ranks of its tokens."""
    name, seed = named
    half = plan.context // 2
    count = min(plan.texts, tokens.valid.rows(plan.context))
    texts = tokens.valid.batch(1, 0, count, plan.context)[:, :-1]
    if half <= _RUN:
        return [], []
    stop = plan.context if plan.further is None else min(plan.context, half + max(plan.further, _RUN))
    found = {_HELD_OUT: texts[:, half:stop]}
    for way, sampling in _WAYS.items():
        found[way] = _continued(language, weights, texts[:, :half], stop, sampling, seed)
    rows = [item_rows("repeated", (name, way), repeated(own), seed) for way, own in found.items()]
    ranks = _ranks(language, weights, texts)
    rows.append(item_rows("rank_one", (name, _HELD_OUT), (ranks == 0).mean(axis=1), seed))
    return rows, [_picture(name, ranks, tokens.marks.vocabulary)]


def repeated(texts: Int[np.ndarray, "b t"]) -> Float[np.ndarray, "b"]:
    """The share of runs of four tokens that stood in the same text before.

    >>> repeated(np.array([[1, 2, 3, 4, 1, 2, 3, 4]])).round(3).tolist()
    [0.2]
    """
    found = []
    for text in texts.tolist():
        runs = [tuple(text[i : i + _RUN]) for i in range(len(text) - _RUN + 1)]
        found.append(1 - len(set(runs)) / len(runs))
    return np.array(found)


def _continued(
    language: Language, weights: Weights, begin: Int[np.ndarray, "b t"], length: int, sampling: Sampling, seed: int
) -> Int[np.ndarray, "b u"]:
    """What comes after each beginning, up to so many tokens in all."""
    place, rng = next(iter(weights.values())).device, stream(seed, "going on")
    said, past, new = list[Int[np.ndarray, "b"]](), None, begin
    while begin.shape[1] + len(said) < length:
        with torch.no_grad():
            known, past = language.reads_on(weights, torch.from_numpy(new).to(place), past)
            said.append(sampling.next(language.head(weights, known[:, -1]).float(), rng))
        new = said[-1][:, None]
    return np.stack(said, axis=1)


def _ranks(language: Language, weights: Weights, texts: Int[np.ndarray, "b t"]) -> Int[np.ndarray, "b t1"]:
    """How many tokens were more probable than the one that came, of every token but the first."""
    place, found = next(iter(weights.values())).device, []
    for text in torch.from_numpy(texts).to(place):
        with torch.no_grad():
            logits = language.head(weights, language.reads(weights, text[None, :-1], None)[0])
        own = logits.gather(1, text[1:, None])
        found.append((logits > own).sum(dim=1).cpu().numpy())
    return np.stack(found)


def _picture(name: str, ranks: Int[np.ndarray, "b t"], vocabulary: int) -> Row:
    """The share of tokens of each stretch of ranks, 1, 2 to 3, 4 to 7 ..."""
    edges = [1 << k for k in range(vocabulary.bit_length() + 1)]
    shares = np.histogram(ranks + 1, bins=edges)[0] / ranks.size
    points = [(float(edge), float(share)) for edge, share in zip(edges, shares, strict=False)]
    return picture("ranks of held-out tokens", x="rank, from", y="share of tokens", lines={name: points}, log_x=True)
