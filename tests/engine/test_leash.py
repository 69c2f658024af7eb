from __future__ import annotations

import subprocess
import sys

import psutil

from streams.engine.leash import Leash

# Starts a process that would sleep, says its id, and dies as SIGKILL lets it.
_DIES = """
import os, subprocess, sys
from streams.engine.leash import Leash
sleeper = subprocess.Popen(["sleep", "600"], stdout=subprocess.DEVNULL)
leash = Leash([sleeper.pid])
print(sleeper.pid, flush=True)
os.kill(os.getpid(), 9)
"""


def test_what_is_on_the_leash_dies_with_its_holder() -> None:
    died = subprocess.run([sys.executable, "-c", _DIES], capture_output=True, text=True, timeout=30)
    (pid,) = map(int, died.stdout.split())
    if psutil.pid_exists(pid):
        psutil.wait_procs([psutil.Process(pid)], timeout=30)
    assert not psutil.pid_exists(pid)


def test_released_processes_are_left_alone() -> None:
    with subprocess.Popen(["sleep", "600"]) as sleeper:
        leash = Leash([sleeper.pid])
        leash.release()
        leash.release()
        assert sleeper.poll() is None
        sleeper.kill()
