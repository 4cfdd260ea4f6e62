"""Convert annotations or masks to images, id masks and a dataset.toml.

    OUT/images/[SPLIT/]a.jpg     copied byte for byte (or extracted from the annotation file)
    OUT/masks/[SPLIT/]a.png      class ids, as a palette PNG
    OUT/dataset.toml             the class names; written last

Shapes of labelme, COCO, Label Studio and Ultralytics are painted; masks become the ids that
training reads. All problems are reported before anything is written. The source is not changed.
Splits come from names: a folder train/, val/ or test/, or one file per split.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from fullconv.core.errors import FullconvError
from fullconv.core.hardware import cpu_count
from fullconv.core.i18n import join, msg, nmsg
from fullconv.core.labels import Labels
from fullconv.core.text import nearest, shell_command, truncated_list
from fullconv.data.annotations import class_masks, detect, labelme
from fullconv.data.annotations.shapes import AnnotatedImage, Annotations, class_table, paint
from fullconv.data.check.check import check
from fullconv.data.check.repair import plain_copy
from fullconv.data.download.download import resolve_dataset
from fullconv.data.io.limits import missing_file
from fullconv.data.io.masks import write_mask
from fullconv.data.layouts.class_masks import find_class_masks
from fullconv.data.layouts.dataset import LAYOUTS as MASK_LAYOUTS
from fullconv.data.layouts.dataset import Dataset, load_dataset, match_layout
from fullconv.data.layouts.pairing import images_in
from fullconv.data.layouts.paths import require_new, unused_path, whole_or_nothing
from fullconv.data.layouts.settings_file import SETTINGS_NAME, write_settings

Progress = Callable[[int, int], None]

LAYOUTS = (*detect.TOOLS, *MASK_LAYOUTS)
ORDERS = ("auto", "area", "file")
_MAX_LISTED = 100  # problems that an error spells out


@dataclass(frozen=True)
class ConvertResult:
    """A converted dataset."""

    source: Path  # the folder or the single file that was named
    out: Path
    layout: str  # a tool ("labelme", "coco", ...) or a layout of masks
    reason: str  # what the layout was recognized by
    splits: dict[str, int]  # split, or "all" if there are none -> number of images
    labels: Labels
    notes: tuple[str, ...]  # decisions that the user should know, and what was left out

    def to_dict(self) -> dict[str, Any]:
        """Return one JSON object."""
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
        """Return the result for a terminal."""
        source = {"source": self.source, "layout": self.layout, "reason": self.reason}
        splits = ", ".join(f"{split} {count}" for split, count in self.splits.items())
        images = nmsg(
            "{count} image ({splits}) -> {out}",
            "{count} images ({splits}) -> {out}",
            sum(self.splits.values()),
            splits=splits,
            out=self.out,
        )
        names = ", ".join(self.labels.names)
        count = len(self.labels)
        classes = nmsg("{count} class: {names}", "{count} classes: {names}", count, names=names)
        return join([
            msg("{source}: layout {layout}, recognized by {reason}", **source),
            images,
            classes,
            *(msg("note: {note}", note=note) for note in self.notes),
            msg("next: {command}", command=shell_command("fullconv", "check", self.out)),
        ])  # fmt: skip


def convert(
    source: str | Path,
    out: str | Path,
    *,
    layout: str | None = None,
    order: str = "auto",
    progress: Progress | None = None,
) -> ConvertResult:
    """Convert annotations or masks to a dataset of id masks.

    By default the folder is read as masks if it is a dataset of masks itself, else as annotations,
    else as masks in a subfolder.

    Args:
        source: a folder, one JSON file, or the name of a published dataset.
        out: a new folder.
        layout: one of `LAYOUTS`, in place of the recognized one.
        order: for COCO and Ultralytics, which shapes are on top: see `coco.read_file`.
        progress: called with (images done, all images).

    Raises:
        FullconvError: the source cannot be converted, or `out` is not new.
    """
    _require_one_of("layout", layout, LAYOUTS)
    _require_one_of("order", order, ORDERS)
    source, out = resolve_dataset(source), Path(out)
    if not source.exists():
        raise missing_file("dataset", source)
    is_annotation_file = source.is_file() and source.name != SETTINGS_NAME
    root = source.parent if source.is_file() else source
    command = shell_command("fullconv", "convert", source, unused_path(root, "_masks"))
    require_new(out, source, msg("the dataset"), command)
    if layout in (None, detect.CLASS_MASKS) and not is_annotation_file:
        class_masks_images = find_class_masks(root)
        if class_masks_images or layout:
            annotations = class_masks.gather(root, class_masks_images)
            return _convert_annotations(root, source, out, annotations, progress)
    is_masks = layout is None and not is_annotation_file and match_layout(root) is not None
    if layout in MASK_LAYOUTS or is_masks:
        return _convert_masks(source, load_dataset(source, layout=layout), out, progress)
    annotations = detect.read_annotations(root, source, tool=layout, order=order)
    if annotations.tool:
        return _convert_annotations(root, source, out, annotations, progress)
    try:
        dataset = load_dataset(source)
    except FullconvError as error:
        message = msg(
            "{source} contains no annotations that can be converted, and no masks.", source=source
        )
        sentences = [message, *_expected(annotations), msg("Masks: {error}", error=error.message)]
        raise FullconvError(join(sentences, " "), error.hint) from error
    return _convert_masks(source, dataset, out, progress)


def _convert_annotations(
    root: Path, source: Path, out: Path, annotations: Annotations, progress: Progress | None
) -> ConvertResult:
    if annotations.problems or not annotations.images:
        raise _not_convertible(source, annotations)
    labels = class_table(annotations.names)
    images = _name_images(annotations.images)
    # Note what is not converted.
    notes = [*annotations.notes, msg('class 0 is "background": pixels outside all shapes')]
    notes += [
        msg("left out: {count} {entries}", count=count, entries=entries)
        for entries, count in sorted(annotations.left_out.items())
    ]
    used = {image.image.resolve() for image in images if image.image}
    present = {path for folder in {path.parent for path in used} for path in images_in(folder)}
    if unused := sorted(present - used):
        note = nmsg(
            "left out: {count} image without annotations, such as {first}",
            "left out: {count} images without annotations, such as {first}",
            len(unused),
            first=unused[0],
        )
        notes.append(note)
    if annotations.others:
        note = nmsg(
            "left out: {count} JSON file of another kind, such as {first}",
            "left out: {count} JSON files of another kind, such as {first}",
            len(annotations.others),
            first=annotations.others[0],
        )
        notes.append(note)
    empty_shapes = _write(images, labels, out, progress)
    if empty_shapes:
        note = nmsg(
            "left out: {count} shape that contains no pixel center",
            "left out: {count} shapes that contain no pixel center",
            empty_shapes,
        )
        notes.append(note)
    counts = Counter(image.split or "all" for image in images)
    splits = {split: counts[split] for split in ("train", "val", "test", "all") if counts[split]}
    tool, reason = annotations.tool, annotations.reason
    return ConvertResult(source, out, tool, reason, splits, labels, tuple(notes))


def _convert_masks(
    source: Path, dataset: Dataset, out: Path, progress: Progress | None
) -> ConvertResult:
    report = check(dataset, progress=progress)
    report.for_evaluation().raise_for_errors()
    copy = plain_copy(dataset, out, progress=progress)
    notes = list(dataset.notes)
    for reason, count in Counter(copy.left_out.values()).items():
        note = nmsg(
            "left out: {count} file, such as {first}: {reason}",
            "left out: {count} files, such as {first}: {reason}",
            count,
            first=next(name for name, r in copy.left_out.items() if r == reason),
            reason=reason,
        )
        notes.append(note)
    if report.warnings:
        note = nmsg(
            "{count} warning; {command} shows it",
            "{count} warnings; {command} shows them",
            len(report.warnings),
            command=shell_command("fullconv", "check", source),
        )
        notes.append(note)
    layout, reason = dataset.layout, dataset.reason
    return ConvertResult(source, out, layout, reason, copy.splits, copy.labels, tuple(notes))


def _name_images(images: list[AnnotatedImage]) -> list[AnnotatedImage]:
    """Give each image a unique file name; drop the splits unless every image has one."""
    keep_splits = all(image.split for image in images)
    taken: set[str] = set()
    named = []
    for image in images:
        parts = [part for part in PurePosixPath(image.name).parts if part not in ("..", "/")]
        path = "_".join(parts)
        numbered = (f"{path}_{number}" for number in range(2, len(images) + 2))
        names = [name.lstrip(".") or "image" for name in (parts[-1], path)]
        name = next(n for n in (*names, *numbered) if n.lower() not in taken)
        taken.add(name.lower())
        named.append(replace(image, name=name, split=image.split if keep_splits else ""))
    return named


def _write(
    images: list[AnnotatedImage], labels: Labels, out: Path, progress: Progress | None
) -> int:
    """Write the dataset, or nothing. Returns the number of shapes that left no pixel."""

    def write_image(image: AnnotatedImage) -> int:
        ids, empty_shapes = paint(image, labels)
        write_mask(out / "masks" / image.split / f"{image.name}.png", ids, labels)
        copy = out / "images" / image.split / (image.name + image.suffix)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if image.image is None:
            copy.write_bytes(labelme.image_bytes(detect.read_json(image.source)))
        else:
            shutil.copyfile(image.image, copy)
        return empty_shapes

    empty_shapes = 0
    with whole_or_nothing(out):
        with ThreadPoolExecutor(cpu_count()) as pool:
            for done, count in enumerate(pool.map(write_image, images), 1):
                empty_shapes += count
                if progress is not None:
                    progress(done, len(images))
        write_settings(out, labels, colors=False)
    return empty_shapes


def _require_one_of(option: str, value: str | None, choices: Iterable[str]) -> None:
    if value is not None and value not in choices:
        values = {"option": option, "value": value, "choices": ", ".join(choices)}
        message = msg("no {option} {value!r}; expected one of {choices}.", **values)
        raise FullconvError(message, f"--{option} {nearest(value, choices, 0)}")


def _not_convertible(source: Path, annotations: Annotations) -> FullconvError:
    problems = annotations.problems
    if not problems:
        values = {"source": source, "tool": annotations.tool}
        message = msg("{source} contains no {tool} image to convert.", **values)
        text = join([message, *_expected(annotations)], " ")
        return FullconvError(text, shell_command("fullconv", "check", source))
    if len(problems) == 1:
        return problems[0]
    lines = [msg("  {problem}", problem=problem.message) for problem in problems[:_MAX_LISTED]]
    if len(problems) > _MAX_LISTED:
        lines.append(msg("  ... and {count} more", count=len(problems) - _MAX_LISTED))
    header = msg(
        "{count} files or images cannot be converted, and nothing was written:",
        count=len(problems),
    )
    hint = msg("{hint}   # for the first one", hint=problems[0].hint)
    return FullconvError(join([header, *lines]), hint)


def _expected(annotations: Annotations) -> list[str]:
    """Return sentences on the files that are expected, and those that exist."""
    sentences: list[str] = [
        msg(
            "A labelme file has the key shapes, a COCO file has images, annotations and "
            "categories, a Label Studio file is a list of tasks with data and annotations, and "
            "Ultralytics has labels/*.txt next to images/."
        )
    ]
    if annotations.others:
        files = truncated_list(annotations.others, 5)
        sentences.append(msg("Found {files}.", files=files))
    return sentences
