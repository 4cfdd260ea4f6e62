"""Convert: labelme and COCO annotations -> pictures, id masks and a dataset.toml.

    OUT/images/[SPLIT/]a.jpg     copied byte for byte (or taken out of the annotation file)
    OUT/masks/[SPLIT/]a.png      class ids, as a palette PNG
    OUT/dataset.toml             the class names; written last

Everything is read and looked at before anything is written, so that all that is wrong is said at
once. The source is only read. A split is kept where it stands in the names: labelme files in
train/ val/ test/, or a COCO file per split.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from fullconv.data.annotations import coco, labelme
from fullconv.data.annotations.shapes import Annotated, class_table, paint
from fullconv.data.masks import write_mask
from fullconv.data.pairing import pictures_in
from fullconv.data.tables import SETTINGS_NAME
from fullconv.errors import FullconvError
from fullconv.labels import IGNORE, Labels

Progress = Callable[[int, int], None]

LAYOUTS = ("labelme", "coco")
ORDERS = ("auto", "area", "file")
_LISTED = 100  # problems that an error spells out


@dataclass(frozen=True)
class Converted:
    """What was converted.

    Args:
        source, out: the folders (or the one file) that were named.
        layout: "labelme" or "coco".
        reason: what it was recognised by, in words.
        splits: split, or "all" where none is known -> pictures.
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
            "pictures": sum(self.splits.values()),
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
            f"{sum(self.splits.values())} pictures ({parts}) -> {self.out}",
            f"{len(self.labels)} classes: {names}",
            *(f"note: {note}" for note in self.notes),
            f"next: fullconv check {self.out}",
        ])  # fmt: skip


@dataclass
class _Found:
    """What the JSON files hold."""

    drawn: list[Annotated] = field(default_factory=list)  # labelme
    problems: list[FullconvError] = field(default_factory=list)  # of labelme files
    broken: list[FullconvError] = field(default_factory=list)  # no JSON at all
    tables: list[tuple[Path, dict[str, Any]]] = field(default_factory=list)  # COCO
    others: list[str] = field(default_factory=list)  # neither, with their keys
    left_out: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)


def convert(
    source: str | Path,
    out: str | Path,
    *,
    layout: str | None = None,
    order: str = "auto",
    progress: Progress | None = None,
) -> Converted:
    """Turn the annotations in a folder (or one JSON file) into a data set of id masks.

    `layout` overrules what is recognised. `order` is of COCO only: see `coco.read_file`.
    """
    source, out = Path(source), Path(out)
    _one_of("layout", layout, (None, *LAYOUTS))
    _one_of("order", order, ORDERS)
    root, files = _json_files(source)
    _refuse_place(root, source, out)
    found = _read_all(root, files, layout)
    layout = layout or _recognised(source, found)
    if layout == "labelme":
        pictures = found.drawn
        problems = [*found.broken, *found.problems]
        reason = f'{len(pictures) + len(found.problems)} JSON files with "shapes"'
        names = _labelme_names(root, found, problems)
    else:
        pictures, names, problems = _read_coco(root, source, found, order)
        listed = ", ".join(path.name for path, _ in found.tables)
        reason = f'{listed} with "images", "annotations" and "categories"'
    if problems or not pictures:
        raise _refusal(source, layout, problems)
    labels = class_table(names)
    pictures = _with_splits(pictures)
    found.notes += _left_alone(pictures, found)
    lost = _write(pictures, labels, out, progress)
    if lost:
        found.notes.append(f"{lost} shapes hold the centre of no pixel and leave none")
    counted = Counter(picture.split or "all" for picture in pictures)
    splits = {split: counted[split] for split in ("train", "val", "test", "all") if counted[split]}
    return Converted(source, out, layout, reason, splits, labels, tuple(found.notes))


def _json_files(source: Path) -> tuple[Path, list[Path]]:
    """The folder that names are relative to, and its JSON files, hidden ones left out."""
    if source.is_file():
        return source.parent, [source]
    if not source.is_dir():
        nearest = next((p for p in source.parents if p.is_dir()), Path())
        raise FullconvError(f"there is no folder or file {source}.", f"ls {nearest}")
    files = [
        path
        for path in sorted(source.rglob("*"))
        if path.suffix.lower() == ".json"
        and not any(p.startswith((".", "__")) for p in path.relative_to(source).parts)
        and path.is_file()
    ]
    if not files:
        raise FullconvError(
            f"no JSON file in {source} or below; expected the JSON files of labelme, or those of "
            "COCO. Masks that are there already need no conversion.",
            f"fullconv check {source}",
        )
    return source, files


