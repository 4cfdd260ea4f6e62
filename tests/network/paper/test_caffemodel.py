from __future__ import annotations

import random
import tracemalloc
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from caffemodel import block, layer_of, number, varint, write_caffemodel
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fullconv.core.errors import FullconvError
from fullconv.network.paper.caffemodel import read_caffemodel

LAYERS = {
    "data": [],
    "conv1_1": [torch.randn(4, 3, 3, 3), torch.randn(4)],
    "relu1_1": [],
    "inception_3a/1x1": [torch.randn(2, 4, 1, 1), torch.randn(2)],
    "fc8": [torch.randn(7, 5), torch.randn(7)],
    "upscore": [torch.randn(2, 2, 4, 4)],
}


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("double", [True, False])
@pytest.mark.parametrize("legacy", [True, False])
def test_what_is_written_is_read(tmp_path: Path, legacy: bool, packed: bool, double: bool) -> None:
    path = tmp_path / "net.caffemodel"
    write_caffemodel(path, LAYERS, legacy=legacy, packed=packed, double=double)
    actual = read_caffemodel(path)
    assert list(actual) == ["conv1_1", "inception_3a/1x1", "fc8", "upscore"]
    for name, blobs in actual.items():
        for blob, expected in zip(blobs, LAYERS[name], strict=True):
            assert blob.dtype == torch.float32
            shape = tuple(expected.shape)
            assert tuple(blob.shape) == ((1,) * (4 - expected.ndim) + shape if legacy else shape)
            assert torch.equal(blob.flatten(), expected.flatten())


def test_it_reads_what_protobuf_writes(tmp_path: Path) -> None:
    """The library itself, with the messages built from a descriptor, where it is installed."""
    pb = pytest.importorskip("google.protobuf", reason="protobuf is not installed")
    path = tmp_path / "net.caffemodel"
    path.write_bytes(_by_protobuf(pb))
    for blob, expected in zip(read_caffemodel(path)["conv1_1"], LAYERS["conv1_1"], strict=True):
        assert torch.equal(blob, expected)


def _by_protobuf(pb: Any) -> bytes:
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(name="net.proto", package="net", syntax="proto2")
    repeated, single = 3, 1  # labels
    kinds = {"float": 2, "int64": 3, "string": 9, "message": 11}
    messages = {
        "Shape": [("dim", 1, repeated, "int64", "")],
        "Blob": [("data", 5, repeated, "float", ""), ("shape", 7, single, "message", "Shape")],
        "Layer": [("name", 1, single, "string", ""), ("blobs", 7, repeated, "message", "Blob")],
        "Net": [("layer", 100, repeated, "message", "Layer")],
    }
    for name, fields in messages.items():
        message = file.message_type.add(name=name)
        for field, index, label, kind, of in fields:
            entry = message.field.add(name=field, number=index, label=label, type=kinds[kind])
            if of:
                entry.type_name = f".net.{of}"
            elif label == repeated:
                entry.options.packed = True
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    net = message_factory.GetMessageClass(pool.FindMessageTypeByName("net.Net"))()
    layer = net.layer.add(name="conv1_1")
    for tensor in LAYERS["conv1_1"]:
        blob = layer.blobs.add(data=tensor.flatten().tolist())
        blob.shape.dim.extend(tensor.shape)
    written: bytes = net.SerializeToString()
    return written


