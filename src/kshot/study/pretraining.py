"""``kshot pretrain``: texts become language models, and these figures beside one another on record."""

import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer

from kshot.devices import device_of, gathered, keep_buffers, together, told
from kshot.errors import DataError, NumericError
from kshot.measure.intervals import bootstrap_mean
from kshot.measure.perplexity import Reading, Surprise, reading
from kshot.model.grown import as_codec, kept_tokenizer, save_grown, saves
from kshot.pretrain.ngram import ngram
from kshot.study.environment import environment
from kshot.study.experiment import ENGINE
from kshot.study.figures import figure
from kshot.study.inquiry import About, Inquiry, on_record
from kshot.study.over_seeds import over_seeds
from kshot.study.parts import Cell, Line, Say, digest_of, notes_of
from kshot.study.place import STATE, Finished, OnProgress, folder, safe_name, silent
from kshot.study.pretrain.corpus import Tokens, corpus_of, in_tokens
from kshot.study.pretrain.going_on import going_on
from kshot.study.pretrain.growing import Grown, figures, grow, judged
from kshot.study.pretrain.in_context import in_context
from kshot.study.pretrain.plan import Arm, Plan, arms, planned
from kshot.study.pretrain_settings import PretrainSettings
from kshot.study.synth.experiment import Given, Size

MODELS = "models"
"""The folder in a run's own where models are saved."""

_FLOOR = "n-gram"
# What the first of several processes tells when there is nothing left to grow.
_DONE = -1
# Contexts of up to four tokens: more of them are seldom seen twice in texts of this size.
_ORDER = 5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pretraining:
    """Networks to be grown on a text; ``directory`` is the folder of the run, where it has one."""

    tokens: Tokens
    plan: Plan
    arms: tuple[Arm, ...]
    objective: str
    size: Size
    seeds: tuple[int, ...]
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    directory: Path | None = None

    @property
    def identity(self) -> str:
        """The SHA-256 of all that the figures depend on, in hexadecimal."""
        return digest_of([cell.id for cell in self.cells()])

    def cells(self) -> tuple[Cell, ...]:
        """The floor, and every network with every seed."""
        name, facts = self.tokens.corpus.name, [ENGINE, self.tokens.hash, self.plan, self.objective]
        grown = [(seed, arm.name, arm) for seed in self.seeds for arm in self.arms]
        asked = [(self.seeds[0], _FLOOR, None), *grown] if self.objective == "causal" else grown
        return tuple(
            Cell(task=name, seed=seed, part=part, asks=part, id=digest_of([facts, part, arm, seed])[:12])
            for seed, part, arm in asked
        )

    def readings(self) -> tuple[Reading, ...]:
        """How held-out text is read at the end, at each length of context."""
        codec = as_codec(self.tokens.tokenizer, self.tokens.end)
        texts = self.tokens.corpus.valid
        return tuple(reading(codec, texts, context, limit=self.plan.judged) for context in self.plan.contexts)


def pretrain(
    asked: PretrainSettings, *, beneath: Path | None = None, on_progress: OnProgress | None = None
) -> Finished:
    """Language models grown on texts, or what is still missing of them, on record, each saved in a folder of its own.

    The records and models go to ``asked.output_path``, else to a folder of their own ``beneath`` the one given, else
    nowhere. Raises KshotError before anything is written where a text cannot be read or is too short; training that was
    stopped goes on from its last state.
    """
    say = on_progress or silent
    keep_buffers()
    plan = planned(asked)
    say(0, None, "reading the texts")
    corpus = corpus_of(asked.tasks)
    taken: tuple[Tokenizer, str] | None = None
    if asked.tokenizer is not None:
        taken = kept_tokenizer(asked.tokenizer)
    say(0, None, "learning a vocabulary" if taken is None else "reading the texts in tokens")
    hides, at_most = asked.objective != "causal", asked.vocabulary is None
    tokens = in_tokens(corpus, plan.vocabulary, taken, hides=hides, at_most=at_most)
    for name, packed in (("", tokens.train), (" held-out", tokens.valid)):
        if not packed.rows(plan.context):
            raise DataError(
                f"a context of {plan.context} tokens, and{name} text of {len(packed.tokens)}: what works is --context "
                f"{max(1, len(packed.tokens) // 2)} or less, or more text"
            )
    for arm in arms(asked):
        arm.language(tokens.marks.vocabulary, plan.context, plan.shape)
    study = Pretraining(
        tokens=tokens,
        plan=plan,
        arms=arms(asked),
        objective=asked.objective,
        size=asked.size,
        seeds=asked.seed,
        device=device_of(asked.device),
    )
    with gathered(study.device):
        # Wrong numbers of parts are said before anything is read.
        _ = plan.training
        if together()[0]:
            return _followed(study, asked, beneath)
        done = on_record(_INQUIRY, asked, study, [], repeatable=True, beneath=beneath, say=say)
        told(_DONE, study.device)
    if done.directory is not None:
        # Every model is saved: what training left to go on from has served.
        shutil.rmtree(done.directory / STATE, ignore_errors=True)
    return done


