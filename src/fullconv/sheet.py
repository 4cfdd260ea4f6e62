"""Sheet: a data set as a picture: photos with their labels, and what `check` found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fullconv import draw
from fullconv.data import tables
from fullconv.data.check import CheckReport
from fullconv.data.masks import Ids, class_lookup, read_values
from fullconv.data.pairing import Pair
from fullconv.data.pictures import read_picture
from fullconv.errors import FullconvError
from fullconv.labels import Labels, voc_color

PAIRS = 6  # that are shown as they should be
_EACH = 2  # files of each finding
_LONGEST = 640  # pixels of a side that are kept
_UNKNOWN = (255, 0, 255)  # values without a class: loud
_TITLES = ("photo", "labels", "labels over the photo")

Picture = NDArray[np.uint8]


def save_sheet(report: CheckReport, path: str | Path, *, findings: bool = True) -> None:
    """Writes a PNG with a row per picture: the photo, its mask, and the mask over the photo.

    Args:
        report: of the data set.
        path: of the PNG.
        findings: begin with files that findings name, two of each.

    Raises:
        FullconvError: no pair can be read, or the file cannot be written.
    """
    path = Path(path)
    _refuse_place(path, report)
    wanted = _named(report) if findings else []
    wanted += [(pair, f"{split}: {pair.name}") for split, pair in _spread(report)]
    rows, captions, reason = [], [], "it has none"
    for pair, caption in wanted:
        try:
            rows.append(_row(pair, report.dataset.labels))
            captions.append(caption)
        except FullconvError as error:  # the report says it at length
            reason = error.message
    if not rows:
        raise FullconvError(
            f"no pair of {report.dataset.root} can be drawn: {reason}",
            f"fullconv check {report.dataset.root}",
        )
    undecided = report.dataset.labels is tables.UNDECIDED
    legend = None if undecided else report.dataset.labels
    sheet = draw.grid(rows, _TITLES, captions, labels=legend)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(path)
    except OSError as error:
        raise FullconvError(
            f"the sheet could not be written to {path}: {error.strerror or error}.",
            "--sheet another_folder/sheet.png",
        ) from error


def _refuse_place(path: Path, report: CheckReport) -> None:
    """A sheet is a PNG, and none of the data set's own files.

    Raises:
        FullconvError: it would not be.
    """
    if path.suffix.lower() != ".png":
        raise FullconvError(
            f"a sheet is written as PNG, not as {path.name!r}.", f"--sheet {path.stem}.png"
        )
    pairs = [pair for pairs in report.dataset.splits.values() for pair in pairs]
    alone = [*report.dataset.unpaired_pictures, *report.dataset.unpaired_masks]
    theirs = {file.resolve() for pair in pairs for file in (pair.picture, pair.mask)}
    if path.resolve() in theirs | {file.resolve() for file in alone}:
        raise FullconvError(
            f"{path} belongs to the data set; a sheet would be written over it.",
            "--sheet sheet.png",
        )


def _named(report: CheckReport) -> list[tuple[Pair, str]]:
    """Pairs that findings name, with the rule."""
    root = report.dataset.root
    by_name: dict[str, tuple[str, Pair]] = {}
    for split, pairs in report.dataset.splits.items():
        for pair in pairs:
            for file in (pair.picture, pair.mask):
                name = file.relative_to(root) if file.is_relative_to(root) else file
                by_name[name.as_posix()] = split, pair
    found = []
    for finding in report.findings:
        here = [by_name[name] for name in finding.files if name in by_name]
        found += [
            (pair, f"{finding.level} {finding.rule}: {split}/{pair.name}")
            for split, pair in here[:_EACH]
        ]
    return found


def _spread(report: CheckReport) -> list[tuple[str, Pair]]:
    """A few pairs, spread evenly over all."""
    every = [(split, pair) for split, pairs in report.dataset.splits.items() for pair in pairs]
    places = np.linspace(0, len(every) - 1, min(PAIRS, len(every))).round().astype(int)
    return [every[place] for place in sorted(set(places.tolist()))]


def _row(pair: Pair, labels: Labels) -> list[Picture]:
    photo = _smaller(read_picture(pair.picture))
    mask = _colors(_smaller(read_values(pair.mask)), labels)
    if photo.shape != mask.shape:
        return [photo, mask, np.full_like(photo, 255)]
    mixed = (photo.astype(np.uint16) + mask + 1) // 2
    return [photo, mask, mixed.astype(np.uint8)]


def _colors(values: Ids, labels: Labels) -> Picture:
    """(h, w, 3) the class colours; what the file holds itself where no table says what it means."""
    if labels is not tables.UNDECIDED:
        ids = class_lookup(values, labels)
        colors = draw.colorize(np.where(ids < 0, labels.ignore_index, ids), labels)
        colors[ids < 0] = _UNKNOWN
        return colors
    if values.ndim == 3:
        return np.asarray(values, np.uint8)
    if values.max() > 64:  # grey levels, not ids
        return np.repeat(np.clip(values, 0, 255).astype(np.uint8)[..., None], 3, axis=2)
    palette = np.array([voc_color(k) for k in range(256)], np.uint8)
    return palette[np.clip(values, 0, 255)]


def _smaller(array: NDArray[Any]) -> NDArray[Any]:
    """Every n-th pixel: no value is mixed."""
    step = -(-max(array.shape[:2]) // _LONGEST)
    return np.ascontiguousarray(array[::step, ::step])
