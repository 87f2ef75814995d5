"""Fixtures that several folders share: the small random model that ships with the package."""

import os
from pathlib import Path

# Tests that run side by side have a core each: two threads of two processes on two cores are ten times slower. Before
# torch is imported.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"

import pytest
from hypothesis import settings

import shaped  # noqa: F401 - imported for its effect: whatever follows is checked where it writes shapes
from kshot.model import tiny
from kshot.model.lm import LM

# A busy machine is no fault of ours: no test fails for the time it takes.
settings.register_profile("kshot", deadline=None)
settings.load_profile("kshot")


@pytest.fixture(scope="session")
def tiny_lm() -> LM:
    """A random Llama of 2 layers that reads bytes, in float32."""
    return tiny.tiny_lm()


@pytest.fixture(scope="session")
def tiny_model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as a folder, for --model."""
    return tiny.save_tiny(tmp_path_factory.mktemp("models") / "tiny")
