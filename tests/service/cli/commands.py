"""The command line as tests run it: in this process, or as a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

from service.cli.main import app

_ROOT = Path(__file__).parents[3]


def run(*arguments: str, url: str = "", **variables: str) -> Result:
    """In this process, without a terminal."""
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "160", "ASKAHEAD_URL": url or None, **variables})


def ok(*arguments: str, url: str = "") -> str:
    """What it printed; it must succeed."""
    result = run(*arguments, url=url)
    assert result.exit_code == 0, result.output
    return result.stdout


def start(*arguments: str, url: str = "", **options: Any) -> subprocess.Popen[str]:
    """As a process of its own, with pipes where ``options`` say nothing else."""
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen(
        [sys.executable, "-c", "from service.cli.main import app; app()", *arguments],
        cwd=_ROOT,
        env=os.environ | {"COLUMNS": "160", "TERM": "xterm", "ASKAHEAD_URL": url},
        text=True,
        **pipes | options,
    )
