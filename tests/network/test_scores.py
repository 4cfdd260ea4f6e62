from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from probe import averaged
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from fullconv.core.errors import FullconvError
from fullconv.geometry.grid import Grid
from fullconv.geometry.trace_network import trace
from fullconv.network.backbone import Backbone, build
from fullconv.network.backbone_card import BackboneCard
from fullconv.network.kernels import library, reference
from fullconv.network.scores import Scores


def ramp_of(
    backbone: Backbone, size: tuple[int, int], axis: int
) -> list[tuple[Tensor, Grid, float]]:
    """Per tap: the map (1, 1, h, w) that an image of its own row (column) numbers becomes, its
    grid, and its field. Divided by what an image of ones becomes, for zero padding dims the border
    and residual sums add up."""
    numbers = torch.arange(size[axis], dtype=torch.float64)
    ramp = numbers.view((-1, 1) if axis == 0 else (1, -1)).expand(1, 3, *size)
    traced = trace(backbone.pyramid)  # without gates, whose field is the whole image
    with torch.no_grad():
        pairs = zip(backbone(ramp), backbone(torch.ones_like(ramp)), strict=True)
        # Cells in the padding alone see nothing.
        values = [torch.where(b > 0, a / b, 0)[:, :1] for a, b in pairs]
    fields = [traced[tap].field for tap in backbone.taps]
    return list(zip(values, backbone.grids, fields, strict=True))


