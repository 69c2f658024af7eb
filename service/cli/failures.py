"""How a command ends: exit codes, and one sentence on standard error."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Coroutine
from typing import Any, NoReturn

from streams.errors import AskaheadError

FAILED, USAGE, UNREACHABLE, REFUSED = 1, 2, 3, 4
INTERRUPTED, BROKEN_PIPE, TERMINATED = (128 + number for number in (signal.SIGINT, signal.SIGPIPE, signal.SIGTERM))


class Failure(AskaheadError):
    """A command cannot go on; the message says why and what to do."""

    exit_code = FAILED


class BadUsage(Failure):
    """It was asked for what cannot be."""

    exit_code = USAGE


class Unreachable(Failure):
    """The server cannot be reached, or stopped answering.

    Attributes:
        sent: it may have got the request.
    """

    exit_code = UNREACHABLE

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent


class Refused(Failure):
    """The server refused a request.

    Attributes:
        status: of the response; 0 where it came in the middle of a stream.
    """

    exit_code = REFUSED

    def __init__(self, message: str, *, status: int, code: str, retry_after: float | None = None) -> None:
        super().__init__(message, code=code, retry_after=retry_after)
        self.status = status


def say(sentence: str) -> None:
    """Tell the person, on standard error."""
    print(f"askahead: {sentence}", file=sys.stderr)


def finish(work: Coroutine[Any, Any, int | None]) -> NoReturn:
    """Run a command to its end and exit; what it returns is the exit code, 0 if None."""
    raise SystemExit(_code(work))


def _code(work: Coroutine[Any, Any, int | None]) -> int:
    try:
        return asyncio.run(_terminable(work)) or 0
    except AskaheadError as error:
        say(error.message)
        return error.exit_code if isinstance(error, Failure) else FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    except asyncio.CancelledError:
        return TERMINATED
    except BrokenPipeError:
        # The interpreter flushes standard output once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE


async def _terminable(work: Coroutine[Any, Any, int | None]) -> int | None:
    """SIGTERM cancels the work as SIGINT does, so that files are closed and summaries printed."""
    task = asyncio.current_task()
    if task is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await work
