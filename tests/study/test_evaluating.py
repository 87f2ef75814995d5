"""``kshot evaluate-lm`` as a run: its records, what is resumed, its page, its words, and what is refused."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kshot import cli
from kshot.errors import DataError, KshotError, PromptError
from kshot.measure.perplexity import Surprise, perplexity, surprise
from kshot.model.lm import LM
from kshot.model.momentum import Momentum
from kshot.pretrain.text import END
from kshot.show import evaluate as shown
from kshot.study.evaluate_settings import EvaluateSettings, make_evaluate_settings
from kshot.study.evaluating import _contexts, evaluate

TEXTS = ["A few words to be read, and read again.\n", "Some more of them; 猫が寝ている。\n", "And the end.\n"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "words.txt"
    path.write_text(f"{END}\n".join(TEXTS), encoding="utf-8")
    return path


def asked(file: Path, **more: object) -> EvaluateSettings:
    return make_evaluate_settings(tasks=("m", str(file)), **{"context": (8, 16), "limit": "all", **more})


def test_figures_are_those_of_the_measure(tiny_lm: LM, file: Path) -> None:
    ours = evaluate(asked(file), model=tiny_lm).results["kshot"]
    assert ours["texts"]["words"]["documents"] == 3
    rows = {(row["variant"], row["measure"]): row for row in ours["measures"]}
    for context in (8, 16):
        row = rows[f"context {context}, stride {context // 2}", "perplexity"]
        value, low, high = perplexity(surprise(tiny_lm, TEXTS, context))
        assert (row["value"], row["low"], row["high"]) == (value, low, high)
        assert row["null"] == tiny_lm.model.config.vocab_size
        assert row["n"] == sum(len(text.encode()) - 1 for text in TEXTS)
    assert rows["context 8, stride 4", "bits_per_byte"]["value"] == pytest.approx(
        np.log2(rows["context 8, stride 4", "perplexity"]["value"])
    )


def test_a_run_goes_on_where_it_stopped(
    tiny_lm: LM, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    whole = evaluate(asked(file, output_path=str(out)), model=tiny_lm).results["kshot"]["measures"]
    lines = (out / "records.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (out / "records.jsonl").write_text(lines[0], encoding="utf-8")
    calls: list[int] = []

    def counted(lm: LM, documents: tuple[str, ...], context: int, stride: int | None, **more: Any) -> Surprise:
        calls.append(context)
        return surprise(lm, documents, context, stride, **more)

    monkeypatch.setattr("kshot.study.evaluating.surprise", counted)
    assert evaluate(asked(file, output_path=str(out)), model=tiny_lm).results["kshot"]["measures"] == whole
    assert calls == [16]


def test_the_command(tiny_model_dir: Path, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    words = [str(tiny_model_dir), str(file), "--context", "8,99999", "--output-path", str(out)]
    assert cli.status(["evaluate-lm", *words, "--dtype", "float32", "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("Perplexity of ")
    assert "a context of 99999 tokens" in " ".join(said.split())
    assert f"Report: {out / 'report.html'}" in said
    page = (out / "report.html").read_bytes()
    assert cli.status(["report", str(out)]) == 0
    assert (out / "report.html").read_bytes() == page
    ours = json.loads((out / "results.json").read_text(encoding="utf-8"))["kshot"]
    assert ours["argv"][:4] == ["kshot", "evaluate-lm", str(tiny_model_dir), str(file)]
    assert all(len(row) <= 100 for row in shown.text(ours).splitlines())
    assert "99\u202f999".encode() not in page
    assert b"words" in page


@pytest.mark.parametrize(("reads", "found"), [(None, [256, 512, 1024]), (600, [256, 512]), (256, [256]), (100, [100])])
def test_contexts_are_by_default_what_the_model_reads(reads: int | None, found: list[int], tiny_lm: LM) -> None:
    asked = make_evaluate_settings(tasks=("m", "t"))
    assert list(_contexts(asked, replace(tiny_lm, context=reads))) == found
    given = make_evaluate_settings(tasks=("m", "t"), context=(8, 9_999))
    assert _contexts(given, replace(tiny_lm, context=reads)) == (8, 9_999), (
        "what is asked for is answered, or said why not"
    )


def test_contexts_that_are_all_too_long_are_refused(tiny_lm: LM, file: Path, tmp_path: Path) -> None:
    small, out = replace(tiny_lm, context=100), tmp_path / "out"
    with pytest.raises(PromptError, match=r"--context 200: .* reads 100 tokens; give as many or fewer"):
        evaluate(asked(file, context=(200, 300), output_path=str(out)), model=small)
    assert not out.exists()
    ours = evaluate(make_evaluate_settings(tasks=("m", str(file))), model=small).results["kshot"]
    assert shown.answer(ours).endswith("(context 100, stride 50).")


def test_momentum_of_a_stated_decay_is_added_and_on_record(tiny_lm: LM, file: Path, tmp_path: Path) -> None:
    def measured(said: str | None) -> float:
        rows = evaluate(asked(file, context=(16,), momentum=said), model=tiny_lm).results["kshot"]["measures"]
        return float(next(row["value"] for row in rows if row["measure"] == "bits_per_byte"))

    plain, heavy = measured(None), measured("0.3")
    assert measured("0.3:0") == pytest.approx(plain, abs=1e-9), "behind a gate of 0 it says what it said"
    assert abs(heavy - plain) > 1e-4
    for said in ("1.5", "x", "0.3:y"):
        with pytest.raises(KshotError, match="what works is a decay between 0 and 1, or with a gate"):
            measured(said)
    by_hand = replace(tiny_lm, momentum=Momentum(torch.full(tiny_lm.value_heads, 0.3)))
    rows = evaluate(asked(file, context=(16,)), model=by_hand).results["kshot"]["measures"]
    assert next(row["value"] for row in rows if row["measure"] == "bits_per_byte") == pytest.approx(heavy, abs=1e-9)


def test_a_stride_that_leaves_tokens_out_is_refused_before_anything_is_read(
    tiny_lm: LM, file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with pytest.raises(PromptError, match="a context of 16 tokens and a stride of 100: what works is a stride of 1 to"):
        evaluate(asked(file, context=(16,), stride=100, output_path=str(out)), model=tiny_lm)
    assert not out.exists()


def test_where_nothing_is_measured_the_command_says_so_and_fails(
    tiny_model_dir: Path, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(tiny_model_dir), str(file), "--context", "99999", "--output-path", str(tmp_path / "out")]
    assert cli.status(["evaluate-lm", *words, "--dtype", "float32", "--device", "cpu"]) == 2
    assert "99999" in capsys.readouterr().err


def test_a_perplexity_that_is_no_number_has_a_reason(tiny_lm: LM, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    far = Surprise(by_document=(np.full(9, 1e4),), bytes=9, context=8, stride=4)
    monkeypatch.setattr("kshot.study.evaluating.surprise", lambda *given, **more: far)
    ours = evaluate(asked(file, context=(8,)), model=tiny_lm).results["kshot"]
    value, bits = ours["measures"]
    assert (value["value"], bits["reason"]) == (None, None)
    assert value["reason"] == "a mean surprise of 1e+04 nats per token, whose exponential is no number"
    assert bits["value"] == pytest.approx(1e4 / np.log(2))
    assert "exponential is no number" in " ".join(shown.text(ours).split())
    assert shown.answer(ours).startswith(
        f"{tiny_lm.name} has no perplexity; {file.stem}: a mean surprise of 1e+04 nats"
    )


def test_the_page_escapes_names(tiny_lm: LM, tmp_path: Path) -> None:
    path = tmp_path / "<b>bold.txt"
    path.write_text("x y z", encoding="utf-8")
    ours = evaluate(asked(path), model=tiny_lm).results["kshot"]
    assert "<b>bold" not in shown.page(ours)
    assert "&lt;b&gt;bold" in shown.page(ours)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"tasks": ("m",)}, "needed are a model and a text, and m is given"),
        ({"tasks": ("m", "t"), "context": (1,)}, "--context 1: what works is a whole number from 2"),
        ({"tasks": ("m", "t"), "stride": 0}, "--stride 0: what works is a whole number from 1"),
        ({"tasks": ("m", "t"), "context": ()}, "--context is empty"),
        ({"tasks": ("m", "t"), "limit": 0}, "--limit 0: what works is a whole number from 1"),
    ],
)
def test_settings_that_make_no_sense(given: dict[str, object], said: str) -> None:
    with pytest.raises(KshotError, match=said):
        make_evaluate_settings(**given)


def test_texts_that_cannot_be_told_apart_or_hold_nothing(tiny_lm: LM, file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / "words.txt"
    other.parent.mkdir()
    other.write_text(" \n", encoding="utf-8")
    with pytest.raises(DataError, match="holds no text; what works is a file with words in it"):
        evaluate(asked(other), model=tiny_lm)
    other.write_text("x", encoding="utf-8")
    with pytest.raises(DataError, match="two texts are called alike"):
        evaluate(make_evaluate_settings(tasks=("m", str(file), str(other))), model=tiny_lm)


def test_texts_that_say_the_same_have_lines_of_their_own(tiny_lm: LM, file: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.txt"
    again.write_bytes(file.read_bytes())
    both = make_evaluate_settings(
        tasks=("m", str(file), str(again)), context=(16,), limit="all", output_path=str(tmp_path / "out")
    )
    for _ in range(2):
        ours = evaluate(both, model=tiny_lm).results["kshot"]
        assert [cell["task"] for cell in ours["cells"]] == ["words", "again"]
        assert [row["text"] for row in shown.lines(ours)] == ["words", "again"]
    assert len((tmp_path / "out" / "records.jsonl").read_bytes().splitlines()) == 2


def test_names_are_no_markup(tiny_lm: LM, tmp_path: Path) -> None:
    path = tmp_path / "other[draft][:cat:.txt"
    path.write_text("x y z", encoding="utf-8")
    said = shown.text(evaluate(asked(path), model=tiny_lm).results["kshot"])
    assert said.count("other[draft][:cat:") == 3


def test_files_called_train_are_known_by_their_folder(tiny_lm: LM, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "valid.txt").write_text("x y z", encoding="utf-8")
    both = make_evaluate_settings(
        tasks=("m", *(str(tmp_path / name / "valid.txt") for name in ("a", "b"))), context=(8,), stride=2
    )
    ours = evaluate(both, model=tiny_lm).results["kshot"]
    assert list(ours["texts"]) == ["a-valid", "b-valid"]
    (row, *_) = ours["measures"]
    assert (row["low"], row["variant"]) == (None, "context 8, stride 2"), "a document alone has no spread"
