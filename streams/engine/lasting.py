"""Keeps Python's garbage collector away from what lasts as long as its process.

Importing vLLM leaves 600,000 objects and hardly any garbage. The collector looks through all of them again and again
while they come to be, and again whenever there are a quarter more: a third of a second in which the event loop does
nothing else (docs/performance.md).
"""

from __future__ import annotations

import atexit
import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def lasting() -> Iterator[None]:
    """Make what lasts inside. Garbage is collected again afterwards, and not looked for in what there is by then."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        # Once: at the next engine's load there are streams as well, which are garbage one day.
        if not gc.get_freeze_count():
            gc.freeze()
            # Libraries complain of what is left when the interpreter ends.
            atexit.register(gc.unfreeze)
        if collecting:
            gc.enable()
