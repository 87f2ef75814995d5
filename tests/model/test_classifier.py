"""Classifiers as values: read back to the bit, right by hand, and features as the plain forward gives them."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import zoo
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save

from kshot.data.task import Example
from kshot.data.template import Template, content
from kshot.errors import ModelError, NumericError, PromptError, UnknownName
from kshot.model.classifier import (
    CLASSIFIERS,
    Classifier,
    Frequencies,
    HiddenNeighbours,
    HiddenRegression,
    WordNeighbours,
    WordRegression,
    over,
    restored,
    succession,
    votes,
)
from kshot.model.hidden import fitting, inputs, last_hidden, mean_hidden
from kshot.model.terms import units

TEMPLATE = Template(input="Text: {{text}}\nLabel:", description="Judge.\n")
WIDTH = 32


def rows(*texts):
    return [Example(id=f"q{i}", fields={"text": text}, label=None) for i, text in enumerate(texts)]


ASKED = rows("a joy", "", "never a joy, a bore", "いい映画", "dull dull joy")


def sequences(seed=0):
    """Ragged, after one beginning; one begins another, one comes twice."""
    rng = np.random.default_rng(seed)
    found = [s.tokens for s in zoo.forest(rng, 21, 6)[::5]]
    return [*found, found[0][:25], found[1]]


@pytest.mark.parametrize("name", [*zoo.TREE, *zoo.ROWS])
def test_hidden_states_are_those_of_each_whole_sequence(name):
    lm, asked = zoo.lm(name), sequences()
    with torch.no_grad(), zoo.Pure64():
        plain = [lm.model.base_model(input_ids=torch.tensor([s]), use_cache=False).last_hidden_state[0] for s in asked]
        last = torch.stack([states[-1] for states in plain]).numpy()
        mean = torch.stack([states.mean(0) / states.mean(0).norm() for states in plain]).numpy()
        for model in (lm, replace(lm, tokens_per_pack=40)):
            assert last_hidden(model, asked)[0] == pytest.approx(last, abs=1e-9)
            assert mean_hidden(model, asked)[0] == pytest.approx(mean, abs=1e-9)


def test_what_inputs_share_is_run_once(tiny_lm):
    asked = inputs(tiny_lm, TEMPLATE, ASKED, described=False)
    found, tokens = mean_hidden(tiny_lm, asked)
    alone = np.concatenate([mean_hidden(tiny_lm, [own])[0] for own in asked])
    assert found == pytest.approx(alone, abs=1e-5)
    assert 0 < tokens < sum(map(len, asked))


def test_it_is_what_the_models_own_head_reads():
    lm, asked = zoo.lm("llama"), sequences(1)
    with torch.no_grad(), zoo.Pure64():
        logits = torch.stack([lm.model(input_ids=torch.tensor([s])).logits[0, -1] for s in asked])
        found = torch.from_numpy(last_hidden(lm, asked)[0])
        assert lm.model.get_output_embeddings()(found).numpy() == pytest.approx(logits.numpy(), abs=1e-9)


@pytest.mark.parametrize("name", ["llama", next(iter(zoo.ROWS))])
def test_the_tokens_run_are_counted(name):
    lm, asked = zoo.lm(name), sequences()
    distinct = {s[:n] for s in asked for n in range(1, len(s) + 1)}
    with zoo.Pure64():
        _, tokens = last_hidden(lm, asked)
    assert tokens == (len(distinct) if lm.route.kind == "tree" else sum(map(len, set(asked))))


def made(kind, labels=("no", "yes", "so")):
    rng = np.random.default_rng(0)
    c = len(labels)
    r = c if c > 2 else c - 1
    label_of = np.arange(2 * c) % c
    terms = ("a", "joy", "a joy", "bore", "いい")
    built: dict[str, Classifier] = {
        "frequencies": Frequencies(labels=labels, counts=np.arange(1, c + 1)),
        "hidden-regression": HiddenRegression(
            labels=labels,
            shots=6,
            mean=rng.normal(size=WIDTH),
            scale=rng.uniform(1, 2, WIDTH),
            weights=rng.normal(size=(r, WIDTH)),
            bias=rng.normal(size=r),
        ),
        "word-regression": WordRegression(
            labels=labels,
            shots=6,
            unit="words",
            terms=terms,
            idf=rng.uniform(1, 2, 5),
            weights=rng.normal(size=(r, 5)),
            bias=rng.normal(size=r),
        ),
        "hidden-neighbours": HiddenNeighbours(
            labels=labels, neighbours=2, label_of=label_of, embeddings=rng.normal(size=(2 * c, WIDTH))
        ),
        "word-neighbours": WordNeighbours(
            labels=labels, neighbours=2, label_of=label_of, texts=tuple(f"a joy {i} いい" for i in range(2 * c))
        ),
    }
    return built[kind]


@pytest.mark.parametrize("labels", [("no", "yes", "so"), ("no", "yes"), ("no",)])
@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_read_back_it_answers_the_same_to_the_bit(kind, labels, tiny_lm):
    own = made(kind, labels)
    assert isinstance(own, Classifier)
    arrays = {name: np.ascontiguousarray(array) for name, array in own.arrays().items()}
    again = restored(json.loads(json.dumps(own.facts())), load(save(arrays)))
    first, tokens = own.logprobs(tiny_lm, TEMPLATE, ASKED)
    second, spent = again.logprobs(tiny_lm, TEMPLATE, ASKED)
    assert np.array_equal(first, second)
    assert (tokens, own.shots, own.parameters, own.labels) == (spent, again.shots, again.parameters, again.labels)
    assert own.needs(tiny_lm, TEMPLATE, ASKED) == again.needs(tiny_lm, TEMPLATE, ASKED)


@pytest.mark.parametrize("labels", [("no", "yes", "so"), ("no", "yes"), ("no",)])
@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_answers_are_probabilities(kind, labels, tiny_lm):
    table, _ = made(kind, labels).logprobs(tiny_lm, TEMPLATE, ASKED)
    assert table.shape == (len(ASKED), len(labels))
    assert np.isfinite(table).all()
    assert np.exp(table).sum(axis=1) == pytest.approx(1)
    assert made(kind, labels).logprobs(tiny_lm, TEMPLATE, [])[0].shape == (0, len(labels))


def test_word_regression_by_hand(tiny_lm):
    own = made("word-regression")
    vector = np.zeros(5)
    vector[[0, 1, 2, 3]] = [2, 1, 1, 1]  # "never a joy, a bore": a twice; "a bore" is no term of it
    vector *= own.idf
    logits = own.weights @ (vector / np.sqrt((vector**2).sum())) + own.bias
    expected = logits - np.log(np.exp(logits).sum())
    assert own.logprobs(tiny_lm, TEMPLATE, ASKED)[0][2] == pytest.approx(expected, abs=1e-12)
    empty = own.bias - np.log(np.exp(own.bias).sum())
    assert own.logprobs(tiny_lm, TEMPLATE, ASKED)[0][1] == pytest.approx(empty, abs=1e-12)


def test_hidden_regression_reads_the_input_after_its_description(tiny_lm):
    own = made("hidden-regression", ("no", "yes"))
    text = "Judge.\nText: a joy\nLabel:"
    ids = torch.tensor([[*tiny_lm.codec.first, *tiny_lm.codec.encode([text])[0]]])
    with torch.no_grad():
        hidden = tiny_lm.model.model(input_ids=ids).last_hidden_state[0, -1].double().numpy()
    logit = own.weights[0] @ ((hidden - own.mean) / own.scale) + own.bias[0]
    table, tokens = own.logprobs(tiny_lm, TEMPLATE, ASKED[:1])
    assert table[0] == pytest.approx([-np.log1p(np.exp(logit)), -np.log1p(np.exp(-logit))], abs=1e-4)
    assert tokens == ids.shape[1] == own.needs(tiny_lm, TEMPLATE, ASKED[:1])[0]


def test_votes_by_hand():
    similarities = np.array([[0.9, 0.5, 0.8, 0.1], [0.0, 0.0, 0.0, 0.0]])
    label_of = np.array([1, 0, 0, 1])
    assert np.exp(votes(similarities, label_of, 2, 1)[0]) == pytest.approx(np.array([0 + 1 / 3, 1 + 2 / 3]) / 2)
    assert np.exp(votes(similarities, label_of, 2, 3)[0]) == pytest.approx(np.array([2 + 1 / 3, 1 + 2 / 3]) / 4)
    # Two votes, one each: the nearer one decides.
    assert votes(similarities, label_of, 2, 2)[0].argmax() == 1
    # All alike: the earlier example is nearer.
    assert votes(similarities, label_of, 2, 1)[1].argmax() == 1


@given(st.integers(0, 10**6), st.integers(1, 9), st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_the_most_votes_win(seed, neighbours, labels):
    rng = np.random.default_rng(seed)
    label_of = np.concatenate([np.arange(labels), rng.integers(0, labels, 9 - labels)])
    similarities = rng.normal(size=(5, 9)) * 300
    table = votes(similarities, label_of, labels, neighbours)
    assert np.isfinite(table).all()
    assert (table <= 0).all()
    assert np.exp(table).sum(axis=1) == pytest.approx(1)
    for row, found in zip(similarities, table, strict=True):
        nearest = sorted(range(9), key=lambda i: -row[i])[:neighbours]
        counts = [sum(label_of[i] == c for i in nearest) for c in range(labels)]
        tied = [c for c in range(labels) if counts[c] == max(counts)]
        # Of labels with as many votes the one whose example is nearest.
        assert found.argmax() == max(tied, key=lambda c: row[label_of == c].max())


def test_what_was_never_seen_has_a_floor_and_is_never_the_answer(tiny_lm):
    for kind in CLASSIFIERS:
        own = made(kind, ("no", "yes"))
        table, _ = own.logprobs(tiny_lm, TEMPLATE, ASKED)
        found = np.exp(over(own, table, ("far", "no", "off", "yes")))
        assert found.sum(axis=1) == pytest.approx(1)
        assert found[:, [0, 2]] == pytest.approx(1 / (own.shots + 4))
        assert set(found.argmax(axis=1).tolist()) <= {1, 3}
        assert over(own, table, ("yes", "no")) == pytest.approx(table[:, ::-1])


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.integers(0, 5))
def test_frequencies_go_by_one_rule_with_labels_unseen(seen, unseen):
    counts = np.array(seen)
    own = Frequencies(labels=tuple("abcd"[: len(seen)]), counts=counts)
    table = np.tile(succession(counts), (1, 1))
    found = over(own, table, (*own.labels, *"uvwxy"[:unseen]))
    whole = np.concatenate([counts, np.zeros(unseen)])
    assert np.exp(found[0]) == pytest.approx((whole + 1) / (whole.sum() + whole.size))


def test_answers_that_are_no_candidates_keep_their_share(tiny_lm):
    own = made("frequencies", ("red", "blue"))
    table, _ = own.logprobs(tiny_lm, TEMPLATE, ASKED[:1])
    found = np.exp(over(own, table, ("blue", "green")))[0]
    # 1 red and 2 blue: 3 / 6 of blue, 1 / 6 of green, and 2 / 6 of red are left out.
    assert found == pytest.approx([3 / 6, 1 / 6])


def test_content_is_what_the_layout_names():
    fields = {"label": "positive", "b": ["two", "three"], "text": "a joy", "idx": 7}
    layout = Template(input="Text: {{ text|regex_replace('joy', 'x') }}{% if b %} and {{b}}{% endif %}:")
    assert content(layout, fields) == "a joy\ntwo three"
    assert content(Template(input="{% set q = text %}{{q}}"), fields) == "a joy"
    assert content(Template(input="a joy"), fields) == ""
    with pytest.raises(PromptError, match=r"template '\{\{other\}\}': 'other' is undefined"):
        content(Template(input="{{other}}"), fields)


def test_units_fold_case_and_part_at_blanks():
    assert units("É A", "words") == ["é", "a", "é a"]
    assert units("ab c", "characters") == ["a", "b", "ab", "c"]
    assert units(" .. ", "words") == units("", "characters") == []


def test_inputs_that_cannot_be_read_are_refused(tiny_lm):
    small = replace(tiny_lm, context=20)
    line = r"^the longest input needs 25 tokens and tiny-0 reads 20; try --overlength skip$"
    with pytest.raises(PromptError, match=line):
        fitting(small, inputs(small, TEMPLATE, rows("", "a" * 5)))
    assert [len(tokens) for tokens in inputs(small, TEMPLATE, rows("aa"), described=False)] == [15]
    bare = Template(input="{{text}}")
    assert inputs(tiny_lm, bare, rows("")) == [(tiny_lm.codec.first or (tiny_lm.codec.start,))]
    mute = replace(tiny_lm, codec=replace(tiny_lm.codec, first=(), start=None))
    line = "^an input is empty and this model has no start token; add a description to the template$"
    with pytest.raises(PromptError, match=line):
        inputs(mute, bare, rows(""))


def test_nan_is_refused():
    lm = zoo.lm("llama")
    lm.model.get_input_embeddings().weight.data[5] = float("nan")
    line = r"^llama answered with NaN in torch.float64; look for NaN or infinity in its weights, or in what was learned for it$"
    with pytest.raises(NumericError, match=line):
        last_hidden(lm, [(3, 4, 5)])


def test_a_damaged_one_is_refused():
    with pytest.raises(UnknownName, match=r"^unknown kind of classifier 'frequency'; did you mean 'frequencies'"):
        restored({"kind": "frequency"}, {})
    line = r"^the stored classifier \(frequencies\) lacks 'counts'; save it again$"
    with pytest.raises(ModelError, match=line):
        restored({"kind": "frequencies", "labels": ["a"]}, {})
