"""What is kept of every image: all of it, in few bytes, whatever the sizes, and nothing that is
damaged is read."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from evaluated import counted, matrices, written
from hypothesis import given, settings
from hypothesis import strategies as st

from fullconv.core.errors import FullconvError
from fullconv.evaluation.per_image import (
    ImageConfusions,
    SplitConfusions,
    content_fingerprint,
    file_in,
    require_npz,
    run_containing,
    save_next_to_run,
    sparse_row,
    weights_of,
)


@settings(max_examples=40)
@given(st.integers(0, 9), st.integers(1, 7), st.integers(0, 10**6))
def test_every_matrix_comes_back(images: int, classes: int, seed: int) -> None:
    chance = np.random.default_rng(seed)
    every = chance.integers(0, 9, (images, classes, classes)) * (
        chance.random((images, classes, classes)) < 0.3
    )
    of = ImageConfusions.from_rows(
        [f"c{k}" for k in range(classes)], [sparse_row(one) for one in every]
    )
    assert len(of) == images
    for k in range(images):
        assert (of.confusion(k) == every[k]).all()
    assert (of.confusion() == every.sum(0)).all()
    right = np.einsum("nkk->nk", every)
    expected = np.stack([right, every.sum(2), every.sum(1)], axis=1)
    assert of.margins.shape == (images, 3, classes)
    assert (of.margins == expected).all()


def test_a_image_of_more_pixels_than_32_bits_count() -> None:
    every = np.zeros((2, 2, 2), np.int64)
    every[0, 0, 1], every[1, 1, 1] = 2**33, 5
    of = ImageConfusions.from_rows(("a", "b"), [sparse_row(one) for one in every])
    assert of.confusion().tolist() == [[0, 2**33], [0, 5]]


def test_the_file_holds_all_heads_and_the_card(tmp_path: Path) -> None:
    every = counted(matrices(5), data="/some data")
    further = ImageConfusions.from_rows(
        ("in", "out"), [sparse_row(np.eye(2, dtype=int) * k) for k in range(5)]
    )
    both = SplitConfusions(
        every.images,
        every.contents,
        {"masks": every.head(), "rooms": further},
        every.protocol,
        every.data,
    )
    found = SplitConfusions.read(both.save(tmp_path / "counts_val.npz"))
    assert found.images == both.images
    assert found.contents == both.contents
    assert found.protocol == both.protocol
    assert (found.data, found.weights) == ("/some data", "")
    assert [*found.heads] == ["masks", "rooms"]
    assert (found.head("rooms").confusion() == further.confusion()).all()
    assert (found.head().confusion(3) == both.head("masks").confusion(3)).all()
    with pytest.raises(FullconvError, match="no head 'floors' was evaluated; there is masks, ro"):
        found.head("floors")
    assert [path.name for path in tmp_path.iterdir()] == ["counts_val.npz"]


def test_many_classes_and_images_take_little_room(tmp_path: Path) -> None:
    """As COCO-Stuff: 171 classes, 5,000 images that show eight of them each and take these for
    twenty others. Dense matrices of 4 bytes would be 585 MB."""
    chance = np.random.default_rng(0)
    found = []
    for _ in range(5000):
        truth, called = chance.choice(171, 8, False), chance.choice(171, 20, False)
        cells = np.unique(truth[:, None] * 171 + called).astype(np.uint32)
        found.append((cells, chance.integers(1, 5000, len(cells)).astype(np.uint32)))
    names = [f"class {k}" for k in range(171)]
    one = ImageConfusions.from_rows(names, found)
    images = tuple(f"{k:012}" for k in range(5000))
    contents = tuple(content_fingerprint([name]) for name in images)
    path = SplitConfusions(images, contents, {"": one}, {"split": "val"}).save(tmp_path / "c.npz")
    assert path.stat().st_size < 6e6
    assert one.margins.nbytes == 5000 * 3 * 171 * 8


def test_an_old_file_stays_where_a_new_one_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = counted(matrices(2)).save(tmp_path / "c.npz")
    before = path.read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    with pytest.raises(FullconvError, match=r"could not be written to .*c.npz: No space left"):
        counted(matrices(3)).save(path)
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["c.npz"]


def spoiled(path: Path, **changes: np.ndarray) -> None:
    with np.load(path) as file:
        arrays = {**file, **changes}
    np.savez(path, **arrays)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"cells": np.array([99], np.uint32)}, "its parts do not fit each other"),
        ({"ends": np.array([2, 1, 4])}, "its parts do not fit each other"),
        ({"pixels": np.array([0.5])}, "its parts do not fit each other"),
        ({"facts": np.frombuffer(b"{}", np.uint8)}, "format"),
        ({"facts": np.frombuffer(b'{"format": "x/2"}', np.uint8)}, "its format is 'x/2'"),
        ({"facts": np.array([{"a": 1}], dtype=object)}, "allow_pickle"),
    ],
)
def test_what_does_not_fit_is_refused(
    tmp_path: Path, changes: dict[str, np.ndarray], said: str
) -> None:
    path = counted(matrices(3)).save(tmp_path / "c.npz")
    spoiled(path, **changes)
    with pytest.raises(FullconvError) as caught:
        SplitConfusions.read(path)
    assert f"{path} cannot be read as counts of single images: " in caught.value.message
    assert said in caught.value.message
    assert caught.value.hint == f"fullconv evaluate MODEL DATA --counts {path}"


@pytest.mark.parametrize("length", [0, 3, 100, 700])
def test_a_file_that_was_cut_off_is_refused(tmp_path: Path, length: int) -> None:
    path = counted(matrices(3)).save(tmp_path / "c.npz")
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(FullconvError, match="cannot be read as counts of single images"):
        SplitConfusions.read(path)
    with pytest.raises(FullconvError, match="there is no such file"):
        SplitConfusions.read(tmp_path / "d.npz")


def test_damage_is_refused_or_does_not_matter(tmp_path: Path) -> None:
    """A byte here and there is another one; checksums find it nearly everywhere."""
    path = counted(matrices(3)).save(tmp_path / "c.npz")
    whole, chance = path.read_bytes(), np.random.default_rng(0)
    refused = 0
    for _ in range(150):
        damaged = bytearray(whole)
        damaged[chance.integers(len(whole))] ^= int(chance.integers(1, 256))
        path.write_bytes(damaged)
        try:
            assert (SplitConfusions.read(path).head().confusion() == matrices(3).sum(0)).all()
        except FullconvError:
            refused += 1
    assert refused > 75


def test_another_archive_is_refused(tmp_path: Path) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.txt", "hello")
    (tmp_path / "c.npz").write_bytes(file.getvalue())
    with pytest.raises(FullconvError, match="cannot be read as counts"):
        SplitConfusions.read(tmp_path / "c.npz")


def test_a_run_keeps_them_beside_its_metrics(tmp_path: Path) -> None:
    run = written(tmp_path / "a", counted(matrices(4)))
    assert run_containing(run) == run_containing(run / "model") == run
    assert run_containing(tmp_path) is None
    require_npz(file_in(run, "val"))
    with pytest.raises(FullconvError, match=r"are kept as .npz, not as 'my counts.zip'") as caught:
        require_npz(tmp_path / "my counts.zip")
    assert caught.value.hint == "--counts 'my counts.zip.npz'"
    assert file_in(run, "val").name == "counts_val.npz"
    assert SplitConfusions.read(file_in(run, "val")).weights == weights_of(run) == "a"
    (run / "model" / "config.json").write_text("no json")
    assert weights_of(run) == ""
    test = counted(matrices(4), split="test")
    assert save_next_to_run(test, run) == run / "counts_test.npz"
