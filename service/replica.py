"""Who this server is among those that share a Redis."""

from __future__ import annotations

import contextlib
import fcntl
import re
import secrets
from collections.abc import Iterator
from pathlib import Path

_ID = re.compile(r"rep_[0-9a-f]{16}")


@contextlib.contextmanager
def identity(data_dir: Path) -> Iterator[str]:
    """An id that stays the same when the server is started again with its data directory.

    So it has its own sessions back at once, without waiting for the leases of the process that it was. A directory that
    another running server has, or that cannot be written to, gives a new id.
    """
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = (data_dir / "replica").open("a+")
    except OSError:
        yield _new()
        return
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield _new()
            return
        file.seek(0)
        known = file.read().strip()
        if not _ID.fullmatch(known):
            known = _new()
            file.truncate(0)
            file.write(known)
            file.flush()
        yield known


def _new() -> str:
    return f"rep_{secrets.token_hex(8)}"
