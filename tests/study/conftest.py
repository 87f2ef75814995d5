"""Fixtures of whole runs."""

from pathlib import Path

import pytest
from cats import TEXTS

from kshot.pretrain.text import END


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A text of small documents about cats, and a cache of its own."""
    monkeypatch.setenv("KSHOT_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "cats.txt"
    path.write_text(f"{END}\n".join(TEXTS), encoding="utf-8")
    return path