def _followed(study: Pretraining, asked: PretrainSettings, beneath: Path | None) -> Finished:
    """What a process does that torchrun started beside the first: it reads its part of every step, and keeps nothing."""
    about = _about(study)
    directory = folder(asked.output_path, beneath, ["pretrain", *about.names], about.of, study.identity)
    study, cells = replace(study, directory=directory), study.cells()
    while (number := told(0, study.device)) != _DONE:
        # The first process puts it on record.
        with suppress(NumericError):
            _grown(study, cells[number], lambda what: None)
    return Finished(results={})


def _line(study: Pretraining, cell: Cell, before: Mapping[str, Line], say: Say) -> Line:
    began = time.perf_counter()
    found: Line = {}
    failed = None
    try:
        found = _floor(study) if cell.part == _FLOOR else _network(study, cell, say)
    except NumericError as error:
        failed = str(error)
    own = {"task": cell.task, "model": "", "seed": cell.seed}
    rows = [{**own, **row} for row in found.pop("rows", [])]
    line = {"id": cell.id, "task": cell.task, "seed": cell.seed, "part": cell.part, "rows": rows, "notes": [], **found}
    return {**line, "seconds": time.perf_counter() - began, "failed": failed}


def _network(study: Pretraining, cell: Cell, say: Say) -> Line:
    arm = _arm(study, cell)
    told([own.id for own in study.cells()].index(cell.id), study.device)
    grown = _grown(study, cell, say)
    rows, pictures, sums = grown.rows, grown.pictures, {}
    if study.objective == "causal":
        own, found = judged(grown.language, grown.done.weights, study.readings(), arm.name, say=say)
        sums = {str(one.context): _sums(one) for one in found}
        say(f"{arm.name}, asking it in context, and letting it go on")
        rows = [*rows, *own]
        for ask in (in_context, going_on):
            more, drawn = ask(grown.language, grown.done.weights, study.tokens, study.plan, (arm.name, cell.seed))
            rows, pictures = [*rows, *more], [*pictures, *drawn]
    saved = _saved(study, arm, cell, grown.done.weights)
    return {"rows": rows, "pictures": pictures, "by_document": sums, "saved": saved, "notes": grown.notes}


def _arm(study: Pretraining, cell: Cell) -> Arm:
    return next(own for own in study.arms if own.name == cell.part)


def _grown(study: Pretraining, cell: Cell, say: Say) -> Grown:
    place = study.directory / STATE / safe_name(cell.part) if study.directory is not None else None
    given = Given(size=study.size, seed=cell.seed, say=say, device=study.device, place=place)
    return grow(given, study.tokens, study.plan, _arm(study, cell), study.objective)


def _sums(found: Surprise) -> list[list[float]]:
    """Nats and tokens of every document."""
    return [[float(part.sum()), float(len(part))] for part in found.by_document]


def _saved(study: Pretraining, arm: Arm, cell: Cell, weights: Mapping[str, torch.Tensor]) -> str | None:
    """Where a network that other commands can open is saved, in the folder of the run."""
    if study.directory is None or study.objective != "causal" or not saves(arm.network, arm.attention):
        return None
    name = f"{MODELS}/{safe_name(f'{arm.name}-{cell.seed}'.replace(' ', '-'))}"
    cpu = {key: tensor.cpu() for key, tensor in weights.items()}
    save_grown(
        cpu,
        study.directory / name,
        heads=study.plan.shape.heads,
        context=study.plan.context,
        tokenizer=(study.tokens.tokenizer, study.tokens.end),
        momentum=(arm.attention, arm.eta),
    )
    return name


