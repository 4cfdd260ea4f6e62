"""What is refused before memory is taken for it, and in which words."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import AsyncIterator

import numpy as np
import pytest
from photos import photo
from PIL import Image
from served import bomb, png

from fullconv.data.io.limits import allow_large_images
from fullconv.deploy.serve.uploads import (
    UPLOADS,
    Limits,
    RequestError,
    Uploads,
    image_of,
    require_key,
    require_kind,
)

LIMITS = Limits(bytes=1 << 16, pixels=10_000)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "GIF", "WEBP"])
def test_a_image_is_read_as_it_is(kind: str) -> None:
    given = np.full((20, 30, 3), 255, np.uint8)
    given[:10] = 0
    options = {"lossless": True} if kind == "WEBP" else {}
    assert np.array_equal(image_of(png(given, kind, **options), LIMITS), given)


def test_a_photo_is_turned_upright() -> None:
    given, exif = photo(20, 30), Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    assert np.array_equal(image_of(png(given, exif=exif), LIMITS), np.rot90(given, -1))


def refusal(content: bytes, limits: Limits = LIMITS) -> tuple[int, str, str]:
    with pytest.raises(RequestError) as caught:
        image_of(content, limits)
    return caught.value.status, caught.value.message, caught.value.hint


def test_what_is_no_image() -> None:
    status, message, hint = refusal(b"")
    assert (status, message) == (422, "the upload is empty (0 bytes); expected an image.")
    assert hint.startswith("curl --data-binary @photo.jpg")
    status, message, hint = refusal(b"Dear server, attached you find nothing.")
    assert status == 415
    assert message.startswith("image in the upload cannot be read")
    assert hint == "send a JPEG, PNG, WebP, TIFF, BMP or GIF that opens in a viewer"
    assert refusal(b"<svg xmlns='http://www.w3.org/2000/svg'/>")[0] == 415


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
def test_what_is_a_damaged_one(kind: str) -> None:
    status, message, _ = refusal(png(photo(60, 50), kind)[:-1000])
    assert status == 422
    assert message.startswith("image in the upload")


def test_one_with_too_many_pixels_is_told_by_its_header() -> None:
    assert image_of(png(photo(100, 100)), LIMITS).shape == (100, 100, 3)
    said = "the image has 100 x 101 pixels (height x width); at most 10000 are taken."
    assert refusal(png(photo(100, 101)))[:2] == (413, said)
    tracemalloc.start()
    status, message, hint = refusal(bomb())  # what follows its header is damaged, and not read
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()
    assert status == 413
    assert message.startswith("image in the upload has more pixels than Pillow opens unasked")
    assert hint == "send a smaller image, or start the server with a larger --max-pixels"


def test_more_pixels_than_are_read_elsewhere_where_the_limit_says_so() -> None:
    with allow_large_images():
        said = "the image has 30000 x 30000 pixels (height x width); at most 10000 are taken."
        assert refusal(bomb())[:2] == (413, said)
        large = Limits(bytes=1 << 16, pixels=20_000 * 10_000)
        assert refusal(bomb(20_000, 10_000), large)[0] == 422  # begun, and then it ended
    assert refusal(bomb(20_000, 10_000), large)[0] == 413


def test_one_with_too_many_bytes() -> None:
    limits = Limits(bytes=1000)
    said = "the upload has more than 1000 bytes, which is the most that is taken."
    assert refusal(png(photo(100, 100)), limits)[:2] == (413, said)


class Stream:
    """Parts of an upload; `read` of them were taken."""

    def __init__(self, *parts: int) -> None:
        self.parts, self.read = parts, 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for part in self.parts:
            self.read += 1
            yield bytes(part)


def read(uploads: Uploads, stream: Stream, said: str = "", held: list[int] | None = None) -> bytes:
    return asyncio.run(uploads.read(aiter(stream), said, [0] if held is None else held))


def test_an_upload_is_read_as_far_as_its_limit() -> None:
    uploads, held = Uploads(LIMITS), [0]
    assert read(uploads, Stream(3, 0, 4), held=held) == bytes(7)
    assert (held, uploads.held) == ([7], 7)
    uploads.release(held)
    uploads.release(held)
    assert (held, uploads.held) == ([0], 0)
    stream = Stream(*[1 << 15] * 100)
    with pytest.raises(RequestError, match="more than 65536 bytes") as caught:
        read(uploads, stream)
    assert (caught.value.status, stream.read) == (413, 5)


def test_an_upload_that_is_announced_as_too_long_is_not_read() -> None:
    for said in ("10000000", "9" * 5000):
        stream = Stream(10)
        with pytest.raises(RequestError) as caught:
            read(Uploads(LIMITS), stream, said)
        assert (caught.value.status, stream.read) == (413, 0)
    for said in ("5", "-5", "many", "\u0663"):  # which is a three, and no length
        assert read(Uploads(LIMITS), Stream(5), said) == bytes(5)


def test_uploads_that_hold_too_much_together() -> None:
    uploads = Uploads(LIMITS)
    taken = [[0] for _ in range(UPLOADS)]
    for held in taken:
        read(uploads, Stream(1 << 16, 1 << 16), held=held)
    with pytest.raises(RequestError, match="other uploads take all the memory") as caught:
        read(uploads, Stream(1 << 16))
    assert caught.value.status == 503
    uploads.release(taken[0])
    assert len(read(uploads, Stream(1 << 15))) == 1 << 15


def test_the_type_of_an_upload() -> None:
    assert not require_kind("image/jpeg")
    assert not require_kind("Application/Octet-Stream ; a=b")
    assert require_kind("multipart/form-data; boundary=x")
    with pytest.raises(RequestError, match=r"type 'text/html'; expected image/\*") as caught:
        require_kind("text/html; charset=utf-8")
    assert caught.value.status == 415
    with pytest.raises(RequestError, match="of type 'unknown'"):
        require_kind("")


def test_the_key() -> None:
    require_key({}, "")
    require_key({"authorization": "Bearer sesame"}, "sesame")
    require_key({"authorization": "bearer  sesame "}, "sesame")
    for sent in ("", "Bearer Sesame", "Basic sesame", "sesame", "Bearer", "Bearer \xe9\udc80"):
        with pytest.raises(RequestError, match="the key is missing or wrong") as caught:
            require_key({"authorization": sent} if sent else {}, "sesame")
        assert caught.value.status == 401
        assert caught.value.hint.startswith("curl -H 'Authorization: Bearer KEY'")
