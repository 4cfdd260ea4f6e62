"""Results: what was found in an image, and the files it is written to.

Nothing here needs torch, so that exported models run without it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fullconv.core.errors import FullconvError
from fullconv.core.labels import IGNORE, RGB, Labels
from fullconv.data.io.geotiff import SUFFIXES, GeoReference, write_georeferenced_mask
from fullconv.data.io.masks import mask_image, write_mask
from fullconv.inference.options import UNSURE
from fullconv.inference.probabilities import Probabilities, write_probabilities
from fullconv.inference.result_files import (
    MARK,
    encoded,
    mark,
)
from fullconv.inference.vectorize import coco, geojson
from fullconv.visualization import overlay as draw

_UNSURE_COLORS: tuple[RGB, ...] = ((255, 0, 200), (255, 120, 0), (0, 255, 255), (255, 255, 255))


@dataclass(frozen=True)
class Segmentation:
    """The result for one image.

    Args:
        mask: (H, W) class ids in the image's own size, uint8 (uint16 above 255 classes).
        labels: the classes.
        image: (H, W, 3) uint8 RGB, as it was read.
        source: the file it came from, or None.
        heads: of a model with several, the results of the further ones, by name.
        unsure: (H, W) where the likeliest class was less likely than was asked for; the mask has
            the ignored id there. None where that was not asked.
        probabilities: gives those of the image, of all heads; `number` is this one's.
        place: where the image lies on the earth; None where that is not known.
    """

    mask: np.ndarray
    labels: Labels
    image: np.ndarray
    source: Path | None = None
    heads: Mapping[str, Segmentation] = field(default_factory=dict)
    unsure: np.ndarray | None = None
    probabilities: Callable[[], Probabilities] | None = field(default=None, repr=False)
    number: int = 0
    place: GeoReference | None = None

    def of_file(self, source: Path, place: GeoReference | None = None) -> Segmentation:
        """The same with the file that the image came from, and where it lies: what has no data
        there has no class, the mask is saved as a GeoTIFF, and polygons lie on the earth."""
        mask, unsure = self.mask, self.unsure
        if place and place.valid is not None:
            mask = np.where(place.valid, mask, mask.dtype.type(self.labels.ignore_index))
            unsure = None if unsure is None else unsure & place.valid
        heads = {name: of.of_file(source, place) for name, of in self.heads.items()}
        return replace(self, source=source, place=place, mask=mask, unsure=unsure, heads=heads)

    @property
    def area(self) -> dict[str, float]:
        """Share of the image (fraction) of each class, by name. Where there are such pixels,
        "ignore" has those of no class; where it was asked for, "unsure" has those.
        """
        shown, labels = self.shown()
        counts = np.bincount(shown.ravel(), minlength=len(labels))
        counts[labels.ignore_index : labels.ignore_index + 1] = 0
        known = counts[: len(labels)].tolist()
        pairs = [*zip(labels.names, known, strict=True), (IGNORE, shown.size - sum(known))]
        return {name: count / shown.size for name, count in pairs if count or name != IGNORE}

    @property
    def confidence(self) -> np.ndarray:
        """The probability (fraction) of each pixel's likeliest class, (H, W) float32. The network
        runs once more for it, unless the model's options keep scores."""
        return self._probabilities().confidence(self.number)

    @property
    def probability(self) -> np.ndarray:
        """The probability (fraction) of each class at each pixel, (K, H, W) float32: large."""
        strips = self._probabilities().strips(self.number)
        return np.concatenate([found for _, found in strips], axis=1)

    def _probabilities(self) -> Probabilities:
        if self.probabilities is None:
            raise FullconvError(
                "this result was made without a model, and has no probabilities.",
                'model("photo.jpg").confidence',
            )
        return self.probabilities()

    def shown(self) -> tuple[np.ndarray, Labels]:
        """(H, W) ids and their class table, where what is unsure is a class of its own."""
        if self.unsure is None:
            return self.mask, self.labels
        names, colors = self.labels.names, self.labels.colors
        named = UNSURE if UNSURE not in names else f"{UNSURE} (no class)"
        color = next(one for one in _UNSURE_COLORS if one not in colors)
        ignored = max(self.labels.ignore_index, len(self.labels) + 1)
        ids = self.mask.astype(np.int32)
        ids[ids == self.labels.ignore_index] = ignored
        ids[self.unsure] = len(self.labels)
        return ids, Labels((*names, named), (*colors, color), ignored)

    def color(self) -> Image.Image:
        """The class colours."""
        return Image.fromarray(draw.colorize(*self.shown()))

    def overlay(self, *, legend: bool = True) -> Image.Image:
        """The class colours over the image, with a legend of the classes that occur."""
        drawn = draw.overlay_with_legend if legend else draw.overlay
        return Image.fromarray(drawn(self.image, *self.shown()))

    def to_dict(self) -> dict[str, Any]:
        """JSON-able: source, size in pixels, area by class; that of further heads under "heads"."""
        heads = {name: of._areas() for name, of in self.heads.items()}
        return {
            "source": str(self.source) if self.source else None,
            "height": int(self.mask.shape[0]),
            "width": int(self.mask.shape[1]),
            "area": self._areas(),
            **({"heads": heads} if heads else {}),
        }

    def _areas(self) -> dict[str, float]:
        return {name: share for name, share in self.area.items() if share > 0}

    def to_geojson(self) -> dict[str, Any]:
        """The regions of the classes as outlines, see `fullconv.inference.vectorize.geojson`; in longitude and
        latitude where the image lies on the earth."""
        at = self.place.on_earth if self.place else None
        return geojson(self.mask, self.labels, str(self.source) if self.source else None, at)

    def to_coco(self) -> dict[str, Any]:
        """The regions of the classes as COCO has them, see `fullconv.inference.vectorize.coco`."""
        return coco(self.mask, self.labels, self.source.name if self.source else "")

    def save(self, path: Path, kind: str) -> None:
        """Writes one kind of result, of `OUTPUTS`."""
        tables = {"json": self.to_dict, "polygons": self.to_geojson, "coco": self.to_coco}
        if kind in tables:
            indent = 1 if kind == "json" else None
            path.write_text(json.dumps(tables[kind](), indent=indent), encoding="utf-8")
        elif kind == "probability":
            write_probabilities(path, self._probabilities(), self.number, self.labels)
        elif kind == "mask":
            self.save_mask(path)
        else:
            path.write_bytes(self.encoded(kind))

    def encoded(self, kind: str) -> bytes:
        """The file that `save` writes: of mask, color, overlay or confidence."""
        images = {"color": self.color, "overlay": self.overlay, "confidence": self._grey}
        if kind == "mask":
            return encoded(mask_image(self.mask, self.labels, "the mask"), kind)
        return encoded(images[kind](), kind)

    def _grey(self) -> Image.Image:
        """The confidence, 0 .. 1 as 0 .. 255."""
        return Image.fromarray(np.round(self.confidence * 255).astype(np.uint8))

    def save_mask(self, path: str | Path) -> None:
        """The ids as a palette PNG; as a GeoTIFF (.tif), too, if the image lies on the earth."""
        if self.place and Path(path).suffix.lower() in SUFFIXES:
            write_georeferenced_mask(Path(path), self.mask, self.place, self.labels, MARK[1])
        else:
            write_mask(Path(path), self.mask, self.labels, mark=mark())
