"""Every option of a training, once: command-line flags, TOML keys, keywords, and the saved run.

`Settings` is what a person may say; `None` means "decide from the data", and what was decided is
written to the run's `config.toml`, which `fullconv train --config` takes back.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import Field, asdict, dataclass, fields
from difflib import get_close_matches
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from fullconv.core.errors import FullconvError

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
WHOLE = (0, 0)  # as a crop: none is cut
_KINDS = {
    "str": "text",
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "tuple[int, int]": "two whole numbers",
    "tuple[float, float]": "two numbers",
}


@dataclass(frozen=True)
class Settings:
    """The options of `fullconv train` and `fullconv.train`."""

    backbone: str = "resnet18"
    """A timm name, torchvision:NAME, paper:NAME, or the path of a backbone card (.toml)."""
    pretrained: bool = True
    """Start from the backbone's published weights. A card brings its own."""
    stride: int = 8
    """Of the finest scores, in pixels: 32, 16, 8 or 4 (FCN-32s ... FCN-4s)."""
    upsampling: str = "bilinear"
    """bilinear, learned_skips (transposed convolutions between the scores) or learned."""
    heads: str = ""
    """Further folders of masks in the data set, with commas: each trains a head of its own on the
    same backbone. The losses are summed."""
    extra_inputs: str = ""
    """Folders of depth, infrared and the like in the data set, with commas: a file for each
    image, that goes into the network beside it."""
    fusion: str = "early"
    """Of inputs: early (a wider first convolution) or late (a trunk each, scores averaged)."""
    epochs: int = 50
    """Passes over the training images; of each stage, where it is staged."""
    batch_size: int = 8
    """Images per pass and device."""
    grad_accumulation: int = 1
    """Passes whose gradients are averaged into one step: more images than memory holds."""
    crop: tuple[int, int] | None = None
    """Height and width of a training crop, in pixels; 0 0: whole images. Default: from the
    image sizes."""
    scale: tuple[float, float] | None = None
    """Random magnification before the crop. Default: from how fine the labels are."""
    flip: bool = True
    """Mirror half of the images left to right."""
    color_jitter: float = 0.3
    """Random brightness, contrast and saturation, up to this fraction."""
    init_from: str = ""
    """A model to start from, of the same backbone: an FCN-16s from an FCN-32s, say. Scores that it
    has for the same classes are taken over."""
    staged: bool = False
    """Train FCN-32s first, 16s from it, and so on down to the stride."""
    stage_lr_factor: float = 0.5
    """Rates of each stage in units of the one before."""
    freeze_backbone: bool = False
    """The backbone stays as it is; only the scores are trained."""
    optimizer: str = "adamw"
    """adamw or sgd."""
    momentum: float = 0.9
    """Of sgd."""
    lr: float | None = None
    """Learning rate of the scores. Default: 0.002 (adamw), 0.02 (sgd, momentum 0.9)."""
    sum_loss_lr: float | None = None
    """In place of rate and backbone_rate: a rate for a loss that is summed over pixels, 1e-10 as
    published for FCNs. It is converted: times the labelled pixels of a step."""
    bias_lr_factor: float = 1.0
    """Rate of biases in units of that of weights. The paper's networks were trained with 2."""
    backbone_lr: float | None = None
    """Learning rate of the backbone. Default: a quarter of rate where pretrained, else rate."""
    weight_decay: float | None = None
    """Of weights, not of biases and normalisation. Default: 0.02 (adamw), 0.0005 (sgd)."""
    schedule: str = "onecycle"
    """onecycle (up, then down to zero by a cosine), poly (down, power 0.9) or fixed."""
    class_weights: str = "auto"
    """balanced weighs a class by the inverse square root of its share of the pixels, none weighs
    all alike, and auto takes balanced where one class covers nearly everything."""
    label_smoothing: float = 0.0
    """Share of the target spread over all classes."""
    precision: str = "auto"
    """auto (bfloat16 where the device has it), float32, bfloat16 or float16."""
    patience: int = 0
    """Stop after so many epochs without a better mean IoU; 0: never."""
    logger: str = ""
    """tensorboard, wandb or both, with a comma: what log.csv and images/ hold goes there, too."""
    log_images_every: int | None = None
    """Draw the same few validation images each so-many-th epoch, and the first batches before
    the first step, into images/; 0: never. Default: about ten times."""
    seed: int = 0
    """Same seed, same machine, same result."""
    workers: int | None = None
    """Processes that read images. Default: up to 4, as many as there are cores."""
    ignore_rules: str = ""
    """Rules of `fullconv check`, with commas, whose errors do not keep the training from starting:
    what they found is left out."""
    cache: float = 1.0
    """GiB of memory for decoded images and masks; what does not fit is decoded every epoch."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    devices: int = 1
    """Processes (GPUs) per machine."""
    nodes: int = 1
    """Machines."""

    def __post_init__(self) -> None:
        for f in fields(self):
            object.__setattr__(self, f.name, _of_kind(f, getattr(self, f.name)))
        for name, choices in CHOICES.items():
            wanted = ", ".join(map(str, choices))
            self._require(name, getattr(self, name) in choices, f"one of {wanted}")
        for name in ("epochs", "batch_size", "grad_accumulation", "devices", "nodes"):
            self._require(name, getattr(self, name) >= 1, "1 or more")
        for name in (
            "patience",
            "log_images_every",
            "color_jitter",
            "workers",
            "cache",
            "weight_decay",
        ):
            value = getattr(self, name)
            self._require(name, value is None or value >= 0, "0 or more")
        for name in ("lr", "backbone_lr", "sum_loss_lr", "stage_lr_factor"):
            value = getattr(self, name)
            self._require(name, value is None or value > 0, "more than 0")
        alone = self.sum_loss_lr is None or self.lr is None is self.backbone_lr
        self._require("sum_loss_lr", alone, "given without rate and backbone_rate")
        known = ("tensorboard", "wandb")
        named = [word.strip() for word in self.logger.split(",") if word.strip()]
        fine = set(named) <= set(known) and len(set(named)) == len(named)
        self._require("logger", fine, "tensorboard, wandb, or both with a comma")
        if self.staged and self.devices * self.nodes > 1:
            raise FullconvError(
                f"stages are trained by one process, not by {self.devices * self.nodes}.",
                "--devices 1   # or --stride 32, then --stride 16 --init-from RUN, then --stride 8",
            )
        self._require("bias_lr_factor", self.bias_lr_factor >= 0, "0 or more")
        self._require("momentum", 0 <= self.momentum < 1, "from 0 to below 1")
        self._require("seed", 0 <= self.seed < 2**32, f"from 0 to {2**32 - 1}")
        self._require("label_smoothing", 0 <= self.label_smoothing < 1, "from 0 to below 1")
        fine = self.crop is None or self.crop == WHOLE or min(self.crop) >= 1
        self._require("crop", fine, "two sizes of 1 or more, or 0 0 for whole images")
        fine = self.scale is None or 0 < self.scale[0] <= self.scale[1]
        self._require("scale", fine, "two factors, low to high")

    def _require(self, name: str, fine: bool, wanted: str) -> None:
        if not fine:
            f = next(f for f in fields(self) if f.name == name)
            raise FullconvError(
                f"{name} is {getattr(self, name)!r}; it must be {wanted}.", _flag(f)
            )

    def to_dict(self) -> dict[str, Any]:
        """For config.toml: without the options that are None, which TOML cannot say."""
        return {key: value for key, value in asdict(self).items() if value is not None}

    @classmethod
    def from_dict(cls, table: Mapping[str, Any]) -> Settings:
        """Of keys as in `to_dict`.

        Raises:
            FullconvError: an unknown key (with the nearest known one) or a value of the wrong kind.
        """
        known = [f.name for f in fields(cls)]
        for key in table:
            if key not in known:
                near = get_close_matches(key, known, n=1)
                raise FullconvError(
                    f"no option {key!r}; there are {', '.join(known)}.",
                    f"{near[0]} = {table[key]!r}" if near else "fullconv train --help",
                )
        return cls(**table)


def read_config(path: str | Path) -> dict[str, dict[str, Any]]:
    """The tables of a config.toml: [data] and [train], either of which may be absent.

    Raises:
        FullconvError: no such file, not TOML, or something that is neither of the two tables.
    """
    try:
        config = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FullconvError(f"no configuration at {path}.", "fullconv train DATA") from None
    except OSError as error:
        raise FullconvError(
            f"the configuration {path} cannot be read: {error.strerror}.",
            "fullconv train --config RUN/config.toml",
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise FullconvError(f"{path} is not a TOML file: {error}.", "[train]\nstride = 8") from None
    for key, value in config.items():
        if key not in ("data", "train") or not isinstance(value, dict):
            line = "" if isinstance(value, dict) else f"\n{key} = {_toml_value(value)}"
            raise FullconvError(
                f"{path} has {key!r} at its top; expected the tables [data] and [train] only.",
                f"[train]{line}",
            )
    root = config.get("data", {}).get("root", "")
    if not isinstance(root, str):
        raise FullconvError(
            f"{path}: root is {root!r}; expected the folder of a data set.", 'root = "DATA"'
        )
    return config


def to_toml(tables: Mapping[str, Mapping[str, Any]]) -> str:
    """Tables of plain values as TOML text.

    >>> print(to_toml({"train": {"stride": 8, "flip": True, "scale": (0.5, 2.0)}}))
    [train]
    stride = 8
    flip = true
    scale = [0.5, 2.0]
    <BLANKLINE>
    """
    lines = []
    for name, table in tables.items():
        lines.append(f"[{name}]")
        lines.extend(f"{key} = {_toml_value(value)}" for key, value in table.items())
        lines.append("")
    return "\n".join(lines)


def _toml_value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_toml_value(item) for item in value)}]"
    text = str(value).replace("\\", "\\\\").replace('"', '\\"')
    # TOML takes no control character as it is, and U+007F is one.
    plain = (c if " " <= c != "\x7f" else f"\\u{ord(c):04X}" for c in text)
    return f'"{"".join(plain)}"'


def _of_kind(option: Field[Any], value: Any) -> Any:
    """The value as plain Python of the option's type (NumPy's numbers and lists are taken too)."""
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
    if kind.startswith("tuple") and isinstance(value, (list, tuple)) and len(value) == 2:
        first, second = value
        if _is(number, first) and _is(number, second):
            return number(first), number(second)
    raise FullconvError(f"{option.name} is {value!r}; it must be {_KINDS[kind]}.", _flag(option))


def _is(number: type[int] | type[float], value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, Real):
        return False
    return isinstance(value, Integral) if number is int else math.isfinite(value)


def _flag(option: Field[Any]) -> str:
    """A line to paste: the option with its default, or with an example."""
    name, value = option.name.replace("_", "-"), option.default
    if isinstance(value, bool):
        return f"--{name}   # or --no-{name}"
    if value is None:
        examples = {"crop": (321, 481), "scale": (0.5, 2.0), "workers": 2, "sum_loss_lr": 1e-10}
        examples["log_images_every"] = 5
        value = examples.get(option.name, 0.002)
    words = value if isinstance(value, tuple) else (value,)
    return f"--{name} {' '.join(map(str, words))}"
