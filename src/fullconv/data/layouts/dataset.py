"""Recognize the layout of a dataset on disk, and read which mask belongs to which image.

The layouts in `published` are tried first, then these three:

    voc      JPEGImages/ SegmentationClass/ ImageSets/Segmentation/{train,val}.txt
    camvid   train.txt, val.txt, test.txt with "image mask" lines; or train/ trainannot/ ...
    folders  images/ and masks/ with any folders inside or around them, see `folders`

Nothing is written. Masks are opened only if the class table needs their values. `Dataset.notes`
lists the decisions made for the user. A missing validation split is made from a hash of the file
names: it is the same in every run and on every machine, and changes little when images are added.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from fullconv.core.errors import FullconvError
from fullconv.core.i18n import join, msg, nmsg
from fullconv.core.labels import Labels
from fullconv.core.text import nearest
from fullconv.data.download.download import resolve_dataset
from fullconv.data.io.extra_channels import ExtraInput
from fullconv.data.layouts import published, unrecognized
from fullconv.data.layouts.class_table import read_labels
from fullconv.data.layouts.file_names import Pair
from fullconv.data.layouts.folders import match_folders
from fullconv.data.layouts.generic import match_camvid, match_voc
from fullconv.data.layouts.pairing import LayoutMatch, folders_in
from fullconv.data.layouts.settings_file import SETTINGS_NAME, read_settings

_Reader: TypeAlias = Callable[[Path], LayoutMatch | None]

_READERS: dict[str, _Reader] = {
    **published.LAYOUTS,
    "voc": match_voc,
    "camvid": match_camvid,
    "folders": match_folders,
}
LAYOUTS = tuple(_READERS)
_VAL_SHARE = 0.2  # of the training images, if there is no validation split
_DEPTH = 2  # levels of subfolders that are searched for a dataset


@dataclass(frozen=True)
class Dataset:
    """A dataset on disk."""

    root: Path  # the recognized folder; it may be a subfolder of the one that was given
    layout: str  # "folders", "voc", "camvid" ...
    reason: str  # what the layout was recognized by, in words
    splits: dict[str, tuple[Pair, ...]]  # "train", "val", "test" -> pairs, sorted by name
    labels: Labels
    named: bool  # False if the class names are made up from ids ("class 3")
    # Files without a partner, and files that share their name with another one.
    unpaired_images: tuple[Path, ...] = ()
    unpaired_masks: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()  # decisions that the user should know about
    heads: tuple[tuple[str, Labels], ...] = ()  # additional heads; each pair has their `masks`
    inputs: tuple[ExtraInput, ...] = ()  # extra channels; each pair has their `inputs`

    @property
    def tables(self) -> tuple[Labels, ...]:
        """The class tables of all heads; the first is `labels`."""
        return (self.labels, *(labels for _, labels in self.heads))

    @property
    def name_of_masks(self) -> str:
        """The name of the folder of masks: "masks", "SegmentationClass"."""
        mask = next(pair.mask for pairs in self.splits.values() for pair in pairs)
        inside = mask.is_relative_to(self.root)
        parts = mask.relative_to(self.root).parts if inside else mask.parent.parts[-1:]
        return parts[0] if len(parts) > 1 or not inside else "masks"

    @property
    def held_out(self) -> str:
        """The split that evaluates a training run; never test."""
        return "val" if self.splits.get("val") else "train"

    def pairs_of(self, split: str) -> tuple[Pair, ...]:
        """Return the pairs of a split; raise a `FullconvError` if it has none."""
        if pairs := self.splits.get(split):
            return pairs
        splits = [name for name, its_pairs in self.splits.items() if its_pairs]
        message = msg(
            "{root} has no images for the split {split!r}; it has {splits}.",
            root=self.root,
            split=split,
            splits=", ".join(splits),
        )
        raise FullconvError(message, f"--split {splits[-1]}")


def load_dataset(root: str | Path, *, layout: str | None = None) -> Dataset:
    """Recognize and read a dataset.

    Args:
        root: a folder, its dataset.toml, or the name of a published dataset, which is downloaded
            if it is not there yet.
        layout: one of `LAYOUTS`; recognized by default.

    Raises:
        FullconvError: there is no dataset, more than one, or it cannot be read.
    """
    # The folder, and the layout that the caller or dataset.toml demands.
    root = resolve_dataset(root)
    if root.name == SETTINGS_NAME and root.is_file():
        root = root.parent
    if not root.is_dir():
        raise unrecognized.no_folder(root)
    settings = read_settings(root)
    demanded = layout or settings.get("layout")
    settings_path = root / SETTINGS_NAME if demanded and not layout else None
    if demanded is not None and demanded not in _READERS:
        close, names = nearest(demanded, LAYOUTS, 0), ", ".join(LAYOUTS)
        values = {"path": settings_path, "layout": demanded, "names": names}
        if settings_path is None:
            message = msg("no layout {layout!r}; expected one of {names}.", **values)
            raise FullconvError(message, f"--layout {close}")
        message = msg("{path}: no layout {layout!r}; expected one of {names}.", **values)
        raise FullconvError(message, f'layout = "{close}"')

    # Find the pairs; make a validation split if there is none.
    folder, name, match = _recognize(root, demanded, settings_path)
    if not any(match.splits.values()):
        raise unrecognized.no_pairs(folder, name, match)
    if "val" not in match.splits and len(match.splits.get("train", [])) > 1:
        _make_val(match)
    splits: dict[str, tuple[Pair, ...]] = {}
    for split in ("train", "val", "test"):
        if split in match.splits:
            splits[split] = tuple(sorted(match.splits[split], key=lambda pair: pair.name))

    # Read the class table.
    mask_paths = [pair.mask for pairs in splits.values() for pair in pairs]
    settings = read_settings(folder) or settings
    table = read_labels(
        folder,
        settings,
        mask_paths,
        layout_labels=match.labels,
        layout_is_generic=name in ("voc", "camvid"),
    )
    notes = [*match.notes, *table.notes]
    if folder != root:
        notes.insert(0, msg("found in the subfolder {folder}", folder=folder.relative_to(root)))
    reason = join([match.reason, table.source], "; ") if table.source else match.reason
    unpaired = tuple(sorted(match.images)), tuple(sorted(match.masks))
    return Dataset(folder, name, reason, splits, table.labels, table.named, *unpaired, tuple(notes))


def match_layout(
    folder: Path, readers: Mapping[str, _Reader] = _READERS
) -> tuple[str, LayoutMatch] | None:
    """Return the first layout that fits a folder itself (not a subfolder), and its pairs."""
    matches = ((name, reader(folder)) for name, reader in readers.items())
    return next(((name, match) for name, match in matches if match is not None), None)


def _recognize(
    root: Path, layout: str | None, settings_path: Path | None
) -> tuple[Path, str, LayoutMatch]:
    """Return the folder with a dataset, its layout and its pairs: the folder itself, else the only
    subfolder with a dataset."""
    readers = {layout: _READERS[layout]} if layout else _READERS
    level = [root]
    for _ in range(_DEPTH + 1):
        matches = [(folder, match_layout(folder, readers)) for folder in level]
        hits = [(folder, *match) for folder, match in matches if match is not None]
        if len(hits) == 1:
            return hits[0]
        if hits:
            raise unrecognized.several_datasets(root, [folder for folder, _, _ in hits])
        level = [child for folder in level for child in folders_in(folder)]
    if layout:
        raise unrecognized.wrong_layout(root, layout, settings_path)
    raise unrecognized.unrecognized(root, match_layout)


def _make_val(match: LayoutMatch) -> None:
    """Move a share of train to val, selected by a hash of the names."""
    train = match.splits["train"]
    order = sorted(train, key=lambda pair: hashlib.sha256(os.fsencode(pair.name)).digest())
    count = max(1, round(_VAL_SHARE * len(train)))
    match.splits["val"], match.splits["train"] = order[:count], order[count:]
    note = nmsg(
        "no val split: {count} of {total} train images ({share:.0%}) is used for it, selected by "
        "a hash of the file names",
        "no val split: {count} of {total} train images ({share:.0%}) are used for it, selected by "
        "a hash of the file names",
        count,
        total=len(train),
        share=count / len(train),
    )
    match.notes.append(note)
