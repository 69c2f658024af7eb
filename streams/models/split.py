"""A model in several GGUF files, ``NAME-00001-of-00003.gguf``, put together again."""

from __future__ import annotations

import re
from pathlib import Path

from streams.models.header import BrokenFile

_FIRST = re.compile(r"(?P<stem>.+)-00001-of-(?P<count>\d{5})\.gguf", re.DOTALL)
_REPLACED = ("GGUF.", "split.", "general.architecture", "general.alignment")
"""Metadata that says how a file is laid out; the new one is so in its own way."""


def joined(source: Path, into: Path) -> Path:
    """The model's only file, or else a new one of all parts in the directory ``into``. Weights stay as they are.

    Raises:
        OSError: a part is missing or cannot be read, or there is no room.
        ValueError: a part is broken.
    """
    named = _FIRST.fullmatch(source.name)
    if named is None or int(named["count"]) < 2:
        return source
    from gguf import GGUFReader, GGUFValueType, GGUFWriter

    count = named["count"]
    parts = [source.with_name(f"{named['stem']}-{part:05}-of-{count}.gguf") for part in range(1, int(count) + 1)]
    missing = [part.name for part in parts if not part.is_file()]
    if missing:
        raise BrokenFile(f"{missing[0]} is not beside it")
    readers = [GGUFReader(part) for part in parts]
    fields = readers[0].fields
    target = into / f"{named['stem']}.gguf"
    writer = GGUFWriter(target, fields["general.architecture"].contents())
    for key, field in fields.items():
        if field.data and not key.startswith(_REPLACED):
            inner = field.types[-1] if field.types[0] == GGUFValueType.ARRAY else None
            writer.add_key_value(key, field.contents(), field.types[0], inner)
    for reader in readers:
        for tensor in reader.tensors:
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target
