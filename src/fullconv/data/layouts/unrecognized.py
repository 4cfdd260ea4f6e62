"""Unknown: what is said of a folder that no layout fits.

First what was found, then where masks were looked for, then a line to paste. The commonest cases
have words of their own: a folder inside a data set, photos without masks, masks in a folder of
another name or beside their photos.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import suppress
from itertools import islice
from pathlib import Path

from fullconv.core.errors import FullconvError
from fullconv.core.text import plural, shell_command, truncated_list
from fullconv.data.download.download import nearest_dataset_names
from fullconv.data.layouts import published
from fullconv.data.layouts.annotation_formats import convertible, label_files
from fullconv.data.layouts.pairing import (
    IMAGE_FOLDERS,
    MASK_ENDINGS,
    MASK_FOLDERS,
    SPLITS,
    LayoutMatch,
    folders_in,
    images_in,
    pair_up,
)
from fullconv.data.layouts.paths import unused_path, where_to_paste

_EXAMPLE = """\
DATA/images/train/a.jpg   DATA/masks/train/a.png
DATA/images/val/b.jpg     DATA/masks/val/b.png"""
_LOOKED = {
    **published.LOOKED,
    "voc": "JPEGImages/ and SegmentationClass/",
    "camvid": "train.txt with 'image mask' lines, or train/ and trainannot/",
    "folders": f"a folder of images ({', '.join(IMAGE_FOLDERS)}) and one of masks "
    f"({', '.join(MASK_FOLDERS)})",
}
_LISTED = 8
_ABOVE = 3  # folders up to the data set that a folder may be a part of
_BELOW = 2  # folders down to the images
_WALKED = 2000  # folders that are looked into for images further down
_COMPARED = 40  # folders, the fullest ones, whose names are held against each other


def no_folder(root: Path) -> FullconvError:
    """Of a path that is none."""
    there = f"{root} is a file" if root.exists() else f"there is no folder {root}"
    above = next((p for p in root.parents if p.is_dir()), Path())
    hint = (
        shell_command("fullconv", "check", above) if root.exists() else shell_command("ls", above)
    )
    names = [] if root.exists() else nearest_dataset_names(root)
    if names:
        there += f", nor a published data set of that name (nearest: {', '.join(names)})"
        hint = f"{shell_command('fullconv', 'check', names[0])}   # downloads it, where it is not there yet"
    return FullconvError(
        f"{there}; expected the folder of a data set, for example\n{_EXAMPLE}", hint
    )


def several(root: Path, folders: list[Path]) -> FullconvError:
    """Of a folder with more than one data set."""
    listed = truncated_list([str(folder) for folder in folders], _LISTED)
    return FullconvError(
        f"{root} holds {len(folders)} data sets: {listed}; expected one.",
        shell_command("fullconv", "check", folders[0]),
    )


def no_pairs(root: Path, name: str, found: LayoutMatch) -> FullconvError:
    """Of a folder that lies as a layout does, where no names agree."""
    examples = " and ".join(path.name for path in (found.images[:1] + found.masks[:1]))
    images, masks = plural(len(found.images), "image"), plural(len(found.masks), "mask")
    return FullconvError(
        f"{root} looks like the layout {name!r} ({found.reason}), but no image has a mask: "
        f"{images} and {masks}, such as {examples}. "
        f"A mask has its image's stem, or that and one of {', '.join(MASK_ENDINGS)}.",
        "rename the masks to the names of their images: images/a.jpg masks/a.png",
    )


def not_laid_out(root: Path, layout: str, told_in: str) -> FullconvError:
    """Of a folder that is not as a layout that was named, on the command line ("") or in a file."""
    if (shapes := _to_convert(root)) is not None:
        return shapes
    again = shell_command("fullconv", "check", root)
    return FullconvError(
        f"{told_in}{root} is no data set of the layout {layout!r}. Looked for {_LOOKED[layout]} "
        f"(folders without an image do not count). LayoutMatch {_content(root)}.",
        'layout = "folders"   # there; without this line it is recognised'
        if told_in
        else f"{again}   # without --layout: it is recognised, or what is missing is said",
    )


def unknown(root: Path, recognised: Callable[[Path], LayoutMatch | None]) -> FullconvError:
    """Of any other folder; `recognised` tries all layouts on one."""
    return _to_convert(root) or _part(root, recognised) or _without_masks(root)


def _to_convert(root: Path) -> FullconvError | None:
    """Annotation files hold shapes and no masks."""
    for path in sorted(root.rglob("*.json")):
        kind = convertible(path)
        if kind is not None:
            where = f"{path.relative_to(root)} is a file of {kind}"
            break
    else:
        lists = label_files(root)
        if not lists:
            return None
        where = f"{lists[0].relative_to(root)} has outlines as Ultralytics writes them"
    return FullconvError(
        f"{root} holds annotations, not masks: {where}. They become id masks in a new folder.",
        shell_command("fullconv", "convert", root, unused_path(root, "_masks")),
    )


def _part(root: Path, recognised: Callable[[Path], LayoutMatch | None]) -> FullconvError | None:
    """A folder inside a data set: its images/ alone."""
    inside = root.resolve()
    for above in inside.parents[:_ABOVE]:
        with suppress(FullconvError, OSError):
            found = recognised(above)
            pairs = [pair for some in found.splits.values() for pair in some] if found else []
            for kind, other in (("image", "mask"), ("mask", "image")):
                here = [p for p in pairs if _file(p, kind).is_relative_to(inside)]
                if here and found:
                    shown = above if root.is_absolute() else Path(os.path.relpath(above))
                    where = _file(here[0], other).parent.relative_to(above)
                    return FullconvError(
                        f"{root} holds {plural(len(here), kind)} and no {other}s. It is a part of "
                        f"the data set {shown}, which has those in {where}.",
                        shell_command("fullconv", "check", shown),
                    )
    return None


def _file(pair: object, kind: str) -> Path:
    path: Path = getattr(pair, kind)
    return path


def _without_masks(root: Path) -> FullconvError:
    """Photos alone, masks in a folder of another name or beside the photos, or nothing at all."""
    folders = _images_below(root)
    if not folders:
        return _without_images(root)
    count = sum(map(len, folders.values()))
    where = "" if set(folders) == {root} else f" in {plural(len(folders), 'folder')}"
    held = f"{root} holds {plural(count, 'image')}{where} and no"
    if (two := _two_folders(root, folders)) is not None:
        (images, masks), agree = two
        return FullconvError(
            f"{held} folder called {', '.join(MASK_FOLDERS[:3])} or the like. {masks} may be the "
            f"masks of {images}: {plural(agree, 'name agrees', 'names agree')}.",
            f"{where_to_paste(root)}:\nimages = {json.dumps(images)}\nmasks = {json.dumps(masks)}",
        )
    for folder, files in folders.items():
        stems = {path.stem for path in files}
        for end in MASK_ENDINGS:
            if any(stem + end in stems for stem in stems):
                return FullconvError(
                    f"{held} folder of masks. Those in {folder} are called *{end} and lie among "
                    "the photos; expected a folder of their own.",
                    " && ".join(
                        (
                            shell_command("mkdir", folder / "masks"),
                            f"mv {shell_command(folder)}"
                            + f"/*{end}.* "
                            + shell_command(folder / "masks"),
                        )
                    ),
                )
    largest = max(folders, key=lambda folder: len(folders[folder]))
    return FullconvError(
        f"{held} masks. Looked for a folder called {', '.join(MASK_FOLDERS[:-1])} or "
        f"{MASK_FOLDERS[-1]}, in it and in the folders up to {_BELOW} below.",
        f"{shell_command('mkdir', largest / 'masks')}   # and put a mask there for each image, of its "
        "name",
    )


def _without_images(root: Path) -> FullconvError:
    walk = ((Path(folder), files) for folder, _, files in islice(os.walk(root), _WALKED))
    deep = next((folder for folder, files in walk if files and images_in(folder)), None)
    looked = f"Looked in it and in the folders up to {_BELOW} below"
    if deep is not None:
        return FullconvError(
            f"{root} holds no data set. {looked}; the first images lie in {deep}. Expected a "
            "folder that holds images and their masks.",
            shell_command("fullconv", "check", deep.parent),
        )
    return FullconvError(
        f"{root} holds no images: there is {_content(root)}. {looked}. A data set lies for "
        f"example as\n{_EXAMPLE}",
        f"{shell_command('mkdir', '-p', root / 'images', root / 'masks')}   # for images and masks",
    )


def _images_below(root: Path) -> dict[Path, list[Path]]:
    """Folder -> its images, where there are some."""
    found: dict[Path, list[Path]] = {}
    level = [root]
    for _ in range(_BELOW + 1):
        found |= {folder: files for folder in level if (files := images_in(folder))}
        level = [child for folder in level for child in folders_in(folder)]
    return found


def _two_folders(root: Path, folders: dict[Path, list[Path]]) -> tuple[tuple[str, str], int] | None:
    """The folder of images and that of their masks, relative to the root, where most names agree;
    and how many do."""
    hits = []
    fullest = sorted(folders, key=lambda folder: -len(folders[folder]))[:_COMPARED]
    for images in fullest:
        for masks in fullest:
            if images == masks:
                continue
            photos, files = folders[images], folders[masks]
            agree = len(pair_up(photos, files)[0])
            lossy = sum(path.suffix.lower() in (".jpg", ".jpeg") for path in photos)
            weight = sum(path.stat().st_size for path in photos[:20])
            hits.append((agree, lossy, weight, images, masks))
    if not hits or not max(hits)[0]:
        return None
    agree, _, _, images, masks = max(hits)
    if images.name == masks.name and images.name.lower() in SPLITS:  # photos/train truth/train
        images, masks = images.parent, masks.parent
    names = (images.relative_to(root).as_posix(), masks.relative_to(root).as_posix())
    return names, agree


def _content(root: Path) -> str:
    there = sorted(path.name + "/" * path.is_dir() for path in root.iterdir())
    return truncated_list(there, _LISTED) if there else "nothing in it"
