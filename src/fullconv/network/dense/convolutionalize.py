"""Any classifier made dense (Long et al. 2015, section 3.1 and figure 2).

A classifier that looks at 224 x 224 pixels gives one row of scores. Its fully connected layers are
convolutions that cover what they see, so that the same weights slide over a larger image and give
a row of scores at every cell, at the cost of one pass. The end is rewritten by
`fullconv.network.dense.rewrite`; the trunk stays as it is.

What holds, and is proven each time with random images:

- On an image of the classifier's own size there is one cell, and its scores are the classifier's.
- On a larger image every cell's scores are what the classifier's own end gives for the window of
  the trunk's feature map at that cell.

What holds only for some networks: that a cell's scores are those of the classifier on the crop that
its window is. The trunk must see nothing but the window for that, neither the whole image
(squeeze-excite, attention, normalisation over the image) nor its neighbourhood: where a trunk
pads with zeros, a crop sees zeros beyond its border and a cell sees what the image has there. So
it holds, at every cell, for networks without padding and without such operations, and for others
only as far as what lies around a window makes no difference. `DenseClassifier.is_local` says which,
`caveats` says why.

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
from fullconv.geometry.grid import Grid
from fullconv.geometry.positions import SpatialLayout, layout_of
from fullconv.geometry.trace_network import trace
from fullconv.network.backbone_card import BackboneCard
from fullconv.network.dense.classifier import Classifier, class_names, load_classifier
from fullconv.network.dense.classifier_graph import (
    RUN_ERRORS,
    ClassifierGraph,
    Run,
    first_line,
    follow,
    seen,
    trace_classifier,
)
from fullconv.network.dense.rewrite import slide

# Of the largest score: what float32 may differ by where sums are ordered otherwise.
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Proof:
    """Largest differences, over the largest score.

    Args:
        native: between the dense network and the classifier, on an image of the classifier's size.
        windows: between the dense network on a larger image and the classifier's own end on each
            window of the trunk's feature map.
        cells: (h, w) of that larger image.
    """

    native: float
    windows: float
    cells: tuple[int, int]


class DenseClassifier(nn.Module):
    """A classifier that gives scores at every cell. Made by `convolutionalize`.

    Attributes:
        network: maps (N, 3, H, W) to (N, K, h, w); evaluation mode, without the dropout that the
            classifier's end may have had.
        name: of the classifier, "timm resnet18".
        card: where it comes from; mean and std of its images.
        size: H = W of the classifier's own images, in pixels: of the window of each cell.
        grid: where the cells look. Cell i's window begins at pixel `stride * i`; its gaze is
            centred on `grid.center(i)` and, through the padding inside, may reach further.
        names: of the classes, "tabby, tabby cat"; empty where they are not known.
        num_classes: K.
        step: 1, or: only sizes of `size` and a multiple of `step` pixels more keep the classifier's
            padding (or are taken at all). Larger images are cut to such a size below and right.
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
        """The largest difference of the proof, over the largest score."""
        return max(self.proof.native, self.proof.windows)

    @property
    def is_local(self) -> bool:
        """Whether a cell sees nothing but its window: it is the classifier on that crop then."""
        return self.grid.field <= self.size

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W), normalised as the card says -> scores before softmax (N, K, h, w).

        Raises:
            FullconvError: an image smaller than the classifier's own.
        """
        height, width = images.shape[2:]
        if min(height, width) < self.size:
            raise FullconvError(
                f"an image of {height} x {width} pixels (height x width); {self.name} looks at "
                f"{self.size} x {self.size}, and takes nothing smaller.",
                f"torch.nn.functional.interpolate(images, ({self.size}, {self.size}))",
            )
        height -= (height - self.size) % self.step
        width -= (width - self.size) % self.step
        scores: Tensor = self.network(images[:, :, :height, :width])
        return scores

    def window(self, row: int, column: int) -> tuple[int, int, int, int]:
        """(top, left, bottom, right) of a cell's window, in pixels; the last two are not in it."""
        top, left = (round(self.grid.stride) * cell for cell in (row, column))
        return top, left, top + self.size, left + self.size

    def caveats(self) -> list[str]:
        """Why cells are not quite the classifier on the crop of their window; empty where they are,
        and the image may have any size."""
        found = []
        if self.grid.whole:
            found.append(
                f"sees the whole image: {', '.join(self.grid.whole)}. On images of "
                f"{self.size} x {self.size} it is the classifier; on larger ones a cell "
                "depends on all of the image, a crop would not"
            )
        elif not self.is_local:
            found.append(
                f"cells see up to {self.grid.field:g} pixels through the padding inside, where a "
                f"crop of {self.size} x {self.size} would see zeros"
            )
        if self.step > 1:
            found.append(
                "padding depends on the image's size (or it does not take every size): images "
                f"are cut to {self.size} x {self.size} pixels and multiples of {self.step} "
                "more"
            )
        return found


