"""From examples to something learned: what is held out, what is chosen, and what it costs."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fits import SMALL, bits, films, soft, thin, told
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from kshot.adapt import search as search_module
from kshot.adapt.course import Course, Start
from kshot.adapt.examples import held_out, unseen
from kshot.adapt.judge import Judge, gold_rows, mean_loss
from kshot.adapt.learn import flattened, learn
from kshot.adapt.learners import low_rank, soft_rows, whole_weights
from kshot.adapt.train import Diverged
from kshot.data.task import Example, Task
from kshot.data.template import Template
from kshot.errors import KshotError, MethodError, NumericError
from kshot.model.lm import LM
from kshot.model.tiny import tiny_lm as tiny_of


@pytest.mark.parametrize(
    ("budget", "steps", "seconds"),
    [("7steps", 7, math.inf), ("1 step", 1, math.inf), ("2passes", 6, math.inf), ("1pass", 3, math.inf),
     (" 30 seconds ", 1_000_000, 30.0), ("0.5seconds", 1_000_000, 0.5), ("1second", 1_000_000, 1.0)],
)  # fmt: skip
def test_budgets(budget: str, steps: int, seconds: float) -> None:
    found = Course(budget=budget, batch=4).until(12)
    assert (found.steps, found.seconds) == (steps, seconds)


@pytest.mark.parametrize("budget", ["", "100", "steps", "0steps", "-1steps", "1.5steps", "0.5passes", "nan seconds",
                                    "0seconds", "100 stepss", "1e3steps", "10minutes", "1steps2"])  # fmt: skip
def test_budgets_that_say_nothing(budget: str) -> None:
    with pytest.raises(
        KshotError, match=r"^budget .*: what works is a number of steps, passes or seconds, as 100steps$"
    ):
        Course(budget=budget)


@pytest.mark.parametrize("value", [-1e-3, math.nan, math.inf])
def test_rates_that_are_none(value: float) -> None:
    for options in ({"learning_rate": value}, {"grid": (1e-3, value)}):
        with pytest.raises(KshotError, match=r"^learning rate .*: what works is a number above 0$"):
            Course(**options)


def test_no_rate_at_all(tiny_lm: LM) -> None:
    with pytest.raises(MethodError, match="no learning rate to learn with; give one, or a grid"):
        soft(tiny_lm, films(), Course(budget="2steps"))


@settings(max_examples=60, deadline=None)
@given(counts=st.lists(st.integers(1, 9), min_size=1, max_size=4), seed=st.integers(0, 99))
def test_what_is_held_out(counts: list[int], seed: int) -> None:
    labels = [f"l{j}" for j, n in enumerate(counts) for _ in range(n)]
    examples = tuple(Example(id=str(i), fields={}, label=label) for i, label in enumerate(labels))
    task = replace(films(), labels=tuple(dict.fromkeys(labels)))
    train, held, said = held_out(task, examples, "split", seed)
    assert (train, held, said) == held_out(task, examples, "split", seed)
    if len(examples) < 8:
        assert train == examples
        assert held == ()
        assert "too few" in said
        return
    assert len(held) == len(examples) // 4
    assert sorted((*train, *held), key=lambda e: int(e.id)) == list(examples)
    of = {label: sum(e.label == label for e in held) for label in task.labels}
    assert {label for label in task.labels if all(e.label != label for e in train)} <= {
        label for label, n in zip(task.labels, counts, strict=True) if n > 1 and of[label] == n
    }, "the only one of a label is not held out"
    # One of each in turn: no label has two more than another that still had some.
    for a in task.labels:
        for b in task.labels:
            assert of[a] <= of[b] + 1 or of[b] == counts[int(b[1:])] or counts[int(b[1:])] == 1


def test_what_is_held_out_otherwise() -> None:
    task = films()
    assert held_out(task, task.train, "none", 0) == (task.train, (), "no validation: as asked")
    blank = replace(task.validation[0], label=None)
    train, held, said = held_out(replace(task, validation=(blank, *task.validation)), task.train, "task", 0)
    assert (train, held, said) == (task.train, task.validation, "the task's own 6 validation examples")
    for empty in ((), (blank,)):
        with pytest.raises(MethodError, match="'films' has no validation examples of its own; give --validation split"):
            held_out(replace(task, validation=empty), task.train, "task", 0)


def test_the_better_half_goes_on(tiny_lm: LM, monkeypatch: pytest.MonkeyPatch) -> None:
    """Losses as told: the rate that is best at every look wins, and each rung stops half of those that are left."""
    worth = {0.001: 3.0, 0.01: 1.0, 0.1: 2.0, 0.2: 4.0}
    course = replace(SMALL, grid=tuple(worth), budget="16steps")
    now = []
    run = search_module.go_on

    def watched(pupil, learner, rows, until, recipe, *rest):
        now[:] = [recipe.learning_rate]
        return run(pupil, learner, rows, until, recipe, *rest)

    def look(self, placed, step):
        self.looks += 1
        return step, (worth[now[0]] - step / 100 if step else 9.0), 0.5

    monkeypatch.setattr(search_module, "go_on", watched)
    monkeypatch.setattr(Judge, "look", look)
    training = soft(tiny_lm, films(), course).training
    assert {one["learning_rate"]: one["steps"] for one in training.search} == {0.001: 4, 0.01: 16, 0.1: 8, 0.2: 4}
    assert training.chosen == {"learning_rate": 0.01, "steps": 16}
    assert all(
        [step for step, *_ in one["curve"]] == sorted({step for step, *_ in one["curve"]}) for one in training.search
    )


def test_the_least_validation_loss_wins_and_all_is_counted(tiny_lm: LM) -> None:
    task = films(16)
    found = soft(tiny_lm, task)
    training = found.training
    curves = {one["learning_rate"]: one["curve"] for one in training.search}
    least = min((loss, step, rate) for rate, curve in curves.items() for step, loss, _ in curve)
    assert (training.chosen["steps"], training.chosen["learning_rate"]) == least[1:]
    assert training.steps == training.chosen["steps"] == len(training.losses)
    assert training.parameters == found.placed.prefix.embeddings.numel() == 3 * 32
    rest, held, _ = held_out(task, task.train, "split", 0)
    given = replace(SMALL, validation="none", learning_rate=least[2], budget=f"{least[1]}steps")
    alone = soft(tiny_lm, replace(task, train=rest), given)
    assert alone.training.losses == training.losses
    assert all(torch.equal(a, b) for a, b in zip(bits(found), bits(alone), strict=True))
    # Every look reads what is held out, every step its batch: the search cost more than the fit.
    judge = Judge(tiny_lm, task, task.template, held)
    assert judge.look(found.placed, least[1])[1] == least[0], "what is kept is what was looked at, to the bit"
    looks = 1 + sum(len(curve) - 1 for curve in curves.values())
    steps = sum(one["steps"] for one in training.search)
    assert training.tokens > alone.training.tokens + looks * judge.tokens + 4 * steps
    assert training.flops > alone.training.flops + looks * judge.flops
    assert training.seconds > alone.training.seconds


def test_where_no_step_helps_the_start_of_all_examples_is_kept(tiny_lm: LM, monkeypatch: pytest.MonkeyPatch) -> None:
    task, began_from = films(16), []

    def make(taught):
        began_from.append(taught)
        return Start(learner=soft_rows(tiny_lm, tiny_lm.embedded(range(len(taught)))), template=task.template)

    for best, kept in ((0, 16), (12, 12)):

        def look(self, placed, step, best=best):
            self.looks += 1
            return step, float(abs(step - best)), 0.5

        monkeypatch.setattr(Judge, "look", look)
        found = learn(tiny_lm, task, task.train, make, SMALL, seed=0, key="grown")
        assert found.training.steps == best
        assert found.placed.prefix.length == len(began_from[-1]) == kept


def test_a_run_that_has_not_become_better_for_four_looks_is_over(tiny_lm: LM, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[float] = []

    def look(self, placed, step):
        self.looks += 1
        return step, told[min(step // 2, len(told) - 1)], 0.5

    monkeypatch.setattr(Judge, "look", look)
    course = replace(SMALL, grid=(0.01,), budget="20steps")
    for losses, steps in (
        ([3.0, 2.0, 2.5, 2.0, 2.0, 2.0, 1.0], 10),
        ([3.0, 2.0, 2.5, 2.0, 2.0, 1.9, 1.0], 20),
        ([1.0, 2.0], 8),
    ):
        told[:] = losses
        (only,) = soft(tiny_lm, films(), course).training.search
        assert (only["steps"], len(only["curve"])) == (steps, 1 + steps // 2)


def test_a_look_by_hand(tiny_lm: LM) -> None:
    task = films(8)
    judge = Judge(tiny_lm, task, task.template, task.train)
    learner = soft_rows(tiny_lm, tiny_lm.embedded((1, 2)))
    placed = learner.placed(learner.leaves)
    step, loss, accuracy = judge.look(placed, 5)
    losses, right = [], []
    for example in task.train:
        text = tiny_lm.codec.encode([task.template.render(example.fields)])[0]
        sums = []
        for label in task.labels:
            tokens = (*text, *tiny_lm.codec.encode([task.template.answer(label)])[0])
            read = torch.cat([tiny_lm.embedded((1, 2)), tiny_lm.embedded(tokens)])[None]
            now = tiny_lm.model(inputs_embeds=read, use_cache=False).logits[0].double().log_softmax(-1)
            sums.append(sum(float(now[2 + i - 1, tokens[i]]) for i in range(len(text), len(tokens))))
        gold = task.labels.index(example.label)
        losses.append(np.logaddexp.reduce(sums) - sums[gold])
        right.append(int(np.argmax(sums)) == gold)
    assert (step, accuracy) == (5, np.mean(right))
    assert loss == pytest.approx(np.mean(losses), abs=1e-4)


def test_nothing_but_its_own_examples_is_looked_at(tiny_lm: LM) -> None:
    """Test and validation examples that say the opposite: neither is read unless it is asked for."""
    task = films()
    other = {"bad": "good", "good": "bad"}
    mine = tuple(replace(e, id=f"t{e.id}", label=other[str(e.label)]) for e in task.train)
    found = soft(tiny_lm, replace(task, test=mine, validation=mine))
    assert told(found) == told(soft(tiny_lm, task))


def test_fit_twice_and_scoring_before_change_nothing(tiny_lm: LM) -> None:
    first = soft(tiny_lm, films())
    tiny_lm.score(gold_rows(tiny_lm, films(), films().template, films().train, whole=True))
    again = soft(tiny_lm, films())
    assert told(first) == told(again)
    assert all(torch.equal(a, b) for a, b in zip(bits(first), bits(again), strict=True))
    drawn = soft(tiny_lm, films(), replace(SMALL, draw=1, validation="none", batch=4))
    other = soft(tiny_lm, films(), replace(SMALL, validation="none", batch=4))
    assert drawn.training.losses != other.training.losses, "another draw has other batches"


def test_nothing_learned_may_win(tiny_lm: LM, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where every step only spoils none is taken, and what is kept is what was started from."""
    look = Judge.look

    def spoils(self, placed, step):
        found = look(self, placed, step)
        return step, found[1] + 9.0 * step, found[2]

    monkeypatch.setattr(Judge, "look", spoils)
    found = soft(tiny_lm, films())
    assert found.training.chosen["steps"] == found.training.steps == 0
    assert found.training.losses == ()
    assert found.training.flattened is None
    assert torch.equal(found.placed.prefix.embeddings, tiny_lm.embedded(range(3)))


