"""How a task is written: the layout of an example, the words that stand for its labels, what stands between."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from jinja2 import StrictUndefined, TemplateSyntaxError, UndefinedError
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from kshot.errors import PromptError


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    r"""A layout with its label words.

    A prompt is ``description + demonstration + separator + demonstration + separator + ... + input``, and what is
    scored is ``delimiter + answer``. ``input`` is a Jinja template over the fields of an example, rendered in a
    sandbox; ``words`` maps a label name to the word that stands for it (itself, where it is not named).

    >>> t = Template(input="Review: {{text}}\nSentiment:", words={"0": "negative", "1": "positive"})
    >>> t.render({"text": "A joy."}), t.answer("1")
    ('Review: A joy.\nSentiment:', ' positive')
    """

    input: str
    words: Mapping[str, str] = field(default_factory=dict)
    delimiter: str = " "
    separator: str = "\n\n"
    description: str = ""

    def render(self, fields: Mapping[str, Any]) -> str:
        """The input of one example as text; PromptError where the layout and the fields do not fit."""
        return render(self.input, fields)

    def answer(self, label: str) -> str:
        """What follows the input when ``label`` is the answer, with its delimiter."""
        return self.delimiter + self.words.get(label, label)

    def demonstration(self, fields: Mapping[str, Any], label: str) -> str:
        """An example together with its answer."""
        return self.render(fields) + self.answer(label)

    def preamble(self, demonstrations: Sequence[str]) -> str:
        """Everything that stands before the input of a query: the description and the demonstrations."""
        return self.description + "".join(text + self.separator for text in demonstrations)


def filled(fields: Mapping[str, Any], text: str) -> dict[str, Any]:
    """The fields with this text in the place of every text."""
    return {name: text if isinstance(value, str) else value for name, value in fields.items()}


def render(source: str, fields: Mapping[str, Any]) -> str:
    """A Jinja template over fields, in a sandbox without attributes of Python; a missing field is an error.

    >>> render("{{a.__class__}}", {"a": 1})
    Traceback (most recent call last):
    kshot.errors.PromptError: template '{{a.__class__}}' reaches for what is not data: access to attribute '__class__' of 'int' object is unsafe.
    """
    try:
        return _compiled(source).render(fields)
    except UndefinedError as error:
        raise PromptError(f"template {source!r}: {error}; the example has the fields {', '.join(fields)}") from error
    except SecurityError as error:
        raise PromptError(f"template {source!r} reaches for what is not data: {error}") from error
    except (TypeError, ValueError, ArithmeticError, LookupError) as error:
        raise PromptError(f"template {source!r} fails on fields {', '.join(fields)}: {error}") from error


@lru_cache(maxsize=1024)
def _compiled(source: str) -> Any:
    environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)
    environment.filters["regex_replace"] = _regex_replace
    try:
        return environment.from_string(source)
    except TemplateSyntaxError as error:
        raise PromptError(f"template {source!r}, line {error.lineno}: {error.message}") from error


def _regex_replace(text: str, pattern: str, replacement: str, count: int = 0) -> str:
    """The one filter that lm-eval's templates have beyond Jinja's own."""
    try:
        return re.sub(pattern, replacement, text, count=count)
    except re.error as error:
        raise ValueError(f"regex_replace: {error}") from error
