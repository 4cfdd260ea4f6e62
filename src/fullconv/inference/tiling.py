"""Large images in tiles: the same labels as from the whole image, in bounded memory.

An image is cut into blocks. For each block the network sees a window: the block and a halo around
it. Why the scores in the block are those of the whole image, to the rounding of the arithmetic:

1. Windows begin at multiples of the coarsest stride inside the network. Cell `j` of a window is
   then cell `j + start / stride` of the image, at every layer.
2. A window that reaches the image's border is padded there as the image is: windows are longer
   or shorter than the image by multiples of the coarsest stride, and so get the same padding.
3. Elsewhere a window is cut, and every layer pads zeros where the image goes on. Say that a cell
   is clean if all pixels of its receptive field, as `geometry.trace` gives it, lie in the window.
   The cells that a layer pads are not: their fields reach beyond the cut (whatever the padding, if
   no layer crops its map). The field of a cell holds the fields of all cells that it is computed
   from. So a clean cell is computed from clean cells alone, down to the pixels, which are the same:
   it has the value that it has in the image.
4. A block is read from the two finest cells around each of its pixels, these from the two coarser
   cells around each, and so on. `window` follows this chain and returns the pixels that all of them
   see; where the chain leaves the outermost cells, the window goes to the border.

That takes a network that treats every place alike and sees no more than its field. Where an
operation sees the whole image, tiles overlap and their scores are blended: no proof, and a
difference that `whole_image_difference` measures.

Shapes: N batch · C channels · K classes · H, W image · h, w cells.
"""

from __future__ import annotations

import gc
import math
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fullconv.core.concurrency import prefetch
from fullconv.core.errors import FullconvError
from fullconv.core.hardware import release_memory
from fullconv.geometry.grid import Grid
from fullconv.geometry.trace_network import module_grids
from fullconv.network.backbone import Backbone
from fullconv.network.fcn import FCN
from fullconv.network.memory_estimate import bytes_per_pixel
from fullconv.network.scores import Scores

WHOLE = 1 << 24  # pixels up to which an image is not cut unasked
BUDGET = 1 << 30  # bytes that the network may take for a window
_KEPT = 1 << 28  # bytes of scores of neighbouring tiles, where they are blended

Span = tuple[int, int]  # pixels or cells [start, stop) of one axis
Read = Callable[[Span, Span], Tensor]  # rows, columns -> (C, h, w)


