"""Shapes that are written are checked in these tests, in functions and in what they return; nothing else is."""

import numpy as np
import pytest
from jaxtyping import Float, TypeCheckError

from kshot.measure.scaling import Law, power_law
from kshot.model.tree import shared_beginning
from kshot.seeds import stream
from shaped import written

LAW = Law(floor=1.0, parameters_scale=1.0, alpha=0.5, tokens_scale=1.0, beta=0.5)


@pytest.mark.parametrize(("counts", "losses"), [((2, 2), (2, 2)), ((3,), (4,))])
def test_a_wrong_shape_is_an_error(counts: tuple[int, ...], losses: tuple[int, ...]) -> None:
    with pytest.raises(TypeCheckError):
        power_law(np.ones(counts), np.ones(losses))
    with pytest.raises(TypeCheckError):
        LAW.loss(np.ones(counts), np.ones(losses))


def test_what_writes_no_shape_is_left_alone() -> None:
    def holds(found: dict[str, list[Float[np.ndarray, "n"]]], many: int) -> None: ...

    assert written(holds)
    assert written(property(lambda self: None)) is False
    for plain in (stream, shared_beginning):
        assert not written(plain)
        assert "jaxtyping" not in plain.__code__.co_filename
