"""App: the addresses that a server answers at.

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

from fullconv.core.i18n import accepted_language, translate
from fullconv.core.packages import __version__
from fullconv.deploy.serve.metrics import Metrics
from fullconv.deploy.serve.responses import Output, PredictRequest, include_of
from fullconv.deploy.serve.schemas import (
    BODY,
    IMAGE,
    PAGE,
    TEXT,
    Health,
    ModelInfo,
    PredictResponse,
    problems,
)
from fullconv.deploy.serve.service import ClientDisconnectedError, Service
from fullconv.deploy.serve.uploads import Limits, RequestError, require_key
from fullconv.inference.segmenter import Segmenter

_AGAIN = 2  # seconds after which a request may be sent again
_LEFT = 499  # the status of those who went away; it is counted, and nobody reads it
_INCLUDE = "^((ids|mask|confidence)(,(ids|mask|confidence))*)?$"


def create_app(model: Segmenter, name: str, limits: Limits | None = None, key: str = "") -> FastAPI:
    """What a server of ASGI, such as uvicorn, runs.

    Args:
        model: as loaded.
        name: what it is called.
        limits: of a request.
        key: that requests must carry; none is wanted where it is empty.

    Raises:
        FullconvError: a model that takes more than images.
    """
    limits = limits or Limits()
    service = Service(model, limits)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        service.close()

    app = FastAPI(
        title="Fullconv",
        description=f"A label for every pixel of an image, by {name}.",
        version=__version__,
        docs_url=None,  # its pages come from elsewhere
        redoc_url=None,
        lifespan=lifespan,
    )
    guarded = _guard(key)
    _add_predict(app, service, guarded)
    _add_facts(app, service, about(model, name, limits), guarded)
    _add_errors(app)
    app.add_middleware(_Counted, metrics=service.metrics)
    return app


def _guard(key: str) -> dict[str, Any]:
    """What addresses have that want the key: the check, and how it looks when it fails."""
    if not key:
        return {"dependencies": [], "statuses": ()}

    async def wanted(request: Request) -> None:
        require_key(request.headers, key)

    described = Depends(HTTPBearer(auto_error=False))
    return {"dependencies": [described, Depends(wanted)], "statuses": (401,)}


def _add_predict(app: FastAPI, service: Service, guarded: dict[str, Any]) -> None:
    sure = not service.model.labels_only
    included = Query(
        "",
        pattern=_INCLUDE,  # what is none of these; a model without scores says so itself
        description="Images in a JSON answer, with commas.",
        json_schema_extra={"pattern": _INCLUDE if sure else _INCLUDE.replace("|confidence", "")},
    )
    named = Query(
        "",
        description="Of a model with several; without a name the first.",
        json_schema_extra={"enum": [*service.heads]},
    )

    @app.post(
        "/predict",
        dependencies=guarded["dependencies"],
        response_model=PredictResponse,
        responses={**IMAGE, **problems(*guarded["statuses"], 408, 413, 415, 422, 503)},
        openapi_extra=BODY,
        summary="Label every pixel of an image.",
    )
    async def predict(
        request: Request,
        output: Annotated[Output, Query(description="What is sent back.")] = "mask",
        include: str = included,
        head: str = named,
    ) -> Response:
        async def gone() -> None:
            while (await request.receive())["type"] != "http.disconnect":
                continue

        asked = PredictRequest(output, include_of(include), service.number_of(head))
        found = await service.answer(request.headers, request.stream(), gone, asked)
        return Response(found.content, media_type=found.kind)


def _add_facts(app: FastAPI, service: Service, told: ModelInfo, guarded: dict[str, Any]) -> None:
    page = (files("fullconv") / "deploy" / "page" / "index.html").read_text(encoding="utf-8")

    @app.get(
        "/model",
        dependencies=guarded["dependencies"],
        responses=problems(*guarded["statuses"]),
        summary="What the model is, and what a request may take.",
    )
    async def model() -> ModelInfo:
        return told

    @app.get("/health", summary="Whether the server works.")
    async def health() -> Health:
        return Health(status="ok", waiting=len(service.queue))

    @app.get(
        "/metrics",
        dependencies=guarded["dependencies"],
        response_class=Response,  # of no type: errors are JSON
        responses={**TEXT, **problems(*guarded["statuses"])},
        summary="What was counted.",
    )
    async def metrics() -> PlainTextResponse:
        return PlainTextResponse(service.metrics.text(len(service.queue)))

    @app.get("/", response_class=HTMLResponse, responses=PAGE, summary="A page for people.")
    async def index() -> HTMLResponse:
        return HTMLResponse(page)


def about(model: Segmenter, name: str, limits: Limits) -> ModelInfo:
    """What is said of a model."""
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


def _add_errors(app: FastAPI) -> None:
    """All in one form."""

    async def refused(request: Request, error: RequestError) -> Response:
        headers = {401: {"WWW-Authenticate": "Bearer"}, 503: {"Retry-After": str(_AGAIN)}}
        found = headers.get(error.status)
        return _told(request, error.status, error.message, error.hint, found)

    async def missing(request: Request, error: HTTPException) -> Response:
        asked = f"{request.method} {request.url.path}"[:120]
        said = "there is nothing here" if error.status_code == 404 else str(error.detail)
        hint = "GET /openapi.json   # all that there is"
        return _told(request, error.status_code, f"{asked}: {said}.", hint, error.headers)

    async def unknown(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = first["loc"][-1] if first["loc"] else "the request"
        hint = "/predict?output=json&include=ids,mask,confidence"
        message = f"{where}={str(first.get('input'))[:80]}: {first['msg']}."
        return _told(request, 422, message, hint)

    async def left(_: Request, error: Exception) -> Response:
        return Response(status_code=_LEFT)

    async def fault(request: Request, error: Exception) -> Response:
        said = f"this is a bug of fullconv {__version__}."
        return _told(request, 500, said, "report what the server printed")

    handlers: dict[Any, Callable[..., Awaitable[Response]]] = {
        RequestError: refused,
        HTTPException: missing,
        RequestValidationError: unknown,
        ClientDisconnect: left,
        ClientDisconnectedError: left,
        Exception: fault,
    }
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)


def _told(
    request: Request, status: int, error: str, hint: str, headers: Any = None
) -> JSONResponse:
    """In the language that the request likes best, of those there are."""
    language = accepted_language(request.headers.get("accept-language", ""))
    content = {"error": translate(error, language), "try": translate(hint, language)}
    return JSONResponse(content, status, headers)


class _Counted:
    """Counts what /predict answers, and how long that takes."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != "/predict":
            await self.app(scope, receive, send)
            return
        began = time.monotonic()

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.metrics.requests[message["status"]] += 1
                self.metrics.seconds.add(time.monotonic() - began)
            await send(message)

        await self.app(scope, receive, counted)
