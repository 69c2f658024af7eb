"""The engine gives way to the server: what is acknowledged and what is known already must not wait for the model."""

from __future__ import annotations

import os


def give_way(nice: int) -> None:
    """Have this thread, and all that it starts, run when others with less ``nice`` do not want to.

    Args:
        nice: 0 to 19, as of ``setpriority(2)``; a thread never gets more of the processor by it than it had.
    """
    os.setpriority(os.PRIO_PROCESS, 0, max(nice, os.getpriority(os.PRIO_PROCESS, 0)))
