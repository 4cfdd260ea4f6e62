"""Scan: what the files of a data set hold, in one pass, and the sums that the rules need.

Each file is read once: the bytes are hashed and decoded from memory, or not decoded at all where
the same bytes were seen before. A file that cannot be read is noted, never raised.
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
from fullconv.data.check.image_signature import (
    LONGEST,
    Shift,
    image_steps,
    mask_steps,
    shift,
    signature,
    step_of,
)
from fullconv.data.io.images import pixels_to_decode, read_reduced
from fullconv.data.io.limits import decode_budget, read_content
from fullconv.data.io.mask_values import Value, bands
from fullconv.data.io.masks import MaskHistogram, content_key, mask_pixels, read_histogram
from fullconv.data.io.scan_cache import ScanCache
from fullconv.data.layouts.dataset import Dataset
from fullconv.data.layouts.pairing import Pair

_VERSION = 3  # of what is remembered
_MOST_VALUES = 1 << 18  # that are told apart in all masks together


@dataclass(frozen=True)
class ImageScan:
    """What an image holds.

    Args:
        size: (H, W), upright.
        mean, square: of the values 0-255 of red, green and blue, and of their squares; of large
            JPEG files at a reduced size.
        look: see `fullconv.data.check.image_signature.signature`.
    """

    size: tuple[int, int]
    mean: tuple[float, ...]
    square: tuple[float, ...]
    signature: bytes


@dataclass(frozen=True)
class PairScan:
    """What one pair of files holds; None and an error text where it cannot be read."""

    split: str
    pair: Pair
    image_hash: str
    mask_hash: str
    image: ImageScan | None
    tally: MaskHistogram | None
    shift: Shift | None = None
    errors: tuple[tuple[Path, str], ...] = ()

    @property
    def image_size(self) -> tuple[int, int] | None:
        """(H, W), upright."""
        return self.image.size if self.image else None


@dataclass(frozen=True)
class Counted:
    """What is kept of a mask once its values are added up: (H, W), upright; how many values it
    holds; see `MaskHistogram.lossy`."""

    size: tuple[int, int]
    values: int
    lossy: bool


class DatasetScan:
    """All scans of a data set, and the sums that several rules need. What a mask holds is added up
    and let go as the scans come."""

    def __init__(self, dataset: Dataset, scans: Iterable[PairScan]) -> None:
        self.dataset = dataset
        labels = dataset.labels
        self.told = set(labels.values)  # the values that the table names itself
        self.pixels = 0
        self.values: Counter[Value] = Counter()  # value -> pixels, of the whole data set
        self.unknown: Counter[Value] = Counter()  # those without a class
        self.unknown_pixels = 0
        self.thinned = False  # whether some values are in neither: the rarest of very many
        self.unknown_in: dict[Path, int] = {}
        self.with_255: list[Path] = []
        self.colors_255 = True  # whether 255 is part of a colour in all of these
        self.classes: dict[str, list[int]] = {s: [0] * len(labels) for s in dataset.splits}
        self.ignored: dict[str, int] = dict.fromkeys(dataset.splits, 0)
        self.all_ignored: list[Path] = []
        self.all_one: dict[int, list[Path]] = {}  # class id -> masks that hold nothing else
        self.shown: dict[Path, dict[int, int]] = {}  # mask -> class id -> pixels
        self.scans: list[PairScan] = []
        self.read: list[tuple[PairScan, Counted]] = []  # those whose mask could be read
        for scan in scans:
            kept = replace(scan, tally=None)
            self.scans.append(kept)
            if scan.tally is not None:
                self._add(scan, scan.tally)
                kinds = len(scan.tally.counts) + scan.tally.more
                self.read.append((kept, Counted(scan.tally.size, kinds, scan.tally.lossy)))

    def _add(self, scan: PairScan, mask: MaskHistogram) -> None:
        counts, labels, path = mask.counts, self.dataset.labels, scan.pair.mask
        self.pixels += sum(counts.values()) + mask.more_pixels
        self.values.update(counts)
        found = mask.classes(labels)
        lost = {value: counts[value] for value, class_id in found.items() if class_id is None}
        self.unknown.update(lost)
        lost_pixels = sum(lost.values()) + mask.more_pixels
        if lost_pixels:
            self.unknown_pixels += lost_pixels
            self.unknown_in[path] = self.unknown_in.get(path, 0) + lost_pixels
        self.thinned |= mask.more > 0 or _thin(self.values)
        _thin(self.unknown)
        if 255 in counts:
            self.with_255.append(path)
            self.colors_255 = self.colors_255 and mask.are_colors(labels)
        shown: Counter[int] = Counter()
        for value, class_id in found.items():
            if class_id == labels.ignore_index:
                self.ignored[scan.split] += counts[value]
            elif class_id is not None:
                self.classes[scan.split][class_id] += counts[value]
                shown[class_id] += counts[value]
        self.shown[path] = dict(shown)
        held = set(found.values())
        if held == {labels.ignore_index}:
            self.all_ignored.append(path)
        elif len(held) == 1 and None not in held:
            self.all_one.setdefault(held.pop(), []).append(path)  # type: ignore[arg-type]

    def names(self, paths: Iterable[Path]) -> tuple[str, ...]:
        """Paths relative to the root, in order."""
        root = self.dataset.root
        found = (p.relative_to(root) if p.is_relative_to(root) else p for p in paths)
        return tuple(sorted({path.as_posix() for path in found}))


def scan_pair(split: str, pair: Pair, remembered: ScanCache) -> PairScan:
    """Read and hash an image and its mask once; decode them where they are new."""
    errors: list[tuple[Path, str]] = []
    image_bytes, image_hash = _content(pair.image, "image", errors)
    mask_bytes, mask_hash = _content(pair.mask, "mask", errors)
    key = f"pair {_VERSION} {image_hash} {content_key(mask_bytes or b'', pair.mask)}"
    if not errors and (known := _known(remembered.get(key))) is not None:
        return PairScan(split, pair, image_hash, mask_hash, *known)
    seen = _decoded(pair.image, image_bytes, _image, errors)
    read = _decoded(pair.mask, mask_bytes, _mask, errors)
    image: ImageScan | None = seen[0] if seen else None
    tally: MaskHistogram | None = read[0] if read else None
    moved = None
    if image and tally:
        if image.size == tally.size:
            moved = shift(seen[1], read[1], step_of(image.size))
        if not tally.more:  # a long list, of a mask that is not what it should be
            remembered.put(key, _plain(image, tally, moved))
    return PairScan(split, pair, image_hash, mask_hash, image, tally, moved, tuple(errors))


def _content(path: Path, what: str, errors: list[tuple[Path, str]]) -> tuple[bytes | None, str]:
    try:
        content = read_content(path, what)
    except FullconvError as error:
        errors.append((path, error.message.rstrip(".")))
        return None, ""
    return content, hashlib.sha256(content).hexdigest()


def _decoded(
    path: Path, content: bytes | None, read: Callable[..., Any], errors: list[tuple[Path, str]]
) -> Any:
    if content is None:
        return None
    try:
        return read(io.BytesIO(content), name=str(path))
    except FullconvError as error:
        errors.append((path, error.message.rstrip(".")))
    except MemoryError:
        errors.append((path, f"{path} needs more memory than there is"))
    return None


def _image(file: io.BytesIO, *, name: str) -> tuple[ImageScan, NDArray[np.uint8]]:
    """What is known of an image, and its grey levels step by step."""
    with decode_budget.reserve(pixels_to_decode(file, LONGEST, name=name)):
        size, pixels = read_reduced(file, LONGEST, name=name)
        # Counted, not summed: exact, and no copy as wide numbers.
        shares = np.zeros((3, 256), np.int64)
        for rows in bands(pixels):
            for c in range(3):
                shares[c] += np.bincount(pixels[rows, :, c].ravel(), minlength=256)
        area, levels = pixels.shape[0] * pixels.shape[1], np.arange(256)
        mean = tuple(float(share @ levels / area) for share in shares)
        square = tuple(float(share @ levels**2 / area) for share in shares)
        grey = Image.fromarray(pixels).convert("L")
        return ImageScan(size, mean, square, signature(grey)), image_steps(grey, size)


def _mask(file: io.BytesIO, *, name: str) -> tuple[MaskHistogram, NDArray[Any]]:
    """What is in a mask, and its values step by step."""
    with decode_budget.reserve(mask_pixels(file, name=name)):
        tally, values = read_histogram(file, name=name)
        return tally, mask_steps(values)


def _thin(counter: Counter[Value]) -> bool:
    """Lets go of the rarest values where there are too many; whether it did."""
    if len(counter) <= _MOST_VALUES:
        return False
    kept = dict(counter.most_common(_MOST_VALUES // 2))
    counter.clear()
    counter.update(kept)
    return True


def _plain(image: ImageScan, tally: MaskHistogram, moved: Shift | None) -> dict[str, Any]:
    """As JSON holds it."""
    return {
        "size": image.size,
        "mean": image.mean,
        "square": image.square,
        "look": base64.b64encode(image.signature).decode(),
        "mask": tally.to_json(),
        "shift": asdict(moved) if moved else None,
    }


def _known(table: Any) -> tuple[ImageScan, MaskHistogram, Shift | None] | None:
    """Of what `_plain` made; None where it is not of that form."""
    try:
        look_bytes = base64.b64decode(table["look"])
        image = ImageScan(
            tuple(table["size"]), tuple(table["mean"]), tuple(table["square"]), look_bytes
        )
        tally = MaskHistogram.from_json(table["mask"])
        moved = Shift(**table["shift"]) if table["shift"] else None
        return (image, tally, moved) if tally else None
    except (TypeError, KeyError, ValueError):
        return None
