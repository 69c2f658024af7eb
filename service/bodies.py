"""Request bodies and query strings in, response bodies out: bounded, strict, JSON or msgpack.

Msgpack is another spelling of JSON here: what JSON cannot say (binary, extension types, NaN, keys that are no strings)
is refused, and both spellings are validated by the same rules.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, NoReturn, TypeVar, get_origin

import msgpack
import orjson
from aiohttp import web
from aiohttp.http_exceptions import BadHttpMessage
from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, ValidationError
from pydantic_core import CoreSchema, ErrorDetails

from service import errors, keys
from service.budget import BodyBudget
from service.settings import Settings
from streams.errors import InvalidInput, short

MSGPACK = "application/msgpack"
MSGPACK_TYPES = frozenset({MSGPACK, "application/x-msgpack", "application/vnd.msgpack"})

_MESSAGE_LIMIT = 500
_ERRORS_MAX = 1000

M = TypeVar("M", bound=BaseModel)


def _fail_fast(part: object) -> None:
    """Have lists end at their first bad item: millions of errors would take minutes and gigabytes to collect."""
    if isinstance(part, dict):
        if part.get("type") in ("list", "tuple"):
            part["fail_fast"] = True
        for inner in part.values():
            _fail_fast(inner)
    elif isinstance(part, list):
        for inner in part:
            _fail_fast(inner)


class Strict(BaseModel):
    """Base of every request model: nothing unknown, nothing coerced, no infinities, immutable."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema = handler(source)
        _fail_fast(schema)
        return schema


async def read_model(request: web.Request, model: type[M], *, allow_empty: bool = False) -> M:
    """Read and validate a body.

    Args:
        request: the request.
        model: what the body must be.
        allow_empty: take an absent body for an empty object.

    Raises:
        InvalidInput: it is no valid ``model``; ``param`` is the first offending field as a dotted path.
        errors.BodyTooLarge, errors.RequestTimedOut: it exceeds the limits.
        Unavailable: all bodies together exceed theirs.
    """
    if not request.body_exists:
        if allow_empty:
            return parse(b"{}", "application/json", model)
        raise InvalidInput("a body is required: a JSON object", param="body")
    # aiohttp reports application/octet-stream where the header is missing.
    content_type = request.content_type
    if not _is_json(content_type) and content_type not in MSGPACK_TYPES:
        raise InvalidInput("content-type: must be application/json or application/msgpack", param="content-type")
    body = bytearray()
    budget = request.app[keys.BODIES]
    try:
        await _receive(request, body, request.app[keys.SETTINGS], budget)
        if allow_empty and not body:
            return parse(b"{}", "application/json", model)
        return parse(bytes(body), content_type, model)
    finally:
        budget.give_back(len(body))


async def _receive(request: web.Request, body: bytearray, settings: Settings, budget: BodyBudget) -> None:
    limit = settings.max_body_bytes
    too_large = errors.BodyTooLarge(f"the body exceeds {limit} bytes; send it in parts", param="body")
    if (request.content_length or 0) > limit:
        raise too_large
    try:
        async with asyncio.timeout(settings.request_timeout_seconds):
            # Chunks are counted after decompression, so a small body cannot become a large one unseen.
            async for chunk in request.content.iter_any():
                if len(body) + len(chunk) > limit:
                    raise too_large
                budget.take(len(chunk))
                body += chunk
    except TimeoutError:
        raise errors.RequestTimedOut(
            f"the body did not arrive within {settings.request_timeout_seconds:g} seconds", param="body"
        ) from None
    except (web.RequestPayloadError, BadHttpMessage):
        raise InvalidInput("the body's transfer or content encoding is broken", param="body") from None


def parse(body: bytes, content_type: str, model: type[M]) -> M:
    """Decode and validate a body that has arrived.

    Raises:
        InvalidInput: as :func:`read_model`.
    """
    decoded, canonical = _from_msgpack(body) if content_type in MSGPACK_TYPES else _from_json(body)
    if not isinstance(decoded, dict):
        raise InvalidInput("the body must be an object", param="body")
    try:
        # Validated as JSON, and not as Python objects, since strictness is defined for JSON's own types there: an
        # array is a valid tuple, say.
        return model.model_validate_json(canonical)
    except ValidationError as exc:
        raise invalid(exc, decoded) from None


def _from_json(body: bytes) -> tuple[Any, bytes]:
    try:
        decoded = orjson.loads(body)
        # Written anew because orjson has turned integers beyond 64 bits, which nothing here could store or send, into
        # floats; so integer fields refuse them.
        return decoded, orjson.dumps(decoded)
    except orjson.JSONDecodeError as exc:
        raise InvalidInput(f"the body is not valid JSON: {exc}"[:_MESSAGE_LIMIT], param="body") from None
    except orjson.JSONEncodeError:
        raise InvalidInput("the body is nested too deeply", param="body") from None


def _from_msgpack(body: bytes) -> tuple[Any, bytes]:
    try:
        decoded = msgpack.unpackb(body, raw=False, strict_map_key=True, max_ext_len=0, ext_hook=_refuse_extension)
        return decoded, json.dumps(decoded, allow_nan=False, ensure_ascii=False).encode()
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as exc:
        reason = "it is nested too deeply" if isinstance(exc, RecursionError) else str(exc)
        raise InvalidInput(
            f"the body is not msgpack of JSON's types: {reason or type(exc).__name__}"[:_MESSAGE_LIMIT], param="body"
        ) from None


