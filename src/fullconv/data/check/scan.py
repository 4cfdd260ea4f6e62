"""Scan the files of a dataset in one pass, and add up what the rules need.

Each file is read once: its bytes are hashed, and decoded from memory unless the same bytes were
scanned before. A file that cannot be read is recorded; no error is raised.

Shapes: H, W image · h, w steps.
"""

from __future__ import annotations

import base64
import hashlib
import io
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fullconv.core.errors import FullconvError
from fullconv.core.i18n import msg
from fullconv.core.labels import RGB
from fullconv.data.check.finding import relative_name
from fullconv.data.check.image_signature import (
    LONGEST,
    Shift,
    estimate_shift,
    image_steps,
    mask_steps,
    signature,
    step_of,
)
from fullconv.data.io.images import is_turned, pixels_to_decode, read_reduced, turn_upright
from fullconv.data.io.limits import decode_budget, read_content
from fullconv.data.io.mask_values import Value, bands, pack
from fullconv.data.io.masks import MaskHistogram, content_key, mask_pixels, read_histogram
from fullconv.data.io.scan_cache import ScanCache
from fullconv.data.layouts.dataset import Dataset
from fullconv.data.layouts.file_names import Pair
from fullconv.data.layouts.mask_value_kinds import white_kind

_CACHE_VERSION = 6  # of the cached scans
_CLEAR = 6  # standard deviations by which the borders of a mask fit the edges of its image
_MAX_VALUES = 1 << 18  # distinct values that are counted in all masks together


@dataclass(frozen=True)
class ImageScan:
    """The content of an image; large JPEG files are decoded at a reduced size."""

    size: tuple[int, int]  # (H, W), upright
    mean: tuple[float, ...]  # of red, green and blue, 0-255
    square: tuple[float, ...]  # mean of their squares
    signature: bytes  # see `fullconv.data.check.image_signature.signature`
    brightest: int = 255  # highest level of red, green and blue, 0-255


@dataclass(frozen=True)
class PairScan:
    """The content of a pair: hashes ("" if a file cannot be read), image and mask (None if they
    cannot be decoded), and the errors."""

    split: str
    pair: Pair
    image_hash: str
    mask_hash: str
    image: ImageScan | None
    histogram: MaskHistogram | None
    shift: Shift | None = None
    turned: int | None = None  # see `_turn_vote`
    errors: tuple[tuple[Path, str], ...] = ()

    @property
    def image_size(self) -> tuple[int, int] | None:
        """(H, W), upright."""
        return self.image.size if self.image else None


@dataclass(frozen=True)
class MaskSummary:
    """Summary of a mask."""

    size: tuple[int, int]  # (H, W)
    values: int  # number of distinct values
    lossy: bool  # whether the format is lossy


