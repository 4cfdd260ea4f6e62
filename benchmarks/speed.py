"""Measure Fullconv's loss, label maps, steps and loops against the usual implementations on a CPU.

`loss`: loss and gradient, and its error · `labels`: label maps from real logits · `step`: a
training step against the textbook's FCN-32s, and the rate of the machine's convolutions ·
`train_loop`, `validation`: `fullconv train` on CamVid. Writes results/speed.json.

    python benchmarks/speed.py [--voc-model RUN] [--only loss labels] [--rounds 15]
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from elsewhere import Elsewhere
from memory import BATCH, HALF, IGNORED, blobs, fused_gradient, smooth_scores, usual_gradient
from method import Figure, MissingError, Section, Spread, compare, parser, run
from peers import (
    CLASSES,
    QUICK_SIZE,
    SIZE,
    TAUGHT,
    Bare,
    Taught,
    a_batch,
    eager_step,
    linked_camvid,
    peer_step,
    taught_loss,
    train_rates,
)
from PIL import Image
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from fullconv.core.hardware import use_huge_pages
from fullconv.data.io.images import read_image
from fullconv.models.model import load_model
from fullconv.network.kernels import dispatch
from fullconv.network.scores import Scores

ROOT = Path(__file__).parent.parent
LOSS_WANTED = {11: 6, 21: 10, 150: 18}
LABELS_WANTED = {11: 10, 21: 15, 150: 40}
REFERENCE_WANTED = 2
NODES = 16  # of the smooth random logits: 16 x 16 normal values, interpolated to 64 x 64 cells
EPOCHS = 4  # of `fullconv train`; the first is a warm-up


@contextlib.contextmanager
def forced(way: str) -> Iterator[None]:
    """Force a kernel implementation."""
    before = os.environ.get(dispatch.VARIABLE)
    os.environ[dispatch.VARIABLE] = way
    try:
        yield
    finally:
        del os.environ[dispatch.VARIABLE]
        if before is not None:
            os.environ[dispatch.VARIABLE] = before


def way(values: Tensor) -> str:
    """Return the kernel backend of these scores: native (with instructions), reference, ..."""
    module = dispatch.select_backend(values)
    instructions = getattr(module, "instructions", str)()
    return f"{module.__name__.rpartition('.')[2]} {instructions}".strip()


def exact_gradient(values: Tensor, target: Tensor) -> Tensor:
    """Compute the baseline gradient in float64, image by image to save memory."""
    parts = []
    for one, ids in zip(values.detach().double(), target, strict=True):
        one = one[None].requires_grad_()
        full = F.interpolate(one, size=ids.shape, mode="bilinear", align_corners=False)
        F.cross_entropy(full, ids[None], ignore_index=IGNORED, reduction="sum").backward()
        parts.append(one.grad[0])
    return torch.stack(parts) / int((target != IGNORED).sum())


def gradient_error(compute: Callable[[], None], values: Tensor, exact: Tensor) -> float:
    """Return the largest difference over the largest gradient."""
    compute()
    return float((values.grad.double() - exact).abs().max() / exact.abs().max())


def loss(arguments: argparse.Namespace) -> Section:
    """Measure loss and gradient with 11, 21 and 150 classes."""
    section = Section()
    for classes, wanted in LOSS_WANTED.items():
        size = QUICK_SIZE if arguments.quick else SIZE
        values = smooth_scores(classes, (size[0] // 8, size[1] // 8)).requires_grad_()
        last = values.detach().contiguous(memory_format=torch.channels_last).requires_grad_()
        small = blobs(classes, size)
        target = small.long()
        ours = functools.partial(fused_gradient, values, small)
        usual = functools.partial(usual_gradient, values, target)

        def reference(run: Callable[[], None] = ours) -> None:
            with forced("reference"):
                run()

        timings = compare(
            {
                "ours": ours,
                "interpolate": usual,
                "interpolate, channels last": functools.partial(usual_gradient, last, target),
                "reference": reference,
            },
            rounds=arguments.rounds,
        )
        exact = exact_gradient(values, target)
        errors = [gradient_error(compute, values, exact) for compute in (ours, usual)]
        section.facts[f"{classes} classes"] = {
            "milliseconds": timings.to_dict(),
            "way": way(values),
            "gradient_error": dict(zip(("ours", "interpolate"), errors, strict=True)),
        }
        name = f"loss + gradient, {classes} classes"
        section.figures += [
            timings.figure(name, "ours", "interpolate", at_least=wanted),
            timings.figure(f"{name}, theirs channels last", "ours", "interpolate, channels last"),
            timings.figure(f"{name}, reference", "reference", "interpolate"),
            _single(f"{name}: error", *errors, errors[0] / errors[1], at_most=1),
        ]
    return section


def _single(
    name: str,
    ours: float | None,
    theirs: float | None,
    ratio: float,
    unit: str = "",
    **more: Any,
) -> Figure:
    """Return a figure without a spread."""
    return Figure(name, ours, theirs, unit, Spread.of([ratio]), **more)


def real_scores(model: Path | None, images: Path, option: str, quick: bool) -> list[Tensor]:
    """Return logits (1, K, 64, 64) of a trained model for eight images.

    Each image is resized and cropped to 512 x 512.
    """
    side, count = (128, 2) if quick else (512, 8)
    if model is None or not model.is_dir():
        raise MissingError(f"a trained model ({option}; found none at {model})")
    files = sorted(images.glob("*.jpg"))
    files = files[:: max(1, len(files) // count)][:count]
    if not files:
        raise MissingError(f"images in {images}")
    loaded = load_model(model)
    if loaded.network.stride != 8:
        raise MissingError(f"an FCN-8s ({option}; {model} is an {loaded.network.name})")
    found = []
    for file in files:
        image = torch.from_numpy(cropped(read_image(file), side))
        with torch.inference_mode():
            scores = loaded.network(loaded.normalize(image.permute(2, 0, 1)[None]))
        # SAME padding gives one more cell at 512, which is left out so that all maps have 64.
        values = scores.values[:, :, : side // 8, : side // 8]
        found.append(values.clone(memory_format=torch.contiguous_format))
    return found


def cropped(image: np.ndarray, side: int) -> np.ndarray:
    """Resize the shorter side to `side` pixels and crop the center square."""
    image = Image.fromarray(image)
    scale = side / min(image.size)
    width, height = (max(side, round(s * scale)) for s in image.size)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - side) // 2, (height - side) // 2
    return np.array(image.crop((left, top, left + side, top + side)))


def random_scores(quick: bool) -> list[Tensor]:
    """Return smooth random logits of 150 classes.

    They are normal values on NODES x NODES points (seed 0), bicubically interpolated, times 4.
    """
    cells, nodes = (16, 4) if quick else (64, NODES)
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(1, 150, nodes, nodes, generator=generator)
    fine = F.interpolate(coarse, size=(cells, cells), mode="bicubic", align_corners=False)
    return [4 * fine]


def label_maps(maps: list[Tensor]) -> list[Tensor]:
    """Compute Fullconv's label maps."""
    return [Scores(v, HALF, (8 * v.shape[2], 8 * v.shape[3])).labels() for v in maps]


