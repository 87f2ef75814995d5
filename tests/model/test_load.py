"""From a folder to a frozen model: formats, routes, and what is refused in one line."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import zoo
from tokenizers.processors import TemplateProcessing
from transformers import Gemma3Config, Gemma3ForConditionalGeneration

from kshot.errors import ModelError
from kshot.model import tiny
from kshot.model.lm import Route
from kshot.model.load import _route, frozen, load_model, open_model
from kshot.model.sources import Source
from kshot.model.tree import Scored


def source(folder: Path) -> Source:
    return Source(name=folder.name, caption="", folder=folder, kind="directory", hash="0")


def test_a_folder_loads_as_it_was_saved(tiny_model_dir, tiny_lm):
    lm = load_model(str(tiny_model_dir), dtype="float32")
    text = lm.codec.encode(["りんご⇒赤\nメロン⇒"])[0]
    sequences = [Scored(text, len(text) - 3)]
    assert np.array_equal(lm.score(sequences).sums(), tiny_lm.score(sequences).sums())
    assert lm.route.kind == "tree"
    assert lm.context == tiny.CONTEXT


def test_sixteen_bit_weights_give_float32_logits_and_gradients(tiny_model_dir):
    lm = load_model(str(tiny_model_dir), dtype="bfloat16")
    assert {p.dtype for p in lm.model.parameters()} == {torch.bfloat16}
    sequences = zoo.forest(np.random.default_rng(0), 20, 3, 250)
    (part,) = lm.stream(sequences)
    assert part.logits.dtype == torch.float32
    with torch.no_grad():
        (without,) = lm.stream(sequences)
    assert torch.equal(part.logits, without.logits)
    exact = load_model(str(tiny_model_dir), dtype="float32").score(sequences).sums()
    assert np.abs(lm.score(sequences).sums() - exact).max() < 0.5


def test_a_converted_model_is_rounded_once_and_kept(tiny_model_dir, tmp_path):
    folder = tmp_path / "converted"
    shutil.copytree(tiny_model_dir, folder)
    converted = replace(source(folder), kind="gguf")
    first = open_model(converted, dtype="bfloat16").model.state_dict()
    kept = tmp_path / "converted-bfloat16" / "model.safetensors"
    written = kept.stat().st_mtime_ns
    again = open_model(converted, dtype="bfloat16").model.state_dict()
    plain = open_model(source(folder), dtype="bfloat16").model.state_dict()
    assert kept.stat().st_mtime_ns == written
    assert all(torch.equal(first[name], plain[name]) and torch.equal(again[name], plain[name]) for name in plain)


def test_bin_weights_are_read_as_weights_only(tmp_path):
    model, tokenizer = tiny.tiny_model()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    assert load_model(str(tmp_path), dtype="float32").route.kind == "tree"


class Planted:
    """What a hostile file would run when it is unpickled."""

    def __reduce__(self):
        return (Path.touch, (Path("planted"),))


def test_a_bin_file_that_is_a_program_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model, tokenizer = tiny.tiny_model()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save({"planted": Planted()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_model(str(tmp_path))
    assert not (tmp_path / "planted").exists()


def test_code_that_comes_with_a_model_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"auto_map": {"AutoModelForCausalLM": "x.Y"}}))
    with pytest.raises(ModelError, match="needs code of its own; kshot runs only models that transformers knows"):
        open_model(source(tmp_path))


@pytest.mark.parametrize(
    ("text", "found"), [("{", "cannot be read as JSON"), ('{"model_type": "nope"}', "cannot be loaded")]
)
def test_a_broken_folder_is_one_line(tmp_path, text, found):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ModelError, match=found) as error:
        open_model(source(tmp_path))
    assert len(str(error.value).splitlines()) == 1


def test_cuda_that_is_not_there_is_said(tiny_model_dir, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ModelError, match="device cuda was asked for and torch finds none; use --device cpu"):
        load_model(str(tiny_model_dir), device="cuda")


def test_an_encoder_decoder_is_refused(tiny_model_dir):
    model, tokenizer = tiny.tiny_model()
    model.config.is_encoder_decoder = True
    with pytest.raises(ModelError, match="is an encoder-decoder"):
        frozen(model, tokenizer, source(tiny_model_dir))


def test_memory_bounds_the_packs_and_not_the_answers(tiny_lm, monkeypatch):
    monkeypatch.setattr("psutil.virtual_memory", lambda: type("Free", (), {"available": 2_000_000})())
    small = tiny.tiny_lm()
    assert small.tokens_per_pack < tiny_lm.tokens_per_pack
    assert small.rows_per_pack < tiny_lm.rows_per_pack
    sequences = zoo.forest(np.random.default_rng(0), 200, 20, 250)
    assert np.abs(small.score(sequences).sums() - tiny_lm.score(sequences).sums()).max() < 1e-4


def test_eager_attention_counts_what_it_writes_down(monkeypatch):
    """Its scores grow with heads and with the square of the tokens: of so little memory fewer tokens are left to a pack."""
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=400_000_000))
    eager, merged = zoo.lm("gemma2"), zoo.lm("gemma3")
    assert (eager.model.config._attn_implementation, merged.model.config._attn_implementation) == (
        "kshot-eager",
        "kshot-sdpa",
    )
    assert eager.tokens_per_pack == 256
    assert merged.tokens_per_pack == 4096


def test_what_a_model_that_also_sees_keeps_of_its_texts_is_read():
    text = {**zoo.TREE["gemma3"][1], "rope_parameters": {"full_attention": {"rope_type": "dynamic", "factor": 2.0,
            "rope_theta": 1e4}, "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}}}  # fmt: skip
    sees = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
            "image_size": 28, "patch_size": 14}  # fmt: skip
    config = Gemma3Config(text_config=text, vision_config=sees, mm_tokens_per_image=4)
    with torch.device("meta"):
        found = Gemma3ForConditionalGeneration(config)
    assert _route(found).reason == "rotary scaling dynamic depends on the length of the text"
    config = Gemma3Config(text_config=zoo.TREE["gemma3"][1], vision_config=sees, mm_tokens_per_image=4)
    source = Source(name="sees", caption="", folder=Path(), kind="directory", hash="0")
    lm = frozen(Gemma3ForConditionalGeneration(config).eval(), zoo.Letters(), source)
    assert (lm.context, lm.route.kind) == (256, "tree")


def test_a_prefix_longer_than_a_pack_is_read_in_parts(tiny_lm):
    sequences = zoo.forest(np.random.default_rng(0), 150, 3, 250)
    parts = replace(tiny_lm, tokens_per_pack=32)
    assert np.abs(parts.score(sequences).sums() - tiny_lm.score(sequences).sums()).max() < 1e-4


def test_first_tokens_are_those_the_tokenizer_puts_before_a_text():
    model, tokenizer = tiny.tiny_model()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", tokenizer.bos_token_id), ("</s>", tokenizer.eos_token_id)]
    )
    lm = frozen(model, tokenizer, source(Path("x")))
    assert lm.codec.first == (tokenizer.bos_token_id,)
    (sequence,) = lm.codec.continuations("", ["ab"], [["c"]]).sequences[0]
    assert sequence.tokens == (tokenizer.bos_token_id, *lm.codec.encode(["abc"])[0])


def test_a_model_that_cannot_choose_rows_is_read_whole_and_right():
    net = zoo.model("gpt2", torch.float64)
    full = net.forward

    def forward(input_ids=None, attention_mask=None, position_ids=None, use_cache=None):
        return full(input_ids=input_ids, attention_mask=attention_mask, position_ids=position_ids, use_cache=use_cache)

    net.forward = forward
    lm = frozen(net, zoo.Letters(), source(Path("x")))
    assert lm.route == Route("rows", "it takes no positions, or gives no chosen rows of logits")
    sequences = zoo.forest(np.random.default_rng(0), 5, 2)
    with torch.no_grad():
        assert np.abs(lm.score(sequences).sums() - zoo.judge(net, sequences).numpy()).max() < 1e-9
