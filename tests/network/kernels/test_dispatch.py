"""Every backend to read scores against the definition, written out pixel by pixel."""

from __future__ import annotations

import math
from collections.abc import Iterator
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
from fullconv.network.kernels import dispatch, library, native, reference
from fullconv.network.kernels.reference import LossOptions

BACKENDS = ["reference", *(f"native {name}" for name in native.INSTRUCTIONS)]


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Forced for the time of a test."""
    name, _, instructions = request.param.partition(" ")
    monkeypatch.setenv(library.VARIABLE, name)
    if not instructions:
        yield name
        return
    if not native.available():
        pytest.skip("no compiler when the package was installed")
    before = native.instructions()
    try:
        native.instructions(instructions)
    except FullconvError as error:
        pytest.skip(error.message)
    yield name
    native.instructions(before)


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
    values = torch.randn(count, classes, *cells, generator=generator)
    layout = draw(st.sampled_from([torch.contiguous_format, torch.channels_last]))
    weights = torch.rand(classes, generator=generator) + 0.1
    grids = [
        Grid(draw(st.sampled_from([1, 2, 2.5, 4, 8, 16, 32])), draw(st.integers(-80, 80)) / 2)
        for _ in range(draw(st.sampled_from([1, 1, 2])))
    ]
    return {
        "values": (draw(st.sampled_from([1.0, 30.0])) * values).to(memory_format=layout),
        "grid": grids[0] if len(grids) == 1 else tuple(grids),
        "target": target.masked_fill(ignored, 255),
        "class_weights": draw(st.sampled_from([None, weights])),
        "label_smoothing": draw(st.sampled_from([0.0, 0.1, 1.0])),
    }


HERE = settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])


@given(case=cases())
@HERE
def test_loss_and_gradient_are_as_defined(backend: str, case: dict[str, Any]) -> None:
    options = LossOptions(255, case["class_weights"], case["label_smoothing"])
    scores = case["values"].clone().requires_grad_()
    loss = dispatch.loss(scores, case["grid"], case["target"], options)
    (3 * loss).backward()
    exact = case["values"].double().requires_grad_()
    expected = loss_by_definition(exact, case["grid"], case["target"], *options)
    (3 * expected).backward()
    assert loss.item() == pytest.approx(expected.item(), rel=2e-6, abs=2e-6)
    largest = exact.grad.abs().max().item()
    # With one class the softmax and the target cancel; what is left is float32 rounding of 3.
    assert (scores.grad - exact.grad).abs().max() <= 3e-6 * max(largest, 0.1)


@given(case=cases())
@HERE
def test_labels_and_confidence_are_as_defined(backend: str, case: dict[str, Any]) -> None:
    values, grid = case["values"], case["grid"]
    size = (case["target"].shape[1], case["target"].shape[2])
    expected = full_by_definition(values.double(), grid, size)
    labels = dispatch.labels(values, grid, size)
    assert labels.shape == case["target"].shape
    best = expected.max(dim=1).values
    score = expected.gather(1, labels.long()[:, None])[:, 0]
    assert (best - score).max() <= 1e-6 * values.abs().max()
    confidence = dispatch.confidence(values, grid, size)
    share = expected.softmax(dim=1).max(dim=1).values
    assert (confidence - share).abs().max() <= 3e-6 * max(1.0, float(values.abs().max()))


def smooth_scores(classes: int, cells: tuple[int, int], seed: int = 0, count: int = 2) -> Tensor:
    """Like those of a network: neighbors are similar."""
    generator = torch.Generator().manual_seed(seed)
    coarse = 4 * torch.randn(count, classes, 4, 5, generator=generator)
    return F.interpolate(coarse, size=cells, mode="bicubic")


@pytest.mark.parametrize("classes", [2, 11, 21, 150, 300])
@pytest.mark.parametrize("grid", [Grid(8, 3.5), Grid(8, 0), Grid(32, 15.5), Grid(4, -7)])
def test_a_whole_image(backend: str, classes: int, grid: Grid) -> None:
    """Sizes at which every part of the walk runs: tiles, ends of rows, gaps of all lengths."""
    size = (int(grid.stride * 4) + 5, int(min(grid.stride, 8) * 40) + 3)
    values = smooth_scores(classes, (5, 41))
    generator = torch.Generator().manual_seed(1)
    target = torch.randint(0, classes, (2, *size), generator=generator)
    target[:, 2:9, 5:70] = -100
    scores, exact = values.clone().requires_grad_(), values.double().requires_grad_()
    loss = dispatch.loss(scores, grid, target, LossOptions(ignore_index=-100))
    loss.backward()
    full = reference.full(exact, grid, size)
    expected = F.cross_entropy(full, target)
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    assert (scores.grad - exact.grad).abs().max() <= 1e-6 * exact.grad.abs().max()
    labels = dispatch.labels(values, grid, size)
    gap = full.max(dim=1).values - full.gather(1, labels.long()[:, None])[:, 0]
    assert gap.max() <= 1e-6 * values.abs().max()
    confidence = dispatch.confidence(values, grid, size)
    assert (confidence - full.softmax(dim=1).amax(dim=1)).abs().max() < 1e-5


def test_the_gradient_is_no_less_exact_than_that_of_torch(backend: str) -> None:
    """The error against float64, beside that of interpolate and cross_entropy in float32."""
    values = smooth_scores(21, (20, 30))
    target = torch.randint(0, 21, (2, 160, 240), generator=torch.Generator().manual_seed(1))

    def gradient(scores: Tensor, of: Any) -> Tensor:
        scores = scores.clone().requires_grad_()
        of(scores).backward()
        return scores.grad.double()

    def plain(scores: Tensor) -> Tensor:
        return F.cross_entropy(F.interpolate(scores, size=(160, 240), mode="bilinear"), target)

    exact = gradient(values.double(), plain)
    error = (gradient(values, plain) - exact).abs().max()
    scores = gradient(values, lambda scores: dispatch.loss(scores, Grid(8, 3.5), target))
    assert (scores - exact).abs().max() <= error


@pytest.mark.parametrize("scale", [200.0, 1e4, 1e8])
def test_scores_far_apart(backend: str, scale: float) -> None:
    """Between two cells with different confident classes every exponential relative to the
    corners vanishes in float32: the pixel's own maximum is needed."""
    values = scale * torch.tensor([[1.0, -1.0], [-1.0, 1.0], [0.2, 0.2]]).view(1, 3, 1, 2)
    target = torch.randint(0, 3, (1, 3, 16), generator=torch.Generator().manual_seed(0))
    scores, exact = values.clone().requires_grad_(), values.double().requires_grad_()
    grid = Grid(8, 3.5)
    loss = dispatch.loss(scores, grid, target)
    loss.backward()
    expected = F.cross_entropy(reference.full(exact, grid, (3, 16)), target)
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    assert (scores.grad - exact.grad).abs().max() < 1e-5
    assert dispatch.labels(values, grid, (1, 16))[0, 0].tolist() == [0] * 7 + [2, 2] + [1] * 7
    assert dispatch.confidence(values, grid, (3, 16)).min() > 0.5


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_scores_that_are_not_finite(backend: str, bad: float) -> None:
    values = smooth_scores(5, (3, 4))
    values[1, 2, 1, 1] = bad
    values.requires_grad_()
    target = torch.zeros(2, 20, 30, dtype=torch.uint8)
    loss = dispatch.loss(values, Grid(8, 0), target)
    assert math.isnan(loss.item())
    loss.backward()
    assert values.grad.isnan().any()
    for function in (dispatch.labels, dispatch.confidence):
        with pytest.raises(FullconvError, match="scores are NaN or infinite"):
            function(values.detach(), Grid(8, 0), (20, 30))


