"""TIFF files read and written in windows, with rasterio: of any size, and with their georeference.

rasterio is an extra (`pip install rasterio`) and imported where it is used. Without it a
georeferenced TIFF is an image like any other, as far as Pillow reads it.

Shapes: H, W image · h, w window · C channels.
"""

from __future__ import annotations

import importlib.util
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fullconv.core.errors import FullconvError, UnwrittenError
from fullconv.core.labels import Labels, voc_color
from fullconv.core.text import shell_command
from fullconv.data.io.images import from_array, open_image
from fullconv.data.io.limits import quiet, refuse_large
from fullconv.data.io.masks import mask_dtype

SUFFIXES = (".tif", ".tiff")
SOFTWARE = "TIFFTAG_SOFTWARE"
_BLOCK = 256  # pixels a side of the blocks of a file that is written
_LARGE = Image.MAX_IMAGE_PIXELS or float("inf")  # pixels that Pillow opens unasked
_PLACE_TAGS = (33550, 33922, 34264, 34735)  # scale, tie points, transform, keys of GeoTIFF
_CACHE = 64  # MB of decoded blocks
PixelRange = tuple[int, int]  # pixels [start, stop) of one axis


@dataclass(frozen=True)
class GeoReference:
    """Where an image lies on the earth, and where it has data.

    Args:
        profile: what a result shares with it: CRS, transform, size.
        gcps: ground control points and their CRS, where it has these.
        valid: (H, W); None where all is data.
    """

    profile: Mapping[str, Any]
    gcps: Any
    valid: NDArray[np.bool_] | None

    def on_earth(self, ring: NDArray[Any]) -> list[list[float]]:
        """(N, 2) x, y in pixels -> longitude and latitude, as RFC 7946 wants it, outer rings
        counter-clockwise; where no CRS is known, in the units of the file."""
        transform = self.profile["transform"]
        if transform.determinant < 0:  # north is up: what turned clockwise still does
            ring = ring[::-1]
        x, y = ring.astype(float).T
        across = transform.a * x + transform.b * y + transform.c
        along = transform.d * x + transform.e * y + transform.f
        if self.profile["crs"] is not None:
            from rasterio.warp import transform as warped

            across, along = warped(self.profile["crs"], "EPSG:4326", across, along)
        return [[float(x), float(y)] for x, y in zip(across, along, strict=True)]


def available() -> bool:
    """Whether rasterio is there."""
    return importlib.util.find_spec("rasterio") is not None


def raster_size(path: Path) -> tuple[int, int] | None:
    """(H, W) of a TIFF that is georeferenced, or larger than what Pillow opens unasked, and so is
    read with rasterio; None of any other file."""
    if path.suffix.lower() not in SUFFIXES or not available():
        return None
    import rasterio

    try:
        with quiet, rasterio.open(path, driver="GTiff") as file:
            placed = file.crs is not None or not file.transform.is_identity or file.gcps[0]
            if placed or file.width * file.height > _LARGE:
                return int(file.height), int(file.width)
    except rasterio.errors.RasterioError:  # Pillow will say what is wrong with it
        pass
    return None


def loses_its_place(path: Path) -> bool:
    """Whether a file is a georeferenced TIFF and rasterio, which keeps that, is not there."""
    if path.suffix.lower() not in SUFFIXES or available():
        return False
    with suppress(FullconvError), open_image(path) as image:
        return any(tag in getattr(image, "tag_v2", ()) for tag in _PLACE_TAGS)
    return False


def tiff_software_tag(path: Path) -> str:
    """The program that wrote a TIFF, by its own word; "" where there is none, or no rasterio."""
    if not available():
        return ""
    import rasterio

    with suppress(rasterio.errors.RasterioError), quiet, rasterio.open(path) as file:
        return str(file.tags().get(SOFTWARE, ""))
    return ""


