"""The Kubernetes manifests as they are applied, for tests."""

from __future__ import annotations

import functools
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
KUBERNETES = ROOT / "deploy" / "kubernetes"
KUBECTL = Path(sys.executable).with_name("kubectl")

Object = dict[str, Any]


@functools.cache
def rendered(directory: Path) -> tuple[Object, ...]:
    """The objects that ``kubectl apply -k`` would send."""
    found = subprocess.run([KUBECTL, "kustomize", str(directory)], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert "Warning" not in found.stderr, found.stderr
    return tuple(yaml.safe_load_all(found.stdout))


def one(objects: tuple[Object, ...], kind: str, name: str) -> Object:
    """The object of a kind and name; kustomize ends the names of what it generates with a hash."""
    (found,) = (
        item
        for item in objects
        if item["kind"] == kind and re.fullmatch(rf"{name}(-[a-z0-9]{{10}})?", item["metadata"]["name"])
    )
    return found


def pod(objects: tuple[Object, ...], name: str) -> Object:
    """What a stateful set says of its pods."""
    spec: Object = one(objects, "StatefulSet", name)["spec"]["template"]["spec"]
    return spec


def container(objects: tuple[Object, ...], name: str) -> Object:
    """The one container of its pods."""
    (found,) = pod(objects, name)["containers"]
    return dict(found)


def environment(objects: tuple[Object, ...], name: str, given: dict[str, str]) -> dict[str, str]:
    """The variables of a container, as a kubelet makes them.

    Args:
        objects: all that is applied.
        name: of the stateful set.
        given: what stands for values that come from elsewhere, by variable; one that is not here is not set.
    """
    made: dict[str, str] = {}
    one_container = container(objects, name)
    for source in one_container.get("envFrom", ()):
        made |= one(objects, "ConfigMap", re.sub(r"-[a-z0-9]{10}$", "", source["configMapRef"]["name"]))["data"]
    for variable in one_container["env"]:
        if "value" in variable:
            made[variable["name"]] = re.sub(r"\$\((\w+)\)", lambda at: made[at[1]], variable["value"])
        elif variable["name"] in given:
            made[variable["name"]] = given[variable["name"]]
    return made
