"""Rules about the balance of classes and the size of images."""

from __future__ import annotations

import math
from collections.abc import Iterator

from fullconv.core.i18n import join, msg, nmsg
from fullconv.core.labels import is_background
from fullconv.core.text import percent, truncated_list
from fullconv.data.check.finding import Finding, Level
from fullconv.data.check.scan import DatasetScan
from fullconv.data.layouts.class_table import UndeterminedLabels

_MAX_IGNORED = 1 / 3  # of all pixels
_MAX_SHARE = 0.95  # of the labeled pixels, for one class
_MIN_SHARE = 0.0002  # classes below it are seldom learned
_SMALL = 32  # pixels of the shorter side: one cell at the coarsest output stride
_LARGE = 4096  # pixels of the longer side: a crop of 513 pixels sees less than 1/60 of the image
_DARKEST = 64  # level of 255: 14 bits of 16
_MIN_IDENTICAL = 3  # images with the same mask


def mostly_ignored(scan: DatasetScan) -> Iterator[Finding]:
    """Report that many pixels are ignored."""
    ignored = sum(scan.ignored_pixels.values())
    labeled = sum(map(sum, scan.class_pixels.values()))
    share = ignored / max(1, ignored + labeled)
    if labeled and share > _MAX_IGNORED:
        message = msg(
            "{share} of all pixels are ignored: they are neither trained on nor evaluated.",
            share=percent(share, 0),
        )
        fix = msg(
            "nothing, if this is intended; else see which mask values the class table ignores"
        )
        yield Finding("note", "void-share", message, (), fix)


def imbalance(scan: DatasetScan) -> Iterator[Finding]:
    """Report that one class covers nearly all of train, or some classes nearly nothing."""
    labels, pixels = scan.dataset.labels, scan.class_pixels.get("train", [])
    total = sum(pixels)
    if isinstance(labels, UndeterminedLabels) or sum(n > 0 for n in pixels) < 2:
        return
    largest = max(range(len(pixels)), key=pixels.__getitem__)
    rare = [labels.names[k] for k, n in enumerate(pixels) if 0 < n < _MIN_SHARE * total]
    sentences: list[str] = []
    if pixels[largest] > _MAX_SHARE * total:
        name, share = labels.names[largest], percent(pixels[largest] / total)
        sentence = msg(
            "{name} covers {share} of the labeled pixels of train.", name=name, share=share
        )
        sentences.append(sentence)
    if rare:
        sentence = nmsg(
            "{count} class covers less than {limit} of the labeled pixels of train: {names}.",
            "{count} classes each cover less than {limit} of the labeled pixels of train: {names}.",
            len(rare),
            limit=percent(_MIN_SHARE, 2),
            names=truncated_list(rare),
        )
        sentences.append(sentence)
    if sentences:
        fix = msg(
            "look at the IoU of each class, not at pixel accuracy. Class weights are chosen "
            "automatically (--class-weights balanced forces them); more images of the rare classes "
            "help more"
        )
        yield Finding("note", "imbalance", join(sentences, " "), (), fix)


def one_class_only(scan: DatasetScan) -> Iterator[Finding]:
    """Report training masks in which every labeled pixel has the same class."""
    labels = scan.dataset.labels
    present = [k for k, count in enumerate(scan.class_pixels.get("train", [])) if count]
    white_is_open = 255 not in labels.values and "white" in scan.white_kinds
    if len(present) != 1 or scan.unknown_pixels or white_is_open:
        return
    if not isinstance(labels, UndeterminedLabels):
        message = msg(
            "every labeled pixel of train has the class {name!r}: there is nothing to tell apart.",
            name=labels.names[present[0]],
        )
        fix = msg("look at the masks with an image viewer, and export them again with all classes")
        masks = (pair_scan.pair.mask for pair_scan, _ in scan.masks if pair_scan.split == "train")
        yield Finding("error", "one-class", message, scan.names(masks), fix)


