"""The backbone card: a small TOML file that says all one must know to start from given weights.

    source  = "timm"                          # or "torchvision", or "paper"
    name    = "mobilenetv2_100"
    options = { pad_type = "same" }           # passed to the source's constructor
    weights = "mobilenetv2_100.safetensors"   # relative to the card; no pickles
    missing = ["head"]                        # modules that the file lacks, to start fresh
    mean    = [0.5, 0.5, 0.5]                 # of RGB scaled to 0-1
    std     = [0.5, 0.5, 0.5]
    pretrained_on = "ImageNet-1k"
    license = "Apache-2.0"

A model folder keeps the same facts, without the path of the weights.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fullconv.core.errors import FullconvError
from fullconv.core.text import shell_command

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
# What the clients raise then, whose own words name their internals.
_NO_NETWORK = ("LocalEntryNotFoundError", "OfflineModeIsEnabled", "ConnectError", "URLError")
_CARD = 'source = "timm"\nname = "resnet18"'  # the shortest card


@dataclass(frozen=True)
class BackboneCard:
    """Where a backbone comes from and what its images looked like.

    Args:
        source: "timm", "torchvision", "paper" (see `fullconv.network.paper.nets`), or "module" (a
            module of the user's own).
        name: in that source.
        options: keywords of the source's constructor.
        weights: a .safetensors file (of the paper's networks also .caffemodel or .pth), or None.
        missing: modules (name prefixes) that the file lacks.
        mean, std: of RGB images scaled to 0-1, three fractions each.
        pretrained_on: what the weights were trained on; empty for a fresh start.
        license: of the weights.
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

    def normalise(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) uint8 RGB -> float, as the weights expect it: (x / 255 - mean) / std."""
        mean = torch.tensor(self.mean, device=images.device).view(3, 1, 1)
        std = torch.tensor(self.std, device=images.device).view(3, 1, 1)
        # In place: large images are held once.
        return torch.true_divide(images, 255).float().sub_(mean).div_(std)

    def to_dict(self) -> dict[str, Any]:
        """For config.json: everything but the path of the weights."""
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
        """Of what `to_dict` wrote."""
        return cls(**{**table, "mean": tuple(table["mean"]), "std": tuple(table["std"])})


def read_card(path: str | Path) -> BackboneCard:
    """Reads a backbone card.

    Raises:
        FullconvError: no such file, not TOML, unknown or missing keys, or no weights there.
    """
    path = Path(path)
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        nearest = next((p for p in path.parents if p.is_dir()), Path())
        raise FullconvError(f"no backbone card at {path}.", shell_command("ls", nearest)) from None
    except OSError as error:
        raise FullconvError(
            f"{path} cannot be read: {error.strerror}.", shell_command("ls", "-ld", path)
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise FullconvError(f"{path} is not a TOML file: {error}", _CARD) from None
    known = {f.name for f in fields(BackboneCard)}
    wrong = sorted(set(table) - known)
    lacking = sorted({"source", "name"} - set(table))
    if wrong or lacking:
        what = f"unknown keys {wrong}" if wrong else f"no {' and no '.join(lacking)}"
        raise FullconvError(
            f"{path}: {what}; a backbone card has {', '.join(sorted(known))}.",
            _CARD,
        )
    for key in ("mean", "std", "missing"):
        if key in table:
            if not isinstance(table[key], list):
                example = '["fc"]' if key == "missing" else "[0.5, 0.5, 0.5]"
                raise FullconvError(
                    f"{path}: {key} is {table[key]!r}, expected a list.", f"{key} = {example}"
                )
            table[key] = tuple(table[key])
    for key in ("mean", "std"):
        if key in table and len(table[key]) != 3:
            raise FullconvError(
                f"{path}: {key} has {len(table[key])} numbers, expected 3 (RGB).",
                f"{key} = [0.5, 0.5, 0.5]",
            )
    if "weights" in table:
        table["weights"] = path.parent / table["weights"]
        if not table["weights"].is_file():
            raise FullconvError(
                f"{path} names the weights {table['weights']}, which are not there.",
                'weights = "FILE.safetensors"   # relative to the card',
            )
    return BackboneCard(**table)


def published_license(card: BackboneCard) -> str:
    """Of the weights that timm publishes for a network, where it says so; else ""."""
    if card.source != "timm":
        return ""
    import timm

    published = timm.get_pretrained_cfg(card.name, allow_unregistered=True)
    return str(published.license or "") if published else ""


def unreachable(card: BackboneCard, error: Exception) -> FullconvError:
    """Weights that a source publishes could not be fetched."""
    lost = type(error).__name__ in _NO_NETWORK or isinstance(error, ConnectionError | TimeoutError)
    said = (str(error) or type(error).__name__).splitlines()[0][:200].rstrip(".")
    why = "there is no network, or the host does not answer" if lost else said
    return FullconvError(
        f"the pretrained weights of {card.name} are not on this machine and could not be loaded: "
        f"{why}.",
        "--no-pretrained   # or --backbone card.toml with a weights file of your own",
    )


def load_weights(classifier: nn.Module, card: BackboneCard) -> None:
    """Loads a card's weights into the whole classifier. Every tensor must fit; only what the card
    lists under `missing` may be absent."""
    import safetensors
    from safetensors.torch import load_file

    if card.weights is None:
        return
    if card.weights.suffix != ".safetensors":
        raise FullconvError(
            f"{card.weights.name} is not a .safetensors file; pickles can run code: not read.",
            "safetensors.torch.save_file(torch.load(FILE, weights_only=True), 'FILE.safetensors')",
        )
    try:
        found: dict[str, Tensor] = load_file(card.weights)
    except (safetensors.SafetensorError, OSError) as error:
        raise FullconvError(
            f"{card.weights} cannot be read: {error}",
            f"copy or download {card.weights.name} again",
        ) from None
    expected = classifier.state_dict()
    absent = [
        name
        for name in expected
        if name not in found
        and not name.endswith("num_batches_tracked")
        and not any(name == m or name.startswith(f"{m}.") for m in card.missing)
    ]
    extra = [name for name in found if name not in expected]
    unlike = [
        f"{name} {tuple(found[name].shape)} instead of {tuple(expected[name].shape)}"
        for name in expected
        if name in found and found[name].shape != expected[name].shape
    ]
    if absent or extra or unlike:
        parts = [
            f"{len(names)} {what}: {', '.join(names[:4])}{', ...' if len(names) > 4 else ''}"
            for what, names in (
                ("missing", absent),
                ("unknown", extra),
                ("of another shape", unlike),
            )
            if names
        ]
        raise FullconvError(
            f"{card.weights.name} does not fit {card.source} {card.name}: {'; '.join(parts)}.",
            f"missing = {absent[:4]}   # in the card, if they are to start fresh"
            if absent
            else "name = ...   # in the card: the network that the weights are of",
        )
    classifier.load_state_dict(found, strict=False)
