"""Addresses of Redis: one server, a master behind sentinels, or a cluster.

redis-py knows URLs for single servers only. Those for the others are spelled as most clients spell them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Final, Literal
from urllib.parse import parse_qsl, unquote

Kind = Literal["redis", "unix", "sentinel", "cluster"]
Node = tuple[str, int]

REDIS_PORT: Final = 6379
SENTINEL_PORT: Final = 26379

_SCHEMES: Final[dict[str, tuple[Kind, bool]]] = {
    "redis": ("redis", False),
    "rediss": ("redis", True),
    "unix": ("unix", False),
    "redis+sentinel": ("sentinel", False),
    "rediss+sentinel": ("sentinel", True),
    "redis+cluster": ("cluster", False),
    "rediss+cluster": ("cluster", True),
}
_BOOLEANS: Final = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
_TLS_OPTIONS: Final = frozenset({"ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname"})
_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)]|([^\s:\[\]]+))(?::(\d{1,5}))?")
_ESCAPE = "; write special characters in a user name or password as %XX"


@dataclass(frozen=True, slots=True)
class Address:
    """What an URL says.

    Attributes:
        kind: what is there.
        nodes: host and port of the server, of each sentinel, or of some nodes of the cluster.
        path: of the socket, if it is one.
        service: the name under which sentinels know the master.
        db: number of the database.
        options: what a connection to a server is made with: user, password and TLS, in redis-py's terms.
        sentinel_options: the same for a sentinel.
    """

    kind: Kind
    nodes: tuple[Node, ...] = ()
    path: str = ""
    service: str = ""
    db: int = 0
    options: dict[str, Any] = field(default_factory=dict, repr=False)
    sentinel_options: dict[str, Any] = field(default_factory=dict, repr=False)


def parse(url: str) -> Address:
    """Read an URL.

    Raises:
        ValueError: it is not understood. The message repeats no part of it, since any may belong to a password.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or scheme.lower() not in _SCHEMES:
        raise ValueError(f"must start with one of {', '.join(f'{name}://' for name in _SCHEMES)}")
    kind, tls = _SCHEMES[scheme.lower()]
    if "#" in rest:
        raise ValueError(f"must not contain #{_ESCAPE}")
    rest, _, query = rest.partition("?")
    authority, slash, path = rest.partition("/")
    user, _, hosts = authority.rpartition("@")
    login = _login(*(unquote(part) or None for part in user.partition(":")[::2]))
    options = _options(query, kind, tls)
    sentinel_login = _login(options.pop("sentinel_username", None), options.pop("sentinel_password", None))
    login |= _login(options.pop("username", None), options.pop("password", None))
    db = _db(options.pop("db", "0"))
    secure = {"ssl": True} | options if tls else {}
    if kind == "unix":
        if hosts or not path:
            raise ValueError("must name a socket by its absolute path, as in unix:///run/redis.sock")
        return Address(kind, path=unquote(slash + path), db=db, options=login)
    nodes = _nodes(hosts, kind)
    service, _, number = path.partition("/") if kind == "sentinel" else ("", "", path)
    if kind == "sentinel" and not service:
        raise ValueError("must name the master after the sentinels, as in redis+sentinel://host:26379/mymaster")
    db = _db(number) if number else db
    if kind == "cluster" and db:
        raise ValueError("must not name a database: a cluster has only 0")
    return Address(
        kind,
        nodes,
        service=unquote(service),
        db=db,
        options=login | secure,
        sentinel_options=sentinel_login | secure if kind == "sentinel" else {},
    )


def _login(username: str | None, password: str | None) -> dict[str, Any]:
    return {name: value for name, value in (("username", username), ("password", password)) if value is not None}


def _nodes(hosts: str, kind: Kind) -> tuple[Node, ...]:
    port = SENTINEL_PORT if kind == "sentinel" else REDIS_PORT
    # redis:// alone is the server at the usual place, as in redis-py.
    found = [_HOST.fullmatch(host) for host in hosts.split(",")] if hosts or kind != "redis" else []
    nodes = tuple((match[1] or match[2], int(match[3] or port)) for match in found if match)
    if len(nodes) < len(found) or not all(0 < number < 65536 for _, number in nodes):
        raise ValueError(f"must name each host as host or host:port, with a port from 1 to 65535{_ESCAPE}")
    if kind == "redis" and len(nodes) > 1:
        raise ValueError("must name one host; several are redis+sentinel:// or redis+cluster://")
    return nodes or (("localhost", port),)


def _db(text: str) -> int:
    if not re.fullmatch(r"\d{1,6}", text, re.ASCII):
        raise ValueError("must name a database by its number, as in redis://localhost:6379/0")
    return int(text)


def _options(query: str, kind: Kind, tls: bool) -> dict[str, Any]:
    known = {"db", "username", "password"}
    known |= _TLS_OPTIONS if tls else set()
    known |= {"sentinel_username", "sentinel_password"} if kind == "sentinel" else set()
    options: dict[str, Any] = dict(parse_qsl(query, keep_blank_values=True))
    if not options.keys() <= known:
        raise ValueError(f"must have no options but {', '.join(sorted(known))}{_ESCAPE}")
    if options.get("ssl_cert_reqs", "required") not in ("none", "optional", "required"):
        raise ValueError("must have none, optional or required as ssl_cert_reqs")
    if "ssl_check_hostname" in options:
        check = _BOOLEANS.get(options["ssl_check_hostname"].lower())
        if check is None:
            raise ValueError("must have true or false as ssl_check_hostname")
        options["ssl_check_hostname"] = check
    return options
