"""Read images: any file, PIL image or array -> (H, W, 3) uint8 RGB, upright.

The EXIF orientation is applied wherever an image or its size is read. Alpha is dropped, not
composited, so the stored RGB values stay. 16-bit and 32-bit gray is scaled from 0-65535 to 0-255.
Of several frames the first is read. Float images are refused, because their range is unknown.
The pixels of a header are checked against Pillow's limit before anything is decoded.

Shapes: H, W image · C channels.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError

from fullconv.core.errors import FullconvError
from fullconv.core.i18n import msg
from fullconv.core.text import first_line, shell_command
from fullconv.data.io.limits import (
    TooLargeError,
    kind_name,
    large_image_hint,
    missing_file,
    no_warnings,
    refuse_large,
)

Source: TypeAlias = str | Path | IO[bytes]

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".pjpeg", ".pjp", ".mpo", ".png", ".apng", ".bmp"}
    | {".dib", ".tif", ".tiff", ".webp", ".avif", ".avifs", ".jp2", ".j2k", ".gif"}
    | {".ppm", ".pgm", ".pbm", ".pnm"}
)

# The formats of these suffixes; MPO is opened as JPEG. Pillow's other formats are left out: some
# have no signature, so that random bytes are images, and one starts another program.
_FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP", "AVIF", "JPEG2000", "GIF", "PPM")
_DOUBLED = ("WEBP", "AVIF", "JPEG2000")  # their decoders hold an image more than once

# What Pillow raises on damaged files; UnidentifiedImageError is an OSError.
_DAMAGED = (
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
    """Read an image file as (H, W, 3) uint8 RGB, upright. `name` is its name in messages."""
    with open_image(path_or_file, name=name) as image:
        return from_pil(image, name=name or source_name(path_or_file))


def image_size(path: Source) -> tuple[int, int]:
    """Return the height and width of the upright image in pixels.

    PNG files are decoded, because their EXIF data may follow the pixels.
    """
    with open_image(path) as image:
        return _upright_size(image)


def read_reduced(
    path_or_file: Source, shortest: int, *, name: str = ""
) -> tuple[tuple[int, int], NDArray[np.uint8]]:
    """Return the full (H, W), and the image as (h, w, 3) uint8 RGB, upright.

    JPEG is decoded at 1/2, 1/4 or 1/8 of its size if its sides stay at least `shortest` pixels
    long; other formats at full size. Every byte is read, so truncated files are found.
    """
    with open_image(path_or_file, name=name) as image:
        size = _upright_size(image)
        image.draft(None, (shortest, shortest))
        return size, from_pil(image, name=name or source_name(path_or_file))


def pixels_to_decode(
    source: Source, shortest: int = 0, *, kind: str = "image", name: str = ""
) -> int:
    """Return how many pixels take memory in `read_image` or `read_reduced`, by the header."""
    with open_image(source, kind, name=name) as image:
        full = image.size[0] * image.size[1]
        if shortest:
            image.draft(None, (shortest, shortest))
        # The coefficients of a progressive JPEG are held in full, packed, before it is reduced.
        return max(image.size[0] * image.size[1], full // 4)


def from_pil(image: Image.Image, *, name: str = "the image") -> NDArray[np.uint8]:
    """Convert a PIL image of any mode but float to (H, W, 3) uint8 RGB, upright."""
    if image.mode == "F":
        message = msg(
            "{name} has floating-point pixels (mode 'F'), whose value range is unknown; "
            "expected 8 or 16 bits per channel.",
            name=name,
        )
        raise FullconvError(message, msg("save it again as 8-bit PNG"))
    image = upright(image)
    if image.mode == "I" or image.mode.startswith("I;16"):
        return gray_to_rgb(_to_8_bit(np.asarray(image)))
    if image.mode in ("P", "PA", "LA", "La", "RGBa"):
        # Through RGBA, because Pillow warns if a palette with transparency is converted to RGB.
        image = image.convert("RGBA")
    if image.mode in ("RGBA", "RGBX"):
        return np.ascontiguousarray(np.asarray(image)[..., :3])
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def from_array(array: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Convert (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) uint8 or uint16 to (H, W, 3) uint8 RGB.

    >>> from_array(np.full((2, 3), 65535, np.uint16))[0, 0].tolist()
    [255, 255, 255]
    """
    shape = array.shape
    if array.dtype not in (np.uint8, np.uint16):
        scaled = "(array * 255)" if array.dtype.kind == "f" else "array"
        message = msg(
            "an image array of {dtype}, whose value range is unknown; expected uint8 (0-255) or "
            "uint16 (0-65535).",
            dtype=array.dtype,
        )
        raise FullconvError(message, f"{scaled}.astype('uint8')")
    channels = shape[2] if len(shape) == 3 else 1
    if len(shape) not in (2, 3) or channels not in (1, 3, 4) or 0 in shape:
        if len(shape) == 3 and shape[0] in (1, 3, 4):
            message = msg(
                "an image array of shape {shape}, which looks channels-first; expected (H, W, 3).",
                shape=shape,
            )
            raise FullconvError(message, "array.transpose(1, 2, 0)")
        message = msg(
            "an image array of shape {shape}; expected (H, W), (H, W, 1), (H, W, 3) or "
            "(H, W, 4) with at least one pixel.",
            shape=shape,
        )
        raise FullconvError(message, 'np.asarray(Image.open("photo.jpg").convert("RGB"))')
    values = _to_8_bit(array) if array.dtype == np.uint16 else array.astype(np.uint8)
    if channels == 1:
        return gray_to_rgb(values.reshape(shape[:2]))
    return np.ascontiguousarray(values[..., :3])


