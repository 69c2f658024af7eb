"""The one error tree. Every error that may reach a client derives from :class:`AskaheadError`.

A class says what kind of failure it is; ``code`` is the stable string that clients match; the message says what to
do next. The service maps classes to HTTP statuses, nothing below it knows any.
"""

from __future__ import annotations

# The longest name or value of a client's that a message repeats, in characters.
_ECHO_LIMIT = 100
# Loading takes 20 s and more, and whoever asks meanwhile costs next to nothing.
_RESTART_RETRY = 10.0


def short(text: object) -> str:
    """What a client named or sent, as a message may repeat it."""
    shown = str(text)
    return shown if len(shown) <= _ECHO_LIMIT else shown[:_ECHO_LIMIT] + "…"


class AskaheadError(Exception):
    """Root of the tree.

    Args:
        message: one or two sentences for the person who reads it, including what to do next.
        code: stable machine-readable code; defaults to the class's own.
        param: name of the offending field, where there is one.
        retry_after: seconds after which the same request may succeed, where waiting helps.
    """

    code = "error"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or type(self).code
        self.param = param
        self.retry_after = retry_after


class InvalidInput(AskaheadError):
    """The request is wrong and will stay wrong."""

    code = "invalid_value"


class ContextLengthExceeded(InvalidInput):
    """The prompt, or the stream, does not fit the model's context."""

    code = "context_length_exceeded"

    @classmethod
    def of_prompt(cls, tokens: int, maximum: int, param: str) -> ContextLengthExceeded:
        """A prompt of ``tokens`` where ``maximum`` fit; in the words that chat clients look for."""
        return cls(
            f"prompt is too long: {tokens} tokens > {maximum} maximum; shorten it, or start a new session", param=param
        )


class NotFound(AskaheadError):
    """The named thing does not exist (any more)."""

    code = "not_found"


class Conflict(AskaheadError):
    """The request contradicts the present state."""

    code = "conflict"


class Overloaded(AskaheadError):
    """Too many requests at once; the same request may succeed later."""

    code = "rate_limit_exceeded"


class Unavailable(AskaheadError):
    """A part the request needs is not there now: engine, KV cache or store."""

    code = "unavailable"


class EngineUnavailable(Unavailable):
    """The engine is loading, or has died."""

    code = "engine_unavailable"

    @classmethod
    def restarting(cls) -> EngineUnavailable:
        """What needed an engine that has died: another takes its place."""
        return cls(
            "the engine has died and is being restarted; try again when GET /health says `ok`",
            retry_after=_RESTART_RETRY,
        )


class ModelError(AskaheadError):
    """The model cannot be found, fetched, converted or loaded; the server cannot start with it."""

    code = "model_error"
