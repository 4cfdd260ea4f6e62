"""Segmenter: what every model does with an image, whichever runtime computes its logits.

Nothing here needs torch, so that exported models run without it.

Shapes: N batch · C channels · E extra channels · K classes · H, W image · h, w cells.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fullconv.core.errors import FullconvError
from fullconv.core.i18n import msg, nmsg
from fullconv.core.labels import Labels
from fullconv.core.text import truncated_list
from fullconv.data.io.extra_channels import ExtraInput, read_extra_channels
from fullconv.data.io.geotiff import raster_size, read_georeferenced
from fullconv.data.io.images import from_array, from_pil, read_image
from fullconv.data.layouts.extra_folders import extra_files
from fullconv.inference.input_files import find_images
from fullconv.inference.options import PredictOptions
from fullconv.inference.probabilities import MAX_VIEW_PIXELS, Probabilities, average_views
from fullconv.inference.segmentation import Segmentation

_OVERSHOOT = 0.05  # how far a float image may exceed 0-1: bicubic resizing does


@dataclass(frozen=True)
class ModelInfo:
    """Facts about a model, whichever runtime computes its logits."""

    labels: Labels  # of the first head
    backbone: str = ""
    stride: int = 1  # in pixels
    pretrained_on: str = ""  # empty for random weights
    training: Mapping[str, Any] = field(default_factory=dict)  # empty for third-party models
    head: str = ""  # name of the first head, if there are several
    heads: Mapping[str, Labels] = field(default_factory=dict)  # the additional heads, by name
    extra_inputs: tuple[ExtraInput, ...] = ()


class Segmenter(ABC):
    """A model that is ready for images of any size.

    Attributes:
        labels_only: whether it returns no logits, and so no probabilities.
        inexact_operations: the operations that keep tiles of large images from being exact; empty
            if tiles are exact or no image was cut yet.
    """

    info: ModelInfo
    labels_only = False
    inexact_operations: tuple[str, ...] = ()
    options = PredictOptions()

    @property
    def labels(self) -> Labels:
        """The classes of the first head."""
        return self.info.labels

    @property
    def heads(self) -> Mapping[str, Labels]:
        """The classes of additional heads, by name."""
        return self.info.heads

    @property
    def tables(self) -> tuple[Labels, ...]:
        """The classes of all heads, the first head first."""
        return (self.info.labels, *self.info.heads.values())

    @property
    def extra_inputs(self) -> tuple[ExtraInput, ...]:
        """The extra channels that the model takes with each image."""
        return self.info.extra_inputs

    def set_options(self, options: PredictOptions) -> None:
        """Apply these prediction options from now on.

        Raises:
            FullconvError: a class that no head has, or an option that this model does not support.
        """
        options.require_classes(self.tables)
        self.options = options

    def __call__(self, image: Any, *, extra_inputs: Any = ()) -> Any:
        """Segment an image, a list of images, or all images in a folder.

        Args:
            image: a path, a PIL image, an (H, W, 3) or (H, W) uint8 array, a (3, H, W) uint8
                tensor or float tensor 0-1; a list of these; or a folder.
            extra_inputs: if the model takes extra channels, a path or an (H, W) or (H, W, 3) array
                for each of its inputs, in the units that it was trained with. For a list or a
                folder of images: folders that hold a file of the same name for each image.

        Returns:
            A `Segmentation`; a list of them for a list or a folder.
        """
        if isinstance(image, (str, Path)) and Path(image).is_dir():
            image = [path for path, _ in find_images([image])]
        if isinstance(image, (list, tuple)):
            files = self.extra_input_files(image, extra_inputs)
            pairs = zip(image, files, strict=True)
            return [self.segment(item, extra_inputs=extra) for item, extra in pairs]
        return self.segment(image, extra_inputs=extra_inputs)

    def segment(self, image: Any, *, extra_inputs: Sequence[Any] = ()) -> Segmentation:
        """Segment one image; see `__call__` for the arguments."""
        # Read the image. A georeferenced TIFF keeps its georeference.
        source = Path(image) if isinstance(image, (str, Path)) else None
        reference = None
        if source and raster_size(source):
            image, reference = read_georeferenced(source)
        array = as_array(image)

        # Run the network. Masks alone are cheaper than probabilities.
        compute = partial(self.probabilities, array, extra_inputs)
        probabilities = compute() if self.options.from_probabilities else None
        if probabilities:
            masks = probabilities.label_maps()
        else:
            masks = self.label_maps(array, extra_inputs)

        # Apply the options to each head. Unless scores are kept, asking a result for its
        # probabilities runs the network again.
        stored = probabilities if self.options.keep_scores else None
        results = []
        for number, (mask, labels) in enumerate(zip(masks, self.tables, strict=True)):
            confidence = None
            if probabilities and self.options.min_confidence is not None:
                confidence = probabilities.confidence(number)
            mask, unsure = self.options.apply(mask, labels, confidence)
            result = Segmentation(mask, labels, array, unsure=unsure, number=number)
            results.append(replace(result, probabilities=(lambda: stored) if stored else compute))
        first, *additional = results
        result = replace(first, heads=dict(zip(self.heads, additional, strict=True)))
        return result.with_source(source, reference) if source else result

    def label_map(self, image: np.ndarray, extra_inputs: Sequence[Any] = ()) -> np.ndarray:
        """Return the class ids (H, W) of the first head for an image (H, W, 3), uint8 RGB."""
        return self.label_maps(image, extra_inputs)[0]

    def label_maps(self, image: np.ndarray, extra_inputs: Sequence[Any] = ()) -> list[np.ndarray]:
        """Return the most likely class of every pixel, (H, W) ids for each head.

        Only `flip` and `scales` of the options apply. `extra_inputs` has a path or an array for
        each of the model's extra inputs.
        """
        channels = self.stack_channels(image, extra_inputs)
        if self.options.averaged:
            return average_views(self.predict_probabilities, channels, self.options).label_maps()
        return self.predict_labels(channels)

    def probabilities(self, image: np.ndarray, extra_inputs: Sequence[Any] = ()) -> Probabilities:
        """Return the probability of each class at every pixel; see `label_maps`."""
        channels = self.stack_channels(image, extra_inputs)
        if self.options.averaged:
            return average_views(self.predict_probabilities, channels, self.options)
        return self.predict_probabilities(channels, (channels.shape[0], channels.shape[1]))

    def predict_with_confidence(
        self, image: np.ndarray, extra_inputs: Sequence[Any] = ()
    ) -> list[tuple[np.ndarray, np.ndarray | None]]:
        """Return `label_maps`, each with the probability (H, W) of its classes, from one run; None
        if the model returns labels only, or if the image is cut into tiles."""
        if self.labels_only or image.shape[0] * image.shape[1] > MAX_VIEW_PIXELS:
            return [(ids, None) for ids in self.label_maps(image, extra_inputs)]
        result = self.probabilities(image, extra_inputs)
        return [(ids, result.confidence(head)) for head, ids in enumerate(result.label_maps())]

    def needs_tiling(self, size: tuple[int, int]) -> bool:
        """Return whether images of (H, W) pixels are cut, and may be read window by window."""
        return False

    @abstractmethod
    def predict_labels(self, channels: np.ndarray) -> list[np.ndarray]:
        """Return the class ids (H, W) of each head for one view, stacked channels (H, W, C)."""

    @abstractmethod
    def predict_probabilities(self, channels: np.ndarray, size: tuple[int, int]) -> Probabilities:
        """Return the probabilities for one view, stacked channels (h, w, C): the image or the image
        resized. `size` is the (H, W) of the image, at whose pixels probabilities are read."""

    @abstractmethod
    def predict_batch(self, images: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
        """Return the logits at the cells and the class ids (N, H, W) of each head for images
        (N, H, W, 3), uint8 RGB."""

    def stack_channels(self, image: np.ndarray, extra_inputs: Sequence[Any] = ()) -> np.ndarray:
        """Return what the network takes: the image (H, W, 3) uint8, or the image and its extra
        channels (H, W, 3 + E) float32."""
        self.require_extra_inputs(extra_inputs)
        if not extra_inputs:
            return image
        size = (image.shape[0], image.shape[1])
        pairs = zip(extra_inputs, self.extra_inputs, strict=True)
        extra = [read_extra_channels(value, extra_input, size) for value, extra_input in pairs]
        return np.concatenate([image, *extra], axis=2).astype(np.float32)

    def extra_input_files(
        self, images: Sequence[Any], folders: Sequence[str | Path]
    ) -> list[tuple[Path, ...]]:
        """Return each image's files of extra channels, one from each folder.

        Raises:
            FullconvError: too few or too many folders, a file is missing, or an image has no name.
        """
        self.require_extra_inputs(folders)
        if not folders:
            return [() for _ in images]
        for image in images:
            if not isinstance(image, (str, Path)):
                message = msg(
                    "an image of type {type} has no file name to find its extra inputs by; "
                    "expected paths.",
                    type=type(image).__name__,
                )
                hint = (
                    "[model(image, extra_inputs=[depth]) for image, depth in zip(images, depths)]"
                )
                raise FullconvError(message, hint)
        paths = [Path(image) for image in images]
        pairs = zip(folders, self.extra_inputs, strict=True)
        files = [extra_files(paths, Path(folder), extra.name) for folder, extra in pairs]
        return list(zip(*files, strict=True))

    def require_extra_inputs(self, extra_inputs: Sequence[Any]) -> None:
        """Raise FullconvError unless there is one value for each extra input of the model."""
        names, count = [extra_input.name for extra_input in self.extra_inputs], len(extra_inputs)
        if count == len(names):
            return
        if not names:
            message = nmsg(
                "the model takes images only; {count} extra input was given.",
                "the model takes images only; {count} extra inputs were given.",
                count,
            )
            raise FullconvError(message, msg("model(image)   # without extra_inputs"))
        message = nmsg(
            "the model takes {names} with each image; {count} extra input was given.",
            "the model takes {names} with each image; {count} extra inputs were given.",
            count,
            names=truncated_list(names),
        )
        hint = msg(
            "--extra-inputs {names}   # folders; model(image, extra_inputs=[...]) in Python",
            names=",".join(names),
        )
        raise FullconvError(message, hint)


def as_array(image: Any) -> np.ndarray:
    """Return a path, a PIL image, an (H, W, 3) or (H, W) uint8 array, or a (3, H, W) tensor as (H,
    W, 3) uint8 RGB.

    Raises:
        FullconvError: not an image.
    """
    if isinstance(image, (str, Path)):
        return read_image(image)
    if isinstance(image, Image.Image):
        return from_pil(image)
    if isinstance(image, np.ndarray):
        return from_array(image)
    if hasattr(image, "is_floating_point"):  # a tensor, without importing torch
        return _from_tensor(image)
    message = msg(
        "an object of type {type} is not an image; expected a path, a PIL image, an (H, W, 3) "
        "uint8 array, a (3, H, W) tensor, or a list of these.",
        type=type(image).__name__,
    )
    raise FullconvError(message, 'model("photo.jpg")')


def _from_tensor(image: Any) -> np.ndarray:
    shape = tuple(image.shape)
    if image.ndim != 3 or shape[0] not in (1, 3, 4) or image.numel() == 0:
        hint = 'model("photo.jpg")'
        if image.ndim == 4:
            hint = msg("model(list(images))   # one after the other")
        elif image.ndim == 3 and shape[2] in (1, 3, 4):
            hint = "model(image.permute(2, 0, 1))"
        message = msg(
            "a tensor {shape} is not an image; expected (3, H, W) with at least one pixel.",
            shape=shape,
        )
        raise FullconvError(message, hint)
    image = image.detach().cpu()
    if image.is_floating_point():
        low, high = float(image.min()), float(image.max())
        if not (low >= -_OVERSHOOT and high <= 1 + _OVERSHOOT):
            message = msg(
                "a float tensor with values from {low:.3g} to {high:.3g}; expected 0 to 1, not "
                "0 to 255 and not normalized (the model normalizes images itself).",
                low=low,
                high=high,
            )
            raise FullconvError(message, "model(image / 255)")
        image = image.clamp(0, 1).mul(255).round().byte()
    return from_array(image.permute(1, 2, 0).numpy())