class RasterReader:
    """An open TIFF, read in windows, by any threads.

    Attributes:
        size: (H, W) in pixels.
        profile: what a result shares with it: CRS, transform, size.
    """

    def __init__(self, file: Any, path: Path) -> None:
        self._file, self._path = file, path
        self._turn = threading.Lock()  # a file is read by one thread at a time
        self.size: tuple[int, int] = (file.height, file.width)
        self.profile: dict[str, Any] = {
            "height": file.height,
            "width": file.width,
            "crs": file.crs,
            "transform": file.transform,
        }
        self.gcps = file.gcps
        kinds = set(file.dtypes)
        if not kinds <= {"uint8", "uint16"}:
            raise FullconvError(
                f"{path} holds {', '.join(sorted(kinds))}, whose range is not known; expected 8 or "
                "16 bit without a sign.",
                shell_command(
                    "gdal_translate", "-ot", "Byte", "-scale", path, f"{path.stem}_8bit.tif"
                ),
            )
        names = [color.name for color in file.colorinterp]
        colors = ["red", "green", "blue"]
        self._bands = [1, 2, 3] if file.count >= 3 else [1]
        if set(colors) <= set(names):
            self._bands = [names.index(color) + 1 for color in colors]
        self._palette: NDArray[np.uint8] | None = None
        if names[0] == "palette":
            self._palette = np.zeros((1 << 16, 3), np.uint8)
            for value, color in file.colormap(1).items():
                self._palette[value] = color[:3]

    def read(self, rows: PixelRange, columns: PixelRange) -> NDArray[np.uint8]:
        """(h, w, 3) uint8 RGB of a window, as `fullconv.data.io.images.from_array`: of 16 bits the
        upper 8, alpha dropped."""
        shape = (rows[1] - rows[0], columns[1] - columns[0])
        return self._colors(self._values(self._file.read, rows, columns, shape))

    def preview(self, most: int) -> NDArray[np.uint8]:
        """All of it in the size of `reduced`, (h, w, 3) uint8 RGB."""
        spans = ((0, self.size[0]), (0, self.size[1]))
        return self._colors(self._values(self._file.read, *spans, self.reduced(most)))

    def reduced(self, most: int) -> tuple[int, int]:
        """(h, w) with at most so many pixels on the longer side."""
        factor = min(1, most / max(self.size))
        return max(1, round(self.size[0] * factor)), max(1, round(self.size[1] * factor))

    def _colors(self, values: Any) -> NDArray[np.uint8]:
        if self._palette is not None:
            return self._palette[values[0]]
        return from_array(values.transpose(1, 2, 0))

    def valid(self, rows: PixelRange, columns: PixelRange) -> NDArray[np.bool_] | None:
        """(h, w) where there is data: neither the nodata value nor masked out nor transparent; None
        where all is data."""
        flags = self._file.mask_flag_enums
        if all(flag.name == "all_valid" for band in self._bands for flag in flags[band - 1]):
            return None
        shape = (rows[1] - rows[0], columns[1] - columns[0])
        found: NDArray[np.bool_] = self._values(self._file.read_masks, rows, columns, shape) > 0
        return np.asarray(found.any(axis=0))

    def _values(
        self, read: Any, rows: PixelRange, columns: PixelRange, shape: tuple[int, int]
    ) -> Any:
        import rasterio
        from rasterio.windows import Window

        window = Window(columns[0], rows[0], columns[1] - columns[0], rows[1] - rows[0])
        try:
            with self._turn:
                return read(self._bands, window=window, out_shape=(len(self._bands), *shape))
        except rasterio.errors.RasterioError as error:
            raise FullconvError(
                f"image {self._path} cannot be read at rows {rows[0]} to {rows[1]}, columns "
                f"{columns[0]} to {columns[1]}: {str(error.__cause__ or error).rstrip('.')}.",
                f"copy or download {self._path.name} again",
            ) from error


