"""Demonstrations from a pool, and the orders to put them in."""

import math
import re
from collections import defaultdict
from collections.abc import Callable, Sequence

import bm25s
import numpy as np
from jaxtyping import Float

from kshot.data.task import Example
from kshot.data.template import Template, content
from kshot.errors import DataError, UnknownName
from kshot.seeds import stream

Scores = Float[np.ndarray, "pool"]
Similarity = Callable[[Example, Sequence[Example]], Scores]

PICKS = {
    "random": "drawn from the whole pool",
    "balanced": "as many of each label as of every other, give or take one",
    "first_n": "the first of the pool, in its order",
    "bm25": "the nearest to the query by its words (BM25), the nearest last",
    "hidden": "the nearest to the query by the model's own hidden states, the nearest last",
    "fixed": "the ones with the given ids, in the order given",
}

# Scripts that do not put spaces between words: kana, Chinese characters, Thai, Lao, Khmer, Burmese.
_UNSPACED = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORDS = re.compile(rf"[{_UNSPACED}]+|[^\W{_UNSPACED}]+")


def pick(
    pool: Sequence[Example],
    k: int,
    how: str,
    seed: int,
    *,
    labels: Sequence[str] = (),
    query: Example | None = None,
    similarity: Similarity | None = None,
    ids: Sequence[str] = (),
) -> tuple[Example, ...]:
    """``k`` labelled demonstrations of a pool, chosen by one of ``PICKS``; the same for the same arguments.

    Never the query itself: an example with its id or its fields does not count as part of the pool. A draw does not
    depend on the query otherwise, so all queries share one, and the first examples of ``random`` with more shots are
    those with fewer. ``balanced`` counts over ``labels`` (else those of the pool). ``bm25`` and ``hidden`` need ``query``
    and ``similarity``: ``similarity(query, pool)`` gives a score for each example of the pool (``bm25_index`` makes one).
    Raises UnknownName for ``how`` and DataError where the pool cannot give what is asked.
    """
    if how not in PICKS:
        raise UnknownName("way to pick demonstrations", how, PICKS)
    if k < 0:
        raise DataError(f"asked for {k} demonstrations; what works is 0 or more")
    able = [example for example in _besides(pool, query) if example.label is not None]
    if k > len(able):
        without = " besides the query" if len(able) < sum(example.label is not None for example in pool) else ""
        raise DataError(
            f"asked for {k} demonstrations, and the pool has {len(able)}{without}; ask for at most {len(able)}"
        )
    if k == 0:
        return ()
    if how == "first_n":
        return tuple(able[:k])
    if how == "fixed":
        return _fixed(able, k, ids)
    if how in {"bm25", "hidden"}:
        return _nearest(able, k, how, query, similarity)
    # over the pool with the query, so that the draw is the same whether the query is in it or not
    shuffled = [pool[at] for at in stream(seed, "pick", how).permutation(len(pool))]
    chosen = {example.id for example in able}
    shuffled = [example for example in shuffled if example.id in chosen]
    return tuple(shuffled[:k]) if how == "random" else _balanced(shuffled, k, labels, seed)


def order(examples: Sequence[Example], number: int, seed: int) -> tuple[Example, ...]:
    """The same examples in order ``number``: 0 is as picked, every other one a permutation of its own.

    No two orders are equal before all k! have been used; then they come again.
    """
    if number < 0:
        raise DataError(f"asked for order {number}; what works is 0 (as picked) or more")
    identity = tuple(range(len(examples)))
    seen = {identity}
    latest = identity
    for turn in range(1, number % math.factorial(len(examples)) + 1):
        random = stream(seed, "order", turn)
        while latest in seen:
            latest = tuple(int(at) for at in random.permutation(len(examples)))
        seen.add(latest)
    return tuple(examples[at] for at in latest)


