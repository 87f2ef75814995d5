"""``kshot pretrain``: texts become language models, and these figures beside one another on record."""

import os
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from itertools import chain
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer

from kshot.devices import compiles, device_of, gathered, keep_buffers, together, told
from kshot.errors import DataError, KshotError, NumericError
from kshot.measure.perplexity import Surprise
from kshot.model.grown import kept_tokenizer, save_grown
from kshot.model.lm import LM
from kshot.model.load import load_model
from kshot.model.seq2seq import Seq2Seq, load_seq2seq, reads_a_source
from kshot.pretrain.ngram import ngram
from kshot.study.experiment import ENGINE
from kshot.study.inquiry import About, Inquiry, on_record
from kshot.study.parts import Cell, Line, Say
from kshot.study.place import STATE, Finished, OnProgress, folder, safe_name, silent
from kshot.study.pretrain.board import BOARD, board_library, keep_board
from kshot.study.pretrain.corpus import corpus_of, in_tokens
from kshot.study.pretrain.going_on import going_on
from kshot.study.pretrain.growing import Grown, figures, grow, judged
from kshot.study.pretrain.in_context import in_context
from kshot.study.pretrain.items import apart
from kshot.study.pretrain.plan import WEIGHTS, Arm, arms, planned, saved_further, saved_plain
from kshot.study.pretrain.recency import recency
from kshot.study.pretrain.relations import relations
from kshot.study.pretrain.results import results_of
from kshot.study.pretrain.study import FLOOR, Pretraining
from kshot.study.pretrain.thinning import thinned
from kshot.study.pretrain_settings import PretrainSettings
from kshot.study.synth.experiment import Given
from kshot.study.synth.growing import spent

MODELS = "models"
"""The folder in a run's own where models are saved."""

# Folders of rounds in a run's own.
_ROUNDS = "thinning"
# What the first of several processes tells when there is nothing left to grow.
_DONE = -1
# Contexts of up to four tokens: more of them are seldom seen twice in texts of this size.
_ORDER = 5


def pretrain(
    asked: PretrainSettings, *, beneath: Path | None = None, on_progress: OnProgress | None = None
) -> Finished:
    """Language models grown on texts, or what is still missing of them, on record, each saved in a folder of its own.

    The records and models go to ``asked.output_path``, else to a folder of their own ``beneath`` the one given, else
    nowhere. Raises KshotError before anything is written where a text cannot be read or is too short; training that was
    stopped goes on from its last state.
    """
    keep_buffers()
    notes, typed = list[str](), asked
    if asked.halving:
        asked, notes = _thinned(asked, beneath, on_progress)
    return _run(asked, notes, beneath, on_progress or silent, typed=typed)


def _run(
    asked: PretrainSettings, notes: list[str], beneath: Path | None, say: OnProgress, *, typed: PretrainSettings | None
) -> Finished:
    """Not ``typed``: what is held out is cut off the text that is learned from, which no command line asks for."""
    study = _study(asked, say, choosing=typed is None)
    with gathered(study.device):
        if asked.sharded and together()[1] < 2:
            raise KshotError("--sharded: weights are parted among several processes; start them with torchrun")
        # Wrong numbers of parts are said before anything is read.
        _ = study.plan.training
        if together()[0]:
            return _followed(study, asked, beneath)
        notes = [*notes, *study.tokens.corpus.notes]
        done = on_record(_INQUIRY, asked, study, notes, typed=typed, beneath=beneath, say=say)
        told(_DONE, study.device)
    if done.directory is not None:
        # The weights of every network are saved: what training left to go on from has served.
        shutil.rmtree(done.directory / STATE, ignore_errors=True)
    return done


