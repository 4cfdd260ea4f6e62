"""Error analysis beyond IoU: near edges, by object size, and by confidence.

Only counts are kept, so memory does not grow with the number of images.

Boundary IoU    IoU of the pixels in a band along the true edges, by its width (a trimap; Kohli et
                al. 2009). An edge pixel has a side neighbor with another label in the ground truth;
                ignored pixels are a label of their own. A band of width w holds the labeled pixels
                that are less than w pixels from an edge pixel, in rows and in columns.
Boundary F1     Csurka et al. 2013, per class and image. An edge pixel matches if an edge pixel of
                its class in the other map is closer than 0.75 % of the image's diagonal. Precision
                is the share of the predicted edge pixels that match, recall that of the true ones.
                F1 is averaged over the classes with edges in an image's ground truth, and then over
                images, as Badrinarayanan et al. 2017 do for CamVid. Predicted edges on ignored
                pixels may match; if they do not, they are not counted.
Object size     Objects are 4-connected regions of one class in the ground truth.
Calibration     Pixels by the confidence of their prediction: expected calibration error (Guo et al.
                2017), in bins of equal width.

Nothing here needs torch. Shapes: H, W image · K classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fullconv.core.labels import ids_dtype
from fullconv.evaluation.metrics import Metrics, iou_from_sums, nan_mean, none_if_nan, ratios
from fullconv.inference.postprocess import label_regions

WIDTHS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 35, 40)  # of the bands, in pixels
TOLERANCE = 0.0075  # of the diagonal
AREAS = (1, 8**2, 16**2, 32**2, 64**2, 128**2, 256**2)  # smallest object of each size, in pixels
BINS = 20  # of the confidence

Flags = NDArray[np.bool_]  # (H, W)
_BAND_BY_DISTANCE = np.searchsorted(WIDTHS, np.arange(1, WIDTHS[-1] + 2))


class Quality:
    """Counts for the error analysis of one head with K classes."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        count = len(self.names)
        # Pixels by the narrowest band that holds them: of each true and predicted class, correct.
        self.band_counts = np.zeros((len(WIDTHS) + 1, 3, count), np.int64)
        # Sum of the boundary F1 over images, and their number: by class, and of the classes' mean.
        self.boundary_f1_sums = np.zeros((2, count))
        self.image_f1_sums = np.zeros(2)
        # Objects, objects that are at least half correct, their pixels, their correct pixels.
        self.object_counts = np.zeros((len(AREAS), 4, count), np.int64)
        # Pixels, correct pixels, and the sum of their confidence.
        self.calibration_counts = np.zeros((BINS, 3))
        self.image_iou: list[float] = []  # the mean of each image; NaN if nothing is labeled
        # Of true class i predicted as class j: the most pixels in one image, and its number.
        self.most_pixels = np.zeros((count, count), np.int64)
        self.worst_image = np.zeros((count, count), np.int32)

    def add(
        self,
        truth: NDArray[Any],
        prediction: NDArray[Any],
        confusion: NDArray[np.int64],
        confidence: NDArray[np.float32] | None = None,
    ) -> None:
        """Count one image.

        Args:
            truth, prediction: (H, W) class ids; K and above are ignored in the ground truth.
            confusion: (K, K) of this image, see `fullconv.evaluation.metrics.confusion_matrix`.
            confidence: (H, W) probability of the predicted class, or None if unknown.
        """
        number = len(self.image_iou)
        self.image_iou.append(Metrics(self.names, confusion).mean_iou)
        more = confusion > self.most_pixels
        self.most_pixels[more], self.worst_image[more] = confusion[more], number
        if not confusion.any():
            return
        count = len(self.names)
        ids = np.minimum(truth, count).astype(ids_dtype(count))  # the id K is free for ignored ones
        correct = ids == prediction
        edge = edge_pixels(ids)
        self._count_bands(ids, prediction, correct, edge)
        self._count_edges(ids, prediction, edge)
        self._count_objects(ids, correct)
        if confidence is None:
            return
        bins = np.minimum((confidence * np.float32(BINS)).astype(np.int64), BINS - 1)
        bins[ids == count] = BINS
        sums = [np.bincount(bins.ravel(), minlength=BINS + 1)]
        sums += [np.bincount(bins.ravel(), x.ravel(), BINS + 1) for x in (correct, confidence)]
        self.calibration_counts += np.stack(sums, axis=1)[:BINS]

    def _count_bands(
        self, ids: NDArray[Any], prediction: NDArray[Any], correct: Flags, edge: Flags
    ) -> None:
        from scipy.ndimage import distance_transform_cdt  # the import takes 0.2 s

        if not edge.any():
            return
        # One more class for ignored pixels: cheaper than selecting the other pixels.
        count, bands = len(self.names), len(self.band_counts)
        distance = distance_transform_cdt(~edge, "chessboard")
        band = np.take(_BAND_BY_DISTANCE * (count + 1), distance, mode="clip")
        pairs = 2 * (band + ids).ravel() + correct.ravel()
        by_truth = np.bincount(pairs, minlength=2 * bands * (count + 1))
        by_truth = by_truth.reshape(bands, count + 1, 2)[:, :count]
        band += np.where(ids < count, prediction, count)
        predicted = np.bincount(band.ravel(), minlength=bands * (count + 1))
        self.band_counts[:, 0] += by_truth.sum(axis=2)
        self.band_counts[:, 1] += predicted.reshape(bands, count + 1)[:, :count]
        self.band_counts[:, 2] += by_truth[:, :, 1]

    def _count_edges(self, ids: NDArray[Any], prediction: NDArray[Any], edge: Flags) -> None:
        count = len(self.names)
        limit = math.hypot(*ids.shape) * TOLERANCE
        margin = math.ceil(limit)
        true_edges = _framed(ids, edge & (ids < count), margin)
        predicted_edges = _framed(prediction, edge_pixels(prediction), margin)
        true, recalled, _ = _match_edges(true_edges, predicted_edges, limit, count)
        predicted, precise, unmatched = _match_edges(predicted_edges, true_edges, limit, count)
        # Unmatched predictions on ignored pixels are not counted.
        ignored = _framed(ids, ids == count, margin).ravel()[unmatched] == count
        on_ignored = predicted_edges.ravel()[unmatched][ignored]
        predicted = predicted - np.bincount(on_ignored, minlength=count)
        present = true > 0
        if not present.any():
            return
        recall = recalled[present] / true[present]
        precision = precise[present] / np.maximum(1, predicted[present])
        f1 = 2 * precision * recall / np.maximum(precision + recall, np.finfo(float).tiny)
        self.boundary_f1_sums[0, present] += f1
        self.boundary_f1_sums[1, present] += 1
        self.image_f1_sums += (f1.mean(), 1)

    def _count_objects(self, ids: NDArray[Any], correct: Flags) -> None:
        regions = label_regions(ids).ravel()
        sizes = np.bincount(regions)
        right = np.bincount(regions[correct.ravel()], minlength=len(sizes))
        classes = np.empty(len(sizes), np.int64)
        classes[regions] = ids.ravel()
        labeled = classes < len(self.names)
        sizes, right, classes = sizes[labeled], right[labeled], classes[labeled]
        bins = np.searchsorted(AREAS, sizes, side="right") - 1
        amounts = (np.ones_like(sizes), (2 * right >= sizes).astype(np.int64), sizes, right)
        for row, amount in enumerate(amounts):
            np.add.at(self.object_counts[:, row], (bins, classes), amount)

    @property
    def band_iou(self) -> NDArray[np.float64]:
        """Mean IoU in the band of each width, over the classes that occur there: (widths,)."""
        true, predicted, correct = self.band_counts[:-1].cumsum(axis=0).transpose(1, 0, 2)
        return np.array([nan_mean(row) for row in iou_from_sums(correct, true, predicted)])

    @property
    def band_accuracy(self) -> NDArray[np.float64]:
        """Share of the pixels in the band of each width that are correct: (widths,)."""
        true, _, correct = self.band_counts[:-1].cumsum(axis=0).sum(axis=2).T
        return ratios(correct, true)

    @property
    def boundary_f1(self) -> float:
        """Mean over images of the mean over the classes whose edges the ground truth shows."""
        return float(ratios(*self.image_f1_sums))

    @property
    def class_f1(self) -> NDArray[np.float64]:
        """Mean over the images whose ground truth shows an edge of the class: (K,)."""
        return ratios(*self.boundary_f1_sums)

    @property
    def calibration_error(self) -> float:
        """Mean gap of confidence and accuracy over the bins, by their pixels; NaN if unknown."""
        pixels, correct, confidence = self.calibration_counts.T
        return float(ratios(np.abs(correct - confidence).sum(), pixels.sum()))

    def to_dict(self) -> dict[str, Any]:
        """Return the figures for JSON, next to those of `Metrics.to_dict()`; None for NaN."""
        objects, detected, pixels, right = self.object_counts.sum(axis=2).T
        by_class = ratios(self.object_counts[:, 3], self.object_counts[:, 2]).T
        in_bin, correct, confidence = self.calibration_counts.T
        return {
            "boundary": {
                "f1": none_if_nan(self.boundary_f1),
                "f1_tolerance": TOLERANCE,
                "per_class_f1": dict(zip(self.names, _list(self.class_f1), strict=True)),
                "band_width": list(WIDTHS),
                "band_iou": _list(self.band_iou),
                "band_accuracy": _list(self.band_accuracy),
            },
            "object_size": {
                "area_from": list(AREAS),
                "objects": objects.tolist(),
                "found": _list(ratios(detected, objects)),
                "accuracy": _list(ratios(right, pixels)),
                "per_class_accuracy": dict(zip(self.names, map(_list, by_class), strict=True)),
            },
            "calibration": {
                "expected_error": none_if_nan(self.calibration_error),
                "pixels": in_bin.astype(np.int64).tolist(),
                "confidence": _list(ratios(confidence, in_bin)),
                "accuracy": _list(ratios(correct, in_bin)),
            },
        }


