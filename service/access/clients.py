"""Who asks, what they may see, and how much at once. A client is a key, or an address where no key is needed."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import math
import time
from collections import OrderedDict
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from typing import Final, Literal

from service.access.bucket import Bucket
from service.access.keyring import Key, Keyring, digest_of, read_keys
from service.errors import Unauthorized
from service.settings import Settings
from streams.errors import AskaheadError, Overloaded, Unavailable

log = logging.getLogger(__name__)

ADDRESSES_MAX: Final = 4096
"""Addresses that are remembered where no key is needed; those that ask for nothing are forgotten first."""

Kind = Literal["requests", "subscriptions"]
"""What is served: something that ends by itself, or something that waits for what happens."""

_RETRY_SECONDS = 1.0
_LOOKED_AT = 16


@dataclass(slots=True, eq=False)
class Client:
    """One client.

    Attributes:
        name: what the log calls it: its key's name, or its address.
        prefix: it knows of sessions only whose ids start so; empty: of all.
        bucket: how often it may ask; None: as often as it likes.
        serving: how much of what it is being served.
        scopes: a scope around everything that it is being served.
        withdrawn: its key is no longer valid.
    """

    name: str
    prefix: str = ""
    bucket: Bucket | None = None
    serving: dict[Kind, int] = field(default_factory=lambda: {"requests": 0, "subscriptions": 0})
    scopes: set[asyncio.Timeout] = field(default_factory=set)
    withdrawn: bool = False

    def sees(self, session_id: str) -> bool:
        """Whether it may know of a session of that id."""
        return session_id.startswith(self.prefix)

    def spend(self) -> None:
        """Count one request, or message on a socket.

        Raises:
            Overloaded: it asks too often.
        """
        wait = 0.0 if self.bucket is None else self.bucket.take(time.monotonic())
        if wait:
            raise Overloaded(f"too many requests; wait {_seconds(wait)} and try again", retry_after=wait)

    def withdraw(self) -> None:
        """End everything it is being served."""
        self.withdrawn = True
        now = asyncio.get_running_loop().time()
        for scope in self.scopes:
            if not scope.expired():
                scope.reschedule(now)

    @property
    def idle(self) -> bool:
        """Whether forgetting it changes nothing."""
        return not any(self.serving.values()) and (self.bucket is None or self.bucket.full(time.monotonic()))


class Clients:
    """All clients.

    Args:
        settings: keys and limits.

    Raises:
        KeysFileError: the file of keys is wrong.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._keys = self._read()
        self._holders: dict[bytes, Client] = {}
        self._addresses: OrderedDict[str, Client] = OrderedDict()
        self._serving: dict[Kind, int] = {"requests": 0, "subscriptions": 0}
        self._most: dict[Kind, tuple[int, int]] = {
            "requests": (settings.max_requests, settings.max_requests_per_client),
            "subscriptions": (settings.max_subscriptions, settings.max_subscriptions_per_client),
        }

    def reload(self) -> None:
        """Read the file of keys again. Where it is wrong that is logged, and the keys stay as they are."""
        try:
            keys = self._read()
        except AskaheadError as error:
            log.error("the keys stay as they are: %s", error.message)
            return
        for digest, client in list(self._holders.items()):
            old, new = self._keys.find(digest), keys.find(digest)
            if new is None or new.prefix != client.prefix:
                client.withdraw()
                del self._holders[digest]
            elif new != old:
                client.bucket = self._bucket(new)
        self._keys = keys
        log.info("%d keys are valid", len(keys))

    def _read(self) -> Keyring:
        keys: list[Key] = []
        if self._settings.api_key is not None:
            keys.append(Key("--api-key", digest_of(self._settings.api_key.get_secret_value())))
        if self._settings.api_keys_file is not None:
            keys.extend(read_keys(self._settings.api_keys_file))
        return Keyring(keys)

    # Who

    def identify(self, offered: Iterable[str], address: str) -> Client:
        """The client that a request comes from.

        Args:
            offered: what it gives as keys.
            address: where it comes from; empty where that has no name.

        Raises:
            Unauthorized: a key is needed, and none of these is one.
        """
        if not self._keys:
            return self._at(_network(address))
        given = False
        for text in offered:
            given = True
            key = self._keys.find(digest_of(text))
            if key is not None:
                return self._holder(key)
        if given:
            raise Unauthorized("the key is wrong")
        raise Unauthorized(
            "this server needs a key: send it as `Authorization: Bearer KEY` or as `x-api-key: KEY`",
            code="missing_api_key",
        )

    def _holder(self, key: Key) -> Client:
        client = self._holders.get(key.digest)
        if client is None:
            client = self._holders[key.digest] = Client(key.name, key.prefix, self._bucket(key))
        return client

    def _at(self, network: str) -> Client:
        client = self._addresses.get(network)
        if client is not None:
            self._addresses.move_to_end(network)
            return client
        if len(self._addresses) >= ADDRESSES_MAX:
            self._forget_one()
        client = self._addresses[network] = Client(network, bucket=self._bucket(None))
        return client

    def _forget_one(self) -> None:
        # Of those that were silent for longest. Where none is idle, what the first is being served goes on.
        longest = list(islice(self._addresses.items(), _LOOKED_AT))
        del self._addresses[next((one for one, client in longest if client.idle), longest[0][0])]

    def _bucket(self, key: Key | None) -> Bucket | None:
        rate, burst = self._settings.rate_limit, self._settings.rate_burst
        if key is not None:
            rate, burst = key.requests_per_second or rate, key.burst or burst
        return None if rate is None else Bucket(rate, burst or math.ceil(rate), time.monotonic())

    # How much

    def serving(self, client: Client, kind: Kind) -> AbstractContextManager[None]:
        """Inside, the client is being served.

        Raises:
            Overloaded: it is being served as much as one client may be.
            Unavailable: all together are being served as much as the server will.
        """
        total, own = self._most[kind]
        if client.serving[kind] >= own:
            raise Overloaded(
                f"{own} {kind} of yours are being served, which is the limit; let one end first",
                code=f"too_many_{kind}",
                retry_after=_RETRY_SECONDS,
            )
        if self._serving[kind] >= total:
            raise Unavailable(
                f"the server is serving as many {kind} as it will; try again shortly",
                code="too_busy",
                retry_after=_RETRY_SECONDS,
            )
        return _Counted(kind, client.serving, self._serving)


@dataclass(slots=True)
class _Counted(AbstractContextManager[None]):
    """Counts something of a kind while it goes on: there is one to every request, so it is no generator."""

    kind: Kind
    own: dict[Kind, int]
    total: dict[Kind, int]

    def __enter__(self) -> None:
        self.own[self.kind] += 1
        self.total[self.kind] += 1

    def __exit__(self, *_: object) -> None:
        self.own[self.kind] -= 1
        self.total[self.kind] -= 1


@lru_cache(maxsize=ADDRESSES_MAX)
def _network(address: str) -> str:
    """What one client has: an IPv4 address, or 2^64 of IPv6."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return address
    return str(parsed.ipv4_mapped or ipaddress.IPv6Network((int(parsed), 64), strict=False))


def _seconds(wait: float) -> str:
    return f"{math.ceil(wait)} s"
