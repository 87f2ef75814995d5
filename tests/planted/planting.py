"""How a fault is planted: a check of the suite that passes without it must fail with it.

The checks are those of the other test files wherever they can be called alone.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

TESTS = Path(__file__).parent.parent
Plant = Callable[[pytest.MonkeyPatch], None]


def suite(file: str) -> Any:
    """A test file as a module, by its path in the folder of the tests; its neighbours are found too."""
    path = TESTS / file
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    return import_module(path.stem)


@contextmanager
def planted(plant: Plant) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        plant(patch)
        yield


def caught(check: Callable[[], object], plant: Plant) -> None:
    """The check passes as things are, and fails with the fault."""
    check()
    with planted(plant), pytest.raises(AssertionError):
        check()


def like(module: ModuleType, **changed: Any) -> ModuleType:
    """A module with some of its names changed, for one importer alone."""
    copy = ModuleType(module.__name__)
    copy.__dict__.update(module.__dict__ | changed)
    return copy
