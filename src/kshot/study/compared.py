"""Does in-context learning act as fine-tuning on the same demonstrations does? One set of them, every figure."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from kshot.adapt.descent import Descended, layer_causal_pass, one_pass
from kshot.adapt.judge import gold_rows
from kshot.adapt.train import Diverged
from kshot.data.predictions import Predictions
from kshot.data.task import Example, Task
from kshot.data.template import Template
from kshot.errors import MethodError, NumericError, PromptError
from kshot.measure.intervals import wilson
from kshot.measure.similarity import rec2ftp, repeatability
from kshot.model.demonstrations import demonstration_of_tokens, read_ahead
from kshot.model.lm import LM
from kshot.model.prefix import EMPTY
from kshot.seeds import stream
from kshot.study.arrays import keep_arrays
from kshot.study.figures import EACH, figure
from kshot.study.finetuned import Rates, right_answers
from kshot.study.likeness import Trained, likeness, trained
from kshot.study.remembered import Memory, Remembering
from kshot.study.three_runs import RUNS, Seen, Texts, described, texts

Row = dict[str, Any]
Descend = Callable[..., Descended]
"""A pass over the demonstrations: ``adapt.descent.one_pass`` or ``layer_causal_pass``."""
Watch = Callable[[str], None]

# So many rates, each a tenth of the one before, until layer-causal descent does not diverge.
_TENTHS = 4


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Setting:
    """A task in its layout, the demonstrations of a seed in their order, and the queries.

    ``shown_task`` is the task that the demonstrations are of and ``shown_in`` their layout, where those are others.
    ``keep`` gets the answers of every run by its name, ``arrays`` is the folder of what is traced, where it is kept.
    """

    lm: LM
    task: Task
    template: Template
    demonstrations: tuple[Example, ...]
    queries: tuple[Example, ...]
    seed: int
    shown_task: Task | None = None
    shown_in: Template | None = None
    keep: Callable[[str, Predictions], None] | None = None
    arrays: Path | None = None

    def kept(self, run: str) -> Callable[[Predictions], None] | None:
        """Who gets the answers of this run."""
        return partial(self.keep, run) if self.keep is not None else None

    @property
    def taught(self) -> tuple[Task, Template]:
        """The task and the layout of the demonstrations."""
        return self.shown_task or self.task, self.shown_in or self.template

    def texts(self) -> Texts:
        return texts(self.lm, self.task, self.template, self.demonstrations, self.queries, shown_in=self.shown_in)


def with_shuffled_labels(setting: Setting) -> Setting:
    """The same demonstrations in the same order, their labels dealt anew among them."""
    shown = setting.demonstrations
    order = stream(setting.seed, "shuffled-labels").permutation(len(shown)).tolist()
    dealt = tuple(replace(e, label=shown[i].label) for e, i in zip(shown, order, strict=True))
    return replace(setting, demonstrations=dealt)


def answered_right(
    setting: Setting, memories: Mapping[str, Memory] | None = None, known: Mapping[str, np.ndarray] | None = None
) -> dict[str, np.ndarray]:
    """Which queries are answered right without demonstrations, and after them; ``known`` runs are not asked again.

    What ``memories`` hold of a run's answers is not read again either.
    """
    lm, task, template, queries = setting.lm, setting.task, setting.template, setting.queries
    found = dict(known or {})
    said = memories or {}
    if "zero-shot" not in found:
        own = Remembering.of(lm, said.get("zero-shot", {}))
        found["zero-shot"] = right_answers(own, task, template, queries, keep=setting.kept("zero-shot"))
    if "in-context" not in found:
        layout, shown = template, setting.demonstrations
        if setting.shown_in is not None:
            # Demonstrations of an Adapted are in the layout of its queries; others are text before them.
            layout, shown = described(template, shown, setting.shown_in), ()
        own = Remembering.of(lm, said.get("in-context", {}))
        # Where all is remembered nothing is read after them.
        prefix = EMPTY if own.memory else read_ahead(lm, layout, shown)
        found["in-context"] = right_answers(
            own, task, layout, queries, keep=setting.kept("in-context"), demonstrations=shown, prefix=prefix
        )
    return {run: found[run] for run in ("zero-shot", "in-context")}


def accuracy_rows(right: Mapping[str, np.ndarray], named: Sequence[str] = ()) -> list[Row]:
    """The share of right answers of every run, with Wilson's interval."""
    rows = []
    for run, own in right.items():
        low, high = wilson(int(own.sum()), len(own)) or (None, None)
        rows.append(figure("accuracy", (*named, run), value=float(own.mean()), low=low, high=high, n=len(own)))
    return rows


