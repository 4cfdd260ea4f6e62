from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fullconv.core.errors import FullconvError
from fullconv.data.io import limits
from fullconv.data.io.npy import read_npy, read_npy_mask

BYTES = np.zeros((3, 4), np.uint8)


def npy(array: np.ndarray, **options: bool) -> bytes:
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["u1", ">u2", "<i4", ">i8", "?"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_files_are_read_as_numpy_reads_them(tmp_path: Path, kind: str, order: Any) -> None:
    array = np.asarray(np.arange(12).reshape(3, 4) % 2, np.dtype(kind), order=order)
    path = tmp_path / "a.npy"
    path.write_bytes(npy(array))
    np.testing.assert_array_equal(read_npy_mask(path, "a.npy"), np.load(path))
    np.testing.assert_array_equal(read_npy_mask(io.BytesIO(npy(array)), "a.npy"), array)


def test_only_masks_have_a_limit_in_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    array = np.arange(300.0).reshape(10, 10, 3)
    path = tmp_path / "a.npy"
    np.save(path, array)
    monkeypatch.setattr(limits, "_MAX_BYTES", 1000)
    np.testing.assert_array_equal(read_npy(path, "a.npy", "input"), array)
    with pytest.raises(FullconvError, match="files up to"):
        read_npy_mask(path, "a.npy")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read as a NumPy file"),
        (b"hello", "cannot be read as a NumPy file: "),
        (npy(BYTES)[:-5], "it is truncated, 5 bytes are missing"),
        (npy(BYTES)[:40], "cannot be read as a NumPy file"),
        (npy(np.zeros((3, 4))), r"holds float64 of shape \(3, 4\); expected whole"),
        (npy(np.zeros((3, 4, 5), np.uint8)), r"of shape \(3, 4, 5\)"),
        (npy(np.array([{}, None]), allow_pickle=True), "cannot be read as a NumPy"),
        (
            npy(BYTES).replace(b"(3, 4)", b"(60000, 60000)", 1),
            "claims 60000 x 60000 pixels",
        ),
    ],
)
def test_other_content_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(FullconvError, match=f"mask a.x.*{message}") as caught:
        read_npy_mask(io.BytesIO(content), "a.x")
    assert caught.value.hint
