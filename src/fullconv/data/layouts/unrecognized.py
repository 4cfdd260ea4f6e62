"""Error messages for folders that are no dataset of any layout.

Each tells what the folder contains, what was searched for, and a command to run next.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import suppress
from itertools import islice, permutations
from pathlib import Path

from fullconv.core.errors import FullconvError
from fullconv.core.i18n import join, msg, nmsg
from fullconv.core.text import shell_command, truncated_list
from fullconv.data.download.download import nearest_dataset_names
from fullconv.data.io.masks import count_values
from fullconv.data.layouts.annotation_formats import outline_files, tool_of_file
from fullconv.data.layouts.class_masks import refuse_class_masks
from fullconv.data.layouts.file_names import MASK_ENDINGS, Pair, pair_by_name
from fullconv.data.layouts.pairing import (
    IMAGE_FOLDERS,
    MASK_FOLDERS,
    SPLITS,
    LayoutMatch,
    folders_in,
    images_in,
)
from fullconv.data.layouts.paths import unused_path, where_to_paste

_EXAMPLE = """\
DATA/images/train/a.jpg   DATA/masks/train/a.png
DATA/images/val/b.jpg     DATA/masks/val/b.png"""
_SIGNS = {  # layout -> what it is recognized by
    "cityscapes": msg("leftImg8bit/ and gtFine/"),
    "ade20k": msg("images/ and annotations/ with training/ and validation/, or objectInfo150.csv"),
    "coco-stuff": msg("images/train2017/ and annotations/train2017/"),
    "sbd": msg("img/ and cls/*.mat"),
    "pascal-context": msg("JPEGImages/, trainval/*.mat and labels.txt"),
    "sift-flow": msg("Images/ and SemanticLabels/*/*.mat"),
    "nyud": msg("images/ and segmentation/*.mat"),
    "voc": msg("JPEGImages/ and SegmentationClass/"),
    "camvid": msg("train.txt with 'image mask' lines, or train/ and trainannot/"),
    "folders": msg(
        "a folder of images ({images}) and one of masks ({masks})",
        images=", ".join(IMAGE_FOLDERS),
        masks=", ".join(MASK_FOLDERS),
    ),
}
_LISTED = 8
_LEVELS_UP = 3  # that are searched for the dataset that a folder is a part of
_LEVELS_DOWN = 2  # that are searched for images
_MAX_WALKED = 2000  # folders that are searched for images further down
_MAX_COMPARED = 40  # folders, the fullest first, whose file names are compared
_MAX_NAMES = 200  # of a folder that are compared
_MAX_OPENED = 6  # pairs of folders of which some files are opened
_OPENED_PAIRS = 3

_Match = Callable[[Path], tuple[str, LayoutMatch] | None]


def no_folder(root: Path) -> FullconvError:
    """Return the error for a path that is not a folder."""
    parent = next((path for path in root.parents if path.is_dir()), Path())
    names = [] if root.exists() else nearest_dataset_names(root)
    values = {"root": root, "names": ", ".join(names), "example": _EXAMPLE}
    if root.exists():
        message = msg(
            "{root} is a file; expected the folder of a dataset, for example\n{example}", **values
        )
        return FullconvError(message, shell_command("fullconv", "check", parent))
    if names:
        message = msg(
            "there is no folder {root}, and no published dataset of that name (nearest: {names}); "
            "expected the folder of a dataset, for example\n{example}",
            **values,
        )
        command = shell_command("fullconv", "check", names[0])
        hint = msg("{command}   # downloads it if necessary", command=command)
        return FullconvError(message, hint)
    message = msg(
        "there is no folder {root}; expected the folder of a dataset, for example\n{example}",
        **values,
    )
    return FullconvError(message, shell_command("ls", parent))


def several_datasets(root: Path, folders: list[Path]) -> FullconvError:
    """Return the error for a folder with more than one dataset."""
    if (class_masks := refuse_class_masks(root)) is not None:
        return class_masks
    values = {"root": root, "count": len(folders), "folders": truncated_list(folders, _LISTED)}
    message = msg("{root} contains {count} datasets: {folders}; expected one.", **values)
    return FullconvError(message, shell_command("fullconv", "check", folders[0]))


def no_pairs(root: Path, layout: str, match: LayoutMatch) -> FullconvError:
    """Return the error for a folder of a known layout in which no names agree."""
    if (class_masks := refuse_class_masks(root)) is not None:
        return class_masks
    message = msg(
        "{root} looks like the layout {layout!r} ({reason}), but no image has a mask: {images} "
        "and {masks}, such as {examples}. A mask has the name of its image, or that name and "
        "one of {endings}.",
        root=root,
        layout=layout,
        reason=match.reason,
        images=nmsg("{count} image", "{count} images", len(match.images)),
        masks=nmsg("{count} mask", "{count} masks", len(match.masks)),
        examples=", ".join(path.name for path in (*match.images[:1], *match.masks[:1])),
        endings=", ".join(MASK_ENDINGS),
    )
    hint = msg("rename the masks to the names of their images: images/a.jpg masks/a.png")
    return FullconvError(message, hint)


def wrong_layout(root: Path, layout: str, settings_path: Path | None) -> FullconvError:
    """Return the error for a folder that does not have the layout which was given on the command
    line, or in a dataset.toml."""
    if (annotations := _annotations(root)) is not None:
        return annotations
    problem = msg(
        "{root} is not a dataset of the layout {layout!r}. Searched for {signs} (folders without "
        "images are ignored). Found {content}.",
        root=root,
        layout=layout,
        signs=_SIGNS[layout],
        content=_content(root),
    )
    if settings_path is not None:
        line = 'layout = "folders"'
        return FullconvError(
            msg("{path}: {message}", path=settings_path, message=problem),
            msg("{line}   # or remove this line: then the layout is recognized", line=line),
        )
    command = shell_command("fullconv", "check", root)
    hint = msg("{command}   # recognizes the layout, or reports what is missing", command=command)
    return FullconvError(problem, hint)


def unrecognized(root: Path, match_layout: _Match) -> FullconvError:
    """Return the error for any other folder; `match_layout` tries all layouts on a folder."""
    return _annotations(root) or _part_of_dataset(root, match_layout) or _without_masks(root)


def _annotations(root: Path) -> FullconvError | None:
    """Annotation files contain shapes and no masks."""
    for path in sorted(root.rglob("*.json")):
        if (tool := tool_of_file(path)) is not None:
            file = path.relative_to(root)
            sign = msg("{file} is a file of {tool}", file=file, tool=tool)
            break
    else:
        outlines = outline_files(root)
        if not outlines:
            return None
        file = outlines[0].relative_to(root)
        sign = msg("{file} has outlines in the format of Ultralytics", file=file)
    message = msg(
        "{root} contains annotations, not masks: {sign}. Convert them to masks in a new folder.",
        root=root,
        sign=sign,
    )
    out = unused_path(root, "_masks")
    return FullconvError(message, shell_command("fullconv", "convert", root, out))


def _part_of_dataset(root: Path, match_layout: _Match) -> FullconvError | None:
    """The folder is inside a dataset: its images/ alone, for example."""
    inside = root.resolve()
    for parent in inside.parents[:_LEVELS_UP]:
        with suppress(FullconvError, OSError):
            match = match_layout(parent)
            pairs = [pair for split in match[1].splits.values() for pair in split] if match else []
            images = [pair for pair in pairs if pair.image.is_relative_to(inside)]
            masks = [pair for pair in pairs if pair.mask.is_relative_to(inside)]
            if not images and not masks:
                continue
            folder = parent if root.is_absolute() else Path(os.path.relpath(parent))
            count = len(images or masks)
            if images:
                content = nmsg("{count} image and no masks", "{count} images and no masks", count)
                other = images[0].mask.parent
            else:
                content = nmsg("{count} mask and no images", "{count} masks and no images", count)
                other = masks[0].image.parent
            message = msg(
                "{root} contains {content}. It is a part of the dataset {dataset}, which has the "
                "others in {other}.",
                root=root,
                content=content,
                dataset=folder,
                other=other.relative_to(parent),
            )
            return FullconvError(message, shell_command("fullconv", "check", folder))
    return None


def _without_masks(root: Path) -> FullconvError:
    """The folder has images alone, masks in a folder of another name or among the images, or
    nothing at all."""
    folders: dict[Path, list[Path]] = {}  # folder -> its images
    level = [root]
    for _ in range(_LEVELS_DOWN + 1):
        folders |= {folder: files for folder in level if (files := images_in(folder))}
        level = [child for folder in level for child in folders_in(folder)]
    if not folders:
        return _without_images(root)
    images = nmsg("{count} image", "{count} images", sum(map(len, folders.values())))
    if set(folders) != {root}:
        count = len(folders)
        images = nmsg(
            "{images} in {count} folder", "{images} in {count} folders", count, images=images
        )

    # Do the names in two folders agree?
    if (guess := _guess_folders(root, folders)) is not None:
        image_folder, mask_folder, agreeing = guess
        message = nmsg(
            "{root} contains {images} and no folder called {names} or similar. {masks} may be the "
            "masks of {folder}: {count} file name agrees.",
            "{root} contains {images} and no folder called {names} or similar. {masks} may be the "
            "masks of {folder}: {count} file names agree.",
            agreeing,
            root=root,
            images=images,
            names=", ".join(MASK_FOLDERS[:3]),
            masks=mask_folder,
            folder=image_folder,
        )
        where = msg("{where}:", where=where_to_paste(root))
        lines = f"images = {json.dumps(image_folder)}", f"masks = {json.dumps(mask_folder)}"
        return FullconvError(message, join([where, *lines]))

    message = msg(
        "{root} contains {images} and no masks. Searched for a folder called {names}, in it and up "
        "to {levels} levels below.",
        root=root,
        images=images,
        names=", ".join(MASK_FOLDERS),
        levels=_LEVELS_DOWN,
    )
    largest = max(folders, key=lambda folder: len(folders[folder]))
    hint = msg(
        "{command}   # and put a mask with the name of its image there for each image",
        command=shell_command("mkdir", largest / "masks"),
    )
    return FullconvError(message, hint)


def _without_images(root: Path) -> FullconvError:
    walk = ((Path(folder), files) for folder, _, files in islice(os.walk(root), _MAX_WALKED))
    deep = next((folder for folder, files in walk if files and images_in(folder)), None)
    values = {"root": root, "levels": _LEVELS_DOWN}
    if deep is not None:
        message = msg(
            "{root} contains no dataset. Searched it and {levels} levels below; the first images "
            "are in {folder}. Expected a folder with images and their masks.",
            folder=deep,
            **values,
        )
        return FullconvError(message, shell_command("fullconv", "check", deep.parent))
    message = msg(
        "{root} contains no images: found {content}. Searched it and {levels} levels below. "
        "Expected a dataset, for example\n{example}",
        content=_content(root),
        example=_EXAMPLE,
        **values,
    )
    command = shell_command("mkdir", "-p", root / "images", root / "masks")
    return FullconvError(message, msg("{command}   # for images and masks", command=command))


def _guess_folders(root: Path, folders: dict[Path, list[Path]]) -> tuple[str, str, int] | None:
    """Return the names of the folders of images and masks, and how many file names agree; None if
    no two folders are alike.

    The paths of the two folders differ in one name: photos/north and truth/north, or train/sat and
    train/map. Of several such pairs of names, the one that the most file names fit is returned,
    among those whose files are photographs and masks of the same size.
    """
    fullest = sorted(folders, key=lambda folder: -len(folders[folder]))[:_MAX_COMPARED]
    candidates: dict[tuple[str, str], list[Pair]] = {}
    places: dict[tuple[str, str], list[tuple[Path, Path]]] = {}
    for images, masks in permutations(fullest, 2):
        parts = images.relative_to(root).parts, masks.relative_to(root).parts
        if images == root and len(parts[1]) == 1:
            names = ".", parts[1][0]
        else:
            differing = [k for k, (a, b) in enumerate(zip(*parts, strict=False)) if a != b]
            if len(parts[0]) != len(parts[1]) or len(differing) != 1:
                continue
            k = differing[0]
            inside_splits = all(part.lower() in SPLITS for part in parts[0][:k])
            names = (
                (parts[0][k], parts[1][k])
                if inside_splits
                else ("/".join(parts[0][: k + 1]), "/".join(parts[1][: k + 1]))
            )
        pairs = pair_by_name(folders[images][:_MAX_NAMES], folders[masks][:_MAX_NAMES]).pairs
        candidates.setdefault(names, []).extend(pairs)
        places.setdefault(names, []).append((images, masks))
    likely = sorted(candidates, key=lambda names: -len(candidates[names]))[:_MAX_OPENED]
    ranked = [(*_likeness(pairs), names) for names in likely if (pairs := candidates[names])]
    if not ranked or not max(ranked)[0]:
        return None
    names = max(ranked)[-1]
    counts = [len(pair_by_name(folders[a], folders[b]).pairs) for a, b in places[names]]
    return *names, sum(counts)


def _likeness(pairs: list[Pair]) -> tuple[bool, bool, int, int, int]:
    """Return how much the second files of some pairs look like masks of the first ones: sizes
    agree, fewer colors, number of pairs, JPEG files, bytes of the images."""
    sample = pairs[:: max(1, len(pairs) // _OPENED_PAIRS)][:_OPENED_PAIRS]
    fewer = True
    for pair in sample:
        try:
            image, mask = count_values(pair.image), count_values(pair.mask)
        except FullconvError:
            return False, False, 0, 0, 0
        colors = [len(histogram.counts) + histogram.more for histogram in (image, mask)]
        if image.size != mask.size or colors[1] > colors[0]:
            return False, False, 0, 0, 0
        fewer = fewer and colors[1] < colors[0]
    jpegs = sum(pair.image.suffix.lower() in (".jpg", ".jpeg") for pair in pairs)
    return True, fewer, len(pairs), jpegs, sum(pair.image.stat().st_size for pair in sample)


def _content(root: Path) -> str:
    names = sorted(path.name + "/" * path.is_dir() for path in root.iterdir())
    return truncated_list(names, _LISTED) if names else msg("nothing in it")
