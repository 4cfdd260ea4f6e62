"""What each operation at a classifier's end becomes where the end slides: one rule per operation.

A rule gets the node of the classifier's graph, adds nodes to the dense network's graph, and says
what the value is now. What is not the same at every window is refused by name.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from fullconv.geometry.positions import SpatialLayout, layout_of
from fullconv.network.dense.classifier_graph import operation
from fullconv.network.dense.tensor_layout import (
    BATCH,
    CHANNELS,
    COLUMNS,
    POOLED,
    ROWS,
    Dim,
    End,
    TensorLayout,
    UnlikeError,
    alike,
    argument,
    kernel_of,
)

Rule = Callable[[End, fx.Node], TensorLayout]


def _pooled(end: End, node: fx.Node, view: TensorLayout, over: set[str], kind: str) -> fx.Node:
    """The window's average, maximum or sum over rows, columns or both, at every cell."""
    rows, columns = (view.sizes[axis] if axis in over else 1 for axis in (ROWS, COLUMNS))
    if (rows, columns) == (1, 1):
        return view.node
    size = (rows, columns)
    if kind == "max":
        return end.put(nn.MaxPool2d(size, stride=1), view.node, node)
    divisor = 1 if kind == "sum" else None
    layer = nn.AvgPool2d(size, stride=1, divisor_override=divisor)
    return end.put(layer, view.node, node)


def _pooling(kind: str) -> Rule:
    """Adaptive pooling, and that with a window as large as the map."""

    def rule(end: End, node: fx.Node) -> TensorLayout:
        view, made = end.view(node), end.shape(node)[2:]
        if len(view.dims) != 4 or view.dims[:2] != POOLED:
            raise UnlikeError(f"{operation(node)} of something other than a feature map")
        if made == view.window:
            return view
        if made != (1, 1):
            raise UnlikeError(
                f"pooling of {view.window[0]} x {view.window[1]} cells to {made[0]} x {made[1]}"
            )
        pooled = _pooled(end, node, view, {ROWS, COLUMNS}, kind)
        return view.become(pooled, view.dims, rows=1, columns=1)

    return rule


def _reduction(kind: str) -> Rule:
    """x.mean((2, 3)) and its kin."""

    def rule(end: End, node: fx.Node) -> TensorLayout:
        view, dims = end.view(node), argument(node, 1, "dim")
        if dims is None or isinstance(dims, bool):
            raise UnlikeError(f"{operation(node)} over everything")
        rank = len(view.dims)
        chosen = {d % rank for d in (dims if isinstance(dims, (list, tuple)) else [dims])}
        over = {label for d in chosen for label in view.dims[d]}
        if over == {CHANNELS}:
            return _over_channels(end, node)
        if not over <= {ROWS, COLUMNS}:
            raise UnlikeError(f"{operation(node)} over the {', '.join(sorted(over))}")
        pooled = _pooled(end, node, view, over, kind)
        gone = dict.fromkeys(over, 1)
        if len(end.shape(node)) == rank:
            return view.become(pooled, view.dims, **gone)
        return view.become(
            pooled, tuple(d for i, d in enumerate(view.dims) if i not in chosen), **gone
        )

    return rule


def _over_channels(end: End, node: fx.Node) -> TensorLayout:
    """A statistic of the channels, kept as a dimension of one: what norms are written with."""
    view, dims = end.view(node), argument(node, 1, "dim")
    (dim,) = dims if isinstance(dims, (list, tuple)) else [dims]
    if len(end.shape(node)) != len(view.dims) or view.dims[dim] != (CHANNELS,):
        raise UnlikeError(f"{operation(node)} over the channels")
    rest = {k: v for k, v in node.kwargs.items() if k not in ("input", "dim", "keepdim")}
    made = end.graph.create_node(
        node.op, node.target, (view.node,), {**rest, "dim": (1,), "keepdim": True}
    )
    place = dim % len(view.dims)
    return view.become(made, (*view.dims[:place], (), *view.dims[place + 1 :]), channels=1)


def _reshaping(end: End, node: fx.Node) -> TensorLayout:
    """Flatten, view, squeeze and so on: the values stay where they are."""
    view, target = end.view(node), end.shape(node)
    waiting = [label for dim in view.dims[1:] for label in dim if view.sizes[label] > 1]
    dims: list[Dim] = [(BATCH,)]
    for size in target[1:]:
        taken: list[str] = []
        while waiting and math.prod(view.sizes[label] for label in taken) < size:
            taken.append(waiting.pop(0))
        if math.prod(view.sizes[label] for label in taken) != size:
            raise UnlikeError(f"{operation(node)} to {target}, which parts the channels")
        dims.append(tuple(taken))
    return replace(view, dims=tuple(dims))


