from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

_HERE = Path(__file__).parent


@pytest.mark.timeout(600)
def test_schemathesis_finds_no_5xx_and_nothing_that_is_not_documented() -> None:
    # Imported here, schemathesis would replace parts of Hypothesis for all other tests: none could print its example.
    command = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(_HERE / "documented.py"))
    run = subprocess.run(command, cwd=_HERE.parents[2], capture_output=True, text=True, timeout=590)
    assert run.returncode == 0, run.stdout + run.stderr
