"""No secret is in the log or in an error, whatever goes wrong: shown on a real server process that logs all it can."""

from __future__ import annotations

import asyncio
import json
import secrets
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest
from redis.asyncio import Redis

from flashquery.notify import Webhook, new_key
from service.access.keyring import digest_of
from tests.apps import until
from tests.servers import FAST, Server
from tests.service.access.tenants import entry

MAIN, ACME, WRONG, PASTED, PASSWORD, QUERY, COLLECTOR = (
    f"{name}-{secrets.token_hex(12)}" for name in ("main", "acme", "no", "bad", "pw", "query", "otlp")
)


@pytest.fixture
async def guarded_url(redis: Redis, redis_url: str) -> AsyncIterator[str]:
    """The test session's Valkey, for a user with a password."""
    await redis.acl_setuser(
        "guarded", enabled=True, passwords=[f"+{PASSWORD}"], keys=["*"], channels=["*"], commands=["+@all"]
    )
    url = urlsplit(redis_url)
    yield url._replace(netloc=f"guarded:{PASSWORD}@{url.netloc}").geturl()
    await redis.acl_deluser("guarded")


@asynccontextmanager
async def running(tmp_path: Path, url: str, *flags: str) -> AsyncIterator[Server]:
    settings = {
        "ASKAHEAD_API_KEY": MAIN,
        "ASKAHEAD_API_KEYS_FILE": str(tmp_path / "keys.toml"),
        "ASKAHEAD_REDIS_URL": url,
        "ASKAHEAD_NOTIFY_PRIVATE": "true",
        "ASKAHEAD_LOG_LEVEL": "debug",
        "ASKAHEAD_OTLP_ENDPOINT": f"http://127.0.0.1:{closed_port()}",
        "OTEL_EXPORTER_OTLP_HEADERS": f"authorization=Bearer {COLLECTOR}",
    }
    server = Server((*FAST, "--port", "0", "--data-dir", str(tmp_path), *flags), settings)
    try:
        yield server
    finally:
        await asyncio.to_thread(server.stop)


def assert_hidden(text: str, *others: str) -> None:
    for secret in (MAIN, ACME, WRONG, PASTED, PASSWORD, QUERY, COLLECTOR, digest_of(ACME).hex(), *others):
        assert secret not in text


