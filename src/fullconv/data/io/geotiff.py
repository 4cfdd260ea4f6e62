"""Read and write TIFF files of any size in windows, with their georeference.

rasterio is imported inside the functions: it takes a while, and most images are not TIFF files.

Shapes: H, W image · h, w window · C channels.
"""

from __future__ import annotations

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
from fullconv.core.files import atomic_path
from fullconv.core.i18n import msg
from fullconv.core.labels import Labels, voc_color
from fullconv.core.text import first_line, shell_command
from fullconv.data.io.images import from_array
from fullconv.data.io.limits import no_warnings, refuse_large
from fullconv.data.io.masks import mask_dtype

SUFFIXES = (".tif", ".tiff")
SOFTWARE = "TIFFTAG_SOFTWARE"
_BLOCK_SIZE = 256  # pixels on each side of the blocks of a written file
_LARGE = Image.MAX_IMAGE_PIXELS or float("inf")  # pixels that Pillow opens by default
_CACHE_MB = 64  # decoded blocks that GDAL holds
PixelRange = tuple[int, int]  # pixels [start, stop) of one axis


@dataclass(frozen=True)
class GeoReference:
    """The place of an image on the earth, and where it has data."""

    profile: Mapping[str, Any]  # CRS, transform, height and width, as rasterio names them
    gcps: Any  # ground control points and their CRS
    valid: NDArray[np.bool_] | None  # (H, W); None if every pixel has data

    def on_earth(self, ring: NDArray[Any]) -> list[list[float]]:
        """Convert the corners (N, 2) of a polygon from pixels to longitude and latitude, or to the
        units of a file without a CRS.

        Outer rings come out counter-clockwise, as RFC 7946 requires.
        """
        transform = self.profile["transform"]
        if transform.determinant < 0:  # north is up: the transform mirrors the ring
            ring = ring[::-1]
        x, y = ring.astype(float).T
        east = transform.a * x + transform.b * y + transform.c
        north = transform.d * x + transform.e * y + transform.f
        if self.profile["crs"] is not None:
            from rasterio.warp import transform as warp

            east, north = warp(self.profile["crs"], "EPSG:4326", east, north)
        return [[float(x), float(y)] for x, y in zip(east, north, strict=True)]


def raster_size(path: Path) -> tuple[int, int] | None:
    """Return (H, W) of a TIFF that is georeferenced or larger than what Pillow opens; else None."""
    if path.suffix.lower() not in SUFFIXES:
        return None
    import rasterio

    errors = suppress(rasterio.errors.RasterioError)  # Pillow reports them
    with errors, no_warnings, rasterio.open(path, driver="GTiff") as file:
        georeferenced = file.crs is not None or not file.transform.is_identity or file.gcps[0]
        if georeferenced or file.width * file.height > _LARGE:
            return int(file.height), int(file.width)
    return None


def tiff_software_tag(path: Path) -> str:
    """Return the name of the program that wrote a TIFF; "" if the file does not tell."""
    import rasterio

    errors = suppress(rasterio.errors.RasterioError)
    with errors, no_warnings, rasterio.open(path, driver="GTiff") as file:
        return str(file.tags().get(SOFTWARE, ""))
    return ""


class RasterReader:
    """An open TIFF of (H, W) pixels that any thread may read in windows."""

    def __init__(self, file: Any, path: Path) -> None:
        self._file, self._path = file, path
        self._lock = threading.Lock()  # GDAL reads a file in one thread at a time
        self.size: tuple[int, int] = (file.height, file.width)
        self.profile: dict[str, Any] = {"height": file.height, "width": file.width}
        self.profile |= {"crs": file.crs, "transform": file.transform}
        self.gcps = file.gcps
        if not set(file.dtypes) <= {"uint8", "uint16"}:
            dtypes = ", ".join(sorted(set(file.dtypes)))
            message = msg(
                "{path} has pixels of type {dtypes}, whose value range is unknown; expected "
                "unsigned 8-bit or 16-bit pixels.",
                path=path,
                dtypes=dtypes,
            )
            command = ("gdal_translate", "-ot", "Byte", "-scale", path, f"{path.stem}_8bit.tif")
            raise FullconvError(message, shell_command(*command))
        # Bands are red, green and blue by their names, else by their order.
        names = [color.name for color in file.colorinterp]
        self._bands = [1, 2, 3] if file.count >= 3 else [1]
        if {"red", "green", "blue"} <= set(names):
            self._bands = [names.index(color) + 1 for color in ("red", "green", "blue")]
        self._palette: NDArray[np.uint8] | None = None
        if names[0] == "palette":
            self._palette = np.zeros((1 << 16, 3), np.uint8)
            for value, color in file.colormap(1).items():
                self._palette[value] = color[:3]

    def read(self, rows: PixelRange, columns: PixelRange) -> NDArray[np.uint8]:
        """Return a window as (h, w, 3) uint8 RGB, without alpha; 16-bit values are scaled to 8."""
        return self._to_rgb(self._read(self._file.read, rows, columns))

    def preview(self, longest_side: int) -> NDArray[np.uint8]:
        """Return the whole image in the size of `reduced`, as (h, w, 3) uint8 RGB."""
        whole = ((0, self.size[0]), (0, self.size[1]))
        values = self._read(self._file.read, *whole, size=self.reduced(longest_side))
        return self._to_rgb(values)

    def reduced(self, longest_side: int) -> tuple[int, int]:
        """Return (h, w) scaled down to at most `longest_side` pixels on the longer side."""
        factor = min(1, longest_side / max(self.size))
        return max(1, round(self.size[0] * factor)), max(1, round(self.size[1] * factor))

    def valid(self, rows: PixelRange, columns: PixelRange) -> NDArray[np.bool_] | None:
        """Return (h, w) bool: False for nodata, masked and transparent pixels; None if the whole
        file has data."""
        flags = self._file.mask_flag_enums
        if all(flag.name == "all_valid" for band in self._bands for flag in flags[band - 1]):
            return None
        band_masks: NDArray[Any] = self._read(self._file.read_masks, rows, columns)
        return np.asarray((band_masks > 0).any(axis=0))

    def _to_rgb(self, values: Any) -> NDArray[np.uint8]:
        if self._palette is not None:
            return self._palette[values[0]]
        return from_array(values.transpose(1, 2, 0))

    def _read(
        self, read: Any, rows: PixelRange, columns: PixelRange, size: tuple[int, int] | None = None
    ) -> Any:
        import rasterio

        size = size or (rows[1] - rows[0], columns[1] - columns[0])
        try:
            with self._lock:
                window = _window(rows, columns)
                return read(self._bands, window=window, out_shape=(len(self._bands), *size))
        except rasterio.errors.RasterioError as error:
            top, bottom, left, right = *rows, *columns
            place = {"top": top, "bottom": bottom, "left": left, "right": right}
            message = msg(
                "image {path} cannot be read at rows {top} to {bottom}, columns {left} to "
                "{right}: {reason}.",
                path=self._path,
                **place,
                reason=first_line(error.__cause__ or error),
            )
            hint = msg("copy or download {name} again", name=self._path.name)
            raise FullconvError(message, hint) from error