def usual_maps(maps: list[Tensor], *, by_max: bool = False) -> list[Tensor]:
    """Compute full-size logits and argmax, or max, which is faster and gives the same ids."""
    found = []
    for values in maps:
        full = F.interpolate(values, scale_factor=8, mode="bilinear", align_corners=False)
        found.append(full.max(1).indices if by_max else full.argmax(1))
    return found


def differences(maps: list[Tensor]) -> tuple[float, float]:
    """Return the share of pixels whose labels differ from the baseline, and the largest gap there.

    The gap is the difference of the two logits in float64, over the largest logit.
    """
    pixels, wrong, gap = 0, 0, 0.0
    for values, ours, usual in zip(maps, label_maps(maps), usual_maps(maps), strict=True):
        other = ours.long() != usual
        pixels, wrong = pixels + other.numel(), wrong + int(other.sum())
        if not other.any():
            continue
        full = F.interpolate(values.double(), scale_factor=8, mode="bilinear", align_corners=False)
        at = [full.gather(1, ids.long()[:, None])[:, 0][other] for ids in (ours, usual)]
        gap = max(gap, float((at[0] - at[1]).abs().max() / values.abs().max()))
    return wrong / pixels, gap


def uniform(maps: list[Tensor]) -> float:
    """Return the share of squares of four cells whose corners have the same class."""
    squares = []
    for values in maps:
        ids = values.argmax(1)
        corners = [ids[:, i : i - 1 or None, j : j - 1 or None] for i in (0, 1) for j in (0, 1)]
        squares.append(torch.stack([corner == corners[0] for corner in corners]).all(0).float())
    return float(torch.stack([s.mean() for s in squares]).mean())


