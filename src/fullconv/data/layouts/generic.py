"""The layouts of PASCAL VOC and CamVid, for any dataset that follows them."""

from __future__ import annotations

from pathlib import Path

from fullconv.core.i18n import join, msg
from fullconv.data.layouts.class_table import CAMVID, VOC
from fullconv.data.layouts.pairing import (
    SPLITS,
    LayoutMatch,
    find_folder,
    folders_in,
    images_in,
    listed_pairs,
    masks_in,
    split_lists,
)

_VOC_MASKS = ("SegmentationClass", "SegmentationClassPNG", "SegmentationClassAug")
_VOC_LISTS = ("trainval", "trainaug", "default")
_CAMVID_IMAGES = ("", "_img", "_images")
_CAMVID_MASKS = ("annot", "_annot", "_labels", "_label", "_masks", "_mask", "_gt", "_annotations")


def match_voc(root: Path) -> LayoutMatch | None:
    """Match JPEGImages/, SegmentationClass/ and the lists in ImageSets/Segmentation/."""
    images = find_folder(root, ("JPEGImages",))
    masks = find_folder(root, _VOC_MASKS, masks=True)
    if images is None or masks is None:
        return None
    lists = split_lists(root / "ImageSets" / "Segmentation", extra=_VOC_LISTS)
    trainval = lists.pop("trainval", None)
    default = lists.pop("default", None)  # written by CVAT for data without a split
    augmented = lists.pop("trainaug", None)
    augmented_masks = find_folder(root, _VOC_MASKS[2:], masks=True) if augmented else None
    if augmented and augmented_masks:
        lists["train"], masks = augmented, augmented_masks
    elif not lists and (everything := trainval or default):
        lists["train"] = everything
    match = LayoutMatch(_both(images, masks), labels=VOC)
    if not lists:
        match.add("train", images_in(images), masks_in(masks))
        return match
    names = {"folders": match.reason, "lists": ", ".join(path.name for path in lists.values())}
    match.reason = msg("{folders} and {lists} in ImageSets/Segmentation", **names)
    match.add_lists(lists, images_in(images), masks_in(masks))
    return match


def match_camvid(root: Path) -> LayoutMatch | None:
    """Match lists with "image mask" lines, or train/ trainannot/, val_img/ val_label/ ..."""
    lists = split_lists(root)
    rows = {split: listed_pairs(path) for split, path in lists.items()}
    if rows and all(rows.values()):
        splits = ", ".join(rows)
        match = LayoutMatch(
            msg("lists with an image and a mask on each line: {splits}", splits=splits)
        )
        for split, path in lists.items():
            match.add_rows(split, path, rows[split])
    else:
        match = LayoutMatch("")
        by_name = {folder.name.lower(): folder for folder in folders_in(root)}
        reasons = []
        for name, split in SPLITS.items():
            images, masks = (
                next((by_name[name + end] for end in endings if name + end in by_name), None)
                for endings in (_CAMVID_IMAGES, _CAMVID_MASKS)
            )
            if images and masks and images_in(images) and masks_in(masks):
                match.add(split, images_in(images), masks_in(masks))
                reasons.append(_both(images, masks))
        if not match.splits:
            return None
        match.reason = join(reasons, ", ")
    mask_folders = {pair.mask.parent.name for pairs in match.splits.values() for pair in pairs}
    if mask_folders and all(name.endswith("annot") for name in mask_folders):
        match.labels = CAMVID
    return match


def _both(images: Path, masks: Path) -> str:
    return msg("{images} and {masks}", images=images.name, masks=masks.name)
