"""The Triton programs behind `fullconv.network.kernels.cuda`, which documents what they compute.

A *gap* is between two neighboring cells of an axis: gap `g` between the cells `g - 1` and `g`.
`cells` cells have `cells + 1` gaps, the first and the last with a cell on one side only. A gap of
rows and a gap of columns have four cells at their corners, which determine the scores of the pixels
between them.

Arguments of every program:

    values, sn, sk, sh, sw      scores (N, K, h, w), and their four strides
    K, h, w, H, W               sizes
    tile_count, tables          number of tiles of rows; tables of the rows (gaps, weights, starts,
                                tiles) and of the columns (gaps, weights, starts), see `cuda.Axis`

A program computes (CHUNK classes, ROWS, COLUMNS) scores at a time. The columns are spread over the
threads, and everything else is in the registers of one thread, so that a maximum over classes or a
sum over rows needs no other thread. Classes are processed in chunks, because registers are few and
there may be thousands of classes.
"""

# Names in capitals are compile-time constants, as is the custom in Triton.
# ruff: noqa: N803

from __future__ import annotations

import inspect
from typing import Any

try:
    import triton  # type: ignore
    import triton.language as tl  # type: ignore

    INSTALLED, INTERPRETED = True, bool(triton.knobs.runtime.interpret)
except ImportError:  # `cuda` raises an error before it runs anything
    INSTALLED, INTERPRETED = False, False


def jit(function: Any) -> Any:
    """Apply `triton.jit`, compiled once for all sizes of images, because that takes a second or
    two. (By default Triton compiles again for sizes of 1 and for multiples of 16; in tuples it
    always does.)"""
    if not INSTALLED:
        return function
    parameters = inspect.signature(function).parameters.values()
    sizes = [p.name for p in parameters if "constexpr" not in str(p.annotation)]
    return triton.jit(function, do_not_specialize=sizes)


@jit
def _line(start, change, share):
    """start + change * share, rounded once. The same score must have the same bits everywhere, or
    the loss of a confident pixel could be negative."""
    return tl.fma(change, tl.broadcast_to(share, change.shape), start)


@jit
def _exp(x):
    """exp(x), 0 if that is denormal: half the instructions of tl.exp."""
    return tl.exp2(x * 1.4426950408889634)


@jit
def _corners(row_gap, column_gap, n, shape, steps):
    """Offsets of the four cells around pixels: upper left and right, lower left and right."""
    _, h, w, _, _ = shape
    upper = n * steps[0] + tl.maximum(row_gap - 1, 0).to(tl.int64) * steps[2]
    lower = n * steps[0] + tl.minimum(row_gap, h - 1).to(tl.int64) * steps[2]
    left = tl.maximum(column_gap - 1, 0).to(tl.int64) * steps[3]
    right = tl.minimum(column_gap, w - 1).to(tl.int64) * steps[3]
    return upper + left, upper + right, lower + left, lower + right


@jit
def _edges(values, corners, classes, inside, along):
    """Scores on the upper edge of the gap at the columns, and their change to the lower edge.
    `classes` are offsets that broadcast against the (COLUMNS) of `corners`."""
    upper_left = tl.load(values + classes + corners[0][None, :], mask=inside, other=0.0)
    upper_right = tl.load(values + classes + corners[1][None, :], mask=inside, other=0.0)
    lower_left = tl.load(values + classes + corners[2][None, :], mask=inside, other=0.0)
    lower_right = tl.load(values + classes + corners[3][None, :], mask=inside, other=0.0)
    upper = _line(upper_left, upper_right - upper_left, along[None, :])
    lower = _line(lower_left, lower_right - lower_left, along[None, :])
    return upper, lower - upper


@jit
def _scores(values, steps, corners, k, inside, down, along, ROWS: tl.constexpr):
    """Scores (CHUNK, ROWS, COLUMNS) of the classes k."""
    classes = k[:, None].to(tl.int64) * steps[1]
    upper, change = _edges(values, corners, classes, inside[:, None], along)
    shape: tl.constexpr = [upper.shape[0], ROWS, upper.shape[1]]
    upper = tl.broadcast_to(upper[:, None, :], shape)
    change = tl.broadcast_to(change[:, None, :], shape)
    return _line(upper, change, down[None, :, None])


@jit
def _score_of(values, steps, corners, k, inside, down, along):
    """Scores (ROWS, COLUMNS) of the class k of each pixel."""
    upper, change = _edges(values, corners, k.to(tl.int64) * steps[1], inside, along)
    return _line(upper, change, down[:, None])


