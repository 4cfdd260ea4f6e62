"""Requests and responses, as the OpenAPI document describes them."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field


class ErrorResponse(BaseModel):
    """Why there is no result."""

    error: str = Field(description="What was found, and what was expected.")
    hint: str = Field(alias="try", description="A command or an option that fixes it.")


class ClassArea(BaseModel):
    """The area of one class in an image."""

    id: int
    name: str
    pixels: int
    share: float = Field(description="Fraction of the image's pixels.")


class PredictResponse(BaseModel):
    """A segmented image."""

    height: int
    width: int
    classes: list[ClassArea] = Field(description="All classes, by id.")
    seconds: float = Field(description="From the end of the upload to the prediction.")
    heads: dict[str, list[ClassArea]] = Field(
        default={}, description="Areas of additional heads, if the model has some."
    )
    ids: str = Field(
        default="",
        description="data:image/png of class ids: gray, 8 bits, or 16 bits for more than 255 "
        "classes. ignore_index of /model marks ignored pixels.",
    )
    mask: str = Field(default="", description="data:image/png of class ids, with a palette.")
    confidence: str = Field(
        default="",
        description="data:image/png, gray: the probability of each pixel's class, times 255.",
    )


class ClassInfo(BaseModel):
    """One class."""

    id: int
    name: str
    color: tuple[int, int, int] = Field(description="RGB, 0 to 255.")
    painted: bool = Field(description="Whether overlays show it; a black background stays clear.")


class HeadInfo(BaseModel):
    """An additional head."""

    classes: list[ClassInfo]
    ignore_index: int


class RequestLimits(BaseModel):
    """Limits of one request."""

    bytes: int
    pixels: int
    seconds: float


class ModelInfo(BaseModel):
    """The model."""

    name: str
    classes: list[ClassInfo]
    ignore_index: int
    backbone: str
    pretrained_on: str
    heads: dict[str, HeadInfo]
    confidence: bool = Field(
        description="Whether confidence is available; an exported file with labels has none."
    )
    limits: RequestLimits
    version: str = Field(description="Of fullconv.")


class Health(BaseModel):
    """The server is running."""

    status: str
    waiting: int = Field(description="Images in the queue.")


# Parts of the document in the words of OpenAPI, as FastAPI's options take them.
Responses = dict[int | str, dict[str, Any]]
_BINARY = {"type": "string", "format": "binary"}
_FORM = {"type": "object", "properties": {"image": _BINARY}, "required": ["image"]}
_IMAGE_OR_FORM = {
    "application/octet-stream": {"schema": _BINARY},
    "image/*": {"schema": _BINARY},
    "multipart/form-data": {"schema": _FORM},
}
_FORMATS = "An image: JPEG, PNG, WebP, TIFF, BMP, GIF, AVIF, JPEG 2000 or PNM."
PREDICT_BODY: dict[str, Any] = {
    "requestBody": {"required": True, "description": _FORMATS, "content": _IMAGE_OR_FORM}
}


def _ok(description: str, content: dict[str, Any]) -> Responses:
    return {200: {"description": description, "content": content}}


PREDICT_OK = _ok(
    "A PNG image of the same size, an overlay with a legend as JPEG, or JSON.",
    {"image/png": {"schema": _BINARY}, "image/jpeg": {"schema": _BINARY}},
)
PAGE_OK = _ok("A page to try the model on.", {"text/html": {}})
METRICS_OK = _ok(
    "In the text format of Prometheus.", {"text/plain": {"schema": {"type": "string"}}}
)
_ERRORS = {
    401: "The key is missing or wrong.",
    408: "The upload took too long.",
    413: "Too many bytes or pixels.",
    415: "Not an image.",
    422: "A damaged image, or an unknown option.",
    503: "Too many requests are waiting, or the prediction took too long.",
}
_HEADERS: dict[int, dict[str, Any]] = {
    401: {"WWW-Authenticate": {"schema": {"type": "string"}, "description": "Bearer"}},
    503: {"Retry-After": {"schema": {"type": "integer"}, "description": "Seconds."}},
}


def error_responses(*statuses: int) -> Responses:
    """Return FastAPI's `responses` for these errors."""
    responses: Responses = {}
    for status in statuses:
        responses[status] = {"model": ErrorResponse, "description": _ERRORS[status]}
        if status in _HEADERS:
            responses[status]["headers"] = _HEADERS[status]
    return responses
