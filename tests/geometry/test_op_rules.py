"""One small network per kind of operation: the trace against gradients, in rows and columns.

The networks here are linear or nearly so, with positive weights: no term of a gradient cancels, so
the support of one cell's gradient is the field and its center of mass the center of the cell.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from probe import View, views
from torch import Tensor, nn

from fullconv.core.errors import FullconvError
from fullconv.geometry import trace_network
from fullconv.geometry.grid import Grid
from fullconv.geometry.trace_network import trace


class Net(nn.Module):
    """A 3x3 convolution of stride 2, then the operation in question."""

    def __init__(self, operation: Callable[[Tensor], Any], *, stem: bool = True) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, 2, 1, bias=False, dtype=torch.float64)
        nn.init.ones_(self.stem.weight)
        self.begin = self.stem if stem else nn.Identity()
        self.operation = operation

    def forward(self, x: Tensor) -> Any:
        return self.operation(self.begin(x))


def ones(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.ones(shape, dtype=torch.float64))


class Weighted(nn.Module):
    """A function of the maps and of a weight of ones, which moves to meta with the module."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor], *shape: int) -> None:
        super().__init__()
        self.weight = ones(*shape)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, self.weight)


def conv(kernel: Any, **options: Any) -> nn.Module:
    layer = nn.Conv2d(4, 4, kernel, bias=False, dtype=torch.float64, **options)
    nn.init.ones_(layer.weight)
    return layer


def transposed(kernel: int, stride: int, **options: Any) -> nn.Module:
    layer = nn.ConvTranspose2d(4, 4, kernel, stride, bias=False, dtype=torch.float64, **options)
    nn.init.ones_(layer.weight)
    return layer


def merge_patches(x: Tensor) -> Tensor:
    """Swin's: NHWC, four slices side by side."""
    x = x.permute(0, 2, 3, 1)
    parts = [x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)]
    return torch.cat(parts, -1).permute(0, 3, 1, 2)


