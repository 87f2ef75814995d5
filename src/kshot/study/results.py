"""results.json: lm-eval's names on top, everything of ours under one more key, built from records alone."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from kshot.data import task_hash
from kshot.data.task import Example, Task
from kshot.model.adapted import shown_texts
from kshot.model.lm import LM
from kshot.study.answer import answer
from kshot.study.environment import environment
from kshot.study.experiment import layout_facts
from kshot.study.summary import arm, comparisons, differing, noisy, summary
from kshot.study.verdict import paired, recommend

Line = Mapping[str, Any]

# What a run says of time, memory and place: the only values that a second run, or one that was killed, may have otherwise.
VOLATILE = (
    "date",
    "total_evaluation_time_seconds",
    "seconds",
    "fit_seconds",
    "query_ms",
    "queries_per_second",
    "peak_rss_bytes",
    "directory",
)

# How the marginal answer is guessed makes sense for labels, not for hundreds of answers.
_MOST_LABELS = 50

# More notes of single fits than these are left to the cells.
_MOST_NOTES = 8


def results(
    run: Mapping[str, Any],
    lm: LM,
    tasks: Sequence[Task],
    asked: Mapping[str, Sequence[Example]],
    lines: Sequence[Line],
    *,
    saved: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The record of a run: ``run`` as in run.json, the test examples of each task, the lines of records.jsonl in order.

    ``saved`` names the folder in which the recommended artefact of a task lies, where somebody has saved it.
    """
    rows, against, pairs, machine = summary(lines), comparisons(lines), paired(lines), environment()
    hashes = {task.name: task_hash(task) for task in tasks}
    return {
        "results": {task.name: _lm_eval_row(task.name, rows) for task in tasks},
        "configs": {task.name: _lm_eval_config(task, run["settings"]) for task in tasks},
        "versions": {task.name: task.version for task in tasks},
        "n-shot": {task.name: max(row["shots"] for row in rows if row["task"] == task.name) for task in tasks},
        "n-samples": {t.name: {"original": len(t.test), "effective": len(asked[t.name])} for t in tasks},
        "higher_is_better": {task.name: {"acc": True} for task in tasks},
        "config": {
            "model": lm.name,
            "model_num_parameters": lm.parameters,
            "model_dtype": str(lm.dtype),
            "device": str(lm.device),
            "limit": run["settings"]["limit"],
            "random_seed": run["settings"]["seed"][0],
        },
        "date": run["date"],
        "transformers_version": machine["transformers"],
        "task_hashes": hashes,
        "total_evaluation_time_seconds": str(sum(line["seconds"] or 0 for line in lines)),
        "kshot": {
            "version": run["version"],
            "argv": run["argv"],
            "settings": run["settings"],
            "identity": run["identity"],
            "model": model_facts(lm),
            "environment": machine,
            "tasks": {task.name: _task_facts(task, hashes[task.name], asked[task.name], lines) for task in tasks},
            "answer": {task.name: _answer(task, asked[task.name], rows, against, pairs) for task in tasks},
            "cells": [{name: value for name, value in line.items() if name != "right"} for line in lines],
            "summary": rows,
            "comparisons": against,
            "paired": pairs,
            "recommended": _recommended(recommend(rows, pairs), saved or {}),
            "notes": [*run["notes"], *_cell_notes(lines)],
        },
    }


def _answer(
    task: Task, examples: Sequence[Example], rows: Sequence[Line], against: Sequence[Line], pairs: Sequence[Line]
) -> str:
    own = [[row for row in some if row["task"] == task.name] for some in (rows, against, pairs)]
    return answer(own[0], own[1], commonest(task, examples), own[2])


def _recommended(found: Mapping[str, Mapping[str, Any]], saved: Mapping[str, str]) -> dict[str, Any]:
    return {task: {**taken, "directory": saved.get(task)} for task, taken in found.items()}


def model_facts(lm: LM) -> dict[str, Any]:
    """What kind of model answered, as plain values."""
    return {
        "name": lm.name,
        "caption": lm.caption,
        "source": lm.source,
        "hash": lm.hash,
        "route": lm.route.kind,
        "route_reason": lm.route.reason,
        "parameters": lm.parameters,
        "context": lm.context,
        "dtype": str(lm.dtype).removeprefix("torch."),
        "device": str(lm.device),
    }


def commonest(task: Task, examples: Sequence[Example]) -> tuple[str, float] | None:
    """The most frequent label of a classification task's queries and its share; None where there is none to guess."""
    gold = [example.label for example in examples if example.label is not None]
    if task.kind != "classification" or not gold or len(task.labels) > _MOST_LABELS:
        return None
    label, number = Counter(gold).most_common(1)[0]
    return label, number / len(gold)


