"""Callbacks of the training loop: progress and log.csv, guards, checkpoints, readable errors."""

from __future__ import annotations

import csv
import io
import math
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from fullconv.core.errors import FullconvError, StoppedError
from fullconv.core.files import atomic_write
from fullconv.core.i18n import join, msg, translate
from fullconv.core.metric_names import TITLES
from fullconv.core.progress import finish_stages, is_terminal, say
from fullconv.core.text import duration, first_line, percent, shell_command
from fullconv.data.loading.dataset import ResumableBatchSampler

COLUMNS = ("epoch", "step", "loss", "lr", "mean_iou", "pixel_accuracy", "seconds")
LOG_STEPS = 20  # between two values of the loss in Lightning's loggers
CHECKPOINT = "last.ckpt"
SAVE_SECONDS = 300  # between two checkpoints within an epoch
COLLAPSED_EPOCHS = 3  # in a row, before the warning


class Reporter(pl.Callback):
    """Print a line per epoch, append it to a CSV file (an existing one is continued), and pass the
    numbers to Lightning's loggers. A terminal also shows a progress bar.

    The loss is the mean since the epoch began, also in an epoch that was resumed; `self.log` would
    log the loss of single steps.
    """

    def __init__(self, log_file: Path, *, quiet: bool = False) -> None:
        self.log_file = log_file
        self.console = Console(stderr=True, quiet=quiet, highlight=False)
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=28),
            TextColumn("{task.fields[state]}"),
            console=self.console,
            transient=True,
            disable=quiet or not is_terminal(),
        )
        self.task: Any = None
        self.loss_sum, self.loss_count = 0.0, 0
        self.recent: list[float] = []  # losses since they were last passed to the loggers
        self.best = -1.0
        self.started = time.monotonic()
        # Batches and seconds of this process, to estimate the time left.
        self.batches = self.validation_batches = 0
        self.validation_started = self.validation_seconds = 0.0
        self.batch_size = 1

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.started = time.monotonic()

    def on_train_batch_start(
        self, trainer: pl.Trainer, module: Any, batch: Any, index: int
    ) -> None:
        if self.task is None:  # not earlier: reading the first batch was a stage
            finish_stages()
            self.task = self.bar.add_task("", total=_all_batches(trainer), state="")
            self.bar.start()
            self.batch_size = len(batch[0])

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: Any, outputs: Any, batch: Any, index: int
    ) -> None:
        loss = _loss_value(outputs)
        self.loss_sum += loss
        self.loss_count += 1
        self.batches += 1
        if trainer.loggers:
            self.recent.append(loss)
            if trainer.global_step % LOG_STEPS == 0:
                self._log_loss(trainer)
        self._update_bar(trainer, index + 1, 0, self.loss_sum / self.loss_count)

    def on_validation_start(self, trainer: pl.Trainer, module: Any) -> None:
        self.validation_started = time.monotonic()

    def on_validation_batch_end(
        self, trainer: pl.Trainer, module: Any, outputs: Any, batch: Any, index: int, *_: Any
    ) -> None:
        now = time.monotonic()
        self.validation_seconds += now - self.validation_started
        self.validation_started = now
        self.validation_batches += 1
        loss = self.loss_sum / max(self.loss_count, 1)
        self._update_bar(trainer, int(trainer.num_training_batches), index + 1, loss)

    def on_train_epoch_end(self, trainer: pl.Trainer, module: Any) -> None:
        loss = self.loss_sum / max(self.loss_count, 1)
        self.loss_sum, self.loss_count = 0.0, 0
        metrics = module.latest[0].to_dict() if module.latest else {}
        mean_iou, accuracy = (metrics.get(key) or 0.0 for key in ("mean_iou", "pixel_accuracy"))
        self.best = max(self.best, mean_iou)
        validation = _validation_batches(trainer)
        left = self._update_bar(trainer, int(trainer.num_training_batches), validation, loss)
        if not trainer.is_global_zero:
            return
        epoch = trainer.current_epoch + 1
        heads = ("", *module.model.heads)
        parts: list[str] = [
            msg("epoch {epoch}/{epochs}", epoch=epoch, epochs=trainer.max_epochs),
            msg("loss {loss:.3f}", loss=loss),
            msg("mean IoU {value}", value=percent(mean_iou)),
            msg("pixel accuracy {value}", value=percent(accuracy)),
        ]
        for name, head in zip(heads[1:], module.latest[1:], strict=False):
            parts.append(f"{name} {percent(head.mean_iou)}")
        parts.append(msg("{time} left", time=left))
        self.console.print(translate(join(parts, "  ")))
        row = [epoch, trainer.global_step, round(loss, 5), f"{_learning_rate(trainer):.3g}"]
        row += [round(mean_iou, 5), round(accuracy, 5), round(time.monotonic() - self.started, 1)]
        self._write_row(row)

        # Lightning's loggers get the remaining losses, and all metrics of all heads.
        if trainer.loggers:
            self._log_loss(trainer)
            values: dict[str, float] = {"epoch": epoch}
            for name, head in zip(heads, module.latest, strict=False):
                prefix = f"{name}/" if name else ""
                metrics = head.to_dict()
                table = {title: metrics[title] for title in TITLES}
                table |= {f"iou/{key}": value for key, value in metrics["per_class_iou"].items()}
                values |= {prefix + key: v for key, v in table.items() if v is not None}
            _log(trainer, values)

    def teardown(self, trainer: pl.Trainer, module: Any, stage: str) -> None:
        self.bar.stop()

    def on_exception(self, trainer: pl.Trainer, module: Any, error: BaseException) -> None:
        self.bar.stop()

    def state_dict(self) -> dict[str, Any]:
        return {"loss_sum": self.loss_sum, "loss_count": self.loss_count, "best": self.best}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.loss_sum, self.loss_count = state["loss_sum"], state["loss_count"]
        self.best = state["best"]

    def _update_bar(
        self, trainer: pl.Trainer, batches: int, validation_batches: int, loss: float
    ) -> str:
        """Show how far the epoch is, and return the time left, validation included."""
        per_epoch, validation = int(trainer.num_training_batches), _validation_batches(trainer)
        epochs_left = (trainer.max_epochs or 0) - trainer.current_epoch
        batches_left = epochs_left * per_epoch - batches
        validation_left = epochs_left * validation - validation_batches
        seconds = time.monotonic() - self.started - self.validation_seconds
        per_batch = seconds / max(self.batches, 1)
        if self.validation_batches:
            per_image = self.validation_seconds / self.validation_batches
        else:  # a forward pass alone takes about a third of a training step
            per_image = per_batch / (3 * self.batch_size)
        left = duration(batches_left * per_batch + validation_left * per_image)
        if self.task is not None and not self.bar.disable:
            epoch, epochs = trainer.current_epoch + 1, trainer.max_epochs
            title = translate(msg("epoch {epoch}/{epochs}", epoch=epoch, epochs=epochs))
            parts = [msg("loss {loss:.3f}", loss=loss)]
            if self.best >= 0:
                parts.append(msg("best mean IoU {value}", value=percent(self.best)))
            parts.append(msg("{time} left", time=left))
            done = _all_batches(trainer) - batches_left - validation_left
            state = translate(join(parts, "  "))
            self.bar.update(self.task, completed=done, description=title, state=state)
        return left

    def _write_row(self, row: Sequence[Any]) -> None:
        """Write log.csv; rows of epochs that are repeated after a stop are replaced."""
        rows: list[list[str]] = []
        if self.log_file.exists():
            with self.log_file.open(newline="") as file:
                rows = [r for r in list(csv.reader(file))[1:] if int(r[0]) < int(row[0])]
        text = io.StringIO(newline="")
        csv.writer(text).writerows([COLUMNS, *rows, row])
        atomic_write(self.log_file, text.getvalue())

    def _log_loss(self, trainer: pl.Trainer) -> None:
        if self.recent:
            loss = sum(self.recent) / len(self.recent)
            self.recent.clear()
            _log(trainer, {"loss": loss, "lr": _learning_rate(trainer)})


