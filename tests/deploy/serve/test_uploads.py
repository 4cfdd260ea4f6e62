"""Uploads: forms as another library sends them, and what is refused before memory is used."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import AsyncIterator

import numpy as np
import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st
from photos import photo
from PIL import Image
from served import bomb, png

from fullconv.data.io.limits import allow_large_images
from fullconv.deploy.serve.uploads import (
    MAX_PARTS,
    MAX_UPLOADS,
    Limits,
    RequestError,
    Upload,
    UploadMemory,
    decode_image,
    require_key,
    require_media_type,
)

LIMITS = Limits(bytes=1 << 16, pixels=10_000)


class Stream:
    """The chunks of an upload; counts those that were read."""

    def __init__(self, *chunks: bytes) -> None:
        self.chunks, self.read = chunks, 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self.chunks:
            self.read += 1
            yield chunk


def read(
    stream: Stream, content_type: str = "image/png", length: str = "", upload: Upload | None = None
) -> bytes:
    headers = {"content-type": content_type, "content-length": length}
    return asyncio.run((upload or Upload(UploadMemory(LIMITS))).read(headers, aiter(stream)))


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "GIF", "WEBP"])
def test_formats(kind: str) -> None:
    image = np.full((20, 30, 3), 255, np.uint8)
    image[:10] = 0
    options = {"lossless": True} if kind == "WEBP" else {}
    assert np.array_equal(decode_image(png(image, kind, **options), LIMITS), image)


def test_an_image_is_turned_upright() -> None:
    image, exif = photo(20, 30), Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    assert np.array_equal(decode_image(png(image, exif=exif), LIMITS), np.rot90(image, -1))


EMPTY = "the upload is empty (0 bytes); expected an image."
UNREADABLE = "image in the upload cannot be read"
TOO_MANY_PIXELS = "the image has 100 x 101 pixels (height x width); the limit is 10000."
SMALLER = "send a smaller image, or start the server with a larger --max-"
REFUSED = {
    "empty": (b"", 422, EMPTY, "curl --data-binary"),
    "text": (b"Dear server, no image.", 415, UNREADABLE, "send a JPEG"),
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415, UNREADABLE, "send a JPEG"),
    "damaged PNG": (png(photo(60, 50))[:-1000], 422, UNREADABLE, "send a JPEG"),
    "damaged JPEG": (png(photo(60, 50), "JPEG")[:-1000], 422, UNREADABLE, "send a JPEG"),
    "damaged TIFF": (png(photo(60, 50), "TIFF")[:-1000], 422, UNREADABLE, "send a JPEG"),
    "pixels": (png(photo(100, 101)), 413, TOO_MANY_PIXELS, SMALLER + "pixels"),
    "bytes": (bytes(1 << 17), 413, "the upload has more than 65536 bytes.", SMALLER + "bytes"),
}


@pytest.mark.parametrize(("content", "status", "message", "hint"), REFUSED.values(), ids=REFUSED)
def test_refused_images(content: bytes, status: int, message: str, hint: str) -> None:
    with pytest.raises(RequestError) as caught:
        decode_image(content, LIMITS)
    assert caught.value.status == status
    assert caught.value.message.startswith(message)
    assert caught.value.hint.startswith(hint)


def test_a_bomb_is_refused_by_its_header() -> None:
    assert decode_image(png(photo(100, 100)), LIMITS).shape == (100, 100, 3)
    tracemalloc.start()
    with pytest.raises(RequestError, match="more pixels than") as caught:
        decode_image(bomb(), LIMITS)  # the data after its header is damaged, and never read
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()
    assert caught.value.status == 413


def test_the_limit_of_the_server_replaces_that_of_pillow() -> None:
    large = Limits(bytes=1 << 16, pixels=20_000 * 10_000)
    with allow_large_images():
        with pytest.raises(RequestError, match="has 30000 x 30000 pixels") as caught:
            decode_image(bomb(), LIMITS)
        assert caught.value.status == 413
        with pytest.raises(RequestError) as caught:
            decode_image(bomb(20_000, 10_000), large)
        assert caught.value.status == 422  # it was decoded, as far as it goes
    with pytest.raises(RequestError) as caught:
        decode_image(bomb(20_000, 10_000), large)
    assert caught.value.status == 413


def test_an_upload_is_read_up_to_its_limit() -> None:
    memory = UploadMemory(LIMITS)
    upload = Upload(memory)
    assert read(Stream(b"abc", b"", b"defg"), upload=upload) == b"abcdefg"
    assert memory.held == 7
    upload.release()
    upload.release()
    assert memory.held == 0
    stream = Stream(*[bytes(1 << 15)] * 100)
    with pytest.raises(RequestError, match="more than 65536 bytes") as caught:
        read(stream)
    assert (caught.value.status, stream.read) == (413, 5)


def test_an_upload_that_is_announced_as_too_long_is_not_read() -> None:
    for length in ("10000000", "9" * 5000):
        stream = Stream(b"a")
        with pytest.raises(RequestError) as caught:
            read(stream, length=length)
        assert (caught.value.status, stream.read) == (413, 0)
    for length in ("5", "-5", "many", "\u0663"):  # the last one is a digit, and no length
        assert read(Stream(b"abcde"), length=length) == b"abcde"


def test_memory_of_all_uploads_is_bounded() -> None:
    memory, half = UploadMemory(LIMITS), bytes(1 << 16)
    uploads = [Upload(memory) for _ in range(MAX_UPLOADS)]
    for upload in uploads:
        read(Stream(half, half), upload=upload)
    with pytest.raises(RequestError, match="other uploads use all the memory") as caught:
        read(Stream(half), upload=Upload(memory))
    assert caught.value.status == 503
    uploads[0].release()
    assert read(Stream(half[1:]), upload=Upload(memory)) == half[1:]


def form(fields: list[tuple[str, bytes]]) -> tuple[bytes, str]:
    """Encode a form with requests; return its body and type."""
    files = [(name, ("a file.png", content, "image/png")) for name, content in fields]
    request = requests.Request("POST", "http://here/", files=files).prepare()
    assert isinstance(request.body, bytes)
    return request.body, request.headers["content-type"]


@given(
    st.binary(max_size=300),
    st.lists(st.sampled_from(["a", "Image", "images"]), max_size=3),
    st.integers(1, 200),
)
def test_the_image_of_a_form(content: bytes, others: list[str], size: int) -> None:
    fields = [(name, b"no\r\n--image") for name in others]
    body, kind = form([*fields, ("image", content), *fields, ("image", b"a second one")])
    chunks = [body[at : at + size] for at in range(0, len(body), size)]
    assert read(Stream(*chunks), kind) == content


FORMS = {
    "no field": (form([("photo", b"one")]), "the form has no file in the field 'image'."),
    "no boundary": ((b"", "multipart/form-data"), "the form cannot be read: Missing boundary"),
    "no form": ((b"words", form([("image", b"")])[1]), "the form cannot be read: "),
    "empty": ((b"", form([("image", b"")])[1]), "the form has no file in the field 'image'."),
    "many parts": (
        form([("a", b"")] * (MAX_PARTS + 1)),
        f"the form cannot be read: Too many files. Maximum number of files is {MAX_PARTS}.",
    ),
}


@pytest.mark.parametrize(("upload", "message"), FORMS.values(), ids=FORMS)
def test_refused_forms(upload: tuple[bytes, str], message: str) -> None:
    content, kind = upload
    with pytest.raises(RequestError) as caught:
        read(Stream(content), kind)
    assert caught.value.status == 422
    assert caught.value.message.startswith(message)
    assert caught.value.hint == "curl -F image=@photo.jpg ADDRESS/predict"


def test_media_types() -> None:
    assert not require_media_type("image/jpeg")
    assert not require_media_type("Application/Octet-Stream ; a=b")
    assert require_media_type("multipart/form-data; boundary=x")
    for kind, name in (("text/html; charset=utf-8", "text/html"), ("", "unknown")):
        with pytest.raises(RequestError, match=f"type '{name}'; expected image/") as caught:
            require_media_type(kind)
        assert caught.value.status == 415


def test_the_key() -> None:
    require_key({}, "")
    require_key({"authorization": "Bearer sesame"}, "sesame")
    require_key({"authorization": "bearer  sesame "}, "sesame")
    for sent in ("", "Bearer Sesame", "Basic sesame", "sesame", "Bearer", "Bearer \xe9\udc80"):
        with pytest.raises(RequestError, match="the key is missing or wrong") as caught:
            require_key({"authorization": sent} if sent else {}, "sesame")
        assert caught.value.status == 401
        assert caught.value.hint.startswith("curl -H 'Authorization: Bearer KEY'")
