"""Spans as OpenTelemetry has them, sent to a collector over OTLP/HTTP. Imported only where that is asked for.

Spans wait in a bounded queue, and a thread sends them. What finds no room, or no collector that answers, is left out:
nothing that is served waits for it.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import logging
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Link, SpanKind, Status, StatusCode
from opentelemetry.trace import Span as OtelSpan
from opentelemetry.trace import Tracer as OtelTracer
from opentelemetry.trace.propagation import get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from streams import tracing

log = logging.getLogger(__name__)

_QUEUE_SPANS = 4096
_SENT_SPANS = 512
_SEND_SECONDS = 1.0
_CLOSE_SECONDS = 2.0

_PROPAGATOR = TraceContextTextMapPropagator()
_KINDS: dict[tracing.Kind, SpanKind] = {
    "internal": SpanKind.INTERNAL,
    "server": SpanKind.SERVER,
    "client": SpanKind.CLIENT,
    "producer": SpanKind.PRODUCER,
}


@asynccontextmanager
async def exporting(endpoint: str, ratio: float) -> AsyncIterator[None]:
    """Inside, spans are recorded and sent; at the end, those that wait are sent, for two seconds at most.

    Args:
        endpoint: URL of an OTLP/HTTP receiver, without the path of traces. Headers, certificates and compression are
            the exporter's own variables, ``OTEL_EXPORTER_OTLP_*``.
        ratio: share of the traces that begin here that is recorded. Those that began elsewhere were decided on there.
    """
    # They report every batch that fails, and every span that finds no room; the exporter below says it once.
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
    ours = Resource({"service.name": "askahead", "service.version": importlib.metadata.version("askahead")})
    provider = TracerProvider(
        sampler=ParentBased(TraceIdRatioBased(ratio)),
        resource=ours.merge(OTELResourceDetector().detect()),
        shutdown_on_exit=False,
    )
    exporter = _Exporter(f"{endpoint}/v1/traces")
    provider.add_span_processor(
        BatchSpanProcessor(
            exporter,
            max_queue_size=_QUEUE_SPANS,
            max_export_batch_size=_SENT_SPANS,
            schedule_delay_millis=1000 * _SEND_SECONDS,
        )
    )
    try:
        with tracing.use(_Tracer(provider.get_tracer("askahead"))):
            yield
    finally:
        await _in_time(provider)


async def _in_time(provider: TracerProvider) -> None:
    """Have what waits sent, and give up after a while: the thread is a daemon, and does not keep the process."""
    loop, sent = asyncio.get_running_loop(), asyncio.Event()

    def shut_down() -> None:
        provider.shutdown()
        # Where the loop is closed nobody waits any more.
        if not loop.is_closed():
            loop.call_soon_threadsafe(sent.set)

    threading.Thread(target=shut_down, name="traces-out", daemon=True).start()
    try:
        async with asyncio.timeout(_CLOSE_SECONDS):
            await sent.wait()
    except TimeoutError:
        log.warning("the trace collector does not answer: what was still to be sent to it is lost")


class _Exporter(OTLPSpanExporter):
    """Says once that spans do not arrive, and once that they do again."""

    def __init__(self, endpoint: str) -> None:
        super().__init__(endpoint=endpoint)
        self._failing = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = super().export(spans)
        failing = result is not SpanExportResult.SUCCESS
        if failing and not self._failing:
            log.warning(
                "traces do not arrive, and are left out until they do: check --otlp-endpoint and the collector there"
            )
        elif self._failing and not failing:
            log.info("traces arrive again")
        self._failing = failing
        return result


class _Span(tracing.Recorded):
    def __init__(self, span: OtelSpan) -> None:
        context = span.get_span_context()
        super().__init__(f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}")
        self._span = span

    def set(self, attributes: tracing.Attributes) -> None:
        self._span.set_attributes(attributes)

    def end(self, error: BaseException | str | None = None) -> None:
        if error is not None:
            self._span.set_attribute("error.type", error if isinstance(error, str) else type(error).__name__)
        # What is cancelled was not wanted any more, which is no fault.
        if isinstance(error, Exception | str):
            self._span.set_status(Status(StatusCode.ERROR))
        self._span.end()


class _Tracer:
    """A :class:`~streams.tracing.Tracer`."""

    def __init__(self, tracer: OtelTracer) -> None:
        self._tracer = tracer

    def start(
        self,
        name: str,
        attributes: tracing.Attributes,
        parent: str,
        links: Sequence[str],
        kind: tracing.Kind,
    ) -> tracing.Span:
        linked = [Link(get_current_span(_named(one)).get_span_context()) for one in links]
        return _Span(self._tracer.start_span(name, _named(parent), _KINDS[kind], attributes, linked))


def _named(traceparent: str) -> Context:
    """A context with the span of that name; an empty one if it is none."""
    return _PROPAGATOR.extract({"traceparent": traceparent})
