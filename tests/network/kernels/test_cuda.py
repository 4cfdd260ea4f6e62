"""The readings in Triton against their definition: on a GPU where there is one, and else in the
interpreter of Triton, which runs the same programs on the CPU, slowly. It has to be chosen before
Triton is imported, so there these tests run in a process of their own."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from definition import full_by_definition
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

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
    done = subprocess.run(
        [sys.executable, "-m", "pytest", __file__],
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    passed = re.search(r"(\d+) passed", done.stdout)
    assert int(passed[1]) > 15, done.stdout


def here(tensor: Tensor) -> Tensor:
    """On the device, with the same strides."""
    return tensor.to(DEVICE)


def expected_loss(
    values: Tensor, grid: Grid, target: Tensor, weights: Tensor, smoothing: float
) -> tuple[Tensor, float]:
    """In float64, the sums over the pixels that are not 255."""
    scores = full_by_definition(values, grid, (target.shape[1], target.shape[2]))
    counts = target != 255
    true = F.one_hot(target.masked_fill(~counts, 0), values.shape[1]).movedim(3, 1)
    share = (1 - smoothing) * true + smoothing / values.shape[1]
    losses = -(share * weights.view(1, -1, 1, 1) * scores.log_softmax(dim=1)).sum(dim=1)
    return losses[counts].sum(), float(weights[target[counts]].sum())


@st.composite
def cases(draw: st.DrawFn) -> dict[str, Any]:
    size = (draw(st.integers(1, 24)), draw(st.integers(1, 24)))
    classes, count = draw(st.integers(1, 40)), draw(st.integers(1, 2))
    cells = (draw(st.integers(1, 5)), draw(st.integers(1, 6)))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    values = torch.randn(count, classes, *cells, generator=generator)
    target = torch.randint(0, classes, (count, *size), generator=generator)
    ignored = torch.rand(target.shape, generator=generator) < draw(st.sampled_from([0, 0.3, 1]))
    weights = torch.rand(classes, generator=generator) + 0.1
    return {
        "values": values.to(
            memory_format=draw(st.sampled_from([torch.contiguous_format, torch.channels_last]))
        ),
        "scale": draw(st.sampled_from([1.0, 30.0])),
        "grid": Grid(
            draw(st.sampled_from([1, 2, 2.5, 4, 8, 16, 32])), draw(st.integers(-80, 80)) / 2
        ),
        "target": target.masked_fill(ignored, 255),
        "dtype": draw(st.sampled_from([torch.uint8, torch.int32, torch.int64])),
        "class_weights": draw(st.sampled_from([None, weights])),
        "label_smoothing": draw(st.sampled_from([0.0, 0.1, 1.0])),
    }


@runs
@given(case=cases())
@settings(max_examples=14)
def test_every_reading_is_as_defined(case: dict[str, Any]) -> None:
    values, grid, target = case["scale"] * case["values"], case["grid"], case["target"]
    weights = case["class_weights"]
    total, weight, gradient = cuda.loss_and_gradient(
        here(values),
        grid,
        here(target.to(case["dtype"])),
        LossOptions(255, weights, case["label_smoothing"]),
        gradient=True,
    )
    exact = values.double().requires_grad_()
    ones = torch.ones(values.shape[1]) if weights is None else weights
    expected, expected_weight = expected_loss(
        exact, grid, target, ones.double(), case["label_smoothing"]
    )
    expected.backward()
    assert total.dtype == weight.dtype == torch.float64
    assert total.item() == pytest.approx(expected.item(), rel=1e-6, abs=1e-6)
    assert weight.item() == pytest.approx(expected_weight, rel=1e-6)
    assert gradient.stride() == values.stride()
    allowed = 2e-7 * max(1.0, weight.item()) * (10 if case["scale"] > 1 else 1)
    assert (gradient.cpu() - exact.grad).abs().max() <= allowed

    size = (target.shape[1], target.shape[2])
    scores = full_by_definition(values.double(), grid, size)
    ids = cuda.labels(here(values), grid, size)
    assert ids.dtype == torch.uint8
    chosen = scores.gather(1, ids.cpu().long()[:, None])[:, 0]
    assert (scores.amax(dim=1) - chosen).max() <= 1e-6 * case["scale"]
    share = cuda.confidence(here(values), grid, size)
    assert (share.cpu() - scores.softmax(dim=1).amax(dim=1)).abs().max() <= 1e-6 * case["scale"]


@runs
def test_the_gradient_is_no_less_exact_than_that_of_torch() -> None:
    """The error against float64, beside that of interpolate and cross_entropy in float32."""
    generator = torch.Generator().manual_seed(0)
    values = 4 * torch.randn(1, 11, 6, 8, generator=generator)
    target = torch.randint(0, 11, (1, 48, 64), generator=generator)

    def by_torch(scores: Tensor) -> Tensor:
        scores = scores.clone().requires_grad_()
        full = F.interpolate(scores, size=(48, 64), mode="bilinear")
        F.cross_entropy(full, target.to(scores.device), reduction="sum").backward()
        return scores.grad.double().cpu()

    exact = by_torch(values.double())
    error = (by_torch(here(values)) - exact).abs().max()
    ours = loss(values, Grid(8, 3.5), target)[2]
    assert (ours.cpu() - exact).abs().max() <= error


def loss(
    values: Tensor, grid: Grid, target: Tensor, ignore_index: int = 255, gradient: bool = True
) -> tuple[Tensor, Tensor, Tensor | None]:
    options = LossOptions(ignore_index)
    return cuda.loss_and_gradient(here(values), grid, here(target), options, gradient)


@runs
@pytest.mark.parametrize("scale", [200.0, 1e4, 1e8])
def test_scores_that_are_far_apart(scale: float) -> None:
    """Between two cells that are sure of different classes every exponential relative to the
    corners vanishes in float32: the pixel's own maximum is needed."""
    values = scale * torch.tensor([[1.0, -1.0], [-1.0, 1.0], [0.2, 0.2]]).view(1, 3, 1, 2)
    target = torch.randint(0, 3, (1, 3, 16), generator=torch.Generator().manual_seed(0))
    exact = values.double().requires_grad_()
    grid = Grid(8, 3.5)
    expected, _ = expected_loss(exact, grid, target, torch.ones(3).double(), 0.0)
    expected.backward()
    total, _, gradient = loss(values, grid, target)
    assert total.item() == pytest.approx(expected.item(), rel=1e-6)
    assert (gradient.cpu() - exact.grad).abs().max() < 1e-5
    ids = cuda.labels(here(values), grid, (1, 16))
    assert ids[0, 0].tolist() == [0] * 7 + [2, 2] + [1] * 7
    assert cuda.confidence(here(values), grid, (1, 16)).min() > 0.5


