"""Artefacts: what is read back is what was saved, to the bit; and what cannot be trusted is refused in one line."""

import json
import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from kshot.adapt.prompting import InContext, ZeroShot
from kshot.data.task import Example, Task
from kshot.data.template import Template
from kshot.errors import DataError, KshotError, ModelError, OutputError
from kshot.model import tiny
from kshot.model.adapted import Adapted, Training, load_adapted
from kshot.model.classifier import CLASSIFIERS
from kshot.model.delta import NO_CHANGE, Delta, LowRank, linear_layers
from kshot.model.momentum import Momentum
from kshot.model.prefix import Prefix
from kshot.model.prompts import Prompt, continuations
from kshot.model.sealed import seal
from kshot.seeds import torch_stream

TEMPLATE = Template(
    input="Text: {{text}}\nIs it good?", words={"0": "no", "1": "yes, it is"}, description="Judge.\n", separator="\n\n"
)
POOL = tuple(
    Example(id=str(i), fields={"text": text}, label=str(i % 2))
    for i, text in enumerate(
        ["so bad a film", "a fine film", "what a waste", "a joy – 楽しい", "dull", "I laughed a lot"]
    )
)
TASK = Task(name="t", kind="classification", labels=("0", "1"), train=POOL, test=POOL[:2], template=TEMPLATE)
QUERIES = [{"text": "a film of waste"}, {"text": "joy"}, {"text": "x"}]
TRAINING = Training(
    parameters=7,
    steps=3,
    seconds=0.5,
    tokens=99,
    flops=1e9,
    start=0.7,
    losses=(0.7, 0.25, 0.1),
    flattened=False,
    chosen={"learning_rate": 0.3},
    search=({"learning_rate": 0.3, "loss": 0.1},),
    validation="2 of 4 examples",
)


def noise(name, *shape, scale=0.3):
    return torch.randn(*shape, generator=torch_stream(0, "artefact-test", name)) * scale


def soft(lm, delta=NO_CHANGE):
    rows = noise("rows", 5, 32)
    with torch.no_grad():
        prefix = replace(replace(lm, delta=delta).prefill(rows), embeddings=rows)
    return plain(lm, prefix=prefix, delta=delta, method="soft-prompt", training=TRAINING)


def free(lm):
    keys = tuple(noise(f"k{i}", 1, 2, 4, 8) for i in range(2))
    return plain(lm, prefix=Prefix(keys, tuple(noise(f"v{i}", 1, 2, 4, 8) for i in range(2))), method="prefix")


def low_rank(lm):
    found = {}
    for n, (name, (reads, says)) in enumerate(linear_layers(lm.model).items()):
        r = 1 + n % 3
        found[name] = LowRank(noise(name + "A", r, reads), noise(name + "B", says, r), 5 / (r + 2))
    return Delta(low_rank=found)


def dense(lm):
    names = [n for n, _ in lm.model.named_parameters() if "v_proj" in n or "norm" in n]
    known = dict(lm.model.named_parameters())
    return Delta(dense={n: known[n].detach() + noise(n, *known[n].shape) for n in names})


def plain(lm, **more):
    return Adapted(**{"lm": lm, "template": TEMPLATE, "labels": ("0", "1"), "method": "x", "notes": ("n",), **more})


def fit(method):
    return lambda lm: method.fit(lm, TASK, POOL, 3)


KINDS = {
    "zero-shot": fit(ZeroShot()),
    "channel": fit(ZeroShot(channel=True)),
    "in-context": fit(InContext(shots=3, order=1)),
    "channel-in-context": fit(InContext(shots=2, channel=True)),
    "bm25": fit(InContext(shots=2, pick="bm25", order=1)),
    "hidden": fit(InContext(shots=2, pick="hidden")),
    "soft-prompt": soft,
    "prefix": free,
    "lora": lambda lm: plain(lm, delta=low_rank(lm), training=TRAINING),
    "fine-tune": lambda lm: plain(lm, delta=dense(lm)),
    "soft-prompt-and-lora": lambda lm: soft(lm, low_rank(lm)),
    "lora-and-dense": lambda lm: plain(lm, delta=Delta(low_rank(lm).low_rank, dense(lm).dense)),
    "frequencies": lambda lm: plain(
        lm, classifier=CLASSIFIERS["frequencies"](labels=("0", "1"), counts=np.array([3, 1]))
    ),
}


