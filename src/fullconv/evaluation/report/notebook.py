"""HTML views of results for notebooks, registered in `fullconv/__init__.py`.

Each view is one piece of HTML of bounded size; see `fullconv.visualization.html`.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from PIL import Image

from fullconv.core.errors import FullconvError
from fullconv.core.i18n import msg, nmsg
from fullconv.core.labels import Labels
from fullconv.core.metric_names import TITLES
from fullconv.core.text import percent
from fullconv.data.check.check import CheckReport
from fullconv.data.io.images import read_reduced
from fullconv.data.io.masks import read_mask
from fullconv.data.layouts.dataset import Dataset
from fullconv.evaluation.evaluate import Evaluation
from fullconv.evaluation.metrics import Metrics
from fullconv.evaluation.report.comparison import comparison_html as comparison_html
from fullconv.geometry.grid import Grid
from fullconv.inference.segmentation import Segmentation
from fullconv.models.run import Run
from fullconv.visualization.html import (
    bar,
    downscale_to,
    environment,
    fragment,
    image_tag,
    muted,
    swatch,
    table,
    title,
)
from fullconv.visualization.overlay import overlay, overlay_colors, overlay_with_legend
from fullconv.visualization.plots import has_curves, svg, training_curves

_LONGEST_SIDE = 720  # pixels of a result
_THUMBNAIL = 240  # pixels of a dataset's image
_THUMBNAILS = 6
_RULER = 72  # pixels of the image that the drawing of grids shows
_SPACING = 10  # pixels of the drawing per pixel of the image
_ROW_HEIGHT = 22


def segmentation_html(segmentation: Segmentation) -> str:
    """Show the overlay and the share of each class; additional heads below."""
    parts = _segmentation_parts(segmentation, "")
    for name, head in segmentation.heads.items():
        parts += _segmentation_parts(head, name)
    return fragment(*parts)


def _segmentation_parts(segmentation: Segmentation, head: str) -> list[Markup]:
    ids, labels = segmentation.ids_for_drawing()
    colors = overlay_colors(labels)
    areas = sorted(segmentation.area.items(), key=lambda item: -item[1])
    areas = [(name, share) for name, share in areas if share > 0 and name in colors]
    rows = [[swatch(colors[name]) + name, percent(share), bar(share)] for name, share in areas]
    image = _small_overlay(segmentation.image, ids, labels, _LONGEST_SIDE)
    classes = ", ".join(name for name, _ in areas[:8])
    heading = [str(segmentation.source)] if segmentation.source else []
    heading += [f"head {head}"] if head else []
    return [
        *([title(" · ".join(heading))] if heading else []),
        image_tag(image, f"overlay of {classes}", longest=_LONGEST_SIDE, photo=True),
        table(["class", "area", ""], rows, numbers=1),
        muted(f"{ids.shape[0]} x {ids.shape[1]} pixels (height x width)"),
    ]


def segmentation_png(segmentation: Segmentation) -> bytes:
    """Return a PNG file of the overlay with its legend, at most `_LONGEST_SIDE` pixels long."""
    ids, labels = segmentation.ids_for_drawing()
    image, ids = _downscale(segmentation.image, ids, _LONGEST_SIDE)
    file = io.BytesIO()
    Image.fromarray(overlay_with_legend(image, ids, labels)).save(file, "PNG")
    return file.getvalue()


def _small_overlay(image: np.ndarray, ids: np.ndarray, labels: Labels, longest: int) -> Image.Image:
    return Image.fromarray(overlay(*_downscale(image, ids, longest), labels))


def _downscale(image: np.ndarray, ids: np.ndarray, longest: int) -> tuple[np.ndarray, np.ndarray]:
    """Return image and ids with at most this many pixels per side; ids by nearest neighbor."""
    small = np.asarray(downscale_to(Image.fromarray(np.ascontiguousarray(image)), longest))
    rows, columns = (
        np.minimum((np.arange(new) + 0.5) * old // new, old - 1).astype(int)
        for new, old in zip(small.shape[:2], ids.shape, strict=True)
    )
    return small, ids[rows[:, None], columns]


def metrics_html(metrics: Metrics) -> str:
    """Show the four metrics, and a bar for each class."""
    return fragment(*_metrics_parts(metrics.to_dict()))


def _metrics_parts(facts: Mapping[str, Any]) -> list[Markup]:
    four = [[text, percent(facts[key], 2)] for key, text in TITLES.items()]
    iou, precision = facts["per_class_iou"], facts.get("per_class_precision", {})
    columns = (iou, facts["per_class_accuracy"], precision)
    rows = []
    for name in iou:
        shares = [percent(column.get(name), 2) for column in columns]
        rows.append([name, *shares, "absent" if iou[name] is None else bar(iou[name])])
    head = ["class", "IoU", "recall (accuracy)", "precision", ""]
    return [table([], four, numbers=1), table(head, rows, numbers=3)]


def evaluation_html(evaluation: Evaluation) -> str:
    """Show the metrics of all heads, and the protocol card."""
    parts = _metrics_parts(evaluation.metrics.to_dict())
    for name, head in evaluation.heads.items():
        parts += [title(f"head {name}"), *_metrics_parts(head.to_dict())]
    return fragment(*parts, _protocol_part(evaluation.protocol))


def _protocol_part(card: Mapping[str, Any]) -> Markup:
    rows = [
        [line.replace("_", " "), ", ".join(value) if isinstance(value, list) else str(value)]
        for line, value in card.items()
    ]
    text = "<details><summary>evaluation protocol</summary>{}</details>"
    return Markup(text).format(table([], rows))


def run_html(run: Run) -> str:
    """Show the folder of a run, its best metrics, and its curves."""
    settings, log, card = run.settings, run.log, run.metrics.get("protocol", {})
    facts = []
    if "backbone" in settings:
        backbone = str(settings["backbone"])
        facts.append(Path(backbone).stem if backbone.endswith(".toml") else backbone)
    if "stride" in settings:
        facts.append(f"FCN-{settings['stride']}s")
    if epochs := len(log.get("epoch", ())):
        facts.append(nmsg("{count} epoch", "{count} epochs", epochs))
    if "epoch" in run.metrics:
        facts.append(msg("best in epoch {number}", number=run.metrics["epoch"]))
    parts = [title(run.folder.name), *([muted(" · ".join(facts))] if facts else [])]
    if run.stages:
        rows = [[s.name, percent(s.mean_iou, 2), percent(s.pixel_accuracy, 2)] for s in run.stages]
        parts.append(table(["stage", "mean IoU", "pixel accuracy"], rows, numbers=2))
    if has_curves({"": log}):
        parts.append(svg(training_curves({run.folder.name: log}), "loss and mean IoU by epoch"))
    if card:
        images = nmsg("{count} image", "{count} images", card["images"])
        parts.append(muted(f"on {card['split']}, {images}"))
        parts += _metrics_parts(run.metrics)
        parts.append(_protocol_part(card))
    return fragment(*parts, muted(Markup("model: <code>{}</code>").format(str(run.model))))


def grid_html(grid: Grid) -> str:
    """Show a grid as a table and a drawing."""
    return grids_html([grid])


def grids_html(grids: Sequence[Grid]) -> str:
    """Show grids in a table, and the centers of their cells over the first pixels of the image."""
    rows = []
    for grid in grids:
        field = "whole image" if math.isinf(grid.field) else f"{grid.field:g}"
        rows.append([f"{grid.stride:g}", f"{grid.offset:g}", field, ", ".join(grid.whole)])
    head = ["stride", "offset", "receptive field", "sees the whole image by"]
    if not any(row[3] for row in rows):
        rows, head = [row[:3] for row in rows], head[:3]
    lines = []
    for number, grid in enumerate(grids, 1):
        count = max(0, math.floor((_RULER - 0.5 - grid.offset) / grid.stride) + 1)
        centers = [grid.center(cell) for cell in range(min(count, 4 * _RULER))]
        places = [(center + 0.5) * _SPACING for center in centers if center >= -0.5]
        lines.append((f"{grid.stride:g}", _ROW_HEIGHT * (number + 0.5), places))
    template = environment(Path(__file__).with_name("templates")).get_template("grids.html")
    height = _ROW_HEIGHT * (len(grids) + 1)
    drawing = template.render(lines=lines, pixels=range(_RULER), spacing=_SPACING, height=height)
    caption = f"Pixels 0 to {_RULER - 1} of a row of the image, and the centers of the cells."
    return fragment(table(head, rows, numbers=2), Markup(drawing), muted(caption))


def dataset_html(dataset: Dataset) -> str:
    """Show the number of images, a few images with their masks, and the classes."""
    return fragment(*_dataset_parts(dataset, {}))


def check_report_html(report: CheckReport) -> str:
    """Show a dataset with the share of each class, and what the check found."""
    shares = {
        k: np.array(pixels) / max(1, sum(pixels)) for k, pixels in report.class_pixels.items()
    }
    rows = [[finding.level, finding.rule, finding.message] for finding in report.findings]
    findings = table(["", "rule", ""], rows) if rows else muted("The check found no problems.")
    return fragment(*_dataset_parts(report.dataset, shares), findings)


def _dataset_parts(dataset: Dataset, shares: Mapping[str, np.ndarray]) -> list[Markup]:
    counts = ", ".join(f"{split} {len(pairs)}" for split, pairs in dataset.splits.items())
    colors = overlay_colors(dataset.labels)
    rows = []
    for k, name in enumerate(dataset.labels.names):
        percents = [percent(share[k], 2) if share[k] else "-" for share in shares.values()]
        rows.append([str(k), *percents, swatch(colors[name]) + name])
    return [
        title(str(dataset.root)),
        muted(f"layout {dataset.layout} ({dataset.reason}) · images: {counts}"),
        *(muted(f"note: {note}") for note in dataset.notes),
        *_thumbnails(dataset),
        table(["id", *shares, "class"], rows, numbers=len(shares)),
    ]


def _thumbnails(dataset: Dataset) -> list[Markup]:
    """Draw a few images spread over the dataset; name those that cannot be read."""
    pairs = [(f"{k}/{pair.name}", pair) for k, pairs in dataset.splits.items() for pair in pairs]
    places = np.linspace(0, len(pairs) - 1, min(_THUMBNAILS, len(pairs))).round().astype(int)
    parts = []
    for place in sorted(set(places.tolist())):
        name, pair = pairs[place]
        try:
            size, image = read_reduced(pair.image, _THUMBNAIL)
            ids = read_mask(pair.mask, dataset.labels)
        except FullconvError as error:  # `check` describes it at length
            parts.append(muted(f"{name}: {error.message}"))
            continue
        if ids.shape != size:
            parts.append(muted(f"{name}: image and mask differ in size"))
            continue
        drawing = _small_overlay(image, ids, dataset.labels, _THUMBNAIL)
        tag = image_tag(drawing, f"{name}, with its labels", longest=_THUMBNAIL, photo=True)
        text = "<figure>{}<figcaption>{}</figcaption></figure>"
        parts.append(Markup(text).format(tag, name))
    return parts
