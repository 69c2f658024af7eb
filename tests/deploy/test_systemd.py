"""systemd takes the unit as it is, and the unit gives away no right that the server does without."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from service.settings import ENV_PREFIX, Settings

UNIT = Path(__file__).parents[2] / "deploy" / "askahead.service"
# Of 10, as systemd counts; what is left is what the server needs.
EXPOSURE_MAX = 2.5


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit, with a program that there is here."""
    text = UNIT.read_text()
    assert text.count("/opt/askahead/.venv/bin/askahead serve") == 1
    there = tmp_path / UNIT.name
    there.write_text(text.replace("/opt/askahead/.venv/bin/askahead", "/bin/true"))
    return there


def test_systemd_finds_no_fault(unit: Path) -> None:
    found = analyze("verify", "--man=no", str(unit))
    assert (found.returncode, found.stdout + found.stderr) == (0, "")


def test_a_fault_would_be_found(unit: Path) -> None:
    unit.write_text(unit.read_text().replace("PrivateTmp=yes", "PrivateTmpp=yes"))
    assert "PrivateTmpp" in analyze("verify", "--man=no", str(unit)).stderr


def test_it_is_as_little_exposed_as_is_documented(unit: Path) -> None:
    found = analyze("security", "--offline=true", f"--threshold={EXPOSURE_MAX * 10:.0f}", "--no-pager", str(unit))
    assert found.returncode == 0, found.stdout + found.stderr
    assert f"at most {EXPOSURE_MAX:g} of 10" in (UNIT.parents[1] / "docs/deployment.md").read_text()


def test_its_variables_are_settings() -> None:
    fields = {f"{ENV_PREFIX}{name}".upper() for name in Settings.model_fields}
    names = re.findall(rf"^Environment=({ENV_PREFIX}\w+)=", UNIT.read_text(), re.MULTILINE)
    assert names
    assert set(names) <= fields


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run systemd's checker, which needs no running systemd for this."""
    tool = shutil.which("systemd-analyze")
    assert tool is not None, "systemd-analyze is missing; apt-get install systemd"
    return subprocess.run([tool, *arguments], capture_output=True, text=True, check=False)
