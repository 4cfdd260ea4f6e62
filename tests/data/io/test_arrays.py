from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from fullconv.core.errors import FullconvError
from fullconv.data.io.array_masks import read_npy_mask


def saved(array: np.ndarray, **options: bool) -> bytes:
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["u1", ">u2", "<i4", ">i8", "?"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_whole_numbers_are_read_as_numpy_reads_them(tmp_path: Path, kind: str, order: str) -> None:
    array = np.asarray(np.arange(12).reshape(3, 4) % 2, np.dtype(kind), order=order)  # type: ignore[call-overload]
    path = tmp_path / "a.npy"
    path.write_bytes(saved(array))
    np.testing.assert_array_equal(read_npy_mask(path, "a.npy"), np.load(path))
    np.testing.assert_array_equal(read_npy_mask(io.BytesIO(saved(array)), "a.npy"), array)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "cannot be read as a NumPy file"),
        (b"hello", "cannot be read as a NumPy file: "),
        (saved(np.zeros((3, 4), np.uint8))[:-5], "it is truncated, 5 bytes are missing"),
        (saved(np.zeros((3, 4), np.uint8))[:40], "cannot be read as a NumPy file"),
        (saved(np.zeros((3, 4))), r"holds float64 of shape \(3, 4\); expected whole numbers"),
        (saved(np.zeros((3, 4, 5), np.uint8)), r"of shape \(3, 4, 5\)"),
        (saved(np.array([{}, None]), allow_pickle=True), "cannot be read as a NumPy file"),
        (
            saved(np.zeros((3, 4), np.uint8)).replace(b"(3, 4)", b"(60000, 60000)", 1),
            "claims 60000 x 60000 pixels",
        ),
    ],
)
def test_what_is_no_mask_is_refused_before_it_is_read(content: bytes, said: str) -> None:
    with pytest.raises(FullconvError, match=f"mask a.npy .*{said}") as caught:
        read_npy_mask(io.BytesIO(content), "a.npy")
    assert caught.value.hint
