"""Attributions against slow judges: plain forwards in float64, textbook sums over permutations, central differences."""

from dataclasses import replace
from itertools import combinations, permutations

import numpy as np
import pytest
import torch
import zoo
from scipy import stats

from kshot.adapt import InContext, ZeroShot
from kshot.data.task import Example, Task
from kshot.data.template import Template
from kshot.errors import DataError, MethodError, ModelError, PromptError
from kshot.measure import arrangements, attribution
from kshot.measure.attribution import (
    attention_mass,
    gradient_times_input,
    leave_one_out,
    rank_agreement,
    shapley,
    shapley_values,
)
from kshot.model.demonstrations import demonstration_of_tokens
from kshot.model.lm import LM
from kshot.model.tokens import Codec

TEMPLATE = Template(input="{{text}}:", words={"no": "b", "yes": "cd"}, delimiter="", separator=";", description="D.")
SHOTS = 3


def example(i, text, label, **more):
    return Example(id=f"e{i}", fields={"text": text}, label=label, **more)


TASK = Task(
    name="films",
    kind="classification",
    labels=("no", "yes"),
    train=tuple(example(i, t, ("no", "yes")[i % 2]) for i, t in enumerate(["joy", "a bore", "dull", "ok"])),
    test=tuple(example(100 + i, t, ("yes", "no")[i % 2]) for i, t in enumerate(["brisk", "a mess", "fun"])),
    template=TEMPLATE,
)
MODELS: dict[str, LM] = {}


def lm(name="llama"):
    if name not in MODELS:
        MODELS[name] = zoo.lm(name)
    return MODELS[name]


@pytest.fixture(autouse=True)
def pure():
    with zoo.Pure64():
        yield


def taught(name="llama", shots=SHOTS, **more):
    return InContext(shots=shots, pick="first_n", **more).fit(lm(name), TASK, TASK.train, 0)


def letters(text):
    return zoo.Letters()(text)["input_ids"]


def said(net, before, answer):
    """log P(answer | before) from the plain forward of the whole sequence, float64."""
    ids = letters(before + answer)
    with torch.no_grad():
        logprobs = net(input_ids=torch.tensor([ids]), use_cache=False).logits[0].double().log_softmax(-1)
    return float(sum(logprobs[i - 1, ids[i]] for i in range(len(letters(before)), len(ids))))


def judged(places, query, of, candidates=("no", "yes")):
    """The value of one arrangement, written out."""
    shown = "".join(TEMPLATE.demonstration(TASK.train[i].fields, TASK.train[i].label) + ";" for i in places)
    head = "D." + shown + TEMPLATE.render(query.fields)
    sums = torch.tensor([said(lm().model, head, TEMPLATE.answer(c)) for c in candidates], dtype=torch.float64)
    table = sums.log_softmax(0) if of == "candidates" else sums
    return float(table[candidates.index(query.label)])


def textbook(value, shots):
    """Shapley by definition: the mean marginal contribution over all orders of joining."""
    shares = np.zeros(shots)
    orders = list(permutations(range(shots)))
    for order in orders:
        for at, i in enumerate(order):
            shares[i] += value(frozenset(order[: at + 1])) - value(frozenset(order[:at]))
    return shares / len(orders)


class Game:
    """A random value of every subset for q queries."""

    def __init__(self, shots, queries, seed=0):
        rng = np.random.default_rng(seed)
        subsets = [s for size in range(shots + 1) for s in combinations(range(shots), size)]
        self.table = {s: rng.normal(size=queries) + 0.5 * len(s) for s in subsets}
        self.asked = 0

    def __call__(self, arrangements):
        self.asked += 1
        return np.stack([self.table[tuple(one)] for one in arrangements])

    def textbook(self, shots, q):
        return textbook(lambda s: self.table[tuple(sorted(s))][q], shots)


# Leave-one-out.