def identical_masks(scan: DatasetScan) -> Iterator[Finding]:
    """Report black and white masks that are the same for all images: a field of view, no labels."""
    hashes = {pair_scan.mask_hash for pair_scan, _ in scan.masks}
    images = {pair_scan.image_hash for pair_scan, _ in scan.masks}
    values = max((mask.values for _, mask in scan.masks), default=0)
    if len(hashes) == 1 and len(images) >= _MIN_IDENTICAL and values == 2:
        message = msg(
            "all {count} masks are the same file, byte for byte, but the images differ.",
            count=len(scan.masks),
        )
        fix = msg(
            "look for the folder with the labels, and name it: {key} in dataset.toml",
            key='masks = "FOLDER"',
        )
        files = scan.names(pair_scan.pair.mask for pair_scan, _ in scan.masks)
        yield Finding("warning", "identical-masks", message, files, fix)


def single_class(scan: DatasetScan) -> Iterator[Finding]:
    """Report masks with one class only: empty ones, and full ones."""
    labels, total = scan.dataset.labels, len(scan.masks)
    if isinstance(labels, UndeterminedLabels) or len(labels) < 2:
        return
    empty = scan.single_class.get(0, []) if is_background(labels.names[0]) else []
    if empty:
        message = nmsg(
            "{count} of {total} masks contains only {name}.",
            "{count} of {total} masks contain only {name}.",
            len(empty),
            total=total,
            name=labels.names[0],
        )
        level: Level = "warning" if len(empty) / max(1, total) > 0.5 else "note"
        fix = msg("nothing, if these images show no object; else their labels are missing")
        yield Finding(level, "empty-mask", message, scan.names(empty), fix)
    full = {k: paths for k, paths in scan.single_class.items() if paths is not empty}
    if full:
        files = [path for paths in full.values() for path in paths]
        message = nmsg(
            "{count} mask contains one class only: {classes}.",
            "{count} masks contain one class only: {classes}.",
            len(files),
            classes=truncated_list([f"{labels.names[k]} {len(full[k])}" for k in sorted(full)]),
        )
        fix = msg("nothing, if these images show nothing else; else they were filled by mistake")
        yield Finding("note", "one-class-mask", message, scan.names(files), fix)


def dark_images(scan: DatasetScan) -> Iterator[Finding]:
    """Report images that use a small part of the levels: 10, 12 or 14 bits in 16-bit files."""
    levels = [pair_scan.image.brightest for pair_scan in scan.scans if pair_scan.image]
    if not levels or max(levels) > _DARKEST or max(levels) == 0:
        return
    message = msg(
        "the brightest pixel of all images has the level {level} of 255. 16-bit files are scaled "
        "from 0-65535; files that hold 10, 12 or 14 bits look nearly black.",
        level=max(levels),
    )
    fix = msg(
        "multiply the pixel values by {factor}, in the images to predict, too; or nothing, if the "
        "images are meant to be dark",
        factor=2 ** int(math.log2(255 / max(levels))),
    )
    yield Finding("warning", "dark-images", message, (), fix)


def extreme_sizes(scan: DatasetScan) -> Iterator[Finding]:
    """Report very small and very large images."""
    sizes = [(pair_scan.pair.image, pair_scan.image_size) for pair_scan in scan.scans]
    small = [path for path, size in sizes if size and min(size) < _SMALL]
    large = [path for path, size in sizes if size and max(size) > _LARGE]
    if small:
        message = nmsg(
            "{count} image has a side shorter than {limit} pixels, which is one cell at the "
            "coarsest output stride.",
            "{count} images have a side shorter than {limit} pixels, which is one cell at the "
            "coarsest output stride.",
            len(small),
            limit=_SMALL,
        )
        fix = msg("enlarge them by a whole factor: images bicubically, masks by nearest neighbor")
        yield Finding("note", "tiny-image", message, scan.names(small), fix)
    if large:
        message = nmsg(
            "{count} image has a side longer than {limit} pixels. A training crop sees a small "
            "part of it, but the whole file is decoded each time.",
            "{count} images have a side longer than {limit} pixels. A training crop sees a "
            "small part of them, but the whole file is decoded each time.",
            len(large),
            limit=_LARGE,
        )
        fix = msg(
            "cut images and masks into tiles of about 1024 x 1024 pixels, or train on reduced "
            "copies if the objects are large"
        )
        yield Finding("note", "huge-image", message, scan.names(large), fix)
