"""Chat templates that are not the model's own: the operator's, and the plain one of models that have none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from streams.errors import InvalidInput

PLAIN = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{{ {'system': 'System', 'assistant': 'Assistant'}.get(message.role, 'User') }}: "
    "{{ (message.content or '') | trim }}{{ '\\n\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)
"""For models without a template: each message after the name of its role, a blank line between them.

It begins with the token that begins every text, where the model has one: many say nothing sensible without. Names and
blank lines are ordinary text: whoever pushes data can write them too.
"""

PLAIN_END = "\n\nUser:"
"""What ends a reply where nothing else does: a base model goes on with the next message."""

MAX_BYTES = 1 << 20
"""Of a template's file."""


def template_text(given: str) -> str:
    """The template that an operator names.

    Args:
        given: the template itself, which has a brace somewhere, or the path of its file.

    Raises:
        ValueError: there is no such file, or it is no template.
    """
    text = given if "{" in given else _read(Path(given))
    # Imported here: it takes a second, and hardly anybody gives a template.
    from jinja2 import TemplateSyntaxError
    from transformers.utils.chat_template_utils import render_jinja_template

    try:
        render_jinja_template(conversations=[[]], chat_template=text)
    except TemplateSyntaxError as error:
        raise ValueError(
            f"is no Jinja template (line {error.lineno}: {str(error.message).rstrip('.')}); correct it, or leave it out"
            " for the model's own"
        ) from error
    except Exception:
        # It may refuse to say nothing; whether it has a place for messages turns out with the model's tokens.
        return text
    return text


def _read(path: Path) -> str:
    try:
        with path.expanduser().open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except (OSError, RuntimeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(
            f"names no file that can be read ({reason}); give the path of a Jinja template, or its text"
        ) from error
    if len(content) > MAX_BYTES:
        raise ValueError(f"must be a file of at most {MAX_BYTES} bytes")
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise ValueError("must be a text file, in UTF-8") from error
    if not text.strip():
        raise ValueError("must not be an empty file; leave it out for the model's own template")
    return text


def rendered(template: str, messages: Sequence[Mapping[str, Any]], *, generation: bool) -> str:
    """Render a template for a vocabulary that has no tokens to begin or end with.

    Raises:
        InvalidInput: the template refuses the messages.
    """
    from transformers.utils.chat_template_utils import render_jinja_template

    try:
        (text,), _ = render_jinja_template(
            conversations=[[dict(message) for message in messages]],
            chat_template=template,
            add_generation_prompt=generation,
            bos_token="",
            eos_token="",
        )
    except Exception as error:  # a template is its author's program: it may raise anything
        raise refusal(error) from error
    return str(text)


def refusal(error: Exception) -> InvalidInput:
    """What to tell a client whose messages a template refused."""
    return InvalidInput(f"The model's chat template refuses these messages: {error}", param="messages")
