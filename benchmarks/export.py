"""Compare exported files with the model, and measure the cost and speed of lower precisions.

`parity`: every format and precision of trained CamVid models, at five sizes and on all test images:
the share of labels equal to those of the model in float32, the largest difference of the logits
relative to the largest logit, megabytes, and mIoU on the test split. `speed`: ONNX Runtime in int8
and float16 against float32, and against Fullconv in torch. Writes results/export.json.

    python benchmarks/export.py --models RUN RUN [--only parity speed]
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from method import Figure, MissingError, Section, Spread, compare, parser, run

from fullconv.data.io.images import read_image
from fullconv.data.io.masks import read_mask
from fullconv.data.layouts.dataset import load_dataset
from fullconv.deploy.export import SIZES, Exported, export, load_program
from fullconv.evaluation.metrics import Metrics, confusion_matrix
from fullconv.inference.exported import ExportedModel, load_exported
from fullconv.inference.predictor import Predictor
from fullconv.inference.runtime import Runtime
from fullconv.models.model import Model, load_model

FILES = (
    *(("onnx", "float32"), ("onnx", "float16"), ("onnx", "int8")),
    *(("openvino", "float32"), ("openvino", "float16"), ("torch", "float32")),
)
EQUAL = 0.9999  # share of equal labels in float32
MOST_LOST = 0.01  # mIoU that int8 may lose
FASTER = 1.5  # int8 over float32 in the same engine
CALIBRATED = 64  # images


def camvid() -> Any:
    """Read the dataset."""
    shared = os.environ.get("FULLCONV_SHARED")
    if not shared:
        raise MissingError("FULLCONV_SHARED names no folder with data/camvid")
    return load_dataset(Path(shared) / "data/camvid")


def written(model: Model, to: str, precision: str, place: Path) -> tuple[ExportedModel, Exported]:
    """Export a file, calibrated on training images."""
    train = camvid().splits["train"]
    some = train[:: max(1, len(train) // CALIBRATED)][:CALIBRATED] if precision == "int8" else ()
    images = [read_image(pair.image) for pair in some]
    out = place / f"{to}-{precision}"
    result = export(model, out, format=to, precision=precision, images=images)
    found = load_program(result.path) if to == "torch" else load_exported(result.path)
    return found, result


def compared(model: Model, found: ExportedModel, count: int | None) -> dict[str, float]:
    """Compare labels and logits on the test split and on crops of its first images at `SIZES`."""
    exact = Runtime(model, device=torch.device("cpu"), precision="float32")
    dataset = camvid()
    pairs = dataset.splits["test"][:count]
    unlike = pixels = 0
    error = largest = 0.0
    confusion = np.zeros((2, len(model.labels), len(model.labels)), np.int64)
    shown = [(pair, None) for pair in pairs]
    shown += [(pair, size) for pair in pairs[:8] for size in SIZES]
    for pair, size in shown:
        image = read_image(pair.image)
        if size:
            image = np.ascontiguousarray(image[: size[0], : size[1]])
        scores = exact.scores(torch.from_numpy(image.copy()).permute(2, 0, 1)[None])
        wanted, values = scores.labels()[0].numpy(), scores.values[0].numpy()
        ids = found.label_map(image)
        unlike, pixels = unlike + int((ids != wanted).sum()), pixels + ids.size
        error = max(error, float(abs(found.scores(image) - values).max()))
        largest = max(largest, float(abs(values).max()))
        if not size:
            truth = read_mask(pair.mask, dataset.labels)
            for total, of in zip(confusion, (ids, wanted), strict=True):
                total += confusion_matrix(truth, of, len(model.labels))
    ours, theirs = (Metrics(model.labels.names, of).mean_iou for of in confusion)
    return {"equal": 1 - unlike / pixels, "error": error / largest, "ours": ours, "theirs": theirs}


def parity(arguments: argparse.Namespace) -> Section:
    """Measure all formats."""
    section, rows = Section(), []
    for folder in arguments.models:
        model = load_model(folder)
        name = model.card.name
        for to, precision in FILES:
            with tempfile.TemporaryDirectory() as place:
                found, result = written(model, to, precision, Path(place))
                row = compared(model, found, 4 if arguments.quick else None)
            rows.append({"model": name, "to": to, "precision": precision, **row})
            rows[-1]["megabytes"] = result.bytes / 1e6
            title = f"{name} FCN-{model.network.stride}s, {to} {precision}"
            exact = precision == "float32"
            section.figures.append(
                Figure(
                    f"{title}: labels equal",
                    None,
                    None,
                    "",
                    Spread.of([row["equal"]]),
                    EQUAL if exact else None,
                    None,
                    f"scores to {row['error']:.1e}, {result.bytes / 1e6:.1f} MB",
                )
            )
            if not exact:
                lost = row["theirs"] - row["ours"]
                section.figures.append(
                    Figure(
                        f"{title}: mean IoU lost",
                        row["ours"],
                        row["theirs"],
                        "mean IoU",
                        Spread.of([lost]),
                        None,
                        MOST_LOST,
                    )
                )
    section.facts["files"] = rows
    return section


def speed(arguments: argparse.Namespace) -> Section:
    """Measure label maps of a CamVid image."""
    section = Section()
    image = read_image(camvid().splits["test"][0].image)
    for folder in arguments.models:
        model = load_model(folder)
        predictor = Predictor(model, device="cpu", precision="float32")
        with tempfile.TemporaryDirectory() as place:
            variants = {"torch": partial(predictor.label_map, image)}
            for to, precision in FILES[:5]:
                _, result = written(model, to, precision, Path(place))
                found = load_exported(result.path, threads=arguments.threads)
                variants[f"{to} {precision}"] = partial(found.label_map, image)
            timings = compare(variants, rounds=arguments.rounds)
        name = f"{model.card.name} FCN-{model.network.stride}s, {image.shape[1]} x "
        name += f"{image.shape[0]}: "
        for ours, theirs, wanted in (
            ("onnx int8", "onnx float32", FASTER),
            ("onnx float16", "onnx float32", None),
            ("onnx float32", "torch", None),
            ("openvino float32", "torch", None),
            ("openvino float16", "openvino float32", None),
        ):
            title = f"{name}{ours} against {theirs}"
            section.figures.append(timings.figure(title, ours, theirs, at_least=wanted))
    return section


def main() -> int:
    """Run the sections."""
    options = parser(__doc__, rounds=9)
    options.add_argument("--models", nargs="+", required=True, metavar="RUN", help="on CamVid")
    return run("export", {"parity": parity, "speed": speed}, options.parse_args())


if __name__ == "__main__":
    sys.exit(main())
