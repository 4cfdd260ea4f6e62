"""Read the weights of a .caffemodel without Caffe, by layer name.

The file is one protobuf message (caffe.proto of BVLC Caffe): every field is a tag (number and wire
type) and a value. The fields that matter:

    NetParameter      layers = 2 (V1LayerParameter, until 2014) · layer = 100 (LayerParameter)
    V1LayerParameter  name = 4 · blobs = 6
    LayerParameter    name = 1 · blobs = 7
    BlobProto         num, channels, height, width = 1 .. 4 (until 2014) · data = 5 (float)
                      · shape = 7 · double_data = 8
    BlobShape         dim = 1

Repeated numbers are packed (one field with all of them) or not (one field each). The file is not
trusted: every length is checked against the bytes that are left, so that reading takes no more
memory than the size of the file plus its numbers as float32.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fullconv.core.errors import FullconvError
from fullconv.core.i18n import Message, msg
from fullconv.core.text import shell_command

VARINT, LENGTH = 0, 2  # wire types
WIDTH = {1: 8, 5: 4}  # wire types of fixed width, in bytes
LAYERS = {2: (4, 6), 100: (1, 7)}  # field of NetParameter -> its fields name and blobs
LEGACY, SHAPE = (1, 2, 3, 4), 7  # fields of BlobProto
NUMBERS = {5: "<f4", 8: "<f8"}  # fields of its numbers
MAX_FIELDS = 50_000  # a network has a few thousand
MAX_DIMENSIONS = 32  # Caffe's own limit


class _DamagedError(Exception):
    """Describe the damage and its byte."""

    def __init__(self, message: Message) -> None:
        super().__init__(message)
        self.message = message


@dataclass(frozen=True)
class _Field:
    """One field, or a run of fields of fixed width with the same tag."""

    number: int  # of the tag
    wire: int  # of the tag
    value: int  # of a varint
    content: slice  # the bytes of the (first) value
    count: int = 1  # number of values in the run
    step: int = 0  # bytes from one value to the next


def read_caffemodel(path: str | Path) -> dict[str, list[Tensor]]:
    """Return the weights in a .caffemodel: layer name -> its blobs (float32) in order.

    The blobs are usually the weight (O, I, k, k) and the bias (O). Layers without weights are left
    out. Blobs from before 2014 have four dimensions, (1, 1, 1, O) for a bias.

    Raises:
        FullconvError: the file is missing, damaged or of another format, or two layers have the
            same name.
    """
    path = Path(path)
    try:
        data = np.asarray(np.memmap(path, dtype=np.uint8, mode="r"))
    except (OSError, ValueError) as error:  # an empty file cannot be mapped
        message = msg("{path} cannot be read: {error}.", path=path, error=error)
        raise FullconvError(message, shell_command("ls", "-l", path)) from None
    layers: dict[str, list[Tensor]] = {}
    reader = _Reader(data)
    try:
        for entry in reader.fields(slice(0, len(data))):
            if entry.number in LAYERS and entry.wire == LENGTH:
                name, blobs = reader.layer(entry)
                if blobs and name in layers:
                    raise FullconvError(
                        msg("{path} has two layers named {name!r}.", path=path, name=name),
                        msg("copy or download {file} again", file=path.name),
                    )
                if blobs:
                    layers[name] = blobs
    except _DamagedError as error:
        message = msg(
            "{path} is damaged, truncated or not a .caffemodel: {reason}.",
            path=path,
            reason=error.message,
        )
        raise FullconvError(message, msg("copy or download {file} again", file=path.name)) from None
    if not layers:
        message = msg(
            "{path} has no layer with weights; expected a .caffemodel of a trained network.",
            path=path,
        )
        raise FullconvError(message, shell_command("ls", "-l", path))
    return layers


class _Reader:
    def __init__(self, data: np.ndarray) -> None:
        self.data = data
        self.field_count = 0

    def fields(self, within: slice) -> Iterator[_Field]:
        """Yield all fields of the message in a range of bytes."""
        at = within.start
        while at < within.stop:
            self.field_count += 1
            if self.field_count > MAX_FIELDS:
                raise _DamagedError(
                    msg("more than {count} fields up to byte {byte}", count=MAX_FIELDS, byte=at)
                )
            start = at
            tag, at = self.varint(at, within.stop)
            number, wire = tag >> 3, tag & 7
            if wire == VARINT:
                value, at = self.varint(at, within.stop)
                yield _Field(number, wire, value, slice(at, at))
                continue
            if wire not in WIDTH and wire != LENGTH:
                raise _DamagedError(
                    msg("no field starts at byte {byte} (wire type {wire})", byte=start, wire=wire)
                )
            length = WIDTH.get(wire, 0)
            if wire == LENGTH:
                length, at = self.varint(at, within.stop)
            if length > within.stop - at:
                message = msg(
                    "field {number} at byte {byte} claims {length} bytes, but {left} are left",
                    number=number,
                    byte=start,
                    length=length,
                    left=within.stop - at,
                )
                raise _DamagedError(message)
            content = slice(at, at + length)
            count = self.run(start, at, length, within.stop) if wire in WIDTH else 1
            step = at - start + length
            yield _Field(number, wire, 0, content, count, step)
            at = start + count * step

    def run(self, start: int, at: int, width: int, end: int) -> int:
        """Return the number of consecutive values of `width` bytes from `start` with the tag that
        ends at `at`. The search grows in steps, so that a tag is not compared with the whole rest
        of the file each time."""
        tag, size = self.data[start:at], at - start + width
        count, step = 1, 64
        while True:
            rows = min(step, (end - start) // size - count)
            block = self.data[start + count * size :][: rows * size].reshape(rows, size)
            same = (block[:, : len(tag)] == tag).all(axis=1)
            count += rows if same.all() else int(same.argmin())
            if rows < step or not same.all():
                return count
            step *= 2

    def varint(self, at: int, end: int) -> tuple[int, int]:
        """Return an integer, seven bits per byte, and the position after it."""
        value = 0
        for position in range(at, min(at + 10, end)):
            byte = int(self.data[position])
            value |= (byte & 0x7F) << (7 * (position - at))
            if byte < 0x80:
                return value, position + 1
        raise _DamagedError(msg("the number at byte {byte} does not end", byte=at))

    def layer(self, entry: _Field) -> tuple[str, list[Tensor]]:
        name_field, blobs_field = LAYERS[entry.number]
        name, blobs = "", []
        for part in self.fields(entry.content):
            if part.number == name_field and part.wire == LENGTH:
                name = bytes(self.data[part.content]).decode("utf-8", "replace")[:200]
            elif part.number == blobs_field and part.wire == LENGTH:
                blobs.append(self.blob(part, name))
        return name, blobs

    def blob(self, entry: _Field, layer: str) -> Tensor:
        """Return the numbers of a BlobProto as float32, in its shape."""
        legacy = [0, 0, 0, 0]
        shape: tuple[int, ...] | None = None
        parts: dict[int, list[np.ndarray]] = {}
        for part in self.fields(entry.content):
            if part.number in LEGACY and part.wire == VARINT:
                legacy[part.number - 1] = part.value
            elif part.number == SHAPE and part.wire == LENGTH:
                shape = self.shape(part)
            elif part.number in NUMBERS:
                parts.setdefault(part.number, []).append(self.numbers(part))
        if shape is None:
            shape = tuple(legacy)
        chunks = [chunk for kind in parts.values() for chunk in kind]
        count = sum(map(len, chunks))
        if not count or math.prod(shape) != count or len(parts) > 1:
            message = msg(
                "the weights of layer {layer!r} at byte {byte} have the shape {shape} but "
                "{count} numbers",
                layer=layer,
                byte=entry.content.start,
                shape=shape,
                count=count,
            )
            raise _DamagedError(message)
        numbers = np.concatenate([np.zeros(0, np.float32), *chunks], dtype=np.float32)
        return torch.from_numpy(numbers).reshape(shape)

    def shape(self, entry: _Field) -> tuple[int, ...]:
        dims: list[int] = []
        for part in self.fields(entry.content):
            if part.number == 1 and part.wire == VARINT:
                dims.append(part.value)
            elif part.number == 1 and part.wire == LENGTH:
                at = part.content.start
                while at < part.content.stop and len(dims) <= MAX_DIMENSIONS:
                    value, at = self.varint(at, part.content.stop)
                    dims.append(value)
            if len(dims) > MAX_DIMENSIONS:
                raise _DamagedError(
                    msg("a shape has more than {count} dimensions", count=MAX_DIMENSIONS)
                )
        return tuple(dims)

    def numbers(self, entry: _Field) -> np.ndarray:
        """Return the numbers of a field, packed or not."""
        kind = np.dtype(NUMBERS[entry.number])
        start, length = entry.content.start, entry.content.stop - entry.content.start
        if entry.wire == LENGTH and length % kind.itemsize == 0:
            return self.data[entry.content].view(kind)
        if WIDTH.get(entry.wire) == kind.itemsize:
            whole = self.data[start : start + (entry.count - 1) * entry.step + length]
            rows = np.lib.stride_tricks.as_strided(
                whole, (entry.count, length), (entry.step, 1), writeable=False
            )
            return np.ascontiguousarray(rows).view(kind)[:, 0]
        raise _DamagedError(msg("the numbers at byte {byte} have an unknown type", byte=start))