def test_one_rate_that_diverges_does_not_end_the_search(tiny_lm: LM) -> None:
    course = replace(SMALL, grid=(1e-3, 1e38), optimiser="sgd", clip=0.0)
    training = thin(tiny_lm, films(), course).training
    said = {one["learning_rate"]: one["diverged"] for one in training.search}
    assert said[1e-3] is None
    assert "diverged at step" in said[1e38]
    assert training.chosen["learning_rate"] == 1e-3
    json.dumps([dict(one) for one in training.search], allow_nan=False)


@pytest.mark.parametrize("rates", [(1e38,), (1e38, 1e37)])
def test_where_every_rate_diverges_that_is_said(tiny_lm: LM, rates: tuple[float, ...], tmp_path: Path) -> None:
    course = replace(SMALL, grid=rates, optimiser="sgd", clip=0.0, state=str(tmp_path))
    with pytest.raises(
        MethodError, match=r"^diverged at step \d+: .* with sgd at learning rate 1e\+3[78]; try a smaller"
    ):
        thin(tiny_lm, films(), course)


def test_answers_that_are_no_numbers_are_divergence(tiny_lm: LM, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last step before a look may spoil what the look reads."""
    look = Judge.look

    def spoilt(self, placed, step):
        if step:
            raise NumericError("NaN")
        return look(self, placed, step)

    monkeypatch.setattr(Judge, "look", spoilt)
    with pytest.raises(MethodError, match="diverged at step 1: the answers are not numbers with adamw"):
        soft(tiny_lm, films())


@pytest.mark.parametrize(
    ("learning_rate", "learner", "said"),
    [(1e30, lambda lm: low_rank(lm, ("all-linear",), 2, 4.0, seed=0), "the answers are not numbers"),
     (10.0, lambda lm: whole_weights(lm, ("all",)), r"loss \d+")],
)  # fmt: skip
def test_a_last_step_that_spoils_it_is_divergence(tiny_lm: LM, learning_rate: float, learner, said: str) -> None:
    """No loss of a batch follows it, and nothing is held out."""
    course, task = Course(budget="1steps", learning_rate=learning_rate, clip=0.0), films(4)

    def make(taught: tuple[Example, ...]) -> Start:
        return Start(learner=learner(tiny_lm), template=task.template)

    with pytest.raises(
        Diverged, match=rf"^diverged at step 1: {said} with adamw at learning rate .*; try a smaller one$"
    ):
        learn(tiny_lm, task, task.train, make, course, seed=0, key="one")


def test_the_looks_at_its_own_examples_are_counted(tiny_lm: LM) -> None:
    """One before the first step, and one after the last where nothing is held out."""
    task = films(4)
    one, two = (
        soft(tiny_lm, task, Course(budget=f"{n}steps", learning_rate=0.01, validation="none")).training for n in (1, 2)
    )
    learner = soft_rows(tiny_lm, tiny_lm.embedded(range(3)))
    rows = gold_rows(tiny_lm, task, task.template, task.train, whole=False)
    asked = mean_loss(tiny_lm, learner.placed(learner.leaves), rows)
    assert asked.tokens >= 3 + sum(len(row.tokens) - row.start for row in rows)
    assert one.tokens - (two.tokens - one.tokens) == 2 * asked.tokens
    assert one.flops - (two.flops - one.flops) == pytest.approx(2 * asked.flops)


@pytest.mark.parametrize(
    ("losses", "said"),
    [([1.0] * 9, None), ([1.0] * 10, True), (list(range(20, 0, -1)), False),
     ([5, 4, 3, 2, 1, 1, 0.99, 0.98, 0.985, 0.98], True), ([0.0] * 10, True), ([1] * 8 + [2, 2], True)],
)  # fmt: skip
def test_flattened(losses: list[float], said: bool | None) -> None:
    assert flattened([float(loss) for loss in losses]) is said


def test_few_examples_and_missing_classes(tiny_lm: LM) -> None:
    one = replace(films(), train=films().train[:1])
    found = soft(tiny_lm, one)
    assert found.training.chosen == {"learning_rate": 0.01, "steps": 12}, "the middle of the grid and the whole budget"
    assert "1 examples are too few to hold any out" in found.training.validation
    assert found.notes == ("no example of 'good': only what the model already knows supports it",)
    assert found.training.losses[-1] < found.training.losses[0]
    assert unseen(films(), films().train) == ()


def test_no_room(tiny_lm: LM) -> None:
    narrow = replace(tiny_lm, context=30)
    with pytest.raises(
        MethodError, match=r"9 positions before the text and the longest example of \d+ tokens do not fit"
    ):
        soft(narrow, films(), length=9)
    long = replace(films(), train=tuple(replace(e, fields={"text": "x" * 40}) for e in films().train))

    def make(taught: tuple[Example, ...]) -> Start:
        return Start(learner=low_rank(narrow, ("q_proj",), 1, 1.0, seed=0), template=long.template)

    with pytest.raises(MethodError, match=r"^the longest example of \d+ tokens do not fit tiny-0, which reads 30"):
        learn(narrow, long, long.train, make, SMALL, seed=0, key="k")


def test_no_room_for_what_is_held_out(tiny_lm: LM) -> None:
    """The same is said wherever the one long example falls."""
    task = films()
    task = replace(task, train=(replace(task.train[0], fields={"text": "x" * 60}), *task.train[1:]))
    where = set()
    for seed in range(5, 12):
        where.add(task.train[0] in held_out(task, task.train, "split", seed)[1])
        with pytest.raises(
            MethodError, match=r"^3 positions before the text and the longest example of \d+ tokens do not"
        ):
            soft(replace(tiny_lm, context=40), task, seed=seed)
    assert where == {True, False}


def test_of_a_budget_in_seconds_the_steps_that_were_run_are_told(tiny_lm: LM) -> None:
    training = soft(tiny_lm, films(4), Course(budget="0.01seconds", learning_rate=0.01)).training
    assert training.chosen["steps"] == training.steps == len(training.losses) < 1000


def test_an_answer_that_is_no_label(tiny_lm: LM) -> None:
    task = films()
    wrong = replace(task, train=(replace(task.train[0], label="ugly"), *task.train[1:]))
    with pytest.raises(MethodError, match="example 'f0' has the answer 'ugly', which is not a label"):
        soft(tiny_lm, wrong)


def test_rows_are_those_of_scoring(tiny_lm: LM) -> None:
    task = films(2)
    (row, _) = gold_rows(tiny_lm, task, task.template, task.train, whole=False)
    assert tiny_lm.codec.decode(row.tokens) == "film 0 was a bore\n: bad"
    assert tiny_lm.codec.decode(row.tokens[row.start :]) == " bad"
    (whole, _) = gold_rows(tiny_lm, task, task.template, task.train, whole=True)
    assert (whole.tokens, whole.start) == (row.tokens, 1)
    spoken = replace(task, kind="open", labels=())
    (ended, _) = gold_rows(tiny_lm, spoken, task.template, task.train, whole=False)
    assert tiny_lm.codec.decode(ended.tokens[ended.start :]) == " bad\n"


def spelling(pre_tokenizer, decoder, *merges: str) -> LM:
    """The tiny model with a tokenizer of characters and pairs of them."""
    letters = ["\u2581", "\u010a", "\n", *map(chr, range(33, 127)), "<unk>"]
    known = {word: i for i, word in enumerate([*letters, *merges])}
    inner = Tokenizer(models.BPE(vocab=known, merges=[tuple(word) for word in merges], unk_token="<unk>"))
    inner.pre_tokenizer, inner.decoder = pre_tokenizer, decoder
    return tiny_of(tokenizer=PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="</s>", unk_token="<unk>"))


@pytest.mark.parametrize("merged", [False, True])
def test_an_open_answer_ends_as_it_does_in_a_text(merged: bool) -> None:
    """Where every text begins with a blank of its own, and where the answer's last letter and what ends it are one token."""
    if merged:
        level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        lm = spelling(level, decoders.ByteLevel(), "s\u010a")
    else:
        lm = spelling(pre_tokenizers.Metaspace(prepend_scheme="first"), decoders.Metaspace(prepend_scheme="first"))
    shown = Example(id="0", fields={"text": "cat->"}, label="cats")
    template = Template(input="{{text}}", delimiter="", separator="\n")
    task = Task(name="many", kind="open", labels=(), train=(shown,), test=(), template=template)
    (row,) = gold_rows(lm, task, task.template, task.train, whole=False)
    (text,) = lm.codec.encode(["cat->cats\n"])
    assert row.tokens == text
    assert lm.codec.decode(row.tokens[row.start :]) == "cats\n"
    (bare,) = gold_rows(lm, task, replace(task.template, separator=""), task.train, whole=False)
    assert lm.codec.decode(bare.tokens[bare.start :]) == "cats"
