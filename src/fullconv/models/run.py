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

_STAGE = re.compile(r"(\d+)s").fullmatch


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
        """The columns of log.csv, one number per epoch; see `read_log`."""
        return read_log(self.folder / "log.csv")


def model_folder(path: Path) -> Path:
    """Return the folder of a run's model; any other path unchanged."""
    return path / "model" if (path / "model").is_dir() else path


@dataclass(frozen=True)
class Stage:
    """The result of one stage on the validation split.

    Args:
        name: "FCN-16s".
        model: its folder.
        mean_iou, pixel_accuracy: fractions; None if no pixel is annotated.
        gain: in mIoU over the previous stage; None for the first.
        unchanged: share of pixels (fraction) that kept the label of the previous stage when this
            one began; None for the first.
        epochs: number of epochs.
        seconds: of training and validation, since the last start or resume.
    """

    name: str
    model: str
    mean_iou: float | None
    pixel_accuracy: float | None
    gain: float | None
    unchanged: float | None
    epochs: int
    seconds: float


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
        if (folder / "config.toml").is_file():
            raise FullconvError(
                msg("the run {folder} is not finished: it has no metrics.json.", folder=folder),
                shell_command("fullconv", "train", "--resume", folder),
            ) from None
        raise FullconvError(
            msg("{folder} is not a run folder: it has no metrics.json.", folder=folder),
            "fullconv train DATA",
        ) from None
    except (OSError, ValueError) as error:
        raise FullconvError(
            msg("{path} cannot be read: {reason}.", path=path, reason=error),
            shell_command("fullconv", "evaluate", folder, "DATA", "--split", "val"),
        ) from None
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
    """Refuse to train into the folder of another run; other processes of the same run may.

    Raises:
        FullconvError: the folder already contains a run.
    """
    if (folder / "config.toml").exists() and "LOCAL_RANK" not in os.environ:
        resume = shell_command("fullconv", "train", "--resume", folder)
        raise FullconvError(
            msg("{folder} already contains a run.", folder=folder),
            msg("{command}   # or --out NEW", command=resume),
        )


def read_settings(folder: Path) -> dict[str, Any]:
    """Return the config.toml of a run, with today's names of its options; empty without one."""
    path = folder / "config.toml"
    config = read_config(path) if path.is_file() else {}
    return {**config, "train": migrate_settings(config["train"])} if "train" in config else config


def read_log(path: Path) -> dict[str, list[float]]:
    """Return the columns of a log.csv, one number per epoch; empty if there is no file.

    A value that is not a number becomes NaN. A row that was cut off is left out.
    """
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    names = migrate_columns(rows[0]) if rows else []
    complete = [row for row in rows[1:] if len(row) == len(names)]
    return {name: [_to_float(row[k]) for row in complete] for k, name in enumerate(names)}


def _to_float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


@dataclass(frozen=True)
class Epoch:
    """A row of log.csv; NaN for a value that is not a number.

    Args:
        number: of the epoch in its stage, from 1.
        loss: mean over its steps.
        lr: learning rate of the head at its end.
        mean_iou, pixel_accuracy: fractions, on the validation split.
        seconds: since the training was last started or resumed.
    """

    number: int
    loss: float
    lr: float
    mean_iou: float
    pixel_accuracy: float
    seconds: float


@dataclass(frozen=True)
class History:
    """The epochs of a stage; a training run without stages has one.

    Args:
        name: "FCN-8s".
        epochs: that are finished.
    """

    name: str
    epochs: tuple[Epoch, ...]

    @property
    def seconds(self) -> float:
        """The duration of all epochs. The clock restarts when a training run is resumed."""
        clock = [epoch.seconds for epoch in self.epochs if math.isfinite(epoch.seconds)]
        ends = [now for now, after in zip(clock, [*clock[1:], -1.0], strict=True) if after < now]
        return sum(ends)


def read_history(run: Path, stride: int) -> list[History]:
    """Return the stages of a run, coarsest first; empty if it has no log.

    Args:
        run: its folder.
        stride: of its model, in pixels.
    """
    stages = [(int(m[1]), m[0]) for p in run.iterdir() if p.is_dir() and (m := _STAGE(p.name))]
    folders = [(s, run / name) for s, name in sorted(stages, reverse=True)] + [(stride, run)]
    histories = [History(f"FCN-{s}s", _read_epochs(folder / "log.csv")) for s, folder in folders]
    return [history for history in histories if history.epochs]


def total_seconds(stages: Sequence[History]) -> float:
    """Return the duration of all stages."""
    return sum(stage.seconds for stage in stages)


def _read_epochs(log: Path) -> tuple[Epoch, ...]:
    columns = read_log(log)
    numbers = columns.get("epoch", [])
    missing = [math.nan] * len(numbers)
    names = ("loss", "lr", "mean_iou", "pixel_accuracy", "seconds")
    rows = zip(*(columns.get(name, missing) for name in names), strict=True)
    return tuple(
        Epoch(int(number), *row)
        for number, row in zip(numbers, rows, strict=True)
        if math.isfinite(number)
    )
