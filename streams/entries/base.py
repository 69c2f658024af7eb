"""What an entry type is: how an entry is read, how it is written for the model, and which statistics are kept."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Generic, Protocol, TypeAlias, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from streams.errors import InvalidInput

# What a type's `parse` returns, and its `line` and statistics take; nothing else looks inside.
Record: TypeAlias = Any

_MAX_NAME = 128
_ECHO_LIMIT = 100


def _printable(value: str) -> str:
    if not value.isprintable():
        raise ValueError("String should be one line of printable characters")
    return value


Int64 = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]
Name = Annotated[str, Field(min_length=1, max_length=_MAX_NAME), AfterValidator(_printable)]


class Entry(BaseModel, ABC):
    """Base of the built-in types' entries: nothing unknown, nothing coerced, no infinities, immutable."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)

    timestamp: Int64 | None = None
    """Unix time in seconds."""

    @abstractmethod
    def fields(self) -> str:
        """The entry as the model reads it: one line, without the timestamp and the newline."""


R = TypeVar("R")
E = TypeVar("E", bound=Entry)
V = TypeVar("V", contravariant=True)


class Accumulator(Protocol[V]):
    """A running figure; see :mod:`streams.entries.accumulators`."""

    def add(self, value: V) -> None: ...

    def drop(self, value: V) -> None: ...

    def state(self) -> Any: ...

    def restore(self, state: object) -> None: ...


A = TypeVar("A", bound=Accumulator[Any])


class Statistics(ABC, Generic[R]):
    """Running statistics of a stream's entries.

    Args:
        windowed: over the entries that have not been dropped, whose records are kept; otherwise over all entries
            ever added, in constant memory.
    """

    def __init__(self, windowed: bool) -> None:
        self.count = 0
        self.first: R | None = None
        self.last: R | None = None
        self._records: deque[R] | None = deque() if windowed else None
        self._of_each: list[tuple[Accumulator[Any], Callable[[R], Any]]] = []
        self._of_pairs: list[tuple[Accumulator[Any], Callable[[R, R], Any]]] = []

    def each(self, accumulator: A, value: Callable[[R], Any]) -> A:
        """Feed ``accumulator`` a value of each entry."""
        self._of_each.append((accumulator, value))
        return accumulator

    def pairs(self, accumulator: A, value: Callable[[R, R], Any]) -> A:
        """Feed ``accumulator`` a value of each entry but the first, taken from the entry before it and itself."""
        self._of_pairs.append((accumulator, value))
        return accumulator

    def add(self, record: R) -> None:
        """The newest entry comes in."""
        for accumulator, of in self._of_each:
            accumulator.add(of(record))
        if self.last is not None:
            for accumulator, between in self._of_pairs:
                accumulator.add(between(self.last, record))
        if self._records is not None:
            self._records.append(record)
        if self.count == 0:
            self.first = record
        self.last = record
        self.count += 1

    def drop(self) -> None:
        """The oldest entry goes. Only if windowed, and not empty."""
        if not self._records:
            raise ValueError("only windowed statistics that cover an entry can drop one")
        record = self._records.popleft()
        self.count -= 1
        self.first = self._records[0] if self._records else None
        for accumulator, of in self._of_each:
            accumulator.drop(of(record))
        if self.first is None:
            self.last = None
        else:
            for accumulator, between in self._of_pairs:
                accumulator.drop(between(record, self.first))

    def state(self, pack: Callable[[R], Any]) -> dict[str, Any]:
        """What :meth:`restore` takes, of msgpack's types; ``pack`` is the entry type's. Not if windowed.

        Windowed statistics come from the entries in the window.
        """
        if self._records is not None:
            raise ValueError("windowed statistics are made of their entries again")
        return {
            "count": self.count,
            "ends": [None if record is None else pack(record) for record in (self.first, self.last)],
            "figures": [accumulator.state() for accumulator, _ in (*self._of_each, *self._of_pairs)],
        }

    def restore(self, state: object, unpack: Callable[[object], R]) -> None:
        """Become what had this state, from empty statistics of the same type; ``unpack`` is the entry type's.

        Raises:
            ValueError: it is no state of such statistics; they are of no use any more.
        """
        match state:
            case {"count": int(count), "ends": [first, last], "figures": [*figures]} if count >= 0:
                self.count = count
                self.first, self.last = (None if packed is None else unpack(packed) for packed in (first, last))
                for (accumulator, _), figure in zip((*self._of_each, *self._of_pairs), figures, strict=True):
                    accumulator.restore(figure)
            case _:
                raise ValueError("statistics are kept as count, ends and figures")

    @abstractmethod
    def report(self) -> dict[str, Any]:
        """The figures, of JSON's types; every field is there, 0 or empty where ``count`` is 0."""


class EntryType(ABC):
    """A kind of entry that a stream may consist of.

    Attributes:
        name: what clients call it.
    """

    name: str

    @abstractmethod
    def parse(self, value: object, param: str) -> Record:
        """Validate an entry.

        Args:
            value: decoded JSON from a client.
            param: what to call the entry when it is refused.

        Raises:
            InvalidInput: it is none of this type; ``param`` is the path of the first offending field.
        """

    @abstractmethod
    def line(self, record: Record) -> str:
        """An entry as the model reads it: one line of bounded length, without its newline."""

    @abstractmethod
    def statistics(self, windowed: bool) -> Statistics[Any]:
        """Empty statistics of entries of this type."""

    @property
    @abstractmethod
    def definition(self) -> str | dict[str, Any]:
        """What :func:`streams.entries.unpack_type` makes the type of, of msgpack's types."""

    @abstractmethod
    def pack(self, record: Record) -> dict[str, Any]:
        """An entry in msgpack's types."""

    @abstractmethod
    def unpack(self, packed: object) -> Record:
        """The entry that was packed.

        Raises:
            ValueError: it is none of this type.
        """


class BuiltIn(EntryType, Generic[E]):
    """A type whose entries are a pydantic model."""

    def __init__(self, name: str, entry: type[E], statistics: Callable[[bool], Statistics[E]]) -> None:
        self.name = name
        self._entry = entry
        self._statistics = statistics

    @property
    def fields(self) -> Mapping[str, FieldInfo]:
        """What its entries hold, as pydantic knows it."""
        return self._entry.model_fields

    def parse(self, value: object, param: str) -> E:
        fields = ", ".join(self._entry.model_fields)
        if not isinstance(value, dict):
            raise InvalidInput(f"{param}: must be an object of type {self.name}, with {fields}", param=param)
        try:
            return self._entry.model_validate(value)
        except ValidationError as exc:
            detail = exc.errors(include_url=False, include_context=False, include_input=False)[0]
        path = ".".join((param, *(str(part)[:_ECHO_LIMIT] for part in detail["loc"])))
        if detail["type"] == "extra_forbidden":
            raise InvalidInput(f"`{path}` is no field of {self.name}; there are {fields}", param=path)
        raise InvalidInput(f"{path}: {detail['msg'].removeprefix('Value error, ')}", param=path)

    def line(self, record: E) -> str:
        fields = record.fields()
        return fields if record.timestamp is None else f"@{record.timestamp} {fields}"

    def statistics(self, windowed: bool) -> Statistics[E]:
        return self._statistics(windowed)

    @property
    def definition(self) -> str:
        return self.name

    def pack(self, record: E) -> dict[str, Any]:
        # All fields are flat, and this takes a third of the time of pydantic's own way.
        return {name: value for name, value in vars(record).items() if value is not None}

    def unpack(self, packed: object) -> E:
        return self._entry.model_validate(packed)
