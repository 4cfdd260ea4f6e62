"""The meaning of each value in the mask files: from the class table, or as a proposal if there is
none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fullconv.core.i18n import Message, join, msg, nmsg
from fullconv.core.labels import IGNORE, RGB, Labels, format_color
from fullconv.core.text import LIST_LIMIT, percent
from fullconv.data.check.finding import share_text
from fullconv.data.check.scan import DatasetScan
from fullconv.data.io.mask_values import Value, format_value
from fullconv.data.layouts.class_table import UndeterminedLabels
from fullconv.data.layouts.mask_value_kinds import (
    is_black_and_white,
    is_blurred,
    kinds_disagree,
    nominal_colors,
    otsu_threshold,
    proposed_gray_names,
)

_MAX_ROWS = 24
_MIN_SHARE = 0.001  # of the pixels, in a table with more than `LIST_LIMIT` rows
_MAX_MEANINGS = 256


@dataclass(frozen=True)
class Meaning:
    """The meaning of one value."""

    value: Value  # in the mask files
    color: RGB | None  # of its class, or of the proposed class; None if it has no class
    share: float  # of all pixels of all masks, 0-1
    name: str  # of its class, "ignore", or "" if it has no class
    proposed: bool = False  # the user has to paste the class first; nothing is trained before that

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON object; colors as "#rrggbb"."""
        return {
            "value": self.value if isinstance(self.value, int) else format_color(self.value),
            "color": format_color(self.color) if self.color else None,
            "share": self.share,
            "class": self.name,
            "proposed": self.proposed,
        }


def meanings(scan: DatasetScan) -> tuple[Meaning, ...]:
    """Return the meanings of the values, most frequent first; () if every value is the id of its
    class and nothing else needs to be listed."""
    labels, total = scan.dataset.labels, max(1, scan.pixels)
    common = scan.values.most_common(_MAX_MEANINGS)
    if isinstance(labels, UndeterminedLabels):
        names = _proposed_names(scan, labels)
        proposed_colors = dict(zip(labels.proposed, Labels(labels.proposed).colors, strict=True))
        colors = {v: v if isinstance(v, tuple) else (v, v, v) for v, _ in common if v in names}
        colors |= {v: proposed_colors[n] for v, n in names.items() if n in proposed_colors}
        return tuple(
            Meaning(v, colors.get(v), n / total, names.get(v, ""), v in names) for v, n in common
        )
    if scan.dataset.named and not labels.values and not scan.unknown:
        return ()
    rows = []
    for value, count in common:
        class_id = None if value in scan.unknown else labels.class_of(value)
        color, name = value if isinstance(value, tuple) else None, ""
        if class_id == labels.ignore_index:
            name = IGNORE
        elif class_id is not None:
            color, name = labels.colors[class_id], labels.names[class_id]
        rows.append(Meaning(value, color, count / total, name))
    return tuple(rows)


def value_table(rows: Sequence[Meaning]) -> Message:
    """Return a text table of the most frequent values; "" for none."""
    if not rows:
        return join([])
    listed = rows
    if len(rows) > LIST_LIMIT:
        listed = [row for row in rows if row.share > _MIN_SHARE][:_MAX_ROWS]
    lines: list[str] = [msg("    value  color      pixels  class")]  # columns as in `_line`
    for row in listed:
        color = format_color(row.color) if row.color else ""
        name = row.name or msg("(no class)")
        if row.proposed:
            name = msg("{name} (proposed)", name=name)
        lines.append(_line(format_value(row.value), color, share_text(row.share), name))
    if hidden := len(rows) - len(listed):
        more = nmsg(
            "{count} more value, in {share} of the pixels",
            "{count} more values, each in {share} of the pixels or less",
            count=hidden,
            share=percent(rows[len(listed)].share, 2),
        )
        lines.append(_line("...", "", "", more))
    return join(lines)


def _line(value: str, color: str, share: str, name: str) -> Message:
    columns = {"value": value, "color": color, "share": share, "name": name}
    return Message("{value:>9}  {color:7}  {share:>8}  {name}", columns)


def _proposed_names(scan: DatasetScan, labels: UndeterminedLabels) -> dict[Value, str]:
    """Return value -> the class that `check` proposes for it."""
    values = scan.values
    if any(isinstance(value, tuple) for value in values):
        ids = {color: k for k, color in enumerate(nominal_colors(values))}
        as_colors = {v: v if isinstance(v, tuple) else (v, v, v) for v in values}
        return {v: f"class {ids[color]}" for v, color in as_colors.items() if color in ids}
    if not (is_black_and_white(values) or is_blurred(values)):
        listable = len(values) <= LIST_LIMIT and not kinds_disagree(scan.kinds)
        return proposed_gray_names(values) if listable else {}  # type: ignore[arg-type]
    threshold = otsu_threshold(values)
    black, white = labels.proposed
    return {v: white if v > threshold else black for v in values}  # type: ignore[operator]
