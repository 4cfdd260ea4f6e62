"""The HTTP routes of a server.

POST /predict   an image -> mask, overlay, color or json
GET  /model /health /metrics /openapi.json, and a page at /
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fullconv.core.concurrency import short_switch_interval
from fullconv.core.i18n import accepted_language, msg, translate
from fullconv.core.packages import __version__
from fullconv.core.text import split_list
from fullconv.deploy.serve.metrics import Metrics
from fullconv.deploy.serve.responses import Output, PredictRequest
from fullconv.deploy.serve.schemas import (
    METRICS_OK,
    PAGE_OK,
    PREDICT_BODY,
    PREDICT_OK,
    Health,
    ModelInfo,
    PredictResponse,
    error_responses,
)
from fullconv.deploy.serve.service import ClientDisconnectedError, Service
from fullconv.deploy.serve.uploads import Limits, RequestError, require_key
from fullconv.inference.segmenter import Segmenter

_RETRY_AFTER = 2  # seconds
_DISCONNECTED = 499  # status for the metrics; no client receives it
_INCLUDE = "^((ids|mask|confidence)(,(ids|mask|confidence))*)?$"


def create_app(model: Segmenter, name: str, limits: Limits | None = None, key: str = "") -> FastAPI:
    """Create the ASGI application that serves a model.

    Args:
        name: of the model, for /model and the page.
        key: that requests must carry; "" for none.

    Raises:
        FullconvError: the model needs extra inputs.
    """
    limits = limits or Limits()
    service = Service(model, limits)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        with short_switch_interval():  # the network does not wait while an image is encoded
            yield
            service.close()

    app = FastAPI(
        title="Fullconv",
        description=f"Semantic segmentation by {name}.",
        version=__version__,
        docs_url=None,  # its pages load scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
    )

    # Routes of the model need the key.
    async def check_key(request: Request) -> None:
        require_key(request.headers, key)

    guards = [Depends(HTTPBearer(auto_error=False)), Depends(check_key)] if key else []
    unauthorized = (401,) if key else ()
    _add_predict(app, service, guards, unauthorized)

    @app.get(
        "/model",
        dependencies=guards,
        responses=error_responses(*unauthorized),
        summary="Describe the model and the limits of a request.",
    )
    async def describe_model() -> ModelInfo:
        return model_info(model, name, limits)

    @app.get("/health", summary="Check that the server is running.")
    async def health() -> Health:
        return Health(status="ok", waiting=len(service.queue))

    @app.get(
        "/metrics",
        dependencies=guards,
        response_class=Response,  # without a media type, because errors are JSON
        responses={**METRICS_OK, **error_responses(*unauthorized)},
        summary="Return metrics for Prometheus.",
    )
    async def metrics() -> PlainTextResponse:
        return PlainTextResponse(service.metrics.text())

    page = (files("fullconv") / "deploy" / "page" / "index.html").read_text(encoding="utf-8")

    @app.get("/", response_class=HTMLResponse, responses=PAGE_OK, summary="Show the web page.")
    async def index() -> HTMLResponse:
        return HTMLResponse(page)

    _add_error_handlers(app)
    app.add_middleware(_CountRequests, metrics=service.metrics)
    return app


def _add_predict(
    app: FastAPI, service: Service, guards: list[Any], unauthorized: tuple[int, ...]
) -> None:
    # A model without scores explains itself why "confidence" is missing.
    documented = _INCLUDE.replace("|confidence", "") if service.model.labels_only else _INCLUDE
    include_option = Query(
        "",
        pattern=_INCLUDE,
        description="Comma-separated images in a JSON response.",
        json_schema_extra={"pattern": documented},
    )
    head_option = Query(
        "",
        description="Name of a head; default: the first one.",
        json_schema_extra={"enum": [*service.heads]},
    )

    @app.post(
        "/predict",
        dependencies=guards,
        response_model=PredictResponse,
        responses={**PREDICT_OK, **error_responses(*unauthorized, 408, 413, 415, 422, 503)},
        openapi_extra=PREDICT_BODY,
        summary="Segment an image.",
    )
    async def predict(
        request: Request,
        output: Annotated[Output, Query(description="Format of the response.")] = "mask",
        include: str = include_option,
        head: str = head_option,
    ) -> Response:
        async def disconnected() -> None:
            while (await request.receive())["type"] != "http.disconnect":
                continue

        images = tuple(dict.fromkeys(split_list(include)))
        options = PredictRequest(output, images, service.head_index(head))
        result = await service.predict(request.headers, request.stream(), disconnected, options)
        return Response(result.content, media_type=result.media_type)


def model_info(model: Segmenter, name: str, limits: Limits) -> ModelInfo:
    """Return the description of a model."""
    heads = {
        head: {"classes": labels.to_list(), "ignore_index": labels.ignore_index}
        for head, labels in model.heads.items()
    }
    bounds = {"bytes": limits.bytes, "pixels": limits.pixels, "seconds": limits.seconds}
    return ModelInfo.model_validate(
        {
            "name": name,
            "classes": model.labels.to_list(),
            "ignore_index": model.labels.ignore_index,
            "backbone": model.info.backbone,
            "pretrained_on": model.info.pretrained_on,
            "heads": heads,
            "confidence": not model.labels_only,
            "limits": bounds,
            "version": __version__,
        }
    )


def _add_error_handlers(app: FastAPI) -> None:
    """Give all errors one form, in the language that the request prefers."""

    def respond(
        request: Request, status: int, error: str, hint: str, headers: Any = None
    ) -> JSONResponse:
        language = accepted_language(request.headers.get("accept-language", ""))
        content = {"error": translate(error, language), "try": translate(hint, language)}
        return JSONResponse(content, status, headers)

    async def request_error(request: Request, error: RequestError) -> Response:
        headers = {401: {"WWW-Authenticate": "Bearer"}, 503: {"Retry-After": str(_RETRY_AFTER)}}
        return respond(request, error.status, error.message, error.hint, headers.get(error.status))

    async def http_error(request: Request, error: HTTPException) -> Response:
        route = f"{request.method} {request.url.path}"[:120]
        message = msg("{route}: {reason}.", route=route, reason=error.detail)
        hint = msg("GET /openapi.json   # lists all routes")
        return respond(request, error.status_code, message, hint, error.headers)

    async def validation_error(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        message = msg(
            "{name}={value}: {reason}.",
            name=first["loc"][-1] if first["loc"] else "request",
            value=str(first.get("input"))[:80],
            reason=first["msg"],
        )
        return respond(request, 422, message, "/predict?output=json&include=ids,mask,confidence")

    async def disconnected(_: Request, error: Exception) -> Response:
        return Response(status_code=_DISCONNECTED)

    async def bug(request: Request, error: Exception) -> Response:
        message = msg("this is a bug in fullconv {version}.", version=__version__)
        return respond(request, 500, message, msg("report what the server printed"))

    handlers: dict[Any, Callable[..., Awaitable[Response]]] = {
        RequestError: request_error,
        HTTPException: http_error,
        RequestValidationError: validation_error,
        ClientDisconnect: disconnected,
        ClientDisconnectedError: disconnected,
        Exception: bug,
    }
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)


class _CountRequests:
    """Middleware that counts responses of /predict, and how long they take."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != "/predict":
            await self.app(scope, receive, send)
            return
        started = time.monotonic()

        async def count(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.metrics.requests.labels(str(message["status"])).inc()
                self.metrics.seconds.observe(time.monotonic() - started)
            await send(message)

        await self.app(scope, receive, count)
