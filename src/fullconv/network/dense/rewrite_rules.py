"""Rules that turn the operations of a classifier's head into their dense form, one each.

A rule gets the node of the classifier's graph, adds nodes to the dense network's graph, and returns
the layout of the result. An operation that does not do the same at every window is refused by name.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from fullconv.core.i18n import msg
from fullconv.geometry.positions import SpatialLayout, layout_of
from fullconv.network.dense.classifier_graph import operation
from fullconv.network.dense.tensor_layout import (
    BATCH,
    CHANNELS,
    COLUMNS,
    POOLED,
    ROWS,
    Dim,
    HeadRewriter,
    TensorLayout,
    UnsupportedError,
    argument,
    broadcasts_to,
    convolution_kernel,
)

Rule = Callable[[HeadRewriter, fx.Node], TensorLayout]


def _pooled(
    head: HeadRewriter, node: fx.Node, layout: TensorLayout, over: set[str], kind: str
) -> fx.Node:
    """Add the window's average, maximum or sum over rows, columns or both, at every cell."""
    rows, columns = (layout.sizes[axis] if axis in over else 1 for axis in (ROWS, COLUMNS))
    size = (rows, columns)
    if size == (1, 1):
        return layout.node
    if kind == "max":
        return head.emit(nn.MaxPool2d(size, stride=1), layout.node, node)
    divisor = 1 if kind == "sum" else None
    return head.emit(nn.AvgPool2d(size, 1, divisor_override=divisor), layout.node, node)


def _pooling(kind: str) -> Rule:
    """Return the rule for adaptive pooling, and for pooling with a window as large as the map."""

    def rule(head: HeadRewriter, node: fx.Node) -> TensorLayout:
        layout, size = head.input_layout(node), head.shape(node)[2:]
        if len(layout.dims) != 4 or layout.dims[:2] != POOLED:
            raise UnsupportedError(
                msg("{operation} of something other than a feature map", operation=operation(node))
            )
        if size == layout.window:
            return layout
        if size != (1, 1):
            message = msg(
                "pooling of {rows} x {columns} cells to {to_rows} x {to_columns}",
                rows=layout.window[0],
                columns=layout.window[1],
                to_rows=size[0],
                to_columns=size[1],
            )
            raise UnsupportedError(message)
        pooled = _pooled(head, node, layout, {ROWS, COLUMNS}, kind)
        return layout.after(pooled, layout.dims, rows=1, columns=1)

    return rule


def _reduction(kind: str) -> Rule:
    """Return the rule for x.mean((2, 3)) and similar."""

    def rule(head: HeadRewriter, node: fx.Node) -> TensorLayout:
        layout, dims = head.input_layout(node), argument(node, 1, "dim")
        if dims is None or isinstance(dims, bool):
            raise UnsupportedError(
                msg("{operation} over all dimensions", operation=operation(node))
            )
        rank = len(layout.dims)
        reduced = {d % rank for d in (dims if isinstance(dims, (list, tuple)) else [dims])}
        over = {label for d in reduced for label in layout.dims[d]}
        if over == {CHANNELS}:
            return _over_channels(head, node)
        if not over <= {ROWS, COLUMNS}:
            message = msg(
                "{operation} over the dimensions {dimensions}",
                operation=operation(node),
                dimensions=", ".join(sorted(over)),
            )
            raise UnsupportedError(message)
        pooled = _pooled(head, node, layout, over, kind)
        rest = layout.dims
        if len(head.shape(node)) < rank:  # without keepdim
            rest = tuple(d for i, d in enumerate(layout.dims) if i not in reduced)
        return layout.after(pooled, rest, **dict.fromkeys(over, 1))

    return rule


