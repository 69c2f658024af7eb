"""``askahead key``: a new key, and the entry that makes it valid."""

from __future__ import annotations

import re
import sys
from typing import Annotated

import typer

from service.access.keyring import NAME, PREFIX, digest_of, new_key


def key(
    name: Annotated[
        str | None, typer.Option(help="What to call it, in the file and in the log. Unset: made from its hash.")
    ] = None,
    prefix: Annotated[
        str | None, typer.Option(help="Its holder knows of sessions only whose ids start so. Unset: of all.")
    ] = None,
) -> None:
    """Make a new key. It is printed once and kept nowhere; the entry for --api-keys-file has its hash only."""
    for flag, value, pattern in (("--name", name, NAME), ("--prefix", prefix, PREFIX)):
        if value is not None and not re.fullmatch(pattern, value):
            print(f"askahead: {flag}: must be 1 to 64 of A-Z a-z 0-9 _ -", file=sys.stderr)
            raise SystemExit(2)
    made = new_key()
    digest = digest_of(made).hex()
    print(f"The key, which is not shown again:\n\n{made}\n")
    print("The entry for the file of keys; a running server reads that on SIGHUP:\n")
    print(f'[[key]]\nname = "{name or f"key-{digest[:8]}"}"\nsha256 = "{digest}"')
    if prefix is not None:
        print(f'prefix = "{prefix}"')
