"""A small model that several files read and none changes."""

import pytest
from descents import tiny64

from kshot.model.lm import LM


@pytest.fixture(scope="session")
def llama() -> LM:
    """The tiny Llama of bytes in float64."""
    return tiny64()
