"""Imports run one way: downwards in the table of docs/design/architecture.md, at the top of a file."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "kshot"
FILES = sorted(PACKAGE.rglob("*.py"))
TOP = 7

# Own modules imported inside a function, and why.
INSIDE = {
    "cli.py": "torch and transformers take seconds to import, and help or a mistyped flag needs neither",
    "cli_generate.py": "as cli.py",
    "cli_list.py": "as cli.py",
}


def levels() -> dict[str, int]:
    """The level of each folder and of each file directly in the package, from the table."""
    text = (ROOT / "docs" / "design" / "architecture.md").read_text(encoding="utf-8")
    found: dict[str, int] = {}
    for level, files in re.findall(r"^\| (\d) \| (.+?) \|", text, flags=re.M):
        for file in re.findall(r"`([\w/*.]+)`", files):
            found[file.split("/")[0].removesuffix(".py")] = int(level)
    return found


LEVELS = levels()


def _place(module: str) -> str:
    """The folder of a module of ours, or its own name where it lies directly in the package."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def _module(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path) -> list[str]:
    """Every module of ours that a file names in an import, wherever in the file."""
    found: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            # a name may be a module of the package it comes from
            found += [
                f"{node.module}.{a.name}" if _exists(f"{node.module}.{a.name}") else str(node.module)
                for a in node.names
            ]
    return [name for name in found if name.split(".")[0] == "kshot"]


def _exists(module: str) -> bool:
    path = PACKAGE.parent.joinpath(*module.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def violations(here: str, names: list[str]) -> list[str]:
    """The imports that a module of ``here`` must not make."""
    own = LEVELS.get(here, TOP)
    return [name for name in names if _place(name) != here and LEVELS.get(_place(name), TOP) >= own and own < TOP]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_downwards(path: Path) -> None:
    here = _place(_module(path))
    if LEVELS.get(here, TOP) == 0:
        assert all(LEVELS.get(_place(name), TOP) == 0 for name in imported(path))
    else:
        assert violations(here, imported(path)) == []


def test_a_wrong_import_would_be_seen() -> None:
    assert violations("data", ["kshot.model.lm"]) == ["kshot.model.lm"]
    assert violations("adapt", ["kshot.measure.metrics"]) == ["kshot.measure.metrics"]
    assert violations("study", ["kshot.show.report", "kshot.cli", "kshot.errors"]) == ["kshot.show.report", "kshot.cli"]
    assert violations("study", ["kshot.study.store", "kshot.measure.metrics"]) == []


def test_every_folder_has_a_level() -> None:
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders <= set(LEVELS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_own_modules_are_imported_at_the_top(path: Path) -> None:
    inside = []
    for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            for node in ast.walk(function):
                names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
                names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
                inside += [name for name in names if name.split(".")[0] == "kshot"]
    if str(path.relative_to(PACKAGE)) not in INSIDE:
        assert inside == []


def test_no_module_imports_itself_by_way_of_others() -> None:
    edges = {_module(path): set(imported(path)) - {_module(path)} for path in FILES}
    # names for the reader of types only: __init__ imports nothing when it runs
    edges["kshot"] = set()
    done: set[str] = set()

    def visit(module: str, above: tuple[str, ...]) -> None:
        assert module not in above, " -> ".join((*above, module))
        if module not in done:
            for other in sorted(edges.get(module, ())):
                visit(other, (*above, module))
            done.add(module)

    for module in sorted(edges):
        visit(module, ())


def test_only_the_model_folder_knows_transformers() -> None:
    knowing = {
        path.relative_to(PACKAGE).parts[0]
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if (isinstance(node, ast.Import) and any(a.name.split(".")[0] == "transformers" for a in node.names))
        or (isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] == "transformers")
    }
    assert knowing == {"model"}
