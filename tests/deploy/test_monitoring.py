"""What watches the server speaks of metrics that there are, and its alerts fire."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from service.metrics import Metrics
from tests.servers import FAST, Server, serving

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "deploy" / "monitoring"
NAME = re.compile(r"\b((?:askahead|process)_[a-z0-9_]+)\b")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One that has answered something."""
    with serving(FAST, tmp_path_factory.mktemp("data")) as server:
        httpx.get(f"{server.url}/v1/models").raise_for_status()
        yield server


@pytest.fixture(scope="module")
def text(server: Server) -> str:
    """What Prometheus would be told."""
    return httpx.get(f"{server.url}/metrics").raise_for_status().text


@pytest.fixture(scope="module")
def samples(text: str) -> set[str]:
    """The names of all samples."""
    return {line.split("{")[0].split(" ")[0] for line in text.splitlines() if line and not line.startswith("#")}


def families() -> dict[str, str]:
    """The names that a reader would use, and their types, as the code has them."""
    return {
        family.name + ("_total" if family.type == "counter" else ""): family.type
        for family in Metrics(dict).registry.collect()
    }


def test_the_page_has_every_metric_and_no_other() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text()
    assert set(NAME.findall(page)) == set(families())
    for name, kind in re.findall(r"^\| `(\w+)` \| (counter|gauge) \|", page, re.MULTILINE):
        assert families()[name] == kind, name


def test_names_follow_conventions() -> None:
    for name, kind in families().items():
        if kind == "histogram":
            assert name.endswith(("_seconds", "_versions")), name
        assert not name.endswith(("_ms", "_milliseconds", "_minutes", "_mb", "_kb")), name


def test_promtool_finds_no_fault_with_the_metrics(text: str) -> None:
    found = subprocess.run([promtool(), "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    # It takes a gauge that ends with _total for a counter; the name is the peer's.
    faults = [line for line in (found.stdout + found.stderr).splitlines() if "askahead_kv_pages_total" not in line]
    assert [line for line in faults if line.strip()] == []


def test_the_rules_are_well_formed_and_fire() -> None:
    for command in (
        ["check", "rules", str(MONITORING / "alerts.yml")],
        ["test", "rules", str(Path(__file__).with_name("alerts_test.yml"))],
    ):
        found = subprocess.run([promtool(), *command], capture_output=True, text=True, check=False)
        assert found.returncode == 0, found.stdout + found.stderr


def test_every_alert_is_tested() -> None:
    alerts = {rule["alert"] for group in rules() for rule in group["rules"]}
    tests = yaml.safe_load(Path(__file__).with_name("alerts_test.yml").read_text())["tests"]
    fired = {case["alertname"] for test in tests for case in test["alert_rule_test"] if case["exp_alerts"]}
    assert alerts == fired


def test_rules_and_panels_use_metrics_that_there_are(samples: set[str]) -> None:
    expressions = [rule["expr"] for group in rules() for rule in group["rules"]]
    expressions += [target["expr"] for panel in panels() for target in panel.get("targets", ())]
    used = {name for expression in expressions for name in NAME.findall(expression)}
    assert used, "nothing was looked at"
    assert used <= samples


def test_panels_are_told_apart_and_do_not_overlap() -> None:
    places: set[tuple[int, int]] = set()
    numbers = [panel["id"] for panel in panels()]
    assert len(set(numbers)) == len(numbers)
    for panel in panels():
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & places, panel["title"]
        assert at["x"] + at["w"] <= 24
        places |= cells
        if panel["type"] == "timeseries":
            assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]


def test_grafana_is_given_the_source_that_its_panels_name() -> None:
    sources = yaml.safe_load((MONITORING / "grafana/provisioning/datasources/prometheus.yml").read_text())
    assert {panel["datasource"]["uid"] for panel in panels() if panel["type"] != "row"} == {
        source["uid"] for source in sources["datasources"]
    }


def promtool() -> str:
    """Prometheus's tool, which scripts/setup.sh installs for the tests."""
    found = shutil.which("promtool")
    assert found is not None, "promtool is missing; apt-get install prometheus"
    return found


def rules() -> list[dict[str, Any]]:
    groups: list[dict[str, Any]] = yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"]
    return groups


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((MONITORING / "grafana/dashboards/askahead.json").read_text())["panels"]
    return found
