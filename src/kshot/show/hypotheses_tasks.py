"""What the page of ``kshot hypotheses`` says of a task: figures, tables, words. It reads records and computes nothing."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from kshot.show.explain_rows import Line, bounds, line, number, overall
from kshot.show.hypotheses_plots import Point, against, functions
from kshot.show.svg import svg
from kshot.show.words import Row, listed
from kshot.study.hypotheses.claims import CLAIMS
from kshot.study.hypotheses.functions import CORRELATED, CORRELATED_LINEAR, PAIRED, WITHOUT_NOISE
from kshot.transform import TRANSFORMS
from kshot.transform.responses import FACTOR

# The tables of a task: a heading, and how a word begins that its rows have and that is said by the heading.
_TABLES = (
    ("Altered tasks, demonstrations drawn anew for every query", "redrawn"),
    ("Altered tasks, the same demonstrations for all queries", "fixed"),
    ("What of a demonstration matters: the answer scored after the input", "direct"),
    ("What of a demonstration matters: the input scored after the answer", "channel"),
    ("As a conversation, in the model's chat template", "chat template"),
)
# Tables whose rows have one of several words, all of which are shown.
_KEPT = (
    ("Label words by linear maps between embeddings", ("linear map",)),
    ("Without the heads that copy", ("all heads", "without ")),
    ("Known tasks: answered in context, and by Bayes over them", ("in context", "Bayes over known tasks")),
    ("The regression as published", ("regression as published",)),
)
# Figures against a number: what is measured, a heading, a label, and the word of the variant that has the number.
_AGAINST = (
    ("macro_f1", "shots", "More and more demonstrations", "demonstrations", " shots"),
    ("macro_f1", "right", "More and more right labels", "right labels, %", "% right"),
    ("macro_f1", "permuted", "More and more of the vocabulary permuted", "permuted tokens of the vocabulary, %", "% permuted"),
    ("macro_f1", "order", "Synonyms of synonyms as answers (Li et al. 2024: it falls, and stays above 0.8)",
     "order of the synonym", "-fold synonyms"),
    ("entropy", "sharper", "How sure demonstrations make of a known task", "demonstrations", " demonstrations"),
)  # fmt: skip
# What of the functions stands where: a measure, its variant, and what it is called.
_FUNCTIONS = (
    ("correlation", CORRELATED, "accuracies of label words and of inputs, correlation"),
    ("p_value", f"{CORRELATED}, {PAIRED}", "share of random pairings that correlate as much (p)"),
    ("reliability", "memory-random", "reliability of the accuracy of label words"),
    ("reliability", "response-altered", "reliability of the accuracy of inputs"),
    ("correlation", f"{CORRELATED}, {WITHOUT_NOISE}", "the correlation with the noise of both scores taken out"),
    ("correlation", CORRELATED_LINEAR, "accuracies of label words and of a linear map, correlation"),
)
# What the tasks are that verdicts rest on.
_SAID = {
    "response-altered": "every label is answered by an arbitrary single token; the tokens are drawn by the seed, distinct, "
    f"and none is {FACTOR:g} times as probable as another after an empty input",
    "response-altered-unscreened": "the same with any single tokens, as published",
    "prompt-altered": "the vocabulary is permuted in all that stands before an answer, the layout included; tokens of "
    "answers and special tokens stay",
    "prompt-altered-layout-kept": "the same, but that the tokens of the layout stay too, as published",
    "memory-random": "tau_g: the input is the word of the right label, the answer an arbitrary token for each",
    **{
        f"memory-{relation}": f"the input is the word of the right label, the answer {an} of it"
        for relation, an in (("synonym", "a synonym"), ("antonym", "an antonym"), ("keyword", "a keyword"))
    },
}
GUESS = "always one label"
_APART = "Macro-F1 with demonstrations drawn anew for every query, less that with the same for all"
_BESIDE = "Differences of macro-F1 that no claim is about"
_UNITS = {"macro_f1": "macro-F1", "entropy": "entropy over known tasks, nats"}


def task_view(kshot: Row, name: str, anchor: str) -> dict[str, Any]:
    """Figures, tables and the words that were drawn, of one task."""
    rows = [row for row in overall(kshot.get("measures") or []) if row["task"] == name]
    f1 = [row for row in rows if row["measure"] == "macro_f1"]
    tables = [table for heading, word in _TABLES if (table := _table(heading, word, f1))["lines"]]
    for heading, begun in _KEPT:
        own = [row for row in f1 if any(w.startswith(begun) for w in _words(row)[1:])]
        lines = [line(str(row["variant"]), "", [row]) for row in own if GUESS not in _words(row)]
        if lines:
            tables.append({"heading": heading, "columns": [name], "lines": lines})
    if apart := [line(str(row["variant"]), "", [row]) for row in rows if row["measure"] == "protocol"]:
        tables.append({"heading": _APART, "columns": ["difference"], "lines": apart})
    if beside := [line(str(row["variant"]), "", [row]) for row in rows if _of_no_claim(row)]:
        tables.append({"heading": _BESIDE, "columns": ["difference"], "lines": beside})
    if learned := _of_functions(rows):
        heading = "Functions learned of label words, and of inputs"
        tables.append({"heading": heading, "sub": "over functions", "columns": [name], "lines": learned})
    drawn = (kshot.get("pictures") or {}).get(name) or []
    return {
        "name": name,
        "anchor": anchor,
        "tables": tables,
        "unasked": _unasked(f1),
        "figures": _figures(rows, drawn, name, anchor),
        "synonyms": _synonyms(drawn, (kshot.get("tasks") or {}).get(name) or {}),
    }


def _table(heading: str, word: str, rows: Sequence[Row]) -> dict[str, Any]:
    """A line for every task with this word: the model, always answering one label, and the regression, where there is one."""
    found: dict[str, dict[str, Row]] = {}
    for row in rows:
        own, *rest = _words(row)
        if word in rest:
            what = ", ".join(w for w in rest if w != word)
            found.setdefault(own, {})[what] = row
    columns = {"": "in context", GUESS: GUESS, "regression": "regression on tokens"}
    known = [what for what in columns if any(what in own for own in found.values())]
    return {
        "heading": heading,
        "columns": [columns[what] for what in known],
        "lines": [
            line(own, "", [said.get(what) for what in known])
            for own, said in found.items()
            if "" in said and said[""]["value"] is not None
        ],
    }


def altered(kshot: Row) -> list[dict[str, str]]:
    """Every altered task that was asked, what it is, and what it keeps of the task as it is."""
    rows = [row for row in kshot.get("measures") or () if row["measure"] == "macro_f1"]
    asked = {_words(row)[0] for row in rows if row["value"] is not None}
    return [
        {"name": name, "said": said, "keeps": listed(sorted(TRANSFORMS[name].keeps))}
        for name, said in _SAID.items()
        if name in asked
    ]


def _of_no_claim(row: Row) -> bool:
    name = str(row["variant"]).removesuffix(", redrawn").removesuffix(", fixed")
    return row["measure"] == "contrast" and name not in {claim.name for claim in CLAIMS}


def _of_functions(rows: Sequence[Row]) -> list[Line]:
    known = {(row["measure"], row["variant"]): row for row in rows}
    return [line(said, "", [known[measure, what]]) for measure, what, said in _FUNCTIONS if (measure, what) in known]


def _unasked(rows: Sequence[Row]) -> list[str]:
    """What has no figure with any seed, and why: a line for every reason."""
    found: dict[str, dict[str, None]] = {}
    for row in rows:
        if row["value"] is None and row["reason"]:
            found.setdefault(str(row["reason"]), {})[_words(row)[0]] = None
    return [f"{listed(list(names))}: {reason}" for reason, names in found.items()]


def chains(kshot: Row) -> dict[str, Any] | None:
    """One relation after another: a line for each chain, and how well its parts predict it."""
    rows = [row for row in overall(kshot.get("measures") or []) if row["task"] == "relations"]
    found: dict[str, dict[str, Row]] = {}
    for row in rows:
        if row["measure"] in ("accuracy", "half_way"):
            chain, *part = _words(row)
            place = "half way" if row["measure"] == "half_way" else "both" if not part else part[0]
            found.setdefault(chain, {})[place] = row
    lines = []
    for chain, own in found.items():
        alone = [row for place, row in own.items() if place.endswith("alone")]
        if len(alone) == 2:
            lines.append(line(chain, "", [own.get("both"), *alone, own.get("half way")]))
    together = next((row for row in rows if row["measure"] == "correlation"), None)
    said = bounds({}, together["low"], together["high"]) if together else ""
    told = number({}, together["value"]) if together and together["value"] is not None else ""
    return {"lines": lines, "said": f"{told} ({said})" if said else told} if lines else None


def _words(row: Row) -> list[str]:
    return str(row.get("variant") or "").split(", ")


def _figures(rows: Sequence[Row], drawn: Sequence[Row], name: str, anchor: str) -> list[dict[str, Any]]:
    def shown(key: str, heading: str, figure: Figure, told: str) -> dict[str, Any]:
        own = svg(figure, key=f"{anchor.replace('-', '')}{key}", title=f"{heading}, {name}", description=told)
        return {"heading": heading, "figure": own}

    found = []
    for measure, key, heading, label, unit in _AGAINST:
        lines = series([row for row in rows if row["measure"] == measure], unit)
        # Of axes without a point nothing is to be seen; what could not be asked is said below.
        if any(value is not None for points in lines.values() for _, value, *_ in points):
            figure = against(lines, label, _UNITS[measure], top=1.0 if measure == "macro_f1" else None)
            told = "; ".join(
                f"{what}: {', '.join(f'{at:g} {number({}, value)}' for at, value, *_ in points)}"
                for what, points in lines.items()
            )
            found.append(shown(key, heading, figure, told))
    if points := [own["functions"] for own in drawn if own.get("functions")]:
        means = [(one["memory"], one["altered"]) for own in points for one in own["binned"]]
        told = "Mean accuracies of functions, of label words and of inputs: " + "; ".join(
            f"{number({}, x)} and {number({}, y)}" for x, y in means
        )
        figure = functions([(own["memory"], own["altered"]) for own in points], means)
        found.append(shown("functions", "Functions learned of label words, and of inputs", figure, told))
    return found


def series(rows: Sequence[Row], unit: str) -> dict[str, list[Point]]:
    """Rows with a number in their variant, by the rest of it."""
    found: dict[str, list[Point]] = {}
    for row in rows:
        at = next((word for word in _words(row) if word.endswith(unit)), None)
        if at is not None and GUESS not in _words(row):
            rest = ", ".join(word for word in _words(row) if word != at) or "prompt-altered"
            point = (float(at.removesuffix(unit)), row["value"], row["low"], row["high"])
            found.setdefault(rest, []).append(point)
    return found


def _synonyms(drawn: Sequence[Row], facts: Mapping[str, Any]) -> list[dict[str, str]]:
    """The words that stood for the labels, order by order, of the least seed, each with those it was come by."""
    own = min((one for one in drawn if one.get("synonyms")), key=lambda one: one["seed"], default=None)
    if own is None:
        return []
    labels, senses = [str(label) for label in facts.get("labels") or ()], own.get("senses") or {}
    found = []
    for order, said in own["synonyms"].items():
        ways = [_way(links) for links in senses.get(order) or [()] * len(said)]
        told = ", ".join(f"{a}: {b}{way}" for a, b, way in zip(labels, said, ways, strict=False))
        found.append({"order": str(order), "words": told})
    return found


def _way(links: Sequence[str]) -> str:
    """The words between a label's and the one that was drawn."""
    between = [str(link).partition("/")[0] for link in links[:-1]]
    return f" (by way of {', '.join(between)})" if between else ""