def edge_pixels(ids: NDArray[Any]) -> Flags:
    """Return the pixels with another id above, below, left or right: (H, W)."""
    edge = np.zeros(ids.shape, bool)
    vertical = ids[1:] != ids[:-1]
    edge[1:] |= vertical
    edge[:-1] |= vertical
    horizontal = ids[:, 1:] != ids[:, :-1]
    edge[:, 1:] |= horizontal
    edge[:, :-1] |= horizontal
    return edge


def _framed(ids: NDArray[Any], chosen: Flags, margin: int) -> NDArray[np.int32]:
    """Return the ids of the chosen pixels; -1 elsewhere and in a frame around them."""
    framed = np.full([size + 2 * margin for size in ids.shape], -1, np.int32)
    inner = framed[margin : margin + ids.shape[0], margin : margin + ids.shape[1]]
    inner[chosen] = ids[chosen]
    return framed


def _match_edges(
    edges: NDArray[np.int32], others: NDArray[np.int32], limit: float, count: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Match framed edge pixels with those of another map that are closer than `limit` pixels.

    Return the edge pixels of each class (K,), matched ones (K,), and the others' flat places.
    """
    places = np.flatnonzero(edges >= 0)
    classes, others = edges.ravel()[places], others.ravel()
    totals = np.bincount(classes, minlength=count)
    for down, right in _offsets(limit):  # the nearest first leave few pixels for the others
        if not len(places):
            break
        unmatched = others[places + (down * edges.shape[1] + right)] != classes
        places, classes = places[unmatched], classes[unmatched]
    return totals, totals - np.bincount(classes, minlength=count), places


@lru_cache(maxsize=64)
def _offsets(limit: float) -> tuple[tuple[int, int], ...]:
    """Return the steps (down, right) to all pixels closer than `limit`, the nearest first."""
    reach = range(-math.ceil(limit), math.ceil(limit) + 1)
    steps = [(y, x) for y in reach for x in reach if math.hypot(y, x) < limit]
    return tuple(sorted(steps, key=lambda step: math.hypot(*step)))


def _list(values: NDArray[np.float64]) -> list[float | None]:
    return [none_if_nan(value) for value in values]
