"""The page of ``kshot pretrain``: whether networks began anew or from a model is the first thing that it says."""

from typing import Any

import pytest
from fake_pretrain import grown
from reader import Reader, check_sound, undefined

from kshot.show.pretrain import page


def first_screen(record: dict[str, Any]) -> str:
    html = page(record)
    check_sound(html)
    assert undefined(html) == []
    return " ".join(" ".join(Reader(html[: html.index("<main>")] + "</div></body></html>").said).split())


@pytest.mark.parametrize(
    ("start", "title"), [(None, "trained from scratch"), ("smollm2-135m", "Language models trained further")]
)
def test_the_first_screen_says_what_training_started_from(start: str | None, title: str) -> None:
    said = first_screen(grown(start=start))
    assert title in said
    assert ("started from smollm2-135m" in said) == (start is not None)