@pytest.mark.parametrize("of", ["candidates", "sum"])
def test_leave_one_out_is_with_less_without(of):
    found = leave_one_out(taught(), TASK, TASK.test, of=of)
    for q, query in enumerate(TASK.test):
        whole = judged((0, 1, 2), query, of)
        expected = [whole - judged(tuple(j for j in range(3) if j != i), query, of) for i in range(3)]
        assert found[q] == pytest.approx(expected, abs=1e-10)
    assert np.abs(found).min() > 1e-6


def test_leave_one_out_of_the_channel_scores_the_input():
    found = leave_one_out(taught(shots=2, channel=True), TASK, TASK.test[:1], of="sum")
    first, second = ((TEMPLATE.answer(e.label) + "\n" + e.fields["text"] + ":;") for e in TASK.train[:2])
    whole, without = (said(lm().model, "D." + shown + "cd\n", "brisk:") for shown in (first + second, second))
    assert found[0, 0] == pytest.approx(whole - without, abs=1e-10)


def test_queries_with_candidates_of_their_own():
    own = [replace(TASK.test[0], choices=("yes", "no")), replace(TASK.test[1], choices=("xx", "no", "z"))]
    task = replace(TASK, kind="choice", labels=())
    found = leave_one_out(taught(), task, own)
    for q, query in enumerate(own):
        whole, without = (judged(shown, query, "candidates", query.choices) for shown in ((0, 1, 2), (1, 2)))
        assert found[q, 0] == pytest.approx(whole - without, abs=1e-10)


def test_the_order_of_queries_permutes_rows_alone():
    adapted = taught()
    for measure in (leave_one_out, gradient_times_input):
        there, back = measure(adapted, TASK, TASK.test), measure(adapted, TASK, TASK.test[::-1])
        assert back[::-1] == pytest.approx(there, abs=1e-10)
    assert leave_one_out(adapted, TASK, ()).shape == gradient_times_input(adapted, TASK, ()).shape == (0, 3)


# Shapley.


def test_exact_values_are_those_of_the_textbook():
    game = Game(4, 3)
    found = shapley_values(game, 4)
    for q in range(3):
        assert found.values[q] == pytest.approx(game.textbook(4, q), abs=1e-12)
    assert found.errors is None
    assert (found.pairs, found.arrangements, game.asked) == (0, 16, 1)


def test_the_glove_game_by_hand():
    # One left glove, two right ones: a pair is worth 1.
    found = shapley_values(lambda asked: np.array([[float(0 in s and len(s) > 1)] for s in asked]), 3)
    assert found.values[0] == pytest.approx([2 / 3, 1 / 6, 1 / 6], abs=1e-12)


@pytest.mark.parametrize("exact_up_to", [8, 0])
def test_values_add_up_to_what_all_of_them_change(exact_up_to):
    found = shapley_values(Game(6, 5), 6, exact_up_to=exact_up_to, pairs=7)
    assert found.values.sum(axis=1) == pytest.approx(found.full - found.empty, abs=1e-12)


def test_sampled_values_lie_within_their_errors():
    game = Game(6, 40)
    exact = shapley_values(game, 6)
    found = shapley_values(game, 6, exact_up_to=0, pairs=64, seed=1)
    z = (found.values - exact.values) / found.errors
    assert np.abs(z).max() < 5
    # 240 of them, 6 of a query dependent: errors twice too small or too large would show.
    assert 0.5 < np.mean(z**2) < 2
    assert found.full == pytest.approx(exact.full)
    assert game.asked == 2


def test_sampled_values_repeat_and_depend_on_the_seed():
    game = Game(6, 2)
    one, same, other = (shapley_values(game, 6, exact_up_to=0, pairs=4, seed=seed).values for seed in (0, 0, 1))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_a_pair_is_a_permutation_and_its_reverse():
    # In a game of pairs alone, a player's shares in an order and in its reverse make up its value exactly.
    rng = np.random.default_rng(0)
    weight = np.triu(rng.normal(size=(6, 6)), 1)
    game = lambda asked: np.array([[weight[np.ix_(s, s)].sum()] for s in asked])  # noqa: E731
    found = shapley_values(game, 6, exact_up_to=0, pairs=2)
    assert found.values[0] == pytest.approx((weight + weight.T).sum(axis=1) / 2, abs=1e-12)
    assert found.errors == pytest.approx(0, abs=1e-12)


