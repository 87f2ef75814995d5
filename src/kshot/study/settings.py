"""Every option of a run with its default, in one place: the command line, ``compare`` and the report read them here.

Nothing heavy is imported, so that ``kshot --help`` and a mistyped flag answer at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

from kshot.errors import KshotError, UnknownName

DEFAULT_TASKS = ("plurals", "country-continent", "bbc-headlines")

# A layout may hold commas, so that each has a flag of its own.
REPEATED = ("template",)

# Beyond these a number is a slip of the hand: no model reads so many demonstrations, no file has so many rows.
_MOST = {"num_fewshot": 100_000, "limit": 100_000_000, "orders": 1_000, "draws": 100, "seed": 2**63 - 1}


def _option(default: Any, help: str) -> Any:
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What is asked of a run. Lists are tuples; ``limit`` "all" takes the whole test split.

    >>> Settings(num_fewshot=(4,)).num_fewshot
    (4,)
    """

    tasks: tuple[str, ...] = _option(DEFAULT_TASKS, "Built-in names, files, lm-eval YAML or hf:org/name.")
    model: str = _option("smollm2-135m", "An embedded name, org/name on the hub, a folder or a .gguf file.")
    methods: tuple[str, ...] = _option(
        ("zero-shot", "in-context"),
        "Ways of teaching (see: kshot list methods), options behind colons: soft-prompt:length=5.",
    )
    num_fewshot: tuple[int, ...] = _option(
        (0, 4, 16), "Numbers of demonstrations; 0 is zero-shot. By default also the number of an lm-eval YAML."
    )
    seed: tuple[int, ...] = _option((0, 1, 2), "Seeds; each draws demonstrations of its own.")
    limit: int | Literal["all"] = _option(80, "Test examples of each task, the same for every method.")
    orders: int = _option(4, "Orders in which the first seed's demonstrations are tried.")
    budget: str = _option("60steps", "Of one run of training: so many steps, passes over the examples, or seconds.")
    validation: Literal["split", "task", "none"] = _option(
        "split",
        "What learning rate and steps are chosen on: a quarter of the examples, the task's own set, or nothing.",
    )
    noise: float = _option(
        0.25, "Share of wrong labels among four times the examples, beside anything trained; 0 leaves that out."
    )
    ensemble: Literal["none", "orders", "templates", "draws"] = _option(
        "none", "What is combined into answers of its own: orders of a set, templates, or draws of what is trained."
    )
    draws: int = _option(5, "Trainings from other starts that --ensemble draws combines.")
    transfer_to: tuple[str, ...] = _option(
        (), "Tasks with the same labels on which each task's teaching is tested too."
    )
    save: bool = _option(True, "Fit what is recommended for each task once more and keep it as an artefact.")
    pick: Literal["auto", "random", "balanced", "first_n", "bm25", "hidden", "fixed"] = _option(
        "auto", "How demonstrations are chosen from the pool; auto: as an lm-eval YAML says, else random."
    )
    ids: tuple[str, ...] = _option((), "The demonstrations of --pick fixed, by id and in this order.")
    scoring: Literal["direct", "channel"] = _option("direct", "P(answer | input), or channel: P(input | answer).")
    overlength: Literal["drop-demo", "skip", "error"] = _option(
        "drop-demo", "What to do where a prompt does not fit the context."
    )
    template: tuple[str, ...] = _option(
        (), "Layout of an input (Jinja, with {{field}}) or a YAML file of a whole template; again for another."
    )
    test_file: str | None = _option(None, "Test examples of a task that is a file; else a part of it is held out.")
    dtype: Literal["auto", "float32", "bfloat16", "float64"] = _option("auto", "Number format of the weights.")
    device: Literal["auto", "cpu", "cuda"] = _option("auto", "Where the model runs.")
    output_path: str | None = _option(None, "Folder of the records; the same command goes on where it stopped.")
    log_samples: bool = _option(True, "Keep every query's answer and log-probabilities in samples.jsonl.")


