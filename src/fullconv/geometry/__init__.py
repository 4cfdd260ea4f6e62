"""Geometry: the positions of every feature map's cells in the image.

`trace_network` holds what people call: `trace` and `probe`. Below it, `tracer` runs a network and
follows every tensor, `op_rules` has one rule per operation, and `positions` describes a tensor's
cells.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fullconv.geometry.grid import Grid
    from fullconv.geometry.trace_network import probe, trace

__all__ = ["Grid", "probe", "trace"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'fullconv.geometry' has no attribute {name!r}")
    module = "grid" if name == "Grid" else "trace_network"  # which imports torch
    return getattr(import_module(f"fullconv.geometry.{module}"), name)
