"""Small rooms: how long files and functions may be, and how many parameters a function may have.

Lines are counted as they stand in the file, docstrings, comments and blank lines included. Parameters are counted
without ``self``, ``*args`` and ``**kwargs``.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "kshot"
FILES = sorted(PACKAGE.rglob("*.py"))

FILE, FUNCTION, PARAMETERS = 350, 50, 7

# What may be larger, by how much, and why: raising a number here is a visible change.
LONGER_FILES: dict[str, tuple[int, str]] = {}
LONGER_FUNCTIONS: dict[str, tuple[int, str]] = {
    "study/results.py:results": (65, "one literal: the keys of results.json in their order, each in a line or two"),
}
MORE_PARAMETERS: dict[str, tuple[int, str]] = {
    "data/pick.py:pick": (8, "what each way of picking looks at; all but four have defaults"),
}


def _functions(path: Path) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"{path.relative_to(PACKAGE).as_posix()}:{node.name}", node


def _parameters(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    names = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
    return len([name for name in names if name not in ("self", "cls")])


def _over(found: dict[str, int], budget: int, exceptions: dict[str, tuple[int, str]]) -> dict[str, int]:
    return {name: size for name, size in found.items() if size > exceptions.get(name, (budget,))[0]}


def test_files_are_short() -> None:
    found = {p.relative_to(PACKAGE).as_posix(): len(p.read_text(encoding="utf-8").splitlines()) for p in FILES}
    assert _over(found, FILE, LONGER_FILES) == {}
    assert set(LONGER_FILES) <= {name for name, size in found.items() if size > FILE}


def test_functions_are_short() -> None:
    found = {name: (node.end_lineno or 0) - node.lineno + 1 for path in FILES for name, node in _functions(path)}
    assert _over(found, FUNCTION, LONGER_FUNCTIONS) == {}
    assert set(LONGER_FUNCTIONS) <= {name for name, size in found.items() if size > FUNCTION}


def test_functions_have_few_parameters() -> None:
    found = {name: _parameters(node) for path in FILES for name, node in _functions(path)}
    assert _over(found, PARAMETERS, MORE_PARAMETERS) == {}
    assert set(MORE_PARAMETERS) <= {name for name, size in found.items() if size > PARAMETERS}


def test_every_exception_has_a_reason() -> None:
    for exceptions in (LONGER_FILES, LONGER_FUNCTIONS, MORE_PARAMETERS):
        assert all(len(reason) > 20 for _, reason in exceptions.values())


def test_what_is_too_long_would_be_seen() -> None:
    assert _over({"a": 51, "b": 50, "c": 60}, 50, {"c": (60, "")}) == {"a": 51}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_inheritance_tricks(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    called = {
        node.func.id
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    if path.name != "errors.py":
        assert "super" not in called
    assert "hasattr" not in called