@pytest.mark.parametrize("dtype", [torch.int8, torch.int16, torch.int32, torch.int64])
@pytest.mark.parametrize("stray", [-1, 5, 100])
def test_an_id_out_of_range_is_named(backend: str, dtype: torch.dtype, stray: int) -> None:
    target = torch.zeros(2, 9, 40, dtype=dtype)
    target[1, 7, 33] = stray
    values = torch.zeros(2, 5, 2, 5)
    message = rf"class ids \[{stray}\]; expected 0..4, or 99 for ignored"
    with pytest.raises(FullconvError, match=message):
        dispatch.loss(values, Grid(8, 0), target, LossOptions(99))
    assert dispatch.loss(values, Grid(8, 0), target, LossOptions(stray)) > 0


@pytest.mark.parametrize("weights", [None, torch.tensor([1.0, 2.0])])
def test_the_loss_of_ignored_pixels_is_zero(backend: str, weights: Tensor | None) -> None:
    values = torch.randn(1, 2, 3, 3, requires_grad=True)
    target = torch.full((1, 9, 9), 255, dtype=torch.uint8)
    loss = dispatch.loss(values, Grid(4, 0), target, LossOptions(255, weights, 0.1))
    assert loss.item() == 0.0
    loss.backward()
    assert values.grad.abs().max() == 0


def test_a_class_of_weight_zero(backend: str) -> None:
    """Equals ignoring it; without another class the loss is 0, not NaN."""
    values = torch.randn(1, 2, 3, 3, requires_grad=True)
    weighted = LossOptions(class_weights=torch.tensor([0.0, 1.0]))
    target = torch.zeros(1, 9, 9, dtype=torch.uint8)
    assert dispatch.loss(values, Grid(4, 0), target, weighted).item() == 0.0
    target[0, 0, 0] = 1
    ignoring = dispatch.loss(values, Grid(4, 0), target, LossOptions(ignore_index=0))
    assert dispatch.loss(values, Grid(4, 0), target, weighted) == ignoring


