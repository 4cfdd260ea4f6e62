"""Guard: what an upload may be. Everything is checked before memory is taken for it.

Shapes: H, W image.
"""

from __future__ import annotations

import hmac
import io
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

import numpy as np
from PIL import UnidentifiedImageError
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from fullconv.core.errors import FullconvError
from fullconv.data.io.images import open_image, read_image
from fullconv.data.io.limits import TooLargeError

UPLOADS = 8  # times the largest upload: so many bytes are held for all clients together
_EXTRA = 1 << 16  # bytes that a form may have around its image
_SEND = "curl --data-binary @photo.jpg -H 'Content-Type: image/jpeg' ADDRESS/predict"


@dataclass(frozen=True)
class Limits:
    """What one request may take.

    Args:
        bytes: of an upload.
        pixels: of its image.
        seconds: for all of a request, the upload included.
        waiting: images in the queue.
    """

    bytes: int = 32 << 20
    pixels: int = 50_000_000
    seconds: float = 60.0
    waiting: int = 32


class RequestError(FullconvError):
    """A request that is not answered with a result.

    Args:
        status: of HTTP.
        message, hint: see `FullconvError`.
    """

    def __init__(self, status: int, message: str, hint: str) -> None:
        super().__init__(message, hint)
        self.status = status


class Uploads:
    """Reads uploads, and counts what all of them hold together."""

    def __init__(self, limits: Limits) -> None:
        self.limits, self.held = limits, 0

    async def read(self, stream: AsyncIterator[bytes], said: str, held: list[int]) -> bytes:
        """The whole upload. What it takes is added to `held[0]`; `release` gives it back.

        Args:
            said: its Content-Length, which may be missing.

        Raises:
            RequestError: 413 for too many bytes, 503 where other uploads hold too many.
        """
        parts = bytearray()
        if said.isdecimal() and int(said[:20]) > self.limits.bytes + _EXTRA:
            raise too_long(self.limits)
        async for part in stream:
            self.held += len(part)
            held[0] += len(part)
            if len(parts) + len(part) > self.limits.bytes + _EXTRA:
                raise too_long(self.limits)
            if self.held > UPLOADS * (self.limits.bytes + _EXTRA):
                raise RequestError(
                    503, "other uploads take all the memory there is for them.", "send it again"
                )
            parts += part
        return bytes(parts)

    def release(self, held: list[int]) -> None:
        """An upload is done with."""
        self.held -= held[0]
        held[0] = 0


def too_long(limits: Limits) -> RequestError:
    """413 for too many bytes."""
    return RequestError(
        413,
        f"the upload has more than {limits.bytes} bytes, which is the most that is taken.",
        "send a smaller image, or start the server with a larger --max-bytes",
    )


def image_of(content: bytes, limits: Limits) -> np.ndarray:
    """The image in an upload, (H, W, 3) uint8 RGB, upright. Its size is checked by its header.

    Raises:
        RequestError: 413 too large, 415 no image, 422 a damaged one.
    """
    if not content:
        raise RequestError(422, "the upload is empty (0 bytes); expected an image.", _SEND)
    if len(content) > limits.bytes:
        raise too_long(limits)
    try:
        with open_image(io.BytesIO(content), name="in the upload") as image:
            width, height = image.size
        if width * height > limits.pixels:
            raise _too_large(
                f"the image has {height} x {width} pixels (height x width); at most "
                f"{limits.pixels} are taken."
            )
        return read_image(io.BytesIO(content), name="in the upload")
    except RequestError:
        raise
    except TooLargeError as error:
        raise _too_large(error.message) from error
    except FullconvError as error:
        unknown = isinstance(error.__cause__, UnidentifiedImageError)
        hint = "send a JPEG, PNG, WebP, TIFF, BMP or GIF that opens in a viewer"
        raise RequestError(415 if unknown else 422, error.message, hint) from error


def _too_large(message: str) -> RequestError:
    hint = "send a smaller image, or start the server with a larger --max-pixels"
    return RequestError(413, message, hint)


def require_kind(content_type: str) -> bool:
    """Whether an upload of this type is a form; 415 where it is neither a form nor an image."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return True
    if kind.startswith("image/") or kind == "application/octet-stream":
        return False
    raise RequestError(
        415,
        f"an upload of type {kind[:80] or 'unknown'!r}; expected image/* or multipart/form-data.",
        _SEND,
    )


def require_key(headers: Mapping[str, str], key: str) -> None:
    """401 where a key is wanted and another one, or none, was sent."""
    if not key:
        return
    scheme, _, token = headers.get("authorization", "").partition(" ")
    given = token.strip() if scheme.lower() == "bearer" else ""
    if not hmac.compare_digest(given.encode("utf-8", "replace"), key.encode()):
        raise RequestError(
            401,
            "the key is missing or wrong.",
            "curl -H 'Authorization: Bearer KEY' ...   # the server's --key",
        )


FIELD = "image"
PARTS = 64  # of a form, at most: each takes longer than the bytes that it has


def image_in(content: bytes, content_type: str) -> bytes:
    """What the field `image` holds.

    Raises:
        RequestError: 422, no form, one without that field, or one of more than `PARTS` parts.
    """
    boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
    fields = _Fields()
    try:
        if not boundary:
            raise FormParserError("its type names no boundary")
        parser = MultipartParser(boundary, fields.callbacks())  # type: ignore[arg-type]
        parser.write(content)
        parser.finalize()
    except (FormParserError, ValueError) as error:
        raise _refused(f"the form cannot be read: {str(error)[:120].rstrip('.')}.") from error
    if fields.found is None:
        raise _refused(f"the form has no field {FIELD!r}.")
    return bytes(fields.found)


def _refused(message: str) -> RequestError:
    return RequestError(422, message, f"curl -F {FIELD}=@photo.jpg ADDRESS/predict")


class _Fields:
    """The first field of that name."""

    def __init__(self) -> None:
        self.found: bytearray | None = None
        self._name, self._value = bytearray(), bytearray()
        self._inside, self._parts = False, 0

    def callbacks(self) -> dict[str, object]:
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._header_name,
            "on_header_value": self._header_value,
            "on_header_end": self._header,
            "on_part_data": self._data,
        }

    def _begin(self) -> None:
        self._inside = False
        self._parts += 1
        if self._parts > PARTS:
            raise _refused(
                f"the form has more than {PARTS} parts; one is expected, the field {FIELD!r}."
            )

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header(self) -> None:
        name, value = bytes(self._name).lower(), bytes(self._value)
        self._name.clear()
        self._value.clear()
        if name != b"content-disposition":
            return
        called = parse_options_header(value)[1].get(b"name", b"")
        if called == FIELD.encode() and self.found is None:
            self._inside, self.found = True, bytearray()

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._inside and self.found is not None:
            self.found += memoryview(data)[start:end]
