"""Other inputs in the place of a task's own: the same in a permuted vocabulary, label words, texts of elsewhere, none."""

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import numpy as np
from jaxtyping import Int

from kshot.errors import PromptError
from kshot.seeds import stream
from kshot.transform.transform import Transform, but
from kshot.transform.written import Piece, Tokens, Written

Protected = Literal["answers", "layout"]
# Min et al. 2022: a text of elsewhere is drawn with a probability that falls with how much longer or shorter it is.
_SPREAD = 50.0


def prompt_altered(share: float = 1.0, protected: Protected = "answers") -> Transform:
    """tau_PA: a random permutation of the vocabulary, applied token by token to all that stands before an answer.

    The tokens of answers and special tokens stay what they are; with ``protected="layout"`` those of the layout and the
    separator do too, as in the released code of Li et al. 2024. With a ``share`` below 1 so much of the vocabulary is
    permuted; of one seed a smaller share is part of a greater one.
    """

    def apply(written: Written, seed: int) -> Written:
        table = permutation(written, seed, share, protected)

        def moved(tokens: Tokens) -> Tokens:
            return tuple(table[list(tokens)].tolist())

        return replace(
            _rewritten(written, lambda piece: moved(piece.input)),
            separator=moved(written.separator),
            description=moved(written.description),
            write=lambda text: moved(written.write(text)),
        )

    name = (
        "prompt-altered" + (", layout kept" if protected == "layout" else "") + (f", {share:.0%}" if share < 1 else "")
    )
    return Transform(name, but("input distribution"), apply)


def permutation(written: Written, seed: int, share: float, protected: Protected) -> Int[np.ndarray, "v"]:
    """The token that stands in the place of each."""
    kept = set(written.special).union(*written.answers, *written.options)
    if protected == "layout":
        kept |= {*written.write(""), *written.separator, *written.description}
    free = np.array([token for token in range(written.vocabulary) if token not in kept], dtype=np.int64)
    drawn = stream(seed, "prompt-altered", written.name).permutation(free)[: round(share * len(free))]
    table = np.arange(written.vocabulary)
    table[drawn] = stream(seed, "prompt-altered", written.name, len(drawn)).permutation(drawn)
    return table


def label_as_input() -> Transform:
    """The input becomes the word of the example's right label: what is left is the map from label words to answers.

    With ``response_altered`` or ``related`` after it this is tau_g of Li et al. 2024. There are as many different
    inputs as labels; how often each is drawn and asked stays.
    """

    def apply(written: Written, seed: int) -> Written:
        inputs = [written.write(word) for word in written.words]
        return _rewritten(written, lambda piece: inputs[piece.gold])

    return Transform("label as input", but("input distribution"), apply)


def out_of_domain() -> Transform:
    """Inputs of demonstrations are texts of elsewhere, about as long; their labels stay. Source: Min et al. 2022."""

    def apply(written: Written, seed: int) -> Written:
        if not written.outside:
            raise PromptError(f"task {written.name!r}: there are no texts of elsewhere; give a second task")
        rng = stream(seed, "out-of-domain", written.name)
        others = [written.write(text) for text in written.outside]
        lengths = np.array([len(tokens) for tokens in others])

        def drawn(piece: Piece) -> Tokens:
            far = (lengths - len(piece.input)) ** 2 / _SPREAD
            # Taken from the least, so that the nearest has a weight where all are much longer or shorter.
            weights = np.exp(far.min() - far)
            return others[int(rng.choice(len(others), p=weights / weights.sum()))]

        return replace(written, pool=tuple(replace(piece, input=drawn(piece)) for piece in written.pool))

    return Transform("out-of-domain inputs", but("input distribution", "mapping"), apply)


def labels_only() -> Transform:
    """Demonstrations are answers without inputs. Source: Min et al. 2022."""
    return Transform(
        "labels only",
        but("input distribution", "mapping", "format"),
        lambda written, seed: replace(written, pool=tuple(replace(piece, input=()) for piece in written.pool)),
    )


def inputs_only() -> Transform:
    """Demonstrations are inputs without answers. Source: Min et al. 2022."""
    return Transform(
        "inputs only",
        but("label space", "mapping", "format"),
        lambda written, seed: replace(written, pool=tuple(replace(piece, shown=None) for piece in written.pool)),
    )


def _rewritten(written: Written, new: Callable[[Piece], Tokens]) -> Written:
    """Every input of the pool and of the queries anew."""
    return replace(
        written,
        pool=tuple(replace(piece, input=new(piece)) for piece in written.pool),
        queries=tuple(replace(piece, input=new(piece)) for piece in written.queries),
    )