class DatasetScan:
    """All scans of a dataset, and the sums that several rules need."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self.scans: list[PairScan] = []  # one per pair, without histograms
        self.masks: list[tuple[PairScan, MaskSummary]] = []  # the pairs whose mask could be read
        self.pixels = 0  # of all masks
        self.values: Counter[Value] = Counter()  # value -> pixels, of all masks
        # Values, pixels and masks without a class.
        self.unknown: Counter[Value] = Counter()
        self.unknown_pixels = 0
        self.unknown_in: set[Path] = set()
        self.truncated = False  # the rarest of very many values are missing in both counters
        self.gray_in: list[Path] = []  # masks with grays between black and white without a class
        self.with_255: list[Path] = []  # masks that contain the value 255
        # Color -> its index in the palettes of masks -> the first mask.
        self.palettes: dict[RGB, dict[int, Path]] = {}
        self.white_kinds: dict[str, list[Path]] = {}  # see `white_kind` -> masks
        self.colors_255 = True  # 255 is a channel of a color in all of these
        # Split -> pixels of each class, and ignored pixels.
        self.class_pixels = {split: [0] * len(dataset.labels) for split in dataset.splits}
        self.ignored_pixels = dict.fromkeys(dataset.splits, 0)
        self.mask_class_pixels: dict[Path, dict[int, int]] = {}  # mask -> class id -> pixels
        self.all_ignored: list[Path] = []  # masks without any other pixel
        self.single_class: dict[int, list[Path]] = {}  # class id -> masks without any other pixel

    def add(self, scan: PairScan) -> None:
        """Add the values of a mask up, and drop its histogram."""
        small = replace(scan, histogram=None)
        self.scans.append(small)
        if scan.histogram is None:
            return
        mask = scan.histogram.in_colors(self.dataset.labels)
        for index, color in mask.palette.items():
            self.palettes.setdefault(color, {}).setdefault(index, scan.pair.mask)
        counts, labels, path = mask.counts, self.dataset.labels, scan.pair.mask
        self.masks.append((small, MaskSummary(mask.size, len(counts) + mask.more, mask.lossy)))
        self.pixels += sum(counts.values()) + mask.more_pixels
        self.values.update(counts)

        # Values without a class.
        class_ids = mask.classes(labels)
        unknown = {value: counts[value] for value, k in class_ids.items() if k is None}
        self.unknown.update(unknown)
        unknown_pixels = sum(unknown.values()) + mask.more_pixels
        if unknown_pixels:
            self.unknown_pixels += unknown_pixels
            self.unknown_in.add(path)
        if any(isinstance(value, int) and 0 < value < 255 for value in unknown):
            self.gray_in.append(path)
        self.truncated |= mask.more > 0 or _truncate(self.values)
        _truncate(self.unknown)
        self.white_kinds.setdefault(white_kind(counts), []).append(path)
        if 255 in counts:
            self.with_255.append(path)
            self.colors_255 = self.colors_255 and mask.are_colors(labels)

        # Pixels of each class.
        pixels: Counter[int] = Counter()
        for value, class_id in class_ids.items():
            if class_id == labels.ignore_index:
                self.ignored_pixels[scan.split] += counts[value]
            elif class_id is not None:
                self.class_pixels[scan.split][class_id] += counts[value]
                pixels[class_id] += counts[value]
        self.mask_class_pixels[path] = dict(pixels)
        distinct = set(class_ids.values())
        if distinct == {labels.ignore_index}:
            self.all_ignored.append(path)
        elif len(distinct) == 1 and (only := distinct.pop()) is not None:
            self.single_class.setdefault(only, []).append(path)

    @property
    def kinds(self) -> dict[str, int]:
        """The number of masks of each `white_kind`."""
        return {kind: len(paths) for kind, paths in self.white_kinds.items()}

    def names(self, paths: Iterable[Path]) -> tuple[str, ...]:
        """Return paths relative to the dataset's folder, sorted, each once."""
        return tuple(sorted({relative_name(self.dataset.root, path) for path in paths}))


def scan_pair(split: str, pair: Pair, cache: ScanCache) -> PairScan:
    """Read and hash an image and its mask; decode them if they are not in the cache."""
    errors: list[tuple[Path, str]] = []
    image_bytes, image_hash = _read(pair.image, "image", errors)
    mask_bytes, mask_hash = _read(pair.mask, "mask", errors)
    key = f"pair {_CACHE_VERSION} {image_hash} {content_key(mask_bytes or b'', pair.mask)}"
    if not errors and (cached := _from_json(cache.get(key))) is not None:
        return PairScan(split, pair, image_hash, mask_hash, *cached)
    nothing: tuple[Any, Any] = (None, None)
    image, gray = _decode(pair.image, image_bytes, _scan_image, errors) or nothing
    histogram, values = _decode(pair.mask, mask_bytes, _scan_mask, errors) or nothing
    shift: Shift | None = None
    turned: int | None = None
    if image and histogram:
        if image.size == histogram.size:
            shift = estimate_shift(gray, values, step_of(image.size))
            assert image_bytes is not None
            turned = _turn_vote(gray, values, shift, io.BytesIO(image_bytes))
        if not histogram.more:  # otherwise the list is long, and the mask is wrong
            cached_image = {
                "size": image.size,
                "mean": image.mean,
                "square": image.square,
                "look": base64.b64encode(image.signature).decode(),
                "brightest": image.brightest,
            }
            cached_shift = asdict(shift) if shift else None
            cached_mask = {"mask": histogram.to_json(), "shift": cached_shift, "turned": turned}
            cache.put(key, cached_image | cached_mask)
    rest = image, histogram, shift, turned, tuple(errors)
    return PairScan(split, pair, image_hash, mask_hash, *rest)


