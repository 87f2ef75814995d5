"""Demonstrations by likeness: the model's own hidden states, by hand."""

from dataclasses import replace

import numpy as np
import torch

from kshot.data.task import Example
from kshot.data.template import Template
from kshot.model.demonstrations import hidden_similarity, retrieval
from kshot.model.lm import LM

TEMPLATE = Template(input="{{text}} :", description="Not looked at.")


def example(name: str, text: str) -> Example:
    return Example(id=name, fields={"text": text}, label="x")


def by_hand(lm: LM, text: str) -> np.ndarray:
    tokens = [*lm.codec.first, *lm.codec.encode([text])[0]][: lm.context]
    with torch.no_grad():
        mean = lm.model.base_model(input_ids=torch.tensor([tokens])).last_hidden_state[0].double().mean(0).numpy()
    return mean / np.linalg.norm(mean)


def test_likeness_is_the_cosine_of_mean_hidden_states(tiny_lm: LM) -> None:
    lm = replace(tiny_lm, context=40)
    pool = tuple(example(f"p{i}", text) for i, text in enumerate(["a cat", "a cat sat", "dogs", "", "long " * 30]))
    query = example("q", "the cat sat")
    found = hidden_similarity(lm, TEMPLATE)(query, pool)
    own = by_hand(lm, "the cat sat :")
    expected = [by_hand(lm, f"{e.fields['text']} :") @ own for e in pool]
    assert np.allclose(found, expected, atol=1e-5)
    assert len({round(float(value), 4) for value in found}) == 5
    nearest = retrieval(lm, TEMPLATE, pool, shots=2, pick="hidden")(query)
    assert [e.id for e in nearest] == [pool[i].id for i in np.argsort(expected)[-2:]]


def test_the_query_is_known_by_its_rendered_input(tiny_lm: LM) -> None:
    pool = tuple(
        Example(id=f"e{n}", fields={"idx": n, "text": text}, label="a") for n, text in enumerate(["one", "two  2"])
    )
    again = Example(id="test:1", fields={"idx": 7, "text": "two 2"}, label=None)
    for how in ("bm25", "hidden"):
        assert retrieval(tiny_lm, Template(input="{{text}}"), pool, shots=1, pick=how)(again) == (pool[0],)


def test_a_column_that_holds_the_label_in_words_does_not_retrieve(tiny_lm: LM) -> None:
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("abcdefghij"), 4)) for _ in range(300)]

    def example(i: int) -> Example:
        label = "good" if i % 2 else "bad"
        text = " ".join(rng.choice(words, 6))
        return Example(id=str(i), fields={"text": text, "label_text": f"a {label} one"}, label=label)

    pool, asked = tuple(map(example, range(200))), [example(i) for i in range(200, 260)]
    shown = retrieval(tiny_lm, Template(input="{{text}}"), pool, shots=4, pick="bm25")
    same = np.mean([one.label == query.label for query in asked for one in shown(query)])
    # 240 draws of an even chance, three standard errors; of all columns it would be 0.9 and more.
    assert abs(same - 0.5) < 3 * 0.5 / 240**0.5
