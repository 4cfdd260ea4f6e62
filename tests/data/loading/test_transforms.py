"""Transforms: image and mask stay together to the pixel, and nothing outside gets a class."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from fullconv.data.loading.transforms import TrainTransform, to_tensors

IGNORE = 255
MEAN = (0.2, 0.4, 0.6)  # 51, 102, 153
OUTSIDE = [51, 102, 153]
EXACT: dict[str, Any] = {"scale": (1.0, 1.0), "flip": False, "color": 0.0, "mean": MEAN}


def applied(augmentation: TrainTransform, image: Tensor, mask: Tensor, seed: int = 0) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return augmentation(image, mask)


def ramp(height: int, width: int) -> tuple[Tensor, Tensor]:
    """An image whose red is its column and whose green is its row; a mask of the columns."""
    columns = np.arange(width)[None].repeat(height, 0)
    rows = np.arange(height)[:, None].repeat(width, 1)
    image = np.stack([columns, rows, np.full_like(rows, 77)], axis=2).astype(np.uint8)
    return to_tensors(image, columns.astype(np.uint8))


def blocks(height: int, width: int, seed: int) -> tuple[Tensor, Tensor]:
    """Blocks of 8 x 8 pixels of the classes 0-4; the colour of a pixel tells its class."""
    random = np.random.default_rng(seed)
    small = random.integers(0, 5, (-(-height // 8), -(-width // 8)))
    ids = np.kron(small, np.ones((8, 8), int))[:height, :width].astype(np.uint8)
    return to_tensors(np.repeat((ids * 50 + 20)[..., None], 3, 2).astype(np.uint8), ids)


def test_tensors_have_channels_first_and_share_no_axis_with_another_order() -> None:
    image = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    image, target = to_tensors(image, np.array([[1, 2, 255], [0, 0, 0]], np.uint8))
    assert image.shape == (3, 2, 3)
    assert image[:, 1, 2].tolist() == image[1, 2].tolist()
    assert (image.dtype, target.dtype) == (torch.uint8, torch.uint8)
    assert target.tolist() == [[1, 2, 255], [0, 0, 0]]


def test_ids_above_255_stay_whole() -> None:
    mask = np.array([[0, 300, 65535]], np.uint16)
    _, target = to_tensors(np.zeros((1, 3, 3), np.uint8), mask)
    assert target.dtype == torch.int32
    assert target.tolist() == [[0, 300, 65535]]


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (24, 40), (48, 64), (49, 65), (200, 90)])
@pytest.mark.parametrize("scale", [(1.0, 1.0), (0.25, 0.5), (2.0, 4.0), (0.5, 2.0)])
def test_every_image_gives_the_crop(size: tuple[int, int], scale: tuple[float, float]) -> None:
    augmentation = TrainTransform((48, 64), scale=scale, mean=MEAN)
    for seed in range(3):
        image, mask = applied(augmentation, *blocks(*size, seed), seed)
        assert (image.shape, image.dtype) == ((3, 48, 64), torch.uint8)
        assert (mask.shape, mask.dtype) == ((48, 64), torch.uint8)
        assert image.is_contiguous()
        assert mask.is_contiguous()


def test_without_chance_a_image_of_the_crops_size_is_left_as_it_is() -> None:
    image, mask = ramp(48, 64)
    found = applied(TrainTransform((48, 64), **EXACT), image, mask)
    assert torch.equal(found[0], image)
    assert torch.equal(found[1], mask)


@given(
    height=st.integers(1, 11).map(lambda n: 8 * n),  # whole blocks: less may fall between cells
    width=st.integers(1, 11).map(lambda n: 8 * n),
    low=st.floats(0.3, 3),
    ratio=st.floats(1, 4),
    flip=st.booleans(),
    seed=st.integers(0, 10**6),
)
@example(height=24, width=64, low=0.30078125, ratio=1.0, flip=False, seed=2578)
@settings(max_examples=60)
def test_colour_and_mask_tell_the_same_class_away_from_borders(
    height: int, width: int, low: float, ratio: float, flip: bool, seed: int
) -> None:
    augmentation = TrainTransform(
        (40, 56), scale=(low, low * ratio), flip=flip, color=0.0, mean=(1.0, 0.0, 1.0)
    )
    image, mask = applied(augmentation, *blocks(height, width, seed), seed)
    # Within two pixels of a border, of the source or of the crop, the image blends.
    reach = math.ceil(2 * max(1.0, low * ratio))
    inner = away_from_borders(mask, reach)
    # At the crop's rim lie slivers of less than half a pixel, which the mask's nearest reading
    # passes over and the image's mean does not.
    inner[[0, -1]] = inner[:, [0, -1]] = False
    inside, outside = inner & (mask != IGNORE), inner & (mask == IGNORE)
    assert torch.equal((image[0, inside].int() + 5) // 50, mask[inside].int())
    assert (image[:, outside] == torch.tensor([[255], [0], [255]])).all()


def away_from_borders(mask: Tensor, reach: int) -> Tensor:
    """Where all ids within `reach` pixels are equal (the crop's rim counts as no border)."""
    ids = mask[None, None].float()
    side = 2 * reach + 1
    most = torch.nn.functional.max_pool2d(ids, side, 1, reach)
    least = -torch.nn.functional.max_pool2d(-ids, side, 1, reach)
    return (most == least)[0, 0]


@pytest.mark.parametrize("factor", [0.5, 1.0, 1.7, 2.0, 3.0])
@pytest.mark.parametrize("flip", [False, True])
def test_the_mask_lies_where_the_image_lies_to_half_a_pixel(factor: float, flip: bool) -> None:
    """The image is a ramp of its columns, the mask their ids: nearest reading may differ from
    the linear one by half a source pixel at most, and not on average."""
    options = {**EXACT, "scale": (factor, factor), "flip": flip}
    augmentation = TrainTransform((32, 32), **options)
    differences = []
    for seed in range(6):
        image, mask = applied(augmentation, *ramp(200, 200), seed)
        inner = image[0, 8:-8, 8:-8].float() - mask[8:-8, 8:-8].float()
        assert inner.abs().max() <= 0.5 + 0.51  # and the image is rounded to whole numbers
        differences.append(inner.mean())
    assert abs(float(torch.stack(differences).mean())) < 0.3


def test_twice_as_large_doubles_every_pixel_in_the_mask_and_blends_evenly_in_the_image() -> None:
    image, mask = applied(TrainTransform((32, 32), **{**EXACT, "scale": (2.0, 2.0)}), *ramp(16, 16))
    assert mask[0].tolist() == [k // 2 for k in range(32)]
    # Linear, with the pixels' centres at (k + 0.5) / 2 - 0.5 of the source.
    exact = [(k + 0.5) / 2 - 0.5 for k in range(1, 31)]
    assert (image[0, 0, 1:31].float() - torch.tensor(exact)).abs().max() <= 0.5


@pytest.mark.parametrize("size", [(1, 1), (5, 9), (47, 64), (48, 63), (100, 20)])
def test_outside_the_image_all_is_ignored_and_the_mean_colour(size: tuple[int, int]) -> None:
    white = torch.full((3, *size), 255, dtype=torch.uint8)
    zeros = torch.zeros(size, dtype=torch.uint8)  # a real class
    tops = set()
    for seed in range(8):
        image, mask = applied(TrainTransform((48, 64), **EXACT), white, zeros, seed)
        inside = mask == 0
        assert int(inside.sum()) == min(size[0], 48) * min(size[1], 64)
        assert set(mask.unique().tolist()) <= {0, IGNORE}
        assert (image[:, inside] == 255).all()
        assert (image[:, ~inside] == torch.tensor(OUTSIDE, dtype=torch.uint8)[:, None]).all()
        rows, columns = torch.nonzero(inside).min(dim=0).values.tolist()
        tops.add((rows, columns))
    assert len(tops) > 1  # a small image does not always lie at the same place


def test_another_ignore_index_and_many_classes() -> None:
    mask = np.full((4, 4), 300, np.uint16)
    augmentation = TrainTransform((8, 8), **EXACT, ignore_index=65535)
    _, target = applied(augmentation, *to_tensors(np.zeros((4, 4, 3), np.uint8), mask))
    assert target.dtype == torch.int32
    assert sorted(target.unique().tolist()) == [300, 65535]
    assert (target == 300).sum() == 16


def test_ignored_pixels_of_the_mask_stay_ignored_at_every_scale() -> None:
    image, mask = blocks(64, 64, 0)
    mask[:] = IGNORE
    for seed in range(5):
        _, found = applied(TrainTransform((48, 64), mean=MEAN), image, mask, seed)
        assert (found == IGNORE).all()


def test_no_class_is_invented_between_two() -> None:
    ids = torch.zeros(64, 64, dtype=torch.uint8)
    ids[:, 32:] = 200
    for seed in range(10):
        image = torch.zeros(3, 64, 64, dtype=torch.uint8)
        _, found = applied(TrainTransform((48, 64), scale=(0.3, 3.0)), image, ids, seed)
        assert set(found.unique().tolist()) <= {0, 200, IGNORE}


def test_half_of_the_images_are_mirrored_left_to_right_never_upside_down() -> None:
    image, mask = ramp(48, 64)
    augmentation = TrainTransform((48, 64), **{**EXACT, "flip": True})
    turned = 0
    for seed in range(60):
        image, target = applied(augmentation, image, mask, seed)
        mirrored = bool(target[0, 0] == 63)
        turned += mirrored
        assert torch.equal(target, mask.flip(1) if mirrored else mask)
        assert torch.equal(image, image.flip(2) if mirrored else image)
    assert 18 < turned < 42


def test_the_magnification_is_drawn_evenly_on_a_logarithmic_scale() -> None:
    augmentation = TrainTransform((64, 64), **{**EXACT, "scale": (0.25, 4.0)})
    seen = []
    for seed in range(300):
        _, mask = applied(augmentation, *ramp(250, 250), seed)
        row = mask[32][mask[32] != IGNORE].int()
        seen.append(math.log2(64 / max(1, int(row.max() - row.min()))))
    assert min(seen) > -2.2
    assert max(seen) < 2.2
    shares = np.histogram(seen, bins=4, range=(-2.2, 2.2))[0] / len(seen)
    assert (np.abs(shares - 0.25) < 0.09).all()


def test_every_place_of_a_large_image_is_reached() -> None:
    augmentation = TrainTransform((8, 8), **EXACT)
    corners = {
        tuple(applied(augmentation, *ramp(12, 12), s)[0][:2, 0, 0].tolist()) for s in range(400)
    }
    assert corners == {(column, row) for column in range(5) for row in range(5)}


def test_colour_changes_the_image_and_not_the_mask() -> None:
    image, mask = blocks(48, 64, 0)
    plain = applied(TrainTransform((48, 64), **EXACT), image, mask)
    vivid = applied(TrainTransform((48, 64), **{**EXACT, "color": 0.5}), image, mask)
    assert torch.equal(plain[1], vivid[1])
    assert (plain[0].int() - vivid[0].int()).abs().max() > 5


def test_the_same_seed_gives_the_same_sample_and_another_seed_another() -> None:
    source = blocks(90, 90, 0)
    augmentation = TrainTransform((48, 64), mean=MEAN)
    one, two, other = (applied(augmentation, *source, seed) for seed in (5, 5, 6))
    assert torch.equal(one[0], two[0])
    assert torch.equal(one[1], two[1])
    assert not torch.equal(one[0], other[0])


def test_the_source_is_not_changed() -> None:
    image, mask = blocks(30, 30, 0)
    before = image.clone(), mask.clone()
    for seed in range(4):
        applied(TrainTransform((48, 64)), image, mask, seed)
    assert torch.equal(image, before[0])
    assert torch.equal(mask, before[1])
