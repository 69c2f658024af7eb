"""The keys that open the server: by their SHA-256 alone. They are long and random, so nothing slower is needed."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from streams.errors import AskaheadError, short

KEYS_MAX: Final = 1000
FILE_BYTES_MAX: Final = 1024 * 1024
PREFIX: Final = r"^[A-Za-z0-9_-]{1,64}$"
NAME: Final = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"

_START_BYTES = 8
_PLACE = re.compile(r"\((at [^()]*)\)$")


class KeysFileError(AskaheadError):
    """The file of keys cannot be read, or is wrong."""

    code = "keys_file"


@dataclass(frozen=True, slots=True)
class Key:
    """One key.

    Attributes:
        name: what the operator calls it.
        digest: SHA-256 of it.
        prefix: its holder knows of sessions only whose ids start so; empty: of all.
        requests_per_second: how often its holder may ask; None for the server's default.
        burst: how many requests at once after a pause; None for the server's default.
    """

    name: str
    digest: bytes
    prefix: str = ""
    requests_per_second: float | None = None
    burst: int | None = None


class Keyring:
    """Finds a key by what a client offers.

    Args:
        keys: all of them, no two the same.
    """

    def __init__(self, keys: Iterable[Key]) -> None:
        self._keys = {key.digest[:_START_BYTES]: key for key in keys}

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, digest: bytes) -> Key | None:
        """The key of that SHA-256."""
        # A look-up by a part of the digest tells nothing: who offers a key does not choose its digest. The whole is
        # compared in constant time.
        key = self._keys.get(digest[:_START_BYTES])
        return key if key is not None and hmac.compare_digest(key.digest, digest) else None


def digest_of(key: str) -> bytes:
    """SHA-256 of a key as it came in a header, which may hold bytes that are no text."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def new_key() -> str:
    """A key nobody can guess: 256 random bits."""
    return f"ak_{secrets.token_urlsafe(32)}"


def _hex(text: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{64}", text.lower()):
        raise ValueError(
            "must be 64 hexadecimal digits, the SHA-256 of the key and not the key; `askahead key` prints it"
        )
    return text.lower()


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)

    name: Annotated[str, Field(pattern=NAME)]
    sha256: Annotated[str, AfterValidator(_hex)]
    prefix: Annotated[str, Field(pattern=PREFIX)] | None = None
    requests_per_second: Annotated[float, Field(gt=0, le=1_000_000, allow_inf_nan=False)] | None = None
    burst: Annotated[int, Field(ge=1, le=1_000_000)] | None = None


def read_keys(path: Path) -> tuple[Key, ...]:
    """The keys of a file.

    Raises:
        KeysFileError: it cannot be read, or an entry is wrong. The message names the entry, and repeats nothing that
            could be a key.
    """
    try:
        with path.open("rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise KeysFileError(f"{path}: cannot be read: {error.strerror or error}") from None
    try:
        if len(content) > FILE_BYTES_MAX:
            raise KeysFileError(f"exceeds {FILE_BYTES_MAX} bytes")
        return parse_keys(content)
    except KeysFileError as error:
        raise KeysFileError(f"{path}: {error.message}") from None


def parse_keys(content: bytes) -> tuple[Key, ...]:
    """The keys of a file's content. Raises as :func:`read_keys`."""
    try:
        document = tomllib.loads(content.decode())
    except UnicodeDecodeError:
        raise KeysFileError("is not UTF-8") from None
    except (ValueError, RecursionError) as error:
        # The rest of the message may repeat what stands there.
        place = _PLACE.search(str(error))
        raise KeysFileError(f"is not TOML{f', {place[1]}' if place else ''}") from None
    entries = document.get("key")
    if set(document) != {"key"} or not isinstance(entries, list) or not entries:
        raise KeysFileError("must consist of entries that begin with [[key]], at least one; `askahead key` prints one")
    if len(entries) > KEYS_MAX:
        raise KeysFileError(f"has {len(entries)} keys; {KEYS_MAX} is the limit")
    return tuple(_checked(entries))


def _checked(entries: list[Any]) -> Iterator[Key]:
    names: set[str] = set()
    starts: set[bytes] = set()
    for number, given in enumerate(entries, start=1):
        try:
            entry = _Entry.model_validate(given)
        except ValidationError as error:
            raise KeysFileError(f"entry {number}{_named(given)}: {_reason(error)}") from None
        digest = bytes.fromhex(entry.sha256)
        if entry.name in names:
            raise KeysFileError(f"entry {number}{_named(given)}: there is an entry of that name before it; rename one")
        if digest[:_START_BYTES] in starts:
            raise KeysFileError(f"entry {number}{_named(given)}: its key is in the file before it; remove one")
        names.add(entry.name)
        starts.add(digest[:_START_BYTES])
        yield Key(entry.name, digest, entry.prefix or "", entry.requests_per_second, entry.burst)


def _named(given: object) -> str:
    name = given.get("name") if isinstance(given, dict) else None
    return f" (`{name}`)" if isinstance(name, str) and re.fullmatch(NAME, name) else ""


def _reason(error: ValidationError) -> str:
    detail = error.errors(include_url=False, include_input=False, include_context=False)[0]
    field = str(detail["loc"][0]) if detail["loc"] else "entry"
    if detail["type"] == "extra_forbidden":
        return f"`{short(field)}` is not a field; there are {', '.join(_Entry.model_fields)}"
    return f"{field}: {detail['msg'].removeprefix('Value error, ')}"
