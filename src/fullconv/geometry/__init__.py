"""Composition: follow an image through a network and keep, for every tensor, where its cells sit.

`positions` holds what is known of a tensor, `op_rules` what each operation does to it, `tracer`
runs a network under them, and `trace_network` holds what people call: `trace` and `probe`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fullconv.geometry.grid import Grid
    from fullconv.geometry.trace_network import probe, trace

__all__ = ["Grid", "probe", "trace"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'fullconv.geometry' has no attribute {name!r}")
    from fullconv.geometry import trace_network

    return getattr(trace_network, name)
