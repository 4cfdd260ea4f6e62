"""Layouts: recognise a labelled data set on disk and read which picture belongs to which mask.

Those of `published` are tried first, then these three:

    voc      JPEGImages/ SegmentationClass/ ImageSets/Segmentation/{train,val}.txt
    camvid   train.txt, val.txt, test.txt with "picture mask" on a line; or train/ trainannot/ ...
    folders  images/ masks/, both with train/ val/ inside, or train/images/ train/masks/, or lists
             of stems in train.txt, or no split at all

Nothing is written, no mask is opened here, and what was decided without being told stands in
`Dataset.notes`. A split that is missing is made from a hash of the names: it is the same from
run to run and on every machine, and changes little when pictures are added.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from fullconv.core.errors import FullconvError, plural
from fullconv.core.labels import Labels
from fullconv.data.download.download import located
from fullconv.data.io.extra_channels import Input
from fullconv.data.layouts import class_table as tables
from fullconv.data.layouts import published
from fullconv.data.layouts.pairing import (
    MASK_FOLDERS,
    PICTURE_FOLDERS,
    SPLITS,
    Found,
    Pair,
    add_lists,
    add_rows,
    find_folder,
    folders_in,
    listed_pairs,
    masks_in,
    pair_up,
    pictures_in,
    split_lists,
)
from fullconv.data.layouts.unrecognized import no_folder, no_pairs, not_laid_out, several, unknown

_Reader: TypeAlias = Callable[[Path], Found | None]
_VOC_LISTS = ("trainval", "trainaug", "default")
VAL_SHARE = 0.2  # of the pictures, where a validation split has to be made

_ANNOTATED = ("annot", "_annot", "_labels", "_label", "_masks", "_mask", "_gt", "_annotations")


@dataclass(frozen=True)
class Dataset:
    """A data set as it lies on disk.

    Args:
        root: the folder that was recognised; a sub-folder of what was asked for, now and then.
        layout: "folders", "voc" or "camvid".
        reason: what it was recognised by, in words.
        splits: split name ("train", "val", "test") -> pairs, by name.
        labels: the class table.
        named: whether the class names are real; made up from ids ("class 3") where not.
        unpaired_pictures, unpaired_masks: files without a partner, doubled stems among them.
        notes: what was decided without being told.
        heads: names and class tables of further heads; every pair has their `masks`.
        inputs: what goes into the network beside the pictures; every pair has their `inputs`.
    """

    root: Path
    layout: str
    reason: str
    splits: dict[str, tuple[Pair, ...]]
    labels: Labels
    named: bool
    unpaired_pictures: tuple[Path, ...] = ()
    unpaired_masks: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()
    heads: tuple[tuple[str, Labels], ...] = ()
    inputs: tuple[Input, ...] = ()

    @property
    def tables(self) -> tuple[Labels, ...]:
        """The class tables of all heads, the first one first."""
        return (self.labels, *(labels for _, labels in self.heads))

    @property
    def name_of_masks(self) -> str:
        """What the folder of the masks is called: "masks", "SegmentationClass"."""
        mask = next(pair.mask for pairs in self.splits.values() for pair in pairs)
        inside = mask.is_relative_to(self.root)
        parts = mask.relative_to(self.root).parts if inside else mask.parent.parts[-1:]
        return parts[0] if len(parts) > 1 or not inside else "masks"

    @property
    def held_out(self) -> str:
        """The split that a training is judged by; never test."""
        return "val" if self.splits.get("val") else "train"

    def _repr_html_(self) -> str:
        from fullconv.evaluation.report.notebook import dataset_html

        return dataset_html(self)

    def pairs_of(self, split: str) -> tuple[Pair, ...]:
        """Those of a split.

        Raises:
            FullconvError: it has none.
        """
        pairs = self.splits.get(split)
        if pairs:
            return pairs
        there = [name for name, found in self.splits.items() if found]
        raise FullconvError(
            f"{self.root} has no pictures for the split {split!r}; it has {', '.join(there)}.",
            f"--split {there[-1]}",
        )


def read(root: str | Path, *, layout: str | None = None) -> Dataset:
    """Recognise and read the data set in a folder (or that a dataset.toml lies in), or the
    published one of that name, which is downloaded where it is not there yet."""
    root = located(root)
    if root.name == tables.SETTINGS_NAME and root.is_file():
        root = root.parent
    if not root.is_dir():
        raise no_folder(root)
    settings = tables.read_settings(root)
    told = layout or settings.get("layout")
    where = "" if layout or told is None else f"{root / tables.SETTINGS_NAME}: "
    if told is not None and told not in _LAYOUTS:
        near = difflib.get_close_matches(told, _LAYOUTS, 1, 0)[0]
        raise FullconvError(
            f"{where}no layout {told!r}; there are {', '.join(_LAYOUTS)}.",
            f'layout = "{near}"' if where else f"--layout {near}",
        )
    found_root, name, found = _recognise(root, told, where)
    settings = tables.read_settings(found_root) or settings
    if not any(found.splits.values()):
        raise no_pairs(found_root, name, found)
    _make_val(found)
    ordered = [split for split in ("train", "val", "test") if split in found.splits]
    splits: dict[str, tuple[Pair, ...]] = {
        split: tuple(sorted(found.splits[split], key=_by_name)) for split in ordered
    }
    paths = [pair.mask for pairs in splits.values() for pair in pairs]
    labels, named, notes = tables.read_labels(found_root, settings, paths, known=found.known)
    told = [note for note in notes if note.startswith("class names from ")]
    notes = [note for note in notes if note not in told]
    if found_root != root:
        found.notes.insert(0, f"found in the sub-folder {found_root.relative_to(root)}")
    return Dataset(
        found_root,
        name,
        "; ".join([found.reason, *told]),
        splits,
        labels,
        named,
        tuple(sorted(found.pictures)),
        tuple(sorted(found.masks)),
        (*found.notes, *notes),
    )


def holds_masks(root: Path) -> bool:
    """Whether the folder itself, not one below it, lies as a data set of masks does."""
    return any(reader(root) is not None for reader in _LAYOUTS.values())


def _recognise(root: Path, layout: str | None, told_in: str) -> tuple[Path, str, Found]:
    """The layout of the folder, else of the one sub-folder, up to two levels down, that has one."""
    readers = {layout: _LAYOUTS[layout]} if layout else _LAYOUTS
    level = [root]
    for _ in range(3):
        hits = [(folder, *hit) for folder in level if (hit := _first(folder, readers)) is not None]
        if len(hits) == 1:
            return hits[0]
        if hits:
            raise several(root, [folder for folder, _, _ in hits])
        level = [child for folder in level for child in folders_in(folder)]
    if layout:
        raise not_laid_out(root, layout, told_in)
    raise unknown(root, lambda folder: (_first(folder, _LAYOUTS) or ("", None))[1])


def _first(folder: Path, readers: Mapping[str, _Reader]) -> tuple[str, Found] | None:
    """The first layout that fits a folder, and what was found."""
    hits = ((name, reader(folder)) for name, reader in readers.items())
    return next(((name, found) for name, found in hits if found is not None), None)


def _voc(root: Path) -> Found | None:
    pictures = find_folder(root, ("JPEGImages",))
    names = ("SegmentationClass", "SegmentationClassPNG", "SegmentationClassAug")
    masks = find_folder(root, names, masks=True)
    if pictures is None or masks is None:
        return None
    lists = split_lists(root / "ImageSets" / "Segmentation", extra=_VOC_LISTS)
    everything = lists.pop("trainval", None)  # is train and val together
    more = lists.pop("default", None)  # CVAT's, where nothing was split
    augmented = lists.pop("trainaug", None)
    if augmented is not None and (wide := find_folder(root, names[2:], masks=True)) is not None:
        lists["train"], masks = augmented, wide
    elif not lists and (everything or more):
        lists["train"] = everything or more  # type: ignore[assignment]
    found = Found(f"{pictures.name} and {masks.name}", known=tables.VOC)
    if not lists:
        found.add("train", pictures_in(pictures), masks_in(masks))
        return found
    named = ", ".join(path.name for path in lists.values())
    found.reason += f" and {named} in ImageSets/Segmentation"
    add_lists(found, lists, pictures_in(pictures), masks_in(masks))
    return found


def _camvid(root: Path) -> Found | None:
    rows = {split: listed_pairs(path) for split, path in split_lists(root).items()}
    if rows and all(rows.values()):
        found = Found("lists with a picture and a mask on a line: " + ", ".join(rows))
        for split, path in split_lists(root).items():
            add_rows(found, split, path, rows[split])
    else:
        found = Found("")
        for split, pictures, masks in _annotated_folders(root):
            found.add(split, pictures_in(pictures), masks_in(masks))
            found.reason += f"{', ' if found.reason else ''}{pictures.name} and {masks.name}"
        if not found.splits:
            return None
    inside = {pair.mask.parent.name for pairs in found.splits.values() for pair in pairs}
    if inside and all(name.endswith("annot") for name in inside):
        found.known = tables.CAMVID
    return found


def _folders_layout(root: Path) -> Found | None:
    settings = tables.read_settings(root)
    pictures, masks = _named(root, settings, "images"), _named(root, settings, "masks")
    pictures = pictures or find_folder(root, PICTURE_FOLDERS)
    others = tuple(name for name in MASK_FOLDERS if pictures != root / name)
    masks = masks or find_folder(root, others, masks=True)
    if pictures is None and masks is not None and pair_up(pictures_in(root), masks_in(masks))[0]:
        pictures = root  # photos, and a folder of their masks among them
    found = Found("")
    if pictures is None or masks is None:
        for folder in folders_in(root):
            inner, truth = (
                find_folder(folder, PICTURE_FOLDERS),
                find_folder(folder, MASK_FOLDERS, masks=True),
            )
            if folder.name.lower() in SPLITS and inner and truth:
                found.add(SPLITS[folder.name.lower()], pictures_in(inner), masks_in(truth))
                found.reason = f"{inner.name} and {truth.name} in a folder per split"
        return found if found.splits else None
    beside = f"pictures beside {masks.name}"
    found.reason = beside if pictures == root else f"{pictures.name} and {masks.name}"
    inside = {s.name.lower(): s for s in folders_in(pictures) if s.name.lower() in SPLITS}
    truths = {s.name.lower(): s for s in folders_in(masks)}
    for name in sorted(inside):
        twin = truths.get(name)
        found.add(SPLITS[name], pictures_in(inside[name]), masks_in(twin) if twin else [])
    if found.splits:
        found.reason += " with a folder per split"
        return found
    lists = split_lists(root) or split_lists(root / "splits") or split_lists(pictures.parent)
    if lists:
        found.reason += f" with {', '.join(path.name for path in lists.values())}"
        add_lists(found, lists, pictures_in(pictures), masks_in(masks))
    else:
        found.add("train", pictures_in(pictures), masks_in(masks))
    return found


_LAYOUTS: dict[str, _Reader] = {
    **published.LAYOUTS,
    "voc": _voc,
    "camvid": _camvid,
    "folders": _folders_layout,
}
LAYOUTS = tuple(_LAYOUTS)


def _make_val(found: Found) -> None:
    """Take a validation split out of train by a hash of the names, where there is none."""
    train = found.splits.get("train", [])
    if "val" in found.splits or len(train) < 2:
        return
    order = sorted(train, key=lambda pair: hashlib.sha256(pair.name.encode()).digest())
    count = max(1, round(VAL_SHARE * len(train)))
    found.splits["val"], found.splits["train"] = order[:count], order[count:]
    found.notes.append(
        f"no val split found: {count} of {plural(len(train), 'train picture')} "
        f"({count / len(train):.0%}) taken for it by a hash of their names"
    )


def _annotated_folders(root: Path) -> list[tuple[str, Path, Path]]:
    """(split, pictures, masks) of train/ + trainannot/, val_img/ + val_label/ and their like."""
    there = {folder.name.lower(): folder for folder in folders_in(root)}
    hits = []
    for name, split in SPLITS.items():
        pictures = [there[name + end] for end in ("", "_img", "_images") if name + end in there]
        masks = [there[name + end] for end in _ANNOTATED if name + end in there]
        if pictures and masks and pictures_in(pictures[0]) and masks_in(masks[0]):
            hits.append((split, pictures[0], masks[0]))
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


def _by_name(pair: Pair) -> str:
    return pair.name
