"""``kshot synth``: parts of experiments become records, and the records claims that hold or do not."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from kshot.devices import device_of, keep_buffers
from kshot.errors import MethodError, NumericError, UnknownName
from kshot.study.experiment import ENGINE
from kshot.study.inquiry import About, Inquiry, drawn_pictures, on_record, plain_record
from kshot.study.over_seeds import over_seeds
from kshot.study.parts import Cell, Line, Say, digest_of
from kshot.study.place import STATE, Finished, OnProgress, silent
from kshot.study.synth.catalogue import EXPERIMENTS
from kshot.study.synth.experiment import UNMEASURED, Given, Size, judged
from kshot.study.synth.growing import settled, spent
from kshot.study.synth_settings import SynthSettings

NETWORKS = "networks"
"""The folder in a run's own where networks stay that were grown: weights, losses, and what was seen along training."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grown:
    """Experiments of one size with their seeds; ``parts`` leaves out others, ``place`` is where training stands."""

    names: tuple[str, ...]
    size: Size
    seeds: tuple[int, ...]
    parts: tuple[str, ...] = ()
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    place: Path | None = None

    @property
    def identity(self) -> str:
        """The SHA-256 of all that the figures depend on, in hexadecimal."""
        return digest_of([cell.id for cell in self.cells()])

    def cells(self) -> tuple[Cell, ...]:
        """Every part of every experiment with every seed."""
        return tuple(
            Cell(
                task=name,
                seed=seed,
                part=part,
                asks=own.asks,
                id=digest_of([ENGINE, name, self.size, EXPERIMENTS[name].much.get(self.size), seed, part])[:12],
            )
            for name in self.names
            for seed in self.seeds
            for part, own in EXPERIMENTS[name].parts.items()
            if not self.parts or part in self.parts
        )


def synthesize(asked: SynthSettings, *, beneath: Path | None = None, on_progress: OnProgress | None = None) -> Finished:
    """Experiments with models that are trained here, or what is still missing of them, on record.

    The records go to ``asked.output_path``, else to a folder of their own ``beneath`` the one given, else nowhere.
    Raises KshotError before anything is written; parts that were finished are kept whatever happens, and training goes
    on from its last state.
    """
    known = [part for name in asked.tasks for part in EXPERIMENTS[name].parts]
    for part in asked.parts:
        if part not in known:
            raise UnknownName("part", part, known)
    keep_buffers()
    study = Grown(
        names=asked.tasks, size=asked.size, seeds=asked.seed, parts=asked.parts, device=device_of(asked.device)
    )
    done = on_record(_INQUIRY, asked, study, [], typed=asked, beneath=beneath, say=on_progress or silent)
    if done.directory is not None:
        settled(done.directory / STATE, done.directory / NETWORKS)
    return done


def _line(study: Grown, cell: Cell, before: Mapping[str, Line], say: Say) -> Line:
    place = study.place / cell.task / cell.part if study.place is not None else None
    before_us, began = spent(place, cell.seed), time.perf_counter()
    found: Line = {}
    failed = None
    try:
        given = Given(size=study.size, seed=cell.seed, say=say, device=study.device, place=place, question=cell.id)
        found = EXPERIMENTS[cell.task].parts[cell.part].answer(given)
    except (MethodError, NumericError) as error:
        failed = str(error)
    rows = [{"task": cell.task, "model": "", "seed": cell.seed, **row} for row in found.pop("rows", [])]
    line = {"id": cell.id, "task": cell.task, "seed": cell.seed, "part": cell.part, "rows": rows, "notes": [], **found}
    return {**line, "seconds": before_us + time.perf_counter() - began, "failed": failed}


def _results(run: Mapping[str, Any], study: Grown, lines: Sequence[Line]) -> dict[str, Any]:
    own = [row for line in lines for row in line["rows"]]
    measures = [*over_seeds(own), *own]
    known = {name: {"about": EXPERIMENTS[name].about, "source": EXPERIMENTS[name].source} for name in study.names}
    return plain_record(
        run,
        lines,
        results={name: {"alias": name} for name in study.names},
        experiments=known,
        measures=measures,
        verdicts=[row for name in study.names for row in _judged(study, name, lines, measures)],
        pictures=drawn_pictures(lines),
    )


def _judged(study: Grown, name: str, lines: Sequence[Line], measures: Sequence[Line]) -> list[Line]:
    """The claims of an experiment; once all parts that were asked are answered, those of other parts are left out."""
    found = judged(name, EXPERIMENTS[name], measures, study.size)
    answered = {line["id"] for line in lines if not line["failed"]}
    if study.parts and all(cell.id in answered for cell in study.cells() if cell.task == name):
        return [row for row in found if row["reason"] != UNMEASURED]
    return found


def _about(study: Grown) -> About:
    facts = {
        "engine": ENGINE,
        "size": study.size,
        "torch": torch.__version__,
        # Sums are split among threads and vector units: another number of either rounds otherwise.
        "threads": torch.get_num_threads(),
        "device": study.device.type,
        "processor": torch.backends.cpu.get_cpu_capability(),
    }
    return About(facts=facts, more={}, names=study.names, of=study.size, weights=0, device=study.device.type)


def _ready(study: Grown, run: Mapping[str, Any], directory: Path | None, missing: bool) -> Grown:
    """With its states of training in the folder of the run."""
    return study if directory is None else replace(study, place=directory / STATE)


def _forecast(study: Grown, missing: Sequence[Cell]) -> list[float] | None:
    """Seconds of each cell with this machine's cores; None where one has no figure for this size."""
    minutes = [EXPERIMENTS[cell.task].parts[cell.part].minutes.get(study.size) for cell in missing]
    cores = torch.get_num_threads()
    known = [60 * one / cores for one in minutes if one is not None]
    return known if len(known) == len(minutes) else None


_INQUIRY = Inquiry(word="synth", line=_line, results=_results, forecast=_forecast, about=_about, ready=_ready)
