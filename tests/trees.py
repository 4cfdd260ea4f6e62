"""Synthetic scenes in every layout, and in the format of every annotation tool.

Each writer fills an empty folder. Its content is `IDS`: stem -> (24, 32) ids 0 .. 7, where 0 is the
background of the tools, which draw nothing there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.io import savemat

from fullconv.core.labels import voc_color
from fullconv.data.layouts.class_catalogue import cityscapes
from fullconv.data.synthetic.scenes import LABELS, scene

SIZE = (24, 32)
IDS = {f"{k}": np.minimum(scene(k, size=SIZE)[1], 7) for k in range(4)}
SPLITS = {"0": "train", "1": "train", "2": "train", "3": "val"}
NAMES = ("background", *LABELS.names[1:])


@dataclass(frozen=True)
class Tree:
    """A writer, its layout, and whether the files are shapes, which must be converted, or masks."""

    write: Callable[[Path], None]
    layout: str
    shapes: bool = False


def photo(path: Path, stem: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(scene(int(stem), size=SIZE)[0]).save(path)


def png(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.astype(np.uint8)).save(path)


def mat(path: Path, table: dict[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, table)


def text(path: Path, *lines: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))


def lists(folder: Path) -> None:
    text(folder / "train.txt", 0, 1, 2)
    text(folder / "val.txt", 3)


def pairs(
    root: Path, image: str, mask: str, content: Callable[[np.ndarray], Any] = lambda ids: ids
) -> None:
    """Write images and masks; `content` returns the values of a PNG, or the table of a .mat file
    for the ids of a mask."""
    for stem, ids in IDS.items():
        folder = {"train": "training", "val": "validation"}[SPLITS[stem]]
        names = {"stem": stem, "split": SPLITS[stem], "folder": folder}
        photo(root / image.format(**names), stem)
        write = mat if mask.endswith(".mat") else png
        write(root / mask.format(**names), content(ids))


def folders(root: Path) -> None:
    pairs(root, "images/{split}/{stem}.jpg", "masks/{split}/{stem}.png")
    text(root / "classes.txt", *NAMES)


def voc(root: Path) -> None:
    pairs(root, "JPEGImages/{stem}.jpg", "SegmentationClass/{stem}.png")
    for path in (root / "SegmentationClass").iterdir():
        with Image.open(path) as mask:
            mask.putpalette([channel for k in range(256) for channel in voc_color(k)])
            mask.save(path)
    lists(root / "ImageSets/Segmentation")


def cvat(root: Path) -> None:
    """Write CVAT's "Segmentation mask": VOC in its own colors, with a color table, no splits."""
    colors = np.array([(0, 0, 0), *LABELS.colors[1:]], np.uint8)
    pairs(root, "JPEGImages/{stem}.jpg", "SegmentationClass/{stem}.png", lambda ids: colors[ids])
    rows = (f"{n}:{r},{g},{b}::" for n, (r, g, b) in zip(NAMES, colors.tolist(), strict=True))
    text(root / "labelmap.txt", "# label:color_rgb:parts:actions", *rows)
    text(root / "ImageSets/Segmentation/default.txt", *IDS)


def camvid_folders(root: Path) -> None:
    pairs(root, "{split}/{stem}.png", "{split}annot/{stem}.png")


def camvid_lists(root: Path) -> None:
    camvid_folders(root)
    for split in ("train", "val"):
        stems = [stem for stem in IDS if SPLITS[stem] == split]
        home = f"/SegNet/CamVid/{split}"
        text(root / f"{split}.txt", *(f"{home}/{s}.png {home}annot/{s}.png" for s in stems))


def cityscapes_tree(root: Path) -> None:
    labels = cityscapes(train_ids=False)
    label_ids = np.array([min(v for v, k in labels.values.items() if k == c) for c in range(8)])
    image = "leftImg8bit/{split}/ulm/ulm_{stem}_leftImg8bit.png"
    mask = "gtFine/{split}/ulm/ulm_{stem}_gtFine_labelIds.png"
    pairs(root, image, mask, lambda ids: label_ids[ids])


def ade20k(root: Path) -> None:
    pairs(root, "images/{folder}/{stem}.jpg", "annotations/{folder}/{stem}.png", lambda i: i + 1)


def coco_stuff(root: Path) -> None:
    pairs(root, "images/{split}2017/{stem}.jpg", "annotations/{split}2017/{stem}.png")
    text(root / "labels.txt", "0: unlabeled", "1: person", "2: bicycle")


def sbd(root: Path) -> None:
    pairs(root, "img/{stem}.jpg", "cls/{stem}.mat", lambda ids: {"GTcls": {"Segmentation": ids}})
    lists(root)


