"""Samples: the same ones in the same order, however many processes read them or train."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from fullconv.core.errors import FullconvError
from fullconv.core.labels import Labels
from fullconv.data.layouts.dataset import Pair, load_dataset
from fullconv.data.loading.dataset import (
    IDLE,
    EvaluationSampler,
    Key,
    ResumableBatchSampler,
    SegmentationDataset,
)
from fullconv.data.loading.transforms import TrainTransform

LABELS = Labels(("sky", "road"))
Batches = list[list[Key]]


def pair(folder: Path, image: np.ndarray, mask: np.ndarray, name: str = "a") -> Pair:
    Image.fromarray(image).save(folder / f"{name}.png")
    Image.fromarray(mask).save(folder / f"{name}_mask.png")
    return Pair(name, folder / f"{name}.png", folder / f"{name}_mask.png")


def small(folder: Path, name: str = "a") -> Pair:
    image = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    return pair(folder, image, np.array([[0, 1, 255, 1, 0, 0]] * 4, np.uint8), name)


def epoch_of(batches: ResumableBatchSampler, epoch: int) -> Batches:
    batches.set_epoch(epoch)
    return list(batches)


# SegmentationDataset


def test_without_augmentation_a_sample_is_the_files(tmp_path: Path) -> None:
    samples = SegmentationDataset([small(tmp_path)], LABELS)
    assert len(samples) == 1
    image, target = samples[0, 7]
    assert image.permute(1, 2, 0).flatten().tolist() == list(range(72))
    assert target.tolist() == [[0, 1, 255, 1, 0, 0]] * 4
    assert (image.dtype, target.dtype) == (torch.uint8, torch.uint8)


def test_outside_is_where_a_mask_without_ignored_pixels_is_ignored(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    one = pair(tmp_path, image, np.ones((20, 30), np.uint8))
    beyond = inside = 0
    for crop in ((33, 17), (9, 41), (20, 30), (0, 0)):
        samples = SegmentationDataset([one], LABELS, TrainTransform(crop, color=0.4))
        for seed in range(8):
            target, outside = samples[0, seed][1], samples.padding_mask((0, seed))
            assert torch.equal(outside, target == 255)
            beyond, inside = beyond + int(outside.sum()), inside + int((~outside).sum())
    assert beyond > 0
    assert inside > 0
    assert not SegmentationDataset([one], LABELS).padding_mask((0, 3)).any()


def test_ids_above_255(tmp_path: Path) -> None:
    labels = Labels(tuple(map(str, range(400))), ignore_index=65535)
    mask = np.array([[0, 399], [65535, 256]], np.uint16)
    samples = SegmentationDataset([pair(tmp_path, np.zeros((2, 2, 3), np.uint8), mask)], labels)
    assert samples[0, 0][1].tolist() == [[0, 399], [65535, 256]]
    assert (samples[IDLE][1] == 65535).all()


def test_idle_is_a_image_with_nothing_labelled(tmp_path: Path) -> None:
    image, target = SegmentationDataset([small(tmp_path)], LABELS)[IDLE]
    assert image.shape == (3, 4, 6)
    assert target.shape == (4, 6)
    assert (target == 255).all()


def test_a_seed_alone_decides_a_sample(tmp_path: Path) -> None:
    samples = SegmentationDataset([small(tmp_path)], LABELS, TrainTransform((3, 3)))
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one = samples[0, 5]
    assert torch.equal(torch.get_rng_state(), before)  # the global chance neither changes
    torch.manual_seed(2)
    two, other = samples[0, 5], samples[0, 6]
    assert torch.equal(one[0], two[0])  # nor matters
    assert torch.equal(one[1], two[1])
    assert not torch.equal(one[0], other[0])


def test_a_mask_of_another_size_is_refused(tmp_path: Path) -> None:
    wrong = pair(tmp_path, np.zeros((4, 6, 3), np.uint8), np.zeros((6, 4), np.uint8))
    with pytest.raises(FullconvError) as caught:
        _ = SegmentationDataset([wrong], LABELS)[0, 0]
    assert caught.value.message == (f"{wrong.image} is 6 x 4 pixels but {wrong.mask} is 4 x 6.")
    assert caught.value.hint == "fullconv check DATA"


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_the_number_of_reading_processes_does_not_matter(scenes: Path) -> None:
    data = load_dataset(scenes)
    samples = SegmentationDataset(data.splits["train"], data.labels, TrainTransform((32, 48)))
    found = []
    for workers in (0, 2):
        batches = ResumableBatchSampler(3, 1, seed=3)
        epochs = []
        for epoch in range(2):
            batches.set_epoch(epoch)
            loader = DataLoader(samples, batch_sampler=batches, num_workers=workers)
            epochs += [torch.cat([p.flatten(), t.flatten()]) for p, t in loader]
        found.append(torch.stack(epochs))
    assert torch.equal(*found)
    assert len(found[0].unique(dim=0)) == 6  # each sample of each epoch is another one


# ResumableBatchSampler


@pytest.mark.parametrize(("count", "batch"), [(10, 3), (9, 3), (1, 1), (7, 7), (100, 8)])
def test_every_image_comes_at_most_once_an_epoch(count: int, batch: int) -> None:
    batches = ResumableBatchSampler(count, batch, seed=0)
    for epoch in range(3):
        found = epoch_of(batches, epoch)
        assert len(found) == len(batches) == count // batch
        assert all(len(keys) == batch for keys in found)
        seen = Counter(index for keys in found for index, _ in keys)
        assert max(seen.values()) == 1
        assert set(seen) <= set(range(count))


def test_every_image_comes_in_the_long_run_and_the_chances_differ() -> None:
    batches = ResumableBatchSampler(10, 4, seed=0)
    keys = [key for epoch in range(12) for keys in epoch_of(batches, epoch) for key in keys]
    assert {index for index, _ in keys} == set(range(10))
    assert len({seed for _, seed in keys}) == len(keys)


def test_each_epoch_and_each_seed_has_an_order_of_its_own() -> None:
    batches = ResumableBatchSampler(20, 4, seed=0)
    orders = [[i for keys in epoch_of(batches, epoch) for i, _ in keys] for epoch in range(5)]
    assert all(one != two for one, two in pairwise(orders))
    assert epoch_of(batches, 2) == epoch_of(ResumableBatchSampler(20, 4, seed=0), 2)
    assert epoch_of(batches, 2) != epoch_of(ResumableBatchSampler(20, 4, seed=1), 2)


@pytest.mark.parametrize(
    ("count", "batch", "world"), [(50, 4, 2), (50, 3, 4), (9, 2, 2), (3, 4, 2)]
)
def test_ranks_take_together_what_one_process_with_the_whole_batch_takes(
    count: int, batch: int, world: int
) -> None:
    whole = ResumableBatchSampler(count, batch * world, seed=5)
    ranks = [
        ResumableBatchSampler(count, batch, seed=5, rank=r, world_size=world) for r in range(world)
    ]
    for epoch in range(2):
        parts = [epoch_of(rank, epoch) for rank in ranks]
        together = epoch_of(whole, epoch)
        assert {len(rank) for rank in ranks} == {len(whole)} == {len(together)}
        for step, keys in enumerate(together):
            assert all(len(part[step]) == batch for part in parts)
            assert Counter(key for part in parts for key in part[step]) == Counter(keys)


def test_an_epoch_is_taken_up_exactly_where_it_stopped() -> None:
    whole, resumed = ResumableBatchSampler(40, 4, seed=1), ResumableBatchSampler(40, 4, seed=1)
    resumed.first_batch[3] = 6
    assert epoch_of(resumed, 3) == epoch_of(whole, 3)[6:]
    assert len(resumed) == len(whole)
    assert epoch_of(resumed, 4) == epoch_of(whole, 4)


def test_ranks_are_taken_up_exactly_too() -> None:
    for rank in range(2):
        whole = ResumableBatchSampler(40, 4, seed=1, rank=rank, world_size=2)
        resumed = ResumableBatchSampler(40, 4, seed=1, rank=rank, world_size=2)
        resumed.first_batch[0] = 3
        assert epoch_of(resumed, 0) == epoch_of(whole, 0)[3:]


def test_fewer_images_than_a_batch_are_taken_again_with_another_chance() -> None:
    batches = ResumableBatchSampler(3, 8, seed=0)
    for epoch in range(2):
        (keys,) = epoch_of(batches, epoch)
        assert len(batches) == 1
        assert len(keys) == len(set(keys)) == 8
        assert sorted(Counter(index for index, _ in keys).values()) == [2, 3, 3]


def test_one_image_is_enough() -> None:
    ((key,),) = epoch_of(ResumableBatchSampler(1, 1, seed=0), 0)
    assert key[0] == 0


def test_lightning_finds_what_it_calls() -> None:
    batches = ResumableBatchSampler(4, 1, seed=0)
    batches.sampler.set_epoch(3)
    assert batches.epoch == 3


# EvaluationSampler


@pytest.mark.parametrize(("count", "world"), [(5, 1), (5, 2), (6, 2), (1, 4), (7, 3)])
def test_every_image_is_evaluated_once_and_every_process_has_equally_many(
    count: int, world: int
) -> None:
    ranks = [EvaluationSampler(count, rank=rank, world_size=world) for rank in range(world)]
    parts = [list(rank) for rank in ranks]
    assert {len(part) for part in parts} == {len(rank) for rank in ranks} == {-(-count // world)}
    keys = [key for step in zip(*parts, strict=True) for (key,) in step]
    assert keys[:count] == [(index, 0) for index in range(count)]
    assert keys[count:] == [IDLE] * (len(keys) - count)


def test_what_pads_counts_no_pixel(tmp_path: Path) -> None:
    samples = SegmentationDataset([small(tmp_path)], LABELS)
    second = DataLoader(samples, batch_sampler=EvaluationSampler(1, rank=1, world_size=2))
    ((image, target),) = list(second)
    assert image.shape == (1, 3, 4, 6)
    assert (target == LABELS.ignore_index).all()
