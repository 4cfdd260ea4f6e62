"""A model on disk: a network with its labels and preprocessing, in a folder that explains itself.

    model/  model.safetensors (weights; config.json once more in its header)
            config.json · README.md (model card)

No pickle, no code, no class path, no network. A model is written beside the old one and takes its
place only when it is complete: a full disk or a power cut never costs the model that was there.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from operator import attrgetter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fullconv.core.errors import FullconvError
from fullconv.core.labels import Labels
from fullconv.core.metric_names import current_names
from fullconv.core.text import shell_command, truncated_list
from fullconv.data.io.extra_channels import ExtraInput
from fullconv.models.hub import resolve_hub_name
from fullconv.models.model_card import model_card
from fullconv.models.third_party import load_third_party
from fullconv.network.backbone_card import BackboneCard
from fullconv.network.fcn import FCN
from fullconv.network.multi_input import fuse
from fullconv.network.scores import Scores

FORMAT = "fullconv/1"
_OPTIONS = ("stride", "upsampling")  # of the network
_PLACES = ("border", "placement")  # not in models from before there was a choice
FOREIGN = (".caffemodel", ".pth", ".pt", ".tar", ".h5")  # files of others
WEIGHTS, CONFIG, README = "model.safetensors", "config.json", "README.md"


@dataclass
class Model:
    """A network and all that is needed to use it.

    Args:
        network: in evaluation mode after `load_model`.
        labels: its classes.
        card: its backbone, with the mean and std (fractions of 1) that images are normalised by.
        training: what it was trained on: data fingerprint, settings.
        metrics: the results it came with, with their protocol card.
        bfloat16_disagreement: share of validation pixels (fraction) that get another label in
            bfloat16 than in float32; None where it was not measured.
        short_side: images are resized so that their shorter side has so many pixels, and labels
            read back at their own size; None: the network sees them as they are.
        head: what the first head is called, where there are several.
        heads: the class tables of further heads, by name. Their scores lie behind the first one's.
        extra_inputs: what the network takes beside images.
        fusion: "early" or "late", where there are inputs; see `fullconv.network.multi_input`.
    """

    network: FCN
    labels: Labels
    card: BackboneCard
    training: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    bfloat16_disagreement: float | None = None
    short_side: int | None = None
    head: str = ""
    heads: Mapping[str, Labels] = field(default_factory=dict)
    extra_inputs: tuple[ExtraInput, ...] = ()
    fusion: str = ""

    @property
    def tables(self) -> tuple[Labels, ...]:
        """The class tables of all heads, the first one first."""
        return (self.labels, *self.heads.values())

    def split(self, scores: Scores) -> list[Scores]:
        """Of each head."""
        return scores.split([len(labels) for labels in self.tables])

    def normalize(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) uint8 RGB -> float, as the backbone was trained: (x / 255 - mean) / std.
        Channels of further inputs come behind, in the files' own numbers: (x - mean) / std."""
        colors = self.card.normalize(images[:, :3])
        if not self.extra_inputs:
            return colors
        mean, std = (
            torch.tensor([x for one in self.extra_inputs for x in values(one)]).view(-1, 1, 1)
            for values in (attrgetter("mean"), attrgetter("std"))
        )
        extra = images[:, 3:].float()
        return torch.cat([colors, (extra - mean.to(extra)) / std.to(extra)], dim=1)

    def config(self) -> dict[str, Any]:
        """config.json, without the checksum of the weights."""
        return {
            "format": FORMAT,
            "backbone": self.card.to_dict(),
            "stride": self.network.stride,
            "num_classes": self.network.num_classes,
            "upsampling": self.network.upsampling,
            "border": self.network.border,
            "placement": self.network.backbone.placement,
            **self.labels.to_dict(),
            "mean": list(self.card.mean),
            "std": list(self.card.std),
            "value_range": "RGB, 0-1 before mean and std",
            "training": dict(self.training),
            "metrics": dict(self.metrics),
            "bfloat16_disagreement": self.bfloat16_disagreement,
            "short_side": self.short_side,
            **self._further(),
        }

    def _further(self) -> dict[str, Any]:
        """What only models with several heads or inputs have in their config.json."""
        table: dict[str, Any] = {}
        if self.heads:
            table["head"] = self.head
            table["heads"] = {name: labels.to_dict() for name, labels in self.heads.items()}
        if self.extra_inputs:
            table["inputs"] = [one.to_dict() for one in self.extra_inputs]
            table["fusion"] = self.fusion
        return table


