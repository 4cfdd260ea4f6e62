from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fullconv.core.errors import FullconvError
from fullconv.data.io.extra_channels import (
    ExtraInput,
    from_numbers,
    read_channels,
    read_extra_channels,
    require_size,
)

RNG = np.random.default_rng(0)
GRAY = RNG.integers(0, 256, (5, 7), np.uint8)
WIDE = RNG.integers(0, 65536, (5, 7), np.uint16)
COLORS = RNG.integers(0, 256, (5, 7, 3), np.uint8)
METERS = RNG.uniform(-1, 80, (5, 7)).astype(np.float32)


@pytest.mark.parametrize(
    ("array", "name", "kind"),
    [
        (GRAY, "a.png", np.uint8),
        (WIDE, "a.png", np.float32),
        (WIDE, "a.tif", np.float32),
        (METERS, "a.tif", np.float32),
        (COLORS, "a.png", np.uint8),
        (np.dstack([COLORS, GRAY]), "a.png", np.uint8),
        (np.dstack([GRAY, GRAY]), "a.png", np.uint8),
    ],
)
def test_images_keep_their_numbers(
    tmp_path: Path, array: np.ndarray, name: str, kind: type
) -> None:
    Image.fromarray(array).save(tmp_path / name)
    channels = read_channels(tmp_path / name)
    stored = np.atleast_3d(array)
    stored = stored[..., : 1 if stored.shape[2] < 3 else 3]  # without alpha
    assert channels.dtype == kind
    np.testing.assert_array_equal(channels, stored.astype(kind))


@pytest.mark.parametrize(
    "array", [METERS, METERS.astype(np.float64), WIDE, COLORS, np.asfortranarray(METERS), GRAY > 9]
)
def test_arrays_keep_their_numbers(tmp_path: Path, array: np.ndarray) -> None:
    np.save(tmp_path / "a.npy", array)
    channels = read_channels(tmp_path / "a.npy")
    assert channels.dtype == (np.uint8 if array.dtype == np.uint8 else np.float32)
    assert np.array_equal(channels, array.reshape(5, 7, -1).astype(channels.dtype))
    assert channels.flags.writeable
    assert channels.flags.c_contiguous


def test_palettes_are_colors(tmp_path: Path) -> None:
    image = Image.fromarray(COLORS).quantize(8)
    image.save(tmp_path / "a.png")
    assert np.array_equal(read_channels(tmp_path / "a.png"), np.asarray(image.convert("RGB")))


def test_a_rotated_file_is_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(GRAY).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(read_channels(tmp_path / "a.png")[..., 0], np.rot90(GRAY, -1))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((5, 7, 4)), "float64 of shape (5, 7, 4)"),
        (np.zeros(5), "float64 of shape (5,)"),
        (np.zeros((0, 7)), "float64 of shape (0, 7)"),
        (np.zeros((5, 7), complex), "complex128 of shape (5, 7)"),
        (np.array([["a"]]), "<U1 of shape (1, 1)"),
    ],
)
def test_other_arrays_are_refused(array: np.ndarray, message: str) -> None:
    with pytest.raises(FullconvError, match="expected numbers") as caught:
        from_numbers(array)
    assert message in caught.value.message


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_refused(bad: float) -> None:
    depth = METERS.copy()
    depth[2, 3] = bad
    with pytest.raises(FullconvError, match="not finite") as caught:
        from_numbers(depth, "depth/a.npy")
    assert caught.value.message.startswith("depth/a.npy ")
    assert "np.nan_to_num(depth, nan=0, posinf=0, neginf=0)" in caught.value.hint


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    for name in ("gone.npy", "gone.png"):
        with pytest.raises(FullconvError, match=f"no extra input .*{name}"):
            read_channels(tmp_path / name)
    path = tmp_path / "cut.npy"
    np.save(path, METERS)
    whole = path.read_bytes()
    np.save(path, np.array([[{}]], dtype=object), allow_pickle=True)
    for content in (path.read_bytes(), b"", whole[:30], whole[:-9], b"text", pickle.dumps(METERS)):
        path.write_bytes(content)
        with pytest.raises(FullconvError, match=r"cut\.npy cannot be read as a NumPy file: \w"):
            read_channels(path)


def test_another_size_and_another_kind_are_refused() -> None:
    with pytest.raises(FullconvError, match=r"7 x 5 pixels but a\.jpg is 9 x 5") as caught:
        require_size(GRAY[..., None], Path("d/a.png"), (5, 9), "a.jpg")
    assert caught.value.hint == 'Image.open("a.png").resize((9, 5), Image.NEAREST)'
    depth = ExtraInput("depth", 1, (0.0,), (1.0,))
    assert read_extra_channels(METERS, depth, (5, 7)).shape == (5, 7, 1)
    message = "the extra input depth has 3 channels; the model was trained with 1"
    with pytest.raises(FullconvError, match=message):
        read_extra_channels(COLORS, depth, (5, 7))


def test_an_input_survives_config_json() -> None:
    extra = ExtraInput("hha", 3, (1.5, 2.0, 3.0), (0.5, 1.0, 2.0))
    assert ExtraInput.from_dict(extra.to_dict()) == extra
