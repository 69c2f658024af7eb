"""A command with the flags of ``askahead serve``."""

from __future__ import annotations

import typer
from typer.testing import CliRunner

from service.cli.main import takes_settings
from service.settings import Settings


class Probe:
    """It keeps the settings it was given."""

    def __init__(self, error: Exception | None = None) -> None:
        self.settings: Settings | None = None
        self._error = error
        self._app = typer.Typer()

        @self._app.command()
        @takes_settings
        def serve(settings: Settings) -> None:
            self.settings = settings
            if self._error is not None:
                raise self._error

    def __call__(self, *arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(self._app, list(arguments))
        return result.exit_code, result.stderr

    def given(self, *arguments: str) -> Settings:
        code, output = self(*arguments)
        assert code == 0, output
        assert self.settings is not None
        return self.settings
