"""Memory that a process has moves into huge pages."""

from __future__ import annotations

import subprocess
import sys

import pytest

from streams.engine import huge_pages

MIB = 2**20

# A process of its own: that of the tests has gigabytes.
MOVING = """
import re, sys
from pathlib import Path
from streams.engine.huge_pages import into_huge_pages

def huge():
    return int(re.search(r"AnonHugePages: +([0-9]+) kB", Path("/proc/self/smaps_rollup").read_text())[1]) << 10

data = bytearray(range(256)) * (32 << 12)
assert len(data) == 32 << 20
before = huge()
into_huge_pages()
assert data == bytearray(range(256)) * (32 << 12)
print(huge() - before)
"""


def test_memory_moves_and_says_the_same() -> None:
    ended = subprocess.run([sys.executable, "-c", MOVING], capture_output=True, text=True, timeout=60, check=True)
    assert int(ended.stdout) >= 28 * MIB
    assert not ended.stderr


@pytest.mark.parametrize(
    ("line", "places"),
    [
        ("7f0000000000-7f0000400000 rw-p 00000000 00:00 0", [0x7F0000000000, 0x7F0000200000]),
        ("7f0000001000-7f0000600000 rw-p 00000000 00:00 0", [0x7F0000200000, 0x7F0000400000]),
        ("7f0000001000-7f00003ff000 rw-p 00000000 00:00 0", []),
        ("7f0000000000-7f0000200000 rw-p 00000000 00:00 0                          [heap]", [0x7F0000000000]),
        ("7f0000000000-7f0000200000 rw-p 00000000 00:00 0                          [stack]", []),
        ("7f0000000000-7f0000200000 r--p 00000000 00:00 0", []),
        ("7f0000000000-7f0000200000 rw-s 00000000 00:01 1044                       /memfd:shared (deleted)", []),
        ("7f0000000000-7f0000200000 rw-p 00000000 fe:00 90311                      /a library with spaces.so", []),
    ],
)
def test_only_what_is_the_processs_own_moves(line: str, places: list[int]) -> None:
    assert list(huge_pages._places(line)) == places
