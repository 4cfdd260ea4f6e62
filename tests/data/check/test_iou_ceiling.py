from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pairs import write_pairs

from fullconv.core.errors import FullconvError
from fullconv.data.check.iou_ceiling import (
    MARGIN,
    STRIDES,
    Ceiling,
    downsample_upsample,
    estimate_on_sample,
    iou_ceiling,
)
from fullconv.data.io.masks import read_mask
from fullconv.data.layouts.dataset import load_dataset
from fullconv.evaluation.metrics import Metrics, confusion_matrix
from fullconv.geometry.grid import Grid
from fullconv.network.scores import Scores

TOML = 'classes = ["a", "b", "c"]\n'
CLASSES = 3
SMALL = arrays.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=40)


def masks(*values: int) -> st.SearchStrategy[np.ndarray]:
    """Return a strategy for noise and for rectangles: patches of one class, and mixed ones."""
    noise = arrays.arrays(np.uint8, SMALL, elements=st.sampled_from(values))
    box = st.tuples(*[st.integers(0, 40)] * 4, st.sampled_from(values))
    boxes = st.tuples(st.integers(1, 40), st.integers(1, 40), st.lists(box, max_size=5))
    return st.one_of(noise, boxes.map(lambda shape: boxed(values[0], *shape)))


def boxed(ground: int, height: int, width: int, boxes: list[tuple[int, ...]]) -> np.ndarray:
    ids = np.full((height, width), ground, np.uint8)
    for top, bottom, left, right, k in boxes:
        ids[top:bottom, left:right] = k
    return ids


