from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from fullconv.core.errors import FullconvError
from fullconv.core.labels import Labels
from fullconv.data.layouts.class_table import CAMVID, VOC
from fullconv.visualization import contact_sheet
from fullconv.visualization import legend as draw_legend
from fullconv.visualization import overlay as draw

LABELS = Labels(
    ("sky", "road", "person"), ((10, 20, 30), (200, 100, 50), (5, 250, 125)), ignore_index=255
)
IDS = np.array([[0, 0, 1, 1], [0, 0, 1, 255], [1, 1, 1, 255]], dtype=np.uint8)


def photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def texts(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Every text that is drawn, in order."""
    monkeypatch.setattr(draw_legend, "_KEPT_SIZE", 0)  # each is written anew
    written: list[str] = []
    plain = ImageDraw.ImageDraw.text

    def text(self: Any, xy: Any, text: str, *args: Any, **more: Any) -> None:
        written.append(text)
        plain(self, xy, text, *args, **more)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", text)
    return written


def defined(image: np.ndarray, ids: np.ndarray, labels: Labels, bare: set[int]) -> np.ndarray:
    """The overlay, pixel by pixel: at half strength, with an outline of one pixel. `bare`: the
    classes without a colour."""
    (height, width), none = ids.shape, {*bare, labels.ignore_index}
    shown = image.copy()

    def around(y: int, x: int, ways: list[tuple[int, int]]) -> list[int]:
        places = [(y + dy, x + dx) for dy, dx in ways]
        return [int(ids[i, j]) for i, j in places if 0 <= i < height and 0 <= j < width]

    for y, x in np.ndindex(height, width):
        own = int(ids[y, x])
        if own in none:
            continue
        sides = around(y, x, [(1, 0), (0, 1), (-1, 0), (0, -1)])
        border = any(other != own for other in around(y, x, [(1, 0), (0, 1)]))
        strength = 1.0 if border or any(other in bare for other in sides) else 0.5
        mixed = (1 - strength) * image[y, x].astype(np.float64)
        shown[y, x] = np.floor(mixed + strength * np.array(labels.colors[own], np.float64) + 0.5)
    return shown


def has(image: np.ndarray, color: tuple[int, int, int]) -> bool:
    return bool((np.asarray(image) == color).all(axis=-1).any())


def test_colorize_gives_each_class_its_colour() -> None:
    shown = draw.colorize(IDS, LABELS)
    assert shown.dtype == np.uint8
    for y, x in np.ndindex(IDS.shape):
        expected = (224, 224, 192) if IDS[y, x] == 255 else LABELS.colors[IDS[y, x]]
        assert tuple(shown[y, x]) == expected


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int64, np.uint16])
def test_colorize_takes_any_integers_and_any_ignore_index(dtype: type) -> None:
    ignore = 300 if dtype is np.uint16 else -1 if dtype is not np.uint8 else 9
    labels = Labels(("a", "b"), ignore_index=ignore)
    shown = draw.colorize(np.array([[1, ignore]], dtype=dtype), labels)
    assert shown.tolist() == [[list(labels.colors[1]), [224, 224, 192]]]


def test_colorize_with_more_than_256_classes() -> None:
    labels = Labels(tuple(f"c{i}" for i in range(300)), ignore_index=65535)
    assert draw.colorize(np.array([[7]], dtype=np.uint8), labels)[0, 0].tolist() == [
        *labels.colors[7]
    ]


def test_overlay_blends_exactly_as_said() -> None:
    image = photo(3, 4)
    shown = draw.overlay(image, IDS, LABELS, outline=False)
    for y, x, c in np.ndindex(3, 4, 3):
        value = int(image[y, x, c])
        if IDS[y, x] != 255:
            value = math.floor((value + LABELS.colors[IDS[y, x]][c]) / 2 + 0.5)
        assert shown[y, x, c] == value


def test_overlay_outlines_the_border_in_the_full_colour() -> None:
    image = photo(3, 4)
    plain = draw.overlay(image, IDS, LABELS, outline=False)
    lined = draw.overlay(image, IDS, LABELS)
    border = {(0, 1), (1, 0), (1, 1), (0, 3), (1, 2), (2, 2)}
    for y, x in np.ndindex(3, 4):
        if (y, x) in border:
            assert tuple(lined[y, x]) == LABELS.colors[IDS[y, x]]
        else:
            assert (lined[y, x] == plain[y, x]).all()
    assert (lined[1:, 3] == image[1:, 3]).all()  # ignored: as photographed


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 99), st.sampled_from([0, 2, 255]))
def test_overlay_is_what_is_defined(height: int, width: int, seed: int, common: int) -> None:
    """With a black background; `common`: what the rest is full of."""
    colors = ((0, 0, 0), (128, 0, 0), (5, 250, 125), (0, 0, 0))
    labels = Labels(("background", "crack", "leaf", "hole"), colors)
    rng = np.random.default_rng(seed)
    ids = rng.choice(np.array([0, 1, 2, 3, 255], np.uint8), (height, width))
    ids[rng.random((height, width)) < 0.6] = common
    image = photo(height, width, seed)
    assert (draw.overlay(image, ids, labels) == defined(image, ids, labels, {0})).all()


@pytest.mark.parametrize("name", ["background", "_background_", "__background__", "Background"])
def test_a_black_background_stays_as_photographed(name: str) -> None:
    ids = np.zeros((7, 9), dtype=np.int64)
    ids[3, 2:7] = 1  # one pixel thin
    image, labels = photo(7, 9), Labels((name, "crack"))
    for outline in (False, True):
        shown = draw.overlay(image, ids, labels, outline=outline)
        assert (shown[ids == 0] == image[ids == 0]).all()
        assert (shown[ids == 1] != image[ids == 1]).any()
    assert (shown[ids == 1] == labels.colors[1]).all()  # all of it is outline


@pytest.mark.parametrize(
    ("name", "color"),
    [("background", (0, 0, 1)), ("background", (255, 255, 255)), ("sky", (0,) * 3)],
)
def test_any_other_class_is_painted(name: str, color: tuple[int, int, int]) -> None:
    ids = np.zeros((6, 8), dtype=np.uint8)
    ids[2:4, 3:6] = 1
    labels = Labels((name, "crack"), (color, (128, 0, 0)))
    shown = draw.overlay(photo(6, 8), ids, labels)
    assert (shown == defined(photo(6, 8), ids, labels, set())).all()
    assert (shown[0, 0] == (photo(6, 8)[0, 0] + np.array(color) + 1) // 2).all()


def test_the_outline_beside_the_background_is_closed_and_grows_with_the_image() -> None:
    ids = np.zeros((1000, 1000), dtype=np.uint8)
    ids[300:320, 400:440] = 1
    shown = draw.overlay(np.full((1000, 1000, 3), 200, np.uint8), ids, Labels(("background", "a")))
    full = (shown == (128, 0, 0)).all(axis=2)
    wanted = ids == 1
    wanted[302:318, 402:438] = False
    assert np.array_equal(full, wanted)
    assert (shown[ids == 0] == 200).all()


def test_streets_of_camvid_have_no_background(shared: Any) -> None:
    """Every class is painted there, and the outline is above and left of a border alone."""
    root = shared / "data/camvid"
    image = np.asarray(Image.open(root / "test/0001TP_008550.jpg").convert("RGB"))[180:260, 100:220]
    mask = np.asarray(Image.open(root / "testannot/0001TP_008550.png"))[180:260, 100:220]
    ids = np.where(mask == 11, 255, mask)
    assert len(np.unique(ids)) > 5
    assert (ids == 255).any()
    assert (draw.overlay(image, ids, CAMVID) == defined(image, ids, CAMVID, set())).all()
    assert CAMVID.transparent_ids == ()
    assert VOC.transparent_ids == (0,)


def test_the_outline_grows_with_the_image() -> None:
    ids = np.zeros((1000, 1200), dtype=np.uint8)
    ids[:, 600:] = 1
    shown = draw.overlay(np.zeros((1000, 1200, 3), np.uint8), ids, LABELS)
    full = (shown[0] == LABELS.colors[0]).all(axis=-1)
    assert np.flatnonzero(full).tolist() == [598, 599]


def test_inputs_stay_untouched() -> None:
    image, ids = photo(3, 4), IDS.copy()
    kept = image.copy()
    draw.overlay(image, ids, LABELS)
    draw.overlay_with_legend(image, ids, LABELS)
    draw.error_map(ids, ids, 255, image=image)
    assert (image == kept).all()
    assert (ids == IDS).all()


def test_area_counts_all_pixels_largest_first() -> None:
    assert list(draw.area(IDS, LABELS).items()) == [
        ("road", 0.5),
        ("sky", 1 / 3),
        ("ignore", 1 / 6),
    ]


def test_the_legend_shows_the_present_classes_with_their_shares(texts: list[str]) -> None:
    strip = draw.legend(LABELS, IDS, width=400)
    assert texts == ["road", "50.0 %", "sky", "33.3 %", "ignore", "16.7 %"]
    assert strip.shape[1:] == (400, 3)
    assert has(strip, LABELS.colors[0])
    assert has(strip, LABELS.colors[1])
    assert has(strip, draw.NEUTRAL)
    assert not has(strip, LABELS.colors[2])


def test_over_a_photo_what_is_not_painted_has_an_empty_swatch(texts: list[str]) -> None:
    labels = Labels(("background", "crack"))
    ids = np.array([[0, 0, 1, 255]], dtype=np.uint8)
    plain, over = draw.legend(labels, ids), draw.legend(labels, ids, over_photo=True)
    assert texts[:6] == texts[6:] == ["background", "50.0 %", "crack", "25.0 %", "ignore", "25.0 %"]
    for color in ((0, 0, 0), draw.NEUTRAL):
        assert has(plain, color)
        assert not has(over, color)
    assert has(over, labels.colors[1])
    assert draw.shown_over_photo(labels) == {
        "background": None,
        "crack": (128, 0, 0),
        "ignore": None,
    }
    below = draw.overlay_with_legend(photo(300, 400), np.zeros((300, 400), np.uint8), labels)[300:]
    assert texts[-2:] == ["background", "100.0 %"]
    assert not has(below, (0, 0, 0))


def test_the_legend_without_ids_shows_all_classes_in_order(texts: list[str]) -> None:
    strip = draw.legend(LABELS)
    assert texts == ["sky", "road", "person"]
    assert all(has(strip, color) for color in LABELS.colors)
    assert not has(strip, draw.NEUTRAL)


def test_a_trace_of_a_class_is_not_shown_as_nothing(texts: list[str]) -> None:
    ids = np.zeros((100, 100), dtype=np.uint8)
    ids[0, 0] = 2
    draw.legend(LABELS, ids)
    assert texts == ["sky", "100.0 %", "person", "< 0.1 %"]


def test_the_legend_wraps_and_cuts_no_name() -> None:
    names = tuple(f"a rather long class name {i}" for i in range(6))
    labels = Labels(names, tuple((i * 40, 80, 255 - i * 40) for i in range(6)))
    wide, narrow, tiny = (draw.legend(labels, width=w) for w in (3000, 500, 10))
    assert wide.shape[0] < narrow.shape[0] < tiny.shape[0]
    assert tiny.shape[1] > 10  # never narrower than its longest entry
    assert (tiny[:, -1] == 255).all()  # and no letter is cut at its edge
    for strip in (wide, narrow, tiny):
        assert all(has(strip, color) for color in labels.colors)


@pytest.mark.parametrize(("height", "width"), [(3, 4), (50, 300), (700, 900), (301, 77)])
def test_overlay_with_legend_stands_on_a_readable_legend(
    height: int, width: int, texts: list[str]
) -> None:
    image, ids = photo(height, width), np.zeros((height, width), dtype=np.uint8)
    ids[:, width // 2 :] = 2
    shown = draw.overlay_with_legend(image, ids, LABELS)
    factor = math.ceil(240 / width)
    assert shown.shape[1] == width * factor
    assert shown.shape[0] >= height * factor + 15
    top = draw.overlay(image, ids, LABELS).repeat(factor, 0).repeat(factor, 1)
    assert (shown[: height * factor] == top).all()
    assert {"sky", "person"} <= set(texts)
    assert (shown[height * factor :] < 120).any()  # letters


def test_error_map_paints_right_wrong_and_ignored() -> None:
    truth = np.array([[0, 1, 255, 255]], dtype=np.uint8)
    prediction = np.array([[0, 2, 1, 255]], dtype=np.int64)
    shown = draw.error_map(truth, prediction, 255)
    assert [tuple(pixel) for pixel in shown[0]] == [
        draw.RIGHT,
        draw.WRONG,
        draw.IGNORED,
        draw.IGNORED,
    ]


def test_error_map_dims_the_image_where_right() -> None:
    image = np.array([[[200, 200, 200], [80, 80, 80], [9, 9, 9]]], dtype=np.uint8)
    shown = draw.error_map(np.array([[0, 1, 1]]), np.array([[0, 1, 0]]), 255, image=image)
    assert shown[0].tolist() == [[90, 90, 90], [36, 36, 36], [*draw.WRONG]]


def test_grid_lays_out_columns_titles_captions_and_legend(texts: list[str]) -> None:
    image = np.full((30, 40, 3), (90, 10, 200), dtype=np.uint8)
    ids = np.zeros((30, 40), dtype=np.uint8)
    ids[:, 20:] = 1
    sheet = contact_sheet.contact_sheet(
        [[image, ids], [image, ids]], ["photo", "truth"], ["a", "b"], labels=LABELS
    )
    assert sorted(texts) == sorted(["photo", "truth", "a", "b", "sky", "road", "person"])
    assert isinstance(sheet, Image.Image)
    pixels = np.asarray(sheet)
    # a 40 pixel image is enlarged by 6 to 240; each of the two rows shows it whole
    assert (pixels == (90, 10, 200)).all(axis=-1).sum() == 2 * 240 * 180
    assert (pixels == LABELS.colors[1]).all(axis=-1).sum() >= 2 * 120 * 180
    for edge in (pixels[:6], pixels[-6:], pixels[:, :6], pixels[:, -6:]):
        assert (edge == 255).all()


def test_grid_shows_ignore_in_its_legend_only_where_there_is_some(texts: list[str]) -> None:
    contact_sheet.contact_sheet([[IDS]], ["truth"], labels=LABELS)
    assert sorted(texts) == sorted(["truth", "sky", "road", "person", "ignore"])


def test_grid_scales_maps_without_inventing_colours_and_photos_smoothly() -> None:
    ids = np.random.default_rng(0).integers(0, 3, (700, 1000)).astype(np.uint8)
    sheet = np.asarray(contact_sheet.contact_sheet([[ids]], ["ids"], labels=LABELS))
    known = {*LABELS.colors, (255, 255, 255)}
    middle = sheet[120:300, 60:400].reshape(-1, 3)
    assert {tuple(pixel) for pixel in np.unique(middle, axis=0).tolist()} <= known
    noise = photo(700, 1000)
    sheet = np.asarray(contact_sheet.contact_sheet([[noise]], ["photo"]))
    assert sheet[120:300, 60:400].std() < 0.8 * noise.std()  # averaged, not picked


def test_grid_keeps_narrow_and_mixed_images_apart() -> None:
    tall = np.full((90, 30, 3), (1, 2, 3), dtype=np.uint8)
    wide = np.full((20, 60, 3), (200, 2, 3), dtype=np.uint8)
    sheet = np.asarray(
        contact_sheet.contact_sheet(
            [[tall, wide]], ["a very long title of a column", "b"], cell=120
        )
    )
    assert (sheet == (1, 2, 3)).all(axis=-1).sum() == 120 * 360
    assert (sheet == (200, 2, 3)).all(axis=-1).sum() == 120 * 40


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: draw.colorize(IDS[None], LABELS), r"the ids of shape \(1, 3, 4\)"),
        (lambda: draw.colorize(IDS.astype(float), LABELS), r"float64; expected \(H, W\) integers"),
        (lambda: draw.colorize(IDS + 3, LABELS), r"ids 3, 4 belong to no class.*0\.\.2 or 255"),
        (lambda: draw.colorize(np.array([[-7]]), LABELS), r"ids -7 belong"),
        (
            lambda: draw.colorize(np.arange(20)[None], LABELS),
            r"ids 3, 4, 5, 6, 7, 8, 9, 10, \.\.\. belong",
        ),
        (
            lambda: draw.overlay(photo(4, 4), IDS, LABELS),
            r"image of 4 x 4 pixels and the ids of 3 x 4",
        ),
        (lambda: draw.overlay(photo(3, 4)[..., :1], IDS, LABELS), r"shape \(3, 4, 1\).*uint8 RGB"),
        (lambda: draw.overlay(photo(3, 4) / 255, IDS, LABELS), r"type float64; expected"),
        (lambda: draw.error_map(IDS, IDS.T), r"truth of 3 x 4 pixels and the prediction of 4 x 3"),
        (
            lambda: draw.error_map(IDS, IDS / 2),
            r"the prediction of shape \(3, 4\) and type float64",
        ),
        (
            lambda: draw.error_map(IDS, IDS, image=photo(1, 4)),
            r"image of 1 x 4 pixels and the tr",
        ),
        (lambda: draw.legend(LABELS, width=0), r"legend 0 pixels wide"),
        (
            lambda: contact_sheet.contact_sheet([], ["a"]),
            r"0 rows? .*nothing to draw|0 row\(s\).*nothing to draw",
        ),
        (
            lambda: contact_sheet.contact_sheet([[photo(3, 3)]], ["a", "b"]),
            r"row 0 has 1 image\(s\).*2 titles: a, b",
        ),
        (
            lambda: contact_sheet.contact_sheet([[photo(3, 3)]], ["a"], ["x", "y"]),
            r"2 caption\(s\) for 1 row",
        ),
        (lambda: contact_sheet.contact_sheet([[IDS]], ["a"]), r"needs the class table"),
        (
            lambda: contact_sheet.contact_sheet([[photo(3, 3)]], ["a"], cell=0),
            r"column 0 pixels wide",
        ),
    ],
)
def test_mistakes_are_explained(call: Any, message: str) -> None:
    with pytest.raises(FullconvError, match=message):
        call()


def test_importing_it_does_not_import_torch_or_matplotlib() -> None:
    code = "import sys, fullconv.visualization.overlay; print([m for m in ('torch', 'matplotlib') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
