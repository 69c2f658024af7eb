"""What the server counts and measures, for ``/health`` and for Prometheus.

Each application has a registry of its own, so several can live in one process.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields

from aiohttp import web
from prometheus_client import CollectorRegistry, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

PREFIX = "askahead"
CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

# Seconds. From what a cache or a queue needs, and from what a model needs.
_FAST = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
_SLOW = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_VERSIONS = (0.0, 1.0, 2.0, 3.0, 5.0, 10.0, 25.0, 100.0)

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def _count(description: str) -> int:
    count: int = field(default=0, metadata={"description": description})
    return count


@dataclass(slots=True)
class Counters:
    """Totals since the server started. Zero where this server has no such thing."""

    steps: int = _count("Pieces of text the engine has produced.")
    preemptions: int = _count("Requests the engine had to put off for lack of KV cache.")
    graph_captures: int = _count("Decode graphs captured during a request.")
    requests_started: int = _count("Requests for generation accepted.")
    requests_ok: int = _count("Requests for generation that ended well.")
    requests_failed: int = _count("Requests for generation that failed.")
    requests_cancelled: int = _count("Requests for generation whose client left.")
    prompt_tokens: int = _count("Prompt tokens of all requests.")
    generated_tokens: int = _count("Tokens generated.")
    session_turns: int = _count("Chat turns in sessions.")
    prefix_cached_tokens: int = _count("Prompt tokens found in the prefix cache.")
    prefix_window_miss_tokens: int = _count("Prompt tokens computed again because an attention window had lost them.")
    session_cached_tokens: int = _count("Prompt tokens that a session held already.")
    session_snapshot_evictions: int = _count("Idle sessions whose saved state was taken for a running request.")
    session_ingested_tokens: int = _count("Tokens of pushed data read.")
    session_window_moves: int = _count("Times that a session's window moved on.")
    session_window_tokens: int = _count("Tokens read anew because a window moved on.")
    session_warm_turns: int = _count("Warm turns run.")
    session_warmed_tokens: int = _count("Tokens read by warm turns.")
    session_flash_hits: int = _count("Generations answered from the flash cache.")
    session_ready_exits: int = _count("Generations answered from the ready position.")
    tool_calls_malformed: int = _count("Tool calls that could not be read.")
    tool_calls_recovered: int = _count("Tool calls read in spite of errors.")
    tool_calls_jump_forward: int = _count("Tool call tokens that were known and not sampled.")
    tool_calls_forced_tokens: int = _count("Tool call tokens forced by the grammar.")
    session_call_turns_exact: int = _count("Session turns with tool calls that matched what the session held.")
    session_call_turns_diverged: int = _count("Session turns with tool calls that did not match.")
    notifications_delivered: int = _count("Changed answers told to webhooks.")
    notifications_failed: int = _count("Changed answers given up, since their webhook did not take them.")


GAUGES = {
    "engine_ready": "Whether the engine is loaded and alive.",
    "store_away": "Whether what is to be written waits for a Redis that does not answer.",
    "queued": "Requests waiting for the engine.",
    "running": "Requests the engine is working on.",
    "kv_pages_total": "Blocks of KV cache.",
    "kv_pages_free": "Blocks of KV cache not held by a session or a request.",
    "connections": "Requests, event streams and websockets being served.",
    "sessions": "Live sessions.",
    "sessions_resident": "Sessions that the engine holds.",
    "sessions_warm": "Sessions let go to make room; the prefix cache may have them still.",
    "sessions_cold": "Sessions of which there are only tokens.",
    "sessions_restoring": "Sessions that are being read again after a restart, of the engine or of the server.",
    "session_kv_tokens": "Tokens that the engine holds for sessions.",
}
"""Present values, and what each means."""

Gauges = Callable[[], Mapping[str, float]]
"""Reads present values by their names in :data:`GAUGES`; what it leaves out is 0."""


class Metrics:
    """Everything counted and measured.

    Args:
        gauges: reads the present values, except ``connections``, which is counted here.

    Attributes:
        registry: all of it, for whoever exposes it.
        counters: the totals; whoever does the thing adds to them.
        push_ack: seconds from a push's arrival to its acknowledgement.
        ingest: seconds from accepting an entry to its being resident.
        flash_evaluation: seconds to evaluate one Flash Query.
        flash_hit: seconds to answer from the flash cache.
        generate_first_token: seconds from a request for generation to its first token.
        generate_total: seconds from a request for generation to its end.
        http_requests: by method, route and status.
        answer_staleness_versions: data versions a stream had moved on by when an answer over it was ready.
    """

    def __init__(self, gauges: Gauges) -> None:
        self.counters = Counters()
        self.connections = 0
        self._gauges = gauges
        self._started = time.monotonic()
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(_Snapshot(self))
        ProcessCollector(registry=self.registry)
        self.push_ack = self._seconds("push_ack", "From a push's arrival to its acknowledgement.", _FAST)
        self.ingest = self._seconds("ingest", "From accepting an entry to its being resident.", _SLOW)
        self.flash_evaluation = self._seconds("flash_evaluation", "Evaluating one Flash Query.", _SLOW)
        self.flash_hit = self._seconds("flash_hit", "Answering from the flash cache.", _FAST)
        self.generate_first_token = self._seconds("generate_first_token", "From request to first token.", _SLOW)
        self.generate_total = self._seconds("generate", "From request to the end of its answer.", _SLOW)
        self.answer_staleness_versions = Histogram(
            f"{PREFIX}_answer_staleness_versions",
            "By how many data versions the stream had moved on when an answer was ready.",
            buckets=_VERSIONS,
            registry=self.registry,
        )
        # Not the library's counters: to find that of some labels takes longer than to answer a poll.
        self.http_requests: Counter[tuple[str, str, int]] = Counter()

    def _seconds(self, name: str, description: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"{PREFIX}_{name}_seconds", f"{description} Seconds.", buckets=buckets, registry=self.registry)

    @property
    def uptime(self) -> float:
        """Seconds since the server started."""
        return time.monotonic() - self._started

    def count(self, request: web.Request, status: int) -> None:
        """Count a request that was answered with this status."""
        self.count_one(*route_of(request), status)

    def count_one(self, method: str, route: str, status: int) -> None:
        """The same of one that was not routed."""
        self.http_requests[method, route, status] += 1

    def gauges(self) -> dict[str, int]:
        """The present values, every one of :data:`GAUGES`."""
        present = {**self._gauges(), "connections": self.connections}
        return {name: int(present.get(name, 0)) for name in GAUGES}

    def totals(self) -> dict[str, int]:
        """The counters by name."""
        return {item.name: getattr(self.counters, item.name) for item in fields(self.counters)}

    def render(self) -> bytes:
        """Prometheus text, format 0.0.4."""
        return generate_latest(self.registry)


def route_of(request: web.Request) -> tuple[str, str]:
    """A request's method and route. Neither grows with what clients make up: paths and methods can be anything."""
    resource = request.match_info.route.resource
    return (
        request.method if request.method in _METHODS else "other",
        resource.canonical if resource is not None else "unmatched",
    )


class _Snapshot(Collector):
    """Exposes the plain counters and gauges, read when asked."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        for item in fields(self._metrics.counters):
            total = getattr(self._metrics.counters, item.name)
            yield CounterMetricFamily(f"{PREFIX}_{item.name}", item.metadata["description"], total)
        for name, value in self._metrics.gauges().items():
            yield GaugeMetricFamily(f"{PREFIX}_{name}", GAUGES[name], value)
        requests = CounterMetricFamily(
            f"{PREFIX}_http_requests",
            "HTTP requests by method, route and status.",
            labels=("method", "route", "status"),
        )
        for (method, route, status), count in self._metrics.http_requests.items():
            requests.add_metric((method, route, str(status)), count)
        yield requests
        yield GaugeMetricFamily(f"{PREFIX}_uptime_seconds", "Seconds since the start.", self._metrics.uptime)
