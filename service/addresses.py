"""Which addresses the server may be told to connect to. Pure, no I/O."""

from __future__ import annotations

import ipaddress
import socket
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from yarl import URL

URL_BYTES_MAX: Final = 2048

# All that is assigned for global unicast; what lies outside is local, multicast or reserved.
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def is_public(text: str) -> bool:
    """Whether an IP address is one of the Internet's, and not of this machine, its networks, or reserved.

    Args:
        text: the address as the socket layer spells it.
    """
    # A zone names an interface of this machine.
    return "%" not in text and _public(ipaddress.ip_address(text))


def _public(address: IPv4Address | IPv6Address) -> bool:
    if isinstance(address, IPv4Address):
        return address.is_global and not address.is_multicast and not address.is_reserved
    # Packets to these end at the IPv4 address inside.
    if (inside := _embedded(address)) is not None:
        return _public(inside)
    return address in _GLOBAL_UNICAST and address.is_global and address.teredo is None


def _embedded(address: IPv6Address) -> IPv4Address | None:
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour


def check_url(text: str) -> URL:
    """A URL to send to: of HTTP, with a host, without credentials.

    Raises:
        ValueError: it is none, or too long.
    """
    if len(text.encode()) > URL_BYTES_MAX:
        raise ValueError(f"must be at most {URL_BYTES_MAX} bytes")
    if not text.isprintable() or " " in text:
        raise ValueError("must not contain spaces or control characters; percent-encode them")
    try:
        url = URL(text)
    except ValueError as error:
        raise ValueError(f"is not a URL: {error}") from None
    if url.scheme not in ("http", "https") or not url.raw_host:
        raise ValueError("must be a URL such as https://example.com/hook")
    if url.user is not None or url.password is not None:
        raise ValueError("must not contain a user name or password; messages are signed instead")
    if _is_shorthand(url.raw_host):
        raise ValueError("must spell an IPv4 address as four decimal numbers")
    return url


def names_private(url: URL) -> bool:
    """Whether a URL that passed :func:`check_url` names a private address, or this machine, without asking DNS."""
    host = (url.raw_host or "").rstrip(".").lower()
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return not is_public(host)
    except ValueError:
        return False


def _is_shorthand(host: str) -> bool:
    """Whether the socket layer would take a host for an IPv4 address that is not written as such, like ``0x7f.1``."""
    try:
        ipaddress.ip_address(host.rstrip("."))
    except ValueError:
        pass
    else:
        return False
    try:
        socket.inet_aton(host.rstrip("."))
    except (OSError, UnicodeError):
        return False
    return True
