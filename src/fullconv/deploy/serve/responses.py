"""Answers: what is sent back of a segmentation, as the files of `fullconv predict` have it.

Shapes: H, W image.
"""

from __future__ import annotations

import base64
import io
import json
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from PIL import Image

from fullconv.core.labels import Labels
from fullconv.inference.result_files import FILES
from fullconv.inference.segmentation import Segmentation

Output = Literal["mask", "overlay", "color", "json"]
INCLUDE = ("ids", "mask", "confidence")  # in a JSON answer


@dataclass(frozen=True)
class PredictRequest:
    """What is wanted of an image.

    Args:
        output: the kind of answer.
        include: images in a JSON answer, of `INCLUDE`.
        number: which head; 0 is the first.
    """

    output: Output = "mask"
    include: tuple[str, ...] = ()
    number: int = 0

    @property
    def sure(self) -> bool:
        """Whether confidence is wanted."""
        return self.output == "json" and "confidence" in self.include


@dataclass(frozen=True)
class Answer:
    """What is sent, and its type."""

    content: bytes
    kind: str


def answer(
    segmentation: Segmentation, confidence: np.ndarray | None, asked: PredictRequest, seconds: float
) -> Answer:
    """What was asked for.

    Args:
        segmentation: of the image, with its further heads.
        confidence: (H, W) of the head that is asked for, where it is wanted.
        seconds: that it took.
    """
    heads = [segmentation, *segmentation.heads.values()]
    chosen = heads[asked.number]
    if asked.output != "json":
        kind = "image/jpeg" if FILES[asked.output].endswith(".jpg") else "image/png"
        return Answer(chosen.encoded(asked.output), kind)
    found: dict[str, Any] = {
        "height": int(chosen.mask.shape[0]),
        "width": int(chosen.mask.shape[1]),
        "classes": areas(chosen.mask, chosen.labels),
        "seconds": round(seconds, 4),
    }
    if segmentation.heads:
        found["heads"] = {
            name: areas(of.mask, of.labels) for name, of in segmentation.heads.items()
        }
    for name in asked.include:
        found[name] = _url(_image(name, chosen, confidence))
    return Answer(json.dumps(found).encode(), "application/json")


def areas(mask: np.ndarray, labels: Labels) -> list[dict[str, Any]]:
    """Of every class, by its id: how many pixels it has, and which share of the image."""
    counts = np.bincount(mask[mask != labels.ignore_index], minlength=len(labels)).tolist()
    return [
        {"id": number, "name": name, "pixels": count, "share": count / mask.size}
        for number, (name, count) in enumerate(zip(labels.names, counts, strict=True))
    ]


def _image(name: str, chosen: Segmentation, confidence: np.ndarray | None) -> bytes:
    if name == "mask":
        return chosen.encoded("mask")
    if name == "confidence" and confidence is not None:
        return _png(np.round(255 * confidence).astype(np.uint8))
    return _png(chosen.mask)


def _png(values: np.ndarray) -> bytes:
    """(H, W) uint8 or uint16, in grey."""
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(values)).save(file, "PNG", compress_level=1)
    return file.getvalue()


def _url(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()


def include_of(text: str) -> tuple[str, ...]:
    """ids, mask of "ids,mask", each once."""
    return tuple(dict.fromkeys(part for part in text.split(",") if part))