def _turn_vote(
    gray: NDArray[np.uint8], values: NDArray[Any], shift: Shift | None, image: io.BytesIO
) -> int | None:
    """Return 1 if a mask fits a photo with an EXIF orientation only after it is turned, too; -1 if
    it fits as it is, 0 if neither is clear, and None for a photo without an orientation."""
    if not is_turned(image):
        return None
    if shift is None:
        return 0
    image.seek(0)
    turned = turn_upright(pack(values) if values.ndim == 3 else values, image)
    other = estimate_shift(gray, turned, shift.step) if turned.shape == gray.shape else None
    fits = shift.fit_at_zero, other.fit_at_zero if other else 0.0
    if max(fits) < _CLEAR or max(fits) < 2 * min(fits):
        return 0
    return 1 if fits[1] > fits[0] else -1


def _read(path: Path, kind: str, errors: list[tuple[Path, str]]) -> tuple[bytes | None, str]:
    try:
        content = read_content(path, kind)
    except FullconvError as error:
        errors.append((path, error.message))
        return None, ""
    return content, hashlib.sha256(content).hexdigest()


def _decode(
    path: Path, content: bytes | None, decode: Callable[..., Any], errors: list[tuple[Path, str]]
) -> Any:
    if content is None:
        return None
    try:
        return decode(io.BytesIO(content), name=str(path))
    except FullconvError as error:
        errors.append((path, error.message))
    except MemoryError:
        errors.append((path, msg("{path} needs more memory than is available.", path=path)))
    return None


def _scan_image(file: io.BytesIO, *, name: str) -> tuple[ImageScan, NDArray[np.uint8]]:
    """Return the scan of an image, and its (h, w) gray levels."""
    with decode_budget.reserve(pixels_to_decode(file, LONGEST, name=name)):
        size, pixels = read_reduced(file, LONGEST, name=name)
        # Counting the levels is exact, and needs no copy as wide numbers.
        counts = np.zeros((3, 256), np.int64)
        for rows in bands(pixels):
            for c in range(3):
                counts[c] += np.bincount(pixels[rows, :, c].ravel(), minlength=256)
        area, levels = pixels.shape[0] * pixels.shape[1], np.arange(256)
        mean = tuple(float(count @ levels / area) for count in counts)
        square = tuple(float(count @ levels**2 / area) for count in counts)
        gray = Image.fromarray(pixels).convert("L")
        brightest = int(np.flatnonzero(counts.sum(axis=0))[-1])
        return ImageScan(size, mean, square, signature(gray), brightest), image_steps(gray, size)


def _scan_mask(file: io.BytesIO, *, name: str) -> tuple[MaskHistogram, NDArray[Any]]:
    """Return the histogram of a mask, and its (h, w) values."""
    with decode_budget.reserve(mask_pixels(file, name=name)):
        histogram, values = read_histogram(file, name=name)
        return histogram, mask_steps(values)


def _truncate(counter: Counter[Value]) -> bool:
    """Drop the rarest values if there are too many; return True if so."""
    if len(counter) <= _MAX_VALUES:
        return False
    common = dict(counter.most_common(_MAX_VALUES // 2))
    counter.clear()
    counter.update(common)
    return True


def _from_json(table: Any) -> tuple[ImageScan, MaskHistogram, Shift | None, int | None] | None:
    """Return what `scan_pair` cached; None if the table has another form."""
    try:
        image_signature = base64.b64decode(table["look"])
        size, mean, square = (tuple(table[key]) for key in ("size", "mean", "square"))
        image = ImageScan(size, mean, square, image_signature, int(table["brightest"]))
        histogram = MaskHistogram.from_json(table["mask"])
        shift = Shift(**table["shift"]) if table["shift"] else None
        return (image, histogram, shift, table["turned"]) if histogram else None
    except (TypeError, KeyError, ValueError):
        return None
