"""A model as a traced graph, and the writers of each format; see `fullconv.deploy.export`."""

from __future__ import annotations

import copy
import importlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fullconv.core.errors import FullconvError
from fullconv.core.i18n import msg
from fullconv.inference.exported import INPUT, KEY, LABELS, SCORES
from fullconv.inference.runtime import Float32Head, Runtime
from fullconv.models.model import Model
from fullconv.network.kernels import reference
from fullconv.network.scores import Scores

_OPSET = 20


class Graph(nn.Module):
    """The exported computation: images to logits at the cells, or `with_labels` to class ids of
    each head. `half` computes the backbone in float16. The model is not changed."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: Model, *, half: bool = False, with_labels: bool = False) -> None:
        super().__init__()
        runtime = Runtime(model, device=torch.device("cpu"), precision="float32")
        self.network = copy.deepcopy(runtime.network).to(memory_format=torch.contiguous_format)
        _fix_same_padding(self.network)
        self.half_precision, self.with_labels = half, with_labels
        if half:
            self.network.backbone.half()
            for name, score in self.network.score.items():
                self.network.score[name] = Float32Head(score)
        mean, std = [255 * x for x in model.card.mean], [255 * x for x in model.card.std]
        for extra in model.extra_inputs:
            mean += extra.mean
            std += extra.std
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))
        self.counts = [len(labels) for labels in model.tables]

    def forward(self, images: Tensor) -> Any:
        scores = self.scores(images)
        if not self.with_labels:
            return scores.values
        size = (images.shape[2], images.shape[3])
        full = reference.full(scores.values, scores.grid, size)
        ids = [head.argmax(1).to(torch.int32) for head in full.split(self.counts, dim=1)]
        return ids[0] if len(ids) == 1 else tuple(ids)

    def scores(self, images: Tensor) -> Scores:
        """Return the logits of images (N, 3 + E, H, W) at the cells."""
        inputs = (images.float() - self.mean) / self.std
        scores: Scores = self.network(inputs.half() if self.half_precision else inputs)
        return scores


class _PaddedPool(nn.Module):
    """A pooling layer with `ceil_mode`, whose last window is padded explicitly: engines differ in
    how they treat a window that extends beyond the map, or refuse maps smaller than a window."""

    def __init__(self, pool: nn.MaxPool2d | nn.AvgPool2d) -> None:
        super().__init__()
        self.pool = copy.copy(pool)
        self.pool.ceil_mode = False
        self.mean = isinstance(pool, nn.AvgPool2d)
        self.kernel, self.stride = _pair(pool.kernel_size), _pair(pool.stride)

    def forward(self, maps: Tensor) -> Tensor:
        # No operand is negative: engines round divisions of negative numbers differently.
        missing: list[Any] = []
        for size, kernel, stride in zip(maps.shape[2:], self.kernel, self.stride, strict=True):
            ahead = -(-kernel // stride) * stride - kernel
            missing.append((stride - (size + ahead) % stride) % stride)
        below, right = missing
        sides = (0, right, 0, below)
        pooled: Tensor
        if not self.mean:
            pooled = self.pool(nn.functional.pad(maps, sides, value=-math.inf))
            return pooled
        # The mean over the map, not over the padding.
        inside = nn.functional.pad(torch.ones_like(maps[:1, :1]), sides)
        pooled = self.pool(nn.functional.pad(maps, sides))
        return pooled / self.pool(inside)


def _pair(size: Any) -> tuple[int, ...]:
    return (size, size) if isinstance(size, int) else tuple(size)


def _children(network: nn.Module) -> list[tuple[nn.Module, str, nn.Module]]:
    """Return each layer with its parent and its name there; layers may be replaced afterwards."""
    parents = network.modules()
    return [(parent, name, child) for parent in parents for name, child in parent.named_children()]


def _fix_same_padding(network: nn.Module) -> None:
    """Replace SAME padding, which depends on the image size, by a constant: images are padded to
    sizes at which it is symmetric."""
    for parent, name, layer in _children(network):
        if type(layer).__name__ == "Conv2dSame":
            assert isinstance(layer, nn.Conv2d)
            fixed = nn.Conv2d(1, 1, 1)
            fixed.__dict__.update(layer.__dict__)
            sizes = zip(layer.dilation, layer.kernel_size, strict=True)
            fixed.padding = tuple(d * (k - 1) // 2 for d, k in sizes)
            fixed._reversed_padding_repeated_twice = [p for p in fixed.padding for _ in (0, 1)]
            setattr(parent, name, fixed)


def pad_pooling(network: nn.Module) -> None:
    """Replace pooling layers with `ceil_mode`, without padding and gaps, by explicit padding."""
    for parent, name, layer in _children(network):
        if not isinstance(layer, nn.MaxPool2d | nn.AvgPool2d) or not layer.ceil_mode:
            continue
        dilated = getattr(layer, "dilation", 1) not in (1, (1, 1))
        divided = getattr(layer, "divisor_override", None) is not None
        gaps = any(map(int.__gt__, _pair(layer.stride), _pair(layer.kernel_size)))
        if not (dilated or divided or gaps or any(_pair(layer.padding))):
            setattr(parent, name, _PaddedPool(layer))


def _example(model: Model) -> tuple[Tensor, Any]:
    """Return a batch to trace with, and its dynamic dimensions."""
    images = torch.zeros(2, model.network.backbone.in_channels, 193, 225)
    if not model.extra_inputs:
        images = images.to(torch.uint8)
    dynamic = torch.export.Dim.DYNAMIC
    return images, ({0: dynamic, 2: dynamic, 3: dynamic},)


def _write_onnx(graph: Graph, file: Path, about: str, model: Model) -> None:
    onnx = _import("onnx")
    _import("onnxscript")
    images, dynamic_shapes = _example(model)
    pad_pooling(graph.network)
    labels = [LABELS, *(f"{LABELS}_{name}" for name in model.heads)]
    program = torch.onnx.export(
        graph,
        (images,),
        dynamo=True,
        dynamic_shapes=dynamic_shapes,
        input_names=[INPUT],
        output_names=labels if graph.with_labels else [SCORES],
        opset_version=_OPSET,
        verbose=False,
    )
    assert program is not None
    proto = program.model_proto
    proto.metadata_props.add(key=KEY, value=about)
    onnx.save(proto, str(file))


def _write_openvino(graph: Graph, file: Path, about: str, model: Model) -> None:
    openvino = _import("openvino")
    onnx_file = file.with_suffix(".onnx")
    _write_onnx(graph, onnx_file, about, model)
    network = openvino.convert_model(str(onnx_file))
    network.set_rt_info(about, KEY)
    openvino.save_model(network, str(file), compress_to_fp16=graph.half_precision)
    onnx_file.unlink()


def _write_torch(graph: Graph, file: Path, about: str, model: Model) -> None:
    images, dynamic_shapes = _example(model)
    program = torch.export.export(graph, (images,), dynamic_shapes=dynamic_shapes)
    torch.export.save(program, str(file), extra_files={KEY: about})


WRITERS = {"onnx": _write_onnx, "openvino": _write_openvino, "torch": _write_torch}


def quantize(file: Path, model: Model, images: Sequence[np.ndarray]) -> None:
    """Quantize an ONNX file: 8-bit weights and activations, except for the logits."""
    onnx, quantization = _import("onnx"), _import("onnxruntime.quantization")
    plain = file.with_name("plain.onnx")
    quantization.shape_inference.quant_pre_process(
        str(file), str(plain), skip_symbolic_shape=True, skip_onnx_shape=True
    )
    metadata = onnx.load(str(file)).metadata_props

    remaining = iter(images)

    class Images(quantization.CalibrationDataReader):  # type: ignore[name-defined]
        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(remaining, None)
            if image is None:
                return None
            return {INPUT: np.ascontiguousarray(image.transpose(2, 0, 1)[None])}

    nodes = onnx.load(str(plain)).graph.node
    convolutions = [node.name for node in nodes if node.op_type == "Conv"]
    quantization.quantize_static(
        str(plain),
        str(file),
        Images(),
        quant_format=quantization.QuantFormat.QDQ,
        per_channel=True,
        # CPUs without VNNI add pairs of products in 16 bits. Weights of 7 bits do not overflow
        # there, so the file gives the same labels on all CPUs.
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
        reduce_range=True,
        op_types_to_quantize=["Conv", "Add", "MaxPool", "Clip", "Relu"],
        nodes_to_exclude=convolutions[-len(model.network.score) :],  # the logits
    )
    quantized = onnx.load(str(file))
    if not any(entry.key == KEY for entry in quantized.metadata_props):
        quantized.metadata_props.extend(metadata)
        onnx.save(quantized, str(file))
    plain.unlink()


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        message = msg(
            "exporting needs the package {package}, which is not installed.", package=package
        )
        hint = msg("pip install onnx onnxscript onnxruntime   # for OpenVINO also: openvino")
        raise FullconvError(message, hint) from error
