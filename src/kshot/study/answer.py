"""What came out, in a few words that say how sure it is."""

from collections.abc import Mapping, Sequence
from typing import Any

from kshot.study.summary import Apart, arm, called, differing, noisy, telling
from kshot.study.verdict import LEVEL, learned, said

Row = Mapping[str, Any]

# How many rows with one verdict are named.
_NAMED = 4

# By how much another scoring rule must beat the best row's plain sum to be named.
_GAIN = 0.03
_RULES = {
    "token_length_normalized": "the sum per token",
    "character_length_normalized": "the sum per character",
    "unconditional_likelihood_normalized": "PMI",
    "domain_context_calibration": "domain-context calibration",
}


def answer(
    rows: Sequence[Row],
    comparisons: Sequence[Row],
    commonest: tuple[str, float] | None = None,
    pairs: Sequence[Row] = (),
) -> str:
    """The answer to one task from its summary rows and comparisons; ``pairs`` are the rows of ``verdict.paired``.

    ``commonest`` is the most frequent gold label with its share, where labels are few enough to guess.
    """
    scored = [row for row in rows if row["accuracy"] is not None and not noisy(row)]
    if not scored:
        if any(row.get("failed") for row in rows):
            return "Nothing came to a result; what went wrong is said below."
        return "No query of this task is labelled, so nothing can be said of accuracy."
    best = max(scored, key=lambda row: row["accuracy"])
    if learned(rows):
        parts = [_most_accurate(best, scored, differing(rows)), *said(pairs), *_no_better_than(commonest, best)]
        return " ".join(parts)
    others = sorted((row for row in scored if row is not best), key=lambda row: (row["shots"] > 0, -row["accuracy"]))
    apart = differing(rows)
    many = f" on average over {len(best['seeds'])} seeds" if len(best["seeds"]) > 1 else ""
    head = (
        f"{_with(best, apart)} the model answers {percent(best['accuracy'])} of {_count(best['n'], 'query', 'queries')} right{many} "
        f"({percent(best['test_low'], unit=False)} to {percent(best['test_high'])})"
    )
    if others:
        head += f"; {_rest(others[0], apart)}, {percent(others[0]['accuracy'])}"
    parts = [head + ".", *_against(best, others, comparisons, apart), *_other_rules(best, scored, apart)]
    return " ".join([*parts, *_no_better_than(commonest, best)])


def _no_better_than(commonest: tuple[str, float] | None, best: Row) -> list[str]:
    if commonest is None or best["test_low"] > commonest[1]:
        return []
    told = "is better" if best["test_high"] < commonest[1] else "is as good as far as one can tell"
    return [f"Always answering {commonest[0]!r} {told} ({percent(commonest[1])})."]


def _most_accurate(best: Row, rows: Sequence[Row], apart: Apart) -> str:
    """The best row with its interval, and what prompting reaches beside it."""
    many = f", mean of {len(best['seeds'])} seeds" if len(best["seeds"]) > 1 else ""
    on = f" on {_count(best['shots'], 'example')}" if best["shots"] else ""
    head = (
        f"Most accurate is {called(best, apart)}{on}: {percent(best['accuracy'])} of {_count(best['n'], 'query', 'queries')} right "
        f"({percent(best['test_low'], unit=False)} to {percent(best['test_high'])}{many})"
    )
    prompted = [row for row in rows if row is not best and row["method"] in ("in-context", "zero-shot")]
    shown = [row for row in prompted if row["shots"] == best["shots"] and row["method"] == "in-context"]
    shown = shown or [row for row in prompted if row["method"] == "in-context"]
    beside = [max(own, key=lambda row: row["accuracy"]) for own in (shown, _bare(prompted)) if own]
    said_beside = []
    for row in beside:
        at = f" with {_count(row['shots'], 'example')}" if row["shots"] not in (0, best["shots"]) else ""
        said_beside.append(f"{called(row, apart)}{at}: {percent(row['accuracy'])}")
    return "; ".join([head, *([", ".join(said_beside)] if said_beside else [])]) + "."


def _bare(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row["method"] == "zero-shot"]