def slow(ids: np.ndarray, stride: int) -> np.ndarray:
    """Compute the definition pixel by pixel in float64, which is exact: all numbers are multiples
    of a power of two."""
    height, width = ids.shape
    h, w = -(-height // stride), -(-width // stride)
    counts = np.zeros((h, w, CLASSES))
    for y, x in zip(*np.nonzero(ids < CLASSES), strict=True):
        counts[y // stride, x // stride, ids[y, x]] += 1

    def corners(pixel: int, cells: int) -> list[tuple[int, float]]:
        place = min(max((pixel - (stride - 1) / 2) / stride, 0), cells - 1)
        low = math.floor(place)
        return [(low, 1 - (place - low)), (min(low + 1, cells - 1), place - low)]

    result = np.empty_like(ids)
    for y, x in np.ndindex(height, width):
        values = sum(a * b * counts[i, j] for i, a in corners(y, h) for j, b in corners(x, w))
        result[y, x] = np.argmax(values)
    return result


def write(root: Path, split: str, *all_ids: np.ndarray, toml: str = TOML) -> Path:
    return write_pairs(root, {f"{split}/{k:02}": ids for k, ids in enumerate(all_ids)}, toml=toml)


def checkerboard(height: int, width: int, tile: int) -> np.ndarray:
    rows, columns = np.indices((height, width)) // tile
    return ((rows + columns) % 2).astype(np.uint8)


# One mask.


@settings(max_examples=60)
@given(masks(0, 1, 2, 255), st.sampled_from((2, 4, 8, 16, 32)))
def test_the_result_is_the_definition(ids: np.ndarray, stride: int) -> None:
    result = downsample_upsample(ids, stride, CLASSES)
    assert (result.shape, result.dtype) == (ids.shape, ids.dtype)
    labeled = ids < CLASSES
    assert (result[labeled] == slow(ids, stride)[labeled]).all()


@settings(max_examples=30)
@given(masks(0, 1, 2), st.sampled_from(STRIDES))
def test_counts_are_interpolated_like_logits(ids: np.ndarray, stride: int) -> None:
    (height, width), (h, w) = ids.shape, (-(-size // stride) for size in ids.shape)
    whole = np.full((h * stride, w * stride), 255)
    whole[:height, :width] = ids
    cells = (whole == np.arange(CLASSES)[:, None, None]).reshape(CLASSES, h, stride, w, stride)
    counts = torch.tensor(cells.sum((2, 4))[None], dtype=torch.float32)
    grid = Grid(stride, (stride - 1) / 2, stride)
    values = Scores(counts, grid, (height, width)).full()[0].numpy()
    result = downsample_upsample(ids, stride, CLASSES)
    chosen = np.take_along_axis(values, result[None].astype(np.int64), 0)[0]
    np.testing.assert_allclose(chosen, values.max(0), rtol=1e-5)


def test_a_mask_of_ignored_pixels_does_not_change() -> None:
    ids = np.full((9, 7), 255, np.uint8)
    assert (downsample_upsample(ids, 8, 3) == ids).all()


def test_many_classes_in_16_bits() -> None:
    ids = np.repeat(np.repeat(np.arange(400, dtype=np.uint16).reshape(20, 20), 4, 0), 4, 1)
    result = downsample_upsample(ids, 4, 400)
    assert result.dtype == np.uint16
    assert (result == ids).all()


def test_the_bands_of_a_large_mask_fit_together() -> None:
    ids = np.random.default_rng(0).integers(0, 3, (700, 300)).astype(np.uint8)
    ids = np.repeat(ids, 5, axis=1)
    top = downsample_upsample(ids[:320], 16, 3)  # the rest affects only the last 16 rows
    assert (downsample_upsample(ids, 16, 3)[:304] == top[:304]).all()


# A dataset.


@settings(max_examples=10)
@given(st.lists(masks(0, 1, 2, 255), min_size=1, max_size=3))
def test_the_iou_is_that_of_the_metrics_over_all_images(
    tmp_path_factory: pytest.TempPathFactory, all_ids: list[np.ndarray]
) -> None:
    # 255 and 0 alone would be black and white.
    all_ids = [*all_ids, np.array([[0, 1, 2]], np.uint8)]
    ceiling = iou_ceiling(write(tmp_path_factory.mktemp("data"), "val", *all_ids))
    for stride in STRIDES:
        results = [(ids, downsample_upsample(ids, stride, CLASSES)) for ids in all_ids]
        expected = Metrics(ceiling.names, sum(confusion_matrix(*pair, CLASSES) for pair in results))
        assert ceiling.class_iou[stride] == pytest.approx(expected.class_iou, nan_ok=True)
        assert ceiling.mean_iou[stride] == pytest.approx(expected.mean_iou)
    pixels = np.concatenate([ids.ravel() for ids in all_ids])
    assert ceiling.ignored == pytest.approx((pixels > 2).mean())
    assert ceiling.images == len(all_ids)


def test_fine_structures_are_lost_and_absent_classes_are_nan(tmp_path: Path) -> None:
    root = write(tmp_path, "val", checkerboard(128, 96, 8))
    ceiling = iou_ceiling(root)
    assert (ceiling.root, ceiling.split, ceiling.names) == (str(root), "val", ("a", "b", "c"))
    assert ceiling.class_iou[8][0] > 0.8
    assert ceiling.mean_iou[16] < 0.4 > ceiling.mean_iou[32]
    assert all(math.isnan(values[2]) for values in ceiling.class_iou.values())
    strides = json.loads(json.dumps(ceiling.to_dict()))["strides"]
    assert strides["32"]["per_class_iou"]["c"] is None
    assert strides["32"]["mean_iou"] == ceiling.mean_iou[32]
    (line,) = (line for line in ceiling.text().splitlines() if line.startswith("c "))
    assert line.split() == ["c", "-", "-", "-", "-"]


def test_one_class_is_reached_by_every_stride(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    root = write(tmp_path, "val", *[np.ones((50, 70), np.uint8)] * 2)
    ceiling = iou_ceiling(root, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(1, 2), (2, 2)]
    assert ceiling.mean_iou == dict.fromkeys(STRIDES, 1.0)
    assert ceiling.recommended_stride == 32


def test_a_split_without_a_labeled_pixel(tmp_path: Path) -> None:
    toml = TOML + '[map]\n255 = "ignore"\n'
    ceiling = iou_ceiling(write(tmp_path, "val", np.full((5, 7), 255, np.uint8), toml=toml))
    reason = "no pixel is labeled (measured on 1 mask of val)"
    assert (ceiling.recommended_stride, ceiling.reason) == (None, reason)
    assert ceiling.to_dict()["strides"]["4"]["mean_iou"] is None
    assert f"recommended: none: {reason}" in ceiling.text()
    assert ceiling.ignored == 1


def test_an_ignore_index_beside_the_classes_is_no_class(tmp_path: Path) -> None:
    ids = np.repeat(np.array([[0, 3, 1]], np.uint8), 16, axis=1)
    ceiling = iou_ceiling(write(tmp_path, "val", ids, toml=TOML + "ignore_index = 3\n"))
    assert ceiling.mean_iou == dict.fromkeys(STRIDES, 1.0)
    assert ceiling.ignored == pytest.approx(1 / 3)


def test_a_split_that_does_not_exist_and_masks_with_errors(tmp_path: Path) -> None:
    toml = 'classes = ["a", "b"]\n'
    root = write(tmp_path, "val", 255 * checkerboard(9, 9, 3), toml=toml)
    for split, message in (("test", "no images for the split 'test'"), ("val", "black-and-white")):
        with pytest.raises(FullconvError, match=message):
            iou_ceiling(root, split=split)


@pytest.mark.parametrize(
    ("means", "stride", "reason"),
    [
        (  # the table of the paper
            (0.985, 0.964, 0.928, 0.861),
            8,
            "stride 8 can reach about 96.4% mIoU, stride 4 about 98.5%, at most 5 points more; "
            "stride 16 can reach about 92.8% (measured on 1 mask of val)",
        ),
        (
            (1, 1, 1, 1 - MARGIN),
            32,
            "stride 32 can reach about 95.0% mIoU, stride 4 about 100.0%, at most 5 points more "
            "(measured on 1 mask of val)",
        ),
        (
            (0.9, 0.8, 0.7, 0.6),
            4,
            "stride 4 can reach about 90.0% mIoU; stride 8 can reach about 80.0%, more than 5 "
            "points less (measured on 1 mask of val)",
        ),
    ],
)
def test_the_recommended_stride(means: tuple[float, ...], stride: int, reason: str) -> None:
    class_iou = {s: (mean,) for s, mean in zip(STRIDES, means, strict=True)}
    ceiling = Ceiling("data", "val", 1, 1, 0.0, ("a",), class_iou)
    assert (ceiling.recommended_stride, ceiling.reason) == (stride, reason)
    assert f"a loses most: at stride 32 about {means[-1]:.2%} is left" in ceiling.text()


def test_a_sample_is_spread_over_the_split(tmp_path: Path) -> None:
    """Of 40 masks, the last 8 are fine: the first 32 alone would give another result."""
    flat, fine = np.zeros((32, 32), np.uint8), checkerboard(32, 32, 4)
    flat[:, 16:] = 1
    write(tmp_path, "train", *[flat] * 2)
    data = load_dataset(write(tmp_path, "val", *[flat] * 32, *[fine] * 8))
    sample = estimate_on_sample(data, "val")
    assert sample is not None
    assert (sample.images, sample.images_in_split) == (32, 40)
    assert sample.reason.endswith("(measured on 32 of 40 masks of val)")
    every = iou_ceiling(data, split="val").mean_iou
    assert sample.mean_iou[8] == pytest.approx(every[8], abs=0.03)
    assert sample.mean_iou[8] < iou_ceiling(data, split="train").mean_iou[8] - 0.05
    assert estimate_on_sample(data) == replace(iou_ceiling(data, split="train"), images_in_split=2)
    assert estimate_on_sample(replace(data, splits={"val": data.splits["val"]})) is None


def test_many_absent_classes_are_counted_not_listed(tmp_path: Path) -> None:
    names = ", ".join(f'"c{k}"' for k in range(20))
    root = write(tmp_path, "val", checkerboard(32, 32, 8), toml=f"classes = [{names}]\n")
    lines = iou_ceiling(root).text().splitlines()
    assert [line.split()[0] for line in lines[4:7]] == ["c0", "c1", "mean"]
    assert "left out: 18 classes that val lacks" in lines


def test_some_strides(scenes: Path) -> None:
    every = iou_ceiling(scenes, split="val").mean_iou
    some = iou_ceiling(scenes, split="val", strides=(16, 32)).mean_iou
    assert some == {16: every[16], 32: every[32]}


# Real images.


@pytest.mark.slow
def test_the_figures_of_the_paper_on_the_voc_sample(shared: Path) -> None:
    """VOC hides every border below a band of ignored pixels, and so the errors of stride 8. If the
    band is one more class, the result is that of the paper."""
    data = load_dataset(shared / "data" / "voc2012_sample")
    pairs = tuple(pair for pairs in data.splits.values() for pair in pairs)
    assert len(pairs) == 100
    paper = {32: 86.1, 16: 92.8, 8: 96.4}
    ceiling = iou_ceiling(replace(data, splits={"val": pairs})).mean_iou
    means = {stride: 100 * ceiling[stride] for stride in paper}
    assert means == pytest.approx({32: 85.6, 16: 93.8, 8: 99.7}, abs=0.1)
    assert max(abs(means[stride] - paper[stride]) for stride in (32, 16)) < 2
    void = len(data.labels)
    for stride, expected in paper.items():
        confusion = np.zeros((void + 1, void + 1))
        for pair in pairs:
            ids = read_mask(pair.mask, data.labels)
            result = downsample_upsample(np.where(ids < void, ids, void), stride, void + 1)
            truth = np.where(ids < void, ids, void + 1)  # out of range: not evaluated
            confusion += confusion_matrix(truth, result, void + 1)
        mean = 100 * np.nanmean(Metrics(data.labels.names, confusion).class_iou[:void])
        assert mean == pytest.approx(expected, abs=2), stride


@pytest.mark.slow
def test_poles_are_lost_at_stride_32(shared: Path) -> None:
    ceiling = iou_ceiling(shared / "data" / "camvid", split="val")
    assert ceiling.images == 101
    pole = ceiling.names.index("pole")
    falling = [ceiling.class_iou[stride][pole] for stride in STRIDES]
    assert falling == sorted(falling, reverse=True)
    assert falling[-1] < 0.15 < 0.6 < falling[0]
