"""What a value of a classifier's end is, and what it becomes where the end slides over a map.

In the classifier it belongs to one window, the whole image, and may be pooled, flattened or
turned. In the dense network it is (N, C, h, w): what is left of each window at each cell.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx, nn

from fullconv.geometry.positions import SpatialLayout, layout_of
from fullconv.network.dense.classifier_graph import ClassifierGraph, is_map, names_of, operation

# What a dimension of the classifier's own tensor runs along; () where it has one entry.
BATCH, CHANNELS, ROWS, COLUMNS = "batch", "channels", "rows", "columns"
Dim = tuple[str, ...]

POOLED = ((BATCH,), (CHANNELS,))


@dataclass(frozen=True)
class TensorLayout:
    """A value of the end.

    Args:
        node: what it is in the network made here, (N, C, h, w).
        dims: what each dimension of the classifier's own tensor runs along, outermost first; a
            flattened one along several.
        sizes: of the channels, and of the rows and columns of one window.
    """

    node: fx.Node
    dims: tuple[Dim, ...]
    sizes: dict[str, int]

    @property
    def window(self) -> tuple[int, int]:
        """(rows, columns) of it that are still to be read."""
        return self.sizes[ROWS], self.sizes[COLUMNS]

    def become(self, node: fx.Node, dims: tuple[Dim, ...], **sizes: int) -> TensorLayout:
        """After an operation. Rows and columns of one cell are not spoken of any more."""
        known = {**self.sizes, **sizes}
        gone = {axis for axis in (ROWS, COLUMNS) if known[axis] == 1}
        return TensorLayout(
            node, tuple(tuple(d for d in dim if d not in gone) for dim in dims), known
        )


class UnlikeError(Exception):
    """An operation that is not the same at every window; the text says what it is."""


class End:
    """A classifier's end while it is rewritten: the new network, and what is known of each value.

    Args:
        network: a copy of the classifier's graph, to change.
        opened: the classifier.
    """

    def __init__(self, network: fx.GraphModule, opened: ClassifierGraph) -> None:
        self.network, self.graph = network, network.graph
        self.values, self.kept = opened.values, opened.kept
        self.views: dict[fx.Node, TensorLayout] = {}

    def view(self, node: fx.Node, position: int = 0, name: str = "input") -> TensorLayout:
        """Of an argument."""
        given = argument(node, position, name)
        view = self.view_of(given) if isinstance(given, fx.Node) else None
        if view is None:
            raise UnlikeError(f"{operation(node)} reads what no window of a feature map gives")
        return view

    def shape(self, node: fx.Node) -> tuple[int, ...]:
        """Of the classifier's own value for one image."""
        return tuple(self.values[node.name].shape)

    def put(self, layer: nn.Module, given: fx.Node, node: fx.Node) -> fx.Node:
        """A new layer in the place of a node: under the name of the node's own, if it has one."""
        name = str(node.target) if node.op == "call_module" else node.name
        while node.op != "call_module" and hasattr(self.network, name):
            name += "_"
        self.network.add_submodule(name, layer)
        return self.graph.call_module(name, (given,))

    def view_of(self, node: fx.Node) -> TensorLayout | None:
        """Of a node; None for sizes, weights and the like.

        Raises:
            UnlikeError: it comes from the trunk, but is no feature map.
        """
        if node in self.views:
            return self.views[node]
        if node.name not in self.kept or not isinstance(self.values[node.name], Tensor):
            return None
        state = layout_of(self.values[node.name])
        if state is None:
            return None
        if not isinstance(state, SpatialLayout):
            names = ", ".join(names_of(state))
            raise UnlikeError(f"its end reads what was made of the whole image: {names}")
        if not is_map(state):
            raise UnlikeError("its end reads a list of tokens, not a map of rows and columns")
        self.views[node] = view_of_map(node, state, self.shape(node), self.graph)
        return self.views[node]


def view_of_map(
    node: fx.Node, place: SpatialLayout, shape: tuple[int, ...], graph: fx.Graph
) -> TensorLayout:
    """A feature map, channels first or last."""
    names = iter((BATCH, CHANNELS))
    labels = [(ROWS, COLUMNS)[d[0]] if isinstance(d, tuple) else next(names) for d in place.dims]
    sizes = dict(zip(labels, shape, strict=True))
    order = [labels.index(label) for label in (BATCH, CHANNELS, ROWS, COLUMNS)]
    if order != [0, 1, 2, 3]:
        with graph.inserting_after(node):
            node = graph.call_method("permute", (node, *order))
    dims = tuple((label,) for label in labels)
    return TensorLayout(node, dims, sizes).become(node, dims)


def alike(view: TensorLayout, other: TensorLayout) -> bool:
    """The same dimensions and window; channels may be one where the other has several."""
    if len(view.dims) != len(other.dims) or view.window != other.window:
        return False
    return all(a in (b, ()) for a, b in zip(view.dims, other.dims, strict=True))


def kernel_of(view: TensorLayout) -> tuple[tuple[int, int], tuple[int, ...]]:
    """The kernel of a fully connected layer as a convolution, and the order of its weight's
    dimensions, (K, ...) as they were flattened -> (K, C, rows, columns)."""
    read, left = view.dims[-1], {label for dim in view.dims[1:-1] for label in dim}
    if CHANNELS not in read or (left and read != (CHANNELS,)):
        raise UnlikeError("its end has a fully connected layer along more than the channels")
    wanted = [label for label in (CHANNELS, ROWS, COLUMNS) if label in read]
    order = (0, *(1 + read.index(label) for label in wanted))
    rows, columns = (view.sizes[axis] if axis in read else 1 for axis in (ROWS, COLUMNS))
    return (rows, columns), order


def argument(node: fx.Node, position: int, name: str, default: Any = None) -> Any:
    """By position or by keyword."""
    return node.args[position] if len(node.args) > position else node.kwargs.get(name, default)
