"""Layouts of published data sets, each recognised by folders that only it has.

cityscapes      leftImg8bit/SPLIT/CITY/a_leftImg8bit.png  gtFine/SPLIT/CITY/a_gtFine_labelIds.png
ade20k          images/training/a.jpg  annotations/training/a.png, or an objectInfo150 list
coco-stuff      images/train2017/a.jpg  annotations/train2017/a.png
sbd             img/a.jpg  cls/a.mat  train.txt val.txt
pascal-context  JPEGImages/a.jpg  trainval/a.mat  labels.txt 59_labels.txt
sift-flow       Images/SCENES/a.jpg  SemanticLabels/SCENES/a.mat
nyud            images/img_1.png  segmentation/img_1.mat  train.txt test.txt
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from fullconv.core.labels import Labels
from fullconv.data.io.array_masks import read_mat_class_names
from fullconv.data.layouts import class_catalogue as catalogue
from fullconv.data.layouts import class_table as tables
from fullconv.data.layouts.pairing import (
    SPLITS,
    LayoutMatch,
    Pair,
    add_lists,
    folders_in,
    images_in,
    listed_stems,
    masks_in,
    split_lists,
)

_CITIES = (("_gtFine_labelIds", False), ("_gtCoarse_labelIds", False), ("_labelTrainIds", True))
_COCO = {"train2017": "train", "val2017": "val", "train2014": "train", "val2014": "val"}
_COCO_MASKS = ("annotations", "stuffthingmaps", "stuffthingmaps_trainval2017", "pixelmaps", "masks")
_STUFF = 182  # classes of COCO-Stuff, by id - 1; 11 of them occur nowhere


def _cityscapes(root: Path) -> LayoutMatch | None:
    images = root / "leftImg8bit"
    truths = [root / name for name in ("gtFine", "gtCoarse") if (root / name).is_dir()]
    if not images.is_dir() or not truths:
        return None
    found = LayoutMatch(f"leftImg8bit and {truths[0].name}")
    ends: set[bool] = set()
    for split in folders_in(images):
        if split.name not in SPLITS:
            continue
        pairs = found.splits.setdefault(SPLITS[split.name], [])
        for image in (p for city in folders_in(split) for p in images_in(city)):
            stem = image.stem.removesuffix("_leftImg8bit")
            folder = truths[0] / split.name / image.parent.name
            hit = _city_mask(folder, stem)
            if hit is None:
                found.images.append(image)
                continue
            pairs.append(Pair(stem, image, hit[0]))
            ends.add(hit[1])
    found.splits = {split: pairs for split, pairs in found.splits.items() if pairs}
    found.known = catalogue.cityscapes(train_ids=ends == {True})
    return found


def _city_mask(folder: Path, stem: str) -> tuple[Path, bool] | None:
    """The mask of an image, and whether it holds train ids."""
    for end, train_ids in _CITIES:
        names = (f"{stem}{end}.png", f"{stem}_gtFine{end}.png", f"{stem}_gtCoarse{end}.png")
        for name in names:
            if (folder / name).is_file():
                return folder / name, train_ids
    return None


def _ade20k(root: Path) -> LayoutMatch | None:
    images, masks = root / "images", root / "annotations"
    listed = [root / name for name in ("objectInfo150.csv", "objectInfo150.txt")]
    table = next((path for path in listed if path.is_file()), None)
    splits = [s for s in ("training", "validation") if (masks / s).is_dir()]
    if not (images.is_dir() and masks.is_dir() and (table or len(splits) == 2)):
        return None
    by = table.name if table else "images and annotations in training and validation"
    found = LayoutMatch(by, known=catalogue.ade20k(table))
    for split in splits:
        if (images / split).is_dir():
            found.add(SPLITS[split], images_in(images / split), masks_in(masks / split))
    if not splits:
        found.add("train", images_in(images), masks_in(masks))
    return found if any(found.splits.values()) else None


def _coco_stuff(root: Path) -> LayoutMatch | None:
    images = root / "images" if (root / "images").is_dir() else root
    masks = next((root / name for name in _COCO_MASKS if (root / name).is_dir()), None)
    if masks is None:
        return None
    found = LayoutMatch(f"{masks.name} with a folder per COCO split")
    for name, split in _COCO.items():
        if (images / name).is_dir() and (masks / name).is_dir() and masks_in(masks / name):
            found.add(split, images_in(images / name), masks_in(masks / name))
    if not found.splits:
        return None
    names = [f"class {k}" for k in range(_STUFF)]
    if (root / "labels.txt").is_file():
        for number, name in catalogue.numbered_names(root / "labels.txt").items():
            if 1 <= number <= _STUFF:
                names[number - 1] = name
    found.known = Labels(tuple(names))
    return found


def _sbd(root: Path) -> LayoutMatch | None:
    images, masks = root / "img", root / "cls"
    if not (images.is_dir() and masks.is_dir() and any(masks.glob("*.mat"))):
        return None
    found = LayoutMatch("img and cls with MATLAB files", known=tables.VOC)
    _with_lists(found, split_lists(root), images_in(images), masks_in(masks))
    return found


def _pascal_context(root: Path) -> LayoutMatch | None:
    labels, images = root / "labels.txt", root / "JPEGImages"
    masks = next((f for f in folders_in(root) if any(f.glob("*.mat"))), None)
    if not (labels.is_file() and images.is_dir() and masks):
        return None
    chosen = root / "59_labels.txt"
    table = catalogue.pascal_context(labels, chosen if chosen.is_file() else None)
    found = LayoutMatch(f"JPEGImages, {masks.name} with MATLAB files and labels.txt", known=table)
    lists = split_lists(root) or split_lists(root / "ImageSets" / "Main")
    _with_lists(found, lists, images_in(images), masks_in(masks))
    return found


def _sift_flow(root: Path) -> LayoutMatch | None:
    images, masks = root / "Images", root / "SemanticLabels"
    if not (images.is_dir() and masks.is_dir()):
        return None
    photos = [p for f in (images, *folders_in(images)) for p in images_in(f)]
    truths = [p for f in (masks, *folders_in(masks)) for p in masks_in(f)]
    if not truths or truths[0].suffix != ".mat":
        return None
    names = read_mat_class_names(truths[0])
    found = LayoutMatch("Images and SemanticLabels with MATLAB files")
    found.known = catalogue.from_one(names) if names else None
    _with_lists(found, split_lists(root, extra=("trainval",)), photos, truths)
    return found


def _nyud(root: Path) -> LayoutMatch | None:
    places = (root / "images", root / "data" / "images")
    images = next((folder for folder in places if folder.is_dir()), None)
    masks = root / "segmentation"
    if images is None or not masks.is_dir() or not any(masks.glob("*.mat")):
        return None
    found = LayoutMatch("images and segmentation with MATLAB files")
    found.known = catalogue.from_one([f"class {k}" for k in range(1, 41)])
    _with_lists(found, split_lists(root), images_in(images), masks_in(masks), prefix="img_")
    return found


def _with_lists(
    found: LayoutMatch,
    lists: dict[str, Path],
    images: Iterable[Path],
    masks: Iterable[Path],
    prefix: str = "",
) -> None:
    """Splits from lists, whose names may lack a prefix of the files'; all is train without any."""
    photos, truths = list(images), list(masks)
    lists = dict(lists)
    if "trainval" in lists:
        both = lists.pop("trainval")
        lists.setdefault("train", both)
    if not lists:
        found.add("train", photos, truths)
        return
    found.reason += f" and {', '.join(path.name for path in lists.values())}"
    if not prefix:
        add_lists(found, lists, photos, truths)
        return
    for split, path in lists.items():
        stems = {stem if stem.startswith(prefix) else prefix + stem for stem in listed_stems(path)}
        found.add(
            split, [p for p in photos if p.stem in stems], [m for m in truths if m.stem in stems]
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
LOOKED = {  # what each is recognised by, for a message
    "cityscapes": "leftImg8bit/ and gtFine/",
    "ade20k": "images/ and annotations/ with training/ and validation/, or objectInfo150.csv",
    "coco-stuff": "images/train2017/ and annotations/train2017/",
    "sbd": "img/ and cls/*.mat",
    "pascal-context": "JPEGImages/, trainval/*.mat and labels.txt",
    "sift-flow": "Images/ and SemanticLabels/*/*.mat",
    "nyud": "images/ and segmentation/*.mat",
}
