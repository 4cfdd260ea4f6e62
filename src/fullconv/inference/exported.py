"""Exported models at work, without torch: a file that `fullconv export` wrote.

    .onnx              ONNX Runtime
    folder with .xml   OpenVINO

The file holds preprocessing, padding and network, for any number and size of images, and in its
metadata the class table and where the cells of its scores sit. Labels are read from the scores by
the same compiled kernel that models in torch use.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fullconv.core.errors import FullconvError
from fullconv.core.labels import Labels
from fullconv.core.text import shell_command
from fullconv.data.io.extra_channels import ExtraInput
from fullconv.geometry.grid import Grid
from fullconv.inference.options import PredictOptions
from fullconv.inference.probabilities import Probabilities, ids_dtype, softmax
from fullconv.inference.segmenter import Segmenter
from fullconv.network.kernels import numpy_arrays

KEY = "fullconv"  # of the description in a file's metadata
INPUT, SCORES, LABELS = "images", "scores", "labels"
Run = Callable[[np.ndarray], list[np.ndarray]]  # (N, C, H, W) -> what the graph gives


class ExportedModel(Segmenter):
    """An exported model, ready for images of any size.

    Args:
        run: the graph.
        about: its description: a model's config.json and what `fullconv.deploy.export` added to it.
        name: of the file, for messages.
    """

    def __init__(self, run: Run, about: Mapping[str, Any], name: str) -> None:
        self.run, self.about, self.name = run, about, name
        self._labels = Labels.from_dict(about)
        self._heads = {k: Labels.from_dict(v) for k, v in about.get("heads", {}).items()}
        self._inputs = tuple(ExtraInput.from_dict(one) for one in about.get("inputs", ()))
        self.grid = Grid(*about["grid"])
        self.labels_only = bool(about["labels_inside"])

    @property
    def labels(self) -> Labels:
        """The classes."""
        return self._labels

    @property
    def heads(self) -> Mapping[str, Labels]:
        """The classes of further heads, by name."""
        return self._heads

    @property
    def head(self) -> str:
        """What the first head is called, where there are several."""
        return str(self.about.get("head", ""))

    @property
    def backbone(self) -> str:
        """What its backbone is called."""
        return str(self.about["backbone"]["name"])

    @property
    def stride(self) -> int:
        """Of its scores, in pixels."""
        return round(self.grid.stride)

    @property
    def pretrained_on(self) -> str:
        """What its backbone started from; empty for a fresh start."""
        return str(self.about["backbone"]["pretrained_on"])

    @property
    def training(self) -> Mapping[str, Any]:
        """What is known of its training."""
        return dict(self.about.get("training", {}))

    @property
    def extra_inputs(self) -> tuple[ExtraInput, ...]:
        """What it takes beside images."""
        return self._inputs

    def scores(self, image: np.ndarray, extra_inputs: Sequence[Any] = ()) -> np.ndarray:
        """(H, W, 3) uint8 RGB -> class scores at the cells, (K, h, w) float32, of all heads."""
        return self._outputs(self.stack_channels(image, extra_inputs))[0][0]

    def set_options(self, options: PredictOptions) -> None:
        """Also refuses what needs scores, of a file that gives labels alone."""
        if self.labels_only and options.from_probabilities:
            raise self._no_scores()
        super().set_options(options)

    def predict_labels(self, planes: np.ndarray) -> list[np.ndarray]:
        """(H, W, C), as `stack_channels` gives it -> (H, W) class ids of each head."""
        if self.labels_only:
            found = zip(self._outputs(planes), self.tables, strict=True)
            return [ids[0].astype(ids_dtype(len(of))) for ids, of in found]
        return self.read(planes, (planes.shape[0], planes.shape[1])).label_maps()

    def predict_batch(self, images: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
        """(N, H, W, 3) uint8 -> scores at the cells, and (N, H, W) class ids of each head."""
        values = self.run(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))[0]
        ends = np.cumsum([len(labels) for labels in self.tables])
        parts = np.split(values, ends[:-1], axis=1)
        size = (images.shape[1], images.shape[2])
        return values, [numpy_arrays.labels(part, self.grid, size) for part in parts]

    def read(self, planes: np.ndarray, size: tuple[int, int]) -> Probabilities:
        """See `Segmenter.read`."""
        if self.labels_only:
            raise self._no_scores()
        (values,) = self._outputs(planes)
        counts = tuple(map(len, self.tables))
        # As `fullconv.Scores.resized` has it.
        rows, columns = (
            Grid(self.grid.stride * new / old, (self.grid.offset + 0.5) * new / old - 0.5)
            for new, old in zip(size, planes.shape[:2], strict=True)
        )
        heads = np.split(values, np.cumsum(counts)[:-1], axis=1)
        places = (rows, columns) if size != planes.shape[:2] else (self.grid, self.grid)
        return _Cells(heads, places, size)

    def _no_scores(self) -> FullconvError:
        return FullconvError(
            f"{self.name} gives labels and no scores: probabilities, and what is made of them, "
            "cannot be had from it.",
            "fullconv export MODEL --format onnx   # without --with-labels",
        )

    def _outputs(self, planes: np.ndarray) -> list[np.ndarray]:
        try:
            return self.run(np.ascontiguousarray(planes.transpose(2, 0, 1)[None]))
        except Exception as error:  # each engine has a family of its own, without a common ancestor
            size = f"{planes.shape[1]} x {planes.shape[0]} pixels"
            raise FullconvError(
                f"{self.name} could not be run on an image of {size}: {_said(error)}",
                "fullconv predict MODEL_FOLDER IMAGE   # the model that it was exported from",
            ) from error


class _Cells(Probabilities):
    """Read from the scores of each head (1, K, h, w), whose cells sit at places along the columns
    and along the rows."""

    def __init__(
        self, values: Sequence[np.ndarray], places: tuple[Grid, Grid], size: tuple[int, int]
    ) -> None:
        self.values, self.places, self.size = values, places, size
        self.counts = tuple(of.shape[1] for of in values)

    def rows(self, head: int, start: int, stop: int) -> np.ndarray:
        """See `Probabilities`."""
        found = numpy_arrays.scores(
            self.values[head][0], self.places, range(start, stop), self.size[1]
        )
        return softmax(found)

    def labels(self, head: int) -> np.ndarray:
        """Faster, where both axes have the same places."""
        if self.places[0] != self.places[1]:
            return super().labels(head)
        return numpy_arrays.labels(self.values[head], self.places[0], self.size)[0]

    def confidence(self, head: int) -> np.ndarray:
        """Faster, where both axes have the same places."""
        if self.places[0] != self.places[1]:
            return super().confidence(head)
        return numpy_arrays.confidence(self.values[head], self.places[0], self.size)[0]


def is_exported(path: str | Path) -> bool:
    """Whether this is a file (or a folder with files) that `fullconv export` writes and that runs
    without torch."""
    path = Path(path)
    return path.suffix.lower() in (".onnx", ".xml") or (path.is_dir() and any(path.glob("*.xml")))


def load_exported(
    path: str | Path,
    *,
    threads: int | None = None,
    tile: int | None = None,
    options: PredictOptions | None = None,
) -> ExportedModel:
    """An exported model, ready to use.

    Args:
        path: an .onnx file, an OpenVINO .xml file or the folder that it lies in.
        tile: refused: exported models take each image whole.
        threads: of the engine; None: as many as it likes.
        options: see `fullconv.inference.options.PredictOptions`.

    Raises:
        FullconvError: no such file, a damaged one or one of others, or its engine is not installed.
    """
    path = Path(path)
    if tile is not None:
        raise FullconvError(
            f"{path} takes each image whole; tiles are for models in torch.",
            "fullconv predict MODEL_FOLDER IMAGES --tile 1024",
        )
    if path.is_dir():
        path = next(iter(sorted(path.glob("*.xml"))))
    if not path.is_file():
        raise FullconvError(
            f"no exported model at {path}: there is no such file.",
            "fullconv export MODEL --format onnx",
        )
    start = _onnx if path.suffix.lower() == ".onnx" else _openvino
    try:
        run, described = start(path, threads)
    except FullconvError:
        raise
    except Exception as error:  # each engine has a family of its own, without a common ancestor
        raise FullconvError(
            f"{path} cannot be read: {_said(error)}",
            "fullconv export MODEL --format onnx   # once more",
        ) from error
    try:
        about = json.loads(described)
        model = ExportedModel(run, about, str(path))
    except (TypeError, ValueError, KeyError) as error:
        raise FullconvError(
            f"{path} holds a network, but not what its classes are and where its scores sit; "
            "expected a file that fullconv wrote.",
            "fullconv export MODEL --format onnx",
        ) from error
    model.set_options(options or PredictOptions())
    return model


def _onnx(path: Path, threads: int | None) -> tuple[Run, str]:
    runtime = _engine("onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    if threads:
        options.intra_op_num_threads = threads
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    described = session.get_modelmeta().custom_metadata_map.get(KEY)

    def run(planes: np.ndarray) -> list[np.ndarray]:
        found: list[np.ndarray] = session.run(None, {INPUT: planes})
        return found

    return run, described


def _openvino(path: Path, threads: int | None) -> tuple[Run, str]:
    core = _engine("openvino").Core()
    if threads:
        core.set_property("CPU", {"INFERENCE_NUM_THREADS": threads})
    network = core.read_model(path)
    described = network.get_rt_info(KEY).value if network.has_rt_info(KEY) else ""
    compiled = core.compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def run(planes: np.ndarray) -> list[np.ndarray]:
        return [np.array(value) for value in compiled(planes).values()]

    return run, described


def _said(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def _engine(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise FullconvError(
            f"this file runs in {name}, which is not installed.",
            shell_command("pip", "install", name),
        ) from error
