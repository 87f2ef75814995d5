"""Ways of teaching as they are written: every option reaches its field with its type."""

from dataclasses import fields
from typing import Any, Literal, get_args, get_origin

import pytest

from kshot.adapt import METHODS
from kshot.adapt.course import Course
from kshot.errors import KshotError, UnknownName
from kshot.study.ways import Way, built, kinds, option_names, read_way, trained

TRAINED = {"soft-prompt", "prefix", "lora", "fine-tune"}
OPTIONS = [(name, option) for name in METHODS for option in kinds(name)]
# Options of which not every word will do.
WORDS = {"optimiser": "sgd", "schedule": "linear", "by": "bm25", "init": "text", "norm": "matched"}


def written(option: str, kind: Any) -> tuple[str, Any]:
    """A value of its kind as it is written, and as it is."""
    if option in WORDS:
        return WORDS[option], WORDS[option]
    if get_origin(kind) is Literal:
        return get_args(kind)[-1], get_args(kind)[-1]
    if get_origin(kind) is tuple:
        return ("0.25+0.5", (0.25, 0.5)) if get_args(kind)[0] is float else ("a+b_c", ("a", "b_c"))
    return {int: ("3", 3), str: ("words here", "words here")}.get(kind, ("0.25", 0.25))


@pytest.mark.parametrize(("name", "option"), OPTIONS, ids=lambda value: str(value))
def test_every_option_reaches_its_field(name: str, option: str) -> None:
    text, value = written(option, kinds(name)[option])
    for spelt in (option, option.replace("_", "-")):
        way = read_way(f"{name}:{spelt}={text}")
        assert way == Way(name, {option: value})
        assert type(way.options[option]) is type(value)
    made = built(name, {"shots": 5, "seed": 9, "noise": 0.5, "text": "Films"} | dict(way.options))
    holder = made if option in option_names(name) else made.course
    assert getattr(holder, option) == value
    assert getattr(made, "shots", 5) == 5


def test_what_is_trained() -> None:
    assert {name for name in METHODS if trained(name)} == TRAINED
    for name in TRAINED:
        assert {"learning_rate", "grid", "optimiser", "batch", "loss", "kl", "schedule"} <= set(kinds(name))
        assert not {"draw", "state", "watch", "budget", "validation", "shots", "course"} & set(kinds(name))
    assert kinds("zero-shot") == {}


def test_a_text_may_hold_colons() -> None:
    assert read_way("soft-prompt:init=text:text=Review: good: or not:length=5") == Way(
        "soft-prompt", {"init": "text", "text": "Review: good: or not", "length": 5}
    )
    with pytest.raises(KshotError, match="option 'length' of soft-prompt has no value"):
        read_way("soft-prompt:length")


def test_several_options_and_those_of_the_run() -> None:
    way = read_way("lora:rank=4:targets=q_proj+v_proj:grid=0.1+0.01")
    more = {"budget": "7steps", "validation": "none", "draw": 2, "state": "x", "shots": 3}
    made = built("lora", {**way.options, **more})
    assert (made.rank, made.targets, made.shots) == (4, ("q_proj", "v_proj"), 3)
    assert made.course == Course(grid=(0.1, 0.01), budget="7steps", validation="none", draw=2, state="x")
    assert built("soft-prompt", {"shots": 1}).course.optimiser == "adafactor", "what is not said stays as it was"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lorra", r"^unknown method 'lorra'; did you mean 'lora'"),
        ("", r"^unknown method ''; known: fine-tune"),
        ("lora:rnk=4", r"^unknown option of lora 'rnk'; did you mean 'rank'"),
        ("lora:shots=4", r"^unknown option of lora 'shots'"),
        ("lora:budget=4", r"^unknown option of lora 'budget'"),
        ("lora:", r"^unknown option of lora ''"),
        ("lora:rank", r"^option 'rank' of lora has no value; write it as lora:rank=\.\.\.$"),
        ("lora:rank=four", r"^lora:rank=four: what works is int, several with a plus between$"),
        ("lora:rank=1.5", r"^lora:rank=1\.5: what works is int"),
        ("lora:grid=0.1+x", r"^lora:grid=0\.1\+x: what works is "),
        ("lora:loss=labels", r"^unknown value of lora:loss 'labels'; did you mean 'label'"),
        ("zero-shot:rank=4", r"^method 'zero-shot' has no options of its own, and 'rank=4' is given to it$"),
    ],
)
def test_what_cannot_be_read_is_one_line(text: str, said: str) -> None:
    with pytest.raises(KshotError, match=said) as found:
        read_way(text)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lora:learning_rate=-1", "learning rate -1.0: what works is a number above 0"),
        ("lora:learning_rate=nan", "learning rate nan: what works is a number above 0"),
        ("lora:grid=0.1+0", "learning rate 0.0: what works is a number above 0"),
        ("lora:batch=0", "batch 0: what works is a whole number from 1 on"),
        ("lora:optimiser=adam", "unknown optimiser 'adam'; did you mean 'adamw'"),
        ("nearest:by=foo", "unknown kind of nearness 'foo'; known: bm25, hidden"),
    ],
)
def test_what_cannot_be_is_said_when_it_is_built(text: str, said: str) -> None:
    way = read_way(text)
    with pytest.raises((KshotError, UnknownName), match=said):
        built(way.method, {"shots": 1, **way.options})


def test_every_field_is_an_option_or_set_elsewhere() -> None:
    """A field that is added is an option at once, or is left out on purpose."""
    for name, method in METHODS.items():
        elsewhere = {"shots", "order", "pick", "ids", "channel", "template", "course"}
        assert {f.name for f in fields(method)} - elsewhere <= set(kinds(name)), name