def _over_channels(head: HeadRewriter, node: fx.Node) -> TensorLayout:
    """A statistic over the channels with keepdim, as in hand-written norms."""
    layout, dims = head.input_layout(node), argument(node, 1, "dim")
    (dim,) = dims if isinstance(dims, (list, tuple)) else [dims]
    if len(head.shape(node)) != len(layout.dims) or layout.dims[dim] != (CHANNELS,):
        raise UnsupportedError(msg("{operation} over the channels", operation=operation(node)))
    rest = {k: v for k, v in node.kwargs.items() if k not in ("input", "dim", "keepdim")}
    dense_node = head.graph.create_node(
        node.op, node.target, (layout.node,), {**rest, "dim": (1,), "keepdim": True}
    )
    rest_dims = list(layout.dims)
    rest_dims[dim] = ()
    return layout.after(dense_node, tuple(rest_dims), channels=1)


def _reshaping(head: HeadRewriter, node: fx.Node) -> TensorLayout:
    """Flatten, view, squeeze and similar: only the dimensions change."""
    layout, target = head.input_layout(node), head.shape(node)
    labels = [label for dim in layout.dims[1:] for label in dim if layout.sizes[label] > 1]
    dims: list[Dim] = [(BATCH,)]
    for size in target[1:]:
        taken: list[str] = []
        while labels and math.prod(layout.sizes[label] for label in taken) < size:
            taken.append(labels.pop(0))
        if math.prod(layout.sizes[label] for label in taken) != size:
            name = operation(node)
            message = msg(
                "{operation} to {shape}, which splits the channels",
                operation=name,
                shape=target,
            )
            raise UnsupportedError(message)
        dims.append(tuple(taken))
    return replace(layout, dims=tuple(dims))


def _linear(head: HeadRewriter, node: fx.Node) -> TensorLayout:
    layout, count = head.input_layout(node), head.shape(node)[-1]
    kernel, order = convolution_kernel(layout)
    shape = (count, *(layout.sizes[label] for label in layout.dims[-1]))
    dims = (*layout.dims[:-1], (CHANNELS,))
    sizes = {CHANNELS: count, **({} if kernel == (1, 1) else {ROWS: 1, COLUMNS: 1})}
    if node.op != "call_module":
        weight = head.graph.call_method("reshape", (argument(node, 1, "weight"), shape))
        weight = head.graph.call_method("permute", (weight, order))
        weight = head.graph.call_method("reshape", (weight, (count, -1, *kernel)))
        given = (layout.node, weight, argument(node, 2, "bias"))
        return layout.after(head.graph.call_function(F.conv2d, given), dims, **sizes)
    layer = head.network.get_submodule(str(node.target))
    assert isinstance(layer, nn.Linear)
    weights = layer.weight.detach().reshape(shape).permute(order).reshape(count, -1, *kernel)
    conv = nn.Conv2d(weights.shape[1], count, kernel, bias=layer.bias is not None, device="meta")
    conv.weight = nn.Parameter(weights.contiguous(), requires_grad=layer.weight.requires_grad)
    conv.bias = layer.bias
    return layout.after(head.emit(conv, layout.node, node), dims, **sizes)


def _convolution(head: HeadRewriter, node: fx.Node) -> TensorLayout:
    """A 1x1 convolution after the pooling stays as it is."""
    layer, layout = head.network.get_submodule(str(node.target)), head.input_layout(node)
    assert isinstance(layer, nn.Conv2d)
    if layout.window != (1, 1) or (layer.kernel_size, layer.stride) != ((1, 1), (1, 1)):
        raise UnsupportedError(msg("its head has a convolution of several cells after the pooling"))
    dense_node = head.graph.call_module(str(node.target), (layout.node,))
    return layout.after(dense_node, layout.dims, channels=layer.out_channels)


def _batch_norm(head: HeadRewriter, node: fx.Node) -> TensorLayout:
    """A BatchNorm1d becomes a BatchNorm2d with the same numbers."""
    layer, layout = head.network.get_submodule(str(node.target)), head.input_layout(node)
    assert isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d))
    _refuse_flat(layout)
    norm = nn.BatchNorm2d(layer.num_features, layer.eps, layer.momentum).eval()
    norm.affine, norm.track_running_stats = layer.affine, layer.track_running_stats
    norm.weight, norm.bias = layer.weight, layer.bias
    norm.running_mean, norm.running_var = layer.running_mean, layer.running_var
    return replace(layout, node=head.emit(norm, layout.node, node))


