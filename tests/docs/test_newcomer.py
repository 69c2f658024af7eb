"""Somebody clones the repository, does what the README and the tutorial say, and it is as they say."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.docs.running import Place, run
from tests.servers import ROOT

_SECONDS = 900.0


@pytest.mark.timeout(2 * _SECONDS)
def test_what_a_newcomer_is_told_to_do_works_in_a_fresh_clone(tmp_path: Path) -> None:
    clone = tmp_path / "askahead"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True, timeout=60)

    data = tmp_path / "data"
    # Nobody waits for the bytecode of what is not imported.
    given = {"PIP_NO_COMPILE": "1", "DEMO_SECONDS": "20", "ASKAHEAD_DATA_DIR": str(data), "ASKAHEAD_ENGINE_NICE": "0"}
    demo = subprocess.run(
        ["make", "demo"],
        cwd=clone,
        env=os.environ | given,
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert "watch it live: http://127.0.0.1:" in demo.stdout
    assert len(re.findall(r"^\d\d:\d\d:\d\d +v\d+ .*\(confidence", demo.stdout, re.MULTILINE)) >= 3, demo.stdout

    there = Place(clone, clone / ".venv/bin/python", serve=None, installs=True, seconds=_SECONDS, data=data)
    for page in ("README.md", "docs/tutorial.md"):
        run(clone / page, tmp_path / Path(page).stem, there)
