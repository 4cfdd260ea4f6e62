from __future__ import annotations

import io
import json
import os
import re
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import damage
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image
from sound import png

from fullconv.core.errors import FullconvError
from fullconv.core.labels import Labels, voc_color
from fullconv.data.io import mask_values
from fullconv.data.io.images import image_size, read_image, read_reduced
from fullconv.data.io.mask_values import (
    are_colors,
    bands,
    describe,
    make_class_lookup,
    pack,
    unpack,
    value_counts,
)
from fullconv.data.io.masks import (
    MaskHistogram,
    count_values,
    mask_dtype,
    read_histogram,
    read_mask,
    read_values,
    write_mask,
)

IDS = np.array([[0, 1, 2], [2, 255, 0]], np.uint8)
ROAD = (128, 64, 128)
LABELS = Labels(("sky", "road", "car"))
MAPPED = Labels(("sky", "road", "car"), values={7: 255, 300: 2, (9, 9, 9): 1})
SIDES = st.tuples(st.integers(1, 30), st.integers(1, 30))
INTEGERS = arrays(np.uint8, SIDES) | arrays(np.uint16, SIDES) | arrays(np.int32, SIDES)
COLORS = arrays(np.uint8, st.tuples(st.integers(1, 20), st.integers(1, 20), st.just(3)),
                elements=st.sampled_from([0, 9, 128]))  # fmt: skip


def saved(values: np.ndarray | Image.Image, path: Path, **options: object) -> Path:
    image = Image.fromarray(values) if isinstance(values, np.ndarray) else values
    image.save(path, **options)
    return path


def palette_image(ids: np.ndarray) -> Image.Image:
    image = Image.fromarray(ids)
    image.putpalette([channel for i in range(256) for channel in voc_color(i)])
    return image


@pytest.fixture
def narrow_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mask_values, "_BAND", 64)


GRAY = Image.fromarray(IDS)
ALPHA = Image.new("L", GRAY.size, 9)


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("palette.png", palette_image(IDS)),  # not the brightness of its colors
        ("gray.png", GRAY),
        ("gray and alpha.png", Image.merge("LA", [GRAY, ALPHA])),
        ("16 bits.png", Image.fromarray(IDS.astype(np.uint16))),
        ("32 bits.tif", Image.fromarray(IDS.astype(np.int32))),
        ("rgb.png", Image.merge("RGB", [GRAY] * 3)),
        ("rgba.png", Image.merge("RGBA", [GRAY, GRAY, GRAY, ALPHA])),
        ("gray.bmp", GRAY),
    ],
)
def test_ids_are_read_from_images_of_any_mode(
    tmp_path: Path, name: str, image: Image.Image
) -> None:
    path = saved(image, tmp_path / name)
    assert read_values(path).tolist() == IDS.tolist()
    ids = read_mask(path, LABELS)
    assert (ids.dtype, ids.tolist()) == (np.uint8, IDS.tolist())


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_gray_of_few_bits_holds_its_samples_not_their_brightness(bits: int) -> None:
    samples = np.array([[0, 1, 2, 3]], np.uint8) % 2**bits
    assert read_values(io.BytesIO(png(samples, bits, 0))).tolist() == samples.tolist()


BYTES = np.array([[0, 11, 255]], np.uint8)
RGB = np.array([[(0, 0, 0), ROAD, (0, 0, 0)], [(0, 0, 0), (0, 0, 0), (1, 2, 3)]], np.uint8)
RGBA = np.dstack([RGB, np.full((2, 3), 9, np.uint8)])
COLORED = Labels(("sky", "road"), ((0, 0, 0), ROAD), values={(1, 2, 3): 255})
MANY = Labels(tuple(f"c{i}" for i in range(301)), ignore_index=65535)


