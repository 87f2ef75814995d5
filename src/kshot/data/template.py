"""How a task is written: the layout of an example, the words that stand for its labels, what stands between."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from jinja2 import StrictUndefined, TemplateSyntaxError, UndefinedError, meta, nodes
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

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop sequences: what ends an open answer, a line break or what stands between demonstrations."""
        return ("\n", self.separator) if self.separator else ("\n",)


def input_key(template: Template, fields: Mapping[str, Any]) -> str:
    """The rendered input with every run of white space as one blank: two inputs are the same where theirs are equal.

    What the layout does not show does not tell inputs apart: an index is no part of a question. Raises PromptError
    where the layout and the fields do not fit.

    >>> input_key(Template(input="Q: {{text}}"), {"idx": 7, "text": " a  joy"})
    'Q: a joy'
    """
    return " ".join(template.render(fields).split())


def content(template: Template, fields: Mapping[str, Any]) -> str:
    """What an example puts into the template: the fields that the layout names, in its order, a line each.

    The layout's own words say nothing, and a field that it does not name may hold the answer. Of a field that holds
    others, as ``{{doc.text}}`` asks of ``doc``, only what is named counts. PromptError where the layout and the fields
    do not fit.

    >>> content(Template(input="Q: {{doc.text}}"), {"doc": {"text": "a joy", "label_text": "good"}, "label": "good"})
    'a joy'
    """
    template.render(fields)
    found = dict(_reached(fields, path) for path in _named(template.input))
    return "\n".join(_text(value) for value in found.values() if value is not None)


def named(template: Template) -> frozenset[str]:
    """The fields that the layout looks up; PromptError where it cannot be read.

    >>> sorted(named(Template(input="{% set q = text %}{{q}} {{doc.title}}")))
    ['doc', 'text']
    """
    return frozenset(str(path[0]) for path in _named(template.input))


def filled(fields: Mapping[str, Any], text: str) -> dict[str, Any]:
    """The fields with this text in the place of every text, also of those within lists and mappings.

    >>> filled({"doc": {"text": "a joy", "year": 1999}, "choices": ["a", "b"]}, "N/A")
    {'doc': {'text': 'N/A', 'year': 1999}, 'choices': ['N/A', 'N/A']}
    """
    return {name: _filled(value, text) for name, value in fields.items()}


def fillable(template: Template, fields: Mapping[str, Any]) -> bool:
    """Whether another text in the place of every text is another input: not where a layout shows numbers alone.

    >>> fillable(Template(input="{{text}}"), {"text": "a joy"}), fillable(Template(input="{{a}}"), {"a": 2})
    (True, False)
    """
    try:
        empty, other = (template.render(filled(fields, text)) for text in ("", "N/A"))
    except PromptError:
        # A layout that looks its texts up somewhere finds no other one there.
        return False
    return empty != other


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


def _filled(value: Any, text: str) -> Any:
    if isinstance(value, str):
        return text
    if isinstance(value, Mapping):
        return filled(value, text)
    return [_filled(one, text) for one in value] if isinstance(value, list | tuple) else value


def _text(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


Path = tuple[Any, ...]
"""The name of a field, and the keys and places that lead on within it."""


def _reached(fields: Mapping[str, Any], path: Path) -> tuple[Path, Any]:
    """As much of a path as leads through data, and what it leads to: of a method of a text, the text."""
    value: Any = fields.get(path[0])
    for i, key in enumerate(path[1:], start=1):
        within = isinstance(value, Mapping) and key in value
        within |= isinstance(value, list | tuple) and isinstance(key, int) and -len(value) <= key < len(value)
        if not within:
            return path[:i], value
        value = value[key]
    return path, value


@lru_cache(maxsize=1024)
def _named(source: str) -> tuple[Path, ...]:
    """The paths that a layout names, each once, those that stand first before the others."""
    _compiled(source)
    parsed = _environment().parse(source)
    names = meta.find_undeclared_variables(parsed)
    found = dict.fromkeys(path for path in _paths(parsed) if path[0] in names)
    # A name need not stand where it is first found as a string: the order only has to be the same every time.
    return tuple(sorted(found, key=lambda path: (source.find(path[0]), tuple(map(str, path)))))


def _paths(node: nodes.Node) -> Iterator[Path]:
    path = _path(node)
    if path is not None:
        yield path
        return
    for child in node.iter_child_nodes():
        yield from _paths(child)


def _path(node: nodes.Node) -> Path | None:
    if isinstance(node, nodes.Name):
        return (node.name,)
    if isinstance(node, nodes.Getattr):
        key: Any = node.attr
    elif isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const):
        key = node.arg.value
    else:
        return None
    before = _path(node.node)
    return None if before is None else (*before, key)


@lru_cache(maxsize=1024)
def _compiled(source: str) -> Any:
    try:
        return _environment().from_string(source)
    except TemplateSyntaxError as error:
        raise PromptError(f"template {source!r}, line {error.lineno}: {error.message}") from error


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)
    environment.filters["regex_replace"] = _regex_replace
    return environment


def _regex_replace(text: str, pattern: str, replacement: str, count: int = 0) -> str:
    """The one filter that lm-eval's templates have beyond Jinja's own."""
    try:
        return re.sub(pattern, replacement, text, count=count)
    except re.error as error:
        raise ValueError(f"regex_replace: {error}") from error
