"""``kshot generate``: the text that a model goes on with, and options that make no sense."""

from pathlib import Path

import pytest

from kshot.cli import status
from kshot.model.generate import text_of
from kshot.model.load import load_model
from kshot.model.sampling import Sampling
from kshot.seeds import stream

WORDS = ("--dtype", "float32", "--device", "cpu")


def test_texts_are_those_of_the_seed(tiny_model_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = [
        "generate",
        str(tiny_model_dir),
        "--prompt",
        "ab\n",
        "--tokens",
        "7",
        "--top-k",
        "50",
        "--seed",
        "4",
        *WORDS,
    ]
    assert status([*asked, "--count", "2"]) == 0
    lm = load_model(str(tiny_model_dir), dtype="float32", device="cpu")
    texts = [
        "ab\n" + "".join(text_of(lm, "ab\n", Sampling(top_k=50), stream(4, "generate", number), 7))
        for number in range(2)
    ]
    assert capsys.readouterr().out == "\n\n".join(texts) + "\n"
    assert texts[0] != texts[1]
    assert status(asked) == 0
    assert capsys.readouterr().out == texts[0] + "\n", "more texts leave the first as it is"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--tokens", "0"], "--tokens 0: what works is a whole number, 1 or more"),
        (["--tokens", "2.7"], "--tokens 2.7: what works is a whole number"),
        (["--count", "-1"], "--count -1: what works is a whole number, 1 or more"),
        (["--seed", "-1"], "--seed -1: what works is a whole number from 0"),
        (["--momentum", "2"], "--momentum 2: what works is a decay between 0 and 1"),
        (["--top-p", "2"], "top-p 2.0: what works is a share above 0, up to 1"),
        (["--temperature", "-1"], "temperature -1.0: what works is a number, 0 or more"),
        (["--tokens", "999999"], "and 999999 to come"),
    ],
)
def test_options_that_make_no_sense(
    words: list[str], said: str, tiny_model_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status(["generate", str(tiny_model_dir), "--prompt", "x", *words, *WORDS]) == 2
    out, err = capsys.readouterr()
    assert said in err
    assert err.count("\n") == 1
    assert out == "", "a prompt that is not gone on with is not written"


def test_a_prompt_may_begin_with_a_hyphen(tiny_model_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert status(["generate", str(tiny_model_dir), "--prompt", "-x", "--tokens", "1", *WORDS]) == 0
    assert capsys.readouterr().out.startswith("-x")
    assert (
        status(["generate", str(tiny_model_dir), "--prompt", "-- user_id", "--tokens", "1", "--top_k", "5", *WORDS])
        == 0
    )
    assert capsys.readouterr().out.startswith("-- user_id")


def test_no_model_of_that_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert status(["generate", "smollm2-135"]) == 2
    assert "smollm2-135m" in capsys.readouterr().err
