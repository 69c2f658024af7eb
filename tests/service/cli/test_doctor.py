"""``askahead doctor`` on this machine, and what it would say of others; ``askahead bench``."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.cli.bench.command import Figures
from service.cli.doctor import checks
from service.cli.doctor.checks import Status
from service.cli.failures import Failure
from tests.models import rwkv_toy
from tests.servers import FAST, Server, serving
from tests.service.cli.commands import run
from tests.valkeys import free_port

GIB = 1 << 30


def examined(*flags: str, **variables: str) -> tuple[int, dict[str, Any]]:
    """The exit code, and each check by its name."""
    result = run("doctor", "--json", *flags, **variables)
    told = json.loads(result.stdout)
    assert told["ok"] == (result.exit_code == 0)
    return result.exit_code, {check["name"]: check for check in told["checks"]}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model that finds room anywhere."""
    return rwkv_toy.build(tmp_path / "toy.gguf")


def test_a_machine_that_will_do_is_told_so(server: Server, model: Path, tmp_path: Path) -> None:
    flags = (
        "--port",
        str(free_port()),
        "--data-dir",
        str(tmp_path / "data"),
        "--model",
        str(model),
        "--url",
        server.url,
    )
    code, found = examined(*flags)
    assert code == 0, found
    assert found["engine"]["found"].endswith("loads")
    assert "embedded Valkey" in found["store"]["found"]
    assert "engine ready, store ok" in found["server"]["found"]
    assert all(check["fix"] for check in found.values() if check["status"] != "ok")
    assert not (tmp_path / "data").exists()


def test_everything_that_is_wrong_is_told_with_what_to_do(tmp_path: Path, redis_url: str) -> None:
    away = free_port()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        flags = ("--port", str(taken.getsockname()[1]), "--redis-url", f"redis://127.0.0.1:{away}")
        code, found = examined(
            *flags,
            "--model",
            str(tmp_path / "nothing"),
            "--data-dir",
            "/proc/askahead",
            "--url",
            f"http://127.0.0.1:{away}",
        )
    assert code == 1
    for name in ("port", "data directory", "store", "model", "server"):
        assert found[name]["status"] == "fail", found[name]
        assert found[name]["fix"]
    assert "memory" not in found
    shown = run("doctor", "--redis-url", redis_url, "--model", str(tmp_path / "nothing"), "--port", "0")
    assert shown.exit_code == 1
    assert "✗ model" in shown.stdout
    assert "→" in shown.stdout
    assert "1 to be fixed" in shown.stdout
    assert "✓ store" in shown.stdout


@pytest.mark.parametrize(
    ("check", "status", "fix"),
    [
        (checks.memory(4 * GIB, GIB, GIB), Status.OK, ""),
        (checks.memory(3 * GIB, 2 * GIB, 2 * GIB), Status.WARN, "--kv-cache-gb"),
        (checks.memory(GIB, 2 * GIB, GIB), Status.FAIL, "--model"),
        (checks.memory(None, GIB, GIB), Status.WARN, "see for yourself"),
        (checks.open_files(8192, 8192, 5000), Status.OK, ""),
        (checks.open_files(-1, -1, 5000), Status.OK, ""),
        (checks.open_files(1024, 65536, 5000), Status.WARN, "ulimit -n 5000"),
        (checks.open_files(1024, 4096, 5000), Status.WARN, "--max-subscriptions"),
        (checks.overcommit(1, embedded=True), Status.OK, ""),
        (checks.overcommit(0, embedded=True), Status.WARN, "sysctl vm.overcommit_memory=1"),
        (checks.overcommit(0, embedded=False), Status.OK, ""),
        (checks.overcommit(None, embedded=True), Status.OK, ""),
        (checks.backlog(4096, 128), Status.OK, ""),
        (checks.backlog(64, 128), Status.WARN, "sysctl net.core.somaxconn=128"),
        (checks.swappiness(60, 0), Status.OK, ""),
        (checks.swappiness(60, 8 * GIB), Status.WARN, "sysctl vm.swappiness=10"),
        (checks.swappiness(5, 8 * GIB), Status.OK, ""),
        (checks.pinned("vllm", None, "1.0"), Status.FAIL, "make setup"),
        (checks.pinned("vllm", "0.9", "1.0"), Status.FAIL, "pip install vllm==1.0"),
        (checks.pinned("vllm", "1.0", "1.0"), Status.OK, ""),
    ],
)
def test_what_is_found_is_judged(check: checks.Check, status: Status, fix: str) -> None:
    assert check.status is status
    assert fix in check.fix
    assert bool(check.fix) == (status is not Status.OK)


def test_a_key_that_is_missing_is_told(tmp_path: Path, model: Path) -> None:
    with serving(FAST, tmp_path / "data", "--api-key", "secret") as locked:
        flags = ("--port", str(free_port()), "--model", str(model), "--url", locked.url)
        code, found = examined(*flags)
        assert (code, found["server"]["status"]) == (1, "fail")
        assert "ASKAHEAD_API_KEY" in found["server"]["fix"]
        assert examined(*flags, ASKAHEAD_API_KEY="secret")[1]["server"]["status"] == "ok"
        # The same for every other command.
        assert run("sessions", "list", url=locked.url).exit_code == 4
        assert run("sessions", "list", url=locked.url, ASKAHEAD_API_KEY="secret").exit_code == 0
        assert run("sessions", "list", "--api-key", "two words", url=locked.url).exit_code == 2


def test_a_bench_measures_and_leaves_nothing_behind(server: Server, http: httpx.Client) -> None:
    result = run("bench", server.url, "--seconds", "0.3", "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert [each["name"] for each in told["figures"]] == ["flash poll", "question, first token", "push, acknowledged"]
    for each in told["figures"]:
        assert each["count"] >= 1
        assert 0 < each["p50"] <= each["p99"] <= each["worst"]
    assert http.get("/v1/sessions").json()["data"] == []
    assert "flash poll" in run("bench", "--seconds", "0.1", url=server.url).stdout
    assert run("bench", f"http://127.0.0.1:{free_port()}").exit_code == 3


def test_figures_are_of_the_ordered_times() -> None:
    figures = Figures.of("x", [number / 1000 for number in range(200, 0, -1)], 4)
    assert (figures.count, figures.per_second) == (200, 50)
    assert (figures.p50, figures.p99, figures.worst) == pytest.approx((100, 198, 200))
    with pytest.raises(Failure, match="--seconds"):
        Figures.of("x", [], 1)
