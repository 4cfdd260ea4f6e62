"""Watch: images of a training while it runs, which cost it next to nothing.

The validation labels every image anyway; of a few, always the same, the labels are kept and drawn
in a thread of the first process, while all processes train on.
"""

from __future__ import annotations

import sys
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

from fullconv.core.settings import WHOLE, Settings
from fullconv.data.check.check import CheckReport
from fullconv.data.loading.dataset import SegmentationDataset
from fullconv.models.model import Model
from fullconv.training import image_sheets as album
from fullconv.training.auto_settings import inverse_sqrt_frequency
from fullconv.visualization.contact_sheet import subsample

FOLDER = "images"
CROPS = 12  # on the sheet of the first batches
IMAGES = 6  # on the sheet of an epoch
_VISIBLE = 0.005  # of an image's labelled pixels (fraction): more of a class is no better


class Watch(pl.Callback):
    """Draws images/batches.png before the first step, and images/epoch_XXXX.png after the first
    epoch, each `images_every`-th and the last.

    Args:
        folder: of the run.
        settings: decided.
        reports: of the data set, and of further heads.
        split: that the training is judged by.
        quiet: do not say where the images are.
    """

    def __init__(
        self,
        folder: Path,
        settings: Settings,
        reports: Sequence[CheckReport],
        split: str,
        *,
        quiet: bool = False,
    ) -> None:
        self.folder, self.settings = folder / FOLDER, settings
        self.reports, self.split, self.quiet = reports, split, quiet
        self.every = settings.log_images_every or 0
        self.chosen: list[int] = []
        self.kept: list[album.Labelled] = []
        self.pen: ThreadPoolExecutor | None = None
        self.drawing: Future[None] | None = None
        self.failed = False
        self.keeps = False  # whether somebody takes what is done
        self.done: deque[tuple[str, Image.Image, int]] = deque()  # name, sheet, step

    def on_train_start(self, trainer: pl.Trainer, module: Any) -> None:
        if not self.every or not trainer.is_global_zero:
            return
        seed, step = self.settings.seed, trainer.world_size
        self.chosen = choose(self.reports, self.split, seed=seed, step=step)
        if trainer.global_step:  # resumed
            return
        loader: Any = trainer.train_dataloader
        keys = islice(chain.from_iterable(loader.batch_sampler), CROPS)
        crops = [_crop(loader.dataset, key, module.model) for key in keys]
        how = _how(self.settings, [crop.outside.shape for crop in crops])
        tables = _tables(module.model)
        sheet = album.batches_sheet(
            crops, tables, module.model.extra_inputs, module.ignore_index, how
        )
        self._save(sheet, album.BATCHES, ("batches", sheet, 0))
        if not (self.quiet or self.failed):
            print(f"images: {self.folder / album.BATCHES} ...", file=sys.stderr)

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        module: Any,
        outputs: Any,
        batch: Any,
        index: int,
        loader_index: int = 0,
    ) -> None:
        place = index * trainer.world_size  # of the first process
        if place not in self.chosen or not self._due(trainer):
            return
        images, target = batch
        loader: Any = trainer.val_dataloaders
        self.kept.append(
            album.Labelled(
                loader.dataset.pairs[place].name,
                subsample(images[0, :3].byte().permute(1, 2, 0).cpu().numpy()),
                [subsample(ids) for ids in _maps(target[0])],
                [subsample(ids[0].cpu().numpy()) for ids in outputs["found"]],
            )
        )

    def on_validation_end(self, trainer: pl.Trainer, module: Any) -> None:
        kept, self.kept = self.kept, []
        if not kept or module.latest is None:
            return
        epoch = trainer.current_epoch + 1
        tables, ignore_index = _tables(module.model), module.ignore_index
        heads = zip(tables, (module.latest, *module.others.values()), strict=True)
        reached = ", ".join(f"{name} {of.mean_iou:.1%}".strip() for (name, _), of in heads)
        heading = f"epoch {epoch} of {trainer.max_epochs}: mean IoU {reached} on {self.split}"
        self._wait()
        self.pen = self.pen or ThreadPoolExecutor(1, "images")

        step = trainer.global_step

        def draw() -> None:
            sheet = album.epoch_sheet(kept, tables, ignore_index, heading)
            self._save(sheet, f"epoch_{epoch:04}.png", ("validation", sheet, step))

        self.drawing = self.pen.submit(draw)

    def teardown(self, trainer: pl.Trainer, module: Any, stage: str) -> None:
        self._wait()
        if self.pen is not None:
            self.pen.shutdown()
            self.pen = None

    def _due(self, trainer: pl.Trainer) -> bool:
        epoch = trainer.current_epoch + 1
        return epoch in (1, trainer.max_epochs) or epoch % self.every == 0

    def _wait(self) -> None:
        """For the sheet before: there is never more than one in memory."""
        if self.drawing is not None:
            self.drawing.result()

    def _save(self, sheet: Image.Image, name: str, told: tuple[str, Image.Image, int]) -> None:
        """An image that cannot be written does not end a training."""
        if self.keeps:
            self.done.append(told)
        try:
            album.save(sheet, self.folder / name)
        except OSError as error:
            if not self.failed:
                said = f"note: no images in {self.folder}: {error.strerror or error}"
                print(said, file=sys.stderr)
            self.failed = True


