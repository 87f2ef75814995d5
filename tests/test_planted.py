"""Faults planted on purpose: for each, a check of the suite that passes without it must fail with it.

The checks are those of the other test files wherever they can be called alone. Engine faults are planted behind a model
that is loaded already: at load it would notice them itself and read one sequence at a time (tests/model/test_exact.py).
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import zoo

from kshot.adapt import checkpoint, course, initial, learn, train, tuning
from kshot.data import load_task
from kshot.data.template import Template
from kshot.measure import MEASURES, calibrate, metrics
from kshot.measure.calibrate import SCORES
from kshot.measure.soft_prompt import Neighbour
from kshot.model import attention, delta, lm, merge, surgery, tiny, tree
from kshot.model.lm import LM
from kshot.model.said import Part, Scores
from kshot.show import report
from kshot.study import run as study_run

TESTS = Path(__file__).parent
Plant = Callable[[pytest.MonkeyPatch], None]


def suite(file: str) -> Any:
    """A test file as a module, by its path in the folder of the tests; its neighbours are found too."""
    path = TESTS / file
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    return import_module(path.stem)


@contextmanager
def planted(plant: Plant) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        plant(patch)
        yield


def caught(check: Callable[[], object], plant: Plant) -> None:
    """The check passes as things are, and fails with the fault."""
    check()
    with planted(plant), pytest.raises(AssertionError):
        check()


def like(module: ModuleType, **changed: Any) -> ModuleType:
    """A module with some of its names changed, for one importer alone."""
    copy = ModuleType(module.__name__)
    copy.__dict__.update(module.__dict__ | changed)
    return copy


def test_a_fault_that_nothing_notices_is_itself_noticed() -> None:
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        caught(lambda: None, lambda patch: None)


# The engine: every answer as the plain forward of each whole sequence gives it.


def _judged(model: LM, prefixed: bool = False) -> Callable[[], None]:
    """The comparison of tests/model/test_exact.py, for a model that is loaded already."""
    sequences = zoo.forest(np.random.default_rng(0), 37, 4)
    with torch.no_grad(), zoo.Pure64():
        expected = zoo.judge(model.model, sequences).numpy()
        # Right for 12 tokens, then something that no sequence goes on with.
        prefix = model.prefill((*sequences[0].tokens[:12], *([4] * 15))) if prefixed else lm.EMPTY

    def check() -> None:
        with zoo.Pure64():
            assert np.abs(model.score(sequences, prefix).sums() - expected).max() < 1e-9

    return check


def _uncut_prefix(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(lm, "_common", lambda prefix, sequences: prefix.cut(min(s.start - 1 for s in sequences)))


def _wrong_sign(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(merge, "torch", like(torch, sigmoid=lambda x: torch.sigmoid(-x)))


def _window_on_packed_places(patch: pytest.MonkeyPatch) -> None:
    in_force = attention.in_force
    patch.setattr(lm, "in_force", lambda current: in_force(replace(current, depth=np.arange(len(current.depth)))))


def _branches_see_each_other(patch: pytest.MonkeyPatch) -> None:
    own_part = merge.own_part
    patch.setattr(attention, "own_part", lambda depth, end, dtype: own_part(depth, np.full_like(end, len(end)), dtype))


def _positions_without_the_prefix(patch: pytest.MonkeyPatch) -> None:
    forward = LM.forward

    def shifted(self: LM, tokens: Any, current: Any, rows: Any) -> Any:
        if current is not None and current.before[0].prefix.length:
            current = replace(current, depth=current.depth - 1)
        return forward(self, tokens, current, rows)

    patch.setattr(LM, "forward", shifted)


@pytest.mark.parametrize(
    ("model", "prefixed", "plant"),
    [
        ("llama", True, _uncut_prefix),
        ("llama", False, _wrong_sign),
        ("mistral", False, _window_on_packed_places),
        ("llama", False, _branches_see_each_other),
        ("llama", False, _positions_without_the_prefix),
    ],
)
def test_faults_of_the_engine(model: str, prefixed: bool, plant: Plant) -> None:
    loaded = zoo.lm(model)
    assert loaded.route.kind == "tree"
    caught(_judged(loaded, prefixed), plant)


def test_a_pack_that_forgets_where_scoring_starts() -> None:
    def one_early(patch: pytest.MonkeyPatch) -> None:
        pack = tree._pack
        patch.setattr(tree, "_pack", lambda *given: replace(found := pack(*given), row_of=np.roll(found.row_of, 1)))

    caught(_judged(zoo.lm("llama")), one_early)


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

    caught(check, lambda patch: patch.setattr("kshot.data.pick._same", lambda example, query: False))


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


# The order of ids is not that of frequency.


def test_a_vocabulary_that_is_taken_by_its_ids(tiny_lm: LM, monkeypatch: pytest.MonkeyPatch) -> None:
    check = suite("adapt/test_initial.py").test_vocabulary_rows_are_of_the_commonest_tokens_none_twice
    counts = initial.counts
    by_id = lambda *given: dict(sorted(counts(*given).items()))  # noqa: E731
    caught(lambda: check(tiny_lm, monkeypatch), lambda patch: patch.setattr(initial, "counts", by_id))


# Training: gradients against those of one row after another.


def _positions_from_nought(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(attention.Pass, "positions", property(lambda self: self.depth))


def _no_gradient_of_values(patch: pytest.MonkeyPatch) -> None:
    again = train._again

    def cut(*given: Any) -> Any:
        prefix, delta = again(*given)
        return replace(prefix, values=tuple(value.detach() for value in prefix.values)), delta

    patch.setattr(train, "_again", cut)


def _scale_forgotten(patch: pytest.MonkeyPatch) -> None:
    added = delta._added
    patch.setattr(delta, "_added", lambda one: added(replace(one, scale=1.0)))


def _divergence_once_a_row(patch: pytest.MonkeyPatch) -> None:
    def once(frozen: torch.Tensor, now: Part) -> torch.Tensor:
        return (frozen.exp() * (frozen - now.logits.log_softmax(-1))).sum()

    patch.setattr(train, "_divergence", once)


@pytest.mark.parametrize(
    ("check", "given", "plant"),
    [
        ("test_soft_prompt", (20,), _positions_from_nought),
        ("test_free_prefix", ("llama", 20), _no_gradient_of_values),
        ("test_low_rank", (("all-linear",),), _scale_forgotten),
        ("test_divergence_from_the_frozen_model", (4096,), _divergence_once_a_row),
    ],
)
def test_faults_of_gradients(check: str, given: tuple[Any, ...], plant: Plant) -> None:
    tests = suite("adapt/test_train.py")
    first = () if check == "test_free_prefix" else (zoo.lm("llama"),)
    caught(lambda: getattr(tests, check)(*first, *given), plant)


def test_fine_tuning_that_writes_to_the_model() -> None:
    tests, own = suite("adapt/test_tuning.py"), tiny.tiny_lm()

    def plant(patch: pytest.MonkeyPatch) -> None:
        learn = tuning.learn

        def writing(*given: Any, **more: Any) -> Any:
            found = learn(*given, **more)
            for name, value in found.placed.delta.dense.items():
                own.model.get_parameter(name).data.copy_(value)
            return found

        patch.setattr(tuning, "learn", writing)

    method = next(m for m in tests.METHODS if isinstance(m, tuning.FineTune))
    caught(lambda: tests.test_the_model_is_not_touched_and_fits_are_the_same_to_the_bit(method, own), plant)


def test_a_choice_made_on_the_test_examples(tiny_lm: LM) -> None:
    check = suite("adapt/test_course.py").test_nothing_but_its_own_examples_is_looked_at

    def plant(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(learn, "held_out", lambda task, examples, *_: (examples, task.test, "on the test examples"))

    caught(lambda: check(tiny_lm), plant)


def test_a_fit_that_goes_on_without_its_moments(tmp_path: Path) -> None:
    check, found = (
        suite("adapt/test_checkpoint.py").test_a_stopped_fit_goes_on_to_the_same_bits,
        checkpoint.Keeper.found,
    )

    def plant(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(checkpoint.Keeper, "found", lambda self: replace(found(self), moments={}))

    caught(lambda: check(tmp_path, "adamw", "constant"), plant)


def test_a_prefix_that_its_neighbours_see(monkeypatch: pytest.MonkeyPatch) -> None:
    check, far = suite("model/test_together.py").test_as_one_at_a_time, attention.Pass.far

    def plant(patch: pytest.MonkeyPatch) -> None:
        def wide(self: Any, layer: int) -> Any:
            return tuple(replace(one, begin=0, stop=len(self.depth)) for one in far(self, layer))

        patch.setattr(attention.Pass, "far", wide)

    caught(lambda: check("llama", 4096, 4096, True, monkeypatch), plant)


def test_a_prefix_of_demonstrations_behind_which_the_text_begins_again(tmp_path: Path) -> None:
    tests = suite("adapt/test_tuning.py")
    folders = iter(tmp_path / str(i) for i in range(9))

    def plant(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(course.Start, "reader", lambda self, lm: lm)

    def check() -> None:
        method = tuning.PrefixTuning(shots=3, course=tests.STILL)
        tests.test_step_0_from_demonstrations_is_in_context_learning(method, True, next(folders))

    caught(check, plant)


# Measures and rules of scoring: one fault for each.


def _ties_counted(right_a: Any, right_b: Any) -> Any:
    """Half of the queries on which the two agree, given to each."""
    only_a, only_b = int(np.sum(right_a & ~right_b)), int(np.sum(right_b & ~right_a))
    half = (len(right_a) - only_a - only_b) // 2
    split = np.arange(len(right_a)) < only_a + half
    return MEASURES["mcnemar"](split, np.arange(len(right_a)) >= len(right_a) - only_b - half)


def _by_inner_product(model: LM, rows: torch.Tensor, count: int = 5) -> Any:
    """Neighbours of which the longest come first."""
    best = (rows @ model.embedded(range(258)).T).topk(count)
    pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return [[Neighbour(t, "", c, False) for t, c in zip(*own, strict=True)] for own in pairs]


MEASURE_FAULTS: dict[str, tuple[str, str, Callable[[Any], Callable[..., Any]]]] = {
    # measure: (test file, its check, the measure made wrong)
    "accuracy": ("metrics", "test_accuracy_by_hand", lambda f: lambda s, g: f(s, np.maximum(g, 0))),
    "bootstrap_mean": (
        "intervals",
        "test_bootstrap_is_near_the_normal_interval_of_many_values",
        lambda f: lambda v, **more: f(v[: len(v) // 4], **more),
    ),
    "calibration_curve": (
        "metrics",
        "test_bins_are_closed_above",
        lambda f: lambda s, g, bins=15: f(s, g, bins + 1),
    ),
    "cluster_share": (
        "soft_prompt",
        "test_cluster_share_by_hand",
        lambda f: lambda near, *n: f([row[:2] for row in near], *n),
    ),
    "confusion": (
        "metrics",
        "test_confusion_has_gold_in_rows",
        lambda f: lambda *a: (found := f(*a)) | {"counts": np.transpose(found["counts"]).tolist()},
    ),
    "domain_share": (
        "soft_prompt",
        "test_domain_share_by_hand",
        lambda f: lambda near, *more: f([row[:1] for row in near], *more),
    ),
    "ece": (
        "metrics",
        "test_ece_by_hand",
        lambda f: (
            lambda s, g: (
                abs(sum(r["n"] * (r["accuracy"] - r["confidence"]) for r in metrics.calibration_curve(s, g))) / len(g)
            )
        ),
    ),
    "label_share": ("soft_prompt", "test_label_share_by_hand", lambda f: MEASURES["domain_share"]),
    "log_loss": ("metrics", "test_log_loss_by_hand_in_nats", lambda f: lambda s, g: f(s, g) / np.log(2)),
    "macro_f1": ("metrics", "test_macro_f1_by_hand", lambda f: lambda s, g, labels=None: metrics.accuracy(s, g)),
    "mcnemar": ("intervals", "test_mcnemar_by_hand", lambda f: _ties_counted),
    "nearest_tokens": (
        "soft_prompt",
        "test_neighbours_are_those_of_a_search_in_float64",
        lambda f: _by_inner_product,
    ),
    "prompt_perplexity": (
        "soft_prompt",
        "test_perplexity_token_by_token",
        # A token that was never scored counts in the mean.
        lambda f: lambda *a: (found := f(*a)) and found | {"value": found["value"] ** (found["n"] / (found["n"] + 1))},
    ),
    "repeated_share": (
        "soft_prompt",
        "test_repeated_share_by_hand",
        lambda f: lambda near, *n: f([row[::-1] for row in near], *n),
    ),
    "tied": (
        "metrics",
        "test_a_tie_goes_to_the_first_candidate_and_is_counted",
        lambda f: lambda s, g: f(s + 1e-9 * np.arange(s.shape[1]), g),
    ),
    "wilson": ("intervals", "test_wilson_by_hand", lambda f: lambda k, n, *c: f(k, n + 1, *c)),
}


@pytest.mark.parametrize("name", MEASURES)
def test_faults_of_measures(name: str) -> None:
    assert name in MEASURE_FAULTS, f"{name} has no planted fault: add one, with the check that catches it"
    file, check, wrong = MEASURE_FAULTS[name]
    tests = suite(f"measure/test_{file}.py")
    caught(getattr(tests, check), lambda patch: patch.setattr(tests, name, wrong(MEASURES[name])))


def _other_prior(patch: pytest.MonkeyPatch) -> None:
    mean = calibrate._mean_probability
    patch.setattr(calibrate, "_mean_probability", lambda rows: -mean(rows))


def _rule(name: str, wrong: Callable[[Any], Any]) -> Plant:
    return lambda patch: patch.setitem(SCORES, name, wrong)


SCORE_FAULTS: dict[str, tuple[str, Plant]] = {
    "batch_calibration": ("test_batch_calibration_by_hand", _other_prior),
    "character_length_normalized": (
        "test_lengths_by_hand",
        _rule("character_length_normalized", lambda p: p.logprobs / p.tokens),
    ),
    "contextual_calibration": ("test_contextual_calibration_by_hand", _other_prior),
    "domain_context_calibration": (
        "test_each_calibration_reads_its_own_rows",
        _rule("domain_context_calibration", calibrate.contextual_calibration),
    ),
    "sum": ("test_lengths_by_hand", _rule("sum", calibrate.token_length_normalized)),
    "token_length_normalized": (
        "test_lengths_by_hand",
        _rule("token_length_normalized", lambda p: p.logprobs / (p.tokens + 1)),
    ),
    "unconditional_likelihood_normalized": (
        "test_lengths_by_hand",
        _rule("unconditional_likelihood_normalized", lambda p: p.logprobs + p.unconditional),
    ),
}


@pytest.mark.parametrize("name", SCORES)
def test_faults_of_rules_of_scoring(name: str) -> None:
    assert name in SCORE_FAULTS, f"{name} has no planted fault: add one, with the check that catches it"
    check, plant = SCORE_FAULTS[name]
    caught(getattr(suite("measure/test_calibrate.py"), check), plant)


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


def _demonstrations_that_see_the_one_before(patch: pytest.MonkeyPatch) -> None:
    read = surgery.read_apart
    patch.setattr(suite("model/test_surgery.py"), "read_apart", lambda lm, tokens, owner: read(lm, tokens, owner // 2))


def _turned_the_wrong_way(patch: pytest.MonkeyPatch) -> None:
    turned = surgery.turned
    patch.setattr(surgery, "turned", lambda lm, keys, by: turned(lm, keys, -by))


def _moved_without_turning(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(surgery, "turned", lambda lm, keys, by: keys)


@pytest.mark.parametrize(
    ("check", "given", "plant"),
    [
        (
            "test_a_query_behind_demonstrations_read_apart_is_that_of_a_mask_of_blocks",
            ("llama",),
            _demonstrations_that_see_the_one_before,
        ),
        ("test_demonstrations_apart_and_moved_are_those_read_there", ("llama", (2, 0, 1)), _turned_the_wrong_way),
        ("test_moved_demonstrations_keep_what_they_read", ("qwen3",), _moved_without_turning),
    ],
)
def test_faults_of_surgery(check: str, given: tuple[Any, ...], plant: Plant) -> None:
    caught(lambda: getattr(suite("model/test_surgery.py"), check)(*given), plant)


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

    caught(lambda: check("note"), lambda patch: patch.setattr(report, "templates", unescaped))
