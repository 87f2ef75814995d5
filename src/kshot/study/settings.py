"""Every option of a run with its default, in one place: the command line, ``compare`` and the report read them here."""

from dataclasses import dataclass
from typing import Any, Literal

from kshot.errors import KshotError
from kshot.study.options import option, read, within

DEFAULT_TASKS = ("plurals", "country-continent", "bbc-headlines")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What is asked of a run. Lists are tuples; ``limit`` "all" takes the whole test split.

    >>> Settings(num_fewshot=(4,)).num_fewshot
    (4,)
    """

    tasks: tuple[str, ...] = option(DEFAULT_TASKS, "Built-in names, files, lm-eval YAML or hf:org/name.")
    model: str = option("smollm2-135m", "An embedded name, org/name on the hub, a folder or a .gguf file.")
    methods: tuple[str, ...] = option(
        ("zero-shot", "in-context"),
        "Ways of teaching (see: kshot list methods), options after colons: soft-prompt:length=5.",
    )
    num_fewshot: tuple[int, ...] = option(
        (0, 4, 16), "Numbers of demonstrations; 0 is zero-shot. By default also the number of an lm-eval YAML."
    )
    seed: tuple[int, ...] = option((0, 1, 2), "Seeds; each draws demonstrations of its own.")
    limit: int | Literal["all"] = option(80, "Test examples of each task, the same for every method.")
    orders: int = option(4, "Orders in which the first seed's demonstrations are tried.")
    budget: str = option(
        "60steps", "What one training may take: 60steps, 30passes (epochs over the examples) or 60seconds."
    )
    validation: Literal["split", "task", "none"] = option(
        "split",
        "What learning rate and steps are chosen on: a quarter of the examples, the task's own set, or nothing.",
    )
    noise: float = option(
        0.25, "Beside anything trained: the share of wrong labels among four times as many examples; 0 leaves that out."
    )
    ensemble: Literal["none", "orders", "templates", "draws"] = option(
        "none",
        "What is combined into one more answer: orders of the demonstrations, templates, or trainings from other starts (draws).",
    )
    draws: int = option(5, "How many trainings --ensemble draws combines.")
    transfer_to: tuple[str, ...] = option((), "Tasks with the same labels on which each task's teaching is tested too.")
    save: bool = option(True, "Fit what is recommended for each task once more and keep it as an artefact.")
    pick: Literal["auto", "random", "balanced", "first_n", "bm25", "hidden", "fixed"] = option(
        "auto", "How demonstrations are chosen from the pool; auto: as an lm-eval YAML says, else random."
    )
    ids: tuple[str, ...] = option((), "The demonstrations of --pick fixed, by id and in this order.")
    scoring: Literal["direct", "channel"] = option("direct", "P(answer | input), or channel: P(input | answer).")
    overlength: Literal["drop-demo", "skip", "error"] = option(
        "drop-demo", "What to do where a prompt does not fit the context."
    )
    template: tuple[str, ...] = option(
        (), "Layout of an input (Jinja, with {{field}}) or a YAML file of a whole template; again for another."
    )
    test_file: str | None = option(None, "Test examples of a task that is a file; else a part of it is held out.")
    dtype: Literal["auto", "float32", "bfloat16", "float64"] = option("auto", "Number format of the weights.")
    device: Literal["auto", "cpu", "cuda"] = option("auto", "Where the model runs.")
    output_path: str | None = option(None, "Folder of the records; the same command goes on where it stopped.")
    log_samples: bool = option(True, "Keep every query's answer and log-probabilities in samples.jsonl.")


def make_settings(**options: Any) -> Settings:
    """Settings that make sense. A single value may stand for a list of one; repeated values are asked once.

    UnknownName where there is no such option or choice, KshotError in one line where a number is negative or absurd.
    """
    asked = read(Settings, options)
    for number in asked["num_fewshot"]:
        within("num_fewshot", number, 0)
    if asked["limit"] != "all":
        within("limit", asked["limit"], 1, ", or all")
    within("orders", asked["orders"], 1)
    within("draws", asked["draws"], 2)
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
