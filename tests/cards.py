"""Synthetic cards at different distances in front of a wall: two kinds of labels, and their depth.

`materials`: plain, striped, dotted (visible in the pattern). `order`: wall, far, near (nearer than
`NEAR`). If cards are `sized`, near ones look large, as they would to a camera; otherwise only the
depth shows how far away a card is.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from fullconv.core.labels import Labels
from fullconv.data.io.masks import write_mask

SIZE = (96, 128)  # H, W in pixels
MATERIALS = Labels(("wall", "plain", "striped", "dotted"))
ORDER = Labels(("wall", "far", "near"))
WALL, FAR, NEAR = 5.0, 4.0, 2.0  # meters; cards are at 1 to FAR


def scene(seed: int, *, sized: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return an image (H, W, 3 uint8), materials and order (H, W uint8), and depth in mm (H, W
    uint16; 0 if not measured)."""
    rng = np.random.default_rng(seed)
    height, width = SIZE
    y, x = np.mgrid[:height, :width]
    image = np.full((*SIZE, 3), rng.uniform(60, 200, 3)) + rng.normal(0, 12, (*SIZE, 1))
    materials, order = np.zeros(SIZE, np.uint8), np.zeros(SIZE, np.uint8)
    depth = np.full(SIZE, WALL)
    for z in sorted(rng.uniform(1, FAR, int(rng.integers(6, 10))), reverse=True):
        side = 44 / z if sized else rng.uniform(12, 44)
        middle = rng.uniform(0, (height, width))
        turn = rng.uniform(0, np.pi)
        across = np.cos(turn) * (x - middle[1]) + np.sin(turn) * (y - middle[0])
        along = np.cos(turn) * (y - middle[0]) - np.sin(turn) * (x - middle[1])
        card = (abs(across) < side / 2) & (abs(along) < side / 2)
        kind = int(rng.integers(1, len(MATERIALS)))
        ink = np.ones(SIZE)
        if kind == 2:
            ink = 0.55 + 0.45 * np.sign(np.sin(across * 1.3))
        if kind == 3:
            ink = 0.4 + 0.6 * ((np.sin(across) * np.sin(along)) < 0.3)
        color = rng.uniform(60, 255, 3)
        image[card] = (ink[..., None] * color)[card] + rng.normal(0, 8, (int(card.sum()), 1))
        materials[card], order[card], depth[card] = kind, 2 if z < NEAR else 1, z
    seen = np.where(rng.random(SIZE) < 0.02, 0, 1000 * depth + rng.normal(0, 20, SIZE))
    return image.clip(0, 255).astype(np.uint8), materials, order, seen.round().astype(np.uint16)


def write(
    root: Path, *, sized: bool, train: int, val: int, test: int = 0, labels: str = "both"
) -> Path:
    """Write images/, depth/ (16 bits, in mm) and masks/, each with a folder per split.

    Args:
        labels: the masks, "materials" or "order"; "both": materials, and order/ next to them.
    """
    first = ORDER if labels == "order" else MATERIALS
    for part, (split, count) in enumerate((("train", train), ("val", val), ("test", test))):
        for folder in ("images", "masks", "depth", *["order"] * (labels == "both")):
            if count:
                (root / folder / split).mkdir(parents=True)
        for k in range(count):
            image, materials, order, depth = scene(part * 100_000 + k, sized=sized)
            Image.fromarray(image).save(root / f"images/{split}/card_{k:03}.png")
            Image.fromarray(depth).save(root / f"depth/{split}/card_{k:03}.png")
            ids = order if labels == "order" else materials
            write_mask(root / f"masks/{split}/card_{k:03}.png", ids, first)
            if labels == "both":
                write_mask(root / f"order/{split}/card_{k:03}.png", order, ORDER)
    names = ", ".join(f'"{name}"' for name in first.names)
    (root / "dataset.toml").write_text(f"classes = [{names}]\n", encoding="utf-8")
    if labels == "both":
        names = ", ".join(f'"{name}"' for name in ORDER.names)
        (root / "order/dataset.toml").write_text(f"classes = [{names}]\n", encoding="utf-8")
    return root
