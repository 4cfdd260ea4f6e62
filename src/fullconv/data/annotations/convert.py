"""Convert: annotations of any tool, and masks in any layout -> plain images, id masks and a
dataset.toml.

    OUT/images/[SPLIT/]a.jpg     copied byte for byte (or taken out of the annotation file)
    OUT/masks/[SPLIT/]a.png      class ids, as a palette PNG
    OUT/dataset.toml             the class names; written last

Shapes of labelme, COCO, Label Studio and Ultralytics are painted; masks become ids as a training
reads them. Everything is read and looked at before anything is written, so that all that is wrong
is said at once. The source is only read. A split is kept where it stands in the names: a folder
train/ val/ test/, or a file per split.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path, PurePosixPath
from typing import Any

from fullconv.core.errors import FullconvError
from fullconv.core.labels import Labels
from fullconv.core.text import plural, shell_command
from fullconv.data.annotations import detect as kinds
from fullconv.data.annotations import labelme
from fullconv.data.annotations.shapes import Annotated, Annotations, class_table, paint
from fullconv.data.check.check import check
from fullconv.data.check.repair import plain_copy
from fullconv.data.download.download import resolve_dataset
from fullconv.data.io.masks import write_mask
from fullconv.data.layouts import dataset as layouts
from fullconv.data.layouts.class_table import SETTINGS_NAME
from fullconv.data.layouts.pairing import images_in
from fullconv.data.layouts.paths import require_new, unused_path

Progress = Callable[[int, int], None]

LAYOUTS = (*kinds.TOOLS, *layouts.LAYOUTS)
ORDERS = ("auto", "area", "file")
_LISTED = 100  # problems that an error spells out


@dataclass(frozen=True)
class Converted:
    """What was converted.

    Args:
        source, out: the folders (or the one file) that were named.
        layout: a tool ("labelme", "coco", "label-studio", "ultralytics") or a layout of masks.
        reason: what it was recognised by, in words.
        splits: split, or "all" where none is known -> images.
        labels: the class table.
        notes: what was decided without being told, and what was left out.
    """

    source: Path
    out: Path
    layout: str
    reason: str
    splits: dict[str, int]
    labels: Labels
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """One JSON object."""
        return {
            "source": str(self.source),
            "out": str(self.out),
            "layout": self.layout,
            "reason": self.reason,
            "images": sum(self.splits.values()),
            "splits": self.splits,
            "classes": list(self.labels.names),
            "ignore_index": self.labels.ignore_index,
            "notes": list(self.notes),
        }

    def text(self) -> str:
        """To read."""
        parts = ", ".join(f"{split} {count}" for split, count in self.splits.items())
        names = ", ".join(self.labels.names)
        return "\n".join([
            f"{self.source}: {self.layout}, because of {self.reason}",
            f"{plural(sum(self.splits.values()), 'image')} ({parts}) -> {self.out}",
            f"{plural(len(self.labels), 'class', 'classes')}: {names}",
            *(f"note: {note}" for note in self.notes),
            f"next: {shell_command('fullconv', 'check', self.out)}",
        ])  # fmt: skip


def convert(
    source: str | Path,
    out: str | Path,
    *,
    layout: str | None = None,
    order: str = "auto",
    progress: Progress | None = None,
) -> Converted:
    """Turn a folder of annotations or masks, one JSON file, or a published data set by its name,
    into a data set of id masks.

    `layout` overrules what is recognised: masks where the folder itself lies as a data set of masks
    does, else annotations, else masks in a folder below. `order` is of COCO and Ultralytics only:
    see `coco.read_file`.
    """
    _one_of("layout", layout, LAYOUTS)
    _one_of("order", order, ORDERS)
    source, out = resolve_dataset(source), Path(out)
    if not source.exists():
        nearest = next((p for p in source.parents if p.is_dir()), Path())
        raise FullconvError(f"there is no folder or file {source}.", shell_command("ls", nearest))
    alone = source.is_file() and source.name != SETTINGS_NAME  # one file of annotations
    root = source.parent if source.is_file() else source
    again = shell_command("fullconv", "convert", source, unused_path(root, "_masks"))
    require_new(out, source, "the data set", again)
    if layout in layouts.LAYOUTS or (layout is None and not alone and layouts.match_layout(root)):
        return _from_masks(source, layouts.load_dataset(source, layout=layout), out, progress)
    found = kinds.read(root, source, tool=layout, order=order)
    if found.tool:
        return _from_annotations(root, source, out, found, progress)
    try:
        dataset = layouts.load_dataset(source)
    except FullconvError as error:
        raise _nothing(source, found, error) from error
    return _from_masks(source, dataset, out, progress)


def _from_annotations(
    root: Path, source: Path, out: Path, found: Annotations, progress: Progress | None
) -> Converted:
    """What was drawn, painted."""
    if found.problems or not found.images:
        raise _refusal(source, found)
    labels = class_table(found.names)
    images = _with_splits(found.images)
    notes = [*found.notes, *_left_alone(images, found)]
    lost = _write(images, labels, out, progress)
    if lost:
        notes.append(f"left out: {plural(lost, 'shape')} without the centre of a pixel inside")
    counted = Counter(image.split or "all" for image in images)
    splits = {split: counted[split] for split in ("train", "val", "test", "all") if counted[split]}
    return Converted(source, out, found.tool, found.reason, splits, labels, tuple(notes))


def _from_masks(
    source: Path, dataset: layouts.Dataset, out: Path, progress: Progress | None
) -> Converted:
    """Masks that are there already, once they are known to hold no error."""
    report = check(dataset, progress=progress)
    report.raise_for_errors()
    copy = plain_copy(dataset, out, progress=progress)
    notes = list(dataset.notes)
    for why, count in Counter(copy.left_out.values()).items():
        first = next(name for name, reason in copy.left_out.items() if reason == why)
        notes.append(f"left out: {plural(count, 'file')}, such as {first}: {why}")
    if report.warnings:
        says = shell_command("fullconv", "check", source)
        notes.append(f"warnings: {len(report.warnings)}; {says} says which")
    reason = dataset.reason
    return Converted(source, out, dataset.layout, reason, copy.splits, copy.labels, tuple(notes))


def _with_splits(images: list[Annotated]) -> list[Annotated]:
    """With names that are files' names, each once; and with splits where every image has one."""
    split = all(image.split for image in images)
    taken: set[str] = set()
    done = []
    for image in images:
        parts = [part for part in PurePosixPath(image.name).parts if part not in ("..", "/")]
        whole = "_".join(parts)
        again = (f"{whole}_{number}" for number in range(2, len(images) + 2))
        names = [name.lstrip(".") or "image" for name in (parts[-1], whole)]
        name = next(n for n in (*names, *again) if n.lower() not in taken)
        taken.add(name.lower())
        done.append(replace(image, name=name, split=image.split if split else ""))
    return done


