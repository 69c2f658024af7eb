from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from streams.store_url import Address, parse

TLS = {"ssl": True}


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://", Address("redis", (("localhost", 6379),))),
        ("redis://h", Address("redis", (("h", 6379),))),
        ("REDIS://h:1/2", Address("redis", (("h", 1),), db=2)),
        ("redis://h/", Address("redis", (("h", 6379),))),
        ("redis://h?db=3", Address("redis", (("h", 6379),), db=3)),
        ("redis://:p%40%2f@h", Address("redis", (("h", 6379),), options={"password": "p@/"})),
        ("redis://u:p@[::1]:7", Address("redis", (("::1", 7),), options={"username": "u", "password": "p"})),
        (
            "redis://h?username=u&password=p",
            Address("redis", (("h", 6379),), options={"username": "u", "password": "p"}),
        ),
        ("rediss://h", Address("redis", (("h", 6379),), options=TLS)),
        (
            "rediss://h?ssl_ca_certs=/ca%20.pem&ssl_cert_reqs=none&ssl_check_hostname=False",
            Address(
                "redis",
                (("h", 6379),),
                options=TLS | {"ssl_ca_certs": "/ca .pem", "ssl_cert_reqs": "none", "ssl_check_hostname": False},
            ),
        ),
        ("unix:///run/a%20b.sock", Address("unix", path="/run/a b.sock")),
        ("unix://u:p@/s?db=1", Address("unix", path="/s", db=1, options={"username": "u", "password": "p"})),
        ("redis+sentinel://h/main", Address("sentinel", (("h", 26379),), service="main")),
        (
            "redis+sentinel://:p@h1,[::2]:5,h3:6/ma%20in/4?sentinel_username=a&sentinel_password=b",
            Address(
                "sentinel",
                (("h1", 26379), ("::2", 5), ("h3", 6)),
                service="ma in",
                db=4,
                options={"password": "p"},
                sentinel_options={"username": "a", "password": "b"},
            ),
        ),
        ("rediss+sentinel://h/m", Address("sentinel", (("h", 26379),), service="m", options=TLS, sentinel_options=TLS)),
        ("redis+cluster://h1,h2:7", Address("cluster", (("h1", 6379), ("h2", 7)))),
        (
            "rediss+cluster://u:p@h/0",
            Address("cluster", (("h", 6379),), options=TLS | {"username": "u", "password": "p"}),
        ),
    ],
)
def test_what_is_understood(url: str, address: Address) -> None:
    assert parse(url) == address


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://h", "must start with one of redis://"),
        ("h:6379", "must start with one of redis://"),
        ("redis+sentinels://h", "must start with one of redis://"),
        ("redis://h1,h2", "must name one host; several are"),
        ("redis://h:0", "port from 1 to 65535"),
        ("redis://h:65536", "port from 1 to 65535"),
        ("redis://h:x", "port from 1 to 65535"),
        ("redis://::1", "port from 1 to 65535"),
        ("redis://h/x", "database by its number"),
        ("redis://h/-1", "database by its number"),
        ("redis://h?db=x", "database by its number"),
        ("redis://:a#b@h", "must not contain #"),
        ("redis://:secret/word@h", "special characters"),
        ("redis://h?socket_timeout=1", "no options but db, password, username"),
        ("redis://h?ssl_ca_certs=x", "no options but db, password, username"),
        ("rediss://h?ssl_cert_reqs=perhaps", "none, optional or required"),
        ("rediss://h?ssl_check_hostname=perhaps", "true or false"),
        ("unix://", "absolute path"),
        ("unix://run/s", "absolute path"),
        ("redis+sentinel://h", "must name the master"),
        ("redis+sentinel:///main", "must name each host"),
        ("redis+sentinel://h,/main", "must name each host"),
        ("redis+sentinel://h/main/x", "database by its number"),
        ("redis+cluster://", "must name each host"),
        ("redis+cluster://h/1", "a cluster has only 0"),
        ("redis+cluster://h?db=1", "a cluster has only 0"),
    ],
)
def test_what_is_not(url: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        parse(url)
    assert "secret" not in str(raised.value)


@given(st.text())
@example("[::1]:[::2]")
def test_nothing_else_comes_of_any_text(text: str) -> None:
    for scheme in ("redis", "rediss+sentinel", "redis+cluster", "unix"):
        try:
            address = parse(f"{scheme}://{text}")
        except ValueError as error:
            assert str(error).startswith("must ")  # noqa: PT017
        else:
            assert address.path or address.nodes


@given(st.text(min_size=1), st.text(min_size=1), st.text(min_size=1))
def test_escaped_names_come_through(user: str, password: str, service: str) -> None:
    user, password, service = (text.encode("utf-8", "replace").decode() for text in (user, password, service))
    url = f"redis+sentinel://{quote(user, safe='')}:{quote(password, safe='')}@h/{quote(service, safe='')}"
    address = parse(url)
    assert address.options == {"username": user, "password": password}
    assert address.service == service


def test_a_password_is_not_shown() -> None:
    assert "secret" not in repr(parse("redis://:secret@h"))
