"""Every backend against the definition, written out pixel by pixel."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from definition import full_by_definition, loss_by_definition
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from fullconv.core.errors import FullconvError
from fullconv.geometry.grid import Grid
from fullconv.network.kernels import cuda, dispatch, library, native, reference
from fullconv.network.kernels.reference import LossOptions

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
BACKENDS = ["reference", *(f"native {name}" for name in native.INSTRUCTIONS), "triton"]


@pytest.fixture(params=BACKENDS)
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Force a backend for the time of a test, and yield the device of its tensors."""
    name, _, instructions = request.param.partition(" ")
    if name == "triton" and not INTERPRETED and not cuda.available():
        pytest.skip("no GPU: runs in the process that test_cuda.py starts")
    monkeypatch.setenv(library.VARIABLE, name)
    if not instructions:
        yield "cuda" if name == "triton" and not INTERPRETED else "cpu"
        return
    if not native.available():
        pytest.skip("no compiler when the package was installed")
    before = native.instructions()
    try:
        native.instructions(instructions)
    except FullconvError as error:
        pytest.skip(error.message)
    yield "cpu"
    native.instructions(before)


def loss_and_gradient(
    values: Tensor, device: str, loss: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """Compute a loss of scores and its gradient on a device."""
    scores = values.detach().clone(memory_format=torch.preserve_format)
    scores = scores.to(device).requires_grad_()
    result = loss(scores)
    result.backward()
    return result.detach().cpu(), scores.grad.cpu()


@st.composite
def cases(draw: st.DrawFn) -> dict[str, Any]:
    """Few pixels, because the definition is slow; everything else is random."""
    size = draw(st.sampled_from([(1, 1), (1, 7), (5, 1), (3, 5), (7, 4), (8, 8), (2, 13)]))
    classes = draw(st.sampled_from([1, 2, 3, 5, 17]))
    count = draw(st.integers(1, 2))
    cells = (draw(st.integers(1, 5)), draw(st.integers(1, 5)))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    target = torch.randint(0, classes, (count, *size), generator=generator)
    ignored = torch.rand(target.shape, generator=generator) < draw(st.sampled_from([0, 0.3, 1]))
    target = target.masked_fill(ignored, 255)
    values = torch.randn(count, classes, *cells, generator=generator)
    layout = draw(st.sampled_from([torch.contiguous_format, torch.channels_last]))
    weights = torch.rand(classes, generator=generator) + 0.1
    grids = [
        Grid(draw(st.sampled_from([1, 2, 2.5, 4, 8, 16, 32])), draw(st.integers(-80, 80)) / 2)
        for _ in range(draw(st.sampled_from([1, 1, 2])))
    ]
    class_weights = draw(st.sampled_from([None, weights]))
    return {
        "values": (draw(st.sampled_from([1.0, 30.0])) * values).to(memory_format=layout),
        "grid": grids[0] if len(grids) == 1 else tuple(grids),
        "target": target.to(draw(st.sampled_from([torch.uint8, torch.int32, torch.int64]))),
        "options": LossOptions(255, class_weights, draw(st.sampled_from([0.0, 0.1, 1.0]))),
    }


HERE = settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])


@given(case=cases())
@HERE
def test_loss_and_gradient_are_as_defined(device: str, case: dict[str, Any]) -> None:
    values, grid, target, options = case.values()
    loss, gradient = loss_and_gradient(
        values, device, lambda scores: 3 * dispatch.loss(scores, grid, target.to(device), options)
    )
    expected, exact = loss_and_gradient(
        values.double(),
        "cpu",
        lambda scores: 3 * loss_by_definition(scores, grid, target, *options),
    )
    assert loss.item() == pytest.approx(expected.item(), rel=2e-6, abs=6e-6)
    # With one class the softmax and the target cancel; what is left is float32 rounding of 3.
    assert (gradient - exact).abs().max() <= 3e-6 * max(exact.abs().max().item(), 0.1)


@given(case=cases())
@HERE
def test_labels_and_confidence_are_as_defined(device: str, case: dict[str, Any]) -> None:
    values, grid, target, _ = case.values()
    size = (target.shape[1], target.shape[2])
    expected = full_by_definition(values.double(), grid, size)
    labels = dispatch.labels(values.to(device), grid, size).cpu()
    assert labels.shape == target.shape
    best = expected.max(dim=1).values
    score = expected.gather(1, labels.long()[:, None])[:, 0]
    assert (best - score).max() <= 1e-6 * values.abs().max()
    confidence = dispatch.confidence(values.to(device), grid, size).cpu()
    share = expected.softmax(dim=1).max(dim=1).values
    assert (confidence - share).abs().max() <= 3e-6 * max(1.0, float(values.abs().max()))