def pascal_context(root: Path) -> None:
    image, mask = "JPEGImages/{stem}.jpg", "trainval/{stem}.mat"
    pairs(root, image, mask, lambda ids: {"LabelMap": ids.astype(np.uint16) + 1})
    text(root / "labels.txt", *(f"{k}: name {k}" for k in range(1, 460)))
    lists(root)


def sift_flow(root: Path) -> None:
    names = np.array([f"name {k}" for k in range(33)], dtype=object)
    image, mask = "Images/scenes/{stem}.jpg", "SemanticLabels/scenes/{stem}.mat"
    pairs(root, image, mask, lambda ids: {"S": ids + 1, "names": names})
    lists(root)


def nyud(root: Path) -> None:
    image, mask = "images/img_{stem}.png", "segmentation/img_{stem}.mat"
    pairs(root, image, mask, lambda ids: {"segmentation": ids + 1})
    lists(root)


def ultralytics_masks(root: Path) -> None:
    folders(root)
    (root / "classes.txt").unlink()
    head = ("train: images/train", "val: images/val", "masks_dir: masks", "names:")
    text(root / "data.yaml", *head, *(f"  {k}: {name}" for k, name in enumerate(NAMES)))


def rows(ids: np.ndarray) -> Iterator[tuple[int, list[tuple[int, int]]]]:
    """Yield outlines that cover exactly the pixels of each class but 0: class id and corners (x, y)
    of every run of pixels in a row."""
    for row, line in enumerate(ids):
        edges = [0, *(np.flatnonzero(np.diff(line.astype(int))) + 1).tolist(), len(line)]
        for left, right in pairwise(edges):
            corners = [(left, row), (right, row), (right, row + 1), (left, row + 1)]
            if line[left]:
                yield int(line[left]), corners


def labelme(root: Path) -> None:
    for stem, ids in IDS.items():
        path = root / SPLITS[stem] / f"{stem}.jpg"
        photo(path, stem)
        shapes = [
            {"label": NAMES[k], "shape_type": "polygon", "points": corners}
            for k, corners in rows(ids)
        ]
        size = {"imageHeight": SIZE[0], "imageWidth": SIZE[1]}
        table = {"shapes": shapes, "imagePath": path.name, **size}
        text(path.with_suffix(".json"), json.dumps(table))


def coco(root: Path, draw: Callable[[np.ndarray], list[tuple[int, object]]]) -> None:
    """Write a file per split; `draw` returns class ids and the values of "segmentation"."""
    for split in ("train", "val"):
        entries, images = [], []
        for stem, ids in IDS.items():
            if SPLITS[stem] != split:
                continue
            photo(root / f"{split}2017/{stem}.jpg", stem)
            size = {"height": SIZE[0], "width": SIZE[1]}
            images.append({"id": int(stem), "file_name": f"{stem}.jpg", **size})
            for k, segmentation in draw(ids):
                entry = {"id": len(entries), "image_id": int(stem), "category_id": 10 * k}
                entries.append({**entry, "segmentation": segmentation})
        categories = [{"id": 10 * k, "name": name} for k, name in enumerate(NAMES) if k]
        table = {"images": images, "annotations": entries, "categories": categories}
        text(root / f"annotations/instances_{split}2017.json", json.dumps(table))


def coco_outlines(ids: np.ndarray) -> list[tuple[int, object]]:
    """Return all parts of a class as one object."""
    outlines = list(rows(ids))
    return [
        (k, [[n for corner in c for n in corner] for other, c in outlines if other == k])
        for k in sorted({k for k, _ in outlines})
    ]


def coco_counts(ids: np.ndarray) -> list[tuple[int, object]]:
    """Return run lengths down the columns, counted pixel by pixel."""
    objects = []
    for k in np.unique(ids[ids > 0]).tolist():
        counts, last = [0], False
        for pixel in (ids.T.ravel() == k).tolist():
            if pixel != last:
                counts.append(0)
            counts[-1] += 1
            last = pixel
        objects.append((k, {"size": list(SIZE), "counts": counts}))
    return objects


def coco_compressed(ids: np.ndarray) -> list[tuple[int, object]]:
    """Return run lengths as COCO's own code writes them."""
    from pycocotools import mask

    objects = []
    for k in np.unique(ids[ids > 0]).tolist():
        runs = mask.encode(np.asfortranarray(ids == k, np.uint8))
        objects.append((k, {"size": list(SIZE), "counts": runs["counts"].decode()}))
    return objects


