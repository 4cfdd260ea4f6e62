"""Convolutionalize any classifier (Long et al. 2015, section 3.1 and figure 2).

The fully connected layers of a classifier are convolutions that cover their whole input, so the
same weights can slide over a larger image and compute scores at every cell in one pass. The head is
rewritten by `fullconv.network.dense.rewrite`; the backbone stays as it is.

Two equalities hold, and are proven on random images for every network:

- On an image of the classifier's own size there is one cell, with the classifier's scores.
- On a larger image, the scores of every cell are what the classifier's own head computes from the
  window of the backbone's feature map at that cell.

For some networks, a cell's scores also equal those of the classifier on the crop of its window. For
that the backbone must see only the window: neither the whole image (squeeze-excite, attention,
normalization over the image) nor its neighborhood (a backbone that pads with zeros sees zeros
beyond the border of a crop, but image content around a cell). So it holds exactly for networks
without padding and without such operations, and approximately for others.
`DenseClassifier.is_local` and `caveats` report it.

Shapes: N batch · K classes · H, W image · h, w cells.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from fullconv.core.errors import FullconvError
from fullconv.core.i18n import msg
from fullconv.core.text import first_line
from fullconv.geometry.grid import Grid
from fullconv.geometry.positions import SpatialLayout, layout_of
from fullconv.geometry.trace_network import trace
from fullconv.network.backbone_card import BackboneCard
from fullconv.network.dense.classifier import Classifier, class_names, load_classifier
from fullconv.network.dense.classifier_graph import (
    RUN_ERRORS,
    ClassifierGraph,
    Recorder,
    trace_classifier,
    trace_output,
    with_whole_image_note,
)
from fullconv.network.dense.rewrite import rewrite_head

# Largest accepted difference over the largest score: float32 sums in another order differ by less.
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Proof:
    """The largest differences from the original classifier, relative to its largest logit."""

    native: float  # to the classifier, on an image of its own size
    # On a larger image: to the classifier's own head on each window of the backbone's feature map.
    windows: float
    cells: tuple[int, int]  # (h, w) of that larger image


class DenseClassifier(nn.Module):
    """A classifier that computes scores at every cell. Made by `convolutionalize`.

    Attributes:
        name: of the classifier, "timm resnet18".
        card: its origin; mean and std of its images.
        size: H = W of the classifier's own images and of each cell's window, in pixels.
        grid: the positions of the cells. Cell i's window begins at pixel `stride * i`. What it sees
            is centered on `grid.center(i)` and may extend beyond the window, because of padding.
        names: of the classes, "tabby, tabby cat"; empty if unknown.
        step: 1, or: only sizes of `size` plus a multiple of `step` pixels have the classifier's
            padding (or are accepted at all). Larger images are cropped to such a size.
        proof: how closely it equals the classifier.
    """

    def __init__(
        self, network: nn.Module, classifier: Classifier, grid: Grid, step: int, num_classes: int
    ) -> None:
        super().__init__()
        self.network = network
        self.name, self.card, self.size = classifier.name, classifier.card, classifier.size
        self.grid, self.step, self.num_classes = grid, step, num_classes
        self.names = class_names(self.card, num_classes)
        self.proof = Proof(math.nan, math.nan, (0, 0))

    @property
    def difference(self) -> float:
        """The largest difference of the proof, relative to the largest score."""
        return max(self.proof.native, self.proof.windows)

    @property
    def is_local(self) -> bool:
        """Return whether a cell sees only its window, and so equals the classifier on that crop."""
        return self.grid.field <= self.size

    def forward(self, images: Tensor) -> Tensor:
        """Return the scores (before softmax, N, K, h, w) of normalized images (N, 3, H, W), which
        must be at least as large as the classifier's own."""
        height, width = images.shape[2:]
        if min(height, width) < self.size:
            raise FullconvError(
                msg(
                    "the image has {height} x {width} pixels (height x width); {name} needs at "
                    "least {size} x {size}.",
                    height=height,
                    width=width,
                    name=self.name,
                    size=self.size,
                ),
                f"torch.nn.functional.interpolate(images, ({self.size}, {self.size}))",
            )
        height -= (height - self.size) % self.step
        width -= (width - self.size) % self.step
        scores: Tensor = self.network(images[:, :, :height, :width])
        return scores

    def window(self, row: int, column: int) -> tuple[int, int, int, int]:
        """Return a cell's window (top, left, bottom, right) in pixels, the last two exclusive."""
        top, left = (round(self.grid.stride) * cell for cell in (row, column))
        return top, left, top + self.size, left + self.size

    def caveats(self) -> list[str]:
        """Return why cells differ from the classifier on the crop of their window, and which sizes
        are cropped; empty if they are equal and any size is used whole."""
        caveats: list[str] = []
        if self.grid.whole:
            caveats.append(
                msg(
                    "sees the whole image: {operations}. On images of {size} x {size} it equals "
                    "the classifier; on larger images a cell depends on the whole image, unlike a "
                    "crop",
                    operations=", ".join(self.grid.whole),
                    size=self.size,
                )
            )
        elif not self.is_local:
            caveats.append(
                msg(
                    "because of padding, cells see up to {field:g} pixels, where a crop of {size} "
                    "x {size} would see zeros",
                    field=self.grid.field,
                    size=self.size,
                )
            )
        if self.step > 1:
            caveats.append(
                msg(
                    "padding depends on the image's size (or not every size is accepted): images "
                    "are cropped to {size} x {size} pixels plus multiples of {step}",
                    size=self.size,
                    step=self.step,
                )
            )
        return caveats