def convolutionalize(
    classifier: str | Path | BackboneCard | nn.Module,
    pretrained: bool = False,
    *,
    size: int | None = None,
) -> DenseClassifier:
    """A classifier as a network that classifies every place of a larger image, in one pass.

    Fully connected layers become convolutions with the same weights (VGG's fc6 7x7, fc7 1x1),
    pooling over the map becomes pooling with windows of the size that the map has on the
    classifier's own images, at stride 1; flattening and dropout vanish. See the module's text for
    what is equal to what.

    Args:
        classifier: a timm name ("resnet18"), "torchvision:NAME", the path of a backbone card, a
            card, or a module of your own that maps (N, 3, H, W) to (N, K). A module is copied.
        pretrained: load the source's published weights (needs the network once). A card brings its
            own weights.
        size: H = W of the classifier's own images, in pixels. Default: what the source says, or
            224.

    Raises:
        FullconvError: unknown name or weights out of reach; a network that cannot be made dense,
            with the operation that stands in the way; or one that differs from the classifier by
            more than 1e-4 of its largest score.

    >>> dense = convolutionalize("test_resnet", size=96)
    >>> dense(torch.zeros(1, 3, 128, 192)).shape
    torch.Size([1, 1000, 2, 4])
    """
    found = load_classifier(classifier, pretrained=pretrained, size=size)
    opened = trace_classifier(found.module, found.size, found.name)
    network = slide(opened, found.name)
    grid = trace(network, size=found.size)[0]
    stride = round(grid.stride)
    larger = (found.size + stride, found.size + 2 * stride)
    output = _larger(network, found, opened, larger)
    dense = DenseClassifier(network, found, grid, _step(network, found, grid), output.shape[1])
    dense.eval()
    dense.proof = _prove(found, opened, network, larger)
    if not dense.difference <= TOLERANCE:  # NaN too
        raise FullconvError(
            f"{dense.name} made dense differs from the classifier by {dense.proof.native:.1e} of "
            f"its largest score on its own size, and by {dense.proof.windows:.1e} at the cells of "
            f"a larger image; at most {TOLERANCE:g} is accepted. An operation of its end does "
            "not do the same at every cell.",
            "fc.convolutionalize(classifier.double())   # if it is a matter of rounding",
        )
    return dense


def _larger(
    network: nn.Module, found: Classifier, opened: ClassifierGraph, size: tuple[int, int]
) -> Tensor:
    """What comes out for a larger image, on the meta device."""
    own = f"{found.size} x {found.size}"
    try:
        output: Tensor = follow(network, size, found.name)
    except FullconvError as error:
        raise FullconvError(
            f"{found.name} takes images of {own} pixels alone, and so cannot be made dense: "
            f"{error.message}.{seen(opened.state)}",
            'fc.convolutionalize("resnet18")   # or another without position embeddings',
        ) from error
    rows, columns = output.shape[2:]
    if (rows, columns) != (2, 3):
        raise FullconvError(
            f"{found.name} cannot be made dense: it gives {rows} x {columns} cells for an image "
            f"of {size[0]} x {size[1]} pixels, where 2 x 3 windows of {own} fit. One of its "
            "modules resizes its map, or pools over all of it out of sight.",
            "x.mean((2, 3))   # in the classifier's own forward, or in a module behind the trunk",
        )
    return output


