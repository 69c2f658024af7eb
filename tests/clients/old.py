"""The official client of the old generation, under a name of its own beside the new one.

``scripts/setup.sh`` puts it beside the environment's packages, where nothing else finds it.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

NAME = "layerscale_old"


def load() -> ModuleType:
    """The client's package."""
    if NAME not in sys.modules:
        package = Path(sys.prefix) / "old-client" / "layerscale"
        spec = importlib.util.spec_from_file_location(
            NAME, package / "__init__.py", submodule_search_locations=[str(package)]
        )
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[NAME] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[NAME]
