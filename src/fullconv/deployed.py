"""Exported models at work, without torch: a file that `fullconv export` wrote.

    .onnx              ONNX Runtime
    folder with .xml   OpenVINO

The file holds preprocessing, padding and network, for any number and size of pictures, and in its
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

from fullconv.data.channels import Input
from fullconv.errors import FullconvError, command
from fullconv.kernels import arrays
from fullconv.kernels.arrays import Place
from fullconv.labels import Labels
from fullconv.segmenter import Segmenter

KEY = "fullconv"  # of the description in a file's metadata
INPUT, SCORES, LABELS = "pictures", "scores", "labels"
Run = Callable[[np.ndarray], list[np.ndarray]]  # (N, C, H, W) -> what the graph gives


class Deployed(Segmenter):
    """An exported model, ready for pictures of any size.

    Args:
        run: the graph.
        about: its description: a model's config.json and what `fullconv.export` added to it.
        name: of the file, for messages.
    """

    def __init__(self, run: Run, about: Mapping[str, Any], name: str) -> None:
        self.run, self.about, self.name = run, about, name
        self._labels = Labels.from_dict(about)
        self._heads = {k: Labels.from_dict(v) for k, v in about.get("heads", {}).items()}
        self._inputs = tuple(Input.from_dict(one) for one in about.get("inputs", ()))
        self.grid = Place(*about["grid"])
        self.labels_inside = bool(about["labels_inside"])

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
    def pretrained_on(self) -> str:
        """What its backbone started from; empty for a fresh start."""
        return str(self.about["backbone"]["pretrained_on"])

    @property
    def inputs(self) -> tuple[Input, ...]:
        """What it takes beside pictures."""
        return self._inputs

    def scores(self, picture: np.ndarray, inputs: Sequence[Any] = ()) -> np.ndarray:
        """(H, W, 3) uint8 RGB -> class scores at the cells, (K, h, w) float32, of all heads."""
        return self._outputs(picture, inputs)[0][0]

    def label_maps(self, picture: np.ndarray, inputs: Sequence[Any] = ()) -> list[np.ndarray]:
        """(H, W, 3) uint8 RGB -> (H, W) class ids, of each head.

        Args:
            inputs: a path or an array for each of the model's further inputs.
        """
        found = self._outputs(picture, inputs)
        if self.labels_inside:
            return [ids[0] for ids in found]
        ends = np.cumsum([len(self.labels), *(len(labels) for labels in self.heads.values())])
        size = (picture.shape[0], picture.shape[1])
        return [
            arrays.labels(values, self.grid, size)[0]
            for values in np.split(found[0], ends[:-1], axis=1)
        ]

    def _outputs(self, picture: np.ndarray, inputs: Sequence[Any]) -> list[np.ndarray]:
        planes = self.joined(picture, inputs).transpose(2, 0, 1)[None]
        try:
            return self.run(np.ascontiguousarray(planes))
        except Exception as error:  # each engine has a family of its own, without a common ancestor
            size = f"{picture.shape[1]} x {picture.shape[0]} pixels"
            raise FullconvError(
                f"{self.name} could not be run on a picture of {size}: {_said(error)}",
                "fullconv predict MODEL_FOLDER PICTURE   # the model that it was exported from",
            ) from error


def is_deployed(path: str | Path) -> bool:
    """Whether this is a file (or a folder with files) that `fullconv export` writes and that runs
    without torch."""
    path = Path(path)
    return path.suffix.lower() in (".onnx", ".xml") or (path.is_dir() and any(path.glob("*.xml")))


def load_deployed(
    path: str | Path, *, threads: int | None = None, tile: int | None = None
) -> Deployed:
    """An exported model, ready to use.

    Args:
        path: an .onnx file, an OpenVINO .xml file or the folder that it lies in.
        tile: refused: exported models take each picture whole.
        threads: of the engine; None: as many as it likes.

    Raises:
        FullconvError: no such file, a damaged one or one of others, or its engine is not installed.
    """
    path = Path(path)
    if tile is not None:
        raise FullconvError(
            f"{path} takes each picture whole; tiles are for models in torch.",
            "fullconv predict MODEL_FOLDER PICTURES --tile 1024",
        )
    if path.is_dir():
        path = next(iter(sorted(path.glob("*.xml"))))
    if not path.is_file():
        raise FullconvError(
            f"no exported model at {path}: there is no such file.",
            "fullconv export MODEL --to onnx",
        )
    start = _onnx if path.suffix.lower() == ".onnx" else _openvino
    try:
        run, described = start(path, threads)
    except FullconvError:
        raise
    except Exception as error:  # each engine has a family of its own, without a common ancestor
        raise FullconvError(
            f"{path} cannot be read: {_said(error)}",
            "fullconv export MODEL --to onnx   # once more",
        ) from error
    try:
        about = json.loads(described)
        return Deployed(run, about, str(path))
    except (TypeError, ValueError, KeyError) as error:
        raise FullconvError(
            f"{path} holds a network, but not what its classes are and where its scores sit; "
            "expected a file that fullconv wrote.",
            "fullconv export MODEL --to onnx",
        ) from error


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
            command("pip", "install", name),
        ) from error
