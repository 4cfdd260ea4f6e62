"""Read weight files from elsewhere, and report what does not fit a network.

Caffe's, PyTorch's and safetensors files are distinguished by their content. A .pth file is a
pickle, and a pickle can run code: only tensors and plain containers are read from it, and a file
that needs more is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fullconv.core.errors import FullconvError
from fullconv.core.i18n import Message, join, msg, nmsg
from fullconv.core.text import first_line, shell_command, truncated_list
from fullconv.network.backbone_card import BackboneCard, unreachable_weights_error
from fullconv.network.paper.caffemodel import read_caffemodel

# Keys under which training scripts keep the weights in a checkpoint.
_NESTED = ("model_state_dict", "state_dict", "model")
TORCH_SUFFIXES = (".pth", ".pt", ".tar")
_BLOB_NAMES = ("weight", "bias")
_LISTED = 4  # tensors of each kind that a mismatch report names


@dataclass(frozen=True)
class Weights:
    """The content of a weight file."""

    path: Path
    tensors: Mapping[str, Tensor]  # by name; the blobs of a Caffe layer: NAME.weight and NAME.bias
    kind: str  # "caffe", "torch" or "safetensors"
    architecture: str = ""  # the file's own name for its network


@dataclass(frozen=True)
class WeightMismatch:
    """The differences between the tensors of a file and those that a network expects, by name; the
    message is to fill into a sentence, and empty if everything fits.

    >>> compare_weights({"a": torch.ones(2)}, {"a": torch.ones(3)}).message
    '1 tensor has the wrong shape: a (2,), expected (3,)'
    """

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    reshaped: tuple[str, ...]
    message: Message

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.reshaped)


def compare_weights(
    tensors: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    fits: Callable[[Tensor, Tensor], bool] = lambda tensor, target: tensor.shape == target.shape,
) -> WeightMismatch:
    """Compare the tensors of a file with those that a network expects, by name. The result is false
    if they fit; `fits` decides whether a tensor can fill the expected one."""
    missing = tuple(name for name in expected if name not in tensors)
    unexpected = tuple(name for name in tensors if name not in expected)
    reshaped = tuple(
        name for name in expected if name in tensors and not fits(tensors[name], expected[name])
    )

    def named(names: tuple[str, ...], source: Mapping[str, Tensor]) -> Message:
        return truncated_list([f"{n} {tuple(source[n].shape)}" for n in names], _LISTED)

    wrong_shapes = [
        msg(
            "{name} {shape}, expected {expected}",
            name=name,
            shape=tuple(tensors[name].shape),
            expected=tuple(expected[name].shape),
        )
        for name in reshaped
    ]
    reports = [
        nmsg(
            "{count} tensor is missing: {names}",
            "{count} tensors are missing: {names}",
            len(missing),
            names=named(missing, expected),
        ),
        nmsg(
            "{count} tensor is not part of the network: {names}",
            "{count} tensors are not part of the network: {names}",
            len(unexpected),
            names=named(unexpected, tensors),
        ),
        nmsg(
            "{count} tensor has the wrong shape: {names}",
            "{count} tensors have the wrong shape: {names}",
            len(reshaped),
            names=truncated_list(wrong_shapes, _LISTED),
        ),
    ]
    message = join([report for report in reports if report.values["count"]], "; ")
    return WeightMismatch(missing, unexpected, reshaped, message)


def read_weights(path: str | Path) -> Weights:
    """Read a .caffemodel, .pth or .safetensors file.

    Raises:
        FullconvError: the file is missing, damaged, a pickle that needs code, or has no weights.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except OSError as error:
        raise FullconvError(
            msg("the weights {path} cannot be read: {reason}.", path=path, reason=error.strerror),
            shell_command("ls", "-l", path),
        ) from None
    if head.startswith(b"\x89HDF"):
        message = msg(
            "{path} is an HDF5 file; expected a .caffemodel in Caffe's binary format, a .pth "
            "or a .safetensors file.",
            path=path,
        )
        raise FullconvError(message, msg("snapshot_format: BINARYPROTO   # in Caffe's solver"))
    if head[8:9] == b"{":
        return Weights(path, _read_safetensors(path), "safetensors")
    if begins_like_torch_file(head) or path.suffix in TORCH_SUFFIXES:
        return _read_torch(path)
    tensors = {
        f"{layer}.{_BLOB_NAMES[i] if i < len(_BLOB_NAMES) else i}": blob
        for layer, blobs in read_caffemodel(path).items()
        for i, blob in enumerate(blobs)
    }
    return Weights(path, tensors, "caffe")


