"""Tools for chat templates that know none: written into the messages, in the convention of Hermes models. Pure."""

from __future__ import annotations

import json
from dataclasses import replace

from streams.messages import Conversation, Message, Tool

_PREAMBLE = """\
You can call these functions:
<tools>
{tools}
</tools>
To call one, answer with a JSON object between tags, and nothing else:
<tool_call>
{{"name": "the function's name", "arguments": {{"an argument": "its value"}}}}
</tool_call>"""


def tools_in_text(conversation: Conversation) -> Conversation:
    """The same conversation without tools, calls and tool messages: they are text of the other messages."""
    described = _PREAMBLE.format(tools="\n".join(map(_describe, conversation.tools)))
    messages = [_as_text(message) for message in conversation.messages]
    if messages and messages[0].role == "system":
        messages[0] = Message("system", f"{messages[0].content}\n\n{described}")
    else:
        messages.insert(0, Message("system", described))
    return replace(conversation, messages=tuple(messages), tools=())


def _describe(tool: Tool) -> str:
    described = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    return json.dumps({name: value for name, value in described.items() if value is not None}, ensure_ascii=False)


def _as_text(message: Message) -> Message:
    if message.role == "tool":
        return Message("user", f"<tool_response>\n{message.content}\n</tool_response>")
    if not message.calls:
        return message
    calls = [
        "<tool_call>\n"
        + json.dumps({"name": call.name, "arguments": call.parsed}, ensure_ascii=False)
        + "\n</tool_call>"
        for call in message.calls
    ]
    return replace(message, content="\n".join(filter(None, [message.content, *calls])), calls=())
