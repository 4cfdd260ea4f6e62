"""The album: what a network sees, back in colours, and sheets whose pixels can be accounted for."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lively import lively

from fullconv.core.labels import Labels
from fullconv.data.io.extra_channels import ExtraInput
from fullconv.training import image_sheets
from fullconv.training.image_sheets import (
    Crop,
    ValidationImage,
    batches_sheet,
    epoch_sheet,
    network_inputs,
)
from fullconv.visualization.overlay import NEUTRAL

LABELS = Labels(("sky", "road"), ((10, 200, 30), (200, 20, 90)))
OTHER = Labels(("far", "near"), ((1, 60, 250), (250, 160, 0)), ignore_index=7)
DEPTH = ExtraInput("depth", 1, (300.0,), (50.0,))
HHA = ExtraInput("hha", 3, (1.0, 2.0, 3.0), (1.0, 2.0, 4.0))
PHOTO = (90, 100, 110)


@pytest.fixture
def sheets(monkeypatch):
    """The arguments of the sheets that are drawn."""
    arguments = []
    real = image_sheets.contact_sheet

    def contact_sheet(rows, titles, captions, **options):
        arguments.append({"titles": titles, "captions": captions, **options})
        return real(rows, titles, captions, **options)

    monkeypatch.setattr(image_sheets, "contact_sheet", contact_sheet)
    return arguments


def shares(sheet):
    """Colour -> how many pixels of the sheet have it."""
    found, counts = np.unique(np.asarray(sheet).reshape(-1, 3), axis=0, return_counts=True)
    return dict(zip(map(tuple, found.tolist()), counts.tolist(), strict=True))


def photo(height, width):
    return np.full((height, width, 3), PHOTO, np.uint8)


@given(
    st.integers(1, 3),
    st.integers(1, 9),
    st.integers(1, 9),
    st.lists(st.floats(0.0, 1.0), min_size=3, max_size=3),
    st.lists(st.floats(0.05, 2.0), min_size=3, max_size=3),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=60)
def test_normalised_and_put_back_is_the_very_image(count, height, width, mean, std, seed):
    model = MODEL
    model.card = replace(model.card, mean=tuple(mean), std=tuple(std))
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (count, 3, height, width), generator=generator).byte()
    for image in images:
        (back,) = network_inputs(model, image)
        assert np.array_equal(back, image.permute(1, 2, 0).numpy())


MODEL = lively()


def test_further_inputs_are_grey_about_their_mean_and_colours_where_they_are_three():
    model = replace(lively(), extra_inputs=(DEPTH, HHA))
    batch = torch.zeros(1, 7, 1, 5)
    batch[0, 3] = torch.tensor([0.0, 200.0, 300.0, 400.0, 1000.0])  # mean 300, spread 50
    batch[0, 4:, 0, 0] = torch.tensor([1.0, 2.0 + 4.0, 3.0 - 8.0])  # mean, two above, two below
    colors, depth, hha = network_inputs(model, batch[0])
    assert colors.shape == depth.shape == hha.shape == (1, 5, 3)
    assert depth[0].tolist() == [[0] * 3, [0] * 3, [128] * 3, [255] * 3, [255] * 3]
    assert hha[0, 0].tolist() == [128, 255, 0]


def test_a_crop_shows_its_void_and_stripes_where_it_is_beyond_the_image():
    ids = np.zeros((240, 320), np.uint8)
    ids[:, 160:] = 1
    ids[:60] = 255  # void
    outside = np.zeros((240, 320), bool)
    outside[200:] = True
    ids[200:] = 255
    crop = Crop("a", [photo(240, 320)], [ids], outside)
    found = shares(batches_sheet([crop], [("", LABELS)], (), 255, "the first crop"))
    assert found[PHOTO] == 240 * 320
    cells = {"sky": 140 * 160, "road": 140 * 160}
    for name, color in zip(LABELS.names, LABELS.colors, strict=True):
        assert cells[name] < found[color] < cells[name] + 500  # and its swatch in the legend
    assert 60 * 320 < found[NEUTRAL] < 60 * 320 + 500
    # Half of what is outside is grey, the other half as white as the paper.
    assert 0.4 * 40 * 320 < found[196, 202, 208] < 0.6 * 40 * 320 + 500


def test_what_is_not_there_is_not_in_the_legend(sheets):
    inside = np.zeros((240, 320), bool)
    ids = np.zeros((240, 320), np.uint8)
    batches_sheet([Crop("a", [photo(240, 320)], [ids], inside)], [("", LABELS)], (), 255, "")
    assert [sheet["legend"] for sheet in sheets] == [{"sky": LABELS.colors[0]}]


def test_two_heads_have_columns_and_a_legend_of_their_own(sheets):
    """They share one ignored id, which is none of the second table's."""
    first, second = np.zeros((240, 320), np.uint8), np.ones((240, 320), np.uint8)
    second[:100] = 255
    tables = [("kinds", LABELS), ("distance", OTHER)]
    wrong = np.ones_like(first)
    images = [ValidationImage("a", photo(240, 320), [first, second], [wrong, wrong])]
    sheet = epoch_sheet(images, tables, 255, "epoch 1 of 2")
    found = shares(sheet)
    assert found[PHOTO] == 240 * 320
    assert found[OTHER.colors[1]] > (140 + 240) * 320  # truth and prediction
    assert found[LABELS.colors[0]] > 240 * 320
    assert found[LABELS.colors[1]] > 240 * 320
    assert found[NEUTRAL] > 100 * 320
    assert list(sheets[0]["legend"]) == ["kinds: sky", "kinds: road", "distance: near", "(ignored)"]
    assert sheet.width > 5 * 320


def test_captions_have_the_share_of_labeled_pixels_that_are_right(sheets):
    truth = np.zeros((8, 10), np.uint8)
    truth[:4] = 255
    predicted = np.zeros((8, 10), np.uint8)
    predicted[4] = 1  # one of four labeled rows
    ignored = np.full((8, 10), 255, np.uint8)
    images = [
        ValidationImage("a", photo(8, 10), [truth], [predicted]),
        ValidationImage("b", photo(8, 10), [ignored], [predicted]),
    ]
    epoch_sheet(images, [("", LABELS)], 255, "")
    assert sheets[0]["captions"] == ["a: 75.0% right", "b"]


@pytest.mark.parametrize("size", [(2, 3), (640, 480), (40, 640), (640, 33)])
def test_a_sheet_of_six_images_of_any_shape_can_be_looked_at(size):
    ids = np.zeros(size, np.uint8)
    images = [ValidationImage("a name that is long " * 9, photo(*size), [ids], [ids])] * 6
    sheet = epoch_sheet(images, [("", LABELS)], 255, "epoch 1 of 1: mean IoU 0.123 on val")
    assert 400 < sheet.width <= 2300
    assert sheet.height <= 1800
