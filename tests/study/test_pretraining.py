"""``kshot pretrain`` as a run: its records and models, what is resumed, its page and its words."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cats import TIMED, TINY, asked, rows_of
from safetensors import safe_open
from tokenizers import Tokenizer

from kshot import cli
from kshot.devices import compiles
from kshot.errors import KshotError, NumericError
from kshot.measure.perplexity import perplexity, surprise
from kshot.model.load import load_model
from kshot.show import pretrain as shown
from kshot.study import inquiry, pretraining
from kshot.study.over_seeds import _bounds
from kshot.study.place import STATE
from kshot.study.pretrain.corpus import corpus_of
from kshot.study.pretrain.growing import judged
from kshot.study.pretrain.plan import planned
from kshot.study.pretrain.results import _seen
from kshot.study.pretrain_settings import make_pretrain_settings
from kshot.study.pretraining import pretrain
from kshot.study.side_by_side import Room
from kshot.study.synth import growing
from kshot.synth import train


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
    assert not (out / STATE).exists()


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
    assert {cell["part"] for cell in tried["cells"]} == {"momentum 0.2", "momentum 0.9"}
    assert tried["plan"]["tokens"] == kshot["plan"]["tokens"] // 2 // 64 * 64
    losses = {row["variant"]: row["value"] for row in tried["measures"] if row["measure"] == "validation_loss"}
    assert {cell["part"] for cell in kshot["cells"]} == {
        "n-gram",
        "softmax",
        min(losses, key=lambda name: losses[name]),
    }
    assert kshot["notes"][0].startswith("decays thinned on 500 tokens with seed 1")
    assert tried["argv"] is None, "no command asks for it"
    assert " ".join(kshot["argv"]).count("--eta 0.2,0.9 --halving") == 1, "what repeats it is what was typed"
    whole = corpus_of([str(file)])
    assert tried["corpus"]["hash"] == whole.parted_anew().hash != kshot["corpus"]["hash"] == whole.hash
    assert shown.text(kshot, out).count("decays thinned") == 1
    assert pretrain(asked(file, **more, output_path=str(out))).results == finished.results, "and is gone on with"


def test_several_texts_are_all_judged(file: Path) -> None:
    other = file.with_name("dogs.txt")
    other.write_text("Dogs bark at cats.\n\n" * 200, encoding="utf-8")
    settings = make_pretrain_settings(**{**TINY, "tasks": (str(file), str(other)), "device": "cpu"})
    study = pretraining._study(settings, lambda *_: None)
    study = replace(study, plan=replace(study.plan, judged=60))
    for one in study.readings():
        cats, dogs = one.documents[:-1], one.documents[-1:]
        assert (sum(map(len, cats)), sum(map(len, dogs))) == (30, 30)


@pytest.mark.parametrize("documents", [0.0, 0.015, 0.04])
def test_the_least_gain_is_one_whose_interval_lies_above_none_four_times_in_five(documents: float) -> None:
    """Gains are drawn around it, by seeds and by documents that all seeds have in common."""
    values = [0.02, 0.05, 0.01, 0.04, 0.03]

    def row(seed: int, value: float) -> dict[str, Any]:
        bounds = {"low": value - documents, "high": value + documents}
        return {"measure": "nats_gained", "variant": "a", "task": "x", "seed": seed, "value": value, **bounds}

    (found,) = _seen([row(i, value) for i, value in enumerate(values)])
    rng = np.random.default_rng(0)
    told = []
    for _ in range(3_000):
        seeds = rng.normal(found["value"], np.std(values, ddof=1), 5) + rng.normal(0.0, documents / 1.96)
        low, _ = _bounds([row(i, value) for i, value in enumerate(seeds.tolist())])
        told.append(low is not None and low > 0)
    assert np.mean(told) == pytest.approx(0.8, abs=0.05)
    assert _seen([row(0, 0.02)]) == []


def test_networks_of_a_seed_begin_alike_and_seeds_do_not(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: dict[str, dict[str, torch.Tensor]] = {}

    def kept(start: dict[str, torch.Tensor], *given: Any, **more: Any) -> Any:
        begun[f"{len(begun)}"] = start
        return train.trained(start, *given, **more)

    monkeypatch.setattr(growing, "trained", kept)
    monkeypatch.setattr(inquiry, "room_for", lambda *_: Room(1, torch.get_num_threads()))
    pretrain(asked(file, attention=("softmax", "momentum"), seed=(0, 1), tokens=64))
    assert len(begun) == 4
    plain, heavy = (next(own for own in begun.values() if ("0.decay" in own) == has) for has in (False, True))
    assert set(heavy) - set(plain) == {"0.decay"}
    tables = {tuple(own["embedding"][0].tolist()) for own in begun.values()}
    assert len(tables) == 2, "two seeds, and both networks of each begin with the same"
    pairs = [(a, b) for a in begun.values() for b in begun.values() if torch.equal(a["embedding"], b["embedding"])]
    assert all(torch.equal(a[name], b[name]) for a, b in pairs for name in plain)


def test_what_is_asked_in_context_is_paired_item_by_item(file: Path) -> None:
    ours = pretrain(asked(file, attention=("softmax", "momentum"), eta=("0.5",), seed=(0, 1))).results["kshot"]
    rows = {(row["measure"], row["variant"], row["seed"]): row for row in ours["measures"]}
    for seed in (0, 1):
        found = rows["difference", "momentum 0.5, copy_nats, over softmax", seed]
        own, base = (rows["copy_nats", name, seed] for name in ("momentum 0.5", "softmax"))
        assert found["value"] == pytest.approx(own["value"] - base["value"], abs=1e-5)
        assert found["low"] <= found["value"] <= found["high"]
        assert found["n"] == own["n"]
    name = "momentum 0.5, copy_nats, over softmax"
    both = rows["difference", name, None]
    assert both["value"] == pytest.approx(np.mean([rows["difference", name, seed]["value"] for seed in (0, 1)]))
    names, lines = shown.in_context(ours)
    assert names == ["softmax", "momentum 0.5", "momentum 0.5 − softmax"]
    (copied,) = [line for line in lines if line["what"] == "random tokens copied: nats per token"]
    assert copied["values"]["momentum 0.5 − softmax"].startswith(f"{both['value']:+.3f} (".replace("-", "−"))


@pytest.mark.skipif(not compiles(), reason="there is no C++ compiler, or no headers of Python's")
def test_a_compiled_step_comes_to_the_same_losses(file: Path, tmp_path: Path) -> None:
    """In a process of its own: what checks shapes in tests stands in the way of compiling."""
    plain = rows_of(pretrain(asked(file, attention=("momentum",), eta=("0.5",))).results)
    words = [word for name, value in TINY.items() for word in (f"--{name}", str(value))]
    words += [
        "--device",
        "cpu",
        "--attention",
        "momentum",
        "--eta",
        "0.5",
        "--compile",
        "--output-path",
        str(tmp_path / "out"),
    ]
    command = [sys.executable, "-m", "kshot", "pretrain", str(file), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    made = rows_of(json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8")))
    for measure in ("training_loss", "validation_loss"):
        own, other = (rows[measure, "momentum 0.5", 0]["value"] for rows in (plain, made))
        assert own == pytest.approx(other, rel=1e-4)


def test_without_a_compiler_nothing_is_begun(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretraining, "compiles", lambda: False)
    with pytest.raises(KshotError, match="--compile needs a C"):
        pretrain(asked(file, compile=True))


def test_of_one_seed_it_is_said_that_another_may_differ(file: Path) -> None:
    for seeds, said in (((0,), True), ((0, 1), False)):
        ours = pretrain(asked(file, attention=("softmax", "momentum"), seed=seeds)).results["kshot"]
        (line,) = shown.gains(ours)
        assert ("one seed: with another it may differ" in line["said"]) == said


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


def test_the_command(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    words = [word for name, value in TINY.items() for word in (f"--{name}", str(value))]
    words += ["--device", "cpu", "--attention", "softmax,momentum", "--eta", "0.5", "--output-path", str(out)]
    assert cli.status(["pretrain", str(file), *words]) == 0
    said = capsys.readouterr().out
    assert said.startswith("After ")
    assert "nats per token" in said
    saved = re.search(r"kshot generate (\S+)", said)
    assert saved is not None
    assert Path(saved[1]).is_dir()
    assert all(len(line) <= 100 for line in said.splitlines() if not line.startswith(("Report", "Try")))
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


def test_a_network_that_diverges_is_a_line_that_says_why(file: Path) -> None:
    ours = pretrain(asked(file, optimiser="sgd", learning_rate=1e9, tokens=3_000)).results["kshot"]
    (cell,) = [cell for cell in ours["cells"] if cell["part"] == "softmax"]
    assert "try a smaller learning rate" in cell["failed"]
    said = shown.text(ours, file.parent)
    assert said.startswith("Nothing was trained.")
    assert "try a smaller learning rate" in " ".join(said.split())
    assert "try a smaller learning rate" in shown.page(ours)


@pytest.mark.parametrize(("objective", "vocabulary"), [("causal", 270), ("mlm", 380)])
def test_a_last_step_that_diverges_is_a_line_and_nothing_is_saved(
    objective: str, vocabulary: int, file: Path, tmp_path: Path
) -> None:
    out = asked(
        file,
        objective=objective,
        vocabulary=vocabulary,
        learning_rate=1e30,
        tokens=64,
        output_path=str(tmp_path / "out"),
    )
    for _ in range(2):
        ours = pretrain(out).results["kshot"]
        cell = ours["cells"][-1]
        assert "; try a smaller learning rate than 1e+30" in cell["failed"]
    assert not (tmp_path / "out" / "models").exists()


def test_what_is_no_number_is_not_judged(file: Path) -> None:
    study = pretraining._study(asked(file), lambda *_: None)
    language = study.language(study.arms[0])
    weights = language.start(torch.Generator().manual_seed(0))
    weights["norm.weight"] = torch.full_like(weights["norm.weight"], torch.nan)
    with pytest.raises(NumericError, match="softmax says what is no number; try a smaller learning rate"):
        judged(language, weights, study.readings(), "softmax", say=lambda what: None)


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ({"network": "lstm"}, "lstm-0"),
        ({"network": "transformer", "positions": "relative"}, "softmax-0"),
        ({"attention": ("linear",)}, "linear-0"),
        ({"objective": "prefix", "vocabulary": 380}, "softmax-0"),
    ],
)
def test_weights_that_transformers_does_not_know_are_kept(
    more: dict[str, Any], named: str, file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    settings = asked(file, tokens=64, output_path=str(out), **more)
    ours = pretrain(settings).results["kshot"]
    cell = ours["cells"][-1]
    assert (cell["saved"], cell["weights"]) == (None, f"models/{named}/weights.safetensors")
    assert any(f"weights are in {cell['weights']}, which no command opens" in note for note in ours["notes"])
    study = pretraining._study(settings, lambda *_: None)
    with safe_open(out / cell["weights"], framework="pt") as opened:
        facts = json.loads(opened.metadata()["kshot"])
        names = {name: opened.get_tensor(name).shape for name in opened.keys()}  # noqa: SIM118 (no mapping)
    start = study.language(study.arms[0]).start(torch.Generator().manual_seed(0))
    assert names == {name: own.shape for name, own in start.items()}
    assert (facts["network"], facts["objective"]) == (settings.network, settings.objective)
    assert facts["shape"]["width"] == 16
    tokenizer = Tokenizer.from_file(str(out / "models" / named / "tokenizer.json"))
    assert tokenizer.to_str() == study.tokens.tokenizer.to_str()
    assert "kshot generate" not in shown.text(ours, out)
