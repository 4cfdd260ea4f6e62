"""Pairing: which mask belongs to which image, by the names of files and by lists of names.

Suffixes are compared in any case; hidden files (.DS_Store, ._a.png) and what is no image are not
seen. No file but a list is opened.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from fullconv.core.errors import FullconvError
from fullconv.core.labels import Labels
from fullconv.core.text import plural
from fullconv.data.io.images import IMAGE_SUFFIXES
from fullconv.data.io.masks import ARRAY_SUFFIXES

SPLITS = {  # what a folder or a list may be called -> the split
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
MASK_ENDINGS = (
    *("_mask", "_masks", "_label", "_labels", "_gt", "_seg", "_annotation", "-mask", "_L"),
)
IMAGE_FOLDERS = ("images", "imgs", "image", "img", "images", "photos")
MASK_FOLDERS = ("masks", "mask", "labels", "label", "annotations", "annotation", "annots", "gt")
IMAGE_ENDINGS = ("_image", "_img", "_sat", "_photo", "_rgb")  # a_sat.jpg and a_mask.png


@dataclass(frozen=True)
class Pair:
    """An image and its mask, and files of further folders, see `fullconv.data.layouts.extra_folders`. `name` is
    the image's stem, unique in its split."""

    name: str
    image: Path
    mask: Path
    masks: tuple[Path, ...] = ()  # of further heads
    inputs: tuple[Path, ...] = ()  # depth, infrared ...


@dataclass
class LayoutMatch:
    """What the reader of a layout found in a folder; `reason` says by what, in words."""

    reason: str
    splits: dict[str, list[Pair]] = field(default_factory=dict)
    images: list[Path] = field(default_factory=list)  # unpaired
    masks: list[Path] = field(default_factory=list)  # unpaired
    notes: list[str] = field(default_factory=list)
    known: Labels | None = None

    def add(self, split: str, images: Iterable[Path], masks: Iterable[Path]) -> None:
        """Pairs by stem."""
        pairs, alone, masks_alone = pair_up(images, masks)
        self.splits[split] = [*self.splits.get(split, []), *pairs]
        self.images += alone
        self.masks += masks_alone


def pair_up(
    images: Iterable[Path], masks: Iterable[Path]
) -> tuple[list[Pair], list[Path], list[Path]]:
    """Pairs by stem, and the images and masks that are left."""
    by_stem: dict[str, Path] = {}
    rest = list(masks)
    for mask in rest:
        by_stem.setdefault(mask.stem, mask)
    pairs: dict[str, Pair] = {}
    alone = []
    for image in images:
        stems = [image.stem, *(image.stem + ending for ending in MASK_ENDINGS)]
        for end in IMAGE_ENDINGS:
            if image.stem.endswith(end) and len(image.stem) > len(end):
                bare = image.stem.removesuffix(end)
                stems += [bare, *(bare + ending for ending in MASK_ENDINGS)]
        stem = next((stem for stem in stems if stem in by_stem), None)
        if stem is None or image.stem in pairs:
            alone.append(image)
        else:
            pairs[image.stem] = Pair(image.stem, image, by_stem[stem])
    used = {pair.mask for pair in pairs.values()}
    return list(pairs.values()), alone, [mask for mask in rest if mask not in used]


def resolve(root: Path, text: str) -> Path | None:
    """A file named in a list: below the list's folder, or where the tail of its path is found there
    (/SegNet/CamVid/train/a.png -> train/a.png), with another suffix if need be."""
    parts = PurePosixPath(text.replace("\\", "/")).parts
    for start in range(len(parts)):
        path = root.joinpath(*parts[start:])
        if path.is_file():
            return path
        for suffix in (".jpg", ".png"):
            if start < len(parts) - 1 and path.with_suffix(suffix).is_file():
                return path.with_suffix(suffix)
    return None


def split_lists(folder: Path, extra: tuple[str, ...] = ()) -> dict[str, Path]:
    """split -> list file; only names of splits (and `extra` ones) count: classes.txt is none."""
    if not folder.is_dir():
        return {}
    names = SPLITS | {name: name for name in extra}
    found = [path for path in sorted(folder.iterdir()) if path.suffix.lower() == ".txt"]
    return {names[path.stem.lower()]: path for path in found if path.stem.lower() in names}


