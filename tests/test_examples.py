"""The examples and the README's Python run as they are written, and know nothing but what is public."""

import ast
import re
import runpy
import sys
from pathlib import Path

import pytest

import kshot
from kshot.errors import KshotError
from kshot.model.sources import resolve

ROOT = Path(__file__).parents[1]
EXAMPLES = {path.stem: path for path in sorted((ROOT / "examples").glob("*.py"))}
README = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.M | re.S)


@pytest.fixture
def said(
    request: pytest.FixtureRequest,
    tiny_model_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> str:
    """What an example prints when it is run as a script with the small model; it must leave no file behind."""
    monkeypatch.setattr(sys, "argv", [request.param, str(tiny_model_dir)])
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(EXAMPLES[request.param]), run_name="__main__")
    assert list(tmp_path.iterdir()) == []
    return capsys.readouterr().out


def private(code: str) -> list[str]:
    """The modules of ours that some code imports, and the names of ours that are not in the public list."""
    found = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.startswith("kshot.")]
        elif isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] == "kshot":
            found += [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "kshot":
            found += [node.attr] if node.attr not in kshot.__all__ else []
    return found


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_use_what_is_public(name: str) -> None:
    assert private(EXAMPLES[name].read_text(encoding="utf-8")) == []


def test_what_is_not_public_would_be_seen() -> None:
    assert private("import kshot.cli\nfrom kshot.data import load_task\nkshot.score(kshot.scores)") == [
        "kshot.cli",
        "kshot.data.load_task",
        "scores",
    ]


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_say_how_to_run_them(name: str) -> None:
    assert f"python examples/{name}.py [MODEL]" in (ast.get_docstring(ast.parse(EXAMPLES[name].read_text())) or "")


@pytest.mark.parametrize("said", ["fruit_colours"], indirect=True)
def test_fruit_colours(said: str) -> None:
    assert "りんご⇒赤、メロン⇒黄緑、なす⇒青、バナナ⇒\n" in said
    assert "right would be '黄'" in said
    probabilities = [float(number) for number in re.findall(r"^ *(\d\.\d\de[+-]\d+)  \S+$", said, flags=re.M)]
    assert len(probabilities) == 5
    assert probabilities == sorted(probabilities, reverse=True)
    assert all(0 <= p <= 1 for p in probabilities)


@pytest.mark.parametrize("said", ["own_data"], indirect=True)
def test_own_data(said: str) -> None:
    assert said.startswith("tickets: ")
    for arm in ("zero-shot@0", "in-context@3", "in-context@9"):
        assert arm in said
    assert len(re.findall(r"^ *(?:zero-shot|in-context) +\d+ +[01]\.\d", said, flags=re.M)) == 3


@pytest.mark.parametrize("said", ["order_sensitivity"], indirect=True)
def test_order_sensitivity(said: str) -> None:
    assert "24 orders on the same 40 queries: " in said
    assert len(re.findall(r"#", said)) == 24
    worst, best = (re.search(rf"^{name} +(.+)$", said, flags=re.M) for name in ("worst", "best"))
    assert worst is not None
    assert best is not None
    assert sorted(worst[1].split(", ")) == sorted(best[1].split(", "))


@pytest.mark.parametrize("said", ["teach_and_serve"], indirect=True)
def test_teach_and_serve(said: str) -> None:
    assert said.startswith("3 of the 12 examples held out")
    start = re.search(r"^loss before the first step: (\d+\.\d+) nats per token$", said, flags=re.M)
    assert start is not None
    answers = re.findall(r"^(?:What|That) is .+ (question|statement) \(([01]\.\d\d)\)$", said, flags=re.M)
    assert len(answers) == 2


def test_all_examples_are_run() -> None:
    assert set(EXAMPLES) == {"fruit_colours", "order_sensitivity", "own_data", "teach_and_serve"}


@pytest.mark.parametrize("code", README)
def test_the_readme_uses_what_is_public(code: str) -> None:
    assert private(code) == []


def test_there_is_python_in_the_readme() -> None:
    assert README


@pytest.mark.smollm2
@pytest.mark.parametrize("code", README)
def test_the_readme_runs_as_it_is_written(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        resolve("smollm2-135m", offline=True)
    except KshotError as error:
        pytest.skip(str(error))
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "__main__"}
    exec(compile(code, "README.md", "exec"), names)
    # Whatever the block says it writes lies where it says.
    for file in re.findall(r'"([\w-]+\.html)"', code):
        assert (tmp_path / file).stat().st_size > 1000
