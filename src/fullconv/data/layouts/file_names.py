"""Pair images with masks by the names of their files.

The rules are tried in this order, and a mask belongs to one image:

    a.jpg   a.png                       the same name
    a.jpg   a_mask.png, a.jpg.png       the name and one of `MASK_ENDINGS`, or the whole file name
    A1.jpg  a1.PNG, a1_Mask.png         the same without case, or with accents in another form
    21_training.tif  21_manual1.gif     the same number, if no file of the folder fits otherwise
    IMG_7.jpg        gt-007.png

The last rule needs at least two files on each side, a different number in each, and a partner for
every file of one side.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

from fullconv.core.i18n import msg

MASK_ENDINGS = (
    *("_mask", "_masks", "_label", "_labels", "_gt", "_seg", "_annotation", "-mask", "_L"),
    *("_segmentation", "_groundtruth", "_ground_truth", "_annotated", "_target"),
)
_MAX_NUMBERS = 4  # in one name
IMAGE_ENDINGS = ("_image", "_img", "_sat", "_photo", "_rgb", "_0000")  # _0000: nnU-Net


@dataclass(frozen=True)
class Pair:
    """An image and its mask.

    Args:
        name: file name of the image without suffix; unique in its split.
        image, mask: the files.
        masks: masks of additional heads, see `fullconv.data.layouts.extra_folders`.
        inputs: files with extra channels (depth, infrared ...).
    """

    name: str
    image: Path
    mask: Path
    masks: tuple[Path, ...] = ()
    inputs: tuple[Path, ...] = ()


@dataclass(frozen=True)
class NamePairs:
    """The files of a folder of images and a folder of masks.

    Args:
        pairs: the pairs; their names are unique.
        images, masks: files without a partner.
        note: how the names agree, if the user should know; "" otherwise.
    """

    pairs: list[Pair]
    images: list[Path]
    masks: list[Path]
    note: str = ""


def pair_by_name(images: Iterable[Path], masks: Iterable[Path]) -> NamePairs:
    """Pair images with masks by the rules above; of several images with one name, the first."""
    images, masks = list(images), list(masks)
    by_stem: dict[str, Path] = {}
    folded: dict[str, list[Path]] = {}
    for mask in masks:
        by_stem.setdefault(mask.stem, mask)
        folded.setdefault(_fold(mask.stem), []).append(mask)
    pairs: dict[str, Pair] = {}
    used: set[Path] = set()

    def add(image: Path, candidates: Iterator[Path]) -> None:
        mask = next((mask for mask in candidates if mask not in used), None)
        if mask is not None and image.stem not in pairs:
            pairs[image.stem] = Pair(image.stem, image, mask)
            used.add(mask)

    for image in images:  # exact names first, so that no other image takes their masks
        add(image, iter([by_stem[image.stem]] if image.stem in by_stem else []))
    for image in images:
        if image.stem not in pairs:
            add(image, (by_stem[stem] for stem in _mask_stems(image) if stem in by_stem))
    for image in images:
        if image.stem not in pairs:
            same = (folded.get(_fold(stem), []) for stem in _mask_stems(image))
            add(image, (files[0] for files in same if len(files) == 1))

    note = ""
    if not pairs:
        pairs = {pair.name: pair for pair in _pairs_by_number(images, masks)}
        used = {pair.mask for pair in pairs.values()}
        for pair in list(pairs.values())[:1]:
            note = msg(
                "masks belong to the images of the same number: {image} and {mask}",
                image=pair.image.name,
                mask=pair.mask.name,
            )
    paired = {pair.image for pair in pairs.values()}
    return NamePairs(
        [pairs[image.stem] for image in images if image in paired],
        [image for image in images if image not in paired],
        [mask for mask in masks if mask not in used],
        note,
    )


def mask_ending(stems: Iterable[str]) -> str:
    """Return the ending of `MASK_ENDINGS` that tells the masks of a folder from its images, as it
    is written there; "" if no two names differ by one.

    >>> mask_ending(["a", "a_Mask", "b", "b_Mask"]), mask_ending(["a", "b"])
    ('_Mask', '')
    """
    names = set(stems)
    counts: dict[str, int] = {}
    for stem in names:
        for ending in MASK_ENDINGS:
            bare, as_written = stem[: -len(ending)], stem[-len(ending) :]
            if as_written.lower() == ending.lower() and bare in names:
                counts[as_written] = counts.get(as_written, 0) + 1
    return max(counts, key=lambda ending: counts[ending], default="")


def bare_stem(stem: str) -> str:
    """Return the stem of a mask without its ending: "a_mask" -> "a"."""
    endings = (ending for ending in MASK_ENDINGS if stem.lower().endswith(ending.lower()))
    return next((stem[: -len(ending)] for ending in endings), stem)


def _mask_stems(image: Path) -> Iterator[str]:
    """Yield the names that the mask of an image may have, the most usual first."""
    bare = [image.stem]
    for ending in IMAGE_ENDINGS:
        if image.stem.endswith(ending) and image.stem != ending:
            bare.append(image.stem.removesuffix(ending))
    yield from (stem + ending for stem in bare for ending in ("", *MASK_ENDINGS))
    yield image.name
    yield from (image.name + ending for ending in MASK_ENDINGS)


def _fold(stem: str) -> str:
    return unicodedata.normalize("NFC", stem).casefold()


def _pairs_by_number(images: Sequence[Path], masks: Sequence[Path]) -> list[Pair]:
    image_keys, mask_keys = _numbers(images), _numbers(masks)
    common = image_keys.keys() & mask_keys.keys()
    if len(common) < 2 or len(common) < min(len(image_keys), len(mask_keys)):
        return []
    # site1_frame2 and frame1_site2: another order of the numbers would pair the files as well.
    orders = list(permutations(range(len(next(iter(mask_keys))))))[1:]
    for order in orders:
        if {tuple(key[k] for k in order) for key in common} <= image_keys.keys():
            return []
    pairs = [Pair(image_keys[key].stem, image_keys[key], mask_keys[key]) for key in common]
    return sorted(pairs, key=lambda pair: pair.name)


def _numbers(files: Sequence[Path]) -> dict[tuple[int, ...], Path]:
    """Return the numbers that tell the names of a folder apart -> file; {} if letters do, too.

    img_01_a and img_12_a give 1 and 12.
    """
    rows = [re.split(r"([0-9]+)", file.stem) for file in files]  # letters, digits, letters ...
    if len({len(row) for row in rows}) != 1:
        return {}
    varying = [k for k, column in enumerate(zip(*rows, strict=True)) if len(set(column)) > 1]
    if any(k % 2 == 0 for k in varying) or len(varying) > _MAX_NUMBERS:
        return {}
    keys = [tuple(int(row[k]) for k in varying) for row in rows]
    numbers = dict(zip(keys, files, strict=True))
    return numbers if len(numbers) == len(files) else {}
