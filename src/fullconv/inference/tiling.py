"""Large images in tiles: the same labels as from the whole image, in bounded memory.

An image is cut into blocks. For each block the network sees a window: the block and a halo around
it. The scores in the block equal those of the whole image, up to rounding, for four reasons:

1. Windows begin at multiples of the coarsest stride inside the network. So cell `j` of a window is
   cell `j + start / stride` of the image, at every layer.
2. A window that reaches the image's border is padded there like the image: windows are longer or
   shorter than the image by multiples of the coarsest stride, and so get the same padding.
3. Elsewhere a window is cut, and every layer pads zeros where the image continues. Call a cell
   clean if all pixels of its receptive field, as `geometry.trace` returns it, are in the window.
   Cells that a layer pads are not clean: their fields reach beyond the cut (whatever the padding,
   if no layer crops its map). The field of a cell contains the fields of all cells that it is
   computed from. So a clean cell is computed from clean cells only, down to the pixels, which are
   the same: it has the same value as in the image.
4. A block is interpolated from the two finest cells around each of its pixels, these from the two
   coarser cells around each, and so on. `window` follows this chain and returns the pixels that all
   of them see. Where the chain leaves the outermost cells, the window extends to the border.

This requires a network that treats every position alike and sees no more than its field. If an
operation sees the whole image, tiles overlap and their scores are blended. That is not exact;
`whole_image_difference` measures the difference.

Shapes: N batch · C channels · K classes · H, W image · h, w cells or window.
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
from fullconv.core.i18n import msg, nmsg
from fullconv.geometry.grid import Grid
from fullconv.geometry.trace_network import module_grids
from fullconv.network.backbone import Backbone
from fullconv.network.fcn import FCN
from fullconv.network.memory_estimate import bytes_per_pixel
from fullconv.network.scores import Scores

MAX_WHOLE_PIXELS = 1 << 24  # larger images are cut by default
WINDOW_BYTES = 1 << 30  # memory that the network may use for a window
_CACHE_BYTES = 1 << 28  # of scores of neighboring tiles, if they are blended

Span = tuple[int, int]  # pixels or cells [start, stop) of one axis
Read = Callable[[Span, Span], Tensor]  # rows, columns -> (C, h, w)


class Tiles:
    """The way images are cut for one network.

    Args:
        network: the network, for its geometry.
        run: computes the `Scores` of images (1, C, h, w): the network and its preprocessing.
        tile: side of a block in pixels, rounded up to a multiple of the step at which windows
            begin; None: as large as `WINDOW_BYTES` allows.
        running: the backbone that runs, for the memory estimate; default: the network's own.
    """

    def __init__(
        self,
        network: FCN,
        run: Callable[[Tensor], Scores],
        *,
        tile: int | None = None,
        running: Backbone | None = None,
    ) -> None:
        require_tile(tile)
        self.network, self.run = network, run
        self.inexact_operations = inexact_operations(network)
        # Windows begin at multiples of the step. Every stride inside the network divides it.
        strides = [network.backbone.coarsest_stride]
        with suppress(FullconvError):  # a network with extra inputs is as coarse as its taps
            inner = module_grids(network.backbone.pyramid)
            strides += [int(grid.stride) for _, grid in inner if grid.stride > 1]
        self.step = math.lcm(*strides)
        # The halo is the largest number of pixels around a block in its window; if scores are
        # blended, the width of the ramp.
        self.halo = 0
        if self.exact:  # measured at a block in the middle of a large image
            block = self.step << 12
            start, stop = self.window(3 * block, (block, 2 * block))
            self.halo = max(block - start, stop - 2 * block)
        if tile is None:
            pixel_bytes = bytes_per_pixel(running or network.backbone)
            if network.upsampling == "learned":  # float32 scores in the size of the image
                pixel_bytes += 4 * network.num_classes
            side = math.isqrt(int(WINDOW_BYTES / pixel_bytes))
            tile = max((side - 2 * self.halo) // self.step * self.step, self.halo, self.step)
        self.tile = -(-tile // self.step) * self.step
        if not self.exact:
            self.halo = -(-self.tile // 8 // self.step) * self.step
        self._last_shape = torch.Size()
        self._cache: OrderedDict[tuple[Span, Span], tuple[Tensor, tuple[int, int]]] = OrderedDict()

    @property
    def exact(self) -> bool:
        """Return whether the scores provably equal those of the whole image."""
        return not self.inexact_operations

    def blocks(self, size: tuple[int, int]) -> Iterator[tuple[Span, Span]]:
        """Yield rows and columns of every block of an image (H, W), row by row: as equal as
        possible, and no longer than `tile`."""
        rows, columns = (self._cut(pixels) for pixels in size)
        return ((row, column) for row in rows for column in columns)

    def scores(self, size: tuple[int, int], read: Read) -> Iterator[tuple[Span, Span, Scores]]:
        """Yield rows, columns and scores of every block of an image (H, W).

        `read` returns the pixels of a window, (C, h, w), given its rows and columns. If tiles are
        exact, it is called from another thread: the next window is read while the network runs.
        """
        self._cache.clear()
        gc.collect()  # a classifier that the network was cut from may still be in memory
        if self.exact:
            yield from self._exact(size, read)
        else:
            for rows, columns in self.blocks(size):
                yield rows, columns, self._blend(size, read, rows, columns)
        self._cache.clear()

    def window(self, pixels: int, block: Span) -> Span:
        """Return the pixels that the network must see for a block, along an axis of `pixels`; see
        the top of this file."""
        backbone = self.network.backbone
        padded = pixels + backbone.pad_before + backbone.pad_after(pixels)
        first, last = float(pixels), -1.0  # of all pixels that are seen
        low, high = float(block[0]), float(block[1] - 1)  # where the next finer scores are read
        for tap, grid in enumerate(self._grids(pixels)):
            traced, cells = backbone.traced_grids[tap], backbone.cells(tap, padded)
            left = math.floor((low - grid.offset) / grid.stride)
            right = math.ceil((high - grid.offset) / grid.stride)
            reach = (traced.field - 1) / 2
            first_seen = traced.center(max(left, 0)) - reach - backbone.pad_before
            first = min(first, first_seen if left >= 0 else 0)
            last_seen = traced.center(min(right, cells - 1)) + reach - backbone.pad_before
            last = max(last, last_seen if right < cells else pixels)
            low, high = grid.center(max(left, 0)), grid.center(min(right, cells - 1))
        start = max(0, math.floor(first / self.step) * self.step)
        return self._same_padding(pixels, start), min(pixels, math.floor(last) + 1)

    def _grids(self, pixels: int) -> tuple[Grid, ...]:
        """Return the grid at which each tap is read, along an axis of this length."""
        backbone = self.network.backbone
        if backbone.placement != "stretched":
            return backbone.grids
        padded = pixels + backbone.pad_after(pixels)
        steps = (padded / backbone.cells(tap, padded) for tap in range(len(backbone.grids)))
        return tuple(Grid(step, (step - 1) / 2) for step in steps)

    def _same_padding(self, pixels: int, start: int) -> int:
        """Return the last start, at most `start`, of a window with the image's padding at its end.
        A very short window could get more padding, because the network needs at least one cell."""
        padding = self.network.backbone.pad_after
        while start and padding(pixels - start) != padding(pixels):
            start -= self.step
        return start

    def _cut(self, pixels: int) -> list[Span]:
        count = -(-pixels // self.tile)
        length = -(-pixels // count // self.step) * self.step
        return [(start, min(start + length, pixels)) for start in range(0, pixels, length)]

    def _exact(self, size: tuple[int, int], read: Read) -> Iterator[tuple[Span, Span, Scores]]:
        windows = (
            (rows, columns, (self.window(size[0], rows), self.window(size[1], columns)))
            for rows, columns in self.blocks(size)
        )
        for (rows, columns, window), pixels in prefetch(lambda item: read(*item[2]), windows):
            scores = self._run_window(size, pixels, window)
            del pixels  # frees memory while the scores are read
            (top, _), (left, _) = window
            part = (rows[0] - top, rows[1] - top), (columns[0] - left, columns[1] - left)
            yield rows, columns, scores.part(*part)
            del scores  # frees memory while the network runs

    def _run_window(
        self, size: tuple[int, int], pixels: Tensor, window: tuple[Span, Span]
    ) -> Scores:
        """Return the scores of a window, on the image's own grid."""
        self._release_memory(pixels)
        scores = self.run(pixels[None])
        if self.network.backbone.placement != "stretched":
            return scores
        ring = int(self.network.border == "zeros")
        grids = []
        for length, (start, _) in zip(size, window, strict=True):
            grid = self._grids(length)[0]
            offset = grid.center(start // self.network.stride - ring) - start
            grids.append(replace(grid, offset=offset))
        rows, columns = grids
        return replace(scores, grid=rows, columns=columns if columns != rows else None)

    def _release_memory(self, pixels: Tensor) -> None:
        if pixels.shape != self._last_shape:
            self._last_shape = pixels.shape
            release_memory(force=True)

    def _blend(self, size: tuple[int, int], read: Read, rows: Span, columns: Span) -> Scores:
        """Return the scores of a block, blended from up to four tiles: a tile extends below its
        block and to the right of it, where it fades into the next tiles."""
        axes = [self._whole_axis(pixels) for pixels in size]
        blocks = zip(axes, (rows, columns), strict=True)
        spans = [_cells_around(grid, count, block) for (grid, count), block in blocks]
        total: Tensor | None = None
        for tile_rows in self._with_previous(size[0], rows):
            for tile_columns in self._with_previous(size[1], columns):
                values, first_cells = self._run_tile(size, read, tile_rows, tile_columns)
                if total is None:
                    shape = [stop - start for start, stop in spans]
                    total = values.new_zeros(*values.shape[:2], *shape)
                # Add the tile where it covers cells of the block, weighted along both axes.
                source, target, weights = [], [], []
                for k, tile in enumerate((tile_rows, tile_columns)):
                    (start, stop), first, count = spans[k], first_cells[k], values.shape[2 + k]
                    begin, end = max(start, first), min(stop, first + count)
                    source.append(slice(begin - first, end - first))
                    target.append(slice(begin - start, end - start))
                    weights.append(self._ramp(axes[k][0], (begin, end), tile, size[k]).to(values))
                weight = weights[0][:, None] * weights[1]
                total[:, :, target[0], target[1]] += weight * values[:, :, source[0], source[1]]
        assert total is not None
        grid, column_grid = (
            replace(grid, offset=grid.center(start) - block[0])
            for (grid, _), (start, _), block in zip(axes, spans, (rows, columns), strict=True)
        )
        part = (rows[1] - rows[0], columns[1] - columns[0])
        return Scores(total, grid, part, column_grid if column_grid != grid else None)

    def _whole_axis(self, pixels: int) -> tuple[Grid, int]:
        """Return the grid and the number of cells along an axis of the whole image."""
        backbone, grid = self.network.backbone, self._grids(pixels)[0]
        if self.network.upsampling == "learned":
            return Grid(1, 0), pixels
        cells = backbone.cells(0, pixels + backbone.pad_before + backbone.pad_after(pixels))
        ring = int(self.network.border == "zeros")
        return replace(grid, offset=grid.center(-ring)), cells + 2 * ring

    def _with_previous(self, pixels: int, block: Span) -> list[Span]:
        """Return the block before this one, if there is one, and this block."""
        blocks = self._cut(pixels)
        index = blocks.index(block)
        return blocks[max(0, index - 1) : index + 1]

    def _ramp(self, grid: Grid, cells: Span, block: Span, pixels: int) -> Tensor:
        """Return the weight of a tile at cells of the image, a fraction.

        The last cell that the previous block reads is less than a stride behind its end: the ramp
        begins there.
        """
        positions = grid.offset + grid.stride * torch.arange(*cells, dtype=torch.float64)
        positions -= self.network.stride
        weight = torch.ones_like(positions)
        if block[0]:
            weight *= ((positions - block[0]) / self.halo).clamp(0, 1)
        if block[1] < pixels:
            weight *= ((block[1] + self.halo - positions) / self.halo).clamp(0, 1)
        return weight

    def _run_tile(
        self, size: tuple[int, int], read: Read, rows: Span, columns: Span
    ) -> tuple[Tensor, tuple[int, int]]:
        """Return the scores of a block and its overlap, and the image's cells that they start at.

        The tiles that were computed last are cached.
        """
        if (rows, columns) in self._cache:
            return self._cache[rows, columns]
        top, left = (
            (self._same_padding(pixels, start), min(pixels, stop + self.halo + 2 * self.step))
            for pixels, (start, stop) in zip(size, (rows, columns), strict=True)
        )
        pixels = read(top, left)
        self._release_memory(pixels)
        values = self.run(pixels[None]).values
        stride = 1 if self.network.upsampling == "learned" else self.network.stride
        first_cells = (top[0] // stride, left[0] // stride)
        self._cache[rows, columns] = values, first_cells
        cached = sum(scores.nbytes for scores, _ in self._cache.values())
        while cached > _CACHE_BYTES and len(self._cache) > 2:
            cached -= self._cache.popitem(last=False)[1][0].nbytes
        return values, first_cells


def _cells_around(grid: Grid, count: int, block: Span) -> Span:
    """Return the cells, of `count`, that the pixels of a block are interpolated from."""
    first = math.floor((block[0] - grid.offset) / grid.stride)
    last = math.ceil((block[1] - 1 - grid.offset) / grid.stride)
    return min(max(first, 0), count - 1), min(max(last, 0), count - 1) + 1


@dataclass(frozen=True)
class Difference:
    """The difference between a tiled and a whole image."""

    scores: float  # the largest difference of a logit at a pixel
    spread: float  # the standard deviation of the logits, for comparison
    labels: int  # pixels with another label, in all heads
    pixels: int  # of all heads


def whole_image_difference(tiles: Tiles, image: Tensor, classes: Sequence[int]) -> Difference:
    """Run an image (C, H, W) whole and in tiles, and return the difference. `classes` has the
    number of classes of each head."""
    whole = tiles.run(image[None])
    scores, labels = 0.0, 0
    for rows, columns, tile in tiles.scores(whole.size, window_reader(image)):
        part = whole.part(rows, columns)
        scores = max(scores, float((part.full() - tile.full()).abs().max()))
        for expected, actual in zip(part.split(classes), tile.split(classes), strict=True):
            labels += int((expected.labels() != actual.labels()).sum())
    pixels = len(classes) * whole.size[0] * whole.size[1]
    return Difference(scores, float(whole.values.std()), labels, pixels)


def window_reader(image: Tensor) -> Read:
    """Return a function that reads windows of an image (C, H, W) in memory."""
    return lambda rows, columns: image[:, slice(*rows), slice(*columns)]


def require_tile(tile: int | None) -> None:
    """Raise FullconvError if tiles have no pixels."""
    if tile is not None and tile < 1:
        message = nmsg(
            "a tile side of {count} pixel; expected 1 or more.",
            "a tile side of {count} pixels; expected 1 or more.",
            tile,
        )
        raise FullconvError(message, "--tile 1024")


def inexact_operations(network: FCN) -> tuple[str, ...]:
    """Return what keeps tiles of a network from being exact: operations that see the whole image,
    fields that were measured and not derived, scores that are stretched over the image's size."""
    backbone = network.backbone
    reasons: set[str] = {name for grid in backbone.traced_grids for name in grid.whole}
    if not reasons and any(math.isinf(grid.field) for grid in backbone.traced_grids):
        reasons.add(msg("a receptive field of unknown size"))
    if backbone.placement == "stretched" and len(backbone.grids) > 1:
        reasons.add(msg("skip connections between scores that are stretched over the image"))
    return tuple(sorted(reasons))
