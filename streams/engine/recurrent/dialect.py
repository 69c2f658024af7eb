"""How a model writes that knows neither calls nor reasoning."""

from __future__ import annotations

from collections.abc import Sequence

from streams.engine.base import Constraint, ReplyReader
from streams.engine.reader import PlainReader
from streams.engine.schemas import enforceable
from streams.errors import InvalidInput
from streams.messages import Conversation, Shape


class PlainDialect:
    """A :class:`~streams.engine.base.Dialect`: a reply is nothing but content, held to a schema if there is one."""

    takes_tools = False
    reasons = False
    switchable = False

    def reader(self, conversation: Conversation, shape: Shape, prompt: Sequence[int]) -> ReplyReader:
        """See :meth:`streams.engine.base.Dialect.reader`."""
        if shape.forced:
            raise InvalidInput("This model makes no tool calls; leave `tool_choice` out.", param="tool_choice")
        if shape.schema is None:
            return PlainReader(None)
        return PlainReader(Constraint("json", enforceable(shape.schema, "response_format")))
