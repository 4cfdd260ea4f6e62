"""Labels in MATLAB files, as scipy writes them."""

from __future__ import annotations

import contextlib
import warnings
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from scipy.io import loadmat, savemat

from fullconv.core.errors import FullconvError
from fullconv.data.io.array_masks import read_mat_class_names, read_mat_mask
from fullconv.data.io.masks import read_values

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
    assert read_mat_class_names(tmp_path / "a.mat") == ["sky", "tall building"]


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"a": IDS, "b": IDS}, "it is not clear which variable holds the labels. The file has a "),
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


@pytest.mark.parametrize("kind", ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8", "?"])
def test_numbers_of_every_type_are_those_that_scipy_reads(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.mat"
    values = np.random.default_rng(0).integers(0, 2 if kind == "?" else 100, (7, 5)).astype(kind)
    ways = [{}, {"do_compression": True}]
    if kind in ("u1", "u2", "i2", "i4", "f4", "f8"):  # all that version 4 has
        ways.append({"format": "4"})
    for options in ways:
        savemat(path, {"labels": values}, **options)
        found = read_mat_mask(path, "a.mat")
        np.testing.assert_array_equal(found, loadmat(path)["labels"])
        assert found.shape == (7, 5)


def test_files_that_matlab_itself_wrote_are_read_as_scipy_reads_them() -> None:
    """Those that scipy brings along for its own tests: versions 4 to 7, from SPARC and Intel."""
    folder = Path(scipy.io.__file__).parent / "matlab/tests/data"
    read = 0
    for path in sorted(folder.glob("test*.mat")):
        with warnings.catch_warnings(), contextlib.suppress(NotImplementedError):
            warnings.simplefilter("ignore")
            table = {k: v for k, v in loadmat(path).items() if k[:2] != "__"}
            arrays = [v for v in table.values() if isinstance(v, np.ndarray) and v.ndim == 2]
            numbers = [v for v in arrays if v.dtype.kind in "uif" and v.size]
            if len(numbers) == len(table) == 1 and (numbers[0] % 1 == 0).all():
                np.testing.assert_array_equal(read_mat_mask(path, path.name), numbers[0])
                read += 1
    if not read:
        pytest.skip("this scipy comes without its tests")
    assert read >= 8


def test_a_variable_that_unpacks_to_very_much_is_refused_by_its_header(tmp_path: Path) -> None:
    savemat(tmp_path / "a.mat", {"S": np.zeros((10_000, 9_000), np.uint8)}, do_compression=True)
    with pytest.raises(FullconvError, match="claims 10000 x 9000 pixels"):
        read_values(tmp_path / "a.mat")
