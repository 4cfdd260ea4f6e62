from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import damage
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from fullconv.core.errors import FullconvError
from fullconv.core.labels import Labels, voc_color
from fullconv.data.io.images import image_size, read_image, read_reduced
from fullconv.data.io.masks import (
    MaskHistogram,
    count_values,
    describe,
    is_lossy,
    mask_dtype,
    read_mask,
    read_values,
    write_mask,
)

IDS = np.array([[0, 1, 2], [2, 255, 0]], np.uint8)
LABELS = Labels(("sky", "road", "car"))
ROAD = (128, 64, 128)


def saved(values: np.ndarray | Image.Image, path: Path, **options: object) -> Path:
    image = Image.fromarray(values) if isinstance(values, np.ndarray) else values
    image.save(path, **options)
    return path


def palette_image(ids: np.ndarray) -> Image.Image:
    image = Image.fromarray(ids)
    image.putpalette([channel for i in range(256) for channel in voc_color(i)])
    return image


def test_ids_are_read_from_every_kind_of_file(tmp_path: Path) -> None:
    wide = IDS.astype(np.uint16)
    grey = Image.fromarray(IDS)
    cases = {
        "p.png": palette_image(IDS),  # convert("L") would give the brightness of its colours
        "l.png": grey,
        "la.png": Image.merge("LA", [grey, Image.new("L", grey.size, 9)]),
        "i16.png": Image.fromarray(wide),
        "i.tif": Image.fromarray(IDS.astype(np.int32)),
        "rgb.png": Image.merge("RGB", [grey] * 3),
        "rgba.png": Image.merge("RGBA", [*[grey] * 3, Image.new("L", grey.size, 9)]),
        "l.bmp": grey,
    }
    for name, image in cases.items():
        path = saved(image, tmp_path / name)
        assert read_values(path).tolist() == IDS.tolist(), name
        ids = read_mask(path, LABELS)
        assert ids.dtype == np.uint8, name
        assert ids.tolist() == IDS.tolist(), name


def test_one_bit_masks_hold_0_and_1(tmp_path: Path) -> None:
    path = saved(IDS == 1, tmp_path / "a.png")
    assert read_values(path).tolist() == [[0, 1, 0], [0, 0, 0]]


@pytest.mark.parametrize("bits", [2, 4])
def test_few_bit_grey_holds_its_samples_not_their_brightness(tmp_path: Path, bits: int) -> None:
    import struct
    import zlib

    samples = [0, 1, 2, 3]
    packed = bytes([0b00011011]) if bits == 2 else bytes([0x01, 0x23])

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", 4, 1, bits, 0, 0, 0, 0)
    path = tmp_path / "a.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" + packed))
        + chunk(b"IEND", b"")
    )
    assert read_values(path).tolist() == [samples]


def test_large_ids_survive(tmp_path: Path) -> None:
    wide = np.array([[0, 300], [256, 65535]], np.uint16)
    path = saved(wide, tmp_path / "a.png")
    assert read_values(path).tolist() == wide.tolist()
    labels = Labels(tuple(f"c{i}" for i in range(301)), ignore_index=65535)
    ids = read_mask(path, labels)
    assert ids.dtype == np.uint16
    assert ids.tolist() == wide.tolist()
    path = saved(np.array([[70000, -1]], np.int32), tmp_path / "b.tif")
    assert read_mask(path, Labels(("a",), values={70000: 0, -1: 255})).tolist() == [[0, 255]]


def test_colors_mean_their_classes(tmp_path: Path) -> None:
    rgb = np.zeros((2, 3, 3), np.uint8)
    rgb[0, 1] = ROAD
    rgb[1, 2] = (1, 2, 3)
    alpha = np.full((2, 3, 1), 9, np.uint8)
    labels = Labels(("sky", "road"), ((0, 0, 0), ROAD), values={(1, 2, 3): 255})
    for name, pixels in (("rgb", rgb), ("rgba", np.dstack([rgb, alpha]))):
        path = saved(pixels, tmp_path / f"{name}.png")
        assert read_values(path).tolist() == rgb.tolist()
        assert read_mask(path, labels).tolist() == [[0, 1, 0], [0, 0, 255]]


def test_a_grey_image_in_a_colour_set_is_colours(tmp_path: Path) -> None:
    path = saved(np.full((2, 2, 3), 128, np.uint8), tmp_path / "a.png")
    values = {(128, 128, 128): 0, ROAD: 1}
    named = Labels(("sky", "road"), ((128, 128, 128), ROAD), values=values)
    assert read_mask(path, named).tolist() == [[0, 0], [0, 0]]
    assert count_values(path).classes(named) == {128: 0}
    ids = Labels(("sky", "road"), values={128: 1})  # here 128 is an id
    assert read_mask(path, ids).tolist() == [[1, 1], [1, 1]]
    assert count_values(path).classes(ids) == {128: 1}


