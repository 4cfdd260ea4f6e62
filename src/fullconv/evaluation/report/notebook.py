"""What notebooks show where a result stands at the end of a cell.

Everything is one piece of HTML of a bounded size, see `fullconv.visualization.html`; the drawing of a whole
training is that of `fullconv.visualization.plots`.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fullconv.core.errors import FullconvError
from fullconv.core.labels import Labels
from fullconv.core.metric_names import TITLES
from fullconv.core.text import plural
from fullconv.data.check.check import CheckReport
from fullconv.data.layouts.dataset import Dataset
from fullconv.evaluation.evaluate import Evaluation
from fullconv.evaluation.metrics import Metrics
from fullconv.evaluation.report.comparison import comparison_html as comparison_html
from fullconv.geometry.grid import Grid
from fullconv.inference.segmentation import Segmentation
from fullconv.models.run import Run
from fullconv.visualization import overlay as draw
from fullconv.visualization.html import (
    Node,
    bar,
    downscale_to,
    element,
    fragment,
    image_node,
    muted,
    swatch,
    table,
    title,
)

_LONGEST = 720  # pixels of a result's longer side
_THUMB = 240  # and of a data set's images
_THUMBS = 6
_RULER = 72  # pixels of the image that the drawing of grids shows


def segmentation_html(of: Segmentation) -> str:
    """The classes over the image, with a legend that says how much of it each covers; further
    heads below."""
    parts = _segmentation(of, "")
    for name, head in of.heads.items():
        parts += _segmentation(head, name)
    return fragment(parts)


def _segmentation(of: Segmentation, head: str) -> list[Node]:
    ids, labels = of.ids_for_drawing()
    names = [*([str(of.source)] if of.source else []), *([f"head {head}"] if head else [])]
    size = f"{ids.shape[0]} x {ids.shape[1]} pixels, height x width"
    colors = draw.overlay_colors(labels)
    shares = sorted(of.area.items(), key=lambda item: -item[1])
    rows: list[list[Any]] = [
        [[swatch(colors[name]), name], f"{100 * share:.1f}", bar(share)]
        for name, share in shares
        if share > 0 and name in colors
    ]
    overlay = Image.fromarray(_overlay(of.image, ids, labels, _LONGEST))
    said = "the classes over the image: " + ", ".join(row[0][1] for row in rows[:8])
    return [
        *([title(" · ".join(names))] if names else []),
        image_node(overlay, said, longest=_LONGEST, photo=True),
        table(["class", "% of the image", ""], rows, numbers=1),
        muted(size),
    ]


def segmentation_png(of: Segmentation) -> bytes:
    """The classes over the image and a legend, as a PNG of a bounded size."""
    ids, labels = of.ids_for_drawing()
    small, below = _smaller(of.image, ids, _LONGEST)
    file = io.BytesIO()
    Image.fromarray(draw.overlay_with_legend(small, below, labels)).save(file, "PNG")
    return file.getvalue()


def _smaller(photo: np.ndarray, ids: np.ndarray, longest: int) -> tuple[np.ndarray, np.ndarray]:
    """Both at no more pixels than these; ids are never mixed."""
    small = np.asarray(downscale_to(Image.fromarray(np.ascontiguousarray(photo)), longest))
    rows, columns = (
        np.minimum((np.arange(new) + 0.5) * old // new, old - 1).astype(int)
        for new, old in zip(small.shape[:2], ids.shape, strict=True)
    )
    return small, ids[rows[:, None], columns]


def _overlay(photo: np.ndarray, ids: np.ndarray, labels: Labels, longest: int) -> np.ndarray:
    small, below = _smaller(photo, ids, longest)
    return draw.overlay(small, below, labels)


def metrics_html(of: Metrics) -> str:
    """The four numbers, and a bar for each class."""
    return fragment(_metrics(of.names, of.to_dict()))


def _metrics(names: Sequence[str], facts: Mapping[str, Any]) -> list[Node]:
    numbers = [[said, _percent(facts[key])] for key, said in TITLES.items()]
    iou, precise = facts["per_class_iou"], facts.get("per_class_precision", {})
    columns = (iou, facts["per_class_accuracy"], precise)
    rows: list[list[Any]] = [
        [name, *(_percent(of.get(name)) for of in columns), _bar(iou[name])] for name in names
    ]
    return [
        table([], numbers, numbers=1),
        table(["class", "IoU, %", "accuracy, %", "precision, %", ""], rows, numbers=3),
    ]


def _bar(share: float | None) -> Node | str:
    return "not there" if share is None else bar(share)


def evaluation_html(of: Evaluation) -> str:
    """The numbers of all heads, and the protocol card."""
    parts = _metrics(of.metrics.names, of.metrics.to_dict())
    for name, head in of.heads.items():
        parts += [title(f"head {name}"), *_metrics(head.names, head.to_dict())]
    return fragment(parts, _card(of.protocol))


def _card(card: Mapping[str, Any]) -> Node:
    rows = [[line, ", ".join(of) if isinstance(of, list) else str(of)] for line, of in card.items()]
    return element("details", element("summary", "protocol card"), table([], rows))


def run_html(of: Run) -> str:
    """What a training came to: its folder, its best numbers, and its curves."""
    from fullconv.visualization import plots as curves

    settings, log = of.settings, of.log
    told = [str(settings["backbone"])] if "backbone" in settings else []
    told = [Path(name).stem if name.endswith(".toml") else name for name in told]
    told += [f"FCN-{settings['stride']}s"] if "stride" in settings else []
    epochs = len(log.get("epoch", ()))
    told += [plural(epochs, "epoch")] if epochs else []
    told += [f"best in epoch {of.metrics['epoch']}"] if "epoch" in of.metrics else []
    card = of.metrics.get("protocol", {})
    parts: list[Node] = [title(of.folder.name), *([muted(" · ".join(told))] if told else [])]
    if of.stages:
        rows = [[s.name, _percent(s.mean_iou), _percent(s.pixel_accuracy)] for s in of.stages]
        parts.append(table(["stage", "mean IoU", "pixel accuracy"], rows, numbers=2))
    if curves.has_curves({"": log}):
        parts.append(curves.svg(curves.curves({of.folder.name: log})))
    if card:
        split = f"on {card['split']}, {plural(card['images'], 'image')}"
        parts += [muted(split), *_metrics(list(of.metrics["per_class_iou"]), of.metrics)]
        parts.append(_card(card))
    return fragment(parts, muted("model: ", element("code", str(of.model))))


def grid_html(grid: Grid) -> str:
    """One grid as a table and a drawing."""
    return grids_html([grid])


def grids_html(grids: Sequence[Grid]) -> str:
    """Where cells sit: a table, and their centres over the first pixels of the image."""
    rows: list[list[Any]] = [
        [
            f"{grid.stride:g}",
            f"{grid.offset:g}",
            "whole image" if math.isinf(grid.field) else f"{grid.field:g}",
            ", ".join(grid.whole),
        ]
        for grid in grids
    ]
    if not any(row[3] for row in rows):
        rows = [row[:3] for row in rows]
    head = ["stride", "offset", "field", "sees the whole image by"][: len(rows[0]) if rows else 3]
    said = f"Pixels 0 to {_RULER - 1} of a row of the image, and the centres of the cells."
    return fragment(table(head, rows, numbers=2), _cells(grids), muted(said))


def _cells(grids: Sequence[Grid]) -> Node:
    """The pixels of a row as squares, and below them a line per grid with a dot for each cell."""
    step, high = 10, 22
    height = high * (len(grids) + 1)
    line = {"stroke": "currentColor", "stroke_opacity": 0.35}
    nodes = [
        element("rect", x=x * step, y=2, width=step, height=step, fill="currentColor",
                fill_opacity=0.08 if x % 2 else 0.22)
        for x in range(_RULER)
    ]  # fmt: skip
    for k, grid in enumerate(grids, 1):
        y = high * k + high / 2
        nodes.append(element("line", x1=0, x2=_RULER * step, y1=y, y2=y, **line))
        count = max(0, math.floor((_RULER - 0.5 - grid.offset) / grid.stride) + 1)
        for cell in range(min(count, 4 * _RULER)):
            centre = grid.center(cell)
            if centre < -0.5:
                continue
            x = (centre + 0.5) * step
            nodes.append(element("line", x1=x, x2=x, y1=2 + step, y2=y, **line))
            nodes.append(element("circle", cx=x, cy=y, r=4, fill="#4c8bd8"))
        said = element("text", f"{grid.stride:g}", x=_RULER * step + 8, y=y + 4, font_size=12)
        said.set("fill", "currentColor")
        nodes.append(said)
    width = _RULER * step + 40
    return element(
        "svg", nodes, width=width, height=height, viewBox=f"0 0 {width} {height}", role="img",
        aria_label="centres of the cells over the pixels",
    )  # fmt: skip


def dataset_html(of: Dataset) -> str:
    """How many images there are, the classes, and a few of the images with their labels."""
    return fragment(_dataset(of, []))


def check_report_html(of: CheckReport) -> str:
    """A data set with the share of each class, and what was found."""
    splits = list(of.class_pixels)
    rows = []
    for finding in of.findings:
        rows.append([finding.level, finding.rule, finding.message])
    found = table(["", "rule", ""], rows) if rows else muted("Nothing wrong found.")
    shares = []
    for split in splits:
        whole = max(1, sum(of.class_pixels[split]))
        shares.append((split, [100 * count / whole for count in of.class_pixels[split]]))
    return fragment(_dataset(of.dataset, shares), found)


def _dataset(of: Dataset, shares: Sequence[tuple[str, Sequence[float]]]) -> list[Node]:
    counts = ", ".join(f"{split} {len(pairs)}" for split, pairs in of.splits.items())
    head = ["id", *(f"{split}, %" for split, _ in shares), "class"]
    colors = draw.overlay_colors(of.labels)
    rows: list[list[Any]] = [
        [
            str(k),
            *(f"{share[k]:.2f}" if share[k] else "-" for _, share in shares),
            [swatch(colors[name]), name],
        ]
        for k, name in enumerate(of.labels.names)
    ]
    return [
        title(str(of.root)),
        muted(f"layout {of.layout} ({of.reason}) · images: {counts}"),
        *(muted(f"note: {note}") for note in of.notes),
        element("div", _thumbs(of)),
        table(head, rows, numbers=len(shares)),
    ]


def _thumbs(of: Dataset) -> list[Node]:
    """A few images from all over the data set; those that cannot be read are left out."""
    from fullconv.data.io.images import read_reduced
    from fullconv.data.io.masks import read_mask

    every = [(split, pair) for split, pairs in of.splits.items() for pair in pairs]
    places = np.linspace(0, len(every) - 1, min(_THUMBS, len(every))).round().astype(int)
    shown = []
    for place in sorted(set(places.tolist())):
        split, pair = every[place]
        said = f"{split}/{pair.name}"
        try:
            size, photo = read_reduced(pair.image, _THUMB)
            ids = read_mask(pair.mask, of.labels)
        except FullconvError as error:  # `check` says it at length
            shown.append(muted(f"{said}: {error.message}"))
            continue
        if ids.shape != size:
            shown.append(muted(f"{said}: image and mask differ in size"))
            continue
        overlay = Image.fromarray(_overlay(photo, ids, of.labels, _THUMB))
        node = image_node(overlay, f"{said}, its labels over the photo", longest=_THUMB, photo=True)
        shown.append(element("figure", node, element("figcaption", said)))
    return shown


def _percent(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{100 * value:.2f}"
