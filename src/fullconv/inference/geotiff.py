"""Predict images window by window: a georeferenced TIFF in, a GeoTIFF of class ids out.

Memory is bounded whatever the size, see `fullconv.inference.tiling`. While the network runs, one
thread reads the next window and another writes the last one.

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
from fullconv.core.files import atomic_write
from fullconv.core.i18n import msg
from fullconv.core.labels import Labels
from fullconv.data.io.geotiff import (
    GeoMaskWriter,
    PixelRange,
    RasterReader,
    open_mask_writer,
    open_raster,
)
from fullconv.data.io.masks import mask_dtype
from fullconv.inference.options import WHOLE_IMAGE_HINT
from fullconv.inference.predictor import Predictor
from fullconv.inference.result_files import (
    MARK,
    creating,
    encode_image,
    head_stem,
    output_path,
    require_stream_outputs,
)
from fullconv.inference.segmentation import area_shares
from fullconv.visualization.overlay import colorize, overlay_with_legend

PREVIEW_SIDE = 2000  # pixels on the longer side of color and overlay images
_STRIP = 256  # rows that are counted at once: bincount needs 8 bytes for each id


def predict_raster(
    predictor: Predictor,
    source: str | Path,
    stem: str | Path,
    outputs: Sequence[str] = ("mask", "overlay"),
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Predict a TIFF window by window.

    The mask is a GeoTIFF, `stem` + "_mask.tif": size, CRS and transform of the source, class ids
    with their colors. Pixels without data get the ignored id, which is its nodata value. The color
    and overlay images are previews of at most `PREVIEW_SIDE` pixels on the longer side.

    Args:
        outputs: of mask, color, overlay, json.
        progress: called with how many rows of pixels are done and how many there are.

    Returns:
        The content of the JSON file, see `Segmentation.to_dict`, and "files".

    Raises:
        FullconvError: a file that cannot be read or written; a model with extra inputs or a fixed
            input size, or an option or output type that needs the whole image.
    """
    source, stem, model = Path(source), Path(stem), predictor.model
    predictor.options.require_windows(source)
    require_stream_outputs(outputs, source)
    if model.extra_inputs:
        message = msg(
            "{source} is read in windows, but the model takes extra inputs.", source=source
        )
        raise FullconvError(message, WHOLE_IMAGE_HINT)
    if model.short_side is not None:
        message = msg(
            "{source} is read in windows, but the model resizes whole images.", source=source
        )
        raise FullconvError(message, WHOLE_IMAGE_HINT)
    heads = {"": model.labels, **model.heads}
    with open_raster(source) as raster, ExitStack() as stack:
        results = [_HeadResult(head_stem(stem, k), labels, raster) for k, labels in heads.items()]
        if "mask" in outputs:
            for result in results:
                writer = open_mask_writer(result.mask_path, raster, result.labels, software=MARK[1])
                result.mask = stack.enter_context(writer)

        def add(rows: PixelRange, columns: PixelRange, maps: Sequence[np.ndarray]) -> None:
            valid = raster.valid(rows, columns)
            for result, ids in zip(results, maps, strict=True):
                result.add(rows, columns, ids, valid)

        # Predict block by block, and write the previous block at the same time.
        with (
            short_switch_interval(),
            closing(_predict_blocks(predictor, raster)) as blocks,
            BackgroundWorker() as worker,
        ):
            for rows, columns, maps in blocks:
                worker(add, rows, columns, maps)
                progress(rows[1], raster.size[0])
            worker.wait()

        # Write the previews and the JSON file.
        files = [path for result in results for path in result.write_previews(outputs)]
    if "mask" in outputs:
        files += [result.mask_path for result in results]
    areas = [result.area() for result in results]
    height, width = raster.size
    table = {"source": str(source), "height": height, "width": width, "area": areas[0]}
    if model.heads:
        table["heads"] = dict(zip(model.heads, areas[1:], strict=True))
    if "json" in outputs:
        files.append(output_path(stem, "json"))
        with creating(files[-1]):
            atomic_write(files[-1], json.dumps(table, indent=1))
    return {**table, "files": [str(path) for path in files]}


def _predict_blocks(
    predictor: Predictor, raster: RasterReader
) -> Generator[tuple[PixelRange, PixelRange, list[np.ndarray]]]:
    """Yield rows, columns and the ids (h, w) of every head, block by block."""

    def read(rows: PixelRange, columns: PixelRange) -> Tensor:
        return torch.from_numpy(raster.read(rows, columns)).permute(2, 0, 1)

    for rows, columns, scores in predictor.scores(raster.size, read):
        maps = [head.labels()[0].cpu().numpy() for head in predictor.model.split(scores)]
        del scores  # frees memory while the network runs
        yield rows, columns, maps
        del maps


class _HeadResult:
    """The result of one head: the mask file, the pixel counts, and the ids of the preview."""

    def __init__(self, stem: Path, labels: Labels, raster: RasterReader) -> None:
        self.stem, self.labels, self.raster = stem, labels, raster
        self.mask_path = output_path(stem, "mask").with_suffix(".tif")
        self.mask: GeoMaskWriter | None = None  # the open file
        self._counts = np.zeros(len(labels), np.int64)
        preview_size = raster.reduced(PREVIEW_SIDE)
        # The rows and columns of the image that the preview shows.
        self._sampled = [
            ((np.arange(few) + 0.5) * many / few).astype(int)
            for few, many in zip(preview_size, raster.size, strict=True)
        ]
        self._preview = np.full(preview_size, labels.ignore_index, mask_dtype(labels))

    def add(
        self, rows: PixelRange, columns: PixelRange, ids: np.ndarray, valid: np.ndarray | None
    ) -> None:
        """Add the ids (h, w) of a window; `valid` tells which pixels have data."""
        if valid is not None:
            ids = np.where(valid, ids, self._preview.dtype.type(self.labels.ignore_index))
        for start in range(0, len(ids), _STRIP):
            strip = ids[start : start + _STRIP].ravel()
            self._counts += np.bincount(strip, minlength=len(self._counts))[: len(self._counts)]
        if self.mask is not None:
            self.mask.write(rows, columns, ids)
        # Copy the sampled pixels of this window.
        inside_rows = slice(*np.searchsorted(self._sampled[0], rows))
        inside_columns = slice(*np.searchsorted(self._sampled[1], columns))
        sampled_rows = self._sampled[0][inside_rows] - rows[0]
        sampled_columns = self._sampled[1][inside_columns] - columns[0]
        self._preview[inside_rows, inside_columns] = ids[np.ix_(sampled_rows, sampled_columns)]

    def area(self) -> dict[str, float]:
        """Return the share (fraction) of each class that occurs, and of ignored pixels."""
        height, width = self.raster.size
        shares = area_shares(self.labels.names, self._counts.tolist(), height * width)
        return {name: share for name, share in shares.items() if share}

    def write_previews(self, outputs: Sequence[str]) -> list[Path]:
        """Write the color and overlay images, if requested, and return their paths."""
        paths = []
        for kind in [kind for kind in ("color", "overlay") if kind in outputs]:
            if kind == "color":
                pixels = colorize(self._preview, self.labels)
            else:
                image = self.raster.preview(PREVIEW_SIDE)
                pixels = overlay_with_legend(image, self._preview, self.labels)
            paths.append(output_path(self.stem, kind))
            with creating(paths[-1]):
                atomic_write(paths[-1], encode_image(Image.fromarray(pixels), kind))
        return paths
