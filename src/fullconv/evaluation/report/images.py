"""The images of a report: the best, the middle and the worst one, and crops of what is confused.

They are predicted once more; nothing is kept while a split is evaluated.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from fullconv.core.labels import Labels
from fullconv.data.io.images import read_image
from fullconv.evaluation.error_analysis import edge_pixels
from fullconv.evaluation.evaluate import EvaluationContext
from fullconv.evaluation.report.tables import Confused, HeadFacts
from fullconv.inference.postprocess import label_regions
from fullconv.visualization import overlay as draw
from fullconv.visualization.contact_sheet import contact_sheet

WIDEST = 640  # pixels; an image of a report is not wider
_NARROW, _MANY = 400, 3  # pixels, where there are more heads than this
_CROP, _GAP = 200, 6  # pixels of a crop as it is shown, and between two
_LEAST = 96  # pixels of the image that a crop shows
TITLES = ("photo", "truth", "prediction", "errors")


@dataclass(frozen=True)
class Shown:
    """An image in its four ways.

    Args:
        rank: "best", "median" or "worst".
        name: of the image.
        mean_iou: of it alone, over the classes that it shows or is given.
        images: as `TITLES` names them.
    """

    rank: str
    name: str
    mean_iou: float
    images: tuple[Image.Image, ...]

    def sheet(self) -> Image.Image:
        """All four in a row."""
        cells = [np.asarray(image.convert("RGB")) for image in self.images]
        return contact_sheet([cells], TITLES)


@dataclass
class HeadImages:
    """Of one head.

    Args:
        shown: best, median and worst.
        crops: of each of its most confused pairs: photo, truth and prediction beside each other.
    """

    shown: list[Shown] = field(default_factory=list)
    crops: dict[Confused, Image.Image] = field(default_factory=dict)


def images_of(scored: EvaluationContext, facts: Sequence[HeadFacts]) -> list[HeadImages]:
    """Of every head, each image read and predicted once."""
    found = [HeadImages() for _ in facts]
    ranks = [ranked(head.quality.image_iou) for head in facts]
    wanted = {n for of in ranks for n in of.values()}
    wanted |= {pair.image for head in facts for pair in head.confused}
    pairs = scored.dataset.pairs_of(scored.split)
    width = WIDEST if len(facts) <= _MANY else _NARROW
    for number in sorted(wanted):
        image = read_image(pairs[number].image)
        maps = scored.model.label_maps(image, pairs[number].inputs)
        truths = scored.truths(pairs[number])
        for k, head in enumerate(facts):
            ids, labels = maps[head.number], head.labels
            truth = np.where(truths[k] < len(labels), truths[k], labels.ignore_index)
            for rank in [rank for rank, n in ranks[k].items() if n == number]:
                panels = _four_ways(image, truth, ids, labels, width)
                iou = head.quality.image_iou[number]
                found[k].shown.append(Shown(rank, pairs[number].name, iou, panels))
            for pair in [pair for pair in head.confused if pair.image == number]:
                found[k].crops[pair] = _crops(image, truth, ids, labels, pair)
    for images, order in zip(found, ranks, strict=True):
        images.shown.sort(key=lambda one: list(order).index(one.rank))
    return found


def ranked(image_iou: Sequence[float]) -> dict[str, int]:
    """Best, median and worst -> number of the image, each only once; none where nothing is
    labelled.

    >>> ranked([0.5, float("nan"), 0.9, 0.7]), ranked([0.4])
    ({'best': 2, 'median': 3, 'worst': 0}, {'best': 0})
    """
    known = [k for k, iou in enumerate(image_iou) if iou == iou]
    known.sort(key=lambda k: -image_iou[k])
    places = {"best": 0, "median": len(known) // 2, "worst": len(known) - 1}
    chosen: dict[str, int] = {}
    for rank in ("best", "worst", "median"):
        if known and known[places[rank]] not in chosen.values():
            chosen[rank] = known[places[rank]]
    return {rank: chosen[rank] for rank in places if rank in chosen}


def data_uri(image: Image.Image) -> str:
    """The content of an image for a page: JPEG, or PNG where it has a palette."""
    buffer = io.BytesIO()
    if image.mode == "P":
        image.save(buffer, "PNG", optimize=True)
    else:
        image.save(buffer, "JPEG", quality=82, optimize=True)
    kind = "png" if image.mode == "P" else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _four_ways(
    image: np.ndarray, truth: np.ndarray, ids: np.ndarray, labels: Labels, width: int
) -> tuple[Image.Image, ...]:
    errors = draw.error_map(truth, ids, labels.ignore_index, image=image)
    factor = min(1.0, width / image.shape[1])
    height, width = (max(1, round(pixels * factor)) for pixels in image.shape[:2])
    smooth, nearest = Image.Resampling.LANCZOS, Image.Resampling.NEAREST
    photo, wrong = (Image.fromarray(of).resize((width, height), smooth) for of in (image, errors))
    maps = []
    for of in (truth, ids):
        small = Image.fromarray(draw.colorize(of, labels)).resize((width, height), nearest)
        maps.append(small.quantize(256, dither=Image.Dither.NONE))  # a palette: small as PNG
    return photo, *maps, wrong


def _crops(
    image: np.ndarray, truth: np.ndarray, ids: np.ndarray, labels: Labels, pair: Confused
) -> Image.Image:
    """Around the largest place where one class was called the other."""
    confused = (truth == pair.truth) & (ids == pair.called)
    regions = label_regions(confused)
    sizes = np.bincount(regions[confused], minlength=1)
    place = regions == sizes.argmax()
    down, right = np.nonzero(place.any(axis=1))[0], np.nonzero(place.any(axis=0))[0]
    side = max(_LEAST, round(1.5 * max(np.ptp(down), np.ptp(right)) + 1))
    # No side is more than thrice the other, of images like ribbons.
    tall, wide = (min(side, 3 * size) for size in (image.shape[1], image.shape[0]))
    rows = _span((down[0] + down[-1]) // 2, tall, image.shape[0])
    columns = _span((right[0] + right[-1]) // 2, wide, image.shape[1])
    photo = image.copy()
    photo[edge_pixels(confused) & confused] = draw.WRONG
    parts = [photo, draw.colorize(truth, labels), draw.colorize(ids, labels)]
    height, width = rows.stop - rows.start, columns.stop - columns.start
    size = (_CROP, max(1, round(_CROP * height / width)))
    strip = Image.new("RGB", (3 * _CROP + 2 * _GAP, size[1]), (255, 255, 255))
    for k, part in enumerate(parts):
        cut = Image.fromarray(np.ascontiguousarray(part[rows, columns]))
        kind = Image.Resampling.NEAREST if k or width < _CROP else Image.Resampling.LANCZOS
        strip.paste(cut.resize(size, kind), (k * (_CROP + _GAP), 0))
    return strip


def _span(middle: int, side: int, size: int) -> slice:
    """So many pixels around the middle, moved into the image."""
    start = max(0, min(int(middle) - side // 2, size - side))
    return slice(start, min(size, start + side))
