"""MATLAB files with labels: SBD, PASCAL-Context, SIFT Flow, NYUDv2 and their like.

Versions 4 to 7 are read here, without scipy, whose reader trusts what a file says of itself: some
damaged ones end the whole process. What is no label is skipped, not unpacked. Files of version 7.3,
which are HDF5, are refused.

    version 5 to 7   128 bytes, then elements: a type, a size, so many bytes. A matrix is an element
                     of elements: flags, shape, name, numbers; of cells and structs, matrices
    version 4        matrices one after another: 20 bytes, a name, numbers

Shapes: H, W image.
"""

from __future__ import annotations

import io
import math
import struct
import tokenize
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from fullconv.core.errors import FullconvError
from fullconv.data.io.limits import no_warnings, read_content, refuse_large

# Variables that hold labels, by data set.
_LABELS = ("LabelMap", "S", "segmentation", "labels", "mask", "label")
_BROKEN = (ValueError, TypeError, KeyError, IndexError, OSError, OverflowError)
_ALSO_BROKEN = (struct.error, zlib.error, MemoryError)

_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8"}
_NUMBERS |= {12: "i8", 13: "u8"}  # type of an element -> of its numbers
_TEXTS = {1: "utf-8", 2: "utf-8", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}
_MATRIX, _COMPRESSED = 14, 15
# Classes of matrices. From double to uint64 they hold numbers.
_CELL, _STRUCT, _CHAR, _SPARSE, _DOUBLE, _UINT64 = 1, 2, 4, 5, 6, 15
_OPAQUE = 17  # objects of other make: a name, no shape
_WORDS = {_CELL: "cells", _STRUCT: "a struct", _CHAR: "text", _SPARSE: "a sparse matrix"}
_COMPLEX = 0x800  # the flag of matrices with an imaginary part
_FOUR = ("f8", "f4", "i4", "i2", "u2", "u1")  # types of numbers in version 4
_HEADER = 512  # bytes in which the flags, the shape and the name of a matrix stand
_PIECE = 1 << 20  # bytes that are unpacked at once
_MOST = 1 << 30  # bytes of a variable that is read


@dataclass(frozen=True)
class _Matrix:
    """A variable, or a part of one.

    Args:
        kind: its class.
        rest: what follows its name.
        order: of bytes, "<" or ">".
        numbers: the type of those that `rest` holds; empty where an element there says it.
    """

    name: str
    kind: int
    shape: tuple[int, ...]
    rest: memoryview
    order: str
    complex: bool = False
    numbers: str = ""

    @property
    def count(self) -> int:
        return math.prod(self.shape)


def read_mat_mask(source: str | Path | IO[bytes], name: str) -> NDArray[Any]:
    """(H, W) whole numbers: GTcls.Segmentation (SBD), LabelMap (PASCAL-Context), S (SIFT Flow),
    segmentation (NYUDv2), or the only matrix of numbers that there is.

    Raises:
        FullconvError: it cannot be read, or it is open which variable is meant.
    """
    content = _content(source, name)
    try:
        heads: dict[str, _Matrix] = {}
        for matrix in _variables(content):
            heads.setdefault(matrix.name, matrix)
        key = _key(heads)
        if key is None:
            found = ", ".join(f"{k} {m.shape}" for k, m in list(heads.items())[:8]) or "none"
            raise FullconvError(
                f"mask {name}: it is open which variable holds the labels. Found {found}; "
                f"expected GTcls, {', '.join(_LABELS)}, or one matrix.",
                f"scipy.io.savemat({name!r}, {{'labels': ids}})",
            )
        _refuse(heads[key], name)
        matrix = next(_variables(content, only=key))
        if key == "GTcls":
            matrix = _field(matrix, "Segmentation")
            _refuse(matrix, name)
        return _whole(matrix, name)
    except (*_BROKEN, *_ALSO_BROKEN) as error:
        raise _unreadable(name, error) from error


