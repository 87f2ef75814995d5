"""What ``kshot run``, ``kshot explain`` and ``kshot hypotheses`` do, from Python, with models and tasks that may be in memory already."""

from collections.abc import Mapping, Sequence
from typing import Any

from kshot.data import load_task
from kshot.data.task import Task
from kshot.errors import KshotError
from kshot.model.lm import LM
from kshot.show.result import Explanation, Result
from kshot.study.explain_settings import make_explain_settings
from kshot.study.explaining import explain as find_out
from kshot.study.hypotheses_settings import make_hypotheses_settings
from kshot.study.hypothesizing import hypotheses as tell_apart
from kshot.study.place import OnProgress
from kshot.study.run import run
from kshot.study.settings import Settings, make_settings

_DEFAULTS = Settings()


def compare(
    tasks: str | Task | Sequence[str | Task] = _DEFAULTS.tasks,
    model: str | LM = _DEFAULTS.model,
    *,
    methods: str | Sequence[str] = _DEFAULTS.methods,
    shots: int | Sequence[int] = _DEFAULTS.num_fewshot,
    seeds: int | Sequence[int] = _DEFAULTS.seed,
    on_progress: OnProgress | None = None,
    **more: Any,
) -> Result:
    """Ways of teaching a model a task, compared on the same queries.

    ``tasks`` and ``model`` are names (as on the command line) or the things themselves; ``more`` are further settings
    by name: ``limit``, ``orders``, ``pick``, ``output_path``, ... (kshot.study.settings.Settings). Without an
    ``output_path`` nothing is written. Raises KshotError in one line where the question cannot be answered.
    """
    names, given = _tasks(tasks, more)
    settings = make_settings(
        tasks=names,
        model=model.name if isinstance(model, LM) else model,
        methods=methods,
        num_fewshot=shots,
        seed=seeds,
        **more,
    )
    done = run(settings, model=model if isinstance(model, LM) else None, tasks=given, on_progress=on_progress)
    return Result(results=done.results, directory=done.directory, samples=done.samples)


def explain(
    tasks: str | Task | Sequence[str | Task],
    model: str | LM = _DEFAULTS.model,
    *,
    shots: int | None = None,
    seeds: int | Sequence[int] = 0,
    on_progress: OnProgress | None = None,
    **more: Any,
) -> Explanation:
    """What demonstrations do to a model on these tasks: is it gradient descent, and what did each of them do?

    ``more`` are further settings by name: ``size``, ``limit``, ``learning_rate``, ``output_path``, ...
    (kshot.study.explain_settings.ExplainSettings). Without an ``output_path`` nothing is written. Raises KshotError in
    one line where the question cannot be answered.
    """
    names, given = _tasks(tasks, more)
    settings = make_explain_settings(
        tasks=names, model=model.name if isinstance(model, LM) else model, num_fewshot=shots, seed=seeds, **more
    )
    done = find_out(settings, model=model if isinstance(model, LM) else None, tasks=given, on_progress=on_progress)
    return Explanation(results=done.results, directory=done.directory)


def hypotheses(
    tasks: str | Task | Sequence[str | Task],
    model: str | LM = _DEFAULTS.model,
    *,
    shots: int | None = None,
    seeds: int | Sequence[int] = (),
    on_progress: OnProgress | None = None,
    **more: Any,
) -> Explanation:
    """Which account of in-context learning fits a model on these tasks: task selection, meta-learning or composition?

    ``more`` are further settings by name: ``size``, ``limit``, ``parts``, ``output_path``, ...
    (kshot.study.hypotheses_settings.HypothesesSettings). Without an ``output_path`` nothing is written. Raises KshotError
    in one line where the question cannot be answered.
    """
    names, given = _tasks(tasks, more)
    settings = make_hypotheses_settings(
        tasks=names, model=model.name if isinstance(model, LM) else model, num_fewshot=shots, seed=seeds, **more
    )
    done = tell_apart(settings, model=model if isinstance(model, LM) else None, tasks=given, on_progress=on_progress)
    return Explanation(results=done.results, directory=done.directory)


def _tasks(tasks: str | Task | Sequence[str | Task], more: Mapping[str, Any]) -> tuple[tuple[str, ...], list[Task]]:
    """The names of the tasks, and where any is given as itself all of them, loaded."""
    asked = [tasks] if isinstance(tasks, str | Task) else list(tasks)
    given: list[Task] = []
    if any(isinstance(task, Task) for task in asked):
        if named := [name for name in ("template", "test_file") if more.get(name)]:
            raise KshotError(f"{named[0]} goes with tasks by name; give it to load_task, which makes the Task")
        given = [task if isinstance(task, Task) else load_task(task) for task in asked]
    return tuple(task.name if isinstance(task, Task) else task for task in asked), given
