"""Every option of training, once: command-line flags, TOML keys, keywords, and the saved run.

`Settings` holds what a person may choose; `None` means "decide from the data". The decisions are
written to the run's `config.toml`, which `fullconv train --config` reads.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import Field, asdict, dataclass, fields
from numbers import Integral, Real
from pathlib import Path
from typing import Any, TypedDict

from fullconv.core.config_file import toml_value
from fullconv.core.errors import FullconvError
from fullconv.core.foreign_words import our_setting
from fullconv.core.i18n import Message, join, msg
from fullconv.core.text import nearest, shell_command, split_list, truncated_list

CHOICES: dict[str, tuple[Any, ...]] = {
    "stride": (4, 8, 16, 32),
    "fusion": ("early", "late"),
    "upsampling": ("bilinear", "learned_skips", "learned"),
    "optimizer": ("adamw", "sgd"),
    "schedule": ("onecycle", "poly", "fixed"),
    "class_weights": ("auto", "none", "balanced"),
    "precision": ("auto", "float32", "bfloat16", "float16"),
    "device": ("auto", "cpu", "cuda", "mps"),
}
LOGGERS = ("tensorboard", "wandb")
WHOLE = (0, 0)  # as a crop: whole images
# Keys of a config.toml that was written before the options had their present names.
RENAMED = {
    "rate": "lr",
    "backbone_rate": "backbone_lr",
    "summed_rate": "sum_loss_lr",
    "bias_rate": "bias_lr_factor",
    "stage_rate": "stage_lr_factor",
    "batch": "batch_size",
    "start": "init_from",
    "frozen": "freeze_backbone",
    "accumulate": "grad_accumulation",
    "color": "color_jitter",
    "pictures_every": "log_images_every",
    "accelerator": "device",
    "inputs": "extra_inputs",
}
_RENAMED_VALUES = {("accelerator", "gpu"): "cuda"}
_KINDS = {
    "str": msg("text"),
    "bool": msg("true or false"),
    "int": msg("a whole number"),
    "float": msg("a number"),
    "tuple[int, int]": msg("two whole numbers"),
    "tuple[float, float]": msg("two numbers"),
}
_EXAMPLES: dict[str, Any] = {  # of options without a default, or with an empty one
    "crop": (321, 481),
    "scale": (0.5, 2.0),
    "workers": 2,
    "sum_loss_lr": 1e-10,
    "log_images_every": 5,
    "logger": "tensorboard",
}


@dataclass(frozen=True)
class Settings:
    """The options of `fullconv train` and `fullconv.train`."""

    backbone: str = "resnet18"
    """Backbone: a timm name, torchvision:NAME, paper:NAME, or a backbone config file (.toml)."""
    pretrained: bool = True
    """Start from the backbone's published weights. A config file names its own."""
    stride: int = 8
    """Output stride in pixels: 32 (FCN-32s, coarsest and fastest), 16, 8 or 4 (finest)."""
    upsampling: str = "bilinear"
    """Upsampling: bilinear, learned_skips (transposed convolutions between the strides) or learned
    (up to the pixels, too)."""
    heads: str = ""
    """Comma-separated extra mask folders. Each gets its own head on the shared backbone; the losses
    are summed."""
    extra_inputs: str = ""
    """Comma-separated folders of extra input channels (depth, infrared ...), with one file per
    image."""
    fusion: str = "early"
    """Fusion of extra inputs: early (a wider first convolution) or late (one backbone each, logits
    averaged)."""
    epochs: int = 50
    """Passes over the training images; with --staged, in each stage."""
    batch_size: int = 8
    """Images per step and device."""
    grad_accumulation: int = 1
    """Accumulate gradients over N batches: a larger batch than fits into memory."""
    crop: tuple[int, int] | None = None
    """Training crop: height and width in pixels; 0 0 = whole images. Default: from the image
    sizes."""
    scale: tuple[float, float] | None = None
    """Random resize before the crop, by a factor between LOW and HIGH. Default: from the size of
    the objects."""
    flip: bool = True
    """Flip half of the images left to right."""
    color_jitter: float = 0.3
    """Random change of brightness, contrast and saturation, up to this fraction."""
    init_from: str = ""
    """Initialize from another model with the same backbone, such as an FCN-16s from an FCN-32s. The
    heads of classes that both have are copied."""
    staged: bool = False
    """Train FCN-32s first, then FCN-16s from it, and so on down to --stride."""
    stage_lr_factor: float = 0.5
    """Learning rates of each stage, relative to the stage before."""
    freeze_backbone: bool = False
    """Freeze the backbone and train only the segmentation head."""
    optimizer: str = "adamw"
    """Optimizer: adamw or sgd."""
    momentum: float = 0.9
    """SGD momentum."""
    lr: float | None = None
    """Learning rate of the segmentation head. Default: 0.002 (adamw) or 0.02 (sgd)."""
    sum_loss_lr: float | None = None
    """Learning rate for a loss that is summed over pixels, as published for FCNs (1e-10), in place
    of --lr and --backbone-lr. It is multiplied by the labeled pixels of a step."""
    bias_lr_factor: float = 1.0
    """Learning rate of biases, relative to that of weights. The paper uses 2."""
    backbone_lr: float | None = None
    """Learning rate of the backbone. Default: a quarter of --lr if pretrained, else --lr."""
    weight_decay: float | None = None
    """Weight decay, without biases and normalization layers. Default: 0.02 (adamw) or 0.0005
    (sgd)."""
    schedule: str = "onecycle"
    """Learning rate schedule: onecycle (up, then down by a cosine), poly (down, power 0.9) or
    fixed."""
    class_weights: str = "auto"
    """Loss weights: balanced (inverse square root of the class frequency), none, or auto (balanced
    if one class covers nearly all pixels)."""
    label_smoothing: float = 0.0
    """Share of the target that is spread over all classes."""
    precision: str = "auto"
    """Number format: auto (bfloat16 if the device supports it), float32, bfloat16 or float16."""
    patience: int = 0
    """Stop after N epochs without a better mean IoU; 0 = never."""
    logger: str = ""
    """Log to tensorboard, wandb or both (comma-separated), in addition to log.csv and images/."""
    log_images_every: int | None = None
    """Save validation previews every N epochs, and the first batches, to images/; 0 = never.
    Default: about ten times."""
    seed: int = 0
    """Random seed. The same seed on the same machine gives the same result."""
    workers: int | None = None
    """Processes that load images. Default: one per core, up to 4."""
    ignore_rules: str = ""
    """Comma-separated rules of `fullconv check` whose errors do not stop training; what they found
    is left out."""
    cache: float = 1.0
    """GiB of memory for decoded images; the rest is decoded in every epoch."""
    device: str = "auto"
    """Device: auto, cpu, cuda or mps."""
    devices: int = 1
    """Processes (GPUs) per machine."""
    nodes: int = 1
    """Machines."""

    def __post_init__(self) -> None:
        for option in fields(self):
            object.__setattr__(self, option.name, _plain(option, getattr(self, option.name)))
        for name, choices in CHOICES.items():
            expected = msg("one of {choices}", choices=truncated_list(choices))
            self._require(name, getattr(self, name) in choices, expected)
        for name in ("epochs", "batch_size", "grad_accumulation", "devices", "nodes"):
            self._require(name, getattr(self, name) >= 1, msg("1 or more"))
        for name in (
            *("patience", "log_images_every", "color_jitter", "workers", "cache"),
            *("weight_decay", "bias_lr_factor"),
        ):
            value = getattr(self, name)
            self._require(name, value is None or value >= 0, msg("0 or more"))
        for name in ("lr", "backbone_lr", "sum_loss_lr", "stage_lr_factor"):
            value = getattr(self, name)
            self._require(name, value is None or value > 0, msg("more than 0"))
        for name in ("momentum", "label_smoothing"):
            self._require(name, 0 <= getattr(self, name) < 1, msg("from 0 to below 1"))
        self._require("seed", 0 <= self.seed < 2**32, msg("from 0 to {last}", last=2**32 - 1))
        fits = self.crop is None or self.crop == WHOLE or min(self.crop) >= 1
        self._require("crop", fits, msg("two sizes of 1 or more, or 0 0 for whole images"))
        fits = self.scale is None or 0 < self.scale[0] <= self.scale[1]
        self._require("scale", fits, msg("two factors, low to high"))
        loggers = split_list(self.logger)
        fits = set(loggers) <= set(LOGGERS) and len(set(loggers)) == len(loggers)
        self._require("logger", fits, msg("tensorboard, wandb, or both (comma-separated)"))
        if self.sum_loss_lr is not None and not (self.lr is None is self.backbone_lr):
            message = msg(
                "sum_loss_lr replaces lr and backbone_lr, and cannot be combined with them."
            )
            raise FullconvError(message, _flag("sum_loss_lr", self.sum_loss_lr))
        processes = self.devices * self.nodes
        if self.staged and processes > 1:
            message = msg(
                "stages are trained by one process, not by {processes}.", processes=processes
            )
            hint = msg(
                "--devices 1   # or --stride 32, then --stride 16 --init-from RUN, then --stride 8"
            )
            raise FullconvError(message, hint)

    def _require(self, name: str, fits: bool, expected: Message) -> None:
        if not fits:
            raise _wrong_value(name, getattr(self, name), expected)

    def to_dict(self) -> dict[str, Any]:
        """Return the options for config.toml, without those that are None: TOML has no null."""
        return {key: value for key, value in asdict(self).items() if value is not None}

    @classmethod
    def from_dict(cls, table: Mapping[str, Any]) -> Settings:
        """Read options from a table as `to_dict` returns it.

        Raises:
            FullconvError: an unknown or renamed key, or a value of the wrong kind.
        """
        names = [option.name for option in fields(cls)]
        if old := [key for key in table if key in RENAMED and key not in names]:
            renames = [msg("{old} is now {new}", old=key, new=RENAMED[key]) for key in old]
            message = msg("some options have new names: {renames}.", renames=join(renames, ", "))
            current = [rename_option(key, table[key]) for key in old]
            lines = [f"{key} = {toml_value(value)}" for key, value in current]
            raise FullconvError(message, "\n".join(lines))
        if unknown := [key for key in table if key not in names]:
            key, ours = unknown[0], our_setting(unknown[0])
            if ours not in names:
                ours = nearest(key, names, cutoff=0.8)
            if ours:
                message = msg("there is no option {key!r}; use {ours!r}.", key=key, ours=ours)
                raise FullconvError(message, f"{ours} = {table[key]!r}")
            message = msg("there is no option {key!r}.", key=key)
            raise FullconvError(message, "fullconv train --help")
        return cls(**table)