def small_vgg() -> nn.Module:
    layers: list[nn.Module] = []
    channels = 3
    for _ in range(5):
        layers += [nn.Conv2d(channels, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        channels = 4
    return Taps(nn.Sequential(*layers), (5, 8, 11, 14))


class Taps(nn.Module):
    def __init__(self, chain: nn.Sequential, at: tuple[int, ...]) -> None:
        super().__init__()
        self.chain = chain
        self.at = at

    def forward(self, x: Tensor) -> list[Tensor]:
        actual = []
        for i, layer in enumerate(self.chain):
            x = layer(x)
            if i in self.at:
                actual.append(x)
        return actual


SAME = BackboneCard("timm", "mobilenetv2_035", {"pad_type": "same"})
CONVNEXT = BackboneCard("timm", "convnext_atto", {"depths": (1, 1, 1, 1)})
DENSE = BackboneCard("timm", "densenet121", {"block_config": (1, 2, 2, 1), "growth_rate": 8})
# A trunk, the offsets of its taps at strides 4, 8, 16, 32, and a size that holds the widest field.
RAMPS: list[tuple[Any, tuple[float, ...], int]] = [
    (small_vgg, (1.5, 3.5, 7.5, 15.5), 300),
    (CONVNEXT, (1.5, 3.5, 7.5, 15.5), 530),
    ("resnet18", (0, 0, 0, 0), 577),
    (SAME, (0, 0, 0, 0), 640),
    (DENSE, (0, 2, 6, 14), 350),
    ("ese_vovnet19b_slim_dw", (0, 4, 12, 28), 560),
]


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize(
    ("source", "offsets", "pixels"), RAMPS, ids=lambda x: getattr(x, "name", str(x))[:24]
)
def test_a_ramp_comes_back_as_the_coordinate(
    source: Any, offsets: tuple[float, ...], pixels: int, axis: int
) -> None:
    backbone = build(source() if callable(source) else source, stride=4)
    assert tuple(grid.offset % grid.stride for grid in backbone.grids) == offsets
    averaged(backbone.pyramid)
    size = (pixels, 40) if axis == 0 else (40, pixels)
    assert_coordinates(backbone, size, axis)


def assert_coordinates(
    backbone: Backbone, size: tuple[int, int], axis: int, least: int = 20
) -> None:
    """The ramp has the coordinate at every pixel whose cells do not see the border."""
    numbers = torch.arange(size[axis], dtype=torch.float64)
    for values, grid, field in ramp_of(backbone, size, axis):
        full = Scores(values, grid, size).full()
        assert full.shape == (1, 1, *size)
        # A pixel is read between two cells, up to a stride away, that see half a field further.
        reach = grid.stride + (field - 1) / 2
        inside = (numbers >= reach) & (numbers <= size[axis] - 1 - reach)
        assert inside.sum() > least
        read = full[0, 0].select(1 - axis, 20)
        assert (read - numbers)[inside].abs().max() < 1e-3


def test_a_ramp_through_unpadded_layers() -> None:
    """Inception's first layers: no padding, so the image gets 32 pixels above and left."""
    chain = nn.Sequential(
        *(nn.Conv2d(3, 4, 3, 2), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3, padding=1)),
        *(nn.MaxPool2d(3, 2), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(4, 4, 3, 2), nn.MaxPool2d(3, 2)),
    )
    backbone = build(Taps(chain, (3, 6, 7, 8)), stride=4)
    raw = (5, 13, 21, 37)
    assert tuple(g.offset + backbone.pad_before for g in backbone.grids) == raw
    assert backbone.pad_before == 32
    averaged(backbone.pyramid)
    assert_coordinates(backbone, (300, 60), 0, least=50)


def test_plain_interpolation_is_half_a_stride_off_on_a_resnet() -> None:
    backbone = build("resnet18", stride=32)
    averaged(backbone.pyramid)
    size = (640, 32)  # 20 and 1 cells of a network that knows no more: nothing is stretched
    ((values, grid, field),) = ramp_of(backbone, size, 0)
    numbers = torch.arange(640, dtype=torch.float64)
    inside = (numbers > field / 2 + 48) & (numbers < 639 - field / 2 - 48)
    naive = F.interpolate(values[:, :, :20, :1], size, mode="bilinear", align_corners=False)
    exact = Scores(values, grid, size).full()
    wrong = (naive[0, 0, :, 16] - numbers)[inside]
    assert wrong.tolist() == pytest.approx([-15.5] * len(wrong), abs=1e-3)
    assert (exact[0, 0, :, 16] - numbers)[inside].abs().max() < 1e-3


@pytest.mark.parametrize("stride", [1, 7.5, 32])
def test_each_axis_may_have_a_grid_of_its_own(stride: float) -> None:
    values = torch.randn(2, 4, 3, 5, generator=torch.Generator().manual_seed(1))
    size = (round(3 * stride) + 1, round(5 * stride) + 5)
    rows, columns = (Grid(n / m, (n / m - 1) / 2) for n, m in zip(size, (3, 5), strict=True))
    scores = Scores(values, rows, size, columns)
    expected = F.interpolate(values, size, mode="bilinear", align_corners=False)
    torch.testing.assert_close(scores.full(), expected, rtol=0, atol=1e-5)
    assert (scores.labels() == expected.argmax(1)).float().mean() > 0.999
    largest = expected.softmax(1).max(1).values
    torch.testing.assert_close(scores.confidence(), largest, rtol=0, atol=1e-5)
    target = torch.randint(0, 4, (2, *size))
    theirs = values.clone().requires_grad_()
    loss = F.cross_entropy(F.interpolate(theirs, size, mode="bilinear"), target)
    loss.backward()
    ours = values.clone().requires_grad_()
    actual = Scores(ours, rows, size, columns).loss(target)
    actual.backward()
    assert actual.item() == pytest.approx(loss.item(), rel=1e-5)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("size", [(20, 44), (7, 9), (61, 22)])
def test_scores_of_a_resized_image_are_read_at_the_first_one(size: tuple[int, int]) -> None:
    """Pixel x of the image of n pixels lies at (x + 1/2) m / n - 1/2 of the one of m."""
    values = torch.randn(1, 3, 4, 6, generator=torch.Generator().manual_seed(1))
    small = Scores(values, Grid(8, 3.5), (31, 47))
    actual = small.resized(size)
    assert actual.size == size
    grid = F.affine_grid(torch.eye(2, 3)[None], [1, 1, *size], align_corners=False)
    # grid_sample has -1 and 1 at the outer edges of the cells, which reach from -0.5 to 31.5.
    reach = torch.tensor([47 / 48, 31 / 32])
    shifted = (grid + 1) * reach - 1
    expected = F.grid_sample(values, shifted, padding_mode="border", align_corners=False)
    torch.testing.assert_close(actual.full(), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("grid", [Grid(8, 3.5), Grid(8, -4.0), Grid(1, 0), Grid(2.5, 0.75)])
@pytest.mark.parametrize("part", [((0, 40), (0, 50)), ((13, 14), (20, 37)), ((39, 40), (0, 1))])
def test_a_part_is_read_as_it_is_in_the_whole(
    grid: Grid, part: tuple[tuple[int, int], tuple[int, int]]
) -> None:
    cells = [math.ceil(pixels / grid.stride) for pixels in (40, 50)]
    values = torch.randn(1, 3, *cells, dtype=torch.float64)
    whole = Scores(values, grid, (40, 50), Grid(8, 1.0) if grid.stride == 8 else None)
    here = (..., slice(*part[0]), slice(*part[1]))
    actual = whole.part(*part)
    assert torch.allclose(actual.full(), whole.full()[here], atol=1e-12)
    assert (actual.labels() == whole.labels()[here]).all()
    assert actual.values.shape[2] <= (part[0][1] - part[0][0] - 1) / grid.stride + 3


def scores_of(
    classes: int = 3, cells: tuple[int, int] = (2, 3), size: tuple[int, int] = (9, 11)
) -> Scores:
    values = torch.randn(2, classes, *cells, generator=torch.Generator().manual_seed(1))
    return Scores(values, Grid(4, 1.5), size)


def test_the_three_readings_agree() -> None:
    scores = scores_of(5)
    full = scores.full()
    assert full.shape == (2, 5, 9, 11)
    assert torch.equal(scores.labels().long(), full.argmax(dim=1))
    target = torch.randint(0, 5, (2, 9, 11))
    target[0, :3] = 255
    assert scores.loss(target) == pytest.approx(
        float(F.cross_entropy(full, target, ignore_index=255)), rel=1e-5
    )
    assert scores.num_classes == 5


INTEGERS = [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16]


@pytest.mark.parametrize("dtype", INTEGERS)
def test_ids_of_any_integer_type(dtype: torch.dtype) -> None:
    scores = scores_of()
    target = torch.arange(2 * 9 * 11).reshape(2, 9, 11) % 3
    assert scores.loss(target.to(dtype)) == scores.loss(target)


def test_ids_at_the_ends_of_a_byte() -> None:
    """256 is 0 and -1 is 255 in eight bits: compared there, ids are taken for others."""
    scores = scores_of(256)
    target = torch.randint(0, 256, (2, 9, 11))
    target[0, 0, 0] = 255
    for ignored in (256, 300, -1, -100):
        loss = scores.loss(target.to(torch.uint8), ignore_index=ignored)
        assert loss == pytest.approx(
            float(F.cross_entropy(scores.full(), target, ignore_index=ignored)), rel=1e-5
        )


def test_half_precision_is_summed_in_single() -> None:
    scores = scores_of()
    target = torch.zeros(2, 9, 11, dtype=torch.uint8)
    half = Scores(scores.values.half(), scores.grid, scores.size)
    assert half.loss(target).dtype == torch.float32
    assert half.loss(target) == pytest.approx(float(scores.loss(target)), abs=2e-3)


def test_autocast_does_not_blunt_the_reading() -> None:
    """Matrix products go to bfloat16 under autocast, which holds no pixel coordinate."""
    scores = scores_of(cells=(8, 9), size=(30, 33))
    target = torch.randint(0, 3, (2, 30, 33))
    loss, full, labels = scores.loss(target), scores.full(), scores.labels()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert scores.loss(target) == loss
        assert torch.equal(scores.full(), full)
        assert torch.equal(scores.labels(), labels)


def test_class_weights_of_any_precision() -> None:
    scores = scores_of()
    target = torch.randint(0, 3, (2, 9, 11))
    weights = torch.tensor([1.0, 2.0, 0.5])
    assert scores.loss(target, class_weights=weights.double()) == pytest.approx(
        float(scores.loss(target, class_weights=weights))
    )


def test_a_target_of_another_size_is_refused() -> None:
    message = r"target has the shape \(2, 9, 12\); the images have \(2, 9, 11\) \(N, H, W\)"
    with pytest.raises(FullconvError, match=message):
        scores_of().loss(torch.zeros(2, 9, 12, dtype=torch.uint8))
    with pytest.raises(FullconvError, match=r"target has the shape \(1, 9, 11\)"):
        scores_of().loss(torch.zeros(1, 9, 11, dtype=torch.uint8))


def test_ids_out_of_range_are_named() -> None:
    target = torch.zeros(2, 9, 11, dtype=torch.int64)
    target[0, 0, :3] = torch.tensor([3, 7, 255])
    message = r"class ids \[3, 7\]; expected 0..2, or 255 for ignored"
    with pytest.raises(FullconvError, match=message) as caught:
        scores_of().loss(target)
    assert caught.value.hint == "fullconv check DATA"


class Largest(TorchDispatchMode):
    """Notes how many numbers the largest tensor made held."""

    numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        for built in output if isinstance(output, (tuple, list)) else [output]:
            if isinstance(built, Tensor):
                self.numbers = max(self.numbers, built.numel())
        return output


@pytest.mark.parametrize("backend", ["", "reference"])
def test_scores_of_full_size_never_exist(monkeypatch: pytest.MonkeyPatch, backend: str) -> None:
    def refuse(*_: Any) -> Tensor:
        raise AssertionError("full() was called")

    monkeypatch.setattr(reference, "full", refuse)
    monkeypatch.setenv(library.VARIABLE, backend)
    monkeypatch.setattr(reference, "STRIP_BYTES", 2**16)
    values = torch.randn(2, 20, 25, 40, requires_grad=True)
    scores = Scores(values, Grid(8, 0), (193, 307))
    target = torch.randint(0, 20, (2, 193, 307), dtype=torch.uint8)
    with Largest() as largest:
        loss = scores.loss(target)
        loss.backward()
        scores.labels()
    assert largest.numbers <= max(2 * 193 * 307, values.numel())  # the target itself; the cells
    assert largest.numbers < 2 * 20 * 193 * 307 / 10
