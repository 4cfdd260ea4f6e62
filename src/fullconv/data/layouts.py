"""Layouts: recognise a labelled data set on disk and read which picture belongs to which mask.

Three are known, tried in this order:

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
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from fullconv.data import tables
from fullconv.data.pairing import (
    MASK_ENDINGS,
    SPLITS,
    Pair,
    find_folder,
    folders_in,
    listed_pairs,
    listed_stems,
    pair_up,
    pictures_in,
    resolve,
    split_lists,
)
from fullconv.errors import FullconvError
from fullconv.labels import Labels

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


@dataclass
class _Found:
    reason: str
    splits: dict[str, list[Pair]] = field(default_factory=dict)
    pictures: list[Path] = field(default_factory=list)  # unpaired
    masks: list[Path] = field(default_factory=list)  # unpaired
    notes: list[str] = field(default_factory=list)
    known: Labels | None = None

    def add(self, split: str, pictures: Iterable[Path], masks: Iterable[Path]) -> None:
        pairs, alone, masks_alone = pair_up(pictures, masks)
        self.splits[split] = [*self.splits.get(split, []), *pairs]
        self.pictures += alone
        self.masks += masks_alone


def read(root: str | Path, *, layout: str | None = None) -> Dataset:
    """Recognise and read the data set in a folder (or that a dataset.toml lies in)."""
    root = Path(root)
    if root.name == tables.SETTINGS_NAME and root.is_file():
        root = root.parent
    if not root.is_dir():
        there = f"{root} is a file" if root.exists() else f"there is no folder {root}"
        nearest = next((p for p in root.parents if p.is_dir()), Path())
        raise FullconvError(
            f"{there}; expected the folder of a data set, for example\n{_EXAMPLE}",
            f"fullconv check {nearest}" if root.exists() else f"ls {nearest}",
        )
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


def _recognise(root: Path, layout: str | None) -> tuple[Path, str, _Found]:
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
    raise _unknown(root, layout)


def _voc(root: Path) -> _Found | None:
    pictures = find_folder(root, ("JPEGImages",))
    masks = find_folder(root, ("SegmentationClass", "SegmentationClassPNG"))
    if pictures is None or masks is None:
        return None
    found = _Found(f"{pictures.name} and {masks.name}", known=tables.VOC)
    lists = split_lists(root / "ImageSets" / "Segmentation", extra=("trainval",))
    if len(lists) > 1:
        lists.pop("trainval", None)  # is train and val together
    if "trainval" in lists:
        lists["train"] = lists.pop("trainval")
    if not lists:
        found.add("train", pictures_in(pictures), pictures_in(masks))
        return found
    found.reason += " and the lists in ImageSets/Segmentation"
    _add_lists(found, lists, pictures_in(pictures), pictures_in(masks))
    return found


def _camvid(root: Path) -> _Found | None:
    rows = {split: listed_pairs(path) for split, path in split_lists(root).items()}
    if rows and all(rows.values()):
        found = _Found("lists with a picture and a mask on a line: " + ", ".join(rows))
        for split, path in split_lists(root).items():
            _add_rows(found, split, path, rows[split])
    else:
        found = _Found("")
        for split, pictures, masks in _annotated_folders(root):
            found.add(split, pictures_in(pictures), pictures_in(masks))
            found.reason += f"{', ' if found.reason else ''}{pictures.name} and {masks.name}"
        if not found.splits:
            return None
    masks_in = {pair.mask.parent.name for pairs in found.splits.values() for pair in pairs}
    if masks_in and all(name.endswith("annot") for name in masks_in):
        found.known = tables.CAMVID
    return found


def _folders_layout(root: Path) -> _Found | None:
    settings = tables.read_settings(root)
    pictures, masks = _named(root, settings, "images"), _named(root, settings, "masks")
    pictures = pictures or find_folder(root, _PICTURES)
    masks = masks or find_folder(root, tuple(name for name in _MASKS if pictures != root / name))
    found = _Found("")
    if pictures is None or masks is None:
        for folder in folders_in(root):
            inner, truth = find_folder(folder, _PICTURES), find_folder(folder, _MASKS)
            if folder.name.lower() in SPLITS and inner and truth:
                found.add(SPLITS[folder.name.lower()], pictures_in(inner), pictures_in(truth))
                found.reason = f"{inner.name} and {truth.name} in a folder per split"
        return found if found.splits else None
    found.reason = f"{pictures.name} and {masks.name}"
    inside = {s.name.lower(): s for s in folders_in(pictures) if s.name.lower() in SPLITS}
    truths = {s.name.lower(): s for s in folders_in(masks)}
    for name in sorted(inside):
        twin = truths.get(name)
        found.add(SPLITS[name], pictures_in(inside[name]), pictures_in(twin) if twin else [])
    if found.splits:
        found.reason += " with a folder per split"
        return found
    lists = split_lists(root) or split_lists(root / "splits") or split_lists(pictures.parent)
    if lists:
        found.reason += f" with {', '.join(path.name for path in lists.values())}"
        _add_lists(found, lists, pictures_in(pictures), pictures_in(masks))
    else:
        found.add("train", pictures_in(pictures), pictures_in(masks))
    return found


_LAYOUTS: dict[str, Callable[[Path], _Found | None]] = {
    "voc": _voc,
    "camvid": _camvid,
    "folders": _folders_layout,
}


def _add_lists(
    found: _Found, lists: dict[str, Path], pictures: list[Path], masks: list[Path]
) -> None:
    """Splits from lists of stems (or file names); what is on no list is not looked at."""
    known = {file.stem for file in (*pictures, *masks)}
    known |= {mask.stem.removesuffix(end) for mask in masks for end in MASK_ENDINGS}
    for split, path in lists.items():
        stems = listed_stems(path)
        if missing := sorted(stems - known):
            raise FullconvError(
                f"{path} lists {len(missing)} names that have neither a picture nor a mask: "
                f"{', '.join(missing[:5])}{', ...' if len(missing) > 5 else ''}.",
                f"take them out of {path.name}, or copy the files",
            )
        listed = stems | {stem + end for stem in stems for end in MASK_ENDINGS}
        found.add(
            split,
            [pic for pic in pictures if pic.stem in stems],
            [mask for mask in masks if mask.stem in listed],
        )
    used = {pair.picture for pairs in found.splits.values() for pair in pairs}
    if rest := len(pictures) - len(used | set(found.pictures)):
        found.notes.append(f"{rest} pictures are on no list and left out")


def _add_rows(found: _Found, split: str, path: Path, rows: list[tuple[str, str]]) -> None:
    """A split from lines "picture mask"."""
    pairs: dict[str, Pair] = {}
    for number, row in enumerate(rows, 1):
        picture, mask = (resolve(path.parent, text) for text in row)
        if picture is None and mask is None:
            raise FullconvError(
                f"{path}, entry {number}: neither {row[0]} nor {row[1]} exists, neither there nor "
                f"below {path.parent}.",
                f"take the line out of {path.name}, or copy the files",
            )
        if picture is None or mask is None:
            found.pictures += [picture] if picture else []
            found.masks += [mask] if mask else []
            continue
        name = picture.stem
        while name in pairs and pairs[name].picture != picture:  # same stem in another folder
            name = f"{picture.parent.name}_{name}"
        pairs[name] = Pair(name, picture, mask)
    found.splits[split] = list(pairs.values())


def _make_val(found: _Found) -> None:
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
        if pictures and masks and pictures_in(pictures[0]) and pictures_in(masks[0]):
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


def _no_pairs(root: Path, name: str, found: _Found) -> FullconvError:
    pictures, masks = found.pictures, found.masks
    examples = [path.name for path in (pictures[:1] + masks[:1])]
    return FullconvError(
        f"{root} looks like the layout {name!r} ({found.reason}), but no picture has a mask: "
        f"{len(pictures)} pictures and {len(masks)} masks, such as {' and '.join(examples)}. "
        f"A mask has its picture's stem, or that and one of {', '.join(MASK_ENDINGS)}.",
        "rename the masks to the names of their pictures: images/a.jpg masks/a.png",
    )


def _unknown(root: Path, layout: str | None) -> FullconvError:
    there = sorted(path.name + "/" * path.is_dir() for path in root.iterdir())
    shown = ", ".join(there[:12]) + (", ..." if len(there) > 12 else "")
    looked = {
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
