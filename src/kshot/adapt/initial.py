"""The rows of a soft prompt before its first step (Lester et al. 2021, section 3.2), by name."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import cycle, islice

import torch
from jaxtyping import Float
from torch import Tensor

from kshot.data.corpora import PASSAGES
from kshot.data.counts import Corpus
from kshot.errors import DataError, MethodError, UnknownName
from kshot.model.lm import LM
from kshot.model.vocabulary import counts, mean_norm, spelt
from kshot.seeds import torch_stream

# Lester et al. 2021, section 3.2: rows are sampled from the 5,000 most common tokens, uniform ones from [-0.5, 0.5].
COMMONEST = 5000
SPREAD = 0.5

NORMS = ("as-drawn", "matched")


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """What rows can be made from. Each way reads what it needs: ``answers`` are the label words as the template writes
    them, with its delimiter; ``text`` is any text; ``tokens`` are those of demonstrations; tokens are counted on
    ``corpus``, None for the passages of BoolQ."""

    answers: tuple[str, ...] = ()
    text: str = ""
    tokens: tuple[int, ...] = ()
    corpus: Corpus | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Initial:
    """Rows (p, e) in float32 on the CPU, what stands in each as text ("" where it was drawn), and what is to be said."""

    rows: Float[Tensor, "p e"]
    words: tuple[str, ...]
    notes: tuple[str, ...] = ()


Way = Callable[[LM, int | None, torch.Generator, Material], Initial]

_NOTHING = Material()


def initial_rows(
    lm: LM,
    how: str,
    length: int | None,
    *,
    seed: int,
    draw: int = 0,
    norm: str = "as-drawn",
    material: Material = _NOTHING,
) -> Initial:
    """``length`` rows made the way that ``how`` names in ``INITS``; None: as many as the text or demonstrations have.

    ``draw`` tells several prompts of one seed apart. With ``norm`` "matched" every row is scaled to the mean norm of
    the vocabulary's rows. Raises UnknownName, MethodError where the rows do not fit or there is nothing to make them
    of, DataError where the corpus cannot be had.
    """
    check_start(how, length, norm)
    if length is not None:
        _fits(lm, how, length)
    with torch.no_grad():
        found = INITS[how](lm, length, torch_stream(seed, "soft-prompt", how, draw), material)
    _fits(lm, how, len(found.rows))
    if norm == "matched":
        norms = found.rows.norm(dim=1, keepdim=True).clamp_min(1e-12)
        found = replace(found, rows=found.rows / norms * mean_norm(lm))
    return found


def check_start(how: str, length: int | None, norm: str) -> None:
    """UnknownName or MethodError where no model could have such rows."""
    if how not in INITS:
        raise UnknownName("initialisation", how, INITS)
    if norm not in NORMS:
        raise UnknownName("norm of initial rows", norm, NORMS)
    if length is None and how not in ("text", "demonstrations"):
        raise MethodError(f"init={how} has no length of its own; give one, such as length=20")
    if length is not None and length < 1:
        raise MethodError(f"a soft prompt of {length} tokens holds nothing; give a length of 1 or more")


def _fits(lm: LM, how: str, length: int) -> None:
    if length < 1:
        raise MethodError(f"a soft prompt of {length} tokens holds nothing; give a length of 1 or more")
    if lm.context is not None and length >= lm.context:
        raise MethodError(
            f"a soft prompt of {length} tokens (init={how}) leaves no room for a query: {lm.name} reads {lm.context} "
            f"tokens in all; give a length well below that"
        )


def _uniform(lm: LM, length: int | None, generator: torch.Generator, material: Material) -> Initial:
    """U[-0.5, 0.5], as the paper says."""
    return _drawn((torch.rand(*_shape(lm, length), generator=generator) - 0.5) * (2 * SPREAD))


def _uniform_as_released(lm: LM, length: int | None, generator: torch.Generator, material: Material) -> Initial:
    """U[0, 0.5), as the paper's released configuration draws: all in one corner, with a mean of 0.25."""
    return _drawn(torch.rand(*_shape(lm, length), generator=generator) * SPREAD)


def _normal(lm: LM, length: int | None, generator: torch.Generator, material: Material) -> Initial:
    """N(0, 1), as PEFT's RANDOM draws (torch's default for an embedding)."""
    return _drawn(torch.randn(*_shape(lm, length), generator=generator))


def _vocabulary(lm: LM, length: int | None, generator: torch.Generator, material: Material) -> Initial:
    """Rows of the 5,000 commonest tokens of the corpus, none twice while there are others."""
    corpus = material.corpus or PASSAGES
    try:
        known = list(counts(lm, corpus))
    except DataError as error:
        raise DataError(
            f"rows of the commonest tokens need a corpus, and {error}; init=uniform, normal, text need none"
        ) from error
    if not known:
        raise MethodError(f"{corpus.name} holds no token of {lm.name}; try init=uniform")
    notes = []
    if len(known) < COMMONEST:
        notes.append(f"sampled from all {len(known)} tokens that {corpus.name} holds, not {COMMONEST}")
    common = known[:COMMONEST]
    wanted = length or 0
    if wanted > len(common):
        notes.append(f"{wanted} rows from {len(common)} tokens: each is there at least {wanted // len(common)} times")
    chosen: list[int] = []
    while len(chosen) < wanted:
        order = torch.randperm(len(common), generator=generator).tolist()
        chosen += [common[i] for i in order[: wanted - len(chosen)]]
    return Initial(rows=lm.embedded(chosen).cpu(), words=tuple(spelt(lm, chosen)), notes=tuple(notes))


def _labels(lm: LM, length: int | None, generator: torch.Generator, material: Material) -> Initial:
    """The mean row of each label's tokens, then rows of the vocabulary."""
    if not material.answers:
        raise MethodError("init=labels needs label words and this task has none; try init=vocabulary")
    wanted = length or 0
    kept = material.answers[:wanted]
    notes: tuple[str, ...] = ()
    if len(kept) < len(material.answers):
        notes = (f"{len(material.answers)} labels and {wanted} rows: the first {wanted} labels have a row",)
    encoded = lm.codec.encode(kept)
    if empty := [answer for answer, tokens in zip(kept, encoded, strict=True) if not tokens]:
        raise MethodError(f"init=labels: the answer {empty[0]!r} has no token; give the label a visible word")
    rows = torch.stack([lm.embedded(tokens).mean(dim=0) for tokens in encoded]).cpu()
    if len(kept) == wanted:
        return Initial(rows=rows, words=kept, notes=notes)
    rest = _vocabulary(lm, wanted - len(kept), generator, material)
    return Initial(rows=torch.cat([rows, rest.rows]), words=kept + rest.words, notes=notes + rest.notes)


def _text(lm: LM, length: int | None, generator: torch.Generator, material: Material) -> Initial:
    """The rows of a text, from its beginning, again and again where it is shorter."""
    tokens = lm.codec.encode([material.text])[0]
    if not tokens:
        raise MethodError("init=text needs a text with at least one token; give text=...")
    wanted = len(tokens) if length is None else length
    return _read(lm, tuple(islice(cycle(tokens), wanted)), _said("the text", len(tokens), wanted, "first"))


def _demonstrations(lm: LM, length: int | None, generator: torch.Generator, material: Material) -> Initial:
    """The rows of demonstrations up to their end, which stands next to the query."""
    tokens = material.tokens
    if not tokens:
        raise MethodError("init=demonstrations needs demonstrations; give --num-fewshot 1 or more, or init=vocabulary")
    wanted = len(tokens) if length is None else length
    backwards = tuple(islice(cycle(tokens[::-1]), wanted))
    return _read(lm, backwards[::-1], _said("the demonstrations", len(tokens), wanted, "last"))


INITS: dict[str, Way] = {
    "demonstrations": _demonstrations,
    "labels": _labels,
    "normal": _normal,
    "text": _text,
    "uniform": _uniform,
    "uniform-as-released": _uniform_as_released,
    "vocabulary": _vocabulary,
}


def _shape(lm: LM, length: int | None) -> tuple[int, int]:
    return length or 0, lm.embedded((0,)).shape[1]


def _drawn(rows: Float[Tensor, "p e"]) -> Initial:
    return Initial(rows=rows, words=("",) * len(rows))


def _read(lm: LM, tokens: tuple[int, ...], notes: tuple[str, ...]) -> Initial:
    return Initial(rows=lm.embedded(tokens).cpu(), words=tuple(spelt(lm, tokens)), notes=notes)


def _said(what: str, has: int, wanted: int, end: str) -> tuple[str, ...]:
    if wanted == has:
        return ()
    if wanted < has:
        return (f"the {end} {wanted} of the {has} tokens of {what}",)
    return (f"{wanted} rows from {what}, whose {has} tokens are repeated",)