def said(adapted):
    return [(p.label, p.probability, dict(p.logprobs)) for p in adapted.predict(QUERIES)]


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("name", KINDS)
def test_what_is_loaded_says_the_same_to_the_bit(name, compiled, tiny_lm, tmp_path):
    adapted = KINDS[name](tiny_lm)
    before = said(adapted)
    assert adapted.save(tmp_path / "a", compiled=compiled) == tmp_path / "a"
    loaded = load_adapted(tiny_lm, tmp_path / "a")
    if compiled and adapted.prefix.tokens == ():
        # a description that is read ahead is cut elsewhere than one read with the queries: rounding
        close = [(a[0], b[0], np.abs(np.subtract(list(a[2].values()), list(b[2].values()))).max() < 1e-4)
                 for a, b in zip(said(loaded), before, strict=True)]  # fmt: skip
        assert all(a == b and near for a, b, near in close)
    else:
        assert said(loaded) == before
    assert loaded.template == adapted.template
    assert loaded.demonstrations == adapted.demonstrations
    assert loaded.training == adapted.training
    for field in ("method", "kind", "labels", "channel", "notes", "trainable_parameters"):
        assert getattr(loaded, field) == getattr(adapted, field)
    assert {p.name for p in tmp_path.iterdir()} == {"a"}
    loaded.save(tmp_path / "b", compiled=compiled)
    for path in (tmp_path / "a").rglob("*.*"):
        assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes()


def asked(adapted):
    shown = "".join(TEMPLATE.demonstration(e.fields, e.label) + TEMPLATE.separator for e in adapted.demonstrations)
    prompts = [Prompt(TEMPLATE.description + shown, q, ("0", "1")) for q in QUERIES]
    return [s for own in continuations(adapted.lm.codec, TEMPLATE, prompts).sequences for s in own]


@pytest.mark.parametrize("name", ["in-context", "zero-shot", "soft-prompt", "prefix", "lora"])
def test_a_compiled_prefix_costs_no_token(name, tiny_lm, tmp_path):
    adapted = KINDS[name](tiny_lm)
    adapted.save(tmp_path / "a", compiled=True)
    loaded = load_adapted(tiny_lm, tmp_path / "a")
    sequences = asked(loaded)
    spent = loaded.reader.score(sequences, loaded.prefix).tokens
    distinct = {s.tokens[:i] for s in sequences for i in range(1, len(s.tokens))}
    known = 0 if loaded.prefix.tokens is None else loaded.prefix.length
    if loaded.prefix.tokens is not None:
        assert known == len(TEMPLATE.description) + sum(
            len((TEMPLATE.demonstration(e.fields, e.label) + "\n\n").encode()) for e in adapted.demonstrations
        )
    assert spent == len(distinct) - known
    assert load_file(tmp_path / "a" / "prefix.safetensors")["keys.1"].shape[2] == loaded.prefix.length


def test_compiled_keys_and_values_are_those_that_were_saved(tiny_lm, tmp_path):
    adapted = KINDS["in-context"](tiny_lm)
    adapted.save(tmp_path / "a", compiled=True)
    loaded = load_adapted(tiny_lm, tmp_path / "a")
    for one, two in zip(
        adapted.prefix.keys + adapted.prefix.values, loaded.prefix.keys + loaded.prefix.values, strict=True
    ):
        assert torch.equal(one, two)
    assert loaded.prefix.tokens == adapted.prefix.tokens


