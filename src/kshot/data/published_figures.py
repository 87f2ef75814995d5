"""Figures as published, task by task, so that those of a run can stand beside them.

Of Dai et al. 2023 and of its critique (Deutch et al. 2024). Both recorded attention at the first candidate label,
appended to the prompt, and fine-tuned with the learning rate that was best on the scored split.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Row = dict[str, Any]

TASKS = ("sst2", "sst5", "mr", "subj", "agnews", "cb")
_SMALL, _LARGE, _AGAIN = "1.3B", "2.7B", "1.3B, Deutch 2024"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """One line of a published table: what was measured, of which model, where it stands, a figure for each of TASKS.

    ``words`` are those that the variant of our row has, beside the rate and the name of a null. ``at_rate``: it belongs
    to the published learning rate; otherwise the paper searched no rate for it, and ours may be any. Figures ``in_percent``
    are shares here.
    """

    source: str
    model: str
    measure: str
    words: tuple[str, ...]
    figures: tuple[float | None, ...]
    at_rate: bool = True
    in_percent: bool = False

    def of(self, task: str) -> float | None:
        """The figure of a task in the unit of our rows; None where the task or its figure is not in the table."""
        found = dict(zip(TASKS, self.figures, strict=True)).get(task)
        return round(found / 100, 6) if found is not None and self.in_percent else found


def _dai(
    measure: str, words: tuple[str, ...], small: Sequence[float], large: Sequence[float], **more: Any
) -> tuple[Figures, ...]:
    source = "Dai et al. 2023, " + ("Table 7" if measure == "learning_rate" else "Tables 1 to 5")
    return tuple(
        Figures(source=source, model=model, measure=measure, words=words, figures=tuple(figures), **more)
        for model, figures in ((_SMALL, small), (_LARGE, large))
    )


def _deutch(table: int, measure: str, words: tuple[str, ...], *figures: float | None, at_rate: bool = False) -> Figures:
    source = f"Deutch et al. 2024, Table {table}"
    return Figures(source=source, model=_AGAIN, measure=measure, words=words, figures=figures, at_rate=at_rate)


_AT = "appended label"
_BEFORE, _AFTER, _RANKS = "before fine-tuning", "after fine-tuning", "softmax in float32 as published"

DAI_2023_FIGURES: tuple[Figures, ...] = (
    *_dai("accuracy", ("zero-shot",),
          (70.5, 39.3, 65.9, 72.6, 46.3, 37.5), (71.4, 35.9, 60.9, 75.2, 39.8, 42.9), in_percent=True),
    *_dai("accuracy", ("fine-tuned",),
          (73.9, 39.5, 73.0, 77.8, 65.3, 55.4), (76.9, 39.1, 80.0, 86.1, 65.7, 57.1), in_percent=True),
    *_dai("accuracy", ("in-context",),
          (92.7, 45.0, 89.0, 90.0, 79.2, 57.1), (95.0, 46.5, 91.3, 90.3, 80.3, 55.4), in_percent=True),
    *_dai("rec2ftp", (),
          (91.84, 66.67, 97.08, 87.17, 83.08, 87.50), (96.83, 71.60, 95.83, 87.63, 84.44, 100.00), in_percent=True),
    *_dai("sim_aou", (_AT, "normalised"),
          (0.110, 0.080, 0.222, 0.191, 0.281, 0.234), (0.195, 0.323, 0.157, 0.212, 0.333, 0.130)),
    *_dai("sim_am", (_AT, _BEFORE),
          (0.555, 0.391, 0.398, 0.378, 0.152, 0.152), (0.687, 0.380, 0.314, 0.346, 0.172, 0.228)),
    *_dai("sim_am", (_AT, _AFTER),
          (0.585, 0.404, 0.498, 0.490, 0.496, 0.177), (0.687, 0.492, 0.347, 0.374, 0.485, 0.217)),
    *_dai("kendall", (_AT, _RANKS),
          (0.192, 0.151, 0.173, 0.181, 0.190, 0.274), (0.213, 0.177, 0.264, 0.203, 0.201, 0.225)),
    *_dai("learning_rate", (),
          (0.0005, 0.00016, 0.003, 0.003, 0.2, 0.08), (0.007, 0.04, 0.001, 0.002, 0.2, 0.01)),
)  # fmt: skip
"""Dai et al. 2023, Tables 1 to 5 and the learning rates of Table 7; the random baselines, none above 0.003, are not here."""

# The column of CB is set one cell aside in Table 1; it is read so that the trained model agrees with Table 2.
DEUTCH_2024_FIGURES: tuple[Figures, ...] = (
    _deutch(1, "sim_aou", ("trained embeddings", _AT, "raw"), 0.11, 0.06, 0.24, 0.20, None, 0.01),
    _deutch(1, "sim_aou", ("untrained", _AT, "raw"), 0.09, 0.07, 0.18, 0.06, None, 0.04),
    _deutch(1, "sim_am_delta", ("trained embeddings", _AT), 0.09, 0.03, 0.18, 0.16, None, 0.05),
    _deutch(1, "sim_am_delta", ("untrained", _AT), 0.11, 0.05, 0.16, 0.17, None, 0.26),
    _deutch(2, "sim_aou", (_AT, "normalised"), 0.11, 0.09, 0.22, 0.18, 0.31, 0.21, at_rate=True),
    _deutch(2, "sim_aou", ("layer-causal", _AT, "normalised"), 0.22, 0.11, 0.33, 0.35, 0.33, 0.34),
    _deutch(2, "sim_aou", (_AT, "raw"), 0.05, 0.04, 0.17, 0.06, 0.18, 0.11, at_rate=True),
    _deutch(2, "sim_aou", ("layer-causal", _AT, "raw"), 0.13, 0.11, 0.21, 0.18, 0.13, 0.24),
    _deutch(2, "sim_am", (_AT, _AFTER), 0.59, 0.40, 0.49, 0.45, 0.48, 0.20, at_rate=True),
    _deutch(2, "sim_am", ("layer-causal", _AT, _AFTER), 0.58, 0.39, 0.30, 0.27, 0.12, 0.04),
    _deutch(2, "sim_am_delta", (_AT,), 0.15, 0.31, 0.14, 0.25, 0.50, 0.25, at_rate=True),
    _deutch(2, "sim_am_delta", ("layer-causal", _AT), 0.30, 0.33, 0.26, 0.32, 0.43, 0.38),
)
"""Deutch et al. 2024, Table 2, and of Table 1 the models without training (its trained model is that of Table 2)."""

# What a variant may leave unsaid, and the words for the rate that fine-tuning had.
_UNSAID = ("", "trained", "own", "gradient descent")
RATES = ("published", "corrected")
_COUNTED = re.compile(r"\d.* demonstrations?$")


def beside(measures: Sequence[Row]) -> list[Row]:
    """The same rows, each over all layers of a task in TASKS with the figures that were ``published`` of that very thing.

    ``published`` is {model: figure}, in the unit of the row. A row measured in another way (another position, another
    form, the corrected rate) has none, nor has one of a control that was not published. The null beside a value makes
    no difference: it is none of the value. The critique states no rate for its controls and searched none for
    layer-causal gradient descent, so theirs may have been any. Rows are copied; the rest of them is as it was.
    """
    found = []
    for row in measures:
        figures = _published(row) if row.get("layer") is None else {}
        found.append({**row, "published": figures} if figures else dict(row))
    return found


def said(row: Mapping[str, Any]) -> set[str]:
    """The words of a row's variant, without those that go without saying."""
    return {word.strip() for word in (row.get("variant") or "").split(",")} - set(_UNSAID)


def counted(word: str) -> bool:
    """Whether a word of a variant says how many demonstrations there were.

    >>> counted("8 demonstrations"), counted("the same 8 demonstrations"), counted("raw")
    (True, True, False)
    """
    return _COUNTED.search(word) is not None


def _published(row: Mapping[str, Any]) -> dict[str, float]:
    words = {word for word in said(row) if not word.startswith("null: ")}
    if "layer-causal" in words:
        # Many are too slow for it: fewer than were published are its nearest repetition.
        words = {word for word in words if not counted(word)}
    found = {}
    for line in (*DAI_2023_FIGURES, *DEUTCH_2024_FIGURES):
        other = words - ({"published", "best seed"} if line.at_rate else set(RATES))
        figure = line.of(str(row.get("task")))
        if line.measure == row.get("measure") and set(line.words) == other and figure is not None:
            found[line.model] = figure
    return found