def read_mat_class_names(path: Path) -> list[str]:
    """The class names that a file of SIFT Flow carries beside its labels; [] where it has none."""
    content = _content(path, str(path))
    try:
        found = next(_variables(content, only="names"), None)
        if found is None or found.kind != _CELL:
            return []
        return [_text(cell) for cell in _parts(found.rest, found.order, found.count) if cell.count]
    except (*_BROKEN, *_ALSO_BROKEN) as error:
        raise _unreadable(str(path), error) from error


def _content(source: str | Path | IO[bytes], name: str) -> bytes:
    is_path = isinstance(source, str | Path)
    content = read_content(Path(source), "mask") if is_path else source.read()  # type: ignore
    if content[:19] == b"MATLAB 7.3 MAT-file" or content[512:520] == b"\x89HDF\r\n\x1a\n":
        raise FullconvError(
            f"mask {name} is a MATLAB file of version 7.3 (HDF5); expected version 5 to 7.",
            "in MATLAB: save('labels.mat', 'labels', '-v7')",
        )
    return content


def _unreadable(name: str, error: Exception) -> FullconvError:
    said = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
    return FullconvError(
        f"mask {name} cannot be read as a MATLAB file: {said}.",
        f"copy or download {Path(name).name} again, or take it out of the data",
    )


def _key(heads: dict[str, _Matrix]) -> str | None:
    """The variable that holds the labels, if that is plain."""
    if "GTcls" in heads and heads["GTcls"].kind == _STRUCT:
        return "GTcls"
    known = [key for key in _LABELS if key in heads]
    matrices = [k for k, m in heads.items() if k and _is_numbers(m) and len(m.shape) == 2]
    return known[0] if known else matrices[0] if len(matrices) == 1 else None


def _is_numbers(matrix: _Matrix) -> bool:
    return _DOUBLE <= matrix.kind <= _UINT64 and not matrix.complex


def _refuse(matrix: _Matrix, name: str) -> None:
    """What is more than is read at once, by what it says of itself."""
    if _is_numbers(matrix) and len(matrix.shape) == 2:
        refuse_large((matrix.shape[0], matrix.shape[1]), "mask", name)


def _variables(content: bytes, *, only: str | None = None) -> Iterator[_Matrix]:
    """All of a file, or one of them. Of compressed ones that are not asked for by their name the
    beginning alone is unpacked."""
    if content[126:128] not in (b"IM", b"MI"):
        found = _variables_of_four(memoryview(content))
    else:
        order = "<" if content[126:128] == b"IM" else ">"
        found = _variables_of_five(memoryview(content)[128:], order, only)
    yield from (matrix for matrix in found if only is None or matrix.name == only)


def _variables_of_five(data: memoryview, order: str, only: str | None) -> Iterator[_Matrix]:
    for kind, part in _elements(data, order):
        if kind == _MATRIX:
            yield _matrix(part, order)
        elif kind == _COMPRESSED:
            head = memoryview(zlib.decompressobj().decompress(part, _HEADER))
            matrix = _matrix(head[8:], order)
            if matrix.name == only:
                matrix = _matrix(memoryview(_unpacked(part, order))[8:], order)
            yield matrix


def _variables_of_four(data: memoryview) -> Iterator[_Matrix]:
    order = "<" if 0 <= struct.unpack_from("<i", data)[0] < 5000 else ">"
    at = 0
    while at < len(data):
        kind, rows, columns, imaginary, length = struct.unpack_from(f"{order}5i", data, at)
        form, text = kind // 10 % 10, kind % 10
        if not 0 <= kind < 5000 or kind // 100 % 10 or form >= len(_FOUR) or text > 2:
            raise ValueError("it begins like no MATLAB file")
        if min(rows, columns, length) < 0:
            raise ValueError(f"a matrix of {rows} x {columns}")
        numbers = np.dtype(f"{order}{_FOUR[form]}")
        start = at + 20 + length
        end = start + rows * columns * numbers.itemsize * (2 if imaginary else 1)
        if end > len(data):
            raise _cut_off(end - len(data))
        name = bytes(data[at + 20 : start]).rstrip(b"\0").decode("latin-1")
        kinds = (_DOUBLE, _CHAR, _SPARSE)
        shape, rest = (rows, columns), data[start:end]
        yield _Matrix(name, kinds[text], shape, rest, order, bool(imaginary), numbers.str)
        at = end


