"""The layouts of PASCAL VOC and CamVid, and of plain images/ and masks/ folders."""

from __future__ import annotations

from pathlib import Path

from fullconv.core.errors import FullconvError
from fullconv.data.layouts import class_table as tables
from fullconv.data.layouts.pairing import (
    IMAGE_FOLDERS,
    MASK_FOLDERS,
    SPLITS,
    LayoutMatch,
    add_lists,
    add_rows,
    find_folder,
    folders_in,
    images_in,
    listed_pairs,
    masks_in,
    pair_up,
    split_lists,
)

_VOC_LISTS = ("trainval", "trainaug", "default")

_ANNOTATED = ("annot", "_annot", "_labels", "_label", "_masks", "_mask", "_gt", "_annotations")


def _voc(root: Path) -> LayoutMatch | None:
    images = find_folder(root, ("JPEGImages",))
    names = ("SegmentationClass", "SegmentationClassPNG", "SegmentationClassAug")
    masks = find_folder(root, names, masks=True)
    if images is None or masks is None:
        return None
    lists = split_lists(root / "ImageSets" / "Segmentation", extra=_VOC_LISTS)
    everything = lists.pop("trainval", None)  # is train and val together
    more = lists.pop("default", None)  # CVAT's, where nothing was split
    augmented = lists.pop("trainaug", None)
    if augmented is not None and (wide := find_folder(root, names[2:], masks=True)) is not None:
        lists["train"], masks = augmented, wide
    elif not lists and (everything or more):
        lists["train"] = everything or more  # type: ignore[assignment]
    found = LayoutMatch(f"{images.name} and {masks.name}", known=tables.VOC)
    if not lists:
        found.add("train", images_in(images), masks_in(masks))
        return found
    named = ", ".join(path.name for path in lists.values())
    found.reason += f" and {named} in ImageSets/Segmentation"
    add_lists(found, lists, images_in(images), masks_in(masks))
    return found


def _camvid(root: Path) -> LayoutMatch | None:
    rows = {split: listed_pairs(path) for split, path in split_lists(root).items()}
    if rows and all(rows.values()):
        found = LayoutMatch("lists with an image and a mask on a line: " + ", ".join(rows))
        for split, path in split_lists(root).items():
            add_rows(found, split, path, rows[split])
    else:
        found = LayoutMatch("")
        for split, images, masks in _annotated_folders(root):
            found.add(split, images_in(images), masks_in(masks))
            found.reason += f"{', ' if found.reason else ''}{images.name} and {masks.name}"
        if not found.splits:
            return None
    inside = {pair.mask.parent.name for pairs in found.splits.values() for pair in pairs}
    if inside and all(name.endswith("annot") for name in inside):
        found.known = tables.CAMVID
    return found


def _folders_layout(root: Path) -> LayoutMatch | None:
    settings = tables.read_settings(root)
    images, masks = _named(root, settings, "images"), _named(root, settings, "masks")
    images = images or find_folder(root, IMAGE_FOLDERS)
    others = tuple(name for name in MASK_FOLDERS if images != root / name)
    masks = masks or find_folder(root, others, masks=True)
    if images is None and masks is not None and pair_up(images_in(root), masks_in(masks))[0]:
        images = root  # photos, and a folder of their masks among them
    found = LayoutMatch("")
    if images is None or masks is None:
        for folder in folders_in(root):
            inner, truth = (
                find_folder(folder, IMAGE_FOLDERS),
                find_folder(folder, MASK_FOLDERS, masks=True),
            )
            if folder.name.lower() in SPLITS and inner and truth:
                found.add(SPLITS[folder.name.lower()], images_in(inner), masks_in(truth))
                found.reason = f"{inner.name} and {truth.name} in a folder per split"
        return found if found.splits else None
    beside = f"images beside {masks.name}"
    found.reason = beside if images == root else f"{images.name} and {masks.name}"
    inside = {s.name.lower(): s for s in folders_in(images) if s.name.lower() in SPLITS}
    truths = {s.name.lower(): s for s in folders_in(masks)}
    for name in sorted(inside):
        twin = truths.get(name)
        found.add(SPLITS[name], images_in(inside[name]), masks_in(twin) if twin else [])
    if found.splits:
        found.reason += " with a folder per split"
        return found
    lists = split_lists(root) or split_lists(root / "splits") or split_lists(images.parent)
    if lists:
        found.reason += f" with {', '.join(path.name for path in lists.values())}"
        add_lists(found, lists, images_in(images), masks_in(masks))
    else:
        found.add("train", images_in(images), masks_in(masks))
    return found


def _annotated_folders(root: Path) -> list[tuple[str, Path, Path]]:
    """(split, images, masks) of train/ + trainannot/, val_img/ + val_label/ and their like."""
    there = {folder.name.lower(): folder for folder in folders_in(root)}
    hits = []
    for name, split in SPLITS.items():
        images = [there[name + end] for end in ("", "_img", "_images") if name + end in there]
        masks = [there[name + end] for end in _ANNOTATED if name + end in there]
        if images and masks and images_in(images[0]) and masks_in(masks[0]):
            hits.append((split, images[0], masks[0]))
    return hits


def _named(root: Path, settings: tables.Settings, key: str) -> Path | None:
    if key not in settings:
        return None
    folder = root / settings[key]
    if not folder.is_dir():
        raise FullconvError(
            f"{root / tables.SETTINGS_NAME}: {key} names the folder {folder}, which is not there.",
            f'{key} = "{key}"',
        )
    return folder