def _by_channel(head: HeadRewriter, node: fx.Node) -> TensorLayout:
    """Functions whose weights belong to dimension 1."""
    layout, given = head.input_layout(node), argument(node, 0, "input")
    _refuse_flat(layout)
    dense_node = head.graph.node_copy(node, lambda n: layout.node if n is given else n)
    return replace(layout, node=dense_node)


def _refuse_flat(layout: TensorLayout) -> None:
    if layout.dims[1] != (CHANNELS,):
        message = msg("its head has separate weights for each cell of a flattened map")
        raise UnsupportedError(message)


def _layer_norm(head: HeadRewriter, node: fx.Node) -> TensorLayout:
    """Normalization over the channels, at every cell."""
    layout = head.input_layout(node)
    if layout.dims[-1] != (CHANNELS,) or len(argument(node, 1, "normalized_shape")) != 1:
        raise UnsupportedError(
            msg("{operation} over more than the channels", operation=operation(node))
        )
    last = head.graph.call_method("permute", (layout.node, 0, 2, 3, 1))
    rest = {k: v for k, v in node.kwargs.items() if k != "input"}
    normed = head.graph.create_node(node.op, node.target, (last, *node.args[1:]), rest)
    return replace(layout, node=head.graph.call_method("permute", (normed, 0, 3, 1, 2)))


def _along_channels(position: int, default: int = -1) -> Rule:
    """Return the rule for an operation along the channels, such as softmax."""

    def rule(head: HeadRewriter, node: fx.Node) -> TensorLayout:
        layout = head.input_layout(node)
        dim = argument(node, position, "dim", default)
        if not isinstance(dim, int) or layout.dims[dim] != (CHANNELS,):
            name = operation(node)
            raise UnsupportedError(
                msg("{operation} along something other than the channels", operation=name)
            )
        rest = {k: v for k, v in node.kwargs.items() if k not in ("input", "dim")}
        args = (layout.node, *node.args[1:position])
        dense_node = head.graph.create_node(node.op, node.target, args, {**rest, "dim": 1})
        return replace(layout, node=dense_node)

    return rule


def elementwise(head: HeadRewriter, node: fx.Node) -> TensorLayout:
    """Element-wise operations on several tensors, or with weights of the channels."""
    layouts = [k for given in node.all_input_nodes if (k := head.layout(given)) is not None]
    first = max(layouts, key=lambda k: (len(k.dims), k.sizes[CHANNELS]))
    if not all(broadcasts_to(k, first) for k in layouts):
        raise UnsupportedError(
            msg("{operation} of tensors with different layouts", operation=operation(node))
        )

    def dense(given: fx.Node) -> Any:
        if (layout := head.layout(given)) is not None:
            return layout.node
        value = head.values[given.name]
        if not isinstance(value, Tensor):
            return value  # a size, for one window
        if value.numel() == 1:
            return given
        aligned = first.dims[len(first.dims) - value.ndim :] if value.ndim else ()
        along = [d for d, n in zip(aligned, value.shape, strict=True) if n > 1]
        if along != [(CHANNELS,)]:
            raise UnsupportedError(
                msg("{operation} with a weight for each cell", operation=operation(node))
            )
        return head.graph.call_method("reshape", (given, -1, 1, 1))

    args = fx.map_arg(node.args, dense)
    kwargs = fx.map_arg(node.kwargs, dense)
    dense_node = head.graph.create_node(node.op, node.target, args, kwargs)
    return replace(first, node=dense_node)


def closed_module(head: HeadRewriter, node: fx.Node) -> TensorLayout:
    """A module that is not opened stays as it is after the pooling. The proof will show whether it
    does the same at every cell."""
    name = type(head.network.get_submodule(str(node.target))).__name__
    layout = head.input_layout(node)
    if layout.window != (1, 1) or len(node.all_input_nodes) != 1 or head.shape(node)[2:] != (1, 1):
        if isinstance(layout_of(head.values[node.name]), SpatialLayout):
            raise UnsupportedError(
                msg("the output of {name} is no map of rows and columns", name=name)
            )
        raise UnsupportedError(msg("its head has the module {name}", name=name))
    dense_node = head.graph.call_module(str(node.target), (layout.node,))
    return layout.after(dense_node, layout.dims, channels=head.shape(node)[1])


