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
from fullconv.data.layouts.file_names import Pair, bare_stem, pair_by_name

# Name of a folder or a list -> split.
SPLITS = dict.fromkeys(("train", "training"), "train")
SPLITS |= dict.fromkeys(("val", "valid", "validation"), "val")
SPLITS |= dict.fromkeys(("test", "testing"), "test")
IMAGE_FOLDERS = (
    *("images", "imgs", "image", "img", "pictures", "photos"),
    *("img_dir", "imagestr"),  # MMSegmentation, nnU-Net
)
MASK_FOLDERS = (
    *("masks", "mask", "labels", "label", "annotations", "annotation", "annots", "gt"),
    *("ann_dir", "labelstr"),
)
_LISTED = 5  # missing names that an error message lists


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
        named = pair_by_name(images, masks)
        self.splits[split] = [*self.splits.get(split, []), *named.pairs]
        self.images += named.images
        self.masks += named.masks
        if named.note and named.note not in self.notes:
            self.notes.append(named.note)

    def add_lists(self, lists: dict[str, Path], images: list[Path], masks: list[Path]) -> None:
        """Pair files by name, and add the splits that lists of names define.

        Raises:
            FullconvError: see `add_listed`.
        """
        named = pair_by_name(images, masks)
        if named.note:
            self.notes.append(named.note)
        self.add_listed(lists, named.pairs, named.images, named.masks)

    def add_listed(
        self, lists: dict[str, Path], pairs: list[Pair], images: list[Path], masks: list[Path]
    ) -> None:
        """Add the splits that lists of names define; note how many images are on no list.

        A name with folders before it (north/a) selects the file in these folders.

        Args:
            lists: split -> file.
            pairs: the pairs of all splits.
            images, masks: files without a partner.

        Raises:
            FullconvError: a list names a file that is neither an image nor a mask, or a name that
                several images have.
        """
        entries: dict[str, list[Pair | Path]] = {}
        bare_entries: dict[str, list[Pair | Path]] = {}  # by the names without endings of masks
        everything: list[Pair | Path] = [*pairs, *images, *masks]
        for entry in everything:
            files = [entry] if isinstance(entry, Path) else [entry.image, entry.mask]
            for stem in {path.stem for path in files}:
                entries.setdefault(stem, []).append(entry)
            for stem in {bare_stem(path.stem) for path in files}:
                bare_entries.setdefault(stem, []).append(entry)
        for split, path in lists.items():
            selected: dict[Pair | Path, None] = {}
            missing = []
            for name in listed_names(path):
                stem = PurePosixPath(name).name
                matches = _named(entries.get(stem) or bare_entries.get(stem, []), name)
                if not matches:
                    missing.append(name)
                elif len(matches) > 1 and isinstance(matches[0], Pair):
                    raise _several_named(path, name, matches)
                selected.update(dict.fromkeys(matches))
            if missing:
                raise FullconvError(
                    nmsg(
                        "{path} lists {count} name that belongs to neither an image nor a mask: "
                        "{names}.",
                        "{path} lists {count} names that belong to neither an image nor a mask: "
                        "{names}.",
                        count=len(missing),
                        path=path,
                        names=truncated_list(sorted(missing), _LISTED),
                    ),
                    msg("remove them from {name}, or copy the missing files", name=path.name),
                )
            self.splits[split] = [entry for entry in selected if isinstance(entry, Pair)]
            self.images += [path for path in images if path in selected]
            self.masks += [path for path in masks if path in selected]
        used = {pair for its_pairs in self.splits.values() for pair in its_pairs}
        if unlisted := len(pairs) + len(images) - len(used) - len(set(self.images)):
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


def listed_names(path: Path) -> list[str]:
    """Return the image names that a list file contains, without suffixes: "a", "north/a".

    A line is a name, a file name or a path. Whatever follows a file name is ignored, and a name may
    contain spaces.
    """
    names: dict[str, None] = {}
    for line in _lines(path):
        first = re.split(r"[\t,]\s*|\s+", line)[0]
        text = (first if _is_image(first) else line).replace("\\", "/")
        name = PurePosixPath(text)
        names[(name.with_suffix("") if _is_image(text) else name).as_posix()] = None
    return list(names)


def listed_stems(path: Path) -> set[str]:
    """Return the names in a list, without the folders before them."""
    return {PurePosixPath(name).name for name in listed_names(path)}


def _named(entries: list[Pair | Path], name: str) -> list[Pair | Path]:
    """Return the entries that a list means by a name: pairs before single files, and those in the
    folders that the name begins with."""
    pairs: list[Pair | Path] = [entry for entry in entries if isinstance(entry, Pair)]
    entries = pairs or entries
    if len(entries) < 2 or "/" not in name:
        return entries
    return [entry for entry in entries if _path_of(entry).endswith(f"/{name}")]


def _path_of(entry: Pair | Path) -> str:
    path = entry if isinstance(entry, Path) else entry.image
    return f"/{path.with_suffix('').as_posix().lstrip('/')}"


def _several_named(path: Path, name: str, entries: list[Pair | Path]) -> FullconvError:
    files = [_path_of(entry).rsplit("/", 2)[1:] for entry in entries]
    return FullconvError(
        msg(
            "{path} lists {name!r}, but {count} images have that name: {files}. Expected the "
            "folder before the name.",
            path=path,
            name=name,
            count=len(entries),
            files=truncated_list(["/".join(parts) for parts in files], _LISTED),
        ),
        "/".join(files[0]),
    )


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