def _refuse_place(root: Path, source: Path, out: Path) -> None:
    """Nothing is written over, and nothing into the source."""
    better = root.resolve().parent / f"{root.resolve().name}_masks"
    hint = f"fullconv convert {source} {better}"
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        what = "is not empty" if out.is_dir() else "is a file"
        raise FullconvError(f"{out} {what}; expected a new folder for the data set.", hint)
    if source.is_dir() and out.resolve().is_relative_to(root.resolve()):
        raise FullconvError(f"{out} lies inside {source}, which is left as it is.", hint)


def _read_all(root: Path, files: list[Path], layout: str | None) -> _Found:
    """Every JSON file once; of labelme's only the shapes are kept, not the pictures in them."""
    found = _Found()
    for path in files:
        try:
            table = _load(path)
        except FullconvError as error:
            found.broken.append(error)
            continue
        if labelme.is_labelme(table):
            if layout == "coco":
                continue
            try:
                found.drawn.append(labelme.read_file(path, table, root, found.left_out))
            except FullconvError as error:
                found.problems.append(error)
        elif coco.is_coco(table):
            if layout != "labelme":
                found.tables.append((path, table))
        else:
            keys = ", ".join(sorted(map(str, table))[:6]) if isinstance(table, dict) else ""
            found.others.append(f"{path} ({keys or f'a {type(table).__name__}'})")
    return found


def _recognised(source: Path, found: _Found) -> str:
    drawn = len(found.drawn) + len(found.problems)
    if drawn and found.tables:
        raise FullconvError(
            f"{source} holds both labelme files ({drawn}) and a COCO file "
            f"({found.tables[0][0]}); expected one of the two.",
            f"fullconv convert {source} OUT --layout labelme   # or --layout coco",
        )
    if not drawn and not found.tables and not found.broken:
        raise _refusal(source, "", [], found.others)
    return "coco" if found.tables else "labelme"


def _labelme_names(root: Path, found: _Found, problems: list[FullconvError]) -> list[str]:
    """Class names from the labels.txt next to the files or above them, else those of the shapes.
    A label that is not in the list becomes a problem."""
    used = {shape.name for picture in found.drawn for shape in picture.shapes}
    lists: dict[Path, list[str]] = {}
    for folder in {picture.source.parent for picture in found.drawn}:
        above = [p for p in (folder, *folder.parents) if p.is_relative_to(root)]
        nearest = labelme.read_classes([*above, root.resolve().parent])
        if nearest is not None:
            lists[nearest[1].resolve()] = nearest[0]
    if len(lists) > 1:
        listed = ", ".join(map(str, sorted(lists)))
        raise FullconvError(
            f"{root} holds {len(lists)} projects with class lists of their own: {listed}; "
            "expected one.",
            f"fullconv convert {min(lists).parent} OUT",
        )
    for path, names in lists.items():
        found.notes.append(f"class names from {path}")
        for picture in found.drawn:
            strange = sorted({s.name for s in picture.shapes} - {*names, IGNORE, "background"})
            if strange:
                problems.append(
                    FullconvError(
                        f"{picture.source}: label {', '.join(map(repr, strange))} is not in "
                        f"{path}, which has {', '.join(names)}.",
                        f"echo {strange[0]!r} >> {path}",
                    )
                )
        return names
    found.notes.append(f"class names: the labels of the shapes, by name (no {labelme.CLASS_LIST})")
    return sorted(used)


def _read_coco(
    root: Path, source: Path, found: _Found, order: str
) -> tuple[list[Annotated], list[str], list[FullconvError]]:
    """Pictures, class names and problems of every COCO file."""
    paths = [path for path, _ in found.tables]
    splits = [coco.split_of(path) for path in paths] if len(paths) > 1 else [""] * len(paths)
    if len(paths) > 1 and (not all(splits) or len({*splits}) < len(splits)):
        raise FullconvError(
            f"{source} holds {len(paths)} COCO files: {', '.join(map(str, paths[:8]))}; expected "
            "one, or one for each of train, val and test with that word in its name.",
            f"fullconv convert {paths[0]} OUT",
        )
    pictures: list[Annotated] = []
    names: list[str] = []
    problems = list(found.broken)
    find, crowds, by_area = coco.Finder(root), 0, False
    for (path, table), split in zip(found.tables, splits, strict=True):
        try:
            contents = coco.read_file(
                path, table, split=split, order=order, find=find, left_out=found.left_out
            )
        except FullconvError as error:
            problems.append(error)
            continue
        names += contents.names
        pictures += contents.annotated
        problems += contents.problems
        crowds += contents.crowds
        by_area = by_area or contents.by_area
    found.notes.append(
        "where shapes overlap, the smaller lies on top (--order file: the later in the file)"
        if by_area
        else "where shapes overlap, the later in the file lies on top (--order area: the smaller)"
    )
    if crowds:
        below = ", below all other shapes" * by_area
        found.notes.append(f"{crowds} regions of a crowd count as their class{below}")
    return pictures, names, problems


