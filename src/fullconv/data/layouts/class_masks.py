"""Datasets with several masks per image, which must be converted: a file per class or per object.

images/a.jpg      masks/disc/a.png  masks/bar/a.png      a folder of masks for each class
a/images/a.png    a/masks/1.png     a/masks/2.png        a folder of masks for each image
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fullconv.core.errors import FullconvError
from fullconv.core.i18n import msg
from fullconv.core.text import shell_command, truncated_list
from fullconv.data.io.masks import count_values
from fullconv.data.layouts.file_names import pair_by_name
from fullconv.data.layouts.folders import find_tree, grouped_files
from fullconv.data.layouts.pairing import IMAGE_FOLDERS, MASK_FOLDERS, SPLITS, folders_in, images_in
from fullconv.data.layouts.paths import unused_path

_SAMPLED = 3  # images whose masks are opened
OBJECT = "object"  # the class of files that only tell objects apart


@dataclass(frozen=True)
class ImageMasks:
    """An image, its split ("" if unknown), and the class and path of each of its masks."""

    image: Path
    split: str
    masks: tuple[tuple[str, Path], ...]


def find_class_masks(root: Path) -> list[ImageMasks]:
    """Return the images of a folder that has several masks for each; [] for any other folder."""
    return _folder_per_class(root) or _folder_per_image(root)


def refuse_class_masks(root: Path) -> FullconvError | None:
    """Return the error for a folder with several masks per image; None for any other folder."""
    images = find_class_masks(root)
    if not images:
        return None
    names = sorted({name for image in images for name, _ in image.masks})
    values = {"root": root, "count": len(images), "example": images[0].image}
    if names == [OBJECT]:
        message = msg(
            "{root} has a mask for each object of its {count} images, such as those of {example}; "
            "expected one mask per image. Convert them.",
            **values,
        )
    else:
        message = msg(
            "{root} has a mask for each class ({names}) of its {count} images; expected one mask "
            "per image. Convert them.",
            names=truncated_list(names),
            **values,
        )
    return FullconvError(
        message, shell_command("fullconv", "convert", root, unused_path(root, "_masks"))
    )


def _folder_per_class(root: Path) -> list[ImageMasks]:
    images_folder = find_tree(root, IMAGE_FOLDERS)
    masks_folder = find_tree(root, MASK_FOLDERS, masks=True)
    if images_folder is None or masks_folder is None or images_folder == masks_folder:
        return []
    images = dict(grouped_files(images_folder, root))
    masks = dict(grouped_files(masks_folder, root, masks=True))
    by_image: dict[Path, tuple[str, list[tuple[str, Path]]]] = {}
    for (split, folders), files in ((group, files) for group, files in masks.items() if files):
        of_split = images.get((split, ()), [])
        pairs = pair_by_name(of_split, files).pairs
        if len(folders) != 1 or not pairs:
            return []  # masks beside the folders, deeper ones, or masks of something else
        for pair in pairs:
            name = pair.mask.parent.name
            if name.lower() in SPLITS:  # masks/disc/train/a.png
                name = pair.mask.parent.parent.name
            by_image.setdefault(pair.image, (split, []))[1].append((name, pair.mask))
    # Folders of a name each, or of ids of several classes, are no classes.
    several = [its_masks for _, its_masks in by_image.values() if len(its_masks) > 1]
    sample = [path for its_masks in several[:_SAMPLED] for _, path in its_masks]
    if not several or 2 * sum(map(_is_binary, sample)) <= len(sample):
        return []
    return [
        ImageMasks(image, split, tuple(sorted(its_masks)))
        for image, (split, its_masks) in sorted(by_image.items())
    ]


def _is_binary(path: Path) -> bool:
    try:
        return len(count_values(path).counts) <= 2
    except FullconvError:
        return True  # `convert` reports it


def _folder_per_image(root: Path) -> list[ImageMasks]:
    entries = []
    for folder in (root, *folders_in(root)):
        for child in folders_in(folder):
            images, masks = (
                find_tree(child, names, masks=names is MASK_FOLDERS)
                for names in (IMAGE_FOLDERS, MASK_FOLDERS)
            )
            if images is None or masks is None:
                continue
            files = images_in(images)
            its_masks = images_in(masks)
            if len(files) != 1 or pair_by_name(files, its_masks).pairs:
                return []
            split = SPLITS.get(folder.name.lower(), "") if folder != root else ""
            masks_of_image = tuple((OBJECT, path) for path in its_masks)
            entries.append(ImageMasks(files[0], split, masks_of_image))
    return entries
