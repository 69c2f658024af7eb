"""Refusals of the core in the old generation's words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from streams.errors import AskaheadError


@contextmanager
def renaming(names: Mapping[str, str | None]) -> Iterator[None]:
    """Refusals call fields by ``names``, given those of the core; None names a field that the request does not have."""
    try:
        yield
    except AskaheadError as error:
        if error.param is None or error.param not in names:
            raise
        name, message = names[error.param], error.message.removeprefix(f"{error.param}: ")
        raise type(error)(
            message if name is None else f"{name}: {message}",
            code=error.code,
            param=name,
            retry_after=error.retry_after,
        ) from None
