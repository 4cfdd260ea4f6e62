"""Images: any file, PIL image or array -> (H, W, 3) uint8 RGB, upright.

Upright means: the EXIF orientation is applied, everywhere an image or its size is read.
Alpha is dropped, never composited: the stored RGB values stay (a predictor must not invent a
background colour). 16-bit and 32-bit grey is scaled from 0..65535 to 0..255. Of several frames the
first one counts. Float images are refused: their range is not known.
A file that cannot be read is a `FullconvError` that names it and quotes Pillow, which itself says
nothing. So is one with more pixels than Pillow's limit, by its header: it is not decoded.

Shapes: H, W image · C channels.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError

from fullconv.core.errors import FullconvError
from fullconv.core.text import shell_command
from fullconv.data.io.limits import TooLargeError, no_warnings, refuse_large

Source: TypeAlias = str | Path | IO[bytes]

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".mpo", ".png", ".bmp", ".tif", ".tiff", ".webp", ".avif", ".jp2"}
    | {".gif", ".ppm", ".pgm", ".pbm"}
)

# The formats of these suffixes; MPO is opened as JPEG. Of the others that Pillow knows some begin
# like nothing in particular, so that random bytes are images, and one starts another program.
_FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP", "AVIF", "JPEG2000", "GIF", "PPM")
_DOUBLED = ("WEBP", "AVIF", "JPEG2000")  # whose decoders hold an image more than once

# What Pillow raises on broken files; UnidentifiedImageError is an OSError.
_BROKEN = (
    *(OSError, SyntaxError, ValueError, EOFError, struct.error, IndexError, TypeError),
    *(RuntimeError, KeyError, OverflowError, MemoryError),
)
_BAND = 1 << 20  # numbers that are scaled at once
_ORIENTATION = 0x0112  # EXIF tag
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read_image(path_or_file: Source, *, name: str = "") -> NDArray[np.uint8]:
    """The image in a file. (H, W, 3) uint8 RGB, upright.

    Args:
        name: in messages, if not that of the file.
    """
    with open_image(path_or_file, name=name) as image:
        return from_pil(image, name=name or source_name(path_or_file))


def image_size(path: Source) -> tuple[int, int]:
    """(H, W) of the upright image. Reads the header only, but for PNG, which is decoded: its
    EXIF data may stand behind the pixels."""
    with open_image(path) as image:
        return _upright_size(image)


def read_reduced(
    path_or_file: Source, shortest: int, *, name: str = ""
) -> tuple[tuple[int, int], NDArray[np.uint8]]:
    """(H, W) like `image_size`, and the image, (h, w, 3) uint8 RGB, upright: as it is, but that
    JPEG is decoded at a half, a quarter or an eighth where its sides stay `shortest` pixels or
    longer. That still reads every byte, and so finds truncated files."""
    with open_image(path_or_file, name=name) as image:
        size = _upright_size(image)
        image.draft(None, (shortest, shortest))
        return size, from_pil(image, name=name or source_name(path_or_file))


def pixels_to_decode(
    source: Source, shortest: int = 0, *, what: str = "image", name: str = ""
) -> int:
    """How many pixels take memory when an image is read, or read reduced; by its header."""
    with open_image(source, what, name=name) as image:
        whole = image.size[0] * image.size[1]
        if shortest:
            image.draft(None, (shortest, shortest))
        # A progressive JPEG is kept in whole, packed, before it is reduced.
        return max(image.size[0] * image.size[1], whole // 4)


def from_pil(image: Image.Image, *, name: str = "the image") -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB of a PIL image in any mode but float, upright."""
    if image.mode == "F":
        raise FullconvError(
            f"{name} holds floating-point numbers (mode 'F'), whose range is not known; "
            "expected 8 or 16 bit per channel.",
            "save it again as 8-bit PNG",
        )
    image = upright(image)
    if image.mode == "I" or image.mode.startswith("I;16"):
        return _stack(_to_8_bit(np.asarray(image)))
    if image.mode in ("P", "PA", "LA", "La", "RGBa"):
        # By way of RGBA: Pillow warns about palettes with transparency that go to RGB directly.
        image = image.convert("RGBA")
    if image.mode in ("RGBA", "RGBX"):
        return np.ascontiguousarray(np.asarray(image)[..., :3])
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def from_array(array: NDArray[np.generic]) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB of (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) uint8 or uint16.

    >>> from_array(np.full((2, 3), 65535, np.uint16))[0, 0].tolist()
    [255, 255, 255]
    """
    shape = array.shape
    if array.dtype not in (np.uint8, np.uint16):
        factor = " * 255" if array.dtype.kind == "f" else ""
        raise FullconvError(
            f"an image array of {array.dtype}, whose range is not known; "
            "expected uint8 (0-255) or uint16 (0-65535).",
            f"(array{factor}).astype('uint8')" if factor else "array.astype('uint8')",
        )
    channels = shape[2] if len(shape) == 3 else 1
    if len(shape) not in (2, 3) or channels not in (1, 3, 4) or 0 in shape:
        first = len(shape) == 3 and shape[0] in (1, 3, 4)
        raise FullconvError(
            f"an image array of shape {shape}; expected (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) "
            f"with at least one pixel{'; this one looks channels first' if first else ''}.",
            "array.transpose(1, 2, 0)"
            if first
            else 'np.asarray(Image.open("photo.jpg").convert("RGB"))',
        )
    values = _to_8_bit(array) if array.dtype == np.uint16 else array.astype(np.uint8)
    if channels == 1:
        return _stack(values.reshape(shape[:2]))
    return np.ascontiguousarray(values[..., :3])


@contextmanager
def open_image(
    source: Source, what: str = "image", *, name: str = ""
) -> Iterator[ImageFile.ImageFile]:
    """An image or mask file, opened and closed; what goes wrong inside is a `FullconvError`."""
    name = name or source_name(source)
    try:
        with ExitStack() as stack:
            stack.enter_context(no_warnings)
            file = source
            if isinstance(source, str | Path):
                file = stack.enter_context(Path(source).open("rb"))
            image = stack.enter_context(Image.open(file, formats=_FORMATS))
            share = 1 / 2 if image.format in _DOUBLED else 1
            refuse_large((image.size[1], image.size[0]), what, name, share=share)
            yield image
    except FileNotFoundError as error:
        nearest = next((p for p in Path(name).parents if p.is_dir()), Path())
        raise FullconvError(
            f"no {what} {name}: there is no such file.", shell_command("ls", nearest)
        ) from error
    except IsADirectoryError as error:
        raise FullconvError(
            f"{name} is a folder; expected a {what} file.", shell_command("ls", name)
        ) from error
    except Image.DecompressionBombError as error:
        raise TooLargeError(
            f"{what} {name} has more pixels than Pillow opens unasked: {error}",
            "cut it into tiles, or set PIL.Image.MAX_IMAGE_PIXELS = None",
        ) from error
    except _BROKEN as error:
        said = _what_pillow_said(error, source)
        raise FullconvError(
            f"{what} {name} cannot be read: {said}.",
            f"copy or download {Path(name).name} again, or take it out of the data",
        ) from error


def upright(image: Image.Image) -> Image.Image:
    """The image as its EXIF orientation wants it seen. Loads it."""
    image.load()
    turn = _UPRIGHT.get(_orientation(image))
    return image.transpose(turn) if turn is not None else image


def turn_upright(ids: NDArray[Any], image: Source) -> NDArray[Any]:
    """(H, W) values that were drawn on an image as it lies in its file, turned as its EXIF
    orientation turns it."""
    with open_image(image) as file:
        turn = _UPRIGHT.get(_orientation(file))
    if turn is None:
        return ids
    # As 32 bit: Pillow turns those exactly, whatever the ids are.
    turned = Image.fromarray(np.ascontiguousarray(ids, np.int32)).transpose(turn)
    return np.asarray(turned).astype(ids.dtype)


def source_name(source: Source) -> str:
    """What to call a path or an open file in a message."""
    if isinstance(source, str | Path):
        return str(source)
    name = getattr(source, "name", "")
    return name if isinstance(name, str) and name else "the image"


def _upright_size(image: Image.Image) -> tuple[int, int]:
    if image.format == "PNG":
        image.load()
    width, height = image.size
    return (width, height) if _orientation(image) >= 5 else (height, width)


def _orientation(image: Image.Image) -> int:
    # Broken EXIF data does not spoil the pixels: such an image is taken as it lies.
    try:
        found = image.getexif().get(_ORIENTATION, 1)
    except _BROKEN:
        return 1
    return found if found in _UPRIGHT else 1


def _to_8_bit(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    flat = values.ravel()
    scaled = np.empty(flat.shape, np.uint8)
    for start in range(0, len(flat), _BAND):  # in parts, for the wide numbers between
        wide = np.clip(flat[start : start + _BAND].astype(np.int64), 0, 65535)
        scaled[start : start + _BAND] = (wide + 128) // 257  # 65535 / 257 = 255
    return scaled.reshape(values.shape)


def _stack(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.repeat(grey[..., None], 3, axis=2)


def _is_empty(source: Source) -> bool:
    if isinstance(source, str | Path):
        return Path(source).is_file() and Path(source).stat().st_size == 0
    try:
        return not source.closed and source.seek(0, io.SEEK_END) == 0
    except (OSError, ValueError):
        return False


def _what_pillow_said(error: BaseException, source: Source) -> str:
    if _is_empty(source):
        return "the file is empty (0 bytes)"
    if isinstance(error, UnidentifiedImageError):  # whose own text shows a Python object
        return "cannot identify image file: no image format that is read begins like this"
    return (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
