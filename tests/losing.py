"""A client of Redis that is as bad as a network can be."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.asyncio.connection import Connection
from redis.exceptions import ConnectionError as RedisConnectionError


class Losing(Redis):
    """Loses replies, as a connection that breaks does: what was sent is done, and nobody knows.

    Attributes:
        losses: how many of the next pipelines.
        round_trips: pipelines sent.
        gate: they wait for it.
        replies: what they are answered with waits for it.
        unknown: the newest one's reply was lost.
        passes: so many of them pass before it closes; None to leave it as it is.
        lost: how many of the next single commands, by name.
        resent: the same, where the client sends again by itself what had no reply.
        held: their replies wait for that, by name.
        waiting: how much waits for a gate now.
        refused: names of commands that are not even sent.
    """

    losses = 0
    round_trips = 0
    passes: int | None = None
    unknown = False
    waiting = 0

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.gate = asyncio.Event()
        self.gate.set()
        self.replies = asyncio.Event()
        self.replies.set()
        self.lost: Counter[str] = Counter()
        self.resent: Counter[str] = Counter()
        self.held: dict[str, asyncio.Event] = {}
        self.refused: set[str] = set()

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> Pipeline:
        pipe = super().pipeline(transaction, shard_hint)
        execute = pipe.execute

        async def lossy(raise_on_error: bool = True) -> list[Any]:
            await self._pass(self.gate)
            self.round_trips += 1
            if self.passes is not None:
                self.passes -= 1
                if not self.passes:
                    self.gate.clear()
            results: list[Any] = await execute(raise_on_error)
            await self._pass(self.replies)
            self.unknown = bool(self.losses)
            if self.losses:
                self.losses -= 1
                raise RedisConnectionError("the reply was lost")
            return results

        pipe.execute = lossy  # type: ignore[method-assign]
        return pipe

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        name = args[0]
        if name in self.refused:
            raise RedisConnectionError("nobody listens")
        result = await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
        if name in self.held:
            await self._pass(self.held[name])
        if self.lost[name]:
            self.lost[name] -= 1
            raise RedisConnectionError("the reply was lost")
        return result

    async def parse_response(self, connection: Connection, command_name: str | bytes, **options: Any) -> Any:
        result = await super().parse_response(connection, command_name, **options)
        if self.resent[str(command_name)]:
            self.resent[str(command_name)] -= 1
            raise RedisConnectionError("the reply was lost")
        return result

    async def _pass(self, gate: asyncio.Event) -> None:
        self.waiting += 1
        try:
            await gate.wait()
        finally:
            self.waiting -= 1
