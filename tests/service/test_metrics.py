from __future__ import annotations

from aiohttp import web
from prometheus_client.parser import text_string_to_metric_families

from service import keys
from service.metrics import Metrics
from streams.errors import Conflict
from tests.service.edge import edge_app, ok, serving


def _samples(metrics: Metrics) -> dict[str, float]:
    return {
        sample.name + "".join(sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(metrics.render().decode())
        for sample in family.samples
    }


def test_counters_and_gauges_are_exposed_as_such() -> None:
    metrics = Metrics(lambda: {"queued": 2.0, "kv_pages_free": 7})
    metrics.counters.requests_ok += 3
    kinds = {family.name: family.type for family in text_string_to_metric_families(metrics.render().decode())}
    assert kinds["askahead_requests_ok"] == "counter"
    assert kinds["askahead_queued"] == "gauge"
    assert kinds["askahead_push_ack_seconds"] == "histogram"
    samples = _samples(metrics)
    assert samples["askahead_requests_ok_total"] == 3
    assert samples["askahead_queued"] == 2
    assert samples["askahead_kv_pages_free"] == 7
    assert samples["askahead_sessions"] == 0
    assert samples["askahead_uptime_seconds"] >= 0


def test_every_counter_has_a_series() -> None:
    metrics = Metrics(dict)
    samples = _samples(metrics)
    for name in metrics.totals():
        assert samples[f"askahead_{name}_total"] == 0


def test_measurements_fall_into_buckets() -> None:
    metrics = Metrics(dict)
    metrics.flash_hit.observe(0.0009)
    metrics.answer_staleness_versions.observe(2)
    samples = _samples(metrics)
    assert samples["askahead_flash_hit_seconds_bucket0.001"] == 1
    assert samples["askahead_flash_hit_seconds_bucket0.0005"] == 0
    assert samples["askahead_answer_staleness_versions_bucket2.0"] == 1
    assert samples["askahead_answer_staleness_versions_bucket1.0"] == 0


def test_two_servers_in_one_process_count_apart() -> None:
    one, other = Metrics(dict), Metrics(dict)
    one.counters.steps += 1
    one.push_ack.observe(1)
    assert _samples(other)["askahead_steps_total"] == 0
    assert _samples(other)["askahead_push_ack_seconds_count"] == 0


async def test_requests_are_counted_by_route_and_not_by_path() -> None:
    async def refuse(request: web.Request) -> web.Response:
        raise Conflict("no")

    app = edge_app([web.get("/v1/things/{id}", ok), web.post("/v1/things/{id}", refuse)])
    async with serving(app) as client:
        for name in ("LOCK", "PROPFIND", "SUBSCRIBE"):
            await client.get(f"/v1/things/{name}")
            await client.get(f"/nowhere/{name}")
            await client.request(name, "/nowhere")
        await client.post("/v1/things/a", json={})
    requests = app[keys.METRICS].http_requests
    told = 'askahead_http_requests_total{method="GET",route="/v1/things/{id}",status="200"} 3.0'
    assert told in app[keys.METRICS].render().decode().splitlines()
    assert requests["GET", "/v1/things/{id}", 200] == 3
    assert requests["POST", "/v1/things/{id}", 409] == 1
    assert requests["GET", "unmatched", 404] == 3
    assert requests["other", "unmatched", 404] == 3


async def test_connections_are_those_being_served() -> None:
    async def see(request: web.Request) -> web.Response:
        return web.json_response(request.app[keys.METRICS].gauges())

    app = edge_app([web.get("/see", see)])
    async with serving(app) as client:
        assert (await (await client.get("/see")).json())["connections"] == 1
    assert app[keys.METRICS].gauges()["connections"] == 0
