"""The header of a GGUF file: what it says of the model, and where in the file each tensor lies."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

MAGIC = b"GGUF"
VERSIONS = (2, 3)

Value = int | float | bool | str | list[int] | list[float] | list[bool]

_LONGEST = 1 << 24
"""Bytes of one value or list of numbers: many times what any has, and little to ask memory for."""

_STRING, _ARRAY = 8, 9
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""The format of each type of value that has a fixed size."""


class BrokenFile(ValueError):
    """This is not a whole GGUF file. The message is a clause without the file's name."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """Where a tensor lies.

    Attributes:
        shape: as torch writes it, rows first.
        kind: ggml's number of the type that its values are packed in.
        start: in bytes, from the beginning of the file.
        size: in bytes.
    """

    shape: tuple[int, ...]
    kind: int
    start: int
    size: int


@dataclass(frozen=True, slots=True)
class Header:
    """What precedes the weights.

    Attributes:
        values: the metadata, less the lists of texts (the vocabulary and its merges).
        tensors: by name.
    """

    values: Mapping[str, Value]
    tensors: Mapping[str, Tensor]

    @property
    def architecture(self) -> str:
        """llama.cpp's name of the model's family; empty where the file has none."""
        name = self.values.get("general.architecture", "")
        return name if isinstance(name, str) else ""


class Source(Protocol):
    """A file that is read from its beginning on, once."""

    def read(self, size: int, /) -> bytes:
        """The next bytes, fewer only at the end."""

    def tell(self) -> int:
        """How many have been read."""


def read(path: Path) -> Header:
    """The header of a file that is as long as it says.

    Raises:
        OSError: it cannot be read.
        BrokenFile: it is no GGUF file, or ends too early.
    """
    with path.open("rb") as file:
        return parse(file, path.stat().st_size)


def parse(file: Source, size: int) -> Header:
    """The header of a file of so many bytes, of which no more is read than that.

    Raises:
        OSError: it cannot be read.
        BrokenFile: it is no GGUF file, or ends too early.
    """
    try:
        header = _Reader(file, size).header()
    except (EOFError, UnicodeDecodeError, OverflowError, MemoryError, RecursionError) as error:
        raise BrokenFile(f"it ends or is damaged within its header, of {size} bytes") from error
    end = max((tensor.start + tensor.size for tensor in header.tensors.values()), default=0)
    if end > size:
        raise BrokenFile(f"it ends after {size} of {end} bytes")
    return header


def floats(path: Path, tensor: Tensor) -> list[float]:
    """The values of a tensor of plain 32-bit numbers, as the factors of positions are.

    Raises:
        BrokenFile: its values are packed.
    """
    if tensor.size != 4 * math.prod(tensor.shape):
        raise BrokenFile("its factors of positions are packed, and no program writes them so")
    with path.open("rb") as file:
        file.seek(tensor.start)
        return list(struct.unpack(f"<{tensor.size // 4}f", file.read(tensor.size)))


class _Reader:
    def __init__(self, file: Source, size: int) -> None:
        self._file = file
        self._size = size

    def header(self) -> Header:
        if self._bytes(len(MAGIC)) != MAGIC:
            raise BrokenFile("it does not begin as a GGUF file does")
        version = self._number("I")
        if version not in VERSIONS:
            raise BrokenFile(f"it is of version {version}, and versions {VERSIONS[0]} and {VERSIONS[1]} can be read")
        tensors, values = self._number("Q"), self._number("Q")
        found: dict[str, Value] = {}
        for _ in range(values):
            key, value = self._text(), self._value(self._number("I"))
            if value is not None:
                found[key] = value
        listed = [self._tensor() for _ in range(tensors)]
        alignment = found.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment < 1:
            raise BrokenFile(f"its alignment is {alignment}")
        start = -(-self._file.tell() // alignment) * alignment
        return Header(found, {name: Tensor(shape, kind, start + at, n) for name, shape, kind, at, n in listed})

    def _tensor(self) -> tuple[str, tuple[int, ...], int, int, int]:
        name = self._text()
        shape = tuple(reversed([self._number("Q") for _ in range(self._number("I"))]))
        kind, start = self._number("I"), self._number("Q")
        return name, shape, kind, start, _packed_size(kind, math.prod(shape))

    def _value(self, kind: int) -> Value | None:
        if kind in _SCALARS:
            value: Value = struct.unpack(f"<{_SCALARS[kind]}", self._bytes(struct.calcsize(_SCALARS[kind])))[0]
            return value
        if kind == _STRING:
            return self._text()
        if kind != _ARRAY:
            raise BrokenFile(f"its metadata has a value of unknown type {kind}")
        element, count = self._number("I"), self._number("Q")
        if element in _SCALARS:
            width = struct.calcsize(_SCALARS[element])
            return list(struct.unpack(f"<{count}{_SCALARS[element]}", self._bytes(count * width)))
        for _ in range(count):
            self._value(element)
        return None

    def _text(self) -> str:
        return self._bytes(self._number("Q")).decode()

    def _number(self, kind: str) -> int:
        number: int = struct.unpack(f"<{kind}", self._bytes(struct.calcsize(f"<{kind}")))[0]
        return number

    def _bytes(self, count: int) -> bytes:
        if count > min(_LONGEST, self._size - self._file.tell()):
            raise EOFError
        return self._file.read(count)


def _packed_size(kind: int, values: int) -> int:
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    try:
        per_block, size = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
    except (ValueError, KeyError):
        raise BrokenFile(f"it has weights of the unknown type {kind}") from None
    return values // int(per_block) * int(size)
