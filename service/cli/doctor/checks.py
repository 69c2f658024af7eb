"""What is found, judged: each check is one line, and says what to do where it is not as it should be. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from streams.models.plan import gib


class Status(StrEnum):
    """How a check ended. ``fail``: a server would not run; ``warn``: it would, and worse than it could."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the report.

    Attributes:
        name: what was looked at.
        status: how it is.
        found: what there is.
        fix: what to do; empty where all is well.
    """

    name: str
    status: Status
    found: str
    fix: str = ""

    @classmethod
    def ok(cls, name: str, found: str) -> Check:
        return cls(name, Status.OK, found)

    @classmethod
    def warn(cls, name: str, found: str, fix: str) -> Check:
        return cls(name, Status.WARN, found, fix)

    @classmethod
    def fail(cls, name: str, found: str, fix: str) -> Check:
        return cls(name, Status.FAIL, found, fix)


def memory(available: int | None, weights: int, streams: int) -> Check:
    """Of the machine, in bytes: what is available, what the weights take, and what the KV cache needs at least."""
    needed = f"{gib(weights)} for the weights and {gib(streams)} for the KV cache"
    if available is None:
        return Check.warn("memory", f"unknown; {needed} are needed", "see for yourself that there is as much")
    found = f"{gib(available)} available; {needed}"
    if available >= weights + streams:
        return Check.ok("memory", found)
    if available >= weights:
        return Check.warn("memory", found, "end other programs, or set a smaller --context or --kv-cache-gb")
    return Check.fail("memory", found, "end other programs, or choose a smaller --model")


def open_files(soft: int, hard: int, wanted: int) -> Check:
    """Limits of open files, and how many a server with all its connections has; a negative limit is none."""
    if soft < 0 or soft >= wanted:
        return Check.ok("open files", f"{'no limit' if soft < 0 else soft}; up to {wanted} connections")
    raised = (
        f"raise it before the start: ulimit -n {wanted}"
        if hard < 0 or hard >= wanted
        else f"raise it in limits.conf, or allow fewer with --max-subscriptions; the hard limit is {hard}"
    )
    return Check.warn(
        "open files", f"{soft}; up to {wanted} connections", f"{raised} (LimitNOFILE={wanted} in a systemd unit)"
    )


def overcommit(value: int | None, *, embedded: bool) -> Check:
    """``vm.overcommit_memory``; Redis forks to rewrite its log, and the fork counts in full where it is not 1."""
    name = "vm.overcommit_memory"
    if value is None:
        return Check.ok(name, "not told by this system")
    if value == 1 or not embedded:
        return Check.ok(name, str(value))
    return Check.warn(
        name, f"{value}: rewriting the embedded Valkey's log may fail when memory is short", f"sysctl {name}=1"
    )


def backlog(value: int | None, wanted: int) -> Check:
    """``net.core.somaxconn``, and how many connections the server lets wait to be accepted."""
    name = "net.core.somaxconn"
    if value is None or value >= wanted:
        return Check.ok(name, "not told by this system" if value is None else str(value))
    return Check.warn(name, f"{value}: bursts of new connections are refused early", f"sysctl {name}={wanted}")


def swappiness(value: int | None, swap: int | None) -> Check:
    """``vm.swappiness`` and the swap space in bytes: weights that are swapped out make every step wait."""
    name = "vm.swappiness"
    if value is None or not swap or value <= 10:
        return Check.ok(name, "not told by this system" if value is None else f"{value}, {gib(swap or 0)} of swap")
    return Check.warn(name, f"{value}, {gib(swap)} of swap: idle weights may be swapped out", f"sysctl {name}=10")


def pinned(name: str, version: str | None, wanted: str | None) -> Check:
    """The engine's distribution, by the version that is installed and the one that this release is made for."""
    if version is None:
        return Check.fail(
            "engine", "vLLM is not installed", "run make setup, or: pip install 'askahead[cpu]', with a GPU [gpu]"
        )
    if wanted is not None and version != wanted:
        return Check.fail("engine", f"{name} {version}", f"this release needs {wanted}: pip install {name}=={wanted}")
    return Check.ok("engine", f"{name} {version}")
