"""Images that are never in memory as a whole: a georeferenced TIFF in, one of class ids out.

Windows are predicted one after the other (`fullconv.inference.tiling`), so that memory is bounded whatever the
size; meanwhile one thread reads the next and another writes the last.

Shapes: H, W image · h, w window.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fullconv.core.concurrency import BackgroundWorker, short_switch_interval
from fullconv.core.errors import FullconvError
from fullconv.core.labels import IGNORE, Labels
from fullconv.data.io.geotiff import (
    GeoMaskWriter,
    PixelRange,
    RasterReader,
    open_mask_writer,
    open_raster,
)
from fullconv.data.io.masks import mask_dtype
from fullconv.inference.predictor import Predictor
from fullconv.inference.result_files import MARK, creating, encoded, output_path
from fullconv.models.model import Model
from fullconv.visualization import overlay as draw

KINDS = ("mask", "color", "overlay", "json")
PREVIEW = 2000  # pixels on the longer side of color and overlay
_STRIP = 256  # rows


def predict_raster(
    predictor: Predictor,
    source: str | Path,
    stem: str | Path,
    outputs: Sequence[str] = ("mask", "overlay"),
    *,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> dict[str, Any]:
    """Predicts a TIFF window by window.

    The mask is a GeoTIFF, `stem` + "_mask.tif": size, CRS and transform of the source, class ids
    with their colours, and the ignored id, 255, as nodata where the source has no data. `color` and
    `overlay` are previews of at most `PREVIEW` pixels on the longer side.

    Args:
        outputs: of mask, color, overlay, json.
        progress: told how many rows of pixels are done, of how many.

    Returns:
        Source, height, width, files, and "area", as `Segmentation.to_dict`; that of further heads
        under "heads".

    Raises:
        FullconvError: a file that cannot be read or written; a model that takes more than images,
            or that wants them resized.
    """
    source, stem, model = Path(source), Path(stem), predictor.model
    _require_windows(model, source)
    predictor.options.require_windows(source)
    _require_kinds(outputs, source)
    with open_raster(source) as raster, ExitStack() as stack:
        heads = {"": model.labels, **model.heads}
        results = [
            _Result(stem.with_name(f"{stem.name}_{name}" if name else stem.name), labels, raster)
            for name, labels in heads.items()
        ]
        if "mask" in outputs:
            for result in results:
                result.open(stack)

        with (
            short_switch_interval(),
            closing(_blocks(predictor, raster)) as blocks,
            BackgroundWorker() as behind,
        ):
            for rows, columns, maps in blocks:
                behind(_add, raster, results, rows, columns, maps)
                progress(rows[1], raster.size[0])
            behind.wait()
        files = [path for result in results for path in result.previews(outputs)]
    files += [result.mask for result in results if "mask" in outputs]
    areas = [result.area() for result in results]
    height, width = raster.size
    facts = {"source": str(source), "height": height, "width": width, "area": areas[0]}
    if model.heads:
        facts["heads"] = dict(zip(model.heads, areas[1:], strict=True))
    if "json" in outputs:
        files.append(output_path(stem, "json"))
        with creating(files[-1]):
            files[-1].write_text(json.dumps(facts, indent=1), encoding="utf-8")
    return {**facts, "files": [str(path) for path in files]}


def _blocks(
    predictor: Predictor, raster: RasterReader
) -> Generator[tuple[PixelRange, PixelRange, list[np.ndarray]]]:
    """Rows, columns and (h, w) ids of every head, block by block."""

    def window(rows: PixelRange, columns: PixelRange) -> Tensor:
        return torch.from_numpy(raster.read(rows, columns)).permute(2, 0, 1)

    for rows, columns, scores in predictor.scores(raster.size, window):
        maps = [head.labels()[0].cpu().numpy() for head in predictor.model.split(scores)]
        del scores  # not to be held while the network runs
        yield rows, columns, maps
        del maps


def _add(
    raster: RasterReader,
    results: Sequence[_Result],
    rows: PixelRange,
    columns: PixelRange,
    maps: Sequence[np.ndarray],
) -> None:
    """What was found in a block, of every head."""
    valid = raster.valid(rows, columns)
    for result, ids in zip(results, maps, strict=True):
        result.add(rows, columns, ids, valid)


def _require_windows(model: Model, source: Path) -> None:
    if model.extra_inputs or model.short_side is not None:
        wants = "further inputs" if model.extra_inputs else "images that are resized as a whole"
        raise FullconvError(
            f"{source} is read in windows; the model takes {wants}, which cannot be.",
            "without --tile, where that is given; else save it as PNG, and predict that",
        )


def _require_kinds(outputs: Sequence[str], source: Path) -> None:
    further = [kind for kind in outputs if kind not in KINDS]
    if further:
        raise FullconvError(
            f"{source} is read in windows, of which there is no {further[0]}; there are "
            f"{', '.join(KINDS)}.",
            "without --tile, where that is given; else save it as PNG, and predict that",
        )


class _Result:
    """What is kept and written of one head."""

    def __init__(self, stem: Path, labels: Labels, raster: RasterReader) -> None:
        self.stem, self.labels, self.raster = stem, labels, raster
        self.mask = output_path(stem, "mask").with_suffix(".tif")
        self._file: GeoMaskWriter | None = None
        self._counts = np.zeros(len(labels), np.int64)
        shape = raster.reduced(PREVIEW)
        # The pixels of the image that the preview shows.
        self._shown = [
            ((np.arange(few) + 0.5) * many / few).astype(int)
            for few, many in zip(shape, raster.size, strict=True)
        ]
        self._ids = np.full(shape, labels.ignore_index, mask_dtype(labels))

    def open(self, stack: ExitStack) -> None:
        """The file, until the stack is left."""
        self._file = stack.enter_context(
            open_mask_writer(self.mask, self.raster, self.labels, software=MARK[1])
        )

    def add(
        self, rows: PixelRange, columns: PixelRange, ids: np.ndarray, valid: np.ndarray | None
    ) -> None:
        """(h, w) ids of a window, and where it has data."""
        if valid is not None:
            ids = np.where(valid, ids, self._ids.dtype.type(self.labels.ignore_index))
        for start in range(0, len(ids), _STRIP):  # bincount takes 8 bytes for each id
            found = np.bincount(ids[start : start + _STRIP].ravel(), minlength=len(self._counts))
            self._counts += found[: len(self._counts)]
        if self._file is not None:
            self._file.write(rows, columns, ids)
        shown = [
            slice(*np.searchsorted(where, span))
            for where, span in zip(self._shown, (rows, columns), strict=True)
        ]
        inside = np.ix_(self._shown[0][shown[0]] - rows[0], self._shown[1][shown[1]] - columns[0])
        self._ids[shown[0], shown[1]] = ids[inside]

    def area(self) -> dict[str, float]:
        """Share of the pixels (fraction) of each class that occurs, and of those of none."""
        height, width = self.raster.size
        none = height * width - int(self._counts.sum())
        pairs = zip((*self.labels.names, IGNORE), (*self._counts.tolist(), none), strict=True)
        return {name: count / (height * width) for name, count in pairs if count}

    def previews(self, outputs: Sequence[str]) -> list[Path]:
        """Writes color and overlay, as far as they are wanted."""
        written = []
        for kind in ("color", "overlay"):
            if kind in outputs:
                if kind == "color":
                    pixels = draw.colorize(self._ids, self.labels)
                else:
                    image = self.raster.preview(PREVIEW)
                    pixels = draw.overlay_with_legend(image, self._ids, self.labels)
                written.append(output_path(self.stem, kind))
                with creating(written[-1]):
                    written[-1].write_bytes(encoded(Image.fromarray(pixels), kind))
        return written