@pytest.mark.parametrize(
    ("values", "labels", "expected"),
    [
        (BYTES, Labels(("a", "b"), values={11: 255}), [[0, 255, 255]]),
        (BYTES, Labels(("a", "b"), values={11: 0, 255: 1}), [[0, 0, 1]]),
        (np.array([[0, 300], [256, 65535]], np.uint16), MANY, [[0, 300], [256, 65535]]),
        (np.array([[70000, -1]], np.int32), Labels(("a",), values={70000: 0, -1: 255}), [[0, 255]]),
        (RGB, COLORED, [[0, 1, 0], [0, 0, 255]]),
        (RGBA, COLORED, [[0, 1, 0], [0, 0, 255]]),
    ],
)
def test_values_mean_the_classes_of_the_table(
    tmp_path: Path, values: np.ndarray, labels: Labels, expected: list[list[int]]
) -> None:
    path = saved(values, tmp_path / ("a.tif" if values.dtype == np.int32 else "a.png"))
    assert read_values(path).tolist() == (values[..., :3] if values.ndim == 3 else values).tolist()
    ids = read_mask(path, labels)
    assert (ids.dtype, ids.tolist()) == (mask_dtype(labels), expected)


@pytest.mark.parametrize(("name", "value"), [("a.tif", 65536), ("a.png", 256)])
def test_large_values_are_not_wrapped(tmp_path: Path, name: str, value: int) -> None:
    dtype = np.int32 if name == "a.tif" else np.uint16
    with pytest.raises(FullconvError, match=str(value)):
        read_mask(saved(np.array([[value, 0]], dtype), tmp_path / name), LABELS)


def test_gray_rgb_holds_colors_if_the_table_lists_them_else_ids(tmp_path: Path) -> None:
    path = saved(np.full((2, 2, 3), 128, np.uint8), tmp_path / "c.png")
    named = Labels(("sky", "road"), ((128,) * 3, ROAD), values={(128,) * 3: 0, ROAD: 1})
    for labels, class_id in ((named, 0), (Labels(("sky", "road"), values={128: 1}), 1)):
        assert read_mask(path, labels).tolist() == [[class_id] * 2] * 2
        assert count_values(path).classes(labels) == {128: class_id}


def test_a_value_without_a_class_is_an_error(tmp_path: Path) -> None:
    path = saved(np.array([[0, 1, 1], [7, 9, 7]], np.uint8), tmp_path / "a.png")
    with pytest.raises(FullconvError) as caught:
        read_mask(path, Labels(("sky", "road")))
    assert caught.value.message == (
        f"mask {path}: 3 of 6 pixels have a value without a class: 7 (2 pixels), 9 (1 pixel); "
        "the first is at row 1, column 0. Expected 0 sky, 1 road, 255 ignore."
    )
    assert caught.value.hint.endswith('\n[map]\n7 = "ignore"\n9 = "ignore"')
    rgb = np.zeros((2, 2, 3), np.uint8)
    rgb[1, 0] = (255, 16, 1)
    labels, message = Labels(("sky", "road"), values={ROAD: 1, (0, 0, 0): 0}), "#ff1001 (1 pixel)"
    with pytest.raises(FullconvError, match=re.escape(message) + ".* at row 1, column 0") as caught:
        read_mask(saved(rgb, path), labels)
    assert '"#ff1001" = "ignore"' in caught.value.hint
    assert "#804080 road" in caught.value.message
    text = describe(Labels(tuple(f"c{i}" for i in range(100))))
    assert text.endswith("29 c29 and 71 more")


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("a.png", None, r"mask .*a\.png cannot be read: the file is empty"),
        ("a.tif", np.zeros((2, 2), np.float32), "floating-point values"),
        ("a.npy", np.array([[0, 1 << 40]]), f"has values from 0 to {1 << 40}; expected class"),
        ("a.npy", np.zeros((0, 4), np.uint8), r"mask .*a\.npy has no pixels"),
    ],
)
def test_unreadable_masks_are_named(
    tmp_path: Path, name: str, values: np.ndarray | None, message: str
) -> None:
    if values is None:
        (tmp_path / name).touch()
    elif name.endswith(".npy"):
        np.save(tmp_path / name, values)
    else:
        saved(values, tmp_path / name)
    with pytest.raises(FullconvError, match=message):
        read_mask(tmp_path / name, LABELS)


