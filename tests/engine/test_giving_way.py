"""Engines give way to the server."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import psutil

from streams.engine.giving_way import give_way
from streams.engine.recurrent.engine import RecurrentEngine
from streams.engine.vllm import VllmEngine


def niceness() -> int:
    """Of this thread."""
    return os.getpriority(os.PRIO_PROCESS, 0)


def test_a_thread_gives_way_and_so_does_what_it_starts() -> None:
    before = niceness()
    found: list[int] = []

    def start() -> None:
        give_way(before + 2)
        give_way(before + 1)
        thread = threading.Thread(target=lambda: found.append(niceness()))
        thread.start()
        thread.join()
        found.append(niceness())

    with ThreadPoolExecutor(1) as threads:
        threads.submit(start).result()
    assert found == [before + 2] * 2
    assert niceness() == before


def test_vllms_process_is_as_nice_as_asked_for(vllm_engine: VllmEngine) -> None:
    assert [psutil.Process(pid).nice() for pid in vllm_engine.processes] == [3]


def test_llama_cpps_process_is_as_nice_as_asked_for(recurrent_engine: RecurrentEngine) -> None:
    assert [psutil.Process(pid).nice() for pid in recurrent_engine.processes] == [7]