def _unpacked(data: memoryview, order: str) -> bytearray:
    """A compressed element. In pieces: unpacked at once it would need twice the memory."""
    packer = zlib.decompressobj()
    piece = packer.decompress(data, 8)
    whole = 8 + int(struct.unpack(f"{order}4xI", piece)[0])
    if whole > _MOST:
        raise ValueError(f"unpacked it would have {whole >> 20} MB; up to {_MOST >> 20} are read")
    found = bytearray(piece)
    while len(found) < whole and piece:
        piece = packer.decompress(packer.unconsumed_tail, min(_PIECE, whole - len(found)))
        found += piece
    if len(found) < whole:
        raise _cut_off(whole - len(found))
    return found


def _elements(data: memoryview, order: str) -> Iterator[tuple[int, memoryview]]:
    at = 0
    while at < len(data):
        kind, part, at = _element(data, at, order)
        yield kind, part


def _element(data: memoryview, at: int, order: str) -> tuple[int, memoryview, int]:
    """Type and bytes of what stands there, and where the next one begins."""
    kind, size = struct.unpack_from(f"{order}II", data, at)
    if kind >> 16:  # a small one: its bytes stand in place of its size
        kind, size, start, room = kind & 0xFFFF, kind >> 16, at + 4, 4
    else:
        start, room = at + 8, size if kind == _COMPRESSED else -(-size // 8) * 8
    if size > room or start + size > len(data):
        raise _cut_off(max(size - room, start + size - len(data)))
    return kind, data[start : start + size], start + room


def _matrix(data: memoryview, order: str) -> _Matrix:
    """Of what stands in an element of that type; no more than its name need be there."""
    if not len(data):
        return _Matrix("", _DOUBLE, (0, 0), data, order)
    _, flags, at = _element(data, 0, order)
    bits = struct.unpack_from(f"{order}I", flags)[0]
    if bits & 255 == _OPAQUE:
        return _Matrix("", _OPAQUE, (0, 0), data, order)
    _, sides, at = _element(data, at, order)
    _, name, at = _element(data, at, order)
    shape = tuple(int(side) for side in np.frombuffer(sides, f"{order}i4"))
    if len(shape) < 2 or min(shape) < 0:
        raise ValueError(f"a matrix of shape {shape}")
    text = bytes(name).decode("latin-1")
    return _Matrix(text, bits & 255, shape, data[at:], order, bool(bits & _COMPLEX))


def _parts(data: memoryview, order: str, count: int) -> Iterator[_Matrix]:
    """So many matrices, those of cells or fields."""
    at = 0
    for _ in range(count):
        kind, part, at = _element(data, at, order)
        if kind != _MATRIX:
            raise ValueError(f"an element of type {kind} in place of a matrix")
        yield _matrix(part, order)


def _field(matrix: _Matrix, name: str) -> _Matrix:
    """That of a struct; of the first one, where there are several."""
    _, part, at = _element(matrix.rest, 0, matrix.order)
    length = max(1, struct.unpack_from(f"{matrix.order}i", part)[0])
    _, part, at = _element(matrix.rest, at, matrix.order)
    text = bytes(part)
    names = [text[k : k + length].partition(b"\0")[0] for k in range(0, len(text), length)]
    found = dict(zip(names, _parts(matrix.rest[at:], matrix.order, len(names)), strict=True))
    if name.encode() not in found:
        raise ValueError(f"{matrix.name} has no field {name}")
    return found[name.encode()]


def _text(matrix: _Matrix) -> str:
    kind, part, _ = _element(matrix.rest, 0, matrix.order)
    if matrix.kind != _CHAR or kind not in _TEXTS:
        raise ValueError("names that are no text")
    ends = {"<": "-le", ">": "-be"}[matrix.order] if _TEXTS[kind][-1] in "62" else ""
    return bytes(part).decode(_TEXTS[kind] + ends)


def _whole(matrix: _Matrix, name: str) -> NDArray[Any]:
    """(H, W), as they lie in the file."""
    kind, data = 0, matrix.rest
    fine = _is_numbers(matrix) and len(matrix.shape) == 2 and matrix.count > 0
    if fine and not matrix.numbers:
        kind, data, _ = _element(data, 0, matrix.order)
    numbers = np.dtype(matrix.numbers or f"{matrix.order}{_NUMBERS.get(kind, 'u1')}")
    if fine and len(data) != matrix.count * numbers.itemsize:
        raise ValueError(f"{len(data)} bytes for {matrix.shape[0]} x {matrix.shape[1]} numbers")
    values = np.frombuffer(data, numbers) if fine else np.empty(0)
    if fine and values.dtype.kind == "f":
        pieces = (values[k : k + _PIECE] for k in range(0, len(values), _PIECE))
        fine = all((np.isfinite(x) & (x == np.round(x))).all() for x in pieces)
    if not fine:
        what = _WORDS.get(matrix.kind, "complex numbers" if matrix.complex else numbers.name)
        raise FullconvError(
            f"mask {name} holds {what} of shape {matrix.shape}; expected whole numbers (height, "
            "width).",
            f"scipy.io.savemat({name!r}, {{'labels': ids}})",
        )
    return values.reshape(matrix.shape, order="F")


def _cut_off(missing: int) -> ValueError:
    return ValueError(f"it is cut off, {missing} bytes are missing")


# What NumPy is known to raise on broken headers, which it reads with Python's own parser.
_NPY_BROKEN = (ValueError, TypeError, KeyError, SyntaxError, EOFError, tokenize.TokenError)
_NPY_ALSO_BROKEN = (OverflowError, RecursionError, MemoryError)


def read_npy_mask(source: str | Path | IO[bytes], name: str) -> NDArray[Any]:
    """(H, W) whole numbers.

    Raises:
        FullconvError: it cannot be read, or it holds something else.
    """
    is_path = isinstance(source, str | Path)
    content = read_content(Path(source), "mask") if is_path else source.read()  # type: ignore
    file = io.BytesIO(content)
    try:
        shape, fortran, kind = _header(file)
    except (*_NPY_BROKEN, *_NPY_ALSO_BROKEN) as error:
        raise _npy_unreadable(name, str(error) or type(error).__name__) from error
    if len(shape) != 2 or kind.kind not in "uib":
        one_hot = "array.argmax(-1)" if len(shape) == 3 else "array"
        raise FullconvError(
            f"mask {name} holds {kind} of shape {shape}; expected whole numbers (height, width).",
            f"np.save({name!r}, {one_hot}.astype('uint8'))",
        )
    refuse_large((shape[0], shape[1]), "mask", name)
    missing = math.prod(shape) * kind.itemsize - (len(content) - file.tell())
    if missing > 0:
        raise _npy_unreadable(name, f"it is cut off, {missing} bytes are missing")
    values = np.frombuffer(content, kind, math.prod(shape), file.tell())
    return values.reshape(shape, order="F" if fortran else "C")


def _header(file: io.BytesIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether columns come first, and the type of the numbers."""
    with no_warnings:
        version = npy.read_magic(file)
        if version not in ((1, 0), (2, 0), (3, 0)):
            raise ValueError(f"version {version[0]}.{version[1]} of the format is not known")
        # Version 3 differs from 2 in the names of fields alone, which no mask has.
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, kind = read(file)
    if min(shape, default=0) < 0:
        raise ValueError(f"an array of shape {shape}")
    return shape, fortran, kind


def _npy_unreadable(name: str, said: str) -> FullconvError:
    return FullconvError(
        f"mask {name} cannot be read as a NumPy file: {said.splitlines()[0].rstrip('.')}.",
        f"copy or download {Path(name).name} again, or np.save({name!r}, ids.astype('uint8'))",
    )
