"""Canvas of a synthetic street: a camera, the light, a photo and its class ids.

A `Canvas` holds both images at `FINE` times the final resolution, and projects points of a small
world in meters: right of the middle of the road, above the road, ahead of the camera. Shapes with a
class id are painted on both images at the same pixels. All randomness is from `Canvas.rng`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

FINE = 3  # resolution of the canvas per image pixel; odd, so that a block has a center

Color = Sequence[float]  # RGB, 0-255
Point = tuple[float, float, float]  # meters: right of the middle of the road, above it, ahead


@dataclass(frozen=True)
class Light:
    """Time of day and weather."""

    zenith: Color
    horizon: Color  # also the color of the haze
    gain: Color  # factor of surface colors, per channel
    shadow: int  # opacity of cast shadows, 0-255
    reach: float  # meters after which 1/e of a color is left
    lamps: float  # share of windows and lamps that are on


_LIGHTS = (
    Light((84, 142, 214), (196, 220, 238), (1.0, 0.98, 0.92), 105, 260.0, 0.0),  # noon
    Light((150, 190, 226), (226, 230, 226), (1.04, 1.0, 0.9), 80, 170.0, 0.05),  # morning
    Light((150, 154, 162), (198, 200, 202), (0.84, 0.86, 0.9), 26, 160.0, 0.15),  # overcast
    Light((70, 74, 128), (240, 168, 118), (0.78, 0.58, 0.56), 60, 150.0, 0.5),  # dusk
    Light((190, 194, 196), (206, 208, 208), (0.86, 0.88, 0.9), 14, 70.0, 0.3),  # haze
)


class Canvas:
    """A photo and its class ids, the camera, and the street in front of it."""

    def __init__(self, size: tuple[int, int], rng: np.random.Generator) -> None:
        height, width = size[0] * FINE, size[1] * FINE
        self.rng = rng
        self.light = _LIGHTS[int(rng.choice(len(_LIGHTS), p=(0.3, 0.22, 0.2, 0.18, 0.1)))]
        self.photo = Image.new("RGB", (width, height))
        self.mask = Image.new("L", (width, height))  # class 0 is the sky
        self.brush = ImageDraw.Draw(self.photo, "RGBA")
        self.stamp = ImageDraw.Draw(self.mask)
        self.road = rng.uniform(3.4, 5.4)  # meters from the middle to the curb
        self.line = self.road + rng.uniform(2.8, 4.8)  # meters from the middle to the walls
        self.sunny = int(rng.choice((-1, 1)))  # the side whose walls are in the sun
        self.eye = (rng.uniform(-0.55, 0.7) * self.road, rng.uniform(1.35, 2.1))
        self.focal = 0.55 * (height + width) * rng.uniform(0.85, 1.15)
        self.vanish = (width * rng.uniform(0.36, 0.64), height * rng.uniform(0.4, 0.54))
        self.bend = rng.normal(0, 0.0011)  # 1/meters: the street curves
        self.autumn = rng.random() < 0.35

    def at(self, point: Point) -> tuple[float, float]:
        """Return the position of a point on the canvas, in canvas pixels (u right, v down)."""
        x, y, z = point
        z = max(z, 1.0)  # nearer points are outside the image anyway
        scale = self.focal / z
        u = self.vanish[0] + scale * (x - self.eye[0] + self.bend * z * z)
        return u, self.vanish[1] + scale * (self.eye[1] - y)

    def lit(self, color: Color, z: float, alpha: int = 255) -> tuple[int, int, int, int]:
        """Return the RGBA color of a surface at a distance, in this light and haze."""
        clear = math.exp(-z / self.light.reach)
        haze, (r, g, b), gain = 1 - clear, self.light.horizon, self.light.gain
        return (
            int(min(255.0, color[0] * gain[0] * clear + r * haze)),
            int(min(255.0, color[1] * gain[1] * clear + g * haze)),
            int(min(255.0, color[2] * gain[2] * clear + b * haze)),
            alpha,
        )

    def pick(self, colors: Sequence[Color], *, spread: float = 14.0) -> Color:
        """Return one of the colors, randomly lighter or darker."""
        color = colors[int(self.rng.integers(len(colors)))]
        change = self.rng.normal(0, spread / 3) + self.rng.normal(0, spread / 2)
        return [min(255.0, max(8.0, c + change)) for c in color]

    def shape(
        self, points: Sequence[Point], color: Color, kind: int | None = None, *, alpha: int = 255
    ) -> None:
        """Paint a polygon; without a `kind` (a class id) it changes no class ids."""
        points_2d = [self.at(point) for point in points]
        depth = sum(max(point[2], 1.0) for point in points) / len(points)
        self.brush.polygon(points_2d, self.lit(color, depth, alpha))
        if kind is not None:
            self.stamp.polygon(points_2d, kind)

    def flat(
        self,
        x: tuple[float, float],
        z: tuple[float, float],
        color: Color,
        kind: int | None = None,
        *,
        y: float = 0.0,
        alpha: int = 255,
    ) -> None:
        """Paint a horizontal rectangle at the height `y`."""
        corners = [(x[0], y, z[0]), (x[1], y, z[0]), (x[1], y, z[1]), (x[0], y, z[1])]
        self.shape(corners, color, kind, alpha=alpha)

    def panel(
        self, left: float, right: float, low: float, top: float, z: float, color: Color, kind: int
    ) -> None:
        """Paint an upright rectangle that faces the camera."""
        self.shape([(left, low, z), (right, low, z), (right, top, z), (left, top, z)], color, kind)

    def disc(
        self, center: Point, radius: tuple[float, float], color: Color, kind: int | None = None
    ) -> None:
        """Paint an upright ellipse; radii in meters."""
        (u, v), scale = self.at(center), self.focal / max(center[2], 1.0)
        du, dv = max(0.6, radius[0] * scale), max(0.6, radius[1] * scale)
        self.brush.ellipse((u - du, v - dv, u + du, v + dv), self.lit(color, center[2]))
        if kind is not None:
            self.stamp.ellipse((u - du, v - dv, u + du, v + dv), kind)

    def bar(self, start: Point, stop: Point, width: float, color: Color, kind: int) -> None:
        """Paint a straight bar, `width` meters thick and at least 1.5 pixels of the image."""
        (u, v), (s, t) = self.at(start), self.at(stop)
        half = max(width * self.focal / max(start[2], 1.0), 1.5 * FINE) / 2
        length = math.hypot(s - u, t - v) or 1.0
        du, dv = (t - v) / length * half, (u - s) / length * half
        points_2d = [(u + du, v + dv), (s + du, t + dv), (s - du, t - dv), (u - du, v - dv)]
        self.brush.polygon(points_2d, self.lit(color, start[2]))
        self.stamp.polygon(points_2d, kind)

    def shade(self, x: float, z: float, radius: tuple[float, float], y: float = 0.0) -> None:
        """Paint a shadow: an ellipse on the ground; radii across and along, in meters."""
        angles = [k * math.pi / 7 for k in range(14)]
        rim = [(x + radius[0] * math.cos(a), y, z + radius[1] * math.sin(a)) for a in angles]
        self.shape(rim, (16, 18, 26), alpha=self.light.shadow)


def shaded(color: Color, factor: float) -> Color:
    """Return a lighter (factor above 1) or darker color."""
    return [min(255.0, c * factor) for c in color]