def test_one_pair_has_no_error():
    with pytest.raises(MethodError, match=r"from 1 pair of permutations; an error needs 2 or more$"):
        shapley_values(Game(3, 1), 3, exact_up_to=2, pairs=1)


def test_shapley_of_prompts_from_one_pass(monkeypatch):
    calls, score = [], LM.score
    monkeypatch.setattr(LM, "score", lambda self, *given: calls.append(len(given[0])) or score(self, *given))
    found = shapley(taught(), TASK, TASK.test)
    assert calls == [8 * 3 * 2]
    for q, query in enumerate(TASK.test):
        known = {}
        value = lambda s: known.setdefault(s, judged(sorted(s), query, "candidates"))  # noqa: B023, E731
        assert found.values[q] == pytest.approx(textbook(value, 3), abs=1e-10)


def test_shapley_agrees_with_captum():
    attr = pytest.importorskip("captum.attr")
    game = Game(4, 1)

    def forward(shown):
        return torch.tensor([game.table[tuple(np.flatnonzero(row.numpy()).tolist())][0] for row in shown])

    orders = len(list(permutations(range(4))))
    whole = torch.ones(1, 4, dtype=torch.float64)
    found = attr.ShapleyValues(forward).attribute(whole, perturbations_per_eval=orders)
    assert shapley_values(game, 4).values[0] == pytest.approx(found[0].numpy(), abs=1e-5)


# Gradient times input.


def scaled(name, query, shown, factor, of):
    """The value of one query where the embeddings of one demonstration are scaled, from the plain forward."""
    net = lm(name).model
    texts = [TEMPLATE.demonstration(e.fields, e.label) + ";" for e in TASK.train[:SHOTS]]
    begin = len(letters("D." + "".join(texts[:shown])))
    sums = []
    for label in TASK.labels:
        head = "D." + "".join(texts) + TEMPLATE.render(query.fields)
        ids = letters(head + TEMPLATE.answer(label))
        rows = net.get_input_embeddings()(torch.tensor(ids)).detach().clone()
        rows[begin : begin + len(texts[shown])] *= factor
        with torch.no_grad():
            logprobs = net(inputs_embeds=rows[None], use_cache=False).logits[0].double().log_softmax(-1)
        sums.append(sum(logprobs[i - 1, ids[i]] for i in range(len(letters(head)), len(ids))))
    table = torch.stack(sums).log_softmax(0) if of == "candidates" else torch.stack(sums)
    return float(table[TASK.labels.index(query.label)])


def gradients_agree(name, of="candidates"):
    found = gradient_times_input(taught(name), TASK, TASK.test[:2], of=of)
    step = 1e-5
    for q, query in enumerate(TASK.test[:2]):
        for i in range(SHOTS):
            rise = scaled(name, query, i, 1 + step, of) - scaled(name, query, i, 1 - step, of)
            assert abs(found[q, i] - rise / (2 * step)) < 1e-7
    assert np.abs(found).max() > 1e-3


@pytest.mark.parametrize(
    ("name", "of"), [("llama", "candidates"), ("llama", "sum"), ("gpt2", "sum"), ("gemma3", "sum")]
)
def test_gradient_times_input_is_the_slope_of_scaling(name, of):
    gradients_agree(name, of)


def test_gradients_leave_the_model_alone():
    before = [p.clone() for p in lm().model.parameters()]
    with torch.no_grad():
        gradient_times_input(taught(), TASK, TASK.test[:1])
    for old, new in zip(before, lm().model.parameters(), strict=True):
        assert torch.equal(old, new)
        assert new.grad is None


