"""``kshot evaluate-lm``: how surprised a model is by texts, at several lengths of context."""

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kshot.errors import DataError, NumericError, PromptError
from kshot.measure.perplexity import Surprise, bits_per_byte, perplexity, reading, surprise, undefined
from kshot.model.lm import LM
from kshot.model.load import load_model, with_stated_momentum
from kshot.pretrain.text import documents
from kshot.study.evaluate_settings import CONTEXTS, EvaluateSettings
from kshot.study.experiment import standing
from kshot.study.figures import figure
from kshot.study.inquiry import About, Inquiry, on_record, record
from kshot.study.parts import Cell, Line, Say, digest_of
from kshot.study.place import Finished, OnProgress, packing, silent


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Text:
    """Documents by the name of their file or folder."""

    name: str
    documents: tuple[str, ...] = field(repr=False)

    @property
    def hash(self) -> str:
        """The SHA-256 of all documents, in hexadecimal."""
        found = hashlib.sha256()
        for document in self.documents:
            found.update(hashlib.sha256(document.encode()).digest())
        return found.hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Evaluation:
    """A model, the texts (``tasks``), and how they are read."""

    lm: LM
    tasks: tuple[Text, ...]
    contexts: tuple[int, ...]
    stride: int | None
    limit: int | None

    @property
    def identity(self) -> str:
        """The SHA-256 of all that the figures depend on, in hexadecimal."""
        return digest_of([cell.id for cell in self.cells()])

    def cells(self) -> tuple[Cell, ...]:
        """Every text at every length of context."""
        facts = [standing(self.lm), self.stride, self.limit]
        return tuple(
            Cell(
                task=text.name,
                seed=0,
                part=str(context),
                asks=f"context {context}",
                id=digest_of([facts, text.name, text.hash, context])[:12],
            )
            for text in self.tasks
            for context in self.contexts
        )


def evaluate(
    asked: EvaluateSettings,
    *,
    model: LM | None = None,
    beneath: Path | None = None,
    on_progress: OnProgress | None = None,
) -> Finished:
    """Perplexity and bits per byte of a model on texts, or what is still missing of them, on record.

    The records go to ``asked.output_path``, else to a folder of their own ``beneath`` the one given, else nowhere.
    ``model`` stands in for its name in the settings. Raises KshotError before anything is written where a text or the
    model cannot be read.
    """
    say = on_progress or silent
    say(0, None, "reading the texts")
    texts = tuple(_text(name) for name in asked.texts)
    if len({text.name for text in texts}) < len(texts):
        raise DataError(
            f"two texts are called alike ({', '.join(text.name for text in texts)}); give files of other names"
        )
    say(0, None, f"loading {asked.model}")
    lm = model or load_model(asked.model, dtype=asked.dtype, device=asked.device)
    lm = with_stated_momentum(lm, asked.momentum)
    limit = None if asked.limit == "all" else asked.limit
    study = Evaluation(lm=lm, tasks=texts, contexts=_contexts(asked, lm), stride=asked.stride, limit=limit)
    for context in study.contexts:
        # A stride that leaves tokens out is told before anything is read.
        reading(lm.codec, [[""]], context, asked.stride)
    return on_record(_INQUIRY, asked, study, [], typed=asked if model is None else None, beneath=beneath, say=say)


def _contexts(asked: EvaluateSettings, lm: LM) -> tuple[int, ...]:
    """Those asked for; of the default those that the model reads, else all that it reads. PromptError where it reads none."""
    fitting = tuple(own for own in asked.context if lm.context is None or own <= lm.context)
    if lm.context is None or (fitting and asked.context != CONTEXTS):
        return asked.context
    if not fitting and asked.context != CONTEXTS:
        raise PromptError(f"--context {min(asked.context)}: {lm.name} reads {lm.context} tokens; give as many or fewer")
    return fitting or (lm.context,)


def _text(name: str) -> Text:
    found = tuple(documents(name))
    if not found:
        raise DataError(f"{name!r} holds no text; what works is a file with words in it")
    path = Path(name).expanduser().resolve()
    # A file called train or valid is known by its folder.
    plain = path.name.split(".")[0]
    return Text(name=f"{path.parent.name}-{plain}" if plain in ("train", "valid", "test") else plain, documents=found)


def _line(study: Evaluation, cell: Cell, before: Mapping[str, Line], say: Say) -> Line:
    text = next(own for own in study.tasks if own.name == cell.task)
    began, context, failed = time.perf_counter(), int(cell.part), None
    rows: list[dict[str, Any]] = []
    found = None
    try:
        found = surprise(
            study.lm, text.documents, context, study.stride, limit=study.limit,
            on_progress=lambda done, total: say(f"{done:,} of {total:,} tokens"),
        )  # fmt: skip
        rows = _rows(found, study.lm)
    except (NumericError, PromptError) as error:
        failed = str(error)
    own = {"task": text.name, "model": study.lm.name, "seed": cell.seed}
    line = {"id": cell.id, **own, "part": cell.part, "rows": [{**own, **row} for row in rows], "notes": []}
    return {
        **line,
        "tokens": found.tokens if found is not None else None,
        "seconds": time.perf_counter() - began,
        "failed": failed,
    }


def _rows(found: Surprise, lm: LM) -> list[dict[str, Any]]:
    variant = (f"context {found.context}", f"stride {found.stride}")
    value, low, high = perplexity(found)
    reason, bits = undefined(found), bits_per_byte(found)
    size = lm.model.config.get_text_config().vocab_size
    return [
        figure(
            "perplexity", variant, value=value, low=low, high=high, null=float(size), n=found.tokens, reason=reason,
            unit="tokens",
        ),
        figure(
            "bits_per_byte", variant, value=bits, n=found.bytes, reason=reason if bits is None else None, unit="bits"
        ),
    ]  # fmt: skip


def _results(run: Mapping[str, Any], study: Evaluation, lines: Sequence[Line]) -> dict[str, Any]:
    facts = {text.name: {"documents": len(text.documents), "hash": text.hash} for text in study.tasks}
    return record(run, study, lines, measures=[row for line in lines for row in line["rows"]], texts=facts)


def _about(study: Evaluation) -> About:
    return About(
        facts={**standing(study.lm), "texts": {text.name: text.hash for text in study.tasks}},
        more={"packing": packing(study.lm)},
        names=tuple(text.name for text in study.tasks),
        of=study.lm.name,
        weights=sum(p.numel() * p.element_size() for p in study.lm.model.parameters()),
        device=study.lm.device.type,
    )


_INQUIRY = Inquiry(word="evaluate-lm", line=_line, results=_results, about=_about)
