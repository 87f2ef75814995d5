"""The battery as a run: on record part by part, the same whether it was stopped or not, wrong input refused."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import letters
import numpy as np
import pytest
from small import calm, words

import kshot
from kshot import cli
from kshot.data.builtin.composed import chains
from kshot.data.task import Task
from kshot.errors import DataError, KshotError, MethodError, OutputError, UnknownName
from kshot.model import tiny
from kshot.model.lm import LM
from kshot.show.hypotheses import page, text
from kshot.study.figures import figure
from kshot.study.hypotheses import relations
from kshot.study.hypotheses.battery import PARTS, Battery
from kshot.study.hypotheses.scale import JUDGED, SCALES
from kshot.study.hypotheses_settings import BATTERY, make_hypotheses_settings
from kshot.study.hypothesizing import _of_few_seeds, hypotheses, of_test_set, scaled
from kshot.study.over_seeds import over_seeds
from kshot.study.place import Finished

OPTIONS: dict[str, Any] = {"num_fewshot": 4, "limit": 6, "seed": (0, 1), "dtype": "float32"}
SOME = ("right-share", "shots", "permuted-share")


@pytest.fixture(scope="module")
def worded() -> LM:
    """A random little Llama whose tokens are words."""
    return tiny.tiny_lm(tokenizer=letters.codec().tokenizer)


def asked(lm: LM, tasks: tuple[Task, ...] = (), **options: Any) -> Finished:
    given = make_hypotheses_settings(**{**OPTIONS, **options})
    return hypotheses(given, model=lm, tasks=tasks or (letters.films(80), replace(letters.films(60), name="others")))


@pytest.fixture(scope="module")
def whole(worded: LM) -> dict[str, Any]:
    """Every part of two tasks, with a few of the chains of relations."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(relations, "chains", lambda: chains()[::6])
        return asked(worded, parts=BATTERY).results["kshot"]


def test_every_part_answers(whole: dict[str, Any]) -> None:
    assert {cell["part"] for cell in whole["cells"]} == set(BATTERY) == set(PARTS)
    assert [cell["failed"] for cell in whole["cells"]] == [None] * len(whole["cells"])
    variants = {row["variant"] for row in whole["measures"] if row["seed"] is None}
    for said in ("original, redrawn", "prompt-altered, fixed, regression", "zero-shot, channel", "out-of-domain, direct",
                 "memory-random, 4 shots", "50% right, arbitrary words", "25% permuted"):  # fmt: skip
        assert said in variants


def test_every_row_is_whole(whole: dict[str, Any]) -> None:
    for row in whole["measures"]:
        assert {"task", "model", "seed", "measure", "variant", "value", "low", "high", "null", "n", "unit"} <= set(row)
        if (
            row["measure"] in ("accuracy", "macro_f1", "reliability", "p_value", "half_way")
            and row["value"] is not None
        ):
            assert 0 <= row["value"] <= 1
            assert row["low"] is None or -1e-9 <= row["low"] <= row["value"] + 1e-9
            assert row["high"] is None or row["value"] - 1e-9 <= row["high"] <= 1 + 1e-9
        assert row["value"] is not None or row["reason"]


def test_a_contrast_is_the_difference_of_its_rows(whole: dict[str, Any]) -> None:
    rows = {
        (row["task"], row["seed"], row["measure"], row["variant"]): row["value"]
        for row in whole["measures"]
        if row["seed"] == 1
    }
    found = rows["films", 1, "contrast", "prompt-altered is above a regression on its tokens, redrawn"]
    one = rows["films", 1, "macro_f1", "prompt-altered, redrawn"]
    other = rows["films", 1, "macro_f1", "prompt-altered, redrawn, regression"]
    assert found == pytest.approx(one - other)


def test_a_page_and_a_text_are_made_of_the_record_alone(whole: dict[str, Any]) -> None:
    again = json.loads(json.dumps(whole))
    html = page(again)
    assert html == page(whole)
    for said in ("H1, task selection", "H2, meta-learning", "H3, composition", "Task selection: the prompt",
                 "Functions learned of label words", "How sure demonstrations make", "order 4: negative: ",
                 "drawn anew for every query, less that with the same for all"):  # fmt: skip
        assert said in html
    assert html.count("<svg") >= 6
    told = text(again)
    assert told.startswith("films: task selection is ")
    assert max(map(len, told.splitlines())) <= 100


