"""The layout of a tensor: which dimensions run along the image, and where its cells sit.

- `SpatialLayout`: the dimensions that run along the rows and columns of the image, and the `Axis`
  of each.
- `Untracked`: the tensor depends on the image, but its positions were mixed (global pooling,
  attention), or an operation is unknown. If such a tensor is added to or multiplied with one that
  has a layout, the layout survives and names the operation: squeeze-excite and attention keep the
  cells in place, but make them see the whole image.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Axis:
    """One axis of a feature map, in pixels. Cell i has the center `offset + stride * i` and sees
    the pixels from `low + stride * i` to `high + stride * i`.

    >>> Axis().window(kernel=3, stride=2, before=1)
    Axis(stride=2.0, offset=0.0, low=-1.0, high=1.0)
    """

    stride: float = 1.0
    offset: float = 0.0
    low: float = 0.0
    high: float = 0.0

    def window(self, kernel: int, stride: int = 1, before: int = 0, dilation: int = 1) -> Axis:
        """Return the axis after a convolution or pooling with `before` cells of padding."""
        reach = (kernel - 1) * dilation
        return Axis(
            self.stride * stride,
            self.offset + self.stride * (reach / 2 - before),
            self.low - self.stride * before,
            self.high + self.stride * (reach - before),
        )

    def transposed(self, kernel: int, stride: int, before: int, dilation: int) -> Axis:
        """Return the axis after a transposed convolution with `padding=before`."""
        reach = (kernel - 1) * dilation
        fine = self.stride / stride
        return Axis(
            fine,
            self.offset + fine * (before - reach / 2),
            self.low + fine * (before - reach),
            self.high + fine * before,
        )

    def shifted(self, cells: float) -> Axis:
        """Return the axis whose cell 0 is at the place of cell `cells`."""
        step = self.stride * cells
        return replace(self, offset=self.offset + step, low=self.low + step, high=self.high + step)

    def upsampled(self, factor: float, *, smooth: bool = False) -> Axis:
        """Return the axis after nearest or bilinear (`smooth`) upsampling or a pixel shuffle."""
        fine = self.stride / factor
        before, after = self.stride - fine, 0.0
        if smooth:  # the cell before is closer to the first half of the fine cells
            uneven = fine / 2 * (factor % 2)
            before, after = 1.5 * self.stride - fine - uneven, self.stride / 2 - uneven
        return Axis(
            fine, self.offset - (self.stride - fine) / 2, self.low - before, self.high + after
        )

    def merge(self, *others: Axis) -> Axis:
        """Return the axis of cells that see what the cells of all axes see. The path with the
        narrowest view sets the position (the identity of a residual block, not its branch); equally
        narrow ones meet in the middle."""
        paths = (self, *others)
        narrowest = min(path.high - path.low for path in paths)
        offsets = [path.offset for path in paths if path.high - path.low == narrowest]
        return Axis(
            self.stride,
            sum(offsets) / len(offsets),
            min(path.low for path in paths),
            max(path.high for path in paths),
        )


# A tensor dimension that runs along the image: (0 for rows | 1 for columns, cells per step).
# Of two dimensions on one axis, the one with more cells per step is the main dimension and the
# other is its phase.
Step = tuple[int, int]


@dataclass(frozen=True)
class Tokens:
    """A tensor dimension that runs over rows and columns together."""

    parts: tuple[tuple[Step, int], ...]  # the steps and sizes flattened into it, outermost first
    prefix: int = 0  # entries of another kind before them (class tokens)


Dim = Step | Tokens


@dataclass(frozen=True)
class SpatialLayout:
    """The layout of a tensor that runs along the image."""

    dims: tuple[Dim | None, ...]  # of each dimension; None if it does not run along the image
    axes: tuple[Axis, Axis]  # of the rows and of the columns
    whole: frozenset[str] = frozenset()  # the operations so far that saw the whole image

    def absorb(self, phases: list[tuple[Step, int]]) -> SpatialLayout | None:
        """Return the layout after phases (tag, size) became channels, so that their cells are seen
        together; None if that would use up a main dimension."""
        axes = list(self.axes)
        for (axis, step), size in phases:
            steps = [d[1] for d in self.dims if isinstance(d, tuple) and d[0] == axis]
            if step >= max(steps, default=0):
                return None
            axes[axis] = axes[axis].window(kernel=size, dilation=step)
        return replace(self, axes=(axes[0], axes[1]))

    def simplified(self) -> SpatialLayout:
        """Return the layout with a step of 1 for the only dimension on an axis."""
        dims, axes = list(self.dims), list(self.axes)
        for axis in (0, 1):
            tagged = [(i, d) for i, d in enumerate(dims) if isinstance(d, tuple) and d[0] == axis]
            flattened = any(isinstance(d, Tokens) for d in dims)
            if len(tagged) == 1 and not flattened:
                ((i, (_, step)),) = tagged
                axes[axis] = replace(axes[axis], stride=axes[axis].stride * step)
                dims[i] = (axis, 1)
        return SpatialLayout(tuple(dims), (axes[0], axes[1]), self.whole)


@dataclass(frozen=True)
class Untracked:
    """The state of a tensor that depends on the image at no known position."""

    reasons: frozenset[str] = frozenset()  # the operations that lost the positions


State = SpatialLayout | Untracked


def layout_of(tensor: Any) -> State | None:
    """Return the state of a traced tensor; None if the tensor does not depend on the image."""
    return getattr(tensor, "spatial_layout", None)


def merge_layouts(states: list[tuple[State, int]], ndim: int, mismatch: str) -> State:
    """Return the state after an element-wise operation on several tensors: their states, each with
    its number of dimensions, broadcast to `ndim`. `mismatch` names the operation for the case that
    their cells do not match."""
    layouts: list[SpatialLayout] = []
    whole: frozenset[str] = frozenset()
    for state, rank in states:
        whole |= state.reasons if isinstance(state, Untracked) else state.whole
        if isinstance(state, SpatialLayout):
            layouts.append(replace(state, dims=(None,) * (ndim - rank) + state.dims))
    if not layouts:
        return Untracked(whole)
    kinds = {(layout.dims, *(axis.stride for axis in layout.axes)) for layout in layouts}
    if len(kinds) > 1:
        return Untracked(whole | {mismatch})
    rows, columns = (layouts[0].axes[i].merge(*(k.axes[i] for k in layouts[1:])) for i in (0, 1))
    return SpatialLayout(layouts[0].dims, (rows, columns), whole)


def reshape_layout(
    layout: SpatialLayout, before: tuple[int, ...], after: tuple[int, ...]
) -> SpatialLayout | None:
    """Return the layout after a view from one shape to another; None if it cannot be determined.

    Splitting a dimension gives a main dimension and a phase; phases may join the channels (space
    to depth, patch merging); rows and columns that are flattened together become tokens, and
    tokens can be split again.
    """
    # List the input's dimensions with tokens split and plain dimensions of size one left out.
    entries: list[tuple[Step | None, int]] = []
    for dim, size in zip(layout.dims, before, strict=True):
        if isinstance(dim, Tokens):
            if dim.prefix:
                return None if before != after else layout
            entries.extend(dim.parts)
        elif size != 1 or dim is not None:
            entries.append((dim, size))
    entries.reverse()

    # Fill the output's dimensions from the innermost outward.
    tags: list[Dim | None] = []
    absorbed: list[tuple[Step, int]] = []
    for target in reversed(after):
        filled, taken = 1, []
        while entries and filled < target:
            tag, size = entries.pop(0)
            if filled * size > target:  # split: take the inner part here, keep the outer part
                if target % filled or (filled * size) % target:
                    return None
                inner = target // filled
                outer = None if tag is None else (tag[0], tag[1] * inner)
                entries.insert(0, (outer, size // inner))
                size = inner
            taken.append((tag, size))
            filled *= size
        if filled != target:
            return None
        combined, phases = _combine(taken[::-1])
        tags.append(combined)
        absorbed.extend(phases)
    if any(tag is not None for tag, _size in entries):  # the rest has size one
        return None
    result = replace(layout, dims=tuple(reversed(tags))).absorb(absorbed)
    return result.simplified() if result else None


def _combine(taken: list[tuple[Step | None, int]]) -> tuple[Dim | None, list[tuple[Step, int]]]:
    """Return the tag of dimensions (outermost first) viewed as one, and the phases in them."""
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