def _linear(end: End, node: fx.Node) -> TensorLayout:
    """A fully connected layer."""
    view, count = end.view(node), end.shape(node)[-1]
    kernel, order = kernel_of(view)
    shape = (count, *(view.sizes[label] for label in view.dims[-1]))
    dims = (*view.dims[:-1], (CHANNELS,))
    sizes = {CHANNELS: count, **({} if kernel == (1, 1) else {ROWS: 1, COLUMNS: 1})}
    if node.op != "call_module":
        weight = end.graph.call_method("reshape", (argument(node, 1, "weight"), shape))
        weight = end.graph.call_method("permute", (weight, order))
        weight = end.graph.call_method("reshape", (weight, (count, -1, *kernel)))
        given = (view.node, weight, argument(node, 2, "bias"))
        return view.become(end.graph.call_function(F.conv2d, given), dims, **sizes)
    layer = end.network.get_submodule(str(node.target))
    assert isinstance(layer, nn.Linear)
    weights = layer.weight.detach().reshape(shape).permute(order).reshape(count, -1, *kernel)
    made = nn.Conv2d(weights.shape[1], count, kernel, bias=layer.bias is not None, device="meta")
    made.weight = nn.Parameter(weights.contiguous(), requires_grad=layer.weight.requires_grad)
    made.bias = layer.bias
    return view.become(end.put(made, view.node, node), dims, **sizes)


def _convolution(end: End, node: fx.Node) -> TensorLayout:
    """Behind the pooling: of one cell. Or a fully connected layer that is one by now."""
    layer, view = end.network.get_submodule(str(node.target)), end.view(node)
    assert isinstance(layer, nn.Conv2d)
    if view.window != (1, 1) or (layer.kernel_size, layer.stride) != ((1, 1), (1, 1)):
        raise UnlikeError("its end holds a convolution of several cells behind the pooling")
    made = end.graph.call_module(str(node.target), (view.node,))
    return view.become(made, view.dims, channels=layer.out_channels)


def _batch_norm(end: End, node: fx.Node) -> TensorLayout:
    """A layer for one dimension becomes one for two, with the same numbers."""
    layer, view = end.network.get_submodule(str(node.target)), end.view(node)
    assert isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d))
    _refuse_flat(view, node)
    like = nn.BatchNorm2d(layer.num_features, layer.eps, layer.momentum).eval()
    like.affine, like.track_running_stats = layer.affine, layer.track_running_stats
    like.weight, like.bias = layer.weight, layer.bias
    like.running_mean, like.running_var = layer.running_mean, layer.running_var
    return replace(view, node=end.put(like, view.node, node))


def _by_channel(end: End, node: fx.Node) -> TensorLayout:
    """Functions whose weights belong to dimension 1, of any number of dimensions."""
    view = end.view(node)
    _refuse_flat(view, node)
    given = argument(node, 0, "input")
    return replace(view, node=end.graph.node_copy(node, lambda n: view.node if n is given else n))


def _refuse_flat(view: TensorLayout, node: fx.Node) -> None:
    if view.dims[1] != (CHANNELS,):
        raise UnlikeError("its end has weights for each cell of a flattened map")


def _layer_norm(end: End, node: fx.Node) -> TensorLayout:
    """Over the channels, at every cell."""
    view = end.view(node)
    if view.dims[-1] != (CHANNELS,) or len(argument(node, 1, "normalized_shape")) != 1:
        raise UnlikeError(f"{operation(node)} over more than the channels")
    last = end.graph.call_method("permute", (view.node, 0, 2, 3, 1))
    rest = {key: value for key, value in node.kwargs.items() if key != "input"}
    normed = end.graph.create_node(node.op, node.target, (last, *node.args[1:]), rest)
    return replace(view, node=end.graph.call_method("permute", (normed, 0, 3, 1, 2)))


def _along_channels(position: int, default: int = -1) -> Rule:
    """Softmax and the like."""

    def rule(end: End, node: fx.Node) -> TensorLayout:
        view = end.view(node)
        dim = argument(node, position, "dim", default)
        if not isinstance(dim, int) or view.dims[dim] != (CHANNELS,):
            raise UnlikeError(f"{operation(node)} along something other than the channels")
        rest = {k: v for k, v in node.kwargs.items() if k not in ("input", "dim")}
        args = (view.node, *node.args[1:position])
        made = end.graph.create_node(node.op, node.target, args, {**rest, "dim": 1})
        return replace(view, node=made)

    return rule


