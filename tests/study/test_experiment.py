"""Which cells a run has, and what their identity depends on."""

from dataclasses import replace

import pytest
from small import films, words

from kshot.data.task import Task
from kshot.data.template import Template
from kshot.errors import DataError, KshotError, UnknownName
from kshot.model.heads import without_heads
from kshot.model.lm import LM
from kshot.study.cells import cells_of, members, recipe
from kshot.study.experiment import check_pool, experiment, queries
from kshot.study.settings import Settings, make_settings


def _keys(asked: Settings) -> list[tuple[str, int, int, int]]:
    cells, _ = cells_of(asked, [films()])
    return [(cell.method, cell.shots, cell.seed, cell.order) for cell in cells]


def test_zero_shot_runs_once_and_orders_belong_to_the_first_seed() -> None:
    found = _keys(make_settings(num_fewshot=(0, 2, 4), seed=(5, 6), orders=3))
    assert found == [
        ("zero-shot", 0, 5, 0),
        # two demonstrations have two orders only
        ("in-context", 2, 5, 0),
        ("in-context", 2, 6, 0),
        ("in-context", 2, 5, 1),
        ("in-context", 4, 5, 0),
        ("in-context", 4, 6, 0),
        ("in-context", 4, 5, 1),
        ("in-context", 4, 5, 2),
    ]


@pytest.mark.parametrize("pick", ["bm25", "hidden", "first_n"])
def test_ways_of_picking_that_draw_nothing_run_with_one_seed(pick: str) -> None:
    asked = make_settings(num_fewshot=4, seed=(0, 1), orders=3, pick=pick, methods="in-context")
    cells, notes = cells_of(asked, [films()])
    assert {cell.seed for cell in cells} == {0}
    assert len(cells) == (3 if pick == "first_n" else 1)
    assert f"--pick {pick} draws nothing, so one seed stands for all" in notes


def test_what_does_not_apply_is_said() -> None:
    _, notes = cells_of(make_settings(methods="zero-shot", num_fewshot=4), [films()])
    assert notes == ("zero-shot: has no demonstrations, so --num-fewshot does not apply",)
    _, notes = cells_of(make_settings(methods="in-context", num_fewshot=(0, 4)), [films()])
    assert notes == ("0 shots: that is the method zero-shot, which --methods leaves out",)
    cells, notes = cells_of(make_settings(pick="fixed", ids=("films/1", "films/2")), [films()])
    assert {cell.shots for cell in cells} == {0, 2}
    assert "--pick fixed: 2 demonstrations are named, so --num-fewshot does not apply" in notes


def _two_layouts(task: Task | None = None) -> Task:
    return replace(task or films(), layouts=(Template(input="{{text}}!"),))


def test_an_ensemble_of_orders_is_a_cell_for_every_seed_and_rule() -> None:
    asked = make_settings(num_fewshot=(0, 3), seed=(5, 6), orders=4, ensemble="orders")
    cells, notes = cells_of(asked, [films()])
    combined = [cell for cell in cells if "ensemble" in cell.params]
    assert cells[-4:] == tuple(combined)
    assert [(cell.params["rule"], cell.seed, cell.order) for cell in combined] == [
        (rule, seed, 0) for rule in ("majority-vote", "mean-log-probability") for seed in (5, 6)
    ]
    assert not notes
    own = members(combined[1])
    assert [(m.seed, m.order, m.params) for m in own] == [(6, order, {"pick": "random"}) for order in range(4)]
    # the first seed's members are cells of the run
    assert set(map(repr, members(combined[0]))) < set(map(repr, cells))
    assert combined[0].title == "films: in-context@3, seed 5, ensemble of orders"
    (only,) = {cell.params["rule"] for cell in cells_of(asked, [words()])[0] if "rule" in cell.params}
    assert only == "majority-vote"


def test_several_layouts_run_each_and_may_be_combined() -> None:
    asked = make_settings(num_fewshot=(0, 2), seed=(5, 6), orders=2, ensemble="templates")
    cells, _ = cells_of(asked, [_two_layouts()])
    bare = [cell for cell in cells if cell.method == "zero-shot"]
    assert [cell.params.get("template") for cell in bare] == [1, 2, None, None]
    assert [recipe(m, _two_layouts()).template.input for m in members(bare[3])] == ["{{text}}\n:", "{{text}}!"]
    taught = [cell for cell in cells if cell.method == "in-context"]
    found = [(cell.params.get("template", 0), cell.seed, cell.order) for cell in taught]
    assert found[:6] == [(1, 5, 0), (1, 6, 0), (1, 5, 1), (2, 5, 0), (2, 6, 0), (2, 5, 1)]
    assert found[6:] == [(0, 5, 0), (0, 6, 0)] * 2
    both = make_settings(num_fewshot=2, seed=0, orders=2, ensemble="orders")
    orders = [cell for cell in cells_of(both, [_two_layouts()])[0] if "ensemble" in cell.params]
    assert [cell.params["template"] for cell in orders] == [1, 1, 2, 2]
    assert {m.params["template"] for m in members(orders[2])} == {2}


