"""Fullconv: a label for every pixel, from any classifier, exact at every size.

The public names. They load on first use, so that `import fullconv` imports no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from fullconv.core.errors import FullconvError
from fullconv.core.labels import Labels

if TYPE_CHECKING:
    from fullconv import geometry
    from fullconv.data.check.check import check
    from fullconv.deploy.push import push
    from fullconv.evaluation.compare import compare
    from fullconv.evaluation.evaluate import evaluate
    from fullconv.evaluation.report.build import save_report
    from fullconv.geometry.grid import Grid
    from fullconv.inference.predictor import Predictor, load
    from fullconv.inference.segmentation import Segmentation
    from fullconv.models.model import Model
    from fullconv.models.run import Run, open_run
    from fullconv.network.dense.convolutionalize import convolutionalize
    from fullconv.network.fcn import FCN
    from fullconv.network.scores import Scores
    from fullconv.training.train import train

__version__ = "0.1.0"

_HOMES = {
    "FCN": "network.fcn",
    "Grid": "geometry.trace_network",
    "Model": "models.model",
    "Predictor": "inference.predictor",
    "Run": "models.run",
    "Scores": "network.scores",
    "Segmentation": "inference.segmentation",
    "check": "data.check.check",
    "compare": "evaluation.compare",
    "convolutionalize": "network.dense.convolutionalize",
    "evaluate": "evaluation.evaluate",
    "load": "inference.predictor",
    "open_run": "models.run",
    "push": "deploy.push",
    "save_report": "evaluation.report.build",
    "train": "training.train",
}

__all__ = [
    "FCN",
    "FullconvError",
    "Grid",
    "Labels",
    "Model",
    "Predictor",
    "Run",
    "Scores",
    "Segmentation",
    "check",
    "compare",
    "convolutionalize",
    "evaluate",
    "geometry",
    "load",
    "open_run",
    "push",
    "save_report",
    "train",
]


def __getattr__(name: str) -> Any:
    if name == "geometry":
        return importlib.import_module("fullconv.geometry")
    if name not in _HOMES:
        raise AttributeError(f"module 'fullconv' has no attribute {name!r}")
    return getattr(importlib.import_module(f"fullconv.{_HOMES[name]}"), name)