@pytest.mark.skipif(not os.path.exists("/proc/self/maps"), reason="maps are a thing of Linux")
def test_a_compiled_prefix_is_mapped_from_the_disk(tiny_lm, tmp_path):
    KINDS["in-context"](tiny_lm).save(tmp_path / "a", compiled=True)
    loaded = load_adapted(tiny_lm, tmp_path / "a")
    with open("/proc/self/maps", encoding="utf-8") as file:
        assert str(tmp_path / "a" / "prefix.safetensors") in file.read()
    assert loaded.prefix.length


def test_a_compiled_prefix_in_another_number_format_is_made_again(tiny_lm, tmp_path):
    adapted = soft(tiny_lm)
    adapted.save(tmp_path / "a", compiled=True)
    path = tmp_path / "a" / "kshot.json"
    facts = json.loads(path.read_text())
    facts["compiled"]["dtype"] = "torch.bfloat16"
    path.write_text(json.dumps(facts))
    assert said(load_adapted(tiny_lm, tmp_path / "a")) == said(adapted)
    facts["compiled"]["dtype"] = "torch.float32"
    path.write_text(json.dumps(facts))
    (tmp_path / "a" / "prefix.safetensors").unlink()
    assert said(load_adapted(tiny_lm, tmp_path / "a")) == said(adapted)


def test_a_query_is_never_its_own_demonstration_after_loading(tiny_lm, tmp_path):
    KINDS["bm25"](tiny_lm).save(tmp_path / "a")
    loaded = load_adapted(tiny_lm, tmp_path / "a")
    for example in POOL:
        shown = loaded.retrieve(example)
        assert len(shown) == 2
        assert example.id not in {e.id for e in shown}


def test_keys_and_values_of_unequal_width_are_kept_in_our_own_file(tmp_path):
    import zoo

    lm = zoo.lm("deepseek-mla", torch.float32)
    with torch.no_grad():
        known = lm.prefill((5, 6, 7))
    adapted = replace(plain(lm), prefix=Prefix(known.keys, known.values))
    adapted.save(tmp_path / "a")
    assert not (tmp_path / "a" / "adapter_config.json").exists()
    loaded = load_adapted(lm, tmp_path / "a")
    assert all(torch.equal(a, b) for a, b in zip(known.keys, loaded.prefix.keys, strict=True))


@pytest.fixture
def saved(tiny_lm, tmp_path):
    plain(tiny_lm, delta=dense(tiny_lm)).save(tmp_path / "a")
    return tmp_path / "a"


def change(folder, **facts):
    path = folder / "kshot.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | facts))


def resealed(folder, name, tensors):
    save_file(tensors, folder / name)
    change(folder, files={name: seal(folder / name)})


def test_another_model_is_refused(saved):
    with pytest.raises(ModelError, match=r"was taught to the model 'tiny-0' \(hash \w{12}\), and this one is 'tiny-1'"):
        load_adapted(tiny.tiny_lm(1), saved)


def test_a_damaged_file_is_refused(saved, tiny_lm):
    path = saved / "weights.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    with pytest.raises(DataError, match=r"is damaged: weights.safetensors has \d+ bytes of \d+; save it again"):
        load_adapted(tiny_lm, saved)
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(DataError, match=r"weights.safetensors is not what was saved"):
        load_adapted(tiny_lm, saved)
    path.unlink()
    with pytest.raises(DataError, match=r"is damaged: weights.safetensors is missing; save it again"):
        load_adapted(tiny_lm, saved)


def test_damaged_facts_are_refused(saved, tiny_lm):
    path = saved / "kshot.json"
    whole = path.read_text()
    path.write_text(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"kshot.json is damaged: "):
        load_adapted(tiny_lm, saved)
    path.write_text("[1]")
    with pytest.raises(DataError, match="names no format, so it was not written by kshot"):
        load_adapted(tiny_lm, saved)
    facts = json.loads(whole)
    for name in ("model", "template", "labels", "files", "prefix", "training", "retrieve", "demonstrations"):
        path.write_text(json.dumps({k: v for k, v in facts.items() if k != name}))
        with pytest.raises(DataError, match=f"damaged: KeyError '{name}'"):
            load_adapted(tiny_lm, saved)
    path.write_text(json.dumps(facts | {"training": {"steps": 3}}))
    with pytest.raises(DataError, match="damaged: training"):
        load_adapted(tiny_lm, saved)