def bm25_index(pool: Sequence[Example], template: Template) -> Similarity:
    """A similarity for ``pick(..., "bm25")`` that reads the pool once, for as many queries as there are.

    Scores are Lucene's BM25 (Robertson and Zaragoza 2009) over lower-case words of what each example puts into
    ``template`` (``content``): a field that the layout does not show may hold the answer, and the query's would find
    demonstrations by it. Text in scripts without spaces counts in pairs of neighbouring characters. Examples that are
    not in ``pool`` cannot be scored. PromptError where the layout and the fields do not fit.
    """
    row = {example.id: at for at, example in enumerate(pool)}
    corpus = [words(content(template, example.fields)) for example in pool]
    if not any(corpus):
        return lambda _query, candidates: np.zeros(len(candidates))
    index = bm25s.BM25()
    index.index(corpus, show_progress=False)

    def similarity(query: Example, candidates: Sequence[Example]) -> Scores:
        asked = words(content(template, query.fields))
        scores = np.asarray(index.get_scores(asked), dtype=np.float64) if asked else np.zeros(len(corpus))
        return scores[[row[example.id] for example in candidates]]

    return similarity


def words(text: str) -> list[str]:
    """The units that BM25 counts.

    >>> words("The red Apple"), words("赤いりんご")
    (['the', 'red', 'apple'], ['赤い', 'いり', 'りん', 'んご'])
    """
    units: list[str] = []
    for run in _WORDS.findall(text.casefold()):
        unspaced = len(run) > 1 and re.match(f"[{_UNSPACED}]", run)
        units += [run[at : at + 2] for at in range(len(run) - 1)] if unspaced else [run]
    return units


def _besides(pool: Sequence[Example], query: Example | None) -> list[Example]:
    """The pool without the query and without what asks the same."""
    if query is None:
        return list(pool)
    return [example for example in pool if example.id != query.id and example.fields != query.fields]


def _fixed(able: Sequence[Example], k: int, ids: Sequence[str]) -> tuple[Example, ...]:
    known = {example.id: example for example in able}
    if missing := [one for one in ids if one not in known]:
        some = ", ".join(list(known)[:3])
        raise DataError(f"demonstration {missing[0]!r} is not in the pool (or is the query); its ids look like {some}")
    if len(set(ids)) < len(ids):
        raise DataError("a demonstration is named twice among the fixed ones; name each once")
    if k > len(ids):
        raise DataError(f"asked for {k} fixed demonstrations, and {len(ids)} are named; name more or ask for fewer")
    return tuple(known[one] for one in ids[:k])


def _balanced(shuffled: Sequence[Example], k: int, labels: Sequence[str], seed: int) -> tuple[Example, ...]:
    of: dict[str, list[Example]] = defaultdict(list)
    for example in shuffled:
        of[example.label or ""].append(example)
    names = sorted(labels or of)
    share, rest = divmod(k, len(names))
    random = stream(seed, "pick", "balanced", "labels")
    turns = [names[at] for at in random.permutation(len(names))]
    extra = [name for name in turns if len(of[name]) > share][:rest]
    scarce = [name for name in names if len(of[name]) < share]
    if scarce or len(extra) < rest:
        least = min(names, key=lambda name: len(of[name]))
        raise DataError(
            f"asked for {k} balanced demonstrations over {len(names)} labels, and the pool has {len(of[least])} of "
            f"{least!r}; ask for fewer, or pick by random"
        )
    chosen = [example for name in names for example in of[name][: share + (name in extra)]]
    # labels must not stand in blocks, which is an order of its own
    return tuple(chosen[at] for at in stream(seed, "pick", "balanced", "places").permutation(k))


def _nearest(
    able: Sequence[Example], k: int, how: str, query: Example | None, similarity: Similarity | None
) -> tuple[Example, ...]:
    if query is None:
        raise DataError(f"picking by {how} compares with a query, and none was given; use random, balanced or first_n")
    if similarity is None:
        raise DataError(
            f"picking by {how} needs a similarity, and none was given; give one (bm25_index), or use random"
        )
    scores = np.asarray(similarity(query, able))
    if scores.shape != (len(able),):
        raise DataError(f"the similarity gave {scores.shape} scores for a pool of {len(able)}; one each is needed")
    # of equals the earlier one counts as nearer
    nearest = np.argsort(-scores, kind="stable")[:k]
    return tuple(able[at] for at in nearest[::-1])
