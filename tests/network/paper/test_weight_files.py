from __future__ import annotations

import collections
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from caffemodel import write_caffemodel
from safetensors.torch import save_file

from fullconv.core.errors import FullconvError
from fullconv.network.paper.weight_files import read_weights

TENSORS = {"conv1_1.weight": torch.randn(4, 3, 3, 3), "conv1_1.bias": torch.randn(4)}


def saved(path: Path, thing: Any, *, zipped: bool = True) -> Path:
    torch.save(thing, path, _use_new_zipfile_serialization=zipped)
    return path


def assert_the_same(path: Path, kind: str, architecture: str = "") -> None:
    actual = read_weights(path)
    assert (actual.kind, actual.architecture, actual.path) == (kind, architecture, path)
    assert list(actual.tensors) == list(TENSORS)
    assert all(torch.equal(actual.tensors[name], TENSORS[name]) for name in TENSORS)


def test_a_caffemodel(tmp_path: Path) -> None:
    path = tmp_path / "weights"  # by content, not by name
    write_caffemodel(path, {"relu": [], "conv1_1": list(TENSORS.values())})
    assert_the_same(path, "caffe")


def test_safetensors(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "weights.safetensors")
    actual = read_weights(tmp_path / "weights.safetensors")
    assert actual.kind == "safetensors"
    assert all(torch.equal(actual.tensors[name], TENSORS[name]) for name in TENSORS)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_state_dict(tmp_path: Path, zipped: bool) -> None:
    """Files from before PyTorch 1.6 are no zip archives."""
    assert_the_same(saved(tmp_path / "fcn8s.pth", TENSORS, zipped=zipped), "torch")
    ordered = collections.OrderedDict(TENSORS)
    assert_the_same(saved(tmp_path / "fcn8s", ordered, zipped=zipped), "torch")


@pytest.mark.parametrize("score", [0.5, np.float64(0.5), np.float32(0.5)])
@pytest.mark.parametrize("key", ["model_state_dict", "state_dict", "model"])
def test_a_checkpoint(tmp_path: Path, key: str, score: Any) -> None:
    """As pytorch-fcn's trainer writes it: its best score is a number of NumPy."""
    checkpoint = {"epoch": 3, "arch": "FCN8sAtOnce", key: TENSORS, "best_mean_iu": score}
    path = saved(tmp_path / "checkpoint.pth.tar", checkpoint)
    assert_the_same(path, "torch", "FCN8sAtOnce")


def test_weights_of_several_gpus(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pth", {f"module.{name}": t for name, t in TENSORS.items()})
    assert_the_same(path, "torch")


class Surprise:
    """Unpickling it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_a_pickle_that_needs_code_is_refused_and_not_run(tmp_path: Path) -> None:
    for zipped in (True, False):
        path = saved(tmp_path / "a.pth", {"a": Surprise(tmp_path / "run")}, zipped=zipped)
        with pytest.raises(FullconvError, match="a pickle that holds more than weights") as caught:
            read_weights(path)
        assert "torch.save(network.state_dict()" in caught.value.hint
    whole = saved(tmp_path / "whole.pth", torch.nn.Conv2d(1, 1, 1))  # a network, not its weights
    with pytest.raises(FullconvError, match="a pickle that holds more than weights"):
        read_weights(whole)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("thing", "message"),
    [
        ([1, 2], "contains no weights but list"),
        ({}, "contains no weights but an empty dict"),
        ({"epoch": 3, "lr": 0.1}, "contains no weights but a dict with the keys epoch, lr"),
        ({"model": {"a": 1}}, "contains no weights but a dict with the keys a"),
    ],
)
def test_a_file_without_weights(tmp_path: Path, thing: Any, message: str) -> None:
    with pytest.raises(FullconvError, match=message):
        read_weights(saved(tmp_path / "a.pth", thing))


def test_damaged_files_and_others(tmp_path: Path) -> None:
    whole = saved(tmp_path / "a.pth", TENSORS).read_bytes()
    old = saved(tmp_path / "a.pth", TENSORS, zipped=False).read_bytes()
    for content in (whole[:-200], whole[:40], old[:-8], old[:9], b"PK\3\4 nothing", b"\x80"):
        (tmp_path / "a.pth").write_bytes(content)
        with pytest.raises(FullconvError, match=r"a.pth is damaged or not a weight file"):
            read_weights(tmp_path / "a.pth")
    (tmp_path / "a").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(99))
    with pytest.raises(FullconvError, match="is an HDF5 file"):
        read_weights(tmp_path / "a")
    (tmp_path / "a").write_bytes(b"\x10\0\0\0\0\0\0\0{" + bytes(9))
    with pytest.raises(FullconvError, match="cannot be read"):
        read_weights(tmp_path / "a")
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(FullconvError, match="cannot be read"):
        read_weights(tmp_path / "a")
    with pytest.raises(FullconvError, match=r"gone.pth cannot be read: No such file"):
        read_weights(tmp_path / "gone.pth")
    with pytest.raises(FullconvError, match="cannot be read: Is a directory"):
        read_weights(tmp_path)
