"""Export a model to one file for other engines, after comparing its predictions there.

    onnx       model.onnx, for ONNX Runtime and other ONNX engines
    openvino   a folder with model.xml and model.bin
    torch      model.pt2, a program of torch.export

The file takes any number of images of any size, as uint8 RGB; normalization and padding are part of
it. It returns logits at the cells (N, K, h, w), which are small, or with `with_labels` the class
ids at every pixel (N, H, W). Its metadata contain the model's config.json and the grid of the
cells.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fullconv.core.errors import FullconvError
from fullconv.core.i18n import join, msg
from fullconv.core.progress import stage
from fullconv.core.text import file_size, percent, shell_command
from fullconv.data.synthetic import scenes
from fullconv.deploy.export_graph import WRITERS, Graph, quantize
from fullconv.inference.exported import KEY, ExportedModel, load_exported
from fullconv.inference.runtime import Runtime
from fullconv.models.model import Model

FORMATS = ("onnx", "openvino", "torch")
PRECISIONS = ("float32", "float16", "int8")
SIZES = ((1, 1), (33, 65), (50, 71), (128, 160), (181, 243))  # of the images that are compared
MAX_DISAGREEMENT = {"float32": 1e-4, "float16": 0.01, "int8": 0.1}  # fraction of pixels
MAX_SCORE_ERROR = 1e-3  # in float32, relative to the largest logit
_NAMES = {"onnx": "model.onnx", "openvino": "model.xml", "torch": "model.pt2"}


@dataclass(frozen=True)
class Exported:
    """An exported file, and how far its predictions are from those of the model.

    Args:
        sizes: (H, W) of the compared images.
        pixels: number of compared pixels.
        disagreement: fraction of them with another label than the model gives in float32.
        score_error: largest difference of a logit, relative to the largest logit; None if the file
            returns labels.
    """

    path: Path
    precision: str
    sizes: tuple[tuple[int, int], ...]
    pixels: int
    disagreement: float
    score_error: float | None
    bytes: int

    def to_dict(self) -> dict[str, Any]:
        """Return the result as JSON has it."""
        return {
            "path": str(self.path),
            "precision": self.precision,
            "sizes": [list(size) for size in self.sizes],
            "pixels": self.pixels,
            "labels_that_differ": self.disagreement,
            "largest_score_difference": self.score_error,
            "bytes": self.bytes,
        }

    def text(self) -> str:
        """Return the result for people."""
        values = {
            **vars(self),
            "size": file_size(self.bytes),
            "count": len(self.sizes),
            "sizes": len(set(self.sizes)),
            "share": percent(1 - self.disagreement, 4),
            "error": self.score_error,
        }
        lines = [
            msg("{path}: {size}, {precision}", **values),
            msg(
                "compared with the model in float32 on {count} images of {sizes} sizes: {share} of "
                "{pixels} labels are equal",
                **values,
            ),
        ]
        if self.score_error is not None:
            text = msg("largest difference of a logit: {error:.1e} of the largest logit", **values)
            lines.append(text)
        return join(lines)


def export(
    model: Model,
    out: str | Path,
    *,
    format: str = "onnx",
    precision: str = "float32",
    with_labels: bool = False,
    images: Sequence[np.ndarray] = (),
) -> Exported:
    """Write a model for another engine, if its predictions there are those of the model.

    Args:
        out: folder for model.onnx, model.xml or model.pt2.
        format, precision: one of `FORMATS`, one of `PRECISIONS`.
        with_labels: return class ids at every pixel instead of logits at the cells.
        images: (H, W, 3) uint8 RGB, to calibrate int8 with; they are compared, too.

    Raises:
        FullconvError: the format cannot represent the model, its engine is not installed, or the
            predictions differ; then nothing is written.
    """
    _require_exportable(model, format, precision, images)
    stage(msg("tracing the network"))
    graph = Graph(model, half=precision == "float16", with_labels=with_labels).eval()
    with torch.no_grad():
        empty = torch.zeros(1, model.network.backbone.in_channels, 33, 33)
        grid = graph.scores(empty).grid  # the same for every image
    about = {
        **model.config(),
        "precision": precision,
        "labels_inside": with_labels,
        "grid": [grid.stride, grid.offset],
    }
    with tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary) / _NAMES[format]
        stage(msg("writing {file}", file=file.name))
        # Errors in a file are found by comparing its predictions, not by an exporter's warnings.
        with warnings.catch_warnings(action="ignore"):
            WRITERS[format](graph, file, json.dumps(about), model)
            if precision == "int8":
                stage(msg("quantizing on {count} images", count=len(images)))
                quantize(file, model, images)
        exported = load_program(file) if format == "torch" else load_exported(file)
        sizes, pixels, disagreement, score_error = _compare(exported, model, precision, images)
        out = Path(out)
        try:
            out.mkdir(parents=True, exist_ok=True)
            for path in sorted(Path(temporary).iterdir()):
                shutil.move(str(path), out / path.name)
        except OSError as error:
            message = msg(
                "the exported model could not be written to {folder}: {reason}.",
                folder=out,
                reason=error.strerror or error,
            )
            raise FullconvError(message, "--out ANOTHER_FOLDER") from error
    size = sum(path.stat().st_size for path in out.glob(f"{file.stem}.*"))
    return Exported(out / file.name, precision, sizes, pixels, disagreement, score_error, size)


def load_program(path: str | Path) -> ExportedModel:
    """Load a program of torch.export."""
    files = {KEY: ""}
    with warnings.catch_warnings(action="ignore"):
        program = torch.export.load(str(path), extra_files=files)
        # Its guards would refuse images so small that a feature map is one cell; they work.
        module = program.module(check_guards=False)

    def run(channels: np.ndarray) -> list[np.ndarray]:
        with torch.no_grad():
            outputs = module(torch.from_numpy(channels))
        outputs = [outputs] if isinstance(outputs, Tensor) else outputs
        return [output.numpy() for output in outputs]

    return ExportedModel(run, json.loads(files[KEY]), str(path))


def _require_exportable(
    model: Model, format: str, precision: str, images: Sequence[np.ndarray]
) -> None:
    options = {"format": (format, FORMATS), "precision": (precision, PRECISIONS)}
    for option, (value, choices) in options.items():
        if value not in choices:
            values = {"option": option, "value": value, "choices": ", ".join(choices)}
            message = msg("{option} is {value!r}; expected one of {choices}.", **values)
            raise FullconvError(message, f"--{option} {choices[0]}")
    retrain = shell_command("fullconv", "train", "DATA", "--backbone", model.card.name)
    if model.short_side is not None:
        message = msg(
            "this model cannot be exported as one file for all sizes: it resizes images to a "
            "shorter side of {side} pixels.",
            side=model.short_side,
        )
        raise FullconvError(message, retrain)
    if model.network.backbone.placement == "stretched":
        message = msg(
            "this model cannot be exported as one file for all sizes: its logits are stretched "
            "over each image, so their positions depend on its size."
        )
        raise FullconvError(message, retrain)
    if precision != "int8":
        return
    if format != "onnx":
        message = msg("int8 is available for onnx, not for {format}.", format=format)
        raise FullconvError(message, "--format onnx")
    if not images:
        message = msg(
            "int8 is calibrated on images like those that the model will see; none were given."
        )
        raise FullconvError(message, "--calibrate IMAGES")
    if model.extra_inputs:
        message = msg("int8 is calibrated on images alone; this model takes extra inputs.")
        raise FullconvError(message, "--precision float16")


def _compare(
    exported: ExportedModel, model: Model, precision: str, images: Sequence[np.ndarray]
) -> tuple[tuple[tuple[int, int], ...], int, float, float | None]:
    """Return sizes and pixels of the compared images, the fraction of labels that differ, and the
    relative error of the logits."""
    exact = Runtime(model, device=torch.device("cpu"), precision="float32")
    samples = _test_images(model, images)
    total = len(samples)
    different = pixels = 0
    error, largest, sizes = 0.0, 0.0, []
    for number, (image, extra_inputs) in enumerate(samples, 1):
        stage(msg("comparing predictions: image {number} of {total}", number=number, total=total))
        channels = exported.stack_channels(image, extra_inputs).copy()
        scores = exact.scores(torch.from_numpy(channels).permute(2, 0, 1)[None])
        expected = [head.labels()[0].numpy() for head in model.split(scores)]
        for ours, theirs in zip(expected, exported.label_maps(image, extra_inputs), strict=True):
            different += int((ours != theirs).sum())
            pixels += ours.size
        if not exported.labels_only:
            values = scores.values[0].numpy()
            difference = abs(values - exported.scores(image, extra_inputs))
            error = max(error, float(difference.max()))
            largest = max(largest, float(abs(values).max()))
        sizes.append((image.shape[0], image.shape[1]))
    share, relative = different / pixels, error / max(largest, 1e-30)
    wrong_scores = precision == "float32" and relative > MAX_SCORE_ERROR
    if share > MAX_DISAGREEMENT[precision] or wrong_scores:
        message = msg(
            "the exported file gives other labels than the model at {share:.3%} of {pixels} "
            "pixels (limit {limit:.2%}), and logits that differ by up to {error:.1e} of the "
            "largest; it was not kept.",
            share=share,
            pixels=pixels,
            limit=MAX_DISAGREEMENT[precision],
            error=relative,
        )
        hint = "--precision float32" if precision != "float32" else "--format torch"
        raise FullconvError(message, hint)
    return tuple(sizes), pixels, share, None if exported.labels_only else relative


def _test_images(
    model: Model, images: Sequence[np.ndarray]
) -> list[tuple[np.ndarray, list[np.ndarray]]]:
    """Return synthetic images with random extra inputs, and the given images if there are none."""
    rng = np.random.default_rng(0)
    samples = []
    for seed, (height, width) in enumerate(SIZES):
        image, _ = scenes.scene(seed, size=(max(height, 16), max(width, 16)))
        extra_inputs = [
            rng.normal(extra.mean, extra.std, (height, width, extra.channels)).astype(np.float32)
            for extra in model.extra_inputs
        ]
        samples.append((image[:height, :width], extra_inputs))
    if not model.extra_inputs:
        samples += [(image, []) for image in images]
    return samples
