"""Fix: a repaired copy of a data set, as plain id masks; the original is only read.

    OUT/images/[SPLIT/]a.jpg     copied byte for byte
    OUT/masks/[SPLIT/]a.png      class ids, as a palette PNG
    OUT/dataset.toml             the class names and colours; written last

What each kind of mask becomes:

    black and white    0 and 255, with the greys between where it is lossy or blurred: cut in two at
                       a threshold that is found in the values (Otsu 1979)
    colours            the nearest of the nominal colours (of the class table; where there is none,
                       the few that cover nearly everything), the lower class where two are as near
    ids                as the class table says; what has no class is ignored, and counted

A mask that lies as its photo did before its EXIF rotation is turned with it. What cannot be mended
(files that cannot be read, other sizes, ids in a lossy format) is left out, and named. An image in
several splits (rules `leak` and `near-leak`) stays in one: test before val before train.

Shapes: H, W image · K classes.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fullconv.core.errors import FullconvError
from fullconv.core.labels import RGB, Labels, format_color
from fullconv.core.text import plural, shell_command
from fullconv.data.check.check import CheckReport
from fullconv.data.io.images import read_reduced, turn_upright
from fullconv.data.io.masks import (
    Ids,
    Value,
    class_lookup,
    count_values,
    is_lossy,
    read_mask,
    read_values,
    write_mask,
)
from fullconv.data.layouts import class_table as tables
from fullconv.data.layouts.dataset import Dataset
from fullconv.data.layouts.pairing import Pair
from fullconv.data.layouts.paths import repair_command, require_new, unused_path, where_to_paste

_Skipped: TypeAlias = dict[tuple[str, str], str]  # split and image -> why it is left out

_ORDER = ("test", "val", "train")  # of an image in several splits the first one stays
_LISTED = 20
_AGAIN = "export the mask again as PNG, at the size of its image"


@dataclass(frozen=True)
class Fixed:
    """What was mended.

    Args:
        source, out: the folders.
        splits: split -> pairs written.
        labels: the class table of the copy.
        done: what was done, in words -> how often.
        left_out: file, relative to the source -> why.
    """

    source: Path
    out: Path
    splits: dict[str, int]
    labels: Labels
    done: dict[str, int]
    left_out: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """One JSON object."""
        return {
            "source": str(self.source),
            "out": str(self.out),
            "images": self.splits,
            "classes": list(self.labels.names),
            "done": self.done,
            "left_out": self.left_out,
        }

    def text(self) -> str:
        """To read."""
        counts = ", ".join(f"{split} {count}" for split, count in self.splits.items())
        lines = [f"{self.source} -> {self.out}: pairs of images and id masks: {counts}"]
        lines += [f"  {what}: {count}" for what, count in self.done.items()]
        names = list(self.left_out)
        lines += [f"  left out: {name}: {self.left_out[name]}" for name in names[:_LISTED]]
        lines += [f"  ... and {len(names) - _LISTED} more"] if len(names) > _LISTED else []
        return "\n".join([*lines, f"next: {shell_command('fullconv', 'check', self.out)}"])


@dataclass
class _Plan:
    """How masks become ids: `kind` is "cut", "snap", "ids" or "read" (as a training reads them)."""

    kind: str
    labels: Labels  # of the copy
    threshold: float = 0.0  # cut: values above it are `bright`
    dark: int = 0
    bright: int = 1
    nominal: tuple[RGB, ...] = ()  # snap
    nominal_ids: tuple[int, ...] = ()
    to_id: dict[int, int] = field(default_factory=dict)  # ids: class id before -> after


def repair(
    report: CheckReport, out: str | Path, *, progress: Callable[[int, int], None] | None = None
) -> Fixed:
    """Write a repaired copy of the data set that a report is about.

    Raises:
        FullconvError: `out` is not new or lies inside the data set, or nothing can be mended.
    """
    dataset, out = report.dataset, Path(out)
    require_new(out, dataset.root, "the repaired copy", repair_command(dataset.root))
    plan = _plan(report, [pair for pairs in dataset.splits.values() for pair in pairs])
    return _write(dataset, plan, _leaks(report), out, progress)


def plain_copy(
    dataset: Dataset, out: str | Path, *, progress: Callable[[int, int], None] | None = None
) -> Fixed:
    """Write a copy of a data set without errors: every class, name and split stays, and its masks
    become ids as a training reads them."""
    again = shell_command("fullconv", "convert", dataset.root, unused_path(dataset.root, "_masks"))
    require_new(Path(out), dataset.root, "the copy", again)
    return _write(dataset, _Plan("read", _plain(dataset.labels)), {}, Path(out), progress)


def _write(
    dataset: Dataset,
    plan: _Plan,
    skipped: _Skipped,
    out: Path,
    progress: Callable[[int, int], None] | None,
) -> Fixed:
    """The copy; all of it, or nothing."""
    jobs = [(split, pair) for split, pairs in dataset.splits.items() for pair in pairs]
    done: Counter[str] = Counter()
    written: Counter[str] = Counter()
    left_out = {name: why for (_, name), why in skipped.items()}
    new = not out.exists()

    def one(job: tuple[str, Pair]) -> tuple[str, Counter[str]] | None:
        split, pair = job
        if (split, _name(dataset.root, pair.image)) in skipped:
            return None
        try:
            ids, what = _mended(plan, dataset.labels, pair)
        except FullconvError as error:
            return error.message, Counter()
        write_mask(out / "masks" / split / f"{pair.name}.png", ids, plan.labels)
        copy = out / "images" / split / (pair.name + pair.image.suffix)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(pair.image, copy)
        return "", what

    try:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for count, found in enumerate(pool.map(one, jobs), 1):
                split, pair = jobs[count - 1]
                why, what = found or ("", Counter())
                done += what
                written[split] += found is not None and not why
                if why:
                    left_out[_name(dataset.root, pair.mask)] = why
                if progress is not None:
                    progress(count, len(jobs))
        if not written.total():
            why = "it has no pairs"
            why = next(iter(left_out.values()), why)
            raise FullconvError(
                f"nothing in {dataset.root} can be mended: {why}",
                shell_command("fullconv", "check", dataset.root),
            )
        _write_table(out, plan.labels)
    except BaseException:
        for folder in (out / "images", out / "masks"):
            shutil.rmtree(folder, ignore_errors=True)
        if new:
            shutil.rmtree(out, ignore_errors=True)
        raise
    alone = (*dataset.unpaired_images, *dataset.unpaired_masks)
    why = "it has no partner"
    left_out |= {_name(dataset.root, path): why for path in alone}
    if plan.kind == "cut":
        done[f"masks cut at {plan.threshold:g}"] = written.total()
    splits = {split: written[split] for split in dataset.splits if written[split]}
    return Fixed(dataset.root, out, splits, plan.labels, dict(done), left_out)


def nearest(values: NDArray[np.uint8], colors: tuple[RGB, ...]) -> NDArray[np.int64]:
    """(H, W) position of the nearest of some colours, by squared distance in RGB; the first one of
    those that are equally near. `values` is (H, W, 3)."""
    packed = values.astype(np.int64) @ np.array([1 << 16, 1 << 8, 1])
    found, inverse = np.unique(packed, return_inverse=True)
    rgb = np.stack([found >> 16, found >> 8 & 255, found & 255], axis=1)
    table = np.array(colors, np.int64)
    best = np.empty(len(found), np.int64)
    for start in range(0, len(found), 1 << 14):
        part = rgb[start : start + (1 << 14), None]
        best[start : start + (1 << 14)] = ((part - table) ** 2).sum(axis=2).argmin(axis=1)
    return best[inverse.reshape(values.shape[:2])]


def _plan(report: CheckReport, pairs: list[Pair]) -> _Plan:
    labels = report.dataset.labels
    values: Counter[Value] = Counter()
    lossy = False
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for found in pool.map(lambda pair: _tally(pair.mask), pairs):
            if found is not None:
                values.update(found.counts)
                lossy = lossy or found.lossy
    if any(isinstance(value, tuple) for value in values):
        if isinstance(labels, tables.UndeterminedLabels):
            nominal = tables.nominal_colors(values)
            names = tuple(f"class {k}" for k in range(len(nominal)))
            return _Plan("snap", Labels(names, nominal), 0, 0, 1, nominal, tuple(range(len(names))))
        colors = _colors_of(labels)
        return _Plan(
            "snap", _plain(labels), 0, 0, 1, tuple(colors), tuple(colors[c] for c in colors)
        )
    grey = {value: count for value, count in values.items() if isinstance(value, int)}
    if (
        tables.is_black_and_white(grey)
        or tables.is_blurred(grey)
        or (lossy and max(grey, default=0) > 200)
    ):
        dark, bright = _two_classes(report.dataset.root, labels)
        base = (
            Labels(labels.proposed)
            if isinstance(labels, tables.UndeterminedLabels)
            else _plain(labels)
        )
        return _Plan("cut", base, tables.otsu_threshold(grey), dark, bright)
    kept = list(range(len(labels)))
    if not report.dataset.named:  # close the gaps
        totals = np.sum(list(report.class_pixels.values()), axis=0)
        kept = [k for k in kept if totals[k]]
    to_id = {old: new for new, old in enumerate(kept)}
    names = tuple(labels.names[k] for k in kept)
    closed = Labels(names, tuple(labels.colors[k] for k in kept), labels.ignore_index)
    return _Plan("ids", closed, to_id=to_id)


def _two_classes(root: Path, labels: Labels) -> tuple[int, int]:
    """The classes of black and of white."""
    if isinstance(labels, tables.UndeterminedLabels):
        return 0, 1
    dark, bright = labels.class_of(0), labels.values.get(255)
    if bright is None:
        bright = 1 if len(labels) == 2 else None
    if dark is None or bright is None:
        raise FullconvError(
            f"the masks are black and white, and the table does not say which of its "
            f"{plural(len(labels), 'class', 'classes')} white is.",
            f'{where_to_paste(root)}:\n[map]\n255 = "{labels.names[-1]}"',
        )
    return dark, bright


def _mended(plan: _Plan, labels: Labels, pair: Pair) -> tuple[Ids, Counter[str]]:
    """(H, W) class ids of a pair's mask, and what was done to it."""
    done: Counter[str] = Counter()
    ids = _ids(plan, labels, pair.mask, done)
    size, _ = read_reduced(pair.image, 1)  # to its end: it may be cut off
    if ids.shape != size:
        if ids.shape != size[::-1]:
            raise FullconvError(
                f"its mask has {ids.shape[0]} x {ids.shape[1]} pixels (height x width), the "
                f"image {size[0]} x {size[1]}.",
                _AGAIN,
            )
        ids = turn_upright(ids, pair.image)
        if ids.shape != size:
            raise FullconvError("its mask is turned, and no EXIF orientation says how.", _AGAIN)
        done["masks turned as their photo's EXIF orientation says"] += 1
    return ids, +done


