"""Labeled images as tensors, in a random order that can be repeated.

Each sample is transformed with its own seed, made of (seed, epoch, position), and the order of each
epoch is drawn with one made of (seed, epoch). A run that is stopped and resumed gets exactly the
same samples, with any number of workers.

Shapes: H, W image · h, w output · C extra channels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler, get_worker_info

from fullconv.core.errors import FullconvError
from fullconv.core.i18n import msg, translate
from fullconv.core.labels import Labels
from fullconv.data.io.extra_channels import read_channels, require_size
from fullconv.data.io.images import read_image
from fullconv.data.io.masks import read_mask
from fullconv.data.layouts.file_names import Pair
from fullconv.data.loading.decoded_cache import DecodedCache
from fullconv.data.loading.transforms import TrainTransform, to_tensors, with_channels

Key = tuple[int, int]  # index of a pair and seed of its transform; index -1: all pixels ignored
IDLE: Key = (-1, 0)


class SegmentationDataset(Dataset[tuple[Tensor, Tensor]]):
    """Images (3, h, w) uint8 RGB and targets (h, w) of class ids.

    With extra inputs, images are (3 + C, h, w) float32: RGB, then the extra channels in the units
    of their files. With additional heads, targets are (heads, h, w).

    Args:
        transform: None returns images and masks unchanged.
        extra_labels: class tables of the additional heads. All heads then share the ignore index
            `shared_ignore_index`.
        cache: keeps decoded files, at the index of the pair plus `cache_offset`.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        labels: Labels,
        transform: TrainTransform | None = None,
        *,
        extra_labels: Sequence[Labels] = (),
        cache: DecodedCache | None = None,
        cache_offset: int = 0,
    ) -> None:
        self.pairs = pairs
        self.tables = (labels, *extra_labels)
        self.ignore_index = shared_ignore_index(self.tables)
        self.transform, self.cache, self.cache_offset = transform, cache, cache_offset

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, key: Key) -> tuple[Tensor, Tensor]:
        index, seed = key
        try:
            image, mask, *rest = self._decode(max(index, 0))
        except FullconvError as error:
            if get_worker_info() is None:
                raise
            # The parent process rebuilds an error of a worker from its class and the text of its
            # traceback, which cannot be translated, and names the class that `readable_errors`
            # looks for.
            raise FullconvError(translate(error.message), translate(error.hint)) from None
        tensor, target = to_tensors(image, mask)
        extra = torch.from_numpy(rest[0]).permute(2, 0, 1).float() if rest else None
        if index < 0:
            target = torch.full_like(target, self.ignore_index)
        if self.transform is None:
            return with_channels(tensor, extra), target
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.transform(tensor, target, extra)

    def padding_mask(self, key: Key) -> Tensor:
        """Return (h, w) bool: True where a sample is outside of its image."""
        index, seed = key
        zeros = torch.zeros(self._decode(max(index, 0))[0].shape[:2], dtype=torch.uint8)
        if self.transform is None:
            return zeros.bool()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            # Color jitter draws last, so that without it the crop is the same.
            marking = replace(self.transform, ignore_index=1, color=0.0)
            return marking(zeros.expand(3, -1, -1), zeros)[1] == 1

    def _decode(self, index: int) -> list[np.ndarray]:
        """Return image (H, W, 3), ids (H, W) or (heads, H, W) and any extra channels (H, W, C)."""
        cached = self.cache.get(self.cache_offset + index) if self.cache else None
        if cached is not None:
            return cached
        pair = self.pairs[index]
        image = read_image(pair.image)
        size, masks = image.shape[:2], []
        for path, labels in zip((pair.mask, *pair.masks), self.tables, strict=True):
            mask = read_mask(path, labels)
            if size != mask.shape:
                values = {"image": pair.image, "width": size[1], "height": size[0], "mask": path}
                values |= {"mask_width": mask.shape[1], "mask_height": mask.shape[0]}
                raise FullconvError(
                    msg(
                        "{image} is {width} x {height} pixels but {mask} is {mask_width} x "
                        "{mask_height}.",
                        **values,
                    ),
                    "fullconv check DATA",
                )
            if labels.ignore_index != self.ignore_index:
                wide = mask if self.ignore_index < 256 else mask.astype(np.uint16)
                ignored = wide.dtype.type(self.ignore_index)
                mask = np.where(mask == labels.ignore_index, ignored, wide)
            masks.append(mask)
        arrays = [image, masks[0] if len(masks) == 1 else np.stack(masks)]
        if pair.inputs:
            inputs = [read_channels(path) for path in pair.inputs]
            for path, channels in zip(pair.inputs, inputs, strict=True):
                require_size(channels, path, size, str(pair.image))
            arrays.append(np.concatenate(inputs, axis=2))
        if self.cache:
            self.cache.put(self.cache_offset + index, *arrays)
        return arrays


def shared_ignore_index(tables: Sequence[Labels]) -> int:
    """Return one ignore index for several heads; a single head keeps its own."""
    if len(tables) == 1:
        return tables[0].ignore_index
    return 255 if max(len(labels) for labels in tables) <= 255 else 65535


class ResumableBatchSampler(Sampler[list[Key]]):
    """Batches for one process: `count` images in a new order each epoch.

    The images of a last, smaller batch are left out (the order differs in each epoch), unless it
    is the only batch. All processes together (`rank` of `world_size`) yield what one process with
    `world_size` times the batch size would.
    """

    def __init__(
        self, count: int, batch_size: int, *, seed: int, rank: int = 0, world_size: int = 1
    ) -> None:
        self.count, self.batch_size, self.seed = count, batch_size, seed
        self.rank, self.world_size = rank, world_size
        self.epoch = 0
        self.first_batch = {0: 0}  # epoch -> first batch, after a stop within that epoch
        self.sampler = self  # Lightning calls batch_sampler.sampler.set_epoch

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch; Lightning calls this before each one."""
        self.epoch = epoch

    def __len__(self) -> int:
        return max(1, self.count // (self.batch_size * self.world_size))

    def __iter__(self) -> Iterator[list[Key]]:
        epoch = self.epoch
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        order = torch.randperm(self.count, generator=generator).tolist()
        seeds = torch.randint(2**31, (self.count,), generator=generator).tolist()
        step = self.batch_size * self.world_size
        # If there are fewer images than one batch, they repeat, each time with another seed.
        rounds = max(1, math.ceil(step / max(1, self.count)))
        pairs = list(zip(order, seeds, strict=True))
        keys = [(index, seed + again) for again in range(rounds) for index, seed in pairs]
        for number in range(self.first_batch.get(epoch, 0), len(self)):
            yield keys[number * step : (number + 1) * step][self.rank :: self.world_size]


class EvaluationSampler(Sampler[list[Key]]):
    """Batches of one image, in order; every process gets the same number."""

    def __init__(self, count: int, *, rank: int = 0, world_size: int = 1) -> None:
        self.count, self.rank, self.world_size = count, rank, world_size

    def __len__(self) -> int:
        return -(-self.count // self.world_size)

    def __iter__(self) -> Iterator[list[Key]]:
        for start in range(0, self.count, self.world_size):
            index = start + self.rank
            yield [(index, 0) if index < self.count else IDLE]
