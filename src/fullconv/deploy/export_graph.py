"""A model as a graph, and the files that other engines read it from; see `fullconv.deploy.export`."""

from __future__ import annotations

import copy
import importlib
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fullconv.core.errors import FullconvError
from fullconv.inference.exported import INPUT, KEY, LABELS, SCORES
from fullconv.inference.runtime import Float32Head, Runtime
from fullconv.models.model import Model
from fullconv.network.kernels import reference
from fullconv.network.scores import Scores

_OPSET = 20


class Graph(nn.Module):
    """What goes into a file: images to scores, or to labels.

    Args:
        model: stays as it is.
        half: the backbone computes in float16.
        labels_inside: give ids, of each head.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: Model, *, half: bool = False, labels_inside: bool = False) -> None:
        super().__init__()
        engine = Runtime(model, device=torch.device("cpu"), precision="float32")
        self.network = copy.deepcopy(engine.network).to(memory_format=torch.contiguous_format)
        _settle(self.network)
        self.halved = half
        if half:
            self.network.backbone.half()
            for name, score in self.network.score.items():
                self.network.score[name] = Float32Head(score)
        mean = [255 * x for x in model.card.mean] + [
            x for one in model.extra_inputs for x in one.mean
        ]
        std = [255 * x for x in model.card.std] + [x for one in model.extra_inputs for x in one.std]
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))
        self.counts = [len(labels) for labels in model.tables]
        self.labels_inside = labels_inside

    def forward(self, images: Tensor) -> Any:
        scores = self.scores(images)
        if not self.labels_inside:
            return scores.values
        size = (images.shape[2], images.shape[3])
        full = reference.full(scores.values, scores.grid, size)
        ids = [part.argmax(1).to(torch.int32) for part in full.split(self.counts, dim=1)]
        return ids[0] if len(ids) == 1 else tuple(ids)

    def scores(self, images: Tensor) -> Scores:
        """(N, 3 + E, H, W) -> at the cells."""
        inputs = (images.float() - self.mean) / self.std
        found: Scores = self.network(inputs.half() if self.halved else inputs)
        return found


class _Whole(nn.Module):
    """A pooling layer with `ceil_mode`: its last window, which reaches beyond the map, is filled up
    here, for engines count it in different ways, or refuse maps that are smaller than a window."""

    def __init__(self, pool: nn.MaxPool2d | nn.AvgPool2d) -> None:
        super().__init__()
        self.pool = copy.copy(pool)
        self.pool.ceil_mode = False
        self.mean = isinstance(pool, nn.AvgPool2d)
        self.kernel, self.stride = (
            (size, size) if isinstance(size, int) else tuple(size)
            for size in (pool.kernel_size, pool.stride)
        )

    @staticmethod
    def fits(layer: nn.Module) -> bool:
        """Whether it is such a layer: no padding of its own, and windows without gaps."""
        if not isinstance(layer, nn.MaxPool2d | nn.AvgPool2d) or not layer.ceil_mode:
            return False
        kernel, stride, padding = (
            (size, size) if isinstance(size, int) else tuple(size)
            for size in (layer.kernel_size, layer.stride, layer.padding)
        )
        plain = getattr(layer, "dilation", 1) in (1, (1, 1))
        plain = plain and getattr(layer, "divisor_override", None) is None
        return plain and not any(padding) and all(map(int.__le__, stride, kernel))

    def forward(self, maps: Tensor) -> Tensor:
        below, right = (self._missing(maps, axis) for axis in (0, 1))
        sides = (0, right, 0, below)
        if not self.mean:
            found: Tensor = self.pool(nn.functional.pad(maps, sides, value=-math.inf))
            return found
        # The mean over what is there, not over the zeros that fill up.
        there = nn.functional.pad(torch.ones_like(maps[:1, :1]), sides)
        found = self.pool(nn.functional.pad(maps, sides))
        return found / self.pool(there)

    def _missing(self, maps: Tensor, axis: int) -> Any:
        """No operand is negative: engines round such divisions in different ways."""
        kernel, stride = self.kernel[axis], self.stride[axis]
        ahead = -(-kernel // stride) * stride - kernel
        return (stride - (maps.shape[2 + axis] + ahead) % stride) % stride


def _settle(network: nn.Module) -> None:
    """SAME padding hangs on the size; at the one phase that images are padded to it is the same
    above and below, and a number."""
    for layer in list(network.modules()):
        for name, child in list(layer.named_children()):
            if type(child).__name__ == "Conv2dSame":
                assert isinstance(child, nn.Conv2d)
                plain = nn.Conv2d(1, 1, 1)
                plain.__dict__.update(child.__dict__)
                plain.padding = tuple(
                    d * (k - 1) // 2 for d, k in zip(child.dilation, child.kernel_size, strict=True)
                )
                plain._reversed_padding_repeated_twice = [p for p in plain.padding for _ in (0, 1)]
                setattr(layer, name, plain)


def fill_windows(network: nn.Module) -> None:
    """Writes out pooling over a part of a window."""
    for layer in list(network.modules()):
        for name, child in list(layer.named_children()):
            if _Whole.fits(child):
                setattr(layer, name, _Whole(child))  # type: ignore[arg-type]


def _example(model: Model, further: int) -> tuple[Tensor, Any]:
    """A batch to trace with, and which of its sides are open."""
    channels = model.network.backbone.in_channels
    images = torch.zeros(2, channels, 193, 225)
    if not further:
        images = images.to(torch.uint8)
    open_side = torch.export.Dim.DYNAMIC
    return images, ({0: open_side, 2: open_side, 3: open_side},)


def _write_onnx(graph: Graph, file: Path, about: str, further: int, model: Model) -> None:
    onnx = _module("onnx")
    _module("onnxscript")
    images, sides = _example(model, further)
    fill_windows(graph.network)
    names = [SCORES]
    if graph.labels_inside:
        names = [LABELS, *(f"{LABELS}_{name}" for name in model.heads)]
    program = torch.onnx.export(
        graph,
        (images,),
        dynamo=True,
        dynamic_shapes=sides,
        input_names=[INPUT],
        output_names=names,
        opset_version=_OPSET,
        verbose=False,
    )
    assert program is not None
    made = program.model_proto
    made.metadata_props.add(key=KEY, value=about)
    onnx.save(made, str(file))


def _write_openvino(graph: Graph, file: Path, about: str, further: int, model: Model) -> None:
    openvino = _module("openvino")
    plain = file.with_suffix(".onnx")
    _write_onnx(graph, plain, about, further, model)
    network = openvino.convert_model(str(plain))
    network.set_rt_info(about, KEY)
    openvino.save_model(network, str(file), compress_to_fp16=graph.halved)
    plain.unlink()


def _write_torch(graph: Graph, file: Path, about: str, further: int, model: Model) -> None:
    images, sides = _example(model, further)
    program = torch.export.export(graph, (images,), dynamic_shapes=sides)
    torch.export.save(program, str(file), extra_files={KEY: about})


WRITERS = {"onnx": _write_onnx, "openvino": _write_openvino, "torch": _write_torch}


def quantize(file: Path, model: Model, images: Sequence[np.ndarray]) -> None:
    """Rewrites an ONNX file with weights and activations in 8 bits, except for the scores."""
    onnx, quantization = _module("onnx"), _module("onnxruntime.quantization")
    plain = file.with_name("plain.onnx")
    quantization.shape_inference.quant_pre_process(
        str(file), str(plain), skip_symbolic_shape=True, skip_onnx_shape=True
    )
    described = onnx.load(str(file)).metadata_props

    class Images(quantization.CalibrationDataReader):  # type: ignore[name-defined]
        def __init__(self) -> None:
            self.rest = iter(images)

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self.rest, None)
            if image is None:
                return None
            return {INPUT: np.ascontiguousarray(image.transpose(2, 0, 1)[None])}

    convolutions = [
        node.name for node in onnx.load(str(plain)).graph.node if node.op_type == "Conv"
    ]
    scores = convolutions[-len(model.network.score) :]
    quantization.quantize_static(
        str(plain),
        str(file),
        Images(),
        quant_format=quantization.QuantFormat.QDQ,
        per_channel=True,
        # Processors without VNNI add pairs of products in 16 bits: weights of 7 bits do not
        # overflow there, so that the file gives the same labels everywhere.
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
        reduce_range=True,
        op_types_to_quantize=["Conv", "Add", "MaxPool", "Clip", "Relu"],
        nodes_to_exclude=scores,
    )
    made = onnx.load(str(file))
    if not any(entry.key == KEY for entry in made.metadata_props):
        made.metadata_props.extend(described)
        onnx.save(made, str(file))
    plain.unlink()


@contextmanager
def quiet() -> Iterator[None]:
    """Exporters talk: what is wrong with a file is found by comparing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise FullconvError(
            f"exporting needs {name.partition('.')[0]}, which is not installed.",
            "pip install onnx onnxscript onnxruntime   # for OpenVINO also: openvino",
        ) from error
