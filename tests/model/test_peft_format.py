"""PEFT opens our folders and we open PEFT's: equal log-probabilities both ways, on unpadded rows with their positions."""

import json
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
import zoo
from safetensors.torch import load_file, save_file

from kshot.data.template import Template
from kshot.errors import DataError, KshotError, ModelError
from kshot.model.adapted import Adapted, load_adapted
from kshot.model.delta import Delta, LowRank, linear_layers
from kshot.model.prefix import Prefix
from kshot.model.tree import Scored
from kshot.seeds import stream, torch_stream

peft = pytest.importorskip("peft")

TEMPLATE = Template(input="{{text}}")
NAMES = ("llama", "gpt2")
# PEFT and the models' own code compute norms and rotary tables in float32, whatever the weights are in.
NEAR = {torch.float32: 1e-4, torch.float64: 1e-5}


def noise(name, *shape, scale=0.3):
    return torch.randn(*shape, generator=torch_stream(0, "peft-test", name), dtype=torch.float64) * scale


def rows():
    rng = stream(0, "peft-rows")
    draw = lambda n: tuple(rng.integers(3, zoo.VOCABULARY, n).tolist())  # noqa: E731
    return [draw(9), draw(5), draw(12)]


def ours(adapted):
    """log P of every token but the first of each row, by the packed pass."""
    found = adapted.reader.score([Scored(r, 1) for r in rows()], adapted.prefix)
    return np.concatenate(found.logprobs)


def theirs(model):
    """The same by PEFT's own forward, row by row with explicit positions, which PEFT counts on from its prefix itself."""
    found = []
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT tells that it ignores positions where it makes the same itself
        for row in rows():
            ids = torch.tensor([row])
            logits = model(input_ids=ids, position_ids=torch.arange(len(row))[None]).logits[0]
            logprobs = logits[-len(row) :].double().log_softmax(-1)
            found += [float(logprobs[i, token]) for i, token in enumerate(row[1:])]
    return np.array(found)


def opened(net, folder):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return peft.PeftModel.from_pretrained(net, folder).eval()


