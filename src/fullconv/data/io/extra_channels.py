"""Read extra input channels such as depth, HHA or infrared: one file beside each image.

Values stay as they are in the file: 16-bit millimeters, float meters, 8-bit infrared. The network
normalizes them by the mean and standard deviation over the training files.

Shapes: H, W image · C channels (1 or 3).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fullconv.core.errors import FullconvError
from fullconv.core.i18n import msg, nmsg
from fullconv.data.io.images import IMAGE_SUFFIXES, open_image, upright
from fullconv.data.io.npy import read_npy

CHANNEL_SUFFIXES = IMAGE_SUFFIXES | {".npy"}
Channels: TypeAlias = NDArray[np.uint8] | NDArray[np.float32]


@dataclass(frozen=True)
class ExtraInput:
    """An extra input of a network, beside the images.

    Args:
        name: name of its folder, such as "depth".
        channels: number of channels, 1 or 3 (C).
        mean, std: mean and standard deviation of each channel over the training files.
    """

    name: str
    channels: int
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return a table for config.json; `from_dict` reads it back."""
        return {**asdict(self), "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, table: dict[str, Any]) -> ExtraInput:
        """Read what `to_dict` returned."""
        return cls(table["name"], table["channels"], tuple(table["mean"]), tuple(table["std"]))


def read_channels(path: str | Path) -> Channels:
    """Read (H, W, C) numbers from an image file of any mode or a .npy file, upright, without alpha.

    The result is uint8, or float32 if the file has more than 8 bits.

    Raises:
        FullconvError: the file cannot be read, or does not hold numbers.
    """
    path = Path(path)
    if path.suffix.lower() == ".npy":
        return from_numbers(read_npy(path, str(path), "input"), str(path))
    with open_image(path, "input") as image:
        return from_numbers(_stored_numbers(upright(image)), str(path))


def from_numbers(array: NDArray[Any], name: str = "the extra input") -> Channels:
    """Convert (H, W), (H, W, 1) or (H, W, 3) numbers to (H, W, C) uint8 or float32."""
    shape = array.shape
    is_image = len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3))
    if not is_image or 0 in shape or array.dtype.kind not in "buif":
        message = msg(
            "{name} holds {dtype} of shape {shape}; expected numbers (height, width) or "
            "(height, width, 3).",
            name=name,
            dtype=array.dtype,
            shape=shape,
        )
        raise FullconvError(message, "np.save('depth.npy', depth.astype('float32'))")
    if array.dtype != np.uint8:
        array = array.astype(np.float32, order="C")
        if not np.isfinite(array).all():
            raise FullconvError(
                msg(
                    "{name} holds numbers that are not finite (NaN or infinite); expected a number "
                    "at every pixel.",
                    name=name,
                ),
                "np.save('depth.npy', np.nan_to_num(depth, nan=0, posinf=0, neginf=0))",
            )
    # PyTorch warns about a read-only array, such as that of a file.
    return np.require(array.reshape(*shape[:2], -1), requirements=["C", "W"])


def read_extra_channels(source: Any, extra: ExtraInput, size: tuple[int, int]) -> Channels:
    """Read (H, W, C) of an extra input that belongs to an image.

    Args:
        source: a path or an array.
        size: (H, W) of the image.

    Raises:
        FullconvError: the file cannot be read, or the size or the number of channels is wrong.
    """
    path = Path(source) if isinstance(source, (str, Path)) else None
    name = str(path) if path else msg("the extra input {name}", name=extra.name)
    channels = read_channels(path) if path else from_numbers(np.asarray(source), name)
    require_size(channels, path or Path(extra.name), size, msg("the image"))
    if channels.shape[2] != extra.channels:
        message = nmsg(
            "{name} has {count} channel; the model was trained with {expected} ({input}).",
            "{name} has {count} channels; the model was trained with {expected} ({input}).",
            count=channels.shape[2],
            name=name,
            expected=extra.channels,
            input=extra.name,
        )
        raise FullconvError(message, f"read_channels(FILE).shape[2] == {extra.channels}")
    return channels


def require_size(channels: Channels, path: Path, size: tuple[int, int], image: str) -> None:
    """Raise an error unless the channels have the size (H, W) of their image."""
    if channels.shape[:2] != size:
        raise FullconvError(
            msg(
                "{path} is {width} x {height} pixels but {image} is {image_width} x "
                "{image_height}; both must show the same pixels.",
                path=path,
                width=channels.shape[1],
                height=channels.shape[0],
                image=image,
                image_width=size[1],
                image_height=size[0],
            ),
            f'Image.open("{path.name}").resize({(size[1], size[0])}, Image.NEAREST)',
        )


def _stored_numbers(image: Image.Image) -> NDArray[Any]:
    if image.mode in ("L", "F", "I", "1") or image.mode.startswith("I;16"):
        return np.asarray(image.convert("L") if image.mode == "1" else image)
    if image.mode in ("LA", "La"):
        return np.asarray(image.getchannel(0))
    if image.mode in ("P", "PA", "RGBa"):
        # Through RGBA, because Pillow warns if a palette with transparency is converted to RGB.
        image = image.convert("RGBA")
    return np.asarray(image if image.mode == "RGBA" else image.convert("RGB"))[..., :3]
