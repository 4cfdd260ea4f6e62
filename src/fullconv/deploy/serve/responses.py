"""Encode what the server sends: the same files that `fullconv predict` writes, or JSON."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from PIL import Image
from starlette.responses import Response

from fullconv.core.labels import Labels
from fullconv.inference.result_files import FILES
from fullconv.inference.segmentation import Segmentation

Output = Literal["mask", "overlay", "color", "json"]


@dataclass(frozen=True)
class PredictRequest:
    """Options of a prediction request."""

    output: Output = "mask"
    include: tuple[str, ...] = ()  # images in a JSON response: "ids", "mask", "confidence"
    head: int = 0  # its index

    @property
    def needs_confidence(self) -> bool:
        return self.output == "json" and "confidence" in self.include


def encode_response(
    segmentation: Segmentation,
    confidence: np.ndarray | None,
    request: PredictRequest,
    seconds: float,
) -> Response:
    """Encode a result, with the confidence (H, W) of the requested head if the request needs it,
    and the seconds that the prediction took."""
    result = [segmentation, *segmentation.heads.values()][request.head]
    if request.output != "json":
        jpeg = FILES[request.output].endswith(".jpg")
        media_type = "image/jpeg" if jpeg else "image/png"
        return Response(result.encoded(request.output), media_type=media_type)
    table: dict[str, Any] = {
        "height": int(result.mask.shape[0]),
        "width": int(result.mask.shape[1]),
        "classes": class_areas(result.mask, result.labels),
        "seconds": round(seconds, 4),
    }
    if segmentation.heads:
        table["heads"] = {
            name: class_areas(head.mask, head.labels) for name, head in segmentation.heads.items()
        }
    for name in request.include:
        if name == "mask":
            png = result.encoded("mask")
        elif name == "confidence" and confidence is not None:
            png = _gray_png(np.round(255 * confidence).astype(np.uint8))
        else:
            png = _gray_png(result.mask)
        table[name] = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    return Response(json.dumps(table), media_type="application/json")


def class_areas(mask: np.ndarray, labels: Labels) -> list[dict[str, Any]]:
    """Return the number of pixels of each class and its share of the image, by class id."""
    counts = np.bincount(mask[mask != labels.ignore_index], minlength=len(labels)).tolist()
    return [
        {"id": number, "name": name, "pixels": count, "share": count / mask.size}
        for number, (name, count) in enumerate(zip(labels.names, counts, strict=True))
    ]


def _gray_png(values: np.ndarray) -> bytes:
    """Encode (H, W) uint8 or uint16."""
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(values)).save(file, "PNG", compress_level=1)
    return file.getvalue()
