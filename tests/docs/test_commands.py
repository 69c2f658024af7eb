"""Every command on every page is carried out or, where that cannot be, taken apart."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.commands import CommandError, check, commands
from tests.docs.snippets import parse
from tests.docs.test_clients import PAGE as CLIENTS
from tests.docs.test_links import PAGES
from tests.docs.test_pages import PAGES as RUN
from tests.servers import ROOT

_RUN = {*(ROOT / page for page in RUN), CLIENTS}
_OTHERS = [page for page in [*PAGES, ROOT / "examples" / "README.md"] if page not in _RUN]
# Programs that begin a command, in a block that does not say that it has any.
_HIDDEN = re.compile(r"^```\n(?:\$ )?(?:askahead|docker|kubectl|pip|curl|make|python|sudo|apt) ", re.MULTILINE)


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", _OTHERS, ids=_name)
def test_what_a_page_tells_to_do_could_be_done(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for snippet in parse(page.read_text()):
        assert snippet.language == "sh", f"line {snippet.line}: have the page run, in test_pages.py"
        for words in commands(snippet.code):
            # The reader's own data.
            for word in words:
                if word.endswith((".csv", ".jsonl")):
                    (tmp_path / word).touch()
            check(words)


@pytest.mark.parametrize("page", [*PAGES, ROOT / "examples" / "README.md"], ids=_name)
def test_commands_are_in_blocks_that_say_so(page: Path) -> None:
    assert not _HIDDEN.findall(page.read_text())


@pytest.mark.parametrize(
    "command",
    [
        "askahead serve --sessions many",
        "askahead serve --no-such-flag 1",
        "askahead push",
        "askahead pull plant",
        "askahead sessions list --no-such-flag",
        "docker run -p 8080 askahead",
        "docker run askahead --port x",
        "docker run someone/else",
        "docker compose --profile tpu up",
        "docker build --target tpu .",
        "kubectl appply -k .",
        "kubectl apply --no-such-flag",
        "pip install 'askahead[nothing]'",
        ".venv/bin/python examples/nothing.py",
        ".venv/bin/python examples/market_ticks.py --no-such-flag",
        "make nothing",
        "rm -rf /",
    ],
)
def test_what_could_not_be_done_is_found(command: str) -> None:
    (words,) = commands(command)
    with pytest.raises(CommandError):
        check(words)
