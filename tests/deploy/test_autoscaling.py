"""The autoscaler asks for what prometheus-adapter tells it, which is counted of what servers expose."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.metrics import Metrics
from tests.deploy.manifests import KUBERNETES, container, one, rendered
from tests.deploy.test_monitoring import promtool

AUTOSCALING = KUBERNETES / "autoscaling"
RULES: list[dict[str, Any]] = yaml.safe_load((AUTOSCALING / "adapter.yaml").read_text())["rules"]
AUTOSCALER: dict[str, Any] = yaml.safe_load((AUTOSCALING / "autoscaler.yaml").read_text())


def series(rule: dict[str, Any]) -> str:
    """The metric that a rule is about."""
    name: str = rule["seriesQuery"].partition("{")[0]
    return name


def name_of(rule: dict[str, Any]) -> str:
    """The metric that it makes."""
    name: str = rule.get("name", {}).get("as", series(rule))
    return name


def query(rule: dict[str, Any]) -> str:
    """What the adapter asks Prometheus of every pod of a namespace."""
    text: str = rule["metricsQuery"]
    for part, value in (
        ("Series", series(rule)),
        ("LabelMatchers", 'namespace="askahead",pod=~"askahead-0|askahead-1"'),
        ("GroupBy", "pod"),
    ):
        text = text.replace(f"<<.{part}>>", value)
    assert "<<" not in text
    return text


def test_what_is_asked_for_is_told() -> None:
    asked = {metric["pods"]["metric"]["name"] for metric in AUTOSCALER["spec"]["metrics"]}
    assert asked == {name_of(rule) for rule in RULES}


def test_what_is_told_is_counted() -> None:
    exposed = {family.name for family in Metrics(dict).registry.collect()}
    for rule in RULES:
        used = set(re.findall(r"\baskahead_\w+\b(?=\{)", query(rule)))
        assert used
        assert used <= exposed


def test_the_rules_tell_what_the_autoscaler_means(tmp_path: Path) -> None:
    samples = {
        "askahead_queued": ("6+0x10", "0+0x10"),
        "askahead_kv_pages_total": ("100+0x10", "0+0x10"),
        "askahead_kv_pages_free": ("25+0x10", "0+0x10"),
    }
    # The second server is loading.
    told = {"askahead_queued": {"askahead-0": 6, "askahead-1": 0}, "askahead_kv_used_ratio": {"askahead-0": 0.75}}
    test = {
        "interval": "1m",
        "input_series": [
            {"series": f'{name}{{namespace="askahead",pod="askahead-{number}"}}', "values": values}
            for name, pods in samples.items()
            for number, values in enumerate(pods)
        ],
        "promql_expr_test": [
            {
                "expr": query(rule),
                "eval_time": "5m",
                "exp_samples": [
                    {"labels": f'{{pod="{pod}"}}', "value": value} for pod, value in told[name_of(rule)].items()
                ],
            }
            for rule in RULES
        ],
    }
    file = tmp_path / "adapter_test.yml"
    file.write_text(yaml.safe_dump({"tests": [test]}))
    found = subprocess.run([promtool(), "test", "rules", str(file)], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr


def test_prometheus_looks_for_the_label_and_the_port_that_servers_have(tmp_path: Path) -> None:
    config = yaml.safe_load((AUTOSCALING / "prometheus.yml").read_text())
    (job,) = config["scrape_configs"]
    keep, *_ = job["relabel_configs"]
    objects = rendered(KUBERNETES / "base")
    labels = one(objects, "StatefulSet", "askahead")["spec"]["template"]["metadata"]["labels"]
    (port,) = container(objects, "askahead")["ports"]
    assert re.fullmatch(keep["regex"], ";".join([labels["app.kubernetes.io/name"], port["name"]]))
    # Debian's promtool is built without this way to find servers.
    assert job.pop("kubernetes_sd_configs") == [{"role": "pod"}]
    file = tmp_path / "prometheus.yml"
    file.write_text(yaml.safe_dump(config))
    command = [promtool(), "check", "config", "--syntax-only", str(file)]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr


@pytest.mark.parametrize("overlay", ["base", "gpu"])
def test_the_autoscaler_alone_says_how_many_there_are(tmp_path: Path, overlay: str) -> None:
    up = "/".join([".."] * (len(tmp_path.parts) - 1))
    written = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [f"{up}{KUBERNETES / overlay}"],
        "components": [f"{up}{AUTOSCALING}"],
    }
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(written))
    objects = rendered(tmp_path)
    assert "replicas" not in one(objects, "StatefulSet", "askahead")["spec"]
    assert one(objects, "HorizontalPodAutoscaler", "askahead") == AUTOSCALER
