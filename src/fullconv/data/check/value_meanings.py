"""Meanings: what the values in the mask files stand for, as the class table says, or as proposed
where it says nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fullconv.core.labels import IGNORE, RGB, Labels, format_color
from fullconv.data.check.finding import percent
from fullconv.data.check.scan import DatasetScan
from fullconv.data.io.masks import Value
from fullconv.data.layouts import class_table as tables

_LISTED = 24  # rows of the table
_KEPT = 256


@dataclass(frozen=True)
class Meaning:
    """What one value stands for.

    Args:
        value: in the mask files.
        color: it is drawn in, where it is a proposal that of the class that is proposed; None where
            no class has been given to it.
        share: of all pixels of all masks, 0-1.
        name: of the class, "ignore", or "" where it has none.
        proposed: whether that is a proposal, which `check` gives as lines to paste; nothing is
            trained before they are.
    """

    value: Value
    color: RGB | None
    share: float
    name: str
    proposed: bool = False

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; colours as "#rrggbb"."""
        return {
            "value": self.value if isinstance(self.value, int) else format_color(self.value),
            "color": format_color(self.color) if self.color else None,
            "share": self.share,
            "class": self.name,
            "proposed": self.proposed,
        }


def meanings(facts: DatasetScan) -> tuple[Meaning, ...]:
    """The commonest values first; () where every value is the id of its class and no table says
    otherwise."""
    labels, values = facts.dataset.labels, facts.values
    total = max(1, facts.pixels)
    common = values.most_common(_KEPT)
    if isinstance(labels, tables.UndeterminedLabels):
        names = _proposals(facts, labels)
        drawn_in = dict(zip(labels.proposed, Labels(labels.proposed).colors, strict=True))
        colors = {v: v if isinstance(v, tuple) else (v, v, v) for v, _ in common if v in names}
        colors |= {v: drawn_in[name] for v, name in names.items() if name in drawn_in}
        return tuple(
            Meaning(v, colors.get(v), n / total, names.get(v, ""), v in names) for v, n in common
        )
    if facts.dataset.named and not labels.values and not facts.unknown:
        return ()
    found = []
    for value, count in common:
        class_id = labels.class_of(value)
        color = value if isinstance(value, tuple) else None
        if class_id is None or value in facts.unknown:
            found.append(Meaning(value, color, count / total, ""))
        elif class_id == labels.ignore_index:
            found.append(Meaning(value, color, count / total, IGNORE))
        else:
            drawn = labels.colors[class_id]
            found.append(Meaning(value, drawn, count / total, labels.names[class_id]))
    return tuple(found)


def value_table(found: Sequence[Meaning]) -> str:
    """As a table."""
    if not found:
        return ""
    shown = found[:_LISTED]
    lines = [f"{'value':>9}  {'colour':7}  {'pixels':>8}  class"]
    for one in shown:
        value = one.value if isinstance(one.value, int) else format_color(one.value)
        color = format_color(one.color) if one.color else ""
        name = one.name or "none"
        more = " (proposed)" if one.proposed else ""
        lines.append(f"{value!s:>9}  {color:7}  {percent(one.share):>8}  {name}{more}")
    if len(found) > _LISTED:
        least = found[_LISTED].share
        lines.append(f"{'...':>9}  {'':7}  {'':8}  more values, of {percent(least)} and less")
    return "\n".join(lines)


def _proposals(facts: DatasetScan, labels: tables.UndeterminedLabels) -> dict[Value, str]:
    """Value -> the class that `check` proposes for it."""
    values = facts.values
    if any(isinstance(value, tuple) for value in values):
        nominal = tables.nominal_colors(values)
        grey = {color: k for k, color in enumerate(nominal)}
        found: dict[Value, str] = {}
        for value in values:
            color = value if isinstance(value, tuple) else (value,) * 3
            if color in grey:
                found[value] = f"class {grey[color]}"
        return found
    if not (tables.is_black_and_white(values) or tables.is_blurred(values)):
        return {}
    threshold = tables.otsu_threshold(values)
    black, white = labels.proposed
    return {v: white if v > threshold else black for v in values}  # type: ignore[operator]