class Tiles:
    """How images are cut for one network.

    Args:
        network: whose geometry it is.
        run: images (1, C, h, w) -> `Scores`: the network, with what belongs before it.
        tile: pixels a side of a block; None: as many as `BUDGET` allows.
        running: its backbone as it runs, whose memory is estimated; default: the network's own.

    Attributes:
        reasons: what keeps tiles from being exact; empty where they are.
        tile: pixels a side of a block, a multiple of `step`.
        halo: pixels that a window has around its block, at most; where scores are blended, the
            width of the ramp.
    """

    def __init__(
        self,
        network: FCN,
        run: Callable[[Tensor], Scores],
        *,
        tile: int | None = None,
        running: Backbone | None = None,
    ) -> None:
        self.network, self.run = network, run
        self.reasons = inexact_operations(network)
        self.step = _coarsest_inside(network)
        require_tile(tile)
        self.halo = 0 if self.reasons else self._halo()
        if tile is None:
            each = bytes_per_pixel(running or network.backbone)
            if network.upsampling == "learned":  # float32 scores of full size
                each += 4 * network.num_classes
            side = math.isqrt(int(BUDGET / each))
            tile = max((side - 2 * self.halo) // self.step * self.step, self.halo, self.step)
        self.tile = -(-tile // self.step) * self.step
        if self.reasons:
            self.halo = -(-self.tile // 8 // self.step) * self.step
        self._shape = torch.Size()
        self._kept: OrderedDict[tuple[Span, Span], tuple[Tensor, tuple[int, int]]] = OrderedDict()

    @property
    def exact(self) -> bool:
        """Whether the scores are proven to be those of the whole image."""
        return not self.reasons

    def blocks(self, size: tuple[int, int]) -> Iterator[tuple[Span, Span]]:
        """Rows and columns of every block of an image (H, W), row by row: as even as they can be,
        and no longer than `tile`."""
        rows, columns = (self._cut(pixels) for pixels in size)
        return ((row, column) for row in rows for column in columns)

    def scores(self, size: tuple[int, int], read: Read) -> Iterator[tuple[Span, Span, Scores]]:
        """Rows, columns and scores of every block of an image (H, W).

        Args:
            read: gives the pixels of a window, (C, h, w), from its rows and columns; from another
                thread, where tiles are exact: while the network runs, the next window is read.
        """
        self._kept.clear()
        gc.collect()  # a classifier that a network was cut from may still be there
        yield from self._exact(size, read) if self.exact else self._blended(size, read)
        self._kept.clear()

    def window(self, pixels: int, block: Span) -> Span:
        """The pixels of one axis that the network has to see for a block of an image of so many.
        See the top of this file."""
        backbone = self.network.backbone
        size = pixels + backbone.pad_before + backbone.pad_after(pixels)
        first, last = float(pixels), -1.0  # of all that is seen
        low, high = float(block[0]), float(block[1] - 1)  # where the next finer scores are read
        for tap, grid in enumerate(self._grids(pixels)):
            traced, cells = backbone.traced_grids[tap], backbone.cells(tap, size)
            left = math.floor((low - grid.offset) / grid.stride)
            right = math.ceil((high - grid.offset) / grid.stride)
            reach = (traced.field - 1) / 2
            seen = traced.center(max(left, 0)) - reach - backbone.pad_before
            first = min(first, seen if left >= 0 else 0)
            seen = traced.center(min(right, cells - 1)) + reach - backbone.pad_before
            last = max(last, seen if right < cells else pixels)
            low, high = grid.center(max(left, 0)), grid.center(min(right, cells - 1))
        start = max(0, math.floor(first / self.step) * self.step)
        return self._padded_alike(pixels, start), min(pixels, math.floor(last) + 1)

    def _grids(self, pixels: int) -> tuple[Grid, ...]:
        """Where the cells of each tap are read, along an axis of so many pixels."""
        backbone = self.network.backbone
        if backbone.placement != "stretched":
            return backbone.grids
        size = pixels + backbone.pad_after(pixels)
        steps = (size / backbone.cells(tap, size) for tap in range(len(backbone.grids)))
        return tuple(Grid(step, (step - 1) / 2) for step in steps)

    def _padded_alike(self, pixels: int, start: int) -> int:
        """Where a window begins that is padded at its end as the image: any multiple, but that a
        tiny rest would be padded until the network has a cell."""
        padding = self.network.backbone.pad_after
        while start and padding(pixels - start) != padding(pixels):
            start -= self.step
        return start

    def _halo(self) -> int:
        """Of a block in the middle of a large image."""
        block = self.step << 12
        start, stop = self.window(3 * block, (block, 2 * block))
        return max(block - start, stop - 2 * block)

    def _cut(self, pixels: int) -> list[Span]:
        count = -(-pixels // self.tile)
        length = -(-pixels // count // self.step) * self.step
        return [(start, min(start + length, pixels)) for start in range(0, pixels, length)]

    def _exact(self, size: tuple[int, int], read: Read) -> Iterator[tuple[Span, Span, Scores]]:
        windows = (
            (rows, columns, (self.window(size[0], rows), self.window(size[1], columns)))
            for rows, columns in self.blocks(size)
        )
        for (rows, columns, seen), pixels in prefetch(lambda place: read(*place[2]), windows):
            scores = self._run(size, pixels, seen)
            del pixels  # not to be held while the scores are read
            (top, _), (left, _) = seen
            part = (rows[0] - top, rows[1] - top), (columns[0] - left, columns[1] - left)
            yield rows, columns, scores.part(*part)
            del scores  # not to be held while the network runs

    def _run(self, size: tuple[int, int], pixels: Tensor, windows: tuple[Span, Span]) -> Scores:
        """Of a window, on the image's own grid."""
        self._make_room(pixels)
        scores = self.run(pixels[None])
        if self.network.backbone.placement != "stretched":
            return scores
        ring = int(self.network.border == "zeros")
        rows, columns = (
            replace(
                (grid := self._grids(pixels)[0]),
                offset=grid.center(start // self.network.stride - ring) - start,
            )
            for pixels, (start, _) in zip(size, windows, strict=True)
        )
        return replace(scores, grid=rows, columns=columns if columns != rows else None)

    def _make_room(self, pixels: Tensor) -> None:
        if pixels.shape != self._shape:  # else the holes of the last shape stay, too small for this
            self._shape = pixels.shape
            release_memory(force=True)

    def _blended(self, size: tuple[int, int], read: Read) -> Iterator[tuple[Span, Span, Scores]]:
        for rows, columns in self.blocks(size):
            yield rows, columns, self._mixed(size, read, rows, columns)

    def _mixed(self, size: tuple[int, int], read: Read, rows: Span, columns: Span) -> Scores:
        """Tiles go on below their block and right of it, and fade there into the next ones: up to
        four make a block."""
        axes = [self._layout(pixels) for pixels in size]
        spans = [
            _cells_around(grid, count, block)
            for (grid, count), block in zip(axes, (rows, columns), strict=True)
        ]
        total: Tensor | None = None
        for above in self._up_to(size[0], rows):
            for left in self._up_to(size[1], columns):
                values, firsts = self._tile(size, read, above, left)
                pieces, weights, places = [], [], []
                for (grid, _), (start, stop), first, count, block, pixels in zip(
                    axes, spans, firsts, values.shape[2:], (above, left), size, strict=True
                ):
                    begin, end = max(start, first), min(stop, first + count)
                    pieces.append(slice(begin - first, end - first))
                    places.append(slice(begin - start, end - start))
                    weights.append(self._ramp(grid, (begin, end), block, pixels).to(values))
                if total is None:
                    shape = [stop - start for start, stop in spans]
                    total = values.new_zeros(*values.shape[:2], *shape)
                piece = values[:, :, pieces[0], pieces[1]]
                total[:, :, places[0], places[1]] += weights[0][:, None] * weights[1] * piece
        assert total is not None
        down, along = (
            replace(grid, offset=grid.center(start) - block[0])
            for (grid, _), (start, _), block in zip(axes, spans, (rows, columns), strict=True)
        )
        part = (rows[1] - rows[0], columns[1] - columns[0])
        return Scores(total, down, part, along if along != down else None)

    def _layout(self, pixels: int) -> tuple[Grid, int]:
        """Grid and number of the cells that are read, along an axis of the whole image."""
        backbone, grid = self.network.backbone, self._grids(pixels)[0]
        if self.network.upsampling == "learned":
            return Grid(1, 0), pixels
        cells = backbone.cells(0, pixels + backbone.pad_before + backbone.pad_after(pixels))
        ring = int(self.network.border == "zeros")
        return replace(grid, offset=grid.center(-ring)), cells + 2 * ring

    def _up_to(self, pixels: int, block: Span) -> list[Span]:
        """A block and the one before it."""
        every = self._cut(pixels)
        index = every.index(block)
        return every[max(0, index - 1) : index + 1]

    def _ramp(self, grid: Grid, cells: Span, block: Span, pixels: int) -> Tensor:
        """The weight of a tile at cells of the image, a fraction. The last cell that the block
        before reads lies less than a stride behind its end: the ramp begins there."""
        where = grid.offset + grid.stride * torch.arange(*cells, dtype=torch.float64)
        where -= self.network.stride
        weight = torch.ones_like(where)
        if block[0]:
            weight *= ((where - block[0]) / self.halo).clamp(0, 1)
        if block[1] < pixels:
            weight *= ((block[1] + self.halo - where) / self.halo).clamp(0, 1)
        return weight

    def _tile(
        self, size: tuple[int, int], read: Read, rows: Span, columns: Span
    ) -> tuple[Tensor, tuple[int, int]]:
        """The scores of a block and what follows it, and which cells of the image the first ones
        are. Those that were computed last are kept."""
        if (rows, columns) in self._kept:
            return self._kept[rows, columns]
        top, left = (
            (self._padded_alike(pixels, start), min(pixels, stop + self.halo + 2 * self.step))
            for pixels, (start, stop) in zip(size, (rows, columns), strict=True)
        )
        pixels = read(top, left)
        self._make_room(pixels)
        values = self.run(pixels[None]).values
        stride = 1 if self.network.upsampling == "learned" else self.network.stride
        self._kept[rows, columns] = values, (top[0] // stride, left[0] // stride)
        held = sum(kept.nbytes for kept, _ in self._kept.values())
        while held > _KEPT and len(self._kept) > 2:
            held -= self._kept.popitem(last=False)[1][0].nbytes
        return values, (top[0] // stride, left[0] // stride)


def _cells_around(grid: Grid, count: int, block: Span) -> Span:
    """The cells that a block's pixels are read between, of so many."""
    first = math.floor((block[0] - grid.offset) / grid.stride)
    last = math.ceil((block[1] - 1 - grid.offset) / grid.stride)
    return min(max(first, 0), count - 1), min(max(last, 0), count - 1) + 1


@dataclass(frozen=True)
class Difference:
    """What tiles change against the whole image.

    Args:
        scores: largest difference of a score at a pixel.
        spread: standard deviation of the scores, to compare it with.
        labels: pixels that get another label, of all heads.
        pixels: of all heads.
    """

    scores: float
    spread: float
    labels: int
    pixels: int


def whole_image_difference(tiles: Tiles, image: Tensor, classes: Sequence[int]) -> Difference:
    """Runs an image whole and in tiles.

    Args:
        image: (C, H, W), as `tiles.run` takes it.
        classes: of each head.
    """
    whole = tiles.run(image[None])
    scores, labels = 0.0, 0
    for rows, columns, tiled in tiles.scores(whole.size, window_reader(image)):
        part = whole.part(rows, columns)
        scores = max(scores, float((part.full() - tiled.full()).abs().max()))
        for one, other in zip(part.split(classes), tiled.split(classes), strict=True):
            labels += int((one.labels() != other.labels()).sum())
    pixels = len(classes) * whole.size[0] * whole.size[1]
    return Difference(scores, float(whole.values.std()), labels, pixels)


def window_reader(image: Tensor) -> Read:
    """Reads windows of an image (C, H, W) in memory."""
    return lambda rows, columns: image[:, slice(*rows), slice(*columns)]


def require_tile(tile: int | None) -> None:
    """Refuses tiles without pixels."""
    if tile is not None and tile < 1:
        raise FullconvError(f"tiles of {tile} pixels; expected 1 or more.", "--tile 1024")


def inexact_operations(network: FCN) -> tuple[str, ...]:
    """What keeps tiles of a network from being exact: operations that see the whole image, fields
    that were measured and not derived, scores that are spread over the image's own size."""
    backbone = network.backbone
    reasons = {name for grid in backbone.traced_grids for name in grid.whole}
    if not reasons and any(math.isinf(grid.field) for grid in backbone.traced_grids):
        reasons.add("no bound of the receptive field is known")
    if backbone.placement == "stretched" and len(backbone.grids) > 1:
        reasons.add("skips between scores that are stretched over the image's size")
    return tuple(sorted(reasons))


def _coarsest_inside(network: FCN) -> int:
    """Pixels: a multiple of every stride in the network."""
    backbone = network.backbone
    strides = [backbone.coarsest_stride]
    with suppress(FullconvError):  # one that takes further channels is as coarse as its taps
        strides += [int(g.stride) for _, g in module_grids(backbone.pyramid) if g.stride > 1]
    return math.lcm(*strides)