def test_a_newer_format_is_refused(saved, tiny_lm):
    change(saved, format=2, kshot="9.1")
    with pytest.raises(DataError, match=r"has format 2, written by kshot 9.1; this one reads up to 1: update kshot"):
        load_adapted(tiny_lm, saved)


def test_weights_that_do_not_fit_are_refused(saved, tiny_lm):
    tensors = load_file(saved / "weights.safetensors")
    name = next(iter(tensors))
    resealed(saved, "weights.safetensors", {"nothing.weight": tensors[name]})
    with pytest.raises(ModelError, match=r"holds weights 'nothing.weight', which tiny-0 does not have"):
        load_adapted(tiny_lm, saved)
    resealed(saved, "weights.safetensors", {name: torch.zeros(2, 3)})
    with pytest.raises(ModelError, match=rf"{name!r} has the shape \(2, 3\), that of tiny-0 is"):
        load_adapted(tiny_lm, saved)
    resealed(saved, "weights.safetensors", {name: tensors[name] * float("nan")})
    with pytest.raises(DataError, match=f"{name!r} holds NaN or infinity"):
        load_adapted(tiny_lm, saved)


def test_what_is_no_artefact_is_refused(tiny_lm, tmp_path):
    with pytest.raises(DataError, match="there is no such folder"):
        load_adapted(tiny_lm, tmp_path / "none")
    (tmp_path / "notes.txt").touch()
    with pytest.raises(
        DataError, match=r"is no artefact: it holds neither kshot.json nor adapter_config.json \(found n"
    ):
        load_adapted(tiny_lm, tmp_path)


def test_an_artefact_brings_its_own_template(saved, tiny_lm):
    with pytest.raises(KshotError, match="brings its own template and labels; give load_adapted none"):
        load_adapted(tiny_lm, saved, template=TEMPLATE)


def test_only_an_artefact_is_replaced(saved, tiny_lm, tmp_path):
    KINDS["soft-prompt"](tiny_lm).save(saved)
    assert not (saved / "weights.safetensors").exists()
    assert load_adapted(tiny_lm, saved).method == "soft-prompt"
    (saved / "thesis.tex").write_text("ten years")
    with pytest.raises(OutputError, match=r"the folder holds something else \(thesis.tex\); name a new one"):
        KINDS["zero-shot"](tiny_lm).save(saved)
    other = tmp_path / "other"
    other.mkdir()
    (other / "adapter_config.json").write_text("{}")
    with pytest.raises(OutputError, match="something else"):
        KINDS["zero-shot"](tiny_lm).save(other)
    with pytest.raises(OutputError, match="that is a file; name a new folder"):
        KINDS["zero-shot"](tiny_lm).save(saved / "thesis.tex")
    assert (saved / "thesis.tex").read_text() == "ten years"


def test_a_save_that_fails_leaves_everything_as_it_was(saved, tiny_lm, tmp_path, monkeypatch):
    before = {p.name: p.read_bytes() for p in saved.iterdir()}

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("kshot.model.peft_format.save_file", full)
    for target in (saved, tmp_path / "new"):
        with pytest.raises(OutputError, match=r"cannot write .*: No space left on device; nothing was changed"):
            KINDS["soft-prompt"](tiny_lm).save(target)
    assert {p.name: p.read_bytes() for p in saved.iterdir()} == before
    assert {p.name for p in tmp_path.iterdir()} == {"a"}


def test_what_a_kill_left_half_made_is_swept_when_it_is_old(tiny_lm, tmp_path):
    old, young, other = (tmp_path / name for name in (".a.partial-1", ".a.partial-2", ".b.partial-1"))
    for folder in (old, young, other):
        folder.mkdir()
    for folder in (old, other):
        os.utime(folder, (1.0, 1.0))
    KINDS["zero-shot"](tiny_lm).save(tmp_path / "a")
    assert not old.exists()
    assert young.exists()
    assert other.exists(), "what is not of the same folder is left"


