"""How tokens are drawn: by hand, and as transformers' own processors have it on the same logits."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from kshot.errors import KshotError, NumericError
from kshot.model.sampling import Sampling
from kshot.seeds import stream

SHARES = torch.tensor([[0.5, 0.25, 0.125, 0.125]], dtype=torch.float64)


def left(how: Sampling, shares: torch.Tensor = SHARES) -> list[float]:
    return [round(float(own), 6) for own in how.kept(shares.log()).exp()[0]]


def test_by_hand() -> None:
    assert left(Sampling()) == [0.5, 0.25, 0.125, 0.125]
    assert left(Sampling(top_k=2)) == [0.666667, 0.333333, 0, 0]
    assert left(Sampling(top_k=3)) == [0.5, 0.25, 0.125, 0.125], "as probable as the last one that is kept"
    assert left(Sampling(top_p=0.6)) == [0.666667, 0.333333, 0, 0]
    assert left(Sampling(top_p=0.1)) == [1, 0, 0, 0], "one is kept, however little is asked for"
    assert left(Sampling(temperature=0.5)) == [round(own / 0.34375, 6) for own in (0.25, 0.0625, 0.015625, 0.015625)]


@given(st.integers(0, 300), st.floats(0.01, 1.0))
def test_top_p_keeps_exactly_the_smallest_set(seed: int, share: float) -> None:
    logits = torch.randn(1, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    found = torch.isfinite(Sampling(top_p=share).kept(logits)[0])
    shares = logits.softmax(1)[0]
    falling = shares.sort(descending=True).values
    smallest = next(n for n in range(1, 13) if n == 12 or float(falling[:n].sum()) >= share)
    assert int(found.sum()) == smallest
    assert shares[found].min() >= shares[~found].max() if smallest < 12 else True


@given(st.integers(0, 200), st.floats(0.2, 3.0), st.integers(1, 60), st.floats(0.05, 0.999))
def test_it_is_what_transformers_does(seed: int, temperature: float, k: int, p: float) -> None:
    logits = 3 * torch.randn(4, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    found = Sampling(temperature=temperature, top_k=k, top_p=p).kept(logits)
    theirs = logits
    for warper in (TemperatureLogitsWarper(temperature), TopKLogitsWarper(k), TopPLogitsWarper(p)):
        theirs = warper(torch.zeros(4, 1, dtype=torch.long), theirs)
    assert torch.allclose(found.exp(), theirs.softmax(1), atol=1e-12)


def test_draws_have_the_shares_and_a_seed() -> None:
    rows = SHARES.log().expand(4000, -1)
    found = Sampling(top_k=2).next(rows, stream(0, "draws"))
    assert set(found.tolist()) == {0, 1}
    assert np.mean(found == 0) == pytest.approx(2 / 3, abs=0.03)
    assert np.array_equal(Sampling(top_k=2).next(rows, stream(0, "draws")), found)
    assert np.array_equal(Sampling(top_k=2).next(rows[:100], stream(0, "draws")), found[:100])


def test_at_temperature_zero_it_is_the_most_probable() -> None:
    assert Sampling(temperature=0.0).next(SHARES.log(), stream(0, "x")).tolist() == [0]


def test_a_token_of_no_probability_is_never_drawn() -> None:
    logits = torch.tensor([[-torch.inf, 0.0, -torch.inf, 0.0, -torch.inf]]).expand(500, -1)
    assert set(Sampling().next(logits, stream(1, "draws")).tolist()) == {1, 3}


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize(
    ("row", "worst"), [([0.0, torch.nan, 1.0], "nan"), ([0.0, torch.inf, 1.0], "inf"), ([-torch.inf] * 3, "-inf")]
)
def test_of_what_is_no_number_nothing_is_drawn(temperature: float, row: list[float], worst: str) -> None:
    logits = torch.tensor([[1.0, 2.0, 3.0], row])
    with pytest.raises(NumericError, match=f"^the next token .* and the greatest of its logits is {worst}; try"):
        Sampling(temperature=temperature).next(logits, stream(0, "draws"))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"temperature": -1.0}, "temperature -1.0"),
        ({"temperature": float("nan")}, "temperature nan"),
        ({"top_k": 0}, "top-k 0"),
        ({"top_p": 0.0}, "top-p 0.0"),
        ({"top_p": 1.5}, "top-p 1.5"),
    ],
)
def test_what_makes_no_sense_is_refused(wrong: dict[str, float], said: str) -> None:
    with pytest.raises(KshotError, match=said):
        Sampling(**wrong)
