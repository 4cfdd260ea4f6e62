"""The layers of exported files compute what the model computes."""

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
from fullconv.data.synthetic.scenes import LABELS
from fullconv.deploy import export_graph
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


@torch.no_grad()
def exact_logits(model: Model, images: Tensor) -> Tensor:
    values: Tensor = model.network(model.normalize(images)).values
    return values


@pytest.mark.parametrize("size", [(1, 1), (33, 65), (50, 71), (64, 96)])
def test_same_padding_becomes_a_number(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    network = FCN(Same(), len(LABELS), stride=8).eval()
    model = Model(network, LABELS, network.backbone.card)
    graph = Graph(model).eval()
    assert not any(isinstance(layer, Conv2dSame) for layer in graph.modules())
    assert any(isinstance(layer, Conv2dSame) for layer in network.modules())  # stays as it is
    images = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8)
    with torch.no_grad():
        torch.testing.assert_close(graph(images), exact_logits(model, images))


@given(
    kind=st.sampled_from([nn.MaxPool2d, nn.AvgPool2d]),
    kernel=st.integers(1, 4),
    stride=st.integers(1, 4),
    size=st.tuples(st.integers(1, 12), st.integers(1, 12)),
)
def test_padded_pooling_is_pooling_with_ceil_mode(
    kind: Any, kernel: int, stride: int, size: tuple[int, int]
) -> None:
    pool = kind(kernel, stride, ceil_mode=True)
    maps = torch.randn(2, 3, *size, dtype=torch.float64)
    if min(size) + stride <= kernel:
        return  # torch itself has no window there
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
        half = graph(images)
    exact = exact_logits(model, images)
    assert half.dtype == torch.float32
    assert 0 < (half - exact).abs().max() < 0.05 * exact.abs().max()


def test_an_exporter_is_missing() -> None:
    message = "exporting needs the package nothing_of_the_kind, which"
    with pytest.raises(FullconvError, match=message) as caught:
        export_graph._import("nothing_of_the_kind.quantization")
    assert "pip install onnx onnxscript onnxruntime" in caught.value.hint
