from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fullconv.core.errors import FullconvError
from fullconv.geometry.grid import Grid
from fullconv.network.backbone import Backbone, build
from fullconv.network.backbone_card import BackboneCard


class Chain(nn.Module):
    """Halves the image by the given layers; returns the last maps, finest first, as asked."""

    def __init__(
        self, layer: Callable[[int], nn.Module], *, count: int = 5, returned: str = "list"
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layer(3 if i == 0 else 4) for i in range(count))
        self.returned = returned
        self.head = nn.Linear(4, 7)

    def forward(self, x: Tensor) -> Any:
        taps = []
        for layer in self.layers:
            x = torch.relu(layer(x))
            taps.append(x)
        if self.returned == "scores":
            return self.head(x.mean((2, 3)))
        return taps if self.returned == "list" else {f"x{i}": tap for i, tap in enumerate(taps)}


def symmetric(channels: int) -> nn.Module:
    return nn.Conv2d(channels, 4, 3, stride=2, padding=1)


def pooled(channels: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(channels, 4, 3, padding=1), nn.MaxPool2d(2))


def rounded_up(channels: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(channels, 4, 3, padding=1), nn.MaxPool2d(3, 2, ceil_mode=True))


def unpadded(channels: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(channels, 4, 3), nn.Conv2d(4, 4, 3, stride=2))


