"""Measure the memory of Fullconv's loss and label maps against the usual implementations on a CPU.

`loss`: memory of loss and gradient, batch 8, 320 x 480, stride 8. `predict`: a label map of 150
classes at 1024 x 1024, against the network alone. Each value is the peak of a new process minus its
memory with prepared inputs and loaded libraries. Writes results/memory.json.

    python benchmarks/memory.py [--only loss predict] [--rounds 3]
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Callable

import torch
import torch.nn.functional as F
from method import Figure, Section, Spread, extra_memory, in_fresh_process, parser, run
from peers import QUICK_SIZE, SIZE, a_image, fullconv_model
from torch import Tensor

from fullconv.geometry.grid import Grid
from fullconv.inference.predictor import Predictor
from fullconv.network.fcn import FCN
from fullconv.network.scores import Scores

LOSS_CLASSES = (11, 21, 150)
LOSS_AT_MOST = 0.05  # of the baseline
PREDICT_CLASSES = 150
PREDICT_SIDE, QUICK_SIDE = 1024, 128
PREDICT_AT_MOST = 1.10  # of the network alone
WARM = (32, 32)
HALF = Grid(8, 3.5)  # the positions that F.interpolate assumes, so both compute the same
BATCH = 8
IGNORED = 255
Runs = tuple[Callable[[], object], Callable[[], object]]  # to warm up, to measure


def smooth_scores(classes: int, cells: tuple[int, int], count: int = BATCH) -> Tensor:
    """Return smooth logits (N, K, h, w) with standard deviation 4.

    They are normal values at every fourth cell, interpolated, plus a tenth as much noise.
    """
    generator = torch.Generator().manual_seed(classes)
    coarse = [max(2, c // 4) for c in cells]
    nodes = torch.randn(count, classes, *coarse, generator=generator)
    values = F.interpolate(nodes, size=cells, mode="bicubic", align_corners=False)
    values += 0.1 * torch.randn(values.shape, generator=generator)
    return (values * (4 / values.std())).contiguous()


def blobs(classes: int, size: tuple[int, int], count: int = BATCH) -> Tensor:
    """Return (N, H, W) uint8 ids: each pixel has the class of the nearest of 40 random points.

    The top tenth of a smooth random field is ignored.
    """
    generator = torch.Generator().manual_seed(classes)
    rows, columns = (torch.arange(s, dtype=torch.float32) for s in size)
    pixels = torch.cartesian_prod(rows, columns)
    images = []
    for _ in range(count):
        points = torch.rand(40, 2, generator=generator) * torch.tensor(size)
        ids = torch.randint(classes, (40,), generator=generator)
        image = ids[torch.cdist(pixels, points).argmin(1)].view(size)
        field = torch.randn(1, 1, 5, 7, generator=generator)
        field = F.interpolate(field, size=size, mode="bicubic", align_corners=False)[0, 0]
        image[field > field.flatten().quantile(0.9)] = IGNORED
        images.append(image.to(torch.uint8))
    return torch.stack(images)


def fused_gradient(values: Tensor, target: Tensor) -> None:
    """Compute Fullconv's loss and gradient, with a uint8 target as from the loader."""
    values.grad = None
    size = (target.shape[1], target.shape[2])
    Scores(values, HALF, size).loss(target, ignore_index=IGNORED).backward()


def usual_gradient(values: Tensor, target: Tensor) -> None:
    """Compute full-size logits and their cross-entropy, with the int64 target it needs."""
    values.grad = None
    full = F.interpolate(values, size=target.shape[1:], mode="bilinear", align_corners=False)
    F.cross_entropy(full, target, ignore_index=IGNORED).backward()