def rename_option(key: str, value: Any) -> tuple[str, Any]:
    """Return the current name and value of an option; current ones are kept.

    >>> rename_option("accelerator", "gpu"), rename_option("rate", 0.1), rename_option("lr", 0.1)
    (('device', 'cuda'), ('lr', 0.1), ('lr', 0.1))
    """
    if key not in RENAMED:
        return key, value
    renamed = _RENAMED_VALUES.get((key, value), value) if isinstance(value, str) else value
    return RENAMED[key], renamed


class TrainOptions(TypedDict, total=False):
    """The keywords of `fullconv.train`, for editors and type checkers; see `Settings`."""

    backbone: str
    pretrained: bool
    stride: int
    upsampling: str
    heads: str
    extra_inputs: str
    fusion: str
    epochs: int
    batch_size: int
    grad_accumulation: int
    crop: tuple[int, int] | None
    scale: tuple[float, float] | None
    flip: bool
    color_jitter: float
    init_from: str
    staged: bool
    stage_lr_factor: float
    freeze_backbone: bool
    optimizer: str
    momentum: float
    lr: float | None
    sum_loss_lr: float | None
    bias_lr_factor: float
    backbone_lr: float | None
    weight_decay: float | None
    schedule: str
    class_weights: str
    label_smoothing: float
    precision: str
    patience: int
    logger: str
    log_images_every: int | None
    seed: int
    workers: int | None
    ignore_rules: str
    cache: float
    device: str
    devices: int
    nodes: int