def test_numbers_may_come_in_pieces(tmp_path: Path) -> None:
    """Packed twice, then one by one, with another field between: repeated fields add up."""
    values = torch.arange(6.0)
    from struct import pack

    pieces = block(5, pack("<2f", 0, 1)) + block(5, pack("<f", 2))
    pieces += b"".join(varint(5 << 3 | 5) + pack("<f", v) for v in (3, 4))
    pieces += block(6, b"\0" * 8) + varint(5 << 3 | 5) + pack("<f", 5)
    shape = block(7, number(1, 2) + number(1, 3))
    path = tmp_path / "net.caffemodel"
    path.write_bytes(block(100, block(1, b"a") + block(7, pieces + shape)))
    assert torch.equal(read_caffemodel(path)["a"][0], values.reshape(2, 3))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read"),
        (b"\xff\xd8\xff\xe0 a photo", "damaged, truncated or not a .caffemodel"),
        (block(1, b"a name and nothing else"), "has no layer with weights"),
        (layer_of("relu", []), "has no layer with weights"),
        (layer_of("a", LAYERS["fc8"])[:-90], "claims"),
        (
            layer_of("a", LAYERS["fc8"]) + layer_of("a", LAYERS["fc8"]),
            "two layers named 'a'",
        ),
        (
            block(
                100, block(1, b"a") + block(7, block(7, block(1, varint(9))) + block(5, b"\0" * 8))
            ),
            "layer 'a' at byte .* have the shape \\(9,\\) but 2 numbers",
        ),
        (
            block(100, block(1, b"a") + block(7, block(7, block(1, varint(0) + varint(2**63))))),
            "but 0 numbers",
        ),
        (block(100, block(7, block(5, b"\0" * 7))), "have an unknown type"),
        (block(100, block(7, block(7, block(1, b"\1" * 40)))), "more than 32 dimensions"),
        (b"\xa2\x06" + b"\xff" * 11, "the number at byte 2 does not end"),
        (b"\xa2\x06" + varint(2**60) + b"abc", "claims 1152921504606846976 bytes, but 3"),
        (block(100, b"\x0b"), "no field starts at byte .* \\(wire type 3\\)"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "net.caffemodel"
    path.write_bytes(content)
    with pytest.raises(FullconvError, match=message) as caught:
        read_caffemodel(path)
    assert str(path) in caught.value.message
    assert caught.value.hint


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FullconvError, match=r"cannot be read.*No such file"):
        read_caffemodel(tmp_path / "net.caffemodel")


@settings(max_examples=300)
@given(seed=st.integers(0, 2**32), legacy=st.booleans(), packed=st.booleans())
def test_damaged_files_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, seed: int, legacy: bool, packed: bool
) -> None:
    """Bytes changed, cut out or put in: other numbers, or a sentence; nothing else, and little
    memory."""
    path = tmp_path_factory.getbasetemp() / "damaged.caffemodel"
    data = bytearray(write_caffemodel(path, LAYERS, legacy=legacy, packed=packed).read_bytes())
    chance = random.Random(seed)
    for _ in range(chance.choice((1, 1, 2, 8))):
        at = chance.randrange(len(data))
        kind = chance.randrange(4)
        if kind == 0:
            data[at] = chance.randrange(256)
        elif kind == 1:
            del data[at : at + chance.randrange(1, 9)]
        elif kind == 2:
            data[at:at] = varint(chance.choice((2**31, 2**32 - 1, 2**62, 2**63)))
        else:
            del data[at:]
        if not data:
            break
    path.write_bytes(data)
    with suppress(FullconvError):
        actual = read_caffemodel(path)
        assert all(isinstance(blob, Tensor) for blobs in actual.values() for blob in blobs)


@pytest.mark.parametrize("content", [b"\x08\x01", b"\xa2\x06\x00", b"\xa2\x06\x02\x3a\x00"])
def test_many_small_fields_take_little_memory_and_time(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "net.caffemodel"
    path.write_bytes(content * 100_000)
    tracemalloc.start()
    with pytest.raises(FullconvError, match=r"more than 50000 fields|but 0 numbers"):
        read_caffemodel(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50e6


def test_reading_takes_its_numbers_once(tmp_path: Path) -> None:
    path = tmp_path / "net.caffemodel"
    write_caffemodel(path, {"fc6": [torch.zeros(1000, 2000)]})
    tracemalloc.start()
    read_caffemodel(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.1 * 8e6
