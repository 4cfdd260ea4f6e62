"""What a training wrote down, epoch by epoch: log.csv of a run and of the stages before it."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fullconv.models.run import read_log


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
    named = ("loss", "rate", "mean_iou", "pixel_accuracy", "seconds")
    rows = zip(*(columns.get(name, lacking) for name in named), strict=True)
    return tuple(
        Epoch(int(number), *row)
        for number, row in zip(numbers, rows, strict=True)
        if math.isfinite(number)
    )
