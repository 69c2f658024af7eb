"""What an engine's process runs. Imported by that process before anything of vLLM's, and by whoever starts it."""

from __future__ import annotations

import gc
import multiprocessing
from typing import Any

if multiprocessing.current_process().name.startswith("EngineCore"):
    # While vLLM is imported, as in streams.engine.lasting. It freezes what it has itself.
    gc.disable()


def run(*args: Any, **options: Any) -> None:
    """Run the engine until it is ended. Arguments as of vLLM's ``EngineCoreProc.run_engine_core``."""
    from vllm.v1.engine.core import EngineCoreProc

    gc.freeze()
    gc.enable()
    EngineCoreProc.run_engine_core(*args, **options)
