"""Composition: follow a picture through a network and keep, for every tensor, where its cells sit.

`run_traced` runs a module on a meta tensor under a `TorchFunctionMode`. Every tensor that depends on
the picture carries a state in its `place` attribute:

- `Place`: which tensor dimensions run along the rows and columns of the picture, and the `Axis` of
  each. Convolutions, pooling and padding compose; element-wise operations merge; views, permutes,
  slices and space-to-depth move dimensions around.
- `Lost`: the positions were mixed (global pooling, attention) or an operation is not known. When a
  lost tensor is added to, or multiplied with, a placed one, the place survives and the operation is
  named: squeeze-excite and attention blocks keep their cells but see the whole picture.

A tensor without the attribute does not depend on the picture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


@dataclass(frozen=True)
class Axis:
    """One axis of a feature map, in pixels: cell i sits at `offset + stride * i` and sees the pixels
    from `low + stride * i` to `high + stride * i`."""

    stride: float = 1.0
    offset: float = 0.0
    low: float = 0.0
    high: float = 0.0

    def window(self, kernel: int, stride: int = 1, before: int = 0, dilation: int = 1) -> Axis:
        """After a convolution or a pooling with `before` cells of padding."""
        reach = (kernel - 1) * dilation
        return Axis(
            self.stride * stride,
            self.offset + self.stride * (reach / 2 - before),
            self.low - self.stride * before,
            self.high + self.stride * (reach - before),
        )

    def transposed(self, kernel: int, stride: int, before: int, dilation: int) -> Axis:
        """After a transposed convolution with `padding=before`."""
        reach = (kernel - 1) * dilation
        fine = self.stride / stride
        return Axis(
            fine,
            self.offset + fine * (before - reach / 2),
            self.low + fine * (before - reach),
            self.high + fine * before,
        )

    def shifted(self, cells: float) -> Axis:
        """With cell 0 where cell `cells` was."""
        step = self.stride * cells
        return replace(self, offset=self.offset + step, low=self.low + step, high=self.high + step)

    def every(self, step: int) -> Axis:
        """Each `step`-th cell."""
        return replace(self, stride=self.stride * step)

    def split(self, factor: float, *, smooth: bool = False) -> Axis:
        """`factor` cells in the place of one: nearest or bilinear upsampling, pixel shuffle."""
        fine = self.stride / factor
        spread = self.stride - fine if not smooth else self.stride
        return Axis(
            fine,
            self.offset - (self.stride - fine) / 2,
            self.low - spread,
            self.high + (self.stride if smooth else 0.0),
        )

    def merge(self, other: Axis) -> Axis:
        """Both seen by one cell. The path that localises best says where the cell sits (the
        identity of a residual block, not its branch); equal ones meet in the middle."""
        low, high = min(self.low, other.low), max(self.high, other.high)
        mine, theirs = self.high - self.low, other.high - other.low
        if mine == theirs:
            offset = (self.offset + other.offset) / 2
        else:
            offset = self.offset if mine < theirs else other.offset
        return Axis(self.stride, offset, low, high)


# A tensor dimension that runs along the picture: (0 for rows | 1 for columns, cells per step).
Step = tuple[int, int]


@dataclass(frozen=True)
class Tokens:
    """A tensor dimension that runs over rows and columns together, after `prefix` entries of
    another kind (class tokens): the steps and sizes that were woven into it, outermost first."""

    parts: tuple[tuple[Step, int], ...]
    prefix: int = 0


Dim = Step | Tokens


@dataclass(frozen=True)
class Place:
    """Where the cells of one tensor sit: a tag per tensor dimension (None: not along the picture),
    the two axes, and the operations on the way that saw the whole picture."""

    dims: tuple[Dim | None, ...]
    axes: tuple[Axis, Axis]
    whole: frozenset[str] = frozenset()

    def absorbed(self, tags: list[tuple[Step, int]]) -> Place | None:
        """Phase dimensions (tag, size) become channels: their cells are seen together. None where
        that would use up a main dimension."""
        axes = list(self.axes)
        for (axis, step), size in tags:
            if step == max(d[1] for d in self.dims if isinstance(d, tuple) and d[0] == axis):
                return None
            axes[axis] = axes[axis].window(kernel=size, dilation=step)
        return replace(self, axes=(axes[0], axes[1]))

    def tidy(self) -> Place:
        """With steps of one where only one dimension is left on an axis."""
        dims, axes = list(self.dims), list(self.axes)
        for axis in (0, 1):
            tagged = [(i, d) for i, d in enumerate(dims) if isinstance(d, tuple) and d[0] == axis]
            woven = any(isinstance(d, Tokens) for d in dims)
            if len(tagged) == 1 and not woven and tagged[0][1][1] != 1:
                axes[axis] = axes[axis].every(tagged[0][1][1])
                dims[tagged[0][0]] = (axis, 1)
        return Place(tuple(dims), (axes[0], axes[1]), self.whole)


@dataclass(frozen=True)
class Lost:
    """Depends on the picture, at no known place."""

    why: frozenset[str] = frozenset()


State = Place | Lost


def run_traced(module: nn.Module, size: tuple[int, int], run: Callable[..., Any]) -> Any:
    """`run(module, picture)` with a picture (1, 3, H, W) on the meta device, followed. The tensors
    that come out carry `place`: a `Place`, a `Lost`, or nothing."""
    picture = torch.empty(1, 3, *size, device="meta")
    picture.place = Place((None, None, (0, 1), (1, 1)), (Axis(), Axis()))  # type: ignore[attr-defined]
    mode = _Follow()
    with mode.watching_modules(), mode:
        return run(module, picture)


def state_of(tensor: Any) -> State | None:
    """What is known of where a tensor's cells sit."""
    return getattr(tensor, "place", None)


