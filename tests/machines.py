"""A second machine for tests: a network namespace of its own where that is allowed, or else this one's loopback."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def second_machine() -> Iterator[tuple[tuple[str, ...], str]]:
    """The beginning of a command that runs there, and the address by which this machine is known there."""
    name, subnet = f"askahead-{os.getpid()}", f"10.{200 + os.getpid() % 50}.{os.getpid() // 50 % 256}"
    here, there = f"ask{os.getpid()}", f"ask{os.getpid()}p"
    steps = (
        f"ip netns add {name}",
        f"ip link add {here} type veth peer name {there}",
        f"ip link set {there} netns {name}",
        f"ip addr add {subnet}.1/24 dev {here}",
        f"ip link set {here} up",
        f"ip -n {name} addr add {subnet}.2/24 dev {there}",
        f"ip -n {name} link set {there} up",
        f"ip -n {name} link set lo up",
    )
    try:
        if all(_runs(step) for step in steps):
            yield ("ip", "netns", "exec", name), f"{subnet}.1"
        else:
            yield (), "127.0.0.1"
    finally:
        _runs(f"ip link del {here}")
        _runs(f"ip netns del {name}")


def _runs(command: str) -> bool:
    try:
        return subprocess.run(command.split(), capture_output=True, timeout=30).returncode == 0
    except FileNotFoundError:
        return False
