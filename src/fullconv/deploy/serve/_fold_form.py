"""Form: the picture in an upload of the kind that a web page's form sends (multipart/form-data)."""

from __future__ import annotations

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from fullconv.deploy.serve.uploads import RefusedError

FIELD = "picture"
PARTS = 64  # of a form, at most: each takes longer than the bytes that it has


def picture_in(content: bytes, content_type: str) -> bytes:
    """What the field `picture` holds.

    Raises:
        RefusedError: 422, no form, one without that field, or one of more than `PARTS` parts.
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


def _refused(message: str) -> RefusedError:
    return RefusedError(422, message, f"curl -F {FIELD}=@photo.jpg ADDRESS/predict")


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
