"""Predictor: pictures in, segmentations out, in each picture's own size.

model = fullconv.load("runs/.../model")
segmentation = model("street.jpg")
segmentation.mask, segmentation.area["road"], segmentation.overlay().save("street.png")
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from fullconv.data.beside import files_of
from fullconv.data.channels import channels_of
from fullconv.data.pictures import from_array, from_pil, read_picture
from fullconv.engine import Engine
from fullconv.errors import FullconvError
from fullconv.labels import Labels
from fullconv.model import Model, load_model, save_model
from fullconv.network.scores import Scores
from fullconv.outputs import Segmentation, find_pictures
from fullconv.tiles import WHOLE, Read, Span, Tiles, require_tile, window_of

_OVERSHOOT = 0.05  # beyond 0-1 of a float picture that was resized bicubically
Picture = str | Path | Image.Image | np.ndarray | Tensor


class Predictor:
    """A model, ready for pictures of any size.

    Args:
        model: as loaded.
        device: of torch; default: a GPU where there is one.
        precision, compile: see `fullconv.engine.Engine`.
        tile: pixels; pictures that are longer are cut into tiles of so many pixels a side. Default:
            pictures of more than 16.8 million pixels are, see `fullconv.tiles`.
    """

    def __init__(
        self,
        model: Model,
        *,
        device: str | torch.device | None = None,
        precision: str = "auto",
        compile: bool = False,
        tile: int | None = None,
    ) -> None:
        require_tile(tile)
        if tile is not None and model.short_side is not None:
            raise FullconvError(
                "the model wants pictures that are resized as a whole, to "
                f"{model.short_side} pixels: tiles of them would be other pictures.",
                "fullconv predict MODEL PICTURES   # without --tile",
            )
        self.model, self.tile = model, tile
        self.tiles: Tiles | None = None  # once a picture was cut
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.engine = Engine(model, device=self.device, precision=precision, compile=compile)

    @property
    def labels(self) -> Labels:
        """The classes."""
        return self.model.labels

    def __call__(self, picture: Any, *, inputs: Any = ()) -> Any:
        """Segments one picture, a list of them, or all in a folder.

        Args:
            picture: a path, a PIL picture, an (H, W, 3) or (H, W) uint8 array, a (3, H, W) uint8
                tensor or float tensor 0-1; a list of these; or a folder.
            inputs: of a model that takes more than pictures, for each of its inputs, in its order:
                a path or an (H, W) or (H, W, 3) array in the numbers that it was trained with. For
                several pictures, the folders in which each has a file of its name.

        Returns:
            A `Segmentation`; a list of them for a list or a folder.
        """
        if isinstance(picture, (str, Path)) and Path(picture).is_dir():
            picture = [path for path, _ in find_pictures([picture])]
        if isinstance(picture, (list, tuple)):
            beside = self.inputs_of(picture, inputs)
            return [self.segment(one, inputs=of) for one, of in zip(picture, beside, strict=True)]
        return self.segment(picture, inputs=inputs)

    def save(self, folder: str | Path) -> Path:
        """Writes the model as a folder that `load` reads, without network."""
        return save_model(self.model, folder)

    def segment(self, picture: Picture, *, inputs: Sequence[Any] = ()) -> Segmentation:
        """One picture, and what belongs to it."""
        array = as_array(picture)
        source = Path(picture) if isinstance(picture, (str, Path)) else None
        first, *further = self.label_maps(array, inputs)
        heads = {
            name: Segmentation(mask, labels, array, source)
            for (name, labels), mask in zip(self.model.heads.items(), further, strict=True)
        }
        return Segmentation(first, self.labels, array, source, heads)

    def inputs_of(
        self, pictures: Sequence[Any], folders: Sequence[str | Path]
    ) -> list[tuple[Path, ...]]:
        """The files of further inputs of each picture, one folder for each input."""
        self._require_inputs(folders)
        if not folders:
            return [() for _ in pictures]
        nameless = [one for one in pictures if not isinstance(one, (str, Path))]
        if nameless:
            raise FullconvError(
                f"pictures of type {type(nameless[0]).__name__} have no names to find their inputs "
                "by; expected paths.",
                "[model(picture, inputs=[depth]) for picture, depth in zip(pictures, depths)]",
            )
        paths = [Path(one) for one in pictures]
        found = [
            files_of(paths, Path(folder), one.name)
            for folder, one in zip(folders, self.model.inputs, strict=True)
        ]
        return list(zip(*found, strict=True))

    def label_map(self, picture: np.ndarray, inputs: Sequence[Any] = ()) -> np.ndarray:
        """(H, W, 3) uint8 RGB -> (H, W) class ids, of the first head."""
        return self.label_maps(picture, inputs)[0]

    def label_maps(self, picture: np.ndarray, inputs: Sequence[Any] = ()) -> list[np.ndarray]:
        """(H, W, 3) uint8 RGB -> (H, W) class ids, of each head.

        Args:
            inputs: a path or an array for each of the model's further inputs.
        """
        self._require_inputs(inputs)
        tensor = torch.from_numpy(picture.copy()).permute(2, 0, 1)
        if inputs:
            found = [
                channels_of(given, one, picture.shape[:2])
                for given, one in zip(inputs, self.model.inputs, strict=True)
            ]
            beside = torch.from_numpy(np.concatenate(found, axis=2)).permute(2, 0, 1)
            tensor = torch.cat([tensor.float(), beside.float()])
        kinds = [np.uint8 if len(of) <= 255 else np.uint16 for of in self.model.tables]
        maps = [np.empty(picture.shape[:2], kind) for kind in kinds]
        for rows, columns, scores in self.scores(picture.shape[:2], window_of(tensor)):
            for ids, of_head in zip(maps, self.model.split(scores), strict=True):
                ids[slice(*rows), slice(*columns)] = of_head.labels()[0].cpu().numpy()
        return maps

    def scores(self, size: tuple[int, int], read: Read) -> Iterator[tuple[Span, Span, Scores]]:
        """Of a picture (H, W), in as many blocks as it is cut into, one if it is small: rows,
        columns and scores of all heads. `read` gives the pixels of a window, (C, h, w)."""
        long = max(size) > self.tile if self.tile else size[0] * size[1] > WHOLE
        if not long or self.model.short_side is not None:
            rows, columns = (0, size[0]), (0, size[1])
            yield rows, columns, self.engine.scores(read(rows, columns)[None])
            return
        if self.tiles is None:
            running = self.model.network if self.engine.compiled else self.engine.network
            self.tiles = Tiles(
                self.model.network, self.engine.scores, tile=self.tile, running=running.backbone
            )
        yield from self.tiles.scores(size, read)

    def _require_inputs(self, inputs: Sequence[Any]) -> None:
        wanted = [one.name for one in self.model.inputs]
        if len(inputs) != len(wanted):
            raise FullconvError(
                f"the model takes {' and '.join(wanted) or 'nothing'} beside each picture; "
                f"{len(inputs) or 'nothing'} was given.",
                f"--inputs {','.join(wanted)}   # folders; model(picture, inputs=[...]) in Python"
                if wanted
                else "model(picture)   # without inputs",
            )


def load(
    path: str | Path,
    *,
    backbone: nn.Module | str | None = None,
    weights: str | Path | None = None,
    labels: Labels | None = None,
    device: str | torch.device | None = None,
    precision: str = "auto",
    compile: bool = False,
    tile: int | None = None,
) -> Predictor:
    """A model from disk, ready to use: `fullconv.load("runs/.../model")("photo.jpg")`.

    Args:
        path: a model folder, the run that holds it, a .safetensors file; or a model of others:
            "torchvision:fcn_resnet50", a .caffemodel, a .pth (see `fullconv.foreign`).
        backbone: the module, where the model was trained on one of your own.
        weights, labels: of a model of others, if not the published ones.
        device: of torch; default: a GPU where there is one.
        precision, compile: see `fullconv.engine.Engine`.
        tile: see `Predictor`.
    """
    model = load_model(path, backbone=backbone, weights=weights, labels=labels)
    return Predictor(model, device=device, precision=precision, compile=compile, tile=tile)


def as_array(picture: Picture) -> np.ndarray:
    """Any picture as (H, W, 3) uint8 RGB."""
    if isinstance(picture, (str, Path)):
        return read_picture(picture)
    if isinstance(picture, Image.Image):
        return from_pil(picture)
    if isinstance(picture, np.ndarray):
        return from_array(picture)
    if isinstance(picture, Tensor):
        return _of_tensor(picture)
    raise FullconvError(
        f"found something of type {type(picture).__name__}; expected a path, a PIL picture, an "
        "(H, W, 3) uint8 array, a (3, H, W) tensor, or a list of these.",
        'model("photo.jpg")',
    )


def _of_tensor(picture: Tensor) -> np.ndarray:
    shape = tuple(picture.shape)
    if picture.ndim != 3 or shape[0] not in (1, 3, 4) or picture.numel() == 0:
        hint = 'model("photo.jpg")'
        if picture.ndim == 4:
            hint = "model(list(pictures))   # one after the other"
        elif picture.ndim == 3 and shape[2] in (1, 3, 4):
            hint = "model(picture.permute(2, 0, 1))"
        raise FullconvError(
            f"a tensor {shape} is no picture; expected (3, H, W) with at least one pixel.", hint
        )
    picture = picture.detach().cpu()
    if picture.is_floating_point():
        low, high = float(picture.min()), float(picture.max())
        if not (low >= -_OVERSHOOT and high <= 1 + _OVERSHOOT):
            raise FullconvError(
                f"a float tensor with values from {low:.3g} to {high:.3g}; expected 0 to 1 (not "
                "0 to 255, and not normalised: the model does that itself).",
                "model(picture / 255)",
            )
        picture = picture.clamp(0, 1).mul(255).round().to(torch.uint8)
    return from_array(picture.permute(1, 2, 0).numpy())
