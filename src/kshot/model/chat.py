"""A layout as a conversation, in the words of a model's own chat template."""

from dataclasses import replace

from jinja2 import TemplateError

from kshot.data.template import Template
from kshot.errors import MethodError
from kshot.model.tokens import Codec

_ASKED, _SAID, _NEXT = "(one)", "(two)", "(three)"


def as_chat(codec: Codec, template: Template) -> Template:
    """The layout with every input as a turn of the user and every answer as a turn of the assistant.

    MethodError where the tokenizer has no chat template, or one that does not write turns one after the other.
    """
    tokenizer = codec.tokenizer
    if not tokenizer.chat_template:
        raise MethodError("this model's tokenizer has no chat template")
    turns = [("user", _ASKED), ("assistant", _SAID), ("user", _NEXT)]
    messages = [{"role": role, "content": content} for role, content in turns]
    try:
        text = str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
        begun, rest = text.split(_ASKED)
        opened, rest = rest.split(_SAID)
        between, open_again = rest.split(_NEXT)
    except (TemplateError, ValueError) as error:
        raise MethodError(f"this model's chat template does not write turns one after the other: {error}") from error
    if opened != open_again:
        raise MethodError(
            "this model's chat template opens an answer that is asked for otherwise than one that was given"
        )
    if codec.first:
        # The codec says it by itself.
        begun = begun.removeprefix(codec.decode(codec.first))
    return replace(
        template,
        description=begun + template.description,
        input=f"{template.input}{{% raw %}}{opened}{{% endraw %}}",
        delimiter="",
        separator=between,
    )