def _validation_batches(trainer: pl.Trainer) -> int:
    return int(sum(trainer.num_val_batches))


def _all_batches(trainer: pl.Trainer) -> int:
    per_epoch = int(trainer.num_training_batches) + _validation_batches(trainer)
    return (trainer.max_epochs or 0) * per_epoch


def _loss_value(outputs: dict[str, Any]) -> float:
    """Return the loss of a step, which all callbacks share: it is copied from the device once."""
    if "loss_value" not in outputs:
        outputs["loss_value"] = float(outputs["loss"].detach())
    return float(outputs["loss_value"])


def _learning_rate(trainer: pl.Trainer) -> float:
    return float(trainer.optimizers[0].param_groups[0]["lr"])


def _log(trainer: pl.Trainer, values: dict[str, float]) -> None:
    for logger in trainer.loggers:
        logger.log_metrics(values, trainer.global_step)


class TrainingGuards(pl.Callback):
    """Stop if the loss is not finite; warn if every pixel is predicted as one class."""

    def __init__(self, class_names: tuple[str, ...]) -> None:
        self.class_names = class_names
        self.collapsed, self.warned = 0, False

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: Any, outputs: Any, batch: Any, index: int
    ) -> None:
        loss = _loss_value(outputs)
        if math.isfinite(loss):
            return
        lr, epoch = _learning_rate(trainer), trainer.current_epoch + 1
        values = {"loss": loss, "step": trainer.global_step, "epoch": epoch, "lr": lr}
        raise FullconvError(
            msg(
                "the loss became {loss} at step {step} (epoch {epoch}, learning rate "
                "{lr:.2g}). This usually means that the learning rate is too high, or that half "
                "precision is too coarse. The best model of the epochs before is kept.",
                **values,
            ),
            msg("--lr {lr:.2g}   # or --precision float32", lr=lr / 4),
        )

    def on_validation_end(self, trainer: pl.Trainer, module: Any) -> None:
        if trainer.sanity_checking or not module.latest:
            return
        confusion = module.latest[0].confusion
        predicted = confusion.sum(axis=0) > 0
        collapsed = predicted.sum() == 1 and (confusion.sum(axis=1) > 0).sum() > 1
        self.collapsed = self.collapsed + 1 if collapsed else 0
        if self.collapsed >= COLLAPSED_EPOCHS and not self.warned and trainer.is_global_zero:
            self.warned = True
            say(
                msg(
                    "warning: for {epochs} epochs every pixel has been predicted as {name!r}. The "
                    "run may recover. If it does not, the usual causes are masks that are nearly "
                    "all {name!r}, a learning rate that is too high, or training from scratch on "
                    "few images.\n"
                    "  try: --class-weights auto, --lr 0.0005, or a pretrained backbone",
                    epochs=self.collapsed,
                    name=self.class_names[int(predicted.argmax())],
                )
            )


