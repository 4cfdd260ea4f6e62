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
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fullconv.data import published, tables
from fullconv.data.annotations.kinds import convertible
from fullconv.data.annotations.ultralytics import label_files
from fullconv.data.download import located, nearest
from fullconv.data.pairing import (
    MASK_ENDINGS,
    SPLITS,
    Found,
    Pair,
    add_lists,
    add_rows,
    find_folder,
    folders_in,
    listed_pairs,
    masks_in,
    pictures_in,
    split_lists,
)
from fullconv.errors import FullconvError
from fullconv.labels import Labels

_VOC_LISTS = ("trainval", "trainaug", "default")
VAL_SHARE = 0.2  # of the pictures, where a validation split has to be made

_PICTURES = ("images", "imgs", "image", "img", "pictures", "photos")
_MASKS = ("masks", "mask", "labels", "label", "annotations", "annotation", "annots", "gt")
_ANNOTATED = ("annot", "_annot", "_labels", "_label", "_masks", "_mask", "_gt", "_annotations")
_EXAMPLE = """\
DATA/images/train/a.jpg   DATA/masks/train/a.png
DATA/images/val/b.jpg     DATA/masks/val/b.png"""


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
        raise _no_folder(root)
    layout = layout or tables.read_settings(root).get("layout")
    if layout is not None and layout not in _LAYOUTS:
        near = difflib.get_close_matches(layout, _LAYOUTS, 1, 0)[0]
        raise FullconvError(
            f"no layout {layout!r}; there are {', '.join(_LAYOUTS)}.", f'layout="{near}"'
        )
    found_root, name, found = _recognise(root, layout)
    settings = tables.read_settings(found_root) or tables.read_settings(root)
    if not any(found.splits.values()):
        raise _no_pairs(found_root, name, found)
    _make_val(found)
    ordered = [split for split in ("train", "val", "test") if split in found.splits]
    splits: dict[str, tuple[Pair, ...]] = {
        split: tuple(sorted(found.splits[split], key=_by_name)) for split in ordered
    }
    paths = [pair.mask for pairs in splits.values() for pair in pairs]
    labels, named, notes = tables.read_labels(found_root, settings, paths, known=found.known)
    if found_root != root:
        found.notes.insert(0, f"found in the sub-folder {found_root.relative_to(root)}")
    return Dataset(
        found_root,
        name,
        found.reason,
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


def _recognise(root: Path, layout: str | None) -> tuple[Path, str, Found]:
    """The layout of the folder, else of the one sub-folder, up to two levels down, that has one."""
    readers = {layout: _LAYOUTS[layout]} if layout else _LAYOUTS
    level = [root]
    for _ in range(3):
        hits = []
        for folder in level:
            for name, reader in readers.items():
                found = reader(folder)
                if found is not None:
                    hits.append((folder, name, found))
                    break
        if len(hits) == 1:
            return hits[0]
        if hits:
            listed = ", ".join(str(folder) for folder, _, _ in hits[:8])
            raise FullconvError(
                f"{root} holds {len(hits)} data sets: {listed}; expected one.",
                f"fullconv check {hits[0][0]}",
            )
        level = [child for folder in level for child in folders_in(folder)]
    raise _to_convert(root) or _unknown(root, layout)


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
    pictures = pictures or find_folder(root, _PICTURES)
    others = tuple(name for name in _MASKS if pictures != root / name)
    masks = masks or find_folder(root, others, masks=True)
    found = Found("")
    if pictures is None or masks is None:
        for folder in folders_in(root):
            inner, truth = find_folder(folder, _PICTURES), find_folder(folder, _MASKS, masks=True)
            if folder.name.lower() in SPLITS and inner and truth:
                found.add(SPLITS[folder.name.lower()], pictures_in(inner), masks_in(truth))
                found.reason = f"{inner.name} and {truth.name} in a folder per split"
        return found if found.splits else None
    found.reason = f"{pictures.name} and {masks.name}"
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


_LAYOUTS: dict[str, Callable[[Path], Found | None]] = {
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
        f"no val split found: {count} of {len(train)} train pictures "
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


def _no_folder(root: Path) -> FullconvError:
    there = f"{root} is a file" if root.exists() else f"there is no folder {root}"
    above = next((p for p in root.parents if p.is_dir()), Path())
    hint = f"fullconv check {above}" if root.exists() else f"ls {above}"
    names = [] if root.exists() else nearest(root)
    if names:
        there += f", nor a published data set of that name (nearest: {', '.join(names)})"
        hint = f"fullconv check {names[0]}   # downloads it, where it is not there yet"
    return FullconvError(
        f"{there}; expected the folder of a data set, for example\n{_EXAMPLE}", hint
    )


def _no_pairs(root: Path, name: str, found: Found) -> FullconvError:
    pictures, masks = found.pictures, found.masks
    examples = [path.name for path in (pictures[:1] + masks[:1])]
    return FullconvError(
        f"{root} looks like the layout {name!r} ({found.reason}), but no picture has a mask: "
        f"{len(pictures)} pictures and {len(masks)} masks, such as {' and '.join(examples)}. "
        f"A mask has its picture's stem, or that and one of {', '.join(MASK_ENDINGS)}.",
        "rename the masks to the names of their pictures: images/a.jpg masks/a.png",
    )


def _to_convert(root: Path) -> FullconvError | None:
    """What to do with a folder of annotation files, which hold shapes and no masks."""
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
    better = root.resolve().parent / f"{root.resolve().name}_masks"
    return FullconvError(
        f"{root} holds annotations, not masks: {where}. They become id masks in a new folder.",
        f"fullconv convert {shlex.quote(str(root))} {shlex.quote(str(better))}",
    )


def _unknown(root: Path, layout: str | None) -> FullconvError:
    there = sorted(path.name + "/" * path.is_dir() for path in root.iterdir())
    shown = ", ".join(there[:12]) + (", ..." if len(there) > 12 else "")
    looked = {
        **published.LOOKED,
        "voc": "JPEGImages/ and SegmentationClass/",
        "camvid": "train.txt with 'picture mask' lines, or train/ and trainannot/",
        "folders": f"a folder of pictures ({', '.join(_PICTURES)}) and one of masks "
        f"({', '.join(_MASKS)})",
    }
    wanted = "; ".join(f"{key}: {text}" for key, text in looked.items() if layout in (None, key))
    return FullconvError(
        f"{root} is not a data set that is known. Looked for {wanted} (folders without a picture "
        f"do not count). Found {shown or 'an empty folder'}. Expected for example\n{_EXAMPLE}",
        f'in {root / tables.SETTINGS_NAME}: images = "..." and masks = "..."',
    )
