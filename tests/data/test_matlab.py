"""Labels in MATLAB files, as scipy writes them."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from fullconv.data.masks import read_values
from fullconv.data.matlab import read_names
from fullconv.errors import FullconvError

IDS = np.array([[0, 1, 2], [2, 1, 0]], np.uint8)


@pytest.mark.parametrize("key", ["LabelMap", "S", "segmentation", "anything"])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float64])
def test_a_matrix_of_labels(tmp_path: Path, key: str, kind: type) -> None:
    savemat(tmp_path / "a.mat", {key: IDS.astype(kind), "text": "note"})
    np.testing.assert_array_equal(read_values(tmp_path / "a.mat"), IDS)


def test_the_struct_of_sbd(tmp_path: Path) -> None:
    table = {"GTcls": {"Segmentation": IDS, "Boundaries": np.zeros((2, 2)), "CategoriesPresent": 1}}
    savemat(tmp_path / "a.mat", table)
    np.testing.assert_array_equal(read_values(tmp_path / "a.mat"), IDS)


def test_names(tmp_path: Path) -> None:
    names = np.array(["sky", "tall building"], dtype=object)
    savemat(tmp_path / "a.mat", {"S": IDS, "names": names})
    assert read_names(tmp_path / "a.mat") == ["sky", "tall building"]


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"a": IDS, "b": IDS}, "it is open which variable holds the labels. Found a "),
        ({"S": IDS + 0.5}, "expected whole numbers"),
        ({"S": np.zeros((2, 2, 2))}, "expected whole numbers"),
    ],
)
def test_what_holds_no_labels(tmp_path: Path, table: dict[str, object], said: str) -> None:
    savemat(tmp_path / "a.mat", table)
    with pytest.raises(FullconvError, match=said):
        read_values(tmp_path / "a.mat")


def test_version_7_3_is_refused_with_the_line_that_helps(tmp_path: Path) -> None:
    (tmp_path / "a.mat").write_bytes(b"MATLAB 7.3 MAT-file, Platform: GLNXA64" + bytes(600))
    with pytest.raises(FullconvError, match="HDF5") as caught:
        read_values(tmp_path / "a.mat")
    assert caught.value.hint == "in MATLAB: save('labels.mat', 'labels', '-v7')"


def test_damaged_files_are_errors_and_nothing_else(tmp_path: Path) -> None:
    savemat(tmp_path / "a.mat", {"S": IDS}, do_compression=True)
    whole = (tmp_path / "a.mat").read_bytes()
    random = np.random.default_rng(0)
    for _ in range(150):
        data = bytearray(whole[: random.integers(0, len(whole) + 1)])
        for _ in range(3):
            if data:
                data[random.integers(len(data))] ^= 1 << random.integers(8)
        (tmp_path / "b.mat").write_bytes(data)
        with contextlib.suppress(FullconvError):
            assert read_values(tmp_path / "b.mat").ndim == 2
