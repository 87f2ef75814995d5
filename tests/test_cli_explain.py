"""``kshot explain`` as a command: its files, its words, its exit statuses."""

import json
from pathlib import Path

import pytest

from kshot import cli


@pytest.fixture
def films(tmp_path: Path) -> Path:
    folder = tmp_path / "films"
    folder.mkdir()
    for name, begin, end in (("train", 0, 20), ("test", 20, 30)):
        rows = [
            {"text": f"film {i} was {'a joy' if i % 2 else 'a bore'}", "label": "good" if i % 2 else "bad"}
            for i in range(begin, end)
        ]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


@pytest.fixture
def words(films: Path, tiny_model_dir: Path, tmp_path: Path) -> list[str]:
    return [
        "explain",
        str(films),
        "--model",
        str(tiny_model_dir),
        "--num-fewshot",
        "4",
        "--limit",
        "4",
        "--parts",
        "runs,implied,orders",
        "--output-path",
        str(tmp_path / "out"),
    ]


def test_an_explanation_end_to_end(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.status(words) == 0
    out, said = tmp_path / "out", capsys.readouterr().out
    assert sorted(path.name for path in out.iterdir()) == [
        "records.jsonl",
        "report.html",
        "results.json",
        "run.json",
        "samples.jsonl",
    ]
    ours = json.loads((out / "results.json").read_text(encoding="utf-8"))["kshot"]
    assert ours["argv"] == [
        "kshot",
        *words[:1],
        words[1],
        "--model",
        words[3],
        "--num-fewshot",
        "4",
        "--limit",
        "4",
        *words[8:],
    ]
    samples = [json.loads(line) for line in (out / "samples.jsonl").read_text(encoding="utf-8").splitlines()]
    runs = dict.fromkeys(sample["method"] for sample in samples)
    assert list(runs) == ["zero-shot", "in-context", "fine-tuned, published and corrected rate"]
    for run in ("zero-shot", "in-context"):
        row = next(r for r in ours["measures"] if (r["measure"], r["variant"]) == ("accuracy", run))
        right = [sample["right"] for sample in samples if sample["method"] == run]
        assert (sum(right) / len(right), len(right)) == (row["value"], row["n"])
    assert all(sample["right"] == (sample["pred"] == sample["gold"]) for sample in samples)
    assert "claims" in said
    assert said.rstrip().endswith(f"Report: {out / 'report.html'}")
    assert max(map(len, said.splitlines()[:-1])) <= 100
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "Did in-context learning do gradient descent here?" in page
    # the page again from its records alone, to the byte
    (out / "report.html").unlink()
    assert cli.status(["report", str(out)]) == 0
    assert (out / "report.html").read_text(encoding="utf-8") == page
    capsys.readouterr()
    records = (out / "records.jsonl").read_bytes()
    assert cli.status([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["kshot"]["identity"] == ours["identity"]
    assert (out / "records.jsonl").read_bytes() == records


@pytest.mark.parametrize(
    ("more", "line"),
    [
        (["--size", "smoky"], 'Invalid value "smoky" for --size.'),
        (["--num-fewshot", "99"], "asked for 99 demonstrations, and its training pool has 20 labelled examples"),
        (["--learning-rate", "-1"], "--learning-rate -1.0: what works is a number above 0"),
        (["--methods", "lora"], "--methods"),
        (["--template", "{{nothing}}"], "nothing"),
    ],
)
def test_a_wrong_word_is_one_line_and_status_2(
    words: list[str], more: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.status([*words[:4], *more]) == 2
    said = capsys.readouterr().err
    assert said.startswith("kshot: ")
    assert line in said
    assert said.count("\n") == 1


def test_a_config_file_mirrors_the_options(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("num_fewshot: 3\nsize: smoke\nmethods: lora\n", encoding="utf-8")
    assert cli.status([*words[:4], "--config", str(config)]) == 2
    assert "key of --config" in capsys.readouterr().err
