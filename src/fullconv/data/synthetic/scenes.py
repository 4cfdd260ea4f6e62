"""Synthetic street scenes: a seeded dataset of eight classes, without a download.

`scene` draws one image and its class ids (255 where the hood of the camera's car hides the street);
`write` writes a dataset. A scene is a small world in meters, seen through a pinhole camera and
painted from far to near.
The image is painted at three times the resolution and averaged; the id of a pixel is the center of
its 3 x 3 block, so masks are hard and exact. The same seed and size give the same bytes. Classes
share colors on purpose (gray, green and sky-blue houses, cars of any color, dusk, fog): color alone
does not tell them apart.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from fullconv.core.errors import FullconvError
from fullconv.core.i18n import msg, nmsg
from fullconv.core.labels import Labels
from fullconv.data.io.masks import write_mask
from fullconv.data.layouts.settings_file import write_settings
from fullconv.data.synthetic.canvas import FINE, Canvas, Color, shaded
from fullconv.data.synthetic.objects import (
    BUILDING,
    IGNORE_INDEX,
    LEAVES,
    PAINTS,
    PAVEMENT,
    ROAD,
    TREE,
    WALLS,
    car,
    hedge,
    house,
    person,
    pole,
    tree,
)

SIZE = (144, 208)  # H, W in pixels: people and poles are several pixels wide
LABELS = Labels(
    names=("sky", "building", "road", "pavement", "tree", "car", "person", "pole"),
    colors=(
        *((142, 202, 230), (168, 117, 88), (92, 96, 112), (226, 179, 211)),
        *((79, 160, 62), (41, 98, 235), (226, 48, 66), (250, 200, 50)),
    ),
    ignore_index=IGNORE_INDEX,
)

_MIN_SIDE = 16  # pixels
_SPLITS = ("train", "val", "test")
_CURB = 0.13  # meters

Paint = tuple[float, Callable[[], None]]  # depth in meters, and the function that paints


def scene(seed: int, *, size: tuple[int, int] = SIZE) -> tuple[np.ndarray, np.ndarray]:
    """Draw a street scene: image (H, W, 3) uint8 RGB, and ids (H, W) uint8 of `LABELS`.

    Raises:
        FullconvError: a negative seed, or a size (H, W) below 16 pixels.
    """
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        message = msg(
            "the seed of a scene is {seed!r}; expected an integer of 0 or more.", seed=seed
        )
        raise FullconvError(message, "seed=0")
    if len(size) != 2 or min(size) < _MIN_SIDE:
        message = msg(
            "a scene of size {size}; expected (height, width) of {limit} pixels or more.",
            size=tuple(size),
            limit=_MIN_SIDE,
        )
        raise FullconvError(message, f"size={SIZE}")
    canvas = Canvas((int(size[0]), int(size[1])), np.random.default_rng(seed))
    _sky(canvas)
    _ground(canvas)
    objects = [*_houses(canvas), *_traffic(canvas), *_sidewalk(canvas)]
    for _, paint in sorted(objects, key=lambda painted: -painted[0]):
        paint()
    if canvas.rng.random() < 0.25:
        _hood(canvas)
    center = FINE // 2
    ids = np.asarray(canvas.mask)[center::FINE, center::FINE].copy()
    return _develop(canvas), ids


def write(
    root: Path | str,
    *,
    train: int = 330,
    val: int = 40,
    test: int = 40,
    size: tuple[int, int] = SIZE,
    seed: int = 0,
) -> Path:
    """Write a dataset of street scenes into a new or empty folder, or one with some of its files.

    It has images/<split>/*.jpg, masks/<split>/*.png (palette) and dataset.toml. The same arguments
    write the same bytes. dataset.toml is written last: if it exists, the dataset is complete.

    Raises:
        FullconvError: no scenes, or other files in the folder.
    """
    root = Path(root)
    counts = dict(zip(_SPLITS, (train, val, test), strict=True))
    if min(counts.values()) < 0 or not any(counts.values()):
        listed = ", ".join(f"{split} {count}" for split, count in counts.items())
        raise FullconvError(
            msg(
                "{counts} scenes; expected no negative number and at least one scene.",
                counts=listed,
            )
        )
    stems = {split: [f"street_{i:04d}" for i in range(count)] for split, count in counts.items()}
    _check_folder(root, stems)
    for part, split in enumerate(_SPLITS):
        for i, stem in enumerate(stems[split]):
            # The scenes of a split do not depend on the size of the others.
            image, ids = scene((seed * len(_SPLITS) + part) * 1_000_000 + i, size=size)
            photo, mask = root / f"images/{split}/{stem}.jpg", root / f"masks/{split}/{stem}.png"
            photo.parent.mkdir(parents=True, exist_ok=True)
            mask.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(photo, quality=92, subsampling=0)
            write_mask(mask, ids, LABELS)
    write_settings(root, LABELS)
    return root


def _check_folder(root: Path, stems: dict[str, list[str]]) -> None:
    """Refuse a folder with other files: the user's images, or scenes of a larger dataset."""
    names = [f"{split}/{stem}" for split in stems for stem in stems[split]]
    ours = {root / path for n in names for path in (f"images/{n}.jpg", f"masks/{n}.png")}
    paths = [path for part in ("images", "masks") for path in sorted((root / part).glob("**/*"))]
    other = [path for path in paths if path.is_file() and path not in ours]
    if other:
        raise FullconvError(
            nmsg(
                "{root} already contains {count} other file, {first}; expected a new or empty "
                "folder.",
                "{root} already contains {count} other files, such as {first}; expected a new or "
                "empty folder.",
                count=len(other),
                root=root,
                first=other[0].relative_to(root),
            ),
            f'write("{root}-2")',
        )