def labels(arguments: argparse.Namespace) -> Section:
    """Measure label maps, 512 x 512."""
    shared = Path(os.environ.get("FULLCONV_SHARED", ""))
    voc = shared / "data/voc2012_sample/JPEGImages"
    camvid = shared / "data/camvid/test"
    sources: dict[int, Callable[[], list[Tensor]]] = {
        11: lambda: real_scores(arguments.camvid_model, camvid, "--camvid-model", arguments.quick),
        21: lambda: real_scores(arguments.voc_model, voc, "--voc-model", arguments.quick),
        150: lambda: random_scores(arguments.quick),
    }
    section = Section()
    for classes, source in sources.items():
        try:
            maps = source()
        except MissingError as reason:
            print(f"without {classes} classes: {reason}", flush=True)
            continue
        if maps[0].shape[1] != classes:
            print(f"note: {classes} classes wanted, the model has {maps[0].shape[1]}", flush=True)
        _add_labels(section, classes, maps, arguments.rounds)
    return section


def _add_labels(section: Section, classes: int, maps: list[Tensor], rounds: int) -> None:
    def reference() -> None:
        with forced("reference"):
            label_maps(maps)

    variants: dict[str, Callable[[], object]] = {
        "ours": lambda: label_maps(maps),
        "interpolate + argmax": lambda: usual_maps(maps),
        "interpolate + max": lambda: usual_maps(maps, by_max=True),
        "reference": reference,
    }
    with torch.inference_mode():
        timings = compare(variants, rounds=rounds)
        share, gap = differences(maps)
    section.facts[f"{classes} classes"] = {
        "milliseconds_of_all": timings.to_dict(),
        "maps": len(maps),
        "shape": list(maps[0].shape),
        "way": way(maps[0]),
        "differing_share": share,
        "largest_gap": gap,
        "uniform_squares": uniform(maps),
    }
    name, usual, each = f"label map, {maps[0].shape[1]} classes", "interpolate + argmax", len(maps)
    wanted = LABELS_WANTED[classes]
    section.figures += [
        timings.figure(name, "ours", usual, at_least=wanted, each=each),
        timings.figure(f"{name}, against max", "ours", "interpolate + max", each=each),
        timings.figure(
            f"{name}, reference", "reference", usual, at_least=REFERENCE_WANTED, each=each
        ),
        _single(f"{name}: gap", None, None, gap, at_most=1e-6, note=f"{share:.1e} of pixels"),
    ]


def convolutions(quick: bool, dtype: torch.dtype) -> dict[str, tuple[Callable[[], object], float]]:
    """Return 3x3 convolutions in one dtype in the shapes of a ResNet's levels, channels last.

    Each name has a function that runs it, and its floating point operations.
    """
    made = {}
    for channels, h, w in ((64, 80, 120), (128, 40, 60), (256, 40, 60), (512, 20, 30)):
        if quick:
            h, w = h // 4, w // 4
        images = torch.randn(BATCH, channels, h, w).to(dtype)
        weight = torch.randn(channels, channels, 3, 3).to(dtype)
        images, weight = (x.contiguous(memory_format=torch.channels_last) for x in (images, weight))
        call = functools.partial(_convolve, images, weight)
        made[f"{channels} channels {h}x{w}"] = call, 2 * 9 * channels**2 * BATCH * h * w
    return made


def _convolve(images: Tensor, weight: Tensor) -> None:
    with torch.inference_mode():
        F.conv2d(images, weight, padding=1)


