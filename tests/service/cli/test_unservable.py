"""`askahead serve` with a model that cannot be served: exit code 1, and one sentence with the file and the way out."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from service.engine import engine_options, resolved_model
from service.settings import Settings
from streams.engine import choose
from streams.errors import ModelError
from tests.models import rwkv_toy
from tests.servers import REAL
from tests.streams.models.conftest import write_tiny_gguf
from tests.streams.models.resolving import FILES, write


def corrupt_gguf(home: Path) -> Path:
    path = home / "corrupt.gguf"
    write_tiny_gguf(path)
    content = bytearray(path.read_bytes())
    content[8:16] = (1 << 40).to_bytes(8, "little")  # how many tensors it has
    path.write_bytes(content)
    return path


def cut_off_recurrent(home: Path) -> Path:
    path = rwkv_toy.build(home / "cut.gguf")
    path.write_bytes(path.read_bytes()[:-2000])
    return path


def cut_off_safetensors(home: Path) -> Path:
    return write(home / "cut", FILES | {"model.safetensors": FILES["model.safetensors"][:-3]})


def without_tokenizer(home: Path) -> Path:
    return write(home / "mute", {name: content for name, content in FILES.items() if name != "tokenizer.json"})


@pytest.mark.parametrize(
    ("make", "file", "why", "way_out"),
    [
        (corrupt_gguf, "corrupt.gguf", "it ends or is damaged within its header", "get it again, or name a directory"),
        (cut_off_recurrent, "cut.gguf", "it ends after", "get it again."),
        (cut_off_safetensors, "cut/model.safetensors", "is cut off: it ends after", "get it again."),
        (without_tokenizer, "mute", "has no tokenizer", "put the model's tokenizer.json or tokenizer.model there"),
    ],
)
def test_server_ends_with_one_sentence(
    tmp_path: Path, make: Callable[[Path], Path], file: str, why: str, way_out: str
) -> None:
    flags = ("--port", "0", "--data-dir", str(tmp_path / "data"), "--log-level", "error")
    ended = subprocess.run(
        [*REAL, *flags, "--model", str(make(tmp_path))],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (ended.returncode, ended.stdout) == (1, "")
    (line,) = ended.stderr.splitlines()
    _, told, sentence = line.partition(f" ERROR   streams.engine.supervisor: The model cannot be loaded: {tmp_path}/")
    assert told
    assert sentence.startswith(file)
    assert why in sentence
    assert way_out in sentence


def test_unsupported_architecture_is_refused_by_what_the_server_runs(tmp_path: Path) -> None:
    # In this process: to know what it supports, the engine takes ten seconds to import.
    config = {"architectures": ["NoSuchForCausalLM"], "model_type": "nosuch"}
    model = write(tmp_path / "strange", FILES | {"config.json": json.dumps(config).encode()})
    settings = Settings(model=str(model), data_dir=tmp_path / "data")
    with pytest.raises(ModelError) as caught:
        choose.load(engine_options(settings, resolved_model(settings)))
    message = caught.value.message
    assert message.startswith(f"{model}/config.json says that the model is a NoSuchForCausalLM")
    assert "name a model of another one" in message
    assert "\n" not in message
