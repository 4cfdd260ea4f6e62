"""Exported models, run without torch: the files that `fullconv export` writes.

    .onnx              ONNX Runtime
    folder with .xml   OpenVINO

The file contains preprocessing, padding and network, for any number and size of images. Its
metadata holds the class table and the positions of the feature-map cells. Labels are computed from
the logits by the same compiled kernel that PyTorch models use.

Shapes: N batch · C channels · K classes · H, W image · h, w cells.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fullconv.core.errors import FullconvError
from fullconv.core.i18n import msg
from fullconv.core.labels import Labels, ids_dtype
from fullconv.core.text import first_line, shell_command
from fullconv.data.io.extra_channels import ExtraInput
from fullconv.geometry.grid import Grid
from fullconv.inference.options import PredictOptions
from fullconv.inference.probabilities import Probabilities, softmax
from fullconv.inference.segmenter import ModelInfo, Segmenter
from fullconv.models.migrate import migrate_config
from fullconv.network.kernels import numpy_arrays

KEY = "fullconv"  # of the description in a file's metadata
INPUT, SCORES, LABELS = "images", "scores", "labels"  # of the graph
Run = Callable[[np.ndarray], list[np.ndarray]]  # (N, C, H, W) -> the outputs of the graph
_EXPORT = "fullconv export MODEL --format onnx"


class ExportedModel(Segmenter):
    """An exported model, ready for images of any size.

    Args:
        run: runs the graph.
        about: the description: a model's config.json and what `fullconv.deploy.export` added.
        name: of the file, for messages.
    """

    def __init__(self, run: Run, about: Mapping[str, Any], name: str) -> None:
        about = migrate_config(about)
        self.run, self.about, self.name = run, about, name
        self.grid = Grid(*about["grid"])
        self.labels_only = bool(about["labels_inside"])
        backbone = about.get("backbone", {})
        self.info = ModelInfo(
            labels=Labels.from_dict(about),
            backbone=backbone.get("name", ""),
            stride=round(self.grid.stride),
            pretrained_on=backbone.get("pretrained_on", ""),
            training=about.get("training", {}),
            head=about.get("head", ""),
            heads={name: Labels.from_dict(t) for name, t in about.get("heads", {}).items()},
            extra_inputs=tuple(ExtraInput.from_dict(table) for table in about.get("inputs", ())),
        )

    def set_options(self, options: PredictOptions) -> None:
        """Apply these prediction options from now on.

        Raises:
            FullconvError: see `Segmenter.set_options`; options that need logits, without logits.
        """
        if self.labels_only and options.from_probabilities:
            raise self._no_logits()
        super().set_options(options)

    def scores(self, image: np.ndarray, extra_inputs: Sequence[Any] = ()) -> np.ndarray:
        """Return the logits at the cells, (K, h, w) float32, for an image (H, W, 3) uint8 RGB."""
        return self._outputs(self.stack_channels(image, extra_inputs)[None])[0][0]

    def predict_labels(self, channels: np.ndarray) -> list[np.ndarray]:
        if self.labels_only:
            pairs = zip(self._outputs(channels[None]), self.tables, strict=True)
            return [ids[0].astype(ids_dtype(len(labels))) for ids, labels in pairs]
        size = (channels.shape[0], channels.shape[1])
        return self.predict_probabilities(channels, size).label_maps()

    def predict_batch(self, images: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
        logits = self._outputs(images)[0]
        size = (images.shape[1], images.shape[2])
        return logits, [numpy_arrays.labels(head, self.grid, size) for head in self._split(logits)]

    def predict_probabilities(self, channels: np.ndarray, size: tuple[int, int]) -> Probabilities:
        if self.labels_only:
            raise self._no_logits()
        (logits,) = self._outputs(channels[None])
        places = (self.grid, self.grid)
        if size != channels.shape[:2]:  # as `fullconv.network.scores.Scores.resized`
            stride, offset = self.grid.stride, self.grid.offset
            rows, columns = (
                Grid(stride * new / old, (offset + 0.5) * new / old - 0.5)
                for new, old in zip(size, channels.shape[:2], strict=True)
            )
            places = (rows, columns)
        return CellProbabilities(self._split(logits), places, size)

    def _split(self, logits: np.ndarray) -> list[np.ndarray]:
        ends = np.cumsum([len(labels) for labels in self.tables])
        return np.split(logits, ends[:-1], axis=1)

    def _no_logits(self) -> FullconvError:
        message = msg(
            "{name} returns labels only, so no probabilities and nothing computed from them is "
            "available.",
            name=self.name,
        )
        hint = msg("{command}   # without --with-labels", command=_EXPORT)
        return FullconvError(message, hint)

    def _outputs(self, images: np.ndarray) -> list[np.ndarray]:
        """Run the graph on images (N, H, W, C)."""
        try:
            return self.run(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
        except Exception as error:  # the runtimes have no common exception
            message = msg(
                "{name} failed on an image of {width} x {height} pixels: {reason}.",
                name=self.name,
                width=images.shape[2],
                height=images.shape[1],
                reason=first_line(error)[:200],
            )
            hint = msg("fullconv predict MODEL_FOLDER IMAGE   # the model that was exported")
            raise FullconvError(message, hint) from error


class CellProbabilities(Probabilities):
    """Probabilities from the logits (1, K, h, w) of each head at the cells. `places` are those of
    the cells along the columns and along the rows."""

    def __init__(
        self, logits: Sequence[np.ndarray], places: tuple[Grid, Grid], size: tuple[int, int]
    ) -> None:
        self.logits, self.places, self.size = logits, places, size
        self.counts = tuple(head.shape[1] for head in logits)

    def rows(self, head: int, start: int, stop: int) -> np.ndarray:
        rows = range(start, stop)
        return softmax(numpy_arrays.scores(self.logits[head][0], self.places, rows, self.size[1]))

    def labels(self, head: int) -> np.ndarray:
        if self.places[0] != self.places[1]:
            return super().labels(head)
        return numpy_arrays.labels(self.logits[head], self.places[0], self.size)[0]

    def confidence(self, head: int) -> np.ndarray:
        if self.places[0] != self.places[1]:
            return super().confidence(head)
        return numpy_arrays.confidence(self.logits[head], self.places[0], self.size)[0]


def is_exported(path: str | Path) -> bool:
    """Return whether a path is a file or folder that `fullconv export` writes and that runs without
    torch."""
    path = Path(path)
    return path.suffix.lower() in (".onnx", ".xml") or (path.is_dir() and any(path.glob("*.xml")))


def load_exported(
    path: str | Path,
    *,
    threads: int | None = None,
    tile: int | None = None,
    options: PredictOptions | None = None,
) -> ExportedModel:
    """Load an .onnx file, an OpenVINO .xml file, or the folder that contains it.

    Args:
        threads: of the runtime; None: its default.
        tile: not supported; exported models process each image whole.

    Raises:
        FullconvError: no such file, a damaged or foreign one, or its runtime is not installed.
    """
    path = Path(path)
    if tile is not None:
        raise FullconvError(
            msg("{path} is an exported model, which does not support tiles.", path=path),
            "fullconv predict MODEL_FOLDER IMAGES --tile 1024",
        )
    if path.is_dir():
        path = min(path.glob("*.xml"))
    if not path.is_file():
        raise FullconvError(msg("no exported model at {path}.", path=path), _EXPORT)
    try:
        start = _start_onnxruntime if path.suffix.lower() == ".onnx" else _start_openvino
        run, description = start(path, threads)
    except FullconvError:
        raise
    except Exception as error:  # the runtimes have no common exception
        raise FullconvError(
            msg("{path} cannot be read: {reason}.", path=path, reason=first_line(error)[:200]),
            msg("{command}   # export it again", command=_EXPORT),
        ) from error
    try:
        model = ExportedModel(run, json.loads(description), str(path))
    except (TypeError, ValueError, KeyError) as error:
        message = msg(
            "{path} contains a network but not its classes and cell positions; expected a file "
            "that fullconv export wrote.",
            path=path,
        )
        raise FullconvError(message, _EXPORT) from error
    model.set_options(options or PredictOptions())
    return model


def _start_onnxruntime(path: Path, threads: int | None) -> tuple[Run, str]:
    onnxruntime = _import_runtime("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if threads:
        options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name  # older files have another name than INPUT

    def run(channels: np.ndarray) -> list[np.ndarray]:
        outputs: list[np.ndarray] = session.run(None, {name: channels})
        return outputs

    return run, session.get_modelmeta().custom_metadata_map.get(KEY)


def _start_openvino(path: Path, threads: int | None) -> tuple[Run, str]:
    core = _import_runtime("openvino").Core()
    if threads:
        core.set_property("CPU", {"INFERENCE_NUM_THREADS": threads})
    network = core.read_model(path)
    compiled = core.compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def run(channels: np.ndarray) -> list[np.ndarray]:
        return [np.array(output) for output in compiled(channels).values()]

    return run, network.get_rt_info(KEY).value if network.has_rt_info(KEY) else ""


def _import_runtime(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise FullconvError(
            msg("this file needs {package}, which is not installed.", package=name),
            shell_command("pip", "install", name),
        ) from error