def choose(
    reports: Sequence[CheckReport],
    split: str,
    *,
    seed: int,
    step: int = 1,
    count: int = IMAGES,
) -> list[int]:
    """Numbers of images of a split that show as many classes as so few can, rare ones first: each
    is the one that adds most to those before, and where none adds anything, a random one.

    Args:
        reports: of the data set, and of further heads, whose classes count too.
        seed: of the order in which equals are taken.
        step: only each so-many-th image: those that the first of so many processes reads.
    """
    pairs = reports[0].dataset.splits[split][::step]
    reach, weights = [], []
    for k, report in enumerate(reports):
        masks = [pair.mask if k == 0 else pair.masks[k - 1] for pair in pairs]
        shown = np.zeros((len(masks), len(report.dataset.labels)))
        for row, mask in zip(shown, masks, strict=True):
            for class_id, pixels in report.mask_class_pixels.get(mask, {}).items():
                row[class_id] = pixels
        shares = shown / np.maximum(shown.sum(axis=1, keepdims=True), 1)
        reach.append(np.minimum(shares / _VISIBLE, 1))
        weights += inverse_sqrt_frequency(shown.sum(axis=0).astype(int).tolist())
    order = np.random.default_rng(seed).permutation(len(pairs))
    seen = np.concatenate(reach, axis=1)[order]
    covered = np.zeros(len(weights))
    chosen: list[int] = []
    for _ in range(min(count, len(pairs))):
        gain = np.maximum(seen - covered, 0) @ np.array(weights)
        gain[chosen] = -1
        chosen.append(int(gain.argmax()))
        covered = np.maximum(covered, seen[chosen[-1]])
    return sorted(int(order[place]) * step for place in chosen)


def _crop(samples: SegmentationDataset, key: tuple[int, int], model: Model) -> album.Crop:
    image, target = samples[key]
    (seen,) = album.as_seen(model, image[None])
    outside: NDArray[np.bool_] = samples.padding_mask(key).numpy()
    return album.Crop(samples.pairs[key[0]].name, seen, _maps(target), outside)


def _maps(target: Tensor) -> list[NDArray[Any]]:
    """(H, W) or (heads, H, W) -> (H, W) of each head."""
    return list(target.reshape(-1, *target.shape[-2:]).cpu().numpy())


def _tables(model: Model) -> list[tuple[str, Any]]:
    return list(zip((model.head, *model.heads), model.tables, strict=True))


def _how(settings: Settings, sizes: Sequence[tuple[int, ...]]) -> str:
    what = "whole images" if settings.crop == WHOLE else "crops"
    parts = [f"the first {len(sizes)} {what} of {sizes[0][0]} x {sizes[0][1]} pixels"]
    if len(set(sizes)) > 1:
        parts = [f"the first {len(sizes)} {what}"]
    assert settings.scale is not None
    if settings.scale != (1.0, 1.0):
        parts.append(f"magnified {settings.scale[0]:g} to {settings.scale[1]:g} times")
    parts += ["half of them mirrored"] * settings.flip
    parts += [f"colours varied by up to {settings.color_jitter:.0%}"] * bool(settings.color_jitter)
    return ", ".join(parts)
