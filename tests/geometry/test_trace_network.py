from __future__ import annotations

import copy
import json
import math
from typing import Any

import pytest
import timm
import torch
from probe import View, averaged, views
from torch import Tensor, nn

from fullconv.core.errors import FullconvError
from fullconv.geometry.grid import Grid
from fullconv.geometry.trace_network import (
    evaluating,
    feature_maps,
    module_grids,
    probe,
    run_on_device,
    run_on_meta,
    trace,
)

SWIN = {"embed_dim": 6, "depths": (1, 1, 2, 1), "num_heads": (1, 1, 1, 1)}
SWIN |= {"strict_img_size": False}
DENSE = {"block_config": (1, 2, 2, 1), "growth_rate": 8}


@pytest.mark.parametrize(
    ("name", "options", "offset"),
    [
        ("vgg11", {}, 15.5),
        ("convnext_atto", {}, 15.5),
        ("swin_tiny_patch4_window7_224", SWIN, 15.5),
        ("resnet18", {}, 0),
        ("mobilenetv2_035", {}, 0),
        ("mobilenetv3_small_050", {}, 0),
        ("efficientnet_b0", {}, 0),
        ("regnety_002", {}, 0),
        ("densenet121", {}, 14),
    ],
)
def test_offsets_of_known_backbones_at_stride_32(
    name: str, options: dict[str, Any], offset: float
) -> None:
    coarsest = trace(pyramid(name, options), size=256 if "swin" in name else None)[-1]
    assert (coarsest.stride, coarsest.offset) == (32, offset)


def pyramid(name: str, options: dict[str, Any]) -> nn.Module:
    if name.startswith("vgg"):  # its fully connected layers are large and thrown away at once
        with torch.device("meta"):
            module: nn.Module = timm.create_model(name, features_only=True)
        return module.to_empty(device="cpu")
    return timm.create_model(name, features_only=True, **options)


# Checked by mass and support: every path through these networks has the same center, so reduced to
# averaging their cells see a distribution that is symmetric around it.
SYMMETRIC = [
    ("resnet18", {}),
    ("seresnet18", {}),
    ("resnetv2_18", {}),
    ("vgg11", {}),
    ("densenet121", DENSE),
    ("mobilenetv1_100", {}),
    ("mobilenetv2_035", {}),
    ("mobilenetv2_035", {"pad_type": "same"}),
    ("mobilenetv3_small_050", {}),
    ("mobilenetv4_conv_small_035", {}),
    ("tf_efficientnet_lite0", {}),
    ("tinynet_e", {}),
    ("regnetx_002", {}),
    ("regnety_002", {}),
    ("gernet_s", {}),
    ("convnext_atto", {"depths": (1, 1, 2, 1)}),
    ("convnextv2_atto", {"depths": (1, 1, 2, 1)}),
    ("swin_tiny_patch4_window7_224", SWIN),
    ("mnasnet_small", {}),
    ("spnasnet_100", {}),
    ("fbnetc_100", {}),
    ("hardcorenas_a", {}),
    ("lcnet_035", {}),
    ("ghostnet_050", {}),
    ("repghostnet_050", {}),
    ("repvgg_a0", {}),
    ("rexnet_100", {}),
    ("darknet17", {}),
    ("cs3darknet_s", {}),
    ("ese_vovnet19b_slim_dw", {}),
    ("dpn48b", {}),
    ("inception_next_atto", {}),
]
# Checked by support only: paths with different centres meet here, and by design the cell sits where
# the path that localizes best puts it, not at the mean of all. That path is a 2x2 pooling, half a
# cell further at each level: the shortcuts of ResNet-D from stride 4 on (4/2, + 8/2, + 16/2), those
# of DLA from stride 2 on; and once, in the stem, of HGNet.
LOPSIDED = [
    ("resnet10t", (0, 0, 2, 6, 14)),
    ("dla46_c", (0, 1, 3, 7, 15)),
    ("hgnetv2_b0", (1, 1, 1, 1)),
]


def measurements(
    name: str, options: dict[str, Any]
) -> list[tuple[Grid, Grid, tuple[int, View, View]]]:
    """Per feature map: its grid, its grid when reduced to averaging, and what its cells see."""
    module = pyramid(name, options)
    multiples = name.startswith("swin")
    grids = trace(module, size=256 if multiples else None)
    reduced = trace(averaged(module), size=256 if multiples else None)
    # Silenced attention and gates leave a finite field; the image holds it and a few cells more.
    rows = 32 * math.ceil((reduced[-1].field + 3 * 32) / 32)
    same = name.startswith("tf_") or options.get("pad_type") == "same"
    size = (rows + 1, 33) if same else (rows, 32)
    return list(zip(grids, reduced, views(module, size), strict=True))