def _step(network: nn.Module, found: Classifier, grid: Grid) -> int:
    """1, or the stride where the padding of other sizes differs, or they are not taken: looked for
    at sizes that are odd at one level each, and at one that is odd at all."""
    stride = round(grid.stride)
    levels = max(1, math.ceil(math.log2(stride)))
    sizes = [found.size + 2**level for level in range(levels)]
    sizes += [_unlike(found.size, levels)] * (2 - levels % 2)  # two at a time: rows and columns
    for size in zip(sizes[0::2], sizes[1::2], strict=True):
        try:
            other = trace(network, size=size)[0]
        except FullconvError:  # such a size does not run, or rows and columns differ
            return stride
        if other.offset != grid.offset:
            return stride
    return 1


def _unlike(size: int, levels: int) -> int:
    """A size a little larger that is odd at every level where this one is even, and even where it
    is odd, where each level is half of the one before, rounded up."""

    def parities(n: int) -> list[int]:
        found = []
        for _ in range(levels):
            found.append(n % 2)
            n = -(-n // 2)
        return found

    own = parities(size)
    candidates = range(size + 1, size + 2**levels + 1)
    return max(candidates, key=lambda n: sum(a != b for a, b in zip(own, parities(n), strict=True)))


def _prove(
    found: Classifier, opened: ClassifierGraph, network: fx.GraphModule, larger: tuple[int, int]
) -> Proof:
    """Runs both, on images of normal noise."""
    like = next(found.module.parameters(), torch.zeros(()))
    generator = torch.Generator().manual_seed(0)

    def image(height: int, width: int) -> Tensor:
        return torch.randn(1, 3, height, width, generator=generator).to(like)

    try:
        with torch.inference_mode():
            one = image(found.size, found.size)
            native = _difference(network(one)[:, :, 0, 0], found.module(one))
            maps: dict[str, Any] = {}
            dense = Run(network, maps, opened.borders).run(image(*larger))
            rows, columns = dense.shape[2:]
            windows = max(
                _difference(dense[:, :, i, j], _end_of_window(opened, maps, i, j))
                for i in range(rows)
                for j in range(columns)
            )
    except RUN_ERRORS as error:
        raise FullconvError(
            f"{found.name} does not run: {first_line(error)}",
            "classifier(torch.zeros(1, 3, 224, 224))   # must run",
        ) from error
    return Proof(native, windows, (rows, columns))


def _difference(made: Tensor, wanted: Tensor) -> float:
    """The largest, over the largest score."""
    scale = float(wanted.double().abs().max()) or 1.0
    return float((made.double() - wanted.double()).abs().max()) / scale


def _end_of_window(
    opened: ClassifierGraph, maps: dict[str, Tensor], row: int, column: int
) -> Tensor:
    """The scores that the classifier's own end gives for one window of the feature maps."""
    known: dict[fx.Node, Any] = {}
    for node in opened.network.graph.nodes:
        if node.name in opened.kept and node.op != "get_attr":
            known[node] = None
        if node.name in maps:
            known[node] = _window(maps[node.name], opened.values[node.name], row, column)
    scores: Tensor = Run(opened.network, {}, ()).run(initial_env=known)
    return scores


def _window(value: Any, native: Any, row: int, column: int) -> Any:
    """The part of a feature map that the classifier's own images fill, from a cell on."""
    place = layout_of(native)
    if not isinstance(place, SpatialLayout):  # a size or a weight
        return value if isinstance(native, Tensor) else native
    first = {0: row, 1: column}
    cut = [
        slice(first[dim[0]], first[dim[0]] + size) if isinstance(dim, tuple) else slice(None)
        for dim, size in zip(place.dims, native.shape, strict=True)
    ]
    return value[tuple(cut)].contiguous()  # as a map of its own would be: `view` may follow
