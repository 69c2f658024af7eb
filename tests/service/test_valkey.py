from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import stat
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from service.valkey import Fsync, embedded_valkey
from streams.errors import Conflict, Unavailable

OWNER = """
import asyncio, sys
from pathlib import Path
from service.valkey import embedded_valkey

async def main():
    async with embedded_valkey(Path(sys.argv[1])) as url:
        print(url, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


@contextlib.asynccontextmanager
async def _client(url: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(url, decode_responses=True) as client:
        yield client


def _pid(data_dir: Path) -> int:
    return int((data_dir / "valkey" / "valkey.pid").read_text())


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def _until(condition: object) -> None:
    assert callable(condition)
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.02)


async def test_it_keeps_what_it_was_given(tmp_path: Path) -> None:
    async with embedded_valkey(tmp_path) as url, _client(url) as client:
        await client.set("key", "value")
        await client.xadd("stream", {"a": "b"})
        pid = _pid(tmp_path)
    assert not _lives(pid)
    async with embedded_valkey(tmp_path) as url, _client(url) as client:
        assert await client.get("key") == "value"
        assert await client.xlen("stream") == 1


async def test_it_listens_to_its_owner_alone(tmp_path: Path) -> None:
    async with embedded_valkey(tmp_path) as url, _client(url) as client:
        assert url.startswith("unix:///")
        assert (await client.config_get("port"))["port"] == "0"
        home = tmp_path / "valkey"
        assert stat.S_IMODE(home.stat().st_mode) == 0o700
        assert stat.S_IMODE((home / "valkey.sock").stat().st_mode) == 0o700


async def test_a_directory_has_one_owner(tmp_path: Path) -> None:
    async with embedded_valkey(tmp_path):
        with pytest.raises(Conflict, match="another askahead uses this data directory"):
            async with embedded_valkey(tmp_path):
                pass
    async with embedded_valkey(tmp_path):
        pass


async def test_a_long_path_is_no_obstacle(tmp_path: Path) -> None:
    data_dir = tmp_path / ("long " * 30 + "%41ü")
    async with embedded_valkey(data_dir) as url, _client(url) as client:
        assert await client.ping()
        socket = Path(url.removeprefix("unix://"))
        assert socket.exists()
    assert not socket.parent.exists()


async def test_odd_characters_in_the_path_are_no_obstacle(tmp_path: Path) -> None:
    async with embedded_valkey(tmp_path / "a b%41?#") as url, _client(url) as client:
        assert await client.ping()


async def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "valkey").mkdir()
    (tmp_path / "valkey" / "valkey.sock").touch()
    async with embedded_valkey(tmp_path) as url, _client(url) as client:
        assert await client.ping()


async def test_the_server_of_a_killed_owner_is_ended_and_its_data_kept(tmp_path: Path) -> None:
    owner = await asyncio.create_subprocess_exec(
        sys.executable, "-c", OWNER, str(tmp_path), stdout=asyncio.subprocess.PIPE
    )
    assert owner.stdout is not None
    async with asyncio.timeout(20):
        url = (await owner.stdout.readline()).decode().strip()
    async with _client(url) as client:
        await client.set("key", "value")
    orphan = _pid(tmp_path)
    owner.kill()
    await owner.wait()
    assert _lives(orphan)
    async with embedded_valkey(tmp_path) as url, _client(url) as client:
        assert await client.get("key") == "value"
        assert _pid(tmp_path) != orphan
        await _until(lambda: not _lives(orphan))


async def test_it_is_started_again_when_it_dies(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with embedded_valkey(tmp_path) as url, _client(url) as client:
        for count in (1, 2):
            await client.set(f"key {count}", "value")
            pid = _pid(tmp_path)
            os.kill(pid, signal.SIGKILL)
            await _until(lambda: caplog.text.count("the embedded Valkey is back") == count)  # noqa: B023
            assert _pid(tmp_path) != pid
            assert await client.get(f"key {count}") == "value"
        pid = _pid(tmp_path)
    assert not _lives(pid)
    assert [record.levelno for record in caplog.records] == 2 * [logging.ERROR, logging.INFO]
    assert str(tmp_path / "valkey" / "valkey.log") in caplog.text


async def test_it_is_tried_until_it_can_be_started(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    files = tmp_path / "valkey" / "appendonlydir"
    async with embedded_valkey(tmp_path) as url, _client(url) as client:
        await client.set("key", "value")
        files.rename(tmp_path / "kept")
        files.mkdir()
        (files / "appendonly.aof.manifest").write_text("nonsense\n")
        os.kill(_pid(tmp_path), signal.SIGKILL)
        await _until(lambda: "cannot be started again" in caplog.text)
        shutil.rmtree(files)
        (tmp_path / "kept").rename(files)
        await _until(lambda: "the embedded Valkey is back" in caplog.text)
        assert await client.get("key") == "value"


async def test_an_end_while_it_cannot_be_started(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with embedded_valkey(tmp_path):
        shutil.rmtree(tmp_path / "valkey" / "appendonlydir")
        (tmp_path / "valkey" / "appendonlydir").touch()
        os.kill(_pid(tmp_path), signal.SIGKILL)
        await _until(lambda: "cannot be started again" in caplog.text)
    assert not (tmp_path / "valkey" / "valkey.sock").exists()


@pytest.mark.parametrize("fsync", ["always", "everysec", "no"])
async def test_when_it_writes_to_the_disk_is_a_setting(tmp_path: Path, fsync: Fsync) -> None:
    async with embedded_valkey(tmp_path, fsync) as url, _client(url) as client:
        assert (await client.config_get("appendfsync"))["appendfsync"] == fsync


async def test_an_ordinary_end_is_not(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with embedded_valkey(tmp_path):
        pass
    assert "died" not in caplog.text


async def test_what_it_says_when_it_cannot_start_is_passed_on(tmp_path: Path) -> None:
    files = tmp_path / "valkey" / "appendonlydir"
    files.mkdir(parents=True)
    (files / "appendonly.aof.manifest").write_text("nonsense\n")
    with pytest.raises(Unavailable, match=r"(?s)ended at its start; .*valkey\.log ends with:.*manifest"):
        async with embedded_valkey(tmp_path):
            pass


async def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Unavailable, match=r"cannot use the data directory .*file.*--data-dir"):
        async with embedded_valkey(tmp_path / "file"):
            pass


async def test_an_owner_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    pid = 0
    with contextlib.suppress(ZeroDivisionError):
        async with embedded_valkey(tmp_path):
            pid = _pid(tmp_path)
            raise ZeroDivisionError
    assert pid
    assert not _lives(pid)
    assert not (tmp_path / "valkey" / "valkey.sock").exists()
