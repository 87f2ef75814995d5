"""Scoring against its judge: the whole prompt as one text, one candidate at a time, by the model's plain forward."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Metaspace, Sequence, Split
from transformers import PreTrainedTokenizerFast

from kshot.adapt import InContext, ZeroShot
from kshot.data.pick import pick
from kshot.data.task import Example, Task
from kshot.data.template import Template
from kshot.errors import NumericError, PromptError
from kshot.measure.calibrate import SCORES, why_undefined
from kshot.measure.greedy import ending
from kshot.measure.scoring import CONTENT_FREE, DOMAIN_TEXTS, score
from kshot.model.said import Answers
from kshot.model.tokens import Codec

TEMPLATE = Template(
    input="Review: {{text}}\nIs it good?", words={"no": "bad", "yes": "very good"}, description="Films.\n\n"
)


def example(i, text, label, **more):
    return Example(id=f"e{i}", fields={"text": text}, label=label, **more)


TEXTS = ["a joy", "a bore", "never dull", "いい映画", "so long that it hurts", "brisk", "a mess", "好看"]
TASK = Task(
    name="films",
    kind="classification",
    labels=("no", "yes"),
    train=tuple(example(i, t, ("no", "yes")[i % 2]) for i, t in enumerate(TEXTS)),
    test=tuple(example(100 + i, t + "!", ("no", "yes")[i % 2]) for i, t in enumerate(TEXTS[:5])),
    template=TEMPLATE,
)


def plain(lm, prompt, continuation):
    """log P(continuation | prompt), token by token from the logits of the whole text."""
    before, whole = lm.codec.encode([prompt, prompt + continuation])
    assert whole[: len(before)] == before
    with torch.no_grad():
        logprobs = lm.model(input_ids=torch.tensor([whole])).logits[0].double().log_softmax(-1)
    return sum(float(logprobs[i - 1, whole[i]]) for i in range(len(before), len(whole)))


def shown(examples):
    return "Films.\n\n" + "".join(TEMPLATE.demonstration(e.fields, e.label) + "\n\n" for e in examples)


@pytest.mark.parametrize("shots", [0, 1, 3])
def test_direct_scores_are_those_of_the_whole_text(tiny_lm, shots):
    method = InContext(shots=shots, pick="first_n") if shots else ZeroShot()
    found = score(method.fit(tiny_lm, TASK, TASK.train, 0), TASK, TASK.test).predictions
    head = shown(TASK.train[:shots])
    for row, query in zip(found.logprobs, TASK.test, strict=True):
        prompt = head + TEMPLATE.render(query.fields)
        assert row == pytest.approx([plain(tiny_lm, prompt, " bad"), plain(tiny_lm, prompt, " very good")], abs=1e-4)
    assert found.tokens.tolist() == [[4, 10]] * 5
    assert found.characters.tolist() == [[3, 9]] * 5
    assert found.gold.tolist() == [0, 1, 0, 1, 0]


def test_channel_scores_the_input_after_each_answer(tiny_lm):
    method = InContext(shots=2, pick="first_n", channel=True)
    found = score(method.fit(tiny_lm, TASK, TASK.train, 0), TASK, TASK.test).predictions
    words = {"no": "bad", "yes": "very good"}
    head = "Films.\n\n" + "".join(f"{words[e.label]}\n{TEMPLATE.render(e.fields)}\n\n" for e in TASK.train[:2])
    for row, query in zip(found.logprobs, TASK.test, strict=True):
        text = TEMPLATE.render(query.fields)
        assert row == pytest.approx([plain(tiny_lm, f"{head}{words[n]}\n", text) for n in ("no", "yes")], abs=2e-4)


def test_calibration_rows_stand_after_the_same_demonstrations(tiny_lm):
    found = score(InContext(shots=2, pick="first_n").fit(tiny_lm, TASK, TASK.train, 0), TASK, TASK.test).predictions
    head = shown(TASK.train[:2])
    for row, text in zip(found.content_free, CONTENT_FREE, strict=True):
        prompt = head + TEMPLATE.render({"text": text})
        assert row == pytest.approx([plain(tiny_lm, prompt, " bad"), plain(tiny_lm, prompt, " very good")], abs=1e-4)
    assert found.domain.shape == (DOMAIN_TEXTS, 2)
    empty = "Films.\n\n" + TEMPLATE.render({"text": ""})
    for row in found.unconditional:
        assert row == pytest.approx([plain(tiny_lm, empty, " bad"), plain(tiny_lm, empty, " very good")], abs=1e-4)


def test_random_in_domain_texts_hold_no_answer(tiny_lm):
    """Words are drawn from what the layout shows: a field that it does not name may be the answer."""
    told = [replace(e, fields={**e.fields, "label_text": f"secret-{e.label}"}) for e in TASK.test]
    adapted = InContext(shots=2, pick="first_n").fit(tiny_lm, TASK, TASK.train, 0)
    plain_rows, with_more = (score(adapted, TASK, rows).predictions.domain for rows in (TASK.test, told))
    assert np.array_equal(plain_rows, with_more)


NESTED = replace(TEMPLATE, input="Review: {{doc.text}} {{choices[0]}}\nIs it good?")


def test_inputs_within_lists_and_mappings_are_emptied_too(tiny_lm):
    rows = [replace(e, fields={"doc": {"text": e.fields["text"]}, "choices": [e.fields["text"]]}) for e in TASK.test]
    found = score(ZeroShot(template=NESTED).fit(tiny_lm, TASK, (), 0), TASK, rows).predictions
    for row, text in zip(found.content_free, CONTENT_FREE, strict=True):
        prompt = f"Films.\n\nReview: {text} {text}\nIs it good?"
        assert row == pytest.approx([plain(tiny_lm, prompt, " bad"), plain(tiny_lm, prompt, " very good")], abs=1e-4)
    assert np.abs(SCORES["unconditional_likelihood_normalized"](found)).min() > 0


@pytest.mark.parametrize("layout", ["Review: {{number}}\nIs it good?", "{{ {7: 'a', 8: 'b'}[number] }}:"])
def test_rules_that_need_another_input_are_undefined_where_there_is_none(tiny_lm, layout):
    """A number cannot be emptied: the query itself would stand for an input without content."""
    rows = [replace(e, fields={"number": 7 + i % 2, "note": "x"}) for i, e in enumerate(TASK.test)]
    template = replace(TEMPLATE, input=layout)
    found = score(ZeroShot(template=template).fit(tiny_lm, TASK, (), 0), TASK, rows).predictions
    assert (found.content_free, found.domain, found.unconditional) == (None, None, None)
    assert SCORES["contextual_calibration"](found) is None
    assert why_undefined("contextual_calibration", found) == "no content-free inputs were scored"
    said = "the answers were not scored without their input"
    assert why_undefined("unconditional_likelihood_normalized", found) == said
    assert SCORES["sum"](found) is not None


def test_who_does_not_calibrate_pays_for_no_calibration(tiny_lm):
    adapted = InContext(shots=2, pick="first_n").fit(tiny_lm, TASK, TASK.train, 0)
    whole, bare = score(adapted, TASK, TASK.test), score(adapted, TASK, TASK.test, calibration=False)
    assert bare.predictions.logprobs == pytest.approx(whole.predictions.logprobs, abs=1e-4)
    assert bare.tokens < whole.tokens
    rows = bare.predictions
    assert (rows.content_free, rows.domain, rows.unconditional) == (None, None, None)


def test_examples_with_choices_of_their_own(tiny_lm):
    rows = (
        example(1, "2+2", "four", choices=("four", "five", "twenty-two")),
        example(2, "sky", "blue", choices=("red", "blue")),
    )
    task = replace(TASK, kind="choice", labels=(), test=rows)
    found = score(ZeroShot().fit(tiny_lm, task, (), 0), task, rows).predictions
    prompt = "Films.\n\n" + TEMPLATE.render({"text": "sky"})
    assert found.logprobs[1] == pytest.approx(
        [plain(tiny_lm, prompt, " red"), plain(tiny_lm, prompt, " blue"), -np.inf], abs=1e-4
    )
    assert found.gold.tolist() == [0, 1]
    assert found.tokens[1].tolist() == [4, 5, 0]
    assert found.content_free is None


def test_open_tasks_are_answered_greedily_up_to_a_line_break(tiny_lm):
    pairs = (("a", "b"), ("c", "d"), ("e", "f"))
    rows = tuple(Example(id=i, fields={"input": i}, label=o) for i, o in pairs)
    task = Task(name="next", kind="open", labels=("b", "d", "f"), train=rows[:1], test=rows[1:],
                template=Template(input="{{input}} ->", separator="\n"))  # fmt: skip
    found = score(InContext(shots=1).fit(tiny_lm, task, task.train, 0), task, task.test).predictions
    longest = 2 + 1 + 1  # the tokens of " b", one for the seam, one more
    for query, answer in zip(task.test, found.greedy, strict=True):
        tokens = list(tiny_lm.codec.encode([f"a -> b\n{query.fields['input']} ->"])[0])
        start = len(tokens)
        with torch.no_grad():
            while len(tokens) < start + longest and "\n" not in tiny_lm.codec.decode(tokens[start:]).lstrip(" "):
                tokens.append(int(tiny_lm.model(input_ids=torch.tensor([tokens])).logits[0, -1].argmax()))
        assert answer == tiny_lm.codec.decode(tokens[start:]).split("\n")[0].strip()
    assert found.gold_text == ("d", "f")


def test_a_delimiter_may_hold_a_line_break(tiny_lm):
    """What ends an open answer is looked for after the delimiter, which the model says too."""
    rows = tuple(Example(id=i, fields={"input": i}, label=i) for i in "abc")
    task = Task(name="next", kind="open", labels=("b", "c"), train=rows[:1], test=rows[1:],
                template=Template(input="{{input}}:", delimiter="\n", separator="\n\n"))  # fmt: skip
    adapted = InContext(shots=1).fit(tiny_lm, task, task.train, 0)

    def says(self, prompts, done, limit, **_):
        assert not done("\n")
        assert not done("\nb")
        assert done("\nb\n")
        return Answers(tuple(f"\n{e.label}\n\nx" for e in task.test), 0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(adapted.reader), "greedy", says)
        found = score(adapted, task, task.test).predictions
    assert found.greedy == found.gold_text == ("b", "c")


def test_the_token_that_ends_an_answer_is_the_one_that_stands_after_it():
    """A tokenizer that begins every text with a blank says another one for a separator alone."""
    vocabulary = {token: i for i, token in enumerate(["▁", "▁b", "\n", "b", "▁c", "<unk>"])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Sequence([Metaspace(prepend_scheme="always"), Split("\n", "isolated")])
    codec = Codec(PreTrainedTokenizerFast(tokenizer_object=tokenizer), (), None)
    task = replace(TASK, kind="open", labels=("b", "c"))
    assert codec.encode(["\n"])[0][:1] == (vocabulary["▁"],)
    assert ending(codec, Template(input="{{text}}:", separator="\n"), task) == (vocabulary["\n"],)
    assert ending(codec, Template(input="{{text}}:", separator=""), task) == ()


@pytest.mark.parametrize("how", ["bm25", "hidden"])
def test_retrieved_demonstrations_are_each_querys_own(tiny_lm, how):
    adapted = InContext(shots=2, pick=how).fit(tiny_lm, TASK, TASK.train, 0)
    found = score(adapted, TASK, TASK.test).predictions
    for row, query in zip(found.logprobs, TASK.test, strict=True):
        prompt = shown(adapted.retrieve(query)) + TEMPLATE.render(query.fields)
        assert row == pytest.approx([plain(tiny_lm, prompt, " bad"), plain(tiny_lm, prompt, " very good")], abs=1e-4)


def test_a_query_is_never_its_own_demonstration(tiny_lm):
    adapted = InContext(shots=3, pick="bm25").fit(tiny_lm, TASK, TASK.train, 0)
    for query in TASK.train:
        assert query.id not in {e.id for e in adapted.retrieve(query)}


def short(lm, context):
    return replace(lm, context=context)


def test_whole_demonstrations_are_dropped_from_the_far_end(tiny_lm):
    lm = short(tiny_lm, 140)
    outcome = score(InContext(shots=4, pick="first_n").fit(lm, TASK, TASK.train, 0), TASK, TASK.test)
    assert 0 < outcome.dropped < 4
    head = shown(TASK.train[outcome.dropped : 4])
    for row, query in zip(outcome.predictions.logprobs, TASK.test, strict=True):
        prompt = head + TEMPLATE.render(query.fields)
        assert row[0] == pytest.approx(plain(lm, prompt, " bad"), abs=1e-4)


def test_too_long_prompts_are_skipped_or_refused_when_asked(tiny_lm):
    lm = short(tiny_lm, 130)
    adapted = InContext(shots=2, pick="first_n").fit(lm, TASK, TASK.train, 0)
    outcome = score(adapted, TASK, TASK.test, overlength="skip")
    assert outcome.skipped == ("e104",)
    assert outcome.predictions.ids == ("e100", "e101", "e102", "e103")
    with pytest.raises(PromptError, match=r"the longest prompt needs \d+ tokens and tiny-0 reads 130"):
        score(adapted, TASK, TASK.test, overlength="error")
    with pytest.raises(PromptError, match="even without demonstrations; try --overlength skip"):
        score(replace(adapted, lm=short(tiny_lm, 30)), TASK, TASK.test)


def test_labels_that_become_the_same_tokens_are_refused(tiny_lm):
    twins = replace(TEMPLATE, words={"no": "good", "yes": "good"})
    with pytest.raises(PromptError, match="labels 'no' and 'yes' become the same tokens; give them different words"):
        score(ZeroShot(template=twins).fit(tiny_lm, TASK, (), 0), TASK, TASK.test)


def test_not_a_number_is_never_a_score(tiny_lm):
    net = type(tiny_lm.model)(tiny_lm.model.config).eval()
    net.load_state_dict(tiny_lm.model.state_dict())
    net.model.norm.weight.data[3] = float("nan")
    broken = replace(tiny_lm, model=net)
    with pytest.raises(NumericError, match=r"tiny-0 answered with NaN in torch.float32"):
        score(ZeroShot().fit(broken, TASK, (), 0), TASK, TASK.test)


def test_nothing_to_score_costs_nothing(tiny_lm):
    outcome = score(ZeroShot().fit(tiny_lm, TASK, (), 0), TASK, ())
    assert outcome.tokens == 0
    assert outcome.predictions.ids == ()


def test_the_same_set_in_another_order_is_another_prompt(tiny_lm):
    a = InContext(shots=4, order=0).fit(tiny_lm, TASK, TASK.train, 0)
    b = InContext(shots=4, order=1).fit(tiny_lm, TASK, TASK.train, 0)
    assert {e.id for e in a.demonstrations} == {e.id for e in b.demonstrations}
    assert [e.id for e in a.demonstrations] != [e.id for e in b.demonstrations]
    assert a.demonstrations == pick(TASK.train, 4, "random", 0, labels=TASK.labels)
