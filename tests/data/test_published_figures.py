"""Published figures stand beside exactly the rows they belong to; the tables are written out again, with their means."""

from itertools import product

import pytest

from kshot.data import published_figures
from kshot.data.published_figures import DAI_2023_FIGURES, DEUTCH_2024_FIGURES, TASKS, beside

AGAIN = "1.3B, Deutch 2024"
# measure, words beside the rate, model: six figures in the order of TASKS, "-" where there is none, and their published mean
PAPER = """
accuracy | zero-shot | 1.3B | .705 .393 .659 .726 .463 .375
accuracy | zero-shot | 2.7B | .714 .359 .609 .752 .398 .429
accuracy | fine-tuned | 1.3B | .739 .395 .730 .778 .653 .554
accuracy | fine-tuned | 2.7B | .769 .391 .800 .861 .657 .571
accuracy | in-context | 1.3B | .927 .450 .890 .900 .792 .571
accuracy | in-context | 2.7B | .950 .465 .913 .903 .803 .554
rec2ftp | | 1.3B | .9184 .6667 .9708 .8717 .8308 .8750 mean .8556
rec2ftp | | 2.7B | .9683 .7160 .9583 .8763 .8444 1.0000 mean .8939
sim_aou | appended label, normalised | 1.3B | .110 .080 .222 .191 .281 .234 mean .186
sim_aou | appended label, normalised | 2.7B | .195 .323 .157 .212 .333 .130 mean .225
sim_aou | appended label, normalised | 1.3B, Deutch 2024 | .11 .09 .22 .18 .31 .21 mean .187
sim_aou | appended label, raw | 1.3B, Deutch 2024 | .05 .04 .17 .06 .18 .11 mean .102
sim_am | appended label, before fine-tuning | 1.3B | .555 .391 .398 .378 .152 .152 mean .338
sim_am | appended label, before fine-tuning | 2.7B | .687 .380 .314 .346 .172 .228 mean .355
sim_am | appended label, after fine-tuning | 1.3B | .585 .404 .498 .490 .496 .177 mean .442
sim_am | appended label, after fine-tuning | 2.7B | .687 .492 .347 .374 .485 .217 mean .434
sim_am | appended label, after fine-tuning | 1.3B, Deutch 2024 | .59 .40 .49 .45 .48 .20 mean .435
sim_am_delta | appended label | 1.3B, Deutch 2024 | .15 .31 .14 .25 .50 .25 mean .267
kendall | appended label, softmax in float32 as published | 1.3B | .192 .151 .173 .181 .190 .274 mean .193
kendall | appended label, softmax in float32 as published | 2.7B | .213 .177 .264 .203 .201 .225 mean .214
learning_rate | | 1.3B | .0005 .00016 .003 .003 .2 .08
learning_rate | | 2.7B | .007 .04 .001 .002 .2 .01
"""
CONTROLS = """
sim_aou | layer-causal, appended label, normalised | 1.3B, Deutch 2024 | .22 .11 .33 .35 .33 .34 mean .279
sim_aou | layer-causal, appended label, raw | 1.3B, Deutch 2024 | .13 .11 .21 .18 .13 .24 mean .167
sim_am | layer-causal, appended label, after fine-tuning | 1.3B, Deutch 2024 | .58 .39 .30 .27 .12 .04 mean .283
sim_am_delta | layer-causal, appended label | 1.3B, Deutch 2024 | .30 .33 .26 .32 .43 .38 mean .336
sim_aou | trained embeddings, appended label, raw | 1.3B, Deutch 2024 | .11 .06 .24 .20 - .01
sim_aou | untrained, appended label, raw | 1.3B, Deutch 2024 | .09 .07 .18 .06 - .04
sim_am_delta | trained embeddings, appended label | 1.3B, Deutch 2024 | .09 .03 .18 .16 - .05
sim_am_delta | untrained, appended label | 1.3B, Deutch 2024 | .11 .05 .16 .17 - .26
"""
# Every way in which something is measured, as the parts of a study name them.
RUNS = ("zero-shot", "fine-tuned", "in-context")
NULLS = ("null: lengths kept", "null: lengths and part along zero-shot kept", "null: uniform noise as published")
FORMS = {
    "sim_aou": [f"{form}, {null}" for form in ("normalised", "raw") for null in NULLS],
    "sim_am": ["after fine-tuning", "before fine-tuning", "after fine-tuning, null: tokens permuted"],
    "sim_am_delta": [""],
    "kendall": ["scores", "softmax in float32 as published"],
    "example_kendall": ["scores", "softmax in float32 as published"],
    "top_k_recall": ["100 tokens", "5 demonstrations"],
}
WHOM = ("", "untrained", "trained embeddings", "another task", "shuffled labels", "layer-causal")


def parsed(text: str) -> list[tuple[str, str, str, list[float | None], float | None]]:
    found = []
    for line in text.strip().splitlines():
        measure, words, model, figures = (part.strip() for part in line.split("|"))
        own, _, mean = figures.partition(" mean ")
        values = [None if one == "-" else float(one) for one in own.split()]
        assert len(values) == len(TASKS)
        found.append((measure, words, model, values, float(mean) if mean else None))
    return found


