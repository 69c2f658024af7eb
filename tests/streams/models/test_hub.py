from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from huggingface_hub import constants

from streams.errors import ModelError
from streams.models import hub as models_hub
from streams.models import names
from tests.streams.models.loopback import Hub, safetensors
from tests.streams.models.resolving import FILES, find, refusal

WEIGHTS = FILES["model.safetensors"]


RESOLVING = """
import sys
from pathlib import Path
from streams.models import resolve
def work():
    resolve(sys.argv[1], data_dir=Path(sys.argv[2]), models_dir=Path(sys.argv[2]), progress=print)
"""


def start(then: str, hub: Hub, models_dir: Path) -> subprocess.Popen[bytes]:
    """A process with a function ``work`` that resolves the hub's model."""
    return subprocess.Popen(
        [sys.executable, "-c", RESOLVING + then, hub.repo, str(models_dir)],
        env=os.environ | {"HF_ENDPOINT": hub.endpoint, "HF_HUB_OFFLINE": "0"},
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def arrived(child: subprocess.Popen[bytes], models_dir: Path, count: int) -> None:
    """Wait until this many bytes are in the cache."""
    while sum(path.stat().st_size for path in blobs(models_dir / "hub")) < count:
        assert child.poll() is None
        time.sleep(0.01)


def blobs(cache: Path) -> list[Path]:
    return sorted(cache.glob("models--*/blobs/*"))


class TestSafetensors:
    def test_downloads_what_is_needed_and_no_more(self, hub: Hub, tmp_path: Path) -> None:
        unwanted = {
            "original/model.safetensors": b"x",
            "consolidated.safetensors": b"x",
            "model-Q8_0.gguf": b"x",
            "model.bin": b"x",
            "code.py": b"x",
            "README.md": b"x",
        }
        hub.files = FILES | {"chat_template.jinja": b"{{ messages }}", "merges.txt": b"x"} | unwanted
        model, messages = find(hub.repo, tmp_path / "data")
        assert model.name == hub.repo
        found = {str(path.relative_to(model.path)) for path in model.path.rglob("*") if path.is_file()}
        assert found == set(hub.files) - set(unwanted)
        assert (model.path / "model.safetensors").read_bytes() == WEIGHTS
        assert messages[0] == "Fetching org/tiny from the hub, unless it is in the local cache"
        assert not (tmp_path / "data").exists()
        assert len(hub.fetched()) == 1

        assert find(hub.repo, tmp_path / "data")[0] == model
        assert len(hub.fetched()) == 1

    def test_progress_is_told_in_tenths(
        self, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
        shards = {f"model-{number}.safetensors": safetensors(a=50_000 * number) for number in (1, 2, 3)}
        hub.files = FILES | shards
        _, messages = find(hub.repo, tmp_path)
        assert [message.partition(" of ")[0] for message in messages[1:]] == [
            f"Fetched {percent} %" for percent in range(10, 101, 10)
        ]
        # No progress bar where no person watches.
        assert "%|" not in capfd.readouterr().err

    def test_local_cache_serves_when_the_hub_is_away(
        self, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        hub.files = FILES
        online, _ = find(hub.repo, tmp_path)
        hub.refuse_with = (503, "")
        assert find(hub.repo, tmp_path)[0] == online
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        assert find(hub.repo, tmp_path)[0] == online

    def test_directory_of_models_holds_the_cache(
        self, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        hub.files = FILES
        model, _ = find(hub.repo, tmp_path, models_dir=tmp_path / "kept")
        assert model.path.is_relative_to(tmp_path / "kept" / "hub")
        assert not (tmp_path / "cache").exists()
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        assert find(hub.repo, tmp_path, models_dir=tmp_path / "kept")[0] == model

    def test_revision_is_the_one_asked_for(self, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        old = safetensors(b"weights of old")
        hub.files, hub.tags = FILES, {"v1": ("1" * 40, FILES | {"model.safetensors": old})}
        by_tag, _ = find(hub.repo, tmp_path, revision="v1")
        assert by_tag.name == hub.repo
        assert (by_tag.path / "model.safetensors").read_bytes() == old
        assert find(hub.repo, tmp_path, revision="1" * 40)[0] == by_tag
        assert (find(hub.repo, tmp_path)[0].path / "model.safetensors").read_bytes() == WEIGHTS
        assert "no revision v2 on the hub; set --revision" in refusal(hub.repo, tmp_path, revision="v2")
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        assert find(hub.repo, tmp_path, revision="v1")[0] == by_tag

    def test_token_goes_with_every_request(self, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        hub.files = FILES
        find(hub.repo, tmp_path)
        assert {request.headers.get("authorization") for request in hub.requests} == {"Bearer hf_secret"}


class TestGguf:
    FILES = {  # noqa: RUF012
        "config.json": b"{}",
        "README.md": b"x",
        "tiny-Q4_K_M.gguf": b"GGUF four",
        "tiny-F16/tiny-F16-00001-of-00002.gguf": b"GGUF one",
        "tiny-F16/tiny-F16-00002-of-00002.gguf": b"GGUF two",
        "mmproj-tiny-F16.gguf": b"GGUF eyes",
    }

    def fetch(self, name: str) -> tuple[models_hub.Fetched, list[str]]:
        messages: list[str] = []
        return models_hub.fetch(names.parse(name), messages.append), messages

    def test_only_the_chosen_file_is_fetched(self, hub: Hub) -> None:
        hub.files = self.FILES
        fetched, messages = self.fetch("org/tiny")
        assert "org/tiny has 2 GGUF models, of which tiny-Q4_K_M is taken" in messages[0]
        assert (fetched.file, fetched.commit) == ("tiny-Q4_K_M.gguf", hub.SHA)
        assert fetched.path.read_bytes() == b"GGUF four"
        assert len(hub.fetched()) == 1

    def test_all_parts_are_fetched_side_by_side(self, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
        hub.files = self.FILES
        fetched, _ = self.fetch("org/tiny:f16")
        assert fetched.path.name == "tiny-F16-00001-of-00002.gguf"
        assert sorted(path.read_bytes() for path in fetched.path.parent.iterdir()) == [b"GGUF one", b"GGUF two"]
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        assert self.fetch("org/tiny:F16")[0] == fetched
        # What is cached will do, where nothing else is asked for.
        assert self.fetch("org/tiny")[0] == fetched
        with pytest.raises(ModelError, match=r"org/tiny:Q4_K_M is not complete in the local cache; go online"):
            self.fetch("org/tiny:Q4_K_M")

    def test_level_that_is_not_there(self, hub: Hub, tmp_path: Path) -> None:
        hub.files = self.FILES
        message = refusal("org/tiny:Q8_0", tmp_path)
        assert "org/tiny has no GGUF file of level Q8_0; name one of those it has: F16, Q4_K_M" in message
        assert hub.fetched() == []

    def test_is_converted_once_whatever_becomes_of_the_download(
        self, hub: Hub, tiny_gguf: Path, tmp_path: Path
    ) -> None:
        hub.files = {"tiny-Q8_0.gguf": tiny_gguf.read_bytes()}
        model, _ = find("org/tiny:Q8_0", tmp_path)
        assert model.name == "org/tiny:Q8_0"
        assert model.path.parent == tmp_path / "models"
        shutil.rmtree(tmp_path / "cache")
        again, messages = find("org/tiny:Q8_0", tmp_path)
        assert again == model
        assert not any("Converting" in message for message in messages)


class TestInterruption:
    def test_cut_connection_is_continued(self, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
        content = safetensors(a=5000)
        hub.files = FILES | {"model.safetensors": content}
        hub.cut_after = 3000  # of the file, so what is asked for from there on comes whole
        model, _ = find(hub.repo, tmp_path)
        assert (model.path / "model.safetensors").read_bytes() == content
        assert [request.headers.get("range") for request in hub.fetched()][1:] == ["bytes=3000-"]

    def test_killed_download_goes_on_where_it_was(self, hub: Hub, tmp_path: Path) -> None:
        content = safetensors(a=25_000_000)
        hub.files = FILES | {"model.safetensors": content}
        hub.cut_after = 21_000_000
        hub.flowing.clear()
        child = start("work()", hub, tmp_path)
        with child:
            arrived(child, tmp_path, 20_000_000)
            child.send_signal(signal.SIGKILL)
        hub.cut_after = None
        hub.flowing.set()
        hub.requests.clear()
        model, _ = find(hub.repo, tmp_path, models_dir=tmp_path)
        assert (model.path / "model.safetensors").read_bytes() == content
        (request,) = hub.fetched()
        assert int(request.headers["range"].removeprefix("bytes=").removesuffix("-")) >= 20_000_000
        assert not [path for path in blobs(tmp_path / "hub") if path.suffix]

    def test_download_does_not_keep_a_server_from_ending(self, hub: Hub, tmp_path: Path) -> None:
        hub.files = FILES | {"model.safetensors": safetensors(a=25_000_000)}
        hub.cut_after = 21_000_000
        hub.flowing.clear()
        with start(
            "import threading\nthreading.Thread(target=work, daemon=True).start()\ninput()", hub, tmp_path
        ) as child:
            arrived(child, tmp_path, 20_000_000)
            child.communicate(b"\n", timeout=30)
        assert child.returncode == 0
        assert not hub.flowing.is_set()

    def test_damaged_rest_is_refused_and_fetched_anew(self, hub: Hub, tmp_path: Path) -> None:
        content = safetensors(a=5000)
        hub.files = FILES | {"model.safetensors": content}
        find(hub.repo, tmp_path)
        (blob,) = (path for path in blobs(tmp_path / "cache") if path.stat().st_size == len(content))
        blob.unlink()
        blob.with_name(f"{blob.name}.part").write_bytes(b"x" * 1000)
        message = refusal(hub.repo, tmp_path)
        assert "model.safetensors of org/tiny arrived damaged" in message
        model, _ = find(hub.repo, tmp_path)
        assert (model.path / "model.safetensors").read_bytes() == content

    def test_file_that_was_cut_off_in_the_cache_is_mended(self, hub: Hub, tmp_path: Path) -> None:
        hub.files = FILES
        model, _ = find(hub.repo, tmp_path)
        weights = (model.path / "model.safetensors").resolve()
        weights.write_bytes(WEIGHTS[:-3])
        hub.refuse_with = (503, "")
        assert "model.safetensors is cut off" in refusal(hub.repo, tmp_path)
        hub.refuse_with = None
        find(hub.repo, tmp_path)
        assert weights.read_bytes() == WEIGHTS

    def test_full_disk_is_told_before_the_download(
        self, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        hub.files = FILES
        usage = shutil.disk_usage(tmp_path)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10))
        assert "--models-dir" in refusal(hub.repo, tmp_path)
        assert hub.fetched() == []


class TestRefusals:
    def test_unknown_model(self, hub: Hub, tmp_path: Path) -> None:
        assert "no model org/unknown on the hub" in refusal("org/unknown", tmp_path)

    @pytest.mark.parametrize("only_files", [False, True])
    def test_gated_model(self, hub: Hub, tmp_path: Path, only_files: bool) -> None:
        hub.files = FILES
        if only_files:
            hub.refuse_files_with = (403, "GatedRepo")
        else:
            hub.refuse_with = (403, "GatedRepo")
        message = refusal(hub.repo, tmp_path)
        assert "gated" in message
        assert "HF_TOKEN" in message

    def test_hub_in_trouble(self, hub: Hub, tmp_path: Path) -> None:
        hub.refuse_with = (503, "")
        assert "cannot be reached" in refusal(hub.repo, tmp_path)

    def test_silent_hub_counts_as_unreachable(self, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("streams.models.hub.REACH_TIMEOUT_S", 0.1)
        with socket.create_server(("127.0.0.1", 0)) as silent:
            monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
            assert "cannot be reached" in refusal(hub.repo, tmp_path)

    def test_failing_download(self, hub: Hub, tmp_path: Path) -> None:
        hub.files = FILES
        hub.refuse_files_with = (403, "")
        assert "Fetching org/tiny from the hub failed" in refusal(hub.repo, tmp_path)

    @pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
    def test_repository_in_another_format(self, hub: Hub, tmp_path: Path, missing: str) -> None:
        hub.files = {name: content for name, content in FILES.items() if name != missing}
        assert "cannot be loaded" in refusal(hub.repo, tmp_path)

    def test_repository_without_a_tokenizer(self, hub: Hub, tmp_path: Path) -> None:
        hub.files = {name: content for name, content in FILES.items() if name != "tokenizer.json"}
        assert "has no tokenizer" in refusal(hub.repo, tmp_path)

    def test_switched_off(self, offline: None, tmp_path: Path) -> None:
        message = refusal("org/tiny", tmp_path)
        assert "HF_HUB_OFFLINE" in message
        assert "not in the local cache" in message
