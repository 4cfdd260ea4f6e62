"""What is known of a tensor: where its cells sit, along which dimensions, and what was mixed in.

- `SpatialLayout`: which tensor dimensions run along the rows and columns of the image, and the `Axis` of
  each.
- `Untracked`: depends on the image, but the positions were mixed (global pooling, attention), or an
  operation is not known. Added to, or multiplied with, a placed tensor, the place survives and the
  operation is named: squeeze-excite and attention keep the cells but see the whole image.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Axis:
    """One axis of a feature map, in pixels: cell i sits at `offset + stride * i` and sees the
    pixels from `low + stride * i` to `high + stride * i`."""

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
        before, after = self.stride - fine, 0.0
        if smooth:  # the cell before sits closer to the first half of the fine ones
            uneven = fine / 2 * (factor % 2)
            before, after = 1.5 * self.stride - fine - uneven, self.stride / 2 - uneven
        return Axis(
            fine,
            self.offset - (self.stride - fine) / 2,
            self.low - before,
            self.high + after,
        )

    def merge(self, *others: Axis) -> Axis:
        """All seen by one cell. The path that localises best says where the cell sits (the
        identity of a residual block, not its branch); equal ones meet in the middle."""
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
Step = tuple[int, int]


@dataclass(frozen=True)
class Tokens:
    """A tensor dimension that runs over rows and columns together, after `prefix` entries of
    another kind (class tokens): the steps and sizes that were woven into it, outermost first."""

    parts: tuple[tuple[Step, int], ...]
    prefix: int = 0


Dim = Step | Tokens


@dataclass(frozen=True)
class SpatialLayout:
    """Where the cells of one tensor sit: a tag per tensor dimension (None: not along the image),
    the two axes, and the operations on the way that saw the whole image."""

    dims: tuple[Dim | None, ...]
    axes: tuple[Axis, Axis]
    whole: frozenset[str] = frozenset()

    def absorbed(self, tags: list[tuple[Step, int]]) -> SpatialLayout | None:
        """Phase dimensions (tag, size) become channels: their cells are seen together. None where
        that would use up a main dimension."""
        axes = list(self.axes)
        for (axis, step), size in tags:
            steps = [d[1] for d in self.dims if isinstance(d, tuple) and d[0] == axis]
            if step >= max(steps, default=0):
                return None
            axes[axis] = axes[axis].window(kernel=size, dilation=step)
        return replace(self, axes=(axes[0], axes[1]))

    def tidy(self) -> SpatialLayout:
        """With steps of one where only one dimension is left on an axis."""
        dims, axes = list(self.dims), list(self.axes)
        for axis in (0, 1):
            tagged = [(i, d) for i, d in enumerate(dims) if isinstance(d, tuple) and d[0] == axis]
            woven = any(isinstance(d, Tokens) for d in dims)
            if len(tagged) == 1 and not woven and tagged[0][1][1] != 1:
                axes[axis] = axes[axis].every(tagged[0][1][1])
                dims[tagged[0][0]] = (axis, 1)
        return SpatialLayout(tuple(dims), (axes[0], axes[1]), self.whole)


@dataclass(frozen=True)
class Untracked:
    """Depends on the image, at no known place."""

    why: frozenset[str] = frozenset()


State = SpatialLayout | Untracked


def layout_of(tensor: Any) -> State | None:
    """What is known of a tensor; None where it does not depend on the image."""
    return getattr(tensor, "place", None)


def merged(states: list[tuple[State, int]], ndim: int, unlike: str) -> State:
    """Element-wise on several tensors (state, number of dimensions), broadcast to `ndim`
    dimensions. `unlike` names the operation, should their cells not match."""
    places: list[SpatialLayout] = []
    whole: frozenset[str] = frozenset()
    for state, own in states:
        whole |= state.why if isinstance(state, Untracked) else state.whole
        if isinstance(state, SpatialLayout):
            places.append(replace(state, dims=(None,) * (ndim - own) + state.dims))
    if not places:
        return Untracked(whole)
    kinds = {(place.dims, *(axis.stride for axis in place.axes)) for place in places}
    if len(kinds) > 1:
        return Untracked(whole | {unlike})
    rows, columns = (places[0].axes[i].merge(*(p.axes[i] for p in places[1:])) for i in (0, 1))
    return SpatialLayout(places[0].dims, (rows, columns), whole)


def reshaped(
    place: SpatialLayout, before: tuple[int, ...], after: tuple[int, ...]
) -> SpatialLayout | None:
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
