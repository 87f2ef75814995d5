"""How often each token of a tokenizer occurs in a named corpus: the order of a tokenizer's ids is not that of frequency."""

import hashlib
import json
import logging
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kshot.errors import DataError, KshotError
from kshot.packages import built_once, cache_dir

log = logging.getLogger("kshot")

Encode = Callable[[Sequence[str]], list[tuple[int, ...]]]

# Two tokenizers may know the same tokens and cut text differently: the pin sees this one cut.
_PROBE = ("The cats' 12,345 naive cafés -- aren't\n\n  they?", " a", "a")


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """Texts with a name, read only when they are needed. Counts are kept on disk under ``pin``, unless it is empty."""

    name: str
    pin: str
    texts: Callable[[], Sequence[str]]


def counted(corpus: Corpus, vocabulary: Mapping[str, int], encode: Encode) -> dict[int, int]:
    """Token id -> how often it occurs in the corpus, the commonest first, ties by id; ids that do not occur are absent.

    Counted once for each ``vocabulary`` (a tokenizer's tokens and their ids) and corpus, then read from the cache.
    DataError where the corpus cannot be read.
    """
    if not corpus.pin:
        return _count(corpus, encode)
    folder = cache_dir() / "counts" / _pin(corpus, vocabulary, encode)
    known = _read(folder / "counts.json")
    if known is None:
        known = _count(corpus, encode)
        # Only what cannot be read is in the way here.
        shutil.rmtree(folder, ignore_errors=True)
        with built_once(folder) as fresh:
            facts = {"corpus": corpus.name, "tokens": sum(known.values()), "counts": list(known.items())}
            (fresh / "counts.json").write_text(json.dumps(facts), encoding="utf-8")
    return known


def _pin(corpus: Corpus, vocabulary: Mapping[str, int], encode: Encode) -> str:
    told = json.dumps([corpus.pin, sorted(vocabulary.items()), encode(_PROBE)])
    return hashlib.sha256(told.encode()).hexdigest()[:24]


def _count(corpus: Corpus, encode: Encode) -> dict[int, int]:
    try:
        texts = corpus.texts()
    except KshotError as error:
        raise DataError(f"{corpus.name} cannot be counted: {error}") from error
    log.info("counting the tokens of %s (once)", corpus.name)
    found: Counter[int] = Counter()
    for tokens in encode(texts):
        found.update(tokens)
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


def _read(path: Path) -> dict[int, int] | None:
    try:
        return {int(token): int(count) for token, count in json.loads(path.read_text(encoding="utf-8"))["counts"]}
    except (OSError, ValueError, TypeError, KeyError):
        return None
