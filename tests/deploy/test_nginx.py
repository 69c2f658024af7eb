"""The example for nginx, really run: events, sockets and generated text pass as they come, and sessions stay put."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import httpx
import pytest

from tests.servers import FAST, Server, serving
from tests.valkeys import free_port

CONFIG = Path(__file__).parents[2] / "deploy" / "nginx.conf"


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Server]]:
    """Two servers that share a Redis: the first one's embedded Valkey."""
    data = tmp_path_factory.mktemp("first")
    with serving(FAST, data) as first:
        valkey = f"unix://{next(data.rglob('*.sock'))}"
        with serving(FAST, tmp_path_factory.mktemp("second"), "--redis-url", valkey) as second:
            yield [first, second]


@pytest.fixture(scope="module")
def proxy(servers: list[Server], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """nginx with the example, where only addresses are exchanged."""
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    assert nginx is not None, "nginx is missing; apt-get install nginx-light"
    directory, port = tmp_path_factory.mktemp("nginx"), free_port()
    ports = [server.url.rpartition(":")[2] for server in servers]
    text = CONFIG.read_text()
    for before, after in (
        ("listen 80;", f"listen 127.0.0.1:{port};"),
        ("server 127.0.0.1:8080 ", f"server 127.0.0.1:{ports[0]} "),
        ("# server 10.0.0.2:8080 ", f"server 127.0.0.1:{ports[1]} "),
    ):
        assert text.count(before) == 1, before
        text = text.replace(before, after)
    (directory / "askahead.conf").write_text(text)
    paths = "".join(
        f"{kind}_temp_path {directory}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (directory / "nginx.conf").write_text(
        f"daemon off; pid {directory}/pid; error_log {directory}/errors warn; events {{}}"
        f" http {{ access_log {directory}/access; {paths} include {directory}/askahead.conf; }}"
    )
    command = [nginx, "-p", str(directory), "-c", str(directory / "nginx.conf"), "-e", str(directory / "errors")]
    checked = subprocess.run([*command, "-t"], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    process = subprocess.Popen(command)
    try:
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 10
        while True:
            try:
                if httpx.get(f"{url}/health").status_code == 200:
                    break
            except httpx.TransportError:
                pass
            assert time.monotonic() < deadline, (directory / "errors").read_text()
            time.sleep(0.05)
        yield url
    finally:
        process.terminate()
        process.wait(10)


async def test_events_come_while_they_happen(proxy: str) -> None:
    async with aiohttp.ClientSession(proxy) as client:
        body = {"id": "events", "flash": [{"query": "Hot?"}]}
        async with client.post("/v1/sessions", json=body) as created:
            assert created.status == 200
        async with client.get("/v1/sessions/events/events") as stream, asyncio.timeout(10):
            assert stream.content_type == "text/event-stream"
            seen = b""
            # Only with what was sent before in hand is there more to send: nothing is kept back.
            for number in range(3):
                async with client.post("/v1/sessions/events/push", json={"data": f"line {number}"}) as pushed:
                    assert pushed.status == 200
                while f'"data_version":{number + 1}'.encode() not in seen:
                    seen += await stream.content.readany()


async def test_a_socket_is_a_socket(proxy: str) -> None:
    async with aiohttp.ClientSession(proxy) as client:
        async with client.post("/v1/sessions", json={"id": "socket"}) as created:
            assert created.status == 200
        async with client.ws_connect("/v1/sessions/socket/ws") as connection, asyncio.timeout(10):
            assert (await connection.receive_json())["type"] == "connected"
            await connection.send_json({"type": "push", "data": ["a", "b"]})
            kinds = [(await connection.receive_json())["type"] for _ in range(2)]
            assert "push_ack" in kinds


async def test_generated_text_comes_in_pieces(proxy: str) -> None:
    body = {"messages": [{"role": "user", "content": "Tell me."}], "stream": True, "max_tokens": 16}
    async with (
        asyncio.timeout(10),
        aiohttp.ClientSession(proxy) as client,
        client.post("/v1/chat/completions", json=body) as reply,
    ):
        text = await reply.content.read()
    assert text.count(b"data: ") > 3
    assert text.rstrip().endswith(b"data: [DONE]")


def test_requests_of_a_session_go_to_one_server(proxy: str, servers: list[Server]) -> None:
    def counts() -> list[float]:
        return [
            sum(
                float(line.rpartition(" ")[2])
                for line in httpx.get(f"{server.url}/metrics").text.splitlines()
                if line.startswith("askahead_http_requests_total{") and "/flash" in line
            )
            for server in servers
        ]

    with httpx.Client(base_url=proxy) as client:
        for session in ("one", "two", "three", "four"):
            client.post("/v1/sessions", json={"id": session}).raise_for_status()
            before = counts()
            for _ in range(10):
                client.get(f"/v1/sessions/{session}/flash").raise_for_status()
            grown = [after - number for after, number in zip(counts(), before, strict=True)]
            assert sorted(grown) == [0, 10], session
