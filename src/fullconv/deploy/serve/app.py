"""The HTTP routes of a server.

POST /predict   an image -> mask, overlay, color or json
GET  /model /health /metrics /openapi.json, and a page at /
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
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
from fullconv.deploy.serve import schemas
from fullconv.deploy.serve.metrics import Metrics
from fullconv.deploy.serve.responses import Output, PredictRequest
from fullconv.deploy.serve.schemas import Health, ModelInfo, PredictResponse, error_responses
from fullconv.deploy.serve.service import Service
from fullconv.deploy.serve.uploads import Limits, RequestError, require_key
from fullconv.inference.segmenter import Segmenter

_HEADERS = {401: {"WWW-Authenticate": "Bearer"}, 503: {"Retry-After": "2"}}  # of errors
_DISCONNECTED = 499  # status for the metrics; no client receives it
_INCLUDE = "^((ids|mask|confidence)(,(ids|mask|confidence))*)?$"


def create_app(model: Segmenter, name: str, limits: Limits | None = None, key: str = "") -> FastAPI:
    """Create the ASGI application that serves a model.

    `name` is shown by /model and the page; requests must carry `key`, unless it is "".

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
    unauthorized = error_responses(401) if key else {}
    _add_predict(app, service, guards, unauthorized)

    summary = "Describe the model and the limits of a request."

    @app.get("/model", dependencies=guards, responses=unauthorized, summary=summary)
    async def describe_model() -> ModelInfo:
        heads = {
            head: {"classes": labels.to_list(), "ignore_index": labels.ignore_index}
            for head, labels in model.heads.items()
        }
        description = {
            "name": name,
            "classes": model.labels.to_list(),
            "ignore_index": model.labels.ignore_index,
            "backbone": model.info.backbone,
            "pretrained_on": model.info.pretrained_on,
            "heads": heads,
            "confidence": not model.labels_only,
            "limits": asdict(limits),
            "version": __version__,
        }
        return ModelInfo.model_validate(description)

    @app.get("/health", summary="Check that the server is running.")
    async def health() -> Health:
        return Health(status="ok", waiting=len(service.queue))

    @app.get(
        "/metrics",
        dependencies=guards,
        response_class=Response,  # without a media type, because errors are JSON
        responses={**schemas.METRICS_OK, **unauthorized},
        summary="Return metrics for Prometheus.",
    )
    async def metrics() -> PlainTextResponse:
        return PlainTextResponse(service.metrics.text())

    page = (files("fullconv") / "deploy" / "page" / "index.html").read_text(encoding="utf-8")

    summary = "Show the web page."

    @app.get("/", response_class=HTMLResponse, responses=schemas.PAGE_OK, summary=summary)
    async def index() -> HTMLResponse:
        return HTMLResponse(page)

    _add_error_handlers(app)
    app.add_middleware(_count_requests, metrics=service.metrics)
    return app


def _add_predict(app: FastAPI, service: Service, guards: list[Any], unauthorized: Any) -> None:
    # A model without scores explains itself why "confidence" is missing.
    documented = _INCLUDE.replace("|confidence", "") if service.model.labels_only else _INCLUDE
    text = "Comma-separated images in a JSON response."
    extra: dict[str, Any] = {"pattern": documented}
    include_option = Query("", pattern=_INCLUDE, description=text, json_schema_extra=extra)
    text, extra = "Name of a head; default: the first one.", {"enum": [*service.heads]}
    head_option = Query("", description=text, json_schema_extra=extra)
    failures = error_responses(408, 413, 415, 422, 503)

    @app.post(
        "/predict",
        dependencies=guards,
        response_model=PredictResponse,
        responses={**schemas.PREDICT_OK, **unauthorized, **failures},
        openapi_extra=schemas.PREDICT_BODY,
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
        return await service.predict(request.headers, request.stream(), disconnected, options)


def _add_error_handlers(app: FastAPI) -> None:
    """Give all errors one form, in the language that the request prefers."""

    def respond(
        request: Request, status: int, error: str, hint: str, headers: Any = None
    ) -> JSONResponse:
        language = accepted_language(request.headers.get("accept-language", ""))
        content = {"error": translate(error, language), "try": translate(hint, language)}
        return JSONResponse(content, status, headers)

    @app.exception_handler(RequestError)
    async def request_error(request: Request, error: RequestError) -> Response:
        headers = _HEADERS.get(error.status)
        return respond(request, error.status, error.message, error.hint, headers)

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        route = f"{request.method} {request.url.path}"[:120]
        message = msg("{route}: {reason}.", route=route, reason=error.detail)
        hint = msg("GET /openapi.json   # lists all routes")
        return respond(request, error.status_code, message, hint, error.headers)

    @app.exception_handler(RequestValidationError)
    async def validation_error(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        name = first["loc"][-1] if first["loc"] else "request"
        value = str(first.get("input"))[:80]
        message = msg("{name}={value}: {reason}.", name=name, value=value, reason=first["msg"])
        return respond(request, 422, message, "/predict?output=json&include=ids,mask,confidence")

    @app.exception_handler(ClientDisconnect)
    async def disconnected(_: Request, error: Exception) -> Response:
        return Response(status_code=_DISCONNECTED)

    @app.exception_handler(Exception)
    async def bug(request: Request, error: Exception) -> Response:
        message = msg("this is a bug in fullconv {version}.", version=__version__)
        return respond(request, 500, message, msg("report what the server printed"))


def _count_requests(app: ASGIApp, metrics: Metrics) -> ASGIApp:
    """Middleware that counts responses of /predict, and how long they take."""

    async def run(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != "/predict":
            await app(scope, receive, send)
            return
        started = time.monotonic()

        async def count(message: Message) -> None:
            if message["type"] == "http.response.start":
                metrics.requests.labels(str(message["status"])).inc()
                metrics.seconds.observe(time.monotonic() - started)
            await send(message)

        await app(scope, receive, count)

    return run