def _ids(plan: _Plan, labels: Labels, mask: Path, done: Counter[str]) -> Ids:
    """(H, W) class ids of a mask; `done` counts what was done to it."""
    if plan.kind == "read":
        return read_mask(mask, labels)
    values = read_values(mask)
    if plan.kind == "cut":
        if values.ndim == 3:
            raise FullconvError("its mask holds colours, those of the others are grey.", _AGAIN)
        done["pixels between black and white"] += int(((values > 0) & (values < 255)).sum())
        return np.where(values > plan.threshold, plan.bright, plan.dark)
    if plan.kind == "snap":
        colors = values if values.ndim == 3 else np.repeat(values[..., None], 3, axis=2)
        place = nearest(colors.astype(np.uint8), plan.nominal)
        exact = np.array(plan.nominal, np.uint8)[place]
        done["pixels given the nearest colour"] += int((exact != colors).any(axis=2).sum())
        return np.array(plan.nominal_ids)[place]
    if is_lossy(mask):
        raise FullconvError("its mask holds ids in a lossy format, which changed them.", _AGAIN)
    before = class_lookup(values, labels)  # class id, or -1
    table = np.full(max(len(labels), labels.ignore_index) + 2, plan.labels.ignore_index)
    for old, new in plan.to_id.items():
        table[old] = new
    done["pixels without a class, now ignored"] += int((before < 0).sum())
    return table[before]


