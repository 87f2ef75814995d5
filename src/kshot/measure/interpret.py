"""All that is read off one soft prompt, as a record holds it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from kshot.data.corpora import PASSAGES
from kshot.data.counts import Corpus
from kshot.data.task import Example, Task
from kshot.data.template import Template, content
from kshot.errors import DataError
from kshot.measure.soft_prompt import (
    Near,
    cluster_share,
    domain_share,
    domain_words,
    folded,
    label_share,
    nearest_tokens,
    prompt_perplexity,
    repeated_share,
)
from kshot.model import vocabulary
from kshot.model.lm import LM
from kshot.seeds import stream, torch_stream

COUNT = 5

# Random prompts to compare with: at least so many, and more of short ones, until they have so many rows together.
_NULL_PROMPTS, _NULL_ROWS = 5, 200
# Real prompts and random strings that the perplexity is compared with.
_TEXTS = 4
# Training inputs that are counted for the domain's words.
_INPUTS = 2000


def interpret(
    lm: LM,
    rows: Float[Tensor, "p e"],
    task: Task,
    seed: int,
    *,
    template: Template | None = None,
    corpus: Corpus | None = None,
) -> dict[str, Any]:
    """Every measure of ``measure/soft_prompt.py`` on the rows of a soft prompt, as plain values.

    ``rows`` holds for each row its neighbours, their cosines and its norm; a measure that has a value for random prompts
    is there as ``name``, ``name_null``, ``name_null_low`` and ``name_null_high``. What does not apply is None, and
    ``notes`` says why. ``template`` is that of the prompt, where it is not the task's own; the domain's words are those
    that ``corpus``, None for the passages of BoolQ, has less often.
    """
    template = template or task.template
    notes: list[str] = []
    rows = rows.detach().float().cpu()
    near, nulls = _neighbours(lm, rows, seed)
    words = label_pieces(lm, template, task.labels) if task.kind == "classification" else frozenset()
    if not words:
        notes.append("label_share: the queries of this task share no label words")
    shares: dict[str, Mapping[str, Any] | None] = {
        "label_share": label_share(near, words, nulls),
        "cluster_share": cluster_share(near, nulls),
        "domain_share": None,
        "repeated_share": repeated_share(near, nulls),
    }
    try:
        domain = domain_words(
            _word_counts(lm, _texts(template, task.train[:_INPUTS])), _background(lm, corpus or PASSAGES)
        )
        shares["domain_share"] = domain_share(near, domain, nulls)
    except DataError as error:
        notes.append(f"domain_share: {error}")
    tokens = [own[0].token for row in near if (own := [n for n in row if not n.special])]
    said = prompt_perplexity(lm, tokens, _real(lm, task, template, len(tokens), seed), _chance(lm, len(tokens), seed))
    if said is None:
        notes.append("prompt_perplexity: there is no token to be scored")
    return {
        "count": COUNT,
        "rows": _rows(rows, near),
        "null_draws": len(nulls),
        **{key: value for name, share in shares.items() for key, value in _flat(name, share).items()},
        "prompt_perplexity": said and said["value"],
        "prompt_perplexity_real": said and said["real"],
        "prompt_perplexity_chance": said and said["chance"],
        "notes": notes,
    }


def label_pieces(lm: LM, template: Template, labels: Sequence[str]) -> frozenset[str]:
    """Label words and the tokens they are made of, with and without a blank before them, all folded."""
    words = [template.words.get(label, label).strip() for label in labels]
    encoded = lm.codec.encode([text for word in words for text in (word, f" {word}")])
    pieces = vocabulary.spelt(lm, sorted({token for tokens in encoded for token in tokens}))
    return frozenset(text for text in map(folded, (*words, *pieces)) if text)


def random_prompt(rows: Float[Tensor, "p e"], seed: int, draw: int) -> Float[Tensor, "p e"]:
    """Rows of the same norms in directions drawn uniformly: what a prompt without meaning looks like."""
    drawn = torch.randn(rows.shape, generator=torch_stream(seed, "soft-prompt", "null", draw))
    return drawn * (rows.norm(dim=1, keepdim=True) / drawn.norm(dim=1, keepdim=True))


def _neighbours(lm: LM, rows: Float[Tensor, "p e"], seed: int) -> tuple[Near, list[Near]]:
    p = len(rows)
    draws = max(_NULL_PROMPTS, -(-_NULL_ROWS // max(1, p)))
    drawn = [random_prompt(rows, seed, draw) for draw in range(draws)]
    # Together: the vocabulary is read once.
    found = nearest_tokens(lm, torch.cat([rows, *drawn]), COUNT) or ()
    return found[:p], [found[p + i * p : p + (i + 1) * p] for i in range(draws)]


def _texts(template: Template, examples: Sequence[Example]) -> list[str]:
    return [content(template, example.fields) for example in examples]


def _word_counts(lm: LM, texts: Sequence[str]) -> dict[str, int]:
    found: Counter[int] = Counter()
    for tokens in lm.codec.encode(texts):
        found.update(tokens)
    return _by_word(lm, found)


def _background(lm: LM, corpus: Corpus) -> dict[str, int]:
    return _by_word(lm, vocabulary.counts(lm, corpus))


def _by_word(lm: LM, counts: Mapping[int, int]) -> dict[str, int]:
    found: Counter[str] = Counter()
    for text, count in zip(vocabulary.spelt(lm, list(counts)), counts.values(), strict=True):
        found[folded(text)] += count
    return dict(found)


def _real(lm: LM, task: Task, template: Template, length: int, seed: int) -> list[tuple[int, ...]]:
    """Prompts of the task as they are rendered, demonstrations one after another, cut to ``length`` tokens."""
    shown = [example for example in task.train if example.label is not None]
    found = []
    for draw in range(_TEXTS if shown and length else 0):
        order = stream(seed, "soft-prompt", "real", draw).permutation(len(shown))
        text: tuple[int, ...] = ()
        said: list[str] = []
        for i in order:
            said.append(template.demonstration(shown[i].fields, shown[i].label or ""))
            text = lm.codec.encode([template.preamble(said)])[0]
            if len(text) >= length:
                break
        found.append(text[:length])
    return found


def _chance(lm: LM, length: int, seed: int) -> list[tuple[int, ...]]:
    special = vocabulary.special(lm)
    ids = [i for i in range(vocabulary.size(lm)) if i not in special]
    rng = stream(seed, "soft-prompt", "chance")
    return [tuple(rng.choice(ids, size=length).tolist()) for _ in range(_TEXTS if length else 0)]


def _rows(rows: Float[Tensor, "p e"], near: Near) -> list[dict[str, Any]]:
    return [
        {
            "row": i,
            "tokens": [n.text for n in own],
            "cosines": [n.cosine for n in own],
            "special": [n.special for n in own],
            "norm": norm,
        }
        for i, (own, norm) in enumerate(zip(near, rows.norm(dim=1).tolist(), strict=True))
    ]


def _flat(name: str, share: Mapping[str, Any] | None) -> dict[str, Any]:
    found = share or {}
    return {name: found.get("value")} | {f"{name}_{key}": found.get(key) for key in ("null", "null_low", "null_high")}