@runs
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.filterwarnings("ignore:.*encountered:RuntimeWarning")  # of NumPy, which interprets
def test_scores_that_are_not_finite(bad: float) -> None:
    values = torch.randn(2, 5, 3, 4, generator=torch.Generator().manual_seed(0))
    values[1, 2, 1, 1] = bad
    total, _, gradient = loss(values, Grid(8, 3.5), torch.zeros(2, 12, 30, dtype=torch.uint8))
    assert math.isnan(total.item())
    assert gradient.isnan().any()
    for reading in (cuda.labels, cuda.confidence):
        with pytest.raises(FullconvError, match="scores are NaN or infinite"):
            reading(here(values), Grid(8, 3.5), (12, 30))


@runs
@pytest.mark.parametrize(
    ("dtype", "stray"),
    [(torch.uint8, 100), (torch.int8, -1), (torch.int16, 5), (torch.int32, -1), (torch.int64, 100)],
)
def test_an_id_out_of_range_is_named(dtype: torch.dtype, stray: int) -> None:
    target = torch.zeros(2, 5, 40, dtype=dtype)
    target[1, 4, 33] = stray
    values, grid = torch.zeros(2, 5, 2, 5), Grid(8, 0)
    message = rf"class ids \[{stray}\]; expected 0..4, or 99 for ignored"
    with pytest.raises(FullconvError, match=message):
        loss(values, grid, target, ignore_index=99)
    total, weight, _ = loss(values, grid, target, ignore_index=stray)
    assert total.item() == pytest.approx(399 * math.log(5))
    assert weight == 399


@runs
def test_an_id_that_only_wraps_to_a_class() -> None:
    target = torch.full((1, 2, 2), 2**32 + 1)
    with pytest.raises(FullconvError, match=r"class ids \[4294967297\]"):
        loss(torch.zeros(1, 3, 1, 1), Grid(8, 0), target)
    ignored = torch.full((1, 2, 2), 255, dtype=torch.uint8)
    with pytest.raises(FullconvError, match=r"class ids \[255\]; expected 0..2, or -1 for ignored"):
        loss(torch.zeros(1, 3, 1, 1), Grid(8, 0), ignored, ignore_index=-1)


@runs
def test_the_lowest_class_wins_a_tie() -> None:
    grid = Grid(4, 0)
    assert cuda.labels(here(torch.zeros(1, 40, 2, 2)), grid, (5, 5)).unique().tolist() == [0]
    tied = torch.tensor([0.0, 1.0, 1.0]).view(1, 3, 1, 1).expand(1, 3, 2, 2)
    assert cuda.labels(here(tied), grid, (5, 5)).unique().tolist() == [1]
    crossed = torch.tensor([[1.0, 1.0], [1.0, 0.0], [0.0, 1.0]]).view(1, 3, 1, 2)
    assert cuda.labels(here(crossed), grid, (5, 5)).unique().tolist() == [0]


