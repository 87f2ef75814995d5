"""What a comparison gives back in Python: its records, and ways to look at them."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from kshot.errors import OutputError, UnknownName
from kshot.show import explain, hypotheses, learning, plots, report, terminal
from kshot.show.plain import console
from kshot.study.summary import differing
from kshot.study.verdict import learned


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The records of a run: ``results`` is what results.json holds.

    The samples are read from ``directory`` where the run kept its records there, else they are ``samples``, the lines
    of samples.jsonl as dicts.
    """

    results: dict[str, Any] = field(repr=False)
    directory: Path | None = None
    samples: Sequence[Mapping[str, Any]] = field(default=(), repr=False)

    def table(self) -> pd.DataFrame:
        """One row per task, method and number of shots: the summary rows; undefined is missing."""
        return pd.DataFrame(self.results["kshot"]["summary"])

    def cells(self) -> pd.DataFrame:
        """One row per cell, that is per seed and order as well."""
        return pd.DataFrame(self.results["kshot"]["cells"])

    def plot(self, task: str | None = None) -> Figure:
        """Accuracy against shots with both intervals, of one task or of all; UnknownName where the run had no such task.

        One task that was learned in many ways has a panel in which every line is named and the best stands out.
        """
        rows = self.results["kshot"]["summary"]
        if task is None:
            return plots.accuracy_against_shots(rows)
        known = dict.fromkeys(row["task"] for row in rows)
        if task not in known:
            raise UnknownName("task of this result", task, known)
        own = [row for row in rows if row["task"] == task]
        if learned(own):
            taken = (self.results["kshot"].get("recommended") or {}).get(task)
            return learning.overview(own, taken, differing(own))
        return plots.accuracy_against_shots(own)

    def report(self, path: str | Path) -> Path:
        """Write the page to ``path`` (in a folder: as its report.html) and return where it is; OutputError where that fails."""
        return _written(path, report.page(self.results, self._samples_of))

    def _samples_of(self, cell: Mapping[str, Any]) -> list[dict[str, Any]]:
        if self.samples or self.directory is None:
            return [dict(sample) for sample in self.samples if sample["cell"] == cell["id"]]
        return report.read_samples(self.directory, cell)

    def _repr_html_(self) -> str:
        """Answers, figures and tables for a notebook, in its own colours."""
        return report.snippet(self.results)

    def __str__(self) -> str:
        text = io.StringIO()
        terminal.print_summary(self.results, console(file=text, width=100, color_system=None))
        return text.getvalue()


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """The records of ``kshot explain`` or ``kshot hypotheses``: ``results`` is what results.json holds, ``directory`` where
    it lies."""

    results: dict[str, Any] = field(repr=False)
    directory: Path | None = None

    def measures(self) -> pd.DataFrame:
        """One row per task, measure, variant, layer and seed (missing: over seeds), with interval and null."""
        return pd.DataFrame(self.results["kshot"]["measures"])

    def verdicts(self) -> pd.DataFrame:
        """One row per claim: what was predicted, what was observed, what that says of it."""
        return pd.DataFrame(self.results["kshot"]["verdicts"])

    def report(self, path: str | Path) -> Path:
        """Write the page to ``path`` (in a folder: as its report.html) and return where it is; OutputError where that fails."""
        return _written(path, self._shown.page(self.results["kshot"]))

    @property
    def _shown(self) -> Any:
        return hypotheses if "hypotheses" in self.results["kshot"] else explain

    def __str__(self) -> str:
        return str(self._shown.text(self.results["kshot"]))


def _written(path: str | Path, html: str) -> Path:
    path = Path(path)
    path = path / "report.html" if path.is_dir() else path
    if not path.parent.is_dir():
        raise OutputError(f"cannot write {str(path)!r}: there is no folder {str(path.parent)!r}; make it first")
    report.write_page(path, html)
    return path
