"""Triton only. test_dispatch.py compares it with the definition: on a GPU where there is one, and
else in the interpreter of Triton, which runs the same programs on the CPU, slowly. It has to be
chosen before Triton is imported, so there these tests run in a process of their own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from fullconv.core.errors import FullconvError
from fullconv.geometry.grid import Grid
from fullconv.network.kernels import cuda, dispatch, library
from fullconv.network.kernels.reference import LossOptions

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
runs = pytest.mark.skipif(
    not INTERPRETED and not cuda.available(),
    reason="no GPU: runs in the process that test_in_the_interpreter_of_triton starts",
)
on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
not_here = pytest.mark.skipif(INTERPRETED, reason="Triton runs on the CPU in this process")


@not_here
@pytest.mark.skipif(torch.cuda.is_available(), reason="these tests run on the GPU")
def test_in_the_interpreter_of_triton() -> None:
    pytest.importorskip("triton", reason="there is no Triton for this system")
    files = [__file__, str(Path(__file__).with_name("test_dispatch.py"))]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *files, "-k", "triton or test_cuda"],
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    passed = re.search(r"(\d+) passed", done.stdout)
    assert int(passed[1]) > 35, done.stdout


@runs
def test_sums_are_in_double_precision_and_the_gradient_like_the_scores() -> None:
    values = torch.randn(1, 2, 3, 3).to(DEVICE, memory_format=torch.channels_last)
    target = torch.zeros(1, 9, 9, dtype=torch.uint8, device=DEVICE)
    total, weight, gradient = cuda.loss_and_gradient(
        values, Grid(4, 0), target, LossOptions(), True
    )
    assert total.dtype == weight.dtype == torch.float64
    assert weight == 81
    assert gradient.stride() == values.stride()
    assert cuda.loss_and_gradient(values, Grid(4, 0), target, LossOptions(), False)[2] is None


@runs
def test_an_image_without_pixels() -> None:
    values = torch.zeros(0, 3, 2, 2, device=DEVICE)
    target = torch.zeros(0, 6, 6, dtype=torch.uint8, device=DEVICE)
    assert cuda.loss_and_gradient(values, Grid(4, 0), target, LossOptions(), True)[0] == 0
    assert cuda.labels(values, Grid(4, 0), (6, 6)).shape == (0, 6, 6)


@on_a_gpu
def test_no_more_memory_than_two_numbers_a_pixel() -> None:
    """150 classes at 1000 x 1000 pixels would be 600 MB of scores."""
    values = torch.randn(1, 150, 125, 125, device="cuda")
    target = torch.randint(0, 150, (1, 1000, 1000), device="cuda", dtype=torch.uint8)

    def peak(function: Callable[[], Any]) -> int:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        return torch.cuda.max_memory_allocated() - before

    assert peak(lambda: cuda.labels(values, Grid(8, 3.5), (1000, 1000))) < 2e6 + 2 * values.nbytes
    loss = partial(cuda.loss_and_gradient, values, Grid(8, 3.5), target, LossOptions(), True)
    assert peak(loss) < 9e6 + 2 * values.nbytes


@not_here
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton", reason="there is no Triton for this system")
    assert not cuda.available()
    monkeypatch.setenv(library.VARIABLE, "triton")
    with pytest.raises(FullconvError, match="PyTorch finds no GPU") as caught:
        dispatch.labels(torch.zeros(1, 2, 2, 2), Grid(8, 0), (9, 9))
    assert caught.value.hint == "export FULLCONV_KERNELS=reference"
    with pytest.raises(FullconvError, match="PyTorch finds no GPU"):
        dispatch.loss(torch.zeros(1, 2, 2, 2), Grid(8, 0), torch.zeros(1, 9, 9).long())


def test_without_triton_it_says_so_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    without = SimpleNamespace(INSTALLED=False, INTERPRETED=False)
    monkeypatch.setattr(cuda, "cuda_kernels", lambda: without)
    assert not cuda.available()
    monkeypatch.setenv(library.VARIABLE, "triton")
    with pytest.raises(FullconvError, match="package triton is not installed") as caught:
        dispatch.confidence(torch.zeros(1, 2, 2, 2), Grid(8, 0), (9, 9))
    assert caught.value.hint == "export FULLCONV_KERNELS=reference"


@runs
def test_what_it_cannot_read_is_named() -> None:
    half = torch.zeros(1, 2, 2, 2, device=DEVICE).half()
    with pytest.raises(FullconvError, match=r"needs float32 scores; these are torch\.float16"):
        cuda.labels(half, Grid(8, 0), (9, 9))
    elsewhere = torch.zeros(1, 9, 9, dtype=torch.uint8, device="meta")
    with pytest.raises(FullconvError, match="target is on meta but the scores are on"):
        cuda.require(torch.zeros(1, 2, 2, 2, device=DEVICE), elsewhere)
