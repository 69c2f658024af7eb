"""Memory that may still be taken, where a container has less of it than its machine."""

from __future__ import annotations

import re
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def group_room(group: Path = _CGROUP) -> int | None:
    """Bytes that this process's control group leaves, as a container sees it; None where it sets no limit.

    Args:
        group: its directory, of version 2 of the interface.
    """
    try:
        limit, used = (int((group / name).read_text()) for name in ("memory.max", "memory.current"))
        # Files that were read and are not in use count as used until somebody needs their room.
        cached = re.search(r"^inactive_file (\d+)$", (group / "memory.stat").read_text(), re.MULTILINE)
    except (OSError, ValueError):
        return None
    return max(0, limit - used + (int(cached[1]) if cached else 0))


def within_group(available: int, group: Path = _CGROUP) -> int:
    """The smaller of what the machine has available and what the control group leaves, in bytes."""
    room = group_room(group)
    return available if room is None else min(available, room)