def test_the_lowest_class_wins_a_tie(backend: str) -> None:
    assert dispatch.labels(torch.zeros(1, 4, 2, 2), Grid(4, 0), (5, 5)).unique().tolist() == [0]
    tied = torch.tensor([0.0, 1.0, 1.0]).view(1, 3, 1, 1).expand(1, 3, 2, 2)
    assert dispatch.labels(tied, Grid(4, 0), (5, 5)).unique().tolist() == [1]
    crossed = torch.tensor([[1.0, 1.0], [1.0, 0.0], [0.0, 1.0]]).view(1, 3, 1, 2)
    assert dispatch.labels(crossed, Grid(4, 0), (5, 5)).unique().tolist() == [0]


def test_ids_have_the_smallest_type_that_holds_them(backend: str) -> None:
    for classes, dtype in ((255, torch.uint8), (256, torch.uint16), (300, torch.uint16)):
        values = torch.zeros(1, classes, 2, 2)
        values[:, classes - 1] = 1
        ids = dispatch.labels(values, Grid(8, 0), (9, 9))
        assert ids.dtype == dtype
        assert (ids.long() == classes - 1).all()


def test_views_need_no_copy(backend: str) -> None:
    """Channels-last, transposed, sliced and expanded scores, without a copy by the caller."""
    values = smooth_scores(6, (7, 9))
    target = torch.randint(0, 6, (2, 50, 66), generator=torch.Generator().manual_seed(3))
    wide = torch.zeros(2, 12, 7, 18)
    wide[:, ::2, :, ::2] = values
    views = [
        values.contiguous(memory_format=torch.channels_last),
        values.transpose(2, 3).contiguous().transpose(2, 3),
        wide[:, ::2, :, ::2],
    ]

    def results(scores: Tensor) -> list[Tensor]:
        tracked = scores.detach().clone(memory_format=torch.preserve_format).requires_grad_()
        loss = dispatch.loss(tracked, Grid(8, 3), target)
        loss.backward()
        labels = dispatch.labels(scores, Grid(8, 3), (50, 66))
        confidence = dispatch.confidence(scores, Grid(8, 3), (50, 66))
        return [loss.detach(), tracked.grad, labels, confidence]

    expected = results(values)
    for view in views:
        for scores, exact in zip(results(view), expected, strict=True):
            torch.testing.assert_close(scores, exact)
    one = values[:1].expand(2, -1, -1, -1)
    assert torch.equal(*dispatch.labels(one, Grid(8, 3), (50, 66)))
    turned = target.transpose(1, 2).contiguous().transpose(1, 2)
    assert dispatch.loss(values, Grid(8, 3), turned) == expected[0]


def test_the_gradient_repeats_exactly(backend: str) -> None:
    values = smooth_scores(4, (8, 8))
    target = torch.randint(0, 4, (2, 60, 60), generator=torch.Generator().manual_seed(3))
    gradients = []
    for _ in range(2):
        tracked = values.clone().requires_grad_()
        dispatch.loss(tracked, Grid(8, 0), target).backward()
        gradients.append(tracked.grad)
    assert torch.equal(*gradients)


def test_no_gradient_is_computed_unless_requested(backend: str) -> None:
    values = torch.randn(1, 2, 3, 3)
    loss = dispatch.loss(values, Grid(4, 0), torch.zeros(1, 9, 9, dtype=torch.uint8))
    assert not loss.requires_grad
    with torch.no_grad():
        tracked = values.clone().requires_grad_()
        again = dispatch.loss(tracked, Grid(4, 0), torch.zeros(1, 9, 9).long())
    assert loss.item() == pytest.approx(again.item())
    assert not again.requires_grad


def test_invalid_options(backend: str) -> None:
    values, target = torch.zeros(1, 5, 2, 2), torch.zeros(1, 9, 9, dtype=torch.uint8)
    for options, message in (
        (
            LossOptions(255, torch.ones(2)),
            r"class_weights has the shape \(2,\); expected one .* 5 classes",
        ),
        (LossOptions(label_smoothing=1.5), r"label_smoothing is 1\.5; expected 0 to 1"),
    ):
        with pytest.raises(FullconvError, match=message):
            dispatch.loss(values, Grid(8, 0), target, options)
    message = "target is on meta but the scores are on cpu"
    with pytest.raises(FullconvError, match=message) as caught:
        dispatch.loss(values, Grid(8, 0), target.to("meta"))
    assert caught.value.hint == "target = target.to(scores.values.device)"


def test_a_gradient_of_the_gradient_is_refused(backend: str) -> None:
    values = torch.randn(1, 2, 3, 3, requires_grad=True)
    loss = dispatch.loss(values, Grid(4, 0), torch.zeros(1, 9, 9, dtype=torch.uint8))
    factor = torch.tensor(2.0, requires_grad=True)
    (slope,) = torch.autograd.grad(factor * loss, values, create_graph=True)
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
