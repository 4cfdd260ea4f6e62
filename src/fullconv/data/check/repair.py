"""Write a repaired copy of a dataset, with plain id masks; the original is only read.

    OUT/images/[SPLIT/]a.jpg     copied byte for byte
    OUT/masks/[SPLIT/]a.png      class ids, as a palette PNG
    OUT/dataset.toml             class names and colors; written last

Each kind of mask is repaired in its own way:

    black and white    0 and 255, with grays between them if the format is lossy or the borders are
                       blurred: a threshold found in the values (Otsu 1979)
    colors             the nearest nominal color (of the class table; without one, the few that
                       cover nearly everything); the lower class if two are equally near
    ids                as in the class table; values without a class are ignored, and counted

A mask that was drawn before the EXIF rotation of its image is rotated with it. What cannot be
repaired (unreadable files, other sizes, ids in a lossy format) is left out and listed. An image in
several splits (rules `leak` and `near-leak`) stays in one: test before val before train.

Shapes: H, W image · K classes.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fullconv.core.errors import FullconvError
from fullconv.core.hardware import cpu_count
from fullconv.core.i18n import join, msg, nmsg
from fullconv.core.labels import RGB, Labels
from fullconv.core.text import shell_command
from fullconv.data.check.check import CheckReport
from fullconv.data.check.finding import relative_name
from fullconv.data.io.images import gray_to_rgb, read_reduced, turn_upright
from fullconv.data.io.mask_values import pack, unpack
from fullconv.data.io.masks import (
    Ids,
    class_lookup,
    read_histogram,
    read_mask,
    read_values,
    write_mask,
)
from fullconv.data.layouts.class_table import UndeterminedLabels
from fullconv.data.layouts.dataset import Dataset
from fullconv.data.layouts.file_names import Pair
from fullconv.data.layouts.mask_value_kinds import (
    is_black_and_white,
    is_blurred,
    is_nearly_black_and_white,
    nominal_colors,
    otsu_threshold,
)
from fullconv.data.layouts.paths import (
    repair_command,
    require_new,
    unused_path,
    where_to_paste,
    whole_or_nothing,
)
from fullconv.data.layouts.settings_file import write_settings

_Skipped: TypeAlias = dict[tuple[str, str], str]  # split and image -> why it is left out
_Progress: TypeAlias = Callable[[int, int], None]

_SPLIT_ORDER = ("test", "val", "train")  # an image in several splits stays in the first one
_UNDECIDED = ("gray-levels", "mixed-white", "one-class")  # rules
_MAX_LISTED = 20
_CHUNK = 1 << 14  # colors that are compared at once
_EXPORT_AGAIN = msg("export the mask again as PNG, at the size of its image")

# What was done: key in JSON and text.
_BETWEEN = msg("pixels between black and white")
_SNAPPED = msg("pixels given the nearest color")
_UNKNOWN = msg("pixels without a class, now ignored")
_TURNED = msg("masks turned as their photo's EXIF orientation tells")


@dataclass(frozen=True)
class RepairedCopy:
    """A repaired copy."""

    source: Path
    out: Path
    splits: dict[str, int]  # split -> number of pairs written
    labels: Labels  # of the copy
    done: dict[str, int]  # what was done, in words -> how often
    left_out: dict[str, str]  # file, relative to the source -> why it was left out

    def to_dict(self) -> dict[str, Any]:
        """Return the result as a dict for JSON."""
        return {
            "source": str(self.source),
            "out": str(self.out),
            "images": self.splits,
            "classes": list(self.labels.names),
            "done": self.done,
            "left_out": self.left_out,
        }

    def text(self) -> str:
        """Return the result for a terminal."""
        counts = ", ".join(f"{split} {count}" for split, count in self.splits.items())
        values = {"source": self.source, "out": self.out, "counts": counts}
        lines = [msg("{source} -> {out}: pairs of images and id masks: {counts}", **values)]
        lines += [msg("  {what}: {count}", what=what, count=n) for what, n in self.done.items()]
        for name, reason in list(self.left_out.items())[:_MAX_LISTED]:
            lines.append(msg("  left out: {name}: {reason}", name=name, reason=reason))
        if (more := len(self.left_out) - _MAX_LISTED) > 0:
            lines.append(msg("  ... and {count} more", count=more))
        lines.append(msg("next: {command}", command=shell_command("fullconv", "check", self.out)))
        return join(lines)


@dataclass
class _Plan:
    """The way masks become ids: `kind` is "threshold", "snap", "ids" or "read" (as in training)."""

    kind: str
    labels: Labels  # of the copy
    threshold: float = 0.0  # threshold: values above it become `bright`
    dark: int = 0
    bright: int = 1
    nominal: tuple[RGB, ...] = ()  # snap: colors, and their ids
    nominal_ids: tuple[int, ...] = ()
    new_ids: dict[int, int] = field(default_factory=dict)  # ids: old class id -> new class id
    turned: frozenset[Path] = frozenset()  # masks without the EXIF orientation of their photos


def repair(
    report: CheckReport, out: str | Path, *, progress: _Progress | None = None
) -> RepairedCopy:
    """Write a repaired copy of a dataset to a new folder.

    `progress` is called with (pairs done, all pairs).

    Raises:
        FullconvError: `out` is not new or is inside the dataset, or nothing can be repaired.
    """
    dataset, out = report.dataset, Path(out)
    require_new(out, dataset.root, msg("the repaired copy"), repair_command(dataset.root))
    turned = [
        f for finding in report.errors if finding.rule == "turned-mask" for f in finding.files
    ]
    plan = _make_plan(report)
    plan.turned = frozenset(dataset.root / name for name in turned)
    return _write(dataset, plan, _leaked_images(report), out, progress)


def plain_copy(
    dataset: Dataset, out: str | Path, *, progress: _Progress | None = None
) -> RepairedCopy:
    """Write a copy of a dataset without errors, whose masks hold class ids as training reads them.

    Classes, names and splits stay. See `repair` for arguments and errors.
    """
    again = shell_command("fullconv", "convert", dataset.root, unused_path(dataset.root, "_masks"))
    require_new(Path(out), dataset.root, msg("the copy"), again)
    return _write(dataset, _Plan("read", _plain(dataset.labels)), {}, Path(out), progress)


def _write(
    dataset: Dataset, plan: _Plan, skipped: _Skipped, out: Path, progress: _Progress | None
) -> RepairedCopy:
    """Write the whole copy, or nothing."""
    jobs = [(split, pair) for split, pairs in dataset.splits.items() for pair in pairs]
    done: Counter[str] = Counter()
    written: Counter[str] = Counter()
    left_out = {name: reason for (_, name), reason in skipped.items()}

    def write_pair(job: tuple[str, Pair]) -> tuple[str, Counter[str]] | None:
        """Return why the pair is left out ("" if it is not) and what was done; None if skipped."""
        split, pair = job
        if (split, relative_name(dataset.root, pair.image)) in skipped:
            return None
        try:
            ids, steps = _repaired_mask(plan, dataset.labels, pair)
        except FullconvError as error:
            return error.message, Counter()
        write_mask(out / "masks" / split / f"{pair.name}.png", ids, plan.labels)
        copy = out / "images" / split / (pair.name + pair.image.suffix)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(pair.image, copy)
        return "", steps

    with whole_or_nothing(out):
        with ThreadPoolExecutor(cpu_count()) as pool:
            results = zip(jobs, pool.map(write_pair, jobs), strict=True)
            for count, ((split, pair), result) in enumerate(results, 1):
                if result is not None:
                    reason, steps = result
                    done += steps
                    written[split] += not reason
                    if reason:
                        left_out[relative_name(dataset.root, pair.mask)] = reason
                if progress is not None:
                    progress(count, len(jobs))
        if not written.total():
            reason = next(iter(left_out.values()), msg("it has no pairs."))
            values = {"root": dataset.root, "reason": reason}
            message = msg("nothing in {root} can be repaired: {reason}", **values)
            raise FullconvError(message, shell_command("fullconv", "check", dataset.root))
        write_settings(out, plan.labels)
    unpaired = (*dataset.unpaired_images, *dataset.unpaired_masks)
    no_partner = msg("it has no partner")
    left_out |= {relative_name(dataset.root, path): no_partner for path in unpaired}
    if plan.kind == "threshold":
        done[msg("masks cut at {threshold:g}", threshold=plan.threshold)] = written.total()
    splits = {split: written[split] for split in dataset.splits if written[split]}
    return RepairedCopy(dataset.root, out, splits, plan.labels, dict(done), left_out)


def nearest_color(values: NDArray[np.uint8], colors: tuple[RGB, ...]) -> NDArray[np.int64]:
    """Return (H, W) the index of the nearest color of (H, W, 3) values, by squared distance in RGB;
    the first one if several are equally near."""
    distinct, inverse = np.unique(pack(values), return_inverse=True)
    rgb = unpack(distinct).astype(np.int64)
    table = np.array(colors, np.int64)
    best = np.empty(len(distinct), np.int64)
    for start in range(0, len(distinct), _CHUNK):
        part = rgb[start : start + _CHUNK, None]
        best[start : start + _CHUNK] = ((part - table) ** 2).sum(axis=2).argmin(axis=1)
    return best[inverse.reshape(values.shape[:2])]


def _make_plan(report: CheckReport) -> _Plan:
    labels, values = report.dataset.labels, report.value_pixels

    # Masks in color.
    if any(isinstance(value, tuple) for value in values):
        if isinstance(labels, UndeterminedLabels):
            nominal = nominal_colors(values)
            names = tuple(f"class {k}" for k in range(len(nominal)))
            ids = tuple(range(len(names)))
            return _Plan("snap", Labels(names, nominal), nominal=nominal, nominal_ids=ids)
        # Every color with a class (or ignored), the lower class first.
        listed = {value: k for value, k in labels.values.items() if isinstance(value, tuple)}
        colors = listed or {color: k for k, color in enumerate(labels.colors)}
        order = sorted(colors, key=lambda color: (colors[color], color))
        ids = tuple(colors[color] for color in order)
        return _Plan("snap", _plain(labels), nominal=tuple(order), nominal_ids=ids)

    # Masks in black and white, perhaps blurred or compressed.
    grays: Mapping[Any, int] = values
    compressed = report.lossy and max(grays, default=0) > 200
    white = is_black_and_white(grays) or is_blurred(grays) or is_nearly_black_and_white(grays)
    if white or compressed:
        dark, bright = _dark_and_bright(report.dataset.root, labels)
        new = Labels(labels.proposed) if isinstance(labels, UndeterminedLabels) else _plain(labels)
        return _Plan("threshold", new, otsu_threshold(grays), dark, bright)

    # What the values mean is for the user to decide.
    for finding in report.errors:
        if finding.rule in _UNDECIDED:
            message = msg("{message} A repair cannot decide this.", message=finding.message)
            raise FullconvError(message, finding.fix)

    # Masks of ids; gaps between made-up names are closed.
    used = list(range(len(labels)))
    if not report.dataset.named:
        totals = np.sum(list(report.class_pixels.values()), axis=0)
        used = [k for k in used if totals[k]]
    new_ids = {old: new for new, old in enumerate(used)}
    names = tuple(labels.names[k] for k in used)
    closed = Labels(names, tuple(labels.colors[k] for k in used), labels.ignore_index)
    return _Plan("ids", closed, new_ids=new_ids)


def _dark_and_bright(root: Path, labels: Labels) -> tuple[int, int]:
    """Return the classes of black and of white."""
    if isinstance(labels, UndeterminedLabels):
        return 0, 1
    # A table of colors lists them in any order: white may be class 0.
    black, white = labels.values.get((0, 0, 0)), labels.values.get((255, 255, 255))
    if black is not None and white is not None and labels.values.keys().isdisjoint((0, 255)):
        return black, white
    dark, bright = labels.class_of(0), labels.values.get(255)
    if bright is None:
        bright = 1 if len(labels) == 2 else None
    if dark is None or bright is None:
        message = nmsg(
            "the masks are black and white, and the class table does not tell which of its "
            "{count} class white is.",
            "the masks are black and white, and the class table does not tell which of its "
            "{count} classes white is.",
            len(labels),
        )
        where, lines = where_to_paste(root), f'[map]\n255 = "{labels.names[-1]}"'
        raise FullconvError(message, msg("{where}:\n{lines}", where=where, lines=lines))
    return dark, bright


def _repaired_mask(plan: _Plan, labels: Labels, pair: Pair) -> tuple[Ids, Counter[str]]:
    """Return (H, W) class ids of a pair's mask, and what was done to it."""
    done: Counter[str] = Counter()
    ids = _repaired_ids(plan, labels, pair.mask, done)
    size, _ = read_reduced(pair.image, 1)  # reads the whole file, which may be truncated
    if ids.shape == size[::-1] != size or pair.mask in plan.turned:
        ids = turn_upright(ids, pair.image)
        if ids.shape != size:
            message = msg("its mask is turned, and the photo has no EXIF orientation.")
            raise FullconvError(message, _EXPORT_AGAIN)
        done[_TURNED] += 1
    if ids.shape != size:
        message = msg(
            "its mask has {mask_height} x {mask_width} pixels (height x width), the image "
            "{height} x {width}.",
            mask_height=ids.shape[0],
            mask_width=ids.shape[1],
            height=size[0],
            width=size[1],
        )
        raise FullconvError(message, _EXPORT_AGAIN)
    return ids, +done


