"""What of a demonstration matters: its label, its input, the label words, their being together (Min et al. 2022)."""

from kshot.errors import PromptError
from kshot.study.figures import figure
from kshot.study.hypotheses.asking import Asked, Row, answer_rows
from kshot.study.parts import Say
from kshot.transform import TRANSFORMS
from kshot.transform.draw import Protocol
from kshot.transform.inputs import prompt_altered
from kshot.transform.mapping import right_share
from kshot.transform.responses import response_altered
from kshot.transform.transform import IDENTITY, Transform
from kshot.transform.written import Written

ABLATIONS = (
    "original", "random-labels", "right-0", "right-50", "true-distribution", "constant-label", "random-english-words",
    "out-of-domain", "labels-only", "inputs-only",
)  # fmt: skip
SHARES = (0, 25, 50, 75, 100)
ZERO = "zero-shot"
_FIXED: Protocol = "fixed"


def ablated(asked: Asked, say: Say) -> list[Row]:
    """Every ablation, the answer scored after the input (direct) and the input after the answer (channel)."""
    rows = []
    for way, written in (("direct", asked.written), ("channel", asked.channel)):
        say(f"labels and inputs taken away, {way}")
        rows += answer_rows((ZERO, way), asked.answers(written, _FIXED, 0), asked.seed)
        altered: dict[str, Written] = {}
        for name in ABLATIONS:
            try:
                altered[name] = TRANSFORMS[name](written, asked.seed)
            except PromptError as error:
                rows.append(figure("macro_f1", (name, way), value=None, reason=str(error)))
        answers = asked.all_answers([(own, _FIXED) for own in altered.values()])
        for name, found in zip(altered, answers, strict=True):
            rows += answer_rows((name, way), found, asked.seed)
    return rows


def by_share_right(asked: Asked, say: Say) -> list[Row]:
    """So many labels of the demonstrations right, with the label words as they are and with arbitrary ones."""
    return _series(
        asked,
        say,
        {
            f"{share}% right, {words}": right_share(share / 100).then(transform)
            for words, transform in (("own words", IDENTITY), ("arbitrary words", response_altered()))
            for share in SHARES
        },
    )


def by_share_permuted(asked: Asked, say: Say) -> list[Row]:
    """So much of the vocabulary permuted in all that stands before an answer."""
    return _series(
        asked, say, {f"{share}% permuted": prompt_altered(share / 100) for share in (0, 10, 25, 50, 75, 100)}
    )


def by_shots(asked: Asked, say: Say) -> list[Row]:
    """As they are, response-altered, prompt-altered and from label words alone, with more and more demonstrations."""
    rows = []
    counts = [0, *(2**i for i in range(asked.shots.bit_length()) if 2**i < asked.shots), asked.shots]
    for name in ("original", "response-altered", "prompt-altered", "memory-random"):
        altered = asked.altered(TRANSFORMS[name])
        for shots in counts:
            say(f"{name}, {shots} demonstrations")
            rows += answer_rows((name, f"{shots} shots"), asked.answers(altered, _FIXED, shots), asked.seed)
    return rows


def _series(asked: Asked, say: Say, transforms: dict[str, Transform]) -> list[Row]:
    say(f"{len(transforms)} altered tasks")
    answers = asked.all_answers([(asked.altered(transform), _FIXED) for transform in transforms.values()])
    return [
        row for name, found in zip(transforms, answers, strict=True) for row in answer_rows((name,), found, asked.seed)
    ]
