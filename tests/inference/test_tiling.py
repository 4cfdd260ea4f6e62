"""Tiles against the whole image: the same scores, on every pixel, in float64; and where an
operation sees the whole image, that this is said and how far off they are."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
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


class Halves(nn.Module):
    """Takes multiples of 32 pixels alone: what was halved is doubled and added."""

    def __init__(self) -> None:
        super().__init__()
        sizes = ((3, 8), (8, 8), (8, 8), (8, 8), (8, 8))
        self.steps = nn.ModuleList(nn.Conv2d(a, b, 3, 2, 1) for a, b in sizes)

    def forward(self, images: Tensor) -> list[Tensor]:
        maps = []
        for step in self.steps:
            images = step(images).relu()
            maps.append(images)
        back = nn.functional.interpolate(maps[4], scale_factor=2)
        return [maps[2], maps[3] + back, maps[4]]


class Same(nn.Sequential):
    """Convolutions of stride 2 as TensorFlow pads them."""

    def __init__(self) -> None:
        sizes = ((3, 8, 3), (8, 8, 5), (8, 8, 3), (8, 8, 5), (8, 8, 3))
        super().__init__(*(Conv2dSame(a, b, k, stride=2) for a, b, k in sizes))

    def forward(self, images: Tensor) -> list[Tensor]:
        maps = []
        for step in self:
            images = step(images).relu()
            maps.append(images)
        return maps[2:]


def largest_difference(net: FCN, size: tuple[int, int], tile: int) -> float:
    """Of the scores at the pixels, over their spread; every pixel of a tile is looked at, and every
    pixel is in one tile. The labels must be the same."""
    image = noise(*size)
    whole = net(image[None])
    scores, labels = whole.full(), whole.labels()
    worst, covered = 0.0, torch.zeros(size)
    for rows, columns, part in Tiles(net, net, tile=tile).scores(size, window_reader(image)):
        here = (..., slice(*rows), slice(*columns))
        covered[here] += 1
        worst = max(worst, float((part.full() - scores[here]).abs().max()))
        assert (part.labels() == labels[here]).all()
    assert (covered == 1).all()
    return worst / float(scores.std())


@pytest.mark.parametrize(
    ("backbone", "stride", "size"),
    [
        ("test_resnet", 8, (97, 621)),
        ("test_resnet", 32, (553, 67)),
        ("resnet10t", 8, (33, 803)),
        ("torchvision:alexnet", 8, (37, 811)),  # no padding: images are padded above as well
        (Same(), 8, (65, 701)),  # TensorFlow's SAME: what is padded depends on the size
        (Halves(), 32, (65, 801)),  # takes multiples of 32
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
def test_every_way_to_read_the_scores(options: dict[str, Any]) -> None:
    net = network("test_resnet", **{"stride": 8, **options})
    assert inexact_operations(net) == ()
    for step in net.skip_upsampling.values():  # no bilinear interpolation any more
        step.weight.copy_(torch.rand_like(step.weight))
    assert largest_difference(net, (71, 391), tile=64) < 1e-12


class Layers(nn.Module):
    """Five convolutions of stride 2, a pooling behind the first; the maps of stride 8, 16, 32."""

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
    """The other tests would see a halo that is too small."""
    net = network("test_resnet", stride=8)
    needed = Tiles.window

    def smaller(self: Tiles, pixels: int, block: tuple[int, int]) -> tuple[int, int]:
        start, stop = needed(self, pixels, block)
        start += self.step if start else 0
        return start, stop - (self.step if stop < pixels else 0)

    monkeypatch.setattr(Tiles, "window", smaller)
    image = noise(64, 640)
    tiles = Tiles(net, net, tile=64)
    assert whole_image_difference(tiles, image, [4]).scores > 1e-6


def test_the_halo_is_what_the_receptive_field_and_the_readings_take() -> None:
    """By hand, for stride 32 alone: half a field, up to the next cell, on whole steps."""
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


@given(st.tuples(st.integers(1, 3000), st.integers(1, 3000)), st.integers(1, 1500))
@settings(max_examples=15)
def test_blocks_hold_every_pixel_once(small: FCN, size: tuple[int, int], tile: int) -> None:
    tiles = Tiles(small, small, tile=tile)
    covered = torch.zeros(size, dtype=torch.uint8)
    for rows, columns in tiles.blocks(size):
        assert rows[0] % 32 == columns[0] % 32 == 0
        assert max(rows[1] - rows[0], columns[1] - columns[0]) <= tiles.tile
        covered[slice(*rows), slice(*columns)] += 1
    assert (covered == 1).all()
    assert 0 <= tiles.tile - tile < 32


@pytest.fixture(scope="module")
def small() -> FCN:
    return network("test_resnet", stride=8)


class Squeezed(nn.Module):
    """Patches of 8 pixels, scaled by the mean over the image."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 6, 8, stride=8)
        self.gate = nn.Conv2d(6, 6, 1)

    def forward(self, images: Tensor) -> Tensor:
        x = self.patch(images)
        return x * self.gate(x.mean((2, 3), keepdim=True)).sigmoid()


