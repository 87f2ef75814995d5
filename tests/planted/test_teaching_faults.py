"""Faults planted in prompts, in ways of teaching, in records and on the page."""

from collections.abc import Callable
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from planting import caught, suite

from kshot.data import load_task
from kshot.data.template import Template
from kshot.model import surgery, tiny
from kshot.model.lm import LM
from kshot.model.said import Scores
from kshot.show import report
from kshot.study import run as study_run

# Scoring: against the whole prompt as one text.


def test_labels_summed_without_their_first_token(tiny_lm: LM) -> None:
    check = suite("measure/test_scoring.py").test_direct_scores_are_those_of_the_whole_text

    def plant(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(Scores, "sums", lambda self: np.array([values[1:].sum() for values in self.logprobs]))

    caught(lambda: check(tiny_lm, 1), plant)


def test_a_separator_that_is_forgotten(tiny_lm: LM) -> None:
    check = suite("measure/test_scoring.py").test_direct_scores_are_those_of_the_whole_text

    def plant(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(Template, "preamble", lambda self, shown: self.description + self.separator.join(shown))

    caught(lambda: check(tiny_lm, 1), plant)


# Ways of teaching.


@pytest.mark.parametrize("how", ["bm25", "hidden"])
def test_a_pick_that_may_return_the_query(how: str, tiny_lm: LM, monkeypatch: pytest.MonkeyPatch) -> None:
    contract = suite("contracts/test_methods.py")
    method, task = contract.RECIPES[f"in-context-pick={how}"], contract.films()

    def check() -> None:
        contract.assert_no_query_is_in_its_own_prompt(method, tiny_lm, task, task.train, monkeypatch)

    turn = count()

    def plant(patch: pytest.MonkeyPatch) -> None:
        patch.setattr("kshot.data.pick._besides", lambda pool, query: list(pool))
        patch.setattr("kshot.model.demonstrations.input_key", lambda template, fields: f"{next(turn)}")

    caught(check, plant)


def test_a_draw_that_forgets_its_seed(tiny_lm: LM) -> None:
    contract = suite("contracts/test_methods.py")
    turns = iter(range(1000))

    def plant(patch: pytest.MonkeyPatch) -> None:
        patch.setattr("kshot.data.pick.stream", lambda *_: np.random.default_rng(next(turns)))

    def check() -> None:
        contract.test_one_seed_gives_one_result_to_the_bit(contract.RECIPES["in-context"], tiny_lm, contract.films)

    caught(check, plant)


def test_teaching_that_touches_a_weight() -> None:
    contract = suite("contracts/test_methods.py")
    # Of its own: the shared one must stay as it is.
    own = tiny.tiny_lm()
    fit = contract.ZeroShot.fit

    def plant(patch: pytest.MonkeyPatch) -> None:
        def touching(self: Any, model: LM, *rest: Any) -> Any:
            next(model.model.parameters()).data[0, 0] += 1e-3
            return fit(self, model, *rest)

        patch.setattr(contract.ZeroShot, "fit", touching)

    caught(lambda: contract.test_the_weights_are_what_they_were(contract.ZeroShot(), own, contract.films()), plant)


CLASSICAL_FAULTS: dict[str, tuple[str, str, tuple[Any, ...], str, Callable[[Any], Any]]] = {
    # method: (test file, its check, what the check is given, the name that is made wrong, how)
    "head": (
        "model/test_classifier.py",
        "test_hidden_states_are_those_of_each_whole_sequence",
        ("llama",),
        "kshot.model.hidden.paths",
        lambda f: lambda pack: [path[:-1] for path in f(pack)],
    ),
    "majority": (
        "adapt/test_classical.py",
        "test_majority_by_hand",
        (),
        "kshot.model.classifier.succession",
        lambda f: lambda counts: np.log(counts / counts.sum()),
    ),
    "nearest": (
        "adapt/test_classical.py",
        "test_nearest_by_words_and_by_hidden_states",
        (),
        "kshot.model.classifier.votes",
        lambda f: lambda similarities, *rest: f(-similarities, *rest),
    ),
    "tfidf": (
        "adapt/test_classical.py",
        "test_tfidf_is_that_of_scikit_learn",
        (),
        "kshot.adapt.classical.content",
        lambda f: lambda template, fields: template.render(fields),
    ),
}


@pytest.mark.parametrize("name", CLASSICAL_FAULTS)
def test_faults_of_classical_methods(name: str, tiny_lm: LM) -> None:
    file, check, given, at, wrong = CLASSICAL_FAULTS[name]
    module, _, attribute = at.rpartition(".")
    right = getattr(import_module(module), attribute)
    test = getattr(suite(file), check)
    caught(lambda: test(*(given or (tiny_lm,))), lambda patch: patch.setattr(at, wrong(right)))


# Tasks, records, the page.


@pytest.mark.parametrize("check", ["test_splits_do_not_meet", "test_ids_are_unique_over_all_splits"])
def test_a_task_whose_splits_meet(check: str) -> None:
    contract = suite("contracts/test_tasks.py")
    caught(
        lambda: getattr(contract, check)(load_task("colours")),
        # Test begins before train ends.
        lambda patch: patch.setattr(import_module("kshot.data.builtin.relation"), "VALIDATION", -0.2),
    )


def test_a_resume_that_runs_finished_cells_again(tiny_lm: LM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = suite("study/small.py")
    answered = study_run.answered
    asked: list[str] = []

    def counted(*given: Any) -> Any:
        asked.append(given[2].id)
        return answered(*given)

    monkeypatch.setattr(study_run, "answered", counted)
    folders = iter(range(100))

    def check() -> None:
        asked.clear()
        folder = tmp_path / str(next(folders))
        settings = study_run.Settings(
            tasks=("films",), num_fewshot=(0, 2), seed=(0, 1), orders=1, limit=2, output_path=str(folder)
        )
        for _ in range(2):
            study_run.run(settings, model=tiny_lm, tasks=(small.films(),))
        assert len(asked) == len(set(asked)) == 3

    def forgetful(patch: pytest.MonkeyPatch) -> None:
        measure = study_run._measure

        def again(*given: Any) -> None:
            given[5].lines.clear()
            measure(*given)

        patch.setattr(study_run, "_measure", again)

    caught(check, forgetful)


def test_labels_taken_from_the_wrong_text() -> None:
    tests = suite("study/test_catalogue.py")
    flat = tests.flat_lm()
    grafted = surgery.grafted
    caught(
        lambda: tests.test_with_one_layer_labels_act_where_they_stand_alone(flat),
        lambda patch: patch.setattr(tests.labels, "grafted", lambda own, donor, at: grafted(donor, own, at)),
    )


def test_a_page_without_escaping() -> None:
    check = suite("show/test_report.py").test_text_from_data_is_escaped_everywhere
    templates = report.templates

    def unescaped() -> Any:
        made = templates()
        made.autoescape = False
        return made

    caught(check, lambda patch: patch.setattr(report, "templates", unescaped))
