"""Moves memory that a process has into huge pages.

A server that is asked a few times a second finds little of its memory in the processor's caches, and as little of the
tables that say where a page is. Python touches thousands of pages for a request: in pages of 2 MiB rather than 4 KiB
it takes some 0.7 of the time (docs/performance.md).
"""

from __future__ import annotations

import ctypes
import logging
import time
from collections.abc import Iterator
from pathlib import Path

log = logging.getLogger(__name__)

_HUGE = 2 << 20
# Of <linux/mman.h>, since Linux 6.1: now, whatever the system's policy on huge pages is.
_MADV_COLLAPSE = 25


def into_huge_pages() -> None:
    """Move this process's memory. Takes up to two seconds for 500 MB, in which others' page faults wait; blocks.

    What cannot be moved stays as it is: the system has no huge pages, or has run out of them.
    """
    maps = Path("/proc/self/maps")
    if not maps.exists():
        return
    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    started = time.monotonic()
    moved = sum(madvise(at, _HUGE, _MADV_COLLAPSE) == 0 for at in _places(maps.read_text()))
    log.debug("moved into %d huge pages in %.1f s", moved, time.monotonic() - started)


def _places(maps: str) -> Iterator[int]:
    """Where huge pages fit into memory that is the process's own, as in ``proc_pid_maps(5)``."""
    for line in maps.splitlines():
        span, access, _, _, inode, *name = line.split(maxsplit=5)
        if access != "rw-p" or inode != "0" or (name and name[0] != "[heap]"):
            continue
        first, end = (int(address, 16) for address in span.split("-"))
        yield from range(-(-first // _HUGE) * _HUGE, end - _HUGE + 1, _HUGE)
