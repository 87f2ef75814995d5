"""Options: one place, sensible numbers, and a command that repeats them."""

from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kshot.cli_options import as_command, spelt
from kshot.data.pick import PICKS
from kshot.errors import KshotError, UnknownName
from kshot.measure.scoring import Overlength
from kshot.model.load import MODEL, Device, DType
from kshot.study.evaluate_settings import EvaluateSettings
from kshot.study.explain_settings import ExplainSettings
from kshot.study.options import command, flag, plain
from kshot.study.pretrain_settings import PretrainSettings
from kshot.study.settings import Settings, make_settings


def test_choices_are_those_of_the_code_that_uses_them() -> None:
    hints = get_type_hints(Settings)
    assert get_args(hints["dtype"]) == get_args(DType)
    assert get_args(hints["device"]) == get_args(Device)
    assert get_args(hints["overlength"]) == get_args(Overlength)
    assert get_args(hints["pick"]) == ("auto", *PICKS)
    assert Settings().model == MODEL


def test_single_values_are_lists_of_one_and_repeated_ones_are_asked_once() -> None:
    asked = make_settings(tasks="plurals", num_fewshot=4, seed=[1, 1, 0])
    assert (asked.tasks, asked.num_fewshot, asked.seed) == (("plurals",), (4,), (1, 0))


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"limit": -3}, "--limit -3: what works is a whole number from 1 to 100000000, or all"),
        ({"limit": 0}, "--limit 0: what works is a whole number from 1 to 100000000, or all"),
        ({"limit": 10**12}, "--limit 1000000000000: what works is a whole number from 1 to 100000000, or all"),
        ({"limit": 2.5}, "--limit 2.5: what works is a whole number from 1 to 100000000, or all"),
        ({"num_fewshot": (4, -1)}, "--num-fewshot -1: what works is a whole number from 0 to 100000"),
        ({"seed": (-1,)}, "--seed -1: what works is a whole number from 0 to 9223372036854775807"),
        ({"orders": 0}, "--orders 0: what works is a whole number from 1 to 1000"),
        ({"orders": 10**6}, "--orders 1000000: what works is a whole number from 1 to 1000"),
        ({"methods": ()}, "--methods is empty; give at least one"),
        ({"output_path": ""}, "--output-path is an empty text; give it a value, or leave it out"),
        ({"model": " "}, "--model is an empty text; give it a value, or leave it out"),
        ({"tasks": ("plurals", "")}, "a TASK is an empty text; give it a value, or leave it out"),
        ({"pick": "fixed"}, "--pick fixed needs --ids with the ids of the demonstrations"),
        ({"ids": ("a",)}, "--ids goes with --pick fixed, and --pick is auto"),
        ({"ensemble": "orders", "orders": 1}, "--ensemble orders combines --orders of 2 or more, and --orders is 1"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(options: dict[str, object], line: str) -> None:
    with pytest.raises(KshotError) as caught:
        make_settings(**options)
    assert str(caught.value) == line


def test_unknown_options_and_choices_name_the_nearest() -> None:
    with pytest.raises(UnknownName, match="unknown option 'limits'; did you mean 'limit'"):
        make_settings(limits=3)
    with pytest.raises(UnknownName, match="unknown value of --dtype 'float23'; did you mean 'float32'"):
        make_settings(dtype="float23")


@given(
    num_fewshot=st.lists(st.integers(0, 99), min_size=1, unique=True),
    limit=st.one_of(st.just("all"), st.integers(1, 999)),
    log_samples=st.booleans(),
    tasks=st.lists(st.sampled_from(["plurals", "capitals", "a.jsonl"]), min_size=1, unique=True),
)
def test_the_command_of_settings_asks_for_the_same_settings(
    num_fewshot: list[int], limit: int | str, log_samples: bool, tasks: list[str]
) -> None:
    asked = make_settings(num_fewshot=num_fewshot, limit=limit, log_samples=log_samples, tasks=tasks)
    words = command("run", asked)
    assert words[:2] == ["kshot", "run"]
    assert _parsed(words[1:]) == asked


def test_a_template_may_hold_commas_and_come_again() -> None:
    asked = make_settings(template=["{{a}}, {{b}}", "{{b}}: {{a}}"])
    assert command("run", asked)[2:] == ["--template", "{{a}}, {{b}}", "--template", "{{b}}: {{a}}"]
    assert _parsed(command("run", asked)[1:]) == asked
    assert make_settings(template="{{a}}, {{b}}").template == ("{{a}}, {{b}}",)
    assert make_settings(template=None) == Settings()


def test_a_line_break_of_a_layout_is_written_as_two_letters() -> None:
    (layout,) = _parsed(["run", "--template", "Review: {{text}}\\nSentiment:"]).template
    assert layout == "Review: {{text}}\nSentiment:"
    assert command("run", make_settings(template=layout))[-1] == "Review: {{text}}\\nSentiment:"
    (path,) = _parsed(["run", "--template", "C:\\new\\template.yaml"]).template
    assert path == "C:\\new\\template.yaml"


def test_templates_of_a_config_come_again_too(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("template: ['{{a}}, {{b}}', '{{b}}']\nensemble: templates\n", encoding="utf-8")
    asked = _parsed(["run", "plurals", "--config", str(config)])
    assert (asked.template, asked.ensemble) == (("{{a}}, {{b}}", "{{b}}"), "templates")


@pytest.mark.parametrize("switch", ["--no-save", "--save", "--no-log-samples", "--log_samples"])
def test_tasks_of_the_command_line_win_whatever_stands_before_them(switch: str, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("tasks: [other]\nsave: true\nlog-samples: true\nlimit: 5\n", encoding="utf-8")
    asked = _parsed(["run", switch, "plurals", "--config", str(config)])
    assert (asked.tasks, asked.limit) == (("plurals",), 5)
    assert (asked.save, asked.log_samples) == (switch != "--no-save", switch != "--no-log-samples")
    assert _parsed(["run", f"--config={config}"]).tasks == ("other",)


@pytest.mark.parametrize("value", ["--{{first_name}}", "--num_fewshot", "--a_b=c_d"])
def test_a_value_stays_as_it_is_written(value: str) -> None:
    assert _parsed(["run", "--template", value, "--num_fewshot", "2"]) == make_settings(template=value, num_fewshot=2)
    assert _parsed(["run", f"--template={value}", "--num_fewshot=2"]) == make_settings(template=value, num_fewshot=2)


@pytest.mark.parametrize(
    ("kind", "name", "value", "read"),
    [
        (Settings, "ids", "[007, 1e3, 2024-01-02]", ("007", "1e3", "2024-01-02")),
        (PretrainSettings, "eta", "[0.3, 0.60]", ("0.3", "0.60")),
        (EvaluateSettings, "momentum", "0.3", "0.3"),
        (ExplainSettings, "learning-rate", "1e-3", 0.001),
    ],
)
def test_a_number_of_a_config_is_the_word_that_it_is_written_as(
    kind: type, name: str, value: str, read: object, tmp_path: Path
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(f"{name}: {value}\n", encoding="utf-8")
    assert _given(["run", "--config", str(config)], kind) == {name.replace("-", "_"): read}


def test_tasks_stand_behind_a_flag_as_in_lm_eval() -> None:
    assert _parsed(["run", "--tasks", "plurals,capitals"]).tasks == ("plurals", "capitals")
    assert _parsed(["run", "colours", "--tasks=plurals"]).tasks == ("colours", "plurals")
    with pytest.raises(KshotError, match="--tasks is empty; give at least one"):
        _parsed(["run", "--tasks", ""])


def _parsed(words: list[str]) -> Settings:
    return make_settings(**_given(words, Settings))


def _given(words: list[str], kind: type) -> dict[str, Any]:
    """The options of a command line, as a command with these settings gets them."""
    from kshot import cli

    found: dict[str, Any] = {}
    app = cli.App(result_action="return_value")
    app.command(as_command(found.update, kind), name="run")
    app(spelt(words, app), exit_on_error=False, print_error=False)
    return found


def test_flags_and_plain_values() -> None:
    assert flag("output_path") == "--output-path"
    assert plain(make_settings(tasks=["a"]))["tasks"] == ["a"]
