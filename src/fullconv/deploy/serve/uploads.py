"""Read uploads. Every limit is checked before memory is used for the upload.

FastAPI's `UploadFile` alone would store a whole upload before its size is known; here the stream is
bounded first, and starlette's form parser reads from the bounded stream.
"""

from __future__ import annotations

import hmac
import io
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass

import numpy as np
from PIL import UnidentifiedImageError
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from fullconv.core.errors import FullconvError
from fullconv.core.i18n import msg
from fullconv.data.io.images import open_image, read_image
from fullconv.data.io.limits import TooLargeError

FIELD = "image"  # of a form
MAX_PARTS = 64  # of a form
MAX_UPLOADS = 8  # times the largest upload: bytes that all uploads hold together
_FORM_BYTES = 1 << 16  # that a form may have around its image
_EXAMPLE = "curl --data-binary @photo.jpg -H 'Content-Type: image/jpeg' ADDRESS/predict"
_FORM_EXAMPLE = f"curl -F {FIELD}=@photo.jpg ADDRESS/predict"


@dataclass(frozen=True)
class Limits:
    """Limits of one request, and of the images that wait in the queue."""

    bytes: int = 32 << 20
    pixels: int = 50_000_000
    seconds: float = 60.0  # the upload included
    waiting: int = 32


class RequestError(FullconvError):
    """A request that gets an error response, with this status of HTTP."""

    def __init__(self, status: int, message: str, hint: str) -> None:
        super().__init__(message, hint)
        self.status = status


@dataclass
class UploadMemory:
    """The bytes that all uploads hold together."""

    limits: Limits
    held: int = 0


class Upload:
    """One upload, whose bytes are held until `release`."""

    def __init__(self, memory: UploadMemory) -> None:
        self.memory, self.size = memory, 0

    def release(self) -> None:
        self.memory.held -= self.size
        self.size = 0

    async def read(self, headers: Mapping[str, str], stream: AsyncIterator[bytes]) -> bytes:
        """Return the image file that a request carries, as its body or in a form.

        Raises:
            RequestError: 413 too large, 415 neither an image nor a form, 422 no such field in the
                form, 503 other uploads hold too much memory.
        """
        content_type = headers.get("content-type", "")
        is_form = require_media_type(content_type)
        length = headers.get("content-length", "")
        limit = self.memory.limits.bytes + _FORM_BYTES
        if length.isdecimal() and int(length[:20]) > limit:
            raise _too_many_bytes(self.memory.limits)
        bounded = self._bounded(stream, limit)
        if not is_form:
            return b"".join([chunk async for chunk in bounded])

        header = Headers({"content-type": content_type})
        parser = MultiPartParser(header, bounded, max_files=MAX_PARTS, max_fields=MAX_PARTS)
        parser.spool_max_size = limit  # in memory, never on disk
        try:
            form = await parser.parse()
        except MultiPartException as error:
            message = msg("the form cannot be read: {reason}.", reason=error.message.rstrip("."))
            raise RequestError(422, message, _FORM_EXAMPLE) from error
        try:
            files = [part for part in form.getlist(FIELD) if isinstance(part, UploadFile)]
            if not files:
                message = msg("the form has no file in the field {field!r}.", field=FIELD)
                raise RequestError(422, message, _FORM_EXAMPLE)
            return await files[0].read()
        finally:
            await form.close()

    async def _bounded(self, stream: AsyncIterator[bytes], limit: int) -> AsyncGenerator[bytes]:
        async for chunk in stream:
            self.size += len(chunk)
            self.memory.held += len(chunk)
            if self.size > limit:
                raise _too_many_bytes(self.memory.limits)
            if self.memory.held > MAX_UPLOADS * limit:
                message = msg("other uploads use all the memory for uploads.")
                raise RequestError(503, message, msg("send the request again"))
            yield chunk


def decode_image(content: bytes, limits: Limits) -> np.ndarray:
    """Decode an uploaded image to (H, W, 3) uint8 RGB, upright. Its header is checked first.

    Raises:
        RequestError: 413 too large, 415 not an image, 422 damaged.
    """
    if not content:
        message = msg("the upload is empty (0 bytes); expected an image.")
        raise RequestError(422, message, _EXAMPLE)
    if len(content) > limits.bytes:
        raise _too_many_bytes(limits)
    smaller = msg("send a smaller image, or start the server with a larger --max-pixels")
    try:
        with open_image(io.BytesIO(content), name="in the upload") as image:
            width, height = image.size
        if width * height > limits.pixels:
            values = {"height": height, "width": width, "limit": limits.pixels}
            message = msg(
                "the image has {height} x {width} pixels (height x width); the limit is {limit}.",
                **values,
            )
            raise RequestError(413, message, smaller)
        return read_image(io.BytesIO(content), name="in the upload")
    except RequestError:
        raise
    except TooLargeError as error:
        raise RequestError(413, error.message, smaller) from error
    except FullconvError as error:
        not_image = isinstance(error.__cause__, UnidentifiedImageError)
        hint = msg("send a JPEG, PNG, WebP, TIFF, BMP or GIF that opens in an image viewer")
        raise RequestError(415 if not_image else 422, error.message, hint) from error


def require_media_type(content_type: str) -> bool:
    """Return whether an upload of this type is a form; raise 415 if it is not an image either."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return True
    if kind.startswith("image/") or kind == "application/octet-stream":
        return False
    message = msg(
        "the upload has the type {kind!r}; expected image/* or multipart/form-data.",
        kind=kind[:80] or "unknown",
    )
    raise RequestError(415, message, _EXAMPLE)


def require_key(headers: Mapping[str, str], key: str) -> None:
    """Raise 401 if the server has a key and the request has another one or none."""
    if not key:
        return
    scheme, _, token = headers.get("authorization", "").partition(" ")
    given = token.strip() if scheme.lower() == "bearer" else ""
    if not hmac.compare_digest(given.encode("utf-8", "replace"), key.encode()):
        hint = msg("curl -H 'Authorization: Bearer KEY' ...   # the --key of the server")
        raise RequestError(401, msg("the key is missing or wrong."), hint)


def _too_many_bytes(limits: Limits) -> RequestError:
    message = msg("the upload has more than {limit} bytes.", limit=limits.bytes)
    hint = msg("send a smaller image, or start the server with a larger --max-bytes")
    return RequestError(413, message, hint)
