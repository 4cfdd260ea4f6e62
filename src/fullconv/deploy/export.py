"""Export: a model as one file for other engines, compared with the model before it is kept.

    onnx       model.onnx, for ONNX Runtime and whatever else reads ONNX
    openvino   a folder with model.xml and model.bin
    torch      model.pt2, a program of torch.export

The file takes any number of images of any size, as uint8 RGB: normalisation and padding are in
it. It gives the scores at the cells (N, K, h, w), which are small, or with `labels_inside` the ids
at every pixel (N, H, W). Its metadata hold the model's config.json and where the cells sit.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fullconv.core.errors import FullconvError
from fullconv.core.text import shell_command
from fullconv.data.synthetic import scenes as drawn
from fullconv.deploy.export_graph import WRITERS, Graph, quantize, quiet
from fullconv.inference.exported import KEY, ExportedModel, load_exported
from fullconv.inference.runtime import Runtime
from fullconv.models.model import Model

FORMATS = ("onnx", "openvino", "torch")
PRECISIONS = ("float32", "float16", "int8")
SIZES = ((1, 1), (33, 65), (50, 71), (128, 160), (181, 243))  # at which it is compared
MOST_UNLIKE = {"float32": 1e-4, "float16": 0.01, "int8": 0.1}  # share of pixels
MOST_ERROR = 1e-3  # of the largest score, in float32
_NAMES = {"onnx": "model.onnx", "openvino": "model.xml", "torch": "model.pt2"}


@dataclass(frozen=True)
class Exported:
    """A file that was written, and how far it is from the model.

    Args:
        path: of the file.
        precision: of its network.
        sizes: (H, W) of the images that were compared.
        pixels: how many there were.
        unlike: share of them (fraction) that get another label than from the model in float32.
        error: the largest difference of a score, over the largest score.
        bytes: of the file.
    """

    path: Path
    precision: str
    sizes: tuple[tuple[int, int], ...]
    pixels: int
    unlike: float
    error: float | None
    bytes: int

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "path": str(self.path),
            "precision": self.precision,
            "sizes": [list(size) for size in self.sizes],
            "pixels": self.pixels,
            "labels_that_differ": self.unlike,
            "largest_score_difference": self.error,
            "bytes": self.bytes,
        }

    def text(self) -> str:
        """As a person reads it."""
        error = "" if self.error is None else f"; scores to {self.error:.1e} of the largest"
        return (
            f"{self.path}: {self.bytes / 1e6:.1f} MB, {self.precision}\n"
            f"compared with the model in float32 on {len(self.sizes)} images of "
            f"{len(set(self.sizes))} sizes: {1 - self.unlike:.4%} of {self.pixels} labels are equal"
            f"{error}"
        )


def export(
    model: Model,
    out: str | Path,
    *,
    to: str = "onnx",
    precision: str = "float32",
    labels_inside: bool = False,
    images: Sequence[np.ndarray] = (),
) -> Exported:
    """Writes a model for another engine, and compares what it gives there first.

    Args:
        out: a folder; the file is called model.onnx, model.xml or model.pt2 in it.
        to: one of `FORMATS`.
        precision: one of `PRECISIONS`; int8 is calibrated on the images.
        labels_inside: the file gives ids at every pixel in place of scores at the cells.
        images: (H, W, 3) uint8 RGB, to calibrate with and to compare on, beside drawn ones.

    Raises:
        FullconvError: the format cannot hold the model, its engine is not installed, or the file
            gives other labels than the model: it is not kept then.
    """
    _require_exportable(model, to, precision, images)
    about = {**model.config(), "precision": precision, "labels_inside": labels_inside}
    graph = Graph(model, half=precision == "float16", labels_inside=labels_inside).eval()
    grid = _grid(graph, model)
    about["grid"] = [grid.stride, grid.offset]
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / _NAMES[to]
        with quiet():
            WRITERS[to](graph, file, json.dumps(about), len(about.get("inputs", ())), model)
            if precision == "int8":
                quantize(file, model, images)
        found = load_program(file, model) if to == "torch" else load_exported(file)
        result = _compared(found, model, precision, images)
        out = Path(out)
        try:
            out.mkdir(parents=True, exist_ok=True)
            for written in sorted(Path(place).iterdir()):
                shutil.move(str(written), out / written.name)
        except OSError as error:
            raise FullconvError(
                f"the exported model could not be written to {out}: {error.strerror or error}.",
                "--out ANOTHER_FOLDER",
            ) from error
    path = out / file.name
    size = sum(p.stat().st_size for p in out.glob(f"{file.stem}.*"))
    return Exported(path, precision, *result, size)


def load_program(path: str | Path, model: Model) -> ExportedModel:
    """A program of torch.export, to be compared with the model that it was made of."""
    with quiet():
        found = torch.export.load(str(path), extra_files=(files := {KEY: ""}))
        # It would refuse images so small that a feature map is one cell; they work all the same.
        program = found.module(check_guards=False)

    def run(planes: np.ndarray) -> list[np.ndarray]:
        with torch.no_grad():
            outputs = program(torch.from_numpy(planes))
        outputs = [outputs] if isinstance(outputs, Tensor) else outputs
        return [output.numpy() for output in outputs]

    return ExportedModel(run, json.loads(files[KEY]), str(path))


def _require_exportable(
    model: Model, to: str, precision: str, images: Sequence[np.ndarray]
) -> None:
    for value, known, name in ((to, FORMATS, "to"), (precision, PRECISIONS, "precision")):
        if value not in known:
            raise FullconvError(
                f"{name} {value!r} is not known; there are {', '.join(known)}.",
                f"--{name} {known[0]}",
            )
    why = ""
    if model.short_side is not None:
        why = f"it resizes images to a shorter side of {model.short_side} pixels"
    elif model.network.backbone.placement == "stretched":
        why = "its scores are stretched over each image, so that their places hang on its size"
    if why:
        raise FullconvError(
            f"this model cannot be exported as one file for all sizes: {why}.",
            shell_command("fullconv", "train", "DATA", "--backbone", model.card.name),
        )
    if precision == "int8" and to != "onnx":
        raise FullconvError(f"int8 is written for onnx, not for {to}.", "--format onnx")
    if precision == "int8" and not images:
        raise FullconvError(
            "int8 is calibrated on images like those it will see; none were given.",
            "--calibrate IMAGES",
        )
    if precision == "int8" and model.extra_inputs:
        raise FullconvError(
            "int8 is calibrated on images alone; this model takes more.", "--precision float16"
        )


def _grid(graph: Graph, model: Model) -> Any:
    """Where the cells of the scores sit, the same for every image."""
    channels = model.network.backbone.in_channels
    with torch.no_grad():
        found = graph.scores(torch.zeros(1, channels, 33, 33))
    assert found.columns is None
    return found.grid


def _compared(
    found: ExportedModel, model: Model, precision: str, images: Sequence[np.ndarray]
) -> tuple[tuple[tuple[int, int], ...], int, float, float | None]:
    """Sizes, pixels, the share of labels that differ, and the largest error of a score."""
    exact = Runtime(model, device=torch.device("cpu"), precision="float32")
    unlike = pixels = 0
    error, largest, sizes = 0.0, 0.0, []
    for image, inputs in _shown(model, images):
        planes = torch.from_numpy(found.stack_channels(image, inputs).copy()).permute(2, 0, 1)[None]
        scores = exact.scores(planes)
        wanted = [part.labels()[0].numpy() for part in model.split(scores)]
        for ours, theirs in zip(wanted, found.label_maps(image, inputs), strict=True):
            unlike += int((ours != theirs).sum())
            pixels += ours.size
        if not found.labels_only:
            values = scores.values[0].numpy()
            error = max(error, float(abs(values - found.scores(image, inputs)).max()))
            largest = max(largest, float(abs(values).max()))
        sizes.append((image.shape[0], image.shape[1]))
    share, relative = unlike / pixels, error / max(largest, 1e-30)
    wrong = precision == "float32" and relative > MOST_ERROR
    if share > MOST_UNLIKE[precision] or wrong:
        raise FullconvError(
            f"the exported file gives other labels than the model at {share:.3%} of {pixels} "
            f"pixels (at most {MOST_UNLIKE[precision]:.2%}), and scores that are off by "
            f"{relative:.1e} of the largest; it is not kept.",
            "--precision float32" if precision != "float32" else "--format torch",
        )
    return tuple(sizes), pixels, share, None if found.labels_only else relative


def _shown(
    model: Model, images: Iterable[np.ndarray]
) -> Iterator[tuple[np.ndarray, list[np.ndarray]]]:
    """Drawn images of five sizes, with inputs around their mean, and those that were given."""
    rng = np.random.default_rng(0)
    for number, (height, width) in enumerate(SIZES):
        image, _ = drawn.scene(number, size=(max(height, 16), max(width, 16)))
        inputs = [
            rng.normal(one.mean, one.std, (height, width, one.channels)).astype(np.float32)
            for one in model.extra_inputs
        ]
        yield image[:height, :width], inputs
    if not model.extra_inputs:
        yield from ((image, []) for image in images)
