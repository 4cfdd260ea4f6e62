"""Ceiling: about the best IoU that scores at each stride can reach on a data set's labels.

Appendix A of the paper ("Upper Bounds on IU") finds it "by downsampling ground truth images and
then upsampling them again", and does not say how. Here:

    down  the pixels of each class are counted in cells of stride x stride pixels, the first at the
          top left; ignored pixels, and what lies outside the image, count for no class
    up    the counts are read at every pixel bilinearly, as an FCN's scores are: cell i is centred
          at stride * i + (stride - 1) / 2, and beyond the outermost centres nothing changes
    best  the class with the largest reading; the lowest id where several are equal

Ignored pixels are not scored either, so a band of them along every border, as in PASCAL VOC, hides
what a fine stride gets wrong. On 100 images of VOC 2012 strides 32, 16 and 8 reach a mean IoU of
85.6, 93.8 and 99.7. The paper's 86.1, 92.8 and 96.4 are met (84.3, 91.9, 96.1) where the band is
one more class that is drawn and may cover its neighbours; no network is trained to draw it.

The bound is approximate, as the paper says. A network's scores need not be counts: it can give
small and thin things more than their share of a cell, and so keep a little of what counting loses
altogether. On CamVid an FCN-32s reaches 3.5 for poles, where counting leaves nothing. Trust the
order of the strides and of the classes; take a figure near 0 for "next to nothing", not for a law.

Shapes: H, W image · h, w cells · K classes.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fullconv.core.text import LIST_LIMIT, plural
from fullconv.data.check.check import check
from fullconv.data.io.masks import Ids, read_mask
from fullconv.data.layouts.dataset import Dataset, load_dataset

STRIDES = (4, 8, 16, 32)
# How far below the finest stride's mean IoU a recommended one may lie. By the paper's own table
# (98.5, 96.4, 92.8, 86.1 for these strides) that is stride 8, where the paper stops as well.
MARGIN = 0.05

_SAMPLE = 32  # masks that tell about how fine the labels are

_BAND = 1 << 16  # pixels that are read at once: few enough for a processor's cache


@dataclass(frozen=True)
class Ceiling:
    """About the best that each stride can reach on one split.

    Args:
        root: folder of the data set.
        split: "train", "val" or "test".
        images: how many were counted; each counts at its own size.
        images_in_split: how many there are.
        ignored: share of their pixels that do not count, 0-1.
        names: of the K classes.
        class_iou: stride in pixels, the finest first -> IoU of each of the K classes, 0-1; nan
            where the split does not show it.
    """

    root: str
    split: str
    images: int
    images_in_split: int
    ignored: float
    names: tuple[str, ...]
    class_iou: dict[int, tuple[float, ...]]

    @property
    def mean_iou(self) -> dict[int, float]:
        """Stride -> mean IoU over the classes that occur; nan where none does."""
        return {stride: _mean(values) for stride, values in self.class_iou.items()}

    @property
    def recommended_stride(self) -> int | None:
        """The coarsest stride whose mean IoU lies at most `MARGIN` below that of the finest; None
        where no pixel is labelled."""
        means = self.mean_iou
        near = [stride for stride, mean in means.items() if mean >= means[min(means)] - MARGIN]
        return max(near, default=None)

    @property
    def reason(self) -> str:
        """Why that stride, in words, and what was counted."""
        means, stride = self.mean_iou, self.recommended_stride
        if stride is None:
            return f"no pixel is labelled ({self._counted})"
        finest = min(means)
        coarser = min((other for other in means if other > stride), default=None)
        if stride == finest:
            assert coarser is not None
            return (
                f"stride {coarser} can reach a mean IoU of about {means[coarser]:.1%}, more than "
                f"{100 * MARGIN:g} points below stride {finest}'s {means[finest]:.1%} "
                f"({self._counted})"
            )
        below = f"; stride {coarser} about {means[coarser]:.1%}" if coarser else ""
        return (
            f"it can reach a mean IoU of about {means[stride]:.1%}, within {100 * MARGIN:g} "
            f"points of stride {finest}'s {means[finest]:.1%}{below} ({self._counted})"
        )

    @property
    def _counted(self) -> str:
        masks = plural(self.images_in_split, "mask")
        some = "" if self.images == self.images_in_split else f"{self.images} of "
        return f"counted in {some}{masks} of {self.split}"

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; None for nan."""
        return {
            "root": self.root,
            "split": self.split,
            "images": self.images,
            "images_in_split": self.images_in_split,
            "ignored": self.ignored,
            "strides": {
                str(stride): {
                    "mean_iou": _plain(self.mean_iou[stride]),
                    "per_class_iou": dict(zip(self.names, map(_plain, values), strict=True)),
                }
                for stride, values in self.class_iou.items()
            },
            "recommended_stride": self.recommended_stride,
            "reason": self.reason,
        }

    def text(self) -> str:
        """For a terminal: a line per class, in percent, and what follows from them."""
        strides = list(self.class_iou)
        ignored = f", {self.ignored:.1%} of the pixels ignored" if self.ignored else ""
        lines = [
            f"{self.root}, split {self.split}, {plural(self.images, 'image')}, original size"
            + ignored,
            "about the best IoU at each stride: the truth, counted in its cells and read back",
            "",
            f"{'class':<24}" + "".join(f"{f'stride {stride}':>11}" for stride in strides),
        ]
        rows = [*zip(self.names, *self.class_iou.values(), strict=True)]
        present = [row for row in rows if not math.isnan(row[1])]
        few = len(rows) - len(present) <= LIST_LIMIT
        for name, *values in (*(rows if few else present), ("mean IoU", *self.mean_iou.values())):
            lines.append(f"{name[:23]:<24}" + "".join(f"{_percent(v):>11}" for v in values))
        if not few:
            lines.append(f"left out: {len(rows) - len(present)} classes that {self.split} lacks")
        coarsest = self.class_iou[strides[-1]]
        known = [k for k, iou in enumerate(coarsest) if not math.isnan(iou)]
        lines.append("")
        if known:
            k = min(known, key=coarsest.__getitem__)
            lines.append(
                f"{self.names[k]} suffers most: stride {strides[-1]} leaves it about "
                f"{_percent(coarsest[k])}"
            )
        stride = self.recommended_stride
        lines.append(f"recommended: {f'--stride {stride}' if stride else 'none'}: {self.reason}")
        return "\n".join(lines)


