"""What a model lives on: its scores where all but the foreground, the background or the shape of
things is hidden (Shelhamer, Long & Darrell 2017, section 6, "masking foreground and background").

What is hidden gets the mean colour that the network was trained with, which it sees as zero. Pixels
that count for no class are hidden, too: they are the seams between the two. Where only the shape is
left, things are black.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fullconv.core.errors import FullconvError
from fullconv.core.labels import is_background
from fullconv.data.layouts.dataset import Dataset
from fullconv.evaluation.evaluate import Evaluation, evaluate_altered
from fullconv.inference.predictor import Predictor, load

SHOWN = ("everything", "foreground", "background", "shape")
_BLACK = (0, 0, 0)


@dataclass(frozen=True)
class Probe:
    """The scores of a model by what it was shown.

    Args:
        foreground: names of the classes that count as things.
        evaluations: of each of `SHOWN`, over all classes.
    """

    foreground: tuple[str, ...]
    evaluations: dict[str, Evaluation]

    def mean_iou(self, shown: str) -> float:
        """Over the foreground classes that occur in the truth; nan where none does."""
        metrics = self.evaluations[shown].metrics
        present = np.asarray(metrics.confusion).sum(axis=1) > 0
        values = [
            metrics.class_iou[k]
            for k, name in enumerate(metrics.names)
            if name in self.foreground and present[k]
        ]
        return float(np.mean(values)) if values else float("nan")

    def to_dict(self) -> dict[str, Any]:
        """JSON-able: per kind the mean IoU of the foreground, and all metrics."""
        return {
            "things": list(self.foreground),
            **{
                shown: {"foreground_mean_iou": self.mean_iou(shown), **result.to_dict()}
                for shown, result in self.evaluations.items()
            },
        }


def probe(
    model: Predictor | str | Path,
    data: Dataset | str | Path,
    *,
    split: str = "val",
    foreground: Sequence[str] = (),
    ignore_rules: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> Probe:
    """Scores a model on a split four times: on whole images, on things alone, on what is around
    them alone, and on their shapes alone.

    Args:
        model: a model or its path.
        data: a data set or its folder. Classes are matched by name.
        split: "train", "val" or "test".
        foreground: names of the classes that are things; by default all but the background.
        ignore_rules: see `fullconv.data.check.ignore_rules.apply_ignore_rules`.
        progress: called with (predictions done, predictions), over all four.

    Raises:
        FullconvError: no class is, or all are, background; see also `fullconv.evaluate`.
    """
    predictor = model if isinstance(model, Predictor) else load(model, precision="float32")
    if not isinstance(predictor, Predictor):
        raise FullconvError(
            f"{model} is an exported model, which does not say what colour its backbone sees as "
            "nothing.",
            "fullconv probe MODEL DATA   # with the model that it was made of",
        )
    if predictor.model.extra_inputs:
        raise FullconvError(
            f"the model takes {predictor.model.extra_inputs[0].name} beside images, in which things "
            "would still be seen where the image hides them.",
            "fullconv probe MODEL DATA   # with a model of images alone",
        )
    names = predictor.labels.names
    things = _things(names, foreground)
    mean = tuple(round(255 * fraction) for fraction in predictor.model.card.mean)
    is_thing = np.array([name in things for name in names])
    results = evaluate_altered(
        predictor,
        data,
        [partial(hidden, is_thing=is_thing, shown=shown, color=mean) for shown in SHOWN],
        split=split,
        ignore_rules=ignore_rules,
        progress=progress,
    )
    return Probe(things, dict(zip(SHOWN, results, strict=True)))


def hidden(
    image: np.ndarray,
    truth: np.ndarray,
    *,
    is_thing: np.ndarray,
    shown: str,
    color: tuple[int, ...],
) -> np.ndarray:
    """A copy of the image in which all but what is shown has one colour.

    Args:
        image: (H, W, 3) uint8 RGB.
        truth: (H, W) class ids; those from K up are of no class.
        is_thing: (K,) whether a class is foreground.
        shown: one of `SHOWN`.
        color: RGB 0-255.
    """
    if shown == "everything":
        return image
    labelled = (truth >= 0) & (truth < len(is_thing))
    things = labelled & is_thing[np.where(labelled, truth, 0)]
    kept = {"foreground": things, "background": labelled & ~things}.get(shown)
    out = np.empty_like(image)
    out[:] = color
    if kept is None:
        out[things] = _BLACK
    else:
        out[kept] = image[kept]
    return out


def probe_table(result: Probe) -> str:
    """As text for a terminal: the four, and a line per foreground class."""
    title = {
        "everything": "whole images",
        "foreground": "foreground alone",
        "background": "background alone",
        "shape": "shape alone",
    }
    whole = result.mean_iou("everything")
    lines = [f"{'mean IoU of the foreground':<28}{'':>8}{'of whole':>10}"]
    for shown in SHOWN:
        value = result.mean_iou(shown)
        share = f"{value / whole:.0%}" if whole else "-"
        lines.append(f"  {title[shown]:<26}{100 * value:>8.1f}{share:>10}")
    lines += ["", f"{'IoU':<28}{'whole':>8}{'fore.':>8}{'back.':>8}{'shape':>8}"]
    metrics = [result.evaluations[shown].metrics for shown in SHOWN]
    for k, name in enumerate(metrics[0].names):
        if name in result.foreground and not np.isnan(metrics[0].class_iou[k]):
            values = "".join(f"{100 * m.class_iou[k]:>8.1f}" for m in metrics)
            lines.append(f"  {name:<26}{values}")
    return "\n".join(lines)


def _things(names: Sequence[str], foreground: Sequence[str]) -> tuple[str, ...]:
    unknown = [name for name in foreground if name not in names]
    if unknown:
        raise FullconvError(
            f"the model has no class {unknown[0]!r}; it has {', '.join(names)}.",
            f"--foreground {names[-1]}",
        )
    things = tuple(foreground) or tuple(n for n in names if not is_background(n))
    if len(things) == len(names):
        raise FullconvError(
            f"all of {', '.join(names)} would be foreground; none is called background.",
            f"--foreground {names[-1]}   # with commas between: the classes that are things",
        )
    return things
