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

from fullconv.core.errors import FullconvError
from fullconv.core.i18n import msg, nmsg
from fullconv.data.io.images import IMAGE_SUFFIXES, open_image, upright
from fullconv.data.io.npy import read_npy

CHANNEL_SUFFIXES = IMAGE_SUFFIXES | {".npy"}
Channels: TypeAlias = NDArray[np.uint8] | NDArray[np.float32]


@dataclass(frozen=True)
class ExtraInput:
    """An extra input of a network, beside the images."""

    name: str  # of its folder, such as "depth"
    channels: int  # 1 or 3 (C)
    mean: tuple[float, ...] = ()  # of each channel over the training files
    std: tuple[float, ...] = ()  # standard deviation

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
    """
    path = Path(path)
    if path.suffix.lower() == ".npy":
        return from_numbers(read_npy(path, str(path), "input"), str(path))
    with open_image(path, "input") as opened:
        image = upright(opened)
        if image.mode in ("L", "F", "I", "1") or image.mode.startswith("I;16"):
            numbers = np.asarray(image.convert("L") if image.mode == "1" else image)
        elif image.mode in ("LA", "La"):
            numbers = np.asarray(image.getchannel(0))
        else:
            # Through RGBA, because Pillow warns if a palette with transparency is converted to RGB.
            mode = "RGBA" if image.mode in ("P", "PA", "RGBa", "RGBA") else "RGB"
            numbers = np.asarray(image.convert(mode))[..., :3]
        return from_numbers(numbers, str(path))


def from_numbers(array: NDArray[Any], name: str = "the extra input") -> Channels:
    """Convert (H, W), (H, W, 1) or (H, W, 3) numbers to (H, W, C) uint8 or float32."""
    shape = array.shape
    is_image = len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3))
    if not is_image or 0 in shape or array.dtype.kind not in "buif":
        values = {"name": name, "dtype": array.dtype, "shape": shape}
        message = msg(
            "{name} holds {dtype} of shape {shape}; expected numbers (height, width) or "
            "(height, width, 3).",
            **values,
        )
        raise FullconvError(message, "np.save('depth.npy', depth.astype('float32'))")
    if array.dtype != np.uint8:
        array = array.astype(np.float32, order="C")
        if not np.isfinite(array).all():
            message = msg(
                "{name} holds numbers that are not finite (NaN or infinite); expected a number at "
                "every pixel.",
                name=name,
            )
            hint = "np.save('depth.npy', np.nan_to_num(depth, nan=0, posinf=0, neginf=0))"
            raise FullconvError(message, hint)
    # PyTorch warns about a read-only array, such as that of a file.
    return np.require(array.reshape(*shape[:2], -1), requirements=["C", "W"])


def read_extra_channels(source: Any, extra: ExtraInput, size: tuple[int, int]) -> Channels:
    """Read (H, W, C) of an extra input from a path or an array.

    Raises:
        FullconvError: the file cannot be read, or does not have the channels of `extra` or the
            size (H, W) of its image.
    """
    path = Path(source) if isinstance(source, (str, Path)) else None
    name = str(path) if path else msg("the extra input {name}", name=extra.name)
    channels = read_channels(path) if path else from_numbers(np.asarray(source), name)
    require_size(channels, path or Path(extra.name), size, msg("the image"))
    if channels.shape[2] != extra.channels:
        values = {"name": name, "expected": extra.channels, "input": extra.name}
        message = nmsg(
            "{name} has {count} channel; the model was trained with {expected} ({input}).",
            "{name} has {count} channels; the model was trained with {expected} ({input}).",
            channels.shape[2],
            **values,
        )
        raise FullconvError(message, f"read_channels(FILE).shape[2] == {extra.channels}")
    return channels


def require_size(channels: Channels, path: Path, size: tuple[int, int], image: str) -> None:
    """Raise an error unless the channels have the size (H, W) of their image."""
    if channels.shape[:2] != size:
        values = {"path": path, "width": channels.shape[1], "height": channels.shape[0]}
        message = msg(
            "{path} is {width} x {height} pixels but {image} is {image_width} x {image_height}; "
            "both must show the same pixels.",
            **values,
            image=image,
            image_width=size[1],
            image_height=size[0],
        )
        new_size = (size[1], size[0])
        hint = f'Image.open("{path.name}").resize({new_size}, Image.NEAREST)'
        raise FullconvError(message, hint)
