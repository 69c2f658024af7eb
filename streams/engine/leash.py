"""Processes that must not outlive this one, though it be killed with SIGKILL."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

# Its standard input ends when whoever holds the other end is gone.
_SCRIPT = 'read -r _; kill -9 "$@"'


class Leash:
    """Kills processes when this one dies without having released them.

    Args:
        pids: of these processes.
    """

    def __init__(self, pids: Sequence[int]) -> None:
        self._watch = subprocess.Popen(  # noqa: S603 - a script of our own making, and numbers
            ["/bin/sh", "-c", _SCRIPT, "leash", *map(str, pids)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            # A terminal's Ctrl-C is not for it.
            start_new_session=True,
        )

    def release(self) -> None:
        """Leave the processes alone from now on: they have ended. Idempotent."""
        self._watch.kill()
        self._watch.wait()
        if self._watch.stdin is not None:
            self._watch.stdin.close()
