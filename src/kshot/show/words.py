"""How values are written for people: numbers, intervals, names, dates; a dash and a reason where a value is undefined."""

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from kshot.study.summary import Apart, called

Row = Mapping[str, Any]
Number = int | float

DASH = "—"
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ufffe\uffff]")
_KANA = re.compile("[\u3040-\u30ff]")
_HANGUL = re.compile("[\uac00-\ud7af]")
RULES = {
    "sum": "sum of the tokens",
    "greedy_exact_match": "greedy answer, exact match",
    "token_length_normalized": "per token",
    "character_length_normalized": "per character",
    "unconditional_likelihood_normalized": "PMI (minus the unconditional)",
    "contextual_calibration": "contextual calibration",
    "domain_context_calibration": "domain-context calibration",
    "batch_calibration": "batch calibration",
}


def clean(value: Any) -> Any:
    """The same JSON value with text that any page can hold: no control characters, no half surrogates."""
    if isinstance(value, str):
        return _CONTROLS.sub("\ufffd", value.encode("utf-8", "replace").decode("utf-8"))
    if isinstance(value, Mapping):
        return {clean(key): clean(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [clean(inner) for inner in value]
    return value


def shorten(text: str, limit: int) -> str:
    """At most ``limit`` characters, an ellipsis last where something was left out.

    >>> shorten("entertainment", 8), shorten("sport", 8)
    ('enterta…', 'sport')
    """
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"


def pinched(text: str, limit: int) -> str:
    """At most ``limit`` characters, an ellipsis in the middle: names of arms differ at their ends.

    >>> pinched("in-context@4[ensemble=orders,rule=majority-vote]", 26)
    'in-context@4…ajority-vote]'
    """
    head = limit // 2 - 1
    return text if len(text) <= limit else f"{text[:head]}…{text[len(text) - limit + head + 1 :]}"


def language(text: str) -> str | None:
    """The language tag a browser needs to choose the shapes of Han characters, where the script tells it."""
    if _KANA.search(text):
        return "ja"
    return "ko" if _HANGUL.search(text) else None


def decimals(value: Number | None, digits: int = 3) -> str:
    """A number with a fixed number of decimals and a true minus.

    >>> decimals(-0.5, 2), decimals(None)
    ('−0.50', '—')
    """
    return DASH if value is None else f"{value:.{digits}f}".replace("-", "−")


def interval(low: Number | None, high: Number | None, digits: int = 2) -> str:
    """Two bounds, or a dash where one is missing.

    >>> interval(0.7, 0.812)
    '0.70–0.81'
    """
    return DASH if low is None or high is None else f"{decimals(low, digits)}–{decimals(high, digits)}"


def count(value: Number | None) -> str:
    """A whole number with narrow spaces between thousands."""
    return DASH if value is None else f"{value:,.0f}".replace(",", "\u202f")


def four(value: Number) -> str:
    """Four figures, with narrow spaces between thousands.

    >>> four(42.0617), four(12345.6).replace("\u202f", " ")
    ('42.06', '1.235e+04')
    """
    return f"{value:,.4g}".replace(",", "\u202f")


def mark(value: Number) -> str:
    """A number at an axis, thousands and millions by a letter.

    >>> mark(0.02), mark(2_000), mark(500_000), mark(2_000_000), mark(3e12)
    ('0.02', '2000', '500k', '2M', '3e+12')
    """
    for letter, scale in (("M", 1e6), ("k", 1e3)):
        if 10_000 <= value < 1e9 and value >= scale:
            return f"{value / scale:g}{letter}"
    return f"{value:g}"


def size(value: Number | None) -> str:
    """Bytes in the unit that reads best.

    >>> size(1_240_000_000), size(0)
    ('1.24 GB', '0 B')
    """
    if value is None:
        return DASH
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= scale:
            return f"{value / scale:.3g} {unit}"
    return f"{value:.0f} B"


def powers(value: Number | None) -> str:
    """A number that may be very large, to three figures.

    >>> powers(1.7e14), powers(0), powers(950)
    ('1.7e14', '0', '950')
    """
    return DASH if value is None else f"{value:.3g}".replace("e+", "e")


def visible(text: str) -> str:
    """A token with its spaces and line ends to be seen.

    >>> visible(" good"), visible("\\n")
    ('␣good', '⏎')
    """
    return text.replace(" ", "␣").replace("\n", "⏎").replace("\t", "⇥")


def duration(seconds: Number | None) -> str:
    """Seconds in the unit that reads best.

    >>> duration(0.0042), duration(63.2), duration(7300)
    ('4.2 ms', '63 s', '2 h 02 min')
    """
    if seconds is None:
        return DASH
    if seconds < 1:
        return f"{seconds * 1000:.2g} ms" if seconds < 0.01 else f"{seconds * 1000:.0f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"


def per_query(row: Row) -> Number | None:
    """Seconds per query: the record's queries per second, the other way up."""
    speed = row.get("queries_per_second")
    return 1 / speed if speed else None


def p_value(value: Number | None) -> str:
    """A p-value to three decimals; smaller ones by their bound.

    >>> p_value(3e-9), p_value(0.0421)
    ('< 0.001', '0.042')
    """
    return DASH if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


def rule(name: str | None) -> str:
    """A scoring rule in words; its own name where we have none."""
    return DASH if name is None else RULES.get(name, name.replace("_", " "))


def listed(names: Sequence[Any], limit: int = 6) -> str:
    """Names in one line, the rest counted.

    >>> listed(["a", "b", "c"]), listed(range(9), 3)
    ('a, b, c', '0, 1, 2 and 6 more')
    """
    shown = ", ".join(str(name) for name in names[:limit])
    return f"{shown} and {len(names) - limit} more" if len(names) > limit else shown


def method(row: Row, apart: Apart = ()) -> str:
    """The method, with those parameters that tell it from its namesakes.

    >>> method({"task": "t", "method": "in-context", "params": {"pick": "bm25"}}, [("t", "in-context", "pick")])
    'in-context (pick=bm25)'
    """
    return called(row, apart)


def why(row: Row, field: str, kind: str = "") -> str:
    """Why a field of a summary row or a cell is undefined: what the record says, or what the row and the kind of task show."""
    said = (row.get("undefined") or {}).get(field)
    if said:
        return str(said)
    if field.startswith("seed") and len(row.get("seeds") or ()) <= 1:
        return "one seed only"
    if field.startswith("order") and (row.get("orders") or 0) <= 1:
        return "one order only"
    if row.get("n") == 0:
        return "no labelled query"
    if field in ("macro_f1", "confusion") and kind in ("open", "choice"):
        return "open answers have no fixed set of labels" if kind == "open" else "each query has answers of its own"
    return "does not apply, see the notes"


def day(date: Number | str | None) -> str:
    """The date of a run, in UTC, from seconds since 1970 or as the record writes it.

    >>> day(0)
    '1 January 1970, 00:00 UTC'
    """
    if isinstance(date, int | float):
        moment = datetime.fromtimestamp(date, UTC)
        return f"{moment.day} {moment:%B %Y, %H:%M} UTC"
    return date or "date not recorded"


def command(argv: Sequence[str] | str | None) -> str:
    """The command that repeats a run, quoted for a shell."""
    return argv or "" if isinstance(argv, str | None) else shlex.join(argv)


def facts(mapping: Row) -> list[tuple[str, str]]:
    """Names and values of a mapping as a page lists them."""
    return [(str(name).replace("_", " "), _fact(value)) for name, value in mapping.items()]


def _fact(value: Any) -> str:
    if value is None or value == "":
        return DASH
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return count(value)
    if isinstance(value, str | float):
        return str(value)
    return listed(value, 40) if isinstance(value, list) else json.dumps(value, ensure_ascii=False)
