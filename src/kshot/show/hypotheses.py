"""The page and the terminal's text of ``kshot hypotheses``. It reads records and computes nothing."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from kshot.show import words
from kshot.show.explain_plots import forest
from kshot.show.explain_rows import bounds, finite, number
from kshot.show.hypotheses_tasks import altered, chains, task_view
from kshot.show.plain import plain_lines, print_notes
from kshot.show.svg import svg
from kshot.show.templates import templates
from kshot.show.words import Row
from kshot.study.hypotheses.claims import MARGIN

MARKS = {"supported": "✓", "undecided": "○", "rejected": "✗"}
_NAMES = {"H1": "task selection", "H2": "meta-learning", "H3": "composition"}
PROTOCOLS = {
    "redrawn": "demonstrations drawn anew for every query",
    "fixed": "the same demonstrations for all queries",
}


def page(kshot: Mapping[str, Any]) -> str:
    """The page as HTML text, one self-contained file, the same for the same record (the value of ``kshot`` in results.json)."""
    return templates().get_template("hypotheses.html.j2").render(_view(finite(words.clean(kshot))))


def text(kshot: Mapping[str, Any]) -> str:
    """The answer, and every claim with what was predicted and what came, in lines of at most 100 columns."""
    ours = finite(words.clean(kshot))
    console, printed = plain_lines()
    console.print(Text(answer(ours)))
    for task in _tasks(ours):
        for protocol, lines in _by_protocol(ours, task).items():
            console.print()
            console.print(Text(f"{task}, {PROTOCOLS[protocol]}"))
            table = Table.grid(padding=(0, 1))
            for width in (1, 1, 2, 53, 38):
                table.add_column(width=width)
            for own in lines:
                if own["claim"] is not None and not own["published"]:
                    table.add_row("", MARKS[own["verdict"]], own["hypothesis"], Text(own["claim"]), Text(observed(own)))
            console.print(table)
    print_notes(ours, console)
    return printed()


def answer(kshot: Row) -> str:
    """What came of each hypothesis, task by task, in a paragraph made of the verdicts; of a second protocol what differs."""
    said = []
    for task in _tasks(kshot):
        before: dict[str, str] = {}
        for protocol, lines in _by_protocol(kshot, task).items():
            wholes = {own["hypothesis"]: own for own in lines if own["claim"] is None}
            other = [name for name, own in wholes.items() if own["verdict"] != before.get(name)]
            kinds = [f"{_NAMES[name]} is {wholes[name]['verdict']}" for name in other]
            where = f"With {PROTOCOLS[protocol]}, " if before else f"{task}: "
            if kinds:
                said.append(f"{where}{words.listed(kinds)}{'' if before else _why(list(wholes.values()))}.")
            before |= {name: str(own["verdict"]) for name, own in wholes.items()}
    return " ".join(said) or "The record holds no verdict: nothing was judged."


def _why(wholes: Sequence[Row]) -> str:
    """The reason, where nothing could be decided for one and the same."""
    reasons = {str(own["reason"] or "") for own in wholes}
    kinds = {own["verdict"] for own in wholes}
    return f" ({reasons.pop()})" if kinds == {"undecided"} and len(reasons) == 1 and "" not in reasons else ""


def observed(own: Row) -> str:
    """What came of a claim, with its interval."""
    value = own.get("observed")
    if value is None:
        return str(own.get("reason") or "not measured")
    if isinstance(value, str):
        return value
    interval = bounds({}, own.get("low"), own.get("high"))
    return number({}, value) + (f" ({interval})" if interval else "")


def _tasks(kshot: Row) -> list[str]:
    return list(kshot.get("tasks") or {})


def _by_protocol(kshot: Row, task: str) -> dict[str, list[Row]]:
    """The verdicts of a task by protocol, the published one first."""
    own = [row for row in kshot.get("verdicts") or () if row["task"] == task]
    return {name: rows for name in PROTOCOLS if (rows := [row for row in own if row["protocol"] == name])}


def _view(kshot: Row) -> dict[str, Any]:
    """What the template needs: plain values, every text still to be escaped, figures as SVG."""
    names, model = _tasks(kshot), kshot.get("model") or {}
    computed = " on ".join(str(part) for part in (model.get("dtype"), model.get("device")) if part)
    version = str(kshot.get("version") or "")
    return {
        "version": version,
        "kicker": ", ".join(filter(None, [f"kshot hypotheses {version}".strip(), computed])),
        "title": "Which account of in-context learning fits?",
        "asked": _asked(kshot, names, model),
        "answer": answer(kshot),
        "panels": [_panel(kshot, name, str(said)) for name, said in (kshot.get("hypotheses") or {}).items()],
        "altered": altered(kshot),
        "task_names": names,
        "tasks": [task_view(kshot, name, f"task-{place}") for place, name in enumerate(names, 1)],
        "chains": chains(kshot),
        "chain_columns": ["both", "the first alone", "the second alone", "stopped half way"],
        "notes": [str(note) for note in kshot.get("notes") or ()],
        "command": words.command(kshot.get("argv")),
        "model": words.facts(model),
        "environment": words.facts(kshot.get("environment") or {}),
        "settings": words.facts(kshot.get("settings") or {}),
    }


def _asked(kshot: Row, names: Sequence[str], model: Row) -> list[tuple[str, str]]:
    tasks = list((kshot.get("tasks") or {}).values())
    rows = kshot.get("measures") or []
    asked = [
        ("model", str(model.get("caption") or model.get("name") or "")),
        ("tasks", words.listed(names, 8)),
        ("demonstrations", words.listed(sorted({task["shots"] for task in tasks}))),
        ("queries a seed", words.listed(sorted({row["n"] for row in rows if _of_the_task_as_it_is(row)}))),
        ("seeds", words.listed(sorted({row["seed"] for row in rows if row.get("seed") is not None}), 8)),
    ]
    return [(name, said) for name, said in asked if said]


def _of_the_task_as_it_is(row: Row) -> bool:
    name, *rest = str(row["variant"]).split(", ")
    # Without heads drawn several times over the same queries count as often.
    whole = not any(word.startswith("without ") for word in rest)
    return row["measure"] == "accuracy" and name == "original" and whole and row["seed"] is not None


def _panel(kshot: Row, name: str, said: str) -> dict[str, Any]:
    """A hypothesis in its own words, what came of each of its claims on every task, and a picture of that."""
    main: list[Row] = []
    others: list[Row] = []
    for task in _tasks(kshot):
        for place, lines in enumerate(_by_protocol(kshot, task).values()):
            own = [row for row in lines if row["hypothesis"] == name]
            (main if place == 0 else others).extend(own)
    claims = [row for row in main if row["claim"] is not None]
    return {
        "name": name,
        "title": _NAMES.get(name, name),
        "said": said,
        "wholes": [_claim(row) for row in main if row["claim"] is None],
        "figure": _forest(name, claims) if claims else "",
        "claims": [_claim(row) for row in claims],
        "others": [_claim(row) for row in others if row["claim"] is not None],
        "protocol": PROTOCOLS[main[0]["protocol"]] if main else "",
    }


def _claim(row: Row) -> dict[str, Any]:
    return {
        "mark": MARKS[row["verdict"]],
        "kind": row["verdict"],
        "published": row["published"],
        "task": row["task"],
        "claim": row["claim"] or observed(row),
        "prediction": row["prediction"],
        "observed": observed(row),
        "why": str(row.get("reason") or "") if row["observed"] is not None else "",
    }


def _forest(name: str, claims: Sequence[Row]) -> Any:
    """Every claim's figure with its interval, and what is taken for no difference."""
    groups: dict[str, list[tuple[str, Any, Any, Any]]] = {}
    for row in claims:
        if not row["published"]:
            own = (str(row["task"]), row["observed"], row["low"], row["high"])
            groups.setdefault(str(row["prediction"]), []).append(own)
    told = "; ".join(
        f"{prediction}, {task}: {number({}, value)}" for prediction, own in groups.items() for task, value, *_ in own
    )
    figure = forest(groups, "difference of macro-F1, or correlation", MARGIN)
    return svg(figure, key=f"claims{name}", title=f"What came of the claims of {name}", description=told)
