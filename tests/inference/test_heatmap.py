"""Heat maps against the classifier on crops, and where the peak is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from fullconv.core.errors import FullconvError
from fullconv.geometry.grid import Grid
from fullconv.inference.heatmap import (
    DISPLAY_SIDE,
    Heat,
    Heatmap,
    draw_heat,
    draw_heatmap,
    draw_peak,
    heatmap,
)
from fullconv.network.dense.convolutionalize import DenseClassifier, convolutionalize

WINDOW, STRIDE = 32, 4
COLORS = {"red": (220, 30, 30), "green": (30, 200, 60), "blue": (40, 60, 210)}


class Reds(nn.Module):
    """A classifier of the color in the middle of 32 x 32 pixels: red, green or blue."""

    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.Conv2d(3, 3, 4, stride=4, bias=False)
        self.fc = nn.Linear(3 * 64, 3, bias=False)
        near = torch.hann_window(8, periodic=False).outer(torch.hann_window(8, periodic=False))
        with torch.no_grad():
            self.cells.weight.copy_((torch.eye(3) * 3 - 1)[:, :, None, None] / 16)
            self.fc.weight.copy_((torch.eye(3)[:, :, None, None] * near).flatten(1) / 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.cells(x).relu().flatten(1))  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def dense() -> DenseClassifier:
    return convolutionalize(Reds(), size=WINDOW)


def photo(path: Path, size: tuple[int, int], spots: dict[str, tuple[int, int]]) -> Path:
    """Write a gray image with discs of 10 pixels' radius around (row, column)."""
    pixels = np.full((*size, 3), 120, np.uint8)
    y, x = np.mgrid[: size[0], : size[1]]
    for color, (row, column) in spots.items():
        pixels[(y - row) ** 2 + (x - column) ** 2 <= 100] = COLORS[color]
    Image.fromarray(pixels).save(path)
    return path