def _sky(c: Canvas) -> None:
    rng, width = c.rng, c.photo.width
    steps = np.linspace(0, 1, 64)[:, None, None]  # (64, 1, 1), zenith to horizon
    column = np.asarray(c.light.zenith) * (1 - steps) + np.asarray(c.light.horizon) * steps
    gradient = Image.fromarray(column.astype(np.uint8))
    size = (width, int(c.vanish[1]) + 2)
    c.photo.paste(gradient.resize(size, Image.Resampling.BILINEAR), (0, 0))
    red, green, blue = (int((a + 255) / 2) for a in c.light.horizon)
    for _ in range(int(rng.integers(0, 6))):
        u, v = rng.uniform(0, width), rng.uniform(0, c.vanish[1])
        span = width * rng.uniform(0.08, 0.2)
        for du, dv, r in rng.uniform((-1, -0.16, 0.25), (1, 0.16, 0.6), (14, 3)) * span:
            box = (u + du - r, v + dv - r * 0.36, u + du + r, v + dv + r * 0.36)
            c.brush.ellipse(box, (red, green, blue, 46))
    # The end of the street: distant houses or a forest.
    far, wood = 110.0, rng.random() < 0.4
    for x in np.arange(-90, 90, 7.0):
        top = rng.uniform(3, 8) if wood else rng.uniform(4, 15)
        color, kind = (c.pick(LEAVES), TREE) if wood else (c.pick(WALLS), BUILDING)
        if wood:
            c.disc((x, top / 2, far), (6.5, top / 2 + 2), shaded(color, 0.8), kind)
        c.panel(x, x + 8, 0, top, far, color, kind)


