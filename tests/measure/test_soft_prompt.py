"""What is read off a soft prompt: neighbours against a float64 search, shares by hand, perplexity token by token."""

import json
from dataclasses import replace
from math import log

import numpy as np
import pytest
import torch

from kshot.data.counts import Corpus
from kshot.data.task import Example, Task
from kshot.data.template import Template
from kshot.errors import DataError
from kshot.measure.interpret import interpret, label_pieces, random_prompt
from kshot.measure.soft_prompt import (
    Neighbour,
    cluster_share,
    domain_share,
    domain_words,
    label_share,
    nearest_tokens,
    prompt_perplexity,
    repeated_share,
    same_stem,
)
from kshot.model import tiny, vocabulary
from kshot.model.lm import LM
from kshot.seeds import torch_stream

TOY = Corpus(name="a toy corpus", pin="", texts=lambda: ("the cat sat on the mat", "a dog ran"))


def near(*rows: tuple[str, ...]) -> tuple[tuple[Neighbour, ...], ...]:
    """Neighbours by their texts; the id of a token is the place of its text in the alphabet of all."""
    texts = sorted({text for row in rows for text in row})
    return tuple(
        tuple(Neighbour(texts.index(text), text, 0.5 - 0.1 * i, False) for i, text in enumerate(row)) for row in rows
    )


def films() -> Task:
    train = tuple(
        Example(id=f"t{i}", fields={"text": f"film {i} is {'a joy' if i % 2 else 'a bore'}"}, label="01"[i % 2])
        for i in range(12)
    )
    layout = Template(input="Review: {{text}}\nSentiment:", words={"0": "bad", "1": "good"})
    return Task(name="films", kind="classification", labels=("0", "1"), train=train, test=(), template=layout)


def test_neighbours_are_those_of_a_search_in_float64() -> None:
    lm = tiny.tiny_lm()
    rows = torch.randn(7, 32, generator=torch_stream(0, "test"))
    table = lm.model.get_input_embeddings().weight.detach().double().numpy()
    wide = rows.double().numpy()
    cosines = wide @ table.T / np.linalg.norm(wide, axis=1)[:, None] / np.linalg.norm(table, axis=1)
    found = nearest_tokens(lm, rows, 6)
    for own, row in zip(found, cosines, strict=True):
        assert [n.token for n in own] == np.argsort(-row)[:6].tolist()
        assert [n.cosine for n in own] == pytest.approx(np.sort(row)[:-7:-1], abs=2e-6)
    assert len(nearest_tokens(lm, rows, 1000)[0]) == vocabulary.size(lm) == 258