def begins_like_torch_file(head: bytes) -> bool:
    """Return whether the first bytes are of a zip or a pickle, and not of a safetensors file."""
    return head.startswith((b"PK", b"\x80")) and head[8:9] != b"{"


def load_card_weights(classifier: nn.Module, card: BackboneCard) -> None:
    """Load the weights of a backbone card, if it has any, into the whole classifier.

    Raises:
        FullconvError: no .safetensors file, or tensors that do not fit. Only the modules that the
            card lists under `missing` may be absent.
    """
    if card.weights is None:
        return
    if card.weights.suffix != ".safetensors":
        raise FullconvError(
            msg(
                "{file} is not a .safetensors file. A pickle can run code and is not read.",
                file=card.weights.name,
            ),
            "safetensors.torch.save_file(torch.load(FILE, weights_only=True), 'FILE.safetensors')",
        )
    tensors = _read_safetensors(card.weights)

    def may_be_missing(name: str) -> bool:
        return name.endswith("num_batches_tracked") or any(
            name == module or name.startswith(f"{module}.") for module in card.missing
        )

    expected = {
        name: tensor
        for name, tensor in classifier.state_dict().items()
        if name in tensors or not may_be_missing(name)
    }
    if mismatch := compare_weights(tensors, expected):
        absent = list(mismatch.missing[:_LISTED])
        raise FullconvError(
            msg(
                "{file} does not fit {source} {name}: {mismatch}.",
                file=card.weights.name,
                source=card.source,
                name=card.name,
                mismatch=mismatch.message,
            ),
            msg("missing = {names}   # in the card, to initialize them", names=absent)
            if absent
            else msg("name = ...   # in the card: the network that the weights belong to"),
        )
    classifier.load_state_dict(tensors, strict=False)


def download_torchvision_weights(card: BackboneCard, name: str) -> Weights:
    """Return the default weights of torchvision's network `name`, downloaded once and verified by
    their checksum; it is an error if that fails."""
    from torchvision.models import get_model_weights

    try:
        tensors = get_model_weights(name).DEFAULT.get_state_dict(progress=True, check_hash=True)
    except (OSError, RuntimeError) as error:
        raise unreachable_weights_error(card, error) from error
    return Weights(Path(f"torchvision's {name}"), tensors, "torch")


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        message = msg("{path} cannot be read: {error}.", path=path, error=error)
        raise FullconvError(message, msg("copy or download {file} again", file=path.name)) from None


def _read_torch(path: Path) -> Weights:
    try:
        with path.open("rb") as file, torch.serialization.safe_globals(_numpy_scalar_types()):
            content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # zip, pickle and torch raise many kinds
        if "weights_only" in str(error) or "Weights only" in str(error):
            raise FullconvError(
                msg(
                    "{path} is a pickle that holds more than weights. Reading it could run any "
                    "code on this machine, so it is not read.",
                    path=path,
                ),
                msg("torch.save(network.state_dict(), 'FILE.pth')   # where the file comes from"),
            ) from None
        message = msg(
            "{path} is damaged or not a weight file: {kind}: {error}",
            path=path,
            kind=type(error).__name__,
            error=first_line(error)[:200],
        )
        raise FullconvError(message, msg("copy or download {file} again", file=path.name)) from None
    architecture, tensors = "", content
    if isinstance(content, dict):
        architecture = str(content.get("arch", ""))
        tensors = next((content[key] for key in _NESTED if key in content), content)
    is_dict = isinstance(tensors, dict) and len(tensors) > 0
    if not is_dict or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in tensors.items()
    ):
        message = msg(
            "{path} contains no weights but {content}; expected tensors by name, or a "
            "checkpoint with such tensors under {keys}.",
            path=path,
            content=_describe(tensors),
            keys=truncated_list(_NESTED),
        )
        raise FullconvError(message, "torch.save(network.state_dict(), 'FILE.pth')")
    if all(name.startswith("module.") for name in tensors):  # saved by DataParallel
        tensors = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    return Weights(path, tensors, "torch", architecture)


def _describe(content: Any) -> str:
    if not isinstance(content, dict):
        return type(content).__name__
    if not content:
        return msg("an empty dict")
    return msg("a dict with the keys {keys}", keys=truncated_list(list(content), 6))


def _numpy_scalar_types() -> list[Any]:
    """Checkpoints keep their best metric as a NumPy scalar, under its old or its new name."""
    scalar = np.float64(0).__reduce__()[0]
    dtypes = [type(np.dtype(kind)) for kind in ("float32", "float64", "int32", "int64")]
    names = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
    return [np.dtype, *dtypes, *((scalar, name) for name in names)]
