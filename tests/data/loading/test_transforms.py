"""Transforms: image and mask stay aligned, and pixels outside the image have no class."""

import math

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fullconv.data.loading.transforms import TrainTransform, to_tensors

IGNORE = 255
MEAN = (0.2, 0.4, 0.6)  # 51, 102, 153
OUTSIDE = [51, 102, 153]
EXACT = {"scale": (1.0, 1.0), "flip": False, "color": 0.0, "mean": MEAN}


def applied(transform, image, mask, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return transform(image, mask)


def ramp(height, width):
    """Return an image whose red is the column and whose green is the row; a mask of the columns."""
    columns = np.arange(width)[None].repeat(height, 0)
    rows = np.arange(height)[:, None].repeat(width, 1)
    image = np.stack([columns, rows, np.full_like(rows, 77)], axis=2).astype(np.uint8)
    return to_tensors(image, columns.astype(np.uint8))


def blocks(height, width, seed):
    """Return blocks of 8 x 8 pixels of the classes 0-4; the color of a pixel tells its class."""
    random = np.random.default_rng(seed)
    small = random.integers(0, 5, (-(-height // 8), -(-width // 8)))
    ids = np.kron(small, np.ones((8, 8), int))[:height, :width].astype(np.uint8)
    return to_tensors(np.repeat((ids * 50 + 20)[..., None], 3, 2).astype(np.uint8), ids)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (24, 40), (48, 64), (49, 65), (200, 90)])
@pytest.mark.parametrize("scale", [(1.0, 1.0), (0.25, 0.5), (2.0, 4.0), (0.5, 2.0)])
def test_every_image_gives_the_crop(size, scale):
    transform = TrainTransform((48, 64), scale=scale, mean=MEAN)
    for seed in range(3):
        source, copies = blocks(*size, seed), blocks(*size, seed)
        image, mask = applied(transform, *source, seed)
        assert (image.shape, image.dtype) == ((3, 48, 64), torch.uint8)
        assert (mask.shape, mask.dtype) == ((48, 64), torch.uint8)
        assert image.is_contiguous()
        assert mask.is_contiguous()
        assert all(map(torch.equal, source, copies))  # the source does not change


def test_without_randomness_an_image_of_the_crop_size_does_not_change():
    source = ramp(48, 64)
    assert all(map(torch.equal, applied(TrainTransform((48, 64), **EXACT), *source), source))


@given(
    height=st.sampled_from(range(8, 89, 8)),  # whole blocks: less may fall between cells
    width=st.sampled_from(range(8, 89, 8)),
    low=st.floats(0.3, 3),
    ratio=st.floats(1, 4),
    flip=st.booleans(),
    seed=st.integers(0, 10**6),
)
@example(height=24, width=64, low=0.30078125, ratio=1.0, flip=False, seed=2578)
@settings(max_examples=60)
def test_color_and_mask_agree_away_from_borders(height, width, low, ratio, flip, seed):
    options = {**EXACT, "scale": (low, low * ratio), "flip": flip, "mean": (1.0, 0.0, 1.0)}
    transform = TrainTransform((40, 56), **options)
    image, mask = applied(transform, *blocks(height, width, seed), seed)
    # Within two pixels of a border, of the source or of the crop, the image blends.
    reach = math.ceil(2 * max(1.0, low * ratio))
    inner = away_from_borders(mask, reach)
    # At the edge of the crop there are slivers of less than half a pixel, which nearest neighbor
    # skips and the mean of the image does not.
    inner[[0, -1]] = inner[:, [0, -1]] = False
    inside, outside = inner & (mask != IGNORE), inner & (mask == IGNORE)
    assert torch.equal((image[0, inside].int() + 5) // 50, mask[inside].int())
    assert (image[:, outside] == torch.tensor([[255], [0], [255]])).all()


def away_from_borders(mask, reach):
    """Return True where all ids within `reach` pixels are equal (a crop's edge is no border)."""
    ids = mask[None, None].float()
    side = 2 * reach + 1
    most = torch.nn.functional.max_pool2d(ids, side, 1, reach)
    least = -torch.nn.functional.max_pool2d(-ids, side, 1, reach)
    return (most == least)[0, 0]


@pytest.mark.parametrize("factor", [0.5, 1.0, 1.7, 2.0, 3.0])
@pytest.mark.parametrize("flip", [False, True])
def test_mask_and_image_are_aligned_to_half_a_pixel(factor, flip):
    """On a ramp of columns, nearest neighbor differs from linear interpolation by at most half a
    pixel of the source, and not on average."""
    options = {**EXACT, "scale": (factor, factor), "flip": flip}
    transform = TrainTransform((32, 32), **options)
    differences = []
    for seed in range(6):
        image, mask = applied(transform, *ramp(200, 200), seed)
        inner = image[0, 8:-8, 8:-8].float() - mask[8:-8, 8:-8].float()
        assert inner.abs().max() <= 0.5 + 0.51  # the image is rounded
        differences.append(inner.mean())
    assert abs(float(torch.stack(differences).mean())) < 0.3


def test_a_factor_of_2_doubles_pixels_of_the_mask_and_interpolates_the_image():
    image, mask = applied(TrainTransform((32, 32), **{**EXACT, "scale": (2.0, 2.0)}), *ramp(16, 16))
    assert mask[0].tolist() == [k // 2 for k in range(32)]
    # Pixel centers are at (k + 0.5) / 2 - 0.5 of the source.
    exact = [(k + 0.5) / 2 - 0.5 for k in range(1, 31)]
    assert (image[0, 0, 1:31].float() - torch.tensor(exact)).abs().max() <= 0.5


@pytest.mark.parametrize("size", [(1, 1), (5, 9), (47, 64), (48, 63), (100, 20)])
def test_outside_the_image_pixels_are_ignored_and_have_the_mean_color(size):
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
    assert len(tops) > 1  # a small image is not always at the same position


def test_another_ignore_index_and_many_classes():
    mask = np.full((4, 4), 300, np.uint16)
    transform = TrainTransform((8, 8), **EXACT, ignore_index=65535)
    _, target = applied(transform, *to_tensors(np.zeros((4, 4, 3), np.uint8), mask))
    assert target.dtype == torch.int32
    assert sorted(target.unique().tolist()) == [300, 65535]
    assert (target == 300).sum() == 16


@pytest.mark.parametrize("classes", [(IGNORE, IGNORE), (0, 200)])
def test_no_class_appears_between_two_others(classes):
    """Ignored pixels of the mask stay ignored at every scale, too."""
    image, ids = torch.zeros(3, 64, 64, dtype=torch.uint8), torch.zeros(64, 64, dtype=torch.uint8)
    ids[:, :32], ids[:, 32:] = classes
    for seed in range(10):
        _, target = applied(TrainTransform((48, 64), scale=(0.3, 3.0)), image, ids, seed)
        assert set(target.unique().tolist()) <= {*classes, IGNORE}


def test_half_of_the_images_are_flipped_left_to_right():
    image, mask = ramp(48, 64)
    transform = TrainTransform((48, 64), **{**EXACT, "flip": True})
    count = 0
    for seed in range(60):
        result, target = applied(transform, image, mask, seed)
        flipped = bool(target[0, 0] == 63)
        count += flipped
        assert torch.equal(target, mask.flip(1) if flipped else mask)
        assert torch.equal(result, image.flip(2) if flipped else image)
    assert 18 < count < 42


def test_the_logarithm_of_the_scale_is_uniform():
    transform = TrainTransform((64, 64), **{**EXACT, "scale": (0.25, 4.0)})
    factors = []
    for seed in range(300):
        _, mask = applied(transform, *ramp(250, 250), seed)
        row = mask[32][mask[32] != IGNORE].int()
        factors.append(math.log2(64 / max(1, int(row.max() - row.min()))))
    assert min(factors) > -2.2
    assert max(factors) < 2.2
    shares = np.histogram(factors, bins=4, range=(-2.2, 2.2))[0] / len(factors)
    assert (np.abs(shares - 0.25) < 0.09).all()


def test_every_position_in_a_large_image_is_drawn():
    transform = TrainTransform((8, 8), **EXACT)
    images = [applied(transform, *ramp(12, 12), seed)[0] for seed in range(400)]
    corners = {tuple(image[:2, 0, 0].tolist()) for image in images}
    assert corners == {(column, row) for column in range(5) for row in range(5)}


def test_color_jitter_changes_the_image_and_not_the_mask():
    image, mask = blocks(48, 64, 0)
    plain = applied(TrainTransform((48, 64), **EXACT), image, mask)
    vivid = applied(TrainTransform((48, 64), **{**EXACT, "color": 0.5}), image, mask)
    assert torch.equal(plain[1], vivid[1])
    assert (plain[0].int() - vivid[0].int()).abs().max() > 5