def smooth_scores(classes: int, cells: tuple[int, int], seed: int = 0, count: int = 2) -> Tensor:
    """Like those of a network: neighbors are similar."""
    generator = torch.Generator().manual_seed(seed)
    coarse = 4 * torch.randn(count, classes, 4, 5, generator=generator)
    return F.interpolate(coarse, size=cells, mode="bicubic")


@pytest.mark.skipif(INTERPRETED, reason="too slow in the interpreter of Triton")
@pytest.mark.parametrize("classes", [2, 11, 21, 150, 300])
@pytest.mark.parametrize("grid", [Grid(8, 3.5), Grid(8, 0), Grid(32, 15.5), Grid(4, -7)])
def test_a_whole_image(device: str, classes: int, grid: Grid) -> None:
    """Sizes at which every part of the walk runs: tiles, ends of rows, gaps of all lengths."""
    size = (int(grid.stride * 4) + 5, int(min(grid.stride, 8) * 40) + 3)
    values = smooth_scores(classes, (5, 41))
    generator = torch.Generator().manual_seed(1)
    target = torch.randint(0, classes, (2, *size), generator=generator)
    target[:, 2:9, 5:70] = -100
    loss, gradient = loss_and_gradient(
        values, device, lambda s: dispatch.loss(s, grid, target.to(device), LossOptions(-100))
    )
    full = reference.full(values.double(), grid, size)
    expected, exact = loss_and_gradient(
        values.double(), "cpu", lambda s: F.cross_entropy(reference.full(s, grid, size), target)
    )
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    assert (gradient - exact).abs().max() <= 1e-6 * exact.abs().max()
    labels = dispatch.labels(values.to(device), grid, size).cpu()
    gap = full.max(dim=1).values - full.gather(1, labels.long()[:, None])[:, 0]
    assert gap.max() <= 1e-6 * values.abs().max()
    confidence = dispatch.confidence(values.to(device), grid, size).cpu()
    assert (confidence - full.softmax(dim=1).amax(dim=1)).abs().max() < 1e-5


