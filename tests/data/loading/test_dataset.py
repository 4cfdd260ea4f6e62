"""Samples: the same ones in the same order, with any number of workers and processes."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from fullconv.core.errors import FullconvError
from fullconv.core.labels import Labels
from fullconv.data.layouts.dataset import load_dataset
from fullconv.data.layouts.file_names import Pair
from fullconv.data.loading.dataset import (
    IDLE,
    EvaluationSampler,
    ResumableBatchSampler,
    SegmentationDataset,
)
from fullconv.data.loading.transforms import TrainTransform

LABELS = Labels(("sky", "road"))
ROW = [0, 1, 255, 1, 0, 0]


RAMP = np.arange(72, dtype=np.uint8).reshape(4, 6, 3)
MASK = np.array([ROW] * 4, np.uint8)


def pair(folder, image=RAMP, mask=MASK):
    Image.fromarray(image).save(folder / "a.png")
    Image.fromarray(mask).save(folder / "b.png")
    return Pair("a", folder / "a.png", folder / "b.png")


def epoch_of(batches, epoch):
    batches.sampler.set_epoch(epoch)  # as Lightning calls it
    return list(batches)


def test_without_a_transform_a_sample_is_the_files(tmp_path):
    samples = SegmentationDataset([pair(tmp_path)], LABELS)
    image, target = samples[0, 7]
    assert (len(samples), image.permute(1, 2, 0).flatten().tolist()) == (1, list(range(72)))
    assert target.tolist() == [ROW] * 4
    assert (image.dtype, target.dtype) == (torch.uint8, torch.uint8)
    image, target = samples[IDLE]
    assert (image.shape, target.tolist()) == ((3, 4, 6), [[255] * 6] * 4)


def test_padding_is_where_a_mask_without_ignored_pixels_is_ignored(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    pairs = [pair(tmp_path, image, np.ones((20, 30), np.uint8))]
    paddings = []
    for crop in ((33, 17), (9, 41), (20, 30), (0, 0)):
        samples = SegmentationDataset(pairs, LABELS, TrainTransform(crop, color=0.4))
        for seed in range(8):
            target, padding = samples[0, seed][1], samples.padding_mask((0, seed))
            assert torch.equal(padding, target == 255)
            paddings.append(padding.flatten())
    assert set(torch.cat(paddings).tolist()) == {True, False}
    assert not SegmentationDataset(pairs, LABELS).padding_mask((0, 3)).any()


def test_ids_above_255(tmp_path):
    labels = Labels(tuple(map(str, range(400))), ignore_index=65535)
    mask = np.array([[0, 399], [65535, 256]], np.uint16)
    samples = SegmentationDataset([pair(tmp_path, np.zeros((2, 2, 3), np.uint8), mask)], labels)
    assert samples[0, 0][1].tolist() == mask.tolist()
    assert (samples[IDLE][1] == 65535).all()


def test_only_the_seed_determines_a_sample(tmp_path):
    samples = SegmentationDataset([pair(tmp_path)], LABELS, TrainTransform((3, 3)))
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = samples[0, 5]
    assert torch.equal(torch.get_rng_state(), state)  # the global state does not change
    torch.manual_seed(2)
    second, other = samples[0, 5], samples[0, 6]
    assert torch.equal(first[0], second[0])  # and does not matter
    assert torch.equal(first[1], second[1])
    assert not torch.equal(first[0], other[0])


def test_a_mask_of_another_size_is_refused(tmp_path):
    wrong = pair(tmp_path, mask=np.zeros((6, 4), np.uint8))
    with pytest.raises(FullconvError) as caught:
        _ = SegmentationDataset([wrong], LABELS)[0, 0]
    assert caught.value.message == f"{wrong.image} is 6 x 4 pixels but {wrong.mask} is 4 x 6."
    assert caught.value.hint == "fullconv check DATA"


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_the_number_of_workers_does_not_matter(scenes):
    data = load_dataset(scenes)
    samples = SegmentationDataset(data.splits["train"], data.labels, TrainTransform((32, 48)))
    results = []
    for workers in (0, 2):
        batches = ResumableBatchSampler(3, 1, seed=3)
        epochs = []
        for epoch in range(2):
            batches.set_epoch(epoch)
            loader = DataLoader(samples, batch_sampler=batches, num_workers=workers)
            epochs += [torch.cat([image.flatten(), ids.flatten()]) for image, ids in loader]
        results.append(torch.stack(epochs))
    assert torch.equal(*results)
    assert len(results[0].unique(dim=0)) == 6  # the samples of all epochs differ


@pytest.mark.parametrize(("count", "batch"), [(10, 3), (9, 3), (1, 1), (7, 7), (100, 8)])
def test_every_image_comes_at_most_once_per_epoch(count, batch):
    batches = ResumableBatchSampler(count, batch, seed=0)
    for epoch in range(3):
        keys = epoch_of(batches, epoch)
        assert len(keys) == len(batches) == count // batch
        assert all(len(step) == batch for step in keys)
        indices = Counter(index for step in keys for index, _ in step)
        assert max(indices.values()) == 1
        assert set(indices) <= set(range(count))


def test_all_images_come_in_the_long_run_with_different_seeds_and_orders():
    batches = ResumableBatchSampler(10, 4, seed=0)
    epochs = [[key for step in epoch_of(batches, epoch) for key in step] for epoch in range(12)]
    keys = [key for epoch in epochs for key in epoch]
    assert {index for index, _ in keys} == set(range(10))
    assert len({seed for _, seed in keys}) == len(keys)
    orders = [[index for index, _ in epoch] for epoch in epochs]
    assert all(first != second for first, second in pairwise(orders))
    assert epoch_of(batches, 2) == epoch_of(ResumableBatchSampler(10, 4, seed=0), 2)
    assert epoch_of(batches, 2) != epoch_of(ResumableBatchSampler(10, 4, seed=1), 2)


@pytest.mark.parametrize(
    ("count", "batch", "world_size"), [(50, 4, 2), (50, 3, 4), (9, 2, 2), (3, 4, 2)]
)
def test_all_ranks_together_yield_what_one_process_would(count, batch, world_size):
    whole = ResumableBatchSampler(count, batch * world_size, seed=5)
    share = {"seed": 5, "world_size": world_size}
    ranks = [ResumableBatchSampler(count, batch, rank=r, **share) for r in range(world_size)]
    for epoch in range(2):
        parts = [epoch_of(rank, epoch) for rank in ranks]
        together = epoch_of(whole, epoch)
        assert {len(rank) for rank in ranks} == {len(whole)} == {len(together)}
        for step, keys in enumerate(together):
            assert all(len(part[step]) == batch for part in parts)
            assert Counter(key for part in parts for key in part[step]) == Counter(keys)


@pytest.mark.parametrize("rank", [0, 1])
def test_an_epoch_resumes_exactly(rank):
    share = {"seed": 1, "rank": rank, "world_size": 2}
    whole, resumed = (ResumableBatchSampler(40, 4, **share) for _ in range(2))
    resumed.first_batch[3] = 2
    assert epoch_of(resumed, 3) == epoch_of(whole, 3)[2:]
    assert len(resumed) == len(whole)
    assert epoch_of(resumed, 4) == epoch_of(whole, 4)


def test_fewer_images_than_a_batch_repeat_with_other_seeds():
    batches = ResumableBatchSampler(3, 8, seed=0)
    for epoch in range(2):
        (keys,) = epoch_of(batches, epoch)
        assert len(batches) == 1
        assert len(keys) == len(set(keys)) == 8
        assert sorted(Counter(index for index, _ in keys).values()) == [2, 3, 3]


@pytest.mark.parametrize(("count", "world_size"), [(5, 1), (5, 2), (6, 2), (1, 4), (7, 3)])
def test_every_image_is_evaluated_once_and_every_rank_has_the_same_number(count, world_size):
    ranks = [EvaluationSampler(count, rank=r, world_size=world_size) for r in range(world_size)]
    parts = [list(rank) for rank in ranks]
    lengths = {len(part) for part in parts}
    assert lengths == {len(rank) for rank in ranks} == {-(-count // world_size)}
    keys = [key for step in zip(*parts, strict=True) for (key,) in step]
    assert keys[:count] == [(index, 0) for index in range(count)]
    assert keys[count:] == [IDLE] * (len(keys) - count)