def test_an_operation_that_sees_the_whole_image_is_named_and_its_seams_are_blended() -> None:
    net = network(Squeezed(), stride=8)
    tiles = Tiles(net, net, tile=96)
    assert not tiles.exact
    assert any("mean" in reason or "pool" in reason for reason in tiles.inexact_operations)
    image = noise(203, 317) * torch.linspace(0, 1, 317, dtype=torch.float64)
    found = whole_image_difference(tiles, image, [4])
    assert 1e-6 < found.scores < found.spread
    assert 0 < found.labels < 0.2 * found.pixels == 0.2 * 203 * 317
    # Between two neighbouring pixels nothing jumps, at seams either.
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
def test_blended_tiles_of_a_network_without_context_are_the_whole_image(
    options: dict[str, Any], size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights that do not add up to 1, or a cell in the wrong place, would show."""
    monkeypatch.setattr(tiling, "inexact_operations", lambda network: ("said so here",))
    net = network(nn.Conv2d(3, 6, 8, stride=8), stride=8, **options)
    assert largest_difference(net, size, tile=64) < 1e-12


def test_neighbours_that_are_not_kept_are_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    net, image = network(Squeezed(), stride=8), noise(150, 310)
    runs: list[int] = []

    def run(images: Tensor) -> Scores:
        runs.append(1)
        return net(images)

    def values() -> Iterator[Tensor]:
        for *_, part in Tiles(net, run, tile=64).scores((150, 310), window_reader(image)):
            yield part.values

    kept = list(values())
    assert len(runs) == 3 * 5
    monkeypatch.setattr(tiling, "_CACHE_BYTES", 0)
    assert all((a == b).all() for a, b in zip(kept, values(), strict=True))
    assert len(runs) > 2 * 3 * 5


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: FCN("mobilenetv3_small_050", 4, stride=32), "SqueezeExcite"),
        (lambda: FCN("test_resnet", 4, stride=8, placement="stretched"), "stretched"),
    ],
)
def test_why_tiles_are_not_exact(make: Any, said: str) -> None:
    assert any(said in reason for reason in inexact_operations(make()))


def test_a_field_that_was_only_measured_proves_nothing(small: FCN) -> None:
    net = network("test_resnet", stride=32)
    net.backbone.traced_grids = (Grid(32, 0, float("inf")),)
    assert inexact_operations(net) == ("a receptive field of unknown size",)


def test_a_window_takes_no_more_than_the_budget(small: FCN) -> None:
    tiles = Tiles(small, small)
    side = tiles.tile + 2 * tiles.halo
    each = bytes_per_pixel(small.backbone)
    assert 0.7 * tiling.WINDOW_BYTES < side**2 * each <= tiling.WINDOW_BYTES


def test_scores_of_full_size_count_too() -> None:
    """With learned upsampling every class has a score at every pixel, in float32."""
    few, many = (
        Tiles(net, net)
        for classes in (3, 150)
        for net in [FCN("test_resnet", classes, stride=8, upsampling="learned")]
    )
    side = many.tile + 2 * many.halo
    each = bytes_per_pixel(many.network.backbone) + 4 * 150
    assert side**2 * each <= tiling.WINDOW_BYTES
    assert many.tile < few.tile


def test_nothing_of_a_window_is_held_while_the_next_one_runs(small: FCN) -> None:
    """Neither its pixels nor its scores, if the caller holds none."""
    seen: list[weakref.ref[Any]] = []
    windows: list[weakref.ref[Any]] = []

    def run(image: Tensor) -> Scores:
        assert all(one() is None for one in (*seen, *windows[: len(seen)]))
        scores: Scores = small(image)
        seen.append(weakref.ref(scores.values))
        return scores

    def read(rows: Span, columns: Span) -> Tensor:
        size = (rows[1] - rows[0], columns[1] - columns[0])
        pixels = torch.zeros(3, *size, dtype=torch.float64)
        windows.append(weakref.ref(pixels))
        return pixels

    for block in Tiles(small, run, tile=64).scores((200, 100), read):
        del block
    assert len(seen) == 8


@pytest.mark.parametrize("tile", [0, -5])
def test_tiles_without_pixels_are_refused(small: FCN, tile: int) -> None:
    with pytest.raises(FullconvError, match=f"a tile side of {tile} pixels; expected 1 or more"):
        Tiles(small, small, tile=tile)