@pytest.mark.parametrize(("name", "options"), SYMMETRIC, ids=str)
def test_cells_look_where_the_trace_says(name: str, options: dict[str, Any]) -> None:
    for grid, reduced, (cell, view, later) in measurements(name, options):
        assert view.center == pytest.approx(grid.center(cell), abs=1e-6)
        assert later.center - view.center == pytest.approx(32 if grid.stride <= 32 else 64)
        assert (reduced.stride, reduced.offset) == (grid.stride, grid.offset)
        assert reduced.field == view.last - view.first + 1
        assert grid.field in (reduced.field, math.inf)
        assert bool(grid.whole) == math.isinf(grid.field)


@pytest.mark.parametrize(("name", "offsets"), LOPSIDED)
def test_cells_of_lopsided_networks_see_the_field(name: str, offsets: tuple[int, ...]) -> None:
    checks = measurements(name, {})
    assert tuple(grid.offset for grid, *_ in checks) == offsets
    for grid, reduced, (cell, view, later) in checks:
        center = grid.center(cell)
        assert 2 * max(center - view.first, view.last - center) + 1 == reduced.field
        assert (later.first - view.first, later.last - view.last) == (32, 32)
        assert abs(center - view.center) < grid.stride / 2
        assert grid == reduced


def test_a_high_resolution_network_sees_the_field() -> None:
    """HRNet adds maps upsampled from coarser ones: cells differ by their phase, 32 px repeat."""
    for grid, reduced, (cell, view, later) in measurements("hrnet_w18_small", {}):
        center = grid.center(cell)
        assert (later.first - view.first, later.last - view.last) == (32, 32)
        assert 2 * max(center - view.first, view.last - center) + 1 <= reduced.field
        assert (grid.stride, grid.offset) == (reduced.stride, reduced.offset)


def test_inceptions_unpadded_layers() -> None:
    """Its field is larger than a quick test allows; three finer maps must do."""
    module = averaged(pyramid("inception_v3", {}))
    grids = trace(module)
    assert [g.offset for g in grids] == [3, 9, 13, 21, 37]
    for grid, (cell, view, _) in list(zip(grids, views(module, (320, 96)), strict=True))[:3]:
        assert view.center == pytest.approx(grid.center(cell))
        assert view.last - view.first + 1 == grid.field


def test_same_padding_depends_on_the_size() -> None:
    """TensorFlow's SAME: symmetric at 32 k + 1, one row more below than above at even sizes."""
    module = pyramid("mobilenetv2_035", {"pad_type": "same"})
    assert [g.offset for g in trace(module)] == [0, 0, 0, 0, 0]
    assert [g.offset for g in trace(module, size=256)] == [1, 3, 7, 15, 31]
    averaged(module)
    for size in (160, 161, 166):
        grids = trace(module, size=(size, size))
        for grid, (cell, view, _) in zip(grids, views(module, (size, size)), strict=True):
            if grid.field < 100:
                assert view.center == pytest.approx(grid.center(cell))


def test_attention_and_gates_are_named() -> None:
    grids = trace("mobilenetv3_small_050")
    assert grids[0].whole == ()
    assert grids[1].whole == ("SqueezeExcite (global pooling)",)
    assert math.isinf(grids[1].field)
    swin = trace(pyramid("swin_tiny_patch4_window7_224", SWIN), size=256)[-1]
    rolled = "SwinTransformerBlock (positions rolled)"
    assert swin.whole == (rolled, "WindowAttention (attention)")


def test_a_vision_transformer() -> None:
    vit = timm.create_model(
        "vit_tiny_patch16_224", features_only=True, embed_dim=24, num_heads=1, depth=12
    )
    for grid in trace(vit):
        assert (grid.stride, grid.offset, grid.field) == (16, 7.5, math.inf)
        assert "Attention (attention)" in grid.whole


def test_grid_speaks() -> None:
    grid = Grid(32, 15.5, 404)
    assert [grid.center(i) for i in (0, 1, 2.5)] == [15.5, 47.5, 95.5]
    assert repr(grid) == "Grid(stride=32, offset=15.5, field=404)"
    whole = Grid(32, 0, math.inf, ("SqueezeExcite (global pooling)",))
    assert "whole image" in repr(whole)
    assert "SqueezeExcite" in repr(whole)
    assert json.loads(json.dumps(whole.to_dict())) == {
        "stride": 32,
        "offset": 0,
        "field": None,
        "whole": ["SqueezeExcite (global pooling)"],
    }


class Mapped(nn.Module):
    def __init__(self, returned: str = "list") -> None:
        super().__init__()
        self.returned = returned
        self.stem = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.twice = nn.Conv2d(4, 4, 3, padding=1)
        self.tied = nn.Conv2d(4, 4, 3, padding=1)
        self.tied.weight = self.twice.weight
        self.norms = nn.ModuleList([self.norm])  # one module in two places

    def forward(self, x: Tensor) -> Any:
        x = self.norms[0](self.norm(self.stem(x)))
        y = self.tied(self.twice(self.twice(x)))
        return {"list": [x, y], "tuple": (x, y), "dict": {"a": x, "b": y}, "one": y}[self.returned]


