"""Documents as one long row of tokens on disk, of which any batch is read where it stands: memory does not grow with text."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from jaxtyping import Int, Integer
from tokenizers import Tokenizer

from kshot.errors import DataError
from kshot.packages import built_once
from kshot.seeds import stream

# So many documents are encoded at a time.
_AT_ONCE = 256
_TOKENS, _FACTS = "tokens.bin", "facts.json"


@dataclass(frozen=True, slots=True, eq=False)
class Packed:
    """The tokens of so many documents one after another, the end-of-text token after each; a vocabulary of this size."""

    tokens: Integer[np.ndarray, "n"]
    documents: int
    vocabulary: int

    def rows(self, length: int) -> int:
        """How many rows of so many tokens, and one to be said after the last, an epoch has."""
        return max(0, (len(self.tokens) - length) // length)

    def batch(self, seed: int, step: int, size: int, length: int) -> Int[np.ndarray, "b t1"]:
        """``size`` rows of ``length`` + 1 tokens, a pure function of all arguments.

        An epoch reads every row once, in an order of its own and cut at places of its own; each begins with the token
        that the one before it in the text ends with. DataError where the text is shorter than a row.
        """
        count = self.rows(length)
        if not count:
            raise DataError(
                f"rows of {length} tokens of a text of {len(self.tokens)}; what works is a context of at most "
                f"{max(1, len(self.tokens) // 2)} tokens, or more text"
            )
        found = np.empty((size, length + 1), dtype=np.int64)
        order: tuple[int, np.ndarray, int] = (-1, np.zeros(0, dtype=np.int64), 0)
        for place, number in enumerate(range(step * size, (step + 1) * size)):
            epoch, within = divmod(number, count)
            if epoch != order[0]:
                rng = stream(seed, "rows", epoch)
                order = epoch, rng.permutation(count), int(rng.integers(length))
            begin = order[2] + int(order[1][within]) * length
            found[place] = self.tokens[begin : begin + length + 1]
        return found


def pack(texts: Iterable[str], tokenizer: Tokenizer, end: str, folder: Path) -> Packed:
    """The texts in a folder of their own, as they are there if they have been packed before; OutputError where it cannot be.

    ``end`` is the tokenizer's token after every document; where a text spells it, it is read as letters. DataError
    for a tokenizer that has no such token.
    """
    if not folder.is_dir():
        with built_once(folder) as fresh:
            _write(texts, tokenizer, end, fresh)
    return opened(folder)


def opened(folder: Path) -> Packed:
    """What was packed into a folder, left on disk; DataError where that is not whole."""
    try:
        facts = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
        number = np.dtype(facts["number"])
        tokens = np.memmap(folder / _TOKENS, dtype=number, mode="r")
    except (OSError, ValueError, KeyError) as error:
        raise DataError(
            f"{str(folder)!r} holds no packed text ({type(error).__name__}); remove it to pack anew"
        ) from error
    if len(tokens) != facts["tokens"]:
        raise DataError(f"{str(folder)!r} holds {len(tokens)} tokens of {facts['tokens']}; remove it to pack anew")
    return Packed(tokens, facts["documents"], facts["vocabulary"])


def _write(texts: Iterable[str], tokenizer: Tokenizer, end: str, folder: Path) -> None:
    after, vocabulary = tokenizer.token_to_id(end), tokenizer.get_vocab_size()
    if after is None:
        raise DataError(f"the tokenizer has no token {end!r} to end documents with")
    number = np.dtype(np.uint16 if vocabulary <= 1 << 16 else np.uint32)
    documents = tokens = 0
    with (folder / _TOKENS).open("wb") as file:
        for ids in _encoded(texts, tokenizer):
            own = np.array([*ids, after], dtype=number)
            file.write(own.tobytes())
            documents, tokens = documents + 1, tokens + len(own)
    facts = {"number": number.name, "tokens": tokens, "documents": documents, "vocabulary": vocabulary}
    (folder / _FACTS).write_text(json.dumps(facts), encoding="utf-8")


def _encoded(texts: Iterable[str], tokenizer: Tokenizer) -> Iterator[list[int]]:
    # Marks that a text spells are letters: nobody who writes them ends a document with them.
    own = Tokenizer.from_str(tokenizer.to_str())
    own.encode_special_tokens = True
    iterator = iter(texts)
    while some := list(islice(iterator, _AT_ONCE)):
        yield from (found.ids for found in own.encode_batch(some, add_special_tokens=False))
