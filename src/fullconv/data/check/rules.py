"""The rules of `check`: each looks at what a scan found and gives findings, each with its fix.

A fix for the class table is a sentence, then lines to paste into dataset.toml. Nothing is guessed
for the user: black and white masks, blurred borders and unknown values are errors until they are
given a meaning.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from fullconv.core.labels import RGB, format_color, voc_color
from fullconv.core.text import plural, truncated_list
from fullconv.data.check import rules_balance as shares
from fullconv.data.check import rules_duplicates as likeness
from fullconv.data.check.finding import Finding, percent
from fullconv.data.check.scan import DatasetScan
from fullconv.data.io.masks import Value, map_table
from fullconv.data.layouts import class_table as tables
from fullconv.data.layouts.paths import repair_command, where_to_paste

_PASTED = 32  # values that a fix can reasonably ask a person to name


def findings(facts: DatasetScan) -> tuple[Finding, ...]:
    """What all rules find: errors first, then warnings, then notes."""
    found = [finding for rule in _RULES for finding in rule(facts)]
    order = ("error", "warning", "note")
    return tuple(sorted(found, key=lambda finding: order.index(finding.level)))


def _unreadable(facts: DatasetScan) -> Iterator[Finding]:
    broken = [error for scan in facts.scans for error in scan.errors]
    if broken:
        yield Finding(
            "error",
            "unreadable",
            f"{plural(len(broken), 'file')} cannot be read: {broken[0][1]}",
            facts.names(path for path, _ in broken),
            "copy or download them again, or take them and their partners out of the data",
        )


def _unpaired(facts: DatasetScan) -> Iterator[Finding]:
    pairs = [pair for split in facts.dataset.splits.values() for pair in split]
    sides = (
        ("image", "mask", facts.dataset.unpaired_images, [pair.image for pair in pairs]),
        ("mask", "image", facts.dataset.unpaired_masks, [pair.mask for pair in pairs]),
    )
    for kind, other, alone, partners in sides:
        stems = {(path.parent, path.stem) for path in partners}
        counted = Counter((path.parent, path.stem) for path in alone)
        doubled = [p for p in alone if (key := (p.parent, p.stem)) in stems or counted[key] > 1]
        rest = [path for path in alone if path not in doubled]
        if doubled:
            yield Finding(
                "error",
                "doubled-stem",
                f"{plural(len(doubled), f'{kind} file differs', f'{kind} files differ')} from "
                "another one in the suffix only, so it is open which one counts",
                facts.names(doubled),
                f"keep one {kind} file per name",
            )
        if rest:
            yield Finding(
                "warning",
                f"unpaired-{kind}",
                f"left out: {plural(len(rest), kind)} without a {other} of the same name",
                facts.names(rest),
                f"add {other}s of the same name, or move these files away",
            )


def _empty_split(facts: DatasetScan) -> Iterator[Finding]:
    splits = facts.dataset.splits
    for split, pairs in splits.items():
        if not pairs:
            yield Finding(
                "error" if split == "train" else "warning",
                "empty-split",
                f"the split {split!r} has no image with a mask",
                (),
                f"add pairs to {split}, or remove its list or folder",
            )


def _sizes(facts: DatasetScan) -> Iterator[Finding]:
    wrong = [
        (scan, scan.image_size, mask.size)
        for scan, mask in facts.read
        if scan.image_size is not None and scan.image_size != mask.size
    ]
    if wrong:
        first, (height, width), size = wrong[0]
        turned = (
            "; turned by 90 degrees: the photo has an EXIF orientation, the mask was drawn without"
            if size == (width, height) and height != width
            else ""
        )
        yield Finding(
            "error",
            "size",
            f"{plural(len(wrong), 'mask differs', 'masks differ')} in size from the image "
            f"(upright, after its EXIF orientation): {first.pair.image.name} has {height} x "
            f"{width} pixels (height x width), its mask {size[0]} x {size[1]}{turned}",
            facts.names(scan.pair.mask for scan, _, _ in wrong),
            "export the masks again at the size of the images",
        )


def _lossy(facts: DatasetScan) -> Iterator[Finding]:
    lossy = [(scan.pair.mask, mask) for scan, mask in facts.read if mask.lossy]
    if lossy:
        path, mask = lossy[0]
        yield Finding(
            "error",
            "lossy-mask",
            f"{plural(len(lossy), 'mask is', 'masks are')} in a lossy format (JPEG or the like), "
            f"which invents values at every border; {path.name} holds {mask.values}",
            facts.names(path for path, _ in lossy),
            "export them again as PNG. If they are black and white or in a few colours, this "
            f"makes a repaired copy:\n{repair_command(facts.dataset.root)}",
        )


def _values(facts: DatasetScan) -> Iterator[Finding]:
    """Values without a class; one finding, of the kind that explains them best."""
    labels, named = facts.dataset.labels, facts.dataset.named
    lossy = {scan.pair.mask for scan, mask in facts.read if mask.lossy}
    told = 255 in labels.values or facts.colors_255
    where = facts.names(facts.unknown_in)
    if tables.is_black_and_white(facts.values) and not told:
        yield _two_valued(facts, facts.with_255)
    elif not facts.unknown_pixels or set(facts.unknown_in) <= lossy:
        return
    elif tables.is_blurred(facts.values):
        yield Finding(
            "error",
            "soft-mask",
            f"the masks hold {len(facts.values)} grey values between black and white: blurred or "
            f"anti-aliased borders. Values without a class: {_shares(facts)}",
            where,
            "export them again without anti-aliasing. This makes a repaired copy, cut in two at "
            f"{tables.otsu_threshold(facts.values):g}:\n{repair_command(facts.dataset.root)}",
        )
    elif any(isinstance(value, tuple) for value in facts.unknown):
        yield _unknown_colors(facts, where, named)
    else:
        yield Finding(
            "error",
            "unknown-value",
            f"{_unknown(facts)} no class ({_share(facts)} of all pixels): {_shares(facts)}",
            where,
            _toml(facts, "ignore leaves the pixels out; a class name puts them there")
            + map_table(dict.fromkeys(sorted(facts.unknown, key=str)[:_PASTED], "ignore")),
        )


def _two_valued(facts: DatasetScan, where: list[Path]) -> Finding:
    labels, named = facts.dataset.labels, facts.dataset.named
    good = named and len(labels) == 2
    names = list(labels.names) if good else list(tables.UNDETERMINED.proposed)
    if isinstance(labels, tables.UndeterminedLabels):
        names = list(labels.proposed)
    head = "" if good else f"classes = {json.dumps(names)}\n\n"
    return Finding(
        "error",
        "black-and-white",
        f"the masks hold 0 and 255 only: {_share_of(facts, 255)} of the pixels are 255. Taken for "
        "ignore, as 255 is elsewhere, nothing but class 0 would be learned",
        facts.names(where),
        _toml(facts, f"if 255 is the class {names[1]!r}") + head + map_table({255: names[1]}),
    )


def _unknown_colors(facts: DatasetScan, where: tuple[str, ...], named: bool) -> Finding:
    colors = _colors(facts)
    if len(colors) > _PASTED:
        nominal = [format_color(color) for color in _nominal(facts)]
        fix = (
            "export the masks again without anti-aliasing: their colours are blended at the "
            f"borders. Meant are probably {len(nominal)}: {truncated_list(nominal)}. This makes a repaired "
            "copy, where every other colour goes to the nearest of these:\n"
            + repair_command(facts.dataset.root)
        )
    elif named:
        # All that the table does not name itself, so that a colour which only happens to be the
        # palette's for a class is seen too.
        listed = {color: name for color, name in colors.items() if color not in facts.told}
        fix = _toml(facts, "ignore leaves the pixels out; a class name puts them there")
        fix += map_table(listed)
    else:
        # Black first, as background is; the order of the VOC palette.
        order = {voc_color(i): i for i in range(255, -1, -1)}
        ordered = sorted(colors, key=lambda color: (order.get(color, 256), color))
        names = [f"class {i}" for i in range(len(colors))]
        fix = _toml(facts, "with the real names in place of class 0, class 1, ...")
        fix += f"classes = {json.dumps(names)}\n\n"
        fix += map_table(dict(zip(ordered, names, strict=True)))
    what = "no class" if named else "colours that no table gives a meaning"
    return Finding(
        "error",
        "unknown-color" if named else "colors-without-table",
        f"{_unknown(facts)} {what} ({_share(facts)} of all pixels): {_shares(facts)}",
        where,
        fix,
    )


def _colors(facts: DatasetScan) -> dict[RGB, str]:
    """Every colour in the masks -> its class name as things stand, the commonest first."""
    labels = facts.dataset.labels
    found: dict[RGB, str] = {}
    for value, _ in facts.values.most_common():
        color = value if isinstance(value, tuple) else (value, value, value)
        class_id = labels.class_of(color)
        known = class_id is not None and class_id != labels.ignore_index
        found[color] = labels.names[class_id] if known else "ignore"  # type: ignore[index]
    return found


def _absent(facts: DatasetScan) -> Iterator[Finding]:
    labels, splits = facts.dataset.labels, facts.dataset.splits
    if isinstance(labels, tables.UndeterminedLabels) or not facts.read:
        return
    seen = {split: {k for k, n in enumerate(facts.classes[split]) if n} for split in splits}
    anywhere = set().union(*seen.values())
    never = [labels.names[k] for k in range(len(labels)) if k not in anywhere]
    if never:
        gaps = "" if facts.dataset.named else ": the ids in the masks have gaps"
        fix = "nothing, if that is meant; they cannot be learned, and do not count in mean IoU"
        if not facts.dataset.named and len(anywhere) <= _PASTED:
            kept = [labels.names[k] for k in sorted(anywhere)]
            values: dict[Value, str] = {k: labels.names[k] for k in sorted(anywhere)}
            fix = _toml(facts, "to close the gaps, with real names in place of these")
            fix += f"classes = {json.dumps(kept)}\n\n{map_table(values)}"
        yield Finding(
            "warning",
            "absent-class",
            f"{len(never)} of {plural(len(labels), 'class', 'classes')} never "
            f"{'occurs' if len(never) == 1 else 'occur'}{gaps}: {truncated_list(never)}",
            (),
            fix,
        )
    trained = seen.get("train", set())
    for split in splits:
        new = [labels.names[k] for k in sorted(seen[split] - trained)]
        if split != "train" and "train" in splits and new:
            yield Finding(
                "warning",
                "class-not-in-train",
                f"{plural(len(new), 'class occurs', 'classes occur')} in {split} but not in "
                f"train: {truncated_list(new)}",
                (),
                "move images that show them to train",
            )
    single = [labels.names[k] for k in sorted(anywhere) if sum(k in s for s in seen.values()) == 1]
    only_train = [name for name in single if labels.index(name) in trained]
    if only_train and sum(bool(pairs) for pairs in splits.values()) > 1:
        yield Finding(
            "note",
            "class-only-in-train",
            f"{plural(len(only_train), 'class occurs', 'classes occur')} in train only and will "
            f"not be scored: {truncated_list(only_train)}",
            (),
            "move images that show them to val or test",
        )


def _ignored(facts: DatasetScan) -> Iterator[Finding]:
    if facts.all_ignored:
        yield Finding(
            "warning",
            "all-ignored",
            f"{plural(len(facts.all_ignored), 'mask is', 'masks are')} entirely ignored: nothing "
            "is learned there",
            facts.names(facts.all_ignored),
            "take them out, or look whether their values mean what the class table says",
        )


_RULES: tuple[Callable[[DatasetScan], Iterator[Finding]], ...] = (
    _unreadable,
    _empty_split,
    _unpaired,
    _sizes,
    _lossy,
    _values,
    _absent,
    _ignored,
    likeness.duplicates,
    likeness.misaligned,
    shares.mostly_ignored,
    shares.imbalance,
    shares.one_class,
    shares.extremes,
)


def _toml(facts: DatasetScan, words: str) -> str:
    """The sentence before lines for dataset.toml; it is all that stands on the first line."""
    return f"{where_to_paste(facts.dataset.root)} ({words}):\n"


def _share_of(facts: DatasetScan, value: Value) -> str:
    return percent(facts.values[value] / max(1, facts.pixels))


def _unknown(facts: DatasetScan) -> str:
    """So many mask values have ..."""
    if facts.thinned:
        return f"more than {len(facts.unknown)} mask values have"
    return plural(len(facts.unknown), "mask value has", "mask values have")


def _share(facts: DatasetScan) -> str:
    return percent(facts.unknown_pixels / max(1, facts.pixels))


def _shares(facts: DatasetScan) -> str:
    """The table of value -> share of all pixels, the commonest first."""
    return truncated_list(
        [
            f"{value if isinstance(value, int) else format_color(value)} {_share_of(facts, value)}"
            for value, _ in facts.unknown.most_common()
        ]
    )


def _nominal(facts: DatasetScan) -> list[RGB]:
    """The colours that the masks were drawn in: the table's, else the commonest."""
    labels = facts.dataset.labels
    if isinstance(labels, tables.UndeterminedLabels):
        return list(tables.nominal_colors(facts.values))
    return [value for value in labels.values if isinstance(value, tuple)] or list(labels.colors)