def test_an_orientation_turns_the_mask_too(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = saved(palette_image(IDS), tmp_path / "a.png", exif=exif)
    assert read_mask(path, LABELS).tolist() == np.rot90(IDS, -1).tolist()
    assert count_values(path).size == (3, 2)


@pytest.mark.parametrize(
    ("name", "image_format", "options", "lossy"),
    [
        ("a.jpg", "JPEG", {}, True),
        ("a.png", "JPEG", {}, True),
        ("a.jpg", "PNG", {}, False),
        ("a.webp", "WEBP", {"lossless": True}, False),
        ("a.webp", "WEBP", {}, True),
    ],
)
def test_lossy_files_are_recognized_by_content(
    tmp_path: Path, name: str, image_format: str, options: dict[str, Any], lossy: bool
) -> None:
    GRAY.save(tmp_path / name, image_format, **options)
    assert count_values(tmp_path / name).lossy is lossy


def test_a_histogram_counts_values(tmp_path: Path) -> None:
    histogram = count_values(saved(palette_image(IDS), tmp_path / "p.png"))
    assert histogram.counts == {0: 2, 1: 1, 2: 2, 255: 1}
    rgb = np.zeros((2, 2, 3), np.uint8)
    rgb[0, 0] = ROAD
    histogram = count_values(saved(rgb, tmp_path / "c.png"))
    assert histogram == MaskHistogram((2, 2), {(0, 0, 0): 3, ROAD: 1})
    histogram = count_values(saved(np.array([[-5, 70000]], np.int32), tmp_path / "i.tif"))
    assert histogram.counts == {-5: 1, 70000: 1}


def test_a_histogram_lists_the_commonest_of_many_colors(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (120, 100, 3), np.uint8)
    noise[:30] = ROAD
    histogram = count_values(saved(noise, tmp_path / "a.png"))
    colors = len(np.unique(noise.reshape(-1, 3), axis=0))
    assert len(histogram.counts) == 4096
    assert histogram.more == colors - 4096 > 1000
    assert sum(histogram.counts.values()) + histogram.more_pixels == 12_000
    assert histogram.counts[ROAD] == 3000
    assert MaskHistogram.from_json(json.loads(json.dumps(histogram.to_json()))) == histogram


@settings(max_examples=40)
@given(st.integers(1, 400), st.data())
def test_masks_are_read_back_as_written(count: int, data: st.DataObject) -> None:
    ignore = 255 if count <= 255 else 65535
    labels = Labels(tuple(f"c{i}" for i in range(count)), ignore_index=ignore)
    shape = data.draw(array_shapes(min_dims=2, max_dims=2, max_side=7))
    values = st.one_of(st.integers(0, count - 1), st.just(ignore))
    ids = data.draw(arrays(np.int64, shape, elements=values))
    with tempfile.TemporaryDirectory() as folder:
        write_mask(Path(folder) / "a.png", ids, labels)
        mask = read_mask(Path(folder) / "a.png", labels)
        assert (mask.dtype, mask.tolist()) == (mask_dtype(labels), ids.tolist())
        assert os.listdir(folder) == ["a.png"]


def test_masks_have_the_colors_of_the_table(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "a.png"
    write_mask(path, np.array([[0, 1, 255]]), Labels(("sky", "road"), ((9, 8, 7), ROAD)))
    with Image.open(path) as image:
        assert image.mode == "P"
        colors = np.array(image.convert("RGB"))[0].tolist()
    assert colors == [[9, 8, 7], [128, 64, 128], [224, 224, 192]]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.png"
    write_mask(path, IDS, LABELS)
    before = path.read_bytes()

    def fail(self: Image.Image, file: io.BytesIO, **_: object) -> None:
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        write_mask(path, IDS, LABELS)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.png"]


@pytest.mark.parametrize(
    ("name", "ids", "labels", "message"),
    [
        ("a.jpg", IDS, LABELS, "written as PNG, not as 'a.jpg'"),
        ("a.png", IDS.astype(float), LABELS, "float64; expected"),
        ("a.png", IDS[None], LABELS, r"shape \(1, 2, 3\)"),
        ("a.png", IDS + 1, LABELS, r"ids \[3\] cannot be written .*3 classes \(0..2\)"),
        ("a.png", -IDS.astype(int), LABELS, r"ids \[-255, -2, -1\]"),
        ("a.png", IDS, Labels(("a", "b", "c"), ignore_index=-100), "-100 with 3 classes does not"),
    ],
)
def test_other_arrays_are_not_written(
    tmp_path: Path, name: str, ids: np.ndarray, labels: Labels, message: str
) -> None:
    with pytest.raises(FullconvError, match=message):
        write_mask(tmp_path / name, ids, labels)
    assert not os.listdir(tmp_path)


def outcomes(path: Path, is_array: bool) -> list[str]:
    """Return "read" or the hint of its error for each reader."""
    readers = [count_values, partial(read_mask, labels=Labels(tuple("abcdefgh")))]
    if not is_array:
        readers += [read_image, image_size, partial(read_reduced, shortest=32)]
    results = []
    for read in readers:
        try:
            read(path)
            results.append("read")
        except FullconvError as error:
            results.append(error.hint)
    return results


def test_headers_that_claim_too_much_are_refused(tmp_path: Path) -> None:
    for file in damage.promises():
        if "_large." in file.name or "_half." in file.name:  # really large: seconds to read
            continue
        path = tmp_path / file.name
        path.write_bytes(file.content)
        assert all(outcomes(path, file.is_array)), file.name


@pytest.mark.parametrize("seed", range(4))
def test_damaged_files_are_read_or_refused(tmp_path: Path, seed: int) -> None:
    results = []
    for file in list(damage.files(420, seed=seed))[120::2]:
        path = tmp_path / file.name
        path.write_bytes(file.content)
        results += outcomes(path, file.is_array)
    assert all(results)
    assert 20 < results.count("read") < len(results) - 100


def test_bands_cover_every_row_once(narrow_bands: None) -> None:
    for shape in ((1, 1), (7, 300), (100, 3), (64, 64)):
        rows = np.zeros(shape[0], int)
        for band in bands(np.zeros(shape)):
            rows[band] += 1
        assert (rows == 1).all()


@pytest.mark.usefixtures("narrow_bands")
class TestBands:
    @given(INTEGERS)
    def test_integers_are_counted_as_numpy_counts_them(self, grid: np.ndarray) -> None:
        present, counts = value_counts(grid)
        expected, expected_counts = np.unique(grid, return_counts=True)
        np.testing.assert_array_equal(present, expected)
        np.testing.assert_array_equal(counts, expected_counts)

    @given(INTEGERS | COLORS)
    def test_the_class_of_every_value(self, grid: np.ndarray) -> None:
        values = grid.ravel() if grid.ndim == 2 else map(tuple, grid.reshape(-1, 3).tolist())
        expected = [MAPPED.class_of(v if isinstance(v, tuple) else int(v)) for v in values]
        class_ids = make_class_lookup(grid, MAPPED)(grid)
        assert class_ids.ravel().tolist() == [-1 if k is None else k for k in expected]

    @pytest.mark.parametrize("limit", [1 << 16, 10])
    @pytest.mark.parametrize("top", [2, 256])
    def test_colors_are_counted_as_numpy_counts_them(
        self, monkeypatch: pytest.MonkeyPatch, limit: int, top: int
    ) -> None:
        monkeypatch.setattr(mask_values, "_MAX_VALUES", limit)
        grid = np.random.default_rng(0).integers(0, top, (40, 30, 3)).astype(np.uint8)
        present, counts = value_counts(grid)
        expected, expected_counts = np.unique(grid.reshape(-1, 3), axis=0, return_counts=True)
        np.testing.assert_array_equal(unpack(present), expected)
        np.testing.assert_array_equal(counts, expected_counts)

    def test_too_many_integers_are_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(mask_values, "_MAX_VALUES", 100)
        heights = np.arange(-500, 500, dtype=np.int32).reshape(20, 50)
        message = r"mask a\.tif has more than 100 different .*expected class ids"
        with pytest.raises(FullconvError, match=message) as caught:
            value_counts(heights, "a.tif")
        assert caught.value.hint.startswith("save the class ids as 8-bit PNG")


def test_grays_of_a_color_file_are_colors_if_the_table_lists_them_all() -> None:
    grays = np.array([[9, 9]], np.uint8)
    assert make_class_lookup(grays, MAPPED, gray_rgb=True)(grays).tolist() == [[1, 1]]
    assert make_class_lookup(grays, MAPPED)(grays).tolist() == [[-1, -1]]
    assert are_colors([9], MAPPED)
    assert not are_colors([9, 0], MAPPED)


@given(COLORS)
def test_colors_are_packed_and_unpacked(colors: np.ndarray) -> None:
    np.testing.assert_array_equal(unpack(pack(colors)), colors)
    red, green, blue = colors[0, 0].tolist()
    assert pack(colors)[0, 0] == int(f"{red:02x}{green:02x}{blue:02x}", 16)


# Palettes and class tables that list colors.


def indexed(path: Path, indices: Any, colors: list[tuple[int, int, int]]) -> Path:
    image = Image.fromarray(np.asarray(indices, np.uint8))
    image.putpalette([channel for color in colors for channel in color])
    image.save(path)
    return path


BLACK, RED, BLUE = (0, 0, 0), (250, 50, 83), (51, 221, 255)
BY_COLOR = Labels(("bg", "disc", "bar"), (BLACK, RED, BLUE), values={BLACK: 0, RED: 1, BLUE: 2})


@pytest.mark.parametrize(
    ("colors", "expected"),
    [
        ([BLACK, RED, BLUE], [[0, 1, 2]]),
        ([BLUE, RED, BLACK], [[2, 1, 0]]),
        ([RED, BLACK, BLUE], [[1, 0, 2]]),
        ([BLACK, (1, 1, 1), (2, 2, 2)], [[0, 1, 2]]),  # a palette of other colors: ids
    ],
)
@pytest.mark.parametrize("suffix", [".png", ".gif", ".tif"])
def test_a_palette_in_any_order(
    tmp_path: Path, suffix: str, colors: list[tuple[int, int, int]], expected: list[list[int]]
) -> None:
    path = indexed(tmp_path / f"a{suffix}", [[0, 1, 2]], colors)
    assert read_mask(path, BY_COLOR).tolist() == expected
    # A table without colors goes by the indices, and the histogram agrees in both cases.
    assert read_mask(path, Labels(("bg", "disc", "bar"))).tolist() == [[0, 1, 2]]
    histogram = MaskHistogram.from_json(json.loads(json.dumps(count_values(path).to_json())))
    assert histogram is not None
    classes = histogram.in_colors(BY_COLOR).classes(BY_COLOR)
    assert sorted(classes.values()) == [0, 1, 2]
    assert read_histogram(path, BY_COLOR)[0].counts == histogram.in_colors(BY_COLOR).counts


def test_black_alone_goes_by_color_if_the_table_lists_it(tmp_path: Path) -> None:
    last = Labels(("disc", "bar", "bg"), (RED, BLUE, BLACK), values={RED: 0, BLUE: 1, BLACK: 2})
    path = indexed(tmp_path / "a.png", [[0, 0]], [BLACK, RED, BLUE])
    assert read_mask(path, last).tolist() == [[2, 2]]


def test_a_palette_color_that_the_table_lacks_has_no_class(tmp_path: Path) -> None:
    path = indexed(tmp_path / "a.png", [[0, 1, 2]], [RED, BLACK, (9, 9, 9)])
    with pytest.raises(FullconvError, match="#090909"):
        read_mask(path, BY_COLOR)
    unused = indexed(tmp_path / "b.png", [[0, 1, 1]], [RED, BLACK, (9, 9, 9)])
    assert read_mask(unused, BY_COLOR).tolist() == [[1, 0, 0]]


@pytest.mark.parametrize(
    ("sizes", "count"), [(((9, 7), (9, 7)), 2), (((9, 7),) * 3, 3), (((9, 7), (4, 3)), 0)]
)
def test_pages_of_a_tiff(tmp_path: Path, sizes: tuple[tuple[int, int], ...], count: int) -> None:
    first, *others = (Image.new("L", size, 1) for size in sizes)
    path = tmp_path / "a.tif"
    first.save(path, save_all=True, append_images=others)
    if count:
        with pytest.raises(FullconvError, match=f"has {count} pages; expected one"):
            read_values(path)
    else:  # a smaller copy, as geographic files have them
        assert read_values(path).shape == (7, 9)


@pytest.mark.parametrize("suffix", [".gif", ".png"])
def test_an_animation_is_no_mask(tmp_path: Path, suffix: str) -> None:
    first, second = (Image.new("L", (9, 7), value) for value in (50, 150))
    path = tmp_path / f"a{suffix}"
    first.save(path, save_all=True, append_images=[second])
    with pytest.raises(FullconvError, match="has 2 pages"):
        read_values(path)
