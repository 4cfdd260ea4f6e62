"""Quality beside IoU, counted while a split is evaluated: near edges, by the size of objects, of
the confidence. Counts alone are kept, so that memory does not grow with the images.

Boundary IoU    of the pixels within a band along the true edges, by its width (a trimap; Kohli et
                al. 2009). An edge pixel has a side neighbour of another label in the truth, ignored
                pixels being a label of their own; a band of width w holds the scored pixels that
                lie less than w pixels from one, in rows and in columns.
Boundary F1     Csurka et al. 2013: of the edge pixels of a class, precision is the share of the
                predicted ones and recall that of the true ones that lie closer than 0.75 % of the
                image's diagonal to one of the other map. Their harmonic mean is averaged over the
                classes whose edges the truth of an image shows, and then over images, as
                Badrinarayanan et al. 2017 do for CamVid. What is predicted on ignored pixels may
                match, and is left out where it does not.
Object size     objects are regions of one class in the truth that hang together over their sides.
Calibration     pixels by the confidence of their label: expected calibration error (Guo et al.
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

from fullconv.evaluation.metrics import Metrics, known_mean, plain, ratios
from fullconv.inference.postprocess import label_regions

WIDTHS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 35, 40)  # of the bands, in pixels
TOLERANCE = 0.0075  # of the diagonal
AREAS = (1, 8**2, 16**2, 32**2, 64**2, 128**2, 256**2)  # from how many pixels on
BINS = 20  # of the confidence

_BAND_OF = np.searchsorted(WIDTHS, np.arange(1, WIDTHS[-1] + 2))  # by the distance to an edge pixel


class Quality:
    """What is counted of one head.

    Args:
        names: of the K classes.

    Attributes:
        near: (widths + 1, 3, K) pixels by the narrowest band that holds them: of each true class,
            of each predicted one, and of both.
        edges: (2, K) sum of the boundary F1 over images, and how many images that is.
        images_f1: (2,) the same of the images' means.
        objects: (areas, 4, K) objects, those of which at least half is right, their pixels, and the
            right ones.
        sure: (bins, 3) pixels, right ones, and the sum of their confidence.
        image_iou: mean IoU of each image, in their order; nan where nothing is labelled.
        most, where: (K, K) of true class i called j, the most pixels in one image, and which.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        count = len(self.names)
        self.near = np.zeros((len(WIDTHS) + 1, 3, count), np.int64)
        self.edges = np.zeros((2, count))
        self.images_f1 = np.zeros(2)
        self.objects = np.zeros((len(AREAS), 4, count), np.int64)
        self.sure = np.zeros((BINS, 3))
        self.image_iou: list[float] = []
        self.most = np.zeros((count, count), np.int64)
        self.where = np.zeros((count, count), np.int32)

    def add(
        self,
        truth: NDArray[Any],
        found: NDArray[Any],
        confusion: NDArray[np.int64],
        confidence: NDArray[np.float32] | None = None,
    ) -> None:
        """One more image.

        Args:
            truth: (H, W) class ids; those of K and above are ignored.
            found: (H, W) class ids 0 .. K-1.
            confusion: (K, K) of this image, see `fullconv.evaluation.metrics.confusion_matrix`.
            confidence: (H, W) the probability of the class that was found; None: not known.
        """
        number = len(self.image_iou)
        self.image_iou.append(Metrics(self.names, confusion).mean_iou)
        more = confusion > self.most
        self.most[more], self.where[more] = confusion[more], number
        if not confusion.any():
            return
        count = len(self.names)
        ids = np.minimum(truth, count).astype(np.uint16 if count < 2**16 - 1 else np.int32)
        right = ids == found
        edge = edge_pixels(ids)
        self._count_bands(ids, found, right, edge)
        self._count_edges(ids, found, edge)
        self._count_objects(ids, right)
        if confidence is not None:
            self._count_confidence(confidence, right, ids < count)

    def _count_bands(
        self,
        ids: NDArray[Any],
        found: NDArray[Any],
        right: NDArray[np.bool_],
        edge: NDArray[np.bool_],
    ) -> None:
        from scipy.ndimage import distance_transform_cdt  # here: it takes a fifth of a second

        if not edge.any():
            return
        # One class more for what does not count: cheaper than to pick out the other pixels.
        count, bands = len(self.names), len(self.near)
        away = distance_transform_cdt(~edge, "chessboard")
        band = np.take(_BAND_OF * (count + 1), away, mode="clip")
        of_truth = np.bincount(
            2 * (band + ids).ravel() + right.ravel(), minlength=2 * bands * (count + 1)
        )
        either = of_truth.reshape(bands, count + 1, 2)[:, :count]
        band += np.where(ids < count, found, count)
        called = np.bincount(band.ravel(), minlength=bands * (count + 1))
        self.near[:, 0] += either.sum(axis=2)
        self.near[:, 1] += called.reshape(bands, count + 1)[:, :count]
        self.near[:, 2] += either[:, :, 1]

    def _count_edges(self, ids: NDArray[Any], found: NDArray[Any], edge: NDArray[np.bool_]) -> None:
        count = len(self.names)
        within = math.hypot(*ids.shape) * TOLERANCE
        margin = math.ceil(within)
        of_truth = _framed(ids, edge & (ids < count), margin)
        of_found = _framed(found, edge_pixels(found), margin)
        true, caught, _ = _matched(of_truth, of_found, within, count)
        called, good, left = _matched(of_found, of_truth, within, count)
        unknown = _framed(ids, ids == count, margin).ravel()[left] == count
        of_left = of_found.ravel()[left][unknown]
        called = called - np.bincount(of_left, minlength=count)
        shown = true > 0
        if not shown.any():
            return
        recall = caught[shown] / true[shown]
        precision = good[shown] / np.maximum(1, called[shown])
        f1 = 2 * precision * recall / np.maximum(precision + recall, np.finfo(float).tiny)
        self.edges[0, shown] += f1
        self.edges[1, shown] += 1
        self.images_f1 += (f1.mean(), 1)

    def _count_objects(self, ids: NDArray[Any], right: NDArray[np.bool_]) -> None:
        regions = label_regions(ids).ravel()
        sizes = np.bincount(regions)
        good = np.bincount(regions[right.ravel()], minlength=len(sizes))
        classes = np.empty(len(sizes), np.int64)
        classes[regions] = ids.ravel()
        scored = classes < len(self.names)
        sizes, good, classes = sizes[scored], good[scored], classes[scored]
        place = np.searchsorted(AREAS, sizes, side="right") - 1
        amounts = (np.ones_like(sizes), (2 * good >= sizes).astype(np.int64), sizes, good)
        for row, amount in enumerate(amounts):
            np.add.at(self.objects[:, row], (place, classes), amount)

    def _count_confidence(
        self,
        confidence: NDArray[np.float32],
        right: NDArray[np.bool_],
        scored: NDArray[np.bool_],
    ) -> None:
        place = np.minimum((confidence * np.float32(BINS)).astype(np.int64), BINS - 1)
        place[~scored] = BINS
        place = place.ravel()
        for column, weights in enumerate((None, right, confidence)):
            cells = np.bincount(place, None if weights is None else weights.ravel(), BINS + 1)
            self.sure[:, column] += cells[:BINS]

    @property
    def band_iou(self) -> NDArray[np.float64]:
        """(widths,) mean IoU in the band of each width, over the classes that occur there."""
        truth, called, both = self.near[:-1].cumsum(axis=0).transpose(1, 0, 2)
        return np.array([known_mean(of) for of in ratios(both, truth + called - both)])

    @property
    def band_accuracy(self) -> NDArray[np.float64]:
        """(widths,) share of the pixels in the band that are right."""
        truth, _, both = self.near[:-1].cumsum(axis=0).sum(axis=2).T
        return ratios(both, truth)

    @property
    def boundary_f1(self) -> float:
        """Mean over images of the mean over the classes whose edges the truth shows."""
        return float(ratios(self.images_f1[:1], self.images_f1[1:])[0])

    @property
    def class_f1(self) -> NDArray[np.float64]:
        """(K,) mean over the images whose truth shows an edge of the class."""
        return ratios(*self.edges)

    @property
    def calibration_error(self) -> float:
        """Mean distance of confidence and accuracy over the bins, by their pixels; nan where the
        confidence is not known."""
        pixels, right, sure = self.sure.T
        return float(ratios(np.abs(right - sure).sum(keepdims=True), pixels.sum(keepdims=True))[0])

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; None for nan. What goes beside `Metrics.to_dict()`."""
        objects, found, pixels, right = self.objects.sum(axis=2).T
        by_class = ratios(self.objects[:, 3], self.objects[:, 2]).T
        in_bin, good, sure = self.sure.T
        return {
            "boundary": {
                "f1": plain(self.boundary_f1),
                "f1_tolerance": TOLERANCE,
                "per_class_f1": dict(zip(self.names, _listed(self.class_f1), strict=True)),
                "band_width": list(WIDTHS),
                "band_iou": _listed(self.band_iou),
                "band_accuracy": _listed(self.band_accuracy),
            },
            "object_size": {
                "area_from": list(AREAS),
                "objects": objects.tolist(),
                "found": _listed(ratios(found, objects)),
                "accuracy": _listed(ratios(right, pixels)),
                "per_class_accuracy": dict(zip(self.names, map(_listed, by_class), strict=True)),
            },
            "calibration": {
                "expected_error": plain(self.calibration_error),
                "pixels": in_bin.astype(np.int64).tolist(),
                "confidence": _listed(ratios(sure, in_bin)),
                "accuracy": _listed(ratios(good, in_bin)),
            },
        }


def edge_pixels(ids: NDArray[Any]) -> NDArray[np.bool_]:
    """(H, W) pixels with a neighbour of another id above, below, left or right."""
    edge = np.zeros(ids.shape, bool)
    below = ids[1:] != ids[:-1]
    edge[1:] |= below
    edge[:-1] |= below
    beside = ids[:, 1:] != ids[:, :-1]
    edge[:, 1:] |= beside
    edge[:, :-1] |= beside
    return edge


def _framed(ids: NDArray[Any], chosen: NDArray[np.bool_], margin: int) -> NDArray[np.int32]:
    """The ids of the chosen pixels, -1 elsewhere and in a frame around them."""
    rows, columns = ids.shape
    out = np.full((rows + 2 * margin, columns + 2 * margin), -1, np.int32)
    inner = out[margin : margin + rows, margin : margin + columns]
    inner[chosen] = ids[chosen]
    return out


def _matched(
    ours: NDArray[np.int32], theirs: NDArray[np.int32], within: float, count: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Of framed edge pixels: (K,) ours of each class, those with one of theirs closer than `within`
    pixels, and the places of the others."""
    left = np.flatnonzero(ours >= 0)
    classes, others = ours.ravel()[left], theirs.ravel()
    every = np.bincount(classes, minlength=count)
    for down, right in _offsets(within):  # the nearest first: few pixels are left for the others
        if not len(left):
            break
        apart = others[left + (down * ours.shape[1] + right)] != classes
        left, classes = left[apart], classes[apart]
    return every, every - np.bincount(classes, minlength=count), left


@lru_cache(maxsize=64)
def _offsets(within: float) -> tuple[tuple[int, int], ...]:
    """Steps to all pixels that are closer, the nearest first."""
    far = math.ceil(within)
    steps = [(y, x) for y in range(-far, far + 1) for x in range(-far, far + 1)]
    near = [step for step in steps if math.hypot(*step) < within]
    return tuple(sorted(near, key=lambda step: math.hypot(*step)))


def _listed(values: NDArray[np.float64]) -> list[float | None]:
    return [plain(float(value)) for value in values]
