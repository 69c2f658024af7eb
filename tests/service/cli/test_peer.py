"""The flags and variables that the peer's servers are started with, of both generations."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from service.cli import main, peer
from service.settings import Settings, shown
from tests.service.cli.probe import Probe


@pytest.fixture(params=["cpu", "gpu"])
def build(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Either installation."""
    monkeypatch.setattr(main, "_on_cpu", lambda: request.param == "cpu")
    return str(request.param)


@pytest.mark.parametrize(
    ("flags", "settings"),
    [
        ("--model /models/llama", {"model": "/models/llama"}),
        ("--context 4096", {"context": 4096}),
        ("--context 0", {"context": 0}),
        ("--ctx 4096", {"context": 4096}),
        ("--ctx-size 8192", {"context": 8192}),
        ("--host 0.0.0.0 --port 9000", {"host": "0.0.0.0", "port": 9000}),
        ("--log-format json", {"log_format": "json"}),
        ("--log-format text", {"log_format": "text"}),
        ("--cpu-offload-gb 2.5", {"cpu_offload_gb": 2.5}),
        ("--kv-cache-type fp16", {"kv_cache_type": "fp16"}),
        ("--kv-cache-type int8", {"kv_cache_type": "int8"}),
        ("--kv-cache-type int4", {"kv_cache_type": "int4"}),
        ("--kv-cache-type f16", {"kv_cache_type": "fp16"}),
        ("--kv-cache-type q8_0", {"kv_cache_type": "int8"}),
        ("--kv-cache-type q4_0", {"kv_cache_type": "int4"}),
        ("--sessions 4", {"sessions": 4}),
        ("--pool-size 4", {"sessions": 4}),
        ("--api-key secret", {"api_key": "secret"}),
        ("--gpu-layers 99", {}),
        ("--gpu-layers 999", {}),
        ("--flash-attn on", {}),
    ],
)
def test_what_they_ask_for_is_a_setting_or_so_already(build: str, flags: str, settings: dict[str, object]) -> None:
    assert Probe().given(*flags.split()) == Settings(**settings)  # type: ignore[arg-type]


def test_no_layer_on_a_gpu_is_an_installation_of_its_own(build: str) -> None:
    code, output = Probe()("--gpu-layers", "0")
    if build == "cpu":
        assert (code, output) == (0, "")
    else:
        assert (code, output.count("\n")) == (2, 1)
        assert "make setup" in output


@pytest.mark.parametrize("layers", ["1", "33", "98"])
def test_some_layers_on_a_gpu_have_another_way(build: str, layers: str) -> None:
    code, output = Probe()("--gpu-layers", layers)
    assert (code, output.count("\n")) == (2, 1)
    assert output.startswith("askahead: --gpu-layers: ")
    assert ("--cpu-offload-gb" in output) == (build == "gpu")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--gpu-layers -1", "--gpu-layers: must be a number of layers"),
        ("--gpu-layers all", "--gpu-layers: must be a number of layers"),
        ("--flash-attn off", "--flash-attn: the engine picks what computes attention"),
        ("--flash-attn auto", "--flash-attn: must be on or off"),
        ("--ctx-size 128", "--context: must be 0 (the model's trained length) or at least 256 tokens"),
        ("--ctx-size 1048577", "--context: input should be less than or equal to 1048576"),
        ("--pool-size 0", "--sessions: input should be greater than or equal to 1"),
        ("--kv-cache-type q5_1", "--kv-cache-type: input should be "),
        ("--api-key --ctx=4096", "--api-key: needs a value"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(build: str, flags: str, message: str) -> None:
    code, output = Probe()(*flags.split())
    assert (code, output.count("\n")) == (2, 1)
    assert output.startswith(f"askahead: {message}")


def test_flags_of_no_use_are_not_shown() -> None:
    help_text = CliRunner().invoke(main.app, ["serve", "--help"], env={"COLUMNS": "250"}).stdout
    assert "--sessions" in help_text
    assert not any(shown.flag(name) in help_text for name in peer.OPTIONS)


def test_ranks_on_other_machines_take_the_same_flags() -> None:
    result = CliRunner().invoke(main.app, ["engine", "--data-parallel-start-rank", "1", "--gpu-layers", "x"])
    assert (result.exit_code, result.stderr.startswith("askahead: --gpu-layers")) == (2, True)


class TestVariables:
    def test_are_settings(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LAYERSCALE_HOST", "0.0.0.0")
        monkeypatch.setenv("LAYERSCALE_PORT", "9000")
        assert Probe().given() == Settings(host="0.0.0.0", port=9000)

    def test_are_beaten_by_ours_and_by_flags(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LAYERSCALE_HOST", "10.0.0.1")
        monkeypatch.setenv("LAYERSCALE_PORT", "9000")
        monkeypatch.setenv("ASKAHEAD_HOST", "10.0.0.2")
        settings = Probe().given("--port", "9001")
        assert (settings.host, settings.port) == ("10.0.0.2", 9001)

    def test_count_where_ours_are_empty_and_not_where_they_are(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LAYERSCALE_HOST", "")
        monkeypatch.setenv("LAYERSCALE_PORT", "9000")
        monkeypatch.setenv("ASKAHEAD_PORT", "")
        assert Probe().given() == Settings(port=9000)

    def test_are_named_where_they_are_wrong(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LAYERSCALE_PORT", "http")
        code, output = Probe()()
        assert code == 2
        assert output.startswith("askahead: LAYERSCALE_PORT: input should be a valid integer")

    def test_of_clients_are_not_read(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in (("API_KEY", "LSK-x"), ("BASE_URL", "http://127.0.0.1:1"), ("LICENSE_KEY", "LSK-x")):
            monkeypatch.setenv(f"LAYERSCALE_{name}", value)
        assert Probe().given() == Settings()


def test_a_license_key_is_told_to_be_of_no_use() -> None:
    given = {"LAYERSCALE_LICENSE_KEY": "LSK-secret", "LAYERSCALE_HOST": "192.0.2.1", "LAYERSCALE_PORT": "8181"}
    # Nobody has that address, so the server ends before it loads a model.
    run = subprocess.run(
        [sys.executable, "-c", "from service.cli.main import app; app()", "serve", "--gpu-layers", "99"],
        env=os.environ | given,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 1
    assert "cannot serve on 192.0.2.1 port 8181" in run.stderr
    assert run.stderr.count("LAYERSCALE_LICENSE_KEY is set and not read") == 1
    assert "LSK-secret" not in run.stderr
