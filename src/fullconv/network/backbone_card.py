"""The backbone card: a small TOML file that describes a backbone with given weights.

    source  = "timm"                          # or "torchvision", or "paper"
    name    = "mobilenetv2_100"
    options = { pad_type = "same" }           # passed to the source's constructor
    weights = "mobilenetv2_100.safetensors"   # relative to the card; pickles are not read
    missing = ["head"]                        # modules that the file lacks: initialized
    mean    = [0.5, 0.5, 0.5]                 # of RGB scaled to 0-1
    std     = [0.5, 0.5, 0.5]
    pretrained_on = "ImageNet-1k"
    license = "Apache-2.0"

A model folder stores the same facts, without the path of the weights.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fullconv.core.errors import FullconvError
from fullconv.core.i18n import msg
from fullconv.core.text import first_line, shell_command, truncated_list

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
# Exceptions of download clients without a network; their messages name the clients' internals.
_NO_NETWORK = ("LocalEntryNotFoundError", "OfflineModeIsEnabled", "ConnectError", "URLError")
_SHORTEST_CARD = 'source = "timm"\nname = "resnet18"'


@dataclass(frozen=True)
class BackboneCard:
    """The origin of a backbone, and the normalization of its images.

    Args:
        source: "timm", "torchvision", "paper" (see `fullconv.network.paper.nets`), or "module" for
            a module of the user.
        name: the network's name in that source.
        options: keyword arguments of the source's constructor.
        weights: a .safetensors file (for the paper's networks also .caffemodel or .pth), or None.
        missing: modules (name prefixes) that the file lacks.
        mean, std: of RGB images scaled to 0-1, three fractions each.
        pretrained_on: the training data of the weights; empty for an untrained network.
        license: of the weights.

    >>> card = BackboneCard("timm", "resnet18")
    >>> card.normalize(torch.zeros(1, 3, 4, 5, dtype=torch.uint8)).shape
    torch.Size([1, 3, 4, 5])
    """

    source: str
    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    weights: Path | None = None
    missing: tuple[str, ...] = ()
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    pretrained_on: str = ""
    license: str = ""

    def normalize(self, images: Tensor) -> Tensor:
        """Return uint8 RGB images (N, 3, H, W) as float32, (x / 255 - mean) / std."""
        mean = torch.tensor(self.mean, device=images.device).view(3, 1, 1)
        std = torch.tensor(self.std, device=images.device).view(3, 1, 1)
        # In place, so that a large image is in memory only once.
        return torch.true_divide(images, 255).float().sub_(mean).div_(std)

    def to_dict(self) -> dict[str, Any]:
        """Return the card for config.json: everything but the weights' path."""
        table = asdict(self)
        del table["weights"], table["missing"]
        return {
            **table,
            "options": dict(self.options),
            "mean": list(self.mean),
            "std": list(self.std),
        }

    @classmethod
    def from_dict(cls, table: Mapping[str, Any]) -> BackboneCard:
        """Return the card that `to_dict` wrote."""
        return cls(**{**table, "mean": tuple(table["mean"]), "std": tuple(table["std"])})


def read_card(path: str | Path) -> BackboneCard:
    """Read a backbone card.

    Raises:
        FullconvError: the file is missing or not TOML, keys are unknown or missing, or the weights
            do not exist.
    """
    path = Path(path)
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        folder = next((parent for parent in path.parents if parent.is_dir()), Path())
        message = msg("no backbone card at {path}.", path=path)
        raise FullconvError(message, shell_command("ls", folder)) from None
    except OSError as error:
        message = msg("{path} cannot be read: {reason}.", path=path, reason=error.strerror)
        raise FullconvError(message, shell_command("ls", "-ld", path)) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        message = msg("{path} is not a TOML file: {error}", path=path, error=error)
        raise FullconvError(message, _SHORTEST_CARD) from None

    # Check the keys, then the lists, then the weights.
    keys = {f.name for f in fields(BackboneCard)}
    listed = truncated_list(sorted(keys))
    if unknown := sorted(set(table) - keys):
        message = msg(
            "{path} has unknown keys: {unknown}. The keys of a backbone card are {keys}.",
            path=path,
            unknown=truncated_list(unknown),
            keys=listed,
        )
        raise FullconvError(message, _SHORTEST_CARD)
    if lacking := sorted({"source", "name"} - set(table)):
        message = msg(
            "{path} lacks {missing}. The keys of a backbone card are {keys}.",
            path=path,
            missing=truncated_list(lacking),
            keys=listed,
        )
        raise FullconvError(message, _SHORTEST_CARD)
    for key in ("mean", "std", "missing"):
        if key not in table:
            continue
        value, example = table[key], '["fc"]' if key == "missing" else "[0.5, 0.5, 0.5]"
        if not isinstance(value, list):
            message = msg(
                "{path}: {key} is {value!r}, expected a list.", path=path, key=key, value=value
            )
            raise FullconvError(message, f"{key} = {example}")
        if key != "missing" and len(value) != 3:
            message = msg(
                "{path}: {key} has {count} numbers, expected 3 (RGB).",
                path=path,
                key=key,
                count=len(value),
            )
            raise FullconvError(message, f"{key} = {example}")
        table[key] = tuple(value)
    if "weights" in table:
        weights = table["weights"] = path.parent / table["weights"]
        if not weights.is_file():
            message = msg(
                "{path} names the weights {weights}, which do not exist.",
                path=path,
                weights=weights,
            )
            hint = msg('weights = "FILE.safetensors"   # relative to the card')
            raise FullconvError(message, hint)
    return BackboneCard(**table)


def published_license(card: BackboneCard) -> str:
    """Return the license of the weights that timm publishes for a network; "" if unknown."""
    if card.source != "timm":
        return ""
    import timm

    config = timm.get_pretrained_cfg(card.name, allow_unregistered=True)
    return str(config.license or "") if config else ""


def unreachable_weights_error(card: BackboneCard, error: Exception) -> FullconvError:
    """Return the error for published weights that could not be downloaded."""
    reason = first_line(error)[:200]
    lost = isinstance(error, ConnectionError | TimeoutError)
    if lost or type(error).__name__ in _NO_NETWORK:
        reason = msg("there is no network, or the host does not answer")
    message = msg(
        "the pretrained weights of {name} are not on this machine and could not be "
        "downloaded: {reason}.",
        name=card.name,
        reason=reason,
    )
    hint = msg("--no-pretrained   # or --backbone card.toml with your own weight file")
    return FullconvError(message, hint)
