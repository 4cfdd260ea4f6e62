"""Probabilities at every pixel, of one view and of several, against their definition in float64."""

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

from fullconv.core.errors import FullconvError
from fullconv.inference import probabilities
from fullconv.inference.options import PredictOptions
from fullconv.inference.predictor import Predictor
from fullconv.inference.probabilities import Probabilities, rescale, write_probabilities
from fullconv.models.model import Model

MakeModel = Callable[..., Model]
SCALES = (0.5, 1.0, 1.3)


@pytest.fixture(scope="module")
def model(make_model: MakeModel) -> Model:
    return make_model(stride=16)


def asked(model: Model, options: PredictOptions, tile: int | None = None) -> Predictor:
    predictor = Predictor(model, device="cpu", precision="float32", tile=tile)
    predictor.set_options(options)
    return predictor


def by_definition(
    model: Model, image: np.ndarray, scales: tuple[float, ...], *, flip: bool
) -> np.ndarray:
    """(K, H, W) float64: every view on its own, each pixel between the four cells around it."""
    size = image.shape[:2]
    total, views = np.zeros((len(model.labels), *size)), 0
    for scale in scales:
        width, height = (max(1, round(side * scale)) for side in size[::-1])
        shown = np.asarray(Image.fromarray(image).resize((width, height), 2))
        for turned in (False, True)[: 1 + flip]:
            planes = torch.from_numpy(shown[:, ::-1].copy() if turned else shown.copy())
            with torch.no_grad():
                scores = model.network(model.normalize(planes.permute(2, 0, 1)[None]))
            values, grid = scores.values[0].double().numpy(), scores.grid
            down, along = (  # in pixels of the view
                (np.arange(pixels) + 0.5) * seen / pixels - 0.5
                for pixels, seen in zip(size, (height, width), strict=True)
            )
            along = width - 1 - along if turned else along
            places = (
                ((at - grid.offset) / grid.stride).clip(0, cells - 1)
                for at, cells in zip((down, along), values.shape[1:], strict=True)
            )
            total += shares(values, *places)
            views += 1
    return total / views