def convolutionalize(
    classifier: str | Path | BackboneCard | nn.Module,
    pretrained: bool = False,
    *,
    size: int | None = None,
) -> DenseClassifier:
    """Return a classifier as a network that classifies every window of a larger image in one pass.

    Fully connected layers become convolutions with the same weights (VGG's fc6 7x7, fc7 1x1). The
    module's docstring describes the proven equalities.

    Args:
        classifier: a timm name ("resnet18"), "torchvision:NAME", the path of a backbone card, a
            card, or a module that maps (N, 3, H, W) to (N, K). A module is copied.
        pretrained: load the source's published weights (downloaded once), not a card's own.
        size: H = W of the classifier's own images, in pixels. Default: the source's size, or 224.

    Raises:
        FullconvError: the name is unknown, the weights cannot be downloaded, an operation (which
            is named) cannot be convolutionalized, or the result differs from the classifier by more
            than 1e-4 of its largest score.

    >>> dense = convolutionalize("test_resnet", size=96)
    >>> dense(torch.zeros(1, 3, 128, 192)).shape
    torch.Size([1, 1000, 2, 4])
    """
    loaded = load_classifier(classifier, pretrained=pretrained, size=size)
    graph = trace_classifier(loaded.module, loaded.size, loaded.name)
    network = rewrite_head(graph, loaded.name)
    grid = trace(network, size=loaded.size)[0]
    stride = round(grid.stride)
    larger = (loaded.size + stride, loaded.size + 2 * stride)
    output = _trace_larger(network, loaded, graph, larger)
    dense = DenseClassifier(network, loaded, grid, _step(network, loaded, grid), output.shape[1])
    dense.eval()
    dense.proof = _prove(loaded, graph, network, larger)
    if not dense.difference <= TOLERANCE:  # true for NaN
        raise FullconvError(
            msg(
                "the convolutionalized {name} differs from the classifier by {native:.1e} of its "
                "largest score at its own size, and by {windows:.1e} at the cells of a larger "
                "image; at most {tolerance:g} is accepted. An operation of its head does not do "
                "the same at every cell.",
                name=dense.name,
                native=dense.proof.native,
                windows=dense.proof.windows,
                tolerance=TOLERANCE,
            ),
            msg("fc.convolutionalize(classifier.double())   # if the reason is rounding"),
        )
    return dense


def _trace_larger(
    network: nn.Module, classifier: Classifier, graph: ClassifierGraph, size: tuple[int, int]
) -> Tensor:
    """Return the dense network's output for a larger image, on the meta device."""
    try:
        output: Tensor = trace_output(network, size, classifier.name)
    except FullconvError as error:
        message = msg(
            "{name} accepts only images of {size} x {size} pixels, so it cannot be "
            "convolutionalized: {error}.",
            name=classifier.name,
            size=classifier.size,
            error=error.message,
        )
        hint = msg('fc.convolutionalize("resnet18")   # or another without position embeddings')
        raise FullconvError(with_whole_image_note(message, graph.state), hint) from error
    rows, columns = output.shape[2:]
    if (rows, columns) != (2, 3):
        raise FullconvError(
            msg(
                "{name} cannot be convolutionalized: it returns {rows} x {columns} cells for an "
                "image of {height} x {width} pixels, which has 2 x 3 windows of {size} x {size}. "
                "One of its modules resizes its map, or pools over all of it out of sight.",
                name=classifier.name,
                rows=rows,
                columns=columns,
                height=size[0],
                width=size[1],
                size=classifier.size,
            ),
            msg(
                "x.mean((2, 3))   # in the classifier's own forward, or in a module after the "
                "backbone"
            ),
        )
    return output


