from __future__ import annotations

from pathlib import Path

import pytest
import torch
from caffe_nets import Blobs, drawn_blobs
from caffemodel import write_caffemodel
from torch import nn

from fullconv.core.errors import FullconvError
from fullconv.network.backbone_card import BackboneCard
from fullconv.network.paper import nets
from fullconv.network.paper.transplant import (
    CAFFE_MEAN,
    CAFFE_STD,
    fill_backbone,
    fits,
    named_convolutions,
)
from fullconv.network.paper.weight_files import Weights, read_weights

WIDTH = 1 / 16


def backbone_of(name: str) -> nn.Module:
    backbone, _ = nets.build_paper_backbone(BackboneCard("paper", name, {"width": WIDTH}))
    return backbone


def backbone_blobs(name: str) -> Blobs:
    blobs = drawn_blobs(name, classes=5, width=WIDTH)
    return {layer: parts for layer, parts in blobs.items() if not layer.startswith("score")}


def in_a_file(path: Path, blobs: Blobs, **options: bool) -> Weights:
    return read_weights(write_caffemodel(path, blobs, **options))


def as_inner_products(blobs: Blobs) -> Blobs:
    """fc6 and fc7 as in the file of a classifier, with its scores of 10 classes."""
    flat = {name: list(parts) for name, parts in blobs.items()}
    for name in ("fc6", "fc7"):
        flat[name][0] = flat[name][0].flatten(1)
    width = len(flat["fc7"][1])
    return {**flat, "fc8": [torch.randn(10, width), torch.randn(10)]}


@pytest.mark.parametrize("legacy", [True, False])
@pytest.mark.parametrize("name", ["vgg16", "alexnet", "googlenet"])
def test_caffes_weights_by_name(tmp_path: Path, name: str, legacy: bool) -> None:
    blobs = backbone_blobs(name)
    dense = as_inner_products(blobs) if name != "googlenet" else blobs
    backbone = backbone_of(name)
    assert fill_backbone(backbone, in_a_file(tmp_path / "a", dense, legacy=legacy)) is True
    layers = named_convolutions(backbone)
    assert set(layers) == set(blobs)
    for number, (layer, conv) in enumerate(layers.items()):
        weight, bias = blobs[layer]
        # The first convolution read blue, green, red.
        assert torch.equal(conv.weight, weight if number else weight[:, [2, 1, 0]]), layer
        assert torch.equal(conv.bias, bias), layer


def test_the_scores_of_a_released_network_are_left_out(tmp_path: Path) -> None:
    blobs = drawn_blobs("vgg16", classes=5, width=WIDTH)
    blobs |= {"upscore2": [torch.randn(5, 5, 4, 4)], "scale_pool4": [torch.tensor([0.01])]}
    backbone = backbone_of("vgg16")
    fill_backbone(backbone, in_a_file(tmp_path / "a", blobs))
    assert torch.equal(named_convolutions(backbone)["fc7"].weight, blobs["fc7"][0])


def test_caffes_mean_is_in_rgb() -> None:
    """BGR (104.00699, 116.66877, 122.67892) of 0-255."""
    assert [255 * m for m in CAFFE_MEAN] == pytest.approx([122.67892, 116.66877, 104.00699])
    assert [255 * s for s in CAFFE_STD] == pytest.approx([1, 1, 1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"conv4_2": []},
            "2 tensors are missing: conv4_2.weight (32, 32, 3, 3), conv4_2.bias (32,)",
        ),
        ({"conv3_1": [(9, 4, 3, 3), (9,)]}, "conv3_1.weight (9, 4, 3, 3), expected (16, 8, 3, 3)"),
        ({"fc6": [(256, 1567), (256,)]}, "fc6.weight (256, 1567), expected (256, 32, 7, 7)"),
        ({"fc7": [(256, 256, 1, 1)]}, "1 tensor is missing: fc7.bias"),
        (
            {"conv5_4": [(16, 16, 3, 3), (16,)]},
            "2 tensors are not part of the network: conv5_4.weight (16, 16, 3, 3)",
        ),
        ({f"extra{i}": [(1,)] for i in range(7)}, "extra3.weight (1,) and 3 more."),
    ],
)
def test_a_layer_that_does_not_fit_is_named(
    tmp_path: Path, change: dict[str, list[tuple[int, ...]]], message: str
) -> None:
    changed = {name: [torch.zeros(shape) for shape in shapes] for name, shapes in change.items()}
    remaining = {**backbone_blobs("vgg16"), **changed}
    backbone = backbone_of("vgg16")
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    with pytest.raises(FullconvError) as caught:
        fill_backbone(backbone, in_a_file(tmp_path / "net.caffemodel", remaining))
    assert caught.value.message.startswith("net.caffemodel does not fit this network: ")
    assert message in caught.value.message
    assert "paper:vgg16" in caught.value.hint
    for name, value in backbone.state_dict().items():
        assert torch.equal(value, before[name])  # nothing was copied


def test_what_a_card_says_is_missing_stays_as_it_is(tmp_path: Path) -> None:
    blobs = backbone_blobs("vgg16")
    del blobs["fc7"]
    backbone = backbone_of("vgg16")
    fresh = named_convolutions(backbone)["fc7"].weight.clone()
    fill_backbone(backbone, in_a_file(tmp_path / "a", blobs), missing=("fc7",))
    assert torch.equal(named_convolutions(backbone)["fc7"].weight, fresh)
    assert torch.equal(named_convolutions(backbone)["fc6"].weight, blobs["fc6"][0])


def test_another_classifier_of_the_same_names_is_refused(tmp_path: Path) -> None:
    """torchvision's VGG19: `features` with three convolutions more."""
    state = {f"features.{2 * i}.weight": torch.zeros(4, 4, 3, 3) for i in range(16)}
    torch.save(state, tmp_path / "vgg19.pth")
    with pytest.raises(FullconvError, match=r"vgg19.pth has 16 layers .* expected 13: conv1_1"):
        fill_backbone(backbone_of("vgg16"), read_weights(tmp_path / "vgg19.pth"))


@pytest.mark.parametrize(
    ("actual", "expected", "fit"),
    [
        ((8, 4, 3, 3), (8, 4, 3, 3), True),
        ((8, 36), (8, 4, 3, 3), True),
        ((1, 1, 8, 36), (8, 4, 3, 3), True),
        ((36, 8), (8, 4, 3, 3), False),
        ((4, 8, 3, 3), (8, 4, 3, 3), False),
        ((288,), (8, 4, 3, 3), False),
        ((8,), (8,), True),
        ((1, 1, 1, 8), (8,), True),
        ((1,), (1,), True),
        ((2,), (1,), False),
        ((1, 4, 1, 1), (1, 4, 1, 1), True),
        ((4,), (4, 1, 1, 1), True),
    ],
)
def test_shapes_that_fit(actual: tuple[int, ...], expected: tuple[int, ...], fit: bool) -> None:
    assert fits(torch.zeros(actual), torch.zeros(expected)) is fit
