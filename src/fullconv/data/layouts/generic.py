"""The layouts of PASCAL VOC and CamVid, and of plain images/ and masks/ folders."""

from __future__ import annotations

from pathlib import Path

from fullconv.core.errors import FullconvError
from fullconv.core.i18n import join, msg
from fullconv.data.layouts.class_table import CAMVID, VOC
from fullconv.data.layouts.pairing import (
    IMAGE_FOLDERS,
    MASK_FOLDERS,
    SPLITS,
    LayoutMatch,
    find_folder,
    folders_in,
    images_in,
    listed_pairs,
    masks_in,
    pair_by_name,
    split_lists,
)
from fullconv.data.layouts.settings_file import SETTINGS_NAME, Settings, read_settings

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


def match_folders(root: Path) -> LayoutMatch | None:
    """Match a folder of images and one of masks, with or without splits inside them."""
    # Which folders? dataset.toml may name them; else by their names.
    settings = read_settings(root)
    images = _configured(root, settings, "images") or find_folder(root, IMAGE_FOLDERS)
    others = tuple(name for name in MASK_FOLDERS if images != root / name)
    masks = _configured(root, settings, "masks") or find_folder(root, others, masks=True)
    if images is None and masks is not None and pair_by_name(images_in(root), masks_in(masks))[0]:
        images = root  # images, and the folder of their masks among them
    match = LayoutMatch("")

    # A folder for each split, with both folders inside?
    if images is None or masks is None:
        for folder in folders_in(root):
            images = find_folder(folder, IMAGE_FOLDERS)
            masks = find_folder(folder, MASK_FOLDERS, masks=True)
            split = SPLITS.get(folder.name.lower())
            if split and images and masks:
                match.add(split, images_in(images), masks_in(masks))
                names = {"images": images.name, "masks": masks.name}
                match.reason = msg("{images} and {masks} in a folder per split", **names)
        return match if match.splits else None

    # Both folders have folders of splits inside?
    beside = msg("images beside {masks}", masks=masks.name)
    match.reason = beside if images == root else _both(images, masks)
    splits = {s.name.lower(): s for s in folders_in(images) if s.name.lower() in SPLITS}
    mask_splits = {s.name.lower(): s for s in folders_in(masks)}
    for name in sorted(splits):
        twin = mask_splits.get(name)
        match.add(SPLITS[name], images_in(splits[name]), masks_in(twin) if twin else [])
    if match.splits:
        match.reason = msg("{folders} with a folder per split", folders=match.reason)
        return match

    # Otherwise lists of names, or no split at all.
    lists = split_lists(root) or split_lists(root / "splits") or split_lists(images.parent)
    if lists:
        listed = ", ".join(path.name for path in lists.values())
        match.reason = msg("{folders} with {lists}", folders=match.reason, lists=listed)
        match.add_lists(lists, images_in(images), masks_in(masks))
    else:
        match.add("train", images_in(images), masks_in(masks))
    return match


def _both(images: Path, masks: Path) -> str:
    return msg("{images} and {masks}", images=images.name, masks=masks.name)


def _configured(root: Path, settings: Settings, key: str) -> Path | None:
    """Return the folder that dataset.toml names under a key."""
    if key not in settings:
        return None
    folder = root / settings[key]
    if not folder.is_dir():
        values = {"path": root / SETTINGS_NAME, "key": key, "folder": folder}
        message = msg("{path}: {key} names the folder {folder}, which does not exist.", **values)
        raise FullconvError(message, f'{key} = "{key}"')
    return folder