def rate_rows(found: Rates) -> list[Row]:
    """The learning rates chosen, and by how much the published choice flatters itself."""
    return [
        figure("learning_rate", ("published",), value=found.published),
        figure("learning_rate", ("corrected",), value=found.corrected),
        figure("optimism", (), value=found.optimism, null=0.0),
    ]


def compared(
    setting: Setting,
    rate: float,
    known: Mapping[str, np.ndarray] | None = None,
    *,
    named: Sequence[str] = (),
    descend: Descend = one_pass,
    brief: bool = False,
    watch: Watch | None = None,
) -> tuple[list[Row], dict[str, np.ndarray]]:
    """Fine-tuned at this rate: its accuracy, Rec2FTP, and the likeness of both ways of learning inside the model.

    Also which queries the two other runs answer right, but for what is ``known`` of them: every prompt is read once, and
    traced and answered in the same pass. ``named`` words go into every variant; ``descend`` is the pass over the
    demonstrations, ``brief`` leaves out what a control does not need (``likeness``).
    """
    lm, template, shown = setting.lm, setting.template, setting.demonstrations
    say = watch or (lambda what: None)
    say("fine-tuning on the demonstrations")
    done = descend(lm, *setting.taught, shown, rate, record=True)
    say("tracing the three runs")
    asked = setting.texts()
    learned = _learned(setting, asked, done)
    memories: dict[str, Memory] = {run: {} for run in RUNS}
    keep = partial(_kept, setting, [query.id for query in asked.queries], memories)
    found = likeness(lm, asked, learned, seed=setting.seed, named=named, brief=brief, keep=keep)
    right = answered_right(setting, memories, known)
    remembering = Remembering.of(lm, memories["fine-tuned"])
    tuned = right_answers(
        remembering, setting.task, template, setting.queries, done.delta, keep=setting.kept("fine-tuned")
    )
    rows = accuracy_rows({"fine-tuned": tuned}, named)
    again = rec2ftp(right["zero-shot"], tuned, right["in-context"])
    rows.append(
        figure(
            "rec2ftp", named, value=again.value, low=again.low, high=again.high, null=again.expected, n=again.n,
            reason=again.reason,
        )
    )  # fmt: skip
    if not brief:
        rows.append(_repeated(setting, rate, tuned, named))
    return rows + [_by_query(row, setting, asked) for row in found], right


def _kept(
    setting: Setting, ids: Sequence[str], memories: Mapping[str, Memory], done: int, batch: tuple[Seen, ...]
) -> None:
    for run, memory in memories.items():
        memory.update(batch[0].said[run])
    if setting.arrays is not None:
        keep_arrays(setting.arrays, ids, done, batch)


def _repeated(setting: Setting, rate: float, tuned: np.ndarray, named: Sequence[str]) -> Row:
    """How many queries are answered alike where the same pass begins a rounding away."""
    try:
        done = one_pass(setting.lm, *setting.taught, setting.demonstrations, rate, rounded=setting.seed)
    except Diverged as error:
        return figure("repeatability", named, value=0.0, null=1.0, n=len(tuned), reason=str(error))
    again = right_answers(setting.lm, setting.task, setting.template, setting.queries, done.delta)
    found = repeatability(tuned, again)
    return figure("repeatability", named, value=found.value, low=found.low, high=found.high, null=1.0, n=found.n)


def _by_query(row: Row, setting: Setting, asked: Texts) -> Row:
    """A row's values query by query, of all the setting's queries: those that were not traced, or no longer ranked, have none."""
    left_out = set(asked.left_out)
    traced = [i for i, query in enumerate(setting.queries) if query.id not in left_out]
    found = dict(row)
    for name in EACH:
        if row.get(name) is not None:
            known = dict(zip(traced, row[name], strict=False))
            found[name] = [known.get(i) for i in range(len(setting.queries))]
    return found


