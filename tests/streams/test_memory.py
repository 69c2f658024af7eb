"""What a container leaves of its machine's memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from streams.memory import group_room, within_group

GIB = 1 << 30


@pytest.fixture
def group(tmp_path: Path) -> Path:
    (tmp_path / "memory.max").write_text(f"{4 * GIB}\n")
    (tmp_path / "memory.current").write_text(f"{3 * GIB}\n")
    (tmp_path / "memory.stat").write_text(f"anon {GIB}\ninactive_file {2 * GIB}\nactive_file 0\n")
    return tmp_path


def test_files_that_were_read_leave_room(group: Path) -> None:
    assert group_room(group) == 3 * GIB
    assert within_group(64 * GIB, group) == 3 * GIB
    assert within_group(GIB, group) == GIB


def test_a_group_over_its_limit_leaves_nothing(group: Path) -> None:
    (group / "memory.current").write_text(f"{9 * GIB}\n")
    assert within_group(64 * GIB, group) == 0


@pytest.mark.parametrize("limit", ["max\n", None])
def test_without_a_limit_the_machine_counts(group: Path, limit: str | None) -> None:
    if limit is None:
        (group / "memory.max").unlink()
    else:
        (group / "memory.max").write_text(limit)
    assert group_room(group) is None
    assert within_group(64 * GIB, group) == 64 * GIB
