"""Rules for how each operation changes the layout of its input: one per operation, in tables.

Convolutions, pooling and padding change the axes; element-wise operations merge layouts; views,
permutations, slices and space-to-depth move dimensions; pooling over the image and attention lose
the positions. So does an operation that no table lists, because a guess could be wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from fullconv.geometry.positions import (
    Axis,
    Dim,
    SpatialLayout,
    State,
    Tokens,
    Untracked,
    layout_of,
    merge_layouts,
    reshape_layout,
)


@dataclass
class Call:
    """One call of an operation."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Any
    states: list[tuple[Tensor, State]]  # the inputs that depend on the image, before the call
    shapes: dict[int, tuple[int, ...]]  # of all input tensors before the call, by id
    name: Callable[[str], str]  # maps a kind of operation to "the running module (kind)"

    def argument(self, position: int, name: str, default: Any = None) -> Any:
        """Return an argument that was passed by position or by keyword."""
        return self.args[position] if len(self.args) > position else self.kwargs.get(name, default)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the first input that depends on the image, before the call."""
        return self.shapes[id(self.states[0][0])]

    def untracked(self, kind: str) -> Untracked:
        """Return the state of an output whose positions are lost. Positions that were lost before
        keep their first reason; attention is always named."""
        reasons: set[str] = set()
        for _, state in self.states:
            reasons |= state.whole if isinstance(state, SpatialLayout) else state.reasons
            if kind == "attention" or isinstance(state, SpatialLayout):
                reasons.add(self.name(kind))
        return Untracked(frozenset(reasons))

    def merged(self) -> State:
        """Return the state of an output that is element-wise in all inputs."""
        inputs = [(state, len(self.shapes[id(tensor)])) for tensor, state in self.states]
        return merge_layouts(inputs, iter_tensors(self.output)[0].ndim, self.name(_TWO_KINDS))


_TWO_KINDS = "cells of two kinds"
Rule = Callable[[Call, SpatialLayout], State]


def apply_rule(op: str, call: Call) -> State:
    first = call.states[0][1]
    if op in ELEMENTWISE:
        return call.merged()
    if op in JOINS:
        return JOINS[op](call)
    if op in MIXING:
        return call.untracked(MIXING[op])
    if op in RULES and isinstance(first, SpatialLayout):
        return RULES[op](call, first)
    return call.untracked(op)


def iter_tensors(value: Any) -> list[Tensor]:
    """Return all tensors in nested arguments."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = tuple(value.values())
    if isinstance(value, (list, tuple)):
        return [t for item in value for t in iter_tensors(item)]
    return []


def _pair(value: Any) -> tuple[int, int]:
    if isinstance(value, (list, tuple)):
        return (int(value[0]), int(value[-1]))
    return (int(value), int(value))


def _on_feature_maps(change: Callable[[Call, int, Axis], Axis | None], kind: str) -> Rule:
    """Return the rule for (N, C, h, w) maps that changes axis 0 and axis 1."""

    def rule(call: Call, layout: SpatialLayout) -> State:
        if layout.dims != (None, None, (0, 1), (1, 1)):
            return call.untracked(kind)
        rows, columns = (change(call, i, axis) for i, axis in enumerate(layout.axes))
        if rows is None or columns is None:
            return call.untracked(kind)
        return replace(layout, axes=(rows, columns))

    return rule


def _convolution(call: Call, i: int, axis: Axis) -> Axis:
    kernel = call.argument(1, "weight").shape[2 + i]
    stride = _pair(call.argument(3, "stride", 1))[i]
    dilation = _pair(call.argument(5, "dilation", 1))[i]
    padding = call.argument(4, "padding", 0)
    if padding == "same":  # stride 1 only; an odd cell of padding comes after
        before = (kernel - 1) * dilation // 2
    else:
        before = 0 if padding == "valid" else _pair(padding)[i]
    return axis.window(kernel, stride, before, dilation)


def _transposed_convolution(call: Call, i: int, axis: Axis) -> Axis:
    return axis.transposed(
        call.argument(1, "weight").shape[2 + i],
        _pair(call.argument(3, "stride", 1))[i],
        _pair(call.argument(4, "padding", 0))[i],
        _pair(call.argument(7, "dilation", 1))[i],
    )


