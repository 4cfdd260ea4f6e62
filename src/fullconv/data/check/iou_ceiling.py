"""Estimate the best IoU that each output stride can reach on a dataset's labels.

Appendix A of the paper ("Upper Bounds on IU") finds it "by downsampling ground truth images and
then upsampling them again", without details. Here:

    down  count the pixels of each class in cells of stride x stride pixels, the first at the top
          left; ignored pixels, and those outside the image, count for no class
    up    interpolate the counts bilinearly at every pixel, like the logits of an FCN: the center of
          cell i is at stride * i + (stride - 1) / 2, and beyond the outermost centers nothing
          changes
    best  the class with the largest value; the lowest id if several are equal

Ignored pixels are not evaluated either, so a band of them along every border, as in PASCAL VOC,
hides the errors of a fine stride. On 100 images of VOC 2012 strides 32, 16 and 8 reach a mean IoU
of 85.6, 93.8 and 99.7. The paper's 86.1, 92.8 and 96.4 are reached (84.3, 91.9, 96.1) if the band
is one more class that is drawn and may cover its neighbors; no network is trained to draw it.

The bound is approximate, as the paper notes. The logits of a network need not be counts: they can
give small and thin objects more than their share of a cell, and so keep a part of what counting
loses. On CamVid an FCN-32s reaches 3.5 for poles, where counting leaves nothing. Trust the order of
the strides and of the classes; read a value near 0 as "next to nothing", not as a law.

Shapes: H, W image · h, w cells · K classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fullconv.core.hardware import cpu_count
from fullconv.core.i18n import Message, join, msg, nmsg
from fullconv.core.text import LIST_LIMIT, percent
from fullconv.data.check.check import check
from fullconv.data.io.masks import Ids, read_mask
from fullconv.data.layouts.dataset import Dataset, load_dataset

STRIDES = (4, 8, 16, 32)
# The recommended stride may lose this much mean IoU against the finest one. By the paper's own
# table (98.5, 96.4, 92.8, 86.1 for these strides) that is stride 8, where the paper stops as well.
MARGIN = 0.05

_SAMPLE = 32  # masks that tell how fine the labels are

_BAND = 1 << 16  # pixels that are interpolated at once; they fit into a processor's cache


@dataclass(frozen=True)
class Ceiling:
    """The approximate upper bound of each output stride on one split."""

    root: str
    split: str
    images: int  # that were counted, each at its original size
    images_in_split: int
    ignored: float  # share of the pixels, 0-1
    names: tuple[str, ...]  # of the K classes
    # Stride in pixels, the finest first -> IoU of each class, 0-1; nan if the class does not occur.
    class_iou: dict[int, tuple[float, ...]]

    @property
    def mean_iou(self) -> dict[int, float]:
        """Stride -> mean IoU over the classes that occur; nan if none does."""
        means = {}
        for stride, values in self.class_iou.items():
            known = [value for value in values if not math.isnan(value)]
            means[stride] = sum(known) / len(known) if known else math.nan
        return means

    @property
    def recommended_stride(self) -> int | None:
        """The coarsest stride that loses at most `MARGIN` of mean IoU against the finest one; None
        if no pixel is labeled."""
        means = self.mean_iou
        near = [stride for stride, mean in means.items() if mean >= means[min(means)] - MARGIN]
        return max(near, default=None)

    @property
    def reason(self) -> Message:
        """Why that stride is recommended, and how many masks were counted."""
        split, total = self.split, self.images_in_split
        if self.images == total:
            counted = nmsg(
                "measured on {count} mask of {split}",
                "measured on {count} masks of {split}",
                total,
                split=split,
            )
        else:
            counted = msg(
                "measured on {images} of {total} masks of {split}",
                images=self.images,
                total=total,
                split=split,
            )
        means, stride = self.mean_iou, self.recommended_stride
        if stride is None:
            return msg("no pixel is labeled ({counted})", counted=counted)
        finest = min(means)
        coarser = min((other for other in means if other > stride), default=None)
        values = {
            "stride": stride,
            "mean": percent(means[stride]),
            "points": f"{100 * MARGIN:g}",
            "finest": finest,
            "finest_mean": percent(means[finest]),
            "coarser": coarser,
            "coarser_mean": percent(means[coarser]) if coarser else "",
            "counted": counted,
        }
        if stride == finest:
            return msg(
                "stride {finest} can reach about {finest_mean} mIoU; stride {coarser} can reach "
                "about {coarser_mean}, more than {points} points less ({counted})",
                **values,
            )
        if coarser:
            return msg(
                "stride {stride} can reach about {mean} mIoU, stride {finest} about {finest_mean}, "
                "at most {points} points more; stride {coarser} can reach about {coarser_mean} "
                "({counted})",
                **values,
            )
        return msg(
            "stride {stride} can reach about {mean} mIoU, stride {finest} about {finest_mean}, at "
            "most {points} points more ({counted})",
            **values,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the result as a dict for JSON; None for nan."""
        means, strides = self.mean_iou, {}
        for stride, values in self.class_iou.items():
            per_class = dict(zip(self.names, map(_or_none, values), strict=True))
            mean = _or_none(means[stride])
            strides[str(stride)] = {"mean_iou": mean, "per_class_iou": per_class}
        return {
            "root": self.root,
            "split": self.split,
            "images": self.images,
            "images_in_split": self.images_in_split,
            "ignored": self.ignored,
            "strides": strides,
            "recommended_stride": self.recommended_stride,
            "reason": self.reason,
        }

    def text(self) -> str:
        """Return the bounds for a terminal: a line per class, and the recommendation."""
        head = nmsg(
            "{root}, split {split}, {count} image at its original size, {ignored} of the pixels "
            "ignored",
            "{root}, split {split}, {count} images at their original size, {ignored} of the pixels "
            "ignored",
            self.images,
            root=self.root,
            split=self.split,
            ignored=percent(self.ignored),
        )
        title = msg("upper bound of the IoU: the ground truth, downsampled by stride and upsampled")
        lines: list[str] = [head, title, ""]

        def add_line(name: str, cells: Iterable[str]) -> None:
            text = "".join(f"{cell:>11}" for cell in cells)
            lines.append(Message("{name:<24}{text}", {"name": name, "text": text}))

        rows = [*zip(self.names, *self.class_iou.values(), strict=True)]
        present = [row for row in rows if not math.isnan(row[1])]
        absent = len(rows) - len(present)
        if absent <= LIST_LIMIT:
            present, absent = rows, 0
        add_line(msg("class"), [f"stride {stride}" for stride in self.class_iou])
        for name, *values in present:
            add_line(name[:23], [percent(value, 2) for value in values])
        add_line(msg("mean IoU"), [percent(value, 2) for value in self.mean_iou.values()])
        if absent:
            lines.append(
                msg("left out: {count} classes that {split} lacks", count=absent, split=self.split)
            )
        lines.append("")
        stride, coarsest = list(self.class_iou.items())[-1]
        known = [k for k, iou in enumerate(coarsest) if not math.isnan(iou)]
        if known:
            worst = min(known, key=coarsest.__getitem__)
            lines.append(
                msg(
                    "{name} loses most: at stride {stride} about {iou} is left",
                    name=self.names[worst],
                    stride=stride,
                    iou=percent(coarsest[worst], 2),
                )
            )
        if recommended := self.recommended_stride:
            option = f"--stride {recommended}"
            lines.append(msg("recommended: {option}: {reason}", option=option, reason=self.reason))
        else:
            lines.append(msg("recommended: none: {reason}", reason=self.reason))
        return join(lines)