def save_model(model: Model, folder: str | Path) -> Path:
    """Writes a model folder, in place of the one that is there.

    Raises:
        FullconvError: it could not be written (the disk is full); the old model is untouched.
    """
    from safetensors.torch import save

    folder = Path(folder)
    fresh, previous = folder.with_name(f"{folder.name}.new"), folder.with_name(f"{folder.name}.old")
    config = model.config()
    # Copies: a backbone may use one tensor under two names, which the format does not know.
    tensors = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in model.network.state_dict().items()
    }
    weights = save(tensors, metadata={"fullconv": json.dumps(config)})
    config["weights_sha256"] = hashlib.sha256(weights).hexdigest()
    try:
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        _write(fresh / WEIGHTS, weights)
        _write(fresh / CONFIG, json.dumps(config, indent=1).encode())
        _write(fresh / README, model_card(config).encode())
        if folder.exists():
            shutil.rmtree(previous, ignore_errors=True)
            folder.rename(previous)
        fresh.rename(folder)
        shutil.rmtree(previous, ignore_errors=True)
    except OSError as error:
        shutil.rmtree(fresh, ignore_errors=True)
        if previous.exists() and not folder.exists():
            with contextlib.suppress(OSError):
                previous.rename(folder)
        kept = f" The previous model in {folder} is untouched." if folder.exists() else ""
        raise FullconvError(
            f"the model could not be written to {folder}: {error.strerror or error}.{kept}", "df -h"
        ) from error
    return folder


def load_model(
    path: str | Path,
    *,
    backbone: nn.Module | str | None = None,
    weights: str | Path | None = None,
    labels: Labels | None = None,
) -> Model:
    """Reads a model: its folder, the run that holds it, the .safetensors file alone; one on a hub,
    see `fullconv.models.hub`; or a model of others, see `fullconv.models.third_party`.

    Args:
        backbone: needed where the model was trained on a module of one's own.
        weights, labels: of a model of others.

    Raises:
        FullconvError: nothing there, a file missing or altered, or a format of the future.
    """
    path = resolve_hub_name(path)
    if is_third_party(path):
        name = backbone if isinstance(backbone, str) else None
        found = load_third_party(path, weights=weights, backbone=name, labels=labels)
        return Model(found.network, found.labels, found.card, short_side=found.short_side)
    if weights is not None or labels is not None:
        raise FullconvError(
            f"{path} is a model of fullconv and has its own weights and classes.",
            f"fc.load({str(path)!r})",
        )
    return _load_ours(path, backbone)


def is_third_party(path: str | Path) -> bool:
    """Whether this is the name of a published model, or a file of weights that others wrote."""
    if str(path).startswith(("torchvision:", "paper:")):
        return True
    path = Path(path)
    if not path.is_file() or path.suffix in FOREIGN:
        return path.is_file()
    try:
        with path.open("rb") as file:
            return file.read(2) in (b"PK", b"\x80\x02")  # a .pth of today, and of before 2020
    except OSError:  # reading it as a model will say so
        return False


def read_model_config(path: str | Path) -> tuple[Path, dict[str, Any]]:
    """The folder of a model, and its config.json without the checksum, both as they should be.

    Raises:
        FullconvError: as `load_model`; or it is a file alone.
    """
    path = Path(path)
    if path.is_file():
        raise FullconvError(
            f"{path} is a file alone; expected a model folder, with {CONFIG} and {README} beside "
            "the weights, or the run that holds it.",
            f"fc.load({str(path)!r}).save('model')   # makes one",
        )
    folder, config, _ = _read_ours(path)
    return folder, config


def _read_ours(path: Path) -> tuple[Path, dict[str, Any], dict[str, Tensor]]:
    """The folder (or file), config.json and weights of a model of ours."""
    folder = path / "model" if (path / "model").is_dir() else path
    weights = folder / WEIGHTS if folder.is_dir() else folder
    if not weights.is_file():
        raise _no_model(path, folder)
    config, tensors = _read_weights(weights)
    if config.get("format") != FORMAT:
        raise FullconvError(
            f"{weights} has format {config.get('format')!r}; this version reads {FORMAT!r}.",
            "git pull && make install",
        )
    if folder.is_dir():
        _verify(folder, weights, config)
    return folder, config, tensors


