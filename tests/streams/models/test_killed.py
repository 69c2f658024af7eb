"""A server that is killed while it fetches or converts its model: the next one goes on, and nothing is left over."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from streams.models import check, gguf
from tests.servers import REAL, Server
from tests.streams.models.loopback import Hub
from tests.streams.models.resolving import find

NAME = "org/tiny:F32"
ARRIVED = 20_000_000
"""Bytes after which the hub falls silent: two of the pieces in which a download is written down."""


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@contextmanager
def killed(hub: Hub, home: Path) -> Iterator[Server]:
    """A server with the hub's model, killed at the end; what it started is gone then, or is made to go."""
    flags = ("--port", "0", "--data-dir", str(home / "data"), "--models-dir", str(home), "--model", NAME)
    server = Server((*REAL, *flags), {"HF_ENDPOINT": hub.endpoint, "HF_HUB_OFFLINE": "0"})
    try:
        yield server
    finally:
        children = psutil.Process(server.process.pid).children(recursive=True)
        server.kill()
        for child in children:
            with suppress(psutil.NoSuchProcess):
                # The embedded Valkey waits for the next server of this directory, and there is none.
                if "valkey" in child.name():
                    child.kill()
    assert not psutil.wait_procs(children, timeout=10)[1]


def downloaded(home: Path) -> int:
    return sum(blob.stat().st_size for blob in home.glob("hub/models--*/blobs/*"))


def test_killed_while_it_downloads_and_while_it_converts(hub: Hub, tiny_gguf: Path, tmp_path: Path) -> None:
    # What follows the last tensor is nobody's business, and makes it a file that takes several pieces to download.
    content = tiny_gguf.read_bytes() + bytes(25_000_000)
    hub.files = {"tiny-F32.gguf": content}
    hub.cut_after = ARRIVED + 1_000_000
    hub.flowing.clear()
    with killed(hub, tmp_path):
        until(lambda: downloaded(tmp_path) >= ARRIVED)
    hub.cut_after = None
    hub.flowing.set()
    hub.requests.clear()
    with killed(hub, tmp_path) as server:
        until(lambda: [*tmp_path.glob(f"{gguf.PARTIAL}*")])
        until(lambda: any("convert.py" in " ".join(c.cmdline()) for c in psutil.Process(server.process.pid).children()))
    assert [*tmp_path.glob(f"{gguf.PARTIAL}*")]
    (request,) = hub.fetched()
    assert int(request.headers["range"].removeprefix("bytes=").removesuffix("-")) >= ARRIVED
    (blob,) = tmp_path.glob("hub/models--*/blobs/*")
    assert blob.read_bytes() == content

    model, messages = find(NAME, tmp_path / "data", models_dir=tmp_path)
    assert len([message for message in messages if message.startswith("Converting")]) == 1
    assert hub.fetched() == [request]
    check.directory(model.path)
    assert {path.name for path in tmp_path.iterdir()} == {"data", "hub", model.path.name}