def test_a_long_prefix_read_in_parts_has_the_same_gradient():
    adapted = taught()
    parts = replace(adapted, lm=replace(adapted.lm, tokens_per_pack=8))
    whole = gradient_times_input(adapted, TASK, TASK.test)
    assert gradient_times_input(parts, TASK, TASK.test) == pytest.approx(whole, abs=1e-10)


# What belongs to whom; attention.


def test_every_byte_belongs_to_its_demonstration(tiny_lm):
    template = Template(input="{{text}}", delimiter="=", separator="\n\n", description="é ")
    shown = (example(0, "aé", "x"), example(1, "好", "y"))
    found = demonstration_of_tokens(tiny_lm.codec, template, shown, followed_by="a?")
    assert found.tolist() == [-1] * 3 + [0] * 7 + [1] * 7 + [-1] * 2
    assert demonstration_of_tokens(tiny_lm.codec, template, (), followed_by="?").tolist() == [-1] * 4


def test_tokens_across_a_seam_and_blanks_without_a_place():
    # "ab=x\n\ncd=y\n\ne", where the first blank line is one token without width and the second goes on into "e".
    offsets = [(0, 4), (6, 6), (6, 8), (8, 10), (10, 11), (11, 13)]

    class Fast:
        is_fast = True

        def __call__(self, text, **_):
            assert text == "ab=x\n\ncd=y\n\ne"
            return {"offset_mapping": offsets}

    codec = Codec(Fast(), (1,), 1)
    template = Template(input="{{text}}", delimiter="=")
    shown = (example(0, "ab", "x"), example(1, "cd", "y"))
    assert demonstration_of_tokens(codec, template, shown, followed_by="e").tolist() == [-1, 0, 0, 1, 1, 1, -1]


def test_attention_mass_by_hand():
    # One query, one layer, two heads, four tokens, the first of which is nobody's.
    weights = np.array([[[[0.4, 0.1, 0.2, 0.1], [0.0, 0.3, 0.4, 0.3]]]])
    found = attention_mass(weights, np.array([-1, 0, 1, 1]), 3)
    assert found == pytest.approx(np.array([[0.2, 0.5, 0.0]]))


def test_even_attention_gives_each_its_share_of_tokens():
    owners = np.array([-1, 0, 0, 0, 1])
    found = attention_mass(np.full((2, 3, 4, 5), 1 / 10, dtype=np.float32), owners, 2)
    assert found == pytest.approx(np.tile([0.3, 0.1], (2, 1)), abs=1e-7)


# Agreement of ranks.


def test_agreement_by_hand():
    cheap = np.array([[1.0, 2, 3], [1, 2, 3], [5, 5, 5], [1, 1, 2]])
    expensive = np.array([[10.0, 20, 21], [3, 2, 1], [1, 2, 3], [1, 2, 3]])
    found = rank_agreement(cheap, expensive)
    assert (found["n"], found["undefined"]) == (3, 1)
    # The last row: one tie of three, so rho is sqrt(3)/2, tau-b is 2 / sqrt(2 * 3).
    assert found["spearman"]["value"] == pytest.approx((1 - 1 + np.sqrt(3) / 2) / 3)
    assert found["kendall"]["value"] == pytest.approx((1 - 1 + 2 / np.sqrt(6)) / 3)


def test_agreement_is_that_of_scipy_and_its_interval_holds_it():
    rng = np.random.default_rng(0)
    cheap = rng.normal(size=(30, 8))
    expensive = cheap + rng.normal(size=(30, 8))
    found = rank_agreement(cheap, expensive)
    rho = [stats.spearmanr(a, b).statistic for a, b in zip(cheap, expensive, strict=True)]
    assert found["spearman"]["value"] == pytest.approx(np.mean(rho))
    assert 0 < found["spearman"]["low"] < found["spearman"]["value"] < found["spearman"]["high"] < 1
    shuffled = rng.permutation(30)
    again = rank_agreement(cheap[shuffled], expensive[shuffled])
    assert all(again[name] == pytest.approx(found[name]) for name in ("spearman", "kendall", "n", "undefined"))