def loss_runs(way: str, classes: int, quick: bool) -> Runs:
    """Return the variants of loss and gradient."""

    def made(size: tuple[int, int], count: int) -> Callable[[], object]:
        values = smooth_scores(classes, (size[0] // 8, size[1] // 8), count).requires_grad_()
        target = blobs(classes, size, count)
        if way == "ours":
            return functools.partial(fused_gradient, values, target)
        return functools.partial(usual_gradient, values, target.long())

    return made(WARM, 1), made(QUICK_SIZE if quick else SIZE, BATCH)


def predict_runs(way: str, quick: bool) -> Runs:
    """Return the label map, the network's forward pass alone, and the usual implementation."""
    predictor = Predictor(fullconv_model(PREDICT_CLASSES, spread=0.05), device="cpu")

    def made(side: int) -> Callable[[], object]:
        image = a_image((side, side))
        if way == "ours":
            return functools.partial(predictor.label_map, image)
        tensor = torch.from_numpy(image).permute(2, 0, 1)[None]
        images = predictor.model.normalize(tensor)
        images = images.contiguous(memory_format=torch.channels_last)
        network = predictor.runtime.network
        return functools.partial(_forward, network, images, usual=way == "usual")

    return made(WARM[0]), made(QUICK_SIDE if quick else PREDICT_SIDE)


def _forward(network: FCN, images: Tensor, *, usual: bool) -> object:
    with torch.inference_mode():
        scores = network(images)
        if not usual:
            return scores
        full = F.interpolate(scores.values, size=scores.size, mode="bilinear", align_corners=False)
        return full.argmax(1)


def measure(what: str, quick: bool) -> int:
    """Return the extra bytes of "loss WAY CLASSES" or "predict WAY" in a new process."""
    subject, way, *classes = what.split()
    if subject == "loss":
        warm, main_run = loss_runs(way, int(classes[0]), quick)
    else:
        warm, main_run = predict_runs(way, quick)
    warm()
    return extra_memory(main_run)


def megabytes(names: list[str], arguments: argparse.Namespace) -> dict[str, list[float]]:
    """Measure the variants in turn, round by round."""
    options = ["--threads", str(arguments.threads), *(["--quick"] if arguments.quick else [])]
    found: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(arguments.rounds):
        for name in names:
            taken = in_fresh_process(__file__, "--one", name, *options)
            found[name].append(taken / 1e6)
    return found


def figure(
    name: str, ours: list[float], theirs: list[float], at_most: float | None = None
) -> Figure:
    """Return the memory of Fullconv over the baseline."""
    middles = [Spread.of(values).median for values in (ours, theirs)]
    ratio = Spread.of([a / max(b, 1e-3) for a, b in zip(ours, theirs, strict=True)])
    return Figure(name, *middles, "MB", ratio, at_most=at_most)


def loss(arguments: argparse.Namespace) -> Section:
    """Measure the extra memory of loss and gradient."""
    names = [f"loss {way} {classes}" for classes in LOSS_CLASSES for way in ("ours", "usual")]
    found = megabytes(names, arguments)
    section = Section(facts={"megabytes": found})
    for classes in LOSS_CLASSES:
        ours, usual = (found[f"loss {way} {classes}"] for way in ("ours", "usual"))
        title = f"loss + gradient, {classes} classes"
        section.figures.append(figure(title, ours, usual, LOSS_AT_MOST))
    return section


def predict(arguments: argparse.Namespace) -> Section:
    """Measure the extra memory of a prediction."""
    found = megabytes([f"predict {way}" for way in ("ours", "network", "usual")], arguments)
    ours, network, usual = found.values()
    title = f"{PREDICT_CLASSES} classes"
    figures = [
        figure(f"{title}, label map / network alone", ours, network, PREDICT_AT_MOST),
        figure(f"{title}, label map / interpolate + argmax", ours, usual),
    ]
    return Section(figures, {"megabytes": found})


def main() -> None:
    made = parser(__doc__, rounds=3)
    made.add_argument("--one", help=argparse.SUPPRESS)
    arguments = made.parse_args()
    if arguments.one:
        torch.set_num_threads(arguments.threads)
        print(measure(arguments.one, arguments.quick))
        return
    sys.exit(run("memory", {"loss": loss, "predict": predict}, arguments))


if __name__ == "__main__":
    main()