def _lm_eval_row(task: str, rows: Sequence[Line]) -> dict[str, Any]:
    found: dict[str, Any] = {"alias": task}
    apart = differing(rows)
    for row in rows:
        if row["task"] == task:
            p, n, name = row["accuracy"], row["n"], arm(row, apart)
            found[f"acc,{name}"] = p
            found[f"acc_stderr,{name}"] = math.sqrt(p * (1 - p) / (n - 1)) if p is not None and n > 1 else None
    return found


def _lm_eval_config(task: Task, settings: Mapping[str, Any]) -> dict[str, Any]:
    template = task.template
    return {
        "task": task.name,
        "output_type": "generate_until" if task.kind == "open" else "multiple_choice",
        "description": template.description,
        "doc_to_text": template.input,
        "target_delimiter": template.delimiter,
        "fewshot_delimiter": template.separator,
        "num_fewshot": settings["num_fewshot"],
        "metadata": {"version": task.version},
    }


def _task_facts(task: Task, hashed: str, examples: Sequence[Example], lines: Sequence[Line]) -> dict[str, Any]:
    return {
        "kind": task.kind,
        "labels": list(task.labels),
        "train": len(task.train),
        "test": len(task.test),
        "source": task.source,
        "notes": list(task.notes),
        **layout_facts(task),
        "hash": hashed,
        "prompt": _prompt(task, examples, [line for line in lines if line["task"] == task.name]),
    }


def _prompt(task: Task, examples: Sequence[Example], lines: Sequence[Line]) -> str | None:
    """One prompt as the model read it: the first query after the fewest demonstrations; None for channel scoring."""
    # What was trained has examples, too, and none of them stands in the prompt.
    prompted = [line for line in lines if not line.get("failed") and not line.get("training") and not noisy(line)]
    shown = [line for line in prompted if line["demonstrations"] and not line["dropped_demonstrations"]]
    first = min(shown or prompted, key=lambda line: line["shots"], default=None)
    if first is None or first["params"].get("scoring") == "channel":
        return None
    by_id = {example.id: example for example in task.train}
    demonstrations = tuple(by_id[name] for name in first["demonstrations"])
    template = task.template
    return template.preamble(shown_texts(template, demonstrations)) + template.render(examples[0].fields)


def _cell_notes(lines: Sequence[Line]) -> list[str]:
    """What had to be done to prompts, one note per task and kind."""
    notes = []
    for task in dict.fromkeys(line["task"] for line in lines):
        own = [line for line in lines if line["task"] == task]
        for key, said in (
            ("dropped_demonstrations", "demonstrations dropped, because prompts did not fit the context"),
            ("skipped", "queries left out, because their prompts did not fit the context"),
            ("repaired_seams", "prompts whose last tokens change when an answer follows: scored from what they share"),
        ):
            hit = [line[key] for line in own if line.get(key)]
            if hit:
                notes.append(f"{task}: up to {max(hit)} {said} (in {len(hit)} of {len(own)} cells)")
        notes += [*_failures(task, own), *_method_notes(task, own)]
    return notes


def _failures(task: str, lines: Sequence[Line]) -> list[str]:
    """How many cells came to no result, and every reason once, with the rows that it stopped."""
    apart, reasons = differing(lines), dict[str, dict[str, None]]()
    failed = [line for line in lines if line.get("failed")]
    for line in failed:
        reasons.setdefault(line["failed"], {})[arm(line, apart)] = None
    if not failed:
        return []
    means = "" if len(failed) == len(lines) else "; the means are over the others"
    shown = [f"{task}, {', '.join(arms)}: {reason}" for reason, arms in list(reasons.items())[:_MOST_NOTES]]
    more = len(reasons) - len(shown)
    return [
        f"{task}: {len(failed)} of {len(lines)} cells came to no result{means}",
        *shown,
        *([f"{task}: {more} more reasons stand with the cells"] if more else []),
    ]


def _method_notes(task: str, lines: Sequence[Line]) -> list[str]:
    """What methods had to say of their fits, the same words of several cells together; the most frequent ones."""
    said = Counter((line["method"], note) for line in lines for note in line.get("notes") or ())
    shown = [
        f"{task}, {method}: {note}{f' (in {times} cells)' if times > 1 else ''}"
        for (method, note), times in said.most_common(_MOST_NOTES)
    ]
    return shown + (
        [f"{task}: {len(said) - len(shown)} more notes stand with the cells"] if len(said) > len(shown) else []
    )
