"""Objects of synthetic streets: houses, trees, hedges, cars, people and poles.

Each function paints one object at a position of a `Canvas` `c` (meters), on the photo and on the
class ids. The caller paints from far to near. Shape, size and color are drawn from `Canvas.rng`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from fullconv.data.synthetic.canvas import FINE, Canvas, Color, Point, shaded

SKY, BUILDING, ROAD, PAVEMENT, TREE, CAR, PERSON, POLE = range(8)  # class ids
IGNORE_INDEX = 255

Palette = tuple[Color, ...]

WALLS: Palette = ((178, 92, 70), (214, 196, 160), (152, 156, 160), (128, 178, 218), (120, 152, 104))
WALLS += ((232, 228, 218), (198, 150, 98), (104, 108, 116), (222, 176, 160), (90, 124, 160))
_ROOFS: Palette = ((150, 70, 52), (84, 84, 92), (116, 92, 78), (70, 96, 88))
LEAVES: Palette = ((72, 120, 50), (98, 140, 60), (52, 96, 56), (120, 130, 62))
_AUTUMN: Palette = ((200, 128, 44), (186, 84, 44), (208, 170, 70), (140, 110, 60))
_CLOTHES: Palette = ((40, 44, 58), (170, 40, 48), (56, 92, 150), (220, 214, 200), (96, 128, 84))
_CLOTHES += ((226, 178, 60), (112, 76, 60), (130, 134, 142), (120, 70, 130))
_HAIR: Palette = ((40, 32, 28), (110, 78, 48), (176, 150, 100), (130, 130, 130))
_SKINS: Palette = ((236, 196, 168), (206, 154, 118), (146, 100, 72), (98, 66, 50))
PAINTS: Palette = ((200, 36, 40), (36, 70, 150), (236, 236, 234), (40, 42, 48), (150, 154, 160))
PAINTS += ((60, 110, 80), (230, 190, 60), (120, 170, 210), (168, 112, 70), (96, 100, 106))

Outline = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class _Body:
    """A car from its left side: points as fractions of its length (from the rear) and height."""

    outline: Outline
    glass: tuple[int, ...]  # edges of the outline that are glass
    cabin: Outline  # the side windows
    length: float  # meters
    high: float  # meters


_HATCH = ((0, 0.22), (0, 0.62), (0.1, 1), (0.55, 1), (0.74, 0.64), (1, 0.54), (1, 0.22))
_SALOON: Outline = ((0, 0.22), (0, 0.6), (0.16, 0.64), (0.3, 1), (0.6, 1), (0.76, 0.64), (1, 0.54))
_SALOON += ((1, 0.22),)
_VAN = ((0, 0.18), (0, 0.5), (0.02, 1), (0.76, 1), (0.9, 0.55), (1, 0.45), (1, 0.18))
_BODIES = (
    _Body(_HATCH, (1, 3), ((0.09, 0.66), (0.16, 0.93), (0.53, 0.93), (0.67, 0.66)), 4.0, 1.5),
    _Body(_SALOON, (2, 4), ((0.22, 0.66), (0.33, 0.93), (0.58, 0.93), (0.7, 0.66)), 4.6, 1.45),
    _Body(_VAN, (1, 3), ((0.64, 0.56), (0.64, 0.92), (0.74, 0.92), (0.86, 0.56)), 5.2, 2.2),
)


def house(
    c: Canvas, side: int, near: float, far: float, floors: int, *, gable: bool = True
) -> None:
    """Paint a house at the building line, left (`side` -1) or right (1), from `near` to `far`
    meters. The wall that faces the camera has windows if it is a `gable`."""
    rng, x, story = c.rng, side * c.line, c.rng.uniform(2.8, 3.6)
    wall, high, deep = c.pick(WALLS, spread=22), floors * story + 0.8, 13.0
    style = _Style(
        bay=rng.uniform(1.9, 3.4),
        wide=rng.uniform(0.35, 0.85),
        tall=rng.uniform(0.4, 0.72),
        glass=c.pick(((58, 74, 92), (112, 140, 164), (40, 42, 50), (160, 188, 206)), spread=20),
        frame=c.pick(((236, 232, 222), (90, 76, 66))) if rng.random() < 0.6 else None,
        shop=c.pick(_CLOTHES, spread=30) if rng.random() < 0.4 else None,
    )
    sun = 1.0 if side == c.sunny else 0.76
    edge = x - side * 0.4  # of the roof
    if rng.random() < 0.55:  # a pitched roof
        roof, ridge = c.pick(_ROOFS), rng.uniform(1.6, 3.6)
        top = (x + side * deep / 2, high + ridge)
        c.shape([(x, high, near), (x + side * deep, high, near), (*top, near)], wall, BUILDING)
        c.shape([(edge, high, near), (*top, near), (*top, far), (edge, high, far)], roof, BUILDING)
    else:  # a flat one, with a cornice
        rim = [(edge, high, near), (edge, high + 0.5, near), (edge, high + 0.5, far)]
        c.shape([*rim, (edge, high, far)], shaded(wall, 0.66), BUILDING)
    eaves = [(x, high, near), (edge, high, near), (edge, high, far), (x, high, far)]
    c.shape(eaves, shaded(wall, 0.5), BUILDING)
    size, windows = (floors, high), style if gable else None
    _wall(c, lambda a, y: (x + side * a, y, near), deep, size, shaded(wall, 0.85), windows)
    _wall(c, lambda a, y: (x, y, near + a), far - near, size, shaded(wall, sun), style)


@dataclass(frozen=True)
class _Style:
    """Windows of a house."""

    bay: float  # meters from window to window
    wide: float  # fraction of the bay
    tall: float  # fraction of the story
    glass: Color
    frame: Color | None
    shop: Color | None  # color above the shop windows of the ground floor


def _wall(
    c: Canvas,
    place: Callable[[float, float], Point],
    length: float,
    size: tuple[int, float],
    color: Color,
    style: _Style | None,
) -> None:
    """Paint a wall, bay by bay, so that haze grows along it; with windows if it has a style.
    `place` maps meters along and up to the world; `size` is the number of floors and the height."""
    floors, high = size

    def pane(left: float, right: float, low: float, top: float, paint: Color) -> None:
        corners = ((left, low), (right, low), (right, top), (left, top))
        c.shape([place(a, y) for a, y in corners], paint, BUILDING)

    bays, story = max(1, round(length / (style.bay if style else 4.0))), (high - 0.8) / floors
    step = length / bays
    lamps = c.rng.random((bays, floors)) < c.light.lamps
    tones = c.rng.uniform(0.75, 1.25, (bays, floors))
    for bay in range(bays):
        start, stop = bay * step, (bay + 1) * step
        edges = sorted((c.at(place(start, 2))[0], c.at(place(stop, 2))[0]))
        if edges[1] < 0 or edges[0] > c.photo.width:
            continue
        pane(start, stop, 0, high, color)
        if style is None or edges[1] - edges[0] < 2 * FINE:
            continue  # no windows, or too narrow for them
        gap, first = step * (1 - style.wide) / 2, 0
        if style.shop is not None:
            first = 1
            pane(start + 0.12, stop - 0.12, 0.35, story * 0.74, style.glass)
            pane(start, stop, story * 0.76, story * 0.95, style.shop)
        for floor in range(first, floors):
            low = floor * story + story * (1 - style.tall) * 0.6
            top = low + story * style.tall
            lamp = (338, 290, 190) if lamps[bay, floor] else None
            if style.frame is not None:
                pane(start + gap - 0.1, stop - gap + 0.1, low - 0.14, top + 0.1, style.frame)
            glass = lamp or shaded(style.glass, tones[bay, floor])
            pane(start + gap, stop - gap, low, top, glass)


def tree(c: Canvas, x: float, z: float) -> None:
    """Paint a tree; one in five is a conifer."""
    rng, high = c.rng, c.rng.uniform(4.0, 8.5)
    bark = c.pick(((92, 72, 56), (110, 100, 90), (70, 58, 50)))
    c.shade(x + c.sunny * high * 0.3, z, (high * 0.34, high * 0.2))
    c.bar((x, 0, z), (x, high * 0.5, z), high * 0.045, bark, TREE)
    leaves = c.pick(_AUTUMN if rng.random() < (0.6 if c.autumn else 0.08) else LEAVES, spread=22)
    spread, tall = high * rng.uniform(0.2, 0.32), high * rng.uniform(0.24, 0.36)
    cone = rng.random() < 0.2  # a conifer: narrow at the top
    pixels = spread * c.focal / z / FINE
    count = int(min(110, 24 + 2.6 * pixels))
    turn, out = rng.uniform(0, 2 * math.pi, count), np.sqrt(rng.uniform(0, 1, count))
    middle = high - tall
    for k in range(count):
        y = math.sin(turn[k]) * out[k]
        narrow = 0.55 - 0.5 * y if cone else 1.0
        across = math.cos(turn[k]) * out[k] * narrow
        tone = 0.88 + 0.26 * y - 0.12 * across * c.sunny + rng.normal(0, 0.1)
        r = spread * rng.uniform(0.18, 0.36) * (0.6 if cone else 1.0)
        u, v = x + across * spread, middle + y * tall
        c.disc((u, v, z), (r, r * 0.8), shaded(leaves, tone), TREE)
        if pixels > 6:  # bright leaves on the upper side of each branch
            glint = (u + r * rng.uniform(-0.5, 0.5), v + r * rng.uniform(-0.1, 0.6), z)
            c.disc(glint, (r * 0.3, r * 0.2), shaded(leaves, tone * rng.uniform(0.75, 1.35)))


def hedge(c: Canvas, side: int, near: float, far: float) -> None:
    """Paint bushes between two houses, along the building line."""
    leaves, top = c.pick(LEAVES, spread=24), c.rng.uniform(0.8, 2.2)
    for z in np.arange(far, near, -max(0.5, (far - near) / 8)):
        x = side * (c.line + 0.5)
        c.disc((x, top / 2, z), (1.1, top * 0.62), shaded(leaves, c.rng.uniform(0.75, 1.15)), TREE)


def car(c: Canvas, x: float, z: float, *, facing: int, crossing: bool = False) -> None:
    """Paint a car whose nearest point is `z` ahead: from the rear (`facing` 1), from the front
    (-1), or from its side, crossing the street."""
    rng = c.rng
    body = _BODIES[int(rng.choice(3, p=(0.42, 0.34, 0.24)))]
    length, high = body.length * rng.uniform(0.9, 1.12), body.high * rng.uniform(0.94, 1.1)
    wide, paint = 1.8 * rng.uniform(0.94, 1.1), c.pick(PAINTS, spread=24)
    glass = c.pick(((46, 54, 66), (96, 116, 136), (30, 32, 38)))

    def place(along: float, y: float, across: float) -> Point:
        """Map fractions of the length, the height and half the width (-1 .. 1) to the world."""
        along = along if facing > 0 else 1 - along
        half = across * wide / 2 * (0.84 if y > 0.7 else 1.0)  # narrower at the roof
        if crossing:
            return x + (along - 0.5) * length, y * high, z + wide / 2 + half
        return x + half, y * high, z + along * length

    spot = (length * 0.56, wide * 0.7) if crossing else (wide * 0.66, length * 0.56)
    c.shade(x, z + (wide if crossing else length) / 2, spot)
    strips = list(enumerate(pairwise(body.outline)))
    for i, ((a, low), (b, top)) in strips if facing < 0 else reversed(strips):
        quad = [place(a, low, -1), place(a, low, 1), place(b, top, 1), place(b, top, -1)]
        tone = 1.12 if abs(b - a) > abs(top - low) else 0.84  # flat parts are brighter
        c.shape(quad, glass if i in body.glass else shaded(paint, tone), CAR)
    side = -1 if crossing or x > c.eye[0] else 1
    if crossing or abs(x - c.eye[0]) > wide / 2:
        c.shape([place(a, y, side) for a, y in body.outline], shaded(paint, 0.96), CAR)
        c.shape([place(a, y, side) for a, y in body.cabin], glass, CAR)
        for axle in (0.18, 0.8):
            for radius, color in ((0.33, (26, 26, 28)), (0.19, (140, 142, 146))):
                angles = [k * math.pi / 6 for k in range(12)]
                r, s = radius / length, radius / high
                rim = [(axle + r * math.cos(a), 0.33 / high + s * math.sin(a)) for a in angles]
                c.shape([place(a, y, side) for a, y in rim], color, CAR)
    if crossing:
        return

    # The end that faces the camera: tires, lights and license plate.
    lamp = (190, 26, 30) if facing > 0 else (235, 232, 214)
    lamp_color = shaded(lamp, 1.6 if c.light.lamps > 0.2 else 1.0)
    for side in (-1, 1):
        outer, inner = x + side * 0.46 * wide, x + side * 0.32 * wide
        c.panel(outer, inner, 0, 0.24 * high, z, (24, 24, 26), CAR)
        outer, inner = x + side * 0.47 * wide, x + side * 0.34 * wide
        c.panel(outer, inner, 0.42 * high, 0.56 * high, z, lamp_color, CAR)
    left, right = x - 0.15 * wide, x + 0.15 * wide
    c.panel(left, right, 0.34 * high, 0.42 * high, z, (220, 220, 206), CAR)


def person(c: Canvas, x: float, z: float, *, ground: float = 0.0) -> None:
    """Paint a person; one in six is a child."""
    rng = c.rng
    k = rng.uniform(0.58, 0.75) if rng.random() < 0.16 else rng.uniform(0.88, 1.08)
    swing, lean = rng.uniform(-0.3, 0.3), rng.uniform(0.85, 1.15)
    coat, legs = c.pick(_CLOTHES, spread=30), c.pick(_CLOTHES, spread=30)
    skin, hair = c.pick(_SKINS), c.pick(_HAIR)

    def at(across: float, up: float) -> Point:
        return x + across * k * lean, ground + up * k, z

    c.shade(x + c.sunny * 0.5 * k, z, (0.75 * k, 0.25 * k), ground)
    c.bar(at(0.06, 0.9), at(-swing, 0.04), 0.19 * k, shaded(legs, 0.75), PERSON)
    c.bar(at(-0.06, 0.9), at(swing, 0.04), 0.19 * k, legs, PERSON)
    hem = 0.5 if rng.random() < 0.3 else 0.82  # a long coat
    back = [at(-0.23, 1.44), at(0.23, 1.44), at(0.21, hem), at(-0.21, hem)]
    c.bar(at(-0.22, 1.4), at(-0.27 - swing * 0.5, 0.82), 0.13 * k, shaded(coat, 0.8), PERSON)
    c.shape(back, coat, PERSON)
    c.bar(at(0.22, 1.4), at(0.27 - swing * 0.5, 0.82), 0.13 * k, shaded(coat, 0.88), PERSON)
    if rng.random() < 0.3:  # a bag
        bag = [at(0.2, 1.0), at(0.44, 1.0), at(0.44, 0.7), at(0.2, 0.7)]
        c.shape(bag, c.pick(_CLOTHES, spread=30), PERSON)
    c.disc(at(0, 1.6), (0.125 * k, 0.15 * k), hair, PERSON)
    if rng.random() < 0.6:  # the face; the others look away
        c.disc(at(0, 1.57), (0.1 * k, 0.12 * k), skin, PERSON)


def pole(c: Canvas, x: float, z: float) -> None:
    """Paint a street lamp, a sign or a traffic light; all of it has the class "pole"."""
    rng, inward = c.rng, -1 if x > 0 else 1
    metal = c.pick(((86, 90, 94), (150, 154, 156), (60, 84, 72), (120, 96, 80)))
    kind = rng.choice(3, p=(0.45, 0.35, 0.2))
    high = (rng.uniform(4.8, 7.5), rng.uniform(2.5, 3.1), rng.uniform(3.0, 3.6))[kind]
    c.bar((x, 0, z), (x, high, z), rng.uniform(0.3, 0.42), metal, POLE)
    if kind == 0:
        tip = (x + inward * rng.uniform(0.8, 1.8), high + 0.25, z)
        c.bar((x, high, z), tip, 0.24, metal, POLE)
        lamp = (340, 310, 230) if c.light.lamps > 0.2 else (214, 214, 206)
        c.disc(tip, (0.5, 0.26), lamp, POLE)
    elif kind == 1:
        sign, white = c.pick(((40, 84, 170), (196, 36, 40), (236, 190, 40))), (238, 238, 234)
        if rng.random() < 0.5:
            c.disc((x, high, z), (0.6, 0.6), sign, POLE)
            c.disc((x, high, z), (0.4, 0.4), white, POLE)
        else:
            corners = ((-0.64, -0.42), (0.64, -0.42), (0.0, 0.7))
            c.shape([(x + a, high + y, z) for a, y in corners], sign, POLE)
            c.shape([(x + a * 0.55, high + y * 0.55, z) for a, y in corners], white, POLE)
    else:
        c.bar((x, high - 0.7, z), (x, high + 0.7, z), 0.6, (34, 36, 38), POLE)
        bright = int(rng.integers(3))
        for k, color in enumerate(((90, 235, 120), (250, 190, 40), (250, 50, 40))):
            tone = 1.0 if k == bright else 0.3
            c.disc((x, high - 0.42 + 0.42 * k, z), (0.16, 0.16), shaded(color, tone), POLE)
