"""Tracing follows every tensor of a network, names operations, and leaves nothing behind."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fullconv.geometry.positions import Axis, SpatialLayout, Untracked, layout_of
from fullconv.geometry.tracer import run_traced, set_layout

MAPS = (None, None, (0, 1), (1, 1))
IMAGE = SpatialLayout(MAPS, (Axis(), Axis()))


class Net(nn.Module):
    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(x)


def traced(network: Any) -> Any:
    module = network if isinstance(network, nn.Module) else Net(network)
    return run_traced(module, (8, 12), lambda module, image: module.to("meta")(image))


def test_tensors_carry_their_layout() -> None:
    output = traced(nn.Conv2d(3, 4, 3, 2, 1))
    assert (output.shape, output.device.type) == ((1, 4, 4, 6), "meta")
    assert layout_of(output) == SpatialLayout(MAPS, (Axis(2, 0, -1, 1), Axis(2, 0, -1, 1)))
    assert layout_of(traced(nn.Identity())) == IMAGE


def test_operations_are_named_by_the_innermost_module_that_is_not_torchs() -> None:
    for pooling in (lambda x: x.mean((2, 3)), nn.AdaptiveAvgPool2d(1)):
        for module in (Net(pooling), nn.Sequential(Net(pooling))):
            assert layout_of(traced(module)) == Untracked(frozenset({"Net (global pooling)"}))
    assert layout_of(traced(nn.AdaptiveAvgPool2d(1))) == Untracked(frozenset({"global pooling"}))


def test_what_a_module_computes_out_of_sight_is_untracked() -> None:
    def hidden(x: Tensor) -> Tensor:
        with torch._C.DisableTorchFunction():
            return torch.empty(1, 2, x.shape[2], x.shape[3], device=x.device)

    assert layout_of(traced(hidden)) == Untracked(frozenset({"Net"}))


def test_in_place_operations() -> None:
    def in_place(x: Tensor) -> list[Tensor]:
        added = torch.zeros_like(x) * 0 + x
        added.add_(x[:, :, :, :].mean((2, 3), keepdim=True))
        assigned, cleared = x.clone(), x.clone()
        assigned[:, :, 1:] = x[:, :, :-1]
        cleared[:, :, 1:] = 0
        return [added, assigned, cleared]

    added, assigned, cleared = map(layout_of, traced(in_place))
    assert "Net (global pooling)" in added.whole
    assert assigned == Untracked(frozenset({"Net (assignment)"}))
    assert cleared == IMAGE


def test_constants_have_no_layout() -> None:
    def constant(x: Tensor) -> Tensor:
        rows = torch.arange(x.shape[2], device=x.device)
        assert layout_of(rows) is None
        return x + rows[:, None]

    assert layout_of(traced(constant)) == IMAGE
    assert layout_of(torch.zeros(1)) is None
    assert layout_of(None) is None


def test_no_mode_and_no_hook_remains_even_after_an_error() -> None:
    modules = nn.modules.module
    before = len(modules._global_forward_hooks), len(modules._global_forward_pre_hooks)
    traced(nn.Conv2d(3, 4, 3))
    with pytest.raises(RuntimeError):
        traced(nn.Conv2d(5, 4, 3))
    after = len(modules._global_forward_hooks), len(modules._global_forward_pre_hooks)
    assert before == after
    ordinary = torch.zeros(1)
    set_layout(ordinary, Untracked())
    assert layout_of(ordinary + 1) is None
