"""What the trained methods start from, what they leave alone, and what they say no to."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import zoo

from kshot.adapt import FineTune, InContext, LoRA, PrefixTuning, SoftPrompt, ZeroShot
from kshot.adapt.course import Course
from kshot.adapt.initial import INITS
from kshot.adapt.judge import gold_rows
from kshot.adapt.learners import finished, low_rank
from kshot.data.task import Example, Task
from kshot.data.template import Template
from kshot.errors import MethodError, ModelError, UnknownName
from kshot.measure.scoring import score
from kshot.model import tiny
from kshot.model.adapted import Adapted, load_adapted
from kshot.model.delta import Delta, LowRank
from kshot.model.lm import LM
from kshot.model.load import frozen
from kshot.model.sources import Source

# A step that cannot be seen: what is left is the start.
STILL = Course(learning_rate=1e-300, optimiser="sgd", budget="1steps", validation="none")
SHORT = Course(learning_rate=1e-2, budget="3steps", validation="none")


def films(n: int = 10) -> Task:
    rows = [Example(id=f"f{i}", fields={"text": f"film {i} was {'a joy' if i % 2 else 'a bore'}"},
                    label="good" if i % 2 else "bad") for i in range(n)]  # fmt: skip
    asked = [replace(row, id=f"q{i}", fields={"text": f"number {i}"}) for i, row in enumerate(rows[:4])]
    return Task(name="films", kind="classification", labels=("bad", "good"), train=tuple(rows), test=tuple(asked),
                template=Template(input="{{text}}\n:", separator="\n", description="Films.\n"))  # fmt: skip


def in_float64(first: bool) -> LM:
    """The tiny model in float64, with a token that it was trained to see first or without."""
    net, tokenizer = tiny.tiny_model()
    lm = frozen(net.double(), tokenizer, Source(name="t", caption="t", folder=Path(), kind="directory", hash="0"))
    return replace(lm, codec=replace(lm.codec, first=(tokenizer.bos_token_id,))) if first else lm


def sums(adapted: Adapted, task: Task) -> np.ndarray:
    with zoo.Pure64():
        return score(adapted, task, task.test).predictions.logprobs


def test_the_neutral_reference_begins_as_a_text_does(tmp_path: Path) -> None:
    """What is learned holds the first token; log P(answer) without it is that of a text that begins with it."""
    task = replace(films(), template=Template(input="{{text}}\n:"))
    shown = PrefixTuning(shots=3, course=STILL)
    known = {}
    for first in (True, False):
        lm = in_float64(first)
        with zoo.Pure64():
            learned = shown.fit(lm, task, task.train, 0)
            learned.save(tmp_path / str(first))
            again = load_adapted(lm, tmp_path / str(first))
            bare = replace(ZeroShot().fit(lm, task, task.train, 0), template=learned.template)
            known[first] = score(bare, task, task.test).predictions.unconditional
            for one in (learned, again):
                found = score(one, task, task.test).predictions.unconditional
                assert found == pytest.approx(known[first], abs=1e-9)
    assert np.abs(known[True] - known[False]).min() > 1e-3


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize(
    "method",
    [PrefixTuning(shots=3, course=STILL), PrefixTuning(shots=3, network=5, course=STILL),
     SoftPrompt(shots=3, length=0, init="demonstrations", course=STILL)],
)  # fmt: skip
def test_step_0_from_demonstrations_is_in_context_learning(method, first: bool, tmp_path: Path) -> None:
    lm, task = in_float64(first), films()
    with zoo.Pure64():
        adapted = method.fit(lm, task, task.train, 0)
        shown = InContext(shots=3).fit(lm, task, task.train, 0)
        again = load_adapted(lm, adapted.save(tmp_path / "a"))
    assert adapted.lm.codec.first == ()
    assert np.abs(sums(adapted, task) - sums(shown, task)).max() < 1e-9
    assert np.abs(sums(ZeroShot().fit(lm, task, (), 0), task) - sums(shown, task)).max() > 1e-3
    assert again.lm.codec.first == ()
    assert np.abs(sums(again, task) - sums(shown, task)).max() < 1e-9
    with zoo.Pure64():
        texts = [str(example.fields["text"]) for example in task.test]
        there, back = again.predict(texts), shown.predict(texts)
    for a, b in zip(there, back, strict=True):
        assert a.logprobs == pytest.approx(b.logprobs, abs=1e-9)


def test_what_does_not_begin_a_text_leaves_its_beginning_alone() -> None:
    lm, task = in_float64(True), films()
    for method in (PrefixTuning(shots=3, length=4, course=STILL), SoftPrompt(shots=3, init="uniform", course=STILL),
                   PrefixTuning(shots=3, init="random", course=STILL), LoRA(shots=3, course=STILL)):  # fmt: skip
        assert method.fit(lm, task, task.train, 0).lm.codec.first == lm.codec.first
    text = PrefixTuning(shots=3, init="text", text="Films", course=STILL).fit(lm, task, task.train, 0)
    assert text.lm.codec.first == ()
    assert text.prefix.length == 6


def test_a_text_to_start_from_is_that_text() -> None:
    """Read as a description would be."""
    lm, task = in_float64(False), films()
    plain = replace(task, template=replace(task.template, description=""))
    told = replace(task, template=replace(task.template, description="Is it good? "))
    for method in (PrefixTuning(shots=3, init="text", text="Is it good? ", course=STILL),
                   SoftPrompt(shots=3, init="text", text="Is it good? ", length=0, course=STILL)):  # fmt: skip
        with zoo.Pure64():
            adapted = method.fit(lm, plain, plain.train, 0)
        expected = sums(ZeroShot().fit(lm, told, (), 0), told)
        assert np.abs(sums(adapted, plain) - expected).max() < 1e-9


METHODS = [
    SoftPrompt(shots=6, length=4, init="normal", course=SHORT),
    PrefixTuning(shots=6, length=4, init="random", course=SHORT),
    PrefixTuning(shots=6, network=3, course=SHORT),
    LoRA(shots=6, rank=2, course=SHORT),
    FineTune(shots=6, course=SHORT),
    FineTune(shots=6, weights=("last-1",), course=replace(SHORT, loss="all", kl=0.5)),
]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: type(method).__name__)
def test_the_model_is_not_touched_and_fits_are_the_same_to_the_bit(method, tiny_lm: LM) -> None:
    task = films()

    def seen() -> str:
        parts = [p.detach().numpy().tobytes() for p in (*tiny_lm.model.parameters(), *tiny_lm.model.buffers())]
        return hashlib.sha256(b"".join(parts)).hexdigest()

    def answers(adapted: Adapted) -> np.ndarray:
        return score(adapted, task, task.test).predictions.logprobs

    before, blank = seen(), answers(ZeroShot().fit(tiny_lm, task, (), 0))
    first = method.fit(tiny_lm, task, task.train, 0)
    found = answers(first)
    assert seen() == before
    assert np.array_equal(answers(method.fit(tiny_lm, task, task.train, 0)), found)
    assert np.array_equal(answers(ZeroShot().fit(tiny_lm, task, (), 0)), blank)
    assert not np.array_equal(found, blank)
    assert not any(p.requires_grad for p in (*tiny_lm.model.parameters(), *first.delta.tensors()))
    assert not tiny_lm.model._forward_hooks
    assert first.training is not None
    assert first.training.steps == 3
    assert first.trainable_parameters == first.training.parameters > 0


def read_with(lm: LM, name: str = "model.layers.0.self_attn.q_proj") -> LM:
    """The model with a low-rank change of one layer, and another weight in the place of one."""
    draw = torch.Generator().manual_seed(0)
    thin = LowRank(torch.randn(4, 32, generator=draw), torch.randn(32, 4, generator=draw), 0.2)
    up = "model.layers.1.mlp.up_proj.weight"
    return replace(lm, delta=Delta(low_rank={name: thin}, dense={up: lm.model.get_parameter(up).detach() * 2}))


@pytest.mark.parametrize("method", [*METHODS[:4], FineTune(shots=6, weights=("q_proj",), course=SHORT)],
                         ids=lambda method: type(method).__name__)  # fmt: skip
def test_a_change_that_the_model_is_read_with_is_learned_on_top_of(method, tiny_lm: LM) -> None:
    """The loss before a third step is that of what two steps leave, where it is used."""
    task, lm = films(), read_with(tiny_lm)
    three, two = (
        replace(method, course=replace(SHORT, budget=f"{n}steps")).fit(lm, task, task.train, 0) for n in (3, 2)
    )
    shown = InContext(shots=6).fit(lm, task, task.train, 0).demonstrations
    rows = gold_rows(two.lm, task, two.template, shown, whole=False)
    used = -np.concatenate(two.reader.score(rows, two.prefix).logprobs).mean()
    assert used == pytest.approx(three.training.losses[2], abs=1e-4)
    plain = replace(method, course=SHORT).fit(tiny_lm, task, task.train, 0)
    assert abs(plain.training.losses[2] - used) > 1e-3


def test_a_weight_that_is_another_already_is_not_learned(tiny_lm: LM) -> None:
    method = FineTune(shots=6, weights=("up_proj",), course=SHORT)
    with pytest.raises(
        ModelError, match=r"^one change of weights stands on another, and both replace 'model\.layers\.1\.mlp"
    ):
        method.fit(read_with(tiny_lm), films(), films().train, 0)


def test_what_a_course_does_not_name_is_the_methods_own(tiny_lm: LM) -> None:
    task, given = films(), Course(budget="2steps", validation="none")
    for method in (SoftPrompt(shots=4, init="uniform"), PrefixTuning(shots=4), LoRA(shots=4), FineTune(shots=4)):
        own = replace(method.course, budget="2steps", validation="none")
        for more in ({}, {"learning_rate": 0.05}):
            found, named = (
                replace(method, course=replace(course, **more)).fit(tiny_lm, task, task.train, 0).training
                for course in (given, own)
            )
            assert (found.losses, found.chosen) == (named.losses, named.chosen)
    soft = SoftPrompt(shots=4, init="uniform", course=replace(given, learning_rate=0.05))
    other = replace(soft, course=replace(soft.course, optimiser="adamw"))
    losses = [method.fit(tiny_lm, task, task.train, 0).training.losses for method in (soft, other)]
    assert losses[0] != losses[1], "Adafactor is the soft prompt's own"


def test_thin_changes_that_are_zero_are_the_identity(tiny_lm: LM) -> None:
    learner = low_rank(tiny_lm, ("all-linear",), 4, 16.0, seed=0)
    delta = finished(tiny_lm, learner, learner.leaves).delta
    task = films()
    blank = ZeroShot().fit(tiny_lm, task, (), 0)
    there, back = (score(a, task, task.test).predictions.logprobs for a in (blank, replace(blank, delta=delta)))
    assert np.array_equal(there, back)


def test_all_get_the_same_examples(tiny_lm: LM, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr("kshot.adapt.tuning.learn", lambda lm, task, shown, *a, **b: seen.append(shown) or 1 / 0)
    for method in METHODS:
        with pytest.raises(ZeroDivisionError):
            method.fit(tiny_lm, films(), films().train, 5)
    shown = InContext(shots=6).fit(tiny_lm, films(), films().train, 5).demonstrations
    assert seen == [shown] * len(METHODS)


@pytest.mark.parametrize(
    ("method", "error", "said"),
    [
        (LoRA(shots=2, targets=("k_prj",)), UnknownName, "unknown target module 'k_prj'; did you mean 'k_proj'"),
        (FineTune(shots=2, weights=("k_prj",)), UnknownName, "unknown weights 'k_prj'; did you mean 'k_proj'"),
        (PrefixTuning(shots=2, init="random", length=2048), MethodError, "a prefix of 2048 positions leaves no room"),
        (SoftPrompt(shots=2, init="uniform", length=2048), MethodError, "2048 tokens .* leaves no room for a query"),
        (SoftPrompt(shots=2, init="uniform", length=2040), MethodError, "2040 positions before the text and the longest"),
        (SoftPrompt(shots=0, init="uniform"), MethodError, "nothing to learn from 0 examples; give --num-fewshot 1"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_line(method, error: type, said: str, tiny_lm: LM) -> None:
    method = replace(method, course=SHORT)
    with pytest.raises(error, match=said) as found:
        method.fit(tiny_lm, films(), films().train, 0)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    ("method", "options", "error", "said"),
    [
        (LoRA, {"rank": 0}, MethodError, "lora of rank 0: what works is a whole number from 1 on"),
        (LoRA, {"targets": ()}, MethodError, "lora with no targets learns nothing; give targets=all-linear, or"),
        (FineTune, {"weights": ()}, MethodError, "fine-tune with no weights learns nothing; give weights=all, last-2"),
        (PrefixTuning, {"init": "demos"}, UnknownName, "unknown initialisation of a prefix 'demos'"),
        (PrefixTuning, {"length": -3}, MethodError, "a prefix with length -3: what works is a whole number from 0"),
        (PrefixTuning, {"network": -1}, MethodError, "a prefix with network -1: what works is a whole number from"),
        (PrefixTuning, {"init": "text"}, MethodError, "a prefix with init=text needs a text with at least one token"),
        (SoftPrompt, {"init": "unifrom"}, UnknownName, "unknown initialisation 'unifrom'; did you mean 'uniform'"),
        (SoftPrompt, {"norm": "match"}, UnknownName, "unknown norm of initial rows 'match'; did you mean 'matched'"),
        (SoftPrompt, {"length": -5}, MethodError, "a soft prompt of -5 tokens holds nothing"),
        (SoftPrompt, {"length": 0}, MethodError, "init=labels has no length of its own; give one"),
        (SoftPrompt, {"init": "text"}, MethodError, "a soft prompt with init=text needs a text"),
    ],
)
def test_what_no_model_can_have_is_said_before_there_is_one(method, options, error: type, said: str) -> None:
    with pytest.raises(error, match=said):
        method(shots=2, **options)


@pytest.mark.parametrize("name", ["bloom", "mamba"])
def test_models_that_keep_nothing(name: str) -> None:
    lm = zoo.lm(name, torch.float32)
    task = replace(films(), template=Template(input="{{text}}", words={"bad": "b", "good": "g"}))
    for method, said in ((SoftPrompt(shots=4, init="uniform", course=SHORT), "soft-prompt"),
                         (PrefixTuning(shots=4, course=SHORT), "prefix")):  # fmt: skip
        with pytest.raises(MethodError, match=f"^{said} does not apply: {name} reads every sequence whole"):
            method.fit(lm, task, task.train, 0)
    for method in (LoRA(shots=4, course=replace(SHORT, budget="8steps")), FineTune(shots=4, course=SHORT)):
        adapted = method.fit(lm, task, task.train, 0)
        assert adapted.training.losses[-1] < adapted.training.losses[0]
        assert np.isfinite(score(adapted, task, task.test).predictions.logprobs).all()


@pytest.mark.parametrize("init", sorted(set(INITS) - {"vocabulary", "labels"}))
def test_every_start_has_a_loss_of_its_own(init: str, tiny_lm: LM) -> None:
    method = SoftPrompt(shots=4, length=7, init=init, text="abc", course=SHORT)
    adapted = method.fit(tiny_lm, films(), films().train, 0)
    assert adapted.prefix.embeddings.shape == (7, 32)
    assert np.isfinite(adapted.training.start)
    assert adapted.training.start == pytest.approx(adapted.training.losses[0], abs=1e-4)


@pytest.mark.parametrize("method", [*METHODS[:2], LoRA(shots=6, course=SHORT),
                                    PrefixTuning(shots=6, init="random", length=3, network=4, course=SHORT)])  # fmt: skip
def test_draws_start_elsewhere(method, tiny_lm: LM) -> None:
    """The first loss of a soft prompt or a prefix differs; thin changes begin as none and differ from then on."""
    other = replace(method, course=replace(method.course, draw=1))
    a, b = (m.fit(tiny_lm, films(), films().train, 0).training.losses for m in (method, other))
    assert a[1:] != b[1:]
    assert isinstance(method, LoRA) or abs(a[0] - b[0]) > 1e-4
