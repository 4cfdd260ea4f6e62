"""Loggers: what a training tells TensorBoard and Weights & Biases, beside its own log.csv.

    runs/first/tensorboard/   tensorboard --logdir runs
    runs/first/wandb/         sent to Weights & Biases, or kept here where WANDB_MODE is offline

Both are Lightning's, and packages of their own.
"""

from __future__ import annotations

import importlib.util
import os
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np

from fullconv.core.errors import FullconvError
from fullconv.core.metric_names import TITLES
from fullconv.core.settings import Settings
from fullconv.core.text import split_list
from fullconv.evaluation.metrics import Metrics
from fullconv.training.image_logger import Watch

PACKAGES = {"tensorboard": "TensorBoard", "wandb": "Weights & Biases"}
STEPS = 20  # between two values of the loss


def require_loggers(settings: Settings) -> None:
    """Refuse, before anything is trained, a logger that is not installed.

    Raises:
        FullconvError: it is not.
    """
    for name in split_list(settings.logger):
        if importlib.util.find_spec(name) is None:
            raise FullconvError(
                f"--logger {name}: {PACKAGES[name]} writes through the package {name}, which is "
                "not installed.",
                f"pip install {name}",
            )


def loggers_of(settings: Settings, folder: Path, *, quiet: bool) -> list[Any]:
    """Lightning's, of the names in the settings.

    Args:
        folder: of the run, which has theirs. A resumed run goes on in the same ones.
        quiet: they print nothing, as far as they heed it.
    """
    found: list[Any] = []
    for name in split_list(settings.logger):
        found.append(_wandb(folder, quiet) if name == "wandb" else _tensorboard(folder))
    return found


def _tensorboard(folder: Path) -> Any:
    from lightning.pytorch.loggers import TensorBoardLogger

    return TensorBoardLogger(folder, name="", version="tensorboard", default_hp_metric=False)


def _wandb(folder: Path, quiet: bool) -> Any:
    import wandb
    from lightning.pytorch.loggers import WandbLogger

    place = folder / "wandb"
    place.mkdir(parents=True, exist_ok=True)
    known = place / "id.txt"
    with suppress(FileExistsError), known.open("x", encoding="utf-8") as file:
        file.write(uuid.uuid4().hex[:8])
    # A stage lies in the folder of the whole.
    stage = (folder.parent / "config.toml").is_file()
    logger = WandbLogger(
        name="/".join(folder.resolve().parts[-2:]) if stage else folder.resolve().name,
        save_dir=folder,
        id=known.read_text(encoding="utf-8").strip(),
        project=os.environ.get("WANDB_PROJECT", "fullconv"),
        resume="allow",
        settings=wandb.Settings(silent=quiet, console="off"),
    )
    try:
        _ = logger.experiment  # now, before anything is trained
    except wandb.errors.Error as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise FullconvError(
            f"Weights & Biases could not start: {said.rstrip('.')}.",
            "wandb login   # or WANDB_MODE=offline, to keep everything in the run's folder",
        ) from error
    return logger


class Teller(pl.Callback):
    """Tells the loggers of a training the loss and the rate every few steps, the metrics of every
    epoch (per class too), its options, and the images that are drawn.

    Args:
        settings: decided.
        facts: what else is known of the run from its start.
        watch: that draws; it comes before this one among the callbacks.
    """

    def __init__(self, settings: Settings, facts: Mapping[str, Any], watch: Watch) -> None:
        self.settings, self.facts, self.watch = settings, facts, watch
        self.losses: list[float] = []
        self.loggers: list[Any] = []
        watch.keeps = True

    def setup(self, trainer: pl.Trainer, module: Any, stage: str) -> None:
        self.loggers = list(trainer.loggers)
        for logger in self.loggers:
            logger.log_hyperparams({**self.settings.to_dict(), **self.facts})

    def on_train_start(self, trainer: pl.Trainer, module: Any) -> None:
        self._images()

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: Any, outputs: Any, batch: Any, index: int
    ) -> None:
        self.losses.append(float(outputs["loss"].detach()))
        if trainer.global_step % STEPS == 0:
            self._steps(trainer)
        self._images()

    def on_train_epoch_end(self, trainer: pl.Trainer, module: Any) -> None:
        self._steps(trainer)
        found: dict[str, float] = {"epoch": trainer.current_epoch + 1}
        if module.latest is not None:
            found |= _metrics(module.latest)
        for name, metrics in module.others.items():
            found |= {f"{name}/{key}": value for key, value in _metrics(metrics).items()}
        self._tell(trainer, found)

    def teardown(self, trainer: pl.Trainer, module: Any, stage: str) -> None:
        self._end()

    def on_exception(self, trainer: pl.Trainer, module: Any, error: BaseException) -> None:
        self._end()

    def _steps(self, trainer: pl.Trainer) -> None:
        if self.losses:
            rate = trainer.optimizers[0].param_groups[0]["lr"]
            self._tell(trainer, {"loss": float(np.mean(self.losses)), "lr": rate})
            self.losses.clear()

    def _tell(self, trainer: pl.Trainer, values: dict[str, Any]) -> None:
        for logger in self.loggers:
            logger.log_metrics(values, trainer.global_step)

    def _images(self) -> None:
        """Those that are done. Loggers are spoken to by one thread alone."""
        while self.watch.done:
            name, sheet, step = self.watch.done.popleft()
            for logger in self.loggers:
                if hasattr(logger, "log_image"):
                    logger.log_image(f"images/{name}", [sheet], step)
                else:
                    pixels = np.asarray(sheet)
                    tell: Any = logger.experiment
                    tell.add_image(f"images/{name}", pixels, step, dataformats="HWC")

    def _end(self) -> None:
        self._images()
        for logger in self.loggers:
            if hasattr(logger, "log_image"):  # another stage is another run
                logger.experiment.finish()


def _metrics(metrics: Metrics) -> dict[str, float]:
    table = metrics.to_dict()
    found = {name: table[name] for name in TITLES}
    found |= {f"iou/{name}": value for name, value in table["per_class_iou"].items()}
    return {name: value for name, value in found.items() if value is not None}
