"""A layout as a conversation: the very text that the model's chat template makes of the same turns."""

from copy import deepcopy
from dataclasses import replace

import letters
import pytest

from kshot.errors import MethodError
from kshot.model.chat import as_chat
from kshot.model.tokens import Codec

SHOWN = [("bright film", "positive"), ("dull {{ plot }} {% raw %}", "negative")]


def codec(template: str | None = letters.TURNS, first: tuple[int, ...] = ()) -> Codec:
    tokenizer = deepcopy(letters.codec().tokenizer)
    tokenizer.chat_template = template
    return Codec(tokenizer, first, None)


def test_it_is_the_text_of_the_same_turns() -> None:
    own = codec()
    chat = as_chat(own, letters.LAYOUT)
    turns = []
    for text, label in SHOWN:
        turns += [("user", letters.LAYOUT.render({"text": text})), ("assistant", label)]
    turns.append(("user", letters.LAYOUT.render({"text": "warm music"})))
    expected = own.tokenizer.apply_chat_template(
        [{"role": role, "content": said} for role, said in turns], tokenize=False, add_generation_prompt=True
    )
    shown = [chat.demonstration({"text": text}, label) for text, label in SHOWN]
    assert chat.preamble(shown) + chat.render({"text": "warm music"}) == expected
    assert chat.answer("positive") == "positive"


def test_a_description_begins_the_first_turn() -> None:
    chat = as_chat(codec(), replace(letters.LAYOUT, description="Films.\n"))
    assert chat.preamble([]) + chat.render({"text": "a"}) == "user:\nFilms.\nReview: a\nSentiment:<end>\nassistant:\n"


def test_a_first_token_that_the_codec_says_is_said_once() -> None:
    (end,) = letters.codec().encode(["<end>"])
    chat = as_chat(codec("<end>" + letters.TURNS, first=end), letters.LAYOUT)
    assert chat.description == "user:\n"


@pytest.mark.parametrize(
    ("template", "line"),
    [
        (None, "has no chat template"),
        ("{{ raise_exception('no') }}", "does not write turns one after the other: no"),
        ("{{ messages[0].content }}", "does not write turns one after the other"),
        (
            "{% for turn in messages %}{{ turn.role }}: {{ turn.content }}\n{% endfor %}assistant:\n",
            "opens an answer that is asked for otherwise",
        ),
    ],
)
def test_what_cannot_be_laid_out_is_one_line(template: str | None, line: str) -> None:
    with pytest.raises(MethodError, match=line):
        as_chat(codec(template), letters.LAYOUT)
