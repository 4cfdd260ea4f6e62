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
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fullconv.data.findings.looks import LONGEST, Shift, look, shift
from fullconv.data.layouts import Dataset
from fullconv.data.masks import ARRAY_SUFFIXES, Tally, Value, read_tally
from fullconv.data.pairing import Pair
from fullconv.data.pictures import read_reduced
from fullconv.data.remembered import Remembered
from fullconv.errors import FullconvError

_VERSION = 2  # of what is remembered


@dataclass(frozen=True)
class PictureScan:
    """What a picture holds.

    Args:
        size: (H, W), upright.
        mean, square: of the values 0-255 of red, green and blue, and of their squares; of large
            JPEG files at a reduced size.
        look: see `fullconv.data.findings.looks.look`.
    """

    size: tuple[int, int]
    mean: tuple[float, ...]
    square: tuple[float, ...]
    look: bytes


@dataclass(frozen=True)
class PairScan:
    """What one pair of files holds; None and an error text where it cannot be read."""

    split: str
    pair: Pair
    picture_hash: str
    mask_hash: str
    picture: PictureScan | None
    tally: Tally | None
    shift: Shift | None = None
    errors: tuple[tuple[Path, str], ...] = ()

    @property
    def picture_size(self) -> tuple[int, int] | None:
        """(H, W), upright."""
        return self.picture.size if self.picture else None


class Facts:
    """All scans of a data set, and the sums that several rules need."""

    def __init__(self, dataset: Dataset, scans: list[PairScan]) -> None:
        self.dataset = dataset
        self.scans = scans
        labels = dataset.labels
        self.told = set(labels.values)  # the values that the table names itself
        self.values: Counter[Value] = Counter()  # value -> pixels, of the whole data set
        self.unknown: Counter[Value] = Counter()  # those without a class
        self.unknown_in: dict[Path, int] = {}
        self.classes: dict[str, list[int]] = {s: [0] * len(labels) for s in dataset.splits}
        self.ignored: dict[str, int] = dict.fromkeys(dataset.splits, 0)
        self.all_ignored: list[Path] = []
        self.all_one: dict[int, list[Path]] = {}  # class id -> masks that hold nothing else
        # The scans whose mask could be read.
        self.read = [(scan, scan.tally) for scan in scans if scan.tally is not None]
        for scan, found in self.read:
            self._add(scan, found)

    def _add(self, scan: PairScan, mask: Tally) -> None:
        counts, ignore = mask.counts, self.dataset.labels.ignore_index
        self.values.update(counts)
        found = mask.classes(self.dataset.labels)
        for value, class_id in found.items():
            if class_id is None:
                self.unknown[value] += counts[value]
                self.unknown_in[scan.pair.mask] = (
                    self.unknown_in.get(scan.pair.mask, 0) + counts[value]
                )
            elif class_id == ignore:
                self.ignored[scan.split] += counts[value]
            else:
                self.classes[scan.split][class_id] += counts[value]
        held = set(found.values())
        if held == {ignore}:
            self.all_ignored.append(scan.pair.mask)
        elif len(held) == 1 and None not in held:
            self.all_one.setdefault(held.pop(), []).append(scan.pair.mask)  # type: ignore[arg-type]

    def names(self, paths: Iterable[Path]) -> tuple[str, ...]:
        """Paths relative to the root, in order."""
        root = self.dataset.root
        found = (p.relative_to(root) if p.is_relative_to(root) else p for p in paths)
        return tuple(sorted({path.as_posix() for path in found}))


def scan_pair(split: str, pair: Pair, remembered: Remembered) -> PairScan:
    """Read and hash a picture and its mask once; decode them where they are new."""
    errors: list[tuple[Path, str]] = []
    picture_bytes, picture_hash = _content(pair.picture, errors)
    mask_bytes, mask_hash = _content(pair.mask, errors)
    # How a mask is read hangs on its suffix too.
    kind = pair.mask.suffix.lower() if pair.mask.suffix.lower() in ARRAY_SUFFIXES else ""
    key = f"pair {_VERSION} {picture_hash} {mask_hash} {kind}"
    if not errors and (known := _known(remembered.get(key))) is not None:
        return PairScan(split, pair, picture_hash, mask_hash, *known)
    seen = _decoded(pair.picture, picture_bytes, _picture, errors)
    read = _decoded(pair.mask, mask_bytes, read_tally, errors)
    picture: PictureScan | None = seen[0] if seen else None
    tally: Tally | None = read[0] if read else None
    moved = None
    if picture and tally:
        if picture.size == tally.size:
            moved = shift(seen[1], read[1], picture.size)
        remembered.put(key, _plain(picture, tally, moved))
    return PairScan(split, pair, picture_hash, mask_hash, picture, tally, moved, tuple(errors))


def _content(path: Path, errors: list[tuple[Path, str]]) -> tuple[bytes | None, str]:
    try:
        content = path.read_bytes()
    except OSError as error:
        errors.append((path, f"{path}: {error.strerror or error}"))
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


def _picture(file: io.BytesIO, *, name: str) -> tuple[PictureScan, NDArray[np.uint8]]:
    size, pixels = read_reduced(file, LONGEST, name=name)
    # Counted, not summed: exact, and no copy as wide numbers.
    levels = np.arange(256)
    shares = [np.bincount(pixels[..., c].ravel(), minlength=256) for c in range(3)]
    area = pixels.shape[0] * pixels.shape[1]
    mean = tuple(float(share @ levels / area) for share in shares)
    square = tuple(float(share @ levels**2 / area) for share in shares)
    return PictureScan(size, mean, square, look(pixels)), pixels


def _plain(picture: PictureScan, tally: Tally, moved: Shift | None) -> dict[str, Any]:
    """As JSON holds it."""
    return {
        "size": picture.size,
        "mean": picture.mean,
        "square": picture.square,
        "look": base64.b64encode(picture.look).decode(),
        "mask": tally.to_plain(),
        "shift": asdict(moved) if moved else None,
    }


def _known(table: Any) -> tuple[PictureScan, Tally, Shift | None] | None:
    """Of what `_plain` made; None where it is not of that form."""
    try:
        look_bytes = base64.b64decode(table["look"])
        picture = PictureScan(
            tuple(table["size"]), tuple(table["mean"]), tuple(table["square"]), look_bytes
        )
        tally = Tally.from_plain(table["mask"])
        moved = Shift(**table["shift"]) if table["shift"] else None
        return (picture, tally, moved) if tally else None
    except (TypeError, KeyError, ValueError):
        return None
