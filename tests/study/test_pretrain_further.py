"""A pretrained model that is trained further by ``kshot pretrain --start``: momentum, LM adaptation, what is refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from cats import asked, rows_of
from transformers import T5ForConditionalGeneration

from kshot.errors import KshotError
from kshot.measure.perplexity import perplexity, surprise
from kshot.model.load import load_model
from kshot.model.seq2seq import load_seq2seq
from kshot.study.pretrain.corpus import corpus_of
from kshot.study.pretrain_settings import make_pretrain_settings
from kshot.study.pretraining import pretrain


def test_a_model_is_trained_further_with_and_without_momentum(file: Path, tiny_model_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    more: dict[str, Any] = {
        "vocabulary": None,
        "layers": None,
        "heads": None,
        "width": None,
        "start": str(tiny_model_dir),
    }
    settings = asked(file, **more, attention=("softmax", "momentum"), learning_rate=1e-3, output_path=str(out))
    results = pretrain(settings).results
    rows = rows_of(results)
    assert results["kshot"]["plan"]["trained_further"] == str(tiny_model_dir)
    saved = {cell["part"]: cell.get("saved") for cell in results["kshot"]["cells"]}
    valid = corpus_of([str(file)]).valid
    for name in ("softmax", "momentum learned"):
        lm = load_model(str(out / saved[name]), dtype="float32", device="cpu")
        # A model's own first token is another question; here all begin after what ends a text.
        lm = replace(lm, codec=replace(lm.codec, first=(lm.codec.tokenizer.eos_token_id,)))
        value = perplexity(surprise(lm, valid, 16))[0]
        assert rows["perplexity", f"{name}, context 16", 0]["value"] == pytest.approx(value, rel=1e-4)
    assert lm.momentum is not None
    assert lm.momentum.gate is not None
    assert lm.momentum.gate.abs().min() > 0
    assert ("nats_gained", "momentum learned, context 16, over softmax", 0) in rows


def test_an_encoder_decoder_of_hidden_spans_learns_to_go_on_with_texts(file: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    spans = {"objective": "span", "vocabulary": 380, "learning_rate": 1e-2, "tokens": 10_000}
    grown = pretrain(asked(file, **spans, output_path=str(first))).results["kshot"]
    start = str(first / grown["cells"][0]["saved"])
    none = {"vocabulary": None, "layers": None, "heads": None, "width": None}
    more = {**none, "start": start, "objective": "prefix", "learning_rate": 1e-2, "tokens": 10_000}
    found = pretrain(asked(file, **more, output_path=str(second))).results["kshot"]
    (along,) = [own["lines"]["t5"] for own in found["pictures"] if own["name"] == "validation loss by tokens"]
    assert along[-1][1] < along[0][1] - 0.5, "it learns what it was never asked"
    saved = second / found["cells"][0]["saved"]
    opened = T5ForConditionalGeneration.from_pretrained(saved, dtype=torch.float32)
    own = load_seq2seq(str(saved), device="cpu")
    tokens, source = torch.randint(1, 380, (2, 5)), torch.randint(1, 380, (2, 9))
    begun = torch.cat([torch.full((2, 1), opened.config.decoder_start_token_id), tokens[:, 1:]], dim=1)
    theirs = opened(input_ids=source, decoder_input_ids=begun, use_cache=False).logits
    assert torch.allclose(own.says(own.start(), tokens, source), theirs, atol=1e-5)
    weights = {name: tensor.requires_grad_(True) for name, tensor in own.start().items()}
    own.says(weights, tokens, source).square().mean().backward()
    assert all(tensor.grad is not None for tensor in weights.values()), "all of it moves"
    with pytest.raises(
        KshotError, match="is an encoder-decoder, and --objective causal is not for it; give prefix, span"
    ):
        pretrain(asked(file, **none, start=start))


def test_a_decoder_does_not_say_hidden_spans(file: Path, tiny_model_dir: Path) -> None:
    none = {"vocabulary": None, "layers": None, "heads": None, "width": None}
    with pytest.raises(KshotError, match="is a decoder, and --objective span is not for it; give causal"):
        pretrain(asked(file, **none, start=str(tiny_model_dir), objective="span"))
    with pytest.raises(KshotError):
        pretrain(asked(file, **none, start=str(file.parent / "nowhere"), objective="span"))


def test_more_than_a_start_reads_is_said_before_anything_is_written(
    file: Path, tiny_model_dir: Path, tmp_path: Path
) -> None:
    none = {"vocabulary": None, "layers": None, "heads": None, "width": None}
    out = tmp_path / "out"
    longest = load_model(str(tiny_model_dir), device="cpu").context
    with pytest.raises(KshotError, match=f"rows of {longest + 1} tokens: .* reads {longest}; give --context {longest}"):
        pretrain(asked(file, **none, start=str(tiny_model_dir), context=longest + 1, output_path=str(out)))
    assert not out.exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"width": 16}, "--width with --start m"),
        ({"network": "llama"}, "--network with --start m"),
        ({"objective": "mlm"}, "what works is --objective causal"),
        ({"objective": "span", "attention": ("momentum",)}, "a network t5 has its own way"),
        ({"attention": ("linear",)}, "--attention of softmax, momentum, momentum-normalised, momentum-keys"),
    ],
)
def test_what_a_start_rules_out(options: dict[str, Any], said: str) -> None:
    with pytest.raises(KshotError, match=said):
        make_pretrain_settings(**{"tasks": ("a.txt",), "start": "m", **options})
