"""Rules about masks that are turned or shifted against their images."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from fullconv.core.i18n import join, msg, nmsg
from fullconv.core.text import shell_command
from fullconv.data.check.finding import Finding
from fullconv.data.check.image_signature import Shift
from fullconv.data.check.scan import DatasetScan
from fullconv.data.layouts.paths import repair_command

# A mask counts as shifted if its borders fit well at another offset and far worse at offset 0.
# Faint borders seldom fit so well: such masks are missed rather than suspected.
_CERTAIN = 4.5  # standard deviations
_MAX_REMAINING = 0.4  # share of that fit at offset 0
_MIN_STEPS = 2  # of the offset
# Weaker fits count if many masks agree on one offset.
_MIN_VOTES = 8
_NEAR = 2  # steps by which two offsets may differ
_MAJORITY = 0.4
# A mask that is used for at least this many images marks a zone before a fixed camera, and not the
# content of any of them: its borders fit edges by chance alone.
_ZONE = 3


def turned_masks(scan: DatasetScan) -> Iterator[Finding]:
    """Report masks that lack the EXIF orientation of their photos, though the sizes agree.

    Masks that fit neither way clearly go with the majority.
    """
    votes = Counter(pair_scan.turned for pair_scan in scan.scans)
    if not votes[1]:
        return
    reported = (0, 1) if votes[1] > votes[-1] else (1,)
    turned = [pair_scan.pair for pair_scan in scan.scans if pair_scan.turned in reported]
    message = nmsg(
        "{count} photo has an EXIF orientation that its mask lacks: {clear} of them fits the edges "
        "of the photo only after it is turned.",
        "{count} photos have an EXIF orientation that their masks lack: {clear} of them fit the "
        "edges of the photo only after they are turned.",
        len(turned),
        clear=votes[1],
    )
    fix = msg(
        "this makes a repaired copy, in which these masks are turned:\n{command}",
        command=repair_command(scan.dataset.root),
    )
    files = scan.names(pair.mask for pair in turned)
    yield Finding("error", "turned-mask", message, files, fix)


def misaligned(scan: DatasetScan) -> Iterator[Finding]:
    """Report masks whose borders fit the edges of their images better at another offset."""
    shifts = [(s, s.shift) for s in scan.scans if s.shift is not None and s.turned != 1]
    distinct = {pair_scan.mask_hash: shift for pair_scan, shift in shifts}  # one mask, one vote
    common = _common_shift(list(distinct.values()))
    if common is not None:
        files = scan.names(scanned.pair.mask for scanned, shift in shifts if _agrees(shift, common))
        message = msg(
            "the masks seem to be shifted {offset} against their images: the borders in "
            "{count} of {total} fit the edges of their images best when they are moved {back}.",
            offset=_direction(-common.rows, -common.columns),
            back=_direction(common.rows, common.columns),
            count=len(files),
            total=len(shifts),
        )
        fix = msg(
            "export the masks again from exactly these images: cropping, resizing and other "
            "versions of an image shift them"
        )
        yield Finding("warning", "shifted-masks", message, files, fix)
        return
    uses = Counter(pair_scan.mask_hash for pair_scan, _ in shifts)
    rare = [pair for pair in shifts if uses[pair[0].mask_hash] < _ZONE]
    moved = [(pair_scan, shift) for pair_scan, shift in rare if _is_certain(shift)]
    if moved:
        first, shift = moved[0]
        message = nmsg(
            "{count} mask seems to be shifted: the borders in {name} fit the edges of its "
            "image far better when it is moved {offset}.",
            "{count} masks seem to be shifted: the borders in {name} fit the edges of its "
            "image far better when it is moved {offset}.",
            len(moved),
            name=first.pair.mask.name,
            offset=_direction(shift.rows, shift.columns),
        )
        command = shell_command("fullconv", "check", scan.dataset.root, "--preview", "check.png")
        fix = msg(
            "look at the preview, and export or draw the mask again if it is shifted:\n{command}",
            command=command,
        )
        files = scan.names(pair_scan.pair.mask for pair_scan, _ in moved)
        yield Finding("warning", "shifted-mask", message, files, fix)


def _common_shift(shifts: list[Shift]) -> Shift | None:
    """Return the offset that most masks agree on; None if it is about 0 or few agree."""
    clear = [shift for shift in shifts if shift.fit > _CERTAIN / 2]
    if not clear:
        return None
    # Count by offset, of which there are few, not by mask.
    counts = Counter((shift.rows, shift.columns, shift.step) for shift in clear)
    offsets, votes = np.array(list(counts)), np.array(list(counts.values()))
    totals = []
    for offset in offsets:
        radius = _NEAR * np.maximum(offsets[:, 2], offset[2])
        near = (abs(offsets[:, :2] - offset[:2]) <= radius[:, None]).all(axis=1)
        totals.append(votes[near].sum())
    winner = list(counts)[int(np.argmax(totals))]
    best = next(shift for shift in clear if (shift.rows, shift.columns, shift.step) == winner)
    agreeing = [shift for shift in clear if _agrees(shift, best)]
    moved = sum(shift.fit_at_zero <= _MAX_REMAINING * shift.fit for shift in agreeing)
    if moved < max(_MIN_VOTES, _MAJORITY * len(clear)):
        return None
    rows = round(statistics.median(shift.rows for shift in agreeing))
    columns = round(statistics.median(shift.columns for shift in agreeing))
    if max(abs(rows), abs(columns)) <= _NEAR * best.step:
        return None
    return replace(best, rows=rows, columns=columns)


def _agrees(shift: Shift, other: Shift) -> bool:
    radius = _NEAR * max(shift.step, other.step)
    near = abs(shift.rows - other.rows) <= radius and abs(shift.columns - other.columns) <= radius
    return near and shift.fit > _CERTAIN / 2


def _is_certain(shift: Shift) -> bool:
    moved = max(abs(shift.rows), abs(shift.columns)) >= _MIN_STEPS * shift.step
    fits = shift.fit >= _CERTAIN and shift.fit_at_zero <= _MAX_REMAINING * shift.fit
    return moved and fits


def _direction(rows: int, columns: int) -> str:
    """Return an offset in words: "5 pixels down and 4 pixels left"."""
    parts: list[str] = []
    if rows:
        down = nmsg("{count} pixel down", "{count} pixels down", abs(rows))
        up = nmsg("{count} pixel up", "{count} pixels up", abs(rows))
        parts.append(down if rows > 0 else up)
    if columns:
        right = nmsg("{count} pixel right", "{count} pixels right", abs(columns))
        left = nmsg("{count} pixel left", "{count} pixels left", abs(columns))
        parts.append(right if columns > 0 else left)
    if len(parts) == 2:
        return msg("{vertical} and {horizontal}", vertical=parts[0], horizontal=parts[1])
    return join(parts)
