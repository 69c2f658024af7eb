"""What is told of a model without its weights, wherever it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from streams.errors import ModelError
from streams.models.describe import describe, gguf_config
from streams.models.shape import Shape
from tests.streams.models.configs import KNOWN
from tests.streams.models.conftest import Hub, write_tiny_gguf

LLAMA = KNOWN["Llama-3.1-8B"]


def refusal(model: str) -> str:
    with pytest.raises(ModelError) as caught:
        describe(model)
    assert caught.value.param == "model"
    assert "\n" not in caught.value.message
    return caught.value.message


class TestDirectory:
    def test_needs_no_weights(self, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_text(json.dumps(LLAMA.config))
        described = describe(str(tmp_path))
        assert (described.name, described.stored) == (tmp_path.name, None)
        assert described.shape == Shape.of(LLAMA.config)

    def test_counts_the_weights_that_it_has(self, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_text(json.dumps(LLAMA.config))
        for number in (1, 2):
            (tmp_path / f"model-0000{number}-of-00002.safetensors").write_bytes(b"\0" * 100)
        assert describe(str(tmp_path)).stored == 200

    @pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"null"])
    def test_with_a_broken_config_is_refused(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "config.json").write_bytes(content)
        assert "config" in refusal(str(tmp_path))

    def test_without_config_is_refused(self, tmp_path: Path) -> None:
        assert "it has no config.json" in refusal(str(tmp_path))


class TestGguf:
    def test_header_tells_shape_and_exact_size(self, tiny_gguf: Path) -> None:
        described = describe(str(tiny_gguf))
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
        assert "cannot be read" in refusal(str(broken))

    def test_other_file_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "model.bin"
        path.write_bytes(b"GGUF")
        assert "not a .gguf file" in refusal(str(path))
        (tmp_path / "model.gguf").write_bytes(b"no model")
        assert "cannot be read" in refusal(str(tmp_path / "model.gguf"))

    def test_unknown_architecture_is_sized_by_what_it_says(self, tmp_path: Path) -> None:
        write_tiny_gguf(tmp_path / "strange.gguf", architecture="strange")
        assert describe(str(tmp_path / "strange.gguf")).shape.model_type == "strange"

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


class TestHub:
    def test_only_the_config_is_fetched(self, hub: Hub) -> None:
        hub.files = {"config.json": json.dumps(LLAMA.config).encode(), "model.safetensors": b"weights"}
        described = describe(Hub.REPO)
        assert described.shape == Shape.of(LLAMA.config)
        assert not any("model.safetensors" in path and "index" not in path for path in hub.requested)

    def test_the_index_tells_the_size_on_the_disk(self, hub: Hub) -> None:
        index = {"metadata": {"total_size": 12345}, "weight_map": {}}
        hub.files = {
            "config.json": json.dumps(LLAMA.config).encode(),
            "model.safetensors.index.json": json.dumps(index).encode(),
        }
        assert describe(Hub.REPO).stored == 12345

    def test_offline_the_cache_is_asked(self, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
        hub.files = {"config.json": json.dumps(LLAMA.config).encode()}
        first = describe(Hub.REPO)
        hub.refuse_with = 500, ""
        assert describe(Hub.REPO) == first

    def test_offline_without_a_copy_is_refused(self, offline: None) -> None:
        assert "cannot be reached and its cache has none" in refusal("org/tiny")

    def test_unknown_model_is_refused(self, hub: Hub) -> None:
        assert "no model on the hub" in refusal("org/other")

    @pytest.mark.parametrize("name", ["", "a/b/c", "../x", "org/tiny:Q4", "x" * 300])
    def test_impossible_name_is_refused(self, hub: Hub, name: str) -> None:
        assert len(refusal(name)) < 400

    def test_repository_without_a_config_is_refused(self, hub: Hub) -> None:
        hub.files = {"README.md": b"no model"}
        assert "there is none on the hub" in refusal(Hub.REPO)
