"""Write .caffemodel files from the definition of the wire format (Protocol Buffers, "Encoding") and
the field numbers of caffe.proto, for the tests of `fullconv.network.paper.caffemodel`."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

LEGACY_TYPES = {4: 4, 2: 14}  # dimensions of the weight -> CONVOLUTION, INNER_PRODUCT


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def block(field: int, content: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(content)) + content


def blob_of(
    tensor: Tensor, *, legacy: bool = False, packed: bool = True, double: bool = False
) -> bytes:
    """Encode a BlobProto."""
    flat = tensor.flatten().tolist()
    kind, width, field = ("d", 1, 8) if double else ("f", 5, 5)
    if packed:
        data = block(field, struct.pack(f"<{len(flat)}{kind}", *flat))
    else:
        tag = varint(field << 3 | width)
        data = b"".join(tag + struct.pack(f"<{kind}", value) for value in flat)
    if legacy:
        shape = [1] * (4 - tensor.ndim) + list(tensor.shape)
        return b"".join(number(i + 1, n) for i, n in enumerate(shape)) + data
    dims = b"".join(varint(n) for n in tensor.shape)
    return block(7, block(1, dims)) + data


def layer_of(name: str, blobs: Sequence[Tensor], *, legacy: bool = False, **options: bool) -> bytes:
    """Encode a V1LayerParameter or a LayerParameter, with some of its other fields."""
    bodies = [blob_of(blob, legacy=legacy, **options) for blob in blobs]
    if legacy:
        kind = LEGACY_TYPES.get(blobs[0].ndim, 26) if blobs else 18
        head = block(2, b"below") + block(3, name.encode()) + block(4, name.encode())
        rates = b"".join(varint(7 << 3 | 5) + struct.pack("<f", rate) for rate in (1, 2))
        return block(2, head + number(5, kind) + b"".join(block(6, b) for b in bodies) + rates)
    head = block(1, name.encode()) + block(2, b"Convolution") + block(3, b"below")
    tail = number(10, 1) + block(106, number(1, 64) + number(3, 1))
    return block(100, head + b"".join(block(7, b) for b in bodies) + tail)


def write_caffemodel(
    path: Path, layers: Mapping[str, Sequence[Tensor]], *, legacy: bool = False, **options: bool
) -> Path:
    """Write a NetParameter, which includes layers without blobs."""
    parts = [block(1, b"a net"), block(3, b"data"), number(5, 0)]
    parts += [layer_of(name, blobs, legacy=legacy, **options) for name, blobs in layers.items()]
    path.write_bytes(b"".join(parts))
    return path