def test_listed_values_are_mapped(tmp_path: Path) -> None:
    path = saved(np.array([[0, 11, 255]], np.uint8), tmp_path / "a.png")
    assert read_mask(path, Labels(("a", "b"), values={11: 255})).tolist() == [[0, 255, 255]]
    assert read_mask(path, Labels(("a", "b"), values={11: 0, 255: 1})).tolist() == [[0, 0, 1]]


def test_a_value_without_class_is_named_with_its_remedy(tmp_path: Path) -> None:
    path = saved(np.array([[0, 1, 1], [7, 9, 7]], np.uint8), tmp_path / "a.png")
    with pytest.raises(FullconvError) as caught:
        read_mask(path, Labels(("sky", "road")))
    assert caught.value.message == (
        f"mask {path}: 3 of 6 pixels have a value without a class: 7 (2 pixels), 9 (1 pixel); "
        "the first is at row 1, column 0. Expected 0 sky, 1 road, 255 ignore."
    )
    assert caught.value.hint.endswith('\n[map]\n7 = "ignore"\n9 = "ignore"')


def test_a_color_without_class_is_named_with_its_remedy(tmp_path: Path) -> None:
    rgb = np.zeros((2, 2, 3), np.uint8)
    rgb[1, 0] = (255, 16, 1)
    path = saved(rgb, tmp_path / "a.png")
    with pytest.raises(
        FullconvError, match=r"#ff1001 \(1 pixel\); the first is at row 1, c.* 0"
    ) as e:
        read_mask(path, Labels(("sky", "road"), values={ROAD: 1, (0, 0, 0): 0}))
    assert '"#ff1001" = "ignore"' in e.value.hint
    assert "#804080 road" in e.value.message


def test_numbers_that_fit_no_table_are_unknown_not_wrapped(tmp_path: Path) -> None:
    path = saved(np.array([[65536, 0]], np.int32), tmp_path / "a.tif")
    with pytest.raises(FullconvError, match="65536"):
        read_mask(path, LABELS)
    path = saved(np.array([[256, 0]], np.uint16), tmp_path / "a.png")
    with pytest.raises(FullconvError, match="256"):
        read_mask(path, LABELS)


def test_unreadable_masks_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    with pytest.raises(FullconvError, match=r"mask .*a\.png cannot be read: the file is empty"):
        read_mask(tmp_path / "a.png", LABELS)
    with pytest.raises(FullconvError, match="floating-point values"):
        read_values(saved(np.zeros((2, 2), np.float32), tmp_path / "a.tif"))