def _thinned(
    asked: PretrainSettings, beneath: Path | None, on_progress: OnProgress | None
) -> tuple[PretrainSettings, list[str]]:
    """With one decay in the place of several; every round is a run of its own, in the folder asked for if there is one."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise KshotError("--halving with several processes: thin decays with one, then grow the best with all of them")

    # What is wrong with the whole text is said before anything is grown on a part of it.
    _study(asked, on_progress or silent)

    def grow(settings: PretrainSettings, number: int) -> Mapping[str, Any]:
        within = None if asked.output_path is None else str(Path(asked.output_path) / f"{_ROUNDS}-{number}")
        own = replace(settings, output_path=within)
        return _run(own, [], beneath, on_progress or silent, typed=None).results

    return thinned(asked, grow)


def _study(asked: PretrainSettings, say: OnProgress, *, choosing: bool = False) -> Pretraining:
    """The text in tokens and what is grown on it, all that can be wrong looked at."""
    plan = planned(asked)
    if asked.tensorboard:
        board_library()
    if asked.compile and not compiles():
        raise KshotError("--compile needs a C++ compiler and Python's headers; install both, or leave it out")
    start = None if asked.start is None else _begun(asked, asked.start, plan.context)
    say(0, None, "reading the texts")
    corpus = corpus_of(asked.tasks, anew=choosing)
    taken: tuple[Tokenizer, str] | None = None
    if (own := asked.tokenizer or asked.start) is not None:
        taken = kept_tokenizer(own)
    say(0, None, "learning a vocabulary" if taken is None else "reading the texts in tokens")
    # A part of the text may not support all that the whole does.
    hides, at_most = asked.objective != "causal", asked.vocabulary is None or choosing
    tokens = in_tokens(corpus, plan.vocabulary, taken, hides=hides, at_most=at_most)
    for name, packed in (("", tokens.train), (" held-out", tokens.valid)):
        if not packed.rows(plan.context):
            raise DataError(
                f"a context of {plan.context} tokens, and{name} text of {len(packed.tokens)}: what works is --context "
                f"{max(1, len(packed.tokens) // 2)} or less, or more text"
            )
    study = Pretraining(
        tokens=tokens,
        plan=plan,
        arms=arms(asked),
        # Of a text whose beginning an encoder reads.
        objective="continued" if (asked.network, asked.objective) == ("t5", "prefix") else asked.objective,
        size=asked.size,
        seeds=asked.seed,
        device=device_of(asked.device),
        start=start,
        board=asked.tensorboard,
        choosing=choosing,
    )
    for arm in study.arms:
        study.language(arm)
    return study


def _begun(asked: PretrainSettings, name: str, context: int) -> LM | Seq2Seq:
    """The model that is trained further; KshotError for an objective that is not for its kind, and more than it reads."""
    seq2seq = reads_a_source(name)
    if seq2seq != (asked.objective != "causal"):
        kind, fitting = ("an encoder-decoder", "prefix, span or denoise") if seq2seq else ("a decoder", "causal")
        raise KshotError(f"--start {name} is {kind}, and --objective {asked.objective} is not for it; give {fitting}")
    if seq2seq:
        return load_seq2seq(name, device=asked.device)
    lm = load_model(name, dtype="float32", device=asked.device)
    if lm.context is not None and context > lm.context:
        raise KshotError(f"rows of {context} tokens: {lm.name} reads {lm.context}; give --context {lm.context} or less")
    return lm


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
    before_us, began = spent(_place(study, cell), cell.seed), time.perf_counter()
    found: Line = {}
    failed = None
    try:
        found = _floor(study) if cell.part == FLOOR else _network(study, cell, say)
    except NumericError as error:
        failed = str(error)
    own = {"task": cell.task, "model": "", "seed": cell.seed}
    rows = [{**own, **row} for row in found.pop("rows", [])]
    line = {"id": cell.id, "task": cell.task, "seed": cell.seed, "part": cell.part, "rows": rows, "notes": [], **found}
    return {**line, "seconds": before_us + time.perf_counter() - began, "failed": failed}


def _network(study: Pretraining, cell: Cell, say: Say) -> Line:
    arm = _arm(study, cell)
    told([own.id for own in study.cells()].index(cell.id), study.device)
    grown = _grown(study, cell, say)
    rows, pictures, sums = grown.rows, grown.pictures, {}
    items: dict[str, list[float]] = {}
    if study.asks:
        own, found = judged(grown.language, grown.done.weights, study.readings(), arm.name, say=say)
        sums = {str(one.context): _sums(one) for one in found}
        say(f"{arm.name}, asking it in context, and letting it go on")
        rows = [*rows, *own]
        for ask in (in_context, relations, going_on, recency):
            more, drawn = ask(grown.language, grown.done.weights, study.tokens, study.plan, (arm.name, cell.seed))
            more, own_items = apart(more)
            rows, pictures, items = [*rows, *more], [*pictures, *drawn], items | own_items
    _all_numbers(rows, pictures, study.plan.learning_rate)
    saved, plain = _saved(study, arm, cell, grown.done.weights)
    notes = grown.notes
    if plain is not None:
        notes = [
            *notes,
            f"{arm.name}: transformers has no such network; its weights are in {plain}, which no command opens",
        ]
    if study.board and study.directory is not None:
        keep_board(study.directory / BOARD / _own_name(arm, cell), grown.done, study.plan)
    kept = {"saved": saved, "weights": plain, "notes": notes}
    return {"rows": rows, "pictures": pictures, "by_document": sums, "by_item": items, **kept}


def _all_numbers(rows: Sequence[Mapping[str, Any]], pictures: Sequence[Mapping[str, Any]], rate: float) -> None:
    """NumericError where a figure or a point of a picture is none: weights far too large say such before they are so."""
    found = [(row["measure"], [row[name] or 0.0 for name in ("value", "low", "high")]) for row in rows]
    found += [(own["name"], [at for line in own["lines"].values() for at in chain(*line)]) for own in pictures]
    for name, numbers in found:
        if not all(map(isfinite, numbers)):
            raise NumericError(f"{name} is no number; try a smaller learning rate than {rate:g}")


def _arm(study: Pretraining, cell: Cell) -> Arm:
    return next(own for own in study.arms if own.name == cell.part)


def _place(study: Pretraining, cell: Cell) -> Path | None:
    """Where states of a network's training are kept."""
    return study.directory / STATE / safe_name(cell.part) if study.directory is not None else None


