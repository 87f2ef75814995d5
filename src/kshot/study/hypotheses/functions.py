"""Is a function that is learned of label words learned of inputs too: accuracy over many functions g (Li et al. 2024)."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from kshot.optim.state import keep, kept
from kshot.seeds import digest, stream
from kshot.study.figures import figure
from kshot.study.hypotheses.asking import Answers, Asked, Row
from kshot.study.hypotheses.core import linear_map
from kshot.study.parts import Say
from kshot.transform.draw import draw
from kshot.transform.inputs import label_as_input
from kshot.transform.responses import response_altered

CORRELATED = "functions learned of label words are those learned of inputs"
CORRELATED_LINEAR = "functions learned of label words are those a linear map learns"
PAIRED, WITHOUT_NOISE = "functions paired at random", "noise of scores taken out"
_PERMUTATIONS, _BINS = 10_000, 10
_ROUNDING = 1e-12
# So many functions are asked side by side.
AT_ONCE = 10


@dataclass(frozen=True, slots=True, eq=False)
class Over:
    """Which answers were right, function by function: of inputs (tau_RA), of label words (tau_g), of those by a linear map."""

    altered: Float[np.ndarray, "g q"]
    memory: Float[np.ndarray, "g d"]
    linear: Float[np.ndarray, "g d"] | None


def over_functions(
    asked: Asked, functions: int, draws: int, say: Say, place: Path | None = None
) -> tuple[list[Row], dict[str, Any]]:
    """Rows of how they go together over functions, and the accuracies for a picture.

    The demonstrations are the same for all functions, shown with other answers; those of label words are drawn
    ``draws`` times, again the same for all, since there are only as many such queries as labels. What came of the
    functions so far is kept at ``place`` until all are asked: hundreds of them take hours.
    """
    found = _asked_all(asked, functions, draws, say, place)
    if place is not None:
        place.unlink(missing_ok=True)
    x, y = found.memory.mean(axis=1), found.altered.mean(axis=1)
    rows = [correlation_row(CORRELATED, x, y)]
    if rows[0]["value"] is not None:
        p = permutation_p(x, y, asked.seed)
        rows.append(figure("p_value", (CORRELATED, PAIRED), value=p, n=functions))
    reliable = {"memory-random": split_half(found.memory), "response-altered": split_half(found.altered)}
    for name, value in reliable.items():
        reason = "all functions do alike in one half of the answers" if value is None else None
        rows.append(figure("reliability", (name,), value=value, n=functions, reason=reason))
    whole = disattenuated(rows[0]["value"], *reliable.values())
    reason = "a score that has no reliability has noise alone" if whole is None else None
    rows.append(figure("correlation", (CORRELATED, WITHOUT_NOISE), value=whole, n=functions, reason=reason))
    if found.linear is not None:
        rows.append(correlation_row(CORRELATED_LINEAR, x, found.linear.mean(axis=1)))
    return rows, {"functions": {"memory": x.tolist(), "altered": y.tolist(), "binned": binned(x, y)}}


def _asked_all(asked: Asked, functions: int, draws: int, say: Say, place: Path | None) -> Over:
    fixed = draw(asked.written, asked.shots, asked.seed, "fixed")
    gold = asked.written.gold
    first = [int(np.flatnonzero(gold == label)[0]) for label in np.unique(gold)]
    words = replace(asked.written, queries=tuple(asked.written.queries[i] for i in first))
    rows = [draw(words, asked.shots, digest(asked.seed, "draw", d), "fixed") for d in range(draws)]
    # What stands in the place of inputs does not depend on the function.
    asked_words = label_as_input()(words, asked.seed)
    found = _so_far(place, draws)
    for begin in range(len(found["altered"]), functions, AT_ONCE):
        say(f"function {begin + 1} of {functions}")
        seeds = [digest(asked.seed, "function", i) for i in range(begin, min(begin + AT_ONCE, functions))]
        own = [response_altered()(asked.written, seed) for seed in seeds]
        of_words = [response_altered()(asked_words, seed) for seed in seeds]
        tables = asked.tables([(one, fixed) for one in own] + [(one, row) for one in of_words for row in rows])
        found["altered"] += [(table.argmax(axis=1) == gold).astype(np.float64) for table in tables[: len(own)]]
        for i, one in enumerate(of_words):
            mine = tables[len(own) + i * draws :][:draws]
            answers = [Answers(table, one.gold, row) for table, row in zip(mine, rows, strict=True)]
            found["memory"].append(np.concatenate([answer.right for answer in answers]))
            if asked.embedded is not None:
                found["linear"].append(np.concatenate([linear_map(asked, one, a, asked.layers).right for a in answers]))
        if place is not None:
            arrays = {name: torch.from_numpy(np.array(values)) for name, values in found.items()}
            keep(place, arrays, {}, {"draws": draws})
    right = {name: np.array(values) for name, values in found.items()}
    return Over(right["altered"], right["memory"], right["linear"] if len(right["linear"]) else None)


def _so_far(place: Path | None, draws: int) -> dict[str, list[np.ndarray]]:
    """What was kept of functions with as many draws, function by function; nothing where nothing was."""
    before = kept(place) if place is not None else None
    arrays = before[0] if before is not None and before[2] == {"draws": draws} else {}
    return {name: list(arrays[name].numpy()) if name in arrays else [] for name in ("altered", "memory", "linear")}


def correlation_row(name: str, x: Float[np.ndarray, "g"], y: Float[np.ndarray, "g"]) -> Row:
    """Pearson's r with its interval over functions (Fisher's z)."""
    if _alike(x) or _alike(y):
        reason = "all functions are learned alike: there is nothing that could go together"
        return figure("correlation", (name,), value=None, null=0.0, n=len(x), reason=reason)
    r = float(np.corrcoef(x, y)[0, 1])
    reach = 1.959963984540054 / np.sqrt(max(1, len(x) - 3))
    z = np.arctanh(np.clip(r, -1 + 1e-12, 1 - 1e-12))
    return figure(
        "correlation",
        (name,),
        value=r,
        low=float(np.tanh(z - reach)),
        high=float(np.tanh(z + reach)),
        null=0.0,
        n=len(x),
    )


def _alike(values: Float[np.ndarray, "g"]) -> bool:
    """Whether values differ by rounding alone, of which a standard deviation of equal values need not be 0."""
    return float(np.ptp(values)) <= _ROUNDING


def permutation_p(x: Float[np.ndarray, "g"], y: Float[np.ndarray, "g"], seed: int) -> float:
    """How often a random pairing of functions correlates at least as much, the one that was seen among them."""
    rng = stream(seed, "functions-permuted", len(x))
    centred, other = x - x.mean(), y - y.mean()
    seen = float(centred @ other)
    found = np.array([centred @ rng.permutation(other) for _ in range(_PERMUTATIONS)])
    return float((1 + (found >= seen - 1e-12).sum()) / (1 + _PERMUTATIONS))


def split_half(right: Float[np.ndarray, "g n"]) -> float | None:
    """The reliability of each function's accuracy: r of its two halves, stepped up to the whole (Spearman-Brown).

    Answers are dealt to the halves at random, to the same ones for all functions; None where all functions do alike in
    one. Less than 0 is 0.
    """
    order = stream(0, "halves", right.shape[1]).permutation(right.shape[1])
    half = len(order) // 2
    one, other = right[:, order[:half]].mean(axis=1), right[:, order[half:]].mean(axis=1)
    if _alike(one) or _alike(other):
        return None
    r = float(np.corrcoef(one, other)[0, 1])
    return max(0.0, 2 * r / (1 + r)) if r > -1 else 0.0


def disattenuated(r: float | None, x: float | None, y: float | None) -> float | None:
    """What r would be without the noise of either score (Spearman 1904), at most 1; None where that cannot be told."""
    if r is None or not x or not y:
        return None
    return float(np.clip(r / np.sqrt(x * y), -1.0, 1.0))


def binned(x: Float[np.ndarray, "g"], y: Float[np.ndarray, "g"]) -> list[dict[str, float]]:
    """Mean accuracies of functions of about the same accuracy on label words, in at most ten bins of as many."""
    order = np.argsort(x, kind="stable")
    parts = [part for part in np.array_split(order, min(_BINS, len(order))) if len(part)]
    return [
        {"memory": float(x[part].mean()), "altered": float(y[part].mean()), "n": float(len(part))} for part in parts
    ]