def merge_by_reshape(x: Tensor) -> Tensor:
    """timm's Swin: the same by views."""
    n, c, h, w = x.shape
    x = x.permute(0, 2, 3, 1).reshape(n, h // 2, 2, w // 2, 2, c)
    return x.permute(0, 1, 3, 4, 2, 5).flatten(3).permute(0, 3, 1, 2)


def windows_and_back(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    x = x.view(n, c, h // 4, 4, w // 4, 4).permute(0, 2, 4, 3, 5, 1).reshape(-1, 4, 4, c)
    x = x.view(n, h // 4, w // 4, 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(n, h, w, c)
    return x.permute(0, 3, 1, 2)


def to_tokens_and_back(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    tokens = x.flatten(2).transpose(1, 2)
    tokens = F.layer_norm(tokens, (c,)) * 0 + tokens
    return tokens.transpose(1, 2).reshape(n, c, h, w)


def class_token(x: Tensor, token: Tensor) -> Tensor:
    n, c, h, w = x.shape
    tokens = torch.cat([token, x.flatten(2).transpose(1, 2)], dim=1)
    tokens = tokens * 2
    return tokens[:, 1:].transpose(1, 2).reshape(n, c, h, w)


def added_in_place(x: Tensor) -> Tensor:
    y = conv_of(x)
    y += x
    y.mul_(2).add_(x)
    return F.relu_(y)


def conv_of(x: Tensor, kernel: int = 5) -> Tensor:
    return F.avg_pool2d(x, kernel, 1, kernel // 2)


def assigned(x: Tensor) -> Tensor:
    y = x.clone()
    y[:, :, 2:] = x[:, :, :-2]
    y[:, :, :, 2:] = y[:, :, :, :-2].clone()
    return y


def chunks(x: Tensor) -> Tensor:
    a, b = x.chunk(2, dim=1)
    c, d = b.split([1, 1], dim=1)
    (e,) = d.unbind(1)
    return torch.cat([a, conv_of(c, 3), e.unsqueeze(1)], dim=-3)


# What is done at stride 2, the grid that must come out, and whether composition gives it exactly.
EXACT: list[tuple[str, Any, Grid]] = [
    ("1x1", conv(1), Grid(2, 0, 3)),
    ("3x3", conv(3, padding=1), Grid(2, 0, 7)),
    ("unpadded", conv(3), Grid(2, 2, 7)),
    ("even kernel", conv(4, stride=2, padding=1), Grid(4, 1, 9)),
    ("patches", conv(2, stride=2), Grid(4, 1, 5)),
    ("dilation", conv(3, padding=2, dilation=2), Grid(2, 0, 11)),
    ("dilation of an even kernel", conv(2, padding=1, dilation=3), Grid(2, 1, 9)),
    ("gaps between patches", conv(1, stride=3), Grid(6, 0, 3)),
    ("groups", nn.Sequential(conv(3, padding=1), nn.Identity()), Grid(2, 0, 7)),
    ("factorized", nn.Sequential(conv((1, 3)), conv((3, 1))), Grid(2, 2, 7)),
    ("padding by name", conv(3, padding="same"), Grid(2, 0, 7)),
    ("even padding by name", conv(4, padding="same"), Grid(2, 1, 9)),
    ("valid by name", conv(4, padding="valid"), Grid(2, 3, 9)),
    ("reflected", conv(3, padding=1, padding_mode="reflect"), Grid(2, 0, 7)),
    ("asymmetric pad", lambda x: conv_of(F.pad(x, (0, 1, 0, 1)), 1), Grid(2, 0, 3)),
    ("pad before", lambda x: F.pad(x, (2, 0, 2, 0)), Grid(2, -4, 3)),
    ("cropped by pad", lambda x: F.pad(x, (-3, 0, -3, -1)), Grid(2, 6, 3)),
    ("pad of channels", lambda x: F.pad(x, (1, 1, 1, 1, 0, 2)), Grid(2, -2, 3)),
    ("average", lambda x: F.avg_pool2d(x, 2), Grid(4, 1, 5)),
    ("average 3x3", nn.AvgPool2d(3, 2, 1), Grid(4, 0, 7)),
    ("average rounded up", nn.AvgPool2d(3, 2, ceil_mode=True), Grid(4, 2, 7)),
    ("transposed", transposed(4, 2, padding=1), Grid(1, -0.5, 6)),
    ("transposed, unpadded", transposed(4, 2), Grid(1, -1.5, 6)),
    ("transposed, 3x3", transposed(3, 1, padding=1), Grid(2, 0, 7)),
    ("transposed, dilated", transposed(3, 1, padding=2, dilation=2), Grid(2, 0, 11)),
    ("nearest", lambda x: F.interpolate(x, scale_factor=2), Grid(1, -0.5, 4)),
    ("bilinear", nn.Upsample(scale_factor=2, mode="bilinear"), Grid(1, -0.5, 6)),
    ("pixel shuffle", nn.PixelShuffle(2), Grid(1, -0.5, 4)),
    ("pixel unshuffle", nn.PixelUnshuffle(2), Grid(4, 1, 5)),
    ("space to depth", merge_by_reshape, Grid(4, 1, 5)),
    ("cells left out", lambda x: x[:, :, 1::2, 1::2][..., 1:, 1:], Grid(4, 6, 3)),
    ("cropped", lambda x: x[..., 1:-1, 1:-1], Grid(2, 2, 3)),
    ("a new dimension", lambda x: x[:, None, ..., 3:, 3:][:, 0], Grid(2, 6, 3)),
    ("some channels", lambda x: x[:, 1:3], Grid(2, 0, 3)),
    ("joined channels", lambda x: torch.cat([x, conv_of(x)], dim=1), Grid(2, 0, 11)),
    ("chunks", chunks, Grid(2, 0, 7)),
    ("residual", lambda x: x + conv_of(x), Grid(2, 0, 11)),
    ("in place", added_in_place, Grid(2, 0, 11)),
    ("a constant", lambda x: 3 + x * torch.arange(1, 5.0).view(4, 1, 1).to(x), Grid(2, 0, 3)),
    ("larger of two", lambda x: torch.max(x, conv_of(x)) + torch.min(x, other=x), Grid(2, 0, 11)),
    ("channels last", Weighted(
        lambda x, w: F.linear(x.permute(0, 2, 3, 1), w).permute(0, 3, 1, 2), 4, 4
    ), Grid(2, 0, 3)),
    ("windows and back", windows_and_back, Grid(2, 0, 3)),
    ("tokens and back", to_tokens_and_back, Grid(2, 0, 3)),
    ("class token", Weighted(class_token, 1, 1, 4), Grid(2, 0, 3)),
    ("softmax over channels", lambda x: x + 0 * x.softmax(1), Grid(2, 0, 3)),
    ("mean of channels", lambda x: x * 0 + x.mean(1, keepdim=True), Grid(2, 0, 3)),
    ("channels and back", lambda x: x.sum(dim=1).unsqueeze(1), Grid(2, 0, 3)),
    ("squeezed", lambda x: x.unsqueeze(2).squeeze(2), Grid(2, 0, 3)),
    ("swapped twice", lambda x: x.transpose(2, 3).transpose(-1, -2), Grid(2, 0, 3)),
    ("stacked", lambda x: torch.stack([x, conv_of(x, 3)], 1).sum(1), Grid(2, 0, 7)),
    ("stacked behind", lambda x: torch.stack([x, x], dim=-1).mean(-1), Grid(2, 0, 3)),
    ("stacked and flattened", lambda x: torch.stack([x, 2 * x], 2).flatten(1, 2), Grid(2, 0, 3)),
    ("moved", lambda x: x.movedim(1, 3).movedim(3, 1), Grid(2, 0, 3)),
    ("moved together", lambda x: x.moveaxis((1, 0), (-1, -2)).permute(2, 3, 0, 1), Grid(2, 0, 3)),
    ("gated", lambda x: F.glu(x, dim=1), Grid(2, 0, 3)),
    ("expanded", lambda x: x.expand(2, 2, -1, -1, -1).sum(0), Grid(2, 0, 3)),
    ("one channel as four", lambda x: x[:, :1].expand(-1, 4, -1, -1), Grid(2, 0, 3)),
    ("repeated", lambda x: x.repeat(1, 3, 1, 1)[:, 2:6], Grid(2, 0, 3)),
    ("variance of channels", lambda x: x + 0 * torch.var_mean(x, 1, keepdim=True)[0],
     Grid(2, 0, 3)),
    ("half precision and back", lambda x: x.float().double(), Grid(2, 0, 3)),
]  # fmt: skip


def view_of(net: nn.Module, size: int = 64, *, axis: int = 0) -> tuple[int, View, View]:
    """A cell near the middle of the first map, what it sees, and what the fourth cell after it
    sees."""
    ((cell, view, later),) = views(net, (size, size), axis=axis, cells=4)
    return cell, view, later


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize(
    ("operation", "expected"), [e[1:] for e in EXACT], ids=[e[0] for e in EXACT]
)
def test_composition_is_exact(
    operation: Any, expected: Grid, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trace_network, "probe", None)  # a place must come out
    net = Net(operation)
    (grid,) = trace(net, size=64)
    assert grid == expected
    for axis in (0, 1):
        cell, view, later = view_of(net, axis=axis)
        center = grid.center(cell)
        if grid.stride >= 2:
            assert view.center == pytest.approx(center)
            assert view.last - view.first + 1 == grid.field
        else:  # upsampled: fine cells see the same or lean to a side; four are two coarse ones
            assert abs(view.center - center) <= 1
            assert max(center - view.first, view.last - center) * 2 + 1 <= grid.field
        assert later.center - view.center == pytest.approx(4 * grid.stride)


@pytest.mark.parametrize("factor", [2, 3, 4, 5, 8])
@pytest.mark.parametrize("mode", ["nearest", "nearest-exact", "bilinear"])
def test_upsampling_by_any_factor(mode: str, factor: int) -> None:
    """The field holds what any of the fine cells sees, and no more; their mean is the center."""
    net = Net(lambda x: F.interpolate(x, scale_factor=factor, mode=mode), stem=False)
    (grid,) = trace(net, size=24)
    assert (grid.stride, grid.offset) == pytest.approx((1 / factor, (1 / factor - 1) / 2))
    reaches, errors = [], []
    image = torch.rand(1, 3, 24, 24, dtype=torch.float64, requires_grad=True)
    fine = net(image)
    for row in range(10 * factor, 11 * factor):
        (gradient,) = torch.autograd.grad(fine[0, 0, row].sum(), image, retain_graph=True)
        profile = gradient.sum((0, 1, 3))
        where = torch.nonzero(profile).flatten()
        center = grid.center(row)
        reaches.append(max(center - int(where[0]), int(where[-1]) - center))
        errors.append(float((profile * torch.arange(24)).sum() / profile.sum()) - center)
    assert grid.field == pytest.approx(2 * max(reaches) + 1)
    assert sum(errors) / factor == pytest.approx(0, abs=1e-9)
    if mode == "bilinear":
        assert errors == pytest.approx([0] * factor, abs=1e-9)


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (nn.MaxPool2d(2), Grid(4, 1, 5)),
        (nn.MaxPool2d(3, 2, 1), Grid(4, 0, 7)),
        (nn.MaxPool2d(3, 2, ceil_mode=True), Grid(4, 2, 7)),
        (nn.MaxPool2d(3, 1, 1, dilation=2), Grid(2, 2, 11)),
        (lambda x: F.max_pool2d(x, 2, return_indices=True)[0], Grid(4, 1, 5)),
        (lambda x: torch.max_pool2d(x, 2), Grid(4, 1, 5)),
    ],
)
def test_max_pooling_as_average_pooling(
    layer: Any, expected: Grid, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its gradient falls on one cell of several: over many images, on all of them."""
    monkeypatch.setattr(trace_network, "probe", None)
    net = Net(layer)
    (grid,) = trace(net, size=64)
    assert grid == expected
    torch.manual_seed(0)
    samples = [view_of(net) for _ in range(30)]
    cell = samples[0][0]
    first, last = min(f[1].first for f in samples), max(f[1].last for f in samples)
    assert last - first + 1 == grid.field
    assert (first + last) / 2 == grid.center(cell)


def test_slices_and_merged_patches_localise() -> None:
    """Four slices side by side are cells of four kinds, which share a grid in the middle."""
    (grid,) = trace(Net(merge_patches), size=64)
    assert (grid.stride, grid.offset) == (4, 1)
    cell, view, _ = view_of(Net(merge_patches))
    assert view.center == pytest.approx(grid.center(cell))
    assert grid.field == view.last - view.first + 1


def test_a_path_that_localizes_best_says_where_a_cell_sits() -> None:
    """A residual block whose branch is shifted: the identity holds the place, the field grows."""
    net = Net(lambda x: x + F.avg_pool2d(F.pad(x, (4, 0, 4, 0)), 5, 1))
    (grid,) = trace(net, size=64)
    assert (grid.stride, grid.offset) == (2, 0)
    cell, view, _ = view_of(net)
    assert grid.field == 2 * max(grid.center(cell) - view.first, view.last - grid.center(cell)) + 1


class Attention(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        q = x.flatten(2).transpose(1, 2)
        if self.kind == "sdpa":
            y = F.scaled_dot_product_attention(q, q, q)
        elif self.kind == "matmul":
            y = (q @ q.transpose(1, 2)).softmax(-1) @ q
        else:
            y = torch.einsum("nij,njc->nic", torch.einsum("nic,njc->nij", q, q).softmax(-1), q)
        return y.transpose(1, 2).reshape(n, c, h, w)


class SqueezeExcite(nn.Module):
    def __init__(self, pool: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.pool = pool
        self.fc = nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.fc(self.pool(x).float()).sigmoid()


class Norm(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


@pytest.mark.parametrize(
    ("block", "named"),
    [
        (Attention("sdpa"), "Attention (attention)"),
        (Attention("matmul"), "Attention (attention)"),
        (Attention("einsum"), "Attention (attention)"),
        (SqueezeExcite(lambda x: x.mean((2, 3), keepdim=True)), "SqueezeExcite (global pooling)"),
        (SqueezeExcite(lambda x: x.mean((-2, -1))[..., None, None]), None),
        (SqueezeExcite(nn.AdaptiveAvgPool2d(1)), "SqueezeExcite (global pooling)"),
        (SqueezeExcite(lambda x: x.amax(dim=(2, 3), keepdim=True)), None),
        (SqueezeExcite(lambda x: x.flatten(2).max(-1)[0][..., None, None]), None),
        (Norm(lambda x: F.group_norm(x, 2)), "Norm (normalization over the image)"),
        (Norm(lambda x: F.layer_norm(x, x.shape[1:])), "Norm (normalization over the image)"),
        (Norm(lambda x: F.normalize(x, dim=-1)), "Norm (normalization over the image)"),
        (Norm(lambda x: x.softmax(3)), "Norm (attention)"),
        (Norm(lambda x: x.roll(1, 2)), "Norm (positions rolled)"),
        (Norm(lambda x: x[:, :, ::2].repeat(1, 1, 2, 1)), "Norm (copies of the image)"),
        (Norm(lambda x: x[:, :, :1].expand(-1, -1, 32, -1)), "Norm (copies of the image)"),
        (Norm(lambda x: F.glu(x, 3).repeat(1, 1, 1, 2)), "Norm (gate along the image)"),
        (Norm(lambda x: x - torch.var_mean(x, (2, 3), keepdim=True)[1]), "Norm (global pooling)"),
        (Norm(lambda x: x / x.var(False)), "Norm (global pooling)"),
    ],
)
def test_what_sees_the_whole_image_is_named(block: nn.Module, named: str | None) -> None:
    torch.manual_seed(0)
    branch = Net(block).float()
    branch.stem.float()

    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.block = branch.stem, block

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            return x + self.block(x)

    (grid,) = trace(Residual(), size=64)
    assert (grid.stride, grid.offset, grid.field) == (2, 0, math.inf)
    assert grid.whole == (named or "SqueezeExcite (global pooling)",)


@pytest.mark.parametrize(
    "norm",
    [
        lambda x: F.normalize(x),
        lambda x: F.normalize(x, 2.0, 1),
        lambda x: F.layer_norm(x.permute(0, 2, 3, 1), (4,)).permute(0, 3, 1, 2),
        lambda x: F.local_response_norm(x, 2),
        nn.BatchNorm2d(4, dtype=torch.float64),
    ],
)
def test_norms_over_channels_are_local(norm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace_network, "probe", None)
    assert trace(Net(norm), size=64) == [Grid(2, 0, 3)]


def measured(grid: Grid) -> Grid:
    """The probe's result: the field it finds is the least that it can be."""
    reason = f"measured, not derived: {grid.field:g} pixels or more"
    return Grid(grid.stride, grid.offset, math.inf, (reason,))


# No rule says what these do; the gradients must.
UNKNOWN: list[tuple[str, Any, Grid]] = [
    ("product along channels", lambda x: x.cumsum(1), Grid(2, 0, 3)),
    ("pooled by powers", lambda x: F.lp_pool2d(x, 2, 2), Grid(4, 1, 5)),
    ("resized at the corners", lambda x: F.interpolate(
        x, scale_factor=0.5, mode="area"), Grid(4, 1, 5)),
    ("assigned", assigned, Grid(2, -4, 3)),
    ("unfolded", lambda x: F.unfold(x, 2, stride=2).view(1, 16, x.shape[2] // 2, -1),
     Grid(4, 1, 5)),
]  # fmt: skip


@pytest.mark.parametrize(
    ("operation", "expected"), [e[1:] for e in UNKNOWN], ids=[e[0] for e in UNKNOWN]
)
def test_what_no_rule_knows_is_probed(operation: Any, expected: Grid) -> None:
    net = Net(operation)
    assert trace(net, size=256) == [measured(expected)]
    cell, view, later = view_of(net)
    assert view.last - view.first + 1 == expected.field
    assert (view.first + view.last) / 2 == expected.center(cell)
    assert later.first - view.first == 4 * expected.stride


@pytest.mark.parametrize("stride", [2, 4, 8, 16, 32])
def test_a_probed_stride_is_that_of_the_cells(stride: int) -> None:
    """257 pixels and 9 rows make 28.6 pixels a row, and 32 are meant."""
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 4, 3, stride, 1)
    assert trace(layer) == [Grid(stride, 0, 3)]
    assert trace_network.probe(layer) == measured(Grid(stride, 0, 3))


class Fresh(nn.Module):
    """A residual block whose branch is silent before training: its last norm starts at zero."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, 2, 1)
        self.branch = nn.Sequential(nn.Conv2d(4, 4, 7, padding=3), nn.BatchNorm2d(4))
        nn.init.zeros_(self.branch[1].weight)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return (x + self.branch(x)).cumsum(1)


def test_a_branch_that_is_silent_before_training_makes_no_field_too_small() -> None:
    net = Fresh()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    (fresh,) = trace(net)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert (fresh.stride, fresh.offset, fresh.field) == (2, 0, math.inf)
    assert fresh.whole == ("measured, not derived: 3 pixels or more",)
    nn.init.ones_(net.branch[1].weight)
    (trained,) = trace(net)
    assert (trained.stride, trained.offset, trained.field) == (2, 0, math.inf)
    assert trained.whole == ("measured, not derived: 15 pixels or more",)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")
def test_a_scripted_module_is_probed() -> None:
    torch.manual_seed(0)
    inner = torch.jit.script(nn.Sequential(nn.Conv2d(4, 4, 4, 4)))
    around = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), inner, nn.LeakyReLU())
    assert trace(around) == [measured(Grid(8, 3, 9))]
    whole = torch.jit.script(nn.Sequential(nn.Conv2d(3, 4, 4, 4)))
    assert trace(whole) == [measured(Grid(4, 1.5, 4))]


@pytest.mark.parametrize(
    ("operation", "rows", "columns"),
    [
        (conv(3, stride=(2, 4)), "stride 4 and offset 2", "stride 8 and offset 2"),
        (conv((3, 5), padding=1), "stride 2 and offset 0", "stride 2 and offset 2"),
        (lambda x: F.avg_pool2d(x, (2, 4)), "stride 4 and offset 1", "stride 8 and offset 3"),
        (lambda x: x[:, :, ::2], "stride 4 and offset 0", "stride 2 and offset 0"),
        (lambda x: F.pad(x, (1, 0, 0, 0)), "stride 2 and offset 0", "stride 2 and offset -2"),
        (lambda x: F.interpolate(x, scale_factor=(2, 1)), "stride 1 and offset -0.5", "stride 2"),
    ],
)
def test_rows_unlike_columns_are_refused(operation: Any, rows: str, columns: str) -> None:
    message = f"{rows} along the rows, but {columns}.* along the columns; they must be equal"
    with pytest.raises(FullconvError, match=message):
        trace(Net(operation), size=64)


def test_cells_of_two_kinds_are_not_one() -> None:
    """Strided by two, cropped to fit and added to what was not: no grid says where that looks."""
    net = Net(lambda x: x[:, :, ::2, ::2] + x[:, :, :16, :16])
    (grid,) = trace(net, size=64)
    assert grid.whole or grid.field > 3  # probed
