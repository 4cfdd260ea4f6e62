"""Kinds of masks by their values alone: black and white, blurred, or drawn in a few colors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import combinations
from typing import Any

import numpy as np

from fullconv.core.labels import RGB, voc_color

_MAX_NOMINAL = 64
_NEARLY_WHITE = range(240, 255)
_STRAY = 0.001  # share of the pixels of a black and white mask that may be strays
_SMALL_IDS = 32  # ids up to this may have any gaps
_MIN_SHARE = 0.0003  # share of the pixels that a nominal color has at least
_ROUNDING = 8  # distance of a blended color from the line between its two colors


def is_black_and_white(values: Iterable[Any]) -> bool:
    """Return True if the values are 0 and 255, or 255 alone."""
    distinct = set(values)
    return 255 in distinct and distinct <= {0, 255}


def white_kind(counts: Mapping[Any, int]) -> str:
    """Return how a mask uses 255: "white" (with 0 and a few strays), "both" (with ids), "ids" (not
    at all, but ids above 0), or "" for anything else. `counts` has the pixels of each value."""
    distinct = set(counts)
    if any(isinstance(value, tuple) for value in distinct):
        return ""
    if is_black_and_white(distinct):
        return "white"
    if 255 in distinct:
        strays = sum(count for value, count in counts.items() if value not in (0, 255))
        return "white" if strays < _STRAY * sum(counts.values()) else "both"
    return "ids" if distinct - {0} else ""


def kinds_disagree(kinds: Mapping[str, int]) -> bool:
    """Return whether 255 can be both a class and the ignored value: some masks have 0 and 255
    alone, others have ids, and none has both.

    `kinds` has the number of masks of each `white_kind`. A few white masks (less than a tenth) are
    images with ignored pixels only.
    """
    white = kinds.get("white", 0)
    none_both = not kinds.get("both", 0) and kinds.get("ids", 0)
    return bool(none_both and 10 * white >= sum(kinds.values()))


def is_nearly_black_and_white(values: Iterable[Any]) -> bool:
    """Return True if the values are 0, 255 and some just below 255: strays, or blurred borders."""
    distinct = set(values)
    return 255 in distinct and all(value in (0, *_NEARLY_WHITE, 255) for value in distinct)


def proposed_gray_names(values: Iterable[int]) -> dict[Any, str]:
    """Return a class name for each gray level: "class 0", "class 1" ...; of nearly black and white
    masks "background" and "object"."""
    levels = sorted(values)
    if is_nearly_black_and_white(levels):
        return {level: "object" if level else "background" for level in levels}
    return {level: f"class {k}" for k, level in enumerate(levels)}


def has_gaps(values: Iterable[Any]) -> bool:
    """Return True if the values are a few numbers far apart, such as the grays 0, 128 and 255: they
    are no class ids, which are 0, 1, 2 ..."""
    distinct = set(values)
    if any(isinstance(value, tuple) for value in distinct):
        return False
    last = max((value for value in distinct if value not in (255, 65535)), default=0)
    return last > _SMALL_IDS and last > 4 * len(distinct)


def is_blurred(counts: Mapping[Any, int]) -> bool:
    """Return True if the values look like a black and white mask with blurred borders: 0 and 255
    cover most pixels, and the rest is spread over the grays between them."""
    if any(isinstance(value, tuple) for value in counts) or not {0, 255} <= set(counts):
        return False
    # Class ids beside an ignored 255 are small numbers.
    between = [value for value in counts if 0 < value < 255]
    spread = len(between) >= 8 and max(between) > 200 and min(between) < 55
    return spread and counts[0] + counts[255] >= 0.8 * sum(counts.values())


def otsu_threshold(counts: Mapping[Any, int]) -> float:
    """Return the threshold that splits gray levels with the least variance inside both groups.

    N. Otsu, "A threshold selection method from gray-level histograms", 1979; halfway between the
    two levels on either side.

    >>> otsu_threshold({0: 90, 10: 5, 250: 5, 255: 40})
    130.0
    """
    levels = np.array(sorted(counts), np.float64)
    weight = np.array([counts[int(level)] for level in levels], np.float64)
    if len(levels) < 2:
        return 127.5
    below = np.cumsum(weight)[:-1]
    above = weight.sum() - below
    sums = np.cumsum(weight * levels)
    between = below * above * (sums[:-1] / below - (sums[-1] - sums[:-1]) / above) ** 2
    best = np.flatnonzero(between >= between.max() * (1 - 1e-12))
    return float((levels[best[0]] + levels[best[-1] + 1]) / 2)


def nominal_colors(counts: Mapping[Any, int]) -> tuple[RGB, ...]:
    """Return the colors that masks with blended borders were drawn in.

    These are the colors that cover more than `_MIN_SHARE` of the pixels and are no blend of two
    more common ones. Black first, then in the order of the VOC palette.

    >>> nominal_colors({(0, 0, 0): 900, (128, 0, 0): 500, (64, 0, 0): 9, (90, 2, 0): 8})
    ((0, 0, 0), (128, 0, 0))
    """
    colors = {v if isinstance(v, tuple) else (v, v, v): n for v, n in counts.items()}
    minimum = _MIN_SHARE * sum(colors.values())
    nominal: list[RGB] = []
    for color in sorted(colors, key=lambda color: -colors[color]):
        if colors[color] < minimum or len(nominal) == _MAX_NOMINAL:
            break
        if not any(_is_blend(color, first, second) for first, second in combinations(nominal, 2)):
            nominal.append(color)
    order = {voc_color(k): k for k in range(256)}
    return tuple(sorted(nominal, key=lambda color: (order.get(color, 256), color)))


def _is_blend(color: RGB, first: RGB, second: RGB) -> bool:
    """Return True if a color is on the line between two others, up to rounding."""
    line = [b - a for a, b in zip(first, second, strict=True)]
    offset = [c - a for a, c in zip(first, color, strict=True)]
    length = sum(x * x for x in line)
    along = sum(x * y for x, y in zip(line, offset, strict=True)) / length
    distance = sum((y - along * x) ** 2 for x, y in zip(line, offset, strict=True))
    return 0 <= along <= 1 and distance <= _ROUNDING**2