def test_neighbours_do_not_depend_on_how_the_table_is_cut(tiny_lm: LM, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = torch.randn(5, 32, generator=torch_stream(4, "test"))
    whole = [[n.token for n in own] for own in nearest_tokens(tiny_lm, rows, 9)]
    for chunk in (1, 7, 257):
        monkeypatch.setattr(vocabulary, "ROWS_AT_ONCE", chunk)
        assert [[n.token for n in own] for own in nearest_tokens(tiny_lm, rows, 9)] == whole


def test_ties_go_to_the_smaller_id_and_special_tokens_are_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = tiny.tiny_lm()
    table = lm.model.get_input_embeddings().weight
    with torch.no_grad():
        # Of an lm of this test's own. One direction in four places, one of them twice as long.
        table[200] = table[100] = table[5] = table[66]
        table[100] *= 2
    monkeypatch.setattr(vocabulary, "ROWS_AT_ONCE", 64)
    found = nearest_tokens(lm, torch.stack([table[66], table[256], 0 * table[0]]).detach(), 4)
    assert [n.token for n in found[0]] == [5, 66, 100, 200]
    assert [n.cosine for n in found[0]] == [1.0] * 4
    assert (found[1][0].token, found[1][0].text, found[1][0].special) == (256, "<s>", True)
    assert not found[0][0].special
    assert [n.token for n in found[2]] == [0, 1, 2, 3]


def test_a_longer_row_has_the_same_neighbours(tiny_lm: LM) -> None:
    rows = torch.randn(3, 32, generator=torch_stream(1, "test"))
    assert nearest_tokens(tiny_lm, rows * 37) == nearest_tokens(tiny_lm, rows)


def test_label_share_by_hand() -> None:
    rows = near((" Positive", "x"), ("y", "NEGATIVE "), ("x", "y"), ("positives", "pos"))
    words = {"positive", "negative"}
    assert label_share(rows, words)["value"] == 0.5
    assert label_share(rows, words | {"pos"})["value"] == 0.75
    found = label_share(rows, words, [near(("x",)), near(("positive",)), near(("y",))])
    assert found == {"value": 0.5, "null": pytest.approx(1 / 3), "null_low": 0.0, "null_high": 1.0, "n": 4}
    assert label_share(rows, set()) is None


def test_cluster_share_by_hand() -> None:
    rows = near(("technology", " Technologies", "cat"), ("a", "b", "c"))
    assert cluster_share(rows)["value"] == pytest.approx(1 / 6)
    assert cluster_share(near(("alone",))) is None


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        (" the", "THE", True),
        ("cat", "cats", False),
        ("tech", "technology", True),
        ("science", "scientific", True),
        ("international", "interval", True),
        ("international", "internist", True),
        ("abcdefgh", "abcdxxxx", False),
        ("1234", "12345", False),
        ("--", "--", False),
        ("", " ", False),
    ],
)
def test_stems(a: str, b: str, same: bool) -> None:
    assert same_stem(a, b) is same_stem(b, a) is same


def test_domain_share_by_hand() -> None:
    rows = near((" Film", "plot", "the"), ("film", "x", "y"))
    assert domain_share(rows, {"film", "plot"})["value"] == 0.5
    assert domain_share(rows, set(), [rows])["null"] == 0.0


def test_the_words_of_a_domain_by_hand() -> None:
    task = {"film": 40, "the": 60, "rare": 1, "it": 50, "x-y": 50, "half": 30}
    background = {"film": 4, "the": 700, "half": 160, "other": 9000}
    # film: log-odds log(40.5 / 191.5) - log(4.5 / 9860.5) = 6.14 with an error of 0.50; rare is seen once.
    odds = log(40.5 / 191.5) - log(4.5 / 9860.5)
    assert odds == pytest.approx(6.14, abs=0.01)
    assert domain_words(task, background) == {"film", "the", "half"}
    # Less than twice the odds, however sure.
    assert domain_words({"film": 19000, "rest": 81000}, {"film": 10000, "rest": 80000}) == frozenset()
    # New to the background, but seen too seldom to say so.
    assert domain_words({"film": 4, "plot": 5, "rest": 91}, {"rest": 10**6}) == {"plot"}


def test_repeated_share_by_hand() -> None:
    rows = near(("a", "b"), ("a", "c"), ("b", "a"), ("c", "a"), ("a", "b"))
    assert repeated_share(rows)["value"] == 0.6
    assert repeated_share(near(("a",)))["value"] == 0.0


def unstarted(lm: LM) -> LM:
    return replace(lm, codec=replace(lm.codec, first=(), start=None))


def test_perplexity_token_by_token() -> None:
    for lm in (tiny.tiny_lm(), unstarted(tiny.tiny_lm())):
        started = lm.codec.start is not None
        perplexity_is_that_of_each_token(lm, started)


