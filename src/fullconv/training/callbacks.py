"""What a training says while it runs: a bar or plain lines on stderr, log.csv, and the guards; and
what it says where it cannot go on."""

from __future__ import annotations

import csv
import math
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from torch import Tensor

from fullconv.core.errors import FullconvError, StoppedError
from fullconv.core.i18n import translate
from fullconv.core.progress import finish_stages
from fullconv.core.settings import Settings
from fullconv.core.text import shell_command

COLUMNS = ("epoch", "step", "loss", "lr", "mean_iou", "pixel_accuracy", "seconds")


class Reporter(pl.Callback):
    """A progress bar with the loss, the best mean IoU so far and the time left, and a line per
    epoch, which is all where stderr is no terminal. Every epoch becomes a row of log.csv.

    Args:
        log: the CSV file; it is continued where it exists.
        quiet: print nothing.
    """

    def __init__(self, log: Path, *, quiet: bool = False) -> None:
        self.table = log
        self.console = Console(stderr=True, quiet=quiet, highlight=False)
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=28),
            TextColumn("{task.fields[state]}"),
            console=self.console,
            disable=quiet or not sys.stderr.isatty() or self.console.is_dumb_terminal,
        )
        self.loss_sum, self.loss_count = 0.0, 0
        self.best = -1.0
        self.started = 0.0
        self.first_step = 0

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.started = time.monotonic()
        self.first_step = trainer.global_step
        total = int(trainer.estimated_stepping_batches)
        self.task = self.bar.add_task("", total=total, completed=trainer.global_step, state="")

    def on_train_batch_start(
        self, trainer: pl.Trainer, module: Any, batch: Any, index: int
    ) -> None:
        finish_stages()  # not earlier: until now the first batch was read
        self.bar.start()

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: Any, outputs: Any, batch: Any, index: int
    ) -> None:
        self.loss_sum += float(outputs["loss"].detach())
        self.loss_count += 1
        if not self.bar.disable:
            best = f"best mean IoU {self.best:.1%}  " if self.best >= 0 else ""
            self.bar.update(
                self.task,
                completed=trainer.global_step,
                description=translate(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"),
                state=translate(
                    f"loss {self.loss_sum / self.loss_count:.3f}  {best}{self._left(trainer)}"
                ),
            )

    def on_train_epoch_end(self, trainer: pl.Trainer, module: Any) -> None:
        metrics = module.latest.to_dict() if module.latest else {}
        loss = self.loss_sum / max(self.loss_count, 1)
        self.loss_sum, self.loss_count = 0.0, 0
        self.best = max(self.best, metrics.get("mean_iou") or 0.0)
        row = (
            trainer.current_epoch + 1,
            trainer.global_step,
            round(loss, 5),
            f"{trainer.optimizers[0].param_groups[0]['lr']:.3g}",
            *(round(metrics.get(key) or 0.0, 5) for key in ("mean_iou", "pixel_accuracy")),
            round(time.monotonic() - self.started, 1),
        )
        heads = "".join(f"{name} {of.mean_iou:.1%}  " for name, of in module.others.items())
        if trainer.is_global_zero:
            self._write(row)
            self.console.print(
                translate(
                    f"epoch {row[0]}/{trainer.max_epochs}  loss {loss:.3f}  mean IoU {row[4]:.1%}  "
                    f"pixel accuracy {row[5]:.1%}  {heads}{self._left(trainer)}"
                )
            )

    def teardown(self, trainer: pl.Trainer, module: Any, stage: str) -> None:
        self.bar.stop()

    def state_dict(self) -> dict[str, Any]:
        return {"loss_sum": self.loss_sum, "loss_count": self.loss_count, "best": self.best}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.loss_sum, self.loss_count = state["loss_sum"], state["loss_count"]
        self.best = state["best"]

    def _left(self, trainer: pl.Trainer) -> str:
        left = int(trainer.estimated_stepping_batches) - trainer.global_step
        here = max(trainer.global_step - self.first_step, 1)
        seconds = (time.monotonic() - self.started) / here * left
        minutes, seconds = divmod(int(seconds), 60)
        hours, minutes = divmod(minutes, 60)
        return (
            f"{hours}:{minutes:02}:{seconds:02} left" if hours else f"{minutes}:{seconds:02} left"
        )

    def _write(self, row: tuple[Any, ...]) -> None:
        """Rows of epochs that are run again after a stop are replaced."""
        rows: list[list[str]] = []
        if self.table.exists():
            with self.table.open(newline="") as file:
                rows = [r for r in list(csv.reader(file))[1:] if int(r[0]) < int(row[0])]
        with self.table.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            writer.writerows([*rows, row])


class TrainingGuards(pl.Callback):
    """Stops where the loss is not finite; warns where every pixel becomes one class.

    Args:
        names: of the classes.
        patience: epochs in a row that must look collapsed before the warning.
    """

    def __init__(self, names: tuple[str, ...], *, patience: int = 3) -> None:
        self.names, self.patience = names, patience
        self.collapsed = 0
        self.warned = False

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: Any, outputs: Any, batch: Any, index: int
    ) -> None:
        loss: Tensor = outputs["loss"]
        if not math.isfinite(float(loss.detach())):
            rate = trainer.optimizers[0].param_groups[0]["lr"]
            raise FullconvError(
                f"the loss became {float(loss.detach())} at step {trainer.global_step} (epoch "
                f"{trainer.current_epoch + 1}, learning rate {rate:.2g}). The best model so far is "
                "kept. Usual causes: too high a rate, or half precision.",
                f"--lr {rate / 4:.2g}   # or --precision float32",
            )

    def on_validation_end(self, trainer: pl.Trainer, module: Any) -> None:
        if trainer.sanity_checking or not module.latest:
            return
        confusion = module.latest.confusion
        predicted = confusion.sum(axis=0) > 0
        one = predicted.sum() == 1 and (confusion.sum(axis=1) > 0).sum() > 1
        self.collapsed = self.collapsed + 1 if one else 0
        if self.collapsed >= self.patience and not self.warned and trainer.is_global_zero:
            self.warned = True
            name = self.names[int(predicted.argmax())]
            text = (
                f"warning: for {self.collapsed} epochs every pixel has been called {name!r}. "
                "It may recover; if it does not, the usual causes are masks that are nearly all "
                f"{name!r}, too high a rate, or a fresh start on few images.\n"
                "  try: --class-weights auto, --lr 0.0005, or a pretrained backbone"
            )
            print(translate(text), file=sys.stderr)