def _with_splits(pictures: list[Annotated]) -> list[Annotated]:
    """With names that are files' names, each once; and with splits where every picture has one."""
    split = all(picture.split for picture in pictures)
    taken: set[str] = set()
    done = []
    for picture in pictures:
        parts = [part for part in PurePosixPath(picture.name).parts if part not in ("..", "/")]
        whole = "_".join(parts)
        again = (f"{whole}_{number}" for number in range(2, len(pictures) + 2))
        names = [name.lstrip(".") or "picture" for name in (parts[-1], whole)]
        name = next(n for n in (*names, *again) if n.lower() not in taken)
        taken.add(name.lower())
        done.append(replace(picture, name=name, split=picture.split if split else ""))
    return done


def _left_alone(pictures: list[Annotated], found: _Found) -> list[str]:
    """Notes on what is there and not used."""
    notes = ['class 0 is "background": what no shape covers']
    notes += [f"left out: {count} {what}" for what, count in sorted(found.left_out.items())]
    used = {picture.picture.resolve() for picture in pictures if picture.picture}
    there = {path for folder in {path.parent for path in used} for path in pictures_in(folder)}
    if alone := sorted(there - used):
        notes.append(f"left out: {len(alone)} pictures without annotations, such as {alone[0]}")
    if found.others:
        count = len(found.others)
        notes.append(f"left out: {count} JSON files of another kind, such as {found.others[0]}")
    return notes


def _write(pictures: list[Annotated], labels: Labels, out: Path, progress: Progress | None) -> int:
    """The data set; all of it, or nothing. Gives the number of shapes that left no pixel."""
    new = not out.exists()

    def write_one(picture: Annotated) -> int:
        ids, lost = paint(picture, labels)
        write_mask(out / "masks" / picture.split / f"{picture.name}.png", ids, labels)
        copy = out / "images" / picture.split / (picture.name + picture.suffix)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if picture.picture is None:
            copy.write_bytes(labelme.picture_bytes(_load(picture.source)))
        else:
            shutil.copyfile(picture.picture, copy)
        return lost

    names = ", ".join(json.dumps(name, ensure_ascii=False) for name in labels.names)
    table = f"classes = [{names}]\nignore_index = {labels.ignore_index}\n"
    lost = 0
    try:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for done, count in enumerate(pool.map(write_one, pictures), 1):
                lost += count
                if progress is not None:
                    progress(done, len(pictures))
        (out / SETTINGS_NAME).write_text(table, encoding="utf-8", newline="\n")
    except BaseException:
        for folder in (out / "images", out / "masks"):
            shutil.rmtree(folder, ignore_errors=True)
        if new and out.is_dir():
            shutil.rmtree(out, ignore_errors=True)
        raise
    return lost


def _load(path: Path) -> Any:
    """A JSON file."""
    data = path.read_bytes()
    try:
        return json.loads(data)
    except json.JSONDecodeError as error:
        where = f"{path}, line {error.lineno}, column {error.colno}"
        what = f"{error.msg} (the file ends in the middle, or was changed by hand)"
        said = f"{where}: {what}" if data.strip() else f"{path}: the file is empty"
        raise FullconvError(f"{said}; expected JSON.", f"python -m json.tool {path}") from error
    except (ValueError, RecursionError) as error:
        raise FullconvError(
            f"{path} cannot be read as JSON: {error}.", f"python -m json.tool {path}"
        ) from error


def _one_of(what: str, value: str | None, known: Iterable[str | None]) -> None:
    if value not in known:
        names = [name for name in known if name]
        raise FullconvError(
            f"no {what} {value!r}; there are {', '.join(names)}.", f"--{what} {names[0]}"
        )


def _refusal(
    source: Path, layout: str, problems: list[FullconvError], others: list[str] | None = None
) -> FullconvError:
    if not problems:
        seen = f" Found {', '.join(others[:5])}." if others else ""
        kind = f"{layout} picture" if layout else "annotation of labelme or COCO"
        return FullconvError(
            f"{source} holds no {kind} to convert. A labelme file has the key shapes, a COCO file "
            f"has images, annotations and categories.{seen}",
            f"fullconv check {source}",
        )
    if len(problems) == 1:
        return problems[0]
    lines = [problem.message for problem in problems[:_LISTED]]
    lines += [f"... and {len(problems) - _LISTED} more"] if len(problems) > _LISTED else []
    head = f"{len(problems)} files or pictures cannot be converted, and nothing was written:"
    return FullconvError("\n  ".join([head, *lines]), f"{problems[0].hint}   # for the first")
