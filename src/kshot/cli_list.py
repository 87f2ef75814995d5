"""``kshot list``: what there is, by name."""

from collections.abc import Callable, Sequence
from typing import Annotated, Any

from cyclopts import Parameter

from kshot.errors import KshotError, UnknownName


def list_names(
    kind: Annotated[
        str,
        Parameter(
            help="One of tasks, methods, models, measures, parts, experiments, transforms, texts.", show_default=False
        ),
    ] = "",
    /,
) -> None:
    """What there is: tasks, methods, models, measures, parts of an explanation, experiments, transforms, or texts."""
    if not kind:
        raise KshotError(f"list needs a kind of name: one of {', '.join(KINDS)}")
    if kind not in KINDS:
        raise UnknownName("kind of name", kind, KINDS)
    rows = KINDS[kind]()
    width = max(len(name) for name in rows)
    for name, about in rows.items():
        print(f"{name:<{width}}  {about}")


def describe_experiments(names: Sequence[str]) -> None:
    """Experiments of ``kshot synth`` by name: their parts and claims; of no names, a line for each. Raises UnknownName."""
    if not names:
        list_names("experiments")
        return
    from kshot.show.experiments import described
    from kshot.study.synth.catalogue import EXPERIMENTS

    for name in names:
        if name not in EXPERIMENTS:
            raise UnknownName("experiment", name, EXPERIMENTS)
    print("\n".join(described(name, EXPERIMENTS[name]) for name in names), end="")


# Each table stands beside the code it names, which is slow to import: a list waits for its own only.
def _tasks() -> dict[str, str]:
    from kshot.data import TASKS

    return {
        name: f"{entry.about} ({entry.kind}{', fetched once' if entry.needs_network else ''})"
        for name, entry in TASKS.items()
    }


def _methods() -> dict[str, str]:
    from kshot.adapt import METHODS

    return {name: _first_line(method) for name, method in METHODS.items()}


def _models() -> dict[str, str]:
    from kshot.model.sources import MODELS

    return {name: f"{model.caption}; {model.about}" for name, model in MODELS.items()}


def _measures() -> dict[str, str]:
    from kshot.measure import MEASURES, OF_DEMONSTRATIONS, OF_PREDICTORS
    from kshot.measure.calibrate import SCORES
    from kshot.measure.ensemble import ENSEMBLES

    rules = {name: f"scoring rule: {_first_line(rule)}" for name, rule in SCORES.items()}
    ensembles = {name: f"rule of an ensemble: {_first_line(rule)}" for name, rule in ENSEMBLES.items()}
    inner = {name: f"of demonstrations: {_first_line(measure)}" for name, measure in OF_DEMONSTRATIONS.items()}
    pairs = {name: f"of two predictors: {_first_line(measure)}" for name, measure in OF_PREDICTORS.items()}
    return {name: _first_line(measure) for name, measure in MEASURES.items()} | inner | pairs | rules | ensembles


def _first_line(thing: Any) -> str:
    return (thing.__doc__ or "").strip().splitlines()[0].replace("``", "")


def _parts() -> dict[str, str]:
    from kshot.study.catalogue.learning import SHOTS
    from kshot.study.explain import PARTS
    from kshot.study.hypotheses.battery import PARTS as BATTERY

    both = {"explain": PARTS, "hypotheses": BATTERY}
    # One question is asked at several sizes, by a part each.
    sized = {f"why-learning-{shots}": f" (here with {shots})" for shots in SHOTS}
    return {
        name: f"{word}: {part.name}{sized.get(name, '')}"
        for word, parts in both.items()
        for name, part in parts.items()
    }


def _experiments() -> dict[str, str]:
    from kshot.study.synth.catalogue import EXPERIMENTS

    return {name: f"{one.about} ({one.source})" for name, one in EXPERIMENTS.items()}


def _transforms() -> dict[str, str]:
    from kshot.transform import TRANSFORMS

    return {name: f"keeps {', '.join(sorted(one.keeps)) or 'nothing'}" for name, one in TRANSFORMS.items()}


def _texts() -> dict[str, str]:
    from kshot.study.pretrain.corpus import CORPORA

    return {name: about for name, (about, _) in CORPORA.items()}


KINDS: dict[str, Callable[[], dict[str, str]]] = {
    "tasks": _tasks,
    "methods": _methods,
    "models": _models,
    "measures": _measures,
    "parts": _parts,
    "experiments": _experiments,
    "transforms": _transforms,
    "texts": _texts,
}