class Unpadded100(nn.Module):
    """The original FCN's way: 100 pixels around the image, fc6 without padding."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 4, 3, padding=100 if channels == 3 else 1)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.max_pool2d(self.conv(x), 2, ceil_mode=True)


class Same(nn.Module):
    """TensorFlow's SAME: padding that depends on the size."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 4, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        pads = [max((-(-n // 2) - 1) * 2 + 3 - n, 0) for n in (x.shape[3], x.shape[2])]
        around = [p for total in pads for p in (total // 2, total - total // 2)]
        return self.conv(nn.functional.pad(x, around))


class Multiples(nn.Module):
    """Takes only even sizes, as Swin and ViT take only multiples."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 4, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[2] % 2 or x.shape[3] % 2:
            raise ValueError(f"size must be even, found {tuple(x.shape[2:])}")
        return self.conv(x)


SAME = BackboneCard("timm", "mobilenetv2_035", {"pad_type": "same"})
SWIN = BackboneCard(
    "timm",
    "swin_tiny_patch4_window7_224",
    {"embed_dim": 6, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 1, 1)},
)
VIT = BackboneCard("timm", "vit_tiny_patch16_224", {"embed_dim": 24, "num_heads": 1, "depth": 3})
DENSE = BackboneCard("timm", "densenet121", {"block_config": (1, 1, 1, 1), "growth_rate": 8})

CHAINS = [symmetric, pooled, rounded_up, unpadded, Unpadded100, Same, Multiples]
SOURCES: list[tuple[Any, int]] = [
    *((kind, stride) for kind in CHAINS for stride in (4, 32)),
    ("test_resnet", 8),
    (SAME, 8),
    (SWIN, 4),
    (VIT, 16),
    (DENSE, 4),
]
SIZES = [*range(1, 81), 223, 224, 225, 481, 512, 513]


def built(source: Any, stride: int) -> Backbone:
    return build(Chain(source) if source in CHAINS else source, stride=stride)


@pytest.mark.parametrize(
    ("source", "stride"), SOURCES, ids=lambda x: str(getattr(x, "__name__", getattr(x, "name", x)))
)
def test_no_pixel_lies_far_outside_the_outermost_cells(source: Any, stride: int) -> None:
    """From the shapes of the maps of real padded images, two sizes at a time."""
    backbone = built(source, stride).to("meta").eval()
    shapes: dict[tuple[int, int], list[torch.Size]] = {}
    for height, width in zip(SIZES[::2], SIZES[1::2], strict=True):
        padded = tuple(backbone.pad_before + n + backbone.pad_after(n) for n in (height, width))
        if padded not in shapes:
            image = torch.empty(1, 3, height, width, device="meta")
            shapes[padded] = [m.shape for m in backbone(image)]
        for tap, (grid, shape) in enumerate(zip(backbone.grids, shapes[padded], strict=True)):
            assert shape[1] == backbone.channels[tap]
            for pixels, size, cells in zip((height, width), padded, shape[2:], strict=True):
                assert cells == backbone.cells(tap, size)
                assert cells >= 1
                assert grid.center(0) <= grid.stride / 2
                assert pixels - 1 - grid.center(cells - 1) <= grid.stride / 2


@pytest.mark.parametrize("source", [symmetric, pooled, unpadded, Same, Multiples])
def test_padding_is_the_smallest_that_does(source: Any) -> None:
    """One step less, and a pixel lies too far outside, or the network does not take the size."""
    backbone = built(source, 8)
    step = 1 if backbone.size_phase is None else backbone.coarsest_stride
    for pixels in range(1, 70):
        size = backbone.pad_before + pixels + backbone.pad_after(pixels)
        if backbone.size_phase is not None:
            assert size % backbone.coarsest_stride == backbone.size_phase
        if size - step >= backbone.pad_before + pixels:
            last = [backbone.cells(tap, size - step) - 1 for tap in range(3)]
            pairs = list(zip(backbone.grids, last, strict=True))
            assert any(
                cell < 0 or pixels - 1 - grid.center(cell) > grid.stride / 2 for grid, cell in pairs
            )


def test_images_come_out_where_they_were_whatever_is_added_around() -> None:
    backbone = built(unpadded, 8)
    assert backbone.pad_before > 0
    assert backbone.pad_before % backbone.coarsest_stride == 0
    raw = backbone.pyramid(torch.zeros(1, 3, 400, 400))
    assert len(raw) == 5
    assert [g.offset for g in backbone.grids] == [
        offset - backbone.pad_before for offset in (14, 30, 62)
    ]


@pytest.mark.parametrize(
    ("source", "phase"),
    [("test_resnet", None), (SAME, 1), (SWIN, 0), (VIT, None)],  # the last pads its images
    ids=lambda x: str(getattr(x, "name", x)),
)
def test_how_sizes_are_held_to_a_phase(source: Any, phase: int | None) -> None:
    backbone = build(source, stride=16)
    assert backbone.size_phase == phase
    if phase is not None:
        for pixels in (1, 31, 32, 33, 360, 480):
            size = pixels + backbone.pad_after(pixels)
            assert size % backbone.coarsest_stride == phase


def test_taps_from_the_finest_asked_for() -> None:
    for stride, expected in ((32, [32]), (16, [16, 32]), (8, [8, 16, 32]), (4, [4, 8, 16, 32])):
        backbone = build("resnet18", stride=stride)
        assert [int(g.stride) for g in backbone.grids] == expected
        assert [g.offset for g in backbone.grids] == [0] * len(expected)
        assert backbone.channels == (64, 128, 256, 512)[-len(expected) :]
        assert backbone.coarsest_stride == 32


def test_maps_with_channels_last_are_turned() -> None:
    backbone = build(SWIN, stride=4)
    assert backbone.channels == (6, 12, 24, 48)
    assert backbone.channels_last == (True,) * 4
    shapes = [m.shape for m in backbone.eval()(torch.zeros(2, 3, 50, 70))]
    assert shapes == [(2, 6, 16, 24), (2, 12, 8, 12), (2, 24, 4, 6), (2, 48, 2, 3)]


@pytest.mark.parametrize("returned", ["list", "dict", "scores"])
def test_modules_of_ones_own(returned: str) -> None:
    """A module that ends in class scores is cut behind the last layer of each stride."""
    module = Chain(pooled, returned=returned)
    backbone = build(module, stride=8)
    assert [(g.stride, g.offset) for g in backbone.grids] == [(8, 3.5), (16, 7.5), (32, 15.5)]
    assert backbone.channels == (4, 4, 4)
    image = torch.rand(1, 3, 64, 96)
    expected = Chain.forward(module, image) if returned == "list" else None
    maps = backbone(image)
    assert [m.shape[2:] for m in maps] == [(8, 12), (4, 6), (2, 3)]
    if expected:
        assert all(torch.equal(a, b) for a, b in zip(maps, expected[2:], strict=True))
    assert backbone.card == BackboneCard("module", "Chain")


def test_a_classifier_with_factorised_convolutions() -> None:
    class Factorised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk = nn.Sequential(
                nn.Conv2d(3, 4, (1, 3)), nn.Conv2d(4, 4, (3, 1)), nn.Conv2d(4, 4, 32, 32)
            )
            self.head = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.trunk(x).mean((2, 3)))

    (grid,) = build(Factorised(), stride=32).grids
    assert (grid.stride, grid.offset % 32) == (32, 16.5)


@pytest.mark.parametrize(
    ("name", "offsets"),
    [
        ("mobilenet_v3_small", (0, 0, 0)),
        ("squeezenet1_1", (-9, -1)),  # unpadded: 7 and 15, less the 16 pixels added above
        ("shufflenet_v2_x0_5", (0, 0, 0)),
        ("resnet18", (0, 0, 0)),
    ],
)
def test_torchvision_classifiers(name: str, offsets: tuple[float, ...]) -> None:
    backbone = build(f"torchvision:{name}", stride=8)
    assert [grid.offset for grid in backbone.grids] == list(offsets)
    maps = backbone.eval()(torch.rand(1, 3, 70, 90))
    assert [m.shape[1] for m in maps] == list(backbone.channels)
    for tap, grid in enumerate(backbone.grids):
        assert maps[tap].shape[2] == backbone.cells(
            tap, backbone.pad_before + 70 + backbone.pad_after(70)
        )
        assert 69 - grid.center(maps[tap].shape[2] - 1) <= grid.stride / 2


def test_a_torchvision_network_is_the_classifiers_own_trunk() -> None:
    backbone = build("torchvision:resnet18", stride=32).eval()
    import torchvision

    classifier = torchvision.models.resnet18().eval()
    classifier.load_state_dict(backbone.pyramid.state_dict(), strict=False)
    image = torch.rand(1, 3, 64, 65)
    (actual,) = backbone(image)
    captured: list[Tensor] = []
    classifier.layer4.register_forward_hook(lambda _m, _a, out: captured.append(out))
    below, right = backbone.pad_after(64), backbone.pad_after(65)
    classifier(nn.functional.pad(image, (0, right, 0, below)))
    torch.testing.assert_close(actual, captured[0])


@pytest.mark.parametrize(
    ("source", "stride", "message", "hint"),
    [
        ("resnet81", 8, "timm has no network 'resnet81'", "torchvision:NAME"),
        ("resnet1", 8, "it has ", "--backbone"),
        ("torchvision:resnet81", 8, "torchvision has no classifier 'resnet81'", "resnet18"),
        ("keras:resnet50", 8, "unknown backbone source 'keras'", 'source = "timm"'),
        (VIT, 8, "224 has no feature map at stride 8. Its strides are: 16.", "--stride 16"),
        ("resnet18", 2, "at stride 2. Its strides are: 4, 8, 16, 32.", "--stride 4"),
        (nn.Conv2d(3, 4, 3), 8, "Conv2d has no feature map at stride 4, 8, 16 or 32", "resnet18"),
        (
            nn.Sequential(nn.Flatten(), nn.Linear(3 * 257 * 257, 2)),
            8,
            "no layer at stride 4, 8",
            "return [",
        ),
    ],
)
def test_errors_say_what_there_is(source: Any, stride: int, message: str, hint: str) -> None:
    with pytest.raises(FullconvError) as caught:
        build(source, stride=stride)
    assert message in caught.value.message
    assert hint in caught.value.hint


@pytest.mark.parametrize("source", ["timm", "torchvision"])
def test_options_that_the_source_does_not_know(source: str) -> None:
    card = BackboneCard(source, "resnet18", {"hue": "red"})
    with pytest.raises(FullconvError, match="hue"):
        build(card, stride=8)


def test_a_network_of_one_size_cannot_take_every_image() -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 16, 16)
            self.position = nn.Parameter(torch.zeros(1, 4, 16, 16))

        def forward(self, x: Tensor) -> list[Tensor]:
            return [self.conv(x) + self.position]

    with pytest.raises(FullconvError, match="Fixed does not accept images of every size"):
        build(Fixed(), stride=16)


def test_a_network_that_computes_as_it_runs_cannot_be_cut() -> None:
    class Branching(Chain):
        def forward(self, x: Tensor) -> Any:
            for layer in self.layers:
                x = layer(x)
            return self.head(x.mean((2, 3)) if x.abs().sum() > 0 else x.amax((2, 3)))

    message = r"Branching cannot be cut at layers\.3\.0, layers\.4\.0"
    with pytest.raises(FullconvError, match=message):
        build(Branching(pooled), stride=8)


def test_building_keeps_quiet(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        build("test_resnet", stride=8)
    assert caplog.records == []


def test_building_leaves_a_module_as_it_was() -> None:
    module = Chain(symmetric).train()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    backbone = build(module, stride=8)
    assert all(child.training for child in module.modules())
    assert backbone.pyramid is module
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_what_only_building_needs_is_let_go() -> None:
    """A model that is copied or pickled takes no tables of shapes with it."""
    backbone = build("test_resnet", stride=8)
    own = vars(backbone).keys() - vars(torch.nn.Module()).keys()
    assert [name for name in own if isinstance(vars(backbone)[name], dict)] == []
    assert backbone(torch.zeros(1, 3, 50, 33))[0].shape[2:] == (7, 5)


def test_fields_and_names_of_what_sees_all_are_kept() -> None:
    grids = build(VIT, stride=16).grids
    assert all(math.isinf(grid.field) and grid.whole for grid in grids)
    assert build("resnet18", stride=8).grids[0] == Grid(8, 0, 99)
