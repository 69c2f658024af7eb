"""What a Flash Query must be to be registered or changed. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flashquery.conditions import Condition
from flashquery.confidence import ChoiceTree, Prefix
from flashquery.statistics import flat
from streams.entries import BuiltIn
from streams.errors import InvalidInput
from streams.session import Session

_MAX_TOKENS = 32
_LONGEST = 256


def clamped(max_tokens: int | None, schema: Mapping[str, Any] | None) -> int:
    """The longest answer in tokens, 1 to 256; the default where None is given."""
    if max_tokens is None:
        return _MAX_TOKENS if schema is None else _LONGEST
    return min(max(max_tokens, 1), _LONGEST)


def check_room(tokens: int, room: int, statistics: int) -> None:
    """Refuse a question that could not be asked any more when the stream is full.

    Args:
        tokens: its own.
        room: what is kept free for a question.
        statistics: what those before it may take of that; 0 if there are none.
    """
    if tokens >= room:
        raise InvalidInput(
            f"the query needs {tokens} tokens and {room} are kept free for a question; shorten it", param="query"
        )
    if tokens >= room - statistics:
        raise InvalidInput(
            f"with_stats: the query needs {tokens} tokens and {room - statistics} are kept free beside {statistics} "
            "for statistics; shorten it, or leave with_stats out",
            param="with_stats",
        )


def choice_tree(choices: Mapping[str, Prefix], end: int) -> ChoiceTree:
    """The tree of choices' tokens. Refuses those that the model cannot tell apart."""
    if len(set(choices.values())) < len(choices) or not all(choices.values()):
        raise InvalidInput("choices: two of them are the same to this model, or one is empty", param="choices")
    return ChoiceTree(choices, end)


def check_names(session: Session, condition: Condition | None) -> None:
    """Refuse what could never hold, where that is known: types of users' own may count what has not come yet."""
    if condition is None or not (session.type is None or isinstance(session.type, BuiltIn)):
        return
    known = flat(session.statistics("window"))
    if unknown := sorted(condition.names - known.keys()):
        raise InvalidInput(
            f"when: this session has no statistics named {', '.join(unknown)}; it has {', '.join(known)}", param="when"
        )