def _left_alone(images: list[Annotated], found: Annotations) -> list[str]:
    """Notes on what is there and not used."""
    notes = ['class 0 is "background": what no shape covers']
    notes += [f"left out: {count} {what}" for what, count in sorted(found.left_out.items())]
    used = {image.image.resolve() for image in images if image.image}
    there = {path for folder in {path.parent for path in used} for path in images_in(folder)}
    if alone := sorted(there - used):
        images_alone = plural(len(alone), "image")
        notes.append(f"left out: {images_alone} without annotations, such as {alone[0]}")
    if found.others:
        files = plural(len(found.others), "JSON file")
        notes.append(f"left out: {files} of another kind, such as {found.others[0]}")
    return notes


def _write(images: list[Annotated], labels: Labels, out: Path, progress: Progress | None) -> int:
    """The data set; all of it, or nothing. Gives the number of shapes that left no pixel."""
    new = not out.exists()

    def write_one(image: Annotated) -> int:
        ids, lost = paint(image, labels)
        write_mask(out / "masks" / image.split / f"{image.name}.png", ids, labels)
        copy = out / "images" / image.split / (image.name + image.suffix)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if image.image is None:
            copy.write_bytes(labelme.image_bytes(kinds.read_json(image.source)))
        else:
            shutil.copyfile(image.image, copy)
        return lost

    names = ", ".join(json.dumps(name, ensure_ascii=False) for name in labels.names)
    table = f"classes = [{names}]\nignore_index = {labels.ignore_index}\n"
    lost = 0
    try:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for done, count in enumerate(pool.map(write_one, images), 1):
                lost += count
                if progress is not None:
                    progress(done, len(images))
        (out / SETTINGS_NAME).write_text(table, encoding="utf-8", newline="\n")
    except BaseException:
        for folder in (out / "images", out / "masks"):
            shutil.rmtree(folder, ignore_errors=True)
        if new and out.is_dir():
            shutil.rmtree(out, ignore_errors=True)
        raise
    return lost


def _one_of(what: str, value: str | None, known: Iterable[str]) -> None:
    if value is not None and value not in known:
        raise FullconvError(
            f"no {what} {value!r}; there are {', '.join(known)}.",
            f"--{what} {get_close_matches(value, known, 1, 0)[0]}",
        )


def _refusal(source: Path, found: Annotations) -> FullconvError:
    problems = found.problems
    if not problems:
        return FullconvError(
            f"{source} holds no {found.tool} image to convert. {kinds.EXPECTED}{_seen(found)}",
            shell_command("fullconv", "check", source),
        )
    if len(problems) == 1:
        return problems[0]
    lines = [problem.message for problem in problems[:_LISTED]]
    lines += [f"... and {len(problems) - _LISTED} more"] if len(problems) > _LISTED else []
    head = f"{len(problems)} files or images cannot be converted, and nothing was written:"
    return FullconvError("\n  ".join([head, *lines]), f"{problems[0].hint}   # for the first")


def _nothing(source: Path, found: Annotations, error: FullconvError) -> FullconvError:
    """Neither annotations nor masks."""
    return FullconvError(
        f"{source} holds no annotations to convert, and no masks that can be. {kinds.EXPECTED}"
        f"{_seen(found)} Of masks: {error.message}",
        error.hint,
    )


def _seen(found: Annotations) -> str:
    return f" Found {', '.join(found.others[:5])}." if found.others else ""
