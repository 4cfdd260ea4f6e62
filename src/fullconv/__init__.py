"""Fullconv: a label for every pixel, from any classifier, exact at every size.

The public names. They load on first use, so that `import fullconv` imports no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from fullconv.errors import FullconvError
from fullconv.labels import Labels

if TYPE_CHECKING:
    from fullconv import geometry
    from fullconv.comparison import compare
    from fullconv.data.check import check
    from fullconv.evaluation import evaluate
    from fullconv.geometry import Grid
    from fullconv.model import Model
    from fullconv.network.convolutionalize import convolutionalize
    from fullconv.network.fcn import FCN
    from fullconv.network.scores import Scores
    from fullconv.outputs import Segmentation
    from fullconv.predict import Predictor, load
    from fullconv.publish import push
    from fullconv.report.writing import save_report
    from fullconv.run import Run, open_run
    from fullconv.training import train

__version__ = "0.1.0"

_HOMES = {
    "FCN": "network.fcn",
    "Grid": "geometry",
    "Model": "model",
    "Predictor": "predict",
    "Run": "run",
    "Scores": "network.scores",
    "Segmentation": "outputs",
    "check": "data.check",
    "compare": "comparison",
    "convolutionalize": "network.convolutionalize",
    "evaluate": "evaluation",
    "load": "predict",
    "open_run": "run",
    "push": "publish",
    "save_report": "report.writing",
    "train": "training",
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
