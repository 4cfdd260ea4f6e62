"""Labelled images as tensors, in an order and with a chance that can be repeated.

Each sample is drawn with a seed of its own, made of (seed, epoch, position), and each epoch's order
with one of (seed, epoch): a training that is stopped and resumed sees exactly what it would have
seen, with any number of reading processes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from fullconv.core.errors import FullconvError
from fullconv.core.labels import Labels
from fullconv.data.io.extra_channels import read_channels, require_size
from fullconv.data.io.images import read_image
from fullconv.data.io.masks import read_mask
from fullconv.data.layouts.pairing import Pair
from fullconv.data.loading.decoded_cache import DecodedCache
from fullconv.data.loading.transforms import TrainTransform, to_tensors, with_channels

Key = tuple[int, int]  # which pair, and the seed of its chance; -1: a pair with nothing labelled
IDLE: Key = (-1, 0)


class SegmentationDataset(Dataset[tuple[Tensor, Tensor]]):
    """Pairs as (3, h, w) uint8 RGB and (h, w) class ids. Where pairs have further inputs or masks,
    as (3 + E, h, w) float32, the E channels behind red, green and blue in the files' own numbers,
    and as (heads, h, w).

    Args:
        pairs: from `fullconv.data.layouts.dataset.load_dataset`.
        labels: what the masks' values mean.
        further: the class tables of the further masks. What each ignores is `ignore_index` of the
            augmentation then.
        augmentation: None gives images and masks as they are.
        cache: keeps what was decoded, by the pair's number plus `first`.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        labels: Labels,
        augmentation: TrainTransform | None = None,
        *,
        further: Sequence[Labels] = (),
        cache: DecodedCache | None = None,
        first: int = 0,
    ) -> None:
        self.pairs = pairs
        self.tables = (labels, *further)
        self.ignore_index = shared_ignore_index(self.tables)
        self.augmentation = augmentation
        self.cache = cache
        self.first = first

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, key: Key) -> tuple[Tensor, Tensor]:
        index, seed = key
        image, mask, *beside = self._decoded(max(index, 0))
        tensor, target = to_tensors(image, mask)
        extra = torch.from_numpy(beside[0]).permute(2, 0, 1).float() if beside else None
        if index < 0:
            target = torch.full_like(target, self.ignore_index)
        if self.augmentation is None:
            return with_channels(tensor, extra), target
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.augmentation(tensor, target, extra)

    def outside(self, key: Key) -> Tensor:
        """(h, w) bool: where a sample shows nothing of its image, for its crop is larger."""
        index, seed = key
        height, width = self._decoded(max(index, 0))[0].shape[:2]
        nothing = torch.zeros((height, width), dtype=torch.uint8)
        if self.augmentation is None:
            return nothing.bool()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            marking = replace(self.augmentation, ignore_index=1, color=0.0)  # drawn last: the same
            return marking(nothing.expand(3, -1, -1), nothing)[1] == 1

    def _decoded(self, index: int) -> list[np.ndarray]:
        """Image, ids and, where there are some, the channels of the further inputs."""
        kept = self.cache.get(self.first + index) if self.cache else None
        if kept is not None:
            return kept
        pair = self.pairs[index]
        image = read_image(pair.image)
        size, masks = image.shape[:2], []
        for path, labels in zip((pair.mask, *pair.masks), self.tables, strict=True):
            mask = read_mask(path, labels)
            if size != mask.shape:
                raise FullconvError(
                    f"{pair.image} is {size[1]} x {size[0]} pixels but {path} is "
                    f"{mask.shape[1]} x {mask.shape[0]}.",
                    "fullconv check DATA",
                )
            masks.append(_ignoring(mask, labels.ignore_index, self.ignore_index))
        decoded = [image, masks[0] if len(masks) == 1 else np.stack(masks)]
        if pair.inputs:
            found = [read_channels(path) for path in pair.inputs]
            for path, channels in zip(pair.inputs, found, strict=True):
                require_size(channels, path, size, str(pair.image))
            decoded.append(np.concatenate(found, axis=2))
        if self.cache:
            self.cache.put(self.first + index, *decoded)
        return decoded


def shared_ignore_index(tables: Sequence[Labels]) -> int:
    """One id for what is ignored by each of several heads; a single one's own."""
    if len(tables) == 1:
        return tables[0].ignore_index
    return 255 if max(len(labels) for labels in tables) <= 255 else 65535


def _ignoring(mask: np.ndarray, own: int, common: int) -> np.ndarray:
    if own == common:
        return mask
    wide = mask if common < 256 else mask.astype(np.uint16)
    return np.where(mask == own, wide.dtype.type(common), wide)


class ResumableBatchSampler(Sampler[list[Key]]):
    """Batches of one process: all images in a new order each epoch. The images that would make
    up a last, smaller batch are left out (the order is new each time) unless there is only one.

    Args:
        count: of images.
        batch: images per process and step.
        seed: of the order and of each sample's chance.
        rank, world: this process and how many there are; together they take what one process with
            `world` times the batch would take.
    """

    def __init__(self, count: int, batch: int, *, seed: int, rank: int = 0, world: int = 1) -> None:
        self.count, self.batch, self.seed = count, batch, seed
        self.rank, self.world = rank, world
        self.epoch = 0
        self.first_batch = {0: 0}  # epoch -> where to begin, after a stop within an epoch
        self.sampler = self  # Lightning calls batch_sampler.sampler.set_epoch

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return max(1, self.count // (self.batch * self.world))

    def __iter__(self) -> Iterator[list[Key]]:
        epoch = self.epoch
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        order = torch.randperm(self.count, generator=generator).tolist()
        seeds = torch.randint(2**31, (self.count,), generator=generator).tolist()
        step = self.batch * self.world
        # Fewer images than one batch: they are taken again, each time with another chance.
        rounds = max(1, math.ceil(step / max(1, self.count)))
        once = list(zip(order, seeds, strict=True))
        keys = [(index, seed + again) for again in range(rounds) for index, seed in once]
        for number in range(self.first_batch.get(epoch, 0), len(self)):
            yield keys[number * step : (number + 1) * step][self.rank :: self.world]


class EvaluationSampler(Sampler[list[Key]]):
    """One image at a time, for evaluation; every process gets equally many."""

    def __init__(self, count: int, *, rank: int = 0, world: int = 1) -> None:
        self.count, self.rank, self.world = count, rank, world

    def __len__(self) -> int:
        return -(-self.count // self.world)

    def __iter__(self) -> Iterator[list[Key]]:
        for start in range(0, self.count, self.world):
            index = start + self.rank
            yield [(index, 0) if index < self.count else IDLE]
