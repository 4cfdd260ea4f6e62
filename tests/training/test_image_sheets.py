"""Sheets of a training run: the input of the network in colors, and sheets pixel by pixel."""

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
SIZE = (240, 320)


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


def pixels_by_color(sheet):
    colors, counts = np.unique(np.asarray(sheet).reshape(-1, 3), axis=0, return_counts=True)
    return dict(zip(map(tuple, colors.tolist()), counts.tolist(), strict=True))


def photo(size=SIZE):
    return np.full((*size, 3), PHOTO, np.uint8)


def crop(ids, outside=None):
    return Crop("a", [photo()], [ids], np.zeros(SIZE, bool) if outside is None else outside)


@given(
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.lists(st.floats(0.0, 1.0), min_size=3, max_size=3),
    st.lists(st.floats(0.05, 2.0), min_size=3, max_size=3),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=120)
def test_a_normalized_image_is_converted_back_exactly(size, mean, std, seed):
    MODEL.card = replace(MODEL.card, mean=tuple(mean), std=tuple(std))
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(256, (3, *size), generator=generator).byte()
    (back,) = network_inputs(MODEL, image)
    assert np.array_equal(back, image.permute(1, 2, 0).numpy())


MODEL = lively()


def test_extra_inputs_are_gray_about_their_mean_and_colors_if_they_have_three_channels():
    model = replace(lively(), extra_inputs=(DEPTH, HHA))
    batch = torch.zeros(1, 7, 1, 5)
    batch[0, 3] = torch.tensor([0.0, 200.0, 300.0, 400.0, 1000.0])  # mean 300, spread 50
    batch[0, 4:, 0, 0] = torch.tensor([1.0, 2.0 + 4.0, 3.0 - 8.0])  # mean, two above, two below
    colors, depth, hha = network_inputs(model, batch[0])
    assert colors.shape == depth.shape == hha.shape == (1, 5, 3)
    assert depth[0].tolist() == [[0] * 3, [0] * 3, [128] * 3, [255] * 3, [255] * 3]
    assert hha[0, 0].tolist() == [128, 255, 0]


def test_a_crop_shows_ignored_pixels_and_stripes_outside_the_image():
    ids = np.zeros(SIZE, np.uint8)
    ids[:, 160:] = 1
    ids[:60] = 255  # ignored
    ids[200:] = 255
    outside = np.zeros(SIZE, bool)
    outside[200:] = True
    sheet = batches_sheet([crop(ids, outside)], [("", LABELS)], (), 255, "the first crop")
    pixels = pixels_by_color(sheet)
    assert pixels[PHOTO] == 240 * 320
    for color in LABELS.colors:
        assert 140 * 160 < pixels[color] < 140 * 160 + 500  # and its swatch in the legend
    assert 60 * 320 < pixels[NEUTRAL] < 60 * 320 + 500
    # Half of what is outside is gray, the other half as white as the paper.
    assert 0.4 * 40 * 320 < pixels[196, 202, 208] < 0.6 * 40 * 320 + 500


def test_the_legend_has_the_classes_that_occur(sheets):
    batches_sheet([crop(np.zeros(SIZE, np.uint8))], [("", LABELS)], (), 255, "")
    assert [sheet["legend"] for sheet in sheets] == [{"sky": LABELS.colors[0]}]


def test_two_heads_have_columns_and_a_legend_of_their_own(sheets):
    """They share one ignored id, which is none of the second table's."""
    first, second = np.zeros(SIZE, np.uint8), np.ones(SIZE, np.uint8)
    second[:100] = 255
    tables = [("kinds", LABELS), ("distance", OTHER)]
    wrong = np.ones_like(first)
    images = [ValidationImage("a", photo(), [first, second], [wrong, wrong])]
    sheet = epoch_sheet(images, tables, 255, "epoch 1 of 2")
    pixels = pixels_by_color(sheet)
    assert pixels[PHOTO] == 240 * 320
    assert pixels[OTHER.colors[1]] > (140 + 240) * 320  # ground truth and prediction
    assert pixels[LABELS.colors[0]] > 240 * 320
    assert pixels[LABELS.colors[1]] > 240 * 320
    assert pixels[NEUTRAL] > 100 * 320
    assert list(sheets[0]["legend"]) == ["kinds: sky", "kinds: road", "distance: near", "(ignored)"]
    assert sheet.width > 5 * 320


def test_captions_have_the_share_of_labeled_pixels_that_are_right(sheets):
    truth = np.zeros((8, 10), np.uint8)
    truth[:4] = 255
    predicted = np.zeros((8, 10), np.uint8)
    predicted[4] = 1  # one of four labeled rows
    ignored = np.full((8, 10), 255, np.uint8)
    cases = (("a", truth), ("b", ignored))
    images = [ValidationImage(name, photo((8, 10)), [ids], [predicted]) for name, ids in cases]
    epoch_sheet(images, [("", LABELS)], 255, "")
    assert sheets[0]["captions"] == ["a: 75.0% right", "b"]


@pytest.mark.parametrize("size", [(2, 3), (640, 480), (40, 640), (640, 33)])
def test_a_sheet_of_six_images_of_any_shape_has_a_reasonable_size(size):
    ids = np.zeros(size, np.uint8)
    images = [ValidationImage("a name that is long " * 9, photo(size), [ids], [ids])] * 6
    sheet = epoch_sheet(images, [("", LABELS)], 255, "epoch 1 of 1: mean IoU 0.123 on val")
    assert 400 < sheet.width <= 2300
    assert sheet.height <= 1800