def _refuse_extension(code: int, data: bytes) -> NoReturn:
    raise ValueError("extension types are not supported")


def query_model(request: web.Request, model: type[M]) -> M:
    """Validate a query string; its texts are coerced to the fields' types. What may be repeated is a tuple.

    Raises:
        InvalidInput: a parameter is unknown, repeated or of the wrong form; ``param`` names it.
    """
    query: dict[str, str | list[str]] = {}
    for name in dict.fromkeys(request.query):
        values = request.query.getall(name)
        field = model.model_fields.get(name)
        if field is not None and get_origin(field.annotation) is tuple:
            query[name] = values
        elif len(values) > 1:
            raise InvalidInput(f"{short(name)}: is given more than once", param=short(name))
        else:
            query[name] = values[0]
    try:
        return model.model_validate(query, strict=False) if query else _of_nothing(model)
    except ValidationError as exc:
        raise invalid(exc, query) from None


@cache
def _of_nothing(model: type[M]) -> M:
    return model()


def invalid(exc: ValidationError, value: object) -> InvalidInput:
    """Describe the first offending field of ``value``, without repeating what the client sent."""
    if exc.error_count() > _ERRORS_MAX:
        # Looking at each would take longer than the event loop may be held up.
        return InvalidInput(
            f"the body has {exc.error_count()} fields that are wrong or not supported by this endpoint; is it meant "
            "for another?",
            param="body",
        )
    details = exc.errors(include_url=False, include_context=False, include_input=False)
    paths = [_path(detail, value) for detail in details]
    # A union reports each of its branches. The branch that got furthest is the one that was meant.
    path = max((path for path in paths if path[: len(paths[0])] == paths[0]), key=len)
    here = [detail for detail, other in zip(details, paths, strict=True) if other == path]
    param = ".".join(short(part) for part in path) or "body"
    if here[0]["type"] == "extra_forbidden":
        return InvalidInput(f"`{param}` is not supported by this endpoint", param=param)
    reasons = dict.fromkeys(detail["msg"].removeprefix("Value error, ") for detail in here)
    return InvalidInput(f"{param}: {'; or '.join(reasons)}"[:_MESSAGE_LIMIT], param=param)


def _path(detail: ErrorDetails, value: object) -> tuple[str | int, ...]:
    """Pydantic's location without the names of union branches, which mean nothing to a client."""
    path: list[str | int] = []
    for depth, part in enumerate(detail["loc"], start=1):
        # A body's own fields come first; a default of theirs may be wrong beside others.
        absent = depth == 1 or (detail["type"] == "missing" and depth == len(detail["loc"]))
        if isinstance(value, Mapping) and (part in value or absent):
            value = value.get(part)
        elif isinstance(value, Sequence) and isinstance(part, int) and part < len(value):
            value = value[part]
        else:
            continue
        path.append(part)
    return tuple(path)


def wants_msgpack(request: web.BaseRequest) -> bool:
    """True if the client names msgpack in ``Accept`` and does not prefer JSON. Wildcards mean JSON."""
    return _prefers_msgpack(",".join(request.headers.getall("Accept", ())))


# Clients send the same with every request.
@lru_cache(maxsize=256)
def _prefers_msgpack(accept: str) -> bool:
    quality = {"json": 0.0, "msgpack": 0.0}
    for part in accept.split(","):
        kind, *parameters = (piece.strip().lower() for piece in part.split(";"))
        spelling = "msgpack" if kind in MSGPACK_TYPES else "json" if _is_json(kind) else None
        if spelling is not None:
            quality[spelling] = max(quality[spelling], _quality(parameters))
    return quality["msgpack"] > 0 and quality["msgpack"] >= quality["json"]


def _is_json(content_type: str) -> bool:
    return content_type == "application/json" or content_type.endswith("+json")


def _quality(parameters: Sequence[str]) -> float:
    for parameter in parameters:
        name, _, text = parameter.partition("=")
        if name.strip() == "q":
            try:
                return float(text)
            except ValueError:
                return 0.0
    return 1.0


@dataclass(frozen=True, slots=True)
class RawJson:
    """Valid JSON to send as it is, with all the digits of its numbers."""

    text: str


def _json(payload: Mapping[str, Any]) -> bytes:
    return orjson.dumps(payload, default=_embedded, option=orjson.OPT_PASSTHROUGH_DATACLASS)


def _embedded(value: object) -> orjson.Fragment:
    if isinstance(value, RawJson):
        return orjson.Fragment(value.text)
    raise TypeError(f"{type(value).__name__} cannot be sent")


def _decoded(value: object) -> Any:
    # Msgpack has no integers beyond 64 bits either: they become floats.
    if isinstance(value, RawJson):
        return orjson.loads(value.text)
    raise TypeError(f"{type(value).__name__} cannot be sent")


def respond(
    request: web.BaseRequest,
    payload: Mapping[str, Any],
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
) -> web.Response:
    """A response in the spelling the client asked for: JSON, or msgpack."""
    if wants_msgpack(request):
        body, content_type = msgpack.packb(payload, default=_decoded), MSGPACK
    else:
        body, content_type = _json(payload), "application/json"
    response = web.Response(status=status, body=body, content_type=content_type, headers=headers)
    response.headers.add("Vary", "Accept")
    return response
