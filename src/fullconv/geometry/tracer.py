"""Run a network under a `TorchFunctionMode` that keeps the place of every tensor.

The state of a tensor stands in its attribute `place`; a tensor without one does not depend on the
image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from fullconv.geometry.op_rules import Call, after, iter_tensors
from fullconv.geometry.positions import Axis, SpatialLayout, State, Untracked, layout_of


def run_traced(
    module: nn.Module, size: tuple[int, int], run: Callable[[nn.Module, Tensor], Any]
) -> Any:
    """`run(module, image)` with an image (1, 3, H, W) on the meta device, followed. The tensors
    that come out carry `place`."""
    image = torch.empty(1, 3, *size, device="meta")
    mark(image, SpatialLayout((None, None, (0, 1), (1, 1)), (Axis(), Axis())))
    mode = _Follow()
    with mode.watching_modules(), mode:
        return run(module, image)


def mark(tensor: Tensor, state: State | None) -> None:
    """Notes what is known of a tensor."""
    tensor.place = state  # type: ignore[attr-defined]


# `constant.to(image)` does not depend on the image: the second tensor gives type and size.
LIKE = frozenset(("to", "type_as", "expand_as", "view_as", "reshape_as"))


class _Follow(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.modules: list[str] = []

    @contextmanager
    def watching_modules(self) -> Iterator[None]:
        """Know the module that runs, to name operations by; and catch what a module computed out
        of sight (scripted or compiled code)."""

        def enter(module: nn.Module, _args: Any) -> None:
            self.modules.append(type(module).__name__)

        def leave(_module: nn.Module, args: Any, output: Any) -> None:
            name = self.modules.pop()
            if any(layout_of(a) for a in iter_tensors(args)):
                for tensor in iter_tensors(output):
                    if layout_of(tensor) is None:
                        mark(tensor, Untracked(frozenset({name})))

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
        """The innermost module that is not one of torch's own, and what it does."""
        own = [m for m in self.modules if not hasattr(nn, m)]
        return f"{own[-1]} ({kind})" if own else kind

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        op = getattr(func, "__name__", str(func)).strip("_")
        inputs = iter_tensors(args[0] if op in LIKE else (args, kwargs))
        states = [(t, s) for t in inputs if (s := layout_of(t)) is not None]
        shapes = {id(t): tuple(t.shape) for t in inputs}  # in-place operations may change them
        output = func(*args, **kwargs)
        results = iter_tensors(output)
        if op == "setitem" and layout_of(args[2]) is not None:
            mark(args[0], Untracked(frozenset({self.name("assignment")})))
        if states and results:
            state = after(op, Call(args, kwargs, output, states, shapes, self.name))
            for tensor in results:
                mark(tensor, state)
        return output
