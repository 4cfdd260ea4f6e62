"""Layouts of published datasets, each recognized by folders that only it has.

cityscapes      leftImg8bit/SPLIT/CITY/a_leftImg8bit.png  gtFine/SPLIT/CITY/a_gtFine_labelIds.png
ade20k          images/training/a.jpg  annotations/training/a.png, or an objectInfo150 list
coco-stuff      images/train2017/a.jpg  annotations/train2017/a.png
sbd             img/a.jpg  cls/a.mat  train.txt val.txt
pascal-context  JPEGImages/a.jpg  trainval/a.mat  labels.txt 59_labels.txt
sift-flow       Images/SCENES/a.jpg  SemanticLabels/SCENES/a.mat
nyud            images/img_1.png  segmentation/img_1.mat  train.txt test.txt
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fullconv.core.i18n import msg
from fullconv.core.labels import Labels
from fullconv.data.io.matlab import read_mat_class_names
from fullconv.data.layouts.class_catalogue import (
    ade20k,
    cityscapes,
    numbered_from_one,
    numbered_names,
    pascal_context,
)
from fullconv.data.layouts.class_table import VOC
from fullconv.data.layouts.file_names import Pair
from fullconv.data.layouts.pairing import (
    SPLITS,
    LayoutMatch,
    folders_in,
    images_in,
    listed_stems,
    masks_in,
    split_lists,
)

# Ending of a mask's name -> whether it holds train ids.
_CITYSCAPES_ENDINGS = {
    "_gtFine_labelIds": False,
    "_gtCoarse_labelIds": False,
    "_labelTrainIds": True,
}
_COCO = {"train2017": "train", "val2017": "val", "train2014": "train", "val2014": "val"}
_COCO_MASKS = ("annotations", "stuffthingmaps", "stuffthingmaps_trainval2017", "pixelmaps", "masks")
_COCO_STUFF_CLASSES = 182  # class id = COCO id - 1; 11 of them never occur


def _cityscapes(root: Path) -> LayoutMatch | None:
    images = root / "leftImg8bit"
    masks = [root / name for name in ("gtFine", "gtCoarse") if (root / name).is_dir()]
    if not images.is_dir() or not masks:
        return None
    match = LayoutMatch(msg("{images} and {masks}", images=images.name, masks=masks[0].name))
    train_ids: set[bool] = set()
    for folder in folders_in(images):
        if folder.name not in SPLITS:
            continue
        pairs = match.splits.setdefault(SPLITS[folder.name], [])
        for image in (path for city in folders_in(folder) for path in images_in(city)):
            stem = image.stem.removesuffix("_leftImg8bit")
            city = masks[0] / folder.name / image.parent.name
            candidates = {
                city / f"{stem}{middle}{ending}.png": holds_train_ids
                for ending, holds_train_ids in _CITYSCAPES_ENDINGS.items()
                for middle in ("", "_gtFine", "_gtCoarse")
            }
            mask = next((path for path in candidates if path.is_file()), None)
            if mask is None:
                match.images.append(image)
            else:
                pairs.append(Pair(stem, image, mask))
                train_ids.add(candidates[mask])
    match.splits = {split: pairs for split, pairs in match.splits.items() if pairs}
    match.labels = cityscapes(train_ids=train_ids == {True})
    return match


def _ade20k(root: Path) -> LayoutMatch | None:
    images, masks = root / "images", root / "annotations"
    tables = [root / name for name in ("objectInfo150.csv", "objectInfo150.txt")]
    table = next((path for path in tables if path.is_file()), None)
    splits = [s for s in ("training", "validation") if (masks / s).is_dir()]
    if not (images.is_dir() and masks.is_dir() and (table or len(splits) == 2)):
        return None
    folders = msg("images and annotations in training and validation")
    match = LayoutMatch(table.name if table else folders, labels=ade20k(table))
    for split in splits:
        if (images / split).is_dir():
            match.add(SPLITS[split], images_in(images / split), masks_in(masks / split))
    if not splits:
        match.add("train", images_in(images), masks_in(masks))
    return match if any(match.splits.values()) else None


def _coco_stuff(root: Path) -> LayoutMatch | None:
    images = root / "images" if (root / "images").is_dir() else root
    masks = next((root / name for name in _COCO_MASKS if (root / name).is_dir()), None)
    if masks is None:
        return None
    match = LayoutMatch(msg("{masks} with a folder per COCO split", masks=masks.name))
    for name, split in _COCO.items():
        if (images / name).is_dir() and (masks / name).is_dir() and masks_in(masks / name):
            match.add(split, images_in(images / name), masks_in(masks / name))
    if not match.splits:
        return None
    names = [f"class {k}" for k in range(_COCO_STUFF_CLASSES)]
    if (root / "labels.txt").is_file():
        for number, name in numbered_names(root / "labels.txt").items():
            if 1 <= number <= _COCO_STUFF_CLASSES:
                names[number - 1] = name
    match.labels = Labels(tuple(names))
    return match


def _sbd(root: Path) -> LayoutMatch | None:
    images, masks = root / "img", root / "cls"
    if not (images.is_dir() and masks.is_dir() and any(masks.glob("*.mat"))):
        return None
    match = LayoutMatch(msg("img and cls with MATLAB files"), labels=VOC)
    _with_lists(match, split_lists(root), images_in(images), masks_in(masks))
    return match


def _pascal_context(root: Path) -> LayoutMatch | None:
    labels, images = root / "labels.txt", root / "JPEGImages"
    masks = next((f for f in folders_in(root) if any(f.glob("*.mat"))), None)
    if not (labels.is_file() and images.is_dir() and masks):
        return None
    subset = root / "59_labels.txt"
    table = pascal_context(labels, subset if subset.is_file() else None)
    reason = msg("JPEGImages, {masks} with MATLAB files and labels.txt", masks=masks.name)
    match = LayoutMatch(reason, labels=table)
    lists = split_lists(root) or split_lists(root / "ImageSets" / "Main")
    _with_lists(match, lists, images_in(images), masks_in(masks))
    return match


def _sift_flow(root: Path) -> LayoutMatch | None:
    images, masks = root / "Images", root / "SemanticLabels"
    if not (images.is_dir() and masks.is_dir()):
        return None
    image_files = [path for f in (images, *folders_in(images)) for path in images_in(f)]
    mask_files = [path for f in (masks, *folders_in(masks)) for path in masks_in(f)]
    if not mask_files or mask_files[0].suffix != ".mat":
        return None
    names = read_mat_class_names(mask_files[0])
    match = LayoutMatch(msg("Images and SemanticLabels with MATLAB files"))
    match.labels = numbered_from_one(names) if names else None
    _with_lists(match, split_lists(root, extra=("trainval",)), image_files, mask_files)
    return match


def _nyud(root: Path) -> LayoutMatch | None:
    folders = (root / "images", root / "data" / "images")
    images = next((folder for folder in folders if folder.is_dir()), None)
    masks = root / "segmentation"
    if images is None or not masks.is_dir() or not any(masks.glob("*.mat")):
        return None
    match = LayoutMatch(msg("images and segmentation with MATLAB files"))
    match.labels = numbered_from_one([f"class {k}" for k in range(1, 41)])
    _with_lists(match, split_lists(root), images_in(images), masks_in(masks), prefix="img_")
    return match


def _with_lists(
    match: LayoutMatch,
    lists: dict[str, Path],
    images: list[Path],
    masks: list[Path],
    prefix: str = "",
) -> None:
    """Add the splits of lists, whose names may lack a prefix of the files' names; without lists
    everything is train."""
    if (trainval := lists.pop("trainval", None)) is not None:
        lists.setdefault("train", trainval)
    if not lists:
        match.add("train", images, masks)
        return
    names = ", ".join(path.name for path in lists.values())
    match.reason = msg("{folders} and {lists}", folders=match.reason, lists=names)
    if not prefix:
        match.add_lists(lists, images, masks)
        return
    for split, path in lists.items():
        stems = {stem if stem.startswith(prefix) else prefix + stem for stem in listed_stems(path)}
        match.add(
            split,
            [image for image in images if image.stem in stems],
            [mask for mask in masks if mask.stem in stems],
        )


LAYOUTS: dict[str, Callable[[Path], LayoutMatch | None]] = {
    "cityscapes": _cityscapes,
    "ade20k": _ade20k,
    "coco-stuff": _coco_stuff,
    "sbd": _sbd,
    "pascal-context": _pascal_context,
    "sift-flow": _sift_flow,
    "nyud": _nyud,
}
