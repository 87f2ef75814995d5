"""What ``kshot pretrain`` is asked, and what it refuses before anything is written."""

from pathlib import Path
from typing import Any

import pytest
from cats import asked

from kshot.errors import DataError, KshotError, UnknownName
from kshot.model.momentum import KINDS
from kshot.study.pretrain.corpus import Corpus
from kshot.study.pretrain.plan import arms, planned
from kshot.study.pretrain_settings import ATTENTIONS, SUMS, make_pretrain_settings
from kshot.study.pretraining import pretrain
from kshot.synth.networks.layers import MIXINGS


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"tasks": ()}, KshotError, "needed is a text"),
        ({"network": "lama"}, UnknownName, "llama"),
        ({"attention": ("momentun",)}, UnknownName, "momentum"),
        ({"eta": ("1.0",)}, KshotError, "between 0 and 1"),
        ({"eta": ("a",)}, KshotError, "between 0 and 1"),
        ({"network": "lstm", "attention": ("momentum",)}, KshotError, "has its own way"),
        (
            {"network": "encoder"},
            KshotError,
            "--network encoder with --objective causal: what works is --objective mlm",
        ),
        ({"network": "t5"}, KshotError, "what works is --objective span or denoise or prefix"),
        ({"network": "llama", "objective": "span"}, KshotError, "what works is --network t5"),
        ({"network": "lstm", "objective": "prefix"}, KshotError, "what works is --network llama or transformer"),
        ({"attention": ("linear",), "objective": "prefix"}, KshotError, "needs softmax attention"),
        ({"attention": ("momentum",), "objective": "mlm"}, KshotError, "an encoder sees all"),
        ({"vocabulary": 300, "tokenizer": "smollm2-135m"}, KshotError, "give one of the two"),
        ({"learning_rate": 0.0}, KshotError, "above 0"),
        ({"tokens": 0}, KshotError, "--tokens 0"),
        ({"context": 3}, KshotError, "--context 3: what works is a whole number from 4"),
        ({"layers": 1.5}, KshotError, "--layers 1.5"),
    ],
)
def test_settings_that_make_no_sense(options: dict[str, Any], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        make_pretrain_settings(**{"tasks": ("a.txt",), **options})


def test_what_cannot_be_learned_from_is_said_before_anything_is_written(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for more, said in (
        ({"vocabulary": 5_000}, "the text has pairs for"),
        ({"context": 4_000}, "what works is --context"),
        ({"width": 15}, "what works is a multiple of"),
    ):
        with pytest.raises(KshotError, match=said):
            pretrain(asked(file, output_path=str(out), **more))
    for name, content in (("empty.txt", ""), ("blank.txt", " \n ")):
        (tmp_path / name).write_text(content, encoding="utf-8")
        with pytest.raises(DataError, match="the text is empty"):
            pretrain(asked(tmp_path / name, output_path=str(out)))
    assert not out.exists()


def test_the_paper_is_trained_as_published_unless_something_else_is_asked() -> None:
    own = {"tasks": ("a",), "size": "paper"}
    training = planned(make_pretrain_settings(**own)).training
    assert (training.betas, training.eps, training.clip, training.schedule) == ((0.9, 0.98), 1e-6, 2.0, "linear")
    assert planned(make_pretrain_settings(**own, schedule="cosine")).schedule == "cosine"
    small = planned(make_pretrain_settings(tasks=("a",))).training
    assert (small.betas, small.eps, small.clip, small.schedule) == ((0.9, 0.95), 1e-8, 1.0, "cosine")


def test_arms_are_each_kind_of_attention_and_those_with_momentum_each_decay() -> None:
    found = arms(
        make_pretrain_settings(tasks=("a",), attention=("softmax", "momentum", "linear"), eta=("0.3", "learned"))
    )
    assert [arm.name for arm in found] == ["softmax", "momentum 0.3", "momentum learned", "linear"]
    assert arms(make_pretrain_settings(tasks=("a",), network="gru"))[0].name == "gru"
    assert (
        Corpus(name="a", train=("x", "y"), valid=("z",)).hash != Corpus(name="a", train=("x",), valid=("y", "z")).hash
    )


def test_kinds_of_attention_are_those_that_there_are() -> None:
    assert set(ATTENTIONS) <= set(MIXINGS)
    assert set(SUMS) == {"softmax", *KINDS} == {name for name in MIXINGS if MIXINGS[name].masks}