def test_the_gradient_is_no_less_exact_than_that_of_torch(device: str) -> None:
    """The error against float64, beside that of interpolate and cross_entropy in float32."""
    size = (48, 64) if INTERPRETED else (160, 240)
    classes, count = (11, 1) if INTERPRETED else (21, 2)
    values = smooth_scores(classes, (size[0] // 8, size[1] // 8), count=count)
    generator = torch.Generator().manual_seed(1)
    target = torch.randint(0, classes, (count, *size), generator=generator)

    def plain(scores: Tensor) -> Tensor:
        full = F.interpolate(scores, size=size, mode="bilinear")
        return F.cross_entropy(full, target.to(scores.device))

    def ours(scores: Tensor) -> Tensor:
        return dispatch.loss(scores, Grid(8, 3.5), target.to(scores.device))

    exact = loss_and_gradient(values.double(), "cpu", plain)[1]
    error = (loss_and_gradient(values, device, plain)[1] - exact).abs().max()
    assert (loss_and_gradient(values, device, ours)[1] - exact).abs().max() <= error


@pytest.mark.parametrize("scale", [200.0, 1e4, 1e8])
def test_scores_far_apart(device: str, scale: float) -> None:
    """Between two cells with different confident classes every exponential relative to the
    corners vanishes in float32: the pixel's own maximum is needed."""
    values = scale * torch.tensor([[1.0, -1.0], [-1.0, 1.0], [0.2, 0.2]]).view(1, 3, 1, 2)
    target = torch.randint(0, 3, (1, 3, 16), generator=torch.Generator().manual_seed(0))
    grid = Grid(8, 3.5)
    loss, gradient = loss_and_gradient(
        values, device, lambda scores: dispatch.loss(scores, grid, target.to(device))
    )
    expected, exact = loss_and_gradient(
        values.double(), "cpu", lambda s: F.cross_entropy(reference.full(s, grid, (3, 16)), target)
    )
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    assert (gradient - exact).abs().max() < 1e-5
    labels = dispatch.labels(values.to(device), grid, (1, 16))
    assert labels[0, 0].tolist() == [0] * 7 + [2, 2] + [1] * 7
    assert dispatch.confidence(values.to(device), grid, (3, 16)).min() > 0.5


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.filterwarnings("ignore:.*encountered:RuntimeWarning")  # of NumPy, which interprets
def test_scores_that_are_not_finite(device: str, bad: float) -> None:
    values = smooth_scores(5, (3, 4)).to(device)
    values[1, 2, 1, 1] = bad
    target = torch.zeros(2, 20, 30, dtype=torch.uint8, device=device)
    loss, gradient = loss_and_gradient(
        values, device, lambda scores: dispatch.loss(scores, Grid(8, 0), target)
    )
    assert math.isnan(loss.item())
    assert gradient.isnan().any()
    for function in (dispatch.labels, dispatch.confidence):
        with pytest.raises(FullconvError, match="scores are NaN or infinite"):
            function(values, Grid(8, 0), (20, 30))


STRAY_IDS = [
    (dtype, stray)
    for dtype in (torch.int8, torch.int16, torch.int32, torch.int64)
    for stray in (-1, 5, 100)
]


@pytest.mark.parametrize(
    ("dtype", "stray"), [(torch.uint8, 100), *STRAY_IDS, (torch.int64, 2**32 + 1)]
)
def test_an_id_out_of_range_is_named(device: str, dtype: torch.dtype, stray: int) -> None:
    """2**32 + 1 would be a class in 32 bits."""
    target = torch.zeros(2, 9, 40, dtype=dtype)
    target[1, 7, 33] = stray
    values, target = torch.zeros(2, 5, 2, 5, device=device), target.to(device)
    message = rf"class ids \[{stray}\]; expected 0..4, or 99 for ignored"
    with pytest.raises(FullconvError, match=message):
        dispatch.loss(values, Grid(8, 0), target, LossOptions(99))
    loss = dispatch.loss(values, Grid(8, 0), target, LossOptions(stray))
    assert loss.item() == pytest.approx(math.log(5))


def test_an_ignored_id_that_wraps_to_another(device: str) -> None:
    """In 8 bits, -1 would be 255."""
    target = torch.full((1, 2, 2), 255, dtype=torch.uint8, device=device)
    message = r"class ids \[255\]; expected 0..2, or -1 for ignored"
    with pytest.raises(FullconvError, match=message):
        dispatch.loss(torch.zeros(1, 3, 1, 1, device=device), Grid(8, 0), target, LossOptions(-1))


@pytest.mark.parametrize("weights", [None, torch.tensor([1.0, 2.0])])
def test_the_loss_of_ignored_pixels_is_zero(device: str, weights: Tensor | None) -> None:
    target = torch.full((1, 9, 9), 255, dtype=torch.uint8, device=device)
    options = LossOptions(255, weights, 0.1)
    loss, gradient = loss_and_gradient(
        torch.randn(1, 2, 3, 3), device, lambda s: dispatch.loss(s, Grid(4, 0), target, options)
    )
    assert loss.item() == 0.0
    assert gradient.abs().max() == 0


def test_a_class_of_weight_zero(device: str) -> None:
    """Equals ignoring it; without another class the loss is 0, not NaN."""
    values = torch.randn(1, 2, 3, 3).to(device)
    weighted = LossOptions(class_weights=torch.tensor([0.0, 1.0]))
    target = torch.zeros(1, 9, 9, dtype=torch.uint8, device=device)
    assert dispatch.loss(values, Grid(4, 0), target, weighted).item() == 0.0
    target[0, 0, 0] = 1
    ignoring = dispatch.loss(values, Grid(4, 0), target, LossOptions(ignore_index=0))
    assert dispatch.loss(values, Grid(4, 0), target, weighted) == ignoring


def test_the_lowest_class_wins_a_tie(device: str) -> None:
    tied = torch.tensor([0.0, 1.0, 1.0]).view(1, 3, 1, 1).expand(1, 3, 2, 2)
    crossed = torch.tensor([[1.0, 1.0], [1.0, 0.0], [0.0, 1.0]]).view(1, 3, 1, 2)
    for values, expected in ((torch.zeros(1, 40, 2, 2), 0), (tied, 1), (crossed, 0)):
        labels = dispatch.labels(values.to(device), Grid(4, 0), (5, 5))
        assert labels.unique().tolist() == [expected]


@pytest.mark.parametrize(
    ("classes", "dtype"), [(255, torch.uint8), (256, torch.uint16), (300, torch.uint16)]
)
def test_ids_have_the_smallest_type_that_holds_them(
    device: str, classes: int, dtype: torch.dtype
) -> None:
    values = torch.zeros(1, classes, 2, 2, device=device)
    values[:, classes - 1] = 1
    ids = dispatch.labels(values, Grid(8, 0), (2, 2) if INTERPRETED else (9, 9))
    assert ids.dtype == dtype
    assert (ids.long() == classes - 1).all()


def test_views_need_no_copy(device: str) -> None:
    """Channels-last, transposed, sliced and expanded scores, and a transposed target."""
    cells, size = ((3, 5), (17, 33)) if INTERPRETED else ((7, 9), (50, 66))
    values = smooth_scores(6, cells).to(device)
    target = torch.randint(0, 6, (2, *size), generator=torch.Generator().manual_seed(3)).to(device)
    wide = torch.zeros(2, 12, cells[0], 2 * cells[1], device=device)
    wide[:, ::2, :, ::2] = values
    views = [
        values.contiguous(memory_format=torch.channels_last),
        values.transpose(2, 3).contiguous().transpose(2, 3),
        wide[:, ::2, :, ::2],
    ]

    def results(scores: Tensor) -> list[Tensor]:
        return [
            *loss_and_gradient(scores, device, lambda s: dispatch.loss(s, Grid(8, 3), target)),
            dispatch.labels(scores, Grid(8, 3), size),
            dispatch.confidence(scores, Grid(8, 3), size),
        ]

    expected = results(values)
    for view in views:
        for actual, exact in zip(results(view), expected, strict=True):
            torch.testing.assert_close(actual, exact)
    repeated = values[:1].expand(2, -1, -1, -1)
    assert torch.equal(*dispatch.labels(repeated, Grid(8, 3), size))
    turned = target.transpose(1, 2).contiguous().transpose(1, 2)
    assert dispatch.loss(values, Grid(8, 3), turned).item() == expected[0].item()


def test_every_sum_repeats_exactly(device: str) -> None:
    size = (20, 60) if INTERPRETED else (500, 700) if device == "cuda" else (60, 60)
    values = smooth_scores(4, (3, 7) if INTERPRETED else (8, 8))
    target = torch.randint(0, 4, (2, *size), generator=torch.Generator().manual_seed(3)).to(device)
    first, *others = (
        loss_and_gradient(values, device, lambda s: dispatch.loss(s, Grid(8, 0), target))
        for _ in range(10 if device == "cuda" else 2)
    )
    for loss, gradient in others:
        assert torch.equal(loss, first[0])
        assert torch.equal(gradient, first[1])


def test_no_gradient_is_computed_unless_requested(device: str) -> None:
    values = torch.randn(1, 2, 3, 3).to(device)
    target = torch.zeros(1, 9, 9, dtype=torch.uint8, device=device)
    loss = dispatch.loss(values, Grid(4, 0), target)
    assert not loss.requires_grad
    with torch.no_grad():
        again = dispatch.loss(values.clone().requires_grad_(), Grid(4, 0), target.long())
    assert loss.item() == pytest.approx(again.item())
    assert not again.requires_grad


def test_invalid_options(device: str) -> None:
    values = torch.zeros(1, 5, 2, 2, device=device)
    target = torch.zeros(1, 9, 9, dtype=torch.uint8, device=device)
    shape = r"class_weights has the shape \(2,\); expected one .* 5 classes"
    for options, message in (
        (LossOptions(255, torch.ones(2)), shape),
        (LossOptions(label_smoothing=1.5), r"label_smoothing is 1\.5; expected 0 to 1"),
    ):
        with pytest.raises(FullconvError, match=message):
            dispatch.loss(values, Grid(8, 0), target, options)
    message = f"target is on meta but the scores are on {device}"
    with pytest.raises(FullconvError, match=message) as caught:
        dispatch.loss(values, Grid(8, 0), target.to("meta"))
    assert caught.value.hint == "target = target.to(scores.values.device)"


def test_a_gradient_of_the_gradient_is_refused(device: str) -> None:
    values = torch.randn(1, 2, 3, 3).to(device).requires_grad_()
    target = torch.zeros(1, 9, 9, dtype=torch.uint8, device=device)
    factor = torch.tensor(2.0, requires_grad=True, device=device)
    loss = factor * dispatch.loss(values, Grid(4, 0), target)
    (slope,) = torch.autograd.grad(loss, values, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.sum().backward()


def test_an_unknown_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(library.VARIABLE, "fortran")
    with pytest.raises(FullconvError, match="is 'fortran'; choose from native, triton"):
        dispatch.labels(torch.zeros(1, 2, 2, 2), Grid(8, 0), (9, 9))


def test_other_types_use_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(library.VARIABLE, raising=False)
    assert dispatch.select_backend(torch.zeros(1, 1, 1, 1, dtype=torch.float64)) is reference
    monkeypatch.setenv(library.VARIABLE, "native")
    if native.available():
        message = r"type torch\.float64 on cpu; the compiled kernels"
        with pytest.raises(FullconvError, match=message):
            dispatch.labels(torch.zeros(1, 2, 2, 2).double(), Grid(8, 0), (9, 9))
