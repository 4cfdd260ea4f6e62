"""Regions, 4-connected pixels of one id, and the removal of small ones.

Nothing here needs torch. Shapes: H, W image · R regions.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import Any

import numpy as np
from numpy.typing import NDArray


def label_regions(ids: NDArray[Any]) -> NDArray[np.int32]:
    """Return the number of each pixel's region, (H, W): 0 .. R-1, ordered by the region's first
    pixel, row by row. Pixels that touch in a corner only are in different regions."""
    from skimage.measure import label  # here: it takes a fifth of a second

    positive = ids.astype(np.int32) + (1 - int(ids.min()))  # 0 would be background
    numbers: NDArray[np.int32] = label(positive, background=0, connectivity=1).astype(np.int32)
    return numbers - 1


def remove_small_regions(ids: NDArray[Any], min_area: int) -> NDArray[Any]:
    """Return (H, W) ids in which no region has fewer than `min_area` pixels, unless it is the only
    region.

    The smallest region is removed first; of equally small ones, the one that begins first, row by
    row. It takes the id with which it shares most sides of pixels (the lowest id wins a tie), and
    merges with the neighbors of that id. This repeats until no region is too small.
    """
    numbers = label_regions(ids)
    sizes = np.bincount(numbers.ravel())
    if len(sizes) == 1 or sizes.min() >= min_area:
        return ids.copy()
    graph = _RegionGraph(numbers, ids, sizes)
    queue = [(int(sizes[k]), int(k)) for k in np.flatnonzero(sizes < min_area)]
    heapify(queue)
    while queue:
        size, region = heappop(queue)
        if graph.parent[region] != region or graph.sizes[region] != size:
            continue  # it was merged into another region, or grew
        merged = graph.dissolve(region)
        if merged is not None and graph.sizes[merged] < min_area:
            heappush(queue, (graph.sizes[merged], merged))
    ids_of_regions = [graph.ids[graph.root(k)] for k in range(len(sizes))]
    result: NDArray[Any] = np.array(ids_of_regions, ids.dtype)[numbers]
    return result


class _RegionGraph:
    """Regions that merge. A merged region has the lowest number of its parts."""

    def __init__(
        self, numbers: NDArray[np.int32], ids: NDArray[Any], sizes: NDArray[np.int64]
    ) -> None:
        count = len(sizes)
        # The region that each was merged into, or a step towards it; itself if not merged.
        self.parent = list(range(count))
        self.sizes: list[int] = sizes.tolist()
        ids_of_regions = np.empty(count, np.int64)
        ids_of_regions[numbers.ravel()] = ids.ravel()
        self.ids: list[int] = ids_of_regions.tolist()
        # Count the sides between each pair of regions; a pair is one number, low * count + high.
        pairs = []
        for a, b in ((numbers[1:], numbers[:-1]), (numbers[:, 1:], numbers[:, :-1])):
            differ = a != b
            low, high = np.minimum(a, b)[differ], np.maximum(a, b)[differ]
            pairs.append(low.astype(np.int64) * count + high)
        self.sides: list[dict[int, int]] = [{} for _ in range(count)]
        unique, shared = np.unique(np.concatenate(pairs), return_counts=True)
        for pair, sides in zip(unique.tolist(), shared.tolist(), strict=True):
            a, b = divmod(pair, count)
            self.sides[a][b] = self.sides[b][a] = sides

    def root(self, region: int) -> int:
        """Return the region that this one is part of."""
        while self.parent[region] != region:
            self.parent[region] = self.parent[self.parent[region]]
            region = self.parent[region]
        return region

    def dissolve(self, region: int) -> int | None:
        """Give a region the id that surrounds it most, and return the region it is part of then;
        None if it has no neighbors."""
        shared: dict[int, int] = {}
        for neighbor, sides in self.sides[region].items():
            shared[self.ids[neighbor]] = shared.get(self.ids[neighbor], 0) + sides
        if not shared:
            return None
        chosen = min(shared, key=lambda class_id: (-shared[class_id], class_id))
        neighbors = [k for k in self.sides[region] if self.ids[k] == chosen]
        self.ids[region] = chosen
        for neighbor in neighbors:
            region = self._merge(region, neighbor)
        return region

    def _merge(self, a: int, b: int) -> int:
        low, high = min(a, b), max(a, b)
        self.parent[high] = low
        self.sizes[low] += self.sizes[high]
        del self.sides[low][high], self.sides[high][low]
        fewer, more = sorted((self.sides[low], self.sides[high]), key=len)
        for neighbor, sides in fewer.items():
            more[neighbor] = more.get(neighbor, 0) + sides
        for neighbor in fewer if fewer is self.sides[high] else more:
            self.sides[neighbor].pop(high, None)
            self.sides[neighbor][low] = more[neighbor]
        self.sides[low], self.sides[high] = more, {}
        return low
