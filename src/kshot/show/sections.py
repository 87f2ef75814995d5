"""What the page says of one task: which rows, cells and samples stand where, as plain values for the template."""

import json
from collections.abc import Callable, Sequence
from typing import Any

from kshot.show import plots, words
from kshot.show.costs import costs_view
from kshot.show.learning import learning_view
from kshot.show.svg import svg
from kshot.show.words import Row
from kshot.study.summary import Apart, arm, differing, noisy
from kshot.study.verdict import PROMPTED

_COUNTS = {
    "sum": "its gold answer has the greatest log-probability, summed over the answer's tokens",
    "greedy_exact_match": "the greedy answer is the gold one, to the letter; log-loss and calibration error are of the task's "
    "candidate outputs instead, by their log-probabilities summed over tokens",
}
_MEASURES = (("accuracy", 3), ("macro_f1", 3), ("log_loss", 3), ("ece", 3))
_WRONG, _RIGHT, _PANELS, _CONFUSED, _BIDS, _ARMS = 12, 8, 3, 20, 5, 8


def task_view(ours: Row, name: str, anchor: str, samples_of: Callable[[Row], list[dict[str, Any]]]) -> dict[str, Any]:
    """The values of ``task.html.j2`` for one task; ``anchor`` is its id in the page and begins the ids of its figures."""
    facts: Row = ours["tasks"].get(name) or {}
    rows = [row for row in ours["summary"] if row["task"] == name]
    cells = [cell for cell in ours["cells"] if cell["task"] == name and not cell.get("failed")]
    apart = differing(rows)
    best = best_row(rows)
    shown = shown_cell(best, cells)
    key, kind = anchor.replace("-", ""), str(facts.get("kind") or "")
    layouts = [facts.get("template") or {}, *(facts.get("layouts") or ())]
    learning = learning_view(ours, name, key)
    lang = words.language(" ".join([str(facts.get("prompt")), *map(str, facts.get("labels") or ())]))
    return {
        "name": name,
        "anchor": anchor,
        "caption": _caption(facts),
        "notes": facts.get("notes") or [],
        "answer": (ours.get("answer") or {}).get(name) or f"The record gives no answer for {name}.",
        "accuracy": learning["overview"] if learning["learned"] else _accuracy(rows, name, key),
        "level": _has_level(rows),
        "learning": learning,
        "counts": _counts(shown),
        "shown": {"arm": arm(shown, apart) if shown else "", "seed": shown["seed"] if shown else ""},
        "rows": [_row(row, apart, kind, row is best and len(rows) > 1) for row in rows],
        "row_reasons": _row_reasons(rows, apart, kind),
        "comparisons": [_comparison(row) for row in ours.get("comparisons") or () if row["task"] == name],
        "spread": _spread(cells, name, key),
        "orders": _orders(cells, apart),
        **costs_view(rows, name, key, lambda row: shown_cell(row, cells)),
        **_rules(rows, cells, apart),
        **_calibration(rows, best, cells, apart, key),
        **_confusion(shown, name, kind, key),
        **_examples(samples_of(shown) if shown else [], lang),
        "template": [line for n, own in enumerate(layouts, 1) for line in _template(own, n * (len(layouts) > 1))],
        "prompt": facts.get("prompt"),
        "lang": lang,
    }


def _counts(cell: Row | None) -> str:
    score = (cell or {}).get("score")
    return _COUNTS.get(score or "", f"its gold answer is best by {words.rule(score)}")


def best_row(rows: Sequence[Row]) -> Row | None:
    """The row of greatest accuracy, the first of equals; one with wrong labels on purpose is none."""
    scored = [row for row in rows if row["accuracy"] is not None and not noisy(row)]
    return max(scored, key=lambda row: row["accuracy"], default=None)


def shown_cell(row: Row | None, cells: Sequence[Row]) -> Row | None:
    """The cell that stands for a row where one cell must: its first seed, demonstrations in the order picked."""
    own = cells_of(row, cells) if row else []
    return min(own, key=lambda cell: cell["seed"], default=None)


