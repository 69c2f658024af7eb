"""``python -m tests.engine.serve``: the server over the in-process engine, as a process of its own."""

from __future__ import annotations

import sys
from unittest import mock

from service import app
from service.cli import main
from tests.engine.fast import FastEngine

if __name__ == "__main__":
    # The one thing exchanged is the model; everything else is the product.
    with mock.patch.object(app, "_load_model", side_effect=lambda *_: FastEngine()):
        sys.argv.insert(1, "serve")
        main.app()
