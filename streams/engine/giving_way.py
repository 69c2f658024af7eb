"""The engine gives way to the server: what is acknowledged and what is known already must not wait for the model."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def give_way(nice: int) -> None:
    """Have this process's threads, and all that they start, run when others with less ``nice`` do not want to.

    To be called once the model is loaded: nothing is served before, and beside other programs it would take minutes.

    Args:
        nice: 0 to 19, as of ``setpriority(2)``; a thread never gets more of the processor by it than it had.
    """
    for task in Path("/proc/self/task").iterdir():
        thread = int(task.name)
        with suppress(ProcessLookupError):  # it ended meanwhile
            os.setpriority(os.PRIO_PROCESS, thread, max(nice, os.getpriority(os.PRIO_PROCESS, thread)))