def _ground(c: Canvas) -> None:
    """Paint pavement everywhere, the road on it, then markings and shadows."""
    rng, road = c.rng, c.road
    depths = [1.0, 2.0, 3.0, 4.5, 6.5, 9.0, 13.0, 20.0, 30.0, 50.0, 80.0, 112.0]
    asphalt = c.pick(((104, 106, 112), (128, 126, 122), (86, 88, 96)), spread=22)
    slabs = c.pick(((164, 158, 148), (132, 132, 134), (176, 150, 130), (112, 116, 120)), spread=24)
    for near, far in reversed(list(pairwise(depths))):
        c.flat((-90, 90), (near, far), slabs, PAVEMENT)
        c.flat((-road, road), (near, far), asphalt, ROAD)
        for side in (-1, 1):
            x, light = side * road, shaded(slabs, 1.16)
            c.flat((x, side * (road + 0.3)), (near, far), light, PAVEMENT, y=_CURB)
            edge = [(x, 0, near), (x, _CURB, near), (x, _CURB, far), (x, 0, far)]
            c.shape(edge, shaded(slabs, 0.7), PAVEMENT)
    for z in np.arange(2.0, 24, rng.uniform(0.9, 1.6)):  # gaps between the slabs
        for side in (-1, 1):
            start, end = side * (road + 0.3), side * c.line
            c.shape([(start, 0, z), (end, 0, z), (end, 0, z + 0.06)], shaded(slabs, 0.72))
    _marks(c, asphalt)
    if c.light.shadow > 50:  # houses on the sunny side cast shadows on the street
        wall, reach = -c.sunny * c.line, rng.uniform(0.2, 1.3) * c.line
        for z in np.arange(1.0, 100, 16.0):
            cut = wall + c.sunny * reach * rng.uniform(0.6, 1.0)
            c.flat((wall, cut), (z, z + 15), (14, 18, 30), alpha=c.light.shadow)


def _marks(c: Canvas, asphalt: Color) -> None:
    rng, road = c.rng, c.road
    for x, z, r, tone in rng.uniform((-road, 2.5, 0.1, 0.72), (road, 22, 0.7, 1.2), (22, 4)):
        rim = [(x - r, 0, z), (x, 0, z - r), (x + r, 0, z), (x + r * 0.4, 0, z + 2 * r)]
        c.shape(rim, shaded(asphalt, tone), alpha=90)
    white, phase = (226, 226, 220), rng.uniform(0, 6)
    lines = [(0.0, 3.0)] + [(s * (road - 0.35), 6.0) for s in (-1, 1) if rng.random() < 0.5]
    for x, dash in lines:
        for z in np.arange(phase - 4, 90, 6.0):
            if z + dash > 1:
                c.flat((x - 0.08, x + 0.08), (max(z, 1.0), z + dash), white, alpha=215)
    if rng.random() < 0.4:  # a crosswalk
        z = rng.uniform(6, 18)
        for x in np.arange(-road + 0.3, road - 0.4, 1.0):
            c.flat((x, x + 0.5), (z, z + 3), white, alpha=215)


def _hood(c: Canvas) -> None:
    """Paint the hood of the camera's car; its pixels are ignored."""
    (width, height), rise = c.photo.size, c.rng.uniform(0.1, 0.2)
    u = width * c.rng.uniform(0.4, 0.6)
    box = (u - width * 0.6, height * (1 - rise), u + width * 0.6, height * (1 + 2 * rise))
    paint = c.pick(PAINTS)
    c.brush.ellipse(box, c.lit(shaded(paint, 0.55), 0))
    c.stamp.ellipse(box, IGNORE_INDEX)
    inner = (box[0] + width * 0.06, box[1] + height * 0.02, box[2] - width * 0.06, box[3])
    c.brush.ellipse(inner, c.lit(paint, 0))
    glint = (u - width * 0.3, inner[1] + 6, u + width * 0.2, inner[1] + 18)
    c.brush.ellipse(glint, (255, 255, 255, 50))


def _houses(c: Canvas) -> list[Paint]:
    """Return houses on both sides, with gaps. The depth of a house is its far end, so that
    everything in front of it is painted later."""
    rng = c.rng
    objects: list[Paint] = []
    for side in (-1, 1):
        near, floors, gap = rng.uniform(-6, 3), int(rng.integers(2, 6)), False
        while near < 95:
            far = near + rng.uniform(7, 20)
            floors = int(np.clip(floors + rng.integers(-2, 3), 1, 6))
            objects.append((far, partial(house, c, side, max(near, 1.0), far, floors, gable=gap)))
            near, gap = far, bool(rng.random() < 0.25)
            if gap:
                near += rng.uniform(3, 12)
                if rng.random() < 0.7:
                    objects.append((near, partial(hedge, c, side, max(far, 2.0), near)))
                objects.append((near + 0.1, partial(tree, c, side * (c.line + 3), max(near, 9.0))))
    return [(depth, paint) for depth, paint in objects if depth > 2.5]