def _plain(option: Field[Any], value: Any) -> Any:
    """Return a value as plain Python of the option's type; NumPy numbers and lists are accepted."""
    kind, _, optional = str(option.type).partition(" | ")
    if value is None and optional:
        return None
    if kind == "str" and isinstance(value, (str, Path)):
        return str(value)
    if kind == "bool" and isinstance(value, bool):
        return value
    number = int if "int" in kind else float
    if kind == number.__name__ and _is(number, value):
        return number(value)
    pair = isinstance(value, (list, tuple)) and len(value) == 2
    if kind.startswith("tuple") and pair and all(_is(number, item) for item in value):
        return tuple(map(number, value))
    raise _wrong_value(option.name, value, _KINDS[kind])


def _is(number: type[int] | type[float], value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, Real):
        return False
    return isinstance(value, Integral) if number is int else math.isfinite(value)


def _wrong_value(name: str, value: Any, expected: Message) -> FullconvError:
    values = {"name": name, "value": value, "expected": expected}
    return FullconvError(msg("{name} is {value!r}; it must be {expected}.", **values), _flag(name))


def _flag(name: str, value: Any = None) -> str:
    """Return an option to paste, by default with its default value or an example."""
    if value is None:
        default = next(option.default for option in fields(Settings) if option.name == name)
        value = _EXAMPLES.get(name, 0.002 if default is None else default)
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        return msg("--{flag}   # or --no-{flag}", flag=flag)
    return shell_command(f"--{flag}", *(value if isinstance(value, tuple) else (value,)))
