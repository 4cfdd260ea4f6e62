"""The layout "folders": a folder of images and a folder of masks, with any folders inside.

    images/a.jpg        masks/a.png           one folder each
    images/train/a.jpg  masks/train/a.png     splits inside
    train/images/a.jpg  train/masks/a.png     splits outside
    images/north/a.jpg  masks/north/a.png     any other folders: sites, cameras, patients
    train/a.jpg         train/a_mask.png      masks among the images

Two files are a pair only if the folders on the way to them agree: the same name in two sites is two
images. Folders called like a split (train, val, test ...) give the split.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from fullconv.core.errors import FullconvError
from fullconv.core.i18n import msg, nmsg
from fullconv.core.text import truncated_list
from fullconv.data.layouts.file_names import Pair, mask_ending, pair_by_name
from fullconv.data.layouts.pairing import (
    IMAGE_FOLDERS,
    MASK_FOLDERS,
    SPLITS,
    LayoutMatch,
    folders_in,
    images_in,
    masks_in,
    split_lists,
)
from fullconv.data.layouts.settings_file import SETTINGS_NAME, Settings, read_settings

_MAX_LEVELS = 6  # of folders below a folder of images
_SAMPLED = 200  # images whose masks are searched for in the other folders
_PHOTOS = (".jpg", ".jpeg")  # never masks, unless dataset.toml names their folder

_Group: TypeAlias = tuple[str, tuple[str, ...]]  # split ("" for none), other folders on the way
_Files: TypeAlias = dict[_Group, list[Path]]


@dataclass(frozen=True)
class _Place:
    """A folder of images and its folder of masks; `split` if they are in the folder of a split."""

    images: Path
    masks: Path
    split: str = ""


def match_folders(root: Path) -> LayoutMatch | None:
    """Match a folder of images and one of masks, or masks among the images.

    Raises:
        FullconvError: dataset.toml names a folder that does not exist.
    """
    settings = read_settings(root)
    places = list(_places(root, settings))
    if not places:
        return _match_beside(root)
    match = LayoutMatch(_reason(root, places))

    # Group the files of all places by split and by the other folders on the way to them.
    images: _Files = {}
    masks: _Files = {}
    for place in places:
        for files, folder, is_mask in ((images, place.images, False), (masks, place.masks, True)):
            for group, paths in grouped_files(folder, root, masks=is_mask):
                files.setdefault((place.split or group[0], group[1]), []).extend(paths)

    # Pair each group of images with the masks in folders of the same names. If only one side has
    # folders of splits, they count for both.
    inner_splits = [any(split for split, _ in files) for files in (images, masks)]
    pairs: dict[str, list[Pair]] = {}
    for split, folders in sorted(images if inner_splits[0] else masks):
        named = pair_by_name(
            images.get((split if inner_splits[0] else "", folders), []),
            masks.get((split if inner_splits[1] else "", folders), []),
        )
        prefix = "_".join(folders)
        pairs.setdefault(split, []).extend(
            replace(pair, name=f"{prefix}/{pair.name}" if prefix else pair.name)
            for pair in named.pairs
        )
        if named.note and named.note not in match.notes:
            match.notes.append(named.note)
    pairs = {split: _unique_names(its_pairs) for split, its_pairs in pairs.items()}
    _refuse_shared_masks(pairs)

    # Without folders of splits, lists of names may define them.
    paired = [pair for its_pairs in pairs.values() for pair in its_pairs]
    image_files, mask_files = (
        [path for paths in files.values() for path in paths] for files in (images, masks)
    )
    used = {path for pair in paired for path in (pair.image, pair.mask)}
    images_alone = [path for path in image_files if path not in used]
    masks_alone = [path for path in mask_files if path not in used]
    lists = {} if any(inner_splits) else _lists(root, places[0].images)
    if lists:
        names = ", ".join(path.name for path in lists.values())
        match.reason = msg("{folders} with {lists}", folders=match.reason, lists=names)
        match.add_listed(lists, paired, images_alone, masks_alone)
    else:
        left_out = pairs.pop("", []) if any(split for split in pairs) else []
        match.splits = {split or "train": its_pairs for split, its_pairs in pairs.items()}
        match.images = [*images_alone, *(pair.image for pair in left_out)]
        match.masks = [*masks_alone, *(pair.mask for pair in left_out)]
    _note_other_folders(match, places[0], images)
    return match


def _refuse_shared_masks(pairs: dict[str, list[Pair]]) -> None:
    """Raise an error if images of two splits have one mask."""
    images: dict[Path, Path] = {}  # mask -> image
    for pair in (pair for its_pairs in pairs.values() for pair in its_pairs):
        other = images.setdefault(pair.mask, pair.image)
        if other != pair.image:
            message = msg(
                "{mask} may be the mask of {first} and of {second}; expected a mask for each.",
                mask=pair.mask,
                first=other,
                second=pair.image,
            )
            raise FullconvError(message, msg("put the masks into folders like those of the images"))


def _places(root: Path, settings: Settings) -> Iterator[_Place]:
    """Yield the folders of images and masks: in the root, else in each folder of a split."""
    images, masks = _find(root, settings, "images"), _find(root, settings, "masks")
    if images is not None and images == masks:
        masks = None
    if images and masks:
        yield _Place(images, masks)
        return
    if masks and "images" not in settings and pair_by_name(images_in(root), masks_in(masks)).pairs:
        yield _Place(root, masks)  # images, and the folder of their masks among them
        return
    has_splits = False
    for folder in folders_in(root):
        split = SPLITS.get(folder.name.lower())
        images, masks = _find(folder, settings, "images"), _find(folder, settings, "masks")
        if split and images and masks:
            has_splits = True
            yield _Place(images, masks, split)
    for key in () if has_splits else ("images", "masks"):
        if key in settings and not (root / settings[key]).is_dir():
            values = {"path": root / SETTINGS_NAME, "key": key, "folder": root / settings[key]}
            message = msg(
                "{path}: {key} names the folder {folder}, which does not exist.", **values
            )
            raise FullconvError(message, f'{key} = "{key}"')


def _find(folder: Path, settings: Settings, key: str) -> Path | None:
    """Return the folder that dataset.toml names under a key, else one of the usual names."""
    if key not in settings:
        names = IMAGE_FOLDERS if key == "images" else MASK_FOLDERS
        return find_tree(folder, names, masks=key == "masks")
    path = folder / settings[key]
    return path if path.is_dir() else None


def find_tree(folder: Path, names: Iterable[str], *, masks: bool = False) -> Path | None:
    """Return the first subfolder of one of these names (in any case) that has images, or masks, in
    it or below it."""
    by_name = {child.name.lower(): child for child in folders_in(folder)}
    for name in names:
        child = by_name.get(name)
        if child and any(files for _, files in grouped_files(child, folder, masks=masks)):
            return child
    return None


def grouped_files(
    folder: Path, root: Path, *, masks: bool = False
) -> Iterator[tuple[_Group, list[Path]]]:
    """Yield the files in a folder and in each folder below it; of the root, its own files alone.

    The folder of a split is a group even if it is empty.
    """
    for path, folders, _ in os.walk(folder, followlinks=True):
        inner = Path(path).relative_to(folder).parts
        hidden = [name for name in folders if name.startswith((".", "__"))]
        for name in folders if folder == root or len(inner) == _MAX_LEVELS else hidden:
            folders.remove(name)
        folders.sort()
        files = masks_in(Path(path)) if masks else images_in(Path(path))
        if files or (inner and inner[-1].lower() in SPLITS):
            splits = [SPLITS[part.lower()] for part in inner if part.lower() in SPLITS]
            others = tuple(part.lower() for part in inner if part.lower() not in SPLITS)
            yield (splits[0] if splits else "", others), files


def _unique_names(pairs: list[Pair]) -> list[Pair]:
    """Return pairs called like their images; with the folders before it if two have one name."""
    counts = Counter(pair.image.stem for pair in pairs)
    names: dict[str, Pair] = {}
    for pair in pairs:
        name = pair.image.stem if counts[pair.image.stem] == 1 else pair.name.replace("/", "_")
        while name in names:
            name += "_"
        names[name] = replace(pair, name=name)
    return list(names.values())


def _reason(root: Path, places: list[_Place]) -> str:
    images, masks = places[0].images, places[0].masks
    if places[0].split:
        return msg(
            "{images} and {masks} in a folder per split", images=images.name, masks=masks.name
        )
    if images == root:
        return msg("images beside {masks}", masks=masks.name)
    both = msg("{images} and {masks}", images=images.name, masks=masks.name)
    inner = [child.name.lower() for child in folders_in(images)]
    if any(name in SPLITS for name in inner):
        return msg("{folders} with a folder per split", folders=both)
    return both


def _lists(root: Path, images: Path) -> dict[str, Path]:
    places = (root, root / "splits", images.parent)
    return next((lists for place in places if (lists := split_lists(place))), {})


def _note_other_folders(match: LayoutMatch, place: _Place, images: _Files) -> None:
    """Name the folders beside the masks that also have a file for each image."""
    groups = [paths for paths in images.values() if paths and paths[0].is_relative_to(place.images)]
    sample = max(groups, key=len, default=[])[:_SAMPLED]
    if not sample:
        return
    inner = sample[0].parent.relative_to(place.images)
    names = []
    for folder in folders_in(place.masks.parent):
        if folder in (place.images, place.masks) or not (folder / inner).is_dir():
            continue
        files = [path for path in masks_in(folder / inner) if path.suffix.lower() not in _PHOTOS]
        if 2 * len(pair_by_name(sample, files).pairs) > len(sample):
            names.append(folder.name)
    if names:
        match.notes.append(
            nmsg(
                "masks are read from {masks}; {names} also has a file for each image "
                "({key} in dataset.toml selects it)",
                "masks are read from {masks}; {names} also have a file for each image "
                "({key} in dataset.toml selects another folder)",
                count=len(names),
                masks=place.masks.name,
                names=truncated_list(names),
                key=f'masks = "{names[0]}"',
            )
        )


def _match_beside(root: Path) -> LayoutMatch | None:
    """Match folders with images and masks in them: a.jpg and a_mask.png."""
    match = LayoutMatch("")
    splits = {f: SPLITS[f.name.lower()] for f in folders_in(root) if f.name.lower() in SPLITS}
    for folder, split in splits.items() if splits else [(root, "train")]:
        files = masks_in(folder)
        ending = mask_ending(path.stem for path in files)
        if not ending:
            continue
        masks = [path for path in files if path.stem.endswith(ending)]
        images = [path for path in images_in(folder) if not path.stem.endswith(ending)]
        match.reason = msg("masks called *{ending} among the images", ending=ending)
        lists = split_lists(root) if folder == root else {}
        if lists:
            match.add_lists(lists, images, masks)
        else:
            match.add(split, images, masks)
    return match if match.splits else None
