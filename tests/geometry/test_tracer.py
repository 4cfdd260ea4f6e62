from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fullconv.geometry.positions import Axis, SpatialLayout, Untracked, layout_of
from fullconv.geometry.tracer import run_traced, set_layout

MAPS = (None, None, (0, 1), (1, 1))


def run(module: nn.Module, image: Tensor) -> Any:
    return module.to("meta")(image)


def test_tensors_carry_their_place() -> None:
    output = run_traced(nn.Conv2d(3, 4, 3, 2, 1), (32, 48), run)
    assert output.shape == (1, 4, 16, 24)
    assert output.device.type == "meta"
    axis = Axis(2, 0, -1, 1)
    assert layout_of(output) == SpatialLayout(MAPS, (axis, axis))


def test_a_image_is_where_it_is() -> None:
    output = run_traced(nn.Identity(), (5, 7), run)
    assert layout_of(output) == SpatialLayout(MAPS, (Axis(), Axis()))


class Named(nn.Module):
    """Pools over the image, itself or in a module of torch's."""

    def __init__(self, inner: nn.Module | None = None) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) if self.inner else x.mean((2, 3))  # type: ignore[no-any-return]


def test_operations_go_by_the_innermost_module_that_is_not_torchs() -> None:
    class Outer(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x)  # type: ignore[no-any-return]

    for module in (Outer(Named()), Outer(Named(nn.AdaptiveAvgPool2d(1)))):
        assert layout_of(run_traced(module, (8, 8), run)) == Untracked(
            frozenset({"Named (global pooling)"})
        )
    alone = run_traced(nn.AdaptiveAvgPool2d(1), (8, 8), run)
    assert layout_of(alone) == Untracked(frozenset({"global pooling"}))


def test_what_a_module_makes_out_of_sight_is_lost() -> None:
    class Hidden(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            with torch._C.DisableTorchFunction():
                return torch.empty(1, 2, x.shape[2], x.shape[3], device=x.device)

    assert layout_of(run_traced(Hidden(), (8, 8), run)) == Untracked(frozenset({"Hidden"}))


def test_in_place_operations_note_what_they_change() -> None:
    class InPlace(nn.Module):
        def forward(self, x: Tensor) -> list[Tensor]:
            y = torch.zeros_like(x) * 0 + x
            y.add_(x[:, :, :, :].mean((2, 3), keepdim=True))
            z = x.clone()
            z[:, :, 1:] = x[:, :, :-1]
            w = x.clone()
            w[:, :, 1:] = 0
            return [y, z, w]

    y, z, w = run_traced(InPlace(), (8, 8), run)
    assert "InPlace (global pooling)" in layout_of(y).whole  # type: ignore[union-attr]
    assert layout_of(z) == Untracked(frozenset({"InPlace (assignment)"}))
    assert layout_of(w) == SpatialLayout(MAPS, (Axis(), Axis()))


def test_constants_have_no_place() -> None:
    class Constant(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            grid = torch.arange(x.shape[2], device=x.device)
            assert layout_of(grid) is None
            return x + grid[:, None], x

    shifted, _ = run_traced(Constant(), (8, 8), run)
    assert layout_of(shifted) == SpatialLayout(MAPS, (Axis(), Axis()))


def test_nothing_stays_behind() -> None:
    """No mode and no hook, also after an error on the way."""
    hooks = nn.modules.module._global_forward_hooks
    before = len(hooks), len(nn.modules.module._global_forward_pre_hooks)
    run_traced(nn.Conv2d(3, 4, 3), (8, 8), run)
    with pytest.raises(RuntimeError):
        run_traced(nn.Conv2d(5, 4, 3), (8, 8), run)
    assert before == (len(hooks), len(nn.modules.module._global_forward_pre_hooks))
    ordinary = torch.zeros(1)
    set_layout(ordinary, Untracked())
    assert layout_of(ordinary + 1) is None