def cells_of(row: Row, cells: Sequence[Row]) -> list[Row]:
    """The cells that a summary row sums up."""
    keys = ("task", "method", "params", "shots")
    return [cell for cell in cells if cell["order"] == 0 and all(cell.get(key) == row.get(key) for key in keys)]


def _caption(facts: Row) -> str:
    labels = facts.get("labels") or []
    parts = [
        {"open": "open answers", "choice": "choice among answers of each query"}.get(
            str(facts.get("kind")), str(facts.get("kind") or "")
        ),
        f"{len(labels)} {'candidate outputs' if facts.get('kind') == 'open' else 'labels'}: {words.listed(labels, 12)}"
        if labels
        else "",
        f"{words.count(facts['train'])} to learn from, {words.count(facts['test'])} to test"
        if "train" in facts and "test" in facts
        else "",
        str(facts.get("source") or ""),
    ]
    return "; ".join(part for part in parts if part)


def _has_level(rows: Sequence[Row]) -> bool:
    methods = [row["method"] for row in rows]
    return len({row["shots"] for row in rows}) > 1 and any(methods.count(method) == 1 for method in methods)


def _accuracy(rows: Sequence[Row], name: str, key: str) -> str:
    apart = differing(rows)
    said = "; ".join(
        f"{arm(row, apart)} {words.decimals(row['accuracy'])}, over test examples {words.interval(row['test_low'], row['test_high'])}, "
        f"over seeds {words.interval(row['seed_low'], row['seed_high'])}"
        for row in rows
    )
    return svg(
        plots.accuracy_against_shots(rows), key=f"{key}acc", title=f"Accuracy against shots, {name}", description=said
    )


def _row(row: Row, apart: Apart, kind: str, best: bool) -> dict[str, Any]:
    fields = (
        ("accuracy", words.decimals(row["accuracy"])),
        ("test_low", words.interval(row["test_low"], row["test_high"])),
        ("seed_low", words.interval(row["seed_low"], row["seed_high"])),
        ("order_low", words.interval(row["order_low"], row["order_high"])),
        ("macro_f1", words.decimals(row["macro_f1"])),
        ("log_loss", words.decimals(row["log_loss"])),
        ("ece", words.decimals(row["ece"])),
        ("n", words.count(row["n"])),
        ("seeds", words.count(len(row["seeds"]))),
    )
    cells = [{"text": text, "why": words.why(row, field, kind)} for field, text in fields]
    return {"method": words.method(row, apart), "shots": row["shots"], "cells": cells, "best": best}


def _row_reasons(rows: Sequence[Row], apart: Apart, kind: str) -> list[str]:
    """One line for each thing that is undefined and why, with the arms it holds for; what holds for all names none."""
    names = {
        "accuracy": "accuracy",
        "test_low": "over test examples",
        "seed_low": "over seeds",
        "order_low": "over orders",
        "macro_f1": "macro-F1",
        "log_loss": "log-loss",
        "ece": "calibration error",
    }
    found: dict[tuple[str, str], list[str]] = {}
    for field, name in names.items():
        for row in rows:
            if row[field] is None:
                found.setdefault((name, words.why(row, field, kind)), []).append(arm(row, apart))
    return [
        f"{name}{'' if len(arms) == len(rows) else ', ' + words.listed(arms)}: {reason}"
        for (name, reason), arms in found.items()
    ]


def _comparison(row: Row) -> dict[str, Any]:
    return {
        **{key: row[key] for key in ("a", "b")},
        **{key: words.count(row[key]) for key in ("only_a", "only_b", "n")},
        "difference": words.decimals(row["difference"])
        if (row["difference"] or 0) <= 0
        else "+" + words.decimals(row["difference"]),
        "p": words.p_value(row.get("p")),
        "by_seed": [(seed, words.p_value(p)) for seed, p in (row["p_values"] or {}).items()],
    }