class Checkpoints(pl.Callback):
    """Write checkpoint/last.ckpt after every epoch, every few minutes within one, and at Ctrl-C;
    resume a run at the batch where it stopped.

    Lightning's ModelCheckpoint takes either a time interval or epochs, and may save between two
    passes of an accumulated gradient, which a resumed run would lose.
    """

    batches: ResumableBatchSampler  # of the training split; set before a checkpoint is loaded

    def __init__(self, folder: Path, *, seconds: float = SAVE_SECONDS) -> None:
        self.folder, self.seconds = folder, seconds
        self.path = folder / "checkpoint" / CHECKPOINT
        self.saved = time.monotonic()
        self.interrupted = False
        self.handler: Any = None

    def on_load_checkpoint(
        self, trainer: pl.Trainer, module: Any, checkpoint: dict[str, Any]
    ) -> None:
        progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]["current"]
        epoch, batch = checkpoint["epoch"], progress["processed"]
        if batch >= len(self.batches):
            epoch, batch = epoch + 1, 0
        # Here, because worker processes ask for batches before Lightning sets the epoch.
        self.batches.set_epoch(epoch)
        self.batches.first_batch[epoch] = batch

    def on_train_start(self, trainer: pl.Trainer, module: Any) -> None:
        if threading.current_thread() is threading.main_thread():
            self.handler = signal.signal(signal.SIGINT, self._note_interrupt)

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: Any, outputs: Any, batch: Any, index: int
    ) -> None:
        # The last batch is followed by validation and the epoch's own checkpoint. Several
        # processes must save together, but their clocks differ: they save after epochs only.
        # Between the passes of an accumulated gradient, that gradient would be lost.
        is_last = index + 1 >= trainer.num_training_batches
        if is_last or trainer.world_size > 1 or (index + 1) % trainer.accumulate_grad_batches:
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

    def on_exception(self, trainer: pl.Trainer, module: Any, error: BaseException) -> None:
        self.teardown(trainer, module, "fit")

    def save(self, trainer: pl.Trainer) -> None:
        """Write the checkpoint, in place of the previous one once it is complete."""
        fresh = self.path.with_suffix(".new")  # the same name in all processes
        try:
            trainer.save_checkpoint(fresh)
            if trainer.is_global_zero:
                fresh.replace(self.path)
        except (OSError, RuntimeError) as error:
            fresh.unlink(missing_ok=True)
            raise FullconvError(
                msg(
                    "the checkpoint could not be written to {path}: {reason}. The previous "
                    "checkpoint and the best model are untouched.",
                    path=self.path,
                    reason=first_line(error),
                ),
                "df -h",
            ) from error
        self.saved = time.monotonic()

    def _note_interrupt(self, *_: Any) -> None:
        """Finish the current step first; a second Ctrl-C stops at once."""
        self.interrupted = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def _stop_if_interrupted(self, trainer: pl.Trainer) -> None:
        if self.interrupted:
            values = {"epoch": trainer.current_epoch + 1, "epochs": trainer.max_epochs}
            raise StoppedError(
                msg("stopped in epoch {epoch} of {epochs}; everything is saved.", **values),
                shell_command("fullconv", "train", "--resume", self.folder),
            )


@contextmanager
def readable_errors(batch_size: int, crop: tuple[int, int]) -> Iterator[None]:
    """Rewrite errors of worker processes, which arrive wrapped in tracebacks, and of a device that
    runs out of memory."""
    try:
        yield
    except FullconvError as error:
        if "DataLoader worker" not in error.message:
            raise
        message, _, hint = error.message.rpartition("FullconvError: ")[2].partition("\n  try: ")
        raise FullconvError(message.strip(), hint.strip()) from None
    except torch.OutOfMemoryError as error:
        values = {"count": batch_size, "height": crop[0], "width": crop[1]}
        raise FullconvError(
            msg(
                "{count} images of {height} x {width} pixels do not fit in the device's memory: "
                "{reason}.",
                **values,
                reason=first_line(error),
            ),
            f"--batch-size {max(1, batch_size // 2)}",
        ) from error
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise FullconvError(
            msg(
                "a process that reads images was killed, most often because memory ran out: "
                "{reason}.",
                reason=first_line(error),
            ),
            "--workers 0",
        ) from error
