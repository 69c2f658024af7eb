"""Every command of these pages does what the page says."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.running import run
from tests.servers import ROOT

PAGES = ("README.md", "CONTRIBUTING.md", "docs/chat.md", "docs/index.md", "docs/tutorial.md", "docs/operations.md")


@pytest.mark.parametrize("page", PAGES)
def test_commands_do_what_the_page_says(page: str, tmp_path: Path) -> None:
    run(ROOT / page, tmp_path / "run")
