"""lm-evaluation-harness task YAML of ``output_type: multiple_choice``, used unchanged.

What a field means is taken from lm-eval 0.4.13, and the prompts are the same to the letter. A field that would change
the numbers and is not known here is refused by name.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, TemplateSyntaxError, meta

from kshot.data.lm_eval_docs import Docs, answer, choices, question
from kshot.data.lm_eval_splits import DATASET_KWARGS, load_splits
from kshot.data.rows import decoded, missing
from kshot.data.task import Example, Task
from kshot.data.template import Template, render
from kshot.errors import DataError

SPLITS = ("training_split", "validation_split", "test_split", "fewshot_split")
TEXTS = ("description", "target_delimiter", "fewshot_delimiter")
USED = {
    *SPLITS,
    *TEXTS,
    *("output_type", "dataset_path", "dataset_name", "dataset_kwargs", "doc_to_text", "doc_to_target", "doc_to_choice"),
    *("fewshot_config", "num_fewshot", "metric_list", "task", "repeats"),
}
# Names, versions and remarks; decontamination is only ever computed where lm-eval's own command line asks for it.
HARMLESS = {"task_alias", "tag", "group", "metadata", "should_decontaminate", "doc_to_decontamination_query"}
METRICS = ("acc", "acc_norm")
SAMPLERS = {"default": "random", "first_n": "first_n"}


@dataclass(frozen=True, slots=True)
class _Function:
    """A ``!function`` tag: Python code beside the YAML file, which is never run."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a YAML file says about a run rather than about its data.

    ``pick`` is ours for its sampler; lm-eval's default draws anew for every query, ours once for all of them.
    """

    num_fewshot: int | None
    pick: str
    metrics: tuple[str, ...]


def yaml_task(path: str | Path) -> Task:
    """The task of a YAML file: ``classification`` where the choices are one list for all, else ``choice``.

    ``train`` is the split that lm-eval takes demonstrations from, ``test`` the one that it scores. ``task.template``
    renders the same prompts; ``task.pick`` and ``task.num_fewshot`` are the file's own. Raises DataError that names the file and the field (PromptError for a template).
    """
    path = Path(path)
    config = _config(path)
    splits = load_splits(config, path)
    asked, shown = _which(config, splits, path)
    docs = Docs(
        path=path,
        columns=tuple(splits[asked][0]),
        text=_given(config, "doc_to_text", path),
        target=_given(config, "doc_to_target", path),
        choice=_given(config, "doc_to_choice", path),
    )
    constant = choices(docs, {}, "") if isinstance(docs.choice, (list, dict)) else ()
    notes: list[str] = []
    test = _examples(docs, splits[asked], asked, bool(constant), notes)
    train = test if shown == asked else _examples(docs, splits[shown], shown, bool(constant), notes)
    if not any(example.label is not None for example in test):
        raise DataError(
            f"{path}: no row of {asked!r} has a right answer, so there is nothing to score; name another split"
        )
    if shown == asked:
        notes.append(f"demonstrations and queries both come from {asked!r}; a query is left out of its own prompt")
    settings = yaml_settings(path)
    if settings.num_fewshot is not None or settings.pick != "random":
        notes.append(
            f"the YAML asks for num_fewshot {settings.num_fewshot or 0}, picked by {settings.pick}: so it is by default"
        )
    return Task(
        name=str(config.get("task") or path.stem),
        kind="classification" if constant else "choice",
        labels=constant,
        train=tuple(example for example in train if example.label is not None),
        test=tuple(test),
        template=_template(config, docs, path),
        source=f"{path.name} ({config['dataset_path']})",
        version=str((config.get("metadata") or {}).get("version", "1")),
        pick=settings.pick,
        num_fewshot=settings.num_fewshot,
        notes=tuple(notes),
    )


def yaml_settings(path: str | Path) -> Settings:
    """The number of shots, the sampler and the metrics that a YAML file names."""
    config = _config(Path(path))
    sampler = (config.get("fewshot_config") or {}).get("sampler") or "default"
    names = tuple(entry["metric"] for entry in config.get("metric_list") or [])
    return Settings(num_fewshot=config.get("num_fewshot"), pick=SAMPLERS[sampler], metrics=names or METRICS)


def _config(path: Path) -> dict[str, Any]:
    """The merged fields of a file, every one of them known and of a kind that we can use."""
    config = _merged(path, ())
    kind = config.get("output_type")
    if kind != "multiple_choice":
        raise DataError(f"{path}: output_type is {kind or 'not given'}; what works is multiple_choice")
    for name, value in config.items():
        if function := _function(value):
            raise DataError(
                f"{path}: {name} is !function {function}, Python code that kshot does not run; write it as a template"
            )
        if name not in USED | HARMLESS and value is not None and not (name == "unsafe_code" and value is False):
            raise DataError(
                f"{path}: the field {name!r} is not supported; supported are {', '.join(sorted(USED | HARMLESS))}"
            )
    if isinstance(config.get("task"), list):
        raise DataError(f"{path}: task is a list, so this is a group of tasks; give the file of one of them")
    for name in TEXTS:
        if not isinstance(config.get(name, ""), (str, type(None))):
            raise DataError(f"{path}: {name} is {config[name]!r}; what works is text")
    if config.get("repeats") not in (None, 1):
        raise DataError(f"{path}: repeats is {config['repeats']!r}; what works is 1, for scores do not change")
    shots = config.get("num_fewshot")
    if shots is not None and (not isinstance(shots, int) or isinstance(shots, bool) or shots < 0):
        raise DataError(f"{path}: num_fewshot is {shots!r}; what works is a number from 0 upwards")
    _known(config.get("dataset_kwargs"), DATASET_KWARGS, "dataset_kwargs", path)
    _known(config.get("fewshot_config"), ("sampler", "split"), "fewshot_config", path)
    sampler = (config.get("fewshot_config") or {}).get("sampler") or "default"
    if sampler not in SAMPLERS:
        raise DataError(f"{path}: fewshot_config.sampler is {sampler!r}; what works is {' or '.join(SAMPLERS)}")
    _metrics(config.get("metric_list"), path)
    return config


def _known(value: Any, names: tuple[str, ...], field: str, path: Path) -> None:
    if value is not None and not isinstance(value, dict):
        raise DataError(f"{path}: {field} is {value!r}; what works is a mapping with {', '.join(names)}")
    for name, inner in (value or {}).items():
        if name not in names and inner is not None:
            raise DataError(f"{path}: the field {field}.{name} is not supported; supported are {', '.join(names)}")


def _metrics(entries: Any, path: Path) -> None:
    if entries is None:
        return
    if not isinstance(entries, list) or not all(isinstance(entry, dict) and "metric" in entry for entry in entries):
        raise DataError(f"{path}: metric_list must be a list of mappings with metric: {' or '.join(METRICS)}")
    for entry in entries:
        if entry["metric"] not in METRICS:
            raise DataError(f"{path}: metric_list names {entry['metric']!r}; what works is {' and '.join(METRICS)}")
        usual = {"metric": entry["metric"], "aggregation": "mean", "higher_is_better": True}
        for name, value in entry.items():
            if name not in usual or usual[name] != value:
                raise DataError(f"{path}: metric_list: {name} is {value!r} for {entry['metric']}; leave it out")


def _function(value: Any) -> str:
    """The name of the first ``!function`` anywhere in a value, or nothing."""
    if isinstance(value, _Function):
        return value.name
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return next((name for name in map(_function, parts) if name), "")


class _Loader(yaml.SafeLoader):
    """PyYAML keeps the tags it knows on a class, so one more tag takes a class of its own."""


_Loader.add_constructor("!function", lambda _, node: _Function(str(node.value)))


def _merged(path: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    """The fields of a file over those it includes, the later include over the earlier."""
    try:
        text = decoded(path, path.read_bytes())
    except FileNotFoundError as error:
        raise missing(path) from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    try:
        own = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise DataError(f"{path}{where}: is not YAML ({getattr(error, 'problem', None) or 'unreadable'})") from error
    if not isinstance(own, dict):
        raise DataError(f"{path}: holds {type(own).__name__}; a mapping of lm-eval's task fields is needed")
    included = own.pop("include", None)
    fields: dict[str, Any] = {}
    for name in included if isinstance(included, list) else [included] if included else []:
        other = (path.parent / str(name)).resolve()
        if other in (*above, path.resolve()):
            raise DataError(f"{path}: include: {name} leads back to itself")
        fields |= {key: value for key, value in _merged(other, (*above, path.resolve())).items() if key != "task_list"}
    return fields | {str(name): value for name, value in own.items()}


def _given(config: Mapping[str, Any], name: str, path: Path) -> Any:
    value = config.get(name)
    if value is None:
        raise DataError(f"{path}: the field {name} is missing; a multiple_choice task needs it")
    return value


def _which(config: Mapping[str, Any], splits: Mapping[str, Any], path: Path) -> tuple[str, str]:
    """The names of the split that is scored and of the split that demonstrations come from."""
    named = {name: config.get(name) for name in SPLITS}
    named["fewshot_split"] = (config.get("fewshot_config") or {}).get("split") or named["fewshot_split"]
    for name, split in named.items():
        if split is not None and split not in splits:
            raise DataError(f"{path}: {name} is {split!r}, which the data lack; found {', '.join(splits)}")
    asked = named["test_split"] or named["validation_split"]
    if asked is None:
        raise DataError(f"{path}: names neither test_split nor validation_split; one of them is scored")
    shown = named["fewshot_split"] or named["training_split"] or named["validation_split"] or asked
    for split in (asked, shown):
        if not splits[split]:
            raise DataError(f"{path}: the split {split!r} is empty")
    return str(asked), str(shown)


def _template(config: Mapping[str, Any], docs: Docs, path: Path) -> Template:
    text = {name: config[name] for name in TEXTS if config.get(name) is not None}
    description = text.get("description", "")
    try:
        free = meta.find_undeclared_variables(Environment().parse(description))
    except TemplateSyntaxError:
        free = set()
    if free or description in docs.columns:
        used = ", ".join(sorted(free)) or description
        raise DataError(f"{path}: description depends on the row ({used}); what works is the same text for all rows")
    template = Template(input=docs.layout, description=render(description, {}) if description else "")
    template = replace(template, delimiter=text.get("target_delimiter", template.delimiter))
    return replace(template, separator=text.get("fewshot_delimiter", template.separator))


def _examples(docs: Docs, rows: list[dict[str, Any]], split: str, constant: bool, notes: list[str]) -> list[Example]:
    examples = []
    unlabelled = repeated = 0
    for number, row in enumerate(rows):
        where = f"{split}, row {number + 1}"
        question(docs, row, where)
        all_choices = choices(docs, row, where)
        label = answer(docs, row, all_choices, where)
        distinct = tuple(dict.fromkeys(all_choices))
        repeated += len(distinct) < len(all_choices)
        unlabelled += label is None
        examples.append(
            Example(id=f"{split}:{number}", fields=docs.fields(row), label=label, choices=() if constant else distinct)
        )
    if unlabelled:
        notes.append(f"{split}: {unlabelled} rows have no right answer (-1) and are not scored")
    if repeated:
        notes.append(f"{split}: {repeated} rows offer the same choice twice; it counts once")
    return examples