def _step(network: nn.Module, classifier: Classifier, grid: Grid) -> int:
    """Return 1, or the stride if other sizes have different padding or are not accepted. Tests
    sizes that change the parity of one level each, and one that changes as many as possible."""
    stride = round(grid.stride)
    levels = max(1, math.ceil(math.log2(stride)))

    def changed_levels(size: int) -> int:
        """Count the levels of another parity, each half as large as the one before, rounded up."""
        sizes = [(-(-size // 2**n), -(-classifier.size // 2**n)) for n in range(levels)]
        return sum(a % 2 != b % 2 for a, b in sizes)

    others = range(classifier.size + 1, classifier.size + 2**levels + 1)
    different = max(others, key=changed_levels)
    sizes = [classifier.size + 2**level for level in range(levels)]
    sizes += [different] * (2 - levels % 2)  # an even number: two sizes are rows and columns
    for size in zip(sizes[0::2], sizes[1::2], strict=True):
        try:
            other = trace(network, size=size)[0]
        except FullconvError:  # such a size does not run, or rows and columns differ
            return stride
        if other.offset != grid.offset:
            return stride
    return 1


def _prove(
    classifier: Classifier, graph: ClassifierGraph, network: fx.GraphModule, larger: tuple[int, int]
) -> Proof:
    """Compare the dense network and the classifier on images of normal noise."""
    like = next(classifier.module.parameters(), torch.zeros(()))
    generator = torch.Generator().manual_seed(0)

    def noise(height: int, width: int) -> Tensor:
        return torch.randn(1, 3, height, width, generator=generator).to(like)

    try:
        with torch.inference_mode():
            image = noise(classifier.size, classifier.size)
            native = _difference(network(image)[:, :, 0, 0], classifier.module(image))
            maps: dict[str, Any] = {}
            dense = Recorder(network, maps, graph.borders).run(noise(*larger))
            rows, columns = dense.shape[2:]
            windows = max(
                _difference(dense[:, :, i, j], _head_scores(graph, maps, i, j))
                for i in range(rows)
                for j in range(columns)
            )
    except RUN_ERRORS as error:
        reason = first_line(error)[:200]
        message = msg("{name} does not run: {error}", name=classifier.name, error=reason)
        hint = msg("classifier(torch.zeros(1, 3, 224, 224))   # must run")
        raise FullconvError(message, hint) from error
    return Proof(native, windows, (rows, columns))


def _difference(scores: Tensor, expected: Tensor) -> float:
    scale = float(expected.double().abs().max()) or 1.0
    return float((scores.double() - expected.double()).abs().max()) / scale


def _head_scores(graph: ClassifierGraph, maps: dict[str, Tensor], row: int, column: int) -> Tensor:
    """Return the scores of the classifier's own head for one window of the feature maps."""
    values: dict[fx.Node, Any] = {}
    for node in graph.network.graph.nodes:
        if node.name in graph.backbone and node.op != "get_attr":
            values[node] = None
        if node.name in maps:
            values[node] = _window(maps[node.name], graph.values[node.name], row, column)
    scores: Tensor = Recorder(graph.network, {}, ()).run(initial_env=values)
    return scores


def _window(value: Any, native: Any, row: int, column: int) -> Any:
    """Return the part of a map, from a cell on, that has the size of the classifier's own map."""
    layout = layout_of(native)
    if not isinstance(layout, SpatialLayout):  # a size or a weight
        return value if isinstance(native, Tensor) else native
    first = {0: row, 1: column}
    part = [
        slice(first[dim[0]], first[dim[0]] + size) if isinstance(dim, tuple) else slice(None)
        for dim, size in zip(layout.dims, native.shape, strict=True)
    ]
    return value[tuple(part)].contiguous()  # like a map of its own, because `view` may follow
