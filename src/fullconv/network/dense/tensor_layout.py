"""The layout of a tensor in a classifier's head, and the rewriter that tracks it.

In the classifier the tensor belongs to one window, the whole image, and may be pooled, flattened or
permuted. In the dense network it is (N, C, h, w): what remains of each window, at each cell.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx, nn

from fullconv.core.i18n import Message, msg
from fullconv.geometry.positions import SpatialLayout, layout_of
from fullconv.network.dense.classifier_graph import (
    ClassifierGraph,
    is_feature_map,
    operation,
    whole_image_operations,
)

# What a dimension of the classifier's own tensor runs along; () if it has one entry.
BATCH, CHANNELS, ROWS, COLUMNS = "batch", "channels", "rows", "columns"
Dim = tuple[str, ...]

POOLED = ((BATCH,), (CHANNELS,))


@dataclass(frozen=True)
class TensorLayout:
    """The layout of a tensor in the head."""

    node: fx.Node  # in the dense network, (N, C, h, w)
    # What each dimension of the classifier's own tensor runs along, outermost first; a flattened
    # dimension runs along several.
    dims: tuple[Dim, ...]
    sizes: dict[str, int]  # number of channels, and of the rows and columns of one window

    @property
    def window(self) -> tuple[int, int]:
        """The (rows, columns) of the window that are not pooled yet."""
        return self.sizes[ROWS], self.sizes[COLUMNS]

    def after(self, node: fx.Node, dims: tuple[Dim, ...], **sizes: int) -> TensorLayout:
        """Return the layout after an operation; rows or columns of size one leave `dims`."""
        merged = {**self.sizes, **sizes}
        single = {axis for axis in (ROWS, COLUMNS) if merged[axis] == 1}
        return TensorLayout(
            node, tuple(tuple(d for d in dim if d not in single) for dim in dims), merged
        )


class UnsupportedError(Exception):
    """An operation that does not do the same at every window; `message` is a clause about it."""

    def __init__(self, message: Message) -> None:
        super().__init__(message)
        self.message = message


class HeadRewriter:
    """A head while it is rewritten: the dense network, and the layout of each tensor."""

    def __init__(self, network: fx.GraphModule, classifier: ClassifierGraph) -> None:
        self.network, self.graph = network, network.graph
        self.values, self.backbone = classifier.values, classifier.backbone
        self.layouts: dict[fx.Node, TensorLayout] = {}

    def input_layout(self, node: fx.Node, position: int = 0, name: str = "input") -> TensorLayout:
        given = argument(node, position, name)
        layout = self.layout(given) if isinstance(given, fx.Node) else None
        if layout is None:
            text = operation(node)
            raise UnsupportedError(
                msg("{operation} reads something other than a feature map", operation=text)
            )
        return layout

    def shape(self, node: fx.Node) -> tuple[int, ...]:
        """Return the shape of the classifier's own tensor for one image."""
        return tuple(self.values[node.name].shape)

    def emit(self, layer: nn.Module, given: fx.Node, node: fx.Node) -> fx.Node:
        """Add a layer in the place of a node, under the name of the node's own layer if any."""
        name = str(node.target) if node.op == "call_module" else node.name
        while node.op != "call_module" and hasattr(self.network, name):
            name += "_"
        self.network.add_submodule(name, layer)
        return self.graph.call_module(name, (given,))

    def layout(self, node: fx.Node) -> TensorLayout | None:
        """Return the layout of a node; None for sizes, weights and similar. A node of the backbone
        must be a feature map."""
        if node in self.layouts:
            return self.layouts[node]
        if node.name not in self.backbone or not isinstance(self.values[node.name], Tensor):
            return None
        state = layout_of(self.values[node.name])
        if state is None:
            return None
        if not isinstance(state, SpatialLayout):
            names = ", ".join(whole_image_operations(state))
            message = msg(
                "its head reads what was computed from the whole image by {operations}",
                operations=names,
            )
            raise UnsupportedError(message)
        if not is_feature_map(state):
            message = msg("its head reads a list of tokens, not a map of rows and columns")
            raise UnsupportedError(message)
        self.layouts[node] = feature_map_layout(node, state, self.shape(node), self.graph)
        return self.layouts[node]


def feature_map_layout(
    node: fx.Node, state: SpatialLayout, shape: tuple[int, ...], graph: fx.Graph
) -> TensorLayout:
    """Return the layout of a feature map; channels last are permuted to channels first."""
    names = iter((BATCH, CHANNELS))
    labels = [(ROWS, COLUMNS)[d[0]] if isinstance(d, tuple) else next(names) for d in state.dims]
    sizes = dict(zip(labels, shape, strict=True))
    order = [labels.index(label) for label in (BATCH, CHANNELS, ROWS, COLUMNS)]
    if order != [0, 1, 2, 3]:
        with graph.inserting_after(node):
            node = graph.call_method("permute", (node, *order))
    dims = tuple((label,) for label in labels)
    return TensorLayout(node, dims, sizes).after(node, dims)


def broadcasts_to(layout: TensorLayout, other: TensorLayout) -> bool:
    """Return whether two layouts differ at most in the channels, of which the first has one."""
    if len(layout.dims) != len(other.dims) or layout.window != other.window:
        return False
    return all(a in (b, ()) for a, b in zip(layout.dims, other.dims, strict=True))


def convolution_kernel(layout: TensorLayout) -> tuple[tuple[int, int], tuple[int, ...]]:
    """Return the kernel of a fully connected layer as a convolution, and the order of its weight's
    dimensions, (K, ...) as they were flattened -> (K, C, rows, columns)."""
    read, rest = layout.dims[-1], {label for dim in layout.dims[1:-1] for label in dim}
    if CHANNELS not in read or (rest and read != (CHANNELS,)):
        raise UnsupportedError(
            msg("its head has a fully connected layer along more than the channels")
        )
    labels = [label for label in (CHANNELS, ROWS, COLUMNS) if label in read]
    order = (0, *(1 + read.index(label) for label in labels))
    rows, columns = (layout.sizes[axis] if axis in read else 1 for axis in (ROWS, COLUMNS))
    return (rows, columns), order


def argument(node: fx.Node, position: int, name: str, default: Any = None) -> Any:
    """Return an argument that was passed by position or by keyword."""
    return node.args[position] if len(node.args) > position else node.kwargs.get(name, default)
