"""Where the cells of a feature map sit in the image: `Grid`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Grid:
    """Where the cells of a feature map sit, in pixels of the network's input.

    Args:
        stride: distance between neighbouring cells.
        offset: centre of cell 0; pixel 0's centre is 0.0.
        field: receptive field, the width that a cell sees around its centre; `math.inf` where an
            operation sees the whole image, or where no bound could be derived.
        whole: those operations, named; or what was measured in place of a bound.

    >>> Grid(stride=8, offset=3.5).center(2)
    19.5
    """

    stride: float
    offset: float
    field: float = 1
    whole: tuple[str, ...] = ()

    def center(self, cell: float) -> float:
        """Pixel coordinate of a cell's centre."""
        return self.offset + self.stride * cell

    def __repr__(self) -> str:
        field = "whole image" if math.isinf(self.field) else f"{self.field:g}"
        whole = f", whole={self.whole}" if self.whole else ""
        return f"Grid(stride={self.stride:g}, offset={self.offset:g}, field={field}{whole})"

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; the field is None where it is the whole image."""
        return {
            "stride": self.stride,
            "offset": self.offset,
            "field": None if math.isinf(self.field) else self.field,
            "whole": list(self.whole),
        }


class Grids(list[Grid]):
    """A list of grids. Notebooks show it as a table and a drawing."""