def _repaired_ids(plan: _Plan, labels: Labels, mask: Path, done: Counter[str]) -> Ids:
    """Return (H, W) class ids of a mask, and count in `done` what was done to it."""
    if plan.kind == "read":
        return read_mask(mask, labels)
    if plan.kind == "ids":
        histogram, values = read_histogram(mask, labels)
        if histogram.lossy:
            message = msg("its mask has ids in a lossy format, which changed them.")
            raise FullconvError(message, _EXPORT_AGAIN)
        old_ids = class_lookup(values, labels, gray_rgb=histogram.gray_rgb)  # -1: no class
        table = np.full(max(len(labels), labels.ignore_index) + 2, plan.labels.ignore_index)
        table[list(plan.new_ids)] = list(plan.new_ids.values())
        done[_UNKNOWN] += int((old_ids < 0).sum())
        return table[old_ids]
    values = read_values(mask, labels)
    if plan.kind == "threshold":
        if values.ndim == 3:
            message = msg("its mask has colors, but the other masks are gray.")
            raise FullconvError(message, _EXPORT_AGAIN)
        done[_BETWEEN] += int(((values > 0) & (values < 255)).sum())
        return np.where(values > plan.threshold, plan.bright, plan.dark)
    colors = values if values.ndim == 3 else gray_to_rgb(values)
    index = nearest_color(colors.astype(np.uint8), plan.nominal)
    snapped = np.array(plan.nominal, np.uint8)[index]
    done[_SNAPPED] += int((snapped != colors).any(axis=2).sum())
    return np.array(plan.nominal_ids)[index]


def _plain(labels: Labels) -> Labels:
    """Return the same classes, without the meaning of mask values."""
    return Labels(labels.names, labels.colors, labels.ignore_index)


def _leaked_images(report: CheckReport) -> _Skipped:
    """Return the images that are in an earlier split of `_SPLIT_ORDER` as well."""
    root, dataset = report.dataset.root, report.dataset
    splits: dict[str, list[str]] = {}
    for split in _SPLIT_ORDER:
        for pair in dataset.splits.get(split, ()):
            splits.setdefault(relative_name(root, pair.image), []).append(split)
    skipped: _Skipped = {}
    for finding in report.findings:
        for group in finding.groups:
            places = [(_SPLIT_ORDER.index(s), name) for name in group for s in splits[name]]
            first, first_name = min(places)
            values = {"split": _SPLIT_ORDER[first], "name": first_name}
            if finding.rule == "leak":
                reason = msg("the same image stays in {split} as {name}", **values)
            else:
                reason = msg("a similar image stays in {split} as {name}", **values)
            skipped |= {(_SPLIT_ORDER[k], name): reason for k, name in places if k > first}
    return skipped
