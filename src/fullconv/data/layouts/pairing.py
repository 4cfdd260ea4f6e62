"""Match images with their masks, by file names and by lists of names.

Suffixes are compared without case. Hidden files (.DS_Store, ._a.png) and files that are no images
are skipped. No file but a list is opened.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from fullconv.core.errors import FullconvError
from fullconv.core.i18n import msg, nmsg
from fullconv.core.labels import Labels
from fullconv.core.text import truncated_list
from fullconv.data.io.images import IMAGE_SUFFIXES
from fullconv.data.io.masks import ARRAY_SUFFIXES

# Name of a folder or a list -> split.
SPLITS = dict.fromkeys(("train", "training"), "train")
SPLITS |= dict.fromkeys(("val", "valid", "validation"), "val")
SPLITS |= dict.fromkeys(("test", "testing"), "test")
MASK_ENDINGS = ("_mask", "_masks", "_label", "_labels", "_gt", "_seg", "_annotation", "-mask", "_L")
IMAGE_FOLDERS = ("images", "imgs", "image", "img", "pictures", "photos")
MASK_FOLDERS = ("masks", "mask", "labels", "label", "annotations", "annotation", "annots", "gt")
IMAGE_ENDINGS = ("_image", "_img", "_sat", "_photo", "_rgb")  # a_sat.jpg and a_mask.png
_LISTED = 5  # missing names that an error message lists


@dataclass(frozen=True)
class Pair:
    """An image and its mask."""

    name: str  # file name of the image without suffix; unique in its split
    image: Path
    mask: Path
    masks: tuple[Path, ...] = ()  # of additional heads, see `fullconv.data.layouts.extra_folders`
    inputs: tuple[Path, ...] = ()  # files with extra channels (depth, infrared ...)


@dataclass
class LayoutMatch:
    """The pairs that the reader of a layout found in a folder."""

    reason: str  # what the layout was recognized by, in words
    splits: dict[str, list[Pair]] = field(default_factory=dict)
    images: list[Path] = field(default_factory=list)  # without a mask
    masks: list[Path] = field(default_factory=list)  # without an image
    notes: list[str] = field(default_factory=list)  # decisions that the user should know about
    labels: Labels | None = None  # of a published dataset

    def add(self, split: str, images: Iterable[Path], masks: Iterable[Path]) -> None:
        """Add files to a split, paired by name."""
        pairs, images_alone, masks_alone = pair_by_name(images, masks)
        self.splits[split] = [*self.splits.get(split, []), *pairs]
        self.images += images_alone
        self.masks += masks_alone

    def add_lists(self, lists: dict[str, Path], images: list[Path], masks: list[Path]) -> None:
        """Add the splits that lists of names define; note how many images are on no list. Raise a
        `FullconvError` if a list names a file that is neither an image nor a mask."""
        names = {file.stem for file in (*images, *masks)}
        names |= {mask.stem.removesuffix(ending) for mask in masks for ending in MASK_ENDINGS}
        for split, path in lists.items():
            stems = listed_stems(path)
            if missing := sorted(stems - names):
                message = nmsg(
                    "{path} lists {count} name that belongs to neither an image nor a mask: "
                    "{names}.",
                    "{path} lists {count} names that belong to neither an image nor a mask: "
                    "{names}.",
                    len(missing),
                    path=path,
                    names=truncated_list(missing, _LISTED),
                )
                hint = msg("remove them from {name}, or copy the missing files", name=path.name)
                raise FullconvError(message, hint)
            mask_stems = stems | {stem + ending for stem in stems for ending in MASK_ENDINGS}
            self.add(
                split,
                [image for image in images if image.stem in stems],
                [mask for mask in masks if mask.stem in mask_stems],
            )
        used = {pair.image for pairs in self.splits.values() for pair in pairs}
        if unlisted := len(images) - len(used | set(self.images)):
            note = nmsg(
                "left out {count} image that is on no list",
                "left out {count} images that are on no list",
                unlisted,
            )
            self.notes.append(note)

    def add_rows(self, split: str, path: Path, rows: list[tuple[str, str]]) -> None:
        """Add a split from the "image mask" lines of a list; raise a `FullconvError` if neither
        file of a line exists."""
        pairs: dict[str, Pair] = {}
        for number, row in enumerate(rows, 1):
            image, mask = (resolve(path.parent, text) for text in row)
            if image is None and mask is None:
                values = {"image": row[0], "mask": row[1], "folder": path.parent}
                message = msg(
                    "{path}, entry {number}: neither {image} nor {mask} exists, neither as written "
                    "nor below {folder}.",
                    path=path,
                    number=number,
                    **values,
                )
                hint = msg("remove the line from {name}, or copy the files", name=path.name)
                raise FullconvError(message, hint)
            if image is None or mask is None:
                self.images += [image] if image else []
                self.masks += [mask] if mask else []
                continue
            name = image.stem
            while name in pairs and pairs[name].image != image:  # same stem in another folder
                name = f"{image.parent.name}_{name}"
            pairs[name] = Pair(name, image, mask)
        self.splits[split] = list(pairs.values())


def pair_by_name(
    images: Iterable[Path], masks: Iterable[Path]
) -> tuple[list[Pair], list[Path], list[Path]]:
    """Return the pairs of files with the same stem (a mask may also have one of `MASK_ENDINGS`, an
    image one of `IMAGE_ENDINGS`), and the images and masks that remain."""
    masks = list(masks)
    by_stem: dict[str, Path] = {}
    for mask in masks:
        by_stem.setdefault(mask.stem, mask)
    pairs: dict[str, Pair] = {}
    alone = []
    for image in images:
        bare = [image.stem]
        for ending in IMAGE_ENDINGS:
            if image.stem.endswith(ending) and image.stem != ending:
                bare.append(image.stem.removesuffix(ending))
        stems = [stem + ending for stem in bare for ending in ("", *MASK_ENDINGS)]
        stem = next((stem for stem in stems if stem in by_stem), None)
        if stem is None or image.stem in pairs:
            alone.append(image)
        else:
            pairs[image.stem] = Pair(image.stem, image, by_stem[stem])
    used = {pair.mask for pair in pairs.values()}
    return list(pairs.values()), alone, [mask for mask in masks if mask not in used]


def resolve(root: Path, text: str) -> Path | None:
    """Return the file that a list names, or None: below the list's folder, also without the first
    parts of its path (/SegNet/CamVid/train/a.png -> train/a.png), or with the suffix .jpg or .png.
    """
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
    """Return split -> list file. Only names of splits (and `extra` names) are lists of names."""
    if not folder.is_dir():
        return {}
    names = SPLITS | {name: name for name in extra}
    texts = [path for path in sorted(folder.iterdir()) if path.suffix.lower() == ".txt"]
    return {names[path.stem.lower()]: path for path in texts if path.stem.lower() in names}


def listed_pairs(path: Path) -> list[tuple[str, str]]:
    """Return the "image mask" lines of a list; [] if any line has another form."""
    rows = [re.split(r"[\t,]\s*|\s+", line) for line in _lines(path)]
    good = all(len(row) == 2 and _is_image(row[0]) and _is_image(row[1]) for row in rows)
    return [(row[0], row[1]) for row in rows] if good else []


def listed_stems(path: Path) -> set[str]:
    """Return the stems in a list of stems (with or without spaces), file names or paths; whatever
    follows a file name on its line is ignored."""
    stems = set()
    for line in _lines(path):
        first = re.split(r"[\t,]\s*|\s+", line)[0]
        text = (first if _is_image(first) else line).replace("\\", "/")
        name = PurePosixPath(text).name
        stems.add(PurePosixPath(name).stem if _is_image(name) else name)
    return stems


def images_in(folder: Path) -> list[Path]:
    """Return the images in a folder, sorted by name."""
    return _files(folder, IMAGE_SUFFIXES)


def masks_in(folder: Path) -> list[Path]:
    """Return the masks in a folder, sorted by name: images, .npy and .mat files."""
    return _files(folder, IMAGE_SUFFIXES | set(ARRAY_SUFFIXES))


def folders_in(folder: Path) -> list[Path]:
    """Return the subfolders, sorted by name."""
    skipped = (".", "__")  # hidden folders, and __MACOSX
    return [p for p in sorted(folder.iterdir()) if p.is_dir() and not p.name.startswith(skipped)]


def find_folder(root: Path, names: tuple[str, ...], *, masks: bool = False) -> Path | None:
    """Return the first subfolder of one of these names (in any case) that has images, or masks, in
    it or in a split inside it."""
    files_in = masks_in if masks else images_in
    by_name = {folder.name.lower(): folder for folder in folders_in(root)}
    for name in names:
        folder = by_name.get(name.lower())
        if folder is None:
            continue
        splits = [child for child in folders_in(folder) if child.name.lower() in SPLITS]
        if any(files_in(path) for path in (folder, *splits)):
            return folder
    return None


def _files(folder: Path, suffixes: Iterable[str]) -> list[Path]:
    return [
        path
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in suffixes and not path.name.startswith(".") and path.is_file()
    ]


def _lines(path: Path) -> list[str]:
    # A name in another encoding becomes a name that does not exist, which is reported.
    lines = path.read_text("utf-8-sig", errors="replace").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def _is_image(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES
