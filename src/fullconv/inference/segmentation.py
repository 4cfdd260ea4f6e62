"""Segmentation: the result for one image, and the files it is saved to.

Nothing here needs torch. Shapes: K classes · H, W image.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fullconv.core.errors import FullconvError
from fullconv.core.i18n import msg
from fullconv.core.labels import IGNORE, RGB, Labels
from fullconv.data.io.geotiff import SUFFIXES, GeoReference, write_georeferenced_mask
from fullconv.data.io.masks import mask_image, write_mask
from fullconv.inference.options import UNSURE
from fullconv.inference.probabilities import Probabilities, write_probabilities
from fullconv.inference.result_files import MARK, encode_image, png_mark
from fullconv.inference.vectorize import coco, geojson
from fullconv.visualization import overlay

_UNSURE_COLORS: tuple[RGB, ...] = ((255, 0, 200), (255, 120, 0), (0, 255, 255), (255, 255, 255))


@dataclass(frozen=True)
class Segmentation:
    """The result for one image.

    Args:
        mask: (H, W) class ids in the image's own size, uint8 (uint16 above 255 classes).
        labels: the classes.
        image: (H, W, 3) uint8 RGB, as it was read.
        source: the image file, or None.
        heads: the results of additional heads, by name.
        unsure: (H, W) the pixels whose class was less likely than `min_confidence`; the mask has
            the ignored id there. None if no minimum was set.
        probabilities: computes the probabilities of the image for all heads.
        number: the index of this result's head in `probabilities`.
        place: the image's georeference; None without one.
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

    def with_source(self, source: Path, place: GeoReference | None = None) -> Segmentation:
        """Return the result with its image file and georeference.

        With a georeference, pixels without data get the ignored id, the mask is saved as GeoTIFF,
        and polygons have longitude and latitude.
        """
        mask, unsure = self.mask, self.unsure
        if place and place.valid is not None:
            mask = np.where(place.valid, mask, mask.dtype.type(self.labels.ignore_index))
            unsure = None if unsure is None else unsure & place.valid
        heads = {name: head.with_source(source, place) for name, head in self.heads.items()}
        return replace(self, source=source, place=place, mask=mask, unsure=unsure, heads=heads)

    @property
    def area(self) -> dict[str, float]:
        """The share of the image (fraction) of each class, by name; also of "ignore" and, with
        `min_confidence`, of "unsure", if there are such pixels."""
        ids, labels = self.ids_for_drawing()
        counts = np.bincount(ids.ravel(), minlength=len(labels))
        counts[labels.ignore_index : labels.ignore_index + 1] = 0
        return area_shares(labels.names, counts[: len(labels)].tolist(), ids.size)

    @property
    def confidence(self) -> np.ndarray:
        """The probability (fraction) of each pixel's most likely class, (H, W) float32.

        Runs the network again unless the model's options have `keep_scores`.
        """
        return self._probabilities().confidence(self.number)

    @property
    def probability(self) -> np.ndarray:
        """The probability (fraction) of each class at each pixel, (K, H, W) float32: large."""
        strips = self._probabilities().strips(self.number)
        return np.concatenate([strip for _, strip in strips], axis=1)

    def _probabilities(self) -> Probabilities:
        if self.probabilities is None:
            message = msg("this result was made without a model and has no probabilities.")
            raise FullconvError(message, 'model("photo.jpg").confidence')
        return self.probabilities()

    def ids_for_drawing(self) -> tuple[np.ndarray, Labels]:
        """Return (H, W) ids and their classes, with a class of its own for unsure pixels."""
        if self.unsure is None:
            return self.mask, self.labels
        names, colors = self.labels.names, self.labels.colors
        name = UNSURE if UNSURE not in names else f"{UNSURE} (no class)"
        color = next(color for color in _UNSURE_COLORS if color not in colors)
        ignore_index = max(self.labels.ignore_index, len(self.labels) + 1)
        ids = self.mask.astype(np.int32)
        ids[ids == self.labels.ignore_index] = ignore_index
        ids[self.unsure] = len(self.labels)
        return ids, Labels((*names, name), (*colors, color), ignore_index)

    def color(self) -> Image.Image:
        """Return the class colors."""
        return Image.fromarray(overlay.colorize(*self.ids_for_drawing()))

    def overlay(self, *, legend: bool = True) -> Image.Image:
        """Return the class colors over the image, with a legend of the classes that occur."""
        draw = overlay.overlay_with_legend if legend else overlay.overlay
        return Image.fromarray(draw(self.image, *self.ids_for_drawing()))

    def to_dict(self) -> dict[str, Any]:
        """Return source, size in pixels and area by class, ready for JSON; the areas of additional
        heads are under "heads". Classes that do not occur are left out."""
        heads = {name: _present(head.area) for name, head in self.heads.items()}
        return {
            "source": str(self.source) if self.source else None,
            "height": int(self.mask.shape[0]),
            "width": int(self.mask.shape[1]),
            "area": _present(self.area),
            **({"heads": heads} if heads else {}),
        }

    def to_geojson(self) -> dict[str, Any]:
        """Return the outlines of the regions as GeoJSON, in longitude and latitude with a
        georeference, otherwise in pixels."""
        to_coordinates = self.place.on_earth if self.place else None
        source = str(self.source) if self.source else None
        return geojson(self.mask, self.labels, source, to_coordinates)

    def to_coco(self) -> dict[str, Any]:
        """Return the regions in COCO format."""
        return coco(self.mask, self.labels, self.source.name if self.source else "")

    def save(self, path: Path, kind: str) -> None:
        """Write one output type, a key of `fullconv.inference.result_files.FILES`."""
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
        """Return the file content of a mask, color, overlay or confidence image."""
        if kind == "mask":
            image = mask_image(self.mask, self.labels, "the mask")
        elif kind == "confidence":  # 0 .. 1 as gray 0 .. 255
            image = Image.fromarray(np.round(self.confidence * 255).astype(np.uint8))
        else:
            image = self.color() if kind == "color" else self.overlay()
        return encode_image(image, kind)

    def save_mask(self, path: str | Path) -> None:
        """Write the ids as a palette PNG, or as a GeoTIFF if `path` is a .tif and the image has a
        georeference."""
        if self.place and Path(path).suffix.lower() in SUFFIXES:
            write_georeferenced_mask(Path(path), self.mask, self.place, self.labels, MARK[1])
        else:
            write_mask(Path(path), self.mask, self.labels, mark=png_mark())


def area_shares(names: Sequence[str], counts: Sequence[int], pixels: int) -> dict[str, float]:
    """Return the share (fraction) of each class, of `counts` pixels each, and of ignored pixels if
    there are any."""
    shares = {name: count / pixels for name, count in zip(names, counts, strict=True)}
    ignored = pixels - sum(counts)
    return {**shares, **({IGNORE: ignored / pixels} if ignored else {})}


def _present(area: Mapping[str, float]) -> dict[str, float]:
    return {name: share for name, share in area.items() if share > 0}
