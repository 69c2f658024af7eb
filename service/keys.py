"""The typed keys under which the application holds its parts."""

from __future__ import annotations

from aiohttp import web
from redis.asyncio import Redis

from service.access.clients import Client, Clients
from service.api.models.protocol import ModelCard
from service.budget import BodyBudget
from service.metrics import Metrics
from service.settings import Settings
from streams.engine.supervisor import Supervisor

SETTINGS = web.AppKey("settings", Settings)
METRICS = web.AppKey("metrics", Metrics)
SUPERVISOR = web.AppKey("supervisor", Supervisor)
MODEL_CARD = web.AppKey("model_card", ModelCard)
REDIS = web.AppKey("redis", Redis)
BODIES = web.AppKey("bodies", BodyBudget)
CLIENTS = web.AppKey("clients", Clients)
CLIENT = web.RequestKey("client", Client)
"""Whose a request is; on every request that needs a key where there are keys."""
OPENAPI = web.AppKey("openapi", bytes)
"""The OpenAPI document, rendered once."""