def made(net, config):
    """PEFT's own model with every weight of its drawn, none left at zero."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = peft.get_peft_model(net, config)
    for name, parameter in model.named_parameters():
        if "lora_" in name or "prompt_encoder" in name:
            parameter.data = noise(name, *parameter.shape).to(parameter.dtype)
    return model.eval()


def written(model, folder):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save_pretrained(folder)
    return folder


def soft(lm):
    table = noise("rows", 6, 32).to(lm.dtype)
    with torch.no_grad():
        return replace(plain(lm), prefix=replace(lm.prefill(table), embeddings=table))


def free(lm):
    with torch.no_grad():
        shape = lm.prefill((3, 4, 5)).keys[0].shape
    draw = lambda part: tuple(noise(f"{part}{i}", *shape).to(lm.dtype) for i in range(3))  # noqa: E731
    return replace(plain(lm), prefix=Prefix(draw("k"), draw("v")))


def low_rank(lm, uneven=True):
    found = {}
    for n, (name, (reads, says)) in enumerate(linear_layers(lm.model).items()):
        r = 1 + n % 3 if uneven else 2
        down, up = noise(name + "A", r, reads).to(lm.dtype), noise(name + "B", says, r).to(lm.dtype)
        found[name] = LowRank(down, up, (3 + n % 2) / r if uneven else 2.5)
    return replace(plain(lm), delta=Delta(low_rank=found))


def plain(lm):
    return Adapted(lm=lm, template=TEMPLATE, labels=("a", "b"))


OURS = {"soft": soft, "free": free, "lora": lambda lm: low_rank(lm, uneven=False), "uneven": low_rank}


@pytest.mark.parametrize("dtype", NEAR)
@pytest.mark.parametrize("kind", OURS)
@pytest.mark.parametrize("name", NAMES)
def test_peft_opens_ours(name, kind, dtype, tmp_path):
    adapted = OURS[kind](zoo.lm(name, dtype))
    adapted.save(tmp_path / "a")
    model = opened(zoo.model(name, dtype), tmp_path / "a")
    assert np.abs(ours(adapted) - ours(plain(adapted.lm))).max() > 0.1
    assert np.abs(ours(adapted) - theirs(model)).max() < NEAR[dtype]


def configs():
    linear = {"task_type": "CAUSAL_LM", "target_modules": "all-linear", "r": 3, "lora_alpha": 5}
    virtual = {"task_type": "CAUSAL_LM", "num_virtual_tokens": 4}
    return {
        "soft": peft.PromptTuningConfig(**virtual),
        "p-tuning": peft.PromptEncoderConfig(**virtual, encoder_hidden_size=8),
        "free": peft.PrefixTuningConfig(**virtual),
        "projected": peft.PrefixTuningConfig(**virtual, prefix_projection=True, encoder_hidden_size=7),
        "lora": peft.LoraConfig(**linear, bias="none"),
        "rslora": peft.LoraConfig(**linear, use_rslora=True),
        "patterns": peft.LoraConfig(
            **linear, rank_pattern={".*0.*": 2, "^nothing": 9}, alpha_pattern={".*1.*": 7.5, "c_fc": 2}
        ),
    }


@pytest.mark.parametrize("kind", configs())
@pytest.mark.parametrize("name", NAMES)
def test_ours_opens_pefts(name, kind, tmp_path):
    model = made(zoo.model(name, torch.float32), configs()[kind])
    folder = written(model, tmp_path / "a")
    lm = zoo.lm(name, torch.float32)
    adapted = load_adapted(lm, folder, template=TEMPLATE, labels=("a", "b"))
    judge = opened(zoo.model(name, torch.float32), folder)
    assert np.abs(ours(adapted) - ours(plain(lm))).max() > 0.1
    assert np.abs(ours(adapted) - theirs(judge)).max() < 1e-4
    # and once more by way of our own folder
    adapted.save(tmp_path / "b")
    assert np.array_equal(ours(load_adapted(lm, tmp_path / "b")), ours(adapted))


@pytest.mark.parametrize("name", ["gpt-neox", "qwen3", "gemma3", "opt"])
def test_other_models_are_read_alike(name, tmp_path):
    lm = zoo.lm(name, torch.float32)
    for kind in ("soft", "free", "uneven"):
        adapted = OURS[kind](lm)
        adapted.save(tmp_path / kind)
        model = opened(zoo.model(name, torch.float32), tmp_path / kind)
        assert np.abs(ours(adapted) - theirs(model)).max() < 2e-4


def test_scales_come_back_to_the_bit(tmp_path):
    lm = zoo.lm("llama", torch.float32)
    name = "model.layers.0.self_attn.q_proj"
    for r in (1, 3, 7, 16, 49):
        for alpha in (1, 7, 16, 0.1, 1 / 3):
            down, up = noise("a", r, 32).float(), noise("b", 32, r).float()
            replace(plain(lm), delta=Delta(low_rank={name: LowRank(down, up, alpha / r)})).save(tmp_path / "a")
            assert load_adapted(lm, tmp_path / "a").delta.low_rank[name].scale == alpha / r


def edited(folder, **changes):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


def with_tensors(folder, change):
    path = folder / "adapter_model.safetensors"
    save_file(change(load_file(path)), path)
    return folder


@pytest.fixture
def lm():
    return zoo.lm("llama", torch.float32)


@pytest.fixture
def adapter(lm, tmp_path):
    """A folder of LoRA as PEFT leaves it: without our own file."""

    def make(kind="lora"):
        folder = OURS[kind](lm).save(tmp_path / kind)
        (folder / "kshot.json").unlink()
        return folder

    return make


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"use_dora": True}, "kshot cannot read use_dora=True"),
        ({"bias": "lora_only"}, "kshot cannot read bias='lora_only'; what works is bias='none'"),
        ({"modules_to_save": ["lm_head"]}, r"kshot cannot read modules_to_save=\['lm_head'\]"),
        ({"layer_replication": [[0, 2]]}, "kshot cannot read layer_replication"),
        ({"something_new": 3}, "kshot cannot read something_new=3"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights='pissa' has changed the weights of the model itself"),
        (
            {"peft_type": "LOHA"},
            "peft_type is 'LOHA'; what kshot reads is LORA, P_TUNING, PREFIX_TUNING, PROMPT_TUNING",
        ),
        ({"num_transformer_submodules": 2}, "num_transformer_submodules is 2; kshot reads decoders only"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(changes, said, adapter, lm):
    with pytest.raises(DataError, match=said):
        load_adapted(lm, edited(adapter(), **changes), template=TEMPLATE, labels=("a",))


NAN = float("nan")
LAYER = "base_model.model.model.layers.0.self_attn.q_proj.lora_"


@pytest.mark.parametrize(
    ("kind", "change", "error", "said"),
    [
        ("lora", lambda t: t | {"x.lora_embedding_A": torch.ones(1)}, DataError, "cannot read 'x.lora_embedding_A'"),
        ("lora", lambda t: t | {LAYER + "A.weight": t[LAYER + "A.weight"] * NAN}, DataError, "holds NaN or infinity"),
        ("lora", lambda t: {k: v for k, v in t.items() if k != LAYER + "B.weight"}, DataError, "lacks the other half"),
        ("lora", lambda t: t | {LAYER + "A.weight": torch.ones(2, 31)}, ModelError,
         r"q_proj' has lora_A \(2, 31\) and lora_B \(32, 2\); the layer of llama reads 32 numbers and says 32"),
        ("lora", lambda t: {"base_model.model.a.lora_A.weight": torch.ones(1, 1), "base_model.model.a.lora_B.weight": torch.ones(1, 1)},
         ModelError, "changes the layer 'a', which llama does not have"),
        ("lora", lambda t: {f"base_model.model.model.norm.lora_{x}.weight": torch.ones(1, 1) for x in "AB"}, ModelError, "which is no linear layer"),
        ("lora", lambda t: {}, DataError, "holds nothing"),
        ("soft", lambda t: {"prompt_embeddings": torch.ones(2, 31)}, ModelError, "has rows of 31 numbers, llama reads 32"),
        ("soft", lambda t: {"prompt_embeddings": torch.ones(31)}, DataError, "has the shape"),
        ("soft", lambda t: {"other": torch.ones(3)}, DataError, "holds no prompt_embeddings"),
        ("soft", lambda t: t | {"other": torch.ones(3)}, DataError, "also holds 'other'"),
        ("free", lambda t: {"prompt_embeddings": torch.ones(2, 95)}, ModelError,
         r"has 95 numbers a position, and llama keeps 96 \(3 layers, 2 x 2 heads of 8\)"),
    ],
)  # fmt: skip
def test_tensors_that_do_not_fit_are_refused(kind, change, error, said, adapter, lm):
    with pytest.raises(error, match=said):
        load_adapted(lm, with_tensors(adapter(kind), change), template=TEMPLATE, labels=("a",))


def test_files_that_are_missing_or_damaged(adapter, lm):
    folder = adapter()
    with pytest.raises(KshotError, match=r"without kshot.json, so it does not say how its task is written; give"):
        load_adapted(lm, folder)
    path = folder / "adapter_model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"adapter_model.safetensors is damaged: "):
        load_adapted(lm, folder, template=TEMPLATE, labels=("a",))
    path.rename(folder / "adapter_model.bin")
    with pytest.raises(DataError, match=r"holds adapter_model.bin, which could run code; save it again as safetensors"):
        load_adapted(lm, folder, template=TEMPLATE, labels=("a",))
    (folder / "adapter_config.json").write_text("{")
    with pytest.raises(DataError, match=r"adapter_config.json cannot be read as JSON"):
        load_adapted(lm, folder, template=TEMPLATE, labels=("a",))