def expected() -> dict[tuple[str, str, str], dict[str, float]]:
    """(task, measure, variant without nulls) with the figures that stand beside it."""
    found: dict[tuple[str, str, str], dict[str, float]] = {}
    for table, rates in ((PAPER, ("published",)), (CONTROLS, ("published", "corrected"))):
        for (measure, words, model, values, _), rate in product(parsed(table), rates):
            named = "" if words in ("zero-shot", "in-context") else rate
            for task, value in zip(TASKS, values, strict=True):
                if value is not None:
                    variant = ", ".join(filter(None, (named, words)))
                    found.setdefault((task, measure, variant), {})[model] = value
    return found


def row(task: str, measure: str, *words: str, **more) -> dict:
    variant = ", ".join(word for word in words if word)
    return {
        "task": task,
        "measure": measure,
        "variant": variant,
        "layer": None,
        "published": None,
        "value": 0.4,
        **more,
    }


def every(task: str) -> list[dict]:
    rows = [row(task, "accuracy", "zero-shot"), row(task, "accuracy", "in-context"), row(task, "optimism")]
    for rate, whom in product(("published", "corrected"), WHOM):
        rows += [row(task, "accuracy", rate, whom, "fine-tuned"), row(task, "rec2ftp", rate, whom)]
        for position, measure in product(("last prompt token", "appended label"), FORMS):
            rows += [row(task, measure, rate, whom, position, form) for form in FORMS[measure]]
    return [*rows, row(task, "learning_rate", "published"), row(task, "learning_rate", "corrected")]


def without_null(variant: str) -> str:
    return ", ".join(word for word in variant.split(", ") if not word.startswith("null: "))


@pytest.mark.parametrize("task", TASKS)
def test_every_figure_stands_beside_the_rows_it_belongs_to_and_no_other(task: str) -> None:
    wanted = {key: own for key, own in expected().items() if key[0] == task}
    seen = set()
    for found in beside(every(task)):
        key = (task, found["measure"], without_null(found["variant"]))
        assert found["published"] == wanted.get(key), key
        seen |= {key} if found["published"] else set()
    assert seen == set(wanted)


@pytest.mark.parametrize(
    ("word", "taken_for"),
    [("last prompt token", "appended label"), ("corrected", "published"), ("raw", "normalised"), ("untrained", "")],
)
def test_a_figure_beside_another_variant_would_be_seen(
    word: str, taken_for: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = published_figures.said
    monkeypatch.setattr(
        published_figures, "said", lambda row: {taken_for if w == word else w for w in right(row)} - {""}
    )
    with pytest.raises(AssertionError):
        test_every_figure_stands_beside_the_rows_it_belongs_to_and_no_other("sst2")


def test_a_figure_of_the_task_beside_it_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published_figures, "TASKS", (*TASKS[1:], TASKS[0]))
    with pytest.raises(AssertionError):
        test_every_figure_stands_beside_the_rows_it_belongs_to_and_no_other("sst2")


def test_the_figures_have_the_means_that_were_published() -> None:
    for measure, words, model, values, mean in parsed(PAPER + CONTROLS.strip()):
        own = [value for value in values if value is not None]
        if mean is not None:
            assert sum(own) / 6 == pytest.approx(mean, abs=0.006 if model == AGAIN else 0.001), (measure, words, model)


def test_nothing_stands_beside_a_layer_or_another_task() -> None:
    rows = [row("sst2", "rec2ftp", "published", layer=3), row("films", "rec2ftp", "published"), row("cb", "recency")]
    assert beside(rows) == rows
    assert beside([]) == []


def test_words_in_another_order_and_words_that_go_without_saying_change_nothing() -> None:
    one = row(
        "mr",
        "sim_aou",
        "own",
        "raw",
        "trained",
        "null: lengths kept",
        "appended label",
        "gradient descent",
        "published",
    )
    assert beside([one])[0]["published"] == {AGAIN: 0.17}
    assert beside([{**one, "variant": one["variant"] + ", of one head"}])[0]["published"] is None


def test_fewer_demonstrations_are_told_of_layer_causal_descent_alone() -> None:
    few = [
        row("cb", "sim_aou", *own, "corrected", "8 demonstrations", "raw", "appended label")
        for own in (["layer-causal"], [])
    ]
    assert [found["published"] for found in beside(few)] == [{AGAIN: 0.24}, None]
    assert (
        beside([row("cb", "sim_aou", "published", "8 demonstrations", "raw", "appended label")])[0]["published"] is None
    )


def test_rows_are_copied_and_nothing_else_of_them_changes() -> None:
    one = row("cb", "rec2ftp", "published")
    (found,) = beside([one])
    assert one["published"] is None
    assert found == {**one, "published": {"1.3B": 0.875, "2.7B": 1.0}}
    kept = row("films", "rec2ftp", "published", published={"ours": 1.0})
    assert beside([kept]) == [kept]


def test_every_line_has_a_source_and_a_figure_for_every_task() -> None:
    for line in (*DAI_2023_FIGURES, *DEUTCH_2024_FIGURES):
        assert len(line.figures) == len(TASKS)
        assert line.source.startswith(("Dai et al. 2023, Table", "Deutch et al. 2024, Table"))
        assert line.of("films") is None