def shares(values: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Softmax of the bilinear reading."""
    top = np.minimum(rows.astype(int), max(values.shape[1] - 2, 0))
    left = np.minimum(columns.astype(int), max(values.shape[2] - 2, 0))
    below, right = (
        np.minimum(top + 1, values.shape[1] - 1),
        np.minimum(left + 1, values.shape[2] - 1),
    )
    down, along = (rows - top)[:, None], (columns - left)[None, :]
    read = (
        values[:, top][:, :, left] * (1 - down) * (1 - along)
        + values[:, below][:, :, left] * down * (1 - along)
        + values[:, top][:, :, right] * (1 - down) * along
        + values[:, below][:, :, right] * down * along
    )
    grown = np.exp(read - read.max(axis=0))
    return grown / grown.sum(axis=0)


def whole(found: Probabilities) -> np.ndarray:
    return np.concatenate([rows for _, rows in found.strips(0)], axis=1)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("scales", [(1.0,), SCALES])
@pytest.mark.parametrize("size", [(1, 1), (50, 33), (64, 97)])
def test_the_mean_over_all_views_at_every_pixel(
    model: Model, size: tuple[int, int], scales: tuple[float, ...], flip: bool
) -> None:
    image = photo(*size)
    predictor = asked(model, PredictOptions(flip, scales))
    found = predictor.probabilities(image)
    wanted = by_definition(model, image, scales, flip=flip)
    np.testing.assert_allclose(whole(found), wanted, atol=2e-5)
    np.testing.assert_allclose(found.confidence(0), wanted.max(axis=0), atol=2e-5)
    likeliest = np.take_along_axis(wanted, found.labels(0)[None].astype(int), axis=0)[0]
    assert (likeliest > wanted.max(axis=0) - 1e-4).all()
    assert (predictor.label_map(image) == found.labels(0)).all()


@settings(max_examples=10)
@given(st.integers(1, 70), st.integers(1, 70), st.sampled_from([(1.0,), (0.6, 1.0)]))
def test_the_result_for_a_mirrored_image_is_the_mirrored_result(
    model: Model, height: int, width: int, scales: tuple[float, ...]
) -> None:
    predictor = asked(model, PredictOptions(True, scales))
    image = photo(height, width, seed=height + width)
    mirrored = np.ascontiguousarray(image[:, ::-1])
    one, other = (predictor.probabilities(shown) for shown in (image, mirrored))
    if scales == (1.0,):
        assert (whole(one) == whole(other)[..., ::-1]).all()
        assert (one.labels(0) == other.labels(0)[:, ::-1]).all()
    else:  # Pillow rounds colours that it mixes, another way from the other side
        np.testing.assert_allclose(whole(one), whole(other)[..., ::-1], atol=0.05)


def test_tiles_give_the_probabilities_of_the_whole_image(model: Model) -> None:
    image = photo(150, 205)
    wholly = asked(model, PredictOptions(flip=True)).probabilities(image)
    cut = asked(model, PredictOptions(flip=True), tile=64)
    np.testing.assert_allclose(whole(cut.probabilities(image)), whole(wholly), atol=1e-5)
    assert cut.tiles is not None
    assert cut.tiles.exact
    assert (cut.segment(image).mask == wholly.labels(0)).mean() > 0.999


def test_in_few_rows_it_is_the_same(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    found = asked(model, PredictOptions(flip=True)).probabilities(photo())
    at_once = whole(found)
    monkeypatch.setattr(probabilities, "_STRIP", 3 * 33 * 7)
    spans = [rows for rows, _ in found.strips(0)]
    assert [rows.start for rows in spans] == list(range(0, 50, 7))
    np.testing.assert_allclose(whole(found), at_once, atol=1e-6)


def test_depths_are_not_mixed_when_a_image_is_resized() -> None:
    planes = np.zeros((8, 8, 4), np.float32)
    planes[:, :4, 3] = 1000
    planes[:, :4, 0] = 100
    small = rescale(planes, 0.625)
    assert small.shape == (5, 5, 4)
    assert set(np.unique(small[..., 3])) == {0, 1000}
    assert len(np.unique(small[..., 0])) > 2
    assert rescale(planes, 1.0) is planes


def test_a_view_that_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probabilities, "MAX_VIEW_PIXELS", 100)
    with pytest.raises(FullconvError) as caught:
        rescale(np.zeros((9, 8, 3), np.uint8), 1.5)
    assert "an image of 9 x 8 pixels (height x width) at scale 1.5" in caught.value.message
    assert "--scales 1" in caught.value.hint


class NoNumbers(Probabilities):
    size, counts = (2, 2), (3,)

    def rows(self, head: int, start: int, stop: int) -> np.ndarray:
        return np.full((3, stop - start, 2), np.nan, np.float32)


def test_scores_that_are_no_numbers() -> None:
    for reading in (NoNumbers().labels, NoNumbers().confidence):
        with pytest.raises(FullconvError, match="NaN"):
            reading(0)


def test_the_archive_reads_back(model: Model, tmp_path: Path) -> None:
    found = asked(model, PredictOptions()).probabilities(photo())
    write_probabilities(tmp_path / "a.npz", found, 0, model.labels)
    with np.load(tmp_path / "a.npz", allow_pickle=False) as archive:
        assert archive.files == ["probability", "classes"]
        assert tuple(archive["classes"]) == model.labels.names
        numbers = archive["probability"]
    assert numbers.shape == (50, 33, 3)
    assert numbers.dtype == np.float16
    wanted = by_definition(model, photo(), (1.0,), flip=False)
    np.testing.assert_allclose(numbers.transpose(2, 0, 1), wanted, atol=1e-3)
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]