def probabilities(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return what the classifier itself computes, in float64."""
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    image = torch.from_numpy(((pixels / 255 - mean) / std).transpose(2, 0, 1))[None]
    with torch.no_grad():
        return Reds().double()(image)[0].softmax(0).numpy()  # type: ignore[no-any-return]


def test_each_cell_is_the_classifier_on_a_crop_of_the_scaled_image(
    dense: DenseClassifier, tmp_path: Path
) -> None:
    path = photo(tmp_path / "a.png", (50, 61), {"red": (20, 20), "blue": (30, 50)})
    result = heatmap(dense, path, scales=(1, 1.5))
    image = Image.open(path)
    for heat in result.heats:
        height, width = heat.size
        assert (height, width) == (round(50 * heat.scale), round(61 * heat.scale))
        scaled = np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))
        rows, columns = heat.probabilities.shape[1:]
        assert (rows, columns) == ((height - 32) // 4 + 1, (width - 32) // 4 + 1)
        top, left = (height - 32) % 4 // 2, (width - 32) % 4 // 2
        for i in range(rows):
            for j in range(columns):
                y, x = top + 4 * i, left + 4 * j
                expected = probabilities(scaled[y : y + 32, x : x + 32])
                np.testing.assert_allclose(heat.probabilities[:, i, j], expected, atol=1e-5)
                # The middle of the crop, in pixels of the original image.
                middle = (y + 16) * 50 / height - 0.5, (x + 16) * 61 / width - 0.5
                assert heat.rows.center(i) == pytest.approx(middle[0])
                assert heat.columns.center(j) == pytest.approx(middle[1])


@settings(max_examples=25)
@given(st.data())
def test_a_spot_is_found_at_its_place(
    dense: DenseClassifier, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """At any size and scale, within a cell and a half, also if the image is reduced."""
    height, width = (data.draw(st.integers(40, 180)) for _ in range(2))
    row, column = data.draw(st.integers(16, height - 17)), data.draw(st.integers(16, width - 17))
    scale = data.draw(st.sampled_from((1.0, 1.3, 2.0)))
    folder = tmp_path_factory.mktemp("spot")
    path = photo(folder / "a.png", (height, width), {"green": (row, column)})
    result = heatmap(dense, path, scales=(scale,))
    (heat,) = result.heats
    unit = heat.size[0] / height
    assert unit == pytest.approx(scale * min(1, 64 / min(height, width)), rel=0.02)
    peak = result.best(1)
    reach = 1.5 * STRIDE / unit + 1
    # Windows end at the border of the image: a spot beyond the last middle is seen there.
    for at, true, pixels in ((peak.row, row, height), (peak.column, column, width)):
        nearest = min(max(true, 16 / unit), pixels - 16 / unit)
        assert abs(at - nearest) <= reach
    assert peak in result.top(3)
    top, left, bottom, right = peak.window
    assert bottom - top == pytest.approx(32 * height / heat.size[0], abs=1)
    assert right - left == pytest.approx(32 * width / heat.size[1], abs=1)
    assert 0 <= top < bottom <= height
    assert 0 <= left < right <= width
    assert (top + bottom - 1) / 2 == pytest.approx(peak.row, abs=1)


def test_the_best_scale_is_chosen_and_classes_are_ranked(
    dense: DenseClassifier, tmp_path: Path
) -> None:
    path = photo(tmp_path / "a.png", (64, 80), {"red": (20, 24), "blue": (44, 60)})
    result = heatmap(dense, path, scales=(1, 2))
    for class_id in range(3):
        peaks = result.peaks(class_id)
        assert [peak.scale for peak in peaks] == [1, 2]
        highest = [float(heat.probabilities[class_id].max()) for heat in result.heats]
        assert [peak.probability for peak in peaks] == pytest.approx(highest)
        assert result.best(class_id).probability == pytest.approx(max(highest))
    ranked = result.top(2)
    assert {peak.class_id for peak in ranked} == {0, 2}
    assert ranked[0].probability >= ranked[1].probability > result.best(1).probability
    assert ranked[0].name in ("class 0", "class 2")
    table = ranked[0].to_dict()
    assert table["id"] == ranked[0].class_id
    assert table["window"] == list(ranked[0].window)


def test_heat_between_the_cells_is_bilinear() -> None:
    values = np.array([[[0.0, 1.0], [0.5, 0.25]]], np.float32)
    grids = (Grid(8, 6), Grid(4, 3))
    heat = Heat(1, (20, 10), *grids, grids, values)
    drawn = heat.read(0, (20, 10), (20, 10))
    for y, x in np.ndindex(20, 10):
        u, v = (y - 6) / 8, (x - 3) / 4
        if not (-0.5 <= u <= 1.5 and -0.5 <= v <= 1.5):  # no cell looks there
            assert np.isnan(drawn[y, x])
            continue
        u, v = min(max(u, 0), 1), min(max(v, 0), 1)
        expected = (1 - u) * ((1 - v) * 0 + v * 1) + u * ((1 - v) * 0.5 + v * 0.25)
        assert drawn[y, x] == pytest.approx(expected)
    half = heat.read(0, (20, 10), (10, 5))  # pixel 3 is at 6.5 of the image's
    assert half[3, 1] == pytest.approx(np.interp(0.0625, [0, 1], [0, 0.5]))


def test_large_photos_are_reduced(dense: DenseClassifier, tmp_path: Path) -> None:
    path = photo(tmp_path / "a.png", (900, 1300), {"red": (450, 650)})
    result = heatmap(dense, path)
    assert result.heats[0].size == (64, 92)
    assert result.size == (900, 1300)
    assert max(result.image.shape) == DISPLAY_SIDE
    jpeg = tmp_path / "a.jpg"
    Image.open(path).save(jpeg, quality=95)
    again = heatmap(dense, jpeg)
    assert again.size == (900, 1300)
    np.testing.assert_allclose(
        again.heats[0].probabilities, result.heats[0].probabilities, atol=0.02
    )


TOO_SMALL = "has 20 x 50 pixels at scale 1 (height x width); Reds needs at least 32 x 32"


@pytest.mark.parametrize(
    ("size", "scale", "message", "hint"),
    [
        ((20, 50), 1, TOO_SMALL, "1.6"),
        ((64, 90), 0.4, "has 26 x 36 pixels at scale 0.4", "0.5"),
        ((64, 90), 40, "has 2560 x 3600 pixels at scale 40", "32.2"),
        ((64, 90), 0, "scale 0; expected a number above 0", "1,1.5,2"),
        ((64, 90), float("nan"), "scale nan; expected a number above 0", "1,1.5,2"),
    ],
)
def test_impossible_scales(
    dense: DenseClassifier,
    tmp_path: Path,
    size: tuple[int, int],
    scale: float,
    message: str,
    hint: str,
) -> None:
    path = photo(tmp_path / "a.png", size, {})
    with pytest.raises(FullconvError) as caught:
        heatmap(dense, path, scales=(1.0, scale) if min(size) > 32 else (scale,))
    assert message in caught.value.message
    assert caught.value.hint == f"--scales {hint}"
    if scale > 0:  # the hint works
        assert isinstance(heatmap(dense, path, scales=(float(hint),)), Heatmap)


def test_files_that_are_no_image(dense: DenseClassifier, tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_text("nothing")
    with pytest.raises(FullconvError, match=r"image .*a\.jpg cannot be read"):
        heatmap(dense, path)


def make_heatmap(*, brightest: tuple[int, int] = (1, 2)) -> Heatmap:
    """Return 3 x 5 cells from (10, 8) on, 20 and 16 apart, on a gray image of 60 x 80 pixels."""
    values = np.full((2, 3, 5), 0.1, np.float32)
    values[1][brightest] = 0.8
    values[0] = 1 - values[1]
    rows, columns = Grid(20, 10), Grid(16, 8)
    windows = (Grid(20, 10, 20), Grid(16, 8, 16))
    image = np.full((60, 80, 3), 100, np.uint8)
    heat = Heat(1, (60, 80), rows, columns, windows, values)
    return Heatmap(("cat", "dog"), (60, 80), image, (heat, heat))


def test_the_heat_is_brightest_at_the_peak() -> None:
    heats = make_heatmap()
    best = heats.best(1)
    assert (best.row, best.column, best.name) == (30, 40, "dog")
    drawn = draw_heat(heats, heats.heats[0], best).astype(int)
    assert drawn.shape == (60, 80, 3)
    bright, redness = drawn.sum(axis=-1), drawn[..., 0] - drawn[..., 2]
    y, x = np.unravel_index(bright.argmax(), bright.shape)
    assert abs(y - 30) <= 1
    assert abs(x - 40) <= 1
    assert redness.max() > 100
    assert redness[10, 8] < 25


def test_the_heat_has_the_size_of_the_displayed_image() -> None:
    heats = make_heatmap(brightest=(2, 0))
    smaller = Heatmap(heats.names, heats.size, heats.image[::2, ::2], heats.heats)
    drawn = draw_heat(smaller, smaller.heats[0], smaller.best(1)).astype(int)
    assert drawn.shape == (30, 40, 3)
    bright = drawn.sum(axis=-1)
    y, x = np.unravel_index(bright.argmax(), bright.shape)
    assert abs(y - 25) <= 1
    assert x <= 4  # the outermost cell also counts for the pixels left of it


def test_pixels_without_a_cell_are_pale() -> None:
    heats = make_heatmap()
    heat = heats.heats[0]
    narrow = Heat(1, heat.size, Grid(20, 30), heat.columns, heat.windows, heat.probabilities[:, :1])
    drawn = draw_heat(Heatmap((), (60, 80), heats.image, (narrow,)), narrow, heats.best(1))
    assert (drawn[:19] == 190).all()
    assert (drawn[41:] == 190).all()
    assert (drawn[21:39] < 190).any(axis=-1).all()


def test_a_ring_and_a_frame_mark_the_peak() -> None:
    heats = make_heatmap()
    drawn = draw_peak(heats, heats.best(1))
    changed = (drawn != 100).any(axis=-1)
    y, x = np.nonzero(changed)
    assert (y.min(), y.max(), x.min(), x.max()) == (20, 39, 32, 47)  # the window of that cell
    assert not changed[30, 40]
    ring = changed[24:37, 34:47]
    assert 8 < ring.sum() < ring.size / 2


def test_a_sheet_has_a_row_per_class_and_a_color_key() -> None:
    single, double = (draw_heatmap(make_heatmap(), classes) for classes in ([1], [0, 1]))
    assert double.width == single.width > 3 * 80
    assert double.height > single.height + 60
    for image in (single, double):
        bottom = np.asarray(image)[-single.height // 6 :].astype(int)
        warmth = bottom[..., 0] - bottom[..., 2]
        assert warmth.max() > 150  # the colors of the key
