"""Rules about likeness: images that are the same, and masks that lie beside what they show."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from fullconv.core.text import plural, shell_command
from fullconv.data.check.finding import Finding
from fullconv.data.check.image_signature import Shift, near_duplicates
from fullconv.data.check.scan import DatasetScan, PairScan
from fullconv.data.layouts.paths import repair_command

# Within a split only what is as near as a copy that was compressed again: frames of a video differ
# more, and are no mistake.
_COPY = 0.03

# A mask is said to be shifted where its borders stand out this much elsewhere and far less where it
# lies. Faint borders seldom stand out so much: those are missed rather than suspected.
_CERTAIN = 4.5  # in units of how much the agreement wavers
_LESS = 0.4  # of that
_MOVED = 2  # steps at least
# Weaker signs count where many masks agree on one offset.
_VOTES = 8
_NEAR = 2  # steps that two offsets may differ by
_MAJORITY = 0.4
# One mask on as many images as this shows a zone before a camera that stands still, and not what
# is to be seen in any of them: its borders fit edges by chance alone.
_ZONE = 3


def duplicates(facts: DatasetScan) -> Iterator[Finding]:
    """The same image twice, byte for byte or nearly, across splits or within one."""
    places: dict[str, list[PairScan]] = defaultdict(list)
    for scan in facts.scans:
        if scan.image_hash:
            places[scan.image_hash].append(scan)
    twins = [scans for scans in places.values() if len(scans) > 1]
    across = [scans for scans in twins if len({scan.split for scan in scans}) > 1]
    within = [scans for scans in twins if len({scan.split for scan in scans}) == 1]
    if across:
        yield _leak(facts, "leak", across, "byte for byte")
    if within:
        yield Finding(
            "warning",
            "duplicate",
            f"{plural(len(within), 'image stands', 'images stand')} more than once in a split, "
            f"byte for byte: {_first(facts, within)}. What stands twice counts double, and the "
            "masks may differ",
            facts.names(scan.pair.image for scans in within for scan in scans),
            "keep one of each",
            tuple(facts.names(scan.pair.image for scan in scans) for scans in within),
        )
    yield from _near_duplicates(facts, [scans[0] for scans in places.values()])


def _near_duplicates(facts: DatasetScan, scans: list[PairScan]) -> Iterator[Finding]:
    seen = [(scan, scan.image.signature) for scan in scans if scan.image]
    across, within = [], []
    for i, j, apart in near_duplicates([look for _, look in seen]):
        pair = [seen[i][0], seen[j][0]]
        if pair[0].split != pair[1].split:
            across.append(pair)
        elif apart <= _COPY:
            within.append(pair)
    if across:
        yield _leak(facts, "near-leak", across, "scaled, compressed or made lighter")
    if within:
        yield Finding(
            "note",
            "near-duplicate",
            f"{plural(len(within), 'pair of images', 'pairs of images')} in one split "
            f"{'is' if len(within) == 1 else 'are'} nearly the same: {_first(facts, within)}. "
            "What stands twice counts double",
            facts.names(scan.pair.image for pair in within for scan in pair),
            "nothing, if they are frames of a video that stands still; else keep one of each",
            tuple(facts.names(scan.pair.image for scan in pair) for pair in within),
        )


def _leak(facts: DatasetScan, rule: str, groups: list[list[PairScan]], how: str) -> Finding:
    splits = sorted({scan.split for scans in groups for scan in scans})
    what = plural(len(groups), "image stands", "images stand")
    if rule == "near-leak":
        what = plural(
            len(groups),
            "pair of images that look the same stands",
            "pairs of images that look the same stand",
        )
    return Finding(
        "warning",
        rule,
        f"{what} in more than one split ({', '.join(splits)}), {how}: "
        f"{_first(facts, groups)}. Scores on what was trained on say nothing about new images",
        facts.names(scan.pair.image for scans in groups for scan in scans),
        "keep each image in one split. This makes a copy where it stays in test, else in val:\n"
        + repair_command(facts.dataset.root),
        tuple(facts.names(scan.pair.image for scan in scans) for scans in groups),
    )


def _first(facts: DatasetScan, groups: list[list[PairScan]]) -> str:
    return " = ".join(facts.names([scan.pair.image])[0] for scan in groups[0])


def misaligned(facts: DatasetScan) -> Iterator[Finding]:
    """Masks whose borders fit their image's edges better elsewhere than where they lie."""
    known = [(scan, scan.shift) for scan in facts.scans if scan.shift is not None]
    distinct = {scan.mask_hash: found for scan, found in known}  # one mask, one vote
    voted = _voted(list(distinct.values()))
    if voted is not None:
        files = facts.names(scan.pair.mask for scan, found in known if _agrees(found, voted))
        rows, columns = voted.rows, voted.columns
        yield Finding(
            "warning",
            "shifted-masks",
            f"the masks seem to lie {_where(-rows, -columns)} of what they show: the borders in "
            f"{len(files)} of {len(known)} fit the edges of their images best when they are "
            f"moved {_where(rows, columns)}",
            files,
            "export the masks again from the images that lie here: cropping, resizing and other "
            "versions of an image move them",
        )
        return
    drawn = Counter(scan.mask_hash for scan, _ in known)
    moved = [
        (scan, found)
        for scan, found in known
        if drawn[scan.mask_hash] < _ZONE and _is_certain(found)
    ]
    if moved:
        first, found = moved[0]
        yield Finding(
            "warning",
            "shifted-mask",
            f"{plural(len(moved), 'mask seems', 'masks seem')} to be shifted: the borders in "
            f"{first.pair.mask.name} fit the edges of its image far better when it is moved "
            f"{_where(found.rows, found.columns)}",
            facts.names(scan.pair.mask for scan, _ in moved),
            "look at what --preview draws, and export or draw the mask again where it is true:\n"
            + shell_command("fullconv", "check", facts.dataset.root, "--preview", "check.png"),
        )


