"""Channels that are no colours: depth, HHA, infrared, one file beside each image.

Numbers stay what they are in the file: 16 bit of millimetres, floats of metres, 8 bit of infrared.
What a number means to the network is decided by the mean and the spread over the training files.

Shapes: H, W image · C channels (1 or 3).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fullconv.core.errors import FullconvError
from fullconv.core.text import plural, shell_command
from fullconv.data.io.images import IMAGE_SUFFIXES, open_image, upright
from fullconv.data.io.limits import no_warnings, refuse_large

CHANNEL_SUFFIXES = IMAGE_SUFFIXES | {".npy"}
Channels: TypeAlias = NDArray[np.uint8] | NDArray[np.float32]


@dataclass(frozen=True)
class ExtraInput:
    """What goes into a network beside the images.

    Args:
        name: of its folder: "depth".
        channels: 1 or 3 (C).
        mean, std: of each channel over the training files, in the files' own numbers.
    """

    name: str
    channels: int
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """For config.json; `from_dict` reads it back."""
        return {
            "name": self.name,
            "channels": self.channels,
            "mean": list(self.mean),
            "std": list(self.std),
        }

    @classmethod
    def from_dict(cls, table: dict[str, Any]) -> ExtraInput:
        """Of what `to_dict` wrote."""
        return cls(table["name"], table["channels"], tuple(table["mean"]), tuple(table["std"]))


def read_channels(path: str | Path) -> Channels:
    """(H, W, C) of an image file in any mode, upright, or of a .npy file: uint8, or float32 where
    the file holds more than 8 bits. Alpha is dropped.

    Raises:
        FullconvError: it cannot be read, or holds what is no number.
    """
    path = Path(path)
    if path.suffix.lower() == ".npy":
        return from_numbers(_load(path), str(path))
    with open_image(path, "input") as image:
        return from_numbers(_numbers_of(upright(image)), str(path))


def from_numbers(array: NDArray[Any], name: str = "an input") -> Channels:
    """(H, W), (H, W, 1) or (H, W, 3) numbers -> (H, W, C) as `read_channels` gives them."""
    shape = array.shape
    fine = len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3))
    if not fine or 0 in shape or array.dtype.kind not in "buif":
        raise FullconvError(
            f"{name} holds {array.dtype} of shape {shape}; expected numbers (height, width) or "
            "(height, width, 3).",
            "np.save('depth.npy', depth.astype('float32'))",
        )
    if array.dtype != np.uint8:
        array = array.astype(np.float32)
        if not np.isfinite(array).all():
            raise FullconvError(
                f"{name} holds numbers that are not finite (NaN, or infinite); expected a number "
                "at every pixel.",
                "np.save('depth.npy', np.nan_to_num(depth, nan=0, posinf=0, neginf=0))",
            )
    return np.ascontiguousarray(array.reshape(*shape[:2], -1))


def read_extra_channels(given: Any, one: ExtraInput, size: tuple[int, int]) -> Channels:
    """(H, W, C) of a further input's file or array, that must belong to an image of a size (H, W).

    Raises:
        FullconvError: it cannot be read, or has another size or number of channels.
    """
    path = Path(given) if isinstance(given, (str, Path)) else None
    found = read_channels(path) if path else from_numbers(np.asarray(given), f"input {one.name}")
    require_size(found, path or Path(one.name), size, "the image")
    if found.shape[2] != one.channels:
        raise FullconvError(
            f"{path or f'input {one.name}'} has {plural(found.shape[2], 'channel')}; "
            f"{plural(one.channels, 'channel')} of {one.name} were trained with.",
            f"read_channels(FILE).shape[2] == {one.channels}",
        )
    return found


def require_size(channels: Channels, path: Path, size: tuple[int, int], image: str) -> None:
    """Refuse what is of another size (H, W) than its image."""
    if channels.shape[:2] != size:
        raise FullconvError(
            f"{path} is {channels.shape[1]} x {channels.shape[0]} pixels but {image} is "
            f"{size[1]} x {size[0]}; they must show the same pixels.",
            f'Image.open("{path.name}").resize({(size[1], size[0])}, Image.NEAREST)',
        )


def _numbers_of(image: Image.Image) -> NDArray[Any]:
    if image.mode in ("L", "F", "I", "1") or image.mode.startswith("I;16"):
        return np.asarray(image.convert("L") if image.mode == "1" else image)
    if image.mode in ("LA", "La"):
        return np.asarray(image.getchannel(0))
    if image.mode in ("P", "PA", "RGBa"):
        # By way of RGBA: Pillow warns about palettes with transparency that go to RGB directly.
        image = image.convert("RGBA")
    return np.asarray(image if image.mode == "RGBA" else image.convert("RGB"))[..., :3]


def _load(path: Path) -> NDArray[Any]:
    try:
        with no_warnings, path.open("rb") as file:
            array = np.lib.format.open_memmap(path, mode="r") if file.read(1) else None
            if array is None:
                raise ValueError("the file is empty (0 bytes)")
            if len(array.shape) >= 2:
                refuse_large((array.shape[0], array.shape[1]), "input", str(path))
            return np.array(array)
    except FileNotFoundError as error:
        nearest = next((p for p in path.parents if p.is_dir()), Path())
        raise FullconvError(
            f"no input {path}: there is no such file.", shell_command("ls", nearest)
        ) from error
    except (OSError, ValueError, TypeError, KeyError, SyntaxError, EOFError) as error:
        said = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
        raise FullconvError(
            f"{path} cannot be read as a NumPy file: {said}.",
            f"copy or download {path.name} again, or np.save({path.name!r}, depth)",
        ) from error