@jit
def _pixels(shape, steps, tile_count, tables, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """The pixels of this program, all in one gap of rows: image, rows, columns, which of them
    exist, their positions down and along their gaps, and the offsets of their corners."""
    row_gaps, row_weights, row_starts, tiles, gaps, weights, _ = tables
    width = shape[4]
    blocks = tl.cdiv(width, COLUMNS)
    block = tl.program_id(0) % blocks
    tile = tl.program_id(0) // blocks
    n = (tile // tile_count).to(tl.int64)
    first = tl.load(tiles + tile % tile_count)
    gap = tl.load(row_gaps + first)
    y = first + tl.arange(0, ROWS)
    x = block * COLUMNS + tl.arange(0, COLUMNS)
    in_y = y < tl.load(row_starts + gap + 1)
    in_x = x < width
    down = tl.load(row_weights + y, mask=in_y, other=0.0)
    along = tl.load(weights + x, mask=in_x, other=0.0)
    corners = _corners(gap, tl.load(gaps + x, mask=in_x, other=0), n, shape, steps)
    return n, y, x, in_y[:, None] & in_x[None, :], down, along, corners


@jit
def labels(
    values, sn, sk, sh, sw, K, h, w, H, W, tile_count, tables, ids,
    CHUNK: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """ids (N, H, W): the class with the largest score, the lowest of equals."""
    steps, shape = (sn, sk, sh, sw), (K, h, w, H, W)
    n, y, x, inside, down, along, corners = _pixels(shape, steps, tile_count, tables, ROWS, COLUMNS)
    best = tl.full((ROWS, COLUMNS), float("-inf"), tl.float32)
    chosen = tl.zeros((ROWS, COLUMNS), tl.int32)
    for start in range(0, shape[0], CHUNK):
        for step in tl.static_range(CHUNK):
            k = tl.full((1,), start + step, tl.int32)
            exists = k < shape[0]
            score = _scores(values, steps, corners, k, exists, down, along, ROWS)
            score = tl.reshape(score, (ROWS, COLUMNS))
            better = (score > best) & exists[:, None]
            best = tl.where(better, score, best)
            chosen = tl.where(better, start + step, chosen)
    pixel = (n * shape[3] + y[:, None]) * shape[4] + x[None, :]
    tl.store(ids + pixel, chosen.to(ids.dtype.element_ty), mask=inside)


@jit
def _softmax(
    values, steps, shape, corners, down, along, class_weights,
    SMOOTH: tl.constexpr, CHUNK: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Per pixel, over the classes: the largest score; sum of exp(score - largest); and if SMOOTH,
    sum of weight * (score - largest), with one load of the corners."""
    largest = tl.full((ROWS, COLUMNS), float("-inf"), tl.float32)
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    below = tl.zeros((ROWS, COLUMNS), tl.float32)
    so_far = tl.zeros((1, 1), tl.float32)
    for start in range(0, shape[0], CHUNK):
        k = start + tl.arange(0, CHUNK)
        exists = k < shape[0]
        score = _scores(values, steps, corners, k, exists, down, along, ROWS)
        score = tl.where(exists[:, None, None], score, float("-inf"))
        larger = tl.maximum(largest, tl.max(score, axis=0))
        total *= _exp(largest - larger)
        total += tl.sum(_exp(score - larger[None, :, :]), axis=0)
        if SMOOTH:
            weight = tl.load(class_weights + k, mask=exists, other=0.0)[:, None, None]
            low = tl.where(exists[:, None, None], score - larger[None, :, :], 0.0)
            # The sum so far was relative to a smaller largest score.
            below += so_far * tl.where(so_far > 0, largest - larger, 0.0)
            below += tl.sum(low * weight, axis=0)
            so_far += tl.sum(weight)
        largest = larger
    return largest, total, below


@jit
def confidence(
    values, sn, sk, sh, sw, K, h, w, H, W, tile_count, tables, probability,
    CHUNK: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """probability (N, H, W): of the class with the largest score."""
    steps, shape = (sn, sk, sh, sw), (K, h, w, H, W)
    n, y, x, inside, down, along, corners = _pixels(shape, steps, tile_count, tables, ROWS, COLUMNS)
    _, total, _ = _softmax(
        values, steps, shape, corners, down, along, values, False, CHUNK, ROWS, COLUMNS
    )
    pixel = (n * shape[3] + y[:, None]) * shape[4] + x[None, :]
    tl.store(probability + pixel, 1.0 / total, mask=inside)


@jit
def _true_class(target, at, inside, ignored, class_weights, classes):
    """Per pixel: the true class (-1 if the pixel does not count), whether the target has an invalid
    id, and the weight of the pixel."""
    true = tl.load(target + at, mask=inside, other=0).to(tl.int64)
    counts = inside & (true != ignored)
    wrong = counts & ((true < 0) | (true >= classes))
    true = tl.where(counts & (true >= 0) & (true < classes), true, -1).to(tl.int32)
    weight = tl.load(class_weights + true, mask=true >= 0, other=0.0)
    return true, wrong, weight


@jit
def loss(
    values, sn, sk, sh, sw, K, h, w, H, W, tile_count, tables,
    target, tn, th, tw, ignored, smoothing, class_weights,
    weight_sum, totals, weights, wrong_ids, maxima, normalizers,
    SMOOTH: tl.constexpr, KEEP: tl.constexpr,
    CHUNK: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """totals and weights (programs) float64: the loss and the weight of the pixels of each program.
    wrong_ids (1): becomes 1 if the target has an id that is no class.
    maxima, normalizers (N, H, W), if KEEP: the largest score m and a c such that
    2 ** ((score - m) / ln 2 - c) is the softmax times the slope of the loss in it."""
    steps, shape = (sn, sk, sh, sw), (K, h, w, H, W)
    n, y, x, inside, down, along, corners = _pixels(shape, steps, tile_count, tables, ROWS, COLUMNS)
    largest, total, below = _softmax(
        values, steps, shape, corners, down, along, class_weights, SMOOTH, CHUNK, ROWS, COLUMNS
    )
    at = n * tn + y[:, None].to(tl.int64) * th + x[None, :].to(tl.int64) * tw
    true, wrong, weight = _true_class(target, at, inside, ignored, class_weights, shape[0])
    counts = true >= 0
    score = _score_of(values, steps, corners, tl.maximum(true, 0), counts, down, along)
    binary = tl.log2(total)
    normalizer = binary * 0.6931471805599453
    share = weight * (1 - smoothing)
    cost = share * (normalizer + (largest - score))
    slope = share
    if SMOOTH:
        spread = smoothing / shape[0]
        all_weights = tl.load(weight_sum)
        cost += spread * (all_weights * normalizer - below)
        slope += spread * all_weights
    cost = tl.where(counts, cost, 0.0).to(tl.float64)
    tl.store(totals + tl.program_id(0), tl.sum(tl.sum(cost, axis=0), axis=0))
    weight = weight.to(tl.float64)
    tl.store(weights + tl.program_id(0), tl.sum(tl.sum(weight, axis=0), axis=0))
    # Every program that finds a wrong id writes the same 1.
    tl.store(wrong_ids, 1, mask=tl.max(tl.max(wrong.to(tl.int32), axis=0), axis=0) > 0)
    if KEEP:
        positive = counts & (slope > 0)
        c = binary - tl.log2(tl.where(positive, slope, 1.0))
        pixel = (n * shape[3] + y[:, None]) * shape[4] + x[None, :]
        tl.store(maxima + pixel, largest, mask=inside)
        tl.store(normalizers + pixel, tl.where(positive, c, float("inf")), mask=inside)


@jit
def _slopes(
    values, steps, shape, corners, k, y, x, n, inside, down, along,
    target, target_steps, ignored, smoothing, class_weights, maxima, normalizers,
    SMOOTH: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """The gradient of the loss in the scores (CHUNK, ROWS, COLUMNS) of the classes k."""
    pixel = (n * shape[3] + y[:, None]) * shape[4] + x[None, :]
    largest = tl.load(maxima + pixel, mask=inside, other=0.0)
    normalizer = tl.load(normalizers + pixel, mask=inside, other=float("inf"))
    at = n * target_steps[0] + y[:, None].to(tl.int64) * target_steps[1]
    at += x[None, :].to(tl.int64) * target_steps[2]
    true, _, weight = _true_class(target, at, inside, ignored, class_weights, shape[0])
    share = weight * (1 - smoothing)
    score = _scores(values, steps, corners, k, k < shape[0], down, along, ROWS)
    relative = score - largest[None, :, :]
    slope = tl.exp2(relative * 1.4426950408889634 - normalizer[None, :, :])
    slope -= tl.where(k[:, None, None] == true[None, :, :], share[None, :, :], 0.0)
    if SMOOTH:
        spread = tl.load(class_weights + k, mask=k < shape[0], other=0.0) * smoothing / shape[0]
        slope -= tl.where((true >= 0)[None, :, :], spread[:, None, None], 0.0)
    return slope


@jit
def _add(gradient, steps, n, k, row, column, shape, amounts, GAPS: tl.constexpr):
    """Add the amounts at the COLUMNS to the cells (k, row, column) that exist; GAPS columns of
    cells."""
    each: tl.constexpr = amounts.shape[1] // GAPS
    amounts = tl.sum(tl.reshape(amounts, (amounts.shape[0], GAPS, each)), axis=2)
    row = row + tl.zeros_like(column)
    at = n * steps[0] + row[None, :].to(tl.int64) * steps[2]
    at += column[None, :].to(tl.int64) * steps[3] + k[:, None].to(tl.int64) * steps[1]
    exists = (row >= 0) & (row < shape[1]) & (column >= 0) & (column < shape[2])
    exists = exists[None, :] & (k < shape[0])[:, None]
    tl.store(gradient + at, tl.load(gradient + at, mask=exists, other=0.0) + amounts, mask=exists)


@jit
def gradient(
    values, sn, sk, sh, sw, K, h, w, H, W, tile_count, tables,
    target, tn, th, tw, ignored, smoothing, class_weights,
    maxima, normalizers, slope, gn, gk, gh, gw, row_phase, column_phase,
    SMOOTH: tl.constexpr, CHUNK: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    GAPS: tl.constexpr,
):  # fmt: skip
    """Add the gradient of the sum of the losses to slope (N, K, h, w), in four phases.

    A program owns the pixels of GAPS gaps of columns in one gap of rows and sums over them before
    it adds. One phase runs the programs of every other gap of rows and every other block of gaps,
    so that no two add to the same cell: the order of the sums is fixed, and they are repeatable.
    """
    steps, shape, slope_steps = (sn, sk, sh, sw), (K, h, w, H, W), (gn, gk, gh, gw)
    _, row_weights, row_starts, _, _, weights, starts = tables
    chunks = tl.cdiv(shape[0], CHUNK)
    blocks = (tl.cdiv(shape[2] + 1, GAPS) - column_phase + 1) // 2
    rows = (shape[1] + 1 - row_phase + 1) // 2
    program = tl.program_id(0)
    k = program % chunks * CHUNK + tl.arange(0, CHUNK)
    block = program // chunks % blocks * 2 + column_phase
    row_gap = program // chunks // blocks % rows * 2 + row_phase
    n = (program // chunks // blocks // rows).to(tl.int64)
    each: tl.constexpr = COLUMNS // GAPS  # pixels of a gap at a time
    column_gap = block * GAPS + tl.arange(0, COLUMNS) // each
    exists = column_gap <= shape[2]
    first = tl.load(starts + column_gap, mask=exists, other=0)
    end = tl.load(starts + column_gap + 1, mask=exists, other=0)
    corners = _corners(row_gap, tl.where(exists, column_gap, 0), n, shape, steps)
    upper_left = tl.zeros((CHUNK, COLUMNS), tl.float32)
    upper_right = tl.zeros((CHUNK, COLUMNS), tl.float32)
    lower_left = tl.zeros((CHUNK, COLUMNS), tl.float32)
    lower_right = tl.zeros((CHUNK, COLUMNS), tl.float32)
    last_row = tl.load(row_starts + row_gap + 1)
    for part in range(0, tl.max(end - first, axis=0), each):
        x = first + part + tl.arange(0, COLUMNS) % each
        along = tl.load(weights + x, mask=x < end, other=0.0)
        for top in range(tl.load(row_starts + row_gap), last_row, ROWS):
            y = top + tl.arange(0, ROWS)
            down = tl.load(row_weights + y, mask=y < last_row, other=0.0)
            inside = (y < last_row)[:, None] & (x < end)[None, :]
            slopes = _slopes(
                values, steps, shape, corners, k, y, x, n, inside, down, along, target,
                (tn, th, tw), ignored, smoothing, class_weights, maxima, normalizers, SMOOTH, ROWS,
            )  # fmt: skip
            lower = tl.sum(slopes * down[None, :, None], axis=1)
            upper = tl.sum(slopes * (1 - down)[None, :, None], axis=1)
            upper_left += upper * (1 - along)[None, :]
            upper_right += upper * along[None, :]
            lower_left += lower * (1 - along)[None, :]
            lower_right += lower * along[None, :]
    cell = block * GAPS + tl.arange(0, GAPS)
    _add(slope, slope_steps, n, k, row_gap - 1, cell - 1, shape, upper_left, GAPS)
    _add(slope, slope_steps, n, k, row_gap, cell - 1, shape, lower_left, GAPS)
    tl.debug_barrier()  # the right cell of a gap is the left one of the next
    _add(slope, slope_steps, n, k, row_gap - 1, cell, shape, upper_right, GAPS)
    _add(slope, slope_steps, n, k, row_gap, cell, shape, lower_right, GAPS)
