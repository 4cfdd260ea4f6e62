"""Probabilities at every pixel, for one view and averaged, against their definition in float64."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from photos import photo
from PIL import Image

from fullconv.inference import probabilities
from fullconv.inference.options import PredictOptions
from fullconv.inference.predictor import Predictor
from fullconv.inference.probabilities import Probabilities, rescale, write_probabilities
from fullconv.models.model import Model

MakeModel = Callable[..., Model]


@pytest.fixture(scope="module")
def model(make_model: MakeModel) -> Model:
    return make_model(stride=16)


def make_predictor(model: Model, options: PredictOptions, tile: int | None = None) -> Predictor:
    predictor = Predictor(model, device="cpu", precision="float32", tile=tile)
    predictor.set_options(options)
    return predictor


def define(model: Model, image: np.ndarray, scales: tuple[float, ...], *, flip: bool) -> np.ndarray:
    """(K, H, W) float64: each view alone, each pixel interpolated between the cells around it."""
    size = image.shape[:2]
    total, views = np.zeros((len(model.labels), *size)), 0
    for scale in scales:
        width, height = (max(1, round(side * scale)) for side in size[::-1])
        view = np.asarray(Image.fromarray(image).resize((width, height), 2))
        for is_flipped in (False, True)[: 1 + flip]:
            pixels = torch.from_numpy((view[:, ::-1] if is_flipped else view).copy())
            with torch.no_grad():
                scores = model.network(model.normalize(pixels.permute(2, 0, 1)[None]))
            values, grid = scores.values[0].double().numpy(), scores.grid
            rows, columns = (  # in pixels of the view
                (np.arange(pixels) + 0.5) * length / pixels - 0.5
                for pixels, length in zip(size, (height, width), strict=True)
            )
            columns = width - 1 - columns if is_flipped else columns
            cells = (
                ((at - grid.offset) / grid.stride).clip(0, count - 1)
                for at, count in zip((rows, columns), values.shape[1:], strict=True)
            )
            total += interpolated_softmax(values, *cells)
            views += 1
    return total / views


def interpolated_softmax(values: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    top = np.minimum(rows.astype(int), max(values.shape[1] - 2, 0))
    left = np.minimum(columns.astype(int), max(values.shape[2] - 2, 0))
    bottom = np.minimum(top + 1, values.shape[1] - 1)
    right = np.minimum(left + 1, values.shape[2] - 1)
    down, along = (rows - top)[:, None], (columns - left)[None, :]
    logits = (
        values[:, top][:, :, left] * (1 - down) * (1 - along)
        + values[:, bottom][:, :, left] * down * (1 - along)
        + values[:, top][:, :, right] * (1 - down) * along
        + values[:, bottom][:, :, right] * down * along
    )
    powers = np.exp(logits - logits.max(axis=0))
    return powers / powers.sum(axis=0)


def join(result: Probabilities) -> np.ndarray:
    return np.concatenate([strip for _, strip in result.strips(0)], axis=1)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("scales", [(1.0,), (0.5, 1.0, 1.3)])
@pytest.mark.parametrize("size", [(1, 1), (50, 33), (64, 97)])
def test_the_mean_over_all_views_at_every_pixel(
    model: Model, size: tuple[int, int], scales: tuple[float, ...], flip: bool
) -> None:
    image = photo(*size)
    predictor = make_predictor(model, PredictOptions(flip, scales))
    result = predictor.probabilities(image)
    expected = define(model, image, scales, flip=flip)
    np.testing.assert_allclose(join(result), expected, atol=2e-5)
    np.testing.assert_allclose(result.confidence(0), expected.max(axis=0), atol=2e-5)
    predicted = np.take_along_axis(expected, result.labels(0)[None].astype(int), axis=0)[0]
    assert (predicted > expected.max(axis=0) - 1e-4).all()
    assert (predictor.label_map(image) == result.labels(0)).all()


@settings(max_examples=10)
@given(st.integers(1, 70), st.integers(1, 70), st.sampled_from([(1.0,), (0.6, 1.0)]))
def test_the_result_for_a_flipped_image_is_the_flipped_result(
    model: Model, height: int, width: int, scales: tuple[float, ...]
) -> None:
    predictor = make_predictor(model, PredictOptions(True, scales))
    image = photo(height, width, seed=height + width)
    flipped = np.ascontiguousarray(image[:, ::-1])
    result, mirrored = (predictor.probabilities(view) for view in (image, flipped))
    if scales == (1.0,):
        assert (join(result) == join(mirrored)[..., ::-1]).all()
        assert (result.labels(0) == mirrored.labels(0)[:, ::-1]).all()
    else:  # Pillow rounds mixed colors differently from the other side
        np.testing.assert_allclose(join(result), join(mirrored)[..., ::-1], atol=0.05)


def test_tiles_give_the_probabilities_of_the_whole_image(model: Model) -> None:
    image = photo(150, 205)
    whole = make_predictor(model, PredictOptions(flip=True)).probabilities(image)
    tiled = make_predictor(model, PredictOptions(flip=True), tile=64)
    np.testing.assert_allclose(join(tiled.probabilities(image)), join(whole), atol=1e-5)
    assert tiled.tiles is not None
    assert tiled.tiles.exact
    assert (tiled.segment(image).mask == whole.labels(0)).mean() > 0.999


def test_strips_do_not_change_the_result(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    result = make_predictor(model, PredictOptions(flip=True)).probabilities(photo())
    at_once = join(result)
    monkeypatch.setattr(probabilities, "_STRIP", 3 * 33 * 7)
    assert [rows.start for rows, _ in result.strips(0)] == list(range(0, 50, 7))
    np.testing.assert_allclose(join(result), at_once, atol=1e-6)


def test_resizing_does_not_mix_depths() -> None:
    channels = np.zeros((8, 8, 4), np.float32)
    channels[:, :4, 3] = 1000
    channels[:, :4, 0] = 100
    small = rescale(channels, 0.625)
    assert small.shape == (5, 5, 4)
    assert set(np.unique(small[..., 3])) == {0, 1000}
    assert len(np.unique(small[..., 0])) > 2
    assert rescale(channels, 1.0) is channels


def test_the_archive_reads_back(model: Model, tmp_path: Path) -> None:
    result = make_predictor(model, PredictOptions()).probabilities(photo())
    write_probabilities(tmp_path / "a.npz", result, 0, model.labels)
    with np.load(tmp_path / "a.npz", allow_pickle=False) as archive:
        assert archive.files == ["probability", "classes"]
        assert tuple(archive["classes"]) == model.labels.names
        values = archive["probability"]
    assert (values.shape, values.dtype) == ((50, 33, 3), np.float16)
    expected = define(model, photo(), (1.0,), flip=False)
    np.testing.assert_allclose(values.transpose(2, 0, 1), expected, atol=1e-3)
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]
