from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fullconv.core.errors import FullconvError
from fullconv.data.io.images import (
    IMAGE_SUFFIXES,
    from_array,
    from_pil,
    image_size,
    read_image,
    read_reduced,
)

GRAY = np.array([[0, 50, 100], [150, 200, 255]], np.uint8)  # (2, 3)
RGB = np.arange(18, dtype=np.uint8).reshape(2, 3, 3) * 14


def saved(image: Image.Image, path: Path, **options: object) -> Path:
    image.save(path, **options)
    return path


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_is_undone(tmp_path: Path, orientation: int) -> None:
    upright = RGB
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(np.ascontiguousarray(stored))
    path = saved(image, tmp_path / "a.png", exif=exif)
    assert (read_image(path) == upright).all()
    assert image_size(path) == read_reduced(path, 512)[0] == (2, 3)


def test_a_rotated_jpeg_has_the_size_of_the_upright_image(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = saved(Image.new("RGB", (40, 30)), tmp_path / "a.JPG", exif=exif)
    assert image_size(path) == read_reduced(path, 512)[0] == (40, 30)
    assert read_image(path).shape == (40, 30, 3)


GRAY_RGB = np.repeat(GRAY[..., None], 3, 2)
ALPHA = np.full_like(GRAY, 7)
PALETTE = Image.fromarray(np.array([[0, 1, 2], [2, 1, 0]], np.uint8))
PALETTE.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
PALETTE_RGB = np.array([[10, 20, 30], [40, 50, 60], [70, 80, 90]], np.uint8)[np.array(PALETTE)]


@pytest.mark.parametrize(
    ("image", "expected", "options"),
    [
        (Image.fromarray(GRAY), GRAY_RGB, {}),
        (Image.merge("LA", [Image.fromarray(GRAY), Image.fromarray(ALPHA)]), GRAY_RGB, {}),
        (Image.fromarray(np.dstack([RGB, ALPHA])), RGB, {}),
        (PALETTE, PALETTE_RGB, {}),
        (PALETTE, PALETTE_RGB, {"transparency": 1}),
        (PALETTE, PALETTE_RGB, {"transparency": b"\x00\x80\xff"}),
        (Image.fromarray(GRAY > 120), (GRAY_RGB > 120) * np.uint8(255), {}),
    ],
)
def test_gray_alpha_and_palette_keep_their_stored_values(
    tmp_path: Path, image: Image.Image, expected: np.ndarray, options: dict[str, Any]
) -> None:
    pixels = read_image(saved(image, tmp_path / "a.png", **options))
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, expected)


def test_sixteen_bit_gray_is_scaled_by_its_full_range(tmp_path: Path) -> None:
    wide = np.array([[0, 257, 32768], [65535, 128, 129]], np.uint16)
    expected = [[0, 1, 128], [255, 0, 1]]
    path = saved(Image.fromarray(wide), tmp_path / "a.png")
    assert read_image(path)[..., 1].tolist() == expected
    assert from_pil(Image.fromarray(wide.astype(np.int32)))[..., 2].tolist() == expected
    assert from_array(wide)[..., 0].tolist() == expected


def test_cmyk_becomes_rgb() -> None:
    cmyk = Image.new("CMYK", (1, 1), (0, 255, 255, 0))  # no cyan: red
    file = io.BytesIO()
    cmyk.save(file, "JPEG")
    assert np.abs(read_image(file)[0, 0].astype(int) - (255, 0, 0)).max() <= 3


def test_the_first_frame_counts(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (3, 2), color) for color in ("red", "lime")]
    path = tmp_path / "a.gif"
    frames[0].save(path, save_all=True, append_images=frames[1:])
    assert read_image(path)[0, 0].tolist() == [255, 0, 0]


def test_arrays_become_rgb() -> None:
    assert (from_array(GRAY) == GRAY_RGB).all()
    assert (from_array(GRAY[..., None]) == GRAY_RGB).all()
    assert (from_array(RGB) == RGB).all()
    assert (from_array(np.dstack([RGB, GRAY])) == RGB).all()


@pytest.mark.parametrize(
    ("array", "message", "hint"),
    [
        (np.zeros((2, 2, 3), np.float32), "of float32, whose value range", "(array * 255)"),
        (np.zeros((2, 2, 3), np.int64), "of int64", "array.astype('uint8')"),
        (np.zeros((3, 9, 9), np.uint8), "looks channels-first", "transpose(1, 2, 0)"),
        (np.zeros((9, 9, 2), np.uint8), r"shape \(9, 9, 2\)", ""),
        (np.zeros((0, 9), np.uint8), "at least one pixel", ""),
        (np.zeros((1, 9, 9, 3), np.uint8), r"expected \(H, W\)", ""),
    ],
)
def test_other_arrays_are_refused(array: np.ndarray, message: str, hint: str) -> None:
    with pytest.raises(FullconvError, match=message) as caught:
        from_array(array)
    assert hint in caught.value.hint


def test_float_images_are_refused(tmp_path: Path) -> None:
    path = saved(Image.new("F", (2, 2)), tmp_path / "a.tif")
    with pytest.raises(FullconvError, match=r"a\.tif has floating-point pixels"):
        read_image(path)


def test_other_color_spaces_become_rgb() -> None:
    image = Image.new("RGB", (2, 2), (200, 30, 60))
    for mode in ("HSV", "YCbCr", "LAB"):
        pixels = from_pil(image.convert(mode))
        assert np.abs(pixels[0, 0].astype(int) - (200, 30, 60)).max() <= 4, mode


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_truncated_file_is_named(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (90, 90, 3), np.uint8)
    path = saved(Image.fromarray(noise), tmp_path / f"a{suffix}")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    for read in (read_image, lambda path: read_reduced(path, 512)):
        with pytest.raises(FullconvError, match=r"cannot be read: .*truncated") as caught:
            read(path)
        assert str(path) in caught.value.message
        assert "remove it" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("empty.png", "the file is empty", "copy or download empty.png again"),
        ("text.png", "not in an image format", "copy or download text.png again"),
        ("none.png", "there is no such file", "ls {folder}"),
        ("deep/none.png", "there is no such file", "ls {folder}"),
        (".", "is a folder", "ls {folder}"),
    ],
)
def test_files_that_cannot_be_read_are_named(
    tmp_path: Path, name: str, message: str, hint: str
) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("hello")
    for read in (read_image, image_size):
        with pytest.raises(FullconvError, match=message) as caught:
            read(tmp_path / name)
        assert str(tmp_path / name) in caught.value.message
        assert caught.value.hint.startswith(hint.format(folder=tmp_path))


def test_an_empty_open_file_is_refused() -> None:
    with pytest.raises(FullconvError, match="the image cannot be read: the file is empty"):
        read_image(io.BytesIO())


def test_suffixes_are_lower_case_with_a_dot() -> None:
    assert {".jpg", ".jpeg", ".png", ".tif", ".bmp", ".webp"} <= IMAGE_SUFFIXES
    assert all(suffix == suffix.lower() and suffix[0] == "." for suffix in IMAGE_SUFFIXES)
