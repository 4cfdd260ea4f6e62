from __future__ import annotations

import contextlib
import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
from scipy.io import loadmat, savemat

from fullconv.core.errors import FullconvError
from fullconv.data.io.masks import read_values
from fullconv.data.io.matlab import read_mat_class_names, read_mat_mask

IDS = np.array([[0, 1, 2], [2, 1, 0]], np.uint8)


def mat(**table: Any) -> bytes:
    file = io.BytesIO()
    savemat(file, table, do_compression=True)
    return file.getvalue()


@pytest.mark.parametrize("key", ["LabelMap", "S", "segmentation", "anything", "GTcls"])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float64])
def test_labels_are_in_the_variable_of_each_dataset(tmp_path: Path, key: str, kind: type) -> None:
    value: Any = IDS.astype(kind)
    if key == "GTcls":  # SBD
        value = {"Segmentation": value, "Boundaries": np.zeros((2, 2)), "CategoriesPresent": 1}
    savemat(tmp_path / "a.mat", {key: value, "text": "note"})
    np.testing.assert_array_equal(read_values(tmp_path / "a.mat"), IDS)


def test_class_names_of_sift_flow(tmp_path: Path) -> None:
    names = np.array(["sky", "tall building"], dtype=object)
    savemat(tmp_path / "a.mat", {"S": IDS, "names": names})
    assert read_mat_class_names(tmp_path / "a.mat") == ["sky", "tall building"]


@pytest.mark.parametrize("kind", ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8", "?"])
def test_every_type_is_read_as_scipy_reads_it(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.mat"
    values = np.random.default_rng(0).integers(0, 2 if kind == "?" else 100, (7, 5)).astype(kind)
    variants: list[dict[str, Any]] = [{}, {"do_compression": True}]
    if kind in ("u1", "u2", "i2", "i4", "f4", "f8"):  # all that version 4 has
        variants.append({"format": "4"})
    for options in variants:
        savemat(path, {"labels": values}, **options)
        labels = read_mat_mask(path, "a.mat")
        np.testing.assert_array_equal(labels, loadmat(path)["labels"])
        assert labels.shape == (7, 5)


def test_files_written_by_matlab_are_read_as_scipy_reads_them() -> None:
    """The test files of scipy: versions 4 to 7, from SPARC and Intel."""
    folder = Path(scipy.io.__file__).parent / "matlab/tests/data"
    count = 0
    for path in sorted(folder.glob("test*.mat")):
        with warnings.catch_warnings(), contextlib.suppress(NotImplementedError):
            warnings.simplefilter("ignore")
            table = {k: v for k, v in loadmat(path).items() if k[:2] != "__"}
            arrays = [v for v in table.values() if isinstance(v, np.ndarray) and v.ndim == 2]
            numbers = [v for v in arrays if v.dtype.kind in "uif" and v.size]
            if len(numbers) == len(table) == 1 and (numbers[0] % 1 == 0).all():
                np.testing.assert_array_equal(read_mat_mask(path, path.name), numbers[0])
                count += 1
    if not count:
        pytest.skip("this scipy has no test files")
    assert count >= 8


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (mat(a=IDS, b=IDS), "not clear which variable holds the labels. .* has a "),
        (mat(S=IDS + 0.5), "expected whole numbers"),
        (mat(S=np.zeros((2, 2, 2))), "expected whole numbers"),
        (b"MATLAB 7.3 MAT-file, Platform: GLNXA64" + bytes(600), "HDF5"),
        (mat(S=np.zeros((10_000, 9_000), np.uint8)), "claims 10000 x 9000 pixels"),
    ],
)
def test_other_content_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(FullconvError, match=f"mask a.x.*{message}") as caught:
        read_mat_mask(io.BytesIO(content), "a.x")
    assert caught.value.hint
