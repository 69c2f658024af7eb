"""``python -m tests.engine.serve``: the server over the in-process engine, as a process of its own."""

from __future__ import annotations

import sys
from unittest import mock

from service import app
from service.cli import main
from service.settings import Settings
from tests.engine.fast import FastEngine


def load(settings: Settings, *_: object) -> FastEngine:
    context = settings.context or 4096
    return FastEngine(context=context, kv_capacity=16 * context)


if __name__ == "__main__":
    # The one thing exchanged is the model; everything else is the product.
    with mock.patch.object(app, "_load_model", load):
        sys.argv.insert(1, "serve")
        main.app()