def _grown(study: Pretraining, cell: Cell, say: Say) -> Grown:
    given = Given(
        size=study.size, seed=cell.seed, say=say, device=study.device, place=_place(study, cell), question=cell.id
    )
    arm = _arm(study, cell)
    return grow(given, study.tokens, study.plan, (arm.name, study.language(arm)), study.objective)


def _sums(found: Surprise) -> list[list[float]]:
    """Nats and tokens of every document, and of a long one of every block."""
    return [[float(part.sum()), float(len(part))] for part in found.blocks]


def _saved(
    study: Pretraining, arm: Arm, cell: Cell, weights: Mapping[str, torch.Tensor]
) -> tuple[str | None, str | None]:
    """In the folder of the run, where a network that other commands can open is saved, else the weights of any other."""
    if study.directory is None:
        return None, None
    name = f"{MODELS}/{_own_name(arm, cell)}"
    folder = study.directory / name
    cpu = {key: tensor.cpu() for key, tensor in weights.items()}
    # Read as transformers reads it, a network that sees the beginning of a text as a whole is another one.
    fitting = study.objective == "causal" or arm.network == "t5"
    if study.start is not None:
        saved_further(arm, study.start, weights, folder)
    elif fitting and arm.saves(study.plan):
        save_grown(
            cpu,
            folder,
            heads=study.plan.shape.heads,
            context=study.plan.context,
            tokenizer=(study.tokens.tokenizer, study.tokens.end),
            momentum=(arm.attention, arm.eta),
        )
    else:
        saved_plain(cpu, folder, _facts_of(study, arm, cell), study.tokens.tokenizer)
        return None, f"{name}/{WEIGHTS}"
    return name, None


def _facts_of(study: Pretraining, arm: Arm, cell: Cell) -> dict[str, Any]:
    """What weights are of, and what they are read with."""
    plan = study.plan
    return {
        **asdict(arm),
        "seed": cell.seed,
        "objective": study.objective,
        "shape": asdict(plan.shape),
        "design": dict(plan.design),
        "context": plan.context,
        "vocabulary": study.tokens.marks.vocabulary,
        "end": study.tokens.end,
        "text": study.tokens.hash,
    }


def _own_name(arm: Arm, cell: Cell) -> str:
    """A network's folder."""
    return safe_name(f"{arm.name}-{cell.seed}".replace(" ", "-"))


def _floor(study: Pretraining) -> Line:
    """What counting comes to, and who knows how the text was made."""
    size = study.tokens.marks.vocabulary
    asked = study.readings()[-1]
    model = ngram(np.asarray(study.tokens.train.tokens), _ORDER, size)
    end = study.tokens.marks.end
    parts = [model.logprobs(np.array([end, *own]))[1:] for own in asked.documents]
    found = replace(asked.surprise([]), by_document=tuple(-part for part in parts))
    rows = figures(found, (FLOOR, f"order {_ORDER}"))
    known = study.tokens.corpus.surprise
    # What was cut off is not known apart; on disk a token ends each document.
    whole = sum(len(own) + 1 for own in asked.documents) == len(study.tokens.valid.tokens)
    if known is not None and whole:
        exact = tuple(np.full(len(own), nats / len(own)) for own, nats in zip(asked.documents, known, strict=True))
        rows += figures(replace(found, by_document=exact), ("exact", "who made the text"))
    return {"rows": rows, "by_document": {str(_ORDER): _sums(found)}}


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
    # Of a model its weights, their gradient and two moments are held by each process.
    held = 0 if study.start is None else 16 * study.start.parameters
    return About(facts=facts, more={}, names=(name,), of=study.size, weights=held, device=study.device.type)


def _ready(study: Pretraining, run: Mapping[str, Any], directory: Path | None, missing: bool) -> Pretraining:
    """With the folder of the run, where states of training and models go."""
    return replace(study, directory=directory)


_INQUIRY = Inquiry(word="pretrain", line=_line, results=results_of, about=_about, ready=_ready)
