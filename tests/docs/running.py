"""The commands of a page, run for real, against the in-process engine where nothing else is said.

The rules of such pages are in ``snippets``.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from service.settings import ENV_PREFIX
from tests.docs.snippets import Snippet, SnippetError, difference, parse
from tests.servers import FAST, ROOT, Server
from tests.valkeys import free_port

_ADDRESS = re.compile(r"\b(?:localhost|127\.0\.0\.1):8080\b")
# A target runs its askahead command, without a process in between that would get the signal which ends it.
_MAKE = """#!/bin/sh
recipe=$({make} -n "$@") || exit
[ "$1" = setup ] && {setup}
exec askahead ${{recipe##*bin/askahead }}
"""
_ASKAHEAD = """#!/bin/sh
if [ "$1" = serve ]; then shift; exec {serve} "$@"; fi
exec {python} -c 'from service.cli.main import app; app()' "$@"
"""


@dataclass(frozen=True)
class Place:
    """Where commands are run.

    Attributes:
        root: the checkout they are run in the name of.
        python: its interpreter.
        serve: the command that starts a server, flags excluded; None for what is installed.
        installs: ``make setup`` does what it says; otherwise that is what somebody has done who runs tests.
        seconds: how long a block may take, far above what one does.
        data: the servers' data directory; None for an empty one.
    """

    root: Path
    python: Path
    serve: Sequence[str] | None
    installs: bool
    seconds: float
    data: Path | None = None

    def tools(self, directory: Path) -> None:
        """Put commands into a directory that mean something else in a test than on the page."""
        directory.mkdir(exist_ok=True)
        make = f"{shutil.which('make')} --no-print-directory -C {shlex.quote(str(self.root))}"
        scripts = {"make": _MAKE.format(make=make, setup=f'exec {make} "$@"' if self.installs else "exit")}
        if self.serve is not None:
            python = shlex.quote(str(self.python))
            scripts["askahead"] = _ASKAHEAD.format(serve=shlex.join(self.serve), python=python)
        for name, script in scripts.items():
            (directory / name).write_text(script)
            (directory / name).chmod(0o755)
        (directory / ".curlrc").write_text(f"fail-with-body\nmax-time = {self.seconds:.0f}\n")


HERE = Place(ROOT, Path(sys.executable), FAST, installs=False, seconds=60.0)
"""This checkout."""


def run(page: Path, directory: Path, place: Place = HERE) -> None:
    """Run the commands of a page, in an empty directory.

    Args:
        page: Markdown.
        directory: made; the commands run in it.
        place: where it is.

    Raises:
        SnippetError: one of them does not do what the page says.
    """
    directory.mkdir(parents=True)
    port = free_port()
    text, uses = _ADDRESS.subn(f"127.0.0.1:{port}", page.read_text())
    snippets = parse(text)
    with ExitStack() as stack:
        runner = _Runner(page, directory, port, place, stack)
        if uses and not any("server" in snippet.words for snippet in snippets):
            runner.serve("askahead serve")
        for snippet in snippets:
            runner.run(snippet)


class _Runner:
    def __init__(self, page: Path, directory: Path, port: int, place: Place, stack: ExitStack) -> None:
        self._page, self._directory, self._place, self._stack = page, directory, place, stack
        self._server: Server | None = None
        tools = directory / ".tools"
        place.tools(tools)
        path = [str(tools), str(place.python.parent), os.environ["PATH"]]
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith(ENV_PREFIX)} | {
            "PATH": os.pathsep.join(path),
            "PYTHONPATH": str(place.root),
            "PYTHONUNBUFFERED": "1",
            "CURL_HOME": str(tools),
            "ASKAHEAD_PORT": str(port),
            "ASKAHEAD_DATA_DIR": str(place.data or directory / ".data"),
            # One that gives way to all other tests would not be done in time.
            "ASKAHEAD_ENGINE_NICE": "0",
        }
        stack.callback(self._stop)

    def run(self, snippet: Snippet) -> None:
        if "choose" in snippet.words:
            for line in _commands(snippet.code):
                self._check(snippet, line)
        elif "server" in snippet.words:
            commands = _commands(snippet.code)
            if len(commands) != 1:
                raise self._wrong(snippet, "a block that starts a server is one command")
            self.serve(commands[0])
        elif "background" in snippet.words:
            self._begin(snippet)
        else:
            self._execute(snippet)

    def serve(self, command: str) -> None:
        """Start a server, and end the one before."""
        self._stop()
        # Without a shell in between, which would get the signal that ends the server.
        shell = ["bash", "-c", f"exec env {command}"]
        self._server = Server(shell, self._environment, self._directory)
        self._server.wait_ready(self._place.seconds)

    def _stop(self) -> None:
        server, self._server = self._server, None
        if server is not None and (code := server.stop()):
            raise SnippetError(f"the server ended with {code}:\n" + "\n".join(server.lines[-40:]))

    def _execute(self, snippet: Snippet) -> None:
        try:
            done = subprocess.run(
                self._command(snippet),
                cwd=self._directory,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=self._place.seconds,
                check=False,
            )
        except subprocess.TimeoutExpired as exc:
            raise self._wrong(
                snippet, f"it did not end within {self._place.seconds:.0f} s; say background if it need not"
            ) from exc
        if (done.returncode != 0) != ("fails" in snippet.words):
            raise self._wrong(snippet, f"it ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
        if snippet.output and (told := difference(snippet.output, done.stdout)):
            raise self._wrong(snippet, told)

    def _begin(self, snippet: Snippet) -> None:
        printed = self._directory / f".printed-{snippet.line}"
        with printed.open("wb") as output:
            process = subprocess.Popen(
                self._command(snippet),
                cwd=self._directory,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        # Entered after the server, so left before it.
        self._stack.push(lambda kind, *_: self._end(snippet, process, printed, judged=kind is None))
        deadline = time.monotonic() + self._place.seconds
        while not printed.stat().st_size:
            if process.poll() is not None or time.monotonic() > deadline:
                raise self._wrong(snippet, f"it printed nothing; it ended with {process.poll()}")
            time.sleep(0.01)

    def _end(self, snippet: Snippet, process: subprocess.Popen[bytes], printed: Path, *, judged: bool) -> None:
        """End it; where nothing else went wrong, once it has printed what it is said to."""
        deadline = time.monotonic() + self._place.seconds
        try:
            while True:
                ended = process.poll()
                told = snippet.output and difference(snippet.output, printed.read_text(), whole=False)
                if not (told and judged) or ended is not None or time.monotonic() > deadline:
                    break
                time.sleep(0.01)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
            process.wait(self._place.seconds)
        if not judged:
            return
        if told:
            raise self._wrong(snippet, told)
        if ended:
            raise self._wrong(snippet, f"it ended with {ended}:\n{printed.read_text()}")

    def _check(self, snippet: Snippet, command: str) -> None:
        """A target to choose from must be one that there is."""
        words = [word for word in shlex.split(command) if not re.match(r"[A-Z_]+=", word)]
        if words[:1] != ["make"]:
            raise self._wrong(snippet, f"targets of make can be chosen from, and this is none: {command}")
        tried = subprocess.run([*words, "-n"], cwd=self._place.root, capture_output=True, text=True, check=False)
        if tried.returncode:
            raise self._wrong(snippet, tried.stderr)

    def _command(self, snippet: Snippet) -> list[str]:
        if snippet.language == "python":
            return [str(self._place.python), "-c", snippet.code]
        return ["bash", "-e", "-o", "pipefail", "-c", snippet.code]

    def _wrong(self, snippet: Snippet, what: str) -> SnippetError:
        return SnippetError(f"{self._page.name}, line {snippet.line}: {what}\n\n{snippet.code}")


def _command(snippet: Snippet) -> list[str]:
    if snippet.language == "python":
        return [sys.executable, "-c", snippet.code]
    return ["bash", "-e", "-o", "pipefail", "-c", snippet.code]


def _commands(code: str) -> list[str]:
    """The commands of a block that has one a line, without remarks."""
    lines = code.replace("\\\n", " ").splitlines()
    return [command for line in lines if (command := shlex.join(shlex.split(line, comments=True)))]
