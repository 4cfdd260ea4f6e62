"""Weights in files of others: Caffe's, PyTorch's, and safetensors, told apart by content.

A .pth is a pickle, and a pickle can run code. Only tensors and plain containers are read from it;
a file that needs more is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fullconv.core.errors import FullconvError
from fullconv.core.text import shell_command
from fullconv.network.backbone_card import BackboneCard, unreachable
from fullconv.network.paper.caffemodel import read_caffemodel

# Keys under which training scripts keep the weights in a checkpoint.
_NESTED = ("model_state_dict", "state_dict", "model")
_PARTS = ("weight", "bias")


@dataclass(frozen=True)
class Weights:
    """What a file holds.

    Args:
        path: of the file.
        tensors: by name; of a Caffe layer `NAME.weight` and `NAME.bias`.
        kind: "caffe", "torch" or "safetensors".
        architecture: what the file calls its network, or "".
    """

    path: Path
    tensors: Mapping[str, Tensor]
    kind: str
    architecture: str = ""


def read_weights(path: str | Path) -> Weights:
    """Reads a .caffemodel, .pth or .safetensors file.

    Raises:
        FullconvError: no such file; damaged; a pickle that needs code; something without weights.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except OSError as error:
        raise FullconvError(
            f"the weights {path} cannot be read: {error.strerror}.", shell_command("ls", "-l", path)
        ) from None
    if head.startswith(b"\x89HDF"):
        raise FullconvError(
            f"{path} is an HDF5 file; expected a .caffemodel in Caffe's binary format, a .pth or a "
            ".safetensors file.",
            "snapshot_format: BINARYPROTO   # in Caffe's solver",
        )
    if head[8:9] == b"{":
        return Weights(path, _read_safetensors(path), "safetensors")
    if head.startswith((b"PK", b"\x80")) or path.suffix in (".pth", ".pt", ".tar"):
        return _read_torch(path)
    tensors = {
        f"{layer}.{_PARTS[i] if i < len(_PARTS) else i}": blob
        for layer, blobs in read_caffemodel(path).items()
        for i, blob in enumerate(blobs)
    }
    return Weights(path, tensors, "caffe")


def torchvision_weights(card: BackboneCard, name: str) -> Weights:
    """The default weights of torchvision's network `name`, for a card: downloaded once and checked
    by their checksum.

    Raises:
        FullconvError: no network, and they were never downloaded.
    """
    from torchvision.models import get_model_weights

    try:
        tensors = get_model_weights(name).DEFAULT.get_state_dict(progress=True, check_hash=True)
    except (OSError, RuntimeError) as error:
        raise unreachable(card, error) from error
    return Weights(Path(f"torchvision's {name}"), tensors, "torch")


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise FullconvError(
            f"{path} cannot be read: {error}.", f"copy or download {path.name} again"
        ) from None


def _read_torch(path: Path) -> Weights:
    try:
        with path.open("rb") as file, torch.serialization.safe_globals(_numbers_of_numpy()):
            found = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # many kinds: of zip, of pickle, of torch
        said = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        if "weights_only" in str(error) or "Weights only" in str(error):
            raise FullconvError(
                f"{path} is a pickle that needs code to be read (it holds more than weights); "
                "such a file can run anything on this machine: not read.",
                "torch.save(network.state_dict(), 'FILE.pth')   # where the file comes from",
            ) from None
        raise FullconvError(
            f"{path} is damaged or no file of weights: {type(error).__name__}: {said}",
            f"copy or download {path.name} again",
        ) from None
    architecture = ""
    if isinstance(found, dict):
        architecture = str(found.get("arch", ""))
        found = next((found[key] for key in _NESTED if key in found), found)
    if not isinstance(found, dict) or not found or not all(map(_is_named_tensor, found.items())):
        what = type(found).__name__
        if isinstance(found, dict):
            what = f"a dict with {', '.join(map(str, list(found)[:6])) or 'nothing'}"
        raise FullconvError(
            f"{path} holds no weights but {what}; expected tensors by name, or a checkpoint with "
            f"them under {' or '.join(_NESTED)}.",
            "torch.save(network.state_dict(), 'FILE.pth')",
        )
    if all(name.startswith("module.") for name in found):  # of several GPUs
        found = {name.removeprefix("module."): tensor for name, tensor in found.items()}
    return Weights(path, found, "torch", architecture)


def _is_named_tensor(item: tuple[Any, Any]) -> bool:
    return isinstance(item[0], str) and isinstance(item[1], Tensor)


def _numbers_of_numpy() -> list[Any]:
    """Checkpoints keep their best score as a number of NumPy, under its old and its new name."""
    scalar = np.float64(0).__reduce__()[0]
    kinds = [type(np.dtype(kind)) for kind in ("float32", "float64", "int32", "int64")]
    names = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
    return [np.dtype, *kinds, *((scalar, name) for name in names)]
