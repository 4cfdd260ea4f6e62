"""Forms, as another library sends them."""

from __future__ import annotations

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from fullconv.deploy.serve.uploads import PARTS, RefusedError, picture_in


def form(fields: list[tuple[str, bytes]]) -> tuple[bytes, str]:
    """What requests makes of it, and its type."""
    sent = [(name, ("a file.png", content, "image/png")) for name, content in fields]
    request = requests.Request("POST", "http://here/", files=sent).prepare()
    assert isinstance(request.body, bytes)
    return request.body, request.headers["content-type"]


@given(st.binary(max_size=300), st.lists(st.sampled_from(["a", "Picture", "pictures"]), max_size=3))
def test_the_picture_comes_out_as_it_went_in(content: bytes, others: list[str]) -> None:
    fields = [(name, b"no\r\n--picture") for name in others]
    assert picture_in(*form([*fields, ("picture", content), *fields])) == content


def test_the_first_of_several() -> None:
    assert picture_in(*form([("picture", b"one"), ("picture", b"two")])) == b"one"
    assert picture_in(*form([("picture", b""), ("picture", b"two")])) == b""


def refusal(content: bytes, kind: str) -> str:
    with pytest.raises(RefusedError) as caught:
        picture_in(content, kind)
    assert caught.value.status == 422
    assert caught.value.hint == "curl -F picture=@photo.jpg ADDRESS/predict"
    return caught.value.message


def test_what_is_no_form() -> None:
    content, kind = form([("picture", b"one")])
    assert refusal(*form([("photo", b"one")])) == "the form has no field 'picture'."
    no_boundary = "the form cannot be read: its type names no boundary."
    assert refusal(content, "multipart/form-data") == no_boundary
    assert refusal(b"words", kind).startswith("the form cannot be read: ")
    assert "has no field" in refusal(b"", kind)


def test_a_form_of_very_many_parts() -> None:
    fields = [("a", b"")] * (PARTS - 1)
    assert picture_in(*form([*fields, ("picture", b"one")])) == b"one"
    many = refusal(*form([*fields, ("picture", b"one"), ("a", b"")]))
    assert many == f"the form has more than {PARTS} parts; one is expected, the field 'picture'."
