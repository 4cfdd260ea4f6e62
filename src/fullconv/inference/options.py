"""Options: what is asked of a model beside its labels.

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
from fullconv.core.labels import Labels
from fullconv.core.text import truncated_list
from fullconv.data.io.masks import mask_dtype
from fullconv.inference.postprocess import remove_small_regions

_SCALES = (0.1, 8.0)  # the smallest and the largest
UNSURE = "unsure"


@dataclass(frozen=True)
class PredictOptions:
    """How a model labels images. The three that change labels come in this order.

    Args:
        flip: average the probabilities of the image and its mirror image.
        scales: average them over the image at these sizes, 1 is its own.
        classes: only these: pixels that the model gives another class get the ignored id. A head
            that has none of them stays as it is.
        min_confidence: pixels whose class has a lower probability than this fraction get the ignored id.
        min_area: regions of fewer pixels take what surrounds them most, see
            `fullconv.inference.postprocess.remove_small_regions`; what is ignored and what is unsure count as classes.
        keep_scores: results keep the scores of their images, so that their probabilities cost no second
            run of the network.
        frame_step: of a video, label each so-many-th frame; those between show the labels before.
    """

    flip: bool = False
    scales: tuple[float, ...] = (1.0,)
    classes: tuple[str, ...] = ()
    min_confidence: float | None = None
    min_area: int = 0
    keep_scores: bool = False
    frame_step: int = 1

    def __post_init__(self) -> None:
        low, high = _SCALES
        wrong = [scale for scale in self.scales if not low <= scale <= high]
        if wrong or not self.scales:
            raise FullconvError(
                f"{f'the scale {wrong[0]:g}' if wrong else 'no scale'}; expected factors from "
                f"{low:g} to {high:g}.",
                "--scales 0.75,1,1.25",
            )
        if self.min_confidence is not None and not 0 < self.min_confidence < 1:
            raise FullconvError(
                f"unsure below a probability of {self.min_confidence:g}; expected a fraction between 0 and "
                "1.",
                "--min-confidence 0.6",
            )
        if self.min_area < 0:
            raise FullconvError(
                f"a smallest area of {self.min_area} pixels; expected 0 or more.", "--min-area 64"
            )
        if self.frame_step < 1:
            raise FullconvError(
                f"every {self.frame_step} frames; expected 1 or more.",
                "--frame-step 5   # each fifth frame of a video",
            )

    @property
    def averaged(self) -> bool:
        """Whether the probabilities of several views are averaged."""
        return self.flip or self.scales != (1.0,)

    @property
    def from_probabilities(self) -> bool:
        """Whether more is needed than the labels of one view."""
        return self.averaged or self.min_confidence is not None or self.keep_scores

    def describe(self) -> str:
        """The views, in words: "none", or "flip, scales 0.75 1 1.25"."""
        scales = " ".join(f"{scale:g}" for scale in self.scales)
        parts = ["flip"] * self.flip + [f"scales {scales}"] * (self.scales != (1.0,))
        return ", ".join(parts) or "none"

    def require_classes(self, tables: Iterable[Labels]) -> None:
        """Refuse a class that no head has."""
        names = list(dict.fromkeys(name for labels in tables for name in labels.names))
        for name in self.classes:
            if name not in names:
                near = get_close_matches(name, names, 3)
                said = (
                    f"the nearest are {truncated_list(near)}"
                    if near
                    else f"it has {truncated_list(names)}"
                )
                raise FullconvError(
                    f"the model has no class {name!r}; {said}.",
                    f"--classes {(near or names)[0]}",
                )

    def require_windows(self, source: Path) -> None:
        """Refuse what needs an image as a whole, of one that is read window by window."""
        named = {
            "--flip": self.flip,
            "--scales": self.scales != (1.0,),
            "--classes": bool(self.classes),
            "--min-confidence": self.min_confidence is not None,
            "--min-area": self.min_area > 1,
        }
        asked = [name for name, there in named.items() if there]
        if asked:
            raise FullconvError(
                f"{source} is read in windows, where there is no {' and no '.join(asked)}.",
                "without --tile, where that is given; else save it as PNG, and predict that",
            )

    def refined(
        self, ids: NDArray[Any], labels: Labels, confidence: NDArray[np.float32] | None = None
    ) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        """(H, W) class ids as they are wanted, and which pixels are unsure, if that was asked.

        Args:
            confidence: (H, W) the probability of each pixel's class, where `min_confidence` is asked for.
        """
        kept = [labels.names.index(name) for name in self.classes if name in labels.names]
        if not (kept or confidence is not None or self.min_area > 1):
            return ids, None
        shown = ids.astype(np.int32)
        if kept:
            shown[~np.isin(shown, kept)] = labels.ignore_index
        if confidence is not None:
            shown[(confidence < (self.min_confidence or 0)) & (shown != labels.ignore_index)] = -1
        if self.min_area > 1:
            shown = remove_small_regions(shown, self.min_area)
        unsure = shown == -1
        shown[unsure] = labels.ignore_index
        return shown.astype(mask_dtype(labels)), unsure if confidence is not None else None


def parse_class_names(text: str) -> tuple[str, ...]:
    """road, car of "road, car"."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def parse_scales(text: str) -> tuple[float, ...]:
    """0.75, 1, 1.25 of "0.75,1,1.25"; 1 of nothing."""
    try:
        return tuple(float(part) for part in parse_class_names(text)) or (1.0,)
    except ValueError as error:
        raise FullconvError(
            f"scales {text!r}; expected numbers with commas between.", "--scales 0.75,1,1.25"
        ) from error
