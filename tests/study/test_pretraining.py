"""``kshot pretrain`` as a run: its records and models, what is resumed, its page, its words, and what is refused."""

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from transformers import T5ForConditionalGeneration

from kshot import cli
from kshot.errors import DataError, KshotError, UnknownName
from kshot.measure.perplexity import perplexity, surprise
from kshot.model.load import load_model
from kshot.model.seq2seq import load_seq2seq
from kshot.pretrain.objectives import IGNORED
from kshot.pretrain.text import END
from kshot.show import pretrain as shown
from kshot.study import inquiry, pretraining
from kshot.study.pretrain import corpus as corpora
from kshot.study.pretrain.corpus import Corpus, corpus_of, in_tokens
from kshot.study.pretrain.growing import as_tensors, jumps, lesson, loss_of
from kshot.study.pretrain.plan import PLANS, Arm, arms, planned
from kshot.study.pretrain.results import _seen
from kshot.study.pretrain.speed import operations, roofline
from kshot.study.pretrain_settings import PretrainSettings, make_pretrain_settings
from kshot.study.pretraining import pretrain
from kshot.study.side_by_side import Room
from kshot.synth import train
from kshot.synth.networks.mixing import Shape

TINY: dict[str, Any] = {
    "tokens": 1_000, "context": 16, "batch": 4, "vocabulary": 270, "layers": 1, "heads": 2, "width": 16,
}  # fmt: skip
TIMED = ("tokens_per_second", "mfu", "memory", "pace", "share_of_roof")
TEXTS = [f"The cat number {i} sat on mat {i * i % 7}, and a dog ran after it.\n" * 2 for i in range(60)]


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KSHOT_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "cats.txt"
    path.write_text(f"{END}\n".join(TEXTS), encoding="utf-8")
    return path


def asked(file: Path, **more: Any) -> PretrainSettings:
    return make_pretrain_settings(tasks=(str(file),), **{**TINY, "device": "cpu", **more})


def rows_of(results: Mapping[str, Any]) -> dict[tuple[str, str, int | None], dict[str, Any]]:
    return {(row["measure"], row["variant"], row["seed"]): row for row in results["kshot"]["measures"]}


