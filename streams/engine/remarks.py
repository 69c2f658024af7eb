"""What an operator should know of a model before anybody asks it something. Pure, no I/O."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from streams.engine.base import Dialect, ModelFacts

_PLAIN = (
    "%s is served with the plain chat template, as a base model: roles are ordinary text, which pushed data can"
    " imitate. Serve an instruct model, or name a template with --chat-template."
)
_REASONS = (
    "%s reasons before it answers, and its chat template cannot switch that off. That fits standing questions badly:"
    " hundreds to thousands of tokens come before the first of the answer; they take the room in the context that data"
    " needs; the few tokens of a Flash Query are used up before it says anything; and each evaluation of each query"
    " pays for all of that again. Serve an instruction-tuned model that answers directly."
)
_CAN_REASON = (
    "%s can reason before it answers. Questions and Flash Queries are asked with that switched off; who switches it on"
    " should allow some thousand max_tokens, and wait for them."
)


def remarks(facts: ModelFacts, dialect: Dialect) -> Iterator[tuple[int, str]]:
    """Sentences for the log, each with its level."""
    if facts.chat_template == "plain":
        yield logging.WARNING, _PLAIN % facts.name
    if dialect.reasons and not dialect.switchable:
        yield logging.WARNING, _REASONS % facts.name
    elif dialect.reasons:
        yield logging.INFO, _CAN_REASON % facts.name
