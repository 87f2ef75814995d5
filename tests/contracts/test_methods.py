"""What every way of teaching must do, read from the dict: a method that is added is tested here without a line more."""

import copy
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import FrozenInstanceError, fields, replace
from typing import Any

import numpy as np
import pytest

from kshot.adapt import METHODS, Method, ZeroShot
from kshot.adapt.examples import PER_QUERY
from kshot.data.pick import PICKS
from kshot.data.predictions import Predictions
from kshot.data.task import Example, Task
from kshot.data.template import Template
from kshot.measure.scoring import score
from kshot.model.adapted import Adapted
from kshot.model.hidden import last_hidden, mean_hidden
from kshot.model.lm import LM

TEXTS = (
    "a joy to watch",
    "a bore at best",
    "never dull",
    "いい映画だ",
    "far too long",
    "brisk and warm",
    "a mess",
    "好看极了",
)
TABLES = ("logprobs", "unconditional", "content_free", "domain")


def films() -> Task:
    """Two labels; no text stands within another."""
    rows = [Example(id=f"f{i}", fields={"text": text}, label=("no", "yes")[i % 2]) for i, text in enumerate(TEXTS)]
    asked = [Example(id=f"q{i}", fields={"text": f"number {i} is {text}"}, label=("yes", "no")[i % 2])
             for i, text in enumerate(TEXTS[:5])]  # fmt: skip
    return Task(
        name="films",
        kind="classification",
        labels=("no", "yes"),
        train=tuple(rows),
        test=tuple(asked),
        template=Template(input="Review: {{text}}\nGood?", words={"no": "bad"}, separator="\n"),
    )


def plurals() -> Task:
    """Open answers."""
    rows = [Example(id=f"f{i}", fields={"input": f"w{i}w"}, label=f"w{i}ws") for i in range(12)]
    return Task(
        name="plurals",
        kind="open",
        labels=tuple(str(row.label) for row in rows[7:]),
        train=tuple(rows[:7]),
        test=tuple(rows[7:]),
        template=Template(input="{{input}} ->", separator="\n"),
    )


def variants(name: str) -> Iterator[tuple[str, Method]]:
    """A method as it is by default, and once for every way of picking and scoring that it has."""
    known = {option.name for option in fields(METHODS[name])}
    base: dict[str, Any] = {"shots": 2} if "shots" in known else {}
    if "course" in known:
        # As few steps as leave a trace, from a start that needs no corpus.
        base |= {"course": replace(METHODS[name](shots=1).course, budget="2steps", learning_rate=1e-3)}
        base |= {"init": "uniform", "length": 3} if name == "soft-prompt" else {}
    changes: list[dict[str, Any]] = [{}]
    if "course" in known:
        # How examples are picked is the same for all that learns: one other way will do where steps cost time.
        changes.append({"pick": "balanced"})
    elif "pick" in known:
        changes += [{"pick": how, "ids": ("f5", "f0") if how == "fixed" else ()} for how in PICKS if how != "random"]
    if "order" in known:
        changes.append({"order": 1})
    if "by" in known:
        changes.append({"by": "bm25"})
    if "channel" in known:
        changes.append({"channel": True})
    for change in changes:
        yield (
            "-".join([name, *(f"{key}={value}" for key, value in change.items() if value and key != "ids")]),
            METHODS[name](**(base | change)),
        )


RECIPES = dict(pair for name in METHODS for pair in variants(name))


@pytest.fixture(params=RECIPES)
def method(request: pytest.FixtureRequest) -> Any:
    return RECIPES[request.param]


@pytest.fixture
def task() -> Task:
    return films()


def made(make: Callable[[], Task], method: Method) -> Task:
    """The task, where the method can teach it at all."""
    if make is plurals and getattr(method, "pick", "") == "balanced":
        pytest.skip("open answers are no classes that could be balanced")
    return make()


def taught(method: Method, lm: LM, task: Task, seed: int = 0) -> Adapted:
    return method.fit(lm, task, task.train, seed)


def answers(method: Method, lm: LM, task: Task, seed: int = 0) -> Predictions:
    return score(taught(method, lm, task, seed), task, task.test).predictions


def same_to_the_bit(a: Predictions, b: Predictions) -> bool:
    """Every table and every text is equal, absent ones too."""
    for option in fields(Predictions):
        one, other = getattr(a, option.name), getattr(b, option.name)
        equal = np.array_equal(one, other) if isinstance(one, np.ndarray) else one == other
        if not equal or type(one) is not type(other):
            return False
    return True


