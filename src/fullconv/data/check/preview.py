"""Draw a dataset as a contact sheet: images with their masks, and the pairs that `check` found."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fullconv.core.errors import FullconvError
from fullconv.core.i18n import msg, translate
from fullconv.core.labels import RGB, Labels, voc_color
from fullconv.core.text import shell_command
from fullconv.data.check.check import CheckReport
from fullconv.data.check.finding import relative_name
from fullconv.data.io.images import gray_to_rgb, read_image
from fullconv.data.io.masks import class_lookup, read_histogram
from fullconv.data.layouts.class_table import UndeterminedLabels
from fullconv.data.layouts.file_names import Pair
from fullconv.visualization.contact_sheet import contact_sheet, subsample
from fullconv.visualization.overlay import NEUTRAL, ImageArray, colorize, outer_border

PAIRS = 6  # rows besides those of findings
_PER_FINDING = 2  # rows of each finding
_NO_CLASS = (255, 0, 255)  # color of values without a class
_TITLES = (msg("image"), msg("mask"), msg("mask over the image"))


def save_preview(report: CheckReport, path: str | Path, *, findings: bool = True) -> None:
    """Write a PNG with a row per pair: the image, its mask, and the mask over the image.

    `findings`: begin with files that findings name, two per finding.

    Raises:
        FullconvError: no pair can be read, or the file cannot be written.
    """
    path, dataset = Path(path), report.dataset
    if path.suffix.lower() != ".png":
        raise FullconvError(
            msg("a preview is written as PNG, not as {name!r}.", name=path.name),
            shell_command("--preview", f"{path.stem}.png"),
        )
    pairs = [(split, pair) for split, pairs in dataset.splits.items() for pair in pairs]
    paired = [file for _, pair in pairs for file in (pair.image, pair.mask)]
    files = (*paired, *dataset.unpaired_images, *dataset.unpaired_masks)
    if path.resolve() in {file.resolve() for file in files}:
        raise FullconvError(
            msg("{path} is a file of the dataset; a preview would overwrite it.", path=path),
            "--preview preview.png",
        )

    # The pairs of findings, and a few others, spread evenly over the dataset.
    captions = _pairs_of_findings(report) if findings else {}
    others = [(split, pair) for split, pair in pairs if pair not in captions]
    indices = np.linspace(0, len(others) - 1, min(PAIRS, len(others))).round().astype(int)
    for index in sorted(set(indices.tolist())):
        split, pair = others[index]
        captions[pair] = f"{split}: {pair.name}"
    labels = _labels_for_drawing(report)
    rows, drawn_captions = [], []
    reason: str = msg("it has no pairs.")
    class_ids: set[int] = set()
    for pair, caption in captions.items():
        try:
            row, row_ids = _row(pair, labels)
        except FullconvError as error:  # the report describes it
            reason = error.message
            continue
        rows.append(row)
        drawn_captions.append(caption)
        class_ids |= row_ids
    if not rows:
        raise FullconvError(
            msg("no pair of {root} can be drawn: {reason}", root=dataset.root, reason=reason),
            shell_command("fullconv", "check", dataset.root),
        )
    legend = _legend(report, labels, class_ids)
    sheet = contact_sheet(rows, _TITLES, drawn_captions, legend=legend, two_blocks=True)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise FullconvError(
            msg("the preview cannot be written to {path}: {reason}.", path=path, reason=reason),
            "--preview another_folder/preview.png",
        ) from error


def _labels_for_drawing(report: CheckReport) -> Labels:
    """Return the class table for drawing: the proposed one for black and white masks without a
    table. White is hard to see over an image, and the preview shows the effect of the proposal."""
    labels = report.dataset.labels
    if not isinstance(labels, UndeterminedLabels):
        return labels
    values: dict[int | RGB, int] = {
        meaning.value: labels.proposed.index(meaning.name)
        for meaning in report.meanings
        if meaning.proposed and meaning.name in labels.proposed
    }
    return Labels(labels.proposed, values=values, strict_values=True) if values else labels


def _pairs_of_findings(report: CheckReport) -> dict[Pair, str]:
    """Return the pairs that findings name, and captions: the rules and the pair."""
    root = report.dataset.root
    by_file: dict[str, tuple[str, Pair]] = {}
    for split, pairs in report.dataset.splits.items():
        for pair in pairs:
            for file in (pair.image, pair.mask):
                by_file[relative_name(root, file)] = split, pair
    rules: dict[Pair, list[str]] = {}
    names: dict[Pair, str] = {}
    for finding in report.findings:
        files = finding.groups[0] if finding.groups else finding.files
        for split, pair in [by_file[name] for name in files if name in by_file][:_PER_FINDING]:
            rules.setdefault(pair, []).append(f"{finding.level} {finding.rule}")
            names[pair] = f"{split}/{pair.name}"
    return {pair: f"{', '.join(broken)}: {names[pair]}" for pair, broken in rules.items()}


def _row(pair: Pair, labels: Labels) -> tuple[list[ImageArray], set[int]]:
    """Return the images of a row, and its class ids: -1 for none, `ignore_index` for ignored."""
    histogram, values = read_histogram(pair.mask, labels)
    image, values = subsample(read_image(pair.image)), subsample(values)
    if isinstance(labels, UndeterminedLabels):
        class_ids = set[int]()
        if values.ndim == 3:
            mask = np.asarray(values, np.uint8)
        elif values.max() > 64:  # gray levels, not ids
            mask = gray_to_rgb(np.clip(values, 0, 255).astype(np.uint8))
        else:
            palette = np.array([voc_color(k) for k in range(256)], np.uint8)
            mask = palette[np.clip(values, 0, 255)]
        transparent = ~mask.any(axis=2)  # black is usually background
        border = np.zeros_like(transparent)  # blended colors have no clear border
    else:
        ids = class_lookup(values, labels, gray_rgb=histogram.are_colors(labels))
        mask = colorize(np.where(ids < 0, labels.ignore_index, ids), labels)
        mask[ids < 0] = _NO_CLASS
        class_ids = set(np.unique(ids).tolist())
        transparent = np.asarray(np.isin(ids, labels.transparent_ids))
        border = outer_border(transparent, 1)  # makes thin objects visible
    if image.shape != mask.shape:
        return [image, mask, np.full_like(image, 255)], class_ids
    blend = ((image.astype(np.uint16) + mask + 1) // 2).astype(np.uint8)  # rounds up
    blend[transparent], blend[border] = image[transparent], mask[border]
    return [image, mask, blend], class_ids


def _legend(report: CheckReport, labels: Labels, class_ids: set[int]) -> dict[str, RGB]:
    """Return name -> color of the classes on the sheet."""
    legend: dict[str, RGB] = {}
    if isinstance(labels, UndeterminedLabels):
        for meaning in report.meanings:  # the most frequent value of each name
            if meaning.proposed and meaning.color is not None:
                legend.setdefault(_proposed(meaning.name), meaning.color)
        return legend
    proposed = isinstance(report.dataset.labels, UndeterminedLabels)
    for k, (name, color) in enumerate(zip(labels.names, labels.colors, strict=True)):
        if k in class_ids:
            legend[_proposed(name) if proposed else name] = color
    if labels.ignore_index in class_ids:
        legend[translate(msg("(ignored)"))] = NEUTRAL
    if -1 in class_ids:
        legend[translate(msg("(no class)"))] = _NO_CLASS
    return legend


def _proposed(name: str) -> str:
    return str(translate(msg("{name} (proposed)", name=name)))
