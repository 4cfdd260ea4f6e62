"""Predictor: images in, segmentations out, in each image's own size.

model = fullconv.load("runs/.../model")
segmentation = model("street.jpg")
segmentation.mask, segmentation.area["road"], segmentation.overlay().save("street.png")
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from fullconv.core.errors import FullconvError
from fullconv.core.i18n import msg
from fullconv.core.labels import Labels
from fullconv.core.text import first_line
from fullconv.data.io.extra_channels import ExtraInput
from fullconv.data.io.images import from_array
from fullconv.inference.exported import is_exported, load_exported
from fullconv.inference.options import PredictOptions
from fullconv.inference.probabilities import Probabilities, ids_dtype
from fullconv.inference.runtime import Runtime
from fullconv.inference.segmenter import Segmenter
from fullconv.inference.segmenter import as_array as array_of
from fullconv.inference.tiling import WHOLE, Read, Span, Tiles, require_tile, window_reader
from fullconv.models.hub import resolve_hub_name
from fullconv.models.model import Model, load_model, save_model
from fullconv.network.scores import Scores

_OVERSHOOT = 0.05  # beyond 0-1 of a float image that was resized bicubically
ImageLike = str | Path | Image.Image | np.ndarray | Tensor


class Predictor(Segmenter):
    """A model, ready for images of any size.

    Args:
        model: as loaded.
        device: "auto" (see `choose_device`), "cpu", "cuda", "cuda:1", "mps" ...
        precision, compile: see `fullconv.inference.runtime.Runtime`.
        tile: pixels; images that are longer are cut into tiles of so many pixels a side. Default:
            images of more than 16.8 million pixels are, see `fullconv.inference.tiling`.
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
            raise FullconvError(
                "the model wants images that are resized as a whole, to "
                f"{model.short_side} pixels: tiles of them would be other images.",
                "fullconv predict MODEL IMAGES   # without --tile",
            )
        self.model, self.tile = model, tile
        self.tiles: Tiles | None = None  # once an image was cut
        self.device = choose_device(device)
        self.engine = Runtime(model, device=self.device, precision=precision, compile=compile)

    @property
    def labels(self) -> Labels:
        """The classes."""
        return self.model.labels

    @property
    def heads(self) -> Mapping[str, Labels]:
        """The classes of further heads, by name."""
        return self.model.heads

    @property
    def head(self) -> str:
        """What the first head is called, where there are several."""
        return self.model.head

    @property
    def backbone(self) -> str:
        """What its backbone is called."""
        return self.model.card.name

    @property
    def stride(self) -> int:
        """Of its scores, in pixels."""
        return self.model.network.stride

    @property
    def pretrained_on(self) -> str:
        """What its backbone started from; empty for a fresh start."""
        return self.model.card.pretrained_on

    @property
    def training(self) -> Mapping[str, Any]:
        """What is known of its training; empty of models of others."""
        return self.model.training

    @property
    def extra_inputs(self) -> tuple[ExtraInput, ...]:
        """What it takes beside images."""
        return self.model.extra_inputs

    def save(self, folder: str | Path) -> Path:
        """Writes the model as a folder that `load` reads, without network."""
        return save_model(self.model, folder)

    def predict_batch(self, images: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
        """(N, H, W, 3) uint8 -> scores at the cells, and (N, H, W) class ids of each head."""
        planes = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
        scores = self.engine.scores(planes)
        maps = [part.labels().cpu().numpy() for part in self.model.split(scores)]
        return scores.values.float().cpu().numpy(), maps

    def as_array(self, image: Any) -> np.ndarray:
        """Also of a tensor."""
        return as_array(image)

    def set_options(self, options: PredictOptions) -> None:
        """Also refuses scales where images are resized anyway, or cut into tiles."""
        if options.scales != (1.0,):
            if self.model.short_side is not None:
                raise FullconvError(
                    f"the model resizes every image to {self.model.short_side} pixels on its "
                    "shorter side: other scales would make no other image.",
                    "--flip   # without --scales",
                )
            if self.tile is not None:
                raise FullconvError(
                    "images at other scales are taken whole: --scales and --tile do not go "
                    "together.",
                    f"--tile {self.tile}   # without --scales",
                )
        super().set_options(options)

    def predict_labels(self, planes: np.ndarray) -> list[np.ndarray]:
        """(H, W, C), as `stack_channels` gives it -> (H, W) class ids of each head; of blocks, one after
        the other."""
        size = (planes.shape[0], planes.shape[1])
        maps = [np.empty(size, ids_dtype(len(of))) for of in self.tables]
        for rows, columns, scores in self.scores(size, window_reader(_tensor(planes))):
            for ids, of_head in zip(maps, self.model.split(scores), strict=True):
                ids[slice(*rows), slice(*columns)] = of_head.labels()[0].cpu().numpy()
        return maps

    def read(self, planes: np.ndarray, size: tuple[int, int]) -> Probabilities:
        """See `Segmenter.read`."""
        shown = (planes.shape[0], planes.shape[1])
        if shown != size:  # which is never cut
            scores = self.engine.scores(_tensor(planes)[None]).resized(size)
            return Blocks(size, [((0, size[0]), (0, size[1]), self.model.split(scores))])
        found = self.scores(size, window_reader(_tensor(planes)))
        return Blocks(size, [(r, c, self.model.split(scores)) for r, c, scores in found])

    def needs_tiling(self, size: tuple[int, int]) -> bool:
        """See `Segmenter.cuts`."""
        long = max(size) > self.tile if self.tile else size[0] * size[1] > WHOLE
        return long and self.model.short_side is None

    def scores(self, size: tuple[int, int], read: Read) -> Iterator[tuple[Span, Span, Scores]]:
        """Of an image (H, W), in as many blocks as it is cut into, one if it is small: rows,
        columns and scores of all heads. `read` gives the pixels of a window, (C, h, w)."""
        if not self.needs_tiling(size):
            rows, columns = (0, size[0]), (0, size[1])
            yield rows, columns, self.engine.scores(read(rows, columns)[None])
            return
        if self.tiles is None:
            running = self.model.network if self.engine.compiled else self.engine.network
            self.tiles = Tiles(
                self.model.network, self.engine.scores, tile=self.tile, running=running.backbone
            )
            self.inexact_operations = self.tiles.reasons
        yield from self.tiles.scores(size, read)


class Blocks(Probabilities):
    """Read from the scores of the blocks of an image.

    Args:
        size: of the image, (H, W).
        blocks: rows, columns and the scores of each head.
    """

    def __init__(
        self, size: tuple[int, int], blocks: Sequence[tuple[Span, Span, Sequence[Scores]]]
    ) -> None:
        self.size, self.blocks = size, blocks
        self.counts = tuple(of.num_classes for of in blocks[0][2])

    def rows(self, head: int, start: int, stop: int) -> np.ndarray:
        """See `Probabilities`."""
        out = np.empty((self.counts[head], stop - start, self.size[1]), np.float32)
        for (top, bottom), (left, right), heads in self.blocks:
            low, high = max(start, top), min(stop, bottom)
            if low < high:
                part = heads[head].part((low - top, high - top), (0, right - left))
                found = part.full().softmax(dim=1)[0]
                out[:, low - start : high - start, left:right] = found.cpu().numpy()
        return out

    def labels(self, head: int) -> np.ndarray:
        """Read block by block."""
        out = np.empty(self.size, ids_dtype(self.counts[head]))
        for rows, columns, heads in self.blocks:
            out[slice(*rows), slice(*columns)] = heads[head].labels()[0].cpu().numpy()
        return out

    def confidence(self, head: int) -> np.ndarray:
        """Read block by block."""
        out = np.empty(self.size, np.float32)
        for rows, columns, heads in self.blocks:
            out[slice(*rows), slice(*columns)] = heads[head].confidence()[0].cpu().numpy()
        return out


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
    """A model from disk, ready to use: `fullconv.load("runs/.../model")("photo.jpg")`.

    Args:
        path: a model folder, the run that holds it, a .safetensors file; what `fullconv.deploy.export`
            wrote (see `fullconv.inference.exported`); hf://user/name, a model on a hub (see `fullconv.models.hub`);
            or a model of others: "torchvision:fcn_resnet50", a .caffemodel, a .pth (see
            `fullconv.models.third_party`).
        backbone: the module, where the model was trained on one of your own.
        weights, labels: of a model of others, if not the published ones.
        device: "auto" (see `choose_device`), "cpu", "cuda", "cuda:1", "mps" ...
        precision, compile: see `fullconv.inference.runtime.Runtime`.
        tile: see `Predictor`.
        options: averages over views, classes that are wanted, and the like: see
            `fullconv.inference.options.PredictOptions`.

    Returns:
        A `Predictor`; of an exported model a `fullconv.inference.exported.ExportedModel`.
    """
    path = resolve_hub_name(path)
    if is_exported(path):
        return load_exported(path, tile=tile, options=options)
    model = load_model(path, backbone=backbone, weights=weights, labels=labels)
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
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        raise FullconvError(
            msg(
                "device {device} is not available: {reason}.",
                device=str(device),
                reason=first_line(error),
            ),
            "--device cpu",
        ) from error


def as_array(image: ImageLike) -> np.ndarray:
    """Any image as (H, W, 3) uint8 RGB."""
    return _of_tensor(image) if isinstance(image, Tensor) else array_of(image)


def _tensor(planes: np.ndarray) -> Tensor:
    """(H, W, C) -> (C, H, W)"""
    return torch.from_numpy(planes.copy()).permute(2, 0, 1)


def _of_tensor(image: Tensor) -> np.ndarray:
    shape = tuple(image.shape)
    if image.ndim != 3 or shape[0] not in (1, 3, 4) or image.numel() == 0:
        hint = 'model("photo.jpg")'
        if image.ndim == 4:
            hint = "model(list(images))   # one after the other"
        elif image.ndim == 3 and shape[2] in (1, 3, 4):
            hint = "model(image.permute(2, 0, 1))"
        raise FullconvError(
            f"a tensor {shape} is no image; expected (3, H, W) with at least one pixel.", hint
        )
    image = image.detach().cpu()
    if image.is_floating_point():
        low, high = float(image.min()), float(image.max())
        if not (low >= -_OVERSHOOT and high <= 1 + _OVERSHOOT):
            raise FullconvError(
                f"a float tensor with values from {low:.3g} to {high:.3g}; expected 0 to 1 (not "
                "0 to 255, and not normalised: the model does that itself).",
                "model(image / 255)",
            )
        image = image.clamp(0, 1).mul(255).round().to(torch.uint8)
    return from_array(image.permute(1, 2, 0).numpy())
