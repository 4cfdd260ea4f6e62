"""A model on disk: a network with its labels and preprocessing, in a folder that describes itself.

    model/  model.safetensors (weights; config.json again in its header)
            config.json · README.md (model card)

No pickle, no code, no class path, no network access. A model is written next to the old one and
replaces it only when it is complete: a full disk or a power cut never costs the existing model.

Shapes: N batch · E extra channels · H, W image.
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
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fullconv.core.errors import FullconvError
from fullconv.core.i18n import join, msg
from fullconv.core.labels import Labels
from fullconv.core.text import shell_command, truncated_list
from fullconv.data.io.extra_channels import ExtraInput
from fullconv.models.migrate import migrate_config
from fullconv.models.model_card import model_card
from fullconv.models.run import model_folder
from fullconv.network.backbone_card import BackboneCard
from fullconv.network.fcn import FCN
from fullconv.network.multi_input import fuse
from fullconv.network.paper.weight_files import compare_weights
from fullconv.network.scores import Scores

FORMAT = "fullconv/1"
WEIGHTS, CONFIG, README = "model.safetensors", "config.json", "README.md"
_NAMES = {"config": CONFIG, "readme": README}  # for messages
_COPY_AGAIN = msg("copy the whole model folder again")
_COPY_OR_TRAIN = msg("copy the model again, or fullconv train DATA")


@dataclass
class Model:
    """A network and everything needed to use it.

    Args:
        network: in evaluation mode after `load_model`.
        labels: its classes.
        card: its backbone, with the mean and std (fractions of 1) that normalize images.
        training: what it was trained on: dataset fingerprint, settings.
        metrics: its results on the validation split, with their protocol.
        bfloat16_disagreement: share of validation pixels (fraction) that get another label in
            bfloat16 than in float32; None if it was not measured.
        short_side: images are resized to this many pixels on the shorter side, and labels are
            interpolated at the original size; None: images are not resized.
        head: name of the first head, if there are several.
        heads: the classes of additional heads, by name. Their scores follow those of the first.
        extra_inputs: the extra channels that the network takes with each image.
        fusion: "early" or "late", with extra inputs; see `fullconv.network.multi_input`.
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
        return (self.labels, *self.heads.values())

    def split(self, scores: Scores) -> list[Scores]:
        return scores.split([len(labels) for labels in self.tables])

    def normalize(self, images: Tensor) -> Tensor:
        """Normalize images as the backbone was trained: (x / 255 - mean) / std.

        `images` are (N, 3 + E, H, W), uint8 RGB followed by the extra channels in the units of
        their files, which become (x - mean) / std.
        """
        colors = self.card.normalize(images[:, :3])
        if not self.extra_inputs:
            return colors
        extra = images[:, 3:].float()
        means = [torch.tensor(extra_input.mean) for extra_input in self.extra_inputs]
        stds = [torch.tensor(extra_input.std) for extra_input in self.extra_inputs]
        mean, std = (torch.cat(values).view(-1, 1, 1).to(extra) for values in (means, stds))
        return torch.cat([colors, (extra - mean) / std], dim=1)

    def config(self) -> dict[str, Any]:
        """Return the content of config.json, without the checksum of the weights."""
        table = {
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
        }
        if self.heads:
            table["head"] = self.head
            table["heads"] = {name: labels.to_dict() for name, labels in self.heads.items()}
        if self.extra_inputs:
            table["inputs"] = [extra_input.to_dict() for extra_input in self.extra_inputs]
            table["fusion"] = self.fusion
        return table


def save_model(model: Model, folder: str | Path) -> Path:
    """Write a model folder, replacing an existing one, and return it.

    Raises:
        FullconvError: it cannot be written, for example because the disk is full. The existing
            model is untouched.
    """
    from safetensors.torch import save

    folder = Path(folder)
    new, old = folder.with_name(f"{folder.name}.new"), folder.with_name(f"{folder.name}.old")
    config = model.config()
    # Copy the tensors: a backbone may use one tensor under two names, which the format rejects.
    tensors = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in model.network.state_dict().items()
    }
    weights = save(tensors, metadata={"fullconv": json.dumps(config)})
    config["weights_sha256"] = hashlib.sha256(weights).hexdigest()
    files = {
        WEIGHTS: weights,
        CONFIG: json.dumps(config, indent=1).encode(),
        README: model_card(config).encode(),
    }
    try:
        # Write the new folder, then exchange the folders.
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        for name, content in files.items():
            with (new / name).open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)
            folder.rename(old)
        new.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        shutil.rmtree(new, ignore_errors=True)
        if old.exists() and not folder.exists():
            with contextlib.suppress(OSError):
                old.rename(folder)
        reason = error.strerror or error
        message = msg(
            "the model could not be written to {folder}: {reason}.", folder=folder, reason=reason
        )
        if folder.exists():
            untouched = msg("The previous model in {folder} is untouched.", folder=folder)
            message = join([message, untouched], " ")
        raise FullconvError(message, "df -h") from error
    return folder


