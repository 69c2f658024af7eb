"""Settings of the server as others see it: where it listens and keeps what it knows, and who may use it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, SecretStr, field_validator
from pydantic_settings import NoDecode

from service.settings.fields import MIB, lower, panel, split
from streams.store_url import parse as parse_redis_url

_server = panel("Server")


def default_data_dir() -> Path:
    """Where this platform keeps a user's application data."""
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "askahead"
    # The XDG specification says to ignore a relative path.
    base = Path(os.environ.get("XDG_DATA_HOME", ""))
    return (base if base.is_absolute() else Path.home() / ".local" / "share") / "askahead"


class ServerSettings(BaseModel):
    """Addresses, keys, directories and logs."""

    host: str = _server(
        "127.0.0.1",
        "Address to listen on. Loopback by default, since requests need no key by default.",
        min_length=1,
    )
    port: int = _server(8080, "TCP port to listen on. 0: any free one.", ge=0, le=65_535)
    api_key: SecretStr | None = _server(
        None,
        "Key that every request must carry, as bearer token or x-api-key. Unset: no key is needed. Prefer the"
        " environment to the flag: other users of this machine can read a command line.",
    )
    api_keys_file: Path | None = _server(
        None,
        "File of keys, each with a name and, if it is a tenant's, the prefix of the sessions it may know of; read again"
        " on SIGHUP. `askahead key` makes an entry. Valid beside the one key above.",
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode, BeforeValidator(split)] = _server(
        (),
        "Web origins whose pages may use this server, comma separated, such as https://app.example.com. * allows all."
        " Empty: pages of this server only.",
    )
    redis_url: str | None = _server(
        None,
        "Redis or Valkey to use: redis://localhost:6379/0, redis+sentinel://host:26379/mymaster,"
        " redis+cluster://host:6379; rediss instead of redis for TLS; unix:///path. Unset: one is embedded, under the"
        " data directory.",
        repr=False,
    )
    advertise_url: str | None = _server(
        None,
        "Where other servers on the same Redis reach this one, such as http://10.0.0.3:8080: they pass on to it what"
        " concerns its sessions. Unset: made of the host and port it listens on, which is right on one machine only.",
        min_length=1,
    )
    takeover_seconds: float = _server(
        10.0,
        "Time, in seconds, within which the sessions of a server that died have another on the same Redis. Shorter"
        " takes sessions away from a server that is merely held up for so long.",
        ge=1,
        le=3600,
    )
    store_buffer_bytes: int = _server(
        64 * MIB,
        "Most bytes of pushed data that wait to be written while Redis does not answer; beyond it pushes get 503.",
        ge=1024,
        le=65_536 * MIB,
    )
    redis_appendfsync: Literal["always", "everysec", "no"] = _server(
        "everysec",
        "When the embedded Valkey writes to the disk. everysec: what was acknowledged survives the crash of any"
        " process, but a power cut takes the last second of it. always: it takes nothing, and every push waits for the"
        " disk. no: when the operating system does, mostly within 30 s.",
    )
    data_dir: Path = _server(
        default_data_dir,
        "Directory for the embedded Valkey, and for converted models unless they have one of their own. One running"
        " server each.",
    )
    models_dir: Path | None = _server(
        None,
        "Directory for models, which servers may share: downloaded ones in its hub/, converted ones beside it. Mount a"
        " volume here, so that a new container need not fetch them again. Unset: the hub's own cache (HF_HOME) for"
        " downloaded ones, models/ in the data directory for converted ones.",
    )
    log_format: Literal["text", "json"] = _server("text", "Log lines as text for people, or as JSON for collectors.")
    log_level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(lower)] = _server(
        "info", "Least severity that is logged; debug includes one line per request."
    )
    otlp_endpoint: str | None = _server(
        None,
        "URL of a collector that takes traces by OTLP over HTTP, such as http://localhost:4318. Needs the package's"
        " extra `tracing`. Unset: nothing is traced.",
        min_length=1,
    )
    trace_sample_ratio: float = _server(
        1.0,
        "Share of the traces that begin here which are recorded. Those that a client has begun are recorded if it says"
        " so.",
        ge=0,
        le=1,
    )
    shutdown_seconds: float = _server(
        8.0,
        "Time, in seconds, that running requests get to end after SIGTERM. Closing engine and store takes a few seconds"
        " more; together they stay within the 15 s after which careful orchestrators kill.",
        ge=0,
        le=600,
    )

    @field_validator("api_key")
    @classmethod
    def _key_fits_a_header(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            text = value.get_secret_value()
            if not text or not all("!" <= character <= "~" for character in text):
                raise ValueError("must be printable ASCII without spaces, as it travels in a header")
        return value

    @field_validator("redis_url")
    @classmethod
    def _url_is_redis(cls, value: str | None) -> str | None:
        if value is not None:
            parse_redis_url(value)
        return value

    @field_validator("advertise_url", "otlp_endpoint")
    @classmethod
    def _url_is_http(cls, value: str | None) -> str | None:
        if value is not None:
            url = urlsplit(value)
            if (
                url.scheme not in ("http", "https")
                or not url.hostname
                or url.query
                or url.fragment
                or "@" in url.netloc
            ):
                raise ValueError("must be a URL such as http://10.0.0.3:8080, without a password")
        return None if value is None else value.rstrip("/")

    @field_validator("data_dir", "models_dir", "api_keys_file")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        return None if value is None else value.expanduser().absolute()

    @field_validator("cors_origins")
    @classmethod
    def _origins_are_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(origin if origin == "*" else _origin(origin) for origin in value)


def _origin(text: str) -> str:
    """Normalize an origin to the form in which browsers send it."""
    url = urlsplit(text.lower())
    if not url.scheme or not url.netloc or url.path not in ("", "/") or url.query or url.fragment:
        raise ValueError("must be origins such as https://app.example.com, comma separated, or *")
    return f"{url.scheme}://{url.netloc}"