def test_undefined_agreement_is_none_and_counted():
    assert rank_agreement(np.zeros((0, 3)), np.zeros((0, 3))) is None
    nothing = {"spearman": None, "kendall": None, "n": 0}
    assert rank_agreement(np.ones((2, 3)), np.array([[1.0, 2, 3]] * 2)) == {**nothing, "undefined": 2}
    assert rank_agreement(np.ones((2, 1)), np.ones((2, 1))) == {**nothing, "undefined": 2}
    unbounded = np.array([[0.0, -np.inf, 1], [0, 1, 2]])
    found = rank_agreement(unbounded, np.array([[1.0, 2, 3]] * 2))
    assert (found["n"], found["undefined"]) == (1, 1)
    assert found["kendall"] == {"value": 1.0, "low": None, "high": None}


# What does not apply.


def test_what_shows_no_demonstrations_is_refused():
    adapted = ZeroShot().fit(lm(), TASK, (), 0)
    retrieved = InContext(shots=2, pick="bm25").fit(lm(), TASK, TASK.train, 0)
    for one, method in ((adapted, "zero-shot"), (retrieved, "in-context")):
        for measure in (leave_one_out, shapley, gradient_times_input):
            with pytest.raises(MethodError) as caught:
                measure(one, TASK, TASK.test)
            assert str(caught.value) == (
                f"asked what each demonstration did, and {method} does not show the same demonstrations to all queries; "
                "use in-context with 1 shot or more and a pick that does not look at the query"
            )


def test_a_query_without_an_answer_is_refused():
    with pytest.raises(DataError) as caught:
        leave_one_out(taught(), TASK, (TASK.test[0], example(7, "?", None)))
    assert str(caught.value) == (
        "query 'e7' of task 'films' has no right answer among its candidates, and what a demonstration did is measured "
        "there; label the query or leave it out"
    )


def test_a_prompt_that_is_too_long_is_refused():
    adapted = taught()
    short = replace(adapted, lm=replace(adapted.lm, context=20))
    with pytest.raises(PromptError, match=r"^the longest prompt needs 34 tokens and llama reads 20; show fewer demons"):
        leave_one_out(short, TASK, TASK.test)


def test_a_model_that_reads_whole_sequences_has_no_gradient_here():
    adapted = taught("bloom")
    assert leave_one_out(adapted, TASK, TASK.test[:1]).shape == (1, 3)
    with pytest.raises(ModelError, match="bloom reads every sequence whole"):
        gradient_times_input(adapted, TASK, TASK.test)


# Faults planted on purpose.


def shifted(*given, **named):
    return np.roll(demonstration_of_tokens(*given, **named), 1)


FAULTS = {
    "off-by-one": ("demonstration_of_tokens", shifted, lambda: gradients_agree("llama")),
    "no-weights": ("comb", lambda n, k: 1, test_exact_values_are_those_of_the_textbook),
    "no-softmax": ("log_softmax", lambda x, axis: x, lambda: test_leave_one_out_is_with_less_without("candidates")),
    "errors-of-one": ("sqrt", lambda n: 1.0, test_sampled_values_lie_within_their_errors),
    "no-gold": ("gold_columns", lambda t, e: np.zeros(len(e), int), lambda: test_leave_one_out_is_with_less_without("sum")),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_planted_faults_are_noticed(name, monkeypatch):
    attribute, fault, check = FAULTS[name]
    check()
    for module in (arrangements, attribution):
        if attribute in vars(module):
            monkeypatch.setattr(module, attribute, fault)
    with pytest.raises(AssertionError):
        check()


def test_a_wrong_sign_is_noticed(monkeypatch):
    check = test_shapley_of_prompts_from_one_pass
    value_function = attribution.value_function

    def negative(*given, **named):
        value = value_function(*given, **named)
        return lambda asked: -value(asked)

    monkeypatch.setattr(attribution, "value_function", negative)
    with pytest.raises(AssertionError):
        check(monkeypatch)
    with pytest.raises(AssertionError):
        test_leave_one_out_is_with_less_without("sum")
