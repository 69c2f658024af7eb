"""Every setting of the server, once: its unit, default and reason.

Each field is a flag of ``askahead serve`` (``max_sessions`` is ``--max-sessions``) and a variable of the environment
(``ASKAHEAD_MAX_SESSIONS``). Flags beat the environment.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, JsonValue, SecretStr, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from streams.store_url import parse as parse_redis_url

ENV_PREFIX = "ASKAHEAD_"
MIB = 1024 * 1024


def default_data_dir() -> Path:
    """Where this platform keeps a user's application data."""
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "askahead"
    # The XDG specification says to ignore a relative path.
    base = Path(os.environ.get("XDG_DATA_HOME", ""))
    return (base if base.is_absolute() else Path.home() / ".local" / "share") / "askahead"


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def _split(value: object) -> object:
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


def _setting(panel: str, default: Any, description: str, **bounds: Any) -> Any:
    """A documented field; ``panel`` is the heading under which ``--help`` shows it."""
    extra: dict[str, JsonValue] = {"panel": panel}
    if callable(default):
        return Field(default_factory=default, description=description, json_schema_extra=extra, **bounds)
    return Field(default=default, description=description, json_schema_extra=extra, **bounds)


class Settings(BaseSettings):
    """Validated settings, immutable once made.

    Raises:
        pydantic.ValidationError: a value is of the wrong type or out of its bounds.
    """

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        # Compose files pass variables that are not set as empty strings.
        env_ignore_empty=True,
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        # Not settings of the library's, but a field named "model" must not clash with its namespace.
        protected_namespaces=(),
    )

    # Model
    model: str | None = _setting(
        "Model",
        None,
        "Model to serve: a name on the Hugging Face hub, or a path. Unset: a small instruct model that runs anywhere.",
        min_length=1,
    )
    context: int | None = _setting(
        "Model",
        None,
        "Longest prompt plus completion, in tokens. 0 or unset: the length the model was trained for. Less needs less"
        " memory for the KV cache.",
        ge=0,
        le=1_048_576,
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = _setting(
        "Model", "auto", "Number format of weights and KV cache. auto: what is fastest on this machine."
    )
    kv_cache_gb: float | None = _setting(
        "Model",
        None,
        "Memory for the KV cache of each rank, in GiB; bounds how many tokens stay resident over its sessions. Unset:"
        " sized from free memory.",
        gt=0,
        le=65_536,
        allow_inf_nan=False,
    )
    threads: int | None = _setting(
        "Model",
        None,
        "CPU threads of each rank. Unset: its share of the cores this process may use, all of them if it is the only"
        " one.",
        ge=1,
        le=1024,
    )
    tool_parser: str | None = _setting(
        "Model",
        None,
        "How the model writes tool calls: a name of vLLM's --tool-call-parser, such as hermes. none: it makes none."
        " Unset: told from the chat template.",
        min_length=1,
    )
    reasoning_parser: str | None = _setting(
        "Model",
        None,
        "How the model writes its reasoning: a name of vLLM's --reasoning-parser, such as qwen3. none: it has none."
        " Unset: told from the chat template.",
        min_length=1,
    )
    slice_seconds: float = _setting(
        "Model",
        0.3,
        "Longest time, in seconds, the engine reads pushed data at a stretch: a question that arrives meanwhile waits"
        " this long at most.",
        ge=0.01,
        le=10,
    )
    slice_seconds_busy: float = _setting(
        "Model",
        0.1,
        "The same while questions are waiting or running, in seconds; shorter, since each slice delays them.",
        ge=0.01,
        le=10,
    )
    slice_tokens_max: int = _setting(
        "Model",
        1024,
        "Most tokens in one slice of reading, whatever the time allows; bounds a wrong estimate of speed.",
        ge=32,
        le=65_536,
    )

    # Server
    host: str = _setting(
        "Server",
        "127.0.0.1",
        "Address to listen on. Loopback by default, since requests need no key by default.",
        min_length=1,
    )
    port: int = _setting("Server", 8080, "TCP port to listen on. 0: any free one.", ge=0, le=65_535)
    api_key: SecretStr | None = _setting(
        "Server",
        None,
        "Key that every request must carry, as bearer token or x-api-key. Unset: no key is needed. Prefer the"
        " environment to the flag: other users of this machine can read a command line.",
    )
    api_keys_file: Path | None = _setting(
        "Server",
        None,
        "File of keys, each with a name and, if it is a tenant's, the prefix of the sessions it may know of; read again"
        " on SIGHUP. `askahead key` makes an entry. Valid beside the one key above.",
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)] = _setting(
        "Server",
        (),
        "Web origins whose pages may use this server, comma separated, such as https://app.example.com. * allows all."
        " Empty: pages of this server only.",
    )
    redis_url: str | None = _setting(
        "Server",
        None,
        "Redis or Valkey to use: redis://localhost:6379/0, redis+sentinel://host:26379/mymaster,"
        " redis+cluster://host:6379; rediss instead of redis for TLS; unix:///path. Unset: one is embedded, under the"
        " data directory.",
        repr=False,
    )
    advertise_url: str | None = _setting(
        "Server",
        None,
        "Where other servers on the same Redis reach this one, such as http://10.0.0.3:8080: they pass on to it what"
        " concerns its sessions. Unset: made of the host and port it listens on, which is right on one machine only.",
        min_length=1,
    )
    takeover_seconds: float = _setting(
        "Server",
        10.0,
        "Time, in seconds, within which the sessions of a server that died have another on the same Redis. Shorter"
        " takes sessions away from a server that is merely held up for so long.",
        ge=1,
        le=3600,
    )
    store_buffer_bytes: int = _setting(
        "Server",
        64 * MIB,
        "Most bytes of pushed data that wait to be written while Redis does not answer; beyond it pushes get 503.",
        ge=1024,
        le=65_536 * MIB,
    )
    redis_appendfsync: Literal["always", "everysec", "no"] = _setting(
        "Server",
        "everysec",
        "When the embedded Valkey writes to the disk. everysec: what was acknowledged survives the crash of any"
        " process, but a power cut takes the last second of it. always: it takes nothing, and every push waits for the"
        " disk. no: when the operating system does, mostly within 30 s.",
    )
    data_dir: Path = _setting(
        "Server",
        default_data_dir,
        "Directory for converted models and the embedded Valkey. One running server each.",
    )
    log_format: Literal["text", "json"] = _setting(
        "Server", "text", "Log lines as text for people, or as JSON for collectors."
    )
    log_level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_lower)] = _setting(
        "Server", "info", "Least severity that is logged; debug includes one line per request."
    )
    shutdown_seconds: float = _setting(
        "Server",
        8.0,
        "Time, in seconds, that running requests get to end after SIGTERM. Closing engine and store takes a few seconds"
        " more; together they stay within the 15 s after which careful orchestrators kill.",
        ge=0,
        le=600,
    )

    # Parallelism
    data_parallel_size: int = _setting(
        "Parallelism",
        1,
        "Ranks: copies of the model, each with a KV cache of its own. A session stays on one of them, so more ranks"
        " serve more sessions at once.",
        ge=1,
        le=1024,
    )
    tensor_parallel_size: int = _setting(
        "Parallelism",
        1,
        "Workers of each rank that share every layer, for a model that one GPU cannot hold or is too slow for. Must"
        " divide the model's attention heads.",
        ge=1,
        le=1024,
    )
    pipeline_parallel_size: int = _setting(
        "Parallelism", 1, "Workers of each rank that share its layers among each other.", ge=1, le=1024
    )
    data_parallel_address: str | None = _setting(
        "Parallelism",
        None,
        "Address of the server's machine as the others reach it. The engine's traffic is neither encrypted nor"
        " authenticated: let it be one of a network of their own. Unset: loopback.",
        min_length=1,
    )
    data_parallel_size_local: int | None = _setting(
        "Parallelism",
        None,
        "Ranks on this machine; other machines run `askahead engine` for the rest. Unset: all of them.",
        ge=0,
        le=1024,
    )
    data_parallel_rpc_port: int | None = _setting(
        "Parallelism",
        None,
        "Port at which the server waits for the ranks of other machines. Unset: 29550.",
        ge=1,
        le=65_535,
    )
    data_parallel_backend: Literal["mp", "ray"] = _setting(
        "Parallelism",
        "mp",
        "Who starts the ranks of other machines. mp: `askahead engine` there. ray: the Ray cluster that the server"
        " runs in.",
    )

    # Sessions
    max_sessions: int = _setting("Sessions", 256, "Most live sessions; one more is refused with 409.", ge=1, le=65_536)
    session_idle_seconds: float = _setting(
        "Sessions",
        3600.0,
        "A session nobody has used for this long, in seconds, is deleted, so that forgotten ones free their memory.",
        ge=1,
        le=31_536_000,
    )
    queue_entries: int = _setting(
        "Sessions",
        4096,
        "Most entries pushed and not yet read, per session; beyond it the oldest are dropped, and counted.",
        ge=1,
        le=1_000_000,
    )
    queue_bytes: int = _setting(
        "Sessions",
        8 * MIB,
        "The same bound in bytes of text, per session, so that large entries cannot exhaust memory.",
        ge=1024,
        le=1024 * MIB,
    )
    entry_bytes: int = _setting(
        "Sessions",
        1 * MIB,
        "Largest single entry, in bytes of UTF-8; larger ones are refused with 400.",
        ge=1,
        le=64 * MIB,
    )

    # Questions
    max_questions: int = _setting(
        "Questions",
        32,
        "Most questions in flight over all sessions; one more is refused with 429, since each slows the others.",
        ge=1,
        le=4096,
    )
    max_questions_per_session: int = _setting(
        "Questions", 8, "The same per session, so that one session cannot take every place.", ge=1, le=4096
    )
    max_flash_queries: int = _setting(
        "Questions", 20, "Most Flash Queries per session: each is answered again after every batch.", ge=1, le=1024
    )
    flash_concurrency: int = _setting(
        "Questions",
        16,
        "Most Flash Queries evaluated at once over all sessions; a wave of them shares engine steps.",
        ge=1,
        le=1024,
    )
    max_webhooks: int = _setting(
        "Questions",
        1024,
        "Most Flash Queries with a webhook over all sessions; each may keep one message waiting.",
        ge=1,
        le=65_536,
    )
    notify_private: bool = _setting(
        "Questions",
        False,
        "true lets webhooks be at loopback, private and reserved addresses. Off by default: whoever may register a"
        " query could reach what only this machine can.",
    )
    flash_history: int = _setting(
        "Questions",
        1000,
        "Past answers kept per Flash Query, so that a dashboard can draw them; the oldest go. 0 keeps none.",
        ge=0,
        le=100_000,
    )
    wait_seconds_max: float = _setting(
        "Questions",
        60.0,
        "Longest wait, in seconds, for data or an answer that is still to come (long polls, `after`).",
        ge=0,
        le=600,
    )

    # Connections
    max_body_bytes: int = _setting(
        "Connections", 16 * MIB, "Largest request body, in bytes; larger ones get 413.", ge=1024, le=1024 * MIB
    )
    max_bodies_bytes: int = _setting(
        "Connections",
        256 * MIB,
        "Most bytes of request bodies held at once over all connections; beyond it requests get 503.",
        ge=1024,
        le=65_536 * MIB,
    )
    request_timeout_seconds: float = _setting(
        "Connections",
        30.0,
        "Time, in seconds, in which a request's body must arrive, else 408; slow senders cannot hold memory.",
        ge=0.1,
        le=3600,
    )
    answer_timeout_seconds: float = _setting(
        "Connections",
        600.0,
        "Time, in seconds, in which an answer must begin, beside the waits that the request asks for (`wait`, `after`);"
        " else 503, so that nothing hangs for ever.",
        ge=0.1,
        le=86_400,
    )
    rate_limit: float | None = _setting(
        "Connections",
        None,
        "Requests per second that one client may send on average, messages on websockets included; more get 429. A"
        " client is a key, whose own rate in the file of keys goes first, or an address where no key is needed. Unset:"
        " no limit.",
        gt=0,
        le=1_000_000,
        allow_inf_nan=False,
    )
    rate_burst: int | None = _setting(
        "Connections",
        None,
        "Requests that a client may send at once after a pause. Unset: those of one second.",
        ge=1,
        le=1_000_000,
    )
    max_requests: int = _setting(
        "Connections",
        1024,
        "Most requests being served at once, without those that only wait for events; more get 503.",
        ge=1,
        le=1_000_000,
    )
    max_requests_per_client: int = _setting(
        "Connections",
        256,
        "The same per client; more get 429, so that one client cannot take every place.",
        ge=1,
        le=1_000_000,
    )
    max_subscriptions: int = _setting(
        "Connections",
        4096,
        "Most event streams, websockets and long polls open at once; more get 503. Each may keep a backlog waiting.",
        ge=1,
        le=1_000_000,
    )
    max_subscriptions_per_client: int = _setting(
        "Connections", 1024, "The same per client; more get 429.", ge=1, le=1_000_000
    )
    ws_frame_bytes: int = _setting(
        "Connections", 16 * MIB, "Largest websocket message from a client, in bytes.", ge=1024, le=1024 * MIB
    )
    ws_read_timeout_seconds: float = _setting(
        "Connections",
        30.0,
        "A websocket that is silent for this long, in seconds, pongs included, is closed; two heartbeats.",
        ge=0.1,
        le=3600,
    )
    heartbeat_seconds: float = _setting(
        "Connections",
        15.0,
        "Silence, in seconds, after which websockets and event streams get a heartbeat; proxies often cut at 30 s.",
        ge=0.1,
        le=3600,
    )
    subscriber_backlog: int = _setting(
        "Connections",
        1024,
        "Most events waiting for one slow subscriber; beyond it the connection is closed with the reason.",
        ge=1,
        le=1_000_000,
    )
    events_kept: int = _setting(
        "Connections",
        1000,
        "Events kept per session, so that a client that reconnects is told what it missed: minutes of a busy stream. A"
        " client that missed more starts from a snapshot.",
        ge=1,
        le=100_000,
    )

    @field_validator("context")
    @classmethod
    def _context_is_useful(cls, value: int | None) -> int | None:
        if value is not None and 0 < value < 256:
            raise ValueError("must be 0 (the model's trained length) or at least 256 tokens")
        return value

    @field_validator("data_parallel_size_local")
    @classmethod
    def _other_ranks_find_the_server(cls, value: int | None, info: ValidationInfo) -> int | None:
        ranks = info.data.get("data_parallel_size", 1)
        if value is not None and value > ranks:
            raise ValueError(f"must be at most --data-parallel-size, which is {ranks}")
        if value is not None and value < ranks and info.data.get("data_parallel_address") is None:
            raise ValueError("leaves ranks to other machines, which need --data-parallel-address to find the server")
        return value

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

    @field_validator("advertise_url")
    @classmethod
    def _url_is_http(cls, value: str | None) -> str | None:
        if value is not None:
            url = urlsplit(value)
            if url.scheme not in ("http", "https") or not url.hostname or url.query or url.fragment:
                raise ValueError("must be a URL such as http://10.0.0.3:8080")
        return None if value is None else value.rstrip("/")

    @field_validator("data_dir", "api_keys_file")
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
