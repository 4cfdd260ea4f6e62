"""Forms, as another library sends them."""

from __future__ import annotations

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from fullconv.deploy.serve.uploads import PARTS, RequestError, image_in


def form(fields: list[tuple[str, bytes]]) -> tuple[bytes, str]:
    """What requests makes of it, and its type."""
    sent = [(name, ("a file.png", content, "image/png")) for name, content in fields]
    request = requests.Request("POST", "http://here/", files=sent).prepare()
    assert isinstance(request.body, bytes)
    return request.body, request.headers["content-type"]


@given(st.binary(max_size=300), st.lists(st.sampled_from(["a", "Image", "images"]), max_size=3))
def test_the_image_comes_out_as_it_went_in(content: bytes, others: list[str]) -> None:
    fields = [(name, b"no\r\n--image") for name in others]
    assert image_in(*form([*fields, ("image", content), *fields])) == content


def test_the_first_of_several() -> None:
    assert image_in(*form([("image", b"one"), ("image", b"two")])) == b"one"
    assert image_in(*form([("image", b""), ("image", b"two")])) == b""


def refusal(content: bytes, kind: str) -> str:
    with pytest.raises(RequestError) as caught:
        image_in(content, kind)
    assert caught.value.status == 422
    assert caught.value.hint == "curl -F image=@photo.jpg ADDRESS/predict"
    return caught.value.message


def test_what_is_no_form() -> None:
    content, kind = form([("image", b"one")])
    assert refusal(*form([("photo", b"one")])) == "the form has no field 'image'."
    no_boundary = "the form cannot be read: its type names no boundary."
    assert refusal(content, "multipart/form-data") == no_boundary
    assert refusal(b"words", kind).startswith("the form cannot be read: ")
    assert "has no field" in refusal(b"", kind)


def test_a_form_of_very_many_parts() -> None:
    fields = [("a", b"")] * (PARTS - 1)
    assert image_in(*form([*fields, ("image", b"one")])) == b"one"
    many = refusal(*form([*fields, ("image", b"one"), ("a", b"")]))
    assert many == f"the form has more than {PARTS} parts; one is expected, the field 'image'."