def _traffic(c: Canvas) -> list[Paint]:
    """Return parked cars along the curbs, cars in both lanes, sometimes one that crosses."""
    rng = c.rng
    objects: list[Paint] = []
    for lane in (-1, 1):
        if rng.random() < 0.6:  # this side has parked cars
            z = rng.uniform(4.5, 10)
            while z < 25:
                if rng.random() < 0.6:
                    x, facing = lane * (c.road - 1.05), lane if rng.random() < 0.85 else -lane
                    objects.append((z, partial(car, c, x, z, facing=facing)))
                z += rng.uniform(5.8, 8.0)
        z = rng.uniform(7, 20)
        while z < 28:
            x = lane * (c.road - 3.0 if c.road > 4.2 else c.road * 0.48)
            objects.append((z, partial(car, c, x + rng.normal(0, 0.15), z, facing=lane)))
            z += rng.uniform(9, 42)
    if rng.random() < 0.15 or not any(depth < 22 for depth, _ in objects):
        z, x = rng.uniform(9, 17), rng.uniform(-c.road, c.road) * 0.6
        turned = int(rng.choice((-1, 1)))
        objects = [painted for painted in objects if not z - 7 < painted[0] < z + 2.5]
        objects.append((z, partial(car, c, x, z, facing=turned, crossing=True)))
    return objects


def _sidewalk(c: Canvas) -> list[Paint]:
    """Return trees and poles along the curb, and people on the pavement and on the road."""
    rng = c.rng
    objects: list[Paint] = []
    walk = c.line - c.road
    for side in (-1, 1):
        if rng.random() < 0.7:
            for z in np.arange(rng.uniform(6.5, 14), 34, rng.uniform(9, 16)):
                if rng.random() < 0.8:
                    objects.append((z, partial(tree, c, side * (c.road + 0.8), z)))
        # Not so far away that a pole is only a line.
        for z in np.arange(rng.uniform(4.5, 8), 14, rng.uniform(4, 8)):
            objects.append((z, partial(pole, c, side * (c.road + 0.4), z)))
    for place in range(int(rng.integers(3, 6))):
        if place < 1:  # near and in view, usually on the road
            z = rng.uniform(4, 7)
            x = c.eye[0] + rng.uniform(-0.42, 0.42) * z
            ground = _CURB if abs(x) > c.road else 0.0
            objects.append((z, partial(person, c, x, z, ground=ground)))
            continue
        z = rng.uniform(7, 11)
        side = rng.choice((-1, 1))
        for _ in range(1 if rng.random() < 0.7 else 2):  # alone, or a pair
            x = side * (c.road + 0.3 + rng.uniform(0.1, 0.95) * walk)
            objects.append((z, partial(person, c, x, z, ground=_CURB)))
    return objects


def _develop(c: Canvas) -> np.ndarray:
    """Return the photo, (H, W, 3) uint8: averaged, slightly blurred, unevenly lit, with noise."""
    rng = c.rng
    small = c.photo.reduce(FINE).filter(ImageFilter.GaussianBlur(rng.uniform(0.15, 0.55)))
    film = np.asarray(small, dtype=np.float32)
    height, width = film.shape[:2]
    down = np.linspace(-1, 1, height, dtype=np.float32)[:, None, None]
    right = np.linspace(-1, 1, width, dtype=np.float32)[None, :, None]
    tilt = rng.uniform(-0.1, 0.1, 2).astype(np.float32)
    fall = 1 + tilt[0] * down + tilt[1] * right - np.float32(0.07) * (down**2 + right**2)
    coarse = rng.normal(0, 1, (height // 5 + 2, width // 5 + 2)).astype(np.float32)
    blotches = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    fall = fall * (1 + np.float32(0.022) * np.asarray(blotches)[..., None])
    tint = rng.uniform(0.93, 1.07, 3).astype(np.float32)  # the camera's white balance
    noise = rng.standard_normal((height, width, 3), dtype=np.float32)
    noise *= np.float32(rng.uniform(2, 6))
    exposed = film * fall * (tint * np.float32(rng.uniform(0.85, 1.12))) + noise
    return np.clip(exposed + 0.5, 0, 255).astype(np.uint8)
