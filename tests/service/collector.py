"""A collector of traces: a real OTLP/HTTP receiver that keeps what it was sent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp import web
from aiohttp.test_utils import TestServer
from multidict import CIMultiDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SentSpan
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from tests.apps import until


@dataclass(frozen=True)
class Span:
    """What arrived of one.

    Attributes:
        trace, id, parent: hexadecimal; ``parent`` is empty where the span begins a trace.
        kind: as OTLP names it, in lower case.
        links: trace and id of each.
        failed: whether its status is an error.
    """

    name: str
    trace: str
    id: str
    parent: str
    kind: str
    attributes: dict[str, object]
    links: list[tuple[str, str]]
    failed: bool


class Collector:
    """Use :func:`collecting`.

    Attributes:
        url: what ``--otlp-endpoint`` is given.
        spans: what arrived, in order.
        resource: attributes of whoever sent it.
        headers: of the last request.
        status: what it answers with.
        open: while cleared, it does not answer.
    """

    def __init__(self) -> None:
        self.url = ""
        self.spans: list[Span] = []
        self.resource: dict[str, object] = {}
        self.headers: CIMultiDict[str] = CIMultiDict()
        self.status = 200
        self.open = asyncio.Event()
        self.open.set()

    async def handle(self, request: web.Request) -> web.Response:
        sent = ExportTraceServiceRequest.FromString(await request.read())
        await self.open.wait()
        if self.status == 200:
            self.headers = request.headers.copy()
            for whose in sent.resource_spans:
                self.resource = {item.key: _value(item.value) for item in whose.resource.attributes}
                self.spans += [_span(span) for scope in whose.scope_spans for span in scope.spans]
        return web.Response(status=self.status)

    def named(self, name: str) -> list[Span]:
        """Those of that name."""
        return [span for span in self.spans if span.name == name]

    async def one(self, name: str) -> Span:
        """The only one of that name, once it is there."""
        await until(lambda: self.named(name))
        (span,) = self.named(name)
        return span

    async def of(self, name: str, parent: Span) -> Span:
        """The only part of that name of another, once it is there."""

        def parts() -> list[Span]:
            return [span for span in self.named(name) if (span.trace, span.parent) == (parent.trace, parent.id)]

        await until(parts)
        (span,) = parts()
        return span


@asynccontextmanager
async def collecting() -> AsyncIterator[Collector]:
    """A collector on loopback."""
    collector = Collector()
    app = web.Application(client_max_size=64 << 20)
    app.router.add_post("/v1/traces", collector.handle)
    async with TestServer(app, handler_cancellation=True) as server:
        collector.url = str(server.make_url("/")).rstrip("/")
        yield collector
        collector.open.set()


def _span(span: SentSpan) -> Span:
    return Span(
        name=span.name,
        trace=span.trace_id.hex(),
        id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        kind=SentSpan.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
        attributes={item.key: _value(item.value) for item in span.attributes},
        links=[(link.trace_id.hex(), link.span_id.hex()) for link in span.links],
        failed=span.status.code == Status.STATUS_CODE_ERROR,
    )


def _value(value: AnyValue) -> object:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(item) for item in value.array_value.values]
    return getattr(value, str(kind))


def texts(spans: list[Span]) -> Iterator[str]:
    """Everything that spans say."""
    for span in spans:
        yield span.name
        yield from map(str, span.attributes.values())