def _average_pooling(call: Call, i: int, axis: Axis) -> Axis:
    kernel = call.argument(1, "kernel_size")
    stride = call.argument(2, "stride") or kernel
    before = call.argument(3, "padding", 0)
    return axis.window(_pair(kernel)[i], _pair(stride)[i], _pair(before)[i])


def _max_pooling(call: Call, i: int, axis: Axis) -> Axis:
    kernel = call.argument(1, "kernel_size")
    stride = call.argument(2, "stride") or kernel
    before, dilation = call.argument(3, "padding", 0), call.argument(4, "dilation", 1)
    return axis.window(_pair(kernel)[i], _pair(stride)[i], _pair(before)[i], _pair(dilation)[i])


def _interpolation(call: Call, i: int, axis: Axis) -> Axis | None:
    factor, size = call.argument(2, "scale_factor"), call.argument(1, "size")
    if factor is None:
        factor = _pair(size)[i] / call.shape[2 + i]
    elif isinstance(factor, (list, tuple)):
        factor = factor[i]
    mode = call.argument(3, "mode", "nearest")
    supported = mode in ("nearest", "nearest-exact", "bilinear")
    if not supported or call.argument(4, "align_corners") or factor % 1:
        return None
    return axis.upsampled(factor, smooth=mode == "bilinear")


def _pixel_shuffle(call: Call, i: int, axis: Axis) -> Axis:
    return axis.upsampled(call.argument(1, "upscale_factor"))


def _pixel_unshuffle(call: Call, i: int, axis: Axis) -> Axis:
    factor = call.argument(1, "downscale_factor")
    return axis.window(factor, factor)


def _padding(call: Call, layout: SpatialLayout) -> State:
    axes = list(layout.axes)
    for position, before in enumerate(list(call.argument(1, "pad"))[0::2]):
        dim = layout.dims[-1 - position]
        if isinstance(dim, Tokens):
            return call.untracked("padded tokens")
        if dim:
            axes[dim[0]] = axes[dim[0]].shifted(-before * dim[1])
    return replace(layout, axes=(axes[0], axes[1]))


def _reduction(call: Call, layout: SpatialLayout) -> State:
    dims = call.argument(1, "dim")
    if isinstance(dims, Tensor) or "other" in call.kwargs:  # max and min of two tensors
        return call.merged()
    if dims is None or isinstance(dims, bool):  # x.var(False): over everything, biased
        return call.untracked("global pooling")
    rank = len(call.shape)
    reduced = {d % rank for d in (dims if isinstance(dims, (list, tuple)) else [dims])}
    if any(layout.dims[d] for d in reduced):
        return call.untracked("global pooling")
    if iter_tensors(call.output)[0].ndim == rank:
        return layout
    return _without(layout, reduced)


def _along_channels(kind: str, position: int = 1, default: int = -1) -> Rule:
    """Return the rule for softmax and similar: allowed along dimensions other than the image's."""

    def rule(call: Call, layout: SpatialLayout) -> State:
        dim = call.argument(position, "dim", default)
        return layout if layout.dims[dim] is None else call.untracked(kind)

    return rule


def _global_norm(call: Call, layout: SpatialLayout) -> State:
    """Group and instance normalization: cells stay, but their statistics span the whole image."""
    return replace(layout, whole=layout.whole | {call.name("normalization over the image")})


def _layer_norm(call: Call, layout: SpatialLayout) -> State:
    count = len(call.argument(1, "normalized_shape"))
    return _global_norm(call, layout) if any(layout.dims[-count:]) else layout


def _linear(call: Call, layout: SpatialLayout) -> State:
    return layout if layout.dims[-1] is None else call.untracked("fully connected")


def _concatenation(call: Call) -> State:
    output = call.output
    dim = call.argument(1, "dim", 0)
    inputs = [(state, output.ndim) for _, state in call.states]
    result = merge_layouts(inputs, output.ndim, call.name(_TWO_KINDS))
    if not isinstance(result, SpatialLayout) or result.dims[dim] is None:
        return result
    tokens, last = result.dims[dim], iter_tensors(call.args)[-1]
    if isinstance(tokens, Tokens) and len(inputs) == 1 and layout_of(last) is not None:
        dims = list(result.dims)
        prefix = tokens.prefix + output.shape[dim] - last.shape[dim]
        dims[dim] = replace(tokens, prefix=prefix)
        return replace(result, dims=tuple(dims))
    return call.untracked("concatenation along the image")


