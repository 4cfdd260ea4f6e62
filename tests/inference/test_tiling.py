"""Tiles against the whole image, at every pixel, in float64."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.layers import Conv2dSame
from torch import Tensor, nn

from fullconv.core.errors import FullconvError
from fullconv.geometry.grid import Grid
from fullconv.inference import tiling
from fullconv.inference.tiling import (
    Span,
    Tiles,
    bytes_per_pixel,
    inexact_operations,
    whole_image_difference,
    window_reader,
)
from fullconv.network.backbone import build
from fullconv.network.fcn import FCN
from fullconv.network.scores import Scores


def network(backbone: Any, **options: Any) -> FCN:
    """With random weights everywhere, in float64."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = FCN(backbone, 4, **options).double().eval().requires_grad_(False)
        for score in net.score.values():
            nn.init.normal_(score.weight, std=0.3)
        for module in net.modules():  # a branch that starts at zero would hide what it sees
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, std=0.3)
    image = torch.rand(1, 3, 160, 160, dtype=torch.float64)
    for score, feature in zip(net.score.values(), net.backbone(image), strict=True):
        score.bias.copy_(-score(feature).mean(dim=(0, 2, 3)))  # that many classes occur
    return net


def noise(*size: int) -> Tensor:
    return torch.rand(3, *size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


class Chain(nn.Module):
    """Convolutions of stride 2; returns the feature maps of strides 8, 16 and 32."""

    def __init__(self, *steps: nn.Module) -> None:
        super().__init__()
        self.steps = nn.ModuleList(steps)

    def forward(self, images: Tensor) -> list[Tensor]:
        maps = []
        for step in self.steps:
            images = step(images).relu()
            maps.append(images)
        return maps[2:]


class Halves(Chain):
    """Requires multiples of 32 pixels: the coarsest map is doubled and added."""

    def __init__(self) -> None:
        super().__init__(*(nn.Conv2d(k, 8, 3, 2, 1) for k in (3, 8, 8, 8, 8)))

    def forward(self, images: Tensor) -> list[Tensor]:
        fine, middle, coarse = super().forward(images)
        return [fine, middle + nn.functional.interpolate(coarse, scale_factor=2), coarse]


def pad_same() -> Chain:
    """Return convolutions that TensorFlow's rule pads, which depends on the size of the image."""
    sizes = ((3, 8, 3), (8, 8, 5), (8, 8, 3), (8, 8, 5), (8, 8, 3))
    return Chain(*(Conv2dSame(a, b, k, stride=2) for a, b, k in sizes))


def largest_difference(net: FCN, size: tuple[int, int], tile: int) -> float:
    """Return the largest difference of a score at any pixel, divided by the spread of the scores,
    and check that each pixel is in one tile and has the same label."""
    image = noise(*size)
    whole = net(image[None])
    scores, labels = whole.full(), whole.labels()
    largest, covered = 0.0, torch.zeros(size)
    for rows, columns, part in Tiles(net, net, tile=tile).scores(size, window_reader(image)):
        block = (..., slice(*rows), slice(*columns))
        covered[block] += 1
        largest = max(largest, float((part.full() - scores[block]).abs().max()))
        assert (part.labels() == labels[block]).all()
    assert (covered == 1).all()
    return largest / float(scores.std())


@pytest.mark.parametrize(
    ("backbone", "stride", "size"),
    [
        ("test_resnet", 8, (97, 621)),
        ("test_resnet", 32, (553, 67)),
        ("resnet10t", 8, (33, 803)),
        ("torchvision:alexnet", 8, (37, 811)),  # no padding: images are padded above as well
        (pad_same(), 8, (65, 701)),
        (Halves(), 32, (65, 801)),
    ],
)
def test_tiles_give_the_scores_and_labels_of_the_whole_image(
    backbone: Any, stride: int, size: tuple[int, int]
) -> None:
    net = network(backbone, stride=stride)
    assert inexact_operations(net) == ()
    assert largest_difference(net, size, tile=256) < 1e-12


@pytest.mark.parametrize(
    "options",
    [
        {"border": "zeros"},
        {"upsampling": "learned_skips"},
        {"upsampling": "learned", "border": "zeros"},
        {"upsampling": "learned", "placement": "half_pixel"},
        {"placement": "stretched", "stride": 32},
        {"placement": "stretched", "stride": 32, "border": "zeros"},
    ],
    ids=str,
)
def test_every_way_to_interpolate_the_scores(options: dict[str, Any]) -> None:
    net = network("test_resnet", **{"stride": 8, **options})
    assert inexact_operations(net) == ()
    for step in net.skip_upsampling.values():  # no bilinear interpolation any more
        step.weight.copy_(torch.rand_like(step.weight))
    assert largest_difference(net, (71, 391), tile=64) < 1e-12


class Layers(nn.Module):
    """Five convolutions of stride 2 with a pooling and a dilated convolution in between."""

    def __init__(self, kernels: list[int], paddings: list[int], dilation: int, pool: int) -> None:
        super().__init__()
        pairs = zip(kernels, paddings, strict=True)
        self.steps = nn.ModuleList(
            nn.Conv2d(3, 3, k, stride=2, padding=min(p, k // 2)) for k, p in pairs
        )
        self.between = nn.Conv2d(3, 3, 3, padding=dilation, dilation=dilation)
        self.pool = nn.MaxPool2d(pool, 1, pool // 2)

    def forward(self, images: Tensor) -> list[Tensor]:
        maps = []
        for index, step in enumerate(self.steps):
            images = step(images).tanh()
            if index == 0:
                images = self.pool(images)
            if index == 2:
                images = images + self.between(images)
            maps.append(images)
        return maps[2:]


@given(data=st.data())
@settings(max_examples=6)
def test_any_layers_and_any_sizes(data: st.DataObject) -> None:
    draw = data.draw
    kernels = draw(st.lists(st.integers(2, 5), min_size=5, max_size=5))
    paddings = draw(st.lists(st.integers(0, 2), min_size=5, max_size=5))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = Layers(kernels, paddings, draw(st.integers(1, 3)), draw(st.sampled_from([1, 3])))
    backbone = build(layers, stride=draw(st.sampled_from([8, 16, 32])))
    net = network(backbone, stride=int(backbone.grids[0].stride))
    size = (draw(st.integers(1, 330)), draw(st.integers(300, 420)))
    assert largest_difference(net, size, tile=draw(st.integers(1, 5)) * 32) < 1e-12


def test_a_smaller_halo_is_not_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    net = network("test_resnet", stride=8)
    window = Tiles.window

    def smaller(self: Tiles, pixels: int, block: tuple[int, int]) -> tuple[int, int]:
        start, stop = window(self, pixels, block)
        start += self.step if start else 0
        return start, stop - (self.step if stop < pixels else 0)

    monkeypatch.setattr(Tiles, "window", smaller)
    assert whole_image_difference(Tiles(net, net, tile=64), noise(64, 640), [4]).scores > 1e-6


def test_the_halo_is_half_a_field_up_to_the_next_cell() -> None:
    net = network("test_resnet", stride=32)
    (grid,) = net.backbone.grids
    tiles = Tiles(net, net, tile=320)
    start, stop = tiles.window(10_000, (3200, 3520))
    first = grid.center((3200 - grid.offset) // 32) - (grid.field - 1) / 2
    last = grid.center(-((grid.offset - 3519) // 32)) + (grid.field - 1) / 2
    assert start <= first < start + 32
    assert stop - 1 <= last < stop
    assert start % 32 == 0
    assert tiles.halo == max(3200 - start, stop - 3520)


@pytest.fixture(scope="module")
def small() -> FCN:
    return network("test_resnet", stride=8)


@given(st.tuples(st.integers(1, 3000), st.integers(1, 3000)), st.integers(1, 1500))
@settings(max_examples=15)
def test_blocks_contain_every_pixel_once(small: FCN, size: tuple[int, int], tile: int) -> None:
    tiles = Tiles(small, small, tile=tile)
    covered = torch.zeros(size, dtype=torch.uint8)
    for rows, columns in tiles.blocks(size):
        assert rows[0] % 32 == columns[0] % 32 == 0
        assert max(rows[1] - rows[0], columns[1] - columns[0]) <= tiles.tile
        covered[slice(*rows), slice(*columns)] += 1
    assert (covered == 1).all()
    assert 0 <= tiles.tile - tile < 32


class Squeezed(nn.Module):
    """Patches of 8 pixels, scaled by the mean over the image."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 6, 8, stride=8)
        self.gate = nn.Conv2d(6, 6, 1)

    def forward(self, images: Tensor) -> Tensor:
        x = self.patch(images)
        return x * self.gate(x.mean((2, 3), keepdim=True)).sigmoid()


def test_seams_are_blended_if_an_operation_sees_the_whole_image() -> None:
    net = network(Squeezed(), stride=8)
    tiles = Tiles(net, net, tile=96)
    assert not tiles.exact
    assert any("mean" in reason or "pool" in reason for reason in tiles.inexact_operations)
    image = noise(203, 317) * torch.linspace(0, 1, 317, dtype=torch.float64)
    difference = whole_image_difference(tiles, image, [4])
    assert 1e-6 < difference.scores < difference.spread
    assert 0 < difference.labels < 0.2 * difference.pixels == 0.2 * 203 * 317
    # Neighboring pixels differ little, at seams too.
    full = torch.zeros(4, 203, 317, dtype=torch.float64)
    for rows, columns, part in tiles.scores((203, 317), window_reader(image)):
        full[:, slice(*rows), slice(*columns)] = part.full()[0]
    whole = net(image[None]).full()[0]
    for axis in (1, 2):
        assert full.diff(dim=axis).abs().max() < 1.3 * whole.diff(dim=axis).abs().max()


@pytest.mark.parametrize(
    "options",
    [{}, {"border": "zeros"}, {"upsampling": "learned"}, {"placement": "stretched"}],
    ids=str,
)
@pytest.mark.parametrize("size", [(203, 317), (8, 500), (96, 97)])
def test_blended_tiles_of_a_network_without_context_are_exact(
    options: dict[str, Any], size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiling, "inexact_operations", lambda network: ("a test",))
    net = network(nn.Conv2d(3, 6, 8, stride=8), stride=8, **options)
    assert largest_difference(net, size, tile=64) < 1e-12


def test_tiles_outside_the_cache_are_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    net, image = network(Squeezed(), stride=8), noise(150, 310)
    runs: list[int] = []

    def run(images: Tensor) -> Scores:
        runs.append(1)
        return net(images)

    def values() -> list[Tensor]:
        tiles = Tiles(net, run, tile=64).scores((150, 310), window_reader(image))
        return [part.values for *_, part in tiles]

    cached = values()
    assert len(runs) == 3 * 5
    monkeypatch.setattr(tiling, "_CACHE_BYTES", 0)
    assert all((a == b).all() for a, b in zip(cached, values(), strict=True))
    assert len(runs) > 2 * 3 * 5


def test_reasons_why_tiles_are_not_exact() -> None:
    squeezed = FCN("mobilenetv3_small_050", 4, stride=32)
    assert any("SqueezeExcite" in reason for reason in inexact_operations(squeezed))
    stretched = FCN("test_resnet", 4, stride=8, placement="stretched")
    assert any("stretched" in reason for reason in inexact_operations(stretched))
    measured = network("test_resnet", stride=32)
    measured.backbone.traced_grids = (Grid(32, 0, float("inf")),)
    assert inexact_operations(measured) == ("a receptive field of unknown size",)


def test_windows_fit_the_memory_budget(small: FCN) -> None:
    tiles = Tiles(small, small)
    pixels = (tiles.tile + 2 * tiles.halo) ** 2
    window_bytes = pixels * bytes_per_pixel(small.backbone)
    assert 0.7 * tiling.WINDOW_BYTES < window_bytes <= tiling.WINDOW_BYTES
    # With learned upsampling every class has a float32 score at every pixel.
    options = {"stride": 8, "upsampling": "learned"}
    few, many = (FCN("test_resnet", classes, **options) for classes in (3, 150))
    tiles = Tiles(many, many)
    pixels = (tiles.tile + 2 * tiles.halo) ** 2
    assert pixels * (bytes_per_pixel(many.backbone) + 4 * 150) <= tiling.WINDOW_BYTES
    assert tiles.tile < Tiles(few, few).tile


def test_no_window_is_in_memory_while_the_next_one_runs(small: FCN) -> None:
    """Neither its pixels nor its scores, if the caller keeps none."""
    scores_of_windows: list[weakref.ref[Any]] = []
    windows: list[weakref.ref[Any]] = []

    def run(image: Tensor) -> Scores:
        earlier = [*scores_of_windows, *windows[: len(scores_of_windows)]]
        assert all(reference() is None for reference in earlier)
        scores: Scores = small(image)
        scores_of_windows.append(weakref.ref(scores.values))
        return scores

    def read(rows: Span, columns: Span) -> Tensor:
        size = (rows[1] - rows[0], columns[1] - columns[0])
        pixels = torch.zeros(3, *size, dtype=torch.float64)
        windows.append(weakref.ref(pixels))
        return pixels

    for block in Tiles(small, run, tile=64).scores((200, 100), read):
        del block
    assert len(scores_of_windows) == 8


@pytest.mark.parametrize("tile", [0, -5])
def test_tiles_without_pixels(small: FCN, tile: int) -> None:
    with pytest.raises(FullconvError, match=f"a tile side of {tile} pixels; expected 1 or more"):
        Tiles(small, small, tile=tile)