def _learned(setting: Setting, asked: Texts, done: Descended) -> Trained:
    """What fine-tuning left; its rows from where the demonstration begins, after first tokens and description."""
    lm, shown = setting.lm, setting.demonstrations
    task, template = setting.taught
    assert done.queries is not None
    rows, queries = [], []
    for example, row, own in zip(shown, gold_rows(lm, task, template, shown, whole=True), done.queries, strict=True):
        begin = int(np.argmax(demonstration_of_tokens(lm.codec, template, (example,)) == 0))
        rows.append(row.tokens[begin:])
        queries.append(own[:, :, begin:])
    return trained(asked, done.delta, rows, queries)


def controlled(
    setting: Setting, rate: float, controls: Mapping[str, Callable[[], Setting]], *, watch: Watch | None = None
) -> tuple[list[Row], list[str]]:
    """Rows of the same with what should not be able to learn or to teach, by the word of each, and notes.

    What does not apply is left out and a note says why; MethodError where that is all of them.
    """
    say = watch or (lambda what: None)
    zero_shot: np.ndarray | None = None
    rows: list[Row] = []
    notes: list[str] = []
    for word, control in controls.items():
        say(word)
        try:
            own = control()
            same = own.lm is setting.lm
            known = {"zero-shot": zero_shot} if same and zero_shot is not None else {}
            found, right = compared(own, rate, known, named=("corrected", word), brief=True, watch=watch)
        except (MethodError, NumericError, PromptError) as error:
            notes.append(f"control {word!r} is left out: {error}")
            continue
        # Other demonstrations do not change what is answered without any.
        zero_shot = right["zero-shot"] if same else zero_shot
        runs = ("in-context",) if same else ("zero-shot", "in-context")
        rows += accuracy_rows({run: right[run] for run in runs}, (word,)) + found
        if own.shown_task is not None:
            shots, asked = len(own.demonstrations), len(setting.demonstrations)
            fewer = f", {shots} where this one has {asked}" if shots < asked else ""
            notes.append(f"demonstrations of another task are those of {own.shown_task.name}{fewer}")
    if not rows:
        raise MethodError("; ".join(notes))
    return rows, notes


def layer_causal(
    setting: Setting, rate: float, most: int, *, watch: Watch | None = None
) -> tuple[list[Row], list[str]]:
    """Rows of layer-causal gradient descent on the first ``most`` demonstrations, and notes.

    Where there are more of them, also rows of gradient descent and in-context learning on the same. ``rate`` is that
    of gradient descent: Deutch et al. 2024 searched none for the other, whose gradients are larger. Where it diverges
    there it gets a tenth, and so on, and its rows are not called corrected; the rate in the end is a row too, of no
    value where there is none.
    """
    say = watch or (lambda what: None)
    name, every = "layer-causal gradient descent", len(setting.demonstrations)
    few = min(most, every)
    own = replace(setting, demonstrations=setting.demonstrations[:few])
    right: dict[str, np.ndarray] = {}
    rows: list[Row] = []
    notes: list[str] = []
    if few < every:
        word = f"first {few} demonstrations"
        notes.append(f"{name} learns from the first {few} of {every} demonstrations; rows of {word!r} are of the same")
        beside, right = compared(own, rate, named=("corrected", word), brief=True, watch=watch)
        rows += accuracy_rows({"in-context": right["in-context"]}, (word,)) + beside
    for tried in [rate / 10**tenths for tenths in range(_TENTHS)]:
        named = ("corrected", "layer-causal") if tried == rate else ("layer-causal",)
        say(f"{name} at learning rate {tried:g}")
        try:
            again, _ = compared(own, tried, right, named=named, descend=layer_causal_pass, brief=True, watch=watch)
        except Diverged as error:
            notes.append(f"{name} {error}")
            continue
        notes.append(f"{name} has learning rate {tried:g}; none was searched, and gradient descent has {rate:g}")
        return [*rows, figure("learning_rate", named, value=tried), *again], notes
    reason = f"{name} diverged at every rate tried"
    rows.append(figure("learning_rate", ("corrected", "layer-causal"), value=None, reason=reason))
    return rows, notes