def iou_ceiling(
    data: Dataset | str | Path,
    *,
    split: str = "val",
    progress: Callable[[int, int], None] | None = None,
    checked: bool = False,
    strides: tuple[int, ...] = STRIDES,
) -> Ceiling:
    """About the best IoU that scores at some strides can reach on a split: paper, appendix A.

    As in `fullconv.evaluation.metrics`, an IoU counts the pixels of the whole split, and a mean is over the
    classes that occur. Nothing is learned or predicted; the masks say it all.

    Args:
        data: a data set or its folder.
        split: "train", "val" or "test".
        progress: called with (masks done, masks).
        checked: the data set is known to have no errors, and is not looked at again.
        strides: in pixels, of `STRIDES`.

    Raises:
        FullconvError: no such split, or faulty data in it.
    """
    dataset = data if isinstance(data, Dataset) else load_dataset(data)
    pairs = dataset.pairs_of(split)
    # Of masks that do not mean what they hold (0 and 255 only, say) a ceiling would be nonsense.
    if not checked:
        check(replace(dataset, splits={split: pairs})).raise_for_errors()
    count = len(dataset.labels)
    sums = np.zeros((len(strides), 3, count), dtype=np.int64)
    pixels = 0
    # Threads: decoding and numpy leave Python's lock alone.
    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        masks = pool.map(
            lambda pair: _sums(read_mask(pair.mask, dataset.labels), count, strides), pairs
        )
        for done, (found, size) in enumerate(masks):
            sums += found
            pixels += size
            if progress is not None:
                progress(done + 1, len(pairs))
    labelled = int(sums[0, 0].sum())
    return Ceiling(
        str(dataset.root),
        split,
        len(pairs),
        len(pairs),
        (pixels - labelled) / max(1, pixels),
        dataset.labels.names,
        {stride: _iou(*found) for stride, found in zip(strides, sums, strict=True)},
    )