def _floor(study: Pretraining) -> Line:
    """What counting comes to, and who knows how the text was made."""
    size = study.tokens.marks.vocabulary
    asked = study.readings()[-1]
    model = ngram(np.asarray(study.tokens.train.tokens), _ORDER, size)
    end = study.tokens.marks.end
    parts = [model.logprobs(np.array([end, *own]))[1:] for own in asked.documents]
    found = replace(asked.surprise([]), by_document=tuple(-part for part in parts))
    rows = figures(found, (_FLOOR, f"order {_ORDER}"))
    known = study.tokens.corpus.surprise
    # What was cut off is not known apart.
    whole = study.plan.judged is None or sum(len(own) for own in asked.documents) < study.plan.judged
    if known is not None and whole:
        exact = tuple(np.full(len(own), nats / len(own)) for own, nats in zip(asked.documents, known, strict=True))
        rows += figures(replace(found, by_document=exact), ("exact", "who made the text"))
    return {"rows": rows, "by_document": {str(_ORDER): _sums(found)}}


def _results(run: Mapping[str, Any], study: Pretraining, lines: Sequence[Line]) -> dict[str, Any]:
    own = [row for line in lines for row in line["rows"]] + _gained(study, lines)
    kept = [
        {name: value for name, value in line.items() if name not in ("rows", "pictures", "by_document")}
        for line in lines
    ]
    corpus = study.tokens.corpus
    return {
        "results": {corpus.name: {"alias": corpus.name}},
        "date": run["date"],
        "total_evaluation_time_seconds": str(sum(line["seconds"] for line in lines)),
        "kshot": {
            **{name: run[name] for name in ("version", "argv", "settings", "identity")},
            "environment": environment(),
            "corpus": {
                "name": corpus.name,
                "documents": len(corpus.train),
                "held_out": len(corpus.valid),
                "tokens": len(study.tokens.train.tokens),
                "held_out_tokens": len(study.tokens.valid.tokens),
                "vocabulary": study.tokens.marks.vocabulary,
                "hash": corpus.hash,
            },
            "plan": _plan_facts(study),
            "measures": [*over_seeds(own), *own],
            "pictures": [
                {"task": line["task"], "seed": line["seed"], "part": line["part"], **drawn}
                for line in lines
                for drawn in line.get("pictures", ())
            ],
            "cells": kept,
            "notes": [*run["notes"], *notes_of(lines)],
        },
    }


def _plan_facts(study: Pretraining) -> dict[str, Any]:
    plan = study.plan
    return {
        "objective": study.objective,
        "network": study.arms[0].network,
        "layers": plan.shape.layers,
        "heads": plan.shape.heads,
        "width": plan.shape.width,
        "context": plan.context,
        "batch": plan.batch,
        "steps": plan.steps,
        "tokens": plan.steps * plan.batch * plan.context,
        "learning_rate": plan.learning_rate,
        "schedule": plan.schedule,
    }


def _gained(study: Pretraining, lines: Sequence[Line]) -> list[dict[str, Any]]:
    """Nats a token by which each network is less surprised than the first of the same seed, by the same documents.

    The interval is over documents: the mean over them of what varies as the ratio of two sums does (the delta method).
    """
    held = {(line["part"], line["seed"]): line for line in lines if line.get("by_document")}
    first = study.arms[0].name
    rows = []
    for (part, seed), line in held.items():
        base = held.get((first, seed))
        if part in (first, _FLOOR) or base is None:
            continue
        for context, sums in line["by_document"].items():
            nats, counts = np.array(sums).T
            less = np.array(base["by_document"][context])[:, 0] - nats
            value = float(less.sum() / counts.sum())
            each = value + (less - value * counts) / counts.mean()
            low, high = bootstrap_mean(each, seed) or (None, None)
            rows.append(
                {
                    "task": line["task"],
                    "model": "",
                    "seed": seed,
                    **figure(
                        "nats_gained", (part, f"context {context}", f"over {first}"), value=value, low=low, high=high,
                        null=0.0, n=int(counts.sum()), unit="nats",
                    ),
                }
            )  # fmt: skip
    return rows


def _about(study: Pretraining) -> About:
    facts = {
        "engine": ENGINE,
        "text": study.tokens.hash,
        "torch": torch.__version__,
        # Sums are split among threads and vector units: another number of either rounds otherwise.
        "threads": torch.get_num_threads(),
        "device": study.device.type,
        "processes": together()[1],
        "processor": torch.backends.cpu.get_cpu_capability(),
    }
    name = safe_name(study.tokens.corpus.name)
    return About(facts=facts, more={}, names=(name,), of=study.size, weights=0, device=study.device.type)


def _ready(study: Pretraining, run: Mapping[str, Any], directory: Path | None, missing: bool) -> Pretraining:
    """With the folder of the run, where states of training and models go."""
    return replace(study, directory=directory)


_INQUIRY = Inquiry(word="pretrain", line=_line, results=_results, about=_about, ready=_ready)
