"""Segmenters for tests: one without a network, an exported model, and a model with two heads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from lively import lively

from fullconv.core.labels import Labels
from fullconv.data.io.extra_channels import ExtraInput
from fullconv.inference.exported import ExportedModel
from fullconv.inference.probabilities import Probabilities
from fullconv.inference.segmenter import ModelInfo, Segmenter
from fullconv.models.model import Model

MATERIALS = Labels(("wood", "stone"))


class RedSegmenter(Segmenter):
    """Class 1 where red is above 127; with depth, a second head has class 1 where it is above 1."""

    def __init__(self, *, depth: bool = False) -> None:
        self.info = ModelInfo(Labels(("dark", "red")))
        if depth:
            heads = {"far": Labels(("near", "far"))}
            extra_inputs = (ExtraInput("depth", 1, (0.0,), (1.0,)),)
            self.info = replace(self.info, head="red", heads=heads, extra_inputs=extra_inputs)

    def predict_labels(self, channels: np.ndarray) -> list[np.ndarray]:
        maps = [(channels[..., 0] > 127).astype(np.uint8)]
        return [*maps, (channels[..., 3] > 1).astype(np.uint8)] if self.heads else maps

    def predict_probabilities(self, channels: np.ndarray, size: tuple[int, int]) -> Probabilities:
        raise NotImplementedError

    def predict_batch(self, images: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
        raise NotImplementedError


def two_heads(make_model: Callable[..., Model]) -> Model:
    model = make_model(("sky", "road", "tree", *MATERIALS.names))
    labels = Labels(model.labels.names[:3])
    return replace(model, labels=labels, head="things", heads={"materials": MATERIALS})


def exported_model(model: Model | None = None, *, labels_only: bool = False) -> ExportedModel:
    """Return an exported model whose graph is the network itself."""
    model = model or lively()
    grid = model.network.backbone.grids[0]

    def run(channels: np.ndarray) -> list[np.ndarray]:
        with torch.no_grad():
            scores = model.network(model.normalize(torch.from_numpy(channels)))
        if labels_only:
            return [head.labels().numpy() for head in model.split(scores)]
        assert (scores.grid.stride, scores.grid.offset) == (grid.stride, grid.offset)
        return [scores.values.numpy()]

    about = {**model.config(), "labels_inside": labels_only, "grid": [grid.stride, grid.offset]}
    return ExportedModel(run, about, "a.onnx")
