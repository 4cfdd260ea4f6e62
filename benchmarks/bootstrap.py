"""Measure how often the intervals of `fullconv compare` contain the truth.

20,000 images form the population, so the truth is known. Samples are drawn with replacement and
compared like two runs. `common`, `rare` and `many` use simulated counts, `camvid` those of two real
runs. README.md in this folder has the details.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from method import Figure, MissingError, Section, Spread, parser, run

from fullconv.evaluation.bootstrap import FEW, METRICS, differences, metric_values
from fullconv.evaluation.per_image import SplitConfusions, file_in

EVERY = 20_000  # images in the population
CLASSES = 11
PIXELS = 360 * 480
IMAGES = (20, 50, 100, 200)  # in a sample
MANY = (500,)
WANTED = (0.93, 0.97)
KINDS = {  # decay of the pixel share from class to class, and the share of images with the rarest
    "as CamVid": (4.0, 0.35),
    "rare classes": (6.0, 0.03),
}
EFFECTS = {"none": 0.0, "small": 0.1, "large": 0.4}  # added to the log odds of being right


def population(kind: str, effect: float, count: int, seed: int) -> list[np.ndarray]:
    """Return (count, 3, K) counts of two models on the same simulated images.

    Images have class shares, difficulties that both models share and that each has alone, and
    errors that go to other classes of the image. Without an effect, each pair occurs twice, once
    with the models swapped, so that the true differences are exactly 0.
    """
    chance = np.random.default_rng(seed)
    fall, rarest = KINDS[kind]
    size = (count, CLASSES)
    here = chance.random(size) < np.linspace(1, rarest, CLASSES)
    here[:, 0] = True
    common = np.exp(-np.linspace(0, fall, CLASSES))
    shares = chance.gamma(np.maximum(12 * common / common.sum(), 0.15), size=size) * here
    shares[:, 0] += 1e-6
    shares /= shares.sum(1, keepdims=True)
    true = np.round(shares * PIXELS)
    ease = np.linspace(2.5, -0.5, CLASSES)
    ease = ease + chance.normal(0, 0.8, (count, 1)) + chance.normal(0, 0.7, size)
    found = []
    for more in (0.0, effect):
        own = chance.normal(0, 0.3, (count, 1)) + chance.normal(0, 0.5, size)
        right = np.floor(true / (1 + np.exp(-(ease + more + own))))
        weights = shares + 0.002 * (here + 0.05)
        lost = (true - right) / (weights.sum(1, keepdims=True) - weights)
        called = right + weights * (lost.sum(1, keepdims=True) - lost)
        found.append(np.stack([right, true, called], 1))
    if effect:
        return found
    return [np.concatenate([found[0], found[1]]), np.concatenate([found[1], found[0]])]


def coverage(
    every: list[np.ndarray], images: int, pairs: int, resamples: int
) -> tuple[dict[str, float], dict[str, list[int]], float]:
    """Return the share of samples whose interval contains the truth, for each metric.

    For classes: hits and intervals by the number of images that show them, and the share of samples
    in which a class is marked wrongly.
    """
    truth = metric_values(every[1].sum(0)) - metric_values(every[0].sum(0))
    chance = np.random.default_rng(images)
    hits = dict.fromkeys(METRICS, 0)
    by_shown: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    wrong = 0
    for _ in range(pairs):
        drawn = chance.integers(0, len(every[0]), images)
        sample = [of[drawn] for of in every]
        (found,) = differences(sample, resamples=resamples)
        for name, true in zip(METRICS, truth, strict=False):
            one = found.metrics[name]
            hits[name] += one.low <= true <= one.high
        shown = (sample[0][:, 1] > 0).sum(0)
        marked = False
        for one, true, seen in zip(found.classes, truth[len(METRICS) :], shown, strict=True):
            marked |= one.significant_familywise and np.sign(one.value) * true <= 0
            if np.isfinite(one.low):
                row = by_shown[_bin(int(seen))]
                row[0] += bool(one.low <= true <= one.high)
                row[1] += 1
        wrong += marked
    return {name: count / pairs for name, count in hits.items()}, dict(by_shown), wrong / pairs


def _bin(shown: int) -> str:
    for low, high in ((FEW, 9), (10, 19), (20, 49), (50, 99), (100, 199)):
        if low <= shown <= high:
            return f"{low}-{high}"
    return "200-"


def measured(
    populations: dict[str, list[np.ndarray]], sizes: tuple[int, ...], arguments: argparse.Namespace
) -> Section:
    """Measure the mIoU coverage for each population and size; other numbers are facts."""
    section = Section()
    rows: list[dict[str, Any]] = []
    classes: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for name, every in populations.items():
        truth = metric_values(every[1].sum(0)) - metric_values(every[0].sum(0))
        for images in sizes:
            found, shown, wrong = coverage(every, images, arguments.pairs, arguments.resamples)
            row = {"population": name, "images": images, "true_mean_iou": float(truth[0])}
            rows.append({**row, "coverage": found, "wrongly_marked": wrong})
            for key, (hit, given) in shown.items():
                classes[key][0] += hit
                classes[key][1] += given
            section.figures.append(
                Figure(
                    f"{name}, {images} images: mean IoU",
                    None,
                    None,
                    "",
                    Spread.of([found["mean_iou"]]),
                    at_least=WANTED[0],
                    at_most=WANTED[1],
                    note=" ".join(f"{100 * found[m]:.1f}" for m in METRICS[1:])
                    + f"; wrong * {100 * wrong:.1f}",
                )
            )
            print(f"  {name}, {images}: {found['mean_iou']:.3f}", file=sys.stderr, flush=True)
    section.facts = {
        "pairs": arguments.pairs,
        "resamples": arguments.resamples,
        "rows": rows,
        "class_coverage_by_images": {
            key: {"coverage": hit / given, "intervals": given}
            for key, (hit, given) in sorted(
                classes.items(), key=lambda of: int(of[0].split("-")[0])
            )
        },
    }
    return section


def drawn(
    kinds: Sequence[str],
    effects: Sequence[str],
    sizes: tuple[int, ...],
    arguments: argparse.Namespace,
) -> Section:
    """Measure simulated images."""
    count = 500 if arguments.quick else EVERY
    populations = {
        f"{kind}, effect {effect}": population(kind, EFFECTS[effect], count, seed=3)
        for kind in kinds
        for effect in effects
    }
    return measured(populations, sizes[:1] if arguments.quick else sizes, arguments)


def camvid(arguments: argparse.Namespace) -> Section:
    """Measure all val and test images on which two runs were evaluated."""
    if not arguments.runs:
        raise MissingError(
            "--runs RUN RUN: of fullconv train on data/camvid, evaluated on test too"
        )
    every = []
    for folder in arguments.runs:
        paths = [file_in(folder, split) for split in ("val", "test")]
        if not all(path.is_file() for path in paths):
            raise MissingError(f"{folder} has no counts of both val and test")
        parts = [SplitConfusions.read(path) for path in paths]
        every.append(np.concatenate([of.head().margins for of in parts]))
    return measured({"CamVid": every}, IMAGES[:1] if arguments.quick else IMAGES, arguments)


def main() -> int:
    made = parser(__doc__, rounds=1)
    made.add_argument("--pairs", type=int, default=1000, help="samples of each kind; default 1000")
    made.add_argument("--resamples", type=int, default=1000, help="of each; default 1000")
    made.add_argument("--runs", type=Path, nargs=2, help="two runs on CamVid")
    arguments = made.parse_args()
    if arguments.quick:
        arguments.pairs, arguments.resamples = 5, 200
    sections = {
        "common": partial(drawn, ["as CamVid"], [*EFFECTS], IMAGES),
        "rare": partial(drawn, ["rare classes"], [*EFFECTS], IMAGES),
        "many": partial(drawn, [*KINDS], ["none", "large"], MANY),
        "camvid": camvid,
    }
    return run("bootstrap", sections, arguments)


if __name__ == "__main__":
    sys.exit(main())
