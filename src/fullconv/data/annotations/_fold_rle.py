"""Run lengths of COCO: a mask as the lengths of its runs, down the columns, zeros first.

Uncompressed it is a list of numbers. Compressed it is text: each number in groups of five bits from
the lowest up, one character (48 + group, + 32 where more follow) each, signed; from the fourth
number on it is the difference to the number two before.

Shapes: H, W picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fullconv.core.errors import FullconvError
from fullconv.data.annotations.rasterize import Patch, Size

_LONGEST = 7  # groups of five bits: more than any picture needs

FORM = '"segmentation": {"size": [2, 3], "counts": [1, 4, 1]}'  # 2 x 3 pixels: 1 out, 4 in, 1 out


@dataclass(frozen=True, eq=False)
class Runs:
    """A mask of (H, W) pixels.

    Args:
        counts: lengths of the runs; the first one is of zeros, and may be 0.
        size: (H, W); H * W is the sum of the counts.
    """

    counts: NDArray[np.int64]
    size: Size

    @property
    def area(self) -> float:
        """In pixels."""
        return float(self.counts[1::2].sum())

    def pixels(self, size: Size) -> Patch:
        """The pixels of its runs of ones; `size` is its own."""
        height, width = self.size
        ones = np.arange(len(self.counts)) % 2 == 1
        mask = np.repeat(ones, self.counts).reshape(width, height).T
        return slice(0, height), slice(0, width), mask


def read_runs(table: Any) -> Runs:
    """Of {"size": [H, W], "counts": [...] or "..."}.

    >>> read_runs({"size": [2, 3], "counts": [1, 3, 2]}).pixels((2, 3))[2].astype(int).tolist()
    [[0, 1, 0], [1, 1, 0]]
    """
    size, counts = table.get("size"), table.get("counts")
    if not (isinstance(size, list) and len(size) == 2 and all(map(_is_count, size))):
        raise FullconvError(f"run lengths of the size {size!r}; expected [height, width].", FORM)
    if isinstance(counts, str):
        counts = decompress(counts)
    if not (isinstance(counts, list) and all(map(_is_count, counts))):
        raise FullconvError(
            "run lengths that are neither text nor a list of numbers from 0 up.", FORM
        )
    total, area = sum(counts), size[0] * size[1]
    if total != area:
        raise FullconvError(
            f"run lengths of {total} pixels in all; expected {size[0]} x {size[1]} = {area}.",
            FORM,
        )
    return Runs(np.array(counts, np.int64), (size[0], size[1]))


def runs_of(mask: NDArray[np.bool_]) -> Runs:
    """Of a mask (H, W).

    >>> runs_of(np.array([[0, 1, 0], [1, 1, 0]], bool)).counts.tolist()
    [1, 3, 2]
    """
    flat = mask.T.ravel()
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    starts = [0, 0] if flat[:1].any() else [0]  # the first run is of zeros
    counts = np.diff(np.concatenate([starts, edges, [flat.size]]))
    return Runs(counts.astype(np.int64), (mask.shape[0], mask.shape[1]))


def decompress(text: str) -> list[int]:
    """The numbers in compressed run lengths.

    >>> decompress("11T1")
    [1, 1, 36]
    """
    counts: list[int] = []
    value = groups = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64 or groups >= _LONGEST:
            raise FullconvError(f"compressed run lengths with {character!r} out of place.", FORM)
        value |= (code & 31) << 5 * groups
        groups += 1
        if code & 32:
            continue
        if code & 16:  # negative
            value -= 1 << 5 * groups
        counts.append(value + counts[-2] if len(counts) > 2 else value)
        value = groups = 0
    if groups:
        raise FullconvError("compressed run lengths that end in the middle of a number.", FORM)
    return counts


def _is_count(number: Any) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and number >= 0