def load_model(path: str | Path, *, backbone: nn.Module | str | None = None) -> Model:
    """Load a model that Fullconv saved: its folder, a run folder, or the .safetensors file alone.

    Args:
        backbone: the module, if the model was trained on a module of your own.

    Raises:
        FullconvError: no model there, a file missing or altered, or a newer format.
    """
    path = Path(path)
    weights, config, tensors = _read_model(path)
    try:
        card, labels = BackboneCard.from_dict(config["backbone"]), Labels.from_dict(config)
        num_classes = config["num_classes"]
        options = {key: config[key] for key in ("stride", "upsampling")}
        # Older models have no border and placement.
        options |= {key: config[key] for key in ("border", "placement") if key in config}
        model_fields = {
            "training": config["training"],
            "metrics": config["metrics"],
            "bfloat16_disagreement": config.get("bfloat16_disagreement"),
            "short_side": config.get("short_side"),
            "head": config.get("head", ""),
            "heads": {name: Labels.from_dict(t) for name, t in config.get("heads", {}).items()},
            "extra_inputs": tuple(ExtraInput.from_dict(t) for t in config.get("inputs", ())),
            "fusion": config.get("fusion", ""),
        }
    except (KeyError, TypeError, ValueError) as error:
        message = msg(
            "the description in {weights} is incomplete ({reason}); expected a model that "
            "fullconv saved.",
            weights=weights,
            reason=f"{type(error).__name__} {error}",
        )
        raise FullconvError(message, _COPY_OR_TRAIN) from None
    if card.source == "module" and backbone is None:
        values = {"path": path, "name": card.name}
        message = msg(
            "{path} was trained on a module of your own ({name}); a model contains no code.",
            **values,
        )
        raise FullconvError(message, f"fc.load({str(path)!r}, backbone={card.name}())")
    network = FCN(backbone if backbone is not None else card, num_classes, **options)
    if model_fields["extra_inputs"]:
        channels = [extra_input.channels for extra_input in model_fields["extra_inputs"]]
        fuse(network, channels, model_fields["fusion"])
    if mismatch := compare_weights(tensors, network.state_dict()):
        values = {"weights": weights, "network": network.name, "backbone": card.name}
        message = msg(
            "the weights in {weights} do not fit its description, {network} on {backbone}: "
            "{reason}",
            **values,
            reason=mismatch.message,
        )
        raise FullconvError(message, _COPY_AGAIN)
    network.load_state_dict(tensors)
    return Model(network.eval(), labels, card, **model_fields)


def read_model_config(path: str | Path) -> tuple[Path, dict[str, Any]]:
    """Return a model's folder and its config.json without the checksum, both verified.

    Raises:
        FullconvError: see `load_model`; or `path` is a file.
    """
    path = Path(path)
    if path.is_file():
        message = msg(
            "{path} is a single file; expected a model folder with {config} and {readme}, or a "
            "run folder.",
            path=path,
            **_NAMES,
        )
        hint = msg("fc.load({path!r}).save('model')   # creates one", path=str(path))
        raise FullconvError(message, hint)
    weights, config, _ = _read_model(path)
    return weights.parent, config


