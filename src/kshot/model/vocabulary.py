"""A model's vocabulary: how many tokens have a spelling, how they are spelt, how long their rows are, how common they are."""

from collections.abc import Sequence
from typing import Any

from kshot.data.counts import Corpus, counted
from kshot.model.lm import LM

# Rows of the embedding table that are looked up at a time: bounds the float32 copy.
ROWS_AT_ONCE = 8192


def size(lm: LM) -> int:
    """How many tokens the tokenizer knows and the model has a row for; tables are often padded beyond that."""
    table: Any = lm.model.get_input_embeddings()
    return min(len(lm.codec.tokenizer), int(table.weight.shape[0]))


def chunks(lm: LM) -> list[range]:
    """The ids of the vocabulary, some at a time."""
    whole = size(lm)
    return [range(at, min(at + ROWS_AT_ONCE, whole)) for at in range(0, whole, ROWS_AT_ONCE)]


def mean_norm(lm: LM) -> float:
    """The mean Euclidean norm of the rows that the model looks up for its tokens."""
    return sum(float(lm.embedded(ids).norm(dim=1).double().sum()) for ids in chunks(lm)) / size(lm)


def spelt(lm: LM, ids: Sequence[int]) -> list[str]:
    """The text of each token alone, special tokens included; part of a character is U+FFFD."""
    tokenizer = lm.codec.tokenizer
    if tokenizer.is_fast:
        return tokenizer.backend_tokenizer.decode_batch([[i] for i in ids], skip_special_tokens=False)
    return [lm.codec.decode((i,)) for i in ids]


def special(lm: LM) -> frozenset[int]:
    """Tokens that begin, end and part texts, and stand in none."""
    return frozenset(lm.codec.tokenizer.all_special_ids)


def counts(lm: LM, corpus: Corpus) -> dict[int, int]:
    """Token id -> how often it occurs in the corpus, the commonest first (data/counts.py)."""
    return counted(corpus, lm.codec.tokenizer.get_vocab(), lm.codec.encode)
