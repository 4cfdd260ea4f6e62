"""Rules about images that occur twice."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from fullconv.core.i18n import msg, nmsg
from fullconv.data.check.finding import Finding, Level
from fullconv.data.check.image_signature import near_duplicates
from fullconv.data.check.scan import DatasetScan, PairScan
from fullconv.data.layouts.paths import repair_command

# Within a split only copies that were compressed again are reported: frames of a video differ more,
# and are no mistake.
_COPY = 0.03


def duplicates(scan: DatasetScan) -> Iterator[Finding]:
    """Report images that occur twice, byte for byte or nearly, across splits or within one."""
    by_hash: dict[str, list[PairScan]] = defaultdict(list)
    for pair_scan in scan.scans:
        if pair_scan.image_hash:
            by_hash[pair_scan.image_hash].append(pair_scan)
    copies = [group for group in by_hash.values() if len(group) > 1]
    across = [group for group in copies if len({pair_scan.split for pair_scan in group}) > 1]
    within = [group for group in copies if len({pair_scan.split for pair_scan in group}) == 1]
    if across:
        message = nmsg(
            "{count} image is in more than one split ({splits}), byte for byte: {first}. Scores on "
            "training images do not predict those on new images.",
            "{count} images are in more than one split ({splits}), byte for byte: {first}. Scores "
            "on training images do not predict those on new images.",
            len(across),
            **_values(scan, across),
        )
        yield _finding(scan, "warning", "leak", message, across, _split_fix(scan))
    if within:
        message = nmsg(
            "{count} image occurs more than once in a split, byte for byte: {first}. Copies "
            "count more than once, and their masks may differ.",
            "{count} images occur more than once in a split, byte for byte: {first}. Copies "
            "count more than once, and their masks may differ.",
            len(within),
            **_values(scan, within),
        )
        yield _finding(scan, "warning", "duplicate", message, within, msg("keep one of each"))
    yield from _near_duplicates(scan, [group[0] for group in by_hash.values()])


def _near_duplicates(scan: DatasetScan, distinct: list[PairScan]) -> Iterator[Finding]:
    known = [(pair_scan, pair_scan.image.signature) for pair_scan in distinct if pair_scan.image]
    across, within = [], []
    for i, j, distance in near_duplicates([signature for _, signature in known]):
        pair = [known[i][0], known[j][0]]
        if pair[0].split != pair[1].split:
            across.append(pair)
        elif distance <= _COPY:
            within.append(pair)
    if across:
        message = nmsg(
            "{count} pair of similar images is in more than one split ({splits}), resized, "
            "compressed or brightened: {first}. Scores on training images do not predict those on "
            "new images.",
            "{count} pairs of similar images are in more than one split ({splits}), resized, "
            "compressed or brightened: {first}. Scores on training images do not predict those on "
            "new images.",
            len(across),
            **_values(scan, across),
        )
        yield _finding(scan, "warning", "near-leak", message, across, _split_fix(scan))
    if within:
        message = nmsg(
            "{count} pair of images in one split is nearly the same: {first}. Copies count "
            "more than once.",
            "{count} pairs of images in one split are nearly the same: {first}. Copies count "
            "more than once.",
            len(within),
            **_values(scan, within),
        )
        fix = msg("nothing, if they are video frames of a fixed scene; else keep one of each")
        yield _finding(scan, "note", "near-duplicate", message, within, fix)


def _values(scan: DatasetScan, groups: list[list[PairScan]]) -> dict[str, str]:
    """Return the splits, and the files of the first group: "images/a.png = images/b.png"."""
    splits = sorted({pair_scan.split for group in groups for pair_scan in group})
    first = (scan.names([pair_scan.pair.image])[0] for pair_scan in groups[0])
    return {"splits": ", ".join(splits), "first": " = ".join(first)}


def _split_fix(scan: DatasetScan) -> str:
    return msg(
        "keep each image in one split. This makes a copy in which it stays in test, else in "
        "val:\n{command}",
        command=repair_command(scan.dataset.root),
    )


def _finding(
    scan: DatasetScan,
    level: Level,
    rule: str,
    message: str,
    groups: list[list[PairScan]],
    fix: str,
) -> Finding:
    names = tuple(scan.names(pair_scan.pair.image for pair_scan in group) for group in groups)
    files = tuple(sorted({name for group in names for name in group}))
    return Finding(level, rule, message, files, fix, names)
