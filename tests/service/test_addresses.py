"""What is public, and what a URL may look like."""

from __future__ import annotations

import ipaddress
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.addresses import check_url, is_public, names_private

# The special-purpose registries of IANA, and multicast.
PRIVATE_V4 = (
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.2.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
)
PRIVATE_V6 = ("::/96", "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8", "100::/64", "2001:db8::/32", "64:ff9b:1::/48")
PUBLIC = ("1.1.1.1", "8.8.8.8", "172.15.255.255", "172.32.0.0", "2606:4700:4700::1111", "2a00:1450:4001::1")


def inside(networks: tuple[str, ...]) -> st.SearchStrategy[str]:
    return st.sampled_from(networks).flatmap(lambda network: st.ip_addresses(network=network).map(str))


def embedded(address: IPv4Address) -> dict[str, str]:
    """The spellings of an IPv4 address as an IPv6 one."""
    number = int(address)
    return {
        "mapped": str(IPv6Address(0xFFFF << 32 | number)),
        "6to4": str(IPv6Address(0x2002 << 112 | number << 80 | 1)),
        "NAT64": str(IPv6Address(0x64FF9B << 96 | number)),
    }


@given(address=inside(PRIVATE_V4 + PRIVATE_V6))
def test_nothing_private_is_public(address: str) -> None:
    assert not is_public(address)
    assert names_private(check_url(f"http://{f'[{address}]' if ':' in address else address}:8080/"))


@given(address=inside(PRIVATE_V4).map(IPv4Address))
def test_nothing_private_hides_inside_another_address(address: IPv4Address) -> None:
    assert [name for name, text in embedded(address).items() if is_public(text)] == []
    # Teredo carries its client's address inverted.
    assert not is_public(str(IPv6Address(0x20010000 << 96 | (int(address) ^ 0xFFFF_FFFF))))


@given(address=st.ip_addresses(v=4))
def test_an_address_is_as_public_as_the_one_inside(address: IPv4Address) -> None:
    assert {is_public(text) for text in embedded(address).values()} == {is_public(str(address))}


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_public(address: str) -> None:
    assert is_public(address)
    assert not names_private(check_url(f"https://{f'[{address}]' if ':' in address else address}/"))


@given(address=st.ip_addresses(v=6))
def test_what_is_public_is_global(address: IPv6Address) -> None:
    if is_public(str(address)):
        assert address in ipaddress.ip_network("2000::/3") or address.ipv4_mapped or str(address).startswith("64:ff9b")


def test_a_zone_is_of_this_machine() -> None:
    assert not is_public("2606:4700:4700::1111%eth0")


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST", "localhost.", "a.localhost", "127.0.0.1.", "[::1]", "１２７.0.0.1"]
)
def test_names_of_this_machine(host: str) -> None:
    assert names_private(check_url(f"http://{host}/"))


@pytest.mark.parametrize("url", ["https://example.com/a?b=c", "http://example.com:8080", "https://exämple.de/ü"])
def test_urls_that_are_fine(url: str) -> None:
    assert not names_private(check_url(url))


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("", "https://example.com/hook"),
        ("example.com", "https://example.com/hook"),
        ("ftp://example.com/", "https://example.com/hook"),
        ("file:///etc/passwd", "https://example.com/hook"),
        ("http://", "https://example.com/hook"),
        ("http:///path", "https://example.com/hook"),
        ("http://example.com:99999/", "is not a URL"),
        ("http://[::1/", "is not a URL"),
        ("https://user@example.com/", "user name or password"),
        ("https://user:secret@example.com/", "user name or password"),
        ("https://:secret@example.com/", "user name or password"),
        ("https://exam\nple.com/", "control characters"),
        ("https://example.com/a b", "spaces"),
        ("https://example.com/" + "ä" * 1020, "2048 bytes"),
        ("http://0x7f.1/", "four decimal numbers"),
        ("http://127.1/", "four decimal numbers"),
        ("http://2130706433/", "four decimal numbers"),
        ("http://0177.0.0.1/", "four decimal numbers"),
    ],
)
def test_urls_that_are_not(url: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        check_url(url)


@given(text=st.text(max_size=60) | st.text(max_size=30).map(lambda host: f"http://{host}/"))
def test_any_text_is_a_url_or_refused(text: str) -> None:
    try:
        url = check_url(text)
    except ValueError:
        return
    assert url.scheme in ("http", "https")
    names_private(url)
