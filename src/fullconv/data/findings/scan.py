"""Scan: what the files of a data set hold, in one pass, and the sums that the rules need.

Each file is read once: the bytes are hashed and decoded from memory. A file that cannot be read is
noted, never raised.
"""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fullconv.data.layouts import Dataset
from fullconv.data.masks import Tally, Value, tally
from fullconv.data.pairing import Pair
from fullconv.data.pictures import probe_picture
from fullconv.errors import FullconvError


@dataclass(frozen=True)
class PairScan:
    """What one pair of files holds; None and an error text where it cannot be read."""

    split: str
    pair: Pair
    picture_hash: str
    mask_hash: str
    picture_size: tuple[int, int] | None
    tally: Tally | None
    errors: tuple[tuple[Path, str], ...] = ()


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
        if all(class_id == ignore for class_id in found.values()):
            self.all_ignored.append(scan.pair.mask)

    def names(self, paths: Iterable[Path]) -> tuple[str, ...]:
        """Paths relative to the root, in order."""
        root = self.dataset.root
        found = (p.relative_to(root) if p.is_relative_to(root) else p for p in paths)
        return tuple(sorted({path.as_posix() for path in found}))


def scan_pair(split: str, pair: Pair) -> PairScan:
    """Read, hash and decode a picture and its mask once."""
    errors: list[tuple[Path, str]] = []

    def look(path: Path, at: Callable[..., Any]) -> tuple[str, Any]:
        # One read serves the hash and the decoder.
        try:
            content = path.read_bytes()
        except OSError as error:
            errors.append((path, f"{path}: {error.strerror or error}"))
            return "", None
        digest = hashlib.sha256(content).hexdigest()
        try:
            return digest, at(io.BytesIO(content), name=str(path))
        except FullconvError as error:
            errors.append((path, error.message.rstrip(".")))
            return digest, None

    size: tuple[int, int] | None
    found: Tally | None
    picture_hash, size = look(pair.picture, probe_picture)
    mask_hash, found = look(pair.mask, tally)
    return PairScan(split, pair, picture_hash, mask_hash, size, found, tuple(errors))
