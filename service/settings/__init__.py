"""Every setting of the server, once: its unit, default and reason.

Each field is a flag of ``askahead serve`` (``max_sessions`` is ``--max-sessions``) and a variable of the environment
(``ASKAHEAD_MAX_SESSIONS``). Flags beat the environment.
"""

from __future__ import annotations

from pydantic_settings import BaseSettings, SettingsConfigDict

from service.settings.connections import ConnectionSettings
from service.settings.engine import EngineSettings
from service.settings.server import ServerSettings
from service.settings.streams import StreamSettings

ENV_PREFIX = "ASKAHEAD_"


# Fields come from the last base to the first, and so they are shown.
class Settings(ConnectionSettings, StreamSettings, ServerSettings, EngineSettings, BaseSettings):
    """Validated settings, immutable once made.

    Raises:
        pydantic.ValidationError: a value is of the wrong type or out of its bounds.
    """

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        # Compose files pass variables that are not set as empty strings.
        env_ignore_empty=True,
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        # Not settings of the library's, but a field named "model" must not clash with its namespace.
        protected_namespaces=(),
    )