def _nothing(head: HeadRewriter, node: fx.Node) -> TensorLayout:
    return head.input_layout(node)


def _concatenation(head: HeadRewriter, node: fx.Node) -> TensorLayout:
    parts = argument(node, 0, "tensors")
    layouts = [head.layout(part) for part in parts]
    dim = argument(node, 1, "dim", 0)
    first = layouts[0]
    tensors = [k for k in layouts if k is not None]
    if len(tensors) < len(layouts) or first is None or first.dims[dim] != (CHANNELS,):
        raise UnsupportedError(msg("concatenation of something other than channels"))
    if any(k.dims != first.dims or k.window != first.window for k in tensors):
        raise UnsupportedError(msg("concatenation of tensors with different layouts"))
    dense_node = head.graph.call_function(torch.cat, ([k.node for k in tensors], 1))
    return first.after(dense_node, first.dims, channels=sum(k.sizes[CHANNELS] for k in tensors))


def _permutation(head: HeadRewriter, node: fx.Node) -> TensorLayout:
    layout = head.input_layout(node)
    order = node.kwargs.get("dims", node.args[1] if len(node.args) == 2 else node.args[1:])
    return replace(layout, dims=tuple(layout.dims[d] for d in order))  # type: ignore[union-attr, index]


def _transposition(head: HeadRewriter, node: fx.Node) -> TensorLayout:
    layout = head.input_layout(node)
    dims = list(layout.dims)
    first, second = argument(node, 1, "dim0"), argument(node, 2, "dim1")
    dims[first], dims[second] = dims[second], dims[first]
    return replace(layout, dims=tuple(dims))


def _index(head: HeadRewriter, node: fx.Node) -> TensorLayout:
    """Indexing of dimensions with one entry, such as x[:, :, 0, 0]."""
    layout, index = head.input_layout(node), node.args[1]
    items = list(index) if isinstance(index, tuple) else [index]
    if Ellipsis in items:
        position = items.index(Ellipsis)
        items[position : position + 1] = [slice(None)] * (len(layout.dims) - len(items) + 1)
    items += [slice(None)] * (len(layout.dims) - len(items))
    dims = []
    for item, dim in zip(items, layout.dims, strict=True):
        if item == slice(None):
            dims.append(dim)
        elif not isinstance(item, int) or dim:
            message = msg("its head reads only a part of a tensor")
            if dim:
                message = msg(
                    "its head reads only a part of the {dimensions}", dimensions=", ".join(dim)
                )
            raise UnsupportedError(message)
    return replace(layout, dims=tuple(dims))


LAYERS: dict[type[nn.Module], Rule] = {
    nn.Linear: _linear,
    nn.Conv2d: _convolution,
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
}
RULES: dict[str, Rule] = {
    **dict.fromkeys(("adaptive_avg_pool2d", "avg_pool2d"), _pooling("mean")),
    **dict.fromkeys(("adaptive_max_pool2d", "max_pool2d"), _pooling("max")),
    "mean": _reduction("mean"),
    "sum": _reduction("sum"),
    "var": _over_channels,
    "amax": _reduction("max"),
    **dict.fromkeys(
        ("flatten", "view", "reshape", "squeeze", "unsqueeze", "unflatten"), _reshaping
    ),
    **dict.fromkeys(
        ("dropout", "dropout1d", "dropout2d", "feature_dropout", "alpha_dropout", "contiguous"),
        _nothing,
    ),
    "linear": _linear,
    **dict.fromkeys(("batch_norm", "prelu"), _by_channel),
    **dict.fromkeys(("layer_norm", "rms_norm"), _layer_norm),
    **dict.fromkeys(("softmax", "log_softmax"), _along_channels(1)),
    "normalize": _along_channels(2, 1),
    **dict.fromkeys(("cat", "concat", "concatenate"), _concatenation),
    "permute": _permutation,
    **dict.fromkeys(("transpose", "swapaxes"), _transposition),
    "getitem": _index,
}