def estimate_on_sample(dataset: Dataset, split: str = "train") -> Ceiling | None:
    """The ceiling on 32 masks at most, spread evenly over a split without errors; None where it has
    no pair."""
    pairs = dataset.splits.get(split, ())
    if not pairs:
        return None
    count = min(_SAMPLE, len(pairs))
    some = tuple(pairs[k * len(pairs) // count] for k in range(count))
    found = iou_ceiling(replace(dataset, splits={split: some}), split=split, checked=True)
    return replace(found, images_in_split=len(pairs))


def downsample_upsample(ids: Ids, stride: int, num_classes: int) -> Ids:
    """What is left of a mask that was seen through the cells of a stride; see above.

    Args:
        ids: (H, W) class ids; those of `num_classes` and above are ignored.
        stride: in pixels; even, and at most 32.
        num_classes: K.

    Returns:
        (H, W) class ids 0 .. K-1 of the same type, at the ignored pixels too; the mask itself where
        nothing else is in it.
    """
    height, width = ids.shape
    present = np.flatnonzero(np.bincount(ids.ravel(), minlength=num_classes)[:num_classes])
    if not len(present):
        return ids.copy()
    counts = np.stack([_count(ids == k, stride) for k in present])
    # A frame of copies: beyond the outermost centres nothing changes.
    framed = np.pad(counts, ((0, 0), (1, 1), (1, 1)), mode="edge")
    rows, columns = framed.shape[1] - 1, framed.shape[2] - 1  # patches between four centres
    weights = _weights(stride)
    drawn = np.empty((rows, stride, columns, stride), dtype=ids.dtype)
    step = max(1, _BAND // (columns * stride * stride))
    for top in range(0, rows, step):
        band = framed[:, top : top + step + 1]
        sides = (band[:, :-1, :-1], band[:, :-1, 1:], band[:, 1:, :-1], band[:, 1:, 1:])
        corners = np.stack(sides, axis=-1).reshape(len(present), -1, 4)
        patches = _read(corners, weights, present.astype(ids.dtype))
        patches = patches.reshape(-1, columns, stride, stride)
        drawn[top : top + step] = patches.transpose(0, 2, 1, 3)
    half = stride // 2  # the first patch begins half a cell above and left of the image
    whole = drawn.reshape(rows * stride, columns * stride)
    return whole[half : half + height, half : half + width]


def _count(members: NDArray[np.bool_], stride: int) -> NDArray[np.float32]:
    """(h, w) how many pixels of each cell are members, of an (H, W) mask."""
    whole = np.pad(members, [(0, -size % stride) for size in members.shape])
    lines = whole.reshape(-1, stride, whole.shape[1]).sum(axis=1, dtype=np.uint8)
    return lines.reshape(len(lines), -1, stride).sum(axis=2, dtype=np.float32)


def _weights(stride: int) -> NDArray[np.float32]:
    """(4, stride^2) what each corner of a patch weighs at its pixels, in 1 / (2 * stride)^2.

    In these units every reading is a whole number below stride^2 * (2 * stride)^2, which float32
    holds exactly up to stride 32: equal is equal, in whatever order it was added up.
    """
    near = np.arange(1, 2 * stride, 2, dtype=np.float32)  # of the lower or right corner
    sides = np.stack([near[::-1], near])
    return np.einsum("ay,bx->abyx", sides, sides).reshape(4, -1)


def _read(corners: NDArray[np.float32], weights: NDArray[np.float32], classes: Ids) -> NDArray[Any]:
    """(patches, pixels) the class with the largest reading, of (classes, patches, 4) counts."""
    there: NDArray[np.bool_] = np.asarray(corners.any(axis=2))
    drawn = np.repeat(classes[there.argmax(axis=0)][:, None], weights.shape[1], axis=1)
    # Most patches lie inside one class, and few classes meet in the others.
    mixed = np.flatnonzero(there.sum(axis=0) > 1)
    best = np.zeros((len(mixed), weights.shape[1]), dtype=np.float32)
    names = drawn[mixed]
    for k, meets, counts in zip(classes, there[:, mixed], corners[:, mixed], strict=True):
        where = np.flatnonzero(meets)
        reading = counts[where] @ weights
        before = best[where]
        names[where] = np.where(reading > before, k, names[where])
        best[where] = np.maximum(reading, before)
    drawn[mixed] = names
    return drawn


def _sums(ids: Ids, num_classes: int, strides: tuple[int, ...]) -> tuple[NDArray[np.int64], int]:
    """Of one mask, (strides, 3, K) pixels of each class, those of them that another class is drawn
    over, and those that it is drawn over itself; and how many pixels it has."""
    scored = ids < num_classes
    truth = np.bincount(ids[scored], minlength=num_classes)
    sums = []
    for stride in strides:
        drawn = downsample_upsample(ids, stride, num_classes)
        wrong = scored & (drawn != ids)
        lost, gained = (np.bincount(kind[wrong], minlength=num_classes) for kind in (ids, drawn))
        sums.append([truth, lost, gained])
    return np.array(sums), ids.size


def _iou(truth: NDArray[Any], lost: NDArray[Any], gained: NDArray[Any]) -> tuple[float, ...]:
    """(K,) intersection over union; nan where both are empty."""
    union = (truth + gained).tolist()
    right = (truth - lost).tolist()
    return tuple(r / u if u else math.nan for r, u in zip(right, union, strict=True))


def _mean(values: tuple[float, ...]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else value


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.2f}"
