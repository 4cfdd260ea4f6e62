"""Sheet: a data set as an image: photos with their labels, and what `check` found."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fullconv.core.errors import FullconvError
from fullconv.core.labels import RGB, Labels, voc_color
from fullconv.core.text import shell_command
from fullconv.data.check.check import CheckReport
from fullconv.data.io.images import read_image
from fullconv.data.io.masks import Ids, class_lookup, read_values
from fullconv.data.layouts import class_table as tables
from fullconv.data.layouts.pairing import Pair
from fullconv.visualization import overlay as draw
from fullconv.visualization.contact_sheet import contact_sheet, subsample
from fullconv.visualization.legend import ImageArray

PAIRS = 6  # that are shown as they should be
_EACH = 2  # files of each finding
_LOUD = (255, 0, 255)  # values without a class
_TITLES = ("photo", "labels", "labels over the photo")


def save_preview(report: CheckReport, path: str | Path, *, findings: bool = True) -> None:
    """Writes a PNG with a row per image: the photo, its mask, and the mask over the photo.

    Args:
        report: of the data set.
        path: of the PNG.
        findings: begin with files that findings name, two of each.

    Raises:
        FullconvError: no pair can be read, or the file cannot be written.
    """
    path = Path(path)
    _refuse_place(path, report)
    wanted = _named(report) if findings else {}
    for split, pair in _spread(report, set(wanted)):
        wanted[pair] = f"{split}: {pair.name}"
    labels = _meant(report)
    rows, captions, reason = [], [], "it has none"
    shown: set[int] = set()
    for pair, caption in wanted.items():
        try:
            row, ids = _row(pair, labels)
        except FullconvError as error:  # the report says it at length
            reason = error.message
            continue
        rows.append(row)
        captions.append(caption)
        shown |= ids
    if not rows:
        raise FullconvError(
            f"no pair of {report.dataset.root} can be drawn: {reason}",
            shell_command("fullconv", "check", report.dataset.root),
        )
    legend = _legend(report, labels, shown)
    sheet = contact_sheet(rows, _TITLES, captions, legend=legend, two_blocks=True)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(path)
    except OSError as error:
        raise FullconvError(
            f"the sheet could not be written to {path}: {error.strerror or error}.",
            "--preview another_folder/sheet.png",
        ) from error


def _meant(report: CheckReport) -> Labels:
    """The class table that masks are drawn by. Of black and white ones without a table it is the
    one that is proposed: white is hard to see over a photo, and a sheet shows what comes of it."""
    labels = report.dataset.labels
    if not isinstance(labels, tables.UndeterminedLabels):
        return labels
    values: dict[int | RGB, int] = {
        one.value: labels.proposed.index(one.name)
        for one in report.meanings
        if one.proposed and one.name in labels.proposed
    }
    return Labels(labels.proposed, values=values, strict_values=True) if values else labels


def _refuse_place(path: Path, report: CheckReport) -> None:
    """A sheet is a PNG, and none of the data set's own files.

    Raises:
        FullconvError: it would not be.
    """
    if path.suffix.lower() != ".png":
        raise FullconvError(
            f"a sheet is written as PNG, not as {path.name!r}.",
            shell_command("--preview", f"{path.stem}.png"),
        )
    pairs = [pair for pairs in report.dataset.splits.values() for pair in pairs]
    alone = [*report.dataset.unpaired_images, *report.dataset.unpaired_masks]
    theirs = {file.resolve() for pair in pairs for file in (pair.image, pair.mask)}
    if path.resolve() in theirs | {file.resolve() for file in alone}:
        raise FullconvError(
            f"{path} belongs to the data set; a sheet would be written over it.",
            "--preview sheet.png",
        )


def _named(report: CheckReport) -> dict[Pair, str]:
    """Pairs that findings name -> the rules, and which pair it is."""
    root = report.dataset.root
    by_name: dict[str, tuple[str, Pair]] = {}
    for split, pairs in report.dataset.splits.items():
        for pair in pairs:
            for file in (pair.image, pair.mask):
                name = file.relative_to(root) if file.is_relative_to(root) else file
                by_name[name.as_posix()] = split, pair
    rules: dict[Pair, list[str]] = {}
    ends: dict[Pair, str] = {}
    for finding in report.findings:
        files = finding.groups[0] if finding.groups else finding.files
        for split, pair in [by_name[name] for name in files if name in by_name][:_EACH]:
            rules.setdefault(pair, []).append(f"{finding.level} {finding.rule}")
            ends[pair] = f"{split}/{pair.name}"
    return {pair: f"{', '.join(named)}: {ends[pair]}" for pair, named in rules.items()}


def _spread(report: CheckReport, shown: set[Pair]) -> list[tuple[str, Pair]]:
    """A few pairs that are not shown yet, spread evenly over all."""
    every = [
        (split, pair)
        for split, pairs in report.dataset.splits.items()
        for pair in pairs
        if pair not in shown
    ]
    places = np.linspace(0, len(every) - 1, min(PAIRS, len(every))).round().astype(int)
    return [every[place] for place in sorted(set(places.tolist()))]


def _row(pair: Pair, labels: Labels) -> tuple[list[ImageArray], set[int]]:
    """The images of a row, and the class ids in it: -1 for none, `ignore_index` for ignored."""
    photo = subsample(read_image(pair.image))
    values = subsample(read_values(pair.mask))
    if isinstance(labels, tables.UndeterminedLabels):
        mask, shown = _as_it_is(values), set[int]()
        bare = ~mask.any(axis=2)  # black is background, most often
        edge = np.zeros_like(bare)  # blended colours have none
    else:
        ids = class_lookup(values, labels)
        mask, shown = _colors(ids, labels), set(np.unique(ids).tolist())
        bare = np.asarray(np.isin(ids, labels.transparent_ids))
        edge = draw.outer_border(bare, 1)  # so that thin things are seen
    if photo.shape != mask.shape:
        return [photo, mask, np.full_like(photo, 255)], shown
    mixed = ((photo.astype(np.uint16) + mask + 1) // 2).astype(np.uint8)  # halves upwards
    mixed[bare], mixed[edge] = photo[bare], mask[edge]
    return [photo, mask, mixed], shown


def _colors(ids: Ids, labels: Labels) -> ImageArray:
    """(h, w, 3) the class colours; loud where there is no class."""
    colors = draw.colorize(np.where(ids < 0, labels.ignore_index, ids), labels)
    colors[ids < 0] = _LOUD
    return colors


def _as_it_is(values: Ids) -> ImageArray:
    """(h, w, 3) what the file holds, where no table says what it means."""
    if values.ndim == 3:
        return np.asarray(values, np.uint8)
    if values.max() > 64:  # grey levels, not ids
        grey = np.clip(values, 0, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    palette = np.array([voc_color(k) for k in range(256)], np.uint8)
    return palette[np.clip(values, 0, 255)]


def _legend(report: CheckReport, labels: Labels, shown: set[int]) -> dict[str, RGB]:
    """Name -> colour of what the sheet shows."""
    found: dict[str, RGB] = {}
    if isinstance(labels, tables.UndeterminedLabels):
        for one in report.meanings:  # the commonest value of each name
            if one.proposed and one.color is not None:
                found.setdefault(f"{one.name} (proposed)", one.color)
        return found
    proposed = " (proposed)" if isinstance(report.dataset.labels, tables.UndeterminedLabels) else ""
    for k, (name, color) in enumerate(zip(labels.names, labels.colors, strict=True)):
        if k in shown:
            found[name + proposed] = color
    if labels.ignore_index in shown:
        found["(ignored)"] = draw.NEUTRAL
    if -1 in shown:
        found["(no class)"] = _LOUD
    return found
