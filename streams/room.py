"""What a stream may hold, by the model's context and by its window. Pure, no I/O."""

from __future__ import annotations

from streams.errors import ContextLengthExceeded, InvalidInput
from streams.window import Window

# Room for data in the smallest window, in tokens.
_SMALLEST_WINDOW = 64


class Room:
    """Refuses what has no room.

    Args:
        context: longest sequence of the model, in tokens.

    Attributes:
        questions: what a stream may not fill, so that it can still be asked about, in tokens.
    """

    def __init__(self, context: int) -> None:
        self._context = context
        self.questions = min(512, context // 4)
        self._limit = context - self.questions

    def check_stream(self, tokens: int, param: str) -> None:
        """Refuse a stream of so many tokens.

        Raises:
            ContextLengthExceeded: it does not fit; ``param`` is what would make it so long.
        """
        if tokens > self._limit:
            raise ContextLengthExceeded(
                f"the stream would have {tokens} tokens and at most {self._limit} fit (a context of {self._context}, "
                f"less {self.questions} for questions); start a new session, with a `window` to keep it short",
                param=param,
            )

    def check_window(self, window: Window, head: int) -> None:
        """Refuse a window around a stream whose template begins with ``head`` tokens.

        Raises:
            InvalidInput: it is too large or too small.
        """
        if window.tokens is None:
            return
        if window.limit is None or window.limit > self._limit:
            raise InvalidInput(
                f"window: at most {self._limit * 16 // 17} tokens fit (a context of {self._context}, less "
                f"{self.questions} for questions, and a sixteenth more while the window moves)",
                param="window",
            )
        smallest = 2 * head + _SMALLEST_WINDOW
        if window.tokens < smallest:
            raise InvalidInput(
                f"window: must be at least {smallest} tokens, twice what stands before the data and room for some",
                param="window",
            )

    @staticmethod
    def check_entry(window: Window, frozen: int, tokens: int) -> None:
        """Refuse an entry that a window has no room for beside a frozen prefix of ``frozen`` tokens.

        Raises:
            ContextLengthExceeded: it is too long.
        """
        largest = window.largest(frozen)
        if largest is not None and tokens > largest:
            raise ContextLengthExceeded(
                f"an entry has {tokens} tokens and this session's window of {window.tokens} takes entries of "
                f"{largest} at most; split it, or create a session with a larger window",
                param="data",
            )

    @staticmethod
    def check_frozen(window: Window, frozen: int, param: str) -> None:
        """Refuse a frozen prefix, system prompt and tools included, that would leave a window too little.

        Raises:
            ContextLengthExceeded: it is more than half of the window; ``param`` is what would make it so long.
        """
        if window.tokens is not None and frozen > window.tokens // 2:
            raise ContextLengthExceeded(
                f"{frozen} tokens would stay whatever leaves the window of {window.tokens}, and {window.tokens // 2} "
                "can; shorten the system prompt or the tools, freeze less, or create a session with a larger window",
                param=param,
            )
