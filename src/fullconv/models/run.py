"""A run: what a training left in its folder.

runs/<date>_<name>/  model/ checkpoint/ config.toml log.csv metrics.json counts_<split>.npz
"""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fullconv.core.errors import FullconvError
from fullconv.core.metric_names import current_names
from fullconv.core.settings import read_config
from fullconv.core.text import shell_command


@dataclass(frozen=True)
class Run:
    """A finished training.

    Args:
        folder: of the run.
        model: folder of the best model, for `fullconv.load`.
        metrics: of the best model on the validation split, with the protocol card.
        data, splits: the data set's folder, and which splits it has.
        stages: what each stage came to, where it was trained in stages; all else is the last one's.
    """

    folder: Path
    model: Path
    metrics: dict[str, Any]
    data: Path
    splits: tuple[str, ...]
    stages: tuple[Stage, ...] = ()

    @property
    def settings(self) -> dict[str, Any]:
        """The options of the training, as its config.toml has them; empty where there is none."""
        return read_settings(self.folder).get("train", {})

    @property
    def log(self) -> dict[str, list[float]]:
        """The columns of log.csv, a number per epoch; see `read_log`."""
        return read_log(self.folder / "log.csv")


def open_run(folder: str | Path) -> Run:
    """A run of another day: `open_run("runs/2026-05-01_101500_data_8s")`.

    Raises:
        FullconvError: there is no finished run.
    """
    folder = Path(folder)
    folder = folder.parent if folder.name == "model" else folder
    try:
        metrics = current_names(json.loads((folder / "metrics.json").read_text(encoding="utf-8")))
        if not isinstance(metrics, dict):
            raise ValueError("no JSON object")
    except FileNotFoundError:
        started = (folder / "config.toml").is_file()
        said = "has not come to its end" if started else "is no folder of a run"
        raise FullconvError(
            f"{folder} {said}: it has no metrics.json.",
            shell_command("fullconv", "train", "--resume", folder)
            if started
            else "fullconv train DATA",
        ) from None
    except (OSError, ValueError) as error:
        raise FullconvError(
            f"{folder / 'metrics.json'} cannot be read: {error}.",
            shell_command("fullconv", "evaluate", folder, "DATA", "--split", "val"),
        ) from None
    root = read_settings(folder).get("data", {}).get("root", "")
    table = folder / "stages.json"
    rows = json.loads(table.read_text(encoding="utf-8")) if table.is_file() else []
    return Run(
        folder,
        folder / "model",
        metrics,
        Path(root),
        (metrics["protocol"]["split"],) if "protocol" in metrics else (),
        tuple(Stage(**row) for row in rows),
    )


def read_settings(folder: Path) -> dict[str, Any]:
    """The config.toml of a run; empty where there is none."""
    path = folder / "config.toml"
    return read_config(path) if path.is_file() else {}


def read_log(path: Path) -> dict[str, list[float]]:
    """The columns of a log.csv, a number per epoch; empty where there is none. What is no number
    becomes nan, and a row that was cut off is left out."""
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    head, body = (rows[0], rows[1:]) if rows else ([], [])
    whole = [row for row in body if len(row) == len(head)]
    return {name: [_number(row[k]) for row in whole] for k, name in enumerate(head)}


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


@dataclass(frozen=True)
class Epoch:
    """A row of log.csv; nan where it holds no number.

    Args:
        number: of the epoch in its stage, from 1.
        loss: mean over its steps.
        rate: learning rate of the scores when it ended.
        mean_iou, pixel_accuracy: fractions, on the validation split.
        seconds: since the training was last started or resumed.
    """

    number: int
    loss: float
    rate: float
    mean_iou: float
    pixel_accuracy: float
    seconds: float


@dataclass(frozen=True)
class History:
    """One stage of a training; the only one, where it has none.

    Args:
        name: "FCN-8s".
        epochs: that are done.
    """

    name: str
    epochs: tuple[Epoch, ...]

    @property
    def seconds(self) -> float:
        """Of all its epochs: the clock begins anew where a training is resumed."""
        clock = [epoch.seconds for epoch in self.epochs if math.isfinite(epoch.seconds)]
        ends = [now for now, after in zip(clock, [*clock[1:], -1.0], strict=True) if after < now]
        return sum(ends)


def read_history(run: Path, stride: int) -> list[History]:
    """The stages of a run, coarsest first; empty where it has no log.

    Args:
        run: its folder.
        stride: of its model, in pixels.
    """
    before = {int(found[1]): path for path in run.iterdir() if (found := _stage(path))}
    folders = [(s, before[s]) for s in sorted(before, reverse=True)] + [(stride, run)]
    stages = [History(f"FCN-{s}s", _epochs(folder / "log.csv")) for s, folder in folders]
    return [stage for stage in stages if stage.epochs]


def total_seconds(stages: Sequence[History]) -> float:
    """Of all stages."""
    return sum(stage.seconds for stage in stages)


def _stage(path: Path) -> re.Match[str] | None:
    return re.fullmatch(r"(\d+)s", path.name) if path.is_dir() else None


def _epochs(log: Path) -> tuple[Epoch, ...]:
    columns = read_log(log)
    numbers = columns.get("epoch", [])
    lacking = [math.nan] * len(numbers)
    columns.setdefault("lr", columns.get("rate", lacking))  # its name in version 0.1
    named = ("loss", "lr", "mean_iou", "pixel_accuracy", "seconds")
    rows = zip(*(columns.get(name, lacking) for name in named), strict=True)
    return tuple(
        Epoch(int(number), *row)
        for number, row in zip(numbers, rows, strict=True)
        if math.isfinite(number)
    )


@dataclass(frozen=True)
class Stage:
    """What one stage came to, on the validation split.

    Args:
        name: "FCN-16s".
        model: its folder.
        mean_iou, pixel_accuracy: fractions; None where no pixel is labelled.
        gain: in mean IoU over the stage before; None for the first.
        unchanged: share of the pixels (fraction) that had the label of the stage before when this
            one began; None for the first.
        epochs: all that it took.
        seconds: of training and validation, since it was last started or resumed.
    """

    name: str
    model: str
    mean_iou: float | None
    pixel_accuracy: float | None
    gain: float | None
    unchanged: float | None
    epochs: int
    seconds: float
