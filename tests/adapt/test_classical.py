"""The classical methods: as scikit-learn used directly, from the k examples alone, and what they say where these do not do."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, PredefinedSplit
from sklearn.pipeline import make_pipeline

from kshot.adapt.classical import Head, Majority, Nearest, Tfidf
from kshot.adapt.regression import DEFAULT, FOLDS, GRID
from kshot.data.pick import pick
from kshot.data.task import Example, Task
from kshot.data.template import Template
from kshot.errors import MethodError, UnknownName
from kshot.measure.scoring import score
from kshot.model.hidden import inputs, mean_hidden

LABELS = ("bad", "fine", "good")
WORDS = {"bad": "dull a bore flat", "fine": "decent fair so-so a", "good": "joy bright a warm"}
ALL = {"head": Head, "tfidf": Tfidf, "nearest": Nearest, "majority": Majority}


def texts(n, seed):
    rng = np.random.default_rng(seed)
    found = []
    for i in range(n):
        label = LABELS[i % 3]
        own = [*rng.choice(WORDS[label].split(), 3), *rng.choice(("film", "plot", "it", "was", "a", "the", "actor"), 4)]
        found.append((" ".join(rng.permutation(own)), label))
    return found


def films(kind="classification", n=30, **changed):
    rows = [Example(id=f"f{i}", fields={"text": t, "idx": i}, label=y) for i, (t, y) in enumerate(texts(n, 0))]
    asked = [Example(id=f"q{i}", fields={"text": t, "idx": i}, label=y) for i, (t, y) in enumerate(texts(12, 1))]
    task = Task(
        name="films",
        kind=kind,
        labels=LABELS,
        train=tuple(rows),
        test=tuple(asked),
        template=Template(input="Text: {{text}}\nLabel:", description="Films.\n", separator="\n"),
    )
    return replace(task, **changed)


def only(task, *labels):
    """With a pool of these labels alone."""
    return replace(task, train=tuple(e for e in task.train if e.label in labels))


def logprobs(method, lm, task, seed=0):
    return score(method.fit(lm, task, task.train, seed), task, task.test).predictions.logprobs


def drawn(task, k, seed=0):
    chosen = pick(task.train, k, "random", seed, labels=task.labels)
    return [e.fields["text"] for e in chosen], np.array([e.label for e in chosen])


def regression(c):
    return LogisticRegression(C=c, tol=1e-6, max_iter=2000)


def test_tfidf_is_that_of_scikit_learn(tiny_lm):
    task = films()
    x, y = drawn(task, 24)
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\w+")
    direct = make_pipeline(vectorizer, regression(5.0)).fit(x, y)
    expected = direct.predict_log_proba([e.fields["text"] for e in task.test])
    assert direct.classes_.tolist() == list(LABELS)
    assert logprobs(Tfidf(shots=24, c=5.0), tiny_lm, task) == pytest.approx(expected, abs=1e-6)


def test_tfidf_of_two_labels_is_that_of_scikit_learn(tiny_lm):
    task = films(labels=("bad", "good"))
    keep = lambda rows: tuple(e for e in rows if e.label != "fine")  # noqa: E731
    task = replace(task, train=keep(task.train), test=keep(task.test))
    x, y = drawn(task, 10)
    direct = make_pipeline(TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\w+"), regression(5.0)).fit(x, y)
    expected = direct.predict_log_proba([e.fields["text"] for e in task.test])
    assert logprobs(Tfidf(shots=10, c=5.0), tiny_lm, task) == pytest.approx(expected, abs=1e-6)


def test_tfidf_counts_characters_where_words_are_not_parted(tiny_lm):
    said = {"bad": "退屈で長い", "fine": "まあまあ", "good": "とても楽しい"}
    rows = [Example(id=f"f{i}", fields={"text": f"{said[y]}映画{i}"}, label=y) for i, y in enumerate(LABELS * 4)]
    asked = [Example(id=f"q{i}", fields={"text": f"映画は{said[y]}"}, label=y) for i, y in enumerate(LABELS)]
    task = films(train=tuple(rows), test=tuple(asked))
    x, y = drawn(task, 12)
    direct = make_pipeline(TfidfVectorizer(analyzer="char", ngram_range=(1, 3)), regression(5.0)).fit(x, y)
    adapted = Tfidf(shots=12, c=5.0).fit(tiny_lm, task, task.train, 0)
    assert "words of these texts are not parted by blanks, so neighbouring characters are counted" in adapted.notes
    found = score(adapted, task, task.test).predictions.logprobs
    assert found == pytest.approx(direct.predict_log_proba([e.fields["text"] for e in task.test]), abs=1e-6)
    assert found.argmax(axis=1).tolist() == [0, 1, 2]


def plain_hidden(lm, task, rows):
    found = []
    for text in rows:
        whole = task.template.description + task.template.render({"text": text})
        ids = torch.tensor([[*lm.codec.first, *lm.codec.encode([whole])[0]]])
        with torch.no_grad():
            found.append(lm.model.model(input_ids=ids).last_hidden_state[0, -1].double().numpy())
    return np.stack(found)


def test_head_is_a_regression_on_the_hidden_states_of_each_text_alone(tiny_lm):
    task = films()
    x, y = drawn(task, 24)
    hidden, asked = (plain_hidden(tiny_lm, task, rows) for rows in (x, [e.fields["text"] for e in task.test]))
    mean, spread = hidden.mean(axis=0), hidden.std(axis=0)
    # No feature is so still that its spread has a floor: then it would be scikit-learn's own scaler.
    assert spread.min() > 0.1 * np.sqrt((spread**2).mean())
    scale = spread * np.sqrt(hidden.shape[1])
    direct = regression(5.0).fit((hidden - mean) / scale, y)
    expected = direct.predict_log_proba((asked - mean) / scale)
    assert logprobs(Head(shots=24, c=5.0), tiny_lm, task) == pytest.approx(expected, abs=1e-3)


def test_a_feature_that_hardly_varies_is_not_blown_up(tiny_lm):
    task = films()
    same = replace(task, train=tuple(replace(e, fields=task.train[0].fields) for e in task.train))
    found = logprobs(Head(shots=12), tiny_lm, same)
    assert np.isfinite(found).all()
    assert np.abs(found - found[0]).max() < 0.2


def test_nearest_by_words_and_by_hidden_states(tiny_lm):
    task = films()
    chosen = pick(task.train, 9, "random", 0)

    def alone(example):
        return mean_hidden(tiny_lm, inputs(tiny_lm, task.template, [example], described=False))[0][0]

    hidden = [alone(e) for e in chosen]
    for query, found in zip(task.test, logprobs(Nearest(shots=9), tiny_lm, task), strict=True):
        own = alone(query)
        nearest = chosen[int(np.argmax([own @ one for one in hidden]))]
        assert LABELS[found.argmax()] == nearest.label
    asked = Example(id="q", fields={"text": "zzz joy zzz", "idx": 3}, label="good")
    task = replace(task, test=(asked,))
    assert logprobs(Nearest(shots=30, by="bm25", neighbours=3), tiny_lm, task).argmax() == 2
    # The layout does not name idx: what stands there is not compared.
    hinting = [replace(e, fields={**e.fields, "idx": "zzz joy" if e.label == "bad" else ""}) for e in task.train]
    hinted = replace(task, train=tuple(hinting))
    assert np.array_equal(
        logprobs(Nearest(shots=30, by="bm25"), tiny_lm, task), logprobs(Nearest(shots=30, by="bm25"), tiny_lm, hinted)
    )


def test_majority_by_hand(tiny_lm):
    task = films()
    _, y = drawn(task, 8)
    counts = np.array([(y == label).sum() for label in LABELS])
    expected = np.log((counts + 1) / (8 + 3))
    assert logprobs(Majority(shots=8), tiny_lm, task) == pytest.approx(np.tile(expected, (12, 1)))
    assert len(set(counts)) > 1


def test_a_tie_goes_to_the_first_of_the_tasks_labels(tiny_lm):
    task = films()
    adapted = Majority(shots=3, pick="fixed", ids=("f2", "f1", "f0")).fit(tiny_lm, task, task.train, 0)
    assert score(adapted, task, task.test).predictions.logprobs.argmax(axis=1).tolist() == [0] * 12


@pytest.mark.parametrize("name", ["tfidf", "head"])
def test_the_penalty_is_chosen_within_the_examples(name, tiny_lm):
    task = films()
    # As many of each label as there are folds, so that the mean of folds is the mean of examples.
    adapted = ALL[name](shots=15, pick="balanced").fit(tiny_lm, task, task.train, 0)
    chosen = pick(task.train, 15, "balanced", 0, labels=task.labels)
    y = np.array([e.label for e in chosen])
    folds = np.array([(y[:i] == label).sum() for i, label in enumerate(y)])
    assert max(folds) + 1 == FOLDS
    assert adapted.training is not None
    losses = [one["loss"] for one in adapted.training.search]
    assert [one["c"] for one in adapted.training.search] == list(GRID)
    assert adapted.training.chosen == {"c": GRID[int(np.argmin(losses))]}
    assert adapted.training.validation == "5-fold cross-validation within the 15 examples"
    if name == "tfidf":
        pipe = make_pipeline(TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\w+"), regression(1.0))
        grid = {"logisticregression__C": list(GRID)}
        direct = GridSearchCV(pipe, grid, scoring="neg_log_loss", cv=PredefinedSplit(folds))
        direct.fit([e.fields["text"] for e in chosen], y)
        assert -direct.cv_results_["mean_test_score"] == pytest.approx(losses, abs=1e-5)
    # Nothing but the examples is looked at.
    ids = {e.id for e in chosen}
    others = tuple(e if e.id in ids else replace(e, fields={"text": "?", "idx": 0}) for e in task.train)
    again = ALL[name](shots=15, pick="balanced").fit(tiny_lm, replace(task, train=others, test=()), others, 0)
    assert again.training.search == adapted.training.search
    for key, array in adapted.classifier.arrays().items():
        assert np.array_equal(array, again.classifier.arrays()[key])


def test_without_two_of_each_label_the_penalty_is_the_default(tiny_lm):
    task = films()
    adapted = Tfidf(shots=3, pick="balanced").fit(tiny_lm, task, task.train, 0)
    assert adapted.notes == ("c = 10, the default: a label has a single example, so there is no cross-validation",)
    assert adapted.training.chosen == {"c": DEFAULT}
    assert adapted.training.search == ()


def test_what_it_cost_is_told(tiny_lm):
    task = films()
    head = Head(shots=6).fit(tiny_lm, task, task.train, 0)
    assert head.training.tokens > 0
    assert head.training.flops == 2 * tiny_lm.parameters * head.training.tokens
    assert head.training.start == pytest.approx(np.log(len(head.classifier.labels)))
    assert head.trainable_parameters == head.classifier.parameters == head.classifier.weights.size + 3
    assert head.artefact_bytes > sum(array.nbytes for array in head.classifier.arrays().values())
    words = Tfidf(shots=6).fit(tiny_lm, task, task.train, 0)
    assert (words.training.tokens, words.training.flops) == (0, 0)
    assert score(words, task, task.test).tokens == 0
    for adapted in (head, words):
        assert adapted.training.steps > 0
        assert adapted.training.flattened


@pytest.mark.parametrize("name", ALL)
def test_it_names_the_method_and_the_labels(name, tiny_lm):
    adapted = ALL[name](shots=4).fit(tiny_lm, films(), films().train, 0)
    assert (adapted.method, adapted.kind, adapted.labels) == (name, "classification", LABELS)


@pytest.mark.parametrize("name", ALL)
def test_a_label_without_examples_has_a_floor_and_is_told(name, tiny_lm):
    task = only(films(), "bad", "good")
    adapted = ALL[name](shots=7).fit(tiny_lm, task, task.train, 0)
    assert adapted.notes[0] == "no example of 'fine': never the answer, with probability 0.1 for each"
    found = score(adapted, task, task.test).predictions.logprobs
    assert found[:, 1] == pytest.approx(np.log(1 / 10))
    assert np.exp(found).sum(axis=1) == pytest.approx(1)
    assert 1 not in found.argmax(axis=1)


@pytest.mark.parametrize("shots", [1, 5])
@pytest.mark.parametrize("name", ALL)
def test_examples_of_one_label_alone(name, shots, tiny_lm):
    task = only(films(), "good")
    adapted = ALL[name](shots=shots).fit(tiny_lm, task, task.train, 0)
    assert adapted.notes[0].startswith("no example of 'bad', 'fine': never the answer")
    outcome = score(adapted, task, task.test)
    expected = np.log(np.array([1, 1, shots + 1]) / (shots + 3))
    assert outcome.predictions.logprobs == pytest.approx(np.tile(expected, (12, 1)))
    assert adapted.training is None


@pytest.mark.parametrize("name", ALL)
def test_open_tasks_are_answered_by_the_answers_of_the_examples(name, tiny_lm):
    rows = [Example(id=f"w{i}", fields={"text": f"w{i}"}, label=f"w{i % 5}s") for i in range(16)]
    task = films(
        kind="open", labels=("w0s", "w9s", "w1s"), train=tuple(rows), test=(replace(rows[0], id="q"), *rows[14:])
    )
    task = replace(task, train=task.train[:14])
    adapted = ALL[name](shots=6).fit(tiny_lm, task, task.train, 0)
    known = dict.fromkeys(e.label for e in pick(task.train, 6, "random", 0))
    assert adapted.notes[0] == f"open answers: only the {len(known)} answers of the 6 examples can be given"
    assert adapted.classifier.labels == tuple(known)
    found = score(adapted, task, task.test).predictions
    assert found.logprobs.shape == (3, 3)
    assert np.isfinite(found.logprobs).all()
    assert set(found.greedy) <= set(known)


@pytest.mark.parametrize("name", ["head", "tfidf"])
def test_a_single_example_of_every_answer(name, tiny_lm):
    rows = tuple(Example(id=f"w{i}", fields={"text": f"w{i}"}, label=f"w{i}s") for i in range(6))
    task = films(kind="open", labels=("w7s",), train=rows, test=(Example(id="q", fields={"text": "w3"}, label="w3s"),))
    adapted = ALL[name](shots=6).fit(tiny_lm, task, rows, 0)
    assert score(adapted, task, task.test).predictions.greedy == ("w3s",)


@pytest.mark.parametrize("name", ALL)
def test_empty_texts(name, tiny_lm):
    task = films()
    blank = tuple(replace(e, fields={"text": "", "idx": 0}) for e in task.train)
    mixed = replace(task, train=(*task.train[:6], *blank[6:9]), test=blank[:2])
    found = logprobs(ALL[name](shots=9), tiny_lm, mixed)
    assert np.isfinite(found).all()
    # Nothing to go by at all: the commonest label.
    counted = only(replace(task, train=blank), *LABELS)
    adapted = ALL[name](shots=8).fit(tiny_lm, counted, counted.train, 0)
    found = score(adapted, task, task.test).predictions.logprobs
    counts = np.bincount([LABELS.index(e.label) for e in pick(blank, 8, "random", 0)], minlength=3)
    if name == "tfidf":
        assert "no example has a word in it: the answer is the commonest label" in adapted.notes
        assert found == pytest.approx(np.tile(np.log((counts + 1) / 11), (12, 1)))
    assert np.isfinite(found).all()


@pytest.mark.parametrize("name", ALL)
def test_tasks_with_answers_of_their_own_are_refused(name, tiny_lm):
    rows = tuple(replace(e, choices=("x", str(e.label))) for e in films().train)
    task = films(kind="choice", labels=(), train=rows)
    with pytest.raises(MethodError) as caught:
        ALL[name](shots=4).fit(tiny_lm, task, rows, 0)
    assert str(caught.value) == (
        f"task 'films': every question has answers of its own, and {name} learns labels that all share; "
        "try in-context or lora"
    )


@pytest.mark.parametrize("name", ALL)
def test_no_examples_are_refused(name, tiny_lm):
    with pytest.raises(MethodError, match=r"^task 'films': there is nothing to learn from 0 examples"):
        ALL[name](shots=0).fit(tiny_lm, films(), films().train, 0)


def test_options_that_do_not_work_are_refused(tiny_lm):
    task = films()
    works = "what works is a number above 0 \\(the greater, the weaker the penalty\\)$"
    for method, options, line in (
        (Tfidf, {"c": 0.0}, f"^asked for c = 0; {works}"),
        (Head, {"c": -1.0}, f"^asked for c = -1; {works}"),
        (Nearest, {"neighbours": 0}, "^asked for the 0 nearest examples; what works is a whole number from 1 on$"),
    ):
        with pytest.raises(MethodError, match=line):
            method(shots=4, **options)
    with pytest.raises(UnknownName, match=r"^unknown kind of nearness 'bm52'; did you mean 'bm25'\?"):
        Nearest(shots=4, by="bm52")
    with pytest.raises(
        MethodError, match=r"^task 'films': asked for the 5 nearest of 4 examples; what works is 1 to 4$"
    ):
        Nearest(shots=4, neighbours=5).fit(tiny_lm, task, task.train, 0)


@pytest.mark.parametrize("method", [Head(shots=4), Nearest(shots=4)])
def test_examples_that_the_model_cannot_read_are_refused(method, tiny_lm):
    task = films()
    with pytest.raises(MethodError, match=r"^task 'films': an example cannot be learned from: the longest input needs"):
        method.fit(replace(tiny_lm, context=30), task, task.train, 0)
