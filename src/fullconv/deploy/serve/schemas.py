"""Described: what the server takes and gives, as OpenAPI has it."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field


class ErrorResponse(BaseModel):
    """Why there is no result."""

    error: str = Field(description="What was found, and what was expected.")
    hint: str = Field(alias="try", description="A command or a line that mends it.")


class Area(BaseModel):
    """Of one class in an image."""

    id: int
    name: str
    pixels: int
    share: float = Field(description="Of the image's pixels, a fraction.")


class PredictResponse(BaseModel):
    """What was found in an image."""

    height: int
    width: int
    classes: list[Area] = Field(description="All of them, by their ids.")
    seconds: float = Field(description="From the end of the upload to the labels.")
    heads: dict[str, list[Area]] = Field(
        default={}, description="Of a model with several heads, what the further ones found."
    )
    ids: str = Field(
        default="",
        description="data:image/png, grey, of 8 bits, or of 16 where there are more than 255 "
        "classes: class ids; ignore_index of /model where nothing is said.",
    )
    mask: str = Field(default="", description="data:image/png, class ids with a palette.")
    confidence: str = Field(
        default="",
        description="data:image/png, grey: the probability of each pixel's class, times 255.",
    )


class Class(BaseModel):
    """One class."""

    id: int
    name: str
    color: tuple[int, int, int] = Field(description="RGB, 0 to 255.")
    painted: bool = Field(
        description="Whether overlays show it; a background in black stays as photographed."
    )


class Head(BaseModel):
    """A further head."""

    classes: list[Class]
    ignore_index: int


class Bounds(BaseModel):
    """What one request may take."""

    bytes: int
    pixels: int
    seconds: float


class ModelInfo(BaseModel):
    """The model."""

    name: str
    classes: list[Class]
    ignore_index: int
    backbone: str
    pretrained_on: str
    heads: dict[str, Head]
    confidence: bool = Field(
        description="Whether it can be asked for; a file that gives labels alone has none."
    )
    limits: Bounds
    version: str = Field(description="Of fullconv.")


class Health(BaseModel):
    """That it works."""

    status: str
    waiting: int = Field(description="Images in the queue.")


_BINARY = {"type": "string", "format": "binary"}
BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "An image: JPEG, PNG, WebP, TIFF, BMP, GIF, AVIF, JPEG 2000 or PNM.",
        "content": {
            "application/octet-stream": {"schema": _BINARY},
            "image/*": {"schema": _BINARY},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {"image": _BINARY},
                    "required": ["image"],
                }
            },
        },
    }
}
IMAGE: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "A PNG image of the same size; an overlay as JPEG, with a legend below; "
        "or what was found as JSON.",
        "content": {"image/png": {"schema": _BINARY}, "image/jpeg": {"schema": _BINARY}},
    }
}
PAGE: dict[int | str, dict[str, Any]] = {
    200: {"description": "A page to try the model on.", "content": {"text/html": {}}}
}
TEXT: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "In the text format of Prometheus.",
        "content": {"text/plain": {"schema": {"type": "string"}}},
    }
}
_WHY = {
    401: "The key is missing or wrong.",
    408: "The upload took too long.",
    413: "Too many bytes or pixels.",
    415: "This is no image.",
    422: "A damaged image, or something that is not known was asked for.",
    503: "Too much waits, or it took too long.",
}
_HEADERS = {
    401: ("WWW-Authenticate", {"type": "string"}, "Bearer"),
    503: ("Retry-After", {"type": "integer"}, "Seconds."),
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """How each of these errors looks."""
    found: dict[int | str, dict[str, Any]] = {}
    for status in statuses:
        found[status] = {"model": ErrorResponse, "description": _WHY[status]}
        if status in _HEADERS:
            name, schema, said = _HEADERS[status]
            found[status]["headers"] = {name: {"schema": schema, "description": said}}
    return found