def _spread(cells: Sequence[Row], name: str, key: str) -> str | None:
    sets = plots.order_sets(cells)
    if not sets:
        return None
    said = "; ".join(
        f"{arm(s[0], differing(cells))} seed {s[0]['seed']}: {', '.join(words.decimals(cell['accuracy']) for cell in s)}"
        for s in sets
    )
    return svg(
        plots.order_spread(cells), key=f"{key}ord", title=f"Accuracy in several orders, {name}", description=said
    )


def _orders(cells: Sequence[Row], apart: Apart) -> list[dict[str, Any]]:
    """One line a set of demonstrations: its accuracy as picked, and the least and greatest over its orders."""
    lines = []
    for members in plots.order_sets(cells):
        known = [cell["accuracy"] for cell in members if cell["accuracy"] is not None]
        picked = [cell["accuracy"] for cell in members if cell["order"] == 0]
        values = (picked[0] if picked else None, min(known, default=None), max(known, default=None))
        first = members[0]
        line = {
            "arm": arm(first, apart),
            "seed": first["seed"],
            "orders": len(members),
            "cells": [words.decimals(v) for v in values],
        }
        lines.append(line)
    return lines


def _rules(rows: Sequence[Row], cells: Sequence[Row], apart: Apart) -> dict[str, Any]:
    shown = [(row, shown_cell(row, cells)) for row in rows]
    pairs = [(row, cell) for row, cell in shown if cell is not None]
    if len(pairs) > _ARMS:
        # Classifiers have one rule, and a table of thirty columns is none: what was prompted, else the first.
        prompted = [(row, cell) for row, cell in pairs if row["method"] in PROMPTED and not noisy(row)]
        pairs = (prompted or pairs)[:_ARMS]
    found_names = dict.fromkeys(name for _, cell in pairs for name in cell.get("scores") or {})
    names = [name for name in dict.fromkeys([*words.RULES, *found_names]) if name in found_names]
    found: dict[tuple[str, str], list[str]] = {}
    rules = []
    for name in names:
        line = []
        for row, cell in pairs:
            measures = (cell.get("scores") or {}).get(name) or {}
            reason = words.why(cell, name)
            if measures.get("accuracy") is None:
                found.setdefault((words.rule(name), reason), []).append(arm(row, apart))
            line.append(
                {
                    "arm": arm(row, apart),
                    "text": words.decimals(measures.get("accuracy")),
                    "spread": _over_seeds(name, cells_of(row, cells)),
                    "all": [words.decimals(measures.get(field), digits) for field, digits in _MEASURES],
                    "why": reason,
                }
            )
        rules.append({"name": words.rule(name), "cells": line})
    reasons = [
        f"{name}{'' if len(arms) == len(pairs) else ', ' + words.listed(arms)}: {reason}"
        for (name, reason), arms in found.items()
    ]
    return {"rules": rules, "rule_reasons": reasons, "arms": [arm(row, apart) for row, _ in pairs]}


def _over_seeds(name: str, cells: Sequence[Row]) -> str:
    found = [((cell.get("scores") or {}).get(name) or {}).get("accuracy") for cell in cells]
    known = [value for value in found if value is not None]
    return words.interval(min(known), max(known)) if len(known) > 1 else ""


def _calibration(rows: Sequence[Row], best: Row | None, cells: Sequence[Row], apart: Apart, key: str) -> dict[str, Any]:
    """The best row's curve and those of the first rows beside it, in the order of the table."""
    chosen = [row for row in rows if row is not best][: _PANELS - 1]
    panels = []
    for number, row in enumerate(row for row in rows if row is best or any(row is other for other in chosen)):
        cell = shown_cell(row, cells)
        if cell is None or not cell.get("calibration"):
            continue
        name = arm(row, apart)
        said = "; ".join(
            f"confidence {words.decimals(b['confidence'], 2)}, accuracy {words.decimals(b['accuracy'], 2)}, {b['n']} queries"
            for b in cell["calibration"]
            if b["n"]
        )
        figure = svg(plots.reliability(cell), key=f"{key}rel{number}", title=f"Calibration, {name}", description=said)
        panels.append({"arm": name, "ece": words.decimals(cell["ece"]), "figure": figure})
    shown = shown_cell(best, cells)
    return {
        "reliability": panels,
        "calibration_reason": words.why(shown, "calibration") if shown else "nothing was scored",
    }