@runs
@pytest.mark.parametrize(
    ("classes", "dtype"), [(255, torch.uint8), (256, torch.uint16), (300, torch.uint16)]
)
def test_ids_have_the_smallest_type_that_holds_them(classes: int, dtype: torch.dtype) -> None:
    values = torch.zeros(1, classes, 2, 2)
    values[:, classes - 1] = 1
    ids = cuda.labels(here(values), Grid(8, 0), (2, 2))
    assert ids.dtype == dtype
    assert (ids.long() == classes - 1).all()


@runs
def test_views_are_read_where_they_lie() -> None:
    """Transposed, sliced and expanded scores, and a transposed target."""
    generator = torch.Generator().manual_seed(3)
    values = torch.randn(2, 6, 3, 5, generator=generator)
    target = torch.randint(0, 6, (2, 17, 33), generator=generator)
    wide = torch.zeros(2, 12, 3, 10)
    wide[:, ::2, :, ::2] = values
    views = [values.transpose(2, 3).contiguous().transpose(2, 3), wide[:, ::2, :, ::2]]
    grid = Grid(8, 3)
    expected = loss(values, grid, target)
    for view in views:
        for ours, theirs in zip(loss(view, grid, target), expected, strict=True):
            assert torch.equal(ours, theirs)
        ids, share = (read(here(view), grid, (17, 33)) for read in (cuda.labels, cuda.confidence))
        assert torch.equal(ids, cuda.labels(here(values), grid, (17, 33)))
        assert torch.equal(share, cuda.confidence(here(values), grid, (17, 33)))
    one = here(values[:1]).expand(2, -1, -1, -1)
    assert torch.equal(*cuda.labels(one, grid, (17, 33)))
    turned = target.transpose(1, 2).contiguous().transpose(1, 2)
    assert loss(values, grid, turned)[0] == expected[0]


@runs
def test_nothing_that_counts_is_a_sum_of_zero() -> None:
    values, grid = torch.randn(1, 3, 2, 2), Grid(4, 0)
    total, weight, gradient = loss(values, grid, torch.full((1, 6, 6), 255, dtype=torch.uint8))
    assert total == weight == 0
    assert gradient.abs().max() == 0
    none = torch.zeros(0, 6, 6, dtype=torch.uint8)
    assert loss(torch.zeros(0, 3, 2, 2), grid, none)[0] == 0
    assert cuda.labels(here(torch.zeros(0, 3, 2, 2)), grid, (6, 6)).shape == (0, 6, 6)


@runs
def test_no_gradient_is_computed_where_none_is_asked() -> None:
    values = torch.randn(1, 2, 3, 3)
    target = torch.zeros(1, 9, 9, dtype=torch.uint8)
    total, _, gradient = loss(values, Grid(4, 0), target, gradient=False)
    assert gradient is None
    assert total.item() == pytest.approx(loss(values, Grid(4, 0), target)[0].item())


@runs
def test_every_sum_repeats_exactly() -> None:
    """No order is left to chance. Four gaps of columns in one program, and pixels beyond them."""
    size = (20, 60) if INTERPRETED else (500, 700)
    generator = torch.Generator().manual_seed(3)
    values = torch.randn(2, 4, 3, 7, generator=generator)
    target = torch.randint(0, 4, (2, *size), generator=generator)
    first = loss(values, Grid(8, 0), target)
    for _ in range(1 if INTERPRETED else 10):
        for ours, theirs in zip(loss(values, Grid(8, 0), target), first, strict=True):
            assert torch.equal(ours, theirs)


@on_a_gpu
def test_no_more_memory_than_two_numbers_a_pixel() -> None:
    """150 classes at 1000 x 1000 pixels would be 600 MB of scores."""
    values = torch.randn(1, 150, 125, 125, device="cuda")
    target = torch.randint(0, 150, (1, 1000, 1000), device="cuda", dtype=torch.uint8)

    def peak(reading: Any) -> int:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        reading()
        return torch.cuda.max_memory_allocated() - before

    assert peak(lambda: cuda.labels(values, Grid(8, 3.5), (1000, 1000))) < 2e6 + 2 * values.nbytes
    assert peak(lambda: loss(values, Grid(8, 3.5), target)) < 9e6 + 2 * values.nbytes


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
    half = here(torch.zeros(1, 2, 2, 2)).half()
    with pytest.raises(FullconvError, match=r"needs float32 scores; these are torch\.float16"):
        cuda.labels(half, Grid(8, 0), (9, 9))
    elsewhere = torch.zeros(1, 9, 9, dtype=torch.uint8, device="meta")
    with pytest.raises(FullconvError, match="target is on meta but the scores are on"):
        cuda.require(here(torch.zeros(1, 2, 2, 2)), elsewhere)