def packed(words: np.ndarray, sizes: tuple[int, ...] = (3, 4, 8, 16)) -> list[int]:
    """Return bytes in the bit stream of Label Studio's brush, by its definition: repeated words are
    one chunk, single words share a chunk."""
    most = 1 << max(sizes)

    def chunk(repeats: bool, length: int, part: list[int]) -> str:
        kind = next(i for i, size in enumerate(sizes) if length <= 1 << size)
        head = f"{int(repeats)}{kind:02b}{length - 1:0{sizes[kind]}b}"
        return head + "".join(f"{word:08b}" for word in part)

    bits = [f"{len(words):032b}", f"{8 - 1:05b}", *(f"{size - 1:04b}" for size in sizes)]
    edges = [0, *(np.flatnonzero(words[1:] != words[:-1]) + 1).tolist(), len(words)]
    single: list[int] = []
    for start, end in pairwise(edges):
        word, length = int(words[start]), end - start
        if single and (length > 1 or len(single) == most):
            bits.append(chunk(False, len(single), single))
            single = []
        while length > 1:
            bits.append(chunk(True, min(length, most), [word]))
            length -= min(length, most)
        single += [word] * length
    bits += [chunk(False, len(single), single)] if single else []
    whole = "".join(bits)
    whole += "0" * (-len(whole) % 8)
    return [int(whole[k : k + 8], 2) for k in range(0, len(whole), 8)]


def brush(mask: np.ndarray) -> list[int]:
    """Return a mask as Label Studio's brush has it: all four channels are its opacity."""
    return packed(np.repeat(mask.ravel().astype(np.uint8) * 255, 4))


def label_studio(
    root: Path, draw: Callable[[np.ndarray], list[tuple[int, str, dict[str, object]]]]
) -> None:
    """Write an export beside the images, without the eight digits before their names; `draw`
    returns class ids, types and values."""
    tasks = []
    for stem, ids in IDS.items():
        photo(root / f"{SPLITS[stem]}/{stem}.jpg", stem)
        size = {"original_height": SIZE[0], "original_width": SIZE[1], "image_rotation": 0}
        results = [
            {"type": kind, "to_name": "image", **size, "value": {**value, kind: [NAMES[k]]}}
            for k, kind, value in draw(ids)
        ]
        data = {"image": f"/data/upload/7/0a1b2c3d-{stem}.jpg"}
        annotation = {"id": 5, "was_cancelled": False, "result": results}
        tasks.append({"id": int(stem), "data": data, "annotations": [annotation]})
    text(root / "project-7-at-2026.json", json.dumps(tasks))


def brush_results(ids: np.ndarray) -> list[tuple[int, str, dict[str, object]]]:
    classes = np.unique(ids[ids > 0]).tolist()
    return [(k, "brushlabels", {"format": "rle", "rle": brush(ids == k)}) for k in classes]


def polygon_results(ids: np.ndarray) -> list[tuple[int, str, dict[str, object]]]:
    scale = np.array([SIZE[1], SIZE[0]]) / 100
    return [
        (k, "polygonlabels", {"points": (np.array(corners) / scale).tolist(), "closed": True})
        for k, corners in rows(ids)
    ]


def ultralytics(root: Path) -> None:
    for stem, ids in IDS.items():
        photo(root / f"images/{SPLITS[stem]}/{stem}.jpg", stem)
        lines = [
            f"{k - 1} " + " ".join(f"{x / SIZE[1]:.6f} {y / SIZE[0]:.6f}" for x, y in corners)
            for k, corners in rows(ids)
        ]
        text(root / f"labels/{SPLITS[stem]}/{stem}.txt", *lines)
    names = json.dumps(list(NAMES[1:]))
    text(root / "data.yaml", "path: .", "train: images/train", "val: images/val", f"names: {names}")


TREES = {
    "folders": Tree(folders, "folders"),
    "voc": Tree(voc, "voc"),
    "cvat": Tree(cvat, "voc"),
    "camvid, folders": Tree(camvid_folders, "camvid"),
    "camvid, lists": Tree(camvid_lists, "camvid"),
    "cityscapes": Tree(cityscapes_tree, "cityscapes"),
    "ade20k": Tree(ade20k, "ade20k"),
    "coco-stuff": Tree(coco_stuff, "coco-stuff"),
    "sbd": Tree(sbd, "sbd"),
    "pascal-context": Tree(pascal_context, "pascal-context"),
    "sift-flow": Tree(sift_flow, "sift-flow"),
    "nyud": Tree(nyud, "nyud"),
    "ultralytics, masks": Tree(ultralytics_masks, "folders"),
    "labelme": Tree(labelme, "labelme", True),
    "coco, outlines": Tree(partial(coco, draw=coco_outlines), "coco", True),
    "coco, run lengths": Tree(partial(coco, draw=coco_counts), "coco", True),
    "coco, compressed": Tree(partial(coco, draw=coco_compressed), "coco", True),
    "label-studio, brush": Tree(partial(label_studio, draw=brush_results), "label-studio", True),
    "label-studio, polygons": Tree(
        partial(label_studio, draw=polygon_results), "label-studio", True
    ),
    "ultralytics, outlines": Tree(ultralytics, "ultralytics", True),
}
