"""Fullconv: semantic segmentation from any image classifier.

These are the public names. They load on first use, so that `import fullconv` imports no torch.
"""

from __future__ import annotations

import importlib
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

from fullconv.core.errors import FullconvError
from fullconv.core.labels import Labels
from fullconv.core.packages import __version__

if TYPE_CHECKING:
    from fullconv import geometry
    from fullconv.data.check.check import check
    from fullconv.deploy.push import push
    from fullconv.evaluation.compare import compare
    from fullconv.evaluation.evaluate import evaluate
    from fullconv.evaluation.report.build import save_report
    from fullconv.evaluation.report.comparison import save_comparison
    from fullconv.geometry.grid import Grid
    from fullconv.inference.predictor import Predictor, load
    from fullconv.inference.segmentation import Segmentation
    from fullconv.models.model import Model
    from fullconv.models.run import Run, open_run
    from fullconv.network.dense.convolutionalize import convolutionalize
    from fullconv.network.fcn import FCN
    from fullconv.network.scores import Scores
    from fullconv.training.train import train

_HOMES = {
    "FCN": "network.fcn",
    "Grid": "geometry.grid",
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
    "save_comparison": "evaluation.report.comparison",
    "save_report": "evaluation.report.build",
    "train": "training.train",
}

__all__ = [
    "FCN", "FullconvError", "Grid", "Labels", "Model", "Predictor", "Run", "Scores",
    "Segmentation", "__version__", "check", "compare", "convolutionalize", "evaluate",
    "geometry", "load", "open_run", "push", "save_comparison", "save_report", "train",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name == "geometry":
        return importlib.import_module("fullconv.geometry")
    if name not in _HOMES:
        raise AttributeError(f"module 'fullconv' has no attribute {name!r}")
    return getattr(importlib.import_module(f"fullconv.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)


# Views of results in notebooks. IPython stores the names of the types, and imports a view when such
# a result is shown.
_NOTEBOOK_VIEWS = [
    ("text/html", "data.check.check", "CheckReport", "check_report_html"),
    ("text/html", "data.layouts.dataset", "Dataset", "dataset_html"),
    ("text/html", "evaluation.compare", "Comparison", "comparison_html"),
    ("text/html", "evaluation.evaluate", "Evaluation", "evaluation_html"),
    ("text/html", "evaluation.metrics", "Metrics", "metrics_html"),
    ("text/html", "geometry.grid", "Grid", "grid_html"),
    ("text/html", "geometry.grid", "Grids", "grids_html"),
    ("text/html", "inference.segmentation", "Segmentation", "segmentation_html"),
    ("image/png", "inference.segmentation", "Segmentation", "segmentation_png"),
    ("text/html", "models.run", "Run", "run_html"),
]


def _notebook_view(view: str, value: Any) -> Any:
    return getattr(importlib.import_module("fullconv.evaluation.report.notebook"), view)(value)


if (ipython := sys.modules.get("IPython")) and (shell := ipython.get_ipython()):
    formatters = shell.display_formatter.formatters
    for media_type, module, name, view in _NOTEBOOK_VIEWS:
        show = partial(_notebook_view, view)
        formatters[media_type].for_type_by_name(f"fullconv.{module}", name, show)