@contextmanager
def open_image(
    source: Source, kind: str = "image", *, name: str = ""
) -> Iterator[ImageFile.ImageFile]:
    """Open an image or mask file; errors inside the block become a `FullconvError`.

    Messages contain `kind` ("image", "mask", "input" or "bitmask") and `name`.
    """
    name = name or source_name(source)
    try:
        with ExitStack() as stack:
            stack.enter_context(no_warnings)
            file = source
            if isinstance(source, str | Path):
                file = stack.enter_context(Path(source).open("rb"))
            image = stack.enter_context(Image.open(file, formats=_FORMATS))
            share = 1 / 2 if image.format in _DOUBLED else 1
            refuse_large((image.size[1], image.size[0]), kind, name, share=share)
            yield image
    except FileNotFoundError as error:
        raise missing_file(kind, name) from error
    except IsADirectoryError as error:
        message = msg("{path} is a folder; expected an image file.", path=name)
        raise FullconvError(message, shell_command("ls", name)) from error
    except Image.DecompressionBombError as error:
        values = {"kind": kind_name(kind), "path": name, "reason": first_line(error)}
        message = msg(
            "{kind} {path} has more pixels than Pillow opens by default: {reason}.", **values
        )
        raise TooLargeError(message, large_image_hint()) from error
    except _DAMAGED as error:
        values = {"kind": kind_name(kind), "path": name, "reason": _reason(error, source)}
        message = msg("{kind} {path} cannot be read: {reason}.", **values)
        file = Path(name).name
        hint = msg("copy or download {name} again, or remove it from the dataset", name=file)
        raise FullconvError(message, hint) from error


def upright(image: Image.Image) -> Image.Image:
    """Apply the EXIF orientation. Loads the image."""
    image.load()
    transpose = _UPRIGHT.get(_orientation(image))
    return image.transpose(transpose) if transpose is not None else image


def is_turned(image: Source) -> bool:
    """Return whether a photo has an EXIF orientation, so that its stored pixels are not upright.

    Nothing is decoded: the EXIF data of a PNG file count only if they precede the pixels.
    """
    with open_image(image) as file:
        if file.format == "PNG" and "exif" not in file.info:
            return False  # Pillow would decode the file to find them
        return _orientation(file) in _UPRIGHT


def turn_upright(ids: NDArray[Any], image: Source) -> NDArray[Any]:
    """Apply the EXIF orientation of an image to (H, W) ids that were drawn on its stored pixels."""
    with open_image(image) as file:
        transpose = _UPRIGHT.get(_orientation(file))
    if transpose is None:
        return ids
    # As 32-bit integers, which Pillow transposes exactly.
    turned = Image.fromarray(np.ascontiguousarray(ids, np.int32)).transpose(transpose)
    return np.asarray(turned).astype(ids.dtype)


def source_name(source: Source) -> str:
    """Return the name of a path or an open file for messages."""
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
    # Damaged EXIF data does not spoil the pixels: the image is read as it is stored.
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except _DAMAGED:
        return 1
    return orientation if orientation in _UPRIGHT else 1


def _to_8_bit(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    flat = values.ravel()
    scaled = np.empty(flat.shape, np.uint8)
    for start in range(0, len(flat), _BAND):  # in parts, because the 64-bit copies are large
        wide = np.clip(flat[start : start + _BAND].astype(np.int64), 0, 65535)
        scaled[start : start + _BAND] = (wide + 128) // 257  # 65535 / 257 = 255
    return scaled.reshape(values.shape)


def gray_to_rgb(gray: NDArray[Any]) -> NDArray[Any]:
    """Return (H, W, 3) with three equal channels of (H, W) gray levels."""
    return np.repeat(gray[..., None], 3, axis=2)


def _reason(error: BaseException, source: Source) -> str:
    is_empty = False
    with suppress(OSError, ValueError):
        if isinstance(source, str | Path):
            is_empty = Path(source).is_file() and Path(source).stat().st_size == 0
        else:
            is_empty = not source.closed and source.seek(0, io.SEEK_END) == 0
    if is_empty:
        return msg("the file is empty (0 bytes)")
    if isinstance(error, UnidentifiedImageError):  # Pillow's own text shows a Python object
        return msg("it is not in an image format that Fullconv reads")
    return first_line(error)
