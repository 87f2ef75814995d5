"""Demonstrations of another task, layer-causal descent and what a control keeps, against whole texts and plain passes."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from small import films

from kshot.adapt.descent import layer_causal_pass, one_pass
from kshot.adapt.train import Diverged
from kshot.data.task import Example, Task
from kshot.data.template import Template
from kshot.errors import MethodError, PromptError
from kshot.measure.similarity import sim_aou
from kshot.model.lm import LM
from kshot.study import compared as module
from kshot.study.attributed import Effort
from kshot.study.claims import CLAIMS, _found, _looked
from kshot.study.compared import Setting, answered_right, compared, controlled, layer_causal
from kshot.study.explain import PARTS, Study
from kshot.study.finetuned import right_answers
from kshot.study.likeness import _fine_tuned_maps
from kshot.study.parts import Cell, answered
from kshot.study.sizes import SIZES, Size
from kshot.study.three_runs import POSITIONS, RUNS, walked

SMALL = Size(shots=4, limit=6, validation=0, grid=(0.01,), effort=Effort(queries=3, pairs=2, orders=5), layer_causal=2)
RATE = 0.01


def asked_task() -> Task:
    task = films(40)
    return replace(task, template=Template(input="{{text}}\n:", separator="\n", words={"bad": "no", "good": "yes"}))


def other_task(n: int = 12) -> Task:
    """Three labels, another layout, a description."""
    rows = [("red", "sky"), ("green", "leaf"), ("blue", "sea")]
    examples = tuple(
        Example(id=f"things/{i}", fields={"thing": f"{rows[i % 3][1]} {i}"}, label=rows[i % 3][0]) for i in range(n)
    )
    template = Template(input="Q {{thing}}?", delimiter=" A ", separator=" // ", description="Colours. ")
    return Task(
        name="things",
        kind="classification",
        labels=("red", "green", "blue"),
        train=examples,
        test=examples[:1],
        template=template,
    )


def study(lm: LM, tasks: tuple[Task, ...] = (), other: Task | None = None, **more) -> Study:
    return Study(lm=lm, tasks=tasks or (asked_task(),), size=replace(SMALL, **more), seeds=(0,), other=other)


@pytest.fixture(scope="module")
def taught(tiny_lm: LM) -> Setting:
    own = study(tiny_lm, other=other_task())
    return own.taught_by_another(own.setting(own.tasks[0], 0))


def shown_text(own: Setting) -> str:
    """Written out, without what makes it elsewhere."""
    return "Colours. " + "".join(f"Q {e.fields['thing']}? A {e.label} // " for e in own.demonstrations)


def best_answer(lm: LM, before: str, query: Example) -> str:
    """The label with the best mean log-probability of its tokens, from the plain forward of each whole text."""
    found = {}
    for label, word in (("bad", " no"), ("good", " yes")):
        tokens = [*lm.codec.first, *(before + f"{query.fields['text']}\n:{word}").encode()]
        ids = torch.tensor(
            [list(lm.codec.first) + list(lm.codec.encode([before + f"{query.fields['text']}\n:{word}"])[0])]
        )
        assert ids.shape[1] == len(tokens), "a byte is a token"
        with torch.no_grad():
            logs = lm.model(input_ids=ids).logits[0].double().log_softmax(-1)
        places = range(ids.shape[1] - len(word), ids.shape[1])
        found[label] = sum(float(logs[i - 1, ids[0, i]]) for i in places) / len(word)
    return max(found, key=lambda label: found[label])


def check_texts(own: Setting) -> None:
    asked, decode = own.texts(), own.lm.codec.decode
    for query, alone, after in zip(asked.queries, asked.alone, asked.after, strict=True):
        text = f"{query.fields['text']}\n: no"
        assert decode(alone) == text
        assert decode(asked.tokens + after) == shown_text(own) + text
    for a, example in enumerate(own.demonstrations):
        said = decode([t for t, owner in zip(asked.tokens, asked.owner, strict=True) if owner == a])
        whole = f"Q {example.fields['thing']}? A {example.label} // "
        # the last separator may be read with the query
        assert whole.startswith(said)
        assert len(said) > len(whole) - 4
    assert (asked.owner[: len("Colours. ")] == -1).all()


def test_demonstrations_of_another_task_stand_in_its_layout(taught: Setting) -> None:
    assert len(taught.demonstrations) == 4
    assert {e.id.split("/")[0] for e in taught.demonstrations} == {"things"}
    assert {e.id.split("/")[0] for e in taught.queries} == {"films"}
    check_texts(taught)


def test_a_layout_of_the_wrong_task_is_caught(taught: Setting) -> None:
    with pytest.raises((AssertionError, PromptError)):
        check_texts(replace(taught, shown_in=None))
    wrong = replace(other_task().template, separator="\n", input="{{thing}}\n:")
    with pytest.raises(AssertionError):
        check_texts(replace(taught, shown_in=wrong))


def check_answers(own: Setting) -> None:
    right = answered_right(own)
    assert right["in-context"].tolist() == [best_answer(own.lm, shown_text(own), q) == q.label for q in own.queries]
    assert right["zero-shot"].tolist() == [best_answer(own.lm, "", q) == q.label for q in own.queries]


@pytest.mark.parametrize("which", ["own", "another task's"])
def test_a_comparison_reads_every_prompt_once(
    which: str, taught: Setting, tiny_lm: LM, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = taught if which != "own" else study(tiny_lm).setting(asked_task(), 0)
    own = replace(own, queries=asked_task().test[:6])
    done = one_pass(own.lm, *own.taught, own.demonstrations, RATE, record=True)

    def again() -> tuple[list[dict], dict[str, np.ndarray]]:
        # Steps of fine-tuning are passes of their own.
        return compared(own, RATE, descend=lambda *given, **more: done, brief=True)

    rows, right = again()
    alone = answered_right(own)
    assert {run: said.tolist() for run, said in right.items()} == {run: said.tolist() for run, said in alone.items()}
    tuned = right_answers(own.lm, own.task, own.template, own.queries, done.delta)
    (found,) = [row for row in rows if row["measure"] == "accuracy"]
    assert found["value"] == tuned.mean()

    def read(self, groups, *given, **more):
        assert not groups, "a prompt is read twice"
        return iter(())

    monkeypatch.setattr(LM, "stream_together", read)
    again()


def test_answers_after_another_task_are_those_of_whole_texts(
    tiny_lm: LM, taught: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = replace(taught, queries=asked_task().test[:20])
    check_answers(many)
    monkeypatch.setattr(module, "described", lambda template, shown, shown_in: template)
    with pytest.raises(AssertionError):
        check_answers(many)


def test_fine_tuning_is_on_the_other_task(taught: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple] = []

    def passed(lm, task, template, shown, rate, **more):
        seen.append((task.name, template, shown, rate))
        return one_pass(lm, task, template, shown, rate, **more)

    rows, _ = compared(taught, RATE, descend=passed, brief=True)
    assert seen == [("things", other_task().template, taught.demonstrations, RATE)]
    found = {(row["measure"], row["variant"]): row for row in rows if row["layer"] is None}
    assert found["kendall", f"{POSITIONS[0]}, scores"]["value"] is not None


def test_training_tokens_begin_after_the_description(taught: Setting) -> None:
    """Without it every demonstration of a described layout would be lost: the prefix says it once."""
    asked = taught.texts()
    done = one_pass(taught.lm, *taught.taught, taught.demonstrations, RATE, record=True)
    learned = module._learned(taught, asked, done)
    for a, example in enumerate(taught.demonstrations):
        said = taught.lm.codec.decode([asked.tokens[i] for i in learned.places[learned.owner == a]])
        assert said == f"Q {example.fields['thing']}? A {example.label}"
    begin = len(taught.lm.codec.first) + len("Colours. ")
    assert np.array_equal(learned.queries[:, :, 0], done.queries[0][:, :, begin])


def test_the_other_task_is_the_next_in_turn(tiny_lm: LM) -> None:
    one, two = asked_task(), other_task()
    assert study(tiny_lm, (one, two)).another(one) == two
    assert study(tiny_lm, (one, two)).another(two) == one
    assert study(tiny_lm, other=two).another(one) == two
    assert study(tiny_lm, (one, two), other=replace(two, name="third")).another(one) == two
    assert study(tiny_lm, other=one).another(one) is None
    assert study(tiny_lm).names == ("films",)


def test_as_many_demonstrations_as_the_other_task_allows(tiny_lm: LM) -> None:
    own = study(tiny_lm, other=other_task(3))
    setting = own.setting(own.tasks[0], 0)
    assert len(own.taught_by_another(setting).demonstrations) == 3
    rows, notes = controlled(setting, RATE, {"another task": lambda: own.taught_by_another(setting)})
    assert notes == ["demonstrations of another task are those of things, 3 where this one has 4"]
    assert {"another task, in-context", "corrected, another task, fine-tuned"} <= {row["variant"] for row in rows}


def test_a_query_is_not_among_the_demonstrations_of_another_task(tiny_lm: LM) -> None:
    one = asked_task()
    same = replace(one, name="songs", train=tuple(replace(e, id=f"song {e.id}") for e in (*one.test, *one.train)))
    own = study(tiny_lm, (one, same))
    setting = own.setting(one, 0)
    assert setting.queries
    asked = {query.fields["text"] for query in setting.queries}
    for seed in range(20):
        shown = own.taught_by_another(replace(setting, seed=seed)).demonstrations
        assert len(shown) == len(setting.demonstrations)
        assert not asked & {example.fields["text"] for example in shown}


def test_a_control_that_does_not_apply_says_why(tiny_lm: LM) -> None:
    own = study(tiny_lm)
    line = answered(own, PARTS, Cell(task="films", seed=0, part="controls"), _rates(), lambda what: None)
    assert line["failed"] is None
    assert line["notes"] == ["control 'another task' is left out: no other task was given; explain two tasks or more"]
    unlabelled = replace(other_task(), train=tuple(replace(e, label=None) for e in other_task().train))
    own = study(tiny_lm, other=unlabelled)
    setting = own.setting(own.tasks[0], 0)
    with pytest.raises(MethodError, match="task 'things' has no labelled examples; explain two tasks or more"):
        own.taught_by_another(setting)

    def fails() -> Setting:
        raise MethodError("it is Sunday")

    with pytest.raises(MethodError, match=r"^control 'x' is left out: it is Sunday; control 'y' is left out"):
        controlled(setting, RATE, {"x": fails, "y": fails})


def _rates() -> dict[str, dict]:
    return {"rates": {"failed": None, "rates": {"published": RATE, "corrected": RATE}}}


def test_a_control_keeps_what_the_critique_asks(tiny_lm: LM) -> None:
    own = study(tiny_lm).setting(asked_task(), 0)
    right = answered_right(own)
    whole, brief = (
        {(row["measure"], row["variant"], row["layer"]): row for row in compared(own, RATE, right, brief=short)[0]}
        for short in (False, True)
    )
    assert all(whole[key] == row for key, row in brief.items())
    expected = {("accuracy", "fine-tuned"), ("rec2ftp", "")}
    for position in POSITIONS:
        for form in ("normalised", "raw"):
            for null in ("lengths kept", "lengths and part along zero-shot kept"):
                expected.add(("sim_aou", f"{position}, {form}, null: {null}"))
        expected |= {("sim_am", f"{position}, {moment} fine-tuning") for moment in ("after", "before")}
        expected |= {("sim_am_delta", position), ("kendall", f"{position}, scores")}
    assert {key[:2] for key in brief} == expected


def test_maps_of_fine_tuning_are_sums_over_heads_and_keep_ties() -> None:
    rng = np.random.default_rng(0)
    tokens = rng.normal(size=(2, 3, 37, 5)).astype(np.float32)
    # tokens that are the same in all layers, at places where a matrix product would be cut
    tokens[:, :, 33:] = tokens[:, :, :4]
    last = rng.normal(size=(6, 2, 3, 5))
    found = _fine_tuned_maps(tokens, last)
    for own, query in zip(found, last, strict=True):
        expected = [
            [sum(float(tokens[layer, h, t] @ query[layer, h]) for h in range(3)) / 5 for t in range(37)]
            for layer in range(2)
        ]
        assert own == pytest.approx(np.array(expected), abs=1e-12)
        assert (own[:, 33:] == own[:, :4]).all()


def check_layer_causal(own: Setting) -> None:
    rows, notes = layer_causal(own, RATE, 2)
    found = {(row["measure"], row["variant"], row["layer"]): row for row in rows}
    assert len(found) == len(rows)
    few = replace(own, demonstrations=own.demonstrations[:2])
    done = layer_causal_pass(own.lm, own.task, own.template, few.demonstrations, RATE)
    (batch,) = walked(own.lm, few.texts(), done.delta)
    zsl, ft, icl = (batch[0].outputs[run] for run in RUNS)
    row = found["sim_aou", f"corrected, layer-causal, {POSITIONS[0]}, raw, null: lengths kept", None]
    assert row["value"] == pytest.approx(sim_aou(icl, zsl, ft, normalised=False).values.mean(), abs=1e-6)
    assert found["learning_rate", "corrected, layer-causal", None]["value"] == RATE
    # gradient descent and in-context learning on the same two
    beside, _ = compared(few, RATE, named=("corrected", "first 2 demonstrations"), brief=True)
    assert all(found[row["measure"], row["variant"], row["layer"]] == row for row in beside)
    shown = found["accuracy", "first 2 demonstrations, in-context", None]
    assert shown["value"] == answered_right(few)["in-context"].mean()
    assert notes == [
        "layer-causal gradient descent learns from the first 2 of 4 demonstrations; rows of 'first 2 demonstrations' are "
        "of the same",
        "layer-causal gradient descent has learning rate 0.01; none was searched, and gradient descent has 0.01",
    ]


def test_layer_causal_descent_is_its_own_pass(tiny_lm: LM, monkeypatch: pytest.MonkeyPatch) -> None:
    own = study(tiny_lm).setting(asked_task(), 0)
    check_layer_causal(own)
    monkeypatch.setattr(module, "layer_causal_pass", one_pass)
    with pytest.raises(AssertionError):
        check_layer_causal(own)


def test_with_few_demonstrations_gradient_descent_is_not_told_twice(tiny_lm: LM) -> None:
    own = study(tiny_lm).setting(asked_task(), 0)
    rows, notes = layer_causal(own, RATE, 4)
    assert len(notes) == 1
    assert all(row["variant"].startswith("corrected, layer-causal") for row in rows)


def _diverging(above: float) -> Callable:
    def passed(lm, task, template, shown, rate, **more):
        if rate > above:
            raise Diverged(f"diverged at step 3 at learning rate {rate:g}")
        return layer_causal_pass(lm, task, template, shown, rate, **more)

    return passed


def test_a_rate_at_which_it_diverges_is_lowered_and_said(tiny_lm: LM, monkeypatch: pytest.MonkeyPatch) -> None:
    own = study(tiny_lm).setting(asked_task(), 0)
    monkeypatch.setattr(module, "layer_causal_pass", _diverging(0.0005))
    rows, notes = layer_causal(own, RATE, 4)
    assert rows[0]["value"] == pytest.approx(0.0001)
    assert all(row["variant"].startswith("layer-causal") for row in rows), "another rate than the corrected one"
    assert [note for note in notes if "diverged" in note] == [
        f"layer-causal gradient descent diverged at step 3 at learning rate {rate}" for rate in ("0.01", "0.001")
    ]
    assert notes[-1].endswith("has learning rate 0.0001; none was searched, and gradient descent has 0.01")
    monkeypatch.setattr(module, "layer_causal_pass", _diverging(0.0))
    (row,), notes = layer_causal(own, RATE, 4)
    assert (row["value"], row["reason"]) == (None, "layer-causal gradient descent diverged at every rate tried")
    assert len(notes) == 4


def test_every_line_has_notes(tiny_lm: LM) -> None:
    own = study(tiny_lm, other=other_task())
    lines: dict[str, dict] = {}
    for cell in own.cells():
        if cell.part in ("rates", "runs", "controls", "layer-causal"):
            lines[cell.part] = answered(own, PARTS, cell, lines, lambda what: None)
    assert [line["failed"] for line in lines.values()] == [None] * 4
    assert [len(line["notes"]) for line in lines.values()] == [1, 0, 1, 2], "the rate was given, and that is said"
    keys = [(row["measure"], row["variant"], row["layer"]) for line in lines.values() for row in line["rows"]]
    assert len(set(keys)) == len(keys)
    empty = answered(
        replace(own, tasks=(replace(asked_task(), test=()),)), PARTS, own.cells()[0], {}, lambda what: None
    )
    assert (empty["notes"], empty["failed"] is None) == ([], False)


def test_controls_are_asked_the_first_of_the_queries(tiny_lm: LM) -> None:
    every, fewer = study(tiny_lm, other=other_task()), study(tiny_lm, other=other_task(), controls=4)
    lines: dict[str, dict[str, dict]] = {"every": {}, "fewer": {}}
    for name, own in (("every", every), ("fewer", fewer)):
        for cell in own.cells():
            if cell.part in ("rates", "runs", "controls", "layer-causal"):
                lines[name][cell.part] = answered(own, PARTS, cell, lines[name], lambda what: None)
    rates = [next(cell.id for cell in own.cells() if cell.part == "rates") for own in (every, fewer)]
    assert rates[0] == rates[1], "a learning rate is chosen once for both"
    for part, what in (("controls", "controls"), ("layer-causal", "layer-causal gradient descent")):
        assert lines["fewer"][part]["notes"][0] == f"{what}: the first 4 of 6 queries"
        assert not any("queries" in note for note in lines["every"][part]["notes"])
        of_all = {(row["measure"], row["variant"], row["layer"]): row for row in lines["every"][part]["rows"]}
        for row in lines["fewer"][part]["rows"]:
            if row.get("each") is not None:
                same = of_all[row["measure"], row["variant"], row["layer"]]
                assert row["each"] == pytest.approx(same["each"][:4], abs=1e-4), row["variant"]
    # What a claim sets against a control is of the queries that both were asked.
    rows = [row for line in lines["fewer"].values() for row in line["rows"]]
    (claim,) = [one for one in CLAIMS if one.text.endswith("SimAOU exceeds that with shuffled labels")]
    look = _looked(claim, rows)
    assert look is not None
    assert look.own is not None
    one, other = (_found(rows, "sim_aou", words)[0]["each"] for words in (claim.words, claim.rival))
    assert (len(one), len(other)) == (6, 4)
    assert look.own.value == pytest.approx(np.mean(np.subtract(one[:4], other)), abs=1e-6)


def test_only_the_controls_depend_on_the_other_task(tiny_lm: LM) -> None:
    one, two = study(tiny_lm, other=other_task()), study(tiny_lm, other=other_task(6))
    changed = {a.part for a, b in zip(one.cells(), two.cells(), strict=True) if a.id != b.id}
    assert changed == {"controls"}
    assert one.identity != two.identity
    assert one.identity == study(tiny_lm, other=other_task()).identity


def test_sizes_and_published_numbers(tiny_lm: LM) -> None:
    assert {name: size.layer_causal for name, size in SIZES.items()} == {"smoke": 2, "medium": 8, "full": 8}
    texts = tuple(replace(e, label="positive") for e in films(120).train)
    known = replace(films(), name="sst2", labels=("negative", "positive"), train=texts)
    assert len(study(tiny_lm, (known,), shots=40).setting(known, 0).demonstrations) == 32
    assert len(study(tiny_lm, (known,), shots=40, capped=False).setting(known, 0).demonstrations) == 40
    assert list(PARTS)[:2] == ["rates", "runs"], "what is told first of equals is of all demonstrations"