def step(arguments: argparse.Namespace) -> Section:
    """Measure a training step: ResNet-18 FCN-8s against the textbook's FCN-32s, 21 classes."""
    torch.manual_seed(0)
    images, target = a_batch(QUICK_SIZE if arguments.quick else SIZE)
    bare = Bare(CLASSES, images, target)
    images = bare.training.model.normalize(images).contiguous()
    taught = eager_step(Taught(), (images, target.long()), taught_loss)
    # The training precision on this machine.
    half = bare.precision == "bf16-mixed"
    rates = convolutions(arguments.quick, torch.bfloat16 if half else torch.float32)
    variants: dict[str, Callable[[], object]] = {"ours": bare, "taught in large pages": taught}
    size = QUICK_SIZE if arguments.quick else SIZE
    variants["taught"] = Elsewhere(peer_step, TAUGHT, size, None)
    variants |= {name: call for name, (call, _) in rates.items()}
    with FlopCounterMode(display=False) as counter:
        bare()
    work = counter.get_total_flops()
    timings = compare(variants, rounds=arguments.rounds)
    best = max(rates, key=lambda name: rates[name][1] / timings.spread(name).median)
    limit = rates[best][1]
    pairs = zip(timings.seconds["ours"], timings.seconds[best], strict=True)
    fraction = Spread.of([(work / ours) / (limit / peak) for ours, peak in pairs])
    achieved, possible = (
        1e-9 * operations / timings.spread(name, scale=1).median
        for name, operations in (("ours", work), (best, limit))
    )
    facts = {
        "milliseconds": timings.to_dict(),
        "gflop_of_our_step": work / 1e9,
        "convolution": best,
        "precision": bare.precision,
    }
    what = f"step, share of {'bf16' if half else 'float32'} rate"
    share = Figure(what, achieved, possible, "GFLOP/s", fraction, 0.75)
    against = timings.figure(
        "step, FCN-8s / taught FCN-32s", "ours", "taught", at_least=2.8, images=len(images)
    )
    alike = timings.figure(
        "the same, theirs in our large pages", "ours", "taught in large pages", images=BATCH
    )
    return Section([against, alike, share], facts)


@functools.cache
def camvid_rates(quick: bool, threads: int) -> dict[str, list[float]]:
    """Return `train_rates` on CamVid; runs once for both sections."""
    with tempfile.TemporaryDirectory() as name:
        data = linked_camvid(Path(name), (16, 4) if quick else (1_000, 1_000))
        crop, epochs = (QUICK_SIZE, 2) if quick else (SIZE, EPOCHS)
        return train_rates(data, BATCH, crop, epochs, threads)


def train_loop(arguments: argparse.Namespace) -> Section:
    """Compare `fullconv train` with the same step on a prepared batch, timed before and after."""
    images, target = a_batch(QUICK_SIZE if arguments.quick else SIZE, BATCH)
    bare = Bare(11, images, target % 11)
    turns = 1 if arguments.quick else 10
    seconds = list(compare({"bare": bare}, rounds=turns).seconds["bare"])
    rates = camvid_rates(arguments.quick, arguments.threads)["train"]
    seconds += compare({"bare": bare}, rounds=turns).seconds["bare"]
    ready = Spread.of([BATCH / s for s in seconds])
    loop = Spread.of(rates)
    ratio = Spread.of([rate / ready.median for rate in rates])
    figure = Figure(
        "fullconv train / bare step", loop.median, ready.median, "images/s", ratio, 0.85
    )
    facts = {"bare": asdict(ready), "loop": asdict(loop), "precision": bare.precision}
    return Section([figure], facts)


def validation(arguments: argparse.Namespace) -> Section:
    """Compare validation of CamVid's test split with a training epoch of the same run."""
    rates = camvid_rates(arguments.quick, arguments.threads)
    pairs = zip(rates["validation"], rates["train"], strict=True)
    ratio = Spread.of([a / b for a, b in pairs])
    middles = [Spread.of(rates[what]).median for what in ("validation", "train")]
    return Section([Figure("validation / training", *middles, "images/s", ratio, 2.5)], rates)


def main() -> None:
    made = parser(__doc__, rounds=15)
    trained = ROOT / "runs/camvid_mobilenetv2_8s_seed0/model"
    made.add_argument("--camvid-model", type=Path, default=trained, help="of 11 classes, FCN-8s")
    voc = ROOT / "runs/voc_resnet18_8s/model"
    made.add_argument("--voc-model", type=Path, default=voc, help="of 21 classes, FCN-8s")
    sections = {
        "loss": loss,
        "labels": labels,
        "step": step,
        "train_loop": train_loop,
        "validation": validation,
    }
    use_huge_pages()  # as the command line does
    sys.exit(run("speed", sections, made.parse_args()))


if __name__ == "__main__":
    main()
