"""Predictor: a PyTorch model that is ready for images.

model = fullconv.load("runs/.../model")
segmentation = model("street.jpg")
segmentation.mask, segmentation.area["road"], segmentation.overlay().save("street.png")

Shapes: N batch · C channels · K classes · H, W image · h, w cells or window.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from fullconv.core.errors import FullconvError
from fullconv.core.i18n import msg
from fullconv.core.labels import Labels, ids_dtype
from fullconv.core.text import first_line
from fullconv.inference.exported import is_exported, load_exported
from fullconv.inference.options import PredictOptions
from fullconv.inference.probabilities import Probabilities
from fullconv.inference.runtime import Runtime
from fullconv.inference.segmenter import ModelInfo, Segmenter
from fullconv.inference.tiling import (
    MAX_WHOLE_PIXELS,
    Read,
    Span,
    Tiles,
    require_tile,
    window_reader,
)
from fullconv.models.model import Model, save_model
from fullconv.models.open import open_model, resolve_model
from fullconv.network.scores import Scores


class Predictor(Segmenter):
    """A model, ready for images of any size.

    Args:
        model: see `fullconv.models.open.open_model`.
        device: "auto" (see `choose_device`), "cpu", "cuda", "cuda:1", "mps" ...
        precision, compile: see `fullconv.inference.runtime.Runtime`.
        tile: side of a tile in pixels; images with a longer side are cut into tiles. By default
            images of more than 16.8 million pixels are cut, see `fullconv.inference.tiling`.
    """

    def __init__(
        self,
        model: Model,
        *,
        device: str | torch.device = "auto",
        precision: str = "auto",
        compile: bool = False,
        tile: int | None = None,
    ) -> None:
        require_tile(tile)
        if tile is not None and model.short_side is not None:
            message = msg(
                "the model resizes each image to {side} pixels on the shorter side, which "
                "cannot be done tile by tile.",
                side=model.short_side,
            )
            raise FullconvError(message, msg("fullconv predict MODEL IMAGES   # without --tile"))
        self.model, self.tile = model, tile
        self.info = ModelInfo(
            labels=model.labels,
            backbone=model.card.name,
            stride=model.network.stride,
            pretrained_on=model.card.pretrained_on,
            training=model.training,
            head=model.head,
            heads=model.heads,
            extra_inputs=model.extra_inputs,
        )
        self.tiles: Tiles | None = None  # set when the first image is cut
        self.device = choose_device(device)
        self.runtime = Runtime(model, device=self.device, precision=precision, compile=compile)

    def save(self, folder: str | Path) -> Path:
        """Write the model as a folder that `load` reads without network access."""
        return save_model(self.model, folder)

    def set_options(self, options: PredictOptions) -> None:
        """Apply these prediction options from now on.

        Raises:
            FullconvError: see `Segmenter.set_options`; scales if images are resized or cut.
        """
        if options.scales != (1.0,):
            if self.model.short_side is not None:
                message = msg(
                    "the model resizes each image to {side} pixels on the shorter side, so "
                    "--scales has no effect.",
                    side=self.model.short_side,
                )
                raise FullconvError(message, msg("--flip   # without --scales"))
            if self.tile is not None:
                message = msg("--scales and --tile cannot be combined: scaled images are not cut.")
                hint = msg("--tile {tile}   # without --scales", tile=self.tile)
                raise FullconvError(message, hint)
        super().set_options(options)

    def predict_labels(self, channels: np.ndarray) -> list[np.ndarray]:
        size = (channels.shape[0], channels.shape[1])
        maps = [np.empty(size, ids_dtype(len(labels))) for labels in self.tables]
        for rows, columns, scores in self.scores(size, window_reader(_to_tensor(channels))):
            for ids, head in zip(maps, self.model.split(scores), strict=True):
                ids[slice(*rows), slice(*columns)] = head.labels()[0].cpu().numpy()
        return maps

    def predict_probabilities(self, channels: np.ndarray, size: tuple[int, int]) -> Probabilities:
        image = _to_tensor(channels)
        if channels.shape[:2] == size:
            blocks = self.scores(size, window_reader(image))
        else:  # a resized view is never cut
            scores = self.runtime.scores(image[None]).resized(size)
            blocks = iter([((0, size[0]), (0, size[1]), scores)])
        split = [(rows, columns, self.model.split(scores)) for rows, columns, scores in blocks]
        return BlockProbabilities(size, split)

    def predict_batch(self, images: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
        batch = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
        scores = self.runtime.scores(batch)
        maps = [head.labels().cpu().numpy() for head in self.model.split(scores)]
        return scores.values.float().cpu().numpy(), maps

    def needs_tiling(self, size: tuple[int, int]) -> bool:
        is_large = max(size) > self.tile if self.tile else size[0] * size[1] > MAX_WHOLE_PIXELS
        return is_large and self.model.short_side is None

    def scores(self, size: tuple[int, int], read: Read) -> Iterator[tuple[Span, Span, Scores]]:
        """Yield the rows, columns and scores (all heads) of each block of an image (H, W).

        `read` returns the pixels of a window, (C, h, w), given its rows and columns. A small image
        is a single block.
        """
        if not self.needs_tiling(size):
            rows, columns = (0, size[0]), (0, size[1])
            yield rows, columns, self.runtime.scores(read(rows, columns)[None])
            return
        if self.tiles is None:
            running = self.model.network if self.runtime.compiled else self.runtime.network
            self.tiles = Tiles(
                self.model.network, self.runtime.scores, tile=self.tile, running=running.backbone
            )
            self.inexact_operations = self.tiles.inexact_operations
        yield from self.tiles.scores(size, read)


class BlockProbabilities(Probabilities):
    """Probabilities from the rows, the columns and the scores of each head of an image's blocks."""

    def __init__(
        self, size: tuple[int, int], blocks: Sequence[tuple[Span, Span, Sequence[Scores]]]
    ) -> None:
        self.size, self.blocks = size, blocks
        self.counts = tuple(head.num_classes for head in blocks[0][2])

    def rows(self, head: int, start: int, stop: int) -> np.ndarray:
        out = np.empty((self.counts[head], stop - start, self.size[1]), np.float32)
        for (top, bottom), (left, right), heads in self.blocks:
            low, high = max(start, top), min(stop, bottom)
            if low < high:
                part = heads[head].part((low - top, high - top), (0, right - left))
                probabilities = part.full().softmax(dim=1)[0]
                out[:, low - start : high - start, left:right] = probabilities.cpu().numpy()
        return out

    def labels(self, head: int) -> np.ndarray:
        """Return the most likely classes, by the fused kernel."""
        ids = np.empty(self.size, ids_dtype(self.counts[head]))
        for rows, columns, heads in self.blocks:
            ids[slice(*rows), slice(*columns)] = heads[head].labels()[0].cpu().numpy()
        return ids

    def confidence(self, head: int) -> np.ndarray:
        """Return the probability of the most likely classes, by the fused kernel."""
        confidence = np.empty(self.size, np.float32)
        for rows, columns, heads in self.blocks:
            confidence[slice(*rows), slice(*columns)] = heads[head].confidence()[0].cpu().numpy()
        return confidence