def listed_pairs(path: Path) -> list[tuple[str, str]]:
    """The lines "image mask" of a list, or [] where it has any other line."""
    rows = [re.split(r"[\t,]\s*|\s+", line) for line in _lines(path)]
    good = all(len(row) == 2 and _is_image(row[0]) and _is_image(row[1]) for row in rows)
    return [(row[0], row[1]) for row in rows] if good else []


def listed_stems(path: Path) -> set[str]:
    """The stems in a list of stems, file names or paths; what follows a file name does not count.
    A stem may hold spaces."""
    stems = set()
    for line in _lines(path):
        first = re.split(r"[\t,]\s*|\s+", line)[0]
        text = (first if _is_image(first) else line).replace("\\", "/")
        name = PurePosixPath(text).name
        stems.add(PurePosixPath(name).stem if _is_image(name) else name)
    return stems


def images_in(folder: Path) -> list[Path]:
    """The images (or masks) that lie in a folder, by name."""
    return [
        path
        for path in sorted(folder.iterdir())
        if _is_image(path.name) and not path.name.startswith(".") and path.is_file()
    ]


def masks_in(folder: Path) -> list[Path]:
    """The masks that lie in a folder, by name: images, .npy and .mat."""
    return [
        path
        for path in sorted(folder.iterdir())
        if (_is_image(path.name) or path.suffix.lower() in ARRAY_SUFFIXES)
        and not path.name.startswith(".")
        and path.is_file()
    ]


def folders_in(folder: Path) -> list[Path]:
    """The sub-folders, by name."""
    skipped = (".", "__")  # hidden, and __MACOSX
    return [p for p in sorted(folder.iterdir()) if p.is_dir() and not p.name.startswith(skipped)]


def find_folder(root: Path, names: tuple[str, ...], *, masks: bool = False) -> Path | None:
    """The first sub-folder of that name, in any case, with images (or masks) in it or in a split
    inside."""
    inside = masks_in if masks else images_in
    there = {folder.name.lower(): folder for folder in folders_in(root)}
    for name in names:
        found = there.get(name.lower())
        if found is None:
            continue
        inner = [child for child in folders_in(found) if child.name.lower() in SPLITS]
        if any(inside(path) for path in (found, *inner)):
            return found
    return None


def add_lists(
    found: LayoutMatch, lists: dict[str, Path], images: list[Path], masks: list[Path]
) -> None:
    """Splits from lists of stems (or file names); what is on no list is not looked at."""
    known = {file.stem for file in (*images, *masks)}
    known |= {mask.stem.removesuffix(end) for mask in masks for end in MASK_ENDINGS}
    for split, path in lists.items():
        stems = listed_stems(path)
        if missing := sorted(stems - known):
            raise FullconvError(
                f"{path} lists {plural(len(missing), 'name')} with neither an image nor a mask: "
                f"{', '.join(missing[:5])}{', ...' if len(missing) > 5 else ''}.",
                f"take them out of {path.name}, or copy the files",
            )
        listed = stems | {stem + end for stem in stems for end in MASK_ENDINGS}
        found.add(
            split,
            [pic for pic in images if pic.stem in stems],
            [mask for mask in masks if mask.stem in listed],
        )
    used = {pair.image for pairs in found.splits.values() for pair in pairs}
    if rest := len(images) - len(used | set(found.images)):
        found.notes.append(f"left out: {plural(rest, 'image')} on no list")


def add_rows(found: LayoutMatch, split: str, path: Path, rows: list[tuple[str, str]]) -> None:
    """A split from lines "image mask"."""
    pairs: dict[str, Pair] = {}
    for number, row in enumerate(rows, 1):
        image, mask = (resolve(path.parent, text) for text in row)
        if image is None and mask is None:
            raise FullconvError(
                f"{path}, entry {number}: neither {row[0]} nor {row[1]} exists, neither there nor "
                f"below {path.parent}.",
                f"take the line out of {path.name}, or copy the files",
            )
        if image is None or mask is None:
            found.images += [image] if image else []
            found.masks += [mask] if mask else []
            continue
        name = image.stem
        while name in pairs and pairs[name].image != image:  # same stem in another folder
            name = f"{image.parent.name}_{name}"
        pairs[name] = Pair(name, image, mask)
    found.splits[split] = list(pairs.values())


def _lines(path: Path) -> list[str]:
    # A name in another encoding becomes a name that is not found, which is said.
    lines = path.read_text("utf-8-sig", errors="replace").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def _is_image(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES
