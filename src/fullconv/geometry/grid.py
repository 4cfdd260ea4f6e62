"""`Grid`: the positions of a feature map's cells in the image."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Grid:
    """The positions of a feature map's cells, in pixels of the network's input.

    Args:
        stride: distance between neighboring cells.
        offset: center of cell 0. The center of pixel 0 is 0.0.
        field: receptive field, the width that a cell sees around its center; `math.inf` if an
            operation sees the whole image, or if no bound could be derived.
        whole: the names of those operations, or what was measured instead of a bound.

    >>> Grid(stride=8, offset=3.5).center(2)
    19.5
    """

    stride: float
    offset: float
    field: float = 1
    whole: tuple[str, ...] = ()

    def center(self, cell: float) -> float:
        """Return the pixel coordinate of a cell's center."""
        return self.offset + self.stride * cell

    def __repr__(self) -> str:
        field = "whole image" if math.isinf(self.field) else f"{self.field:g}"
        whole = f", whole={self.whole}" if self.whole else ""
        return f"Grid(stride={self.stride:g}, offset={self.offset:g}, field={field}{whole})"

    def to_dict(self) -> dict[str, Any]:
        """Return the grid for JSON; the field is None if it is the whole image."""
        return {
            "stride": self.stride,
            "offset": self.offset,
            "field": None if math.isinf(self.field) else self.field,
            "whole": list(self.whole),
        }


class Grids(list[Grid]):
    """A list of grids, which notebooks show as a table and a drawing.

    >>> Grids([Grid(8, 0), Grid(16, 0)])
    [Grid(stride=8, offset=0, field=1), Grid(stride=16, offset=0, field=1)]
    """
