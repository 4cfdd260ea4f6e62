"""Log images while a run trains, at almost no cost.

Validation predicts every image anyway. The predictions of a few fixed images are kept and drawn in
a thread of the first process, while all processes train on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fullconv.core.files import atomic_path
from fullconv.core.i18n import join, msg
from fullconv.core.progress import say
from fullconv.core.settings import WHOLE
from fullconv.core.text import percent
from fullconv.data.check.check import CheckReport
from fullconv.data.loading.transforms import TrainTransform
from fullconv.models.model import Model
from fullconv.training.auto_settings import inverse_sqrt_frequency
from fullconv.training.image_sheets import (
    Crop,
    Heads,
    ValidationImage,
    batches_sheet,
    epoch_sheet,
    network_inputs,
)
from fullconv.visualization.contact_sheet import subsample

CROPS = 12  # on the sheet of the first batches
IMAGES = 6  # on the sheet of an epoch
_VISIBLE = 0.005  # of an image's labeled pixels (fraction); more of a class adds nothing


class ImageLogger(pl.Callback):
    """Draw images/batches.png before the first step and images/epoch_XXXX.png after the first
    epoch, every N epochs (0 draws nothing), and the last one. Lightning's loggers receive the
    sheets, too. The seed decides between equally informative images."""

    def __init__(
        self,
        folder: Path,
        every: int,
        reports: Sequence[CheckReport],
        split: str,
        *,
        seed: int = 0,
        quiet: bool = False,
    ) -> None:
        self.folder, self.every = folder, every
        self.reports, self.split, self.seed, self.quiet = reports, split, seed, quiet
        self.chosen: list[int] = []
        self.predicted: list[ValidationImage] = []
        self.thread: ThreadPoolExecutor | None = None
        self.drawing: Future[None] | None = None
        self.failed = False
        self.sheets: deque[tuple[str, Image.Image, int]] = deque()  # name, sheet, step: to log

    def on_train_start(self, trainer: pl.Trainer, module: Any) -> None:
        if not self.every or not trainer.is_global_zero:
            return
        stride = trainer.world_size
        self.chosen = choose_images(self.reports, self.split, seed=self.seed, stride=stride)
        if trainer.global_step:  # resumed
            return
        loader: Any = trainer.train_dataloader
        samples, model = loader.dataset, module.model
        crops = []
        for key in islice(chain.from_iterable(loader.batch_sampler), CROPS):
            image, target = samples[key]
            outside = samples.padding_mask(key).numpy()
            name = samples.pairs[key[0]].name
            crops.append(Crop(name, network_inputs(model, image), _head_maps(target), outside))
        heading = _describe_crops(samples.transform, [crop.outside.shape for crop in crops])
        heads, inputs = _heads(model), model.extra_inputs
        sheet = batches_sheet(crops, heads, inputs, module.ignore_index, heading)
        self._save(sheet, "batches.png", "batches", 0)
        self._log_sheets(trainer)
        if not (self.quiet or self.failed):
            say(msg("images: {path} ...", path=self.folder / "batches.png"))

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: Any, outputs: Any, batch: Any, index: int
    ) -> None:
        self._log_sheets(trainer)

    def on_validation_batch_end(
        self, trainer: pl.Trainer, module: Any, outputs: Any, batch: Any, index: int, *_: Any
    ) -> None:
        number = index * trainer.world_size  # the first process reads every world_size-th image
        epoch = trainer.current_epoch + 1
        if number not in self.chosen:
            return
        if epoch not in (1, trainer.max_epochs) and epoch % self.every:
            return
        images, target = batch
        loader: Any = trainer.val_dataloaders
        name = loader.dataset.pairs[number].name
        photo = subsample(images[0, :3].byte().permute(1, 2, 0).cpu().numpy())
        targets = [subsample(ids) for ids in _head_maps(target[0])]
        predictions = [subsample(ids[0].cpu().numpy()) for ids in outputs["predictions"]]
        self.predicted.append(ValidationImage(name, photo, targets, predictions))

    def on_validation_end(self, trainer: pl.Trainer, module: Any) -> None:
        images, self.predicted = self.predicted, []
        if not images or not module.latest:
            return
        epoch, step = trainer.current_epoch + 1, trainer.global_step
        heads, ignore_index = _heads(module.model), module.ignore_index
        scores = [
            f"{name} {percent(metrics.mean_iou)}".strip()
            for (name, _), metrics in zip(heads, module.latest, strict=True)
        ]
        values = {"epoch": epoch, "epochs": trainer.max_epochs, "split": self.split}
        values["scores"] = ", ".join(scores)
        heading = msg("epoch {epoch} of {epochs}: mean IoU {scores} on {split}", **values)

        def draw() -> None:
            sheet = epoch_sheet(images, heads, ignore_index, heading)
            self._save(sheet, f"epoch_{epoch:04}.png", "validation", step)

        self._wait()  # there is never more than one sheet in memory
        self.thread = self.thread or ThreadPoolExecutor(1, "images")
        self.drawing = self.thread.submit(draw)

    def teardown(self, trainer: pl.Trainer, module: Any, stage: str) -> None:
        self._wait()
        if self.thread is not None:
            self.thread.shutdown()
            self.thread = self.drawing = None
        self._log_sheets(trainer)

    def on_exception(self, trainer: pl.Trainer, module: Any, error: BaseException) -> None:
        self.teardown(trainer, module, "fit")

    def _wait(self) -> None:
        if self.drawing is not None:
            self.drawing.result()

    def _save(self, sheet: Image.Image, file: str, name: str, step: int) -> None:
        self.sheets.append((name, sheet, step))
        try:
            with atomic_path(self.folder / file) as temporary:
                sheet.save(temporary, compress_level=4)  # half the time of 6, hardly larger
        except OSError as error:  # training goes on without images
            if not self.failed:
                reason = error.strerror or error
                say(msg("note: no images in {folder}: {reason}", folder=self.folder, reason=reason))
            self.failed = True

    def _log_sheets(self, trainer: pl.Trainer) -> None:
        """Pass finished sheets to the loggers, which only the main thread may call."""
        while self.sheets:
            name, sheet, step = self.sheets.popleft()
            loggers: list[Any] = trainer.loggers
            for logger in loggers:
                if hasattr(logger, "log_image"):
                    logger.log_image(f"images/{name}", [sheet], step)
                else:
                    writer = logger.experiment
                    writer.add_image(f"images/{name}", np.asarray(sheet), step, dataformats="HWC")


def choose_images(
    reports: Sequence[CheckReport], split: str, *, seed: int, stride: int = 1, count: int = IMAGES
) -> list[int]:
    """Return the sorted indices of images that together show as many classes of all heads as
    possible, with weight on rare ones.

    Greedy: each image is the one that adds most to those before it, or a random one if none adds
    anything. Only every `stride`-th image is considered, those that the first process reads.
    """
    # (images, classes of all heads): from 0 to 1, how well an image shows a class.
    pairs = reports[0].dataset.splits[split][::stride]
    visible, weights = [], []
    for head, report in enumerate(reports):
        masks = [pair.mask if head == 0 else pair.masks[head - 1] for pair in pairs]
        pixels = np.zeros((len(masks), len(report.dataset.labels)))
        for row, mask in zip(pixels, masks, strict=True):
            for class_id, number in report.mask_class_pixels.get(mask, {}).items():
                row[class_id] = number
        shares = pixels / np.maximum(pixels.sum(axis=1, keepdims=True), 1)
        visible.append(np.minimum(shares / _VISIBLE, 1))
        weights += inverse_sqrt_frequency(pixels.sum(axis=0).astype(int).tolist())

    order = np.random.default_rng(seed).permutation(len(pairs))
    shows = np.concatenate(visible, axis=1)[order]
    covered = np.zeros(len(weights))
    chosen: list[int] = []
    for _ in range(min(count, len(pairs))):
        gain = np.maximum(shows - covered, 0) @ np.array(weights)
        gain[chosen] = -1
        chosen.append(int(gain.argmax()))
        covered = np.maximum(covered, shows[chosen[-1]])
    return sorted(int(order[place]) * stride for place in chosen)


def _head_maps(target: Tensor) -> list[NDArray[Any]]:
    """Return the (H, W) ids of each head from a target (H, W) or (heads, H, W)."""
    return list(target.reshape(-1, *target.shape[-2:]).cpu().numpy())


def _heads(model: Model) -> Heads:
    return list(zip((model.head, *model.heads), model.tables, strict=True))


def _describe_crops(transform: TrainTransform, sizes: Sequence[tuple[int, ...]]) -> str:
    """Return the heading of the sheet of the first crops: how they were made."""
    values = {"count": len(sizes), "height": sizes[0][0], "width": sizes[0][1]}
    if len(set(sizes)) > 1:
        parts = [msg("the first {count} whole images", count=len(sizes))]
    elif transform.crop == WHOLE:
        parts = [msg("the first {count} whole images of {height} x {width} pixels", **values)]
    else:
        parts = [msg("the first {count} crops of {height} x {width} pixels", **values)]
    low, high = transform.scale
    if (low, high) != (1.0, 1.0):
        parts.append(msg("resized {low:g} to {high:g} times", low=low, high=high))
    if transform.flip:
        parts.append(msg("half of them flipped"))
    if transform.color:
        share = percent(transform.color, 0)
        parts.append(msg("colors varied by up to {share}", share=share))
    return join(parts, ", ")