def _voted(found: list[Shift]) -> Shift | None:
    """The offset that most masks agree on, where it is not about none."""
    told = [shift for shift in found if shift.there > _CERTAIN / 2]
    if not told:
        return None
    # Place by place, of which there are few, not mask by mask.
    counts = Counter((shift.rows, shift.columns, shift.step) for shift in told)
    places, votes = np.array(list(counts)), np.array(list(counts.values()))
    agreed_on = []
    for place in places:
        room = _NEAR * np.maximum(places[:, 2], place[2])
        near = (abs(places[:, :2] - place[:2]) <= room[:, None]).all(axis=1)
        agreed_on.append(votes[near].sum())
    at = list(counts)[int(np.argmax(agreed_on))]
    best = next(shift for shift in told if (shift.rows, shift.columns, shift.step) == at)
    agreed = [shift for shift in told if _agrees(shift, best)]
    moved = sum(shift.here <= _LESS * shift.there for shift in agreed)
    if moved < max(_VOTES, _MAJORITY * len(told)):
        return None
    rows = round(statistics.median(shift.rows for shift in agreed))
    columns = round(statistics.median(shift.columns for shift in agreed))
    if max(abs(rows), abs(columns)) <= _NEAR * best.step:
        return None
    return replace(best, rows=rows, columns=columns)


def _agrees(found: Shift, at: Shift) -> bool:
    room = _NEAR * max(found.step, at.step)
    near = abs(found.rows - at.rows) <= room and abs(found.columns - at.columns) <= room
    return near and found.there > _CERTAIN / 2


def _is_certain(found: Shift) -> bool:
    moved = max(abs(found.rows), abs(found.columns)) >= _MOVED * found.step
    return moved and found.there >= _CERTAIN and found.here <= _LESS * found.there


def _where(rows: int, columns: int) -> str:
    """(5, -4) -> "5 pixels down and 4 left"."""
    unit = "" if rows else "pixels "
    down = f"{abs(rows)} pixels down" if rows > 0 else f"{abs(rows)} pixels up"
    right = f"{abs(columns)} {unit}right" if columns > 0 else f"{abs(columns)} {unit}left"
    return " and ".join([down] * bool(rows) + [right] * bool(columns))