def test_an_orientation_turns_the_mask_too(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = saved(palette_image(IDS), tmp_path / "a.png", exif=exif)
    assert read_mask(path, LABELS).tolist() == np.rot90(IDS, -1).tolist()
    assert count_values(path).size == (3, 2)


def test_lossy_is_told_by_content_not_by_name(tmp_path: Path) -> None:
    image = Image.fromarray(IDS)
    cases = [("a.jpg", "JPEG", {}, True), ("b.png", "JPEG", {}, True), ("c.jpg", "PNG", {}, False)]
    cases += [("d.webp", "WEBP", {"lossless": True}, False), ("e.webp", "WEBP", {}, True)]
    for name, kind, options, lossy in cases:
        path = tmp_path / name
        image.save(path, kind, **options)
        assert is_lossy(path) is lossy, name
        assert count_values(path).lossy is lossy, name


def test_a_tally_counts_values(tmp_path: Path) -> None:
    assert count_values(saved(palette_image(IDS), tmp_path / "p.png")).counts == {
        0: 2,
        1: 1,
        2: 2,
        255: 1,
    }
    rgb = np.zeros((2, 2, 3), np.uint8)
    rgb[0, 0] = ROAD
    found = count_values(saved(rgb, tmp_path / "c.png"))
    assert (found.counts, found.gray_rgb, found.size) == ({(0, 0, 0): 3, ROAD: 1}, False, (2, 2))
    found = count_values(saved(np.array([[-5, 70000]], np.int32), tmp_path / "i.tif"))
    assert found.counts == {-5: 1, 70000: 1}


@settings(max_examples=40)
@given(st.integers(1, 400), st.data())
def test_what_is_written_is_read(count: int, data: st.DataObject) -> None:
    ignore = 255 if count <= 255 else 65535
    labels = Labels(tuple(f"c{i}" for i in range(count)), ignore_index=ignore)
    shape = data.draw(arrays.array_shapes(min_dims=2, max_dims=2, max_side=7))
    values = st.one_of(st.integers(0, count - 1), st.just(ignore))
    ids = data.draw(arrays.arrays(np.int64, shape, elements=values))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.png"
        write_mask(path, ids, labels)
        found = read_mask(path, labels)
        assert found.dtype == mask_dtype(labels)
        assert found.tolist() == ids.tolist()
        assert os.listdir(folder) == ["a.png"]


def test_masks_are_drawn_in_the_colours_of_the_table(tmp_path: Path) -> None:
    labels = Labels(("sky", "road"), ((9, 8, 7), ROAD))
    path = tmp_path / "deep" / "er" / "a.png"
    write_mask(path, np.array([[0, 1, 255]]), labels)
    with Image.open(path) as image:
        assert image.mode == "P"
        seen = np.array(image.convert("RGB"))[0].tolist()
    assert seen == [[9, 8, 7], [128, 64, 128], [224, 224, 192]]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.png"
    write_mask(path, IDS, LABELS)
    before = path.read_bytes()

    def fail(self: Image.Image, file: object, **_: object) -> None:
        file.write(b"half")  # type: ignore[attr-defined]
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
def test_what_is_no_mask_is_not_written(
    tmp_path: Path, name: str, ids: np.ndarray, labels: Labels, message: str
) -> None:
    with pytest.raises(FullconvError, match=message):
        write_mask(tmp_path / name, ids, labels)
    assert not os.listdir(tmp_path)


def test_a_long_table_is_cut_short() -> None:
    text = describe(Labels(tuple(f"c{i}" for i in range(100))))
    assert text.endswith("29 c29 and 71 more")


def test_camvid_masks_read_right(shared: Path) -> None:
    path = shared / "data/camvid/trainannot/0001TP_006690.png"
    with Image.open(path) as image:
        raw = np.array(image)
    labels = Labels(tuple("abcdefghijk"), values={11: 255})
    assert (read_mask(path, labels) == np.where(raw == 11, 255, raw)).all()


def test_voc_masks_read_right(shared: Path) -> None:
    path = sorted((shared / "data/voc2012_sample/SegmentationClass").iterdir())[0]
    ids = read_mask(path, Labels(tuple("abcdefghijklmnopqrstu")))
    with Image.open(path) as image:
        colors = np.array(image.convert("RGB"))
    assert (np.array([voc_color(i) for i in range(256)], np.uint8)[ids] == colors).all()


def outcomes(path: Path, is_array: bool) -> list[str]:
    """What each reader makes of a file: "read", or the hint of its error."""
    ways: list[Callable[[], object]] = [
        partial(count_values, path),
        partial(read_mask, path, Labels(tuple("abcdefgh"))),
    ]
    if not is_array:
        ways += [partial(read_image, path), partial(image_size, path)]
        ways += [partial(read_reduced, path, 32)]
    found = []
    for way in ways:
        try:
            way()
            found.append("read")
        except FullconvError as error:
            found.append(error.hint)
    return found


def test_headers_that_lie_are_refused_in_words(tmp_path: Path) -> None:
    """No memory is taken for what a header promises. Those that are what they say, and merely
    large, take seconds and are left out."""
    for file in damage.promises():
        if "_large." in file.name or "_half." in file.name:
            continue
        path = tmp_path / file.name
        path.write_bytes(file.content)
        assert all(outcomes(path, file.is_array)), file.name


@pytest.mark.parametrize("seed", range(4))
def test_damaged_files_are_read_or_refused_in_words(tmp_path: Path, seed: int) -> None:
    """Never a traceback or a warning, which is an error here: files that are cut, flipped,
    overwritten, renamed and glued together."""
    found = []
    for file in list(damage.files(420, seed=seed))[120::2]:
        path = tmp_path / file.name
        path.write_bytes(file.content)
        found += outcomes(path, file.is_array)
    assert all(found)
    assert 20 < found.count("read") < len(found) - 100


def test_of_very_many_colours_the_commonest_are_kept_and_all_are_counted(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    noise = random.integers(0, 256, (120, 100, 3), np.uint8)
    noise[:30] = ROAD
    found = count_values(saved(noise, tmp_path / "a.png"))
    kinds = len(np.unique(noise.reshape(-1, 3), axis=0))
    assert len(found.counts) == 4096
    assert found.more == kinds - 4096 > 1000
    assert sum(found.counts.values()) + found.more_pixels == 12_000
    assert found.counts[ROAD] == 3000
    assert MaskHistogram.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_numbers_that_no_class_id_can_be_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([[0, 1 << 40]]))
    with pytest.raises(FullconvError, match=f"has values from 0 to {1 << 40}; expected class"):
        read_mask(tmp_path / "a.npy", LABELS)
    np.save(tmp_path / "a.npy", np.zeros((0, 4), np.uint8))
    with pytest.raises(FullconvError, match=r"mask .*a\.npy has no pixels"):
        read_mask(tmp_path / "a.npy", LABELS)
