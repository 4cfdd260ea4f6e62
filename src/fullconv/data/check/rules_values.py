"""The rules of `check` about mask values and the classes that they stand for.

A fix for the class table is a sentence, then lines to paste into dataset.toml. The meaning of
values is never guessed: black and white masks, blurred borders and unknown values are errors until
the user gives them a meaning.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import combinations
from typing import Any

from fullconv.core.i18n import join, msg, nmsg
from fullconv.core.labels import IGNORE, RGB, format_color, voc_color
from fullconv.core.text import truncated_list
from fullconv.data.check.finding import Finding, share_text
from fullconv.data.check.scan import DatasetScan
from fullconv.data.io.mask_values import Value, format_value, map_table
from fullconv.data.layouts.class_table import UNDETERMINED, UndeterminedLabels
from fullconv.data.layouts.mask_value_kinds import (
    is_black_and_white,
    is_blurred,
    is_nearly_black_and_white,
    kinds_disagree,
    nominal_colors,
    otsu_threshold,
    proposed_gray_names,
)
from fullconv.data.layouts.paths import repair_command, where_to_paste
from fullconv.data.layouts.settings_file import read_settings

_MAX_PASTED = 32  # values that a fix can ask the user to name
_IGNORE_OR_CLASS = msg("ignore excludes the pixels; replace it by a class name to use them")


def values_without_class(scan: DatasetScan) -> Iterator[Finding]:
    """Report values without a class, in the one finding that explains them best."""
    lossy = {pair_scan.pair.mask for pair_scan, mask in scan.masks if mask.lossy}
    settings = read_settings(scan.dataset.root)
    declared_255 = (
        255 in scan.dataset.labels.values
        or scan.colors_255
        or ("classes" in settings and settings.get("ignore_index") == 255)
    )
    fix: str
    if is_black_and_white(scan.values) and not declared_255:
        yield _black_and_white(scan)
    elif not declared_255 and _kinds_disagree(scan):
        yield _two_kinds(scan)
    elif not scan.unknown_pixels or scan.unknown_in <= lossy:
        return
    elif is_blurred(scan.values):
        message = nmsg(
            "{count} of {total} masks has gray levels between black and white ({levels} levels "
            "in all masks): its borders are blurred or anti-aliased. Values without a class: "
            "{values}.",
            "{count} of {total} masks have gray levels between black and white ({levels} "
            "levels in all masks): their borders are blurred or anti-aliased. Values without a "
            "class: {values}.",
            len(scan.gray_in),
            total=len(scan.masks),
            levels=len(scan.values),
            values=_unknown_shares(scan),
        )
        fix = msg(
            "export them again without anti-aliasing. This makes a repaired copy, with a "
            "threshold of {threshold:g}:\n{command}",
            threshold=otsu_threshold(scan.values),
            command=repair_command(scan.dataset.root),
        )
        yield Finding("error", "soft-mask", message, scan.names(scan.gray_in), fix)
    elif any(isinstance(value, tuple) for value in scan.unknown):
        yield _unknown_colors(scan)
    elif isinstance(scan.dataset.labels, UndeterminedLabels) and len(scan.values) <= _MAX_PASTED:
        yield _gray_levels(scan)
    else:
        values = sorted(scan.unknown, key=str)[:_MAX_PASTED]
        files = scan.names(scan.unknown_in)
        fix = _paste(scan, _IGNORE_OR_CLASS, map_table(dict.fromkeys(values, IGNORE)))
        yield Finding("error", "unknown-value", _no_class(scan), files, fix)


def _black_and_white(scan: DatasetScan) -> Finding:
    labels = scan.dataset.labels
    named = scan.dataset.named and len(labels) == 2
    names = labels.names if named else UNDETERMINED.proposed
    if isinstance(labels, UndeterminedLabels):
        names = labels.proposed
    message = msg(
        "the masks contain only 0 and 255; {share} of the pixels are 255. 255 usually means "
        "ignore: then only class 0 would be learned.",
        share=_share_of(scan, 255),
    )
    lines = _table({255: names[1]}, () if named else names)
    fix = _paste(scan, msg("if 255 is the class {name!r}", name=names[1]), lines)
    return Finding("error", "black-and-white", message, scan.names(scan.with_255), fix)


def _kinds_disagree(scan: DatasetScan) -> bool:
    return kinds_disagree(scan.kinds) and not is_nearly_black_and_white(scan.values)


def _two_kinds(scan: DatasetScan) -> Finding:
    """Report masks in which 255 seems to be a class, beside masks with ids."""
    white, with_ids = scan.white_kinds["white"], scan.white_kinds["ids"]
    ids = sorted(value for value in scan.values if value not in (0, 255))
    message = msg(
        "{white} of {total} masks contain only 0 and 255, {others} contain ids: {ids}. 255 usually "
        "means ignore: then only class 0 would be learned from the first.",
        white=len(white),
        total=len(scan.masks),
        others=len(with_ids),
        ids=truncated_list([format_value(value) for value in ids]),
    )
    labels = scan.dataset.labels
    if len(ids) == 1:
        names = labels.proposed if isinstance(labels, UndeterminedLabels) else labels.names
        values = dict.fromkeys([*ids, 255], names[1] if len(names) == 2 else "object")
        explanation = msg("if 255 means the same as {ids}", ids=", ".join(map(str, ids)))
        listed = UNDETERMINED.proposed if len(names) != 2 else names
        lines = _table(values, () if scan.dataset.named else listed)
    elif scan.dataset.named:
        explanation, lines = _IGNORE_OR_CLASS, map_table({255: IGNORE})
    else:
        meanings: dict[Value, str] = {value: f"class {value}" for value in [0, *ids]}
        explanation = _IGNORE_OR_CLASS
        lines = _table({**meanings, 255: IGNORE}, meanings.values())
    fix = _paste(scan, explanation, lines)
    return Finding("error", "mixed-white", message, scan.names(white), fix)


def _gray_levels(scan: DatasetScan) -> Finding:
    """Report numbers far apart, which are no class ids."""
    values: list[Any] = sorted(scan.values)
    message = msg(
        "the masks contain {values}: these are gray levels, not the class ids 0, 1, 2 ..., and no "
        "class table tells what they mean.",
        values=truncated_list([format_value(value) for value in values]),
    )
    names = proposed_gray_names(values)
    if is_nearly_black_and_white(values):
        near = [value for value in values if value not in (0, 255)]
        stray = nmsg(
            "{values} is just below 255: a stray value, or blur.",
            "{values} are just below 255: stray values, or blur.",
            len(near),
            values=truncated_list([format_value(value) for value in near]),
        )
        message = join([message, stray], " ")
    lines = _table(names, dict.fromkeys(names.values()))
    fix = _paste(scan, msg("with real names instead of these, or ignore"), lines)
    return Finding("error", "gray-levels", message, scan.names(scan.unknown_in), fix)


def _unknown_colors(scan: DatasetScan) -> Finding:
    labels, named = scan.dataset.labels, scan.dataset.named
    # The class name (or "ignore") of every color in the masks, most frequent first.
    colors: dict[RGB, str] = {}
    for value, _ in scan.values.most_common():
        color = value if isinstance(value, tuple) else (value, value, value)
        class_id = labels.class_of(color)
        known = class_id is not None and class_id != labels.ignore_index
        colors[color] = labels.names[class_id] if known else IGNORE  # type: ignore[index]

    fix: str
    if len(colors) > _MAX_PASTED:
        # The masks were drawn in the colors of the class table, else in the most frequent ones.
        if isinstance(labels, UndeterminedLabels):
            nominal: Iterable[RGB] = nominal_colors(scan.values)
        else:
            nominal = [v for v in labels.values if isinstance(v, tuple)] or labels.colors
        listed = [format_color(color) for color in nominal]
        fix = msg(
            "export the masks again without anti-aliasing: their colors are blended at the "
            "borders. The {count} colors that were probably meant: {colors}. This makes a repaired "
            "copy, in which every other color becomes the nearest of these:\n{command}",
            count=len(listed),
            colors=truncated_list(listed),
            command=repair_command(scan.dataset.root),
        )
    elif named:
        # Include the colors that match a class of the palette by chance.
        undeclared = {c: name for c, name in colors.items() if c not in labels.values}
        fix = _paste(scan, _IGNORE_OR_CLASS, map_table(undeclared))
    else:
        # The order of the VOC palette: black, the background, comes first.
        order = {voc_color(k): k for k in range(255, -1, -1)}
        ordered = sorted(colors, key=lambda color: (order.get(color, 256), color))
        names = [f"class {k}" for k in range(len(colors))]
        table = _table(dict(zip(ordered, names, strict=True)), names)
        explanation = msg("with the real names instead of class 0, class 1 ...")
        fix = _paste(scan, explanation, table)
    rule = "unknown-color" if named else "colors-without-table"
    return Finding("error", rule, _no_class(scan), scan.names(scan.unknown_in), fix)


def palette_order(scan: DatasetScan) -> Iterator[Finding]:
    """Report palettes that give one color two indices, or one index two colors."""
    labels = scan.dataset.labels
    uses = [
        (color, index, mask)
        for color, indices in sorted(scan.palettes.items())
        for index, mask in sorted(indices.items())
        if index != labels.ignore_index
    ]
    for (color, index, mask), (other_color, other_index, other_mask) in combinations(uses, 2):
        if mask == other_mask or (color == other_color) == (index == other_index):
            continue
        names = scan.names([mask])[0], scan.names([other_mask])[0]
        message = msg(
            "the palettes of the masks disagree: {index} is {color} in {mask}, but {other_index} "
            "is {other_color} in {other_mask}. Do the indices or the colors tell the classes?",
            index=index,
            color=format_color(color),
            mask=names[0],
            other_index=other_index,
            other_color=format_color(other_color),
            other_mask=names[1],
        )
        own = scan.dataset.named
        index_of = {color: index for color, index, _ in uses}
        classes: dict[Value, str] = {
            color: labels.names[index] if own and index < len(labels) else f"class {k}"
            for k, (color, index) in enumerate(index_of.items())
        }
        lines = _table(classes, () if own else classes.values())
        fix = _paste(scan, msg("then the colors tell the classes; with real names"), lines)
        yield Finding("error", "palette-order", message, scan.names({m for *_, m in uses}), fix)
        return


def absent_classes(scan: DatasetScan) -> Iterator[Finding]:
    """Report classes that never occur, or not in every split."""
    labels, splits = scan.dataset.labels, scan.dataset.splits
    if isinstance(labels, UndeterminedLabels) or not scan.masks:
        return
    present = {split: {k for k, n in enumerate(scan.class_pixels[split]) if n} for split in splits}
    anywhere = set().union(*present.values())

    absent = [labels.names[k] for k in range(len(labels)) if k not in anywhere]
    if absent:
        yield _never(scan, absent, anywhere)
    train = present.get("train", set())
    for split in splits:
        new = [labels.names[k] for k in sorted(present[split] - train)]
        if split != "train" and "train" in splits and new:
            message = nmsg(
                "{count} class occurs in {split} but not in train: {names}.",
                "{count} classes occur in {split} but not in train: {names}.",
                len(new),
                split=split,
                names=truncated_list(new),
            )
            fix = msg("move images that show them to train")
            yield Finding("warning", "class-not-in-train", message, (), fix)
    single = [k for k in sorted(anywhere) if sum(k in ids for ids in present.values()) == 1]
    only_train = [labels.names[k] for k in single if k in train]
    if only_train and sum(bool(pairs) for pairs in splits.values()) > 1:
        message = nmsg(
            "{count} class occurs in train only, and will not be evaluated: {names}.",
            "{count} classes occur in train only, and will not be evaluated: {names}.",
            len(only_train),
            names=truncated_list(only_train),
        )
        fix = msg("move images that show them to val or test")
        yield Finding("note", "class-only-in-train", message, (), fix)


def _never(scan: DatasetScan, absent: list[str], anywhere: set[int]) -> Finding:
    labels = scan.dataset.labels
    message = nmsg(
        "{count} of {total} classes never occurs: {names}.",
        "{count} of {total} classes never occur: {names}.",
        len(absent),
        total=len(labels),
        names=truncated_list(absent),
    )
    fix: str = msg(
        "nothing, if this is intended; they cannot be learned, and are not part of the mean IoU"
    )
    if not scan.dataset.named:
        message = join([message, msg("The ids in the masks have gaps.")], " ")
        if len(anywhere) <= _MAX_PASTED:
            values: dict[Value, str] = {k: labels.names[k] for k in sorted(anywhere)}
            lines = _table(values, values.values())
            explanation = msg("to close the gaps, with real names instead of these")
            fix = _paste(scan, explanation, lines)
    return Finding("warning", "absent-class", message, (), fix)


def all_ignored(scan: DatasetScan) -> Iterator[Finding]:
    """Report masks without any labeled pixel."""
    if scan.all_ignored:
        message = nmsg(
            "{count} mask is entirely ignored: nothing is learned from it.",
            "{count} masks are entirely ignored: nothing is learned from them.",
            len(scan.all_ignored),
        )
        fix = msg("remove them, or check whether their values mean what the class table tells")
        yield Finding("warning", "all-ignored", message, scan.names(scan.all_ignored), fix)


def _table(values: Mapping[Any, str], classes: Iterable[str] = ()) -> str:
    """Return lines for dataset.toml: the classes, if any, and the meaning of values."""
    names = list(classes)
    head = f"classes = {json.dumps(names)}\n\n" if names else ""
    return head + map_table(values)


def _paste(scan: DatasetScan, explanation: str, lines: str) -> str:
    """Return a fix of lines for dataset.toml; its first line tells where they belong."""
    where = where_to_paste(scan.dataset.root)
    values = {"where": where, "explanation": explanation, "lines": lines}
    return msg("{where} ({explanation}):\n{lines}", **values)


def _no_class(scan: DatasetScan) -> str:
    """Return the message that some values have no class."""
    values: dict[str, Any] = {
        "count": len(scan.unknown),
        "share": share_text(scan.unknown_pixels / max(1, scan.pixels)),
        "values": _unknown_shares(scan),
    }
    if scan.truncated:
        return msg(
            "more than {count} mask values have no class ({share} of all pixels): {values}.",
            **values,
        )
    return nmsg(
        "{count} mask value has no class ({share} of all pixels): {values}.",
        "{count} mask values have no class ({share} of all pixels): {values}.",
        **values,
    )


def _unknown_shares(scan: DatasetScan) -> str:
    """Return the values without a class and their shares of all pixels, most frequent first."""
    values = [value for value, _ in scan.unknown.most_common()]
    return truncated_list([f"{format_value(v)} {_share_of(scan, v)}" for v in values])


def _share_of(scan: DatasetScan, value: Value) -> str:
    return share_text(scan.values[value] / max(1, scan.pixels))
