"""What is told of a model without its weights, wherever it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from streams.errors import ModelError
from streams.models import DEFAULT_MODEL, header, names
from streams.models import hub as models_hub
from streams.models.describe import Described, describe, gguf_config
from streams.models.shape import Shape, State
from tests.models import rwkv_toy
from tests.streams.models import resolving
from tests.streams.models.configs import KNOWN
from tests.streams.models.conftest import Hub, write_tiny_gguf

LLAMA = KNOWN["Llama-3.1-8B"]
CONFIG = json.dumps(LLAMA.config).encode()


def told(
    model: str | None, *, revision: str | None = None, models_dir: Path | None = None
) -> tuple[Described, list[str]]:
    """The description, and what was said on the way to it."""
    messages: list[str] = []
    return describe(model, progress=messages.append, revision=revision, models_dir=models_dir), messages


def refusal(model: str, *, revision: str | None = None, param: str = "model") -> str:
    with pytest.raises(ModelError) as caught:
        told(model, revision=revision)
    assert caught.value.param == param
    assert "\n" not in caught.value.message
    return caught.value.message


class TestDirectory:
    def test_needs_no_weights(self, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_text(json.dumps(LLAMA.config))
        described, _ = told(str(tmp_path))
        assert (described.name, described.stored) == (tmp_path.name, None)
        assert described.shape == Shape.of(LLAMA.config)

    def test_counts_the_weights_that_it_has(self, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_text(json.dumps(LLAMA.config))
        for number in (1, 2):
            (tmp_path / f"model-0000{number}-of-00002.safetensors").write_bytes(b"\0" * 100)
        assert told(str(tmp_path))[0].stored == 200

    @pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"null"])
    def test_with_a_broken_config_is_refused(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "config.json").write_bytes(content)
        assert "config" in refusal(str(tmp_path))

    def test_without_config_is_refused(self, tmp_path: Path) -> None:
        assert "it has no config.json" in refusal(str(tmp_path))


class TestGguf:
    def test_header_tells_shape_and_exact_size(self, tiny_gguf: Path) -> None:
        described, _ = told(str(tiny_gguf))
        shape = described.shape
        assert (shape.model_type, shape.layers, shape.hidden, shape.heads, shape.context) == ("llama", 1, 16, 2, 128)
        # Counted from its tensors, the config's formula says the same.
        width, hidden, tokens = 16, 32, 260
        assert shape.parameters == 2 * tokens * width + 4 * width**2 + 3 * width * hidden + 3 * width
        assert described.packed
        assert described.stored == 4 * shape.parameters

    def test_file_that_breaks_off_is_refused(self, tiny_gguf: Path, tmp_path: Path) -> None:
        broken = tmp_path / "broken.gguf"
        broken.write_bytes(tiny_gguf.read_bytes()[:5000])
        assert "cannot be read: it ends or is damaged within its header" in refusal(str(broken))
        broken.write_bytes(tiny_gguf.read_bytes()[:-100])
        assert "cannot be read: it ends after" in refusal(str(broken))

    def test_other_file_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "model.bin"
        path.write_bytes(b"GGUF")
        assert "not a .gguf file" in refusal(str(path))
        (tmp_path / "model.gguf").write_bytes(b"no model")
        assert "not a GGUF file" in refusal(str(tmp_path / "model.gguf"))

    def test_unknown_architecture_is_sized_by_what_it_says(self, tmp_path: Path) -> None:
        write_tiny_gguf(tmp_path / "strange.gguf", architecture="strange")
        assert told(str(tmp_path / "strange.gguf"))[0].shape.model_type == "strange"

    def test_recurrent_model_is_as_large_as_its_file_and_its_states_are_told(self, tmp_path: Path) -> None:
        described, _ = told(str(rwkv_toy.build(tmp_path / "toy.gguf")))
        assert (described.recurrent, described.packed) == (True, False)
        assert described.shape.context is None
        assert described.shape.kept == (State(2, 64 * (2 + 32), 4),)
        assert described.shape.parameters == sum(each.size for each in rwkv_toy.weights().values())
        assert described.stored == 4 * described.shape.parameters

    @pytest.mark.parametrize(("kind", "shifts"), [("rwkv7", None), ("arwkv7", 1), ("rwkv6qwen2", 1)])
    def test_kin_of_rwkv_keep_states_too(self, kind: str, shifts: int | None) -> None:
        fields = {
            "general.architecture": kind,
            f"{kind}.embedding_length": 2048,
            f"{kind}.block_count": 24,
            f"{kind}.wkv.head_size": 64,
            f"{kind}.attention.head_count": 0,
        } | ({} if shifts is None else {f"{kind}.token_shift_count": shifts})
        assert Shape.of(gguf_config(fields, 65536), parameters=1).kept == (State(24, 2048 * ((shifts or 2) + 64), 4),)

    @pytest.mark.parametrize(
        ("fields", "tokens", "name"),
        [
            (
                {
                    "general.architecture": "mamba2",
                    "mamba2.embedding_length": 4096,
                    "mamba2.block_count": 64,
                    "mamba2.ssm.conv_kernel": 4,
                    "mamba2.ssm.state_size": 128,
                    "mamba2.ssm.inner_size": 8192,
                    "mamba2.ssm.group_count": 8,
                    "mamba2.ssm.time_step_rank": 128,
                },
                32768,
                "Mamba-Codestral-7B",
            ),
            (
                {
                    "general.architecture": "llama",
                    "llama.embedding_length": 4096,
                    "llama.block_count": 32,
                    "llama.feed_forward_length": 14336,
                    "llama.attention.head_count": 32,
                    "llama.attention.head_count_kv": 8,
                    "llama.expert_count": 8,
                    "llama.vocab_size": 32000,
                },
                0,
                "Mixtral-8x7B",
            ),
        ],
    )
    def test_header_and_config_tell_the_same(self, fields: dict[str, object], tokens: int, name: str) -> None:
        told, known = Shape.of(gguf_config(fields, tokens)), Shape.of(KNOWN[name].config)
        assert (told.parameters, told.kept) == (known.parameters, known.kept)


class TestSameNamesAsTheServer:
    """What is not meant is no model, so that describing another file fails."""

    def test_level_picks_one_of_a_directory(self, tiny_gguf: Path, tmp_path: Path) -> None:
        files = {"a-Q4_K_M.gguf": b"not meant", "q8/a-Q8_0.gguf": tiny_gguf.read_bytes()}
        where = resolving.write(tmp_path / "ggufs", files)
        described, messages = told(f"{where}:q8_0")
        assert (described.name, described.packed, messages) == ("a-Q8_0", True, [])

    def test_without_a_level_the_best_liked_is_taken_and_told(self, tiny_gguf: Path, tmp_path: Path) -> None:
        files = {"a-F16.gguf": b"not meant", "a-Q4_K_M.gguf": tiny_gguf.read_bytes()}
        described, messages = told(str(resolving.write(tmp_path / "ggufs", files)))
        assert described.name == "a-Q4_K_M"
        assert "2 GGUF models, of which a-Q4_K_M is taken" in messages[0]

    def test_default_comes_from_the_hub_where_it_can(self, hub: Hub) -> None:
        hub.repo, hub.files = DEFAULT_MODEL, resolving.FILES | {"config.json": CONFIG}
        described, _ = told(None)
        assert (described.name, described.packed) == (DEFAULT_MODEL, False)

    def test_default_comes_else_from_the_installed_distribution(
        self, offline: None, tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        resolving.install(tmp_path / "site", tiny_gguf, "9.9")
        monkeypatch.syspath_prepend(tmp_path / "site")
        described, _ = told("")
        assert (described.name, described.packed) == (DEFAULT_MODEL, True)
        assert described.shape == told(str(tiny_gguf))[0].shape

    @pytest.mark.parametrize(
        "name",
        ["a/b/c", "../x", "org/..", "org/tiny@v1", "org/tiny:", "x" * 300, "~no-such-user/x", "x.gguf", "d:Q2_K"],
    )
    def test_refusals_are_those_of_the_server(
        self, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        monkeypatch.chdir(tmp_path)
        resolving.write(tmp_path / "d", {"a-Q4_K_M.gguf": b"GGUF"})
        assert refusal(name) == resolving.refusal(name, tmp_path)

    @pytest.mark.parametrize(
        ("files", "name"),
        [
            ({"a-00002-of-00002.gguf": b"GGUF"}, ""),
            ({"a-00002-of-00002.gguf": b"GGUF"}, "a-00002-of-00002.gguf"),
            ({"model.gguf": b"no model"}, "model.gguf"),
            ({"model.bin": b"GGUF"}, "model.bin"),
            ({"config.json": b"{", "model.safetensors": b""}, ""),
            ({"README.md": b""}, ""),
        ],
    )
    def test_refusals_of_files_are_those_of_the_server(
        self, tmp_path: Path, files: dict[str, bytes], name: str
    ) -> None:
        where = str(resolving.write(tmp_path / "model", files) / name)
        assert refusal(where) == resolving.refusal(where, tmp_path)

    def test_path_has_no_revision(self, tiny_gguf: Path, tmp_path: Path) -> None:
        assert refusal(str(tiny_gguf), revision="v1", param="revision") == resolving.refusal(
            str(tiny_gguf), tmp_path, revision="v1", param="revision"
        )


class TestHub:
    def test_only_the_config_is_fetched(self, hub: Hub) -> None:
        hub.files = resolving.FILES | {"config.json": CONFIG}
        described, _ = told(hub.repo)
        assert (described.name, described.shape) == (hub.repo, Shape.of(LLAMA.config))
        # The hub tells the size of the others.
        assert described.stored == len(hub.files["model.safetensors"])
        assert {request.path.rpartition("/")[2] for request in hub.requests if "resolve" in request.path} == {
            "config.json"
        }

    def test_revision_is_the_one_asked_for(self, hub: Hub) -> None:
        other = json.dumps(KNOWN["Mamba-1.4B"].config).encode()
        hub.files = resolving.FILES | {"config.json": CONFIG}
        hub.tags = {"v1": ("1" * 40, resolving.FILES | {"config.json": other})}
        assert told(hub.repo, revision="v1")[0].shape.model_type == "mamba"
        assert told(hub.repo)[0].shape.model_type == "llama"

    def test_offline_the_cache_is_asked(self, hub: Hub, tmp_path: Path) -> None:
        hub.files = resolving.FILES | {"config.json": CONFIG}
        for models_dir in (None, tmp_path / "kept"):
            hub.refuse_with = None
            first, _ = told(hub.repo, models_dir=models_dir)
            hub.refuse_with = 503, ""
            again, _ = told(hub.repo, models_dir=models_dir)
            assert (again.name, again.shape) == (first.name, first.shape)
        assert list((tmp_path / "kept" / "hub").glob("models--*"))

    def test_offline_a_downloaded_level_is_read(self, hub: Hub, tiny_gguf: Path, tmp_path: Path) -> None:
        hub.files = {"tiny-Q8_0.gguf": tiny_gguf.read_bytes(), "tiny-F16.gguf": b"not meant"}
        models_hub.fetch(names.parse("org/tiny:Q8_0"), print)
        online, _ = told("org/tiny:Q8_0")
        hub.refuse_with = 503, ""
        assert told("org/tiny:Q8_0")[0] == online
        assert refusal("org/tiny:F16") == resolving.refusal("org/tiny:F16", tmp_path)

    @pytest.mark.parametrize("name", ["org/tiny", "org/other"])
    def test_refusals_are_those_of_the_server(self, hub: Hub, tmp_path: Path, name: str) -> None:
        hub.files = {"README.md": b"no model"}
        assert refusal(name) == resolving.refusal(name, tmp_path)

    def test_without_hub_and_copy_the_refusal_is_that_of_the_server(self, offline: None, tmp_path: Path) -> None:
        assert refusal("org/tiny") == resolving.refusal("org/tiny", tmp_path)

    def test_of_a_gguf_file_the_header_is_read_and_no_weights(self, hub: Hub, tiny_gguf: Path) -> None:
        whole = tiny_gguf.read_bytes()
        hub.files = {"tiny-Q8_0.gguf": whole, "tiny-F16.gguf": b"not meant", "mmproj-F16.gguf": b""}
        # The connection stays open and silent where the weights begin.
        hub.cut_after = min(tensor.start for tensor in header.read(tiny_gguf).tensors.values())
        hub.flowing.clear()
        described, _ = told("org/tiny:Q8_0")
        hub.flowing.set()
        local, _ = told(str(tiny_gguf))
        assert described.name == "org/tiny:Q8_0"
        assert (described.shape, described.stored, described.packed) == (local.shape, local.stored, True)
        assert "level Q2_K; name one of those it has: F16, Q8_0" in refusal("org/tiny:Q2_K")

    def test_parts_are_counted_together(self, hub: Hub, tiny_gguf: Path, tmp_path: Path) -> None:
        write_tiny_gguf(tmp_path / "other.gguf")
        renamed = (tmp_path / "other.gguf").read_bytes().replace(b"blk.0.", b"blk.1.").replace(b"output", b"oooput")
        hub.files = {
            "t-00001-of-00002.gguf": tiny_gguf.read_bytes(),
            "t-00002-of-00002.gguf": renamed.replace(b"token_embd", b"token_xxxx"),
        }
        one, _ = told(str(tiny_gguf))
        described, _ = told("org/tiny")
        assert described.shape.parameters == 2 * one.shape.parameters
        assert described.stored == 2 * (one.stored or 0)
        resolving.write(tmp_path / "parts", hub.files)
        assert told(str(tmp_path / "parts"))[0].shape == described.shape
        del hub.files["t-00002-of-00002.gguf"]
        assert "1 of the 2 parts of t" in refusal("org/tiny")

    def test_broken_gguf_file_is_named(self, hub: Hub, tiny_gguf: Path) -> None:
        hub.files = {"tiny-Q8_0.gguf": tiny_gguf.read_bytes()[:-100]}
        assert refusal("org/tiny").startswith("tiny-Q8_0.gguf of org/tiny cannot be read: it ends after")
        hub.files = {"tiny-Q8_0.gguf": b"<html>"}
        assert "does not begin as a GGUF file does" in refusal("org/tiny")

    def test_failing_download_is_told(self, hub: Hub, tiny_gguf: Path) -> None:
        hub.files = {"tiny-Q8_0.gguf": tiny_gguf.read_bytes()}
        hub.refuse_files_with = 403, "GatedRepo"
        assert "gated" in refusal("org/tiny")
        hub.refuse_files_with = None
        hub.cut_after = 3000
        assert "Fetching org/tiny from the hub failed" in refusal("org/tiny")
