"""What is written of commands elsewhere: the README's lines are understood, and the programs in bench still fit what they read."""

import json
import re
import runpy
import shlex
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from kshot import cli
from kshot.cli_options import as_command, spelt
from kshot.study.evaluate_settings import make_evaluate_settings
from kshot.study.explain_settings import make_explain_settings
from kshot.study.hypotheses_settings import make_hypotheses_settings
from kshot.study.over_seeds import over_seeds
from kshot.study.pretrain_settings import make_pretrain_settings
from kshot.study.settings import make_settings
from kshot.study.synth_settings import make_synth_settings
from kshot.study.ways import read_way

ROOT = Path(__file__).parents[1]
BENCH = sorted(path.stem for path in (ROOT / "bench").glob("*.py"))
MAKERS: dict[str, Callable[..., Any]] = {
    "run": make_settings,
    "explain": make_explain_settings,
    "hypotheses": make_hypotheses_settings,
    "synth": make_synth_settings,
    "pretrain": make_pretrain_settings,
    "evaluate-lm": make_evaluate_settings,
}


def commands(text: str) -> list[list[str]]:
    """The words of every ``kshot ...`` in the shell's blocks of a page."""
    found = []
    for block in re.findall(r"^```sh\n(.*?)^```", text, flags=re.M | re.S):
        for line in block.splitlines():
            words = shlex.split(line, comments=True)
            starts = [place for place, word in enumerate(words) if Path(word).name == "kshot"]
            for start in starts:
                rest = words[start + 1 :]
                ends = [place for place, word in enumerate(rest) if word in ("|", "&&", ";")]
                found.append(rest[: min(ends, default=len(rest))])
    return found


README = commands((ROOT / "README.md").read_text(encoding="utf-8"))


def understood(words: list[str]) -> Any:
    """The settings that a command line asks for, or its arguments; nothing is run."""
    name, found = words[0], dict[str, Any]()
    app = cli.application()
    _, kind = cli.COMMANDS[name]
    if kind is None:
        _, bound, _ = app.parse_args(spelt(words, app), exit_on_error=False, print_error=False)
        return bound
    app = cli.App(result_action="return_value")
    app.command(as_command(found.update, kind), name=name)
    app(spelt(words, app), exit_on_error=False, print_error=False)
    if found.get("tasks", ())[:1] == ("list",):
        return found
    asked = MAKERS[name](**{key: value for key, value in found.items() if key != "json"})
    for method in getattr(asked, "methods", ()):
        read_way(method)
    return asked


def test_there_are_commands_in_the_readme() -> None:
    assert len(README) > 20
    assert {words[0] for words in README if words} >= set(MAKERS)


@pytest.mark.parametrize("words", README, ids=shlex.join)
def test_the_readme_asks_for_what_there_is(words: list[str]) -> None:
    assert understood(words) is not None


@pytest.mark.parametrize("words", [["run", "--nm-fewshot", "4"], ["synth", "nosuch"], ["run", "--methods", "lor"]])
def test_what_there_is_not_would_be_seen(words: list[str]) -> None:
    with pytest.raises(Exception, match=r"(?i)unknown"):
        understood(words)


@pytest.fixture
def beside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs of bench find one another, and the made-up records are at hand."""
    for folder in ("bench", "tests/show", "tests/study"):
        monkeypatch.syspath_prepend(str(ROOT / folder))


@pytest.mark.usefixtures("beside")
@pytest.mark.parametrize("name", BENCH)
def test_programs_of_bench_find_all_that_they_import(name: str) -> None:
    # One of another name is no program that is run.
    names = runpy.run_path(str(ROOT / "bench" / f"{name}.py"), run_name=f"bench_{name}")
    assert callable(names["main"])


def of_batteries() -> list[str]:
    record = import_module("fake_hypotheses").hypothesised()
    return list(import_module("accounts").summary([record]))


def of_experiments() -> list[str]:
    record = import_module("test_synth_page").record()
    record |= {"cells": [{"task": name, "part": "one", "seed": 0, "seconds": 60.0} for name in record["experiments"]]}
    record["environment"] |= {"cpu": "a made-up processor"}
    return list(import_module("claims").summary(record))


def of_explanations() -> list[str]:
    return list(import_module("explained").summary(import_module("fake_explain").explained(brief=True), 60.0))


def of_networks() -> list[str]:
    return list(import_module("pretrained").summary(import_module("fake_pretrain").grown()))


def of_runs() -> list[str]:
    return list(import_module("summaries").summary(import_module("fake_learning").record(n=20)[0]["kshot"]))


@pytest.mark.usefixtures("beside")
@pytest.mark.parametrize("made", [of_batteries, of_experiments, of_explanations, of_networks, of_runs])
def test_markdown_of_a_record(made: Callable[[], list[str]]) -> None:
    text = "\n".join(made())
    assert "\n|---|" in text
    assert not re.search(r"\b(None|nan|Undefined)\b", text)


@pytest.mark.usefixtures("beside")
def test_markdown_of_the_questions_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = import_module("test_replies")
    own = made.rows(made.COST, [0.5, 0.6, 0.55])
    record = {
        "argv": ["kshot", "explain", "a/films.csv", "--parts", "why-labels"],
        "measures": [*over_seeds(own), *own],
    }
    (tmp_path / "results.json").write_text(json.dumps({"kshot": record}), encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["why.py", str(tmp_path), str(tmp_path)])
    import_module("why").main()
    said = capsys.readouterr().out
    assert said.startswith("    kshot explain films.csv --parts why-labels")
    assert f"| {made.COST} |" in said
    assert "**0.550 (" in said
    assert [path.name for path in tmp_path.glob("*.svg")] == ["why-labels.svg"]
