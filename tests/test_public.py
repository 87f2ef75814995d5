"""What is public, and maps that cannot lie: the README's and the architecture's list of files."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import kshot
from kshot import errors
from kshot.errors import KshotError

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "kshot"


def _sorted_as_ruff_does(names: list[str]) -> list[str]:
    """Constants, then classes, then the rest, each in the alphabet's order."""
    return sorted(names, key=lambda name: (0 if name.isupper() else 1 if name[0].isupper() else 2, name))


def test_the_public_list_is_sorted_and_importable() -> None:
    assert list(kshot.__all__) == _sorted_as_ruff_does(kshot.__all__)
    for name in kshot.__all__:
        assert getattr(kshot, name).__name__ == name
    assert set(kshot.__all__) <= set(dir(kshot))


def test_every_error_that_a_caller_may_catch_is_public() -> None:
    found = {name for name, thing in vars(errors).items() if isinstance(thing, type) and issubclass(thing, KshotError)}
    assert len(found) > 5
    assert found <= set(kshot.__all__)


def test_names_are_found_where_the_types_say() -> None:
    text = (PACKAGE / "__init__.py").read_text(encoding="utf-8")
    said = re.findall(r"^    from (kshot[\w.]*) import (?:\(([^)]+)\)|(.+))$", text, flags=re.M)
    pairs = [(module, name.strip()) for module, *names in said for name in "".join(names).split(",")]
    by_name = {name: module for module, name in pairs if name}
    assert by_name == kshot._WHERE
    assert sorted(by_name) == sorted(kshot.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'kshot' has no attribute 'compares'"):
        kshot.compares  # noqa: B018


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import sys, kshot; sys.exit(bool({'torch', 'transformers', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def _tree() -> set[str]:
    """Every file of the package that holds code."""
    return {
        path.relative_to(ROOT).as_posix()
        for path in PACKAGE.rglob("*.py")
        if path.name != "__init__.py" or len(path.read_text(encoding="utf-8").splitlines()) > 1
    }


def test_the_map_of_the_readme_is_the_tree() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    listed = re.findall(r"^(src/kshot/\S+\.py) +\S.*$", text, flags=re.M)
    assert len(listed) == len(set(listed))
    assert set(listed) == _tree()


def test_the_table_of_the_architecture_names_files_that_exist() -> None:
    text = (ROOT / "docs" / "design" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \d \| (.+?) \|", text, flags=re.M)
    listed = {name for row in rows for name in re.findall(r"`([\w/*.]+\.py)`", row)}
    for name in listed:
        assert list(PACKAGE.glob(name)), f"{name} is in the table and not in the tree"
    found = {path for name in listed for path in PACKAGE.glob(name)}
    missing = {p.relative_to(PACKAGE).as_posix() for p in PACKAGE.rglob("*.py") if p.name != "__init__.py"} - {
        path.relative_to(PACKAGE).as_posix() for path in found
    }
    assert missing == set()
