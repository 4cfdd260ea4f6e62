"""Regions: pixels of one id that hang together over their sides; those that are too small join
what surrounds them.

Nothing here needs torch. Shapes: H, W image · R regions.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import Any

import numpy as np
from numpy.typing import NDArray


def label_regions(ids: NDArray[Any]) -> NDArray[np.int32]:
    """(H, W) ids -> (H, W) the number of each pixel's region, 0 .. R-1 by its first pixel, row by
    row. Pixels that meet in a corner alone do not hang together."""
    from scipy.sparse import coo_array  # here: it takes a fifth of a second
    from scipy.sparse.csgraph import connected_components

    # Runs along the rows, and which of them touch one below: far fewer than pixels.
    begins = np.ones(ids.shape, bool)
    begins[:, 1:] = ids[:, 1:] != ids[:, :-1]
    runs = begins.ravel().cumsum(dtype=np.int32).reshape(ids.shape) - 1
    count = int(runs[-1, -1]) + 1
    same = ids[1:] == ids[:-1]
    same[:, 1:] &= begins[1:, 1:] | begins[:-1, 1:] | ~same[:, :-1]  # once for each pair of runs
    above, below = runs[:-1][same], runs[1:][same]
    touching = coo_array((np.ones(len(above), bool), (above, below)), shape=(count, count))
    number = connected_components(touching, directed=False)[1]
    _, first, of_component = np.unique(number, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int32)
    rank[np.argsort(first)] = np.arange(len(first), dtype=np.int32)
    found: NDArray[np.int32] = rank[of_component][runs]
    return found


def remove_small_regions(ids: NDArray[Any], least: int) -> NDArray[Any]:
    """(H, W) ids in which no region has fewer than `least` pixels, unless it is all there is.

    The smallest region goes first, of equal ones the one that begins first (row by row): it takes
    the id that it shares most of its outline with, in sides of pixels, of equal ones the lowest,
    and is one with the regions of that id from then on. So until none is too small.
    """
    numbers = label_regions(ids)
    sizes = np.bincount(numbers.ravel())
    if len(sizes) == 1 or sizes.min() >= least:
        return ids.copy()
    merging = _Merging(numbers, ids, sizes)
    small = [(int(sizes[k]), int(k)) for k in np.flatnonzero(sizes < least)]
    heapify(small)
    while small:
        size, region = heappop(small)
        if merging.into[region] != region or merging.sizes[region] != size:
            continue  # it was joined to another one, or grew
        merged = merging.join(region)
        if merged is not None and merging.sizes[merged] < least:
            heappush(small, (merging.sizes[merged], merged))
    of_region = [merging.id_of[merging.root(k)] for k in range(len(sizes))]
    cleaned: NDArray[Any] = np.array(of_region, ids.dtype)[numbers]
    return cleaned


class _Merging:
    """Regions that become one; each goes by its lowest number, which is where it begins.

    Attributes:
        into: the region that each is part of, or a step towards it.
        sizes: in pixels. id_of: their ids.
        sides: the neighbours of each, with how many sides of pixels they share.
    """

    def __init__(
        self, numbers: NDArray[np.int32], ids: NDArray[Any], sizes: NDArray[np.int64]
    ) -> None:
        count = len(sizes)
        self.into = list(range(count))
        self.sizes: list[int] = sizes.tolist()
        id_of = np.empty(count, np.int64)
        id_of[numbers.ravel()] = ids.ravel()
        self.id_of: list[int] = id_of.tolist()
        self.sides: list[dict[int, int]] = [{} for _ in range(count)]
        pairs = [(numbers[1:], numbers[:-1]), (numbers[:, 1:], numbers[:, :-1])]
        keys = np.concatenate([
            np.minimum(a, b)[a != b].astype(np.int64) * count + np.maximum(a, b)[a != b]
            for a, b in pairs
        ])  # fmt: skip
        for key, sides in zip(*(part.tolist() for part in _counted(keys)), strict=True):
            one, other = divmod(key, count)
            self.sides[one][other] = self.sides[other][one] = sides

    def root(self, region: int) -> int:
        """The region that this one is part of."""
        while self.into[region] != region:
            self.into[region] = self.into[self.into[region]]
            region = self.into[region]
        return region

    def join(self, region: int) -> int | None:
        """Gives it the id that surrounds it most; the region that it is part of then."""
        shared: dict[int, int] = {}
        for other, sides in self.sides[region].items():
            shared[self.id_of[other]] = shared.get(self.id_of[other], 0) + sides
        if not shared:
            return None
        chosen = min(shared, key=lambda one: (-shared[one], one))
        parts = [o for o in self.sides[region] if self.id_of[o] == chosen]
        self.id_of[region] = chosen
        for part in parts:
            region = self._united(region, part)
        return region

    def _united(self, one: int, other: int) -> int:
        """Two neighbours of one id."""
        low, high = min(one, other), max(one, other)
        self.into[high] = low
        self.sizes[low] += self.sizes[high]
        del self.sides[low][high], self.sides[high][low]
        fewer, more = sorted((self.sides[low], self.sides[high]), key=len)
        for third, sides in fewer.items():
            more[third] = more.get(third, 0) + sides
        for third in fewer if fewer is self.sides[high] else more:
            self.sides[third].pop(high, None)
            self.sides[third][low] = more[third]
        self.sides[low], self.sides[high] = more, {}
        return low


def _counted(keys: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    found, counts = np.unique(keys, return_counts=True)
    return found, counts
