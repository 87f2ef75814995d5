"""Serving: the answers of one packed pass are those of one query at a time, whichever artefacts they belong to."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import zoo

from kshot.adapt.prompting import InContext, ZeroShot
from kshot.data.task import Example, Task
from kshot.data.template import Template
from kshot.errors import KshotError, ModelError, PromptError, UnknownName
from kshot.measure.ensemble import combine
from kshot.measure.scoring import score
from kshot.model import tiny
from kshot.model.adapted import Adapted
from kshot.model.classifier import CLASSIFIERS
from kshot.model.delta import Delta, LowRank
from kshot.model.momentum import Momentum
from kshot.model.serve import ANSWER_TOKENS, RULES, answer_together, ensemble, fields_of, predict_together
from kshot.seeds import torch_stream

TEMPLATE = Template(input="T: {{text}}\nL:", words={"x": "no", "y": "yes it is"}, description="Say.")
POOL = tuple(Example(id=str(i), fields={"text": f"text {i * i}"}, label="xy"[i % 2]) for i in range(6))
TASK = Task(name="t", kind="classification", labels=("x", "y"), train=POOL, test=POOL[:3], template=TEMPLATE)
TEXTS = ["a", "a longer text", "", "text 4"]


@pytest.fixture(scope="module")
def lm64():
    """The bytes of the tiny model in float64."""
    lm = tiny.tiny_lm(2)
    return replace(lm, model=lm.model.double(), dtype=torch.float64)


def noise(name, *shape):
    return torch.randn(*shape, generator=torch_stream(0, "serve-test", name), dtype=torch.float64) * 0.3


def soft(lm, name):
    rows = noise(name, 4, 32)
    with torch.no_grad():
        prefix = replace(lm.prefill(rows), embeddings=rows)
    return Adapted(lm=lm, template=replace(TEMPLATE, description=""), prefix=prefix, labels=("x", "y"))


def lora(lm, name):
    one = LowRank(noise(name, 2, 32), noise(name + "up", 32, 2), 1.5)
    return Adapted(lm=lm, template=TEMPLATE, labels=("y", "x"), delta=Delta({"model.layers.0.self_attn.q_proj": one}))


def artefacts(lm):
    frequencies = CLASSIFIERS["frequencies"](labels=("x", "y"), counts=np.array([3, 1]))
    return [
        ZeroShot().fit(lm, TASK, POOL, 0),
        InContext(shots=3).fit(lm, TASK, POOL, 0),
        soft(lm, "a"),
        lora(lm, "b"),
        soft(lm, "c"),
        lora(lm, "d"),
        InContext(shots=2, pick="bm25").fit(lm, TASK, POOL, 0),
        InContext(shots=2, channel=True).fit(lm, TASK, POOL, 0),
        Adapted(lm=lm, template=TEMPLATE, labels=("x", "y"), classifier=frequencies),
        ZeroShot().fit(lm, replace(TASK, kind="open", labels=()), POOL, 0),
    ]


def same(one, two):
    assert one.label == two.label
    assert (one.probability is None) == (two.probability is None)
    if one.probability is not None:
        assert abs(one.probability - two.probability) < 1e-9
    assert list(one.logprobs) == list(two.logprobs)
    assert all(abs(one.logprobs[name] - two.logprobs[name]) < 1e-9 for name in one.logprobs)


def test_together_is_one_at_a_time(lm64):
    groups = [(taught, TEXTS[n % 3 :]) for n, taught in enumerate(artefacts(lm64))]
    together = predict_together(groups)
    for (taught, texts), own in zip(groups, together, strict=True):
        assert len(own) == len(texts)
        for text, one in zip(texts, own, strict=True):
            same(one, taught.predict([text])[0])


def test_the_numbers_are_those_of_scoring_and_of_a_plain_forward(lm64):
    adapted = InContext(shots=3).fit(lm64, TASK, POOL, 0)
    queries = [Example(id=f"q{i}", fields={"text": text}, label="x") for i, text in enumerate(TEXTS)]
    scored = score(adapted, TASK, queries).predictions.logprobs
    found = adapted.predict(TEXTS)
    table = np.array([[one.logprobs["x"], one.logprobs["y"]] for one in found])
    assert np.abs(table - scored).max() < 1e-9
    shown = "Say." + "".join(TEMPLATE.demonstration(e.fields, e.label) + "\n\n" for e in adapted.demonstrations)
    with torch.no_grad():
        for text, row in zip(TEXTS, table, strict=True):
            for label, value in zip("xy", row, strict=True):
                prompt = shown + TEMPLATE.render({"text": text})
                ids = lm64.codec.encode([prompt, prompt + TEMPLATE.answer(label)])
                logits = lm64.model(input_ids=torch.tensor([ids[1]])).logits[0].log_softmax(-1)
                plain = sum(float(logits[i - 1, ids[1][i]]) for i in range(len(ids[0]), len(ids[1])))
                assert abs(plain - value) < 1e-5  # the model's own norms are float32
    for one, row in zip(found, table, strict=True):
        assert one.label == "xy"[int(row.argmax())]
        assert one.probability == pytest.approx(1 / (1 + np.exp(-abs(row[0] - row[1]))))


def test_queries_of_several_prefixes_share_a_pass(tiny_lm, monkeypatch):
    passes = []
    whole = type(tiny_lm).forward

    def counted(self, read, current, rows):
        passes.append(len(read))
        return whole(self, read, current, rows)

    taught = [InContext(shots=n).fit(tiny_lm, TASK, POOL, 0) for n in (1, 2, 3)]
    monkeypatch.setattr(type(tiny_lm), "forward", counted)
    taught[0].predict(TEXTS)
    alone = len(passes)
    predict_together([(one, TEXTS) for one in taught])
    # each prompt may read its own trunk ahead; the queries of all are in one
    assert len(passes) - alone <= len(taught) * (alone - 1) + 1


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("members", [1, 2, 5])
def test_an_ensemble_is_that_of_the_measures(rule, members, tiny_lm):
    taught = [InContext(shots=3, order=n).fit(tiny_lm, TASK, POOL, n) for n in range(members)]
    queries = [Example(id=f"q{i}", fields={"text": text}, label="x") for i, text in enumerate(TEXTS)]
    judge = combine([score(one, TASK, queries).predictions for one in taught], rule).logprobs
    found = ensemble(taught, TEXTS, rule)
    table = np.array([[one.logprobs["x"], one.logprobs["y"]] for one in found])
    assert np.abs(table - judge).max() < 1e-4
    assert [one.label for one in found] == ["xy"[i] for i in judge.argmax(axis=1)]


def test_the_members_of_an_ensemble_may_be_of_any_kind(lm64):
    taught = [one for one in artefacts(lm64) if one.kind == "classification"]
    for rule in RULES:
        assert {one.label for one in ensemble(taught, TEXTS, rule)} <= {"x", "y"}


def test_open_answers_end_with_their_line(lm64):
    task = replace(TASK, kind="open", labels=())
    adapted = InContext(shots=2).fit(lm64, task, POOL, 0)
    for one in adapted.predict(TEXTS):
        assert "\n" not in one.label
        assert len(one.label) <= ANSWER_TOKENS
        assert (one.probability, dict(one.logprobs)) == (None, {})
    assert ensemble([adapted, adapted], TEXTS) == adapted.predict(TEXTS)


def test_open_answers_are_those_of_scoring(tiny_lm):
    task = replace(TASK, kind="open", labels=("x" * ANSWER_TOKENS,))
    adapted = InContext(shots=2).fit(tiny_lm, task, POOL, 0)
    queries = [Example(id=f"q{i}", fields={"text": text}, label="x" * ANSWER_TOKENS) for i, text in enumerate(TEXTS)]
    judge = score(adapted, task, queries).predictions.greedy
    for one, two in zip(adapted.predict(TEXTS), judge, strict=True):
        assert two.startswith(one.label[: ANSWER_TOKENS // 2])


def test_choices_come_with_the_query(tiny_lm):
    taught = Adapted(lm=tiny_lm, template=Template(input="{{q}} {{choices|join(' ')}}"), kind="choice")
    found = taught.predict([{"q": "which?", "choices": ["b", "c c"]}, {"q": "which?", "choices": ["d", "e", "f"]}])
    assert [set(one.logprobs) for one in found] == [{"b", "c c"}, {"d", "e", "f"}]
    with pytest.raises(PromptError, match="text 1: it has no choices; give them as a list of texts under 'choices'"):
        taught.predict([{"q": "which?", "choices": []}])
    with pytest.raises(PromptError, match="text 1: two of its choices are the same"):
        taught.predict([{"q": "which?", "choices": ["a", "a"]}])
    with pytest.raises(PromptError, match="text 1: its choices must be a list of texts"):
        taught.predict([{"q": "which?", "choices": "ab"}])
    with pytest.raises(PromptError, match="text 1: the template reads the fields choices, q, and this is a plain text"):
        taught.predict(["which?"])


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("x" * 3000, r"text 2: it needs 30\d\d tokens with its prompt, and tiny-0 reads 2048"),
        ({"words": "a"}, "text 2: the template reads the field 'text', and this has words"),
        ("\ud800", "text 2: field 'text' holds half a character"),
        ({"text": None}, "text 2: field 'text' is empty; give it text"),
        ({"text": float("nan")}, "text 2: field 'text' is empty; give it text"),
        ({"text": " "}, "text 2: field 'text' is empty; give it text"),
    ],
)
def test_a_bad_query_is_named_and_holds_up_no_other(query, said, tiny_lm):
    adapted = InContext(shots=2).fit(tiny_lm, TASK, POOL, 0)
    with pytest.raises(PromptError, match=said):
        adapted.predict(["a", query, "b"])
    one, two, three = answer_together([(adapted, ["a", query, "b"])])[0]
    assert isinstance(two, KshotError)
    assert [one.label, three.label] == [p.label for p in adapted.predict(["a", "b"])]


def test_what_cannot_be_asked(tiny_lm, lm64):
    one, other = ZeroShot().fit(tiny_lm, TASK, POOL, 0), ZeroShot().fit(lm64, TASK, POOL, 0)
    with pytest.raises(ModelError, match=r"share one model, and these have several \(tiny-0, tiny-2\)"):
        predict_together([(one, ["a"]), (other, ["a"])])
    with pytest.raises(UnknownName, match="unknown rule to combine prompts 'vote'"):
        ensemble([one], ["a"], "vote")
    with pytest.raises(PromptError, match="an ensemble of no members"):
        ensemble([], ["a"])
    with pytest.raises(PromptError, match="the same candidates, and these have different ones"):
        ensemble([one, replace(one, labels=("x", "z"))], ["a"])
    with pytest.raises(PromptError, match=r"no labels to choose from; give load_adapted labels="):
        replace(one, labels=()).predict(["a"])
    assert one.predict([]) == []
    assert predict_together([]) == []


def test_models_that_read_whole_rows_serve_too():
    lm = zoo.lm("bloom", torch.float64)
    adapted = InContext(shots=2).fit(lm, TASK, POOL, 0)
    for text, one in zip(TEXTS, adapted.predict(TEXTS), strict=True):
        same(one, adapted.predict([text])[0])


def test_what_holds_for_a_whole_pass_is_not_shared(lm64):
    """Momentum, and changes of weights of the model itself, beside artefacts without."""
    plain = Adapted(lm=lm64, template=TEMPLATE, labels=("x", "y"))
    momentum = replace(
        plain, lm=replace(lm64, momentum=Momentum(torch.full(lm64.value_heads, 0.5, dtype=torch.float64)))
    )
    changed = replace(plain, lm=replace(lm64, delta=lora(lm64, "e").delta))
    both = replace(changed, delta=lora(lm64, "f").delta)
    alone = [one.predict(["a"])[0] for one in (plain, momentum, changed, both)]
    assert len({one.logprobs["x"] for one in alone}) == 4
    for one, (found,) in zip(
        alone, predict_together([(t, ["a"]) for t in (plain, momentum, changed, both)]), strict=True
    ):
        same(found, one)


def test_a_filter_of_lm_eval_is_served(tiny_lm):
    template = replace(TEMPLATE, input="{% set t = text|regex_replace('a+', 'b') %}T: {{t}} {{title}}\nL:")
    taught = Adapted(lm=tiny_lm, template=template, labels=("x", "y"))
    assert fields_of(taught) == ["text", "title"]
    plain = replace(taught, template=replace(TEMPLATE, input="T: {{text}} {{title}}\nL:"))
    assert taught.predict([{"text": "caat", "title": "-"}]) == plain.predict([{"text": "cbt", "title": "-"}])


def test_a_query_whose_answers_cannot_be_said_holds_up_no_other(tiny_lm):
    taught = Adapted(lm=tiny_lm, template=Template(input="{{text}}:", delimiter=""), kind="choice")
    queries = [
        {"text": "q", "choices": ["a", "b"]},
        {"text": "r", "choices": ["", "b"]},
        {"text": "s", "choices": ["c", "d"]},
    ]
    one, two, three = answer_together([(taught, queries)])[0]
    assert isinstance(two, PromptError)
    assert [one, three] == taught.predict([queries[0], queries[2]])
    with pytest.raises(PromptError, match="text 2: the answer '' adds no token after its prompt"):
        taught.predict(queries)


def test_one_query_that_is_no_list_is_refused(tiny_lm):
    with pytest.raises(
        PromptError, match=r"a list of queries was expected, and this is a single one; put it in a list"
    ):
        ZeroShot().fit(tiny_lm, TASK, POOL, 0).predict("A joy.")