def perplexity_is_that_of_each_token(lm: LM, started: bool) -> None:
    texts = [[70, 71, 72, 70], [80, 81], [82, 83, 84], [90, 91, 92, 93, 94]]
    nats = []
    for text in texts:
        whole = [lm.codec.start, *text] if started else text
        with torch.no_grad():
            said = lm.model(torch.tensor([whole])).logits[0].double().log_softmax(-1)
        nats.append([-float(said[i, token]) for i, token in enumerate(whole[1:])])
    found = prompt_perplexity(lm, texts[0], texts[1:3], texts[3:])
    assert found["value"] == pytest.approx(np.exp(np.mean(nats[0])), rel=1e-4)
    assert found["real"] == pytest.approx(np.exp(np.mean(nats[1] + nats[2])), rel=1e-4)
    assert found["chance"] == pytest.approx(np.exp(np.mean(nats[3])), rel=1e-4)
    assert found["n"] == (4 if started else 3)
    assert (prompt_perplexity(lm, [70]) is None) == (not started)
    assert prompt_perplexity(lm, [], [[1, 2]]) is None


def test_pieces_of_label_words(tiny_lm: LM) -> None:
    assert label_pieces(tiny_lm, films().template, ("0", "1")) == {"bad", "good", *"badgo"}


def test_a_random_prompt_keeps_the_norms() -> None:
    rows = torch.randn(5, 8, generator=torch_stream(2, "test")) * torch.arange(5)[:, None]
    drawn = random_prompt(rows, 0, 1)
    assert torch.allclose(drawn.norm(dim=1), rows.norm(dim=1))
    assert torch.equal(drawn, random_prompt(rows, 0, 1))
    assert not torch.equal(drawn, random_prompt(rows, 0, 2))


def test_a_prompt_of_label_letters_is_read_as_such(tiny_lm: LM) -> None:
    rows = tiny_lm.embedded([tiny_lm.codec.encode([letter])[0][0] for letter in "bbad"])
    found = interpret(tiny_lm, rows, films(), 0, corpus=TOY)
    assert [row["tokens"][0] for row in found["rows"]] == ["b", "b", "a", "d"]
    assert [row["cosines"][0] for row in found["rows"]] == [1.0] * 4
    assert [row["norm"] for row in found["rows"]] == pytest.approx(rows.norm(dim=1).tolist())
    assert (found["label_share"], found["repeated_share"], found["null_draws"]) == (1.0, 0.5, 50)
    assert 0 <= found["label_share_null_low"] <= found["label_share_null"] < 0.5
    # Bytes are letters: none is a word of three.
    assert found["domain_share"] == 0.0
    assert found["prompt_perplexity"] > 1
    assert found["prompt_perplexity_real"] > 1
    assert found["prompt_perplexity_chance"] > 1
    assert found["notes"] == []
    assert found == interpret(tiny_lm, rows, films(), 0, corpus=TOY) == json.loads(json.dumps(found))


def test_what_does_not_apply_is_none_with_a_note(tiny_lm: LM) -> None:
    def absent() -> tuple[str, ...]:
        raise DataError("the network is off")

    task = replace(films(), kind="open", train=())
    gone = Corpus(name="a corpus", pin="", texts=absent)
    found = interpret(tiny_lm, tiny_lm.embedded((70, 71)), task, 0, corpus=gone)
    assert found["label_share"] is found["domain_share"] is found["domain_share_null"] is None
    assert found["prompt_perplexity_real"] is None
    assert found["prompt_perplexity"] > 1
    assert found["notes"] == [
        "label_share: the queries of this task share no label words",
        "domain_share: a corpus cannot be counted: the network is off",
    ]


@pytest.mark.parametrize("length", [1, 3])
def test_the_weights_are_what_they_were(length: int, tiny_lm: LM) -> None:
    before = {name: value.clone() for name, value in tiny_lm.model.state_dict().items()}
    rows = torch.randn(length, 32, generator=torch_stream(3, "test"), requires_grad=True)
    held = rows.detach().clone()
    interpret(tiny_lm, rows, films(), 0, corpus=TOY)
    assert torch.equal(rows, held)
    assert all(torch.equal(value, before[name]) for name, value in tiny_lm.model.state_dict().items())