def _colors_of(labels: Labels) -> dict[RGB, int]:
    """Every colour that has a class (or is ignored), the lower class first."""
    told = {value: k for value, k in labels.values.items() if isinstance(value, tuple)}
    found = told or {color: k for k, color in enumerate(labels.colors)}
    return dict(sorted(found.items(), key=lambda item: (item[1], item[0])))


def _plain(labels: Labels) -> Labels:
    """The same classes, without what mask values mean."""
    return Labels(labels.names, labels.colors, labels.ignore_index)


def _leaks(report: CheckReport) -> _Skipped:
    """Images that stand in an earlier split of `_ORDER`, too -> why they are left out here."""
    root, dataset = report.dataset.root, report.dataset
    splits: dict[str, list[str]] = {}
    for split in _ORDER:
        for pair in dataset.splits.get(split, ()):
            splits.setdefault(_name(root, pair.image), []).append(split)
    skipped: _Skipped = {}
    for finding in report.findings:
        same = "the same image" if finding.rule == "leak" else "an image that looks the same"
        for group in finding.groups:
            every = [(_ORDER.index(split), name) for name in group for split in splits[name]]
            at, first = min(every)
            why = f"{same} stays in {_ORDER[at]} as {first}"
            skipped |= {(_ORDER[k], name): why for k, name in every if k > at}
    return skipped


def _tally(path: Path) -> Any:
    try:
        return count_values(path)
    except FullconvError:
        return None  # is left out later, and said


def _name(root: Path, path: Path) -> str:
    """As findings name it."""
    return (path.relative_to(root) if path.is_relative_to(root) else path).as_posix()


def _write_table(out: Path, labels: Labels) -> None:
    names = ", ".join(json.dumps(name, ensure_ascii=False) for name in labels.names)
    lines = [f"classes = [{names}]", f"ignore_index = {labels.ignore_index}", "", "[colors]"]
    for name, color in zip(labels.names, labels.colors, strict=True):
        lines.append(f'{json.dumps(name, ensure_ascii=False)} = "{format_color(color)}"')
    (out / tables.SETTINGS_NAME).write_text("\n".join(lines) + "\n", "utf-8", newline="\n")