def load(
    path: str | Path,
    *,
    backbone: nn.Module | str | None = None,
    weights: str | Path | None = None,
    labels: Labels | None = None,
    device: str | torch.device = "auto",
    precision: str = "auto",
    compile: bool = False,
    tile: int | None = None,
    options: PredictOptions | None = None,
) -> Segmenter:
    """Load a model: `fullconv.load("runs/.../model")("photo.jpg")`.

    Args:
        path: a model folder, a run folder, a .safetensors file, an exported model (see
            `fullconv.inference.exported`), a hub name hf://user/name, or a third-party model:
            "torchvision:fcn_resnet50", a .caffemodel, a .pth (see `fullconv.models.third_party`).
        backbone: the module, if the model was trained on a module of your own.
        weights, labels: for a third-party model, if not the published ones.
        device, precision, compile, tile: see `Predictor`.
        options: test-time augmentation, classes, minimum confidence and so on.

    Returns:
        A `Predictor`, or an `ExportedModel` for an exported model.

    Raises:
        FullconvError: no such model, a damaged one, or a device that is not available.
    """
    path = resolve_model(path)
    if is_exported(path):
        return load_exported(path, tile=tile, options=options)
    model = open_model(path, backbone=backbone, weights=weights, labels=labels)
    predictor = Predictor(model, device=device, precision=precision, compile=compile, tile=tile)
    predictor.set_options(options or PredictOptions())
    return predictor


def choose_device(device: str | torch.device = "auto") -> torch.device:
    """Return a torch device; "auto" is the first of cuda, mps and cpu that is available.

    Raises:
        FullconvError: a device that this machine does not have.
    """
    if device == "auto":
        gpu = "mps" if torch.backends.mps.is_available() else "cpu"
        return torch.device("cuda" if torch.cuda.is_available() else gpu)
    try:
        torch.empty(0, device=device)
        return torch.device(device)
    except (RuntimeError, AssertionError) as error:  # torch without CUDA raises AssertionError
        values = {"device": str(device), "reason": first_line(error)}
        message = msg("device {device} is not available: {reason}.", **values)
        raise FullconvError(message, "--device cpu") from error


def _to_tensor(channels: np.ndarray) -> Tensor:
    """(H, W, C) -> (C, H, W)"""
    return torch.from_numpy(channels.copy()).permute(2, 0, 1)