class _Follow(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.modules: list[str] = []

    @contextmanager
    def watching_modules(self) -> Iterator[None]:
        """Know the module that runs, to name operations by; and catch what a module computed out
        of sight (scripted or compiled code)."""
        hooks = nn.modules.module

        def enter(module: nn.Module, _args: Any) -> None:
            self.modules.append(type(module).__name__)

        def leave(_module: nn.Module, args: Any, output: Any) -> None:
            name = self.modules.pop()
            if any(state_of(a) for a in _tensors(args)):
                for tensor in _tensors(output):
                    if state_of(tensor) is None:
                        tensor.place = Lost(frozenset({name}))  # type: ignore[attr-defined]

        handles = [
            hooks.register_module_forward_pre_hook(enter),
            hooks.register_module_forward_hook(leave),
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def name(self, kind: str) -> str:
        """The innermost module that is not one of torch's own, and what it does."""
        own = [m for m in self.modules if not hasattr(nn, m)]
        return f"{own[-1]} ({kind})" if own else kind

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        before = [(t, state_of(t)) for t in _tensors((args, kwargs))]
        shapes = {id(t): tuple(t.shape) for t, _ in before}  # in-place operations may change them
        output = func(*args, **kwargs)
        states = [(t, s) for t, s in before if s is not None]
        results = _tensors(output)
        if not states or not results:
            return output
        op = getattr(func, "__name__", str(func)).strip("_")
        rule = RULES.get(op)
        if rule is not None:
            placed = rule(self, states[0][1], args, kwargs, output, shapes)
        elif op in ELEMENTWISE:
            placed = self.merge([(s, shapes[id(t)]) for t, s in states], tuple(results[0].shape))
        else:
            placed = self.lose(states, KINDS.get(op, op))
        for tensor, state in zip(results, _per_result(placed, len(results)), strict=True):
            tensor.place = state  # type: ignore[attr-defined]
        return output

    def lose(self, states: list[tuple[Tensor, State]], kind: str) -> Lost:
        """The positions end here, for this reason. What was lost before keeps its first reason,
        save that attention is worth naming when it is met."""
        why: set[str] = set()
        for _, state in states:
            if isinstance(state, Place):
                why |= state.whole | {self.name(kind)}
            else:
                why |= state.why or {self.name(kind)}
                if kind == "attention":
                    why.add(self.name(kind))
        return Lost(frozenset(why))

    def merge(self, states: list[tuple[State, tuple[int, ...]]], shape: tuple[int, ...]) -> State:
        """Element-wise on several tensors, broadcast to `shape`."""
        result: Place | None = None
        whole: frozenset[str] = frozenset()
        for state, own in states:
            if isinstance(state, Lost):
                whole |= state.why
                continue
            if len(own) < len(shape):
                dims = (None,) * (len(shape) - len(own)) + state.dims
                state = replace(state, dims=dims)
            if result is None:
                result = state
                continue
            agree = result.dims == state.dims and all(
                a.stride == b.stride for a, b in zip(result.axes, state.axes, strict=True)
            )
            if not agree:
                return Lost(result.whole | state.whole | {self.name("cells of two kinds")})
            result = Place(
                result.dims,
                (result.axes[0].merge(state.axes[0]), result.axes[1].merge(state.axes[1])),
                result.whole | state.whole,
            )
        if result is None:
            return Lost(whole)
        return replace(result, whole=result.whole | whole)


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = tuple(value.values())
    if isinstance(value, (list, tuple)):
        return [t for item in value for t in _tensors(item)]
    return []


def _per_result(placed: Any, count: int) -> list[State]:
    return placed if isinstance(placed, list) else [placed] * count


def _pair(value: Any) -> tuple[int, int]:
    if isinstance(value, (list, tuple)):
        return (int(value[0]), int(value[-1]))
    return (int(value), int(value))


def _argument(args: Any, kwargs: Any, position: int, name: str, default: Any = None) -> Any:
    if len(args) > position:
        return args[position]
    return kwargs.get(name, default)


Rule = Callable[[_Follow, State, Any, Any, Any, dict[int, tuple[int, ...]]], Any]


def _on_maps(apply: Callable[[Place, Any, Any], tuple[Axis, Axis] | None], kind: str) -> Rule:
    """A rule for an operation on (N, C, h, w) maps that changes the two axes."""

    def rule(follow: _Follow, state: State, args: Any, kwargs: Any, output: Any, _s: Any) -> State:
        tensor = _tensors(args)[0] if _tensors(args) else _tensors(kwargs)[0]
        if isinstance(state, Place) and state.dims == (None, None, (0, 1), (1, 1)):
            axes = apply(state, args, kwargs)
            if axes is not None:
                return replace(state, axes=axes)
        return follow.lose([(tensor, state)], kind)

    return rule


def _convolution(place: Place, args: Any, kwargs: Any) -> tuple[Axis, Axis] | None:
    weight = _argument(args, kwargs, 1, "weight")
    stride = _pair(_argument(args, kwargs, 3, "stride", 1))
    padding = _argument(args, kwargs, 4, "padding", 0)
    dilation = _pair(_argument(args, kwargs, 5, "dilation", 1))
    kernel = tuple(weight.shape[2:])
    if padding == "same":  # torch's own: only with stride 1, the odd cell of padding comes after
        before = tuple((k - 1) * d // 2 for k, d in zip(kernel, dilation, strict=True))
    else:
        before = (0, 0) if padding == "valid" else _pair(padding)
    rows, columns = (
        a.window(k, s, p, d)
        for a, k, s, p, d in zip(place.axes, kernel, stride, before, dilation, strict=True)
    )
    return rows, columns


def _transposed_convolution(place: Place, args: Any, kwargs: Any) -> tuple[Axis, Axis] | None:
    kernel = _argument(args, kwargs, 1, "weight").shape[2:]
    stride = _pair(_argument(args, kwargs, 3, "stride", 1))
    before = _pair(_argument(args, kwargs, 4, "padding", 0))
    dilation = _pair(_argument(args, kwargs, 7, "dilation", 1))
    rows, columns = (
        a.transposed(k, s, p, d)
        for a, k, s, p, d in zip(place.axes, kernel, stride, before, dilation, strict=True)
    )
    return rows, columns


def _pooling(dilated: bool) -> Callable[[Place, Any, Any], tuple[Axis, Axis] | None]:
    def apply(place: Place, args: Any, kwargs: Any) -> tuple[Axis, Axis] | None:
        kernel = _pair(_argument(args, kwargs, 1, "kernel_size"))
        stride = _pair(_argument(args, kwargs, 2, "stride") or kernel)
        before = _pair(_argument(args, kwargs, 3, "padding", 0))
        dilation = _pair(_argument(args, kwargs, 4, "dilation", 1) if dilated else 1)
        rows, columns = (
            a.window(k, s, p, d)
            for a, k, s, p, d in zip(place.axes, kernel, stride, before, dilation, strict=True)
        )
        return rows, columns

    return apply


def _interpolation(place: Place, args: Any, kwargs: Any) -> tuple[Axis, Axis] | None:
    tensor = _argument(args, kwargs, 0, "input")
    size = _argument(args, kwargs, 1, "size")
    factor = _argument(args, kwargs, 2, "scale_factor")
    mode = _argument(args, kwargs, 3, "mode", "nearest")
    if factor is None:
        factors = [out / own for out, own in zip(_pair(size), tensor.shape[2:], strict=True)]
    else:
        factors = list(factor) if isinstance(factor, (list, tuple)) else [factor, factor]
    known = mode in ("nearest", "nearest-exact", "bilinear")
    if not known or _argument(args, kwargs, 4, "align_corners") or any(f % 1 for f in factors):
        return None
    return (
        place.axes[0].split(factors[0], smooth=mode == "bilinear"),
        place.axes[1].split(factors[1], smooth=mode == "bilinear"),
    )


def _pixel_shuffle(place: Place, args: Any, kwargs: Any) -> tuple[Axis, Axis]:
    factor = _argument(args, kwargs, 1, "upscale_factor")
    return place.axes[0].split(factor), place.axes[1].split(factor)


def _pixel_unshuffle(place: Place, args: Any, kwargs: Any) -> tuple[Axis, Axis]:
    factor = _argument(args, kwargs, 1, "downscale_factor")
    return place.axes[0].window(factor, factor), place.axes[1].window(factor, factor)


def _padding(
    follow: _Follow, state: State, args: Any, kwargs: Any, output: Any, shapes: Any
) -> State:
    if not isinstance(state, Place):
        return state
    amounts = list(_argument(args, kwargs, 1, "pad"))
    axes = list(state.axes)
    for position, before in enumerate(amounts[0::2]):
        dim = state.dims[-1 - position]
        if isinstance(dim, Tokens):
            return follow.lose([(_tensors(args)[0], state)], "padded tokens")
        if dim:
            axes[dim[0]] = axes[dim[0]].shifted(-before * dim[1])
    return replace(state, axes=(axes[0], axes[1]))


def _reduction(
    follow: _Follow, state: State, args: Any, kwargs: Any, output: Any, shapes: Any
) -> Any:
    tensor = _tensors(args)[0]
    if isinstance(state, Lost):
        return state
    dims = _argument(args, kwargs, 1, "dim")
    if dims is None:
        return follow.lose([(tensor, state)], "global pooling")
    chosen = {d % tensor.ndim for d in (dims if isinstance(dims, (list, tuple)) else [dims])}
    if any(state.dims[d] for d in chosen):
        return follow.lose([(tensor, state)], "global pooling")
    if _tensors(output)[0].ndim == tensor.ndim:
        return state
    return replace(state, dims=tuple(d for i, d in enumerate(state.dims) if i not in chosen))


def _softmax(
    follow: _Follow, state: State, args: Any, kwargs: Any, output: Any, shapes: Any
) -> State:
    dim = _argument(args, kwargs, 1, "dim", -1)
    if isinstance(state, Place) and state.dims[dim] is None:
        return state
    return follow.lose([(_tensors(args)[0], state)], "attention")


def _normalise_last(follow: _Follow, state: State, args: Any, kwargs: Any, *_: Any) -> State:
    if isinstance(state, Lost):
        return state
    count = len(_argument(args, kwargs, 1, "normalized_shape"))
    if any(state.dims[-count:]):
        return replace(state, whole=state.whole | {follow.name("normalisation over the picture")})
    return state


def _normalise_all(follow: _Follow, state: State, args: Any, kwargs: Any, *_: Any) -> State:
    if isinstance(state, Lost):
        return state
    return replace(state, whole=state.whole | {follow.name("normalisation over the picture")})


def _linear(follow: _Follow, state: State, args: Any, kwargs: Any, *_: Any) -> State:
    if isinstance(state, Place) and state.dims[-1] is None:
        return state
    return follow.lose([(_tensors(args)[0], state)], "fully connected")


def _concatenation(
    follow: _Follow, state: State, args: Any, kwargs: Any, output: Any, s: Any
) -> State:
    parts = [(st, tuple(output.shape)) for t in _tensors(args) if (st := state_of(t)) is not None]
    dim = _argument(args, kwargs, 1, "dim", 0)
    merged = follow.merge(parts, tuple(output.shape))
    if not isinstance(merged, Place) or merged.dims[dim] is None:
        return merged
    tokens, last = merged.dims[dim], _tensors(args)[-1]
    if isinstance(tokens, Tokens) and len(parts) == 1 and state_of(last) is not None:
        more = replace(tokens, prefix=tokens.prefix + output.shape[dim] - last.shape[dim])
        dims = list(merged.dims)
        dims[dim] = more
        return replace(merged, dims=tuple(dims))
    return follow.lose([(output, merged)], "concatenation along the picture")


def _permutation(
    follow: _Follow, state: State, args: Any, kwargs: Any, output: Any, s: Any
) -> State:
    if isinstance(state, Lost):
        return state
    order = kwargs.get("dims", args[1] if len(args) == 2 else args[1:])
    return replace(state, dims=tuple(state.dims[d] for d in order))


def _transposition(follow: _Follow, state: State, args: Any, kwargs: Any, *_: Any) -> State:
    if isinstance(state, Lost):
        return state
    dims = list(state.dims)
    first, second = _argument(args, kwargs, 1, "dim0"), _argument(args, kwargs, 2, "dim1")
    dims[first], dims[second] = dims[second], dims[first]
    return replace(state, dims=tuple(dims))


def _pieces(follow: _Follow, state: State, args: Any, kwargs: Any, output: Any, s: Any) -> Any:
    tensor = _tensors(args)[0]
    removed = output[0].ndim < tensor.ndim
    dim = _argument(args, kwargs, 1 if removed else 2, "dim", 0) % tensor.ndim
    if isinstance(state, Lost):
        return state
    if state.dims[dim] is not None:
        return follow.lose([(tensor, state)], "slices of the picture")
    dims = tuple(d for i, d in enumerate(state.dims) if not (removed and i == dim))
    return replace(state, dims=dims)


def _index(follow: _Follow, state: State, args: Any, kwargs: Any, output: Any, s: Any) -> State:
    tensor, index = args[0], args[1] if isinstance(args[1], tuple) else (args[1],)
    if isinstance(state, Lost):
        return state
    if any(isinstance(i, (Tensor, list)) for i in index):
        return follow.lose([(tensor, state)], "indexing")
    missing = tensor.ndim - sum(i is not None and i is not Ellipsis for i in index)
    full: list[Any] = []
    for item in index:
        full.extend([slice(None)] * missing if item is Ellipsis else [item])
    full.extend([slice(None)] * (tensor.ndim - sum(i is not None for i in full)))
    dims: list[Dim | None] = []
    axes = list(state.axes)
    position = 0
    for item in full:
        if item is None:
            dims.append(None)
            continue
        tag, size = state.dims[position], tensor.shape[position]
        position += 1
        if isinstance(item, slice):
            start, stop, step = item.indices(size)
            if isinstance(tag, Tokens) and (start, stop, step) != (0, size, 1):
                if stop != size or step != 1 or start > tag.prefix:
                    return follow.lose([(tensor, state)], "some of the tokens")
                tag = replace(tag, prefix=tag.prefix - start)
            elif isinstance(tag, tuple):
                axes[tag[0]] = axes[tag[0]].shifted(start * tag[1])
                tag = (tag[0], tag[1] * step)
            dims.append(tag)
        elif tag:
            return follow.lose([(tensor, state)], "one row of the picture")
    return Place(tuple(dims), (axes[0], axes[1]), state.whole).tidy()


def _reshaping(
    follow: _Follow, state: State, args: Any, kwargs: Any, output: Any, shapes: Any
) -> State:
    if isinstance(state, Lost):
        return state
    tensor = args[0]
    placed = reshaped(state, shapes[id(tensor)], tuple(output.shape))
    return placed or follow.lose([(tensor, state)], "positions rearranged")


def reshaped(place: Place, before: tuple[int, ...], after: tuple[int, ...]) -> Place | None:
    """The place after a view from one shape to another; None where it cannot be told. Splitting a
    dimension gives a main one and a phase; phases may join the channels (space to depth, patch
    merging); rows and columns viewed as one become tokens, and tokens come apart again."""
    entries: list[tuple[Step | None, int]] = []  # of the input, tokens taken apart, ones left out
    for dim, size in zip(place.dims, before, strict=True):
        if isinstance(dim, Tokens):
            if dim.prefix:
                return None if before != after else place
            entries.extend(dim.parts)
        elif size != 1 or dim is not None:
            entries.append((dim, size))
    entries.reverse()
    tags: list[Dim | None] = []
    absorbed: list[tuple[Step, int]] = []
    for want in reversed(after):  # from the innermost dimension outwards
        have, taken = 1, []
        while entries and have < want:
            tag, size = entries.pop(0)
            if have * size > want:  # split: the inner part is taken here, the outer one waits
                if want % have or (have * size) % want:
                    return None
                inner = want // have
                outer = None if tag is None else (tag[0], tag[1] * inner)
                entries.insert(0, (outer, size // inner))
                size = inner
            taken.append((tag, size))
            have *= size
        if have != want:
            return None
        tag_of_all, phases = _viewed_as_one(taken[::-1])
        tags.append(tag_of_all)
        absorbed.extend(phases)
    for tag, _size in entries:  # what is left has size one
        if tag is not None:
            return None
    result = replace(place, dims=tuple(reversed(tags))).absorbed(absorbed)
    return result.tidy() if result else None


def _viewed_as_one(
    taken: list[tuple[Step | None, int]],
) -> tuple[Dim | None, list[tuple[Step, int]]]:
    """The tag of several dimensions (outermost first) viewed as one, and the phases that it takes
    into the channels."""
    parts: list[tuple[Step, int]] = []
    for tag, size in taken:
        if tag is None:
            if size == 1:
                continue
            return None, [(t, n) for t, n in taken if t is not None]
        if parts and parts[-1][0] == (tag[0], tag[1] * size):  # a main dimension and its phase
            parts[-1] = (tag, parts[-1][1] * size)
        else:
            parts.append((tag, size))
    if len(parts) > 1:
        return Tokens(tuple(parts)), []
    return (parts[0][0] if parts else None), []


def _adaptive_pooling(follow: _Follow, state: State, args: Any, *_: Any) -> State:
    return follow.lose([(args[0], state)], "global pooling")


def _new_dimension(
    follow: _Follow, state: State, args: Any, kwargs: Any, output: Any, s: Any
) -> State:
    if isinstance(state, Lost):
        return state
    dim = _argument(args, kwargs, 1, "dim") % output.ndim
    return replace(state, dims=(*state.dims[:dim], None, *state.dims[dim:]))


def _fewer_dimensions(
    follow: _Follow, state: State, args: Any, kwargs: Any, out: Any, s: Any
) -> State:
    if isinstance(state, Lost):
        return state
    shape = s[id(args[0])]
    dim = _argument(args, kwargs, 1, "dim")
    chosen = [d for d, n in enumerate(shape) if n == 1] if dim is None else [dim % len(shape)]
    if any(state.dims[d] for d in chosen):
        return follow.lose([(args[0], state)], "one row of the picture")
    return replace(state, dims=tuple(d for i, d in enumerate(state.dims) if i not in chosen))


def _attention(follow: _Follow, state: State, args: Any, *_: Any) -> State:
    return follow.lose([(t, s) for t in _tensors(args) if (s := state_of(t))], "attention")


RULES: dict[str, Rule] = {
    **dict.fromkeys(["conv2d", "convolution"], _on_maps(_convolution, "convolution of positions")),
    "conv_transpose2d": _on_maps(_transposed_convolution, "convolution of positions"),
    **dict.fromkeys(
        ["max_pool2d", "max_pool2d_with_indices", "boolean_dispatch", "fn"],
        _on_maps(_pooling(dilated=True), "pooling of positions"),
    ),
    **dict.fromkeys(["avg_pool2d"], _on_maps(_pooling(dilated=False), "pooling of positions")),
    **dict.fromkeys(["interpolate", "upsample"], _on_maps(_interpolation, "resizing")),
    "pixel_shuffle": _on_maps(_pixel_shuffle, "pixel shuffle"),
    "pixel_unshuffle": _on_maps(_pixel_unshuffle, "pixel unshuffle"),
    "pad": _padding,
    **dict.fromkeys(["adaptive_avg_pool2d", "adaptive_max_pool2d"], _adaptive_pooling),
    **dict.fromkeys(
        ["mean", "sum", "amax", "amin", "max", "min", "var", "std", "norm"], _reduction
    ),
    **dict.fromkeys(["softmax", "log_softmax"], _softmax),
    **dict.fromkeys(["layer_norm", "rms_norm"], _normalise_last),
    **dict.fromkeys(["group_norm", "instance_norm"], _normalise_all),
    "linear": _linear,
    **dict.fromkeys(["cat", "concat", "concatenate"], _concatenation),
    "permute": _permutation,
    **dict.fromkeys(["transpose", "swapaxes"], _transposition),
    **dict.fromkeys(["chunk", "split", "unbind", "tensor_split"], _pieces),
    "getitem": _index,
    **dict.fromkeys(["view", "reshape", "flatten", "unflatten"], _reshaping),
    "unsqueeze": _new_dimension,
    "squeeze": _fewer_dimensions,
    **dict.fromkeys(
        ["scaled_dot_product_attention", "matmul", "bmm", "baddbmm", "einsum"], _attention
    ),
}

KINDS = {"roll": "positions rolled", "native_group_norm": "normalisation over the picture"}

ELEMENTWISE = frozenset(
    [
        "add",
        "iadd",
        "radd",
        "sub",
        "isub",
        "rsub",
        "mul",
        "imul",
        "rmul",
        "div",
        "truediv",
        "itruediv",
        "rtruediv",
        "pow",
        "sqrt",
        "rsqrt",
        "square",
        "exp",
        "log",
        "abs",
        "neg",
        "sign",
        "clamp",
        "clamp_min",
        "clamp_max",
        "minimum",
        "maximum",
        "where",
        "reciprocal",
        "erf",
        "lerp",
        "addcmul",
        "relu",
        "relu6",
        "relu_",
        "gelu",
        "silu",
        "hardswish",
        "hardsigmoid",
        "hardtanh",
        "sigmoid",
        "logsigmoid",
        "tanh",
        "softplus",
        "softsign",
        "mish",
        "elu",
        "leaky_relu",
        "prelu",
        "selu",
        "celu",
        "threshold",
        "dropout",
        "dropout2d",
        "feature_dropout",
        "alpha_dropout",
        "bernoulli",
        "batch_norm",
        "local_response_norm",
        "contiguous",
        "to",
        "type",
        "type_as",
        "float",
        "half",
        "bfloat16",
        "double",
        "cpu",
        "cuda",
        "clone",
        "detach",
        "requires_grad",
        "copy",
        "expand_as",
        "nan_to_num",
        "fill",
        "channel_shuffle",
    ]
)
