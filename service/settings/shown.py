"""Settings as people see them: flags, variables, defaults and kinds."""

from __future__ import annotations

from typing import get_args

from pydantic.fields import FieldInfo

from service.settings import ENV_PREFIX


def flag(name: str) -> str:
    """The flag of a setting."""
    return "--" + name.replace("_", "-")


def variable(name: str) -> str:
    """Its variable of the environment."""
    return ENV_PREFIX + name.upper()


def panel(field: FieldInfo) -> str | None:
    """The heading that it is shown under."""
    extra = field.json_schema_extra
    return str(extra["panel"]) if isinstance(extra, dict) else None


def default(field: FieldInfo) -> str:
    """What it is if nobody sets it."""
    value = field.get_default(call_default_factory=True, validated_data={})
    return "unset" if value in (None, ()) else str(value)


def metavar(field: FieldInfo) -> str:
    """What kind of value it takes: ``INTEGER``, or its choices with ``|`` between them."""
    annotation = field.annotation
    choices = [choice for choice in get_args(annotation) if isinstance(choice, str)]
    if choices:
        return "|".join(choices)
    kinds = [kind for kind in get_args(annotation) if kind is not type(None)] or [annotation]
    return {bool: "true|false", int: "INTEGER", float: "NUMBER"}.get(kinds[0], "TEXT")
