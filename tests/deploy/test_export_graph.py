"""What goes into exported files gives what the model gives; files are compared in test_export."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lively import lively
from timm.layers import Conv2dSame
from torch import Tensor, nn

from fullconv.core.errors import FullconvError
from fullconv.data.synthetic import scenes as drawn
from fullconv.deploy import export_graph as graph_file
from fullconv.deploy.export_graph import Graph, pad_pooling
from fullconv.models.model import Model
from fullconv.network.fcn import FCN


class Same(nn.Sequential):
    """Convolutions of stride 2 as TensorFlow pads them."""

    def __init__(self) -> None:
        sizes = ((3, 8, 3), (8, 8, 5), (8, 8, 3), (8, 8, 5), (8, 8, 3))
        super().__init__(*(Conv2dSame(a, b, k, stride=2) for a, b, k in sizes))

    def forward(self, images: Tensor) -> list[Tensor]:
        maps = []
        for layer in self:
            images = layer(images).relu()
            maps.append(images)
        return maps[2:]


@pytest.mark.parametrize("size", [(1, 1), (33, 65), (50, 71), (64, 96)])
def test_same_padding_becomes_a_number(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    network = FCN(Same(), len(drawn.LABELS), stride=8).eval()
    model = Model(network, drawn.LABELS, network.backbone.card)
    graph = Graph(model).eval()
    assert not any(isinstance(layer, Conv2dSame) for layer in graph.modules())
    assert any(isinstance(layer, Conv2dSame) for layer in network.modules())  # stays as it is
    images = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8)
    with torch.no_grad():
        torch.testing.assert_close(graph(images), network(model.normalize(images)).values)


@given(
    kind=st.sampled_from([nn.MaxPool2d, nn.AvgPool2d]),
    kernel=st.integers(1, 4),
    stride=st.integers(1, 4),
    size=st.tuples(st.integers(1, 12), st.integers(1, 12)),
)
def test_pooling_over_a_part_of_a_window_is_the_same_written_out(
    kind: Any, kernel: int, stride: int, size: tuple[int, int]
) -> None:
    pool = kind(kernel, stride, ceil_mode=True)
    maps = torch.randn(2, 3, *size, dtype=torch.float64)
    if min(size) + stride <= kernel:
        return  # torch itself finds no window there
    layers = nn.Sequential(pool)
    pad_pooling(layers)
    assert (layers[0] is pool) == (stride > kernel)
    torch.testing.assert_close(layers(maps), pool(maps))


def test_half_precision_stays_out_of_the_scores() -> None:
    model = lively()
    images = torch.randint(0, 256, (1, 3, 64, 96), dtype=torch.uint8)
    graph = Graph(model, half=True).eval()
    assert {p.dtype for p in graph.network.backbone.parameters()} == {torch.float16}
    assert {p.dtype for p in graph.network.score.parameters()} == {torch.float32}
    assert {p.dtype for p in model.network.parameters()} == {torch.float32}
    with torch.no_grad():
        found, wanted = graph(images), model.network(model.normalize(images)).values
    assert found.dtype == torch.float32
    assert 0 < (found - wanted).abs().max() < 0.05 * wanted.abs().max()


def test_the_labels_are_those_of_the_scores() -> None:
    model = lively()
    images = torch.randint(0, 256, (2, 3, 50, 71), dtype=torch.uint8)
    with torch.no_grad():
        ids = Graph(model, with_labels=True).eval()(images)
        wanted = model.network(model.normalize(images)).full().argmax(1)
    assert ids.shape == (2, 50, 71)
    assert (ids == wanted).float().mean() > 0.9999


def test_an_exporter_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        FullconvError, match="exporting needs the package nothing_of_the_kind, which"
    ) as caught:
        graph_file._import("nothing_of_the_kind.quantization")
    assert "pip install onnx onnxscript onnxruntime" in caught.value.hint
