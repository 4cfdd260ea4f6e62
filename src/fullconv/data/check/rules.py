"""The rules of `check` about files, and the list of all rules.

Each rule is a generator of findings.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

from fullconv.core.i18n import join, msg, nmsg
from fullconv.data.check.finding import Finding, Level
from fullconv.data.check.rules_alignment import misaligned, turned_masks
from fullconv.data.check.rules_balance import (
    dark_images,
    extreme_sizes,
    identical_masks,
    imbalance,
    mostly_ignored,
    one_class_only,
    single_class,
)
from fullconv.data.check.rules_duplicates import duplicates
from fullconv.data.check.rules_values import (
    absent_classes,
    all_ignored,
    palette_order,
    values_without_class,
)
from fullconv.data.check.scan import DatasetScan
from fullconv.data.layouts.paths import repair_command

_LEVELS = ("error", "warning", "note")


def apply_rules(scan: DatasetScan) -> tuple[Finding, ...]:
    """Return the findings of all rules: errors, then warnings, then notes."""
    findings = [finding for rule in _RULES for finding in rule(scan)]
    return tuple(sorted(findings, key=lambda finding: _LEVELS.index(finding.level)))


def _unreadable(scan: DatasetScan) -> Iterator[Finding]:
    errors = [error for pair_scan in scan.scans for error in pair_scan.errors]
    if errors:
        message = nmsg(
            "{count} file cannot be read: {reason}",
            "{count} files cannot be read; the first one: {reason}",
            len(errors),
            reason=errors[0][1],
        )
        fix = msg("copy or download them again, or remove them and their partners")
        yield Finding("error", "unreadable", message, scan.names(p for p, _ in errors), fix)


def _unpaired(scan: DatasetScan) -> Iterator[Finding]:
    pairs = [pair for split in scan.dataset.splits.values() for pair in split]
    sides = (
        ("image", scan.dataset.unpaired_images, [pair.image for pair in pairs]),
        ("mask", scan.dataset.unpaired_masks, [pair.mask for pair in pairs]),
    )
    for kind, unpaired, paired in sides:
        # A file without a partner may be a second file of the same name.
        taken = {(path.parent, path.stem) for path in paired}
        names = Counter((path.parent, path.stem) for path in unpaired)
        doubled = [p for p in unpaired if (key := (p.parent, p.stem)) in taken or names[key] > 1]
        single = [path for path in unpaired if path not in doubled]
        if doubled:
            yield _doubled(kind, scan.names(doubled))
        if single and kind == "image":
            message = nmsg(
                "left out {count} image without a mask of the same name.",
                "left out {count} images without a mask of the same name.",
                len(single),
            )
            fix = msg("add masks with the same file names, or move these images to another folder")
            yield Finding("warning", "unpaired-image", message, scan.names(single), fix)
        elif single:
            message = nmsg(
                "left out {count} mask without an image of the same name.",
                "left out {count} masks without an image of the same name.",
                len(single),
            )
            fix = msg("add images with the same file names, or move these masks to another folder")
            yield Finding("warning", "unpaired-mask", message, scan.names(single), fix)


def _doubled(kind: str, files: tuple[str, ...]) -> Finding:
    if kind == "image":
        fix = msg("keep one image per name")
        message = nmsg(
            "{count} image has the same file name without extension as another one, so it is "
            "unclear which of them to use.",
            "{count} images have the same file name without extension as another one, so it is "
            "unclear which of them to use.",
            len(files),
        )
    else:
        fix = msg("keep one mask per name")
        message = nmsg(
            "{count} mask has the same file name without extension as another one, so it is "
            "unclear which of them to use.",
            "{count} masks have the same file name without extension as another one, so it is "
            "unclear which of them to use.",
            len(files),
        )
    return Finding("error", "doubled-stem", message, files, fix)


def _empty_split(scan: DatasetScan) -> Iterator[Finding]:
    if "train" not in scan.dataset.splits:
        splits = ", ".join(scan.dataset.splits)
        message = msg("there is no split to train on: all images are in {splits}.", splits=splits)
        fix = msg("nothing, if the dataset only evaluates models; else list images in train.txt")
        yield Finding("warning", "no-train-split", message, (), fix)
    for split, pairs in scan.dataset.splits.items():
        if not pairs:
            message = msg("the split {split!r} has no image with a mask.", split=split)
            fix = msg("add pairs to {split}, or remove its list or folder", split=split)
            level: Level = "error" if split == "train" else "warning"
            yield Finding(level, "empty-split", message, (), fix)


def _sizes(scan: DatasetScan) -> Iterator[Finding]:
    wrong = [
        (pair_scan, pair_scan.image_size, mask.size)
        for pair_scan, mask in scan.masks
        if pair_scan.image_size is not None and pair_scan.image_size != mask.size
    ]
    if not wrong:
        return
    first, (height, width), (mask_height, mask_width) = wrong[0]
    message = nmsg(
        "{count} mask differs in size from its image (upright, after its EXIF orientation): {name} "
        "has {height} x {width} pixels (height x width), its mask {mask_height} x {mask_width}.",
        "{count} masks differ in size from their images (upright, after their EXIF orientation): "
        "{name} has {height} x {width} pixels (height x width), its mask {mask_height} x "
        "{mask_width}.",
        len(wrong),
        name=first.pair.image.name,
        height=height,
        width=width,
        mask_height=mask_height,
        mask_width=mask_width,
    )
    if (mask_height, mask_width) == (width, height) and height != width:
        turned = msg(
            "The mask is turned by 90 degrees: it was drawn without the EXIF orientation of the "
            "photo."
        )
        message = join([message, turned], " ")
    files = scan.names(pair_scan.pair.mask for pair_scan, _, _ in wrong)
    fix = msg("export the masks again at the size of the images")
    yield Finding("error", "size", message, files, fix)


def _lossy(scan: DatasetScan) -> Iterator[Finding]:
    lossy = [(pair_scan.pair.mask, mask) for pair_scan, mask in scan.masks if mask.lossy]
    if lossy:
        message = nmsg(
            "{count} mask is in a lossy format (such as JPEG), which adds wrong values at every "
            "border: {name} has {values} different values.",
            "{count} masks are in a lossy format (such as JPEG), which adds wrong values at every "
            "border: {name} has {values} different values.",
            len(lossy),
            name=lossy[0][0].name,
            values=lossy[0][1].values,
        )
        fix = msg(
            "export them again as PNG. If they are black and white or have few colors, this makes "
            "a repaired copy:\n{command}",
            command=repair_command(scan.dataset.root),
        )
        yield Finding("error", "lossy-mask", message, scan.names(path for path, _ in lossy), fix)


_RULES: tuple[Callable[[DatasetScan], Iterator[Finding]], ...] = (
    _unreadable, _empty_split, _unpaired, _sizes, _lossy,
    palette_order, values_without_class, absent_classes, all_ignored,
    one_class_only, identical_masks,
    duplicates, turned_masks, misaligned,
    mostly_ignored, imbalance, single_class, extreme_sizes, dark_images,
)  # fmt: skip