def test_what_could_not_be_asked_is_said_once_and_in_no_table(whole: dict[str, Any]) -> None:
    lacking = json.loads(json.dumps(whole))
    own = [row for row in lacking["measures"] if row["variant"].split(", ")[0] in ("memory-synonym", "memory-antonym")]
    for row in own:
        row |= {"value": None, "low": None, "high": None, "reason": "no such word"}
    # What was not asked has no difference between protocols, not even an undefined one.
    lacking["measures"] = [row for row in lacking["measures"] if row not in own or row["measure"] != "protocol"]
    assert "What could not be asked" not in page(whole)
    html = page(lacking)
    assert html.count("<li>memory-synonym, memory-antonym: no such word</li>") == 2  # once for each task
    assert "memory-synonym" not in html.replace("<li>memory-synonym, memory-antonym: no such word</li>", "")


def test_a_page_of_text_that_means_something_to_a_browser(whole: dict[str, Any]) -> None:
    bad = json.loads(json.dumps(whole).replace('"films"', '"<b>films</b>"'))
    assert "<b>films</b>" not in page(bad)


def test_stopped_in_a_part_it_goes_on_to_the_same(worded: LM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = asked(worded, parts=SOME).results["kshot"]
    out = str(tmp_path / "out")

    def stops(*given: Any) -> dict[str, Any]:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setitem(PARTS, "right-share", replace(PARTS["right-share"], answer=stops))
        with pytest.raises(KeyboardInterrupt):
            asked(worded, parts=SOME, output_path=out)
    assert len((tmp_path / "out" / "records.jsonl").read_text("utf-8").splitlines()) == 1
    rest = asked(worded, parts=SOME, output_path=out).results["kshot"]
    for key in ("measures", "verdicts", "pictures", "notes"):
        assert calm(rest[key]) == calm(expected[key]), key
    records = (tmp_path / "out" / "records.jsonl").read_bytes()
    asked(worded, parts=SOME, output_path=out)
    assert (tmp_path / "out" / "records.jsonl").read_bytes() == records
    with pytest.raises(OutputError, match="belongs to a different run"):
        asked(worded, parts=SOME, output_path=out, limit=5)


def test_a_part_that_cannot_be_had_is_a_note(worded: LM, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*given: Any) -> dict[str, Any]:
        raise MethodError("no such thing here")

    monkeypatch.setitem(PARTS, "shots", replace(PARTS["shots"], answer=fails))
    ours = asked(worded, parts=SOME).results["kshot"]
    assert "films, seed 0, shots: no such thing here" in ours["notes"]
    assert any(row["variant"] == "25% permuted" for row in ours["measures"])


def test_a_tokenizer_without_words_is_a_note_and_no_crash(tiny_lm: LM) -> None:
    ours = asked(tiny_lm, parts=("fast",), seed=(0,)).results["kshot"]
    assert any("single tokens of equal probability were asked for" in note for note in ours["notes"])


def test_a_prompt_beyond_the_context_is_a_note_with_what_would_work(worded: LM) -> None:
    ours = asked(replace(worded, context=40), parts=("fast",), seed=(0,)).results["kshot"]
    assert any("needs" in note and "reads 40; give --num-fewshot less" in note for note in ours["notes"])


def test_each_seed_has_its_own_pool_and_queries(worded: LM) -> None:
    own = Battery(lm=worded, tasks=(letters.films(80),), scale=replace(SCALES["smoke"], limit=6, pool=12)).with_words()
    first, other = (own.setting(own.tasks[0], seed) for seed in (0, 1))
    assert len(first.written.pool) == 12
    assert len(first.queries) == 6
    assert {e.id for e in first.queries} != {e.id for e in other.queries}
    assert {e.id for e in first.pool} != {e.id for e in other.pool}
    assert not {e.id for e in first.pool} & {e.id for e in first.queries}


@pytest.mark.parametrize(
    ("tasks", "options", "error", "line"),
    [
        (
            (words(30),),
            {},
            DataError,
            "task 'words' has 30 different answers, and a map of answers is learned from 2 to 15",
        ),
        (
            (letters.films(80),),
            {"num_fewshot": 99},
            DataError,
            "asked for 99 demonstrations, and its training pool has 39",
        ),
        (
            (letters.films(1200),),
            {"num_fewshot": 520},
            DataError,
            "pool has [0-9]+ labelled examples, of which every seed draws 512; give --num-fewshot at most 512",
        ),
        ((replace(letters.films(80), labels=tuple(map(str, range(16)))),), {}, DataError, "has 16 labels"),
        ((replace(letters.films(80), test=()),), {}, DataError, "has no labelled test examples to ask"),
    ],
)
def test_what_cannot_be_asked_is_one_line(
    worded: LM, tasks: tuple[Task, ...], options: dict[str, Any], error: type[Exception], line: str
) -> None:
    with pytest.raises(error, match=line):
        asked(worded, tasks, **options)


def test_a_relation_of_few_answers_is_a_task_with_these_labels(worded: LM) -> None:
    films = letters.films(80)
    # What a relation calls its labels are the answers of its test examples alone.
    relation = replace(films, kind="open", labels=films.labels[:1])
    ours, expected = (asked(worded, (one,), parts=("fast",)).results["kshot"] for one in (relation, films))
    assert calm(ours["measures"]) == calm(expected["measures"])


@pytest.mark.parametrize(
    ("options", "error", "line"),
    [
        ({"parts": ("functoins",)}, UnknownName, "did you mean 'functions'"),
        ({"limit": 0}, KshotError, "what works is a whole number from 1"),
        ({"size": "huge"}, UnknownName, "smoke"),
        ({"template": ("a", "b")}, KshotError, "what works is one layout"),
    ],
)
def test_settings_that_make_no_sense(options: dict[str, Any], error: type[Exception], line: str) -> None:
    with pytest.raises(error, match=line):
        make_hypotheses_settings(**options)


def test_a_size_says_how_much_and_numbers_stand_instead() -> None:
    assert scaled(make_hypotheses_settings(size="medium")) == SCALES["medium"]
    own = scaled(make_hypotheses_settings(size="medium", num_fewshot=3, limit=7, seed=(4,)))
    assert own == replace(SCALES["medium"], shots=3, limit=7, seeds=(4,), redrawn=None, beside=None)


def test_as_published_every_function_is_asked_so_many_queries(worded: LM, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (SCALES["full"].functions, SCALES["full"].over) == (500, 500)
    assert scaled(make_hypotheses_settings(size="full", limit=7)).over is None
    scale = replace(SCALES["smoke"], shots=4, limit=6, seeds=(0,), functions=2, parts=("fast", "functions"))
    films = letters.films(80)
    for over, queries in ((None, 6), (9, 9)):
        monkeypatch.setitem(SCALES, "smoke", replace(scale, over=over))
        ours = asked(worded, (films,), seed=(), parts=(), limit=None, num_fewshot=None).results["kshot"]
        (functions,) = [own["functions"] for own in ours["pictures"]["films"] if "functions" in own]
        assert all(round(queries * share, 6).is_integer() for share in functions["altered"])
        assert {row["n"] for row in ours["measures"] if row["variant"] == "original, fixed"} == {6}


def test_the_words_of_every_order_are_on_record_with_their_senses(whole: dict[str, Any]) -> None:
    (own, *_) = [one for one in whole["pictures"]["films"] if "synonyms" in one]
    assert own["synonyms"].keys() == own["senses"].keys()
    for order, drawn in own["synonyms"].items():
        for word, links in zip(drawn, own["senses"][order], strict=True):
            assert len(links) == int(order)
            assert links[-1].split("/")[0] == word
            assert all(re.fullmatch(r"[a-z]+/[anvr][0-9]{8}", link) for link in links)


def test_what_no_verdict_rests_on_is_asked_of_fewer_seeds(worded: LM) -> None:
    scale = replace(SCALES["smoke"], limit=6, seeds=(3, 1, 2), parts=("fast", "chat", "shots"), beside=2)
    own = Battery(lm=worded, tasks=(letters.films(80),), scale=scale)
    assert [(cell.part, cell.seed) for cell in own.cells() if cell.part == "fast"] == [
        ("fast", 3),
        ("fast", 1),
        ("fast", 2),
    ]
    assert sorted((cell.part, cell.seed) for cell in own.cells() if cell.part != "fast") == [
        ("chat", 1), ("chat", 3), ("shots", 1), ("shots", 3)
    ]  # fmt: skip
    every = replace(own, scale=replace(scale, beside=None))
    assert {cell.id for cell in own.cells()} < {cell.id for cell in every.cells()}, "what is asked is the same"
    assert _of_few_seeds(scale) == [
        "chat, shots: the first 2 of 3 seeds, since no verdict rests on them; --seed names seeds for all parts"
    ]
    assert not _of_few_seeds(SCALES["smoke"])
    published, rest = _of_few_seeds(SCALES["medium"])
    assert published.startswith("published: the first 10 of 20 seeds, and so its own verdicts rest on fewer")
    assert "the first 3 of 20 seeds" in rest
    assert "published" not in rest
    # Every claim has its rows in a part that is asked of all seeds.
    assert set(JUDGED) < set(PARTS)


def test_the_published_protocol_with_fewer_seeds_than_the_rest(worded: LM, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = ("published", "fast")
    monkeypatch.setitem(SCALES, "smoke", replace(SCALES["smoke"], seeds=(0, 1, 2), parts=parts, redrawn=2))
    ours = asked(worded, (letters.films(80),), seed=(), parts=parts).results["kshot"]
    assert [cell["seed"] for cell in ours["cells"] if cell["part"] == "published"] == [0, 1]
    assert [cell["seed"] for cell in ours["cells"] if cell["part"] == "fast"] == [0, 1, 2]
    both = {row["seed"] for row in ours["measures"] if row["measure"] == "protocol"}
    assert both == {None, 0, 1}, "a difference of protocols has both"


def test_the_same_from_python(worded: LM, tmp_path: Path) -> None:
    told = kshot.hypotheses(
        letters.films(80), worded, shots=4, seeds=range(2), limit=5, parts=["fast"], dtype="float32"
    )
    assert set(told.verdicts()["hypothesis"]) == {"H1", "H2", "H3"}
    assert "macro_f1" in set(told.measures()["measure"])
    assert str(told).startswith("films: task selection is ")
    assert "H3, composition" in told.report(tmp_path).read_text(encoding="utf-8")


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KSHOT_CACHE", str(tmp_path / "cache"))
    model = tiny.save_tiny(tmp_path / "model", tokenizer=letters.codec().tokenizer)
    folder = tmp_path / "films"
    folder.mkdir()
    task = letters.films(60)
    for name, examples in (("train", task.train), ("test", task.test)):
        rows = [{"text": e.fields["text"], "label": e.label} for e in examples]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    line = ["hypotheses", str(folder), "--model", str(model), "--num-fewshot", "4", "--limit", "5", "--seed", "0,1",
            "--parts", "fast,shots", "--dtype", "float32", "--output-path", str(tmp_path / "out")]  # fmt: skip
    assert cli.status(line) == 0
    said = capsys.readouterr().out
    assert said.startswith("films: task selection is ")
    assert said.rstrip().endswith(f"Report: {tmp_path / 'out' / 'report.html'}")
    html = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    (tmp_path / "out" / "report.html").unlink()
    assert cli.status(["report", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "report.html").read_text(encoding="utf-8") == html
    capsys.readouterr()
    assert cli.status([*line, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["kshot"]["argv"][:2] == ["kshot", "hypotheses"]
    assert cli.status([*line[:4], "--parts", "everything"]) == 2
    assert capsys.readouterr().err.startswith("kshot: unknown part 'everything'")


@pytest.mark.parametrize(("size", "limit", "seeds"), [(600, 256, 20), (650, 32, 20), (64, 32, 7), (64, 64, 20)])
def test_queries_of_one_test_set_are_no_new_ones_for_every_seed(size: int, limit: int, seeds: int) -> None:
    """The truth is that of all such test sets; seeds that draw from one of them share its share of luck."""
    rng, truth, held = np.random.default_rng(size + limit), 0.6, 0
    for _ in range(400):
        right = rng.random(size) < truth
        rows = []
        for seed in range(seeds):
            drawn = rng.permutation(size)[:limit]
            # One answer in ten is another after other demonstrations.
            said = np.where(rng.random(limit) < 0.1, rng.random(limit) < truth, right[drawn])
            half = 1.96 * said.std() / np.sqrt(limit)
            row = figure(
                "accuracy", ("x",), value=said.mean(), low=said.mean() - half, high=said.mean() + half, n=limit
            )
            rows.append(of_test_set({"task": "t", "model": "m", "seed": seed, **row}, size, limit))
        (whole,) = over_seeds(rows)
        held += whole["low"] <= truth <= whole["high"]
    assert held / 400 >= 0.93


def test_an_interval_over_functions_is_none_over_queries() -> None:
    row = {"task": "t", **figure("correlation", ("x",), value=0.5, low=0.1, high=0.8, n=15)}
    assert of_test_set(row, 600, 32)["low"] is None
    assert of_test_set(row, 600, 500) == of_test_set(row, 600, None) == row
    chain = {"task": "relations", **figure("accuracy", ("x",), value=0.5, low=0.1, high=0.8, n=24)}
    assert (of_test_set(chain, None, 32)["low"], of_test_set(chain, None, 32)["high"]) == (None, None)
    nothing = figure("accuracy", ("x",), value=None, n=4, reason="why")
    assert of_test_set(nothing, 600, 32) == nothing