def test_a_field_that_json_cannot_hold_is_named(tiny_lm, tmp_path):
    odd = replace(POOL[0], fields={"text": "a", "when": {1, 2}})
    with pytest.raises(DataError, match="an artefact holds text, numbers and lists"):
        plain(tiny_lm, demonstrations=(odd,)).save(tmp_path / "a")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("on_top", ["delta", "momentum"])
def test_what_the_model_was_read_with_belongs_to_the_artefact(on_top, tiny_lm, tmp_path):
    changes = {"delta": low_rank(tiny_lm), "momentum": Momentum(torch.full(tiny_lm.value_heads, 0.5))}
    lm = replace(tiny_lm, **{on_top: changes[on_top]})
    adapted = plain(lm)
    adapted.save(tmp_path / "a")
    assert said(load_adapted(lm, tmp_path / "a")) == said(adapted) != said(plain(tiny_lm))
    words = {"delta": "change of weights", "momentum": "momentum"}[on_top]
    with pytest.raises(
        ModelError, match=rf"with a {words} of its own \(hash \w{{12}}\), and this one is read with no {words}"
    ):
        load_adapted(tiny_lm, tmp_path / "a")
    plain(tiny_lm).save(tmp_path / "b")
    with pytest.raises(ModelError, match=rf"with no {words}, and this one is read with a {words} of its own"):
        load_adapted(lm, tmp_path / "b")
    # written before kshot kept this: taken as it is
    facts = json.loads((tmp_path / "b" / "kshot.json").read_text())
    del facts["model"][on_top]
    change(tmp_path / "b", model=facts["model"])
    assert said(load_adapted(lm, tmp_path / "b")) == said(adapted)


def test_a_prefix_is_read_ahead_with_all_changes(tiny_lm, tmp_path):
    adapted = KINDS["in-context"](replace(tiny_lm, delta=low_rank(tiny_lm)))
    adapted = replace(adapted, delta=dense(tiny_lm))
    adapted = replace(adapted, prefix=adapted.reader.prefill(adapted.prefix.tokens))
    adapted.save(tmp_path / "a")
    assert said(load_adapted(adapted.lm, tmp_path / "a")) == said(adapted)


def test_where_it_was_saved_is_where_it_lies(tiny_lm, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert KINDS["zero-shot"](tiny_lm).save("~/a") == tmp_path / "a"
    assert (tmp_path / "a" / "kshot.json").is_file()


def test_an_interrupt_between_two_names_leaves_the_old_artefact(saved, tiny_lm, tmp_path, monkeypatch):
    before, rename, count = {p.name: p.read_bytes() for p in saved.iterdir()}, os.replace, []

    def stopped(one, other):
        count.append(one)
        if len(count) == 2:
            raise KeyboardInterrupt
        rename(one, other)

    monkeypatch.setattr("kshot.model.sealed.os.replace", stopped)
    with pytest.raises(KeyboardInterrupt):
        KINDS["soft-prompt"](tiny_lm).save(saved)
    assert {p.name: p.read_bytes() for p in saved.iterdir()} == before
    assert {p.name for p in tmp_path.iterdir()} == {"a"}


def test_what_a_kill_between_two_names_left_is_found_again(saved, tiny_lm, tmp_path):
    right = said(load_adapted(tiny_lm, saved))
    saved.rename(tmp_path / ".a.old-1")
    assert said(load_adapted(tiny_lm, saved)) == right
    # and where the new one has the name already, the old one goes when it is saved again
    (tmp_path / ".a.old-2").mkdir()
    KINDS["zero-shot"](tiny_lm).save(saved)
    assert {p.name for p in tmp_path.iterdir()} == {"a"}
    saved.rename(tmp_path / ".a.old-3")
    KINDS["lora"](tiny_lm).save(saved)
    assert {p.name for p in tmp_path.iterdir()} == {"a"}
    assert load_adapted(tiny_lm, saved).delta