async def raw(url: str, request: bytes) -> str:
    """What a server says to bytes that are no proper request."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    writer.write(request)
    async with asyncio.timeout(10):
        answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer.decode(errors="replace")


def closed_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port


@pytest.mark.parametrize("log_format", ["text", "json"])
async def test_nothing_secret_is_logged_or_told(
    tmp_path: Path, redis: Redis, guarded_url: str, log_format: str
) -> None:
    (tmp_path / "keys.toml").write_text(entry_of(ACME))
    webhook = Webhook("http://x", new_key()).secret
    bodies: list[str] = []
    async with running(tmp_path, guarded_url, "--log-format", log_format) as server:
        await asyncio.to_thread(server.wait_ready, 60)
        async with aiohttp.ClientSession(server.url) as http:

            async def send(method: str, path: str, status: int, key: str = ACME, body: object = None) -> None:
                async with http.request(
                    method, path, json=body, headers={"Authorization": f"Bearer {key}"}
                ) as response:
                    bodies.append(await response.text())
                    assert response.status == status, bodies[-1]

            hook = {"url": f"http://127.0.0.1:{closed_port()}/", "secret": webhook}
            flash = "/v1/sessions/acme-1/flash"
            await send("GET", "/v1/models", 401, WRONG)
            await send("POST", "/v1/sessions", 200, body={"id": "acme-1"})
            await send("POST", "/v1/sessions", 403, body={"id": "other"})
            await send("GET", "/metrics", 403)
            await send("GET", f"/v1/models?api_key={QUERY}", 200)
            await send("POST", flash, 200, body={"query": "Hot?", "notify": hook, "max_tokens": 2})
            await send("POST", flash, 409, body={"query": "Hot?", "notify": hook, "max_tokens": 2})
            await send("POST", flash, 400, body={"query": "Cold?", "notify": {**hook, "url": webhook}})
            await send("POST", flash, 400, body={"query": "Cold?", "notify": {**hook, "secret": webhook[:-9] + "!"}})
            await send("POST", flash, 400, body={"query": "Cold?", "notify": {**hook, "secrets": [webhook]}})
            await send("POST", "/v1/sessions/acme-1/push", 200, body={"data": "x"})
            for start, end in (("GET / HTTP/1.1\r\nHost: x", "\0"), ("GET / HTTP/9", "")):
                # What is wrong is shown to who sent it, and to nobody else.
                answer = await raw(server.url, f"{start}\r\nx-api-key: {ACME}{end}\r\n\r\n".encode())
                assert answer.startswith("HTTP/1.0 400")
            (tmp_path / "keys.toml").write_text(entry_of(ACME).replace(digest_of(ACME).hex(), PASTED))
            server.process.send_signal(signal.SIGHUP)
            await until(lambda: any("the keys stay as they are" in line for line in server.lines))
            (tmp_path / "keys.toml").write_text(f"{entry_of(ACME)}\n{PASTED}\n")
            server.process.send_signal(signal.SIGHUP)
            await until(lambda: any("is not TOML" in line for line in server.lines))
            await send("GET", "/v1/sessions/acme-1", 200)
            (tmp_path / "keys.toml").write_text(entry_of(ACME) + entry(WRONG).replace(f'"{WRONG}"', '"new"'))
            server.process.send_signal(signal.SIGHUP)
            await until(lambda: any("3 keys are valid" in line for line in server.lines))
            await send("GET", "/v1/models", 200, WRONG)
            # The store no longer lets the server in.
            await redis.acl_deluser("guarded")
            await until(lambda: any("lost the connection" in line for line in server.lines))
            await send("GET", f"{flash}/1/history", 503)
    log = "\n".join(server.lines)
    if log_format == "json":
        assert all(isinstance(json.loads(line), dict) for line in server.lines if line.startswith("{"))
    assert "GET /v1/sessions/{id}: 200 to acme" in log, "requests are logged"
    assert_hidden(log, webhook, webhook.removeprefix("whsec_"))
    assert_hidden("\n".join(bodies), webhook, webhook.removeprefix("whsec_"))


@pytest.mark.parametrize(
    "url",
    [
        f"redis://:{PASSWORD}@127.0.0.1:1/0?db=many",
        f"redis://:{PASSWORD}@127.0.0.1:{closed_port()}",
    ],
    ids=["no number", "nobody there"],
)
async def test_a_store_that_cannot_be_used_is_told_without_its_password(tmp_path: Path, url: str) -> None:
    (tmp_path / "keys.toml").write_text(entry_of(ACME))
    async with running(tmp_path, url) as server:
        assert await asyncio.to_thread(server.process.wait, 60) != 0
    log = "\n".join(server.lines)
    assert "redis" in log.lower()
    assert_hidden(log)


async def test_a_wrong_file_of_keys_keeps_the_server_from_starting(tmp_path: Path, redis_url: str) -> None:
    (tmp_path / "keys.toml").write_text(entry_of(ACME).replace(digest_of(ACME).hex(), PASTED))
    async with running(tmp_path, redis_url) as server:
        assert await asyncio.to_thread(server.process.wait, 60) == 1
    log = "\n".join(server.lines)
    assert "askahead: " in log
    assert "keys.toml: entry 1 (`acme`): sha256: must be 64 hexadecimal digits" in log
    assert "Traceback" not in log
    assert_hidden(log)


def entry_of(key: str) -> str:
    """The entry of acme, whose key is not its name here."""
    return entry(key, 'prefix = "acme-"').replace(f'name = "{key}"', 'name = "acme"')
