"""Which GGUF files have recurrent models: told by what a file says first. Reads a few bytes, whatever size it has."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

RECURRENT = frozenset({"rwkv6", "rwkv6qwen2", "rwkv7", "arwkv7", "mamba", "mamba2"})
"""Architectures that llama.cpp runs from the file as it is, for what they keep of a stream is a state."""

_MAGIC = b"GGUF"
_KEY = b"general.architecture"
_STRING = 8
_LONGEST = 64


def architecture(file: Path) -> str:
    """Its name in GGUF's terms; empty where the file does not begin with it, as all writers have it do.

    Raises:
        OSError: the file cannot be read.
    """
    with file.open("rb") as source:
        if source.read(len(_MAGIC)) != _MAGIC:
            return ""
        source.read(4 + 8 + 8)  # version, tensors, keys
        try:
            if _text(source) != _KEY or struct.unpack("<I", source.read(4)) != (_STRING,):
                return ""
            return _text(source).decode()
        except (struct.error, UnicodeDecodeError):
            return ""


def _text(source: BinaryIO) -> bytes:
    (length,) = struct.unpack("<Q", source.read(8))
    return source.read(length) if length <= _LONGEST else b""
