"""Segmenter: what every model does with images, whoever computes its labels.

Nothing here needs torch, so that exported models run without it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fullconv.core.errors import FullconvError
from fullconv.core.labels import Labels
from fullconv.data.io.extra_channels import ExtraInput, read_extra_channels
from fullconv.data.io.geotiff import raster_size, read_georeferenced
from fullconv.data.io.images import from_array, from_pil, read_image
from fullconv.data.layouts.extra_folders import extra_files
from fullconv.inference.input_files import find_images
from fullconv.inference.options import PredictOptions
from fullconv.inference.probabilities import LARGEST, Probabilities, averaged
from fullconv.inference.segmentation import Segmentation


class Segmenter(ABC):
    """A model that is ready for images of any size.

    Attributes:
        labels_only: whether it gives no scores, and so no probabilities.
        inexact_operations: what kept the tiles of large images from being exact; empty where nothing did.
        options: what is asked of it; set by `set_options`.
    """

    labels_only = False
    inexact_operations: tuple[str, ...] = ()
    options = PredictOptions()

    def set_options(self, options: PredictOptions) -> None:
        """Label images so from now on.

        Raises:
            FullconvError: classes that no head has, or what this model cannot do.
        """
        options.require_classes(self.tables)
        self.options = options

    @property
    @abstractmethod
    def labels(self) -> Labels:
        """The classes."""

    @property
    @abstractmethod
    def heads(self) -> Mapping[str, Labels]:
        """The classes of further heads, by name."""

    @property
    @abstractmethod
    def head(self) -> str:
        """What the first head is called, where there are several."""

    @property
    @abstractmethod
    def backbone(self) -> str:
        """What its backbone is called."""

    @property
    @abstractmethod
    def stride(self) -> int:
        """Of its scores, in pixels."""

    @property
    @abstractmethod
    def pretrained_on(self) -> str:
        """What its backbone started from; empty for a fresh start."""

    @property
    def training(self) -> Mapping[str, Any]:
        """What is known of its training; empty of models of others."""
        return {}

    @property
    def tables(self) -> tuple[Labels, ...]:
        """The class tables of all heads, the first one first."""
        return (self.labels, *self.heads.values())

    @property
    @abstractmethod
    def extra_inputs(self) -> tuple[ExtraInput, ...]:
        """What it takes beside images."""

    def label_maps(self, image: np.ndarray, extra_inputs: Sequence[Any] = ()) -> list[np.ndarray]:
        """(H, W, 3) uint8 RGB -> (H, W) class ids, of each head: the likeliest class of every
        pixel, by the views that `options` names.

        Args:
            extra_inputs: a path or an array for each of the model's further inputs.
        """
        planes = self.stack_channels(image, extra_inputs)
        if self.options.averaged:
            return self._probabilities(planes).label_maps()
        return self.predict_labels(planes)

    def predict_with_confidence(
        self, image: np.ndarray, extra_inputs: Sequence[Any] = ()
    ) -> list[tuple[np.ndarray, np.ndarray | None]]:
        """As `label_maps`, each with the probability of the class that every pixel got, (H, W)
        float32, of the same run of the network; None where there are labels alone, and of images
        that are cut into tiles."""
        if self.labels_only or image.shape[0] * image.shape[1] > LARGEST:
            return [(ids, None) for ids in self.label_maps(image, extra_inputs)]
        found = self.probabilities(image, extra_inputs)
        return [(ids, found.confidence(head)) for head, ids in enumerate(found.label_maps())]

    def needs_tiling(self, size: tuple[int, int]) -> bool:
        """Whether images of (H, W) are cut, and so may be read window by window."""
        return False

    @abstractmethod
    def predict_labels(self, planes: np.ndarray) -> list[np.ndarray]:
        """(H, W, C), as `stack_channels` gives it -> (H, W) class ids of each head, of this one view."""

    @abstractmethod
    def predict_batch(self, images: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
        """(N, H, W, 3) uint8 -> scores at the cells, and (N, H, W) class ids of each head."""

    @abstractmethod
    def read(self, planes: np.ndarray, size: tuple[int, int]) -> Probabilities:
        """(h, w, C) -> probabilities at the pixels of an image of size (H, W): of this one, or of
        the one that was resized to it."""

    def probabilities(self, image: np.ndarray, extra_inputs: Sequence[Any] = ()) -> Probabilities:
        """(H, W, 3) uint8 RGB -> the probability of each class at every pixel, by the views that
        `options` names.

        Args:
            extra_inputs: a path or an array for each of the model's further inputs.
        """
        return self._probabilities(self.stack_channels(image, extra_inputs))

    def _probabilities(self, planes: np.ndarray) -> Probabilities:
        if self.options.averaged:
            return averaged(self.read, planes, self.options)
        return self.read(planes, (planes.shape[0], planes.shape[1]))

    def as_array(self, image: Any) -> np.ndarray:
        """Any image as (H, W, 3) uint8 RGB."""
        return as_array(image)

    def __call__(self, image: Any, *, extra_inputs: Any = ()) -> Any:
        """Segments one image, a list of them, or all in a folder.

        Args:
            image: a path, a PIL image, an (H, W, 3) or (H, W) uint8 array, a (3, H, W) uint8
                tensor or float tensor 0-1; a list of these; or a folder.
            extra_inputs: of a model that takes more than images, for each of its inputs, in its order:
                a path or an (H, W) or (H, W, 3) array in the numbers that it was trained with. For
                several images, the folders in which each has a file of its name.

        Returns:
            A `Segmentation`; a list of them for a list or a folder.
        """
        if isinstance(image, (str, Path)) and Path(image).is_dir():
            image = [path for path, _ in find_images([image])]
        if isinstance(image, (list, tuple)):
            beside = self.extra_input_files(image, extra_inputs)
            return [
                self.segment(one, extra_inputs=of) for one, of in zip(image, beside, strict=True)
            ]
        return self.segment(image, extra_inputs=extra_inputs)

    def segment(self, image: Any, *, extra_inputs: Sequence[Any] = ()) -> Segmentation:
        """One image, and what belongs to it."""
        source = Path(image) if isinstance(image, (str, Path)) else None
        if source and raster_size(source):
            array, place = read_georeferenced(source)
            return self.segment(array, extra_inputs=extra_inputs).of_file(source, place)
        array = self.as_array(image)
        again = partial(self.probabilities, array, extra_inputs)  # the network runs once more
        found = again() if self.options.from_probabilities else None
        maps = found.label_maps() if found else self.label_maps(array, extra_inputs)
        of_result = (lambda: found) if found and self.options.keep_scores else again
        results = []
        for number, (ids, labels) in enumerate(zip(maps, self.tables, strict=True)):
            sure = (
                found.confidence(number)
                if found and self.options.min_confidence is not None
                else None
            )
            ids, unsure = self.options.refined(ids, labels, sure)
            made = Segmentation(ids, labels, array, source, unsure=unsure)
            results.append(replace(made, probabilities=of_result, number=number))
        first, *further = results
        return replace(first, heads=dict(zip(self.heads, further, strict=True)))

    def extra_input_files(
        self, images: Sequence[Any], folders: Sequence[str | Path]
    ) -> list[tuple[Path, ...]]:
        """The files of further inputs of each image, one folder for each input."""
        self.require_extra_inputs(folders)
        if not folders:
            return [() for _ in images]
        nameless = [one for one in images if not isinstance(one, (str, Path))]
        if nameless:
            raise FullconvError(
                f"images of type {type(nameless[0]).__name__} have no names to find their inputs "
                "by; expected paths.",
                "[model(image, extra_inputs=[depth]) for image, depth in zip(images, depths)]",
            )
        paths = [Path(one) for one in images]
        found = [
            extra_files(paths, Path(folder), one.name)
            for folder, one in zip(folders, self.extra_inputs, strict=True)
        ]
        return list(zip(*found, strict=True))

    def label_map(self, image: np.ndarray, extra_inputs: Sequence[Any] = ()) -> np.ndarray:
        """(H, W, 3) uint8 RGB -> (H, W) class ids, of the first head."""
        return self.label_maps(image, extra_inputs)[0]

    def stack_channels(self, image: np.ndarray, extra_inputs: Sequence[Any] = ()) -> np.ndarray:
        """(H, W, 3) uint8 RGB and what belongs to it -> what the network takes: (H, W, 3) uint8, or
        (H, W, 3 + E) float32 where there are further inputs."""
        self.require_extra_inputs(extra_inputs)
        if not extra_inputs:
            return image
        found = [
            read_extra_channels(given, one, (image.shape[0], image.shape[1]))
            for given, one in zip(extra_inputs, self.extra_inputs, strict=True)
        ]
        return np.concatenate([image, *found], axis=2).astype(np.float32)

    def require_extra_inputs(self, extra_inputs: Sequence[Any]) -> None:
        """Refuse more or fewer than the model takes."""
        wanted = [one.name for one in self.extra_inputs]
        if len(extra_inputs) != len(wanted):
            raise FullconvError(
                f"the model takes {' and '.join(wanted) or 'nothing'} beside each image; "
                f"{len(extra_inputs) or 'nothing'} was given.",
                f"--extra-inputs {','.join(wanted)}   # folders; model(image, extra_inputs=[...]) in Python"
                if wanted
                else "model(image)   # without inputs",
            )


def as_array(image: Any) -> np.ndarray:
    """A path, a PIL image or an array as (H, W, 3) uint8 RGB."""
    if isinstance(image, (str, Path)):
        return read_image(image)
    if isinstance(image, Image.Image):
        return from_pil(image)
    if isinstance(image, np.ndarray):
        return from_array(image)
    raise FullconvError(
        f"found something of type {type(image).__name__}; expected a path, a PIL image, an "
        "(H, W, 3) uint8 array, a (3, H, W) tensor, or a list of these.",
        'model("photo.jpg")',
    )
