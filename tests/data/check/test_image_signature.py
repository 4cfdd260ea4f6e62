from __future__ import annotations

import io
import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fullconv.data.check.image_signature import (
    REACH,
    SAME,
    SIDE,
    Shift,
    estimate_shift,
    image_steps,
    mask_steps,
    near_duplicates,
    signature,
    step_of,
)
from fullconv.data.io.images import read_image
from fullconv.data.io.masks import read_values
from fullconv.data.layouts import dataset as layouts
from fullconv.data.synthetic.scenes import scene


def signature_of(image: np.ndarray) -> bytes:
    return signature(Image.fromarray(image).convert("L"))


def shift_of(image: np.ndarray, values: np.ndarray) -> Shift | None:
    size, gray = values.shape[:2], Image.fromarray(image).convert("L")
    return estimate_shift(image_steps(gray, size), mask_steps(values), step_of(size))


def test_an_image_is_recognized_after_changes() -> None:
    images = [scene(seed)[0] for seed in range(12)]
    first = images[3]
    half = np.asarray(Image.fromarray(first).resize((104, 72)))
    lighter = np.clip(first * 1.1 + 10, 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(first).save(file, "JPEG", quality=40)
    compressed = np.asarray(Image.open(file))
    signatures = [signature_of(image) for image in (*images, compressed, half, lighter)]
    assert set(map(len, signatures)) == {SIDE * SIDE}
    pairs = {(i, j) for i, j, _ in near_duplicates(signatures) if i < len(images)}
    assert pairs == {(3, 12), (3, 13), (3, 14)}


def test_the_search_tree_finds_the_same_pairs_as_all_comparisons() -> None:
    random = np.random.default_rng(0)
    base = random.integers(0, 256, (12, SIDE, SIDE))
    noise = random.normal(0, 1, (60, SIDE, SIDE)) * random.uniform(0, 20, (60, 1, 1))
    levels = np.clip(base[np.arange(60) % 12] + noise, 0, 255).astype(np.uint8)
    flat = levels.reshape(60, -1).astype(np.float64)
    units = (flat - flat.mean(1, keepdims=True)) / flat.std(1, keepdims=True)
    distances = {
        (i, j): float(np.sqrt(((units[i] - units[j]) ** 2).mean()))
        for i, j in itertools.combinations(range(60), 2)
    }
    near = {pair: distance for pair, distance in distances.items() if distance <= SAME}
    pairs = near_duplicates([image.tobytes() for image in levels])
    assert {(i, j): distance for i, j, distance in pairs} == pytest.approx(near, abs=1e-4)
    assert len(near) > 20


def test_images_without_structure_are_not_compared() -> None:
    dark = np.zeros((50, 60, 3), np.uint8)
    assert list(near_duplicates([signature_of(dark), signature_of(dark + 1)])) == []
    assert list(near_duplicates([])) == list(near_duplicates([signature_of(scene(0)[0])])) == []


@pytest.mark.parametrize(("down", "right"), [(0, 0), (5, -4), (-11, 9), (0, 7), (12, 12)])
def test_the_shift_of_a_mask_is_estimated(down: int, right: int) -> None:
    for seed in range(4):
        image, ids = scene(seed)
        shift = shift_of(image, np.roll(ids, (down, right), (0, 1)))
        assert shift is not None
        assert abs(shift.rows + down) <= 1
        assert abs(shift.columns + right) <= 1
        assert (shift.fit_at_zero > shift.fit / 2) == (max(abs(down), abs(right)) <= 1)


def test_large_images_have_steps_of_several_pixels() -> None:
    image, ids = scene(1)
    large = ids.repeat(8, 0).repeat(8, 1)
    shift = shift_of(image, np.roll(large, (48, -24), (0, 1)))
    assert shift is not None
    assert shift.step == 4
    assert abs(shift.rows + 48) <= 8
    assert abs(shift.columns - 24) <= 8


def test_masks_in_color_have_the_same_borders() -> None:
    image, ids = scene(2)
    colors = np.stack([ids, ids * 0, ids * 0], axis=2)
    assert shift_of(image, colors) == shift_of(image, ids)


@pytest.mark.parametrize("side", [2 * REACH, 4 * REACH, 100])
def test_masks_with_too_few_borders_have_no_shift(side: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    ids = np.zeros((side, side), np.uint8)
    ids[side // 2 : side // 2 + 3, side // 2] = 1
    assert shift_of(image, ids) is None


@pytest.mark.slow
@pytest.mark.parametrize("name", ["camvid", "isbi2012_em", "crackforest"])
def test_shifts_of_real_masks(shared: Path, name: str) -> None:
    data = layouts.load_dataset(shared / "data" / name)
    pairs = [pair for split in data.splits.values() for pair in split][::40]
    for pair in pairs:
        image, values = read_image(pair.image), read_values(pair.mask)
        shift, moved = shift_of(image, values), shift_of(image, np.roll(values, (6, -7), (0, 1)))
        assert shift is not None
        assert moved is not None
        assert max(abs(shift.rows), abs(shift.columns)) <= 2
        assert abs(moved.rows - shift.rows + 6) <= 2
        assert abs(moved.columns - shift.columns - 7) <= 2