@contextmanager
def open_raster(path: Path) -> Iterator[RasterReader]:
    """A TIFF to be read in windows, opened and closed.

    Raises:
        FullconvError: rasterio is missing, or it cannot open the file.
    """
    if not available():
        raise FullconvError(
            f"{path} is read in windows with rasterio, which is not installed.",
            "pip install rasterio",
        )
    import rasterio

    with quiet, rasterio.Env(GDAL_CACHEMAX=_CACHE):
        try:
            file = rasterio.open(path, driver="GTiff")
        except rasterio.errors.RasterioError as error:
            raise FullconvError(
                f"image {path} cannot be read: {str(error).rstrip('.')}.",
                f"copy or download {path.name} again",
            ) from error
        with file:
            yield RasterReader(file, path)


def read_georeferenced(path: Path) -> tuple[NDArray[np.uint8], GeoReference]:
    """A whole TIFF, as `RasterReader.read`, and its place.

    Raises:
        FullconvError: as `open_raster`; `TooLargeError`: more pixels than Pillow opens.
    """
    with open_raster(path) as raster:
        refuse_large(raster.size, "image", str(path))
        everything = ((0, raster.size[0]), (0, raster.size[1]))
        place = GeoReference(raster.profile, raster.gcps, raster.valid(*everything))
        return raster.read(*everything), place


def write_georeferenced_mask(
    path: Path, ids: NDArray[Any], place: GeoReference, labels: Labels, software: str
) -> None:
    """(H, W) ids as `open_mask_writer`."""
    with open_mask_writer(path, place, labels, software) as file:
        file.write((0, ids.shape[0]), (0, ids.shape[1]), ids)


class GeoMaskWriter:
    """A GeoTIFF of class ids that is being written."""

    def __init__(self, file: Any, nodata: int) -> None:
        self._file, self.nodata = file, nodata

    def write(self, rows: PixelRange, columns: PixelRange, ids: NDArray[Any]) -> None:
        """(h, w) ids of a window."""
        from rasterio.windows import Window

        window = Window(columns[0], rows[0], columns[1] - columns[0], rows[1] - rows[0])
        self._file.write(ids.astype(self._file.dtypes[0], copy=False), 1, window=window)


@contextmanager
def open_mask_writer(
    path: Path, raster: RasterReader | GeoReference, labels: Labels, software: str
) -> Iterator[GeoMaskWriter]:
    """A new GeoTIFF with the place of another: compressed, tiled, with the class colours, and the
    ignored id as nodata. It is there when all is written, or not at all.

    Raises:
        UnwrittenError: it cannot be written.
    """
    import rasterio

    part = path.with_name(f".{path.name}.part")
    profile = {**raster.profile, "count": 1, "dtype": mask_dtype(labels), "driver": "GTiff"}
    tiled = {"tiled": True, "blockxsize": _BLOCK, "blockysize": _BLOCK, "compress": "deflate"}
    nodata = labels.ignore_index
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with rasterio.open(
            part, "w", **profile, **tiled, nodata=nodata, BIGTIFF="IF_SAFER"
        ) as file:
            if raster.gcps[0]:
                file.gcps = raster.gcps
            file.update_tags(**{SOFTWARE: software})
            if profile["dtype"] == np.uint8:
                file.write_colormap(1, _colors(labels))
            yield GeoMaskWriter(file, nodata)
        os.replace(part, path)
    except (OSError, rasterio.errors.RasterioError) as error:
        raise UnwrittenError(
            f"the result could not be written to {path}: {getattr(error, 'strerror', '') or error}",
            "--out ANOTHER_FOLDER   # or df -h, if the disk is full",
        ) from error
    finally:
        with suppress(OSError):  # it is none of the errors that matter
            part.unlink(missing_ok=True)


def _colors(labels: Labels) -> Mapping[int, tuple[int, int, int, int]]:
    table = {value: (*voc_color(value), 255) for value in range(256)}
    table.update({index: (*color, 255) for index, color in enumerate(labels.colors)})
    table[labels.ignore_index] = (0, 0, 0, 0)
    return table
