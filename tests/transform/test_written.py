"""Tasks in tokens: put together they are the text, and the tokens are those that the whole text has."""

from dataclasses import replace

import letters
import numpy as np
import pytest

from kshot.data import load_task
from kshot.errors import PromptError
from kshot.model.load import load_model
from kshot.transform.draw import draw
from kshot.transform.lexicon import lexicon
from kshot.transform.written import written


@pytest.mark.parametrize("channel", [False, True])
def test_a_prompt_is_the_text(channel: bool) -> None:
    task, own = letters.films(), letters.tokens(channel=channel)
    shown = [own.pool[i] for i in (3, 0, 5)]
    prompts = own.asked(own.before(shown), own.queries[1])
    texts = [letters.LAYOUT.render(task.train[i].fields) for i in (3, 0, 5)]
    asked = letters.LAYOUT.render(task.test[1].fields)
    for label, sequence in zip(task.labels, prompts, strict=True):
        if channel:
            parts = [f"{task.train[i].label}\n{text}" for i, text in zip((3, 0, 5), texts, strict=True)]
            expected, scored = "\n\n".join([*parts, f"{label}\n{asked}"]), asked
        else:
            parts = [f"{text} {task.train[i].label}" for i, text in zip((3, 0, 5), texts, strict=True)]
            expected, scored = "\n\n".join([*parts, f"{asked} {label}"]), f" {label}"
        assert letters.codec().decode(sequence.tokens) == expected
        assert letters.codec().decode(sequence.tokens[sequence.start :]) == scored


@pytest.mark.smollm2
@pytest.mark.parametrize("name", ["colours", "country-continent", "colours-ja"])
def test_tokens_are_those_of_the_whole_text(name: str) -> None:
    codec = load_model("smollm2-135m").codec
    task = load_task(name)
    task = replace(task, kind="classification") if task.kind == "open" else task
    own = written(task, task.template, codec, task.train[:20], task.test[:5])
    assert own.seams == 0
    drawn = draw(own, 4, 0, "redrawn")
    for row, query, prompt in zip(drawn, task.test, own.prompts(drawn), strict=False):
        shown = [task.template.demonstration(task.train[i].fields, str(task.train[i].label)) for i in row]
        text = task.template.preamble(shown) + task.template.demonstration(query.fields, task.labels[0])
        assert prompt[0].tokens == codec.first + codec.encode([text])[0]


def test_a_tokenizer_without_offsets_is_cut_by_parts() -> None:
    codec = letters.codec()

    class Slow:
        is_fast, all_special_ids = False, ()

        def __len__(self) -> int:
            return len(codec.tokenizer)

        def __call__(self, texts: list[str], **_: object) -> dict[str, list[list[int]]]:
            return {"input_ids": [list(ids) for ids in codec.encode(texts)]}

    task = letters.films()
    slow = written(task, letters.LAYOUT, replace(codec, tokenizer=Slow()), task.train, task.test)
    fast = letters.tokens()
    assert (slow.pool, slow.queries, slow.answers, slow.separator) == (
        fast.pool,
        fast.queries,
        fast.answers,
        fast.separator,
    )


def test_what_cannot_be_written_is_said() -> None:
    task, codec = letters.films(), letters.codec()
    with pytest.raises(PromptError, match="of kind choice; what works is one with the same labels"):
        written(replace(task, kind="choice"), letters.LAYOUT, codec, task.train, task.test)
    same = replace(letters.LAYOUT, words={"negative": "so", "positive": "so"})
    with pytest.raises(PromptError, match="two of its labels become the same tokens"):
        written(task, same, codec, task.train, task.test)
    nothing = replace(letters.LAYOUT, words={"negative": ""}, delimiter="")
    with pytest.raises(PromptError, match="'negative' becomes no token"):
        written(task, nothing, codec, task.train, task.test)


def test_a_layout_of_numbers_has_no_place_for_a_text() -> None:
    task = letters.films()
    task = replace(task, train=tuple(replace(e, fields={"n": i}) for i, e in enumerate(task.train)))
    layout = replace(letters.LAYOUT, input="{{n}}:")
    own = written(task, layout, letters.codec(), task.train[:6], task.train[6:8])
    with pytest.raises(PromptError, match="shows no text that another could stand for"):
        own.write("positive")


@pytest.mark.parametrize("protocol", ["redrawn", "fixed"])
def test_a_draw_repeats_itself_and_no_example(protocol: str) -> None:
    own = letters.tokens()
    drawn = draw(own, 6, 3, protocol)
    assert np.array_equal(drawn, draw(own, 6, 3, protocol))
    assert not np.array_equal(drawn, draw(own, 6, 4, protocol))
    assert all(len(set(row)) == 6 for row in drawn.tolist())
    assert (len({tuple(row) for row in drawn.tolist()}) == 1) == (protocol == "fixed")


def test_a_query_is_not_drawn_for_itself() -> None:
    own = letters.tokens()
    both = replace(own, queries=own.pool[:4])
    for protocol in ("redrawn", "fixed"):
        assert not set(draw(both, 20, 0, protocol).ravel().tolist()) & {0, 1, 2, 3}
    with pytest.raises(PromptError, match="30 demonstrations were asked for and its pool has 26"):
        draw(both, 30, 0, "fixed")


@pytest.mark.smollm2
def test_the_lexicon_holds_words_of_one_token() -> None:
    lm = load_model("smollm2-135m")
    found = lexicon(lm, lm.codec, " ", lm.codec.encode(["Review:\nSentiment:"])[0])
    assert len(found.tokens) > 10_000
    assert [lm.codec.encode([f" {word}"])[0] for word in found.words[:500]] == [
        (t,) for t in found.tokens[:500].tolist()
    ]
    assert {"positive", "negative"} <= set(found.words)
    # Together they cannot be more probable than anything.
    assert 0.0 < np.exp(found.prior).sum() < 1.0