def _stacking(call: Call) -> State:
    dim = call.argument(1, "dim", 0) % call.output.ndim
    inputs = [(state, call.output.ndim - 1) for _, state in call.states]
    result = merge_layouts(inputs, call.output.ndim - 1, call.name(_TWO_KINDS))
    if isinstance(result, Untracked):
        return result
    return replace(result, dims=(*result.dims[:dim], None, *result.dims[dim:]))


def _expansion(call: Call, layout: SpatialLayout) -> State:
    """Expansion and repetition: allowed along new dimensions and others than the image's."""
    shape = tuple(call.output.shape)
    dims = (None,) * (len(shape) - len(layout.dims)) + layout.dims
    before = (1,) * (len(shape) - len(layout.dims)) + call.shape
    if any(tag and old != new for tag, old, new in zip(dims, before, shape, strict=True)):
        return call.untracked("copies of the image")
    return replace(layout, dims=dims)


def _without(layout: SpatialLayout, removed: Collection[int]) -> SpatialLayout:
    return replace(layout, dims=tuple(d for i, d in enumerate(layout.dims) if i not in removed))


def _permutation(call: Call, layout: SpatialLayout) -> State:
    order = call.kwargs.get("dims", call.args[1] if len(call.args) == 2 else call.args[1:])
    return replace(layout, dims=tuple(layout.dims[d] for d in order))


def _dimension_moving(call: Call, layout: SpatialLayout) -> State:
    ends = [call.argument(1, "source"), call.argument(2, "destination")]
    rank = len(layout.dims)
    sources, targets = ([d % rank for d in ([e] if isinstance(e, int) else e)] for e in ends)
    moved = dict(zip(targets, sources, strict=True))
    others = iter(d for d in range(rank) if d not in sources)
    order = [moved[d] if d in moved else next(others) for d in range(rank)]
    return replace(layout, dims=tuple(layout.dims[d] for d in order))


def _transposition(call: Call, layout: SpatialLayout) -> State:
    dims = list(layout.dims)
    first, second = call.argument(1, "dim0"), call.argument(2, "dim1")
    dims[first], dims[second] = dims[second], dims[first]
    return replace(layout, dims=tuple(dims))


def _splitting(call: Call, layout: SpatialLayout) -> State:
    removed = call.output[0].ndim < len(call.shape)  # unbind
    dim = call.argument(1 if removed else 2, "dim", 0) % len(call.shape)
    if layout.dims[dim] is not None:
        return call.untracked("slices of the image")
    return _without(layout, [dim]) if removed else layout


def _index(call: Call, layout: SpatialLayout) -> State:
    index = call.args[1] if isinstance(call.args[1], tuple) else (call.args[1],)
    if any(isinstance(item, (Tensor, list)) for item in index):
        return call.untracked("indexing")
    missing = len(call.shape) - sum(i is not None and i is not Ellipsis for i in index)
    full: list[Any] = []
    for item in index:
        full.extend([slice(None)] * missing if item is Ellipsis else [item])
    full.extend([slice(None)] * (len(call.shape) - sum(i is not None for i in full)))
    dims: list[Dim | None] = []
    axes = list(layout.axes)
    sources = iter(zip(layout.dims, call.shape, strict=True))
    for item in full:
        if item is None:
            dims.append(None)
            continue
        tag, size = next(sources)
        if isinstance(item, slice):
            start, stop, step = item.indices(size)
            if isinstance(tag, Tokens) and (start, stop, step) != (0, size, 1):
                if stop != size or step != 1 or start > tag.prefix:
                    return call.untracked("some of the tokens")
                tag = replace(tag, prefix=tag.prefix - start)
            elif isinstance(tag, tuple):
                axes[tag[0]] = axes[tag[0]].shifted(start * tag[1])
                tag = (tag[0], tag[1] * step)
            dims.append(tag)
        elif tag:
            return call.untracked("one row of the image")
    return SpatialLayout(tuple(dims), (axes[0], axes[1]), layout.whole).simplified()


