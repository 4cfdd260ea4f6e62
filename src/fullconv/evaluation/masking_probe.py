"""Context ablation: how much a model relies on objects, on their context, and on their shape
(Shelhamer, Long & Darrell 2017, section 6, "masking foreground and background").

Hidden pixels get the mean color that the network was trained with, which it sees as zero. Ignored
pixels are hidden, too: they are the seams between foreground and background. If only shapes are
shown, objects are black.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fullconv.core.errors import FullconvError
from fullconv.core.i18n import msg
from fullconv.core.labels import is_background
from fullconv.core.text import align_columns, percent, shell_command, truncated_list
from fullconv.data.layouts.dataset import Dataset
from fullconv.evaluation.evaluate import Evaluation, evaluate_altered
from fullconv.evaluation.metrics import nan_mean
from fullconv.inference.predictor import Predictor, load

_TITLES = {
    "everything": msg("whole images"),
    "foreground": msg("objects only"),
    "background": msg("context only"),
    "shape": msg("shapes only"),
}
CONTENTS = tuple(_TITLES)
_BLACK = (0, 0, 0)


@dataclass(frozen=True)
class Probe:
    """The metrics of a model by what its images contained."""

    foreground: tuple[str, ...]  # names of the object classes
    evaluations: dict[str, Evaluation]  # for each of `CONTENTS`, over all classes

    def mean_iou(self, content: str) -> float:
        """Return the mean over the object classes of the ground truth; NaN if there are none."""
        metrics = self.evaluations[content].metrics
        present = np.asarray(metrics.confusion).sum(axis=1) > 0
        is_object = np.isin(metrics.names, self.foreground)
        return nan_mean(metrics.class_iou[present & is_object])

    def to_dict(self) -> dict[str, Any]:
        """Return the foreground's mean IoU and all metrics for JSON, by content of the images."""
        results = {
            content: {"foreground_mean_iou": self.mean_iou(content), **evaluation.to_dict()}
            for content, evaluation in self.evaluations.items()
        }
        return {"things": list(self.foreground), **results}


def probe(
    model: Predictor | str | Path,
    data: Dataset | str | Path,
    *,
    split: str = "val",
    foreground: Sequence[str] = (),
    ignore_rules: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> Probe:
    """Evaluate a model four times: on whole images, objects only, context only, and shapes only.

    `foreground` names the object classes: all but the background by default. `progress` is called
    with (predictions done, predictions), over all four. See `fullconv.evaluate` for the others.

    Raises:
        FullconvError: an exported model or one with extra inputs, or no class or all classes are
            background; see also `fullconv.evaluate`.
    """
    predictor = model if isinstance(model, Predictor) else load(model, precision="float32")
    if not isinstance(predictor, Predictor):
        problem = msg(
            "{model} is an exported model, which does not store the mean color that its "
            "backbone sees as zero.",
            model=model,
        )
        hint = msg("fullconv probe MODEL DATA   # with the model that was exported")
        raise FullconvError(problem, hint)
    if predictor.model.extra_inputs:
        problem = msg(
            "the model needs {name} in addition to images, which would show objects that the "
            "image hides.",
            name=predictor.model.extra_inputs[0].name,
        )
        hint = msg("fullconv probe MODEL DATA   # with a model that needs only images")
        raise FullconvError(problem, hint)
    names = predictor.labels.names
    objects = _object_classes(names, foreground)
    mean = tuple(round(255 * fraction) for fraction in predictor.model.card.mean)
    is_object = np.array([name in objects for name in names])
    hiding = [partial(hide, is_object=is_object, content=c, color=mean) for c in CONTENTS]
    results = evaluate_altered(
        predictor, data, hiding, split=split, ignore_rules=ignore_rules, progress=progress
    )
    return Probe(objects, dict(zip(CONTENTS, results, strict=True)))


def hide(
    image: np.ndarray,
    truth: np.ndarray,
    *,
    is_object: np.ndarray,
    content: str,
    color: tuple[int, ...],
) -> np.ndarray:
    """Return a copy of an image (H, W, 3) in which everything is hidden but one of `CONTENTS`.

    Args:
        truth: (H, W) class ids; K and above are ignored.
        is_object: (K,) true for object classes.
        color: RGB 0-255 of hidden pixels.
    """
    if content == "everything":
        return image
    labeled = (truth >= 0) & (truth < len(is_object))
    objects = labeled & is_object[np.where(labeled, truth, 0)]
    hidden = np.empty_like(image)
    hidden[:] = color
    if content == "shape":
        hidden[objects] = _BLACK
    else:
        visible = objects if content == "foreground" else labeled & ~objects
        hidden[visible] = image[visible]
    return hidden


def probe_table(result: Probe) -> str:
    """Format a probe for a terminal: the four mean IoUs, then a line per object class."""
    whole = result.mean_iou("everything")
    rows: list[list[str]] = [[msg("mean IoU of the objects"), "", msg("of whole images")]]
    for content in CONTENTS:
        value = result.mean_iou(content)
        rows.append([_TITLES[content], percent(value), percent(value / whole, 0) if whole else "-"])
    classes: list[list[str]] = [[msg("IoU"), *_TITLES.values()]]
    metrics = [result.evaluations[content].metrics for content in CONTENTS]
    for k, name in enumerate(metrics[0].names):
        if name in result.foreground and not np.isnan(metrics[0].class_iou[k]):
            classes.append([name, *(percent(m.class_iou[k]) for m in metrics)])
    return f"{align_columns(rows)}\n\n{align_columns(classes)}"


def _object_classes(names: Sequence[str], foreground: Sequence[str]) -> tuple[str, ...]:
    known, option = truncated_list(names), shell_command("--foreground", names[-1])
    for name in foreground:
        if name not in names:
            problem = msg(
                "the model has no class {name!r}; it has {names}.", name=name, names=known
            )
            raise FullconvError(problem, option)
    objects = tuple(foreground) or tuple(name for name in names if not is_background(name))
    if len(objects) == len(names):
        raise FullconvError(
            msg("all of {names} would be foreground; none is named background.", names=known),
            msg("{option}   # comma-separated names of the object classes", option=option),
        )
    return objects
