"""A vocabulary made of the text itself: byte-level pairs, so that no text of any language is out of it."""

from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from kshot.errors import DataError
from kshot.pretrain.text import END

MASK, SENTINELS = "<mask>", 100
"""What stands for a hidden token; how many marks there are for hidden spans, as in T5."""

_BYTES = 256


def sentinel(i: int) -> str:
    """The mark of the i-th span of a text.

    >>> sentinel(0)
    '<extra_id_0>'
    """
    return f"<extra_id_{i}>"


def learned_vocabulary(texts: Iterable[str], size: int, *, hides: bool = False, at_most: bool = False) -> Tokenizer:
    """Byte-pair encoding of so many tokens (Sennrich et al. 2016, on bytes as GPT-2), END among them.

    ``hides``: with MASK and the sentinels, which belong to the size. DataError for a size that does not hold all bytes,
    or that the text does not support, unless it is ``at_most`` that.
    """
    special = [END, *([MASK, *map(sentinel, range(SENTINELS))] if hides else [])]
    if size < _BYTES + len(special):
        raise DataError(
            f"a vocabulary of {size} has no room for all {_BYTES} bytes and {len(special)} marks; what works is "
            f"{_BYTES + len(special)} or more"
        )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    if (found := tokenizer.get_vocab_size()) < size and not at_most:
        raise DataError(f"a vocabulary of {size}: the text has pairs for {found} tokens; what works is {found} or less")
    return tokenizer