def _read_model(path: Path) -> tuple[Path, dict[str, Any], dict[str, Tensor]]:
    """Return the weights file, config.json and the tensors of a model, verified."""
    from safetensors import SafetensorError, safe_open

    # Find the weights.
    folder = model_folder(path)
    weights = folder / WEIGHTS if folder.is_dir() else folder
    if not weights.is_file():
        raise _no_model(path, folder)

    # Read them, and the description in their header.
    try:
        with safe_open(weights, framework="pt") as file:
            header = (file.metadata() or {}).get("fullconv")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        values: dict[str, Any] = {"weights": weights, "reason": error}
        message = msg("{weights} is damaged or not a .safetensors file: {reason}.", **values)
        raise FullconvError(message, "fullconv train DATA") from None
    if header is None:
        message = msg(
            "{weights} contains weights but is not a fullconv model: its header has no "
            "description.",
            weights=weights,
        )
        hint = msg('weights = "FILE.safetensors"   # in a backbone config file, to train from them')
        raise FullconvError(message, hint)
    try:
        config = json.loads(header)
    except ValueError:
        config = None
    if not isinstance(config, dict):
        message = msg(
            "the description in the header of {weights} is not a JSON object.", weights=weights
        )
        raise FullconvError(message, _COPY_OR_TRAIN)
    if config.get("format") != FORMAT:
        values = {"weights": weights, "format": config.get("format"), "expected": FORMAT}
        message = msg("{weights} has format {format!r}; this version reads {expected!r}.", **values)
        raise FullconvError(message, "git pull && make install")
    if folder.is_dir():
        _verify(folder, weights, config)
    return weights, migrate_config(config), tensors


def _verify(folder: Path, weights: Path, header: Mapping[str, Any]) -> None:
    """Raise FullconvError unless config.json, the header and the checksum agree."""
    hint = msg("fc.load({path!r})   # the weights describe themselves", path=str(weights))
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise ValueError(f"{type(config).__name__} {config!r:.50}")
    except FileNotFoundError:
        message = msg(
            "{folder} has no {config}; a model folder contains {weights}, {config} and {readme}.",
            folder=folder,
            weights=WEIGHTS,
            **_NAMES,
        )
        raise FullconvError(message, hint) from None
    except ValueError as error:
        path = folder / CONFIG
        message = msg("{path} is not a JSON object: {reason}.", path=path, reason=error)
        raise FullconvError(message, hint) from None
    checksum = config.pop("weights_sha256", None)
    if checksum != hashlib.sha256(weights.read_bytes()).hexdigest():
        message = msg(
            "{weights} was altered or does not belong to its {config}: the checksums differ.",
            weights=weights,
            config=CONFIG,
        )
        raise FullconvError(message, _COPY_AGAIN)
    if config != header:
        different = sorted(key for key in {*config, *header} if config.get(key) != header.get(key))
        values = {"path": folder / CONFIG, "keys": truncated_list(different)}
        message = msg(
            "{path} was altered: it differs from the header of the weights in {keys}.", **values
        )
        raise FullconvError(message, hint)


def _no_model(path: Path, folder: Path) -> FullconvError:
    # If saving stopped between its two renames, the previous model is next to the folder.
    for lost in (folder, path / "model"):
        previous = lost.parent / f"{lost.name}.old"
        if (previous / WEIGHTS).is_file():
            message = msg(
                "no model at {path}, but the previous one in {previous}: saving was interrupted.",
                path=path,
                previous=previous,
            )
            return FullconvError(message, shell_command("mv", previous, lost))
    # Otherwise say what is there.
    names = sorted(child.name for child in folder.iterdir()) if folder.is_dir() else []
    if names:
        message = msg(
            "no model at {path}: the folder contains {names}; expected {weights} and {config}.",
            path=path,
            names=truncated_list(names, 8),
            weights=WEIGHTS,
            config=CONFIG,
        )
    elif folder.is_dir():
        message = msg("no model at {path}: the folder is empty.", path=path)
    elif folder.exists():
        message = msg("no model at {path}: it is not a file.", path=path)
    else:
        message = msg("no model at {path}: it does not exist.", path=path)
    # Suggest models in the folder, the newest first, or next to it, the most similar name first.
    parent, name = (path, "") if path.is_dir() else (path.parent, path.name)
    children = parent.iterdir() if parent.is_dir() else ()
    models = [p for p in children if any((f / WEIGHTS).is_file() for f in (p / "model", p))]
    if not models:
        return FullconvError(message, "fullconv train DATA")

    def rank(model: Path) -> tuple[float, float]:
        likeness = SequenceMatcher(a=model.name, b=name).ratio() if name else 0.0
        return -likeness, -model.stat().st_mtime

    models.sort(key=rank)
    listed = truncated_list([str(model) for model in models])
    message = join([message, msg("There are models at {models}.", models=listed)], " ")
    return FullconvError(message, shell_command("fullconv", "inspect", models[0]))
