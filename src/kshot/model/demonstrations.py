"""Demonstrations as text, as keys and values read ahead, and as each query retrieves its own."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int

from kshot.data.pick import Similarity, bm25_index, pick
from kshot.data.pick import order as reorder
from kshot.data.task import Example
from kshot.data.template import Template, input_key
from kshot.errors import DataError
from kshot.model.hidden import inputs, mean_hidden
from kshot.model.lm import LM
from kshot.model.prefix import EMPTY, Prefix
from kshot.model.prompts import channel_head
from kshot.model.tokens import Codec


def shown_texts(template: Template, shown: tuple[Example, ...], *, channel: bool = False) -> list[str]:
    """The demonstrations as they stand in the prompt: input and answer, or answer and input for the channel."""
    if channel:
        return [channel_head(template, e.label or "") + template.render(e.fields) for e in shown]
    return [template.demonstration(e.fields, e.label or "") for e in shown]


def demonstration_of_tokens(
    codec: Codec, template: Template, shown: tuple[Example, ...], *, followed_by: str = "", channel: bool = False
) -> Int[np.ndarray, "t"]:
    """For each token of a prompt the place of its demonstration, -1 for none: first tokens, description, what follows.

    A demonstration holds its text and the separator after it; a token of two belongs to the one in which it ends. A
    slow tokenizer does not say where its tokens are: each beginning is encoded, and may be off by one at a seam.
    """
    texts = [text + template.separator for text in shown_texts(template, shown, channel=channel)]
    text = template.description + "".join(texts) + followed_by
    stops = np.cumsum([len(template.description), *map(len, texts)])
    if codec.tokenizer.is_fast:
        encoded = codec.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        # By its last character: tokens of white space may be said to begin where they end.
        last = np.array([max(0, end - 1) for _, end in encoded["offset_mapping"]], dtype=np.int64)
    else:
        *before, whole = map(len, codec.encode([*(text[:stop] for stop in stops.tolist()), text]))
        last, stops = np.arange(whole), np.array(before)
    owners = np.searchsorted(stops, last, side="right") - 1
    owners[owners >= len(shown)] = -1
    return np.concatenate([np.full(len(codec.first), -1), owners]).astype(np.int64)


def preamble_tokens(
    lm: LM, template: Template, shown: tuple[Example, ...], *, channel: bool = False
) -> tuple[int, ...]:
    """What stands before every query as tokens, those among them that the model was trained to see first."""
    text = template.preamble(shown_texts(template, shown, channel=channel))
    return (*lm.codec.first, *lm.codec.encode([text])[0])


def read_ahead(lm: LM, template: Template, shown: tuple[Example, ...], *, channel: bool = False) -> Prefix:
    """Keys and values of description and demonstrations, or an empty prefix where ``lm`` cannot keep or read so much.

    Scoring cuts it to what it really shares with the queries: the last token may change when a query follows.
    """
    tokens = preamble_tokens(lm, template, shown, channel=channel)
    if lm.route.kind == "rows" or not tokens or (lm.context is not None and len(tokens) > lm.context):
        return EMPTY
    with torch.no_grad():
        return lm.prefill(tokens)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Retrieve:
    """query -> its own demonstrations: ``shots`` of ``pool`` by ``pick``, in ``order``, by the likeness of ``similarity``.

    ``inputs`` are those of the pool as ``template`` shows them (``input_key``). All but these and ``similarity`` are plain
    values; ``retrieval`` makes them from the others.
    """

    pool: tuple[Example, ...]
    shots: int
    pick: str
    order: int
    seed: int
    template: Template
    inputs: tuple[str, ...]
    similarity: Similarity

    def __call__(self, query: Example) -> tuple[Example, ...]:
        """The demonstrations of one query, the nearest last; never the query itself, nor another that asks the same."""
        asked = input_key(self.template, query.fields)
        others = [example for example, own in zip(self.pool, self.inputs, strict=True) if own != asked]
        found = pick(others, self.shots, self.pick, self.seed, query=query, similarity=self.similarity)
        return reorder(found, self.order, self.seed)


def retrieval(
    lm: LM, template: Template, pool: tuple[Example, ...], *, shots: int, pick: str, order: int = 0, seed: int = 0
) -> Retrieve:
    """A Retrieve by words (``bm25``) or by the hidden states of ``lm`` (``hidden``), made once for all queries."""
    if pick not in ("bm25", "hidden"):
        raise DataError(f"asked to retrieve by {pick!r} for each query; what works is bm25 or hidden")
    return Retrieve(
        pool=pool,
        shots=shots,
        pick=pick,
        order=order,
        seed=seed,
        template=template,
        inputs=tuple(input_key(template, example.fields) for example in pool),
        similarity=hidden_similarity(lm, template) if pick == "hidden" else bm25_index(pool, template),
    )


def hidden_similarity(lm: LM, template: Template) -> Similarity:
    """Cosine of mean last hidden states of the rendered inputs, the model's own idea of likeness.

    Of an input that is longer than the model reads, the beginning counts.
    """
    known: dict[str, np.ndarray] = {}

    def embed(examples: Sequence[Example]) -> np.ndarray:
        texts = [template.render(e.fields) for e in examples]
        missing = {text: e for text, e in zip(texts, examples, strict=True) if text not in known}
        if missing:
            whole = inputs(lm, template, list(missing.values()), described=False)
            known.update(zip(missing, mean_hidden(lm, [tokens[: lm.context] for tokens in whole])[0], strict=True))
        return np.stack([known[text] for text in texts])

    def similarity(query: Example, candidates: Sequence[Example]) -> np.ndarray:
        return embed(candidates) @ embed((query,))[0]

    return similarity
