"""A run: the folder that a training run writes.

runs/<date>_<name>/  model/ checkpoint/ config.toml log.csv metrics.json counts_<split>.npz
"""

from __future__ import annotations

import csv
import json
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fullconv.core.config_file import read_config
from fullconv.core.errors import FullconvError
from fullconv.core.i18n import msg
from fullconv.core.metric_names import current_names
from fullconv.core.text import shell_command
from fullconv.models.migrate import migrate_columns, migrate_settings

_STAGE = re.compile(r"\d+s").fullmatch


@dataclass(frozen=True)
class Run:
    """A finished training run.

    Args:
        folder: of the run.
        model: folder of the best model, for `fullconv.load`.
        metrics: of the best model on the validation split, with their protocol.
        data, splits: the dataset's folder, and the splits that it has.
        stages: the result of each stage of a staged training; the rest describes the last stage.
    """

    folder: Path
    model: Path
    metrics: dict[str, Any]
    data: Path
    splits: tuple[str, ...]
    stages: tuple[Stage, ...] = ()

    @property
    def settings(self) -> dict[str, Any]:
        """The training options in config.toml; empty without one."""
        return read_settings(self.folder).get("train", {})

    @property
    def log(self) -> dict[str, list[float]]:
        """Return the columns of log.csv, with a number for each epoch; see `read_log`."""
        return read_log(self.folder / "log.csv")


def model_folder(path: Path) -> Path:
    """Return the folder of a run's model; any other path unchanged."""
    return path / "model" if (path / "model").is_dir() else path


@dataclass(frozen=True)
class Stage:
    """The result of one stage on the validation split."""

    name: str  # "FCN-16s"
    model: str  # its folder
    mean_iou: float | None  # fractions; None if no pixel is annotated
    pixel_accuracy: float | None
    gain: float | None  # in mIoU over the previous stage; None for the first
    # Share of pixels (fraction) that kept the label of the previous stage when this one began.
    unchanged: float | None
    epochs: int
    seconds: float  # of training and validation, since the last start or resume


def open_run(folder: str | Path) -> Run:
    """Open a finished run: `open_run("runs/2026-05-01_101500_data_8s")`.

    Raises:
        FullconvError: not a run, or not finished.
    """
    folder = Path(folder)
    folder = folder.parent if folder.name == "model" else folder
    path = folder / "metrics.json"
    try:
        metrics = current_names(json.loads(path.read_text(encoding="utf-8")))
        if not isinstance(metrics, dict):
            raise ValueError("not a JSON object")
    except FileNotFoundError:
        message = msg("{folder} is not a run folder: it has no metrics.json.", folder=folder)
        hint = "fullconv train DATA"
        if (folder / "config.toml").is_file():
            message = msg(
                "the run {folder} is not finished: it has no metrics.json.", folder=folder
            )
            hint = shell_command("fullconv", "train", "--resume", folder)
        raise FullconvError(message, hint) from None
    except (OSError, ValueError) as error:
        message = msg("{path} cannot be read: {reason}.", path=path, reason=error)
        hint = shell_command("fullconv", "evaluate", folder, "DATA", "--split", "val")
        raise FullconvError(message, hint) from None
    stages = folder / "stages.json"
    rows = json.loads(stages.read_text(encoding="utf-8")) if stages.is_file() else []
    return Run(
        folder=folder,
        model=folder / "model",
        metrics=metrics,
        data=Path(read_settings(folder).get("data", {}).get("root", "")),
        splits=(metrics["protocol"]["split"],) if "protocol" in metrics else (),
        stages=tuple(Stage(**row) for row in rows),
    )


def require_no_run(folder: Path) -> None:
    """Raise FullconvError if the folder already contains a run, except in other processes of it."""
    if (folder / "config.toml").exists() and "LOCAL_RANK" not in os.environ:
        resume = shell_command("fullconv", "train", "--resume", folder)
        hint = msg("{command}   # or --out NEW", command=resume)
        raise FullconvError(msg("{folder} already contains a run.", folder=folder), hint)


def read_settings(folder: Path) -> dict[str, Any]:
    """Return the config.toml of a run, with today's names of its options; empty without one."""
    path = folder / "config.toml"
    config = read_config(path) if path.is_file() else {}
    return {**config, "train": migrate_settings(config["train"])} if "train" in config else config


def read_log(path: Path) -> dict[str, list[float]]:
    """Return the columns of a log.csv, one number per epoch; empty if there is no file. A value
    that is not a number becomes NaN. A row that was cut off is left out."""
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    names = migrate_columns(rows[0]) if rows else []
    complete = [row for row in rows[1:] if len(row) == len(names)]

    def to_float(text: str) -> float:
        try:
            return float(text)
        except ValueError:
            return math.nan

    return {name: [to_float(row[k]) for row in complete] for k, name in enumerate(names)}


@dataclass(frozen=True)
class Epoch:
    """A row of log.csv; NaN for a value that is not a number."""

    number: int  # in its stage, from 1
    loss: float  # mean over its steps
    lr: float  # learning rate of the head at its end
    mean_iou: float  # fractions, on the validation split
    pixel_accuracy: float
    seconds: float  # since the training was last started or resumed


@dataclass(frozen=True)
class History:
    """The epochs of a stage that are finished; a training run without stages has one."""

    name: str  # "FCN-8s"
    epochs: tuple[Epoch, ...]

    @property
    def seconds(self) -> float:
        """The duration of all epochs. The clock restarts when a training run is resumed."""
        clock = [epoch.seconds for epoch in self.epochs if math.isfinite(epoch.seconds)]
        ends = [now for now, after in zip(clock, [*clock[1:], -1.0], strict=True) if after < now]
        return sum(ends)


def read_history(run: Path, stride: int) -> list[History]:
    """Return the stages of a run whose model has this stride, coarsest first; [] without a log."""
    paths = [path for path in run.iterdir() if path.is_dir() and _STAGE(path.name)]
    folders = sorted(((int(path.name[:-1]), path) for path in paths), reverse=True)
    histories = []
    for stage_stride, folder in [*folders, (stride, run)]:
        columns = read_log(folder / "log.csv")
        numbers = columns.get("epoch", [])
        missing = [math.nan] * len(numbers)
        fields = ("loss", "lr", "mean_iou", "pixel_accuracy", "seconds")
        rows = zip(numbers, *(columns.get(name, missing) for name in fields), strict=True)
        epochs = tuple(Epoch(int(row[0]), *row[1:]) for row in rows if math.isfinite(row[0]))
        if epochs:
            histories.append(History(f"FCN-{stage_stride}s", epochs))
    return histories


def total_seconds(stages: Sequence[History]) -> float:
    """Return the duration of all stages."""
    return sum(stage.seconds for stage in stages)