def test_an_ensemble_of_nothing_is_said() -> None:
    _, notes = cells_of(make_settings(ensemble="templates", num_fewshot=2), [films()])
    assert notes == ("--ensemble templates: films has one template, so nothing is combined; repeat --template",)
    _, notes = cells_of(make_settings(ensemble="orders", num_fewshot=1), [films()])
    assert notes == ("--ensemble orders: films has nothing in more than one order, so nothing is combined",)


def test_a_task_that_says_how_it_is_shown_is_shown_so_unless_the_run_says_otherwise() -> None:
    task = replace(films(), pick="first_n", num_fewshot=5)
    cells, notes = cells_of(Settings(), [task, words()])
    own = [cell for cell in cells if cell.task == "films" and cell.shots]
    assert {cell.shots for cell in own} == {4, 5, 16}
    assert {(cell.seed, cell.params["pick"]) for cell in own} == {(0, "first_n")}
    others = [cell for cell in cells if cell.task == "words" and cell.shots]
    assert {cell.shots for cell in others} == {4, 16}
    assert {cell.params["pick"] for cell in others} == {"random"}
    assert "films: its own pick first_n draws nothing, so one seed stands for all" in notes
    asked, _ = cells_of(make_settings(pick="balanced", num_fewshot=(0, 4)), [task])
    assert {(cell.shots, cell.params.get("pick")) for cell in asked} == {(0, None), (4, "balanced")}
    assert recipe(own[0], task).pick == "first_n"


def test_nothing_to_run_and_unknown_methods_are_refused() -> None:
    with pytest.raises(
        KshotError, match="nothing to run: in-context with 0 shots; give --num-fewshot a number above 0"
    ):
        cells_of(make_settings(methods="in-context", num_fewshot=0), [films()])
    with pytest.raises(UnknownName, match="unknown method 'in-contxt'; did you mean 'in-context'"):
        cells_of(make_settings(methods="in-contxt"), [films()])


def test_more_shots_than_the_pool_holds_are_refused() -> None:
    cells, _ = cells_of(make_settings(num_fewshot=13), [films()])
    with pytest.raises(DataError) as caught:
        check_pool(films(), cells)
    line = "task 'films': asked for 13 shots, and its training pool has 12 labelled examples; give --num-fewshot at most 12"
    assert str(caught.value) == line
    with pytest.raises(DataError, match="task 'films': its test split is empty"):
        check_pool(replace(films(), test=()), cells)


def test_a_recipe_has_the_options_of_its_cell() -> None:
    asked = make_settings(num_fewshot=4, scoring="channel", pick="balanced")
    cells, _ = cells_of(asked, [films()])
    bare, taught = recipe(cells[0], films()), recipe(cells[2], films())
    assert bare.channel
    assert taught.channel
    assert (taught.shots, taught.pick, taught.order) == (4, "balanced", cells[2].order)
    assert cells[0].params == {"scoring": "channel"}
    assert cells[2].params == {"pick": "balanced", "scoring": "channel"}


def test_every_cell_asks_the_same_queries_and_a_smaller_limit_takes_some_of_them() -> None:
    task = films(200)
    few, more = queries(task, 10), queries(task, 40)
    assert len(few) == 10
    assert {e.id for e in few} < {e.id for e in more} < {e.id for e in task.test}
    assert queries(task, "all") == queries(task, 100) == task.test
    assert few == queries(task, 10)


def test_identity_follows_the_numbers_and_nothing_else(tiny_lm: LM) -> None:
    def identity(lm: LM = tiny_lm, task: object = None, **options: object) -> str:
        asked = make_settings(**({"num_fewshot": 4, "limit": 5} | options))
        tasks = [task or films()]
        return experiment(asked, lm, tasks, cells_of(asked, tasks)[0]).identity  # type: ignore[arg-type]

    base = identity()
    assert identity(output_path="elsewhere", log_samples=False) == base
    assert identity(replace(tiny_lm, tokens_per_pack=64, name="other", caption="other")) == base
    task = films()
    others = (
        identity(limit=6),
        identity(seed=3),
        identity(num_fewshot=5),
        identity(orders=2),
        identity(pick="balanced"),
        identity(scoring="channel"),
        identity(overlength="skip"),
        identity(replace(tiny_lm, hash="another")),
        identity(without_heads(tiny_lm, [(0, 1)])),
        identity(without_heads(tiny_lm, [(0, 2)])),
        identity(task=replace(task, train=task.train[::-1])),
        identity(task=replace(task, template=Template(input="{{text}}!"))),
        identity(task=words()),
        identity(task=_two_layouts()),
        identity(ensemble="orders"),
    )
    assert len({base, *others}) == 1 + len(others)


def test_a_cell_keeps_its_id_beside_other_cells(tiny_lm: LM) -> None:
    few, more = make_settings(num_fewshot=2, limit=5), make_settings(num_fewshot=(2, 4), limit=5)
    tasks = [films(), words()]
    one = experiment(few, tiny_lm, tasks[:1], cells_of(few, tasks[:1])[0])
    two = experiment(more, tiny_lm, tasks, cells_of(more, tasks)[0])
    assert {cell.id for cell in one.cells} < {cell.id for cell in two.cells}
    assert len({cell.id for cell in two.cells}) == len(two.cells)