@pytest.mark.parametrize("returned", ["list", "tuple", "dict"])
def test_maps_in_a_list_a_tuple_or_a_dict(returned: str) -> None:
    assert trace(Mapped(returned)) == [Grid(2, 0, 3), Grid(2, 0, 15)]
    assert trace(Mapped("one")) == [Grid(2, 0, 15)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_tracing_leaves_the_network_as_it_was(dtype: torch.dtype) -> None:
    module = Mapped().to(dtype).train()
    module.norm.eval()
    before = copy.deepcopy(module.state_dict())
    modes = [child.training for child in module.modules()]
    trace(module)
    probe(module)
    run_on_device(module, torch.empty(1, 3, 9, 9, device="meta"))
    module_grids(module)
    assert [child.training for child in module.modules()] == modes
    for name, tensor in module.state_dict().items():
        assert tensor.device.type == "cpu"
        assert torch.equal(tensor, before[name]), name
    assert module.tied.weight is module.twice.weight
    assert all(p.grad is None for p in module.parameters())
    assert not any(child._forward_hooks for child in module.modules())


def test_modes_come_back_after_an_error() -> None:
    module = Mapped().train()

    def fail() -> None:
        with evaluating(module):
            assert not module.norm.training
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert all(child.training for child in module.modules())


def test_running_on_meta_gives_the_true_shapes() -> None:
    module = Mapped("one").eval()
    image = torch.rand(1, 3, 33, 50)
    assert run_on_meta(module, image.to("meta")).shape == module(image).shape


def test_the_probe_agrees_with_the_trace() -> None:
    torch.manual_seed(0)
    for layer in (nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(3, 4, 8, 8), nn.Conv2d(3, 4, 1)):
        (traced,) = trace(layer)
        probed = probe(layer)
        assert (probed.stride, probed.offset) == (traced.stride, traced.offset)
        assert probed.whole == (f"measured, not derived: {traced.field:g} pixels or more",)
    # Where the gradient reaches over the whole image, so does the field.
    pooled = nn.Sequential(nn.Conv2d(3, 4, 4, 4), Gate())
    measured = probe(pooled)
    assert (measured.stride, measured.field) == (4, math.inf)
    assert measured.whole == ("probed: sees the whole image",)


class Gate(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * x.mean((2, 3), keepdim=True)


def test_what_does_not_depend_on_the_image_is_no_map() -> None:
    class Constant(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.ones(1, 2, 8, 8, requires_grad=True) * 2 + 0 * x.sum()

    with pytest.raises(FullconvError, match="feature map 0 does not depend on the image"):
        trace(Constant())


def test_feature_maps_only() -> None:
    class Scores(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mean((2, 3))

    message = r"expected feature maps \(N, C, h, w\), found \[\(1, 3\)\]"
    with pytest.raises(FullconvError, match=message) as caught:
        trace(Scores())
    assert "return [x8, x16, x32]" in caught.value.hint
    with pytest.raises(FullconvError, match="found str"):
        feature_maps("text")
    with pytest.raises(FullconvError, match=r"found \['NoneType'\]"):
        feature_maps([None])


def test_errors_name_the_network() -> None:
    with pytest.raises(FullconvError, match="timm has no feature pyramid of 'resnet81'"):
        trace("resnet81")
    with pytest.raises(FullconvError, match="Linear does not run on an image of 257 pixels"):
        trace(nn.Linear(4, 4))


def test_a_network_of_a_fixed_size_is_traced_at_that_size() -> None:
    class Fixed(nn.Module):
        def __init__(self, size: int) -> None:
            super().__init__()
            self.size = size
            self.conv = nn.Conv2d(3, 4, 4, 4)

        def forward(self, x: Tensor) -> Tensor:
            assert x.shape[-1] == self.size
            return self.conv(x)

    assert trace(Fixed(224)) == trace(Fixed(256)) == [Grid(4, 1.5, 4)]
    assert trace(Fixed(48), size=48) == trace(Fixed(48), size=(24, 48)) == [Grid(4, 1.5, 4)]


def test_grids_of_modules_in_the_order_they_ran() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    expected = [("0", Grid(2, 0, 3)), ("1", Grid(2, 0, 3)), ("2", Grid(4, 1, 5))]
    assert module_grids(net) == expected
    # What comes after a layer that does not fit is not there; what ran before is.
    broken = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.Linear(7, 7))
    assert module_grids(broken) == [("0", Grid(2, 0, 3))]
    with pytest.raises(FullconvError, match="Sequential does not run on an image"):
        module_grids(nn.Sequential(nn.Linear(7, 7)))


def test_modules_between_factorised_convolutions_are_left_out() -> None:
    """After 1x3 without padding, rows and columns differ; after 3x1 they agree again."""
    net = nn.Sequential(nn.Conv2d(3, 4, (1, 3)), nn.Conv2d(4, 4, (3, 1)), nn.Conv2d(4, 4, 4, 4))
    assert [name for name, _ in module_grids(net)] == ["1", "2"]
