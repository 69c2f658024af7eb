"""The manifests are what Kubernetes accepts, and speak of settings, paths, ports and metrics that there are."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Any

import kubernetes_validate
import pytest
import yaml

from service.app import OPERATIONS
from service.settings import ENV_PREFIX, Settings
from tests.deploy.manifests import KUBERNETES, ROOT, Object, container, one, pod, rendered

# The oldest and the newest that the schemas at hand are of.
VERSIONS = (kubernetes_validate.utils.all_versions()[0], kubernetes_validate.latest_version())
DOCUMENTED = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/deployment.md").read_text(), re.DOTALL)
# Beside draining: a load that is broken off, and what is written last.
CLOSING_SECONDS = 15


@pytest.fixture(scope="module", params=["base", "gpu", "documented"])
def objects(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Object, ...]:
    """What is applied: of either overlay, and of the one that the documentation has somebody write."""
    if request.param != "documented":
        return rendered(KUBERNETES / request.param)
    (text,) = DOCUMENTED
    # It has to be reached by relative paths, from wherever it is.
    directory = tmp_path_factory.mktemp("documented")
    up = "/".join([".."] * (len(directory.parts) - 1))
    (directory / "kustomization.yaml").write_text(text.replace("askahead/deploy/", f"{up}{ROOT}/deploy/"))
    return rendered(directory)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_is_valid_and_has_no_unknown_field(objects: tuple[Object, ...], version: str) -> None:
    for item in objects:
        kubernetes_validate.validate(item, version, strict=True)


def test_an_unknown_field_would_be_noticed() -> None:
    wrong = container(rendered(KUBERNETES / "base"), "askahead") | {"livenesProbe": {}}
    item = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": {"containers": [wrong]}}
    with pytest.raises(kubernetes_validate.ValidationError, match="livenesProbe"):
        kubernetes_validate.validate(item, VERSIONS[1], strict=True)


def test_what_is_selected_and_referred_to_is_there(objects: tuple[Object, ...]) -> None:
    names = {(item["kind"], item["metadata"]["name"]) for item in objects}
    labels = [one(objects, "StatefulSet", name)["spec"]["template"]["metadata"]["labels"] for name in servers()]
    for item in objects:
        selectors = [item["spec"]["selector"]] if item["kind"] == "Service" else found(item, "matchLabels")
        for selector in selectors:
            assert any(selector.items() <= label.items() for label in labels), item["metadata"]["name"]
        for reference in found(item, "configMapRef") + found(item, "configMap"):
            assert ("ConfigMap", reference["name"]) in names
        for reference in found(item, "scaleTargetRef"):
            assert (reference["kind"], reference["name"]) in names
        if item["kind"] == "StatefulSet":
            assert ("Service", item["spec"]["serviceName"]) in names


def test_variables_are_settings_with_values_that_they_take(objects: tuple[Object, ...]) -> None:
    one_container = container(objects, "askahead")
    settings = one(objects, "ConfigMap", "askahead")["data"]
    variables = {variable["name"] for variable in one_container["env"]} | set(settings)
    fields = {f"{ENV_PREFIX}{name}".upper() for name in Settings.model_fields}
    assert {name for name in variables if name.startswith(ENV_PREFIX)} <= fields
    values = {name.removeprefix(ENV_PREFIX).lower(): value for name, value in settings.items() if value}
    Settings(**values)


def test_variables_are_made_before_they_are_used(objects: tuple[Object, ...]) -> None:
    known: set[str] = set()
    for variable in container(objects, "askahead")["env"]:
        assert set(re.findall(r"\$\((\w+)\)", variable.get("value", ""))) <= known, variable["name"]
        known.add(variable["name"])


def test_probes_ask_what_needs_no_key_at_the_port_of_the_server(objects: tuple[Object, ...]) -> None:
    one_container = container(objects, "askahead")
    (port,) = one_container["ports"]
    assert port["containerPort"] == Settings.model_fields["port"].default
    open_paths = {operation.path for operation in OPERATIONS if not operation.needs_key}
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        asked = one_container[probe]["httpGet"]
        assert asked["port"] == port["name"]
        assert asked["path"] in open_paths
    for name in ("askahead", "askahead-peers"):
        (exposed,) = one(objects, "Service", name)["spec"]["ports"]
        assert exposed["targetPort"] == port["name"]


def test_a_server_is_advertised_where_its_service_has_it(objects: tuple[Object, ...]) -> None:
    service = one(objects, "Service", one(objects, "StatefulSet", "askahead")["spec"]["serviceName"])
    (exposed,) = service["spec"]["ports"]
    # A service without an address of its own leads to the container's port, whatever its own is.
    assert service["spec"]["clusterIP"] == "None"
    assert exposed["port"] == Settings.model_fields["port"].default
    assert service["spec"]["publishNotReadyAddresses"]
    (url,) = (
        each["value"] for each in container(objects, "askahead")["env"] if each["name"] == "ASKAHEAD_ADVERTISE_URL"
    )
    assert url == f"http://$(POD_NAME).{service['metadata']['name']}.$(POD_NAMESPACE).svc:{exposed['port']}"


def test_a_pod_is_left_the_time_to_end(objects: tuple[Object, ...]) -> None:
    (_, pause) = container(objects, "askahead")["lifecycle"]["preStop"]["exec"]["command"]
    needed = int(pause) + Settings.model_fields["shutdown_seconds"].default + CLOSING_SECONDS
    assert pod(objects, "askahead")["terminationGracePeriodSeconds"] > needed


def test_pods_are_as_restricted_as_the_strictest_standard_wants(objects: tuple[Object, ...]) -> None:
    for name in servers():
        spec, only = pod(objects, name), container(objects, name)
        assert spec["securityContext"]["runAsNonRoot"]
        assert spec["securityContext"]["runAsUser"] > 0
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert only["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert not spec["automountServiceAccountToken"]
        assert {kind for volume in spec["volumes"] for kind in volume} <= {"name", "configMap", "emptyDir", "secret"}
        assert only["resources"]["requests"].keys() >= {"cpu", "memory"}
        assert only["resources"]["limits"]["memory"] == only["resources"]["requests"]["memory"]


def test_what_is_mounted_is_there_and_where_it_is_looked_for(objects: tuple[Object, ...]) -> None:
    for name in servers():
        claims = one(objects, "StatefulSet", name)["spec"]["volumeClaimTemplates"]
        volumes = {each["name"] for each in pod(objects, name)["volumes"]} | {
            each["metadata"]["name"] for each in claims
        }
        assert {mount["name"] for mount in container(objects, name)["volumeMounts"]} == volumes
    mounts = {mount["name"]: mount["mountPath"] for mount in container(objects, "askahead")["volumeMounts"]}
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert f"VOLUME {mounts['data']}\n" in dockerfile
    assert f"HOME={mounts['data']} ASKAHEAD_DATA_DIR={mounts['data']} " in dockerfile
    assert f"dir {mounts['data']}\n" in one(objects, "ConfigMap", "valkey")["data"]["valkey.conf"]


def test_the_user_is_that_of_the_image(objects: tuple[Object, ...]) -> None:
    (user,) = re.findall(r"^USER (\d+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert f"useradd --uid {user} " in (ROOT / "Dockerfile").read_text()
    assert pod(objects, "askahead")["securityContext"] | {"seccompProfile": None} == {
        "runAsNonRoot": True,
        "runAsUser": int(user),
        "runAsGroup": int(user),
        "fsGroup": int(user),
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": None,
    }


def test_the_documented_command_makes_what_the_secret_must_have(objects: tuple[Object, ...]) -> None:
    text = (ROOT / "docs/deployment.md").read_text().replace("\\\n", " ")
    (command,) = re.findall(r"^kubectl .*create secret generic .*$", text, re.MULTILINE)
    words = shlex.split(command.replace('"$(openssl rand -hex 32)"', "password"))
    made = {word.split("=")[1] for word in words if word.startswith(("--from-literal=", "--from-file="))}
    name = words[words.index("generic") + 1]
    for item in objects:
        for reference in found(item, "secretKeyRef"):
            assert reference["name"] == name
            assert reference["key"] in made or reference.get("optional"), reference
        for reference in found(item, "secret"):
            assert reference["secretName"] == name
            assert {each["key"] for each in reference["items"]} <= made


def test_only_servers_reach_the_store(objects: tuple[Object, ...]) -> None:
    (rule,) = one(objects, "NetworkPolicy", "valkey")["spec"]["ingress"]
    assert rule["from"] == [{"podSelector": {"matchLabels": {"app.kubernetes.io/name": "askahead"}}}]
    ports = [
        port["port"] for each in one(objects, "NetworkPolicy", "askahead")["spec"]["egress"] for port in each["ports"]
    ]
    (store,) = container(objects, "valkey")["ports"]
    assert store["containerPort"] in ports


def test_the_store_is_the_one_that_compose_has(objects: tuple[Object, ...]) -> None:
    services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    assert container(objects, "valkey")["image"] == services["valkey"]["image"]
    (mount,) = (volume for volume in services["valkey"]["volumes"] if volume.endswith(":ro"))
    config = ROOT / mount.split(":")[0]
    assert one(objects, "ConfigMap", "valkey")["data"] == {"valkey.conf": config.read_text()}


def test_a_gpu_has_a_memory_and_cores_of_its_own() -> None:
    objects = rendered(KUBERNETES / "gpu")
    only = container(objects, "askahead")
    assert only["image"] == "askahead:gpu"
    assert only["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert "ASKAHEAD_THREADS" not in {variable["name"] for variable in only["env"]}
    assert one(objects, "ConfigMap", "askahead")["data"]["ASKAHEAD_KV_CACHE_GB"] == ""
    shared = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]["gpu"]["shm_size"]
    (shm,) = (volume for volume in pod(objects, "askahead")["volumes"] if volume["name"] == "shm")
    assert shm["emptyDir"]["sizeLimit"] == shared.upper() + "i"


def test_images_are_built_or_of_a_release(objects: tuple[Object, ...]) -> None:
    assert re.fullmatch(
        r"(registry\.example\.com/)?askahead:(cpu|gpu|[\d.]+-gpu)", container(objects, "askahead")["image"]
    )
    assert re.search(r":\d", container(objects, "valkey")["image"])


def servers() -> tuple[str, str]:
    """The stateful sets there are."""
    return "askahead", "valkey"


def found(item: Any, key: str) -> list[Any]:
    """All that stands under a key, anywhere in an object."""

    def walk(value: Any) -> Iterator[Any]:
        if isinstance(value, dict):
            for name, inner in value.items():
                if name == key and not isinstance(inner, str):
                    yield inner
                yield from walk(inner)
        elif isinstance(value, list):
            for inner in value:
                yield from walk(inner)

    return list(walk(item))