def percent(value: float, *, unit: bool = True) -> str:
    """A share for reading; never 0 or 100 where it is not.

    >>> percent(0.7923), percent(0.001), percent(0.999)
    ('79 %', '0.1 %', '99.9 %')
    """
    rounded = f"{100 * value:.0f}" if value in (0, 1) or 0.005 <= value < 0.995 else f"{100 * value:.1f}"
    return f"{rounded} %" if unit else rounded


def _with(row: Row, apart: Apart) -> str:
    if row["method"] == "zero-shot":
        return "Without demonstrations" + _namely(row, apart)
    if row["method"] == "in-context":
        return f"With {_count(row['shots'], 'demonstration')} in the prompt" + _namely(row, apart)
    return f"With {row['method']} on {_count(row['shots'], 'example')}" + _namely(row, apart)


def _rest(row: Row, apart: Apart) -> str:
    text = _with(row, apart)
    return (text[0].lower() + text[1:]).replace(" in the prompt", "")


def _short(row: Row, apart: Apart) -> str:
    name = "zero-shot" if row["method"] == "zero-shot" else f"{row['method']} with {_count(row['shots'], 'shot')}"
    return name + _namely(row, apart)


def _namely(row: Row, apart: Apart) -> str:
    """What tells a row from its namesakes, in words, after a blank; nothing where nothing does."""
    own, said = telling(row, apart), []
    if "ensemble" in own:
        how = f" by {str(row['params']['rule']).replace('-', ' ')}" if "rule" in own else ""
        said.append(f"{row['params']['members']} {own['ensemble']} combined{how}")
    said += [f"{key} {value}" for key, value in own.items() if key not in ("ensemble", "rule", "members")]
    return f" ({', '.join(said)})" if said else ""


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


def _other_rules(best: Row, rows: Sequence[Row], apart: Apart) -> list[str]:
    """The scoring rule that does best on any row, where it clearly beats the best row's sum; not of open answers."""
    if any(row["score"] != "sum" for row in rows):
        return []
    found = [(value, name, row) for row in rows for name, value in row["scores"].items() if name != "sum"]
    known = [one for one in found if one[0] is not None]
    value, name, row = max(known, key=lambda one: one[0], default=(0.0, "", best))
    # a share of n queries is rounded, and three points are three points
    if not known or value < best["accuracy"] + _GAIN - 1e-9:
        return []
    rules = len({name for _, name, _ in known})
    arms = f" in {len(rows)} rows" if len(rows) > 1 else ""
    said = _RULES.get(name, name.replace("_", " "))
    return [
        f"Of the other scoring rules, {said} {_rest(row, apart)} comes to {percent(value)} "
        f"(chosen among {_count(rules, 'rule')}{arms} on these same queries, so a little flattering)."
    ]


def _against(best: Row, others: Sequence[Row], comparisons: Sequence[Row], apart: Apart) -> list[str]:
    """What the paired tests say of the best row against every other, those with the same verdict together."""
    by_name = {row["b"]: row["p"] for row in comparisons if row["a"] == arm(best, apart)}
    verdicts: dict[str, list[tuple[str, float]]] = {}
    for other in others:
        p = by_name.get(arm(other, apart))
        if p is not None:
            verdict = "It is better than" if p < LEVEL else "It is not distinguishable from"
            verdicts.setdefault(verdict, []).append((_short(other, apart), p))
    return [f"{verdict} {_named(names)}." for verdict, names in verdicts.items()]


def _named(names: Sequence[tuple[str, float]]) -> str:
    """Rows with their p-values as a list in a sentence; of many the first, and the rest counted.

    >>> _named([("zero-shot", 0.0001), ("tfidf", 0.01), ("head", 0.02)])
    'zero-shot (p < 0.001), tfidf (p = 0.01) and head (p = 0.02)'
    """
    most = _NAMED if len(names) > _NAMED + 1 else len(names)
    rest = [p for _, p in names[most:]]
    told = [f"{name} ({_p([p])})" for name, p in names[:most]]
    *told, last = [*told, f"{len(names) - most} more ({_p(rest)})"] if rest else told
    return f"{', '.join(told)} and {last}" if told else last


def _p(values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    if high < 0.001:
        return "p < 0.001"
    if f"{low:.2g}" == f"{high:.2g}":
        return f"p = {high:.2g}"
    return f"p from {'under 0.001' if low < 0.001 else f'{low:.2g}'} to {high:.2g}"
