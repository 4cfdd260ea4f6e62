"""Labelling: the network, for one picture or for several of one size at once.

Several run together only where that gives the very scores that each gives alone, bit for bit. This
is found out the first time that so many of such a size meet. It rests on one thing: which order
sums are taken in depends on the shapes and not on the values.

Shapes: N pictures · H, W picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fullconv.deployed import Deployed
from fullconv.errors import FullconvError
from fullconv.kernels import arrays
from fullconv.outputs import Segmentation
from fullconv.segmenter import Segmenter

_LARGEST = 1 << 21  # pixels of pictures that run together
_KNOWN = 4096  # shapes that are remembered


@dataclass
class Labelling:
    """A model, and which batches give the scores of single pictures.

    Args:
        model: as loaded.
    """

    model: Segmenter
    known: dict[tuple[int, ...], bool] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.model.inputs:
            names = " and ".join(one.name for one in self.model.inputs)
            raise FullconvError(
                f"the model takes {names} beside each picture; only models of pictures alone "
                "are served.",
                "fullconv predict MODEL PICTURES --inputs FOLDER",
            )

    def together(self, pictures: Sequence[np.ndarray]) -> bool:
        """Whether pictures of one size may run at once; may be asked of any number."""
        shape = pictures[0].shape
        pixels = len(pictures) * shape[0] * shape[1]
        if isinstance(self.model, Deployed):
            return pixels <= _LARGEST and not self.model.labels_inside
        tile = getattr(self.model, "tile", None)
        return pixels <= _LARGEST and not (tile and max(shape) > tile)

    def label(self, pictures: Sequence[np.ndarray]) -> list[Segmentation]:
        """(H, W, 3) uint8 RGB, each -> what `Segmenter.segment` gives of it."""
        if len(pictures) == 1 or not self.together(pictures):
            return [self.model.segment(one) for one in pictures]
        key = (len(pictures), *pictures[0].shape)
        if self.known.get(key) is False:
            return [self.model.segment(one) for one in pictures]
        values, maps = self._batch(np.stack(pictures))
        if key not in self.known:
            alone = [self._batch(one[None])[0][0] for one in pictures]
            if len(self.known) >= _KNOWN:
                self.known.clear()
            self.known[key] = all(map(np.array_equal, values, alone))
            if not self.known[key]:
                return [self.model.segment(one) for one in pictures]
        return [
            self._segmentation(picture, [ids[n] for ids in maps])
            for n, picture in enumerate(pictures)
        ]

    def surely(self, picture: np.ndarray, number: int) -> tuple[Segmentation, np.ndarray]:
        """The same of one picture, and the probability of each pixel's class, (H, W) float32, by
        the head of that number; in one run of the network.

        Raises:
            FullconvError: an exported file that gives class ids and no scores.
        """
        found = self.model.probabilities(picture)
        return self._segmentation(picture, found.label_maps()), found.confidence(number)

    def _segmentation(self, picture: np.ndarray, maps: Sequence[np.ndarray]) -> Segmentation:
        heads = {
            name: Segmentation(ids, labels, picture)
            for (name, labels), ids in zip(self.model.heads.items(), maps[1:], strict=True)
        }
        return Segmentation(maps[0], self.model.labels, picture, None, heads)

    def _batch(self, pictures: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
        """(N, H, W, 3) uint8 -> scores at the cells, and (N, H, W) class ids of each head."""
        planes = np.ascontiguousarray(pictures.transpose(0, 3, 1, 2))
        size = (pictures.shape[1], pictures.shape[2])
        model: Any = self.model
        if isinstance(model, Deployed):
            values = model.run(planes)[0]
            ends = np.cumsum([len(labels) for labels in model.tables])
            parts = np.split(values, ends[:-1], axis=1)
            return values, [arrays.labels(one, model.grid, size) for one in parts]
        import torch  # which a model that is no exported one has loaded

        scores = model.engine.scores(torch.from_numpy(planes))
        maps = [one.labels().cpu().numpy() for one in model.model.split(scores)]
        return scores.values.float().cpu().numpy(), maps