def make_settings(**options: Any) -> Settings:
    """Settings that make sense. A single value may stand for a list of one; repeated values are asked once.

    UnknownName where there is no such option or choice, KshotError in one line where a number is negative or absurd.
    """
    known = {option.name: option for option in fields(Settings)}
    for name in options:
        if name not in known:
            raise UnknownName("option", name, known)
    asked = {name: _tidy(options.get(name, option.default), option.default) for name, option in known.items()}
    for name, kind in get_type_hints(Settings).items():
        if get_origin(kind) is Literal and asked[name] not in get_args(kind):
            raise UnknownName(f"value of {flag(name)}", str(asked[name]), get_args(kind))
    for name in ("tasks", "methods", "num_fewshot", "seed"):
        if not asked[name]:
            raise KshotError(f"{flag(name)} is empty; give at least one")
    for number in asked["num_fewshot"]:
        _within("num_fewshot", number, 0)
    for number in asked["seed"]:
        _within("seed", number, 0)
    if asked["limit"] != "all":
        _within("limit", asked["limit"], 1, ", or all")
    _within("orders", asked["orders"], 1)
    _within("draws", asked["draws"], 2)
    if not isinstance(asked["noise"], int | float) or not 0 <= asked["noise"] <= 1:
        raise KshotError(f"--noise {asked['noise']!r}: what works is a share from 0 to 1")
    asked["noise"] = float(asked["noise"])
    if asked["ensemble"] == "orders" and asked["orders"] == 1:
        raise KshotError("--ensemble orders combines --orders of 2 or more, and --orders is 1")
    if asked["pick"] == "fixed" and not asked["ids"]:
        raise KshotError("--pick fixed needs --ids with the ids of the demonstrations")
    if asked["ids"] and asked["pick"] != "fixed":
        raise KshotError(f"--ids goes with --pick fixed, and --pick is {asked['pick']}")
    return Settings(**asked)


def _tidy(value: Any, default: Any) -> Any:
    if not isinstance(default, tuple):
        return value
    return tuple(dict.fromkeys((value,) if isinstance(value, str | int) else value or ()))


def _within(name: str, number: Any, least: int, also: str = "") -> None:
    most = _MOST[name]
    if not isinstance(number, int) or isinstance(number, bool) or not least <= number <= most:
        raise KshotError(f"{flag(name)} {number!r}: what works is a whole number from {least} to {most}{also}")


def flag(name: str) -> str:
    """The option as it is written on the command line.

    >>> flag("num_fewshot")
    '--num-fewshot'
    """
    return "--" + name.replace("_", "-")


def plain(asked: Settings) -> dict[str, Any]:
    """The settings as JSON knows them, in the order of their fields."""
    found = {f.name: getattr(asked, f.name) for f in fields(asked)}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}


def command(asked: Settings) -> list[str]:
    """The command that repeats a run, as a list of words; what is as by default is left out.

    >>> command(Settings(tasks=("plurals",), seed=(0,), log_samples=False))
    ['kshot', 'run', 'plurals', '--seed', '0', '--no-log-samples']
    """
    words = ["kshot", "run", *(asked.tasks if asked.tasks != DEFAULT_TASKS else ())]
    for option in fields(asked):
        value = getattr(asked, option.name)
        if option.name != "tasks" and value != option.default:
            words += flag_words(option.name, value)
    return words


def flag_words(name: str, value: Any) -> list[str]:
    """One option and its value as words of a command line."""
    if isinstance(value, bool):
        return [flag(name) if value else flag(name).replace("--", "--no-", 1)]
    if name in REPEATED:
        return [word for part in ([value] if isinstance(value, str) else value) for word in (flag(name), str(part))]
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [flag(name), ",".join(str(part) for part in value)]
    return [flag(name), str(value)]
