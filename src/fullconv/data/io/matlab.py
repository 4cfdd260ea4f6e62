"""Read masks from MATLAB files (.mat).

`scipy.io.loadmat` is not used: it crashed the process on one of 800 damaged files (a segmentation
fault), allocates what a header claims, and is slower. This reader checks every size against the
bytes that exist and skips variables that are not labels without unpacking them.

Versions 5 to 7: 128 bytes, then elements. An element is a type, a size and its bytes; a matrix is
an element of elements (flags, shape, name, numbers); cells and structs contain matrices.
Version 4: matrices one after another, each with a header of 20 bytes, a name and numbers.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from fullconv.core.errors import FullconvError
from fullconv.core.i18n import msg
from fullconv.data.io.array_errors import DAMAGED, DamagedError, not_a_mask, reason_of, truncated
from fullconv.data.io.limits import read_content, refuse_large

_LABEL_VARIABLES = ("LabelMap", "S", "segmentation", "labels", "mask", "label")

# Type of an element -> dtype of its numbers, or encoding of its text.
_DTYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8"}
_DTYPES |= {12: "i8", 13: "u8"}
_ENCODINGS = {1: "utf-8", 2: "utf-8", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}
_MATRIX, _COMPRESSED = 14, 15
# Classes of matrices; those from double to uint64 are numbers.
_CELL, _STRUCT, _CHAR, _SPARSE, _DOUBLE, _UINT64 = 1, 2, 4, 5, 6, 15
_OPAQUE = 17  # an object, which has a name but no shape
_CLASS_NAMES = {_CELL: msg("cells"), _STRUCT: msg("a struct"), _CHAR: msg("text")}
_CLASS_NAMES[_SPARSE] = msg("a sparse matrix")
_COMPLEX = 0x800  # flag of matrices with an imaginary part
_VERSION_4_DTYPES = ("f8", "f4", "i4", "i2", "u2", "u1")
_HEADER = 512  # bytes that hold the flags, shape and name of a matrix
_NOT_MATLAB = msg("it does not have the structure of a MATLAB file")
_CHUNK = 1 << 20  # bytes that are unpacked, or numbers that are checked, at once
_MAX_BYTES = 1 << 30  # of an unpacked variable


@dataclass(frozen=True)
class _Matrix:
    """A variable of a MATLAB file, or a matrix inside one."""

    name: str
    kind: int  # its class, such as `_STRUCT`
    shape: tuple[int, ...]
    content: memoryview  # the bytes after its name: an element with a type, if `dtype` is ""
    order: str  # byte order, "<" or ">"
    is_complex: bool = False
    dtype: str = ""  # of `content` in version 4

    @property
    def is_plane(self) -> bool:
        is_numbers = _DOUBLE <= self.kind <= _UINT64 and not self.is_complex
        return is_numbers and len(self.shape) == 2


def read_mat_mask(source: str | Path | IO[bytes], name: str) -> NDArray[Any]:
    """Read (H, W) whole numbers from a MATLAB file.

    Raises:
        FullconvError: the file cannot be read, or it is not clear which variable holds the labels.
    """
    with _open_mat(source, name) as content:
        headers: dict[str, _Matrix] = {}
        for matrix in _variables(content):
            headers.setdefault(matrix.name, matrix)
        # GTcls is of SBD, LabelMap of PASCAL-Context, S of SIFT Flow, segmentation of NYUDv2.
        candidates = [key for key in _LABEL_VARIABLES if key in headers]
        if "GTcls" in headers and headers["GTcls"].kind == _STRUCT:
            candidates = ["GTcls"]
        planes = [key for key, matrix in headers.items() if key and matrix.is_plane]
        if not candidates and len(planes) == 1:
            candidates = planes
        if not candidates:
            shapes = [f"{key} {matrix.shape}" for key, matrix in list(headers.items())[:8]]
            message = msg(
                "mask {name}: it is not clear which variable holds the labels. The file has "
                "{variables}; expected GTcls, {expected}, or a single matrix.",
                name=name,
                variables=", ".join(shapes) or msg("no variables"),
                expected=", ".join(_LABEL_VARIABLES),
            )
            raise FullconvError(message, _savemat(name))
        variable = candidates[0]
        _refuse_large(headers[variable], name)
        matrix = next(_variables(content, only=variable))
        if variable == "GTcls":
            matrix = _struct_field(matrix, "Segmentation")
            _refuse_large(matrix, name)
        return _whole_numbers(matrix, name)


def read_mat_class_names(path: Path) -> list[str]:
    """Read the class names in a file of SIFT Flow; [] if it has none."""
    with _open_mat(path, str(path)) as content:
        names = next(_variables(content, only="names"), None)
        if names is None or names.kind != _CELL:
            return []
        class_names = []
        for cell in _matrices(names.content, names.order, math.prod(names.shape)):
            if math.prod(cell.shape):
                kind, text, _ = _element(cell.content, 0, cell.order)
                if cell.kind != _CHAR or kind not in _ENCODINGS:
                    raise DamagedError(_NOT_MATLAB)
                suffix = {"<": "-le", ">": "-be"}[cell.order] if _ENCODINGS[kind] != "utf-8" else ""
                class_names.append(bytes(text).decode(_ENCODINGS[kind] + suffix))
        return class_names


@contextmanager
def _open_mat(source: str | Path | IO[bytes], name: str) -> Iterator[bytes]:
    """Read the content of a file; errors of damaged files inside the block name the file."""
    content = read_content(source, "mask")
    if content[:19] == b"MATLAB 7.3 MAT-file" or content[512:520] == b"\x89HDF\r\n\x1a\n":
        message = msg(
            "mask {name} is a MATLAB file of version 7.3 (HDF5); expected version 5 to 7.",
            name=name,
        )
        command = "save('labels.mat', 'labels', '-v7')"
        raise FullconvError(message, msg("in MATLAB: {command}", command=command))
    try:
        yield content
    except DAMAGED as error:
        values = {"name": name, "reason": reason_of(error)}
        message = msg("mask {name} cannot be read as a MATLAB file: {reason}.", **values)
        file = Path(name).name
        hint = msg("copy or download {file} again, or remove it from the dataset", file=file)
        raise FullconvError(message, hint) from error


def _refuse_large(matrix: _Matrix, name: str) -> None:
    if matrix.is_plane:
        refuse_large((matrix.shape[0], matrix.shape[1]), "mask", name)


def _variables(content: bytes, *, only: str | None = None) -> Iterator[_Matrix]:
    """Yield the variables of a file, or the one named `only`. Of the others only the header is
    unpacked."""
    if content[126:128] not in (b"IM", b"MI"):
        matrices = _variables_version_4(memoryview(content))
        yield from (matrix for matrix in matrices if only in (None, matrix.name))
        return
    order = "<" if content[126:128] == b"IM" else ">"
    data, start = memoryview(content)[128:], 0
    while start < len(data):
        kind, part, start = _element(data, start, order)
        if kind == _COMPRESSED:
            header = memoryview(zlib.decompressobj().decompress(part, _HEADER))
            matrix = _parse_matrix(header[8:], order)
            if matrix.name == only:
                matrix = _parse_matrix(memoryview(_unpack(part, order))[8:], order)
        elif kind == _MATRIX:
            matrix = _parse_matrix(part, order)
        else:
            continue
        if only in (None, matrix.name):
            yield matrix


def _variables_version_4(data: memoryview) -> Iterator[_Matrix]:
    order = "<" if 0 <= struct.unpack_from("<i", data)[0] < 5000 else ">"
    start = 0
    while start < len(data):
        kind, rows, columns, imaginary, length = struct.unpack_from(f"{order}5i", data, start)
        number_type, text = kind // 10 % 10, kind % 10
        valid = 0 <= kind < 5000 and not kind // 100 % 10 and number_type < 6 and text <= 2
        if not valid or min(rows, columns, length) < 0:
            raise DamagedError(_NOT_MATLAB)
        dtype = np.dtype(f"{order}{_VERSION_4_DTYPES[number_type]}")
        content = start + 20 + length
        end = content + rows * columns * dtype.itemsize * (2 if imaginary else 1)
        if end > len(data):
            raise truncated(end - len(data))
        name = bytes(data[start + 20 : content]).rstrip(b"\0").decode("latin-1")
        matrix_class = (_DOUBLE, _CHAR, _SPARSE)[text]
        shape, part = (rows, columns), data[content:end]
        yield _Matrix(name, matrix_class, shape, part, order, bool(imaginary), dtype.str)
        start = end


def _unpack(data: memoryview, order: str) -> bytearray:
    """Unpack a compressed element, in chunks: at once it would need twice the memory."""
    unpacker = zlib.decompressobj()
    chunk = unpacker.decompress(data, 8)
    size = 8 + int(struct.unpack(f"{order}4xI", chunk)[0])
    if size > _MAX_BYTES:
        raise DamagedError(msg("unpacked it would have {size} MB", size=size >> 20))
    unpacked = bytearray(chunk)
    while len(unpacked) < size and chunk:
        chunk = unpacker.decompress(unpacker.unconsumed_tail, min(_CHUNK, size - len(unpacked)))
        unpacked += chunk
    if len(unpacked) < size:
        raise truncated(size - len(unpacked))
    return unpacked


def _element(data: memoryview, start: int, order: str) -> tuple[int, memoryview, int]:
    """Return the type and the bytes of an element, and the start of the next one."""
    kind, size = struct.unpack_from(f"{order}II", data, start)
    if kind >> 16:  # a small element: its bytes are where the size would be
        kind, size, content, room = kind & 0xFFFF, kind >> 16, start + 4, 4
    else:
        content, room = start + 8, size if kind == _COMPRESSED else -(-size // 8) * 8
    if size > room or content + size > len(data):
        raise truncated(max(size - room, content + size - len(data)))
    return kind, data[content : content + size], content + room


def _parse_matrix(data: memoryview, order: str) -> _Matrix:
    """Parse a matrix element, of which nothing after the name has to exist."""
    if not len(data):
        return _Matrix("", _DOUBLE, (0, 0), data, order)
    _, part, start = _element(data, 0, order)
    flags = struct.unpack_from(f"{order}I", part)[0]
    if flags & 255 == _OPAQUE:
        return _Matrix("", _OPAQUE, (0, 0), data, order)
    _, sides, start = _element(data, start, order)
    _, name, start = _element(data, start, order)
    shape = tuple(int(side) for side in np.frombuffer(sides, f"{order}i4"))
    if len(shape) < 2 or min(shape) < 0:
        raise DamagedError(_NOT_MATLAB)
    text = bytes(name).decode("latin-1")
    return _Matrix(text, flags & 255, shape, data[start:], order, bool(flags & _COMPLEX))


def _matrices(data: memoryview, order: str, count: int) -> Iterator[_Matrix]:
    """Yield the matrices in the cells or fields of a matrix."""
    start = 0
    for _ in range(count):
        kind, part, start = _element(data, start, order)
        if kind != _MATRIX:
            raise DamagedError(_NOT_MATLAB)
        yield _parse_matrix(part, order)


def _struct_field(matrix: _Matrix, name: str) -> _Matrix:
    """Return a field of a struct; of the first struct if there are several."""
    _, part, start = _element(matrix.content, 0, matrix.order)
    length = max(1, struct.unpack_from(f"{matrix.order}i", part)[0])
    _, part, start = _element(matrix.content, start, matrix.order)
    text = bytes(part)
    names = [text[k : k + length].partition(b"\0")[0] for k in range(0, len(text), length)]
    values = _matrices(matrix.content[start:], matrix.order, len(names))
    fields = dict(zip(names, values, strict=True))
    if name.encode() not in fields:
        raise DamagedError(_NOT_MATLAB)
    return fields[name.encode()]


def _whole_numbers(matrix: _Matrix, name: str) -> NDArray[Any]:
    """Return the numbers of a matrix as (H, W), without a copy."""
    kind, data = 0, matrix.content
    is_mask = matrix.is_plane and math.prod(matrix.shape) > 0
    if is_mask and not matrix.dtype:
        kind, data, _ = _element(data, 0, matrix.order)
    dtype = np.dtype(matrix.dtype or f"{matrix.order}{_DTYPES.get(kind, 'u1')}")
    if is_mask and len(data) != math.prod(matrix.shape) * dtype.itemsize:
        raise DamagedError(_NOT_MATLAB)
    values = np.frombuffer(data, dtype) if is_mask else np.empty(0)
    if is_mask and dtype.kind == "f":
        chunks = (values[k : k + _CHUNK] for k in range(0, len(values), _CHUNK))
        is_mask = all((np.isfinite(x) & (x == np.round(x))).all() for x in chunks)
    if not is_mask:
        numbers = msg("complex numbers") if matrix.is_complex else dtype.name
        raise not_a_mask(name, _CLASS_NAMES.get(matrix.kind, numbers), matrix.shape, _savemat(name))
    return values.reshape(matrix.shape, order="F")


def _savemat(name: str) -> str:
    return f"scipy.io.savemat({name!r}, {{'labels': ids}})"