def iou_ceiling(
    data: Dataset | str | Path,
    *,
    split: str = "val",
    progress: Callable[[int, int], None] | None = None,
    checked: bool = False,
    strides: tuple[int, ...] = STRIDES,
) -> Ceiling:
    """Estimate the best IoU that some output strides can reach on a split: paper, appendix A.

    As in `fullconv.evaluation.metrics`, an IoU counts the pixels of the whole split, and the mean
    is over the classes that occur. Nothing is learned or predicted.

    Args:
        data: a dataset or its folder.
        split: "train", "val" or "test".
        progress: called with (masks done, all masks).
        checked: the dataset is known to have no errors; it is not checked again.
        strides: pixels; some of `STRIDES`.

    Raises:
        FullconvError: there is no such split, or it has errors.
    """
    dataset = data if isinstance(data, Dataset) else load_dataset(data)
    pairs = dataset.pairs_of(split)
    # For masks whose values mean something else (0 and 255 only, say) the result would be nonsense.
    if not checked:
        check(replace(dataset, splits={split: pairs})).for_evaluation().raise_for_errors()
    count = len(dataset.labels)
    sums = np.zeros((len(strides), 3, count), dtype=np.int64)
    pixels = 0
    # Threads suffice: decoding and numpy release the GIL.
    with ThreadPoolExecutor(min(16, cpu_count())) as pool:
        results = pool.map(
            lambda pair: _sums(read_mask(pair.mask, dataset.labels), count, strides), pairs
        )
        for done, (mask_sums, size) in enumerate(results, 1):
            sums += mask_sums
            pixels += size
            if progress is not None:
                progress(done, len(pairs))
    ignored = (pixels - int(sums[0, 0].sum())) / max(1, pixels)
    class_iou = {}
    for stride, (truth, lost, gained) in zip(strides, sums, strict=True):
        overlaps = zip((truth - lost).tolist(), (truth + gained).tolist(), strict=True)
        class_iou[stride] = tuple(i / u if u else math.nan for i, u in overlaps)
    names, images = dataset.labels.names, len(pairs)
    return Ceiling(str(dataset.root), split, images, images, ignored, names, class_iou)


