"""The same task as a conversation: does the model's chat template change what is learned?"""

from kshot.study.hypotheses.asking import Asked, Row, answer_rows, contrast_row
from kshot.study.hypotheses.core import ALTERED, ORIGINAL, RANDOM
from kshot.study.parts import Say
from kshot.transform import TRANSFORMS
from kshot.transform.draw import Protocol

CHAT, PLAIN = "chat template", "own layout"
_PROTOCOL: Protocol = "fixed"


def in_chat(asked: Asked, chatted: Asked, say: Say) -> list[Row]:
    """The task as it is, response-altered and from label words alone, ``chatted`` in turns, beside its own layout."""
    rows = []
    for name in (ORIGINAL, ALTERED, RANDOM):
        say(f"{name}, {CHAT}")
        turns, plain = (own.answers(own.altered(TRANSFORMS[name]), _PROTOCOL) for own in (chatted, asked))
        rows += answer_rows((name, CHAT), turns, asked.seed) + answer_rows((name, PLAIN), plain, asked.seed)
        rows.append(contrast_row(f"{name} is answered better with the {CHAT}", turns, plain, asked.seed))
    return rows
