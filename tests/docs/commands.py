"""Commands on pages that are not carried out there: whether they could be, as far as that can be told.

They want Docker, a cluster, a GPU, a second machine or data of the reader's own. Each is taken apart by whatever would
be given it; a program that is not known here is refused.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import typer
import yaml

from service.cli.main import app
from tests.deploy.manifests import KUBECTL
from tests.servers import ROOT
from tests.service.cli.probe import Probe

_ELSEWHERE = {"tail", "ray"}
"""Programs of others whose arguments nothing here can take apart."""

_IMAGES = {"jaegertracing/all-in-one"}
"""Images of others that pages name."""


class CommandError(AssertionError):
    """A command could not be carried out."""


def commands(code: str) -> Iterator[list[str]]:
    """The programs that a block starts, with their arguments; those of a pipe one by one."""
    for line in code.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        while "|" in words:
            at = words.index("|")
            yield words[:at]
            words = words[at + 1 :]
        if words:
            yield words


def check(words: Sequence[str]) -> None:
    """Whether a command could be carried out.

    Raises:
        CommandError: it could not; the message says why.
    """
    program, *arguments = words
    if program in _ELSEWHERE:
        return
    checker = _CHECKERS.get(program)
    if checker is None:
        raise CommandError(
            f"{program} is not known: have its page run, or say in tests/docs/commands.py what is checked"
        )
    checker(arguments)


def _askahead(arguments: Sequence[str]) -> None:
    if arguments[0] == "serve":
        _serve(arguments[1:])
        return
    command: Any = typer.main.get_command(app)
    name, left = "askahead", list(arguments)
    try:
        context = command.make_context(name, left)
        while hasattr(command, "resolve_command"):
            name, command, left = command.resolve_command(context, [*context._protected_args, *context.args])
            context = command.make_context(name, left, parent=context)
    except Exception as error:  # whatever the parser calls it
        raise CommandError(f"{shlex.join(arguments)}: {getattr(error, 'message', error)}") from error


def _serve(arguments: Sequence[str]) -> None:
    code, output = Probe()(*arguments)
    _require(code == 0, output)


def _docker(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="docker")
    kinds = parser.add_subparsers(required=True)
    build = kinds.add_parser("build")
    build.add_argument("-t")
    build.add_argument("--target", choices=re.findall(r"^FROM .* AS (\S+)", _read("Dockerfile"), re.MULTILINE))
    build.add_argument("context", choices=["."])
    run = kinds.add_parser("run")
    run.add_argument("-p", action="append", type=_published)
    run.add_argument("-v")
    run.add_argument("image")
    run.add_argument("command", nargs=argparse.REMAINDER)
    compose = kinds.add_parser("compose")
    services = yaml.safe_load(_read("compose.yaml"))["services"].values()
    profiles = {profile for service in services for profile in service.get("profiles", ())}
    compose.add_argument("--profile", action="append", choices=profiles)
    compose.add_argument("verb", choices=["up", "down", "logs"])
    try:
        given = vars(parser.parse_args(arguments))
    except SystemExit as error:
        raise CommandError(f"docker {shlex.join(arguments)}: what is wrong was printed") from error
    if given.get("image") == "askahead":
        _serve(given["command"])
    elif "image" in given:
        _require(given["image"] in _IMAGES, f"the image {given['image']} is not known")


def _published(value: str) -> str:
    if not re.fullmatch(r"(\d+(\.\d+){3}:)?\d+:\d+", value):
        raise argparse.ArgumentTypeError(f"{value} publishes no port")
    return value


def _kubectl(arguments: Sequence[str]) -> None:
    tried = subprocess.run([KUBECTL, *arguments, "--help"], capture_output=True, text=True, check=False)
    _require(tried.returncode == 0, tried.stderr)
    # An unknown subcommand gets the help of its parent, which takes none.
    _require("Usage:\n  kubectl [flags] [options]" not in tried.stdout, f"kubectl has no {shlex.join(arguments)}")


def _pip(arguments: Sequence[str]) -> None:
    found = re.fullmatch(r"install askahead\[(\w+)\]", " ".join(arguments))
    extras = importlib.metadata.metadata("askahead").get_all("Provides-Extra") or ()
    _require(found is not None and found[1] in extras, f"pip {shlex.join(arguments)}: there is no such extra")


def _python(arguments: Sequence[str]) -> None:
    file, *flags = arguments
    _require((ROOT / file).is_file(), f"there is no {file}")
    told = subprocess.run(
        [sys.executable, file, "--help"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout
    for flag in flags:
        _require(not flag.startswith("--") or flag in told, f"{file} has no {flag}")


def _make(arguments: Sequence[str]) -> None:
    tried = subprocess.run(["make", "-n", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    _require(tried.returncode == 0, tried.stderr)


def _require(so: bool, otherwise: str) -> None:
    if not so:
        raise CommandError(otherwise)


def _read(name: str) -> str:
    return Path(ROOT / name).read_text()


_CHECKERS: dict[str, Callable[[Sequence[str]], None]] = {
    "askahead": _askahead,
    "docker": _docker,
    "kubectl": _kubectl,
    "pip": _pip,
    ".venv/bin/python": _python,
    "make": _make,
}