def weights(lm: LM) -> str:
    """A hash of all parameters and buffers, by name."""
    found = hashlib.sha256()
    for name, value in sorted([*lm.model.named_parameters(), *lm.model.named_buffers()]):
        found.update(name.encode())
        found.update(value.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def seen_texts(adapted: Adapted, task: Task, query: Example, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The whole texts that the model is asked about when this query alone is scored, greedy answers included."""
    texts: list[str] = []
    scored, greedy = LM.score, LM.greedy

    def spy(self: LM, sequences: Sequence[Any], *rest: Any) -> Any:
        texts.extend(self.codec.decode(sequence.tokens) for sequence in sequences)
        return scored(self, sequences, *rest)

    def spy_greedy(self: LM, prompts: Sequence[Any], *rest: Any, **more: Any) -> Any:
        texts.extend(self.codec.decode(prompt) for prompt in prompts)
        return greedy(self, prompts, *rest, **more)

    def spy_hidden(read: Callable[..., Any]) -> Callable[..., Any]:
        def spying(lm: LM, sequences: Sequence[tuple[int, ...]]) -> Any:
            texts.extend(lm.codec.decode(tokens) for tokens in sequences)
            return read(lm, sequences)

        return spying

    with monkeypatch.context() as patch:
        patch.setattr(LM, "score", spy)
        patch.setattr(LM, "greedy", spy_greedy)
        patch.setattr("kshot.model.classifier.last_hidden", spy_hidden(last_hidden))
        patch.setattr("kshot.model.classifier.mean_hidden", spy_hidden(mean_hidden))
        score(adapted, task, (query,))
    return texts


def assert_no_query_is_in_its_own_prompt(
    method: Method, lm: LM, task: Task, queries: Sequence[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the model reads for a query holds the query's input once: where it is asked."""
    adapted = taught(method, lm, task)
    for query in queries:
        text = str(next(iter(query.fields.values())))
        counts = [read.count(text) for read in seen_texts(adapted, task, query, monkeypatch)]
        if not counts:
            assert adapted.classifier is not None, "nothing was read, and yet there is an answer"
            continue
        assert max(counts) == 1, f"{query.id} was read {max(counts)} times in one prompt"


def test_it_is_a_method(method: Method) -> None:
    assert isinstance(method, Method)
    name = fields(method)[0].name  # type: ignore[arg-type]
    with pytest.raises(FrozenInstanceError):
        setattr(method, name, None)


def test_the_weights_are_what_they_were(method: Method, tiny_lm: LM, task: Task) -> None:
    before = weights(tiny_lm)
    adapted = taught(method, tiny_lm, task)
    assert weights(tiny_lm) == before
    score(adapted, task, task.test)
    assert weights(tiny_lm) == before


@pytest.mark.parametrize("make", [films, plurals])
def test_one_seed_gives_one_result_to_the_bit(method: Method, tiny_lm: LM, make: Callable[[], Task]) -> None:
    task = made(make, method)
    assert same_to_the_bit(answers(method, tiny_lm, task), answers(method, tiny_lm, task))


def test_another_seed_is_as_valid(method: Method, tiny_lm: LM, task: Task) -> None:
    for seed in (0, 1):
        found = answers(method, tiny_lm, task, seed)
        assert found.ids == tuple(example.id for example in task.test)
        assert found.labels == (task.labels,) * len(task.test)
        assert found.logprobs.dtype == np.float64
        assert np.isfinite(found.logprobs).all()
        assert (found.logprobs <= 0).all()
        assert found.gold.tolist() == [task.labels.index(str(example.label)) for example in task.test]


def test_teaching_and_asking_leave_nothing_behind(method: Method, tiny_lm: LM, task: Task) -> None:
    before = answers(ZeroShot(), tiny_lm, task)
    adapted = taught(method, tiny_lm, task)
    first = score(adapted, task, task.test).predictions
    assert same_to_the_bit(score(adapted, task, task.test).predictions, first)
    assert same_to_the_bit(answers(ZeroShot(), tiny_lm, task), before)


def test_examples_are_only_read(method: Method, tiny_lm: LM, task: Task) -> None:
    kept = copy.deepcopy(task)
    answers(method, tiny_lm, task)
    assert task == kept


def test_a_query_is_never_in_its_own_prompt(
    method: Method, tiny_lm: LM, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_no_query_is_in_its_own_prompt(method, tiny_lm, task, task.test, monkeypatch)
    if taught(method, tiny_lm, task).retrieve is not None:
        # Its own demonstrations for every query: even one that is in the pool is left out of them.
        assert_no_query_is_in_its_own_prompt(method, tiny_lm, task, task.train, monkeypatch)


def test_the_spy_sees_the_demonstrations(tiny_lm: LM, task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, method in RECIPES.items():
        adapted = taught(method, tiny_lm, task)
        shown = adapted.retrieve(task.test[0]) if adapted.retrieve else adapted.demonstrations
        texts = seen_texts(adapted, task, task.test[0], monkeypatch)
        for example in shown:
            assert any(str(example.fields["text"]) in text for text in texts), name


def test_the_order_of_the_labels_permutes_the_answers(method: Method, tiny_lm: LM, task: Task) -> None:
    turned = replace(task, labels=task.labels[::-1])
    found = answers(method, tiny_lm, task)
    other = score(taught(method, tiny_lm, turned), turned, turned.test).predictions
    for name in TABLES:
        table = getattr(found, name)
        if table is None:
            assert getattr(other, name) is None
        else:
            assert getattr(other, name)[:, ::-1] == pytest.approx(table, abs=1e-4), name
    assert (1 - other.gold == found.gold).all()
    assert [row[::-1] for row in other.labels] == list(found.labels)


@pytest.mark.parametrize("make", [films, plurals])
def test_one_query_alone_is_answered_as_among_many(method: Method, tiny_lm: LM, make: Callable[[], Task]) -> None:
    task = made(make, method)
    adapted = taught(method, tiny_lm, task)
    among = score(adapted, task, task.test).predictions
    for row in (0, len(task.test) - 1):
        alone = score(adapted, task, (task.test[row],)).predictions
        assert alone.logprobs[0] == pytest.approx(among.logprobs[row], abs=1e-4)
        if among.unconditional is not None:
            assert alone.unconditional is not None
            assert alone.unconditional[0] == pytest.approx(among.unconditional[row], abs=1e-4)
        if among.content_free is not None:
            assert alone.content_free == pytest.approx(among.content_free, abs=1e-4)
        if among.greedy is not None:
            assert alone.greedy == (among.greedy[row],)


def test_every_way_of_picking_is_tested() -> None:
    tried = {getattr(method, "pick", None) for method in RECIPES.values()}
    assert tried >= set(PICKS)
    assert set(PER_QUERY) <= set(PICKS)