def _reshaping(call: Call, layout: SpatialLayout) -> State:
    return reshape_layout(layout, call.shape, tuple(call.output.shape)) or call.untracked(
        "positions rearranged"
    )


def _unsqueezing(call: Call, layout: SpatialLayout) -> State:
    dim = call.argument(1, "dim") % call.output.ndim
    return replace(layout, dims=(*layout.dims[:dim], None, *layout.dims[dim:]))


def _squeezing(call: Call, layout: SpatialLayout) -> State:
    dim = call.argument(1, "dim")
    shape = call.shape
    reduced = [d for d, n in enumerate(shape) if n == 1] if dim is None else [dim % len(shape)]
    if any(layout.dims[d] for d in reduced):
        return call.untracked("one row of the image")
    return _without(layout, reduced)


RULES: dict[str, Rule] = {
    "conv2d": _on_feature_maps(_convolution, "convolution of positions"),
    "conv_transpose2d": _on_feature_maps(_transposed_convolution, "convolution of positions"),
    "avg_pool2d": _on_feature_maps(_average_pooling, "pooling of positions"),
    # torch.nn.functional.max_pool2d is called "fn", after its dispatcher.
    **dict.fromkeys(
        ("max_pool2d", "fn", "max_pool2d_with_indices"),
        _on_feature_maps(_max_pooling, "pooling of positions"),
    ),
    "interpolate": _on_feature_maps(_interpolation, "resizing"),
    "pixel_shuffle": _on_feature_maps(_pixel_shuffle, "pixel shuffle"),
    "pixel_unshuffle": _on_feature_maps(_pixel_unshuffle, "pixel unshuffle"),
    "pad": _padding,
    **dict.fromkeys(("mean", "sum", "amax", "amin", "max", "min", "var", "std"), _reduction),
    **dict.fromkeys(("var_mean", "std_mean"), _reduction),
    **dict.fromkeys(("softmax", "log_softmax"), _along_channels("attention")),
    "glu": _along_channels("gate along the image"),
    "normalize": _along_channels("normalization over the image", 2, 1),
    **dict.fromkeys(("layer_norm", "rms_norm"), _layer_norm),
    **dict.fromkeys(("group_norm", "instance_norm"), _global_norm),
    "linear": _linear,
    "permute": _permutation,
    **dict.fromkeys(("movedim", "moveaxis"), _dimension_moving),
    **dict.fromkeys(("expand", "repeat", "tile", "broadcast_to"), _expansion),
    **dict.fromkeys(("transpose", "swapaxes"), _transposition),
    **dict.fromkeys(("chunk", "split", "unbind", "tensor_split"), _splitting),
    "getitem": _index,
    **dict.fromkeys(
        ("view", "reshape", "flatten", "unflatten", "view_as", "reshape_as"), _reshaping
    ),
    "unsqueeze": _unsqueezing,
    "squeeze": _squeezing,
}

JOINS: dict[str, Callable[[Call], State]] = {
    **dict.fromkeys(("cat", "concat", "concatenate"), _concatenation),
    "stack": _stacking,
}

MIXING = {
    **dict.fromkeys(("adaptive_avg_pool2d", "adaptive_max_pool2d"), "global pooling"),
    **dict.fromkeys(
        ("scaled_dot_product_attention", "matmul", "bmm", "baddbmm", "einsum"), "attention"
    ),
    "roll": "positions rolled",
}

_ELEMENTWISE = """
add iadd radd sub isub rsub mul imul rmul div truediv itruediv rtruediv pow sqrt rsqrt square exp
log abs neg sign clamp clamp_min clamp_max minimum maximum where reciprocal erf lerp addcmul
relu relu6 gelu silu hardswish hardsigmoid hardtanh sigmoid logsigmoid tanh softplus softsign mish
elu leaky_relu prelu selu celu threshold dropout dropout2d feature_dropout alpha_dropout bernoulli
batch_norm local_response_norm contiguous to type type_as float half bfloat16 double cpu cuda clone
detach requires_grad copy expand_as nan_to_num channel_shuffle
"""
ELEMENTWISE = frozenset(_ELEMENTWISE.split())