def test_models_are_saved_and_say_what_was_measured(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    attention = ("softmax", "momentum", "momentum-normalised")
    results = pretrain(asked(file, attention=attention, eta=("learned", "0.4"), output_path=str(out))).results
    rows, valid = rows_of(results), corpus_of([str(file)]).valid
    names = ["softmax", *(f"{kind} {eta}" for kind in attention[1:] for eta in ("learned", "0.4"))]
    saved = {cell["part"]: cell.get("saved") for cell in results["kshot"]["cells"]}
    assert list(saved) == ["n-gram", *names]
    for name in names:
        lm = load_model(str(out / saved[name]), dtype="float32", device="cpu")
        assert (lm.momentum is None) == (name == "softmax")
        for context in (8, 16):
            value = perplexity(surprise(lm, valid, context))[0]
            assert rows["perplexity", f"{name}, context {context}", 0]["value"] == pytest.approx(value, rel=1e-5)
    assert not (out / "state").exists()


def test_what_is_gained_is_paired_over_documents(file: Path) -> None:
    results = pretrain(asked(file, attention=("softmax", "momentum"), seed=(0, 1))).results
    rows = rows_of(results)
    for seed in (0, 1):
        pair = [rows["perplexity", f"{name}, context 16", seed] for name in ("softmax", "momentum learned")]
        gained = rows["nats_gained", "momentum learned, context 16, over softmax", seed]
        assert gained["value"] == pytest.approx(np.log(pair[0]["value"] / pair[1]["value"]))
        # The documents are the same, so that most of what they vary by is in neither.
        wide = np.log(pair[0]["high"] / pair[0]["low"])
        assert gained["low"] < gained["value"] < gained["high"]
        assert gained["high"] - gained["low"] < wide
    over = rows["nats_gained", "momentum learned, context 16, over softmax", None]
    assert over["n"] == gained["n"]


def test_decays_are_thinned_and_the_best_is_grown(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    more: dict[str, Any] = {"attention": ("softmax", "momentum"), "eta": ("0.2", "0.9"), "halving": True}
    finished = pretrain(asked(file, **more, output_path=str(out)))
    kshot = finished.results["kshot"]
    tried = json.loads((out / "thinning-1" / "results.json").read_text())["kshot"]
    assert {cell["part"] for cell in tried["cells"]} == {"n-gram", "momentum 0.2", "momentum 0.9"}
    assert tried["plan"]["tokens"] == kshot["plan"]["tokens"] // 2 // 64 * 64
    losses = {row["variant"]: row["value"] for row in tried["measures"] if row["measure"] == "validation_loss"}
    assert {cell["part"] for cell in kshot["cells"]} == {
        "n-gram",
        "softmax",
        min(losses, key=lambda name: losses[name]),
    }
    assert kshot["notes"][0].startswith("decays thinned on 500 tokens with seed 1")
    assert shown.text(kshot).count("decays thinned") == 1
    assert pretrain(asked(file, **more, output_path=str(out))).results == finished.results, "and is gone on with"


def test_the_least_gain_that_seeds_show_is_that_of_a_paired_test() -> None:
    values = [0.02, 0.05, 0.01, 0.04, 0.03]
    rows = [{"variant": "a", "task": "x", "seed": i, "value": value} for i, value in enumerate(values)]
    (found,) = _seen(rows)
    rng = np.random.default_rng(0)
    drawn = rng.normal(found["value"], np.std(values, ddof=1), (4_000, 5))
    told = (stats.ttest_1samp(drawn, 0.0, axis=1).pvalue < 0.05).mean()
    assert told == pytest.approx(0.8, abs=0.05)
    assert _seen(rows[:1]) == []


class _Stop(Exception):
    pass


def test_killed_anywhere_it_goes_on_to_the_same_figures(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "_SECONDS", 0.0)
    monkeypatch.setattr(train, "_SHARE", 0.0)
    # In this process alone, where a test can stop it, and with as many threads: other numbers of them round otherwise.
    monkeypatch.setattr(inquiry, "room_for", lambda *_: Room(1, torch.get_num_threads()))
    whole = pretrain(asked(file)).results["kshot"]
    offered = train.Kept.keep
    steps: list[int] = []

    def stops(self: train.Kept, *given: Any, **more: Any) -> None:
        offered(self, *given, **more)
        steps.append(1)
        if len(steps) == 5:
            raise _Stop

    out = asked(file, output_path=str(tmp_path / "out"))
    monkeypatch.setattr(train.Kept, "keep", stops)
    with pytest.raises(_Stop):
        pretrain(out)
    found = pretrain(out).results["kshot"]
    assert len(steps) == planned(out).steps, "the steps before the kill were not taken again"
    assert [r for r in found["measures"] if r["measure"] not in TIMED] == [
        r for r in whole["measures"] if r["measure"] not in TIMED
    ]
    drawn = [[p["lines"] for p in own["pictures"] if "tokens" in p["name"]] for own in (found, whole)]
    assert drawn[0] == drawn[1]


def test_a_run_on_record_grows_nothing_again(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = asked(file, output_path=str(tmp_path / "out"))
    whole = pretrain(out).results["kshot"]["measures"]
    monkeypatch.setattr(pretraining, "grow", None)
    assert pretrain(out).results["kshot"]["measures"] == whole


@pytest.mark.parametrize("objective", ["prefix", "mlm"])
def test_other_objectives_come_to_their_own_loss(objective: str, file: Path) -> None:
    results = pretrain(asked(file, objective=objective, vocabulary=380, learning_rate=1e-2, tokens=30_000)).results
    (row,) = [row for row in results["kshot"]["measures"] if row["measure"] == "validation_loss"]
    assert 0 < row["value"] < 0.5 * np.log(380)
    assert "held-out loss" in shown.answer(results["kshot"])
    assert all(cell["saved"] is None for cell in results["kshot"]["cells"])


@pytest.mark.parametrize("objective", ["span", "prefix", "denoise"])
def test_an_encoder_decoder_learns_spans_and_the_rest_of_texts(objective: str, file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    more = {"objective": objective, "network": "t5", "vocabulary": 380, "learning_rate": 1e-2, "tokens": 30_000}
    results = pretrain(asked(file, **more, output_path=str(out))).results
    (row,) = [row for row in results["kshot"]["measures"] if row["measure"] == "validation_loss"]
    assert 0 < row["value"] < 0.6 * np.log(380)
    (cell,) = results["kshot"]["cells"]
    assert (out / cell["saved"] / "model.safetensors").is_file()
    assert "kshot generate" not in shown.text(results["kshot"])


def test_the_loss_is_that_of_the_places_that_are_said(file: Path) -> None:
    tokens = in_tokens(corpus_of([str(file)]), 380, None, hides=True)
    shape = Shape(layers=1, heads=2, width=16)
    language = Arm(network="encoder").language(380, replace(PLANS["smoke"], context=16, shape=shape))
    weights = language.start(torch.Generator().manual_seed(0))
    own = lesson(tokens, tokens.train, "mlm", (0, 3), (4, 16))
    logits = language.says(weights, torch.from_numpy(own.read)).double().log_softmax(-1)
    places = np.argwhere(own.said != IGNORED)
    by_hand = -np.mean([logits[b, t, own.said[b, t]].item() for b, t in places])
    assert float(loss_of(language, weights, *as_tensors(own))) == pytest.approx(by_hand, rel=1e-5)


def test_text_of_known_entropy_is_read_against_the_truth(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KSHOT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(corpora, "_DRAWN", 300)
    monkeypatch.setattr(corpora, "_HELD_OUT", 10)
    found = corpus_of(["ginc"])
    assert found.surprise is not None
    assert len(found.surprise) == len(found.valid) == 10
    results = pretrain(
        make_pretrain_settings(tasks=("ginc",), device="cpu", **{**TINY, "tokens": 64, "vocabulary": None})
    ).results
    rows = rows_of(results)
    exact, floor = (rows["bits_per_byte", name, 0]["value"] for name in ("exact, who made the text", "n-gram, order 5"))
    size = sum(len(text.encode()) for text in found.valid)
    assert exact == pytest.approx(sum(found.surprise) / np.log(2) / size, rel=1e-6)
    assert exact < floor
    # Several texts, of which not all are known, have no truth.
    assert replace(found, surprise=None).hash == found.hash


def test_a_folder_with_both_parts_is_taken_as_it_is_parted(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "train.txt").write_text("a b c", encoding="utf-8")
    (tmp_path / "own" / "valid.jsonl").write_text(json.dumps({"text": "d e"}), encoding="utf-8")
    found = corpus_of([str(tmp_path / "own")])
    assert (found.name, found.train, found.valid) == ("own", ("a b c",), ("d e",))
    both = corpus_of([str(tmp_path / "own"), str(tmp_path / "own")])
    assert (both.name, both.train) == ("own-own", ("a b c", "a b c"))


def test_the_command(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    words = [word for name, value in TINY.items() for word in (f"--{name}", str(value))]
    words += ["--device", "cpu", "--attention", "softmax,momentum", "--eta", "0.5", "--output-path", str(out)]
    assert cli.status(["pretrain", str(file), *words]) == 0
    said = capsys.readouterr().out
    assert said.startswith("After ")
    assert "nats a token" in said
    assert "kshot generate" in said
    assert all(len(line) <= 100 for line in said.splitlines() if not line.startswith("Report"))
    page = (out / "report.html").read_bytes()
    assert cli.status(["report", str(out)]) == 0
    assert (out / "report.html").read_bytes() == page
    ours = json.loads((out / "results.json").read_text(encoding="utf-8"))["kshot"]
    assert ours["argv"][:3] == ["kshot", "pretrain", str(file)]
    assert b"momentum 0.5" in page


def test_the_page_escapes_names(file: Path) -> None:
    path = file.rename(file.with_name("<b>bold.txt"))
    ours = pretrain(asked(path)).results["kshot"]
    assert "<b>bold" not in shown.page(ours)
    assert "&lt;b&gt;bold" in shown.page(ours)


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
        ({"attention": ("momentum",), "objective": "mlm"}, KshotError, "an encoder hears all"),
        ({"vocabulary": 300, "tokenizer": "smollm2-135m"}, KshotError, "give one of the two"),
        ({"learning_rate": 0.0}, KshotError, "above 0"),
        ({"tokens": 0}, KshotError, "--tokens 0"),
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


def test_arms_are_each_kind_of_attention_and_those_with_momentum_each_decay() -> None:
    found = arms(
        make_pretrain_settings(tasks=("a",), attention=("softmax", "momentum", "linear"), eta=("0.3", "learned"))
    )
    assert [arm.name for arm in found] == ["softmax", "momentum 0.3", "momentum learned", "linear"]
    assert arms(make_pretrain_settings(tasks=("a",), network="gru"))[0].name == "gru"
    assert (
        Corpus(name="a", train=("x", "y"), valid=("z",)).hash != Corpus(name="a", train=("x",), valid=("y", "z")).hash
    )


def test_a_step_in_parts_is_the_same_step(file: Path) -> None:
    whole, parts = (pretrain(asked(file, accumulate=n)).results["kshot"]["measures"] for n in (1, 4))
    for one, other in zip(whole, parts, strict=True):
        if one["measure"] not in TIMED:
            assert other["value"] == pytest.approx(one["value"], rel=1e-4), one["measure"]
    with pytest.raises(KshotError, match="4 prompts in 3 parts"):
        pretrain(asked(file, accumulate=3))


@pytest.mark.parametrize("more", [[], ["--sharded"]], ids=["copies", "parts"])
def test_two_processes_of_torchrun_come_to_what_one_does(more: list[str], file: Path, tmp_path: Path) -> None:
    words = [word for name, value in TINY.items() for word in (f"--{name}", str(value))]
    words += ["--device", "cpu", "--attention", "softmax,momentum"]
    found = []
    for processes in (1, 2):
        out = tmp_path / f"of-{processes}"
        launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        own = [*words, *(more if processes > 1 else [])]
        command = [*launch, "-m", "kshot", "pretrain", str(file), *own, "--output-path", str(out)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, done.stderr
        # One of them speaks.
        assert done.stdout.count("Report:") == 1
        found.append(json.loads((out / "results.json").read_text(encoding="utf-8"))["kshot"])
    for one, other in zip(*(own["measures"] for own in found), strict=True):
        if one["measure"] not in TIMED and one["value"] is not None:
            assert other["value"] == pytest.approx(one["value"], rel=1e-3, abs=1e-3), (one["measure"], one["variant"])
    curves = [[own["lines"] for own in run["pictures"] if "tokens" in own["name"]] for run in found]
    for one, other in zip(*curves, strict=True):
        for name, points in one.items():
            assert np.array(other[name]) == pytest.approx(np.array(points), rel=1e-4)
    assert all((tmp_path / "of-2" / cell["saved"]).is_dir() for cell in found[1]["cells"] if "saved" in cell)


@pytest.mark.parametrize("optimiser", ["adafactor", "sgd"])
def test_other_optimisers_learn(optimiser: str, file: Path) -> None:
    rate = {"adafactor": 1e-2, "sgd": 0.5}[optimiser]
    results = pretrain(asked(file, optimiser=optimiser, learning_rate=rate, tokens=20_000)).results
    (row,) = [row for row in results["kshot"]["measures"] if row["measure"] == "validation_loss"]
    assert row["value"] < 0.7 * np.log(270)


def test_a_loss_that_jumps_is_said_with_its_step() -> None:
    calm = [3.0 + 0.01 * (i % 5) for i in range(200)]
    assert jumps(calm) == []
    wild = [*calm[:120], 5.0, 4.8, *calm[122:]]
    assert [(step, round(before, 2), now) for step, before, now in jumps(wild)] == [(121, 3.02, 5.0)]
    assert jumps([9.0] * 10) == []


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
        # A model's own first token is another question; here all begin behind what ends a text.
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


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"width": 16}, "--width with --start m"),
        ({"network": "llama"}, "--network with --start m"),
        ({"objective": "mlm"}, "what works is --objective causal"),
        ({"objective": "span", "attention": ("momentum",)}, "a network t5 has its own way"),
        ({"attention": ("momentum-keys",)}, "--attention of softmax, momentum, momentum-normalised"),
    ],
)
def test_what_a_start_rules_out(options: dict[str, Any], said: str) -> None:
    with pytest.raises(KshotError, match=said):
        make_pretrain_settings(**{"tasks": ("a.txt",), "start": "m", **options})


def test_the_parts_of_layers_can_be_chosen(file: Path, tmp_path: Path) -> None:
    chosen = {"network": "transformer", "positions": "relative", "norm": "rms", "mlp": "swiglu"}
    study = pretraining._study(asked(file, **chosen), lambda *_: None)
    weights = study.language(study.arms[0]).start(torch.Generator())
    assert {"relative", "0.gate.weight", "0.qkv.bias"} <= set(weights)
    assert not {"positions", "norm.bias"} & set(weights)
    assert not study.arms[0].saves(study.plan), "transformers has no such network"
    assert study.arms[0].saves(replace(study.plan, design=()))
    results = pretrain(asked(file, **chosen, output_path=str(tmp_path / "out"))).results
    assert results["kshot"]["plan"]["positions"] == "relative"
    (cell,) = [own for own in results["kshot"]["cells"] if own["part"] == "softmax"]
    assert cell["saved"] is None
    assert rows_of(results)["perplexity", "softmax, context 16", 0]["value"] > 1
    with pytest.raises(KshotError, match="--norm: a network lstm has its own way"):
        asked(file, network="lstm", norm="rms")
    with pytest.raises(KshotError, match="'relative' need softmax attention"):
        pretraining._study(asked(file, attention="linear", positions="relative"), lambda *_: None)


def test_the_roof_of_the_machine_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = replace(PLANS["smoke"], context=10, batch=4, shape=Shape(layers=2, heads=2, width=16))
    language = Arm(network="transformer").language(50, plan)
    weights = language.start(torch.Generator().manual_seed(0))
    monkeypatch.setattr("kshot.study.pretrain.speed.memory_rate", lambda place: 100.0)
    monkeypatch.setattr("kshot.study.pretrain.speed._seconds", lambda *asked: 0.5 if asked[2].shape[1] == 10 else 0.25)
    rows, drawn = roofline("own", language, weights, plan, 30.0, 1e5)
    found = {(row["measure"], row["variant"]): row["value"] for row in rows}
    assert (found["pace", "own, prefill"], found["pace", "own, decode"]) == (4 * 10 / 0.5, 4 / 0.25)
    numbers = sum(own.numel() for own in weights.values())
    forward, alone = operations(weights, plan) / 3, operations(weights, replace(plan, context=1)) / 3
    points = {name: values[0] for name, values in drawn["lines"].items() if name != "this machine"}
    assert points["training"] == pytest.approx((40 * 3 * forward / (40 * numbers), 30 * 3 * forward))
    assert points["prefill"] == pytest.approx((40 * forward / (4 * numbers), 80 * forward))
    assert points["decode"] == pytest.approx((4 * alone / (4 * numbers), 16 * alone))
    for name, (x, y) in points.items():
        assert found["share_of_roof", f"own, {name}"] == pytest.approx(y / min(1e5, 100 * x))
    assert [1e5 / 100, 1e5] in drawn["lines"]["this machine"]


def test_losses_are_kept_for_tensorboard(file: Path, tmp_path: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    out = tmp_path / "out"
    found = pretrain(asked(file, objective="prefix", vocabulary=370, tensorboard=True, output_path=str(out))).results[
        "kshot"
    ]
    read = events.EventAccumulator(str(out / "tensorboard" / "softmax-0")).Reload()
    losses = [one.value for one in read.Scalars("loss/train")]
    assert [one.step for one in read.Scalars("loss/train")] == list(range(1, found["plan"]["steps"] + 1))
    (row,) = [row for row in found["measures"] if row["measure"] == "training_loss"]
    assert np.mean(losses[-max(1, round(0.05 * len(losses))) :]) == pytest.approx(row["value"])
    (row,) = [row for row in found["measures"] if row["measure"] == "validation_loss"]
    assert read.Scalars("loss/held-out")[-1].value == pytest.approx(row["value"])


def test_without_the_package_nothing_is_begun(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(KshotError, match=r"pip install 'kshot\[tensorboard\]'"):
        pretrain(asked(file, tensorboard=True))


def test_the_arithmetic_of_a_token_by_hand() -> None:
    plan = replace(PLANS["smoke"], context=10, shape=Shape(layers=2, heads=2, width=16))
    weights = Arm(network="transformer").language(50, plan).start(torch.Generator().manual_seed(0))
    # Twelve squares of the width a layer, the head; scores and sums of ten tokens, half of which are heard.
    assert operations(weights, plan) == 6 * (2 * 12 * 16**2 + 50 * 16) + 3 * 2 * (4 * 10 * 16 / 2)
    relative = replace(plan, design=(("positions", "relative"),))
    assert operations(
        Arm(network="transformer").language(50, relative).start(torch.Generator()), relative
    ) == operations(weights, plan)
    plan = replace(plan, shape=Shape(layers=1, heads=1, width=16))
    lstm = Arm(network="lstm").language(50, plan).start(torch.Generator().manual_seed(0))
    assert operations(lstm, plan) == 6 * (2 * 4 * 16**2 + 50 * 16)


def test_texts_of_the_hub_are_its_splits(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"text": "one"}, {"text": " "}, {"text": "two"}]
    found = {"train": rows, "validation": [{"text": "three"}]}
    monkeypatch.setattr(corpora, "load_hub", lambda name, config, kwargs, asked: found)
    own = corpus_of(["hf:org/name"])
    assert (own.name, own.train, own.valid) == ("name", ("one", "two"), ("three",))
    found["train"] = [{"words": "one"}]
    with pytest.raises(DataError, match="needs a column 'text' of strings; found words"):
        corpus_of(["hf:org/name"])
    del found["train"]
    with pytest.raises(DataError, match="has no split train; found validation"):
        corpus_of(["hf:org/name"])


def test_a_network_that_diverges_is_a_line_that_says_why(file: Path) -> None:
    ours = pretrain(asked(file, optimiser="sgd", learning_rate=1e9, tokens=3_000)).results["kshot"]
    (cell,) = [cell for cell in ours["cells"] if cell["part"] == "softmax"]
    assert "try a smaller learning rate" in cell["failed"]
    said = shown.text(ours)
    assert said.startswith("Nothing was grown.")
    assert "try a smaller learning rate" in " ".join(said.split())
    assert "try a smaller learning rate" in shown.page(ours)