def estimate_on_sample(dataset: Dataset, split: str = "train") -> Ceiling | None:
    """Estimate the upper bound on at most 32 masks, spread evenly over a split without errors;
    None if the split has no pair."""
    pairs = dataset.splits.get(split, ())
    if not pairs:
        return None
    count = min(_SAMPLE, len(pairs))
    sample = tuple(pairs[k * len(pairs) // count] for k in range(count))
    ceiling = iou_ceiling(replace(dataset, splits={split: sample}), split=split, checked=True)
    return replace(ceiling, images_in_split=len(pairs))


def downsample_upsample(ids: Ids, stride: int, num_classes: int) -> Ids:
    """Return what is left of a mask after downsampling and upsampling; see above.

    `ids` are (H, W) class ids; `num_classes` (K) and above are ignored. `stride` is in pixels, even
    and at most 32. The result has the class ids 0 .. K-1 also at the ignored pixels; it is the mask
    itself if all its pixels are ignored.
    """
    height, width = ids.shape
    present = np.flatnonzero(np.bincount(ids.ravel(), minlength=num_classes)[:num_classes])
    if not len(present):
        return ids.copy()
    counts = np.stack([_count(ids == k, stride) for k in present])
    # A frame of copies: beyond the outermost centers nothing changes.
    framed = np.pad(counts, ((0, 0), (1, 1), (1, 1)), mode="edge")
    rows, columns = framed.shape[1] - 1, framed.shape[2] - 1  # patches between four centers
    # The weights of the corners of a patch at its pixels, (4, stride^2), in 1 / (2 * stride)^2. In
    # these units every interpolated value is a whole number below stride^2 * (2 * stride)^2, which
    # float32 holds exactly up to stride 32: equal values are equal, in any order of addition.
    near = np.arange(1, 2 * stride, 2, dtype=np.float32)  # for the lower or right corner
    near_and_far = np.stack([near[::-1], near])
    weights = np.einsum("ay,bx->abyx", near_and_far, near_and_far).reshape(4, -1)
    result = np.empty((rows, stride, columns, stride), dtype=ids.dtype)
    step = max(1, _BAND // (columns * stride * stride))
    for top in range(0, rows, step):
        band = framed[:, top : top + step + 1]
        sides = (band[:, :-1, :-1], band[:, :-1, 1:], band[:, 1:, :-1], band[:, 1:, 1:])
        corners = np.stack(sides, axis=-1).reshape(len(present), -1, 4)
        patches = _largest(corners, weights, present.astype(ids.dtype))
        patches = patches.reshape(-1, columns, stride, stride)
        result[top : top + step] = patches.transpose(0, 2, 1, 3)
    half = stride // 2  # the first patch begins half a cell above and left of the image
    whole = result.reshape(rows * stride, columns * stride)
    return whole[half : half + height, half : half + width]


def _count(members: NDArray[np.bool_], stride: int) -> NDArray[np.float32]:
    """Return (h, w) how many pixels of each cell are True in an (H, W) mask."""
    whole = np.pad(members, [(0, -size % stride) for size in members.shape])
    lines = whole.reshape(-1, stride, whole.shape[1]).sum(axis=1, dtype=np.uint8)
    return lines.reshape(len(lines), -1, stride).sum(axis=2, dtype=np.float32)


def _largest(
    corners: NDArray[np.float32], weights: NDArray[np.float32], classes: Ids
) -> NDArray[Any]:
    """Return (patches, pixels) the class of the largest value; counts are (classes, patches, 4)."""
    occurs: NDArray[np.bool_] = np.asarray(corners.any(axis=2))
    result = np.repeat(classes[occurs.argmax(axis=0)][:, None], weights.shape[1], axis=1)
    # Most patches are inside one class, and few classes meet in the others.
    mixed = np.flatnonzero(occurs.sum(axis=0) > 1)
    best = np.zeros((len(mixed), weights.shape[1]), dtype=np.float32)
    winners = result[mixed]
    for k, in_patch, counts in zip(classes, occurs[:, mixed], corners[:, mixed], strict=True):
        where = np.flatnonzero(in_patch)
        value = counts[where] @ weights
        before = best[where]
        winners[where] = np.where(value > before, k, winners[where])
        best[where] = np.maximum(value, before)
    result[mixed] = winners
    return result


def _sums(ids: Ids, num_classes: int, strides: tuple[int, ...]) -> tuple[NDArray[np.int64], int]:
    """Return (strides, 3, K) sums of one mask, and its number of pixels: the pixels of each class,
    those that another class replaced, and those that the class gained."""
    labeled = ids < num_classes
    truth = np.bincount(ids[labeled], minlength=num_classes)
    sums = []
    for stride in strides:
        result = downsample_upsample(ids, stride, num_classes)
        wrong = labeled & (result != ids)
        lost, gained = (np.bincount(k[wrong], minlength=num_classes) for k in (ids, result))
        sums.append([truth, lost, gained])
    return np.array(sums), ids.size


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value