def elementwise(end: End, node: fx.Node) -> TensorLayout:
    """The same at every entry; of several tensors, or with weights of the channels."""
    views = [v for given in node.all_input_nodes if (v := end.view_of(given)) is not None]
    first = max(views, key=lambda v: (len(v.dims), v.sizes[CHANNELS]))
    if not all(alike(v, first) for v in views):
        raise UnlikeError(f"{operation(node)} of tensors that are not alike")

    def dense(given: fx.Node) -> Any:
        if (view := end.view_of(given)) is not None:
            return view.node
        value = end.values[given.name]
        if not isinstance(value, Tensor):
            return value  # a size, as it is for one window
        if value.numel() == 1:
            return given
        aligned = first.dims[len(first.dims) - value.ndim :] if value.ndim else ()
        along = [d for d, n in zip(aligned, value.shape, strict=True) if n > 1]
        if along != [(CHANNELS,)]:
            raise UnlikeError(f"{operation(node)} with a weight for each cell")
        return end.graph.call_method("reshape", (given, -1, 1, 1))

    args = fx.map_arg(node.args, dense)
    kwargs = fx.map_arg(node.kwargs, dense)
    made = end.graph.create_node(node.op, node.target, args, kwargs)
    return replace(first, node=made)


def closed_module(end: End, node: fx.Node) -> TensorLayout:
    """A module that is not opened: as it is, where the pooling is done. That it does the same at
    every cell is for the proof to say."""
    name = type(end.network.get_submodule(str(node.target))).__name__
    view = end.view(node)
    if view.window != (1, 1) or len(node.all_input_nodes) != 1 or end.shape(node)[2:] != (1, 1):
        if isinstance(layout_of(end.values[node.name]), SpatialLayout):
            raise UnlikeError(f"what {name} gives is no map of rows and columns")
        raise UnlikeError(f"its end holds {name}")
    made = end.graph.call_module(str(node.target), (view.node,))
    return view.become(made, view.dims, channels=end.shape(node)[1])


def _nothing(end: End, node: fx.Node) -> TensorLayout:
    return end.view(node)


def _concatenation(end: End, node: fx.Node) -> TensorLayout:
    """Of channels."""
    parts = argument(node, 0, "tensors")
    views = [end.view_of(part) for part in parts]
    dim = argument(node, 1, "dim", 0)
    first = views[0]
    if any(v is None for v in views) or first is None or first.dims[dim] != (CHANNELS,):
        raise UnlikeError("concatenation of something other than channels")
    known = [v for v in views if v is not None]
    if any(v.dims != first.dims or v.window != first.window for v in known):
        raise UnlikeError("concatenation of tensors that are not alike")
    made = end.graph.call_function(torch.cat, ([v.node for v in known], 1))
    return first.become(made, first.dims, channels=sum(v.sizes[CHANNELS] for v in known))


def _permutation(end: End, node: fx.Node) -> TensorLayout:
    view = end.view(node)
    order = node.kwargs.get("dims", node.args[1] if len(node.args) == 2 else node.args[1:])
    return replace(view, dims=tuple(view.dims[d] for d in order))  # type: ignore[union-attr, index]


def _transposition(end: End, node: fx.Node) -> TensorLayout:
    view = end.view(node)
    dims = list(view.dims)
    first, second = argument(node, 1, "dim0"), argument(node, 2, "dim1")
    dims[first], dims[second] = dims[second], dims[first]
    return replace(view, dims=tuple(dims))


def _index(end: End, node: fx.Node) -> TensorLayout:
    """x[:, :, 0, 0]: of dimensions with one entry."""
    view, index = end.view(node), node.args[1]
    items = list(index) if isinstance(index, tuple) else [index]
    if Ellipsis in items:
        place = items.index(Ellipsis)
        items[place : place + 1] = [slice(None)] * (len(view.dims) - len(items) + 1)
    items += [slice(None)] * (len(view.dims) - len(items))
    kept = []
    for item, dim in zip(items, view.dims, strict=True):
        if item == slice(None):
            kept.append(dim)
        elif not isinstance(item, int) or dim:
            raise UnlikeError("it reads a part of " + (" and ".join(dim) or "a tensor"))
    return replace(view, dims=tuple(kept))


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