def _confusion(cell: Row | None, name: str, kind: str, key: str) -> dict[str, Any]:
    table = (cell or {}).get("confusion")
    empty: dict[str, Any] = {"confusion": None, "mistakes": [], "label_count": 0}
    if cell is None or not table:
        return {**empty, "confusion_reason": words.why(cell or {}, "confusion", kind)}
    labels, counts = table["labels"], table["counts"]
    mistakes = [(labels[i], labels[j], n) for i, row in enumerate(counts) for j, n in enumerate(row) if i != j and n]
    mistakes.sort(key=lambda item: -item[2])
    view = {**empty, "label_count": len(labels), "confusion_reason": "no mistake was made"}
    view["mistakes"] = [
        (gold, other, words.count(n)) for gold, other, n in mistakes[: 6 if len(labels) <= _CONFUSED else 12]
    ]
    if len(labels) > _CONFUSED:
        return view
    said = "Mistakes, the most frequent first: " + "; ".join(
        f"{gold} taken for {other} {n} times" for gold, other, n in mistakes[:10]
    )
    figure = svg(
        plots.confusion(cell), key=f"{key}conf", title=f"Gold against predicted labels, {name}", description=said
    )
    return {**view, "confusion": figure}


def _examples(samples: Sequence[Row], lang: str | None) -> dict[str, Any]:
    """The first predictions of a cell, wrong ones and right ones; unlabelled queries are neither."""
    wrong = [sample for sample in samples if sample["right"] is False]
    right = [sample for sample in samples if sample["right"] is True]
    return {
        "wrong": [_example(sample, lang) for sample in wrong[:_WRONG]],
        "right": [_example(sample, lang) for sample in right[:_RIGHT]],
    }


def _example(sample: Row, lang: str | None) -> dict[str, Any]:
    bids = sorted((sample.get("logprobs") or {}).items(), key=lambda bid: float("inf") if bid[1] is None else -bid[1])
    gold, greedy = str(sample["gold"]), sample.get("greedy")
    kept = bids[:_BIDS] + [bid for bid in bids[_BIDS:] if bid[0] == gold]
    text = str(sample.get("input") or "")
    return {
        "input": words.shorten(text, 500),
        "lang": words.language(text + gold) or lang,
        "gold": words.shorten(gold, 200),
        "pred": words.shorten(str(sample["pred"]), 200),
        "greedy": words.shorten(json.dumps(greedy, ensure_ascii=False), 120)
        if greedy not in (None, sample["pred"])
        else "",
        "bids": [
            {"label": words.shorten(name, 80), "text": words.decimals(value, 2), "gold": name == gold}
            for name, value in kept
        ],
        "more": len(bids) - len(kept),
    }


def _template(template: Row, number: int) -> list[tuple[str, str]]:
    """The parts of a template, quoted, so that spaces and line ends are seen; ``number`` stands before them unless 0."""
    head = f"template {number}, " if number else ""
    names = {
        "input": "input",
        "delimiter": "before the answer",
        "separator": "between demonstrations",
        "description": "instruction",
    }
    parts = [(head + name, json.dumps(template[k], ensure_ascii=False)) for k, name in names.items() if template.get(k)]
    chosen = [
        f"{label}: {json.dumps(word, ensure_ascii=False)}"
        for label, word in (template.get("words") or {}).items()
        if label != word
    ]
    return [*parts, (head + "label words", words.listed(chosen, 20))] if chosen else parts
