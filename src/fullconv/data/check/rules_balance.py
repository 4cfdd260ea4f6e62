"""Rules about shares and sizes: what takes nearly all pixels or next to none, masks with nothing in
them, images too small or too large to train on as they are."""

from __future__ import annotations

from collections.abc import Iterator

from fullconv.core.labels import is_background
from fullconv.core.text import plural, truncated_list
from fullconv.data.check.finding import Finding
from fullconv.data.check.scan import DatasetScan
from fullconv.data.layouts import class_table as tables

_VOID = 1 / 3  # share of all pixels that are ignored
_MOST = 0.95  # share of the labelled pixels that one class covers
_LEAST = 0.0002  # below it a class is seldom learned
_SMALL = 32  # pixels of the shorter side: one cell of the coarsest scores
_LARGE = 4096  # of the longer side: a crop of 513 pixels sees less than a sixtieth of it


def mostly_ignored(facts: DatasetScan) -> Iterator[Finding]:
    """Much that is ignored."""
    ignored, labelled = sum(facts.ignored.values()), sum(map(sum, facts.classes.values()))
    share = ignored / max(1, ignored + labelled)
    if labelled and share > _VOID:
        yield Finding(
            "note",
            "void-share",
            f"{share:.0%} of all pixels are ignored: nothing is learned from them, and nothing "
            "that is predicted there is scored",
            (),
            "nothing, if that is meant; else see which mask values the class table ignores",
        )


def imbalance(facts: DatasetScan) -> Iterator[Finding]:
    """One class nearly everywhere, or classes nearly nowhere, in train."""
    labels, pixels = facts.dataset.labels, facts.classes.get("train", [])
    total = sum(pixels)
    if isinstance(labels, tables.UndeterminedLabels) or sum(n > 0 for n in pixels) < 2:
        return
    most = max(range(len(pixels)), key=pixels.__getitem__)
    rare = [labels.names[k] for k, n in enumerate(pixels) if 0 < n < _LEAST * total]
    parts = []
    if pixels[most] > _MOST * total:
        parts.append(f"{labels.names[most]} covers {pixels[most] / total:.1%} of them")
    if rare:
        each = plural(len(rare), "class covers", "classes cover")
        parts.append(f"{each} less than {_LEAST:.2%} of them: {truncated_list(rare)}")
    if parts:
        yield Finding(
            "note",
            "imbalance",
            f"the labelled pixels of train are very unequally shared: {', and '.join(parts)}",
            (),
            "look at the IoU of each class, not at pixel accuracy. Weights are decided by "
            "themselves (--class-weights balanced forces them); more images of what is rare help "
            "more",
        )


def one_class(facts: DatasetScan) -> Iterator[Finding]:
    """Masks that hold one class and nothing else: empty ones, and full ones."""
    labels = facts.dataset.labels
    if isinstance(labels, tables.UndeterminedLabels) or len(labels) < 2:
        return
    empty = facts.all_one.get(0, []) if is_background(labels.names[0]) else []
    if empty:
        share = len(empty) / max(1, len(facts.read))
        yield Finding(
            "warning" if share > 0.5 else "note",
            "empty-mask",
            f"{len(empty)} of {plural(len(facts.read), 'mask')} hold nothing but {labels.names[0]}",
            facts.names(empty),
            "nothing, if there is nothing to see in those images; else their labels are missing",
        )
    full = {k: paths for k, paths in facts.all_one.items() if paths is not empty}
    if full:
        count = sum(map(len, full.values()))
        yield Finding(
            "note",
            "one-class-mask",
            f"{plural(count, 'mask holds', 'masks hold')} one class and nothing else: "
            f"{truncated_list([f'{labels.names[k]} {len(full[k])}' for k in sorted(full)])}",
            facts.names(path for paths in full.values() for path in paths),
            "nothing, if those images show nothing else; else they were filled by mistake",
        )


def extremes(facts: DatasetScan) -> Iterator[Finding]:
    """Very small and very large images."""
    sized = [(scan.pair.image, scan.image_size) for scan in facts.scans if scan.image_size]
    small = [path for path, size in sized if min(size) < _SMALL]
    large = [path for path, size in sized if max(size) > _LARGE]
    if small:
        yield Finding(
            "note",
            "tiny-image",
            f"{plural(len(small), 'image has', 'images have')} a side shorter than {_SMALL} "
            "pixels, which is one cell of the coarsest scores",
            facts.names(small),
            "enlarge them by a whole factor, images bicubically and masks by nearest neighbour",
        )
    if large:
        yield Finding(
            "note",
            "huge-image",
            f"{plural(len(large), 'image has', 'images have')} a side longer than {_LARGE} "
            "pixels: a training crop sees little of that, and the file is decoded whole for it",
            facts.names(large),
            "cut images and masks into tiles of about 1024 x 1024 pixels, or train on reduced "
            "copies if what matters is large",
        )
