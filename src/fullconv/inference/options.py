"""Prediction options: which classes, how confident, test-time augmentation.

Nothing here needs torch. Shapes: H, W image.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fullconv.core.errors import FullconvError
from fullconv.core.i18n import msg
from fullconv.core.labels import Labels
from fullconv.core.text import split_list, truncated_list
from fullconv.data.io.masks import mask_dtype
from fullconv.inference.postprocess import remove_small_regions

UNSURE = "unsure"  # the name of pixels below `min_confidence` in areas and legends
WHOLE_IMAGE_HINT = msg("remove --tile if it is given; otherwise save the image as PNG")
_MIN_SCALE, _MAX_SCALE = 0.1, 8.0


@dataclass(frozen=True)
class PredictOptions:
    """Options of a prediction. `classes`, `min_confidence` and `min_area` change the mask, in this
    order.

    Args:
        flip: average the class probabilities of the image and its mirror image.
        scales: average them over the image at these sizes; 1 is its own size.
        classes: keep only these classes; all other pixels get the ignored id. A head that has none
            of them stays as it is.
        min_confidence: pixels whose class has a lower probability (fraction) get the ignored id.
        min_area: regions of fewer pixels take the id that surrounds them most, see
            `fullconv.inference.postprocess.remove_small_regions`. Ignored and unsure pixels count
            as classes.
        keep_scores: keep the logits in the results. Otherwise `Segmentation.probability` and
            `.confidence` run the network again.
        frame_step: segment every Nth frame of a video; the frames in between reuse its mask.
    """

    flip: bool = False
    scales: tuple[float, ...] = (1.0,)
    classes: tuple[str, ...] = ()
    min_confidence: float | None = None
    min_area: int = 0
    keep_scores: bool = False
    frame_step: int = 1

    def __post_init__(self) -> None:
        if not self.scales or not all(_MIN_SCALE <= scale <= _MAX_SCALE for scale in self.scales):
            values = {"scales": self._scales_text(), "low": _MIN_SCALE, "high": _MAX_SCALE}
            message = msg("scales {scales!r}; expected factors from {low:g} to {high:g}.", **values)
            raise FullconvError(message, "--scales 0.75,1,1.25")
        if self.min_confidence is not None and not 0 < self.min_confidence < 1:
            message = msg(
                "a minimum confidence of {value:g}; expected a fraction between 0 and 1.",
                value=self.min_confidence,
            )
            raise FullconvError(message, "--min-confidence 0.6")
        if self.min_area < 0:
            count = self.min_area
            message = msg("a minimum area of {count} pixels; expected 0 or more.", count=count)
            raise FullconvError(message, "--min-area 64")
        if self.frame_step < 1:
            message = msg("a step of {count} frames; expected 1 or more.", count=self.frame_step)
            hint = msg("--frame-step 5   # segments every 5th frame of a video")
            raise FullconvError(message, hint)

    def _scales_text(self) -> str:
        return " ".join(f"{scale:g}" for scale in self.scales)

    @property
    def averaged(self) -> bool:
        """Return whether the probabilities of several views are averaged."""
        return self.flip or self.scales != (1.0,)

    @property
    def from_probabilities(self) -> bool:
        """Return whether the mask of a single view is not enough."""
        return self.averaged or self.min_confidence is not None or self.keep_scores

    def describe(self) -> str:
        """Return the test-time augmentation in words: "none", or "flip, scales 0.75 1 1.25"."""
        parts = ["flip"] * self.flip + [f"scales {self._scales_text()}"] * (self.scales != (1.0,))
        return ", ".join(parts) or "none"

    def require_classes(self, tables: Iterable[Labels]) -> None:
        """Raise FullconvError if `classes` names a class that no head has."""
        names = list(dict.fromkeys(name for labels in tables for name in labels.names))
        for name in self.classes:
            if name in names:
                continue
            similar = get_close_matches(name, names, 3)
            values = {"name": name, "names": truncated_list(similar or names)}
            message = msg("the model has no class {name!r}; it has {names}.", **values)
            if similar:
                message = msg("the model has no class {name!r}; the nearest are {names}.", **values)
            raise FullconvError(message, f"--classes {(similar or names)[0]}")

    def require_windows(self, source: Path) -> None:
        """Raise FullconvError if an option needs an image as a whole that is read in windows."""
        flags = {
            "--flip": self.flip,
            "--scales": self.scales != (1.0,),
            "--classes": bool(self.classes),
            "--min-confidence": self.min_confidence is not None,
            "--min-area": self.min_area > 1,
        }
        used = [flag for flag, is_used in flags.items() if is_used]
        if used:
            values = {"source": source, "options": truncated_list(used)}
            message = msg(
                "{source} is read in windows, which does not support {options}.", **values
            )
            raise FullconvError(message, WHOLE_IMAGE_HINT)

    def apply(
        self, ids: NDArray[Any], labels: Labels, confidence: NDArray[np.float32] | None = None
    ) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        """Apply `classes`, `min_confidence` and `min_area` to (H, W) class ids.

        Args:
            confidence: (H, W) the probability of each pixel's class, if `min_confidence` is set.

        Returns:
            The new ids, and (H, W) which pixels are unsure; None without `confidence`.
        """
        chosen = [labels.names.index(name) for name in self.classes if name in labels.names]
        if not (chosen or confidence is not None or self.min_area > 1):
            return ids, None
        result = ids.astype(np.int32)
        if chosen:
            result[~np.isin(result, chosen)] = labels.ignore_index
        if confidence is not None:
            is_low = confidence < (self.min_confidence or 0)
            result[is_low & (result != labels.ignore_index)] = -1
        if self.min_area > 1:
            result = remove_small_regions(result, self.min_area)
        unsure = result == -1
        result[unsure] = labels.ignore_index
        return result.astype(mask_dtype(labels)), unsure if confidence is not None else None


def parse_scales(text: str) -> tuple[float, ...]:
    """Return the scales of a comma-separated list, 1 if it is empty."""
    try:
        return tuple(float(part) for part in split_list(text)) or (1.0,)
    except ValueError as error:
        message = msg("scales {text!r}; expected comma-separated numbers.", text=text)
        raise FullconvError(message, "--scales 0.75,1,1.25") from error