@contextmanager
def readable_errors(settings: Settings) -> Iterator[None]:
    """What goes wrong on the way, in words: errors of the reading processes arrive wrapped in their
    traceback, and memory runs out without a hint."""
    try:
        yield
    except FullconvError as error:
        if "DataLoader worker" not in error.message:
            raise
        message, _, hint = error.message.rpartition("FullconvError: ")[2].partition("\n  try: ")
        raise FullconvError(message.strip(), hint.strip()) from None
    except torch.OutOfMemoryError as error:
        raise FullconvError(
            f"the device's memory does not hold {settings.batch_size} images of "
            f"{settings.crop} pixels: {str(error).splitlines()[0]}",
            f"--batch-size {max(1, settings.batch_size // 2)}",
        ) from error
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise FullconvError(
            f"a process that reads images was ended from outside, most often for memory: "
            f"{str(error).splitlines()[0]}",
            "--workers 0",
        ) from error


CHECKPOINT = "last.ckpt"
SAVE_SECONDS = 300  # between two checkpoints within an epoch


class Checkpoints(pl.Callback):
    """Writes checkpoint/last.ckpt after every epoch, every few minutes within one, and at Ctrl-C;
    always beside the old one first.

    Args:
        folder: of the run.
        seconds: between two checkpoints within an epoch.
    """

    def __init__(self, folder: Path, *, seconds: float = SAVE_SECONDS) -> None:
        self.folder = folder
        self.path = folder / "checkpoint" / CHECKPOINT
        self.seconds = seconds
        self.saved = time.monotonic()
        self.interrupted = False
        self.handler: Any = None

    def on_train_start(self, trainer: pl.Trainer, module: Any) -> None:
        if threading.current_thread() is threading.main_thread():
            self.handler = signal.signal(signal.SIGINT, self._note_interrupt)

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: Any, outputs: Any, batch: Any, index: int
    ) -> None:
        # After the last batch comes validation, and then the epoch's own checkpoint. Several
        # processes must save together, and their clocks differ: they save at epochs only. Gradients
        # of a step that is not taken yet would be lost.
        if index + 1 >= trainer.num_training_batches or trainer.world_size > 1:
            return
        if (index + 1) % trainer.accumulate_grad_batches:
            return
        if self.interrupted or time.monotonic() - self.saved > self.seconds:
            self.save(trainer)
        self._stop_if_interrupted(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, module: Any) -> None:
        self.save(trainer)
        if trainer.current_epoch + 1 < (trainer.max_epochs or 0):
            self._stop_if_interrupted(trainer)

    def teardown(self, trainer: pl.Trainer, module: Any, stage: str) -> None:
        if self.handler is not None:
            signal.signal(signal.SIGINT, self.handler)

    def save(self, trainer: pl.Trainer) -> None:
        """Now."""
        fresh = self.path.with_suffix(".new")
        try:
            trainer.save_checkpoint(fresh)
            if trainer.is_global_zero:
                fresh.replace(self.path)
        except (OSError, RuntimeError) as error:
            fresh.unlink(missing_ok=True)
            raise FullconvError(
                f"the checkpoint could not be written to {self.path}: {error}. The previous one "
                "and the best model are untouched.",
                "df -h",
            ) from error
        self.saved = time.monotonic()

    def _note_interrupt(self, *_: Any) -> None:
        """The step in hand is finished first; a second Ctrl-C stops at once."""
        self.interrupted = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def _stop_if_interrupted(self, trainer: pl.Trainer) -> None:
        if self.interrupted:
            raise StoppedError(
                f"stopped in epoch {trainer.current_epoch + 1} of {trainer.max_epochs}; all is "
                "saved.",
                shell_command("fullconv", "train", "--resume", self.folder),
            )
