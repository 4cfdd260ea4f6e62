"""The images of a report: the best, the median and the worst one, and crops of confused classes.

They are predicted again, because an evaluation stores no predictions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from fullconv.core.labels import Labels
from fullconv.data.io.images import read_image
from fullconv.evaluation.error_analysis import edge_pixels
from fullconv.evaluation.evaluate import EvaluationContext
from fullconv.evaluation.report.tables import ConfusedPair, HeadTables
from fullconv.inference.postprocess import label_regions
from fullconv.visualization.contact_sheet import contact_sheet, reduced_size
from fullconv.visualization.overlay import WRONG, colorize, error_map

PANELS = ("image", "ground truth", "prediction", "errors")
_WIDEST = 640  # pixels of an image in a report
_NARROW, _MANY_HEADS = 400, 3  # pixels, if there are more heads
_CROP, _GAP = 200, 6  # pixels of a crop as shown, and between two crops
_SMALLEST_CROP = 96  # pixels of the image


@dataclass(frozen=True)
class RankedImage:
    """An image with its panels, see `PANELS`."""

    rank: str  # "best", "median" or "worst"
    name: str
    mean_iou: float  # of this image, over the classes in its ground truth or prediction
    panels: tuple[Image.Image, ...]

    def sheet(self) -> Image.Image:
        """Return all panels in a row."""
        panels = [np.asarray(panel.convert("RGB")) for panel in self.panels]
        return contact_sheet([panels], PANELS)


@dataclass
class HeadImages:
    """The images of one head."""

    ranked: list[RankedImage] = field(default_factory=list)  # best, median and worst
    # For each confused pair: image, ground truth and prediction side by side.
    crops: dict[ConfusedPair, Image.Image] = field(default_factory=dict)


def head_images(context: EvaluationContext, tables: Sequence[HeadTables]) -> list[HeadImages]:
    """Draw the images of every head; each image is read and predicted once."""
    results = [HeadImages() for _ in tables]
    ranks = [rank_images(head.quality.image_iou) for head in tables]
    numbers = {number for by_rank in ranks for number in by_rank.values()}
    numbers |= {pair.image for head in tables for pair in head.confused}
    pairs = context.dataset.pairs_of(context.split)
    width = _WIDEST if len(tables) <= _MANY_HEADS else _NARROW
    for number in sorted(numbers):
        image = read_image(pairs[number].image)
        predictions = context.model.label_maps(image, pairs[number].inputs)
        truths = context.ground_truth(pairs[number])
        for k, head in enumerate(tables):
            ids, labels = predictions[head.number], head.labels
            truth = np.where(truths[k] < len(labels), truths[k], labels.ignore_index)
            for rank, place in ranks[k].items():
                if place == number:
                    iou = head.quality.image_iou[number]
                    panels = _draw_panels(image, truth, ids, labels, width)
                    results[k].ranked.append(RankedImage(rank, pairs[number].name, iou, panels))
            for pair in head.confused:
                if pair.image == number:
                    results[k].crops[pair] = _draw_crops(image, truth, ids, labels, pair)
    for head_result in results:
        head_result.ranked.sort(key=lambda ranked: ranked.rank)  # best, median, worst
    return results


def rank_images(image_iou: Sequence[float]) -> dict[str, int]:
    """Return the numbers of the best, median and worst image, each image only once; images without
    labeled pixels (NaN) are left out.

    >>> rank_images([0.5, float("nan"), 0.9, 0.7]), rank_images([0.4])
    ({'best': 2, 'median': 3, 'worst': 0}, {'best': 0})
    """
    order = sorted(np.flatnonzero(~np.isnan(image_iou)).tolist(), key=lambda k: -image_iou[k])
    if not order:
        return {}
    ranks = {order[len(order) // 2]: "median", order[-1]: "worst", order[0]: "best"}
    return dict(sorted((rank, number) for number, rank in ranks.items()))


def _draw_panels(
    image: np.ndarray, truth: np.ndarray, ids: np.ndarray, labels: Labels, width: int
) -> tuple[Image.Image, ...]:
    size = reduced_size((image.shape[1], image.shape[0]), width / image.shape[1])
    errors = error_map(truth, ids, labels.ignore_index, image=image)
    photo, wrong = (
        Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS) for pixels in (image, errors)
    )
    maps = []
    for class_ids in (truth, ids):
        colors = Image.fromarray(colorize(class_ids, labels))
        small = colors.resize(size, Image.Resampling.NEAREST)
        maps.append(small.quantize(256, dither=Image.Dither.NONE))  # a palette: small as PNG
    return photo, *maps, wrong


def _draw_crops(
    image: np.ndarray, truth: np.ndarray, ids: np.ndarray, labels: Labels, pair: ConfusedPair
) -> Image.Image:
    """Crop around the largest region where one class was predicted as the other."""
    confused = (truth == pair.truth) & (ids == pair.prediction)
    regions = label_regions(confused)
    largest = regions == np.bincount(regions[confused], minlength=1).argmax()
    rows, columns = np.nonzero(largest.any(axis=1))[0], np.nonzero(largest.any(axis=0))[0]
    side = max(_SMALLEST_CROP, round(1.5 * max(np.ptp(rows), np.ptp(columns)) + 1))
    # In narrow images, no side of a crop is more than three times the other.
    height, width = (min(side, 3 * size) for size in (image.shape[1], image.shape[0]))
    window = (
        _centered((rows[0] + rows[-1]) // 2, height, image.shape[0]),
        _centered((columns[0] + columns[-1]) // 2, width, image.shape[1]),
    )
    outlined = image.copy()
    outlined[edge_pixels(confused) & confused] = WRONG
    crops = [part[window] for part in (outlined, colorize(truth, labels), colorize(ids, labels))]
    size = (_CROP, max(1, round(_CROP * crops[0].shape[0] / crops[0].shape[1])))
    strip = Image.new("RGB", (3 * _CROP + 2 * _GAP, size[1]), (255, 255, 255))
    for k, crop in enumerate(crops):
        enlarged = k > 0 or crop.shape[1] < _CROP
        method = Image.Resampling.NEAREST if enlarged else Image.Resampling.LANCZOS
        resized = Image.fromarray(np.ascontiguousarray(crop)).resize(size, method)
        strip.paste(resized, (k * (_CROP + _GAP), 0))
    return strip


def _centered(middle: int, length: int, size: int) -> slice:
    """Return `length` pixels around the middle, moved into an image of this size."""
    start = max(0, min(int(middle) - length // 2, size - length))
    return slice(start, min(size, start + length))