@contextmanager
def open_raster(path: Path) -> Iterator[RasterReader]:
    """Open a TIFF to read it in windows. Raises a `FullconvError` if it cannot be opened."""
    import rasterio

    with no_warnings, rasterio.Env(GDAL_CACHEMAX=_CACHE_MB):
        try:
            file = rasterio.open(path, driver="GTiff")
        except rasterio.errors.RasterioError as error:
            reason = first_line(error)
            message = msg("image {path} cannot be read: {reason}.", path=path, reason=reason)
            hint = msg("copy or download {name} again", name=path.name)
            raise FullconvError(message, hint) from error
        with file:
            yield RasterReader(file, path)


def read_georeferenced(path: Path) -> tuple[NDArray[np.uint8], GeoReference]:
    """Read a whole TIFF as (H, W, 3) uint8 RGB, and its georeference.

    Raises:
        TooLargeError: it has more pixels than Pillow opens.
    """
    with open_raster(path) as raster:
        refuse_large(raster.size, "image", str(path))
        whole = ((0, raster.size[0]), (0, raster.size[1]))
        return raster.read(*whole), GeoReference(raster.profile, raster.gcps, raster.valid(*whole))


def write_georeferenced_mask(
    path: Path, ids: NDArray[Any], place: GeoReference, labels: Labels, software: str
) -> None:
    """Write (H, W) class ids as a GeoTIFF; see `open_mask_writer`."""
    with open_mask_writer(path, place, labels, software) as file:
        file.write((0, ids.shape[0]), (0, ids.shape[1]), ids)


class GeoMaskWriter:
    """A GeoTIFF of class ids that is being written."""

    def __init__(self, file: Any, nodata: int) -> None:
        self._file, self.nodata = file, nodata

    def write(self, rows: PixelRange, columns: PixelRange, ids: NDArray[Any]) -> None:
        """Write (h, w) class ids into a window."""
        values = ids.astype(self._file.dtypes[0], copy=False)
        self._file.write(values, 1, window=_window(rows, columns))


@contextmanager
def open_mask_writer(
    path: Path, raster: RasterReader | GeoReference, labels: Labels, software: str
) -> Iterator[GeoMaskWriter]:
    """Create a GeoTIFF of class ids with the georeference of another raster.

    The file is compressed, tiled and has the class colors; the ignored id is its nodata value. It
    appears at `path` when the block ends without an error.

    Raises:
        UnwrittenError: the file cannot be written.
    """
    import rasterio

    nodata = labels.ignore_index
    profile = {**raster.profile, "driver": "GTiff", "count": 1, "dtype": mask_dtype(labels)}
    profile |= {"tiled": True, "blockxsize": _BLOCK_SIZE, "blockysize": _BLOCK_SIZE}
    profile |= {"compress": "deflate", "nodata": nodata, "BIGTIFF": "IF_SAFER"}
    try:
        with atomic_path(path) as unfinished, rasterio.open(unfinished, "w", **profile) as file:
            if raster.gcps[0]:
                file.gcps = raster.gcps
            file.update_tags(**{SOFTWARE: software})
            if profile["dtype"] == np.uint8:
                colors = {value: (*voc_color(value), 255) for value in range(256)}
                colors.update((k, (*color, 255)) for k, color in enumerate(labels.colors))
                file.write_colormap(1, {**colors, nodata: (0, 0, 0, 0)})
            yield GeoMaskWriter(file, nodata)
    except (OSError, rasterio.errors.RasterioError) as error:
        reason = getattr(error, "strerror", "") or first_line(error)
        values = {"path": path, "reason": reason}
        message = msg("the result could not be written to {path}: {reason}.", **values)
        hint = msg("--out ANOTHER_FOLDER   # or df -h, if the disk is full")
        raise UnwrittenError(message, hint) from error


def _window(rows: PixelRange, columns: PixelRange) -> Any:
    from rasterio.windows import Window

    return Window(columns[0], rows[0], columns[1] - columns[0], rows[1] - rows[0])
