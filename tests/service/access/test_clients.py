from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from service.access.clients import ADDRESSES_MAX, Clients
from service.access.keyring import digest_of
from service.errors import Unauthorized
from service.settings import Settings
from streams.errors import Overloaded, Unavailable


def entry(key: str, *lines: str) -> str:
    return "\n".join(("[[key]]", f'name = "{key}"', f'sha256 = "{digest_of(key).hex()}"', *lines, ""))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "keys.toml"
    path.write_text(entry("all") + entry("acme", 'prefix = "acme-"'))
    return path


def test_the_key_that_is_offered_decides(file: Path) -> None:
    clients = Clients(Settings(api_key="main", api_keys_file=file))
    assert clients.identify(["main"], "").prefix == ""
    assert clients.identify(["all"], "").prefix == ""
    assert clients.identify(["wrong", "acme"], "").prefix == "acme-"
    assert clients.identify(["acme"], "1.2.3.4") is clients.identify(["acme"], "5.6.7.8")
    with pytest.raises(Unauthorized, match="is wrong"):
        clients.identify(["ALL", ""], "")
    with pytest.raises(Unauthorized, match="needs a key"):
        clients.identify([], "")


def test_without_keys_an_address_is_a_client_and_so_is_what_one_ipv6_client_has() -> None:
    clients = Clients(Settings())
    one = clients.identify([], "2001:db8:1:2::1")
    assert clients.identify([], "2001:db8:1:2:ffff::9") is one
    assert clients.identify([], "2001:db8:1:3::1") is not one
    assert clients.identify(["whatever"], "192.0.2.1") is clients.identify([], "::ffff:192.0.2.1")
    assert clients.identify([], "192.0.2.1") is not clients.identify([], "192.0.2.2")
    assert clients.identify([], "") is clients.identify([], "")
    assert clients.identify([], "fe80::1%eth0") is clients.identify([], "fe80::2%eth0")


def test_addresses_are_remembered_within_a_bound_and_busy_ones_longest() -> None:
    clients = Clients(Settings(rate_limit=0.001, rate_burst=2))
    busy, spent = clients.identify([], "busy"), clients.identify([], "spent")
    spent.spend()
    clients.identify([], "idle")
    with clients.serving(busy, "requests"):
        for number in range(ADDRESSES_MAX + 100):
            clients.identify([], f"other-{number}")
        assert clients.identify([], "busy") is busy
        assert clients.identify([], "spent") is spent
    assert len(clients._addresses) <= ADDRESSES_MAX


def test_a_client_is_limited_as_its_entry_or_else_the_server_says(file: Path) -> None:
    file.write_text(
        entry("slow", "requests_per_second = 0.001", "burst = 1") + entry("plain") + entry("more", "burst = 3")
    )
    clients = Clients(Settings(api_keys_file=file, rate_limit=0.001, rate_burst=2))
    for key, allowed in (("slow", 1), ("plain", 2), ("more", 3)):
        for _ in range(allowed):
            clients.identify([key], "").spend()
        with pytest.raises(Overloaded) as refused:
            clients.identify([key], "").spend()
        assert refused.value.code == "rate_limit_exceeded"
        assert refused.value.retry_after is not None
        assert 0 < refused.value.retry_after <= 1000


def test_without_a_rate_there_is_no_limit() -> None:
    client = Clients(Settings()).identify([], "")
    for _ in range(10_000):
        client.spend()


def test_what_is_served_at_once_is_bounded_per_client_and_in_total() -> None:
    clients = Clients(Settings(max_requests=3, max_requests_per_client=2))
    one, other = clients.identify([], "1.1.1.1"), clients.identify([], "2.2.2.2")
    with clients.serving(one, "requests"), clients.serving(one, "requests"):
        with pytest.raises(Overloaded) as own, clients.serving(one, "requests"):
            pass
        assert (own.value.code, own.value.retry_after) == ("too_many_requests", 1)
        with clients.serving(other, "requests"):
            with pytest.raises(Unavailable) as total, clients.serving(other, "requests"):
                pass
            assert (total.value.code, total.value.retry_after) == ("too_busy", 1)
            with clients.serving(other, "subscriptions"):
                pass
    with clients.serving(one, "requests"), clients.serving(other, "requests"), clients.serving(other, "requests"):
        pass


async def test_reloading_withdraws_what_is_gone_or_has_another_prefix(file: Path) -> None:
    clients = Clients(Settings(api_key="main", api_keys_file=file))
    main, every, acme = (clients.identify([key], "") for key in ("main", "all", "acme"))

    async def serve() -> None:
        async with asyncio.timeout(None) as scope:
            acme.scopes.add(scope)
            await asyncio.sleep(1000)

    served = asyncio.create_task(serve())
    while not acme.scopes:
        await asyncio.sleep(0)
    file.write_text(entry("all", "requests_per_second = 1") + entry("acme", 'prefix = "other-"'))
    clients.reload()
    with pytest.raises(TimeoutError):
        await served
    assert acme.withdrawn
    assert clients.identify(["acme"], "").prefix == "other-"
    assert clients.identify(["all"], "") is every
    assert every.bucket is not None
    assert clients.identify(["main"], "") is main
    assert not main.withdrawn
    file.write_text(entry("new"))
    clients.reload()
    assert every.withdrawn
    with pytest.raises(Unauthorized):
        clients.identify(["all"], "")
    assert clients.identify(["new"], "").prefix == ""


@pytest.mark.parametrize("content", ["", "[[key]]\nname = 1", None])
async def test_a_bad_file_is_logged_and_changes_nothing(
    file: Path, content: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    clients = Clients(Settings(api_keys_file=file))
    acme = clients.identify(["acme"], "")
    if content is None:
        file.unlink()
    else:
        file.write_text(content)
    clients.reload()
    assert "the keys stay as they are" in caplog.text
    assert clients.identify(["acme"], "") is acme
    assert not acme.withdrawn
