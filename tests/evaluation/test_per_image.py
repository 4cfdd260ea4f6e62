"""Per-image counts: everything comes back, in few bytes, and damaged files are refused."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluated import CLASSES, confusions, counted, matrices, written
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

from fullconv.core.errors import FullconvError
from fullconv.evaluation import per_image
from fullconv.evaluation.per_image import (
    ImageConfusions,
    SplitConfusions,
    content_fingerprint,
    file_in,
    require_npz,
    run_containing,
    save_next_to_run,
    weights_of,
)


@settings(max_examples=40)
@given(st.integers(0, 9), st.integers(1, 7), st.integers(0, 10**6))
def test_every_matrix_comes_back(images: int, classes: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    shape = (images, classes, classes)
    counts = random.integers(0, 9, shape) * (random.random(shape) < 0.3)
    head = confusions([f"c{k}" for k in range(classes)], counts)
    assert len(head) == images
    assert all((head.confusion(k) == counts[k]).all() for k in range(images))
    assert (head.confusion() == counts.sum(0)).all()
    margins = np.stack([np.einsum("nkk->nk", counts), counts.sum(2), counts.sum(1)], axis=1)
    assert head.margins.shape == (images, 3, classes)
    assert (head.margins == margins).all()


def test_the_file_holds_all_heads_and_the_card(tmp_path: Path) -> None:
    first = counted(matrices(5), data="/some data")
    large = np.zeros((5, 2, 2), np.int64)
    large[0, 0, 1] = 2**33  # needs more than 32 bits
    heads = {"masks": first.head(), "rooms": confusions(("in", "out"), large)}
    counts = replace(first, heads=heads)
    loaded = SplitConfusions.read(counts.save(tmp_path / "new folder" / "counts_val.npz"))
    assert replace(loaded, heads=heads) == counts
    assert list(loaded.heads) == ["masks", "rooms"]
    assert loaded.head("rooms").classes == ("in", "out")
    assert (loaded.head("rooms").confusion() == large.sum(0)).all()
    assert (loaded.head().confusion(3) == first.head().confusion(3)).all()
    with pytest.raises(FullconvError, match="no head 'floors' was evaluated; there are masks, ro"):
        loaded.head("floors")


def test_files_of_version_0_1_are_read(tmp_path: Path) -> None:
    """Their matrices had other names, and "images" were "pictures"."""
    counts = counted(matrices(4))
    card = {**counts.protocol, "trained_on": "train (367 pictures)"}
    card = {key.replace("image", "picture"): value for key, value in card.items()}
    facts = {
        "format": "fullconv-counts/1",
        "pictures": counts.images,
        "contents": counts.contents,
        "heads": {"": CLASSES, "rooms": CLASSES},
        "protocol": card,
        "data": "/data",
        "weights": "w",
    }
    matrix = counts.head().counts
    parts = {"cells": matrix.indices, "pixels": matrix.data, "ends": matrix.indptr[1:]}
    arrays = {**parts, **{f"{name}_1": array for name, array in parts.items()}}
    text = np.frombuffer(json.dumps(facts).encode(), np.uint8)
    np.savez_compressed(tmp_path / "c.npz", facts=text, **arrays)
    loaded = SplitConfusions.read(tmp_path / "c.npz")
    assert (loaded.images, loaded.protocol) == (counts.images, counts.protocol)
    for name in ("", "rooms"):
        assert (loaded.head(name).counts != matrix).nnz == 0


def test_many_classes_and_images_need_few_bytes(tmp_path: Path) -> None:
    """As COCO-Stuff: 5,000 images that each show eight of 171 classes and confuse them with twenty
    others. Dense matrices of 4 bytes would need 585 MB."""
    random = np.random.default_rng(0)
    rows, columns = [], []
    for k in range(5000):
        truth, prediction = random.choice(171, 8, False), random.choice(171, 20, False)
        columns.append(np.unique(truth[:, None] * 171 + prediction))
        rows.append(np.full(len(columns[-1]), k))
    where = (np.concatenate(rows), np.concatenate(columns))
    counts = csr_array((random.integers(1, 5000, len(where[0])), where), shape=(5000, 171**2))
    head = ImageConfusions(tuple(map(str, range(171))), counts)
    images = tuple(f"{k:012}" for k in range(5000))
    contents = tuple(content_fingerprint([name]) for name in images)
    path = SplitConfusions(images, contents, {"": head}, {"split": "val"}).save(tmp_path / "c.npz")
    assert path.stat().st_size < 6e6
    assert SplitConfusions.read(path).head().margins.nbytes == 5000 * 3 * 171 * 8


def change(**changes: np.ndarray) -> Callable[[Path], None]:
    def rewrite(path: Path) -> None:
        with np.load(path) as file:
            arrays = dict(file)
        np.savez(path, **{**arrays, **changes})  # type: ignore[arg-type]

    return rewrite


def facts(**changes: Any) -> Callable[[Path], None]:
    def rewrite(path: Path) -> None:
        with np.load(path) as file:
            known = json.loads(file["facts"].tobytes())
        text = json.dumps({**known, **changes}).encode()
        change(facts=np.frombuffer(text, np.uint8))(path)

    return rewrite


def cut(length: int) -> Callable[[Path], None]:
    def rewrite(path: Path) -> None:
        path.write_bytes(path.read_bytes()[:length])

    return rewrite


def claim_a_huge_array(path: Path) -> None:
    """A header of 32 TB in an entry of 100 bytes."""
    header = io.BytesIO()
    shape = {"descr": "<u8", "fortran_order": False, "shape": (2**42,)}
    np.lib.format.write_array_header_1_0(header, shape)
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    content["pixels_0.npy"] = header.getvalue()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)


def another_archive(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "hello")


MISFIT = "its parts do not fit each other"
NO_LIST = "is no list of integers"


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (change(columns_0=np.array([99], np.uint32)), MISFIT),
        (change(ends_0=np.array([0, 2, 1, 4])), MISFIT),
        (change(pixels_0=np.array([0.5])), "pixels_0 is no list of integers, but float64"),
        (change(pixels_0=np.zeros((2, 2), int)), f"pixels_0 {NO_LIST}"),
        (facts(heads={"": [f"{k}" for k in range(9000)]}), MISFIT),
        (facts(images=["a"]), MISFIT),
        (facts(format="x/2"), "its format is 'x/2'; this version reads 'fullconv-counts/2'"),
        (change(facts=np.frombuffer(b"{}", np.uint8)), "format"),
        (change(facts=np.array([{"a": 1}], dtype=object)), f"facts {NO_LIST}"),
        (claim_a_huge_array, f"pixels_0 {NO_LIST}"),
        (another_archive, "no item named 'facts.npy'"),
        (cut(0), "not a zip file"),
        (cut(100), "not a zip file"),
        (cut(700), "not a zip file"),
        (lambda path: path.unlink(), "there is no such file"),
    ],
)
def test_damaged_files_are_refused(
    tmp_path: Path, spoil: Callable[[Path], None], reason: str
) -> None:
    path = counted(matrices(3)).save(tmp_path / "c.npz")
    spoil(path)
    with pytest.raises(FullconvError) as caught:
        SplitConfusions.read(path)
    assert f"cannot read {path} as per-image counts: " in caught.value.message
    assert reason in caught.value.message
    assert caught.value.hint == f"fullconv evaluate MODEL DATA --counts {path}"


def test_a_file_that_unpacks_to_too_much_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = counted(matrices(3)).save(tmp_path / "c.npz")
    monkeypatch.setattr(per_image, "MAX_BYTES", 1000)
    with pytest.raises(FullconvError, match="it holds more than"):
        SplitConfusions.read(path)


def test_a_changed_byte_is_noticed_or_does_not_matter(tmp_path: Path) -> None:
    path = counted(matrices(3)).save(tmp_path / "c.npz")
    whole, random = path.read_bytes(), np.random.default_rng(0)
    refused = 0
    for _ in range(150):
        damaged = bytearray(whole)
        damaged[random.integers(len(whole))] ^= int(random.integers(1, 256))
        path.write_bytes(damaged)
        try:
            assert (SplitConfusions.read(path).head().confusion() == matrices(3).sum(0)).all()
        except FullconvError:
            refused += 1
    assert refused > 75


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(FullconvError, match=r"could not write per-image counts to .*c.npz: ") as e:
        counted(matrices(3)).save(tmp_path / "file" / "c.npz")
    assert e.value.hint == "--counts ANOTHER_FOLDER/counts.npz"


def test_a_run_keeps_them_next_to_its_metrics(tmp_path: Path) -> None:
    run = written(tmp_path / "a", counted(matrices(4)))
    assert run_containing(run) == run_containing(run / "model") == run
    assert run_containing(tmp_path) is None
    assert file_in(run, "val").name == "counts_val.npz"
    assert SplitConfusions.read(file_in(run, "val")).weights == weights_of(run) == "a"
    (run / "model" / "config.json").write_text("no json")
    assert weights_of(run) == ""
    assert save_next_to_run(counted(matrices(4), split="test"), run) == run / "counts_test.npz"


def test_a_name_that_compare_would_not_accept(tmp_path: Path) -> None:
    require_npz(tmp_path / "a.npz")
    with pytest.raises(FullconvError, match=r"saved as .npz, not as 'my counts.zip'") as caught:
        require_npz(tmp_path / "my counts.zip")
    assert caught.value.hint == "--counts 'my counts.zip.npz'"
