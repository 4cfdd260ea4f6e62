"""Run a network under a `TorchFunctionMode` that follows the layout of every tensor.

The state of a tensor is its attribute `spatial_layout`. A tensor without one does not depend on the
image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from fullconv.geometry.op_rules import Call, apply_rule, iter_tensors
from fullconv.geometry.positions import Axis, SpatialLayout, State, Untracked, layout_of


def run_traced(
    module: nn.Module, size: tuple[int, int], run: Callable[[nn.Module, Tensor], Any]
) -> Any:
    """Return `run(module, image)` for a traced image (1, 3, H, W) on the meta device. The tensors
    that come out carry their state; read it with `layout_of`."""
    image = torch.empty(1, 3, *size, device="meta")
    set_layout(image, SpatialLayout((None, None, (0, 1), (1, 1)), (Axis(), Axis())))
    mode = _TracingMode()
    with mode.watching_modules(), mode:
        return run(module, image)


def set_layout(tensor: Tensor, state: State | None) -> None:
    tensor.spatial_layout = state  # type: ignore[attr-defined]


# `constant.to(image)` does not depend on the image: the second tensor gives only type and size.
LIKE = frozenset(("to", "type_as", "expand_as", "view_as", "reshape_as"))


class _TracingMode(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.modules: list[str] = []

    @contextmanager
    def watching_modules(self) -> Iterator[None]:
        """Keep track of the running module, by which operations are named, and of outputs that
        were computed out of sight (by scripted or compiled code)."""

        def enter(module: nn.Module, _args: Any) -> None:
            self.modules.append(type(module).__name__)

        def leave(_module: nn.Module, args: Any, output: Any) -> None:
            name = self.modules.pop()
            if any(layout_of(a) for a in iter_tensors(args)):
                for tensor in iter_tensors(output):
                    if layout_of(tensor) is None:
                        set_layout(tensor, Untracked(frozenset({name})))

        handles = [
            nn.modules.module.register_module_forward_pre_hook(enter),
            nn.modules.module.register_module_forward_hook(leave),
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def name(self, kind: str) -> str:
        """Return the innermost module that is not torch's own, and the kind of operation."""
        modules = [m for m in self.modules if not hasattr(nn, m)]
        return f"{modules[-1]} ({kind})" if modules else kind

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        op = getattr(func, "__name__", str(func)).strip("_")
        inputs = iter_tensors(args[0] if op in LIKE else (args, kwargs))
        states = [(t, s) for t in inputs if (s := layout_of(t)) is not None]
        shapes = {id(t): tuple(t.shape) for t in inputs}  # in-place operations may change them
        output = func(*args, **kwargs)
        results = iter_tensors(output)
        if op == "setitem" and layout_of(args[2]) is not None:
            set_layout(args[0], Untracked(frozenset({self.name("assignment")})))
        if states and results:
            state = apply_rule(op, Call(args, kwargs, output, states, shapes, self.name))
            for tensor in results:
                set_layout(tensor, state)
        return output
