"""What the page and the terminal say of the open questions: each rival mechanism, what was done to see, what came."""

from collections.abc import Mapping, Sequence
from typing import Any

from kshot.show import explain_plots, words
from kshot.show.explain_rows import bounds, by_variant, number
from kshot.show.svg import svg
from kshot.show.words import Row

MARKS = {"shown": "✓", "not shown": "○", "contradicted": "✗"}
# What each condition of a question was measured as, the first the one to look at.
_CONDITIONS = ("accuracy", "logprob", "variance")


def questions(kshot: Row) -> list[dict[str, Any]]:
    """The sections of the page, a question each, in the order of the record."""
    found = []
    for name, lines in _by(kshot.get("replies") or (), "question").items():
        first = lines[0]
        tasks = list(dict.fromkeys(str(line["task"]) for line in lines))
        names = [f"why_{name}_{what}" for what in _CONDITIONS]
        found.append(
            {
                "anchor": f"why-{name}",
                "asks": first["asks"],
                "prediction": first["prediction"],
                # A page of questions alone begins with it.
                "answer": sentence(lines) if kshot.get("verdicts") else "",
                "mechanisms": [_mechanism(own) for own in _by(lines, "mechanism").values()],
                "figure": forest(lines, key=f"why{name}"),
                "tasks": tasks,
                "conditions": by_variant(kshot.get("measures") or [], tasks, names),
            }
        )
    return found


def forest(lines: Sequence[Row], *, key: str) -> Any:
    """Every contrast with its interval and the line at 0, as a picture; mechanisms one below the other."""
    groups = {
        str(own[0]["contrast"]): [(where(line), line["observed"], line["low"], line["high"]) for line in own]
        for own in _by(lines, "mechanism").values()
    }
    said = "; ".join(
        f"{contrast}, {place}: {number({}, value)}" for contrast, own in groups.items() for place, value, *_ in own
    )
    figure = explain_plots.forest(groups, str(lines[0].get("unit") or "difference of shares"))
    return svg(figure, key=key, title=f"Contrasts: {lines[0]['asks']}", description=said)


def where(line: Row) -> str:
    """The task, what else the contrast says, and the model."""
    return ", ".join(filter(None, (str(line["task"]), str(line.get("when") or ""))))


def sentence(lines: Sequence[Row]) -> str:
    """What came of the contrasts, in one paragraph."""
    parts = []
    for kind, own in _kinds(lines).items():
        if own:
            parts.append(f"{kind.capitalize()}: {'; '.join(own)}.")
    return " ".join(parts)


def _kinds(lines: Sequence[Row]) -> dict[str, list[str]]:
    """The contrasts of each verdict; where tasks or sizes disagree it is said for which."""
    found: dict[str, list[str]] = {kind: [] for kind in MARKS}
    single = len(_by(lines, "task")) == 1
    for contrast, own in _by(lines, "contrast").items():
        kinds = _by(own, "verdict")
        for kind, some in kinds.items():
            named = [str(line.get("when") or "as answered") if single else where(line) for line in some]
            places = "" if len(kinds) == 1 else f" ({words.listed(named)})"
            found.setdefault(str(kind), []).append(contrast + places)
    return found


def replied(replies: Sequence[Row]) -> str:
    """All questions with their answers, as the first paragraph of a page that holds nothing else."""
    return " ".join(f"{own[0]['asks']} {sentence(own)}" for own in _by(replies, "question").values())


def told(replies: Sequence[Row]) -> list[str]:
    """The same for a terminal: a question, and a line for each contrast."""
    lines = []
    for own in _by(replies, "question").values():
        lines += ["", str(own[0]["asks"])]
        for contrast, some in _by(own, "contrast").items():
            for line in some:
                said = observed(line) or str(line.get("reason") or "not measured")
                lines.append(f"  {MARKS.get(str(line['verdict']), ' ')} {contrast} ({where(line)}): {said}")
    return lines


def _mechanism(lines: Sequence[Row]) -> dict[str, Any]:
    kinds = list(dict.fromkeys(str(line["verdict"]) for line in lines))
    kind = kinds[0] if len(kinds) == 1 else "mixed"
    return {
        "kind": kind,
        "mark": MARKS.get(kind, "◐"),
        "claim": str(lines[0]["mechanism"]),
        "done": str(lines[0]["intervention"]),
        "came": [
            {"where": where(line), "kind": line["verdict"], "observed": observed(line), "why": line.get("reason") or ""}
            for line in lines
        ],
    }


def observed(line: Row) -> str:
    """The contrast with its interval and unit."""
    value = line.get("observed")
    if value is None:
        return ""
    unit = f" {line['unit']}" if line.get("unit") else ""
    interval = bounds({}, line.get("low"), line.get("high"))
    return f"{number({}, value)}{unit}" + (f" ({interval})" if interval else "")


def _by(lines: Sequence[Row], key: str) -> Mapping[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for line in lines:
        found.setdefault(str(line[key]), []).append(line)
    return found