def _load_ours(path: Path, backbone: nn.Module | str | None) -> Model:
    folder, config, tensors = _read_ours(path)
    weights = folder / WEIGHTS if folder.is_dir() else folder
    try:
        card, labels = BackboneCard.from_dict(config["backbone"]), Labels.from_dict(config)
        num_classes, options = config["num_classes"], {k: config[k] for k in _OPTIONS}
        options |= {k: config[k] for k in _PLACES if k in config}
        training, metrics = current_names(config["training"]), current_names(config["metrics"])
        facts = training, metrics, config.get("bfloat16_disagreement")
        short_side = config.get("short_side")
        heads = {name: Labels.from_dict(table) for name, table in config.get("heads", {}).items()}
        inputs = tuple(ExtraInput.from_dict(table) for table in config.get("inputs", ()))
        head, fusion = config.get("head", ""), config.get("fusion", "")
    except (KeyError, TypeError, ValueError) as error:
        raise FullconvError(
            f"the description in {weights} is incomplete: {type(error).__name__} {error}; expected "
            f"what fullconv.models.model.save_model writes.",
            "copy the model again, or fullconv train DATA",
        ) from None
    if card.source == "module" and backbone is None:
        raise FullconvError(
            f"{path} was trained on a module of your own ({card.name}); a model holds no code.",
            f"fc.load({str(path)!r}, backbone={card.name}())",
        )
    network = FCN(backbone if backbone is not None else card, num_classes, **options)
    if inputs:
        fuse(network, [one.channels for one in inputs], fusion)
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise FullconvError(
            f"{weights} does not fit the {network.name} on {card.name} that it is said to be: "
            f"{error}",
            "copy the whole model folder again",
        ) from None
    return Model(network.eval(), labels, card, *facts, short_side, head, heads, inputs, fusion)


def _no_model(path: Path, folder: Path) -> FullconvError:
    what = "nothing there"
    if folder.is_dir():
        there = sorted(p.name for p in folder.iterdir())
        what = f"the folder holds {', '.join(there[:8]) + ', ...' * (len(there) > 8) or 'nothing'}"
    elif folder.exists():
        what = "not a file"
    # Where the writing stopped between its two renames, the model before it waits beside.
    for lost in (folder, path / "model"):
        previous = lost.parent / f"{lost.name}.old"
        if (previous / WEIGHTS).is_file():
            return FullconvError(
                f"no model at {path}, but the one before it in {previous}: the last saving was "
                f"interrupted.",
                shell_command("mv", previous, lost),
            )
    near = _models_near(path)
    also = f" There are models at {truncated_list([str(one) for one in near])}." if near else ""
    return FullconvError(
        f"no model at {path}: {what}; expected {WEIGHTS} and {CONFIG}.{also}",
        shell_command("fullconv", "inspect", near[0]) if near else "fullconv train DATA",
    )


def _models_near(path: Path) -> list[Path]:
    """Runs and models in the folder, or, where nothing is there, beside it: the most alike first,
    else the last first."""
    folder, name = (path, "") if path.is_dir() else (path.parent, path.name)
    there = folder.iterdir() if folder.is_dir() else ()
    found = [p for p in there if any((of / WEIGHTS).is_file() for of in (p / "model", p))]
    alike = SequenceMatcher(b=name)

    def rank(one: Path) -> tuple[float, float]:
        alike.set_seq1(one.name)
        return -alike.ratio() if name else 0.0, -one.stat().st_mtime

    return sorted(found, key=rank)


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _read_weights(weights: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(weights, framework="pt") as file:
            described = (file.metadata() or {}).get("fullconv")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise FullconvError(
            f"{weights} is damaged or not a .safetensors file: {error}.", "fullconv train DATA"
        ) from None
    if described is None:
        raise FullconvError(
            f"{weights} holds weights but no fullconv model (no description in its header).",
            'weights = "FILE.safetensors"   # in a backbone card, to train from them',
        )
    try:
        config = json.loads(described)
    except ValueError:
        config = None
    if not isinstance(config, dict):
        raise FullconvError(
            f"the description in the header of {weights} is not a JSON object.",
            "copy the model again, or fullconv train DATA",
        )
    return config, tensors


def _verify(folder: Path, weights: Path, described: Mapping[str, Any]) -> None:
    """The three descriptions of a model (file, header, checksum) must agree."""
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise ValueError(f"expected an object, found {type(config).__name__}")
    except FileNotFoundError:
        raise FullconvError(
            f"{folder} has no {CONFIG}; a model folder holds {WEIGHTS}, {CONFIG} and {README}.",
            f"fc.load({str(weights)!r})   # the weights describe themselves",
        ) from None
    except ValueError as error:
        raise FullconvError(
            f"{folder / CONFIG} is not JSON: {error}.",
            f"fc.load({str(weights)!r})   # the weights describe themselves",
        ) from None
    checksum = config.pop("weights_sha256", None)
    if checksum != hashlib.sha256(weights.read_bytes()).hexdigest():
        raise FullconvError(
            f"{weights} was altered or does not belong to its {CONFIG}: the checksums differ.",
            "copy the whole model folder again",
        )
    if config != described:
        differ = [key for key in described if config.get(key) != described[key]]
        raise FullconvError(
            f"{folder / CONFIG} was altered: {', '.join(differ) or 'its keys'} differ from "
            "what the weights say.",
            f"fc.load({str(weights)!r})   # the weights describe themselves",
        )
