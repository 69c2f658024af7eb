"""Engines give way to the server."""

from __future__ import annotations

import os
import subprocess
import sys

import psutil

from streams.engine.recurrent.engine import RecurrentEngine
from streams.engine.vllm import VllmEngine

_PROGRAM = """
import os
import threading

from streams.engine.giving_way import give_way

mine = lambda: os.getpriority(os.PRIO_PROCESS, 0)
before, given, found = mine(), threading.Event(), []
early = threading.Thread(target=lambda: (given.wait(), found.append(mine() - before)), daemon=True)
early.start()
give_way(before + 2)
give_way(before + 1)
given.set()
early.join()
late = threading.Thread(target=lambda: found.append(mine() - before))
late.start()
late.join()
print(*found, mine() - before)
"""


def niceness(pids: list[int]) -> set[int]:
    """Of all threads of these processes."""
    threads = [thread.id for pid in pids for thread in psutil.Process(pid).threads()]
    return {os.getpriority(os.PRIO_PROCESS, thread) for thread in threads}


def test_all_threads_of_a_process_give_way_and_so_does_what_they_start() -> None:
    ran = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout.split() == ["2", "2", "2"]


def test_vllms_process_is_as_nice_as_asked_for(vllm_engine: VllmEngine) -> None:
    assert niceness(vllm_engine.processes) == {3}


def test_llama_cpps_process_is_as_nice_as_asked_for(recurrent_engine: RecurrentEngine) -> None:
    assert niceness(recurrent_engine.processes) == {7}
