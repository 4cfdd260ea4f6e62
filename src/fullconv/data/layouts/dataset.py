"""Layouts: recognise a labelled data set on disk and read which image belongs to which mask.

Those of `published` are tried first, then these three:

    voc      JPEGImages/ SegmentationClass/ ImageSets/Segmentation/{train,val}.txt
    camvid   train.txt, val.txt, test.txt with "image mask" on a line; or train/ trainannot/ ...
    folders  images/ masks/, both with train/ val/ inside, or train/images/ train/masks/, or lists
             of stems in train.txt, or no split at all

Nothing is written, no mask is opened here, and what was decided without being told stands in
`Dataset.notes`. A split that is missing is made from a hash of the names: it is the same from
run to run and on every machine, and changes little when images are added.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from fullconv.core.errors import FullconvError
from fullconv.core.labels import Labels
from fullconv.core.text import plural
from fullconv.data.download.download import resolve_dataset
from fullconv.data.io.extra_channels import ExtraInput
from fullconv.data.layouts import class_table as tables
from fullconv.data.layouts import published
from fullconv.data.layouts.generic import _camvid, _folders_layout, _voc
from fullconv.data.layouts.pairing import (
    LayoutMatch,
    Pair,
    folders_in,
)
from fullconv.data.layouts.unrecognized import no_folder, no_pairs, not_laid_out, several, unknown

_Reader: TypeAlias = Callable[[Path], LayoutMatch | None]
VAL_SHARE = 0.2  # of the images, where a validation split has to be made


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
        unpaired_images, unpaired_masks: files without a partner, doubled stems among them.
        notes: what was decided without being told.
        heads: names and class tables of further heads; every pair has their `masks`.
        inputs: what goes into the network beside the images; every pair has their `inputs`.
    """

    root: Path
    layout: str
    reason: str
    splits: dict[str, tuple[Pair, ...]]
    labels: Labels
    named: bool
    unpaired_images: tuple[Path, ...] = ()
    unpaired_masks: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()
    heads: tuple[tuple[str, Labels], ...] = ()
    inputs: tuple[ExtraInput, ...] = ()

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
            f"{self.root} has no images for the split {split!r}; it has {', '.join(there)}.",
            f"--split {there[-1]}",
        )


def load_dataset(root: str | Path, *, layout: str | None = None) -> Dataset:
    """Recognise and read the data set in a folder (or that a dataset.toml lies in), or the
    published one of that name, which is downloaded where it is not there yet."""
    root = resolve_dataset(root)
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
        tuple(sorted(found.images)),
        tuple(sorted(found.masks)),
        (*found.notes, *notes),
    )


def holds_masks(root: Path) -> bool:
    """Whether the folder itself, not one below it, lies as a data set of masks does."""
    return any(reader(root) is not None for reader in _LAYOUTS.values())


def _recognise(root: Path, layout: str | None, told_in: str) -> tuple[Path, str, LayoutMatch]:
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


def _first(folder: Path, readers: Mapping[str, _Reader]) -> tuple[str, LayoutMatch] | None:
    """The first layout that fits a folder, and what was found."""
    hits = ((name, reader(folder)) for name, reader in readers.items())
    return next(((name, found) for name, found in hits if found is not None), None)


_LAYOUTS: dict[str, _Reader] = {
    **published.LAYOUTS,
    "voc": _voc,
    "camvid": _camvid,
    "folders": _folders_layout,
}
LAYOUTS = tuple(_LAYOUTS)


def _make_val(found: LayoutMatch) -> None:
    """Take a validation split out of train by a hash of the names, where there is none."""
    train = found.splits.get("train", [])
    if "val" in found.splits or len(train) < 2:
        return
    order = sorted(train, key=lambda pair: hashlib.sha256(pair.name.encode()).digest())
    count = max(1, round(VAL_SHARE * len(train)))
    found.splits["val"], found.splits["train"] = order[:count], order[count:]
    found.notes.append(
        f"no val split found: {count} of {plural(len(train), 'train image')} "
        f"({count / len(train):.0%}) taken for it by a hash of their names"
    )


def _by_name(pair: Pair) -> str:
    return pair.name
